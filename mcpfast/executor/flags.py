"""How a function in a worker thread learns that its result is wanted no more."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class CancelFlag:
    """Set once a call's result is wanted no more. Read like a threading.Event, but costs nothing until somebody waits."""

    __slots__ = ("_listeners", "_set")
    _lock = threading.Lock()  # for all flags: held for a few instructions, and only where somebody listens

    def __init__(self) -> None:
        self._set = False
        self._listeners: list[Callable[[], object]] | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        """From any thread."""
        with self._lock:
            self._set = True
            listeners, self._listeners = self._listeners, None
        for listener in listeners or ():
            listener()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until the flag is set or `timeout` seconds are over; says whether it is set."""
        if not self._set:
            event = threading.Event()
            self.listen(event.set)
            try:
                event.wait(timeout)
            finally:
                self.unlisten(event.set)
        return self._set

    def listen(self, listener: Callable[[], object]) -> None:
        """Calls `listener` once, in whatever thread sets the flag; at once where it is set already."""
        with self._lock:
            if not self._set:
                if self._listeners is None:
                    self._listeners = []
                self._listeners.append(listener)
                return
        listener()

    def unlisten(self, listener: Callable[[], object]) -> None:
        with self._lock:
            if self._listeners is not None and listener in self._listeners:
                self._listeners.remove(listener)


running_call: ContextVar[CancelFlag | None] = ContextVar("mcpfast_worker_call", default=None)


def current_flag() -> CancelFlag | None:
    """The flag of the call that runs in this worker thread; None elsewhere."""
    return running_call.get()
