"""Defects that a review found, each held by the smallest scene that showed it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPError, MCPServer, ToolError
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.addresses import parse
from mcpfast.transports.sockets import Listener
from mcpfast.transports.stream import Stream
from tests.wire import connected, run

INITIALIZE = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "id": "init",
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "c", "version": "1"},
            },
        }
    ).encode()
    + b"\n"
)


def call_line(id: Any, name: str, **arguments: Any) -> bytes:
    params = {"name": name, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).encode() + b"\n"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the loop's exception handler is told; nothing, in the end."""
    said: list[str] = []
    yield said
    gc.collect()
    assert said == []


def watch(told: list[str]) -> None:
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(f"{context['message']} {context.get('exception')!r}")
    )


class Speechless(ToolError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "error",
    [ToolError("no file \udc80"), MCPError(5, "no \udc80"), MCPError(5, "x", object()), Speechless("x")],
    ids=["tool error", "message", "data", "str"],
)
def test_an_error_that_cannot_be_written_is_answered(
    error: Exception, waits: bool, warm: bool, told: list[str]
) -> None:
    logging.getLogger("mcpfast").disabled = True
    server: MCPServer[Any] = MCPServer("x")

    @server.tool
    async def bad(text: str) -> str:
        if waits:
            await asyncio.sleep(0)
        raise error

    async def scenario() -> None:
        watch(told)
        async with connected(server, "2025-06-18", warm=warm) as wire:
            answer = await wire.ask("tools/call", {"name": "bad", "arguments": {"text": "x"}})
            assert "error" in answer or answer["result"]["isError"]
            if str(error.args[0]).startswith("no file"):
                assert answer["result"]["content"][0]["text"] == "no file \\udc80"

    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger("mcpfast").disabled = False


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_calls_under_an_eager_task_factory(told: list[str]) -> None:
    server: MCPServer[Any] = MCPServer("x")

    @server.tool
    async def quick(text: str) -> str:
        return text

    async def scenario() -> None:
        watch(told)
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with connected(server, "2025-06-18") as wire:
            for _ in range(2):
                assert (await wire.call("quick", {"text": "a"}))["content"][0]["text"] == "a"

    asyncio.run(scenario())


def test_warm_tasks_that_somebody_cancelled_are_left_out(told: list[str]) -> None:
    server: MCPServer[Any] = MCPServer("x")

    @server.tool
    async def echo(text: str) -> str:
        return text

    async def scenario() -> None:
        watch(told)
        async with connected(server, "2025-06-18") as wire:
            for task in asyncio.all_tasks():
                if task.get_name() == "mcp_call":
                    task.cancel()
            await asyncio.sleep(0)
            for n in range(6):
                assert (await wire.call("echo", {"text": str(n)}))["content"][0]["text"] == str(n)

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["big", "flood"])
def test_nothing_begins_on_a_connection_that_broke(first: str, told: list[str]) -> None:
    """The client is gone; the server finds out in the middle of what it had read."""
    server: MCPServer[Any] = MCPServer("x")
    begun: list[str] = []

    @server.tool
    async def big(text: str) -> str:
        return "x" * (3 << 20)

    @server.tool
    async def flood(text: str, ctx: Context[Any]) -> str:
        await ctx.info("x" * (3 << 20))
        return ""

    @server.tool
    async def slow(text: str) -> str:
        begun.append(text)
        await asyncio.sleep(60)
        return ""

    async def scenario() -> None:
        watch(told)
        async with Host(server) as host:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.sendall(INITIALIZE + call_line(1, first, text="") + call_line(2, "slow", text="late"))
            theirs.close()
            fd = ours.detach()
            stream = Stream(
                host, fd, fd, is_socket=True, peer=Peer("test"), grace_s=1, on_closed=lambda _: None
            )
            stream.channel.start_reading()
            await asyncio.sleep(0.1)
            assert stream.channel.closed and stream.channel.calls == 0 and begun == []

    asyncio.run(scenario())


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous, like an array")

    __hash__ = None  # type: ignore[assignment]


def test_a_context_value_that_cannot_be_compared(told: list[str]) -> None:
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    server: MCPServer[Any] = MCPServer("x")

    @server.tool
    async def sets(wait: bool) -> bool:
        variable.set(Incomparable())
        if wait:
            await asyncio.sleep(0)
        return wait

    async def scenario() -> None:
        watch(told)
        variable.set(Incomparable())
        async with connected(server, "2025-06-18") as wire:
            for n in range(4):
                assert not (await wire.call("sets", {"wait": bool(n % 2)})).get("isError")

    asyncio.run(scenario())


def test_a_batch_of_too_many_items_is_refused_before_it_is_taken_apart() -> None:
    async def scenario() -> None:
        async with connected(MCPServer("x"), "2025-03-26") as wire:
            tracemalloc.start()
            try:
                wire.send(b"[" + b"0," * 1_000_000 + b"0]")
                assert (await wire.receive())["error"]["code"] == -32600
                assert tracemalloc.get_traced_memory()[1] < 20 << 20
            finally:
                tracemalloc.stop()

    asyncio.run(scenario())


def test_a_line_of_odd_spelling_is_not_unfolded() -> None:
    async def scenario() -> None:
        async with connected(MCPServer("x"), "2025-06-18") as wire:
            tracemalloc.start()
            try:
                message = wire.message("ping")
                wire.remember(message)
                line = json.dumps(message).encode()
                wire.send(b'{"\\u0061":[' + b"[]," * 300_000 + b"1e999]," + line[1:])
                assert (await wire.answer(message["id"]))["result"] == {}
                assert tracemalloc.get_traced_memory()[1] < 10 << 20
            finally:
                tracemalloc.stop()

    asyncio.run(scenario())


def test_a_depth_limit_that_no_stack_holds() -> None:
    code = """
import asyncio, sys
from mcpfast import Limits, MCPServer
from mcpfast.transports import memory

async def main():
    async with memory.connect(MCPServer("x", limits=Limits(depth_max=10_000_000))) as (reader, writer):
        writer.write(b"[" * 2_000_000 + b"]" * 2_000_000 + b"\\n")
        print((await reader.readline()).decode())

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "-32600" in ran.stdout, ran.stderr


def test_a_lifespan_ends_after_the_handlers_that_use_it(told: list[str]) -> None:
    order: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[str]:
        yield "database"
        order.append("lifespan")

    server: MCPServer[Any] = MCPServer("x", lifespan=lifespan)

    @server.tool
    async def slow(text: str) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            order.append("handler")
        return ""

    async def scenario() -> None:
        watch(told)
        async with connected(server, "2025-06-18") as wire:
            wire.send(wire.message("tools/call", {"name": "slow", "arguments": {"text": ""}}))
            await asyncio.sleep(0.05)

    asyncio.run(scenario())
    assert order == ["handler", "lifespan"]


def test_a_lifespan_that_fails_leaves_no_task(told: list[str]) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    async def scenario() -> None:
        watch(told)
        for _ in range(3):
            with pytest.raises(OSError, match="no database"):
                async with Host(MCPServer("x", lifespan=lifespan)):
                    pass
        await asyncio.sleep(0.01)
        gc.collect()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_the_socket_file_of_another_server_stays(tmp_path: Path) -> None:
    """As in a restart that removes the file, starts the new server, and then ends the old one."""
    path = str(tmp_path / "x.sock")

    async def scenario() -> None:
        async with Host(MCPServer("old")) as old, Host(MCPServer("new")) as new:
            first = Listener(old, parse(f"unix://{path}"))
            os.rename(path, path + ".old")  # its inode lives on, and is not given to the next file
            second = Listener(new, parse(f"unix://{path}"))
            first.close()
            assert os.path.exists(path)
            second.close()
            assert not os.path.exists(path)

    asyncio.run(scenario())


SERVER = 'from mcpfast import MCPServer; MCPServer("x").run()'


def shell(script: str, tmp_path: Path) -> list[str]:
    (tmp_path / "in").write_bytes(b"not for the server\n" + INITIALIZE)
    (tmp_path / "server.py").write_text(SERVER)
    subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env={**os.environ, "PY": sys.executable, "PYTHONPATH": os.getcwd()},
        timeout=60, check=True,
    )  # fmt: skip
    return (tmp_path / "out").read_text().splitlines()


def test_stdout_is_a_file_that_others_write_to(tmp_path: Path) -> None:
    lines = shell("(echo before; tail -n1 in | $PY server.py; echo after) > out", tmp_path)
    assert [lines[0], json.loads(lines[1])["id"], lines[2]] == ["before", "init", "after"]


def test_stdout_is_appended_to_a_file(tmp_path: Path) -> None:
    lines = shell("echo before > out; tail -n1 in | $PY server.py >> out", tmp_path)
    assert [lines[0], json.loads(lines[1])["id"]] == ["before", "init"]


def test_stdin_is_the_rest_of_a_file(tmp_path: Path) -> None:
    lines = shell("(read first; $PY server.py) < in > out", tmp_path)
    assert [json.loads(line).get("id") for line in lines] == ["init"]


def test_the_id_limit_holds_for_calls_known_by_their_shape() -> None:
    server: MCPServer[Any] = MCPServer("x", limits=Limits(id_bytes_max=4))

    @server.tool
    async def echo(text: str) -> str:
        return text

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            for id in (1, 2, 12345):
                wire.send(call_line(id, "echo", text="x" * 40))
                answer = await wire.receive()
                assert answer.get("id") == (id if id < 9999 else None)

    asyncio.run(scenario())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_task_that_a_handler_kept_is_not_the_next_calls(loop: str) -> None:
    """Cancelling a Task whose call is over does nothing, as on any asyncio Task: no other call is hit."""
    kept: list[Any] = []
    server: MCPServer[Any] = MCPServer("kept")

    @server.tool
    async def keep(text: str) -> str:
        kept.append(asyncio.current_task())
        return text

    @server.tool
    async def wait(text: str) -> str:
        for task in kept:
            task.cancel()
        await asyncio.sleep(0.01)
        return text

    async def scenario() -> None:
        async with connected(server) as wire:
            for _ in range(5):
                messages = [
                    wire.message("tools/call", {"name": name, "arguments": {"text": "x"}})
                    for name in ("keep", "keep", "wait", "wait")
                ]
                wire.send(*messages)
                for message in messages:
                    assert (await wire.answer(message["id"]))["result"]["content"][0]["text"] == "x"

    run(scenario(), loop)


def test_one_connections_flood_of_lines_leaves_the_loop_its_turns() -> None:
    """20,000 blank lines and pings in one write: the loop turns meanwhile."""
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        async with connected(MCPServer("flood")) as wire:
            wire.send(*[b"" for _ in range(60_000)])
            last = wire.message("ping")
            wire.send(last)

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count())
            await wire.answer(last["id"])
            counting.cancel()

    run(scenario())
    assert turns > 50
