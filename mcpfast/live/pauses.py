"""Pauses of the garbage collector, told by itself (`gc.callbacks`)."""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mcpfast.live.messages import Frame, Pause, Taken
from mcpfast.live.places import STACK_MAX, Handlers, frame_of

if TYPE_CHECKING:
    from types import FrameType

    from mcpfast.server.app import MCPServer

PAUSES_MAX = 10_000  # kept between two questions of the visitor


class PauseWatch:
    """Made on the loop's own thread. `take` is what was seen, `close` ends it."""

    def __init__(self, server: MCPServer[Any]) -> None:
        self._server = server
        self._packages: set[str] = set()
        self._loop_thread = threading.get_ident()
        self._begin_s = 0.0
        self._young = 0
        self._where: Frame | None = None
        self._pauses: deque[Pause] = deque()
        self._lost, self._lost_s = 0, 0.0
        gc.callbacks.append(self._told)
        threading.Thread(target=self._learn, name="mcpfast-pauses", daemon=True).start()

    def _learn(self) -> None:
        """Ten thousand tools are not looked at on the loop."""
        self._packages = Handlers(self._server).packages

    def _told(self, phase: str, info: dict[str, int]) -> None:
        """By the collector, in whichever thread made it run; another one does not run meanwhile. What is made here starts none."""
        if phase == "start":
            self._young = gc.get_count()[0]
            self._where = self._innermost(sys._getframe(1))
            self._begin_s = perf_counter()
            return
        duration_s = perf_counter() - self._begin_s
        if not self._begin_s:  # it had begun before anybody watched
            return
        if len(self._pauses) >= PAUSES_MAX:
            self._lost += 1
            self._lost_s += duration_s
            return
        self._pauses.append(
            Pause(
                self._begin_s,
                duration_s,
                info["generation"],
                self._young,
                info["collected"],
                info["uncollectable"],
                self._where,
                threading.get_ident() == self._loop_thread,
            )
        )

    def _innermost(self, frame: FrameType | None) -> Frame | None:
        """The user's line that had to wait, or the innermost one."""
        first = found = frame
        for _ in range(STACK_MAX):
            if found is None:
                break
            place = frame_of(found, self._packages)
            if place.own:
                return place
            found = found.f_back
        return frame_of(first, self._packages) if first is not None else None

    def take(self) -> Taken:
        """Since the last time, on the clock `perf_counter`."""
        taken = Taken(perf_counter())
        while self._pauses:
            taken.pauses.append(self._pauses.popleft())
        taken.lost, self._lost = self._lost, 0
        taken.lost_s, self._lost_s = self._lost_s, 0.0
        return taken

    def close(self) -> None:
        if self._told in gc.callbacks:  # bound methods are equal where their objects are
            gc.callbacks.remove(self._told)
