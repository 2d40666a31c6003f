"""Corners of the critical path that few clients ever see: what a handler leaves behind, slow readers, early ends, odd spellings."""

from __future__ import annotations

import asyncio
import contextvars
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcpfast import Context, Limits, MCPServer, _core, _spine
from mcpfast._calls import Carriers
from mcpfast._stream import StreamChannel
from mcpfast.server.host import Host
from mcpfast.transports import memory
from tests.test_sockets import serving, wire_to
from tests.wire import LEGACY, REVISIONS, Wire, connected, loops, run

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="clean")
both_loops = pytest.mark.parametrize("loop", loops())


class Marking(msgspec.Struct):
    """A type whose decoding leaves something behind."""

    text: str

    def __post_init__(self) -> None:
        VARIABLE.set(self.text)


def make_server(**limits: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("corners", version="1", limits=Limits(**limits))

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool(inline=True)
    def leaves(text: str) -> str:
        VARIABLE.set(text)
        return "left"

    @server.tool(inline=True)
    def leaves_and_fails(text: str) -> str:
        VARIABLE.set(text)
        raise LookupError(text)

    @server.tool(inline=True)
    def cancels_itself_and_fails(text: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise LookupError(text)

    @server.tool
    async def leaves_while_decoded(thing: Marking, more: int) -> str:
        return "left"

    @server.tool(inline=True)
    def look() -> str:
        task = asyncio.current_task()
        return f"{VARIABLE.get()}, {'no Task' if task is None else 'a Task'}"

    return server


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def respelled(message: dict[str, Any]) -> bytes:
    """The same message with an escaped member name, so that a full parser must look at it."""
    return json.dumps(message).replace('"method"', '"m\\u0065thod"').encode()


# ---------------------------------------------------------------------------------------------------- what is left behind


LEAVING = {
    "leaves": {"text": "left"},
    "leaves_and_fails": {"text": "left"},
    "cancels_itself_and_fails": {"text": "x"},
    "leaves_while_decoded": {"thing": {"text": "left"}, "more": "not a number"},
}


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "own"])
@pytest.mark.parametrize("way", ["alone", "one write", "respelled", "batch"])
@pytest.mark.parametrize("tool", LEAVING)
def test_a_call_sees_nothing_of_the_one_before(
    tool: str, way: str, warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a context variable nor a cancellation; and every handler, inline ones too, runs in a Task."""
    if tool == "leaves_while_decoded" and not warm:
        pytest.skip("decoded before there is a Task")

    async def scenario() -> None:
        async with connected(make_server(), "2025-03-26", warm=warm) as wire:
            for _ in range(5):
                first = wire.message("tools/call", {"name": tool, "arguments": LEAVING[tool]})
                then = wire.message("tools/call", {"name": "look", "arguments": {}})
                if way == "batch":
                    wire.send([first, then] if tool != "leaves_while_decoded" else [first])
                elif way == "respelled":
                    wire.remember(first)
                    wire.send(respelled(first))
                else:
                    wire.send(first)
                if way == "alone":
                    await wire.answer(first["id"])
                if way != "batch" or tool == "leaves_while_decoded":
                    wire.send(then)
                assert text_of(await wire.answer(then["id"])) == "clean, a Task"
                await wire.answer(first["id"])
                assert text_of(await wire.ask("tools/call", {"name": "look"})) == "clean, a Task"

    run(scenario())


# ---------------------------------------------------------------------------------------------------- slow readers


@both_loops
def test_a_slow_reader_is_asked_for_patience_in_the_middle_of_a_burst(loop: str) -> None:
    """All calls arrive in one read. Those whose answers nobody takes wait as lines, until the client reads."""
    server = make_server(output_high_bytes=1 << 14, output_low_bytes=1 << 12)
    handled: list[int] = []

    @server.tool
    async def big(n: int) -> str:
        handled.append(n)
        return "x" * 20_000

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            ((session,), engine) = server._serving[-1].sessions, server._serving[-1].engine
            small = socket.socket(fileno=wire.writer.get_extra_info("socket").fileno())
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            small.detach()
            wire.writer.transport.pause_reading()
            calls = [
                wire.message("tools/call", {"name": "big", "arguments": {"n": n}}) for n in range(100)
            ]
            wire.send(*calls)
            while session.channel.waiting_bytes <= engine.output_high_bytes:
                await asyncio.sleep(0.001)
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert len(handled) < 100
            assert session.channel.waiting_bytes < engine.output_high_bytes + 50_000
            wire.writer.transport.resume_reading()
            for call in calls:
                assert len(text_of(await wire.answer(call["id"]))) == 20_000
            assert handled == list(range(100))

    run(scenario(), loop)


@both_loops
def test_a_handler_that_floods_goes_at_the_pace_of_its_client(loop: str) -> None:
    server = make_server(output_high_bytes=1 << 14, output_low_bytes=1 << 12)
    sent = 0

    @server.tool
    async def flood(ctx: Context) -> str:
        nonlocal sent
        for sent in range(1, 501):
            await ctx.info("x" * 2_000)
        return "done"

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            (session,) = server._serving[-1].sessions
            wire.writer.transport.pause_reading()
            call = wire.message("tools/call", {"name": "flood", "arguments": {}})
            wire.send(call)
            before = -1
            while sent != before or not sent:
                before = sent
                await asyncio.sleep(0.02)
            assert sent < 500
            assert session.channel.waiting_bytes < 1 << 15
            wire.writer.transport.resume_reading()
            assert text_of(await wire.answer(call["id"])) == "done"
            assert len(wire.others) == 500

    run(scenario(), loop)


def test_waiting_for_a_client_that_is_gone_ends_at_once() -> None:
    async def scenario() -> None:
        async with connected(make_server(), open_session=False):
            (session,) = server_sessions()
            channel = session.channel
            session.channel.owner.close()
            await asyncio.wait_for(channel.taken(), 5)
            assert channel.waiting_bytes == 0

    server = make_server()

    def server_sessions() -> Any:
        return server._serving[-1].sessions

    async def main() -> None:
        async with memory.connect(server):
            (session,) = server_sessions()
            session.channel.owner.close()
            await asyncio.wait_for(session.channel.taken(), 5)

    run(main())
