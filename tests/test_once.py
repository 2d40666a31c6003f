"""`once`: runs once, whoever asks, whenever, from whatever loop; only a failure lets the next one try."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.server.once import OnceRecords

WAIT_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Counter:
    """Something with a side effect."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self) -> dict[str, int]:
        self.runs += 1
        await asyncio.sleep(0)
        return {"run": self.runs}


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(main(), WAIT_S)

    return asyncio.run(limited())


def test_the_second_time_gives_what_the_first_gave() -> None:
    records, count = OnceRecords(10, Clock()), Counter()

    async def main() -> None:
        assert await records.run("flow", "order", count, 60) == {"run": 1}
        assert await records.run("flow", "order", count, 60) == {"run": 1}
        assert await records.run_json("flow", "order", count, 60) == b'{"run":1}'
        assert await records.run("flow", "other", count, 60) == {"run": 2}
        assert await records.run("other flow", "order", count, 60) == {"run": 3}
        assert await records.run("flow", "plain", lambda: 7, 60) == 7  # no coroutine
        assert await records.run("flow", "nothing", lambda: None, 60) is None
        assert await records.run("flow", "nothing", lambda: 1, 60) is None

    run(main)


def test_what_one_does_with_the_result_nobody_else_sees() -> None:
    records = OnceRecords(10, Clock())
    made: list[int] = [1]

    async def main() -> None:
        first = await records.run("f", "k", lambda: made, 60)
        first.append(2)
        made.append(3)
        assert await records.run("f", "k", list, 60) == [1]

    run(main)


def test_those_who_come_while_it_runs_wait_for_it() -> None:
    records, count = OnceRecords(10, Clock()), Counter()

    async def main() -> None:
        assert (
            await asyncio.gather(*(records.run("f", "k", count, 60) for _ in range(20))) == [{"run": 1}] * 20
        )

    run(main)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_the_next_one_runs_when_the_first(how: str) -> None:
    records = OnceRecords(10, Clock())
    runs: list[int] = []
    begun = asyncio.Event()

    async def work() -> int:
        runs.append(1)
        begun.set()
        if len(runs) == 1:
            await asyncio.sleep(0.01 if how == "fails" else WAIT_S)
            raise ValueError("the first one's own")
        return len(runs)

    async def main() -> None:
        first = asyncio.create_task(records.run("f", "k", work, 60))
        await begun.wait()
        others = [asyncio.create_task(records.run("f", "k", work, 60)) for _ in range(3)]
        await asyncio.sleep(0)
        if how == "is cancelled":
            first.cancel()
        with pytest.raises((ValueError, asyncio.CancelledError)):
            await first
        assert await asyncio.gather(*others) == [2, 2, 2]

    run(main)
    assert len(runs) == 2


def test_one_that_waits_may_be_cancelled() -> None:
    records, gate = OnceRecords(10, Clock()), asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    async def main() -> None:
        first = asyncio.create_task(records.run("f", "k", work, 60))
        await asyncio.sleep(0)
        second = asyncio.create_task(records.run("f", "k", work, 60))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        assert await first == "done"

    run(main)


def test_time_ends_it() -> None:
    clock = Clock()
    records, count = OnceRecords(10, clock), Counter()

    async def main() -> None:
        await records.run("f", "k", count, 60)
        clock.s += 59.9
        assert await records.run("f", "k", count, 60) == {"run": 1}
        clock.s += 0.1
        assert await records.run("f", "k", count, 60) == {"run": 2}
        assert len(records) == 1

    run(main)


def test_the_least_recently_used_goes_first() -> None:
    records, count = OnceRecords(2, Clock()), Counter()

    async def main() -> None:
        await records.run("f", "a", count, 60)
        await records.run("f", "b", count, 60)
        await records.run("f", "a", count, 60)
        await records.run("f", "c", count, 60)  # b goes
        assert len(records) == 2
        assert await records.run("f", "a", count, 60) == {"run": 1}
        assert await records.run("f", "b", count, 60) == {"run": 4}

    run(main)


def test_what_runs_is_never_evicted() -> None:
    records, gate, runs = OnceRecords(1, Clock()), asyncio.Event(), []

    async def work() -> str:
        runs.append(1)
        await gate.wait()
        return "done"

    async def main() -> None:
        first = asyncio.create_task(records.run("f", "slow", work, 60))
        await asyncio.sleep(0)
        for n in range(5):
            await records.run("f", str(n), lambda: 0, 60)
        second = asyncio.create_task(records.run("f", "slow", work, 60))
        await asyncio.sleep(0)
        gate.set()
        assert [await first, await second] == ["done", "done"]

    run(main)
    assert runs == [1]


def test_a_result_that_is_no_json_is_told_and_not_made_twice() -> None:
    records, runs = OnceRecords(10, Clock()), []

    def work() -> object:
        runs.append(1)
        return object()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(TypeError, match=r"ctx.once\('connect'\).*kept as JSON.*object"):
                await records.run("f", "connect", work, 60)

    run(main)
    assert runs == [1]


class Order(msgspec.Struct):
    number: int


def test_structs_and_pydantic_models_are_json() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", number=(int, ...))

    async def main() -> None:
        records = OnceRecords(10, Clock())
        assert await records.run("f", "struct", lambda: Order(1), 60) == {"number": 1}
        assert await records.run("f", "model", lambda: model(number=2), 60) == {"number": 2}

    run(main)


def test_loops_in_several_threads_share_it() -> None:
    import time

    records = OnceRecords(10, time.monotonic)
    runs: list[int] = []
    results: list[Any] = []
    together = threading.Barrier(4)

    async def work() -> int:
        runs.append(1)
        await asyncio.sleep(0.02)
        return len(runs)

    def serve() -> None:
        async def main() -> None:
            together.wait(WAIT_S)
            results.extend(await asyncio.gather(*(records.run("f", "k", work, 60) for _ in range(3))))

        run(main)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert results == [1] * 12


def test_a_loop_that_closed_while_it_waited() -> None:
    import time

    records = OnceRecords(10, time.monotonic)
    begun, gate = threading.Event(), threading.Event()

    async def slow() -> str:
        begun.set()
        await asyncio.to_thread(gate.wait, WAIT_S)
        return "done"

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(run(lambda: records.run("f", "k", slow, 60))))
    thread.start()
    begun.wait(WAIT_S)
    loop = asyncio.new_event_loop()
    task = loop.create_task(records.run("f", "k", slow, 60))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gate.set()
    thread.join(WAIT_S)
    assert results == ["done"] and task.cancelled()


def test_it_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        OnceRecords(0, Clock())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["ok", "fails"])),
        max_size=30,
    )
)
def test_any_order_of_calls_runs_each_until_it_succeeds_and_never_again(
    calls: list[tuple[str, str, str]],
) -> None:
    records = OnceRecords(100, Clock())
    succeeded: dict[tuple[str, str], int] = {}

    async def call(number: int, flow: str, key: str, outcome: str) -> None:
        async def work() -> int:
            await asyncio.sleep(0)
            if outcome == "fails":
                raise ValueError
            assert (flow, key) not in succeeded
            succeeded[flow, key] = number
            return number

        pending: Awaitable[Any] = records.run(flow, key, work, 60)
        try:
            result = await pending
        except ValueError:
            assert outcome == "fails"
        else:
            assert result == succeeded[flow, key]

    async def main() -> None:
        await asyncio.gather(*(call(number, *one) for number, one in enumerate(calls)))

    run(main)
