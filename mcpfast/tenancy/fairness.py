"""Whose turn it is when the process is full: weighted fair order between tenants; within one, first come, first served.

    a place is free       Gate.acquire (`_quota`): one comparison, and nothing here is asked
    the process is full   FairGate.enter: the call waits in the lane of its tenant
    a call ends           FairGate.leave: its place goes to the call whose turn it is

The order is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with one tag a lane instead of one a call. Virtual time
is the tag of the lane that was served last. A lane that is served moves its tag forward by cost / weight, so lanes with work are
served in proportion to their weights; one that had none starts at the virtual time: it neither saved up turns nor owes any, and
so a quiet tenant is next, however much a greedy one has waiting.

Room to wait is shared, too: a lane holds at most what it leaves free for others. One alone gets half of it, and whoever comes
new finds some.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

from mcpfast._quota import ADMITTED, Gate, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_S_MIN, RETRY_S_MAX = 0.1, 60.0  # an estimate is not more than that
LANES_KEPT = 64  # without anybody waiting, before one looks which of them can go


# ---------------------------------------------------------------- the order


class Waiter:
    """A call that waits for a place. `verdict` is its outcome, once there is one."""

    __slots__ = ("cost", "deadline_s", "future", "lane", "loop", "queued", "verdict")

    future: asyncio.Future[Verdict]  # this and its loop are FairGate's
    loop: asyncio.AbstractEventLoop

    def __init__(self, lane: Lane, cost: float, deadline_s: float) -> None:
        self.lane = lane
        self.cost = cost
        self.deadline_s = deadline_s
        self.queued = True
        self.verdict: Verdict | None = None


class Lane:
    """What waits of one tenant, and when in virtual time it is served next."""

    __slots__ = ("has_turn", "tag", "waiters", "weight")

    def __init__(self) -> None:
        self.tag = 0.0
        self.weight = 1.0
        self.has_turn = False  # it stands in the heap of turns, once
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()


class FairQueue:
    """Calls that wait, `waiting_calls_max` at most, in weighted fair order. No clock and no loop: `now_s` is given."""

    def __init__(self, waiting_calls_max: int) -> None:
        self.waiting_calls_max = waiting_calls_max
        self._lanes: dict[str, Lane] = {}  # with waiters, or served ahead of virtual time
        self._turns: list[tuple[float, int, Lane]] = []  # a heap by tag; among equals the one that came first
        self._turn_number = 0
        self._virtual = 0.0
        self._waiting = 0
        self._lanes_swept_at = LANES_KEPT
        self._pace_s = 0.0  # how long it takes until a place is free; a moving average
        self._popped_s = 0.0

    def __len__(self) -> int:
        return self._waiting

    def push(
        self,
        tenant: str,
        now_s: float,
        *,
        weight: float = 1.0,
        queued_calls_max: int = 0,
        cost: float = 1.0,
        deadline_s: float = inf,
    ) -> Waiter | Verdict:
        """One more waits; or the Verdict why it may not: its tenant has `queued_calls_max` waiting, or its share of the queue.

        `weight` and `cost` are above 0: a tenant of weight 3 is served three times as often as one of weight 1, and a call of
        cost 5 counts as five. `deadline_s` is on the clock of `now_s`.
        """
        if not (0.0 < weight < inf and 0.0 < cost < inf):
            raise ValueError(f"weight ({weight}) and cost ({cost}) must be finite and above 0")
        lane = self._lanes.get(tenant)
        mine = len(lane.waiters) if lane else 0
        if deadline_s <= now_s:
            return self._refusal("deadline", now_s)
        if mine >= self.waiting_calls_max - self._waiting:
            return self._refusal("waiting_calls_max", now_s)
        if mine >= queued_calls_max:
            return self._refusal("queued_calls_max", now_s)
        if lane is None:
            lane = self._lanes[tenant] = Lane()
        lane.weight = weight
        waiter = Waiter(lane, cost, deadline_s)
        lane.waiters[waiter] = None
        if not self._waiting:
            self._popped_s = now_s
        self._waiting += 1
        self._give_turn(lane)
        self._sweep()
        return waiter

    def pop(self, now_s: float) -> Waiter | None:
        """The waiter whose turn it is, out of the queue. Those whose deadline is over by then are refused on the way."""
        while self._turns:
            tag, _, lane = heapq.heappop(self._turns)
            lane.has_turn = False
            waiter = self._head(lane, now_s)
            if waiter is not None:
                self._serve(waiter, tag, now_s)
                return waiter
        return None

    def remove(self, waiter: Waiter) -> bool:
        """Takes a waiter out, wherever it stands; False: it is out already."""
        if not waiter.queued:
            return False
        waiter.queued = False
        del waiter.lane.waiters[waiter]
        self._waiting -= 1
        if not self._waiting:  # nobody is ahead of anybody any more
            self._lanes.clear()
            self._turns.clear()
            self._virtual = 0.0
        return True

    def expire(self, waiter: Waiter, now_s: float) -> bool:
        """Refuses a waiter whose deadline is over; False: it is out already."""
        if not self.remove(waiter):
            return False
        waiter.verdict = self._refusal("deadline", now_s)
        return True

    def retry_after_s(self, now_s: float) -> float:
        """An estimate of when one who comes back finds a place: all that wait now have had theirs."""
        pace_s = self._pace_s
        if self._waiting:
            pace_s = max(pace_s, now_s - self._popped_s)  # nothing moves
        return min(max(pace_s * (self._waiting + 1), RETRY_S_MIN), RETRY_S_MAX)

    # ---------------------------------------------------------------- within

    def _head(self, lane: Lane, now_s: float) -> Waiter | None:
        """The first waiter of a lane that is not late."""
        while lane.waiters:
            waiter = next(iter(lane.waiters))
            if waiter.deadline_s > now_s:
                return waiter
            self.expire(waiter, now_s)
        return None

    def _serve(self, waiter: Waiter, tag: float, now_s: float) -> None:
        lane = waiter.lane
        self._virtual = tag
        lane.tag = tag + waiter.cost / lane.weight
        self._pace_s += (max(now_s - self._popped_s, 0.0) - self._pace_s) / 8
        self._popped_s = now_s
        waiter.verdict = ADMITTED
        self.remove(waiter)
        if lane.waiters:
            self._give_turn(lane)

    def _give_turn(self, lane: Lane) -> None:
        # A lane that emptied and filled again still has its turn: none is left in the heap whose tag is below virtual time, so
        # that tag is what it would get now.
        if lane.has_turn:
            return
        lane.has_turn = True
        lane.tag = max(lane.tag, self._virtual)
        self._turn_number += 1
        heapq.heappush(self._turns, (lane.tag, self._turn_number, lane))

    def _sweep(self) -> None:
        """Forgets lanes that would start at the virtual time anyway, when there are many."""
        if len(self._lanes) <= self._lanes_swept_at:
            return
        self._lanes = {
            tenant: lane
            for tenant, lane in self._lanes.items()
            if lane.has_turn or lane.waiters or lane.tag > self._virtual
        }
        self._lanes_swept_at = max(LANES_KEPT, 2 * len(self._lanes))

    def _refusal(self, limit: str, now_s: float) -> Verdict:
        level = "tenant" if limit == "queued_calls_max" else "process"
        return Verdict(limit, level, self.retry_after_s(now_s))


# ---------------------------------------------------------------- those who wait


class FairGate:
    """A Gate whose places, when all are taken, go to waiting calls in fair order.

    Loops of several threads may share it. Before `enter`, a caller asks `gate.acquire()`, and after its call it may ask
    `gate.release()` itself, and `hand_over` only where that says so: then no call pays for this that finds a place.
    """

    def __init__(self, gate: Gate, waiting_calls_max: int, clock: Callable[[], float]) -> None:
        self.gate = gate
        self._queue = FairQueue(waiting_calls_max)
        self._clock = clock
        self._lock = threading.Lock()  # around the queue; the gate needs none

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    async def enter(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        queued_calls_max: int = 0,
        cost: float = 1.0,
        deadline_s: float = inf,
    ) -> Verdict:
        """ADMITTED: this call has a place, until `leave`. Otherwise why it gets none, at once or when its deadline has come.

        The arguments are those of `FairQueue.push`. Cancelling whoever awaits this gives up the place in the queue.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self.gate.wait():
                return ADMITTED
            try:
                waiter = self._queue.push(
                    tenant,
                    self._clock(),
                    weight=weight,
                    queued_calls_max=queued_calls_max,
                    cost=cost,
                    deadline_s=deadline_s,
                )
                if isinstance(waiter, Verdict):
                    return waiter
                waiter.future, waiter.loop = loop.create_future(), loop
            finally:
                self.gate.waiting = len(self._queue)
        timer = None
        if deadline_s < inf:
            timer = loop.call_later(max(deadline_s - self._clock(), 0.0), self._expire, waiter)
        self.hand_over()  # should a place have become free without anybody who saw it
        try:
            return await waiter.future
        except GeneratorExit:
            # The coroutine is dropped, perhaps by garbage collection inside of the lock: only what needs no lock.
            waiter.deadline_s = -inf
            if waiter.verdict is ADMITTED:
                self.gate.release()
            raise
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        """A call that had a place is over."""
        if self.gate.release():
            self.hand_over()

    def resize(self, limit: int) -> None:
        """From now on so many calls run at most, 0: any number. Those above it end as they would."""
        self.gate.limit = limit
        self.hand_over()

    def hand_over(self) -> None:
        """Gives what places are free to those whose turn it is."""
        again = True
        while again:
            again = False
            for waiter in self._placed():
                if not self._wake(waiter) and self.gate.release():
                    again = True

    # ---------------------------------------------------------------- within

    def _placed(self) -> list[Waiter]:
        """Waiters that have a place now, one for each that was free."""
        placed: list[Waiter] = []
        with self._lock:
            while len(self._queue) and self.gate.take():
                waiter = self._queue.pop(self._clock())
                if waiter is None:  # all of them were late
                    self.gate.release()
                else:
                    placed.append(waiter)
            self.gate.waiting = len(self._queue)
        return placed

    def _wake(self, waiter: Waiter) -> bool:
        """Tells a waiter that it has a place; False: its loop is closed, nobody is there any more, and the place is free."""
        try:
            if waiter.loop is running_loop():
                self._resolve(waiter)
            else:
                waiter.loop.call_soon_threadsafe(self._resolve, waiter)
        except RuntimeError:
            waiter.verdict = None
            return False
        return True

    @staticmethod
    def _resolve(waiter: Waiter) -> None:
        if waiter.verdict is not None and not waiter.future.done():
            waiter.future.set_result(waiter.verdict)

    def _expire(self, waiter: Waiter) -> None:
        """The deadline has come; perhaps `pop` has seen it first, or a place was on its way to another thread's loop."""
        with self._lock:
            self._queue.expire(waiter, self._clock())
            self.gate.waiting = len(self._queue)
        self._resolve(waiter)

    def _abandon(self, waiter: Waiter) -> None:
        """Its task was cancelled: out of the queue, and a place that was given in the same moment goes on."""
        with self._lock:
            self._queue.remove(waiter)
            self.gate.waiting = len(self._queue)
        if waiter.verdict is ADMITTED:
            self.leave()


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
