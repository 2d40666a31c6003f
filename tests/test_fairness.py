"""Whose turn it is when the process is full: shares by weight, nobody starved, and no trace of those who went away."""

from __future__ import annotations

import asyncio
import gc
import random
import selectors
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast._quota import ADMITTED, Gate, Verdict
from mcpfast.tenancy.fairness import LANES_KEPT, RETRY_S_MAX, RETRY_S_MIN, FairGate, FairQueue, Waiter

ROOM = 1 << 20


def push(queue: FairQueue, tenant: str, now_s: float = 0.0, **given: Any) -> Waiter:
    waiter = queue.push(tenant, now_s, **{"queued_calls_max": ROOM, **given})
    assert isinstance(waiter, Waiter)
    return waiter


def refused(queue: FairQueue, tenant: str, now_s: float = 0.0, **given: Any) -> Verdict:
    verdict = queue.push(tenant, now_s, **{"queued_calls_max": ROOM, **given})
    assert isinstance(verdict, Verdict)
    return verdict


def no_trace(queue: FairQueue) -> bool:
    return not (len(queue) or queue._lanes or queue._turns)


# ---------------------------------------------------------------- the order


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0), (0.5, 0.125), (10.0, 1.0), (1.0, 1.0, 2.0)])
def test_shares_are_those_of_the_weights(weights: tuple[float, ...]) -> None:
    queue, served = FairQueue(ROOM), Counter[int]()
    owners = {}
    for tenant, weight in enumerate(weights):
        for _ in range(1000):
            owners[push(queue, str(tenant), weight=weight)] = tenant
    for _ in range(1000):
        waiter = queue.pop(0.0)
        assert waiter is not None
        served[owners[waiter]] += 1
    for tenant, weight in enumerate(weights):
        assert served[tenant] == pytest.approx(1000 * weight / sum(weights), rel=0.01, abs=1)


def test_shares_hold_for_those_who_come_again_and_again() -> None:
    """One call each in the queue at any time: the second comes only when the first is served."""
    queue, served = FairQueue(ROOM), Counter[str]()
    waiting = {push(queue, "a", weight=3.0): "a", push(queue, "b"): "b", push(queue, "b"): "b"}
    for _ in range(1000):
        waiter = queue.pop(0.0)
        assert waiter is not None
        tenant = waiting.pop(waiter)
        served[tenant] += 1
        waiting[push(queue, tenant, weight=3.0 if tenant == "a" else 1.0)] = tenant
    assert served == {"a": pytest.approx(750, abs=3), "b": pytest.approx(250, abs=3)}


def test_within_a_tenant_the_first_is_first() -> None:
    queue = FairQueue(ROOM)
    waiters = [push(queue, "a") for _ in range(50)]
    assert [queue.pop(0.0) for _ in range(50)] == waiters
    assert queue.pop(0.0) is None


def test_a_greedy_tenant_cannot_starve_a_quiet_one() -> None:
    queue = FairQueue(ROOM)
    for _ in range(10_000):
        push(queue, "greedy")
    for _ in range(5_000):
        queue.pop(0.0)
    quiet = push(queue, "quiet")
    assert queue.pop(0.0) is quiet
    for _ in range(100):  # nor does it owe anything for coming often
        quiet = push(queue, "quiet")
        assert quiet in (queue.pop(0.0), queue.pop(0.0))


def test_nobody_saves_up_turns() -> None:
    queue = FairQueue(ROOM)
    for _ in range(2000):
        push(queue, "always")
    push(queue, "late")
    for _ in range(1000):
        queue.pop(0.0)
    lane = next(iter([push(queue, "late") for _ in range(1000)])).lane
    served = [queue.pop(0.0) for _ in range(100)]
    assert sum(waiter is not None and waiter.lane is lane for waiter in served) == pytest.approx(50, abs=1)


def test_nobody_gets_rid_of_what_it_has_used() -> None:
    """A tenant that was served ahead of its share waits for the others, also when many have come and gone meanwhile."""
    queue = FairQueue(ROOM)
    push(queue, "dear", cost=1000.0)
    for _ in range(500):
        push(queue, "cheap")
    queue.pop(0.0)
    for n in range(4 * LANES_KEPT):
        queue.remove(push(queue, f"passing {n}"))
    dear = push(queue, "dear")
    assert dear not in [queue.pop(0.0) for _ in range(500)]
    assert queue.pop(0.0) is dear


def test_a_large_call_counts_as_many() -> None:
    queue, served = FairQueue(ROOM), Counter[float]()
    for _ in range(100):
        push(queue, "large", cost=5.0)
        push(queue, "small")
    for _ in range(60):
        waiter = queue.pop(0.0)
        assert waiter is not None
        served[waiter.cost] += 1
    assert served == {5.0: 10, 1.0: 50}


def test_the_weight_that_was_told_last_holds() -> None:
    queue = FairQueue(ROOM)
    for _ in range(100):
        push(queue, "a", weight=1.0)
        push(queue, "b", weight=1.0)
    lane = push(queue, "a", weight=9.0).lane
    served = [queue.pop(0.0) for _ in range(100)]
    assert sum(waiter is not None and waiter.lane is lane for waiter in served) == pytest.approx(90, abs=1)


@pytest.mark.parametrize("given", [{"weight": 0.0}, {"weight": -1.0}, {"weight": inf}, {"cost": 0.0}])
def test_what_has_no_share(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        FairQueue(ROOM).push("a", 0.0, queued_calls_max=1, **given)


@given(
    st.lists(st.sampled_from([0.25, 1.0, 2.0, 5.0]), min_size=2, max_size=4),
    st.lists(st.sampled_from([0.5, 1.0, 4.0]), min_size=200, max_size=200),
    st.integers(1, 199),
)
def test_no_lane_is_ahead_by_more_than_one_call_each(
    weights: list[float], costs: list[float], pops: int
) -> None:
    """The bound of start-time fair queueing, for lanes that have work all the time."""
    queue = FairQueue(ROOM)
    for tenant, weight in enumerate(weights):
        for cost in costs:
            push(queue, str(tenant), weight=weight, cost=cost)
    lanes = list(queue._lanes.values())
    work = [0.0 for _ in weights]
    for _ in range(pops):
        waiter = queue.pop(0.0)
        assert waiter is not None
        work[lanes.index(waiter.lane)] += waiter.cost
    for one, weight in enumerate(weights):
        for other, other_weight in enumerate(weights):
            ahead = work[one] / weight - work[other] / other_weight
            assert ahead <= max(costs) / weight + max(costs) / other_weight + 1e-9


# ---------------------------------------------------------------- room to wait


def test_a_tenant_has_so_many_waiting() -> None:
    queue = FairQueue(100)
    for _ in range(3):
        push(queue, "a", queued_calls_max=3)
    verdict = refused(queue, "a", queued_calls_max=3)
    assert (verdict.limit, verdict.level) == ("queued_calls_max", "tenant")
    queue.pop(0.0)
    push(queue, "a", queued_calls_max=3)
    assert refused(queue, "b", queued_calls_max=0).limit == "queued_calls_max"


def test_room_is_left_for_those_who_come_new() -> None:
    queue = FairQueue(100)
    for _ in range(50):
        push(queue, "greedy")
    verdict = refused(queue, "greedy")
    assert (verdict.limit, verdict.level) == ("waiting_calls_max", "process")
    for _ in range(25):
        push(queue, "second")
    refused(queue, "second")
    for tenant in range(25):
        push(queue, f"quiet {tenant}")
    assert len(queue) == 100
    refused(queue, "one too many")
    queue.pop(0.0)
    push(queue, "one too many")


def test_a_refusal_estimates_when_to_come_back() -> None:
    queue = FairQueue(32)
    assert queue.retry_after_s(0.0) == RETRY_S_MIN
    for _ in range(16):
        push(queue, "a")
    assert refused(queue, "a").retry_after_s == RETRY_S_MIN  # nothing is known yet
    for second in range(1, 200):  # one place a second
        queue.pop(second)
        push(queue, "a", second)
    assert refused(queue, "a", 199.0).retry_after_s == pytest.approx(17, rel=0.01)
    assert refused(queue, "a", 202.0).retry_after_s == pytest.approx(3 * 17, rel=0.01)  # it came to a stop
    assert refused(queue, "a", 1e9).retry_after_s == RETRY_S_MAX


# ---------------------------------------------------------------- those who go away


def test_who_goes_away_leaves_no_trace() -> None:
    queue = FairQueue(ROOM)
    waiters = [push(queue, str(n % 7)) for n in range(1000)]
    random.Random(6).shuffle(waiters)
    for waiter in waiters:
        assert queue.remove(waiter)
        assert not queue.remove(waiter)
    assert no_trace(queue)
    assert queue.pop(0.0) is None


def test_coming_and_going_while_nothing_moves_piles_up_nothing() -> None:
    queue = FairQueue(ROOM)
    push(queue, "patient")
    for n in range(10_000):
        queue.remove(push(queue, f"{n % 100}"))
    assert len(queue._turns) <= 101 and len(queue._lanes) <= 101 and len(queue) == 1


def test_who_went_away_is_not_paid_for() -> None:
    queue = FairQueue(ROOM)
    push(queue, "b")
    for waiter in [push(queue, "a") for _ in range(100)]:
        queue.remove(waiter)
    push(queue, "b")
    last = push(queue, "a")
    assert last in (queue.pop(0.0), queue.pop(0.0))


def test_tenants_of_the_past_are_forgotten() -> None:
    queue = FairQueue(ROOM)
    for _ in range(2000):
        push(queue, "busy")
    for n in range(1000):
        push(queue, f"once {n}")
        queue.pop(0.0)
        queue.pop(0.0)
    assert len(queue._lanes) <= 2 * LANES_KEPT


def test_who_is_late_is_refused_and_not_served() -> None:
    queue = FairQueue(ROOM)
    late = [push(queue, "a", deadline_s=5.0) for _ in range(3)]
    on_time = push(queue, "a", deadline_s=5.001)
    assert queue.pop(5.0) is on_time
    assert on_time.verdict is ADMITTED
    for waiter in late:
        assert waiter.verdict is not None and waiter.verdict.limit == "deadline" and not waiter.queued
    assert refused(queue, "a", 5.0, deadline_s=5.0).limit == "deadline"
    push(queue, "a", 5.0, deadline_s=6.0)
    assert queue.pop(6.0) is None
    assert no_trace(queue)


KINDS = st.sampled_from(["push", "push", "pop", "remove", "expire"])
ACTS = st.lists(st.tuples(KINDS, st.integers(0, 5), st.integers(0, 9)), max_size=120)


@given(ACTS, st.integers(0, 20))
def test_everybody_gets_out_once_and_in_order(acts: list[tuple[str, int, int]], room: int) -> None:
    queue, model, now_s = FairQueue(room), {str(n): list[Waiter]() for n in range(6)}, 0.0
    for act, tenant, number in acts:
        now_s += 0.25
        waiting = [waiter for lane in model.values() for waiter in lane]
        if act == "push":
            lane = model[str(tenant)]
            deadline_s = now_s + number if number else inf
            made = queue.push(
                str(tenant),
                now_s,
                queued_calls_max=5,
                weight=tenant + 1,
                cost=number + 1,
                deadline_s=deadline_s,
            )
            free = len(lane) < 5 and len(lane) < room - len(waiting)
            assert isinstance(made, Waiter) == free
            if isinstance(made, Waiter):
                lane.append(made)
        elif act == "pop":
            popped = queue.pop(now_s)
            gone = [waiter for waiter in waiting if not waiter.queued]
            assert (popped is None) == all(waiter.deadline_s <= now_s for waiter in waiting)
            assert all(waiter is popped or waiter.deadline_s <= now_s for waiter in gone)
            for lane in model.values():
                if popped in lane:
                    assert all(waiter.deadline_s <= now_s for waiter in lane[: lane.index(popped)])
                lane[:] = [waiter for waiter in lane if waiter.queued]
        elif waiting:
            waiter = waiting[number % len(waiting)]
            assert queue.remove(waiter) if act == "remove" else queue.expire(waiter, now_s)
            assert (waiter.verdict is None) == (act == "remove")
            for lane in model.values():
                lane[:] = [waiter for waiter in lane if waiter.queued]
        assert len(queue) == sum(map(len, model.values()))
        assert len(queue._turns) <= len(queue._lanes) <= 6
    while queue.pop(now_s):
        pass
    assert no_trace(queue)


# ---------------------------------------------------------------- those who wait


class Clockwork(selectors.SelectSelector):
    """Where a loop would sleep, its clock moves instead."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.now_s += max(timeout, 0.0)
        return ready


def run(main: Callable[[Callable[[], float]], Coroutine[Any, Any, None]]) -> None:
    clock = Clockwork()

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(clock)
        loop.time = lambda: clock.now_s  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main(lambda: clock.now_s))


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def enter(gate: FairGate, tenant: str, **given: Any) -> asyncio.Task[Verdict]:
    return asyncio.create_task(gate.enter(tenant, **{"queued_calls_max": ROOM, **given}))


def at_rest(gate: FairGate) -> bool:
    return no_trace(gate._queue) and gate.gate.running == gate.gate.waiting == 0


def test_a_free_place_is_taken_at_once() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 10, clock)
        assert await gate.enter("a") is ADMITTED
        assert gate.gate.running == 1
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_places_go_round_in_fair_order() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate, order = FairGate(Gate(2), ROOM, clock), list[str]()

        async def call(tenant: str, weight: float) -> None:
            assert (await gate.enter(tenant, weight=weight, queued_calls_max=ROOM)).admitted
            order.append(tenant)
            assert gate.gate.running <= 2
            await asyncio.sleep(0.01)
            gate.leave()

        async with asyncio.TaskGroup() as group:
            for _ in range(400):
                group.create_task(call("heavy", 3.0))
            for _ in range(400):
                group.create_task(call("light", 1.0))
        assert Counter(order[2:402]) == {
            "heavy": pytest.approx(300, abs=6),
            "light": pytest.approx(100, abs=6),
        }
        assert len(order) == 800
        assert at_rest(gate)

    run(main)


def test_a_quiet_tenant_waits_for_one_place_only() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(4), ROOM, clock)

        async def greedy() -> None:
            if (await gate.enter("greedy", queued_calls_max=ROOM)).admitted:
                await asyncio.sleep(1.0)
                gate.leave()

        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(greedy())
            await asyncio.sleep(3.5)
            assert (await gate.enter("quiet", queued_calls_max=1)).admitted
            assert clock() == pytest.approx(1004.0)
            gate.leave()
        assert at_rest(gate)

    run(main)


def test_overload_is_shed_at_once() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 4, clock)
        assert await gate.enter("a") is ADMITTED
        waiting = [enter(gate, "a") for _ in range(2)]
        await turns()
        before_s = clock()
        verdict = await gate.enter("a", queued_calls_max=ROOM)
        assert (verdict.limit, verdict.retry_after_s, clock()) == ("waiting_calls_max", RETRY_S_MIN, before_s)
        assert (await gate.enter("b")).limit == "queued_calls_max"
        assert gate.gate.waiting == len(gate) == 2
        for task in waiting:
            gate.leave()
            assert await task is ADMITTED
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_a_deadline_is_kept() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 10, clock)
        await gate.enter("a")
        soon, later = enter(gate, "a", deadline_s=1002.0), enter(gate, "a", deadline_s=1005.0)
        verdict = await soon
        assert (verdict.limit, verdict.level) == ("deadline", "process")
        assert clock() == pytest.approx(1002.0)
        assert gate.gate.waiting == len(gate) == 1
        await asyncio.sleep(1004.5 - clock())
        gate.leave()
        assert await later is ADMITTED
        assert (await gate.enter("a", queued_calls_max=1, deadline_s=clock())).limit == "deadline"
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_who_is_late_does_not_take_the_place_of_another() -> None:
    """The place becomes free after the deadline, before the timer had its turn."""

    async def main(clock: Callable[[], float]) -> None:
        shift_s = 0.0
        gate = FairGate(Gate(1), 10, lambda: clock() + shift_s)
        await gate.enter("a")
        late, other = enter(gate, "a", deadline_s=1002.0), enter(gate, "a")
        only_late = enter(gate, "b", deadline_s=1002.0)
        await turns()
        shift_s = 2.0
        gate.leave()
        assert await other is ADMITTED
        assert not late.done()
        assert (await late).limit == (await only_late).limit == "deadline"
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_all_who_wait_are_late() -> None:
    async def main(clock: Callable[[], float]) -> None:
        shift_s = 0.0
        gate = FairGate(Gate(1), 10, lambda: clock() + shift_s)
        await gate.enter("a")
        late = [enter(gate, "a", deadline_s=1002.0) for _ in range(3)]
        await turns()
        shift_s = 2.0
        gate.leave()
        assert at_rest(gate)
        assert {(await task).limit for task in late} == {"deadline"}
        assert at_rest(gate)

    run(main)


def test_who_is_cancelled_gives_up_its_place_in_the_queue() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        tasks = [enter(gate, "a", deadline_s=2000.0) for _ in range(10)]
        await turns()
        for task in tasks[:9]:
            task.cancel()
        await turns()
        assert all(task.cancelled() for task in tasks[:9])
        assert gate.gate.waiting == len(gate) == 1
        gate.leave()
        assert await tasks[9] is ADMITTED
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_a_place_given_to_one_who_is_cancelled_goes_on() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        first, second = enter(gate, "a"), enter(gate, "a")
        await turns()
        gate.leave()  # the place is on its way to the first
        first.cancel()
        assert await second is ADMITTED
        assert first.cancelled()
        assert gate.gate.running == 1
        second_last = enter(gate, "a")
        await turns()
        gate.leave()
        second_last.cancel()
        await turns()
        assert at_rest(gate)

    run(main)


def test_who_was_cancelled_is_not_kept_alive() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        task = enter(gate, "b", deadline_s=1e6)
        await turns()
        (waiter,) = gate._queue._lanes["b"].waiters
        future = weakref.ref(waiter.future)
        del waiter
        enter_other = enter(gate, "c")
        await turns()
        task.cancel()
        await turns()
        del task
        gc.collect()
        assert future() is None
        gate.leave()
        assert await enter_other is ADMITTED

    run(main)


def test_a_coroutine_that_is_dropped_holds_nothing() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        queued, placed = [gate.enter("a", queued_calls_max=ROOM) for _ in range(2)]
        queued.send(None)
        queued.close()
        placed.send(None)
        gate.leave()
        assert gate.gate.running == 1 and len(gate) == 0
        placed.close()
        assert at_rest(gate)
        await gate.enter("a")
        placed, other = gate.enter("a", queued_calls_max=ROOM), enter(gate, "b")
        placed.send(None)
        await turns()
        gate.leave()
        placed.close()  # nobody may hand the place over now,
        last = enter(gate, "c")
        assert await other is ADMITTED  # so who comes next does
        gate.leave()
        assert await last is ADMITTED
        gate.leave()
        assert at_rest(gate)

    run(main)


def test_more_places_are_given_at_once() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        tasks = [enter(gate, "a") for _ in range(10)]
        await turns()
        gate.resize(4)
        await turns()
        assert sum(task.done() for task in tasks) == 3
        gate.resize(2)
        gate.leave()
        gate.leave()
        await turns()
        assert sum(task.done() for task in tasks) == 3
        gate.resize(0)
        await asyncio.gather(*tasks)
        assert gate.gate.running == 9

    run(main)


def test_a_bad_weight_is_not_counted() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")
        with pytest.raises(ValueError, match="finite and above 0"):
            await gate.enter("a", weight=0.0, queued_calls_max=1)
        gate.leave()
        assert at_rest(gate)

    run(main)


# ---------------------------------------------------------------- several loops


def test_loops_of_several_threads_share_the_places() -> None:
    import time

    gate, seen, most = FairGate(Gate(3), ROOM, time.monotonic), Counter[str](), list[int]()

    async def calls(tenant: str) -> None:
        async def call() -> None:
            assert (await gate.enter(tenant, queued_calls_max=ROOM)).admitted
            most.append(gate.gate.running)
            await asyncio.sleep(0)
            seen[tenant] += 1
            gate.leave()

        await asyncio.gather(*[call() for _ in range(200)])

    threads = [threading.Thread(target=lambda n=n: asyncio.run(calls(str(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == {str(n): 200 for n in range(4)}
    assert max(most) <= 3
    assert at_rest(gate)


def test_a_place_for_a_loop_that_is_closed_goes_on() -> None:
    async def main(clock: Callable[[], float]) -> None:
        gate = FairGate(Gate(1), 100, clock)
        await gate.enter("a")

        def lose() -> None:
            loop = asyncio.new_event_loop()
            for _ in range(3):
                task = loop.create_task(gate.enter("gone", queued_calls_max=ROOM))
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                lost.append(task)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        lost: list[asyncio.Task[Verdict]] = []
        thread = threading.Thread(target=lose)
        thread.start()
        thread.join()
        last = [enter(gate, "a") for _ in range(2)]
        await turns()
        assert len(gate) == 5
        gate.leave()
        assert await last[0] is ADMITTED
        lost.clear()
        gc.collect()  # what they still hold is not given back twice
        assert gate.gate.running == 1
        gate.leave()
        assert await last[1] is ADMITTED
        gate.leave()
        assert at_rest(gate)

    run(main)
