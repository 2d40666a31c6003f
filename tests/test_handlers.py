"""What must hold for a handler: one real Task from its first line to its last, with everything that stands on it.

Timeouts, task groups, anyio's scopes, httpx, context variables, self-cancellation; before and after the first wait; alone, 64
in one write, and all mixed; in warm Tasks and in Tasks of their own; on uvloop and on asyncio's loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from mcpfast import MCPServer
from tests.wire import Wire, connected, loops, run

current = asyncio.current_task
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="clean")


async def identity(text: str) -> str:
    task = current()
    assert isinstance(task, asyncio.Task)
    async with asyncio.timeout(5):
        await asyncio.sleep(0.002)
    assert current() is task
    return "ok"


async def timeout(text: str) -> str:
    try:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(5)
    except TimeoutError:
        return "ok" if current().cancelling() == 0 else "cancelling was left"
    return "no timeout"


async def timeout_at_once(text: str) -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(5)
    except TimeoutError:
        return "ok"
    return "no timeout"


async def timeout_after_wait(text: str) -> str:
    await asyncio.sleep(0)
    return await timeout(text)


async def wait_for(text: str) -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(5), 0.01)
    except TimeoutError:
        return "ok"
    return "no timeout"


async def task_group(text: str) -> str:
    async def child(n: int) -> int:
        await asyncio.sleep(0.001)
        return n

    async with asyncio.TaskGroup() as group:
        one, two = group.create_task(child(1)), group.create_task(child(2))
    return "ok" if one.result() + two.result() == 3 else "wrong"


async def task_group_fails(text: str) -> str:
    async def child() -> None:
        await asyncio.sleep(0)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(5)
    except* ValueError:
        pass
    return "ok" if current().cancelling() == 0 else "cancelling was left"


async def variable(text: str) -> str:
    if VARIABLE.get() != "clean":
        return "another call's variable"
    VARIABLE.set(text)
    return "ok"


async def variable_over_wait(text: str) -> str:
    if VARIABLE.get() != "clean":
        return "another call's variable"
    VARIABLE.set(text)
    await asyncio.sleep(0.001)
    return "ok" if VARIABLE.get() == text else "lost"


async def cancels_itself(text: str) -> str:
    current().cancel()
    return "ok"


async def cancels_and_uncancels(text: str) -> str:
    current().cancel()
    current().uncancel()
    return "ok"


async def cancels_itself_and_waits(text: str) -> str:
    current().cancel()
    try:
        await asyncio.sleep(5)
    except asyncio.CancelledError:
        current().uncancel()
        return "ok"
    return "not cancelled"


async def waits_a_little(text: str) -> str:
    await asyncio.sleep(0.001)
    return "ok"


async def anyio_timeout(text: str) -> str:
    with anyio.move_on_after(0.02) as scope:
        await anyio.sleep(5)
    return "ok" if scope.cancelled_caught else "not caught"


async def anyio_cancel(text: str) -> str:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep(5)
    await anyio.sleep(0.001)
    return "ok" if scope.cancelled_caught and current().cancelling() == 0 else "not caught"


async def anyio_task_group(text: str) -> str:
    done: list[int] = []

    async def child(n: int) -> None:
        await anyio.sleep(0.001)
        done.append(n)

    async with anyio.create_task_group() as group:
        group.start_soon(child, 1)
        group.start_soon(child, 2)
    return "ok" if sorted(done) == [1, 2] else "wrong"


async def anyio_fail_after(text: str) -> str:
    try:
        with anyio.fail_after(0.01):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 5)
    except TimeoutError:
        return "ok"
    return "no timeout"


async def anyio_thread(text: str) -> str:
    return await anyio.to_thread.run_sync(lambda: "ok")


async def finished_future(text: str) -> str:
    future = asyncio.get_running_loop().create_future()
    future.set_result("ok")
    return await future


async def failing_future(text: str) -> str:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, future.set_exception, ValueError())
    try:
        await future
    except ValueError:
        return "ok"
    return "no error"


async def gathers(text: str) -> str:
    one, two = await asyncio.gather(waits_a_little(text), waits_a_little(text))
    return one if one == two else "wrong"


async def shielded(text: str) -> str:
    return await asyncio.shield(waits_a_little(text))


async def locked(text: str) -> str:
    async with LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)
    return "ok"


LOCKS: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
HANDLERS = [
    identity,
    timeout,
    timeout_at_once,
    timeout_after_wait,
    wait_for,
    task_group,
    task_group_fails,
    variable,
    variable_over_wait,
    cancels_itself,
    cancels_and_uncancels,
    cancels_itself_and_waits,
    waits_a_little,
    anyio_timeout,
    anyio_cancel,
    anyio_task_group,
    anyio_fail_after,
    anyio_thread,
    finished_future,
    failing_future,
    gathers,
    shielded,
    locked,
]


async def echo(text: str) -> str:
    return text


async def fails(text: str) -> str:
    raise KeyError(text)


async def forever(text: str) -> str:
    await asyncio.sleep(1000)
    return "no"


def make_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("handlers", version="1")
    for handler in (*HANDLERS, echo, fails, forever):
        server.add_tool(handler)
    return server


@asynccontextmanager
async def handlers(warm: bool) -> AsyncIterator[Wire]:
    async with connected(make_server(), "2025-06-18", warm=warm) as wire:
        yield wire


def call(wire: Wire, name: str, text: str) -> dict[str, Any]:
    return wire.message("tools/call", {"name": name, "arguments": {"text": text}})


async def outcome(wire: Wire, message: dict[str, Any]) -> str:
    result = (await wire.answer(message["id"], 20))["result"]
    return result["content"][0]["text"]


both_ways = pytest.mark.parametrize("warm", [True, False], ids=["warm", "own"])
both_loops = pytest.mark.parametrize("loop", loops())


@both_ways
@both_loops
@pytest.mark.parametrize("name", [handler.__name__ for handler in HANDLERS])
def test_a_handler_alone_and_64_in_one_write(name: str, warm: bool, loop: str) -> None:
    async def scenario() -> None:
        async with handlers(warm) as wire:
            for many in (1, 64, 1):
                messages = [call(wire, name, f"{n}") for n in range(many)]
                wire.send(*messages)
                for message in messages:
                    assert await outcome(wire, message) == "ok"

    run(scenario(), loop)


@both_ways
@both_loops
def test_all_mixed_in_one_write(warm: bool, loop: str) -> None:
    async def scenario() -> None:
        async with handlers(warm) as wire:
            for _ in range(3):
                names = [handler.__name__ for handler in HANDLERS] + ["echo", "fails"]
                messages = [call(wire, name, f"text {n}") for n in range(8) for name in names]
                wire.send(*messages)
                for message in messages:
                    name, given = message["params"]["name"], message["params"]["arguments"]["text"]
                    got = await outcome(wire, message)
                    if name == "echo":
                        assert got == given
                    elif name == "fails":
                        assert "failed unexpectedly" in got and "KeyError" not in got and given not in got
                    else:
                        assert got == "ok", name

    run(scenario(), loop)


@both_ways
@both_loops
def test_cancelled_calls_are_not_answered(warm: bool, loop: str) -> None:
    async def scenario() -> None:
        async with handlers(warm) as wire:
            calls = [call(wire, "forever", "x") for _ in range(20)]
            cancels = [
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": {"requestId": message["id"]},
                }
                for message in calls
            ]
            wire.send(*calls)
            wire.send(*cancels)  # in the very next read or the same
            await wire.settle()
            again = [call(wire, "forever", "x") for _ in range(3)]
            wire.send(
                *again,
                *[{**c, "params": {"requestId": m["id"]}} for c, m in zip(cancels, again, strict=False)],
            )
            await wire.settle()
            last = call(wire, "waits_a_little", "x")
            wire.send(last)
            assert await outcome(wire, last) == "ok"
            assert not {message["id"] for message in calls + again} & set(wire.answers)

    run(scenario(), loop)


@both_loops
def test_warm_tasks_carry_the_calls_and_own_tasks_do_not(loop: str) -> None:
    """That the two ways differ at all is what makes the other tests worth running twice."""

    async def tasks_of(warm: bool) -> int:
        seen: list[Any] = []

        async def who() -> str:
            seen.append(weakref.ref(current()))  # a Task that somebody keeps is not used again
            return "ok"

        server: MCPServer[Any] = MCPServer("who")
        server.add_tool(who)
        async with connected(server, "2025-06-18", warm=warm) as wire:
            for _ in range(20):
                await wire.call("who")
        return len({id(task) for task in seen})

    assert run(tasks_of(True), loop) == 1
    assert run(tasks_of(False), loop) > 1


@both_ways
def test_httpx_works_inside_a_handler(warm: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        http = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = http.sockets[0].getsockname()[1]

        async def fetch(text: str) -> str:
            async with httpx.AsyncClient(timeout=5) as client:
                return (await client.get(f"http://127.0.0.1:{port}/")).text

        async def fetch_slowly(text: str) -> str:
            async with httpx.AsyncClient() as client:
                try:
                    with anyio.fail_after(5):
                        return (await client.get(f"http://127.0.0.1:{port}/")).text
                finally:
                    assert current().cancelling() == 0

        server = make_server()
        server.add_tool(fetch)
        server.add_tool(fetch_slowly)
        async with connected(server, "2025-06-18", warm=warm) as wire:
            for many in (1, 16):
                messages = [
                    call(wire, name, "x") for _ in range(many) for name in ("fetch", "fetch_slowly", "echo")
                ]
                wire.send(*messages)
                for message in messages:
                    expected = "x" if message["params"]["name"] == "echo" else "ok"
                    assert await outcome(wire, message) == expected
        http.close()

    run(scenario())


@both_ways
def test_a_tool_that_leaves_variables_set_gets_tasks_of_its_own(warm: bool) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-06-18", warm=warm) as wire:
            for n in range(10):
                message = call(wire, "variable", f"{n}")
                wire.send(message)
                assert await outcome(wire, message) == "ok"
        tool = server.catalog.tools.get("variable")
        assert tool.entry.own_task == warm
        assert not server.catalog.tools.get("echo").entry.own_task

    run(scenario())


def test_own_task_gives_each_call_a_new_task() -> None:
    seen: list[Any] = []

    async def who() -> str:
        seen.append(current())
        return "ok"

    server: MCPServer[Any] = MCPServer("who")
    server.add_tool(who, own_task=True)

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            for _ in range(5):
                await wire.call("who")

    run(scenario())
    assert len({id(task) for task in seen}) == 5
