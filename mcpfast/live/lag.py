"""How late a loop comes to what is due: a timer that looks at the clock, for as long as somebody looks on."""

from __future__ import annotations

import asyncio
from time import perf_counter

from mcpfast.live.messages import Lag

TICK_S = 0.02
KEPT_MAX = 4_096  # ticks between two looks; of more than that, the first are kept


class LagMeter:
    """Lateness below 2 ms is the timer's own: loops count in whole milliseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._late_s: list[float] = []
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_later()

    def _tick_later(self) -> None:
        self._due_s = perf_counter() + TICK_S
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        if len(self._late_s) < KEPT_MAX:
            self._late_s.append(max(0.0, perf_counter() - self._due_s))
        self._tick_later()

    def take(self) -> Lag:
        """Since the last time."""
        late, self._late_s = sorted(self._late_s), []
        if not late:
            return Lag(0, 0.0, 0.0, 0.0)
        return Lag(len(late), late[len(late) // 2], late[int(len(late) * 0.99)], late[-1])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
