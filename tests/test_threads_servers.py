"""Several loops in several threads of one process: servers side by side, one server on all of them, changes from outside.

`executor/threads.py` alone is tested in test_threads.py; here it carries the handlers of real servers.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcpfast import Client, Context, MCPServer
from mcpfast.serve import serve
from mcpfast.transports import memory
from mcpfast.transports.addresses import Address
from tests.wire import Wire, loops, run

THREADS = 4
WAIT_S = 10.0


def in_threads(*scenarios: Callable[[], Any]) -> None:
    """Each on a loop of its own in a thread of its own, uvloop and asyncio by turns; raises what the first of them raised."""
    failed: list[BaseException] = []

    def one(number: int, scenario: Callable[[], Any]) -> None:
        try:
            run(scenario(), loops()[number % 2], seconds=30)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=one, args=(number, scenario), daemon=True)
        for number, scenario in enumerate(scenarios)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive(), "a loop hangs"
    if failed:
        raise failed[0]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads take turns as often as they can, so that what is not safe shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Size(msgspec.Struct):
    cups: int


def make_server(name: str = "threads") -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer(name, version="1")

    @server.tool
    async def echo(text: str) -> str:
        return f"{name}: {text}"

    @server.tool
    async def wait(text: str) -> str:
        await asyncio.sleep(0.001)
        return f"{name}: {text}"

    @server.tool
    def block(text: str) -> str:
        time.sleep(0.002)
        return f"{name}: {text} in {threading.current_thread().name}"

    @server.tool
    def steps(count: int, ctx: Context) -> int:
        for step in range(1, count + 1):
            ctx.wait(ctx.report_progress(step, count))
        return count

    @server.tool
    def order(ctx: Context) -> str:
        answer = ctx.wait(ctx.elicit("How much coffee?", Size))
        return f"{answer.action}: {answer.data.cups if answer.action == 'accept' else None}"

    return server


async def use(client: Client, name: str) -> None:
    """A bit of everything, much of it at once."""

    async def one(n: int) -> None:
        text = f"{name}.{n}"
        assert (await client.call_tool("echo", {"text": text})).data == f"{name}: {text}"
        assert (await client.call_tool("wait", {"text": text})).data == f"{name}: {text}"
        blocked = (await client.call_tool("block", {"text": text})).data
        assert blocked.startswith(f"{name}: {text} in mcpfast-worker-"), blocked

    await asyncio.gather(*(one(n) for n in range(20)))
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    assert (await client.call_tool("steps", {"count": 5}, progress_callback=on_progress)).data == 5
    assert seen == [1, 2, 3, 4, 5]
    assert (await client.call_tool("order")).data == "accept: 3"


@asynccontextmanager
async def connected(server: MCPServer[Any]) -> AsyncIterator[Wire]:
    """A legacy session with one of the loops of a server."""
    async with memory.connect(server) as (reader, writer):
        wire = Wire(reader, writer, "2025-11-25")
        await wire.initialize()
        yield wire


def client_of(target: Any, mode: str = "auto") -> Client:
    return Client(target, mode=mode, elicitation_callback=lambda context, params: {"cups": 3})


# ---------------------------------------------------------------- servers side by side


def test_a_server_of_its_own_in_each_thread() -> None:
    async def scenario(name: str, mode: str) -> None:
        async with client_of(make_server(name), mode) as client:
            await use(client, name)

    in_threads(
        *(functools.partial(scenario, f"server {n}", ("legacy", "auto")[n // 2 % 2]) for n in range(THREADS))
    )


@asynccontextmanager
async def serving(server: MCPServer[Any], path: Path) -> AsyncIterator[str]:
    ready: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(server, f"unix://{path}", ready=ready.set_result))
    either: list[asyncio.Future[Any]] = [task, ready]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield str(ready.result()[0])
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_servers_on_sockets_and_clients_of_other_threads(tmp_path: Path) -> None:
    """Each thread serves its own socket, and calls the server of the next thread."""
    barrier = threading.Barrier(THREADS)

    async def meet() -> None:
        await asyncio.to_thread(lambda: barrier.wait(WAIT_S))

    async def scenario(number: int) -> None:
        async with serving(make_server(f"server {number}"), tmp_path / f"{number}"):
            await meet()
            other = (number + 1) % THREADS
            async with client_of(f"unix://{tmp_path}/{other}") as client:
                await use(client, f"server {other}")
            await meet()

    in_threads(*(functools.partial(scenario, number) for number in range(THREADS)))


# ---------------------------------------------------------------- one server on all loops


@pytest.mark.usefixtures("hurried")
def test_one_server_on_several_loops() -> None:
    """Its `def` handlers share one pool of threads, and each result finds the loop that waits for it."""
    server = make_server("shared")

    async def scenario(mode: str) -> None:
        async with client_of(server, mode) as client:
            await use(client, "shared")

    in_threads(*(functools.partial(scenario, ("auto", "legacy")[n // 2 % 2]) for n in range(THREADS)))
    assert server._serving == []
    assert server.threads().stats()["running"] == 0


def test_a_thread_sees_that_its_call_is_cancelled() -> None:
    """On several loops at once, and only the one that was cancelled."""
    server = make_server()
    began: dict[str, threading.Event] = {}
    ended: dict[str, str] = {}
    barrier = threading.Barrier(THREADS)

    @server.tool
    def work(name: str, ctx: Context) -> str:
        began[name].set()
        deadline = time.monotonic() + WAIT_S
        while not ctx.cancelled and not ended.get(f"let {name} go") and time.monotonic() < deadline:
            time.sleep(0.001)
        ended[name] = "cancelled" if ctx.cancelled else "went on"
        return ended[name]

    @server.tool
    def waits(name: str, ctx: Context) -> str:
        began[name].set()
        try:
            ctx.wait(asyncio.sleep(1000), WAIT_S)
        except asyncio.CancelledError:
            ended[name] = "woken"
            raise
        return "not woken"

    async def scenario(number: int) -> None:
        mine = [f"{number} cancelled", f"{number} goes on", f"{number} waits"]
        for name in mine:
            began[name] = threading.Event()
        async with connected(server) as wire:
            calls = [
                wire.message(
                    "tools/call",
                    {"name": "waits" if name.endswith("waits") else "work", "arguments": {"name": name}},
                )
                for name in mine
            ]
            wire.send(*calls)
            await until(lambda: all(began[name].is_set() for name in mine))
            await asyncio.to_thread(barrier.wait, WAIT_S)  # all loops have their threads at work
            wire.cancel(calls[0]["id"])
            wire.cancel(calls[2]["id"])
            await until(lambda: mine[0] in ended and mine[2] in ended)
            assert ended[mine[0]] == "cancelled"
            assert ended[mine[2]] == "woken"
            assert mine[1] not in ended
            ended[f"let {mine[1]} go"] = "yes"
            answer = await wire.answer(calls[1]["id"])
            assert answer["result"]["content"][0]["text"] == "went on"
            assert calls[0]["id"] not in wire.answers
            del wire.sent[int, calls[0]["id"]], wire.sent[int, calls[2]["id"]]

    in_threads(*(functools.partial(scenario, number) for number in range(THREADS)))


# ---------------------------------------------------------------- changes from outside


def test_what_another_thread_adds_is_told_on_every_loop() -> None:
    server = make_server()
    ready = threading.Barrier(THREADS + 1)

    async def scenario() -> None:
        async with connected(server) as wire:
            await wire.settle()
            await asyncio.to_thread(ready.wait, WAIT_S)
            for kind, member in (("tools", "tools"), ("prompts", "prompts"), ("resources", "resources")):
                await wire.other(f"notifications/{kind}/list_changed")
                names = [one["name"] for one in (await wire.request(f"{kind}/list"))[member]]
                assert "late" in names
            assert (await wire.call("late"))["content"][0]["text"] == "better than never"
            result = await wire.request("resources/read", {"uri": "late://thing"})
            assert result["contents"][0]["text"] == "better than never"
            await asyncio.to_thread(ready.wait, WAIT_S)
            await wire.other("notifications/tools/list_changed")
            assert (await wire.error("tools/call", {"name": "late", "arguments": {}}))["code"] == -32602
            assert not wire.others, "told more than once"

    async def changes() -> None:
        async def late() -> str:
            return "better than never"

        await asyncio.to_thread(ready.wait, WAIT_S)
        server.add_tool(late)
        server.add_prompt(late)
        server.add_resource("late://thing", late)
        await asyncio.to_thread(ready.wait, WAIT_S)
        server.remove_tool("late")

    in_threads(*[scenario] * THREADS, changes)


@pytest.mark.usefixtures("hurried")
def test_lists_and_calls_while_another_thread_changes_everything() -> None:
    """What is listed last is what is there, and no list, call or read ever fails."""
    server: MCPServer[Any] = MCPServer("changing", version="1")
    done = threading.Event()
    rounds = 150

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.resource("kept://{name}")
    async def kept(name: str) -> str:
        return name

    async def changes() -> None:
        try:
            for n in range(rounds):
                server.add_tool(_text, f"tool_{n}")
                server.add_prompt(_text, f"prompt_{n}")
                server.add_resource(f"fixed://{n}", _text, name=f"fixed_{n}")
                server.add_resource(f"template{n}://{{name}}", _named, name=f"template_{n}")
                if n % 3 == 0:
                    server.remove_tool(f"tool_{n}")
                    server.remove_prompt(f"prompt_{n}")
                    server.remove_resource(f"fixed://{n}")
        finally:
            done.set()

    async def scenario() -> None:
        async with Client(server) as client:
            while not done.is_set():
                assert (await client.call_tool("echo", {"text": "x"})).data == "x"
                assert (await client.read_resource("kept://it")).contents[0].text == "it"  # type: ignore[union-attr]
                await client.list_tools()
                await client.list_prompts()
                await client.list_resources()
                await client.list_resource_templates()
            left = {n for n in range(rounds) if n % 3}
            assert {one.name for one in (await client.list_tools()).tools} == {
                "echo",
                *(f"tool_{n}" for n in left),
            }
            assert {one.name for one in (await client.list_prompts()).prompts} == {
                f"prompt_{n}" for n in left
            }
            listed = (await client.list_resources()).resources
            assert {one.name for one in listed} == {f"fixed_{n}" for n in left}
            templates = (await client.list_resource_templates()).resource_templates
            assert len(templates) == rounds + 1
            for n in range(rounds):
                found = await client.read_resource(f"template{n}://it")
                assert found.contents[0].text == "it"  # type: ignore[union-attr]

    in_threads(scenario, scenario, scenario, changes)


async def _text() -> str:
    return "text"


async def _named(name: str) -> str:
    return name
