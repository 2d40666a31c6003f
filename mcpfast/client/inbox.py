"""Notifications on their way to the user's callbacks: one after another, in the order in which they came.

A call returns after the callbacks of everything that the server had sent before its answer: whoever collects
progress in a list finds the list complete. But a callback that takes its time holds up the others, not the
calls: they wait for it at most CALLBACK_S. What a callback itself asks of the server waits for no callback at
all, or it would wait for itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

CALLBACK_S = 1.0
WAITING_MAX = 4_096  # notifications that wait for callbacks; more are dropped, and that is logged once

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("mcpfast_client_callback", default=False)

Callback = Callable[..., Awaitable[None] | None]


class Inbox:
    """A bounded queue with one task that empties it."""

    def __init__(self) -> None:
        self.received = 0
        self.handled = 0
        self._items: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0

    def put(self, callback: Callback, *args: Any) -> None:
        """Will call `callback(*args)`, and await what it returns if that can be awaited."""
        if len(self._items) >= WAITING_MAX:
            self._dropped += 1
            if self._dropped == 1:
                _log(
                    "A callback is too slow: more than %d notifications wait, new ones are dropped",
                    WAITING_MAX,
                )
            return
        self.received += 1
        self._items.append((callback, args))
        if self._task is None:
            context = contextvars.copy_context()
            context.run(_inside.set, True)
            self._task = asyncio.create_task(self._empty(), name="mcpfast client callbacks", context=context)

    async def reach(self, number: int) -> None:
        """Waits until that many have been handled, but not for ever, and not inside a callback."""
        if self.handled >= number or _inside.get():
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((number, done))
        await asyncio.wait([done], timeout=CALLBACK_S)

    async def close(self) -> None:
        """Drops what waits and cancels the callback that runs."""
        self._items.clear()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _, done in self._waiting:
            done.cancel()
        self._waiting.clear()

    async def _empty(self) -> None:
        try:
            while self._items:
                callback, args = self._items.popleft()
                try:
                    outcome = callback(*args)
                    if outcome is not None:
                        await outcome
                except Exception:  # the callback is the user's; its error must not end the connection
                    _log("A notification callback failed", exc_info=True)
                self.handled += 1
                self._wake()
        finally:
            self._task = None

    def _wake(self) -> None:
        if not self._waiting:
            return
        still = []
        for number, done in self._waiting:
            if number > self.handled and not done.done():
                still.append((number, done))
            elif not done.done():
                done.set_result(None)
        self._waiting = still


def _log(text: str, *args: Any, exc_info: bool = False) -> None:
    import logging  # rarely needed

    logging.getLogger("mcpfast.client").warning(text, *args, exc_info=exc_info)
