"""Corners of the critical path that few clients ever see: what a handler leaves behind, slow readers, early ends, odd spellings."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcpfast import Context, Limits, MCPServer, _core, _spine
from mcpfast._calls import Carriers
from mcpfast._entry import ENCODE, Entry
from mcpfast._stream import StreamChannel
from mcpfast.errors import TOO_MANY_CALLS
from mcpfast.server.host import Host
from mcpfast.server.session import Session
from mcpfast.transports import memory
from tests.test_sockets import serving, wire_to
from tests.wire import LEGACY, REVISIONS, Wire, connected, loops, run

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="clean")
LONG = [letter * 40 for letter in "abc"]  # a short call at the end of a read is not known by its shape
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


@pytest.mark.parametrize("way", ["alone", "one write", "respelled", "batch"])
@pytest.mark.parametrize(
    ("tool", "warm"),
    # where each call has a Task of its own, its arguments are decoded before there is one
    [(tool, warm) for tool in LEAVING for warm in (True, False) if warm or tool != "leaves_while_decoded"],
)
def test_a_call_sees_nothing_of_the_one_before(tool: str, way: str, warm: bool) -> None:
    """Neither a context variable nor a cancellation; and every handler, inline ones too, runs in a Task."""

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
            calls = [wire.message("tools/call", {"name": "big", "arguments": {"n": n}}) for n in range(100)]
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
        for _ in range(500):
            sent += 1
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
    server = make_server()

    async def scenario() -> None:
        async with memory.connect(server):
            (session,) = server._serving[-1].sessions
            session.channel.owner.close()
            await asyncio.wait_for(session.channel.taken(), 5)
            assert session.channel.waiting_bytes == 0

    run(scenario())


# ---------------------------------------------------------------------------------------------------- early ends


@both_loops
def test_a_last_line_that_finds_every_task_busy_is_answered(loop: str, tmp_path: Path) -> None:
    """A neighbour holds all warm Tasks; a client sends a line without its newline, ends, and still gets its answer."""
    server = make_server(eof_grace_s=60.0)
    release = asyncio.Event()

    @server.tool
    async def hold() -> str:
        await release.wait()
        return "released"

    async def scenario() -> None:
        async with serving(server, f"unix://{tmp_path}/s") as [where], wire_to(where) as neighbour:
            host = server._serving[-1]
            (busy,) = host.sessions
            async with wire_to(where) as wire:
                await answered_in_time(host, busy, neighbour, wire)

    async def answered_in_time(host: Host, busy: Session, neighbour: Wire, wire: Wire) -> None:
        held = []
        while host.engine.carriers.counts()[1]:
            held.append(neighbour.message("tools/call", {"name": "hold", "arguments": {}}))
            neighbour.send(held[-1])
            while busy.channel.calls < len(held):
                await asyncio.sleep(0.001)
        last = wire.message("tools/call", {"name": "echo", "arguments": {"text": "last"}})
        wire.remember(last)
        wire.writer.write(json.dumps(last).encode())
        wire.writer.write_eof()
        assert text_of(await wire.answer(last["id"])) == "last"
        assert await asyncio.wait_for(wire.reader.read(), 5) == b""  # and at once, not after the grace
        release.set()
        for call in held:
            assert text_of(await neighbour.answer(call["id"])) == "released"

    run(scenario(), loop)


def test_an_end_that_is_told_twice_is_one_end() -> None:
    """By the transport and by its reader, say: what is in flight is answered, once, and then it is over."""
    server = make_server()
    release = asyncio.Event()

    @server.tool
    async def hold() -> str:
        await release.wait()
        return "released"

    async def scenario() -> None:
        async with memory.connect(server) as (reader, writer):
            (session,) = server._serving[-1].sessions
            wire = Wire(reader, writer, "2025-11-25")
            await wire.initialize()
            call = wire.message("tools/call", {"name": "hold", "arguments": {}})
            wire.send(call)
            while not session.channel.calls:
                await asyncio.sleep(0.001)
            session.channel.end_input()
            session.channel.end_input()
            release.set()
            assert text_of(await wire.answer(call["id"])) == "released"
            assert await asyncio.wait_for(reader.read(), 5) == b""
            session.channel.end_input()

    run(scenario())


def test_a_call_that_closes_its_connection_and_waits_is_cancelled() -> None:
    """It was in no list yet when the connection's calls were cancelled."""
    server = make_server()
    ended: list[str] = []

    @server.tool
    async def close_and_wait() -> str:
        (session,) = server._serving[-1].sessions
        session.channel.owner.close()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "waited"

    async def scenario() -> None:
        async with memory.connect(server) as (reader, writer):
            wire = Wire(reader, writer, "2025-11-25")
            await wire.initialize()
            wire.send(wire.message("tools/call", {"name": "close_and_wait", "arguments": {}}))
            assert await asyncio.wait_for(reader.read(), 5) == b""
            while not ended:
                await asyncio.sleep(0.001)

    run(scenario())
    assert ended == ["cancelled"]


# ---------------------------------------------------------------------------------------------------- odd messages


@pytest.mark.parametrize("loop", loops())
@pytest.mark.parametrize("revision", LEGACY)
def test_a_call_known_from_a_neighbour_opens_no_session(revision: str, loop: str, tmp_path: Path) -> None:
    """The server knows the shape of the call from one connection; another one still has to initialize first."""

    async def scenario() -> None:
        async with (
            serving(make_server(), f"unix://{tmp_path}/s") as [where],
            wire_to(where, open_session=False) as known,
            wire_to(where, open_session=False) as stranger,
        ):
            known.revision = stranger.revision = stranger.session = revision
            await known.initialize()
            for _ in range(3):
                assert (
                    text_of(await known.ask("tools/call", {"name": "echo", "arguments": {"text": LONG[0]}}))
                    == LONG[0]
                )
            stranger.session = "2025-11-25"  # as long as nothing is negotiated
            message = stranger.message("tools/call", {"name": "echo", "arguments": {"text": LONG[0]}})
            stranger.send(message)
            assert (await stranger.answer(message["id"]))["error"]["code"] == -32600
            await stranger.initialize()
            assert (
                text_of(await stranger.ask("tools/call", {"name": "echo", "arguments": {"text": LONG[1]}}))
                == LONG[1]
            )

    run(scenario(), loop)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_call_known_by_its_shape_is_held_to_what_is_in_flight(revision: str) -> None:
    """The same id again is refused, and so is one call more than a connection may have; neither disturbs the others."""
    server = make_server(connection_calls_max=2)
    release = asyncio.Event()

    @server.tool
    async def hold(text: str) -> str:
        await release.wait()
        return text

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            release.set()
            for _ in range(2):  # from now on its shape is known
                await wire.ask("tools/call", {"name": "hold", "arguments": {"text": LONG[0]}})
            release.clear()
            one, two, many = (
                wire.message("tools/call", {"name": "hold", "arguments": {"text": text}}) for text in LONG
            )
            wire.send(one, one)
            refused = await wire.receive()
            assert refused["id"] == one["id"] and refused["error"]["code"] == -32600
            wire.send(two, many)
            assert (await wire.answer(many["id"]))["error"]["code"] == TOO_MANY_CALLS
            release.set()
            assert [text_of(await wire.answer(call["id"])) for call in (one, two)] == LONG[:2]

    run(scenario())


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_respelled_line_that_no_parser_takes_is_refused_with_its_id(revision: str) -> None:
    """Nested as deeply as the limit allows, which is deeper than the parser goes that reads odd spellings."""

    async def scenario() -> None:
        async with connected(make_server(depth_max=1_000), revision) as wire:
            message = wire.message("tools/call", {"name": "echo", "arguments": {"text": "N"}})
            wire.remember(message)
            wire.send(respelled(message).replace(b'"N"', b"[" * 990 + b"]" * 990))
            answer = await wire.answer(message["id"])
            assert "error" in answer or answer["result"]["isError"]
            assert text_of(await wire.ask("tools/call", {"name": "echo", "arguments": {"text": "x"}})) == "x"

    run(scenario())


# ---------------------------------------------------------------------------------------------------- what others may hand in


class Empty(msgspec.Struct):
    """Decoded arguments of which there are none."""


def test_a_decoder_that_gives_something_else_is_refused() -> None:
    """What is read at the offsets of a Struct must be that Struct."""
    server = make_server()
    server.catalog.table[b"odd"] = Entry(
        "odd", None, lambda: 1, lambda raw: [], (), kind=ENCODE, inline=True, decoded_type=Empty
    )

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            assert "error" in await wire.ask("tools/call", {"name": "odd"})

    run(scenario())


def test_a_type_without_slots_goes_the_other_way() -> None:
    assert not Entry("odd", None, None, None, ("real",), decoded_type=complex).fast


def test_what_an_encoder_sent_before_it_failed_is_kept() -> None:
    """The answer becomes an error; the notification before it stays whole."""
    server = make_server()

    def encode(value: Any, wire: Any) -> bytes:
        (session,) = server._serving[-1].sessions
        data = {"level": "info", "data": "encoding"}
        message = {"jsonrpc": "2.0", "method": "notifications/message", "params": data}
        session.channel.send(json.dumps(message).encode() + b"\n")
        raise LookupError("no result")

    server.catalog.table[b"odd"] = Entry(
        "odd",
        None,
        lambda: 1,
        lambda raw: Empty(),
        (),
        kind=ENCODE,
        encode=encode,
        inline=True,
        decoded_type=Empty,
    )

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            assert "error" in await wire.ask("tools/call", {"name": "odd"})
            assert [other["params"]["data"] for other in wire.others] == ["encoding"]

    run(scenario())


class Late:
    """A Task that looks like asyncio's and, when it is woken, makes its step a turn later."""

    __module__ = "_asyncio"
    _must_cancel = False

    def __init__(self, coroutine: Any, *, loop: Any, name: str, context: Any) -> None:
        self._coroutine, self._loop = coroutine, loop
        loop.call_soon(self._step)

    def _step(self) -> None:
        self._coroutine.send(None).add_done_callback(self._woken)

    def _woken(self, future: Any) -> None:
        pass  # "later"

    def cancel(self) -> bool:
        return False

    def cancelling(self) -> int:
        return 0


def test_a_task_that_does_not_step_when_it_is_woken_is_an_error_and_no_endless_loop() -> None:
    """What `Carriers.check` cannot see of an asyncio that works differently."""
    server = make_server()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Host(server) as host:
            carriers = Carriers(loop, asyncio.Future, Late, contextvars.Context())
            engine = _spine.Engine(
                loop,
                host.dispatcher,
                carriers,
                server.catalog.table,
                host.engine.modern_wires,
                _core.Table(),
                server.limits,
            )
            await asyncio.sleep(0)
            channel = StreamChannel(engine, -1, -1, True, None)
            with pytest.raises(RuntimeError, match="did not take the line"):
                channel.feed(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')

    run(scenario())


def test_arguments_are_let_go_where_a_context_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is an incident, and what was read for it is not kept."""
    server = make_server()

    def broken(self: Any, request: Any) -> Any:
        raise LookupError("no context")

    @server.tool
    async def with_context(text: str, ctx: Context) -> str:
        return text

    monkeypatch.setattr("mcpfast.server.dispatch.Dispatcher.make_context", broken)
    monkeypatch.setattr(
        logging.getLogger("mcpfast"), "disabled", True
    )  # kept tracebacks would hold the requests

    async def scenario() -> None:
        async with connected(server, "2025-06-18") as wire:
            line = {"name": "with_context", "arguments": {"text": "x" * 100_000}}
            called = await wire.ask("tools/call", line)
            assert "Incident" in text_of(called)
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(50):
                await wire.ask("tools/call", line)
            assert tracemalloc.get_traced_memory()[0] - before < 1_000_000

    tracemalloc.start()
    try:
        run(scenario())
    finally:
        tracemalloc.stop()
