"""The way back: a worker thread has something done on a loop, and waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from mcpfast.executor.flags import running_call

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
LOOP_GONE_CHECK_S = 0.5


class _Crossing:
    """A coroutine function that a thread waits for, while it runs on a loop."""

    __slots__ = ("_args", "_fn", "_loop", "_task", "_wanted", "done", "error", "result")

    def __init__(
        self, loop: AbstractEventLoop, fn: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]
    ) -> None:
        self._loop = loop
        self._fn = fn
        self._args = args
        self._task: Task[None] | None = None
        self._wanted = True
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def begin(self, wake: Callable[[], object]) -> None:
        """On the loop."""
        if self._wanted:
            self._task = self._loop.create_task(self._run())
            self._task.add_done_callback(lambda task: wake())

    async def _run(self) -> None:
        try:
            self.result = await self._fn(*self._args)
        except (KeyboardInterrupt, SystemExit) as error:
            self.error = error
            raise  # the loop's business, too
        except BaseException as error:
            self.error = error  # a CancelledError as well: nobody but the thread awaits this task
        self.done = True

    def end(self) -> None:
        """The thread waits no more."""
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:
            pass  # the loop is closed

    def _stop(self) -> None:
        self._wanted = False
        if self._task is not None:
            self._task.cancel()


def from_thread(
    loop: AbstractEventLoop,
    async_fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    timeout_s: float | None = None,
) -> T:
    """Runs `async_fn(*args)` on `loop` and blocks this worker thread until it is done. Context variables go with it.

    Raises what it raises; TimeoutError after `timeout_s` seconds, and asyncio.CancelledError as soon as the call that this
    thread runs is cancelled (it is cancelled on the loop, too, in both cases); RuntimeError where the loop is closed, or when
    called on a loop's own thread, which would wait for itself.
    """
    from asyncio import CancelledError, _get_running_loop
    from time import monotonic

    if _get_running_loop() is not None:
        raise RuntimeError("from_thread is for worker threads; on the loop, await the coroutine instead")
    flag = running_call.get()
    woken = threading.Event()
    crossing = _Crossing(loop, async_fn, args)
    if flag is not None:
        if flag.is_set():
            raise CancelledError
        flag.listen(woken.set)
    try:
        loop.call_soon_threadsafe(crossing.begin, woken.set)
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            left_s = LOOP_GONE_CHECK_S if deadline is None else min(deadline - monotonic(), LOOP_GONE_CHECK_S)
            ended = woken.wait(max(left_s, 0.0))
            if crossing.done or crossing.error is not None:
                break
            if ended:  # our own call is cancelled, or the task was before its first step
                raise CancelledError
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"the loop did not answer within {timeout_s} seconds")
            if loop.is_closed():
                raise RuntimeError("the event loop was closed before it answered")
        if crossing.error is not None:
            raise crossing.error
        return crossing.result  # type: ignore[no-any-return]
    finally:
        if not crossing.done:
            crossing.end()
        crossing.error = None
        if flag is not None:
            flag.unlisten(woken.set)
