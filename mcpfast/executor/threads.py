"""Worker threads for handlers that may block.

    loop (any, several)                      pool                              worker thread
    await pool.run(fn, ...)  -- queue ---->  lanes, one turn each  -- take --> fn(...) in the caller's context
    the awaiting task goes on  <-----------  one wake-up for all that is done  <-- result or exception

Why not concurrent.futures: it joins its threads when the process ends, so one handler that blocks would keep the process alive.
These are daemon threads.

Waking a thread costs more than a quick handler. So at most one worker at a time is on its way to the queue; when it has taken
its call and finds more, it wakes the next one before it starts. Sixty-four quick calls are thus served by one or two threads,
while handlers that block have a thread each after a millisecond.

Cancelling the awaiting task ends the wait at once. A call that has not begun never begins; one that has begun is told by its
flag (`current_flag()`), goes on in its thread, and its outcome is dropped.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from mcpfast.errors import TOO_MANY_CALLS, MCPError
from mcpfast.executor.crossing import from_thread
from mcpfast.executor.flags import CancelFlag, current_flag, running_call

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Generator, Hashable

T = TypeVar("T")
IDLE_S = 10.0
QUEUE_MAX = 16_384


# ---------------------------------------------------------------- one call


class _Call(CancelFlag):
    """A function with its arguments on the way through the pool; awaiting it gives the result."""

    __slots__ = (
        "_args",
        "_context",
        "_fn",
        "_named",
        "_pool",
        "error",
        "future",
        "home",
        "lane",
        "queued",
        "result",
        "thread",
    )

    def __init__(
        self,
        pool: ThreadPool,
        home: _Home,
        lane: Hashable,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        super().__init__()
        self._pool = pool
        self._fn: Callable[..., Any] | None = fn
        self._args = args
        self._named = named
        self._context: Context | None = copy_context()
        self.home = home
        self.lane = lane
        self.queued = False  # guarded by the pool's lock
        self.thread = 0  # that runs it
        self.future: Future[None] = home.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def execute(self) -> None:
        """In the worker thread. Never raises: what `fn` raises is kept for who awaits."""
        context, self._context = self._context, None
        self.thread = threading.get_ident()
        try:
            if context is not None:
                self.result = context.run(self._enter)
        except BaseException as error:
            self.error = error
        self._fn = None
        self._args = ()
        self._named = {}

    def _enter(self) -> Any:
        running_call.set(self)
        assert self._fn is not None
        return self._fn(*self._args, **self._named)

    def forget(self) -> None:
        """Drops the outcome, and with it the frames that an exception holds on to."""
        self.error = self.result = None

    def __await__(self) -> Generator[Any, Any, Any]:
        # The future only says that the call is over. Were the exception set on it, and the task cancelled in the same turn,
        # asyncio would complain that it "was never retrieved"; and StopIteration cannot be set on a future at all.
        try:
            yield from self.future
        except BaseException:  # CancelledError, or GeneratorExit where the task was dropped
            self._pool._abandon(self)
            raise
        error, result = self.error, self.result
        self.forget()
        if error is None:
            return result
        try:
            if isinstance(error, StopIteration):
                raise RuntimeError("the handler raised StopIteration") from error
            raise error
        finally:
            del error  # its traceback holds this frame


class _Home:
    """A loop that awaits calls, and the calls that are over but not yet handed to it."""

    __slots__ = ("_over", "_waking", "loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self._over: deque[_Call] = deque()
        self._waking = False

    def finish(self, call: _Call) -> None:
        """From a worker thread. The loop is woken once for all that is over by then."""
        self._over.append(call)
        if self._waking:
            return  # `_deliver` clears the flag before it looks into the deque, so it will see this call
        self._waking = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._waking = False
            while self._over:
                self._over.popleft().forget()

    def _deliver(self) -> None:
        self._waking = False
        while self._over:
            call = self._over.popleft()
            if call.future.done():  # cancelled meanwhile
                call.forget()
            else:
                call.future.set_result(None)


# ---------------------------------------------------------------- the pool


class _Worker:
    __slots__ = ("wake", "woken")

    def __init__(self) -> None:
        self.wake = threading.Lock()  # held while the worker sleeps; released to wake it
        self.wake.acquire()
        self.woken = True


class ThreadPool:
    """Runs blocking functions for any number of loops in any number of threads.

    Threads are started when needed, `max_threads` at most, and end after `idle_s` seconds without work. What waits for a thread
    is served in the order it came, lane by lane in turn (see `run_in`); above `queue_max` waiting calls more are refused.
    """

    def __init__(
        self,
        max_threads: int,
        name: str = "mcpfast-worker",
        *,
        idle_s: float = IDLE_S,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        if max_threads < 1:
            raise ValueError(f"max_threads must be at least 1, not {max_threads}")
        from asyncio import get_running_loop  # whoever makes a pool has it loaded already

        self._running_loop = get_running_loop
        self._max_threads = max_threads
        self._name = name
        self._idle_s = idle_s
        self._queue_max = queue_max
        self._homes = threading.local()
        # All below is guarded by the lock.
        self._lock = threading.Lock()
        self._lanes: OrderedDict[Hashable, deque[_Call]] = (
            OrderedDict()
        )  # the first one is next; none is empty
        self._idle: list[
            _Worker
        ] = []  # the last one slept shortest and is woken first, so that others may end
        self._active: set[_Call] = set()
        self._threads = 0
        self._started = 0
        self._queued = 0
        self._waking = False  # a worker is on its way to the queue
        self._closed = False

    async def run(self, fn: Callable[..., T], /, *args: Any, **named: Any) -> T:
        """`fn(*args, **named)` in a worker thread, with a copy of the caller's context variables.

        Raises what `fn` raises, MCPError (TOO_MANY_CALLS) when too many calls wait, RuntimeError after `close()`.
        """
        return await self._submit(None, fn, args, named)  # type: ignore[no-any-return]

    async def run_in(self, lane: Hashable, fn: Callable[..., T], /, *args: Any, **named: Any) -> T:
        """`run`, fair to others: lanes (a connection, a tenant) take turns, so one with much to do delays no other one's calls."""
        return await self._submit(lane, fn, args, named)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Refuses new calls, cancels those that wait, sets the flags of those that run. Waits for nothing; may be repeated."""
        with self._lock:
            self._closed = True
            dropped = [call for lane in self._lanes.values() for call in lane]
            self._lanes.clear()
            self._queued = 0
            for call in dropped:
                call.queued = False
            running = list(self._active)
            idle, self._idle = self._idle, []
        for call in dropped:
            call.error = RuntimeError("the server ended before a worker thread was free")
            call.home.finish(call)
        for call in running:
            call.set()
        for worker in idle:
            worker.wake.release()

    def stats(self) -> dict[str, int]:
        """How many threads there are, calls that wait for one, and calls that run: `{"threads", "queued", "running"}`."""
        with self._lock:
            return {"threads": self._threads, "queued": self._queued, "running": len(self._active)}

    def threads_of_calls(self) -> dict[Future[None], int]:
        """The thread (`threading.get_ident`) of each call that runs now, by the future that its Task waits for."""
        with self._lock:
            return {call.future: call.thread for call in self._active if call.thread}

    # ---------------------------------------------------------------- from the loop

    def _submit(
        self, lane: Hashable, fn: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> _Call:
        loop = self._running_loop()
        home: _Home | None = getattr(self._homes, "home", None)
        if home is None or home.loop is not loop:
            home = self._homes.home = _Home(loop)
        call = _Call(self, home, lane, fn, args, named)
        with self._lock:
            if self._closed:
                raise RuntimeError("the thread pool is closed")
            if self._queued >= self._queue_max:
                raise MCPError(TOO_MANY_CALLS, "Too many calls wait for a worker thread; try again later")
            calls = self._lanes.get(lane)
            if calls is None:
                calls = self._lanes[lane] = deque()
            calls.append(call)
            call.queued = True
            self._queued += 1
            if not self._waking:
                try:
                    self._wake_one()
                except RuntimeError:  # the system gives no more threads
                    if not self._threads:
                        self._remove(call)
                        raise
        return call

    def _abandon(self, call: _Call) -> None:
        """Nobody awaits this call any more."""
        with self._lock:
            if call.queued:
                self._remove(call)
        call.set()
        call.forget()

    def _remove(self, call: _Call) -> None:
        calls = self._lanes[call.lane]
        calls.remove(call)
        if not calls:
            del self._lanes[call.lane]
        call.queued = False
        self._queued -= 1

    def _wake_one(self) -> None:
        """Sends a worker to the queue, if there is one to send. Under the lock. Raises RuntimeError where none can be started."""
        if self._idle:
            worker = self._idle.pop()
            worker.woken = self._waking = True
            worker.wake.release()
        elif self._threads < self._max_threads:
            self._started += 1
            thread = threading.Thread(
                target=self._work, args=(_Worker(),), name=f"{self._name}-{self._started}", daemon=True
            )
            thread.start()
            self._threads += 1
            self._waking = True

    # ---------------------------------------------------------------- in the worker threads

    def _work(self, worker: _Worker) -> None:
        over: _Call | None = None
        while True:
            with self._lock:
                if over is not None:
                    self._active.discard(over)
                call = self._take(worker)
                closed = self._closed
                if call is None and closed:
                    self._threads -= 1
                elif call is None:
                    self._idle.append(worker)
            if over is not None:
                over.home.finish(over)
                over = None  # a sleeping thread holds on to nothing
            if call is not None:
                call.execute()
                over, call = call, None
            elif closed or not self._sleep(worker):
                return

    def _take(self, worker: _Worker) -> _Call | None:
        """The next call, from the lane whose turn it is. Under the lock."""
        if worker.woken:
            worker.woken = self._waking = False
        if not self._queued:
            return None
        lane, calls = next(iter(self._lanes.items()))
        call = calls.popleft()
        if calls:
            self._lanes.move_to_end(lane)
        else:
            del self._lanes[lane]
        call.queued = False
        self._queued -= 1
        self._active.add(call)
        if self._queued and not self._waking:
            try:
                self._wake_one()
            except RuntimeError:
                pass  # the system gives no more threads; this one comes back
        return call

    def _sleep(self, worker: _Worker) -> bool:
        """Until woken; False where the time is over and the thread shall end."""
        if worker.wake.acquire(timeout=self._idle_s):
            return True
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                self._threads -= 1
                return False
        worker.wake.acquire()  # woken in the last moment
        return True


__all__ = ["CancelFlag", "ThreadPool", "current_flag", "from_thread"]
