"""Worker threads: every call gets its own outcome, in order and fairly; nothing that is cancelled, closed or late makes a noise."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from mcpfast.errors import TOO_MANY_CALLS, MCPError
from mcpfast.executor.threads import CancelFlag, ThreadPool, current_flag, from_thread

WAIT_S = 10.0  # how long a broken build may hang


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    made = ThreadPool(4, idle_s=0.2)
    yield made
    made.close()


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `main` on a loop of its own; whatever asyncio would have complained about fails the test."""
    complaints: list[dict[str, Any]] = []

    async def guarded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        try:
            return await asyncio.wait_for(main(), WAIT_S)
        finally:
            gc.collect()
            await asyncio.sleep(0)

    result = asyncio.run(guarded())
    gc.collect()
    assert complaints == []
    return result


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def slowly(n: int) -> int:
    time.sleep(0.0003)
    return n


# ---------------------------------------------------------------- outcomes


def test_arguments_and_result(pool: ThreadPool) -> None:
    def fn(a: int, /, *rest: int, fn: int) -> tuple[Any, ...]:
        return a, rest, fn, threading.current_thread().name, threading.current_thread().daemon

    async def main() -> None:
        assert await pool.run(fn, 1, 2, 3, fn=4) == (1, (2, 3), 4, "mcpfast-worker-1", True)

    run(main)


class Odd(BaseException):
    pass


@pytest.mark.parametrize("kind", [ValueError, KeyError, Odd, asyncio.CancelledError])
def test_an_exception_is_raised_where_it_is_awaited(pool: ThreadPool, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("told")

    async def main() -> None:
        with pytest.raises(kind, match="told"):
            await pool.run(fail)

    run(main)


def test_stop_iteration_is_an_error_like_any_other(pool: ThreadPool) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.run(next, iter([]))
        assert await pool.run(lambda: 1) == 1

    run(main)


def test_context_variables_go_in_and_stay_in(pool: ThreadPool) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    def fn() -> str:
        seen = variable.get()
        variable.set("changed in the thread")
        return seen

    async def main() -> None:
        variable.set("the caller's")
        assert await pool.run(fn) == "the caller's"
        assert variable.get() == "the caller's"

    run(main)


def test_a_sleeping_thread_holds_on_to_nothing(pool: ThreadPool) -> None:
    class Big:
        pass

    async def main() -> list[weakref.ref[Big]]:
        big = Big()

        def fail(big: Big) -> None:
            raise ValueError("with the argument in its frame")

        with pytest.raises(ValueError, match="frame"):
            await pool.run(fail, big)
        result = await pool.run(Big)
        return [weakref.ref(big), weakref.ref(result)]

    gc.disable()  # no cycles either
    try:
        kept = asyncio.run(main())
        until(lambda: all(one() is None for one in kept))
    finally:
        gc.enable()


# ---------------------------------------------------------------- many


def test_ten_thousand_quick_calls_need_few_threads() -> None:
    pool = ThreadPool(32)

    async def main() -> None:
        for start in range(0, 10_000, 100):
            results = await asyncio.gather(*(pool.run(lambda n: n * 2, n) for n in range(start, start + 100)))
            assert results == [n * 2 for n in range(start, start + 100)]

    run(main)
    assert pool.stats()["queued"] == pool.stats()["running"] == 0
    assert pool.stats()["threads"] <= 16  # one or two in fact; a busy machine may need more
    pool.close()


def test_blocking_calls_get_a_thread_each_up_to_the_limit(pool: ThreadPool) -> None:
    together = threading.Barrier(4)
    gate = threading.Event()

    def block() -> None:
        together.wait(WAIT_S)
        gate.wait(WAIT_S)

    async def main() -> None:
        tasks = [asyncio.create_task(pool.run(block)) for _ in range(4)]
        waiting = [asyncio.create_task(pool.run(lambda: None)) for _ in range(3)]
        while pool.stats() != {"threads": 4, "queued": 3, "running": 4}:
            await asyncio.sleep(0.002)
        gate.set()
        await asyncio.gather(*tasks, *waiting)

    run(main)
    until(lambda: pool.stats() == {"threads": 0, "queued": 0, "running": 0})  # they end when idle


def test_several_loops_in_several_threads() -> None:
    pool = ThreadPool(8)
    errors: list[BaseException] = []

    def serve(number: int) -> None:
        async def main() -> None:
            for n in range(20):
                calls = [pool.run(lambda x: (number, x), n * 20 + i) for i in range(20)]
                assert await asyncio.gather(*calls) == [(number, n * 20 + i) for i in range(20)]

        try:
            for _ in range(2):  # a second loop in the same thread
                run(main)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert errors == []
    pool.close()


def test_a_thread_that_is_woken_while_it_ends() -> None:
    pool = ThreadPool(2, idle_s=0.001)

    async def main() -> None:
        for n in range(200):
            assert await pool.run(lambda n: n, n) == n
            await asyncio.sleep(0.0009 + n % 4 * 0.0001)

    run(main)
    until(lambda: pool.stats()["threads"] == 0)


def test_uvloop_too(pool: ThreadPool) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> list[int]:
        return list(await asyncio.gather(*(pool.run(lambda n: n, n) for n in range(200))))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == list(range(200))


# ---------------------------------------------------------------- the queue


def test_first_come_first_served() -> None:
    pool = ThreadPool(1)
    order: list[int] = []

    async def main() -> None:
        await asyncio.gather(*(pool.run(order.append, n) for n in range(50)))

    run(main)
    assert order == list(range(50))
    pool.close()


def test_lanes_take_turns() -> None:
    pool = ThreadPool(1)
    order: list[str] = []
    gate = threading.Event()

    async def main() -> None:
        first = asyncio.create_task(pool.run(gate.wait, WAIT_S))
        while pool.stats()["running"] != 1:
            await asyncio.sleep(0.001)
        greedy = [asyncio.create_task(pool.run_in("greedy", order.append, f"g{n}")) for n in range(4)]
        await asyncio.sleep(0)
        modest = [asyncio.create_task(pool.run_in("modest", order.append, f"m{n}")) for n in range(2)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *greedy, *modest)

    run(main)
    assert order == ["g0", "m0", "g1", "m1", "g2", "g3"]
    pool.close()


def test_a_full_queue_refuses_and_takes_again() -> None:
    pool = ThreadPool(1, queue_max=2)
    gate = threading.Event()

    async def main() -> None:
        tasks = [asyncio.create_task(pool.run(gate.wait, WAIT_S))]
        while pool.stats()["running"] != 1:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(pool.run(lambda: True)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(MCPError) as refused:
            await pool.run(lambda: None)
        assert refused.value.code == TOO_MANY_CALLS
        tasks.pop().cancel()  # a cancelled call leaves its place
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(pool.run(lambda: True)))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*tasks) == [True, True, True]

    run(main)
    pool.close()


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, pool: ThreadPool) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                await pool.run(lambda: None)
        assert pool.stats() == {"threads": 0, "queued": 0, "running": 0}
        assert await pool.run(lambda: 1) == 1
        with monkeypatch.context() as patched:  # one thread is there: it does what all should
            patched.setattr(threading.Thread, "start", refuse)
            calls = [pool.run(slowly, n) for n in range(20)]
            assert await asyncio.gather(*calls) == list(range(20))

    run(main)


# ---------------------------------------------------------------- cancelling


def test_cancelling_one_that_waits_keeps_it_from_running() -> None:
    pool = ThreadPool(1)
    gate = threading.Event()
    ran: list[int] = []

    async def main() -> None:
        first = asyncio.create_task(pool.run(gate.wait, WAIT_S))
        second = asyncio.create_task(pool.run(ran.append, 1))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert pool.stats()["queued"] == 0
        gate.set()
        await first

    run(main)
    assert ran == []
    pool.close()


@pytest.mark.parametrize("outcome", ["result", "exception"])
def test_cancelling_one_that_runs_leaves_it_to_finish(pool: ThreadPool, outcome: str) -> None:
    started, told = threading.Event(), threading.Event()

    def work() -> str:
        flag = current_flag()
        assert flag is not None and not flag.is_set()
        started.set()
        assert flag.wait(WAIT_S) and flag.is_set()
        told.set()
        if outcome == "exception":
            raise ValueError("nobody is there to hear it")
        return "nobody wants it"

    async def main() -> None:
        task = asyncio.create_task(pool.run(work))
        while not started.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while pool.stats()["running"]:
            await asyncio.sleep(0.001)
        assert told.is_set()
        assert current_flag() is None

    run(main)


def test_cancelled_in_the_turn_in_which_the_exception_arrived(pool: ThreadPool) -> None:
    """The future is done, the task not yet woken: asyncio's own future would complain that nobody took the exception."""

    def fail() -> None:
        raise ValueError("too late")

    async def main() -> None:
        for _ in range(50):
            task = asyncio.create_task(pool.run(fail))
            await asyncio.sleep(0)
            time.sleep(0.0005)  # it is over, and its delivery is the next thing the loop does
            asyncio.get_running_loop().call_soon(task.cancel)
            with pytest.raises((asyncio.CancelledError, ValueError)):
                await task

    run(main)


def test_a_thousand_cancelled_at_any_moment(pool: ThreadPool) -> None:
    finished: list[int] = []

    async def one(n: int) -> int:
        try:
            async with asyncio.timeout(0.0003 * (n % 5)):
                return await pool.run(slowly, n)
        except TimeoutError:
            return -1

    async def main() -> None:
        for start in range(0, 1000, 50):
            finished.extend(await asyncio.gather(*(one(n) for n in range(start, start + 50))))
        while pool.stats()["running"]:
            await asyncio.sleep(0.001)

    run(main)
    assert len(finished) == 1000 and -1 in finished
    assert all(value in (-1, n) for n, value in enumerate(finished))
    assert pool.stats()["queued"] == 0


def test_a_loop_that_closed_meanwhile(pool: ThreadPool) -> None:
    gate = threading.Event()

    async def main() -> None:
        asyncio.create_task(pool.run(gate.wait, WAIT_S))  # noqa: RUF006 (asyncio.run cancels it)
        while not pool.stats()["running"]:
            await asyncio.sleep(0.001)

    run(main)
    gate.set()
    until(lambda: pool.stats()["running"] == 0)
    run(lambda: pool.run(lambda: None))  # the pool lives on


# ---------------------------------------------------------------- the end


def test_close() -> None:
    pool = ThreadPool(1)
    running = threading.Event()

    def work() -> bool:
        flag = current_flag()
        assert flag is not None
        running.set()
        return flag.wait(WAIT_S)

    async def main() -> None:
        first = asyncio.create_task(pool.run(work))
        while not running.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(pool.run(lambda: None))
        await asyncio.sleep(0)
        pool.close()
        assert await first is True
        with pytest.raises(RuntimeError, match="ended before a worker thread was free"):
            await second
        with pytest.raises(RuntimeError, match="closed"):
            await pool.run(lambda: None)
        pool.close()

    run(main)
    until(lambda: pool.stats()["threads"] == 0)


def test_close_wakes_sleepers() -> None:
    pool = ThreadPool(2, idle_s=60)
    run(lambda: pool.run(lambda: None))
    assert pool.stats()["threads"] == 1
    pool.close()
    until(lambda: pool.stats()["threads"] == 0)


def test_a_pool_needs_a_thread() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ThreadPool(0)


def test_a_blocked_thread_does_not_hold_the_process() -> None:
    program = """
import asyncio, time
from mcpfast.executor.threads import ThreadPool
async def main():
    asyncio.create_task(ThreadPool(2).run(time.sleep, 60))
    await asyncio.sleep(0.05)
asyncio.run(main())
print("gone", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert (done.stdout, done.stderr) == ("gone\n", "")


def test_importing_it_is_cheap() -> None:
    program = "import sys, mcpfast.executor.threads; print(*[m for m in sys.modules if m in %r])"
    heavy = ["asyncio", "logging", "concurrent.futures", "inspect", "queue"]
    # coverage would load modules of its own there
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", program % heavy],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
        env=plain,
    )
    assert done.stdout.strip() == ""


# ---------------------------------------------------------------- the flag


def test_the_flag_tells_who_listens_once() -> None:
    flag, heard = CancelFlag(), []
    assert flag.wait(0.001) is False
    flag.listen(lambda: heard.append("first"))

    def dropped() -> None:
        heard.append("dropped")

    flag.listen(dropped)
    flag.unlisten(dropped)
    flag.set()
    flag.set()
    flag.listen(lambda: heard.append("late"))
    flag.unlisten(dropped)
    assert heard == ["first", "late"] and flag.is_set() and flag.wait()


# ---------------------------------------------------------------- back to the loop


def test_from_thread(pool: ThreadPool) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def on_the_loop(a: int) -> tuple[int, str, bool]:
        await asyncio.sleep(0)
        return a, variable.get(), threading.current_thread() is threading.main_thread()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> Any:
            variable.set("the thread's")
            return from_thread(loop, on_the_loop, 1)

        assert await pool.run(work) == (1, "the thread's", True)

    run(main)


@pytest.mark.parametrize("kind", [ValueError, Odd])
def test_from_thread_raises_what_happened(pool: ThreadPool, kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind("on the loop")

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> str:
            try:
                from_thread(loop, fail)
            except kind as error:
                return str(error)
            return "nothing"

        assert await pool.run(work) == "on the loop"

    run(main)


def test_from_thread_has_a_deadline(pool: ThreadPool) -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            ended.append("cancelled on the loop")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError, match=r"0\.02 seconds"):
            await pool.run(lambda: from_thread(loop, slow, timeout_s=0.02))
        while not ended:
            await asyncio.sleep(0.001)

    run(main)
    assert ended == ["cancelled on the loop"]


def test_from_thread_ends_when_its_call_is_cancelled(pool: ThreadPool) -> None:
    seen: list[str] = []
    started = threading.Event()

    async def slow() -> None:
        started.set()
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            seen.append("loop")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            try:
                from_thread(loop, slow)
            except asyncio.CancelledError:
                seen.append("thread")
            try:
                from_thread(loop, slow)  # and from then on at once
            except asyncio.CancelledError:
                seen.append("thread again")

        task = asyncio.create_task(pool.run(work))
        while not started.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        while pool.stats()["running"] or "loop" not in seen:
            await asyncio.sleep(0.001)

    run(main)
    assert sorted(seen) == ["loop", "thread", "thread again"]


def test_from_thread_where_it_would_wait_for_itself() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine instead"):
            from_thread(asyncio.get_running_loop(), asyncio.sleep, 0)

    run(main)


def test_from_thread_with_a_loop_that_is_gone() -> None:
    loop = asyncio.new_event_loop()
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            from_thread(loop, asyncio.sleep, 0)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)  # it waits for a loop that never runs
    loop.close()
    thread.join(WAIT_S)
    work()  # and now asks one that is closed
    assert [type(error) for error in outcome] == [RuntimeError, RuntimeError]


def test_from_thread_when_the_loop_ends_all_its_tasks() -> None:
    outcome: list[BaseException] = []
    started = threading.Event()

    async def slow() -> None:
        started.set()
        await asyncio.sleep(WAIT_S)

    def work(loop: asyncio.AbstractEventLoop) -> None:
        try:
            from_thread(loop, slow)
        except BaseException as error:
            outcome.append(error)

    async def main() -> threading.Thread:
        thread = threading.Thread(target=work, args=(asyncio.get_running_loop(),))
        thread.start()
        while not started.is_set():
            await asyncio.sleep(0.001)
        return thread

    run(main).join(WAIT_S)
    assert [type(error) for error in outcome] == [asyncio.CancelledError]


def test_from_thread_when_its_task_is_cancelled_before_its_first_step(pool: ThreadPool) -> None:
    def stillborn(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        task.cancel()
        return task

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(stillborn)
        with pytest.raises(asyncio.CancelledError):
            await pool.run(lambda: from_thread(loop, asyncio.sleep, 0, timeout_s=5.0))
        loop.set_task_factory(None)

    run(main)
