"""Stalls of the loop, measured by itself and looked at from a thread beside it.

    loop      a timer, every few milliseconds: how late does it come?                        -- a beat
    watcher   the beat is late by more than the threshold: looks where the loop's thread stands, again and again, until it comes
    loop      the beat comes at last: a stall, as long as it was late, with all that was seen meanwhile

A stall is measured on the loop, since the watcher needs the interpreter's lock even to look at a clock. C code that holds the
lock all the time keeps it from looking. It gets its chance when that code returns, so what it sees then is the line that called it;
such a stall is marked as `held`. Of each stall up to one beat of its beginning is missing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter, deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mcpfast.live.messages import Seen, Stack, Stall, Taken
from mcpfast.live.places import Handlers, stack_of

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer

THRESHOLD_S_MIN = 0.005  # loops count in whole milliseconds
BEAT_S_MAX = 0.005
LOOK_S, LOOK_S_MAX = 0.005, 0.05  # between two looks at a stall: less and less often, the longer it lasts
NAP_S_MAX = 0.2  # of the watcher: the visitor may have gone
STALLS_MAX, LAGS_MAX = 500, 8_192  # kept between two questions of the visitor
STACKS_MAX = 6  # of one stall


class StallWatch:
    """Made on the loop's own thread. `take` is what was seen, `close` ends it; the thread goes with its next look."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: MCPServer[Any], threshold_s: float) -> None:
        self.threshold_s = max(threshold_s, THRESHOLD_S_MIN)
        self.beat_s = min(self.threshold_s / 4, BEAT_S_MAX)
        self._loop = loop
        self._server = server
        self._watched = threading.get_ident()
        self._over = False
        self._beats = 0
        self._looks: _Looks | None = None  # at the beat that is late; from the watcher to the loop
        self._lags: deque[tuple[float, float]] = deque(maxlen=LAGS_MAX)
        self._stalls: deque[tuple[Stall, list[Stack]]] = deque()
        self._lost, self._lost_s = 0, 0.0
        self._cpu_s = time.thread_time()
        self._beat_later()
        threading.Thread(target=self._watch, name="mcpfast-stalls", daemon=True).start()

    # ---------------------------------------------------------------- on the loop

    def _beat_later(self) -> None:
        self._due_s = perf_counter() + self.beat_s
        self._timer = self._loop.call_later(self.beat_s, self._beat)

    def _beat(self) -> None:
        lag_s = max(0.0, perf_counter() - self._due_s)
        cpu_s, self._cpu_s = self._cpu_s, time.thread_time()
        self._lags.append((self._due_s, lag_s))
        if lag_s >= self.threshold_s:
            self._keep(lag_s, min(self._cpu_s - cpu_s, lag_s))
        self._beat_later()
        self._beats += 1  # behind the new due time: the watcher reads them the other way round

    def _keep(self, lag_s: float, cpu_s: float) -> None:
        if len(self._stalls) >= STALLS_MAX:
            self._lost += 1
            self._lost_s += lag_s
            return
        looks = self._looks
        if looks is None or looks.beat != self._beats:  # nobody could look: not even afterwards
            looks = _Looks(self._beats, self._due_s, self.threshold_s)
        looks.end(perf_counter())
        stacks = [stack for stack, _ in looks.seen.most_common(STACKS_MAX)]
        if looks.first is not None and looks.first not in stacks:
            stacks.append(looks.first)
        stall = Stall(
            begin_s=self._due_s,
            duration_s=lag_s,
            cpu_s=cpu_s,
            stacks=[Seen(at, looks.seen[stack]) for at, stack in enumerate(stacks)],
            first=stacks.index(looks.first) if looks.first is not None else -1,
            handler=looks.handler,
            held=looks.blind_s > lag_s / 2,
        )
        self._stalls.append((stall, stacks))

    def take(self) -> Taken:
        """Since the last time, on the clock `perf_counter`."""
        taken = Taken(perf_counter(), lags=list(self._lags))
        self._lags.clear()
        places: dict[Stack, int] = {}
        while self._stalls:
            stall, stacks = self._stalls.popleft()
            at = [places.setdefault(stack, len(places)) for stack in stacks]
            stall.first = at[stall.first] if at else -1
            stall.stacks = [Seen(at[seen.stack], seen.seconds) for seen in stall.stacks]
            taken.stalls.append(stall)
        taken.stacks = list(places)
        taken.lost, self._lost = self._lost, 0
        taken.lost_s, self._lost_s = self._lost_s, 0.0
        return taken

    def close(self) -> None:
        self._over = True
        self._timer.cancel()

    # ---------------------------------------------------------------- in the watcher's thread

    def _watch(self) -> None:
        handlers = Handlers(self._server)
        pause_s = LOOK_S
        while not self._over:
            beat, due_s = self._beats, self._due_s
            early_s = due_s + self.threshold_s - perf_counter()
            if early_s > 0:  # it can be no stall before that, so nobody is disturbed
                pause_s = LOOK_S
                time.sleep(min(early_s, NAP_S_MAX))
                continue
            self._look(handlers, beat, due_s)
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.1, LOOK_S_MAX)

    def _look(self, handlers: Handlers, beat: int, due_s: float) -> None:
        """Where the loop's thread stands, while this beat is late."""
        looks = self._looks
        if looks is None or looks.beat != beat:
            looks = _Looks(beat, due_s, self.threshold_s)
        frame = sys._current_frames().get(self._watched)
        looks.add(stack_of(frame, handlers.packages), handlers.on(frame))
        if self._beats == beat:  # it has not come meanwhile: what was seen is of this stall
            self._looks = looks


class _Looks:
    """What was seen of one beat that was due at `due_s` and is late; who looks first comes `grace_s` after it."""

    def __init__(self, beat: int, due_s: float, grace_s: float) -> None:
        self.beat = beat
        self.seen: Counter[Stack] = Counter()  # in seconds: a look stands for the time since the one before
        self.first: Stack | None = None
        self.last: Stack | None = None
        self.handler = ""
        self.blind_s = 0.0  # the longest time in which a look was due, and none possible
        self._last_s = due_s
        self._patience_s = grace_s + LOOK_S_MAX

    def add(self, stack: Stack, handler: str) -> None:
        if self.first is None:
            self.first = stack
        self.last = stack
        self.handler = self.handler or handler
        self.end(perf_counter())

    def end(self, now_s: float) -> None:
        """Until now the last stack is to blame."""
        passed_s, self._last_s = now_s - self._last_s, now_s
        self.blind_s = max(self.blind_s, passed_s - self._patience_s)
        self._patience_s = LOOK_S_MAX
        if self.last is not None:
            self.seen[self.last] += passed_s  # type: ignore[assignment]  # typeshed counts whole numbers only
