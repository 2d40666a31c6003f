"""The pieces of the hot path one by one: `pytest benches/test_pieces.py --benchmark-enable`.

Times of small pieces lie (caches are warm, branches are learnt): use them to compare two versions of one piece,
with --benchmark-autosave before and --benchmark-compare after. What a call costs in all, `make bench-gate` says.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mcpfast import MCPServer
from mcpfast._core import Blocks, Inbox, Table, json_string, scan
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Stream

LEGACY_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}\n'
)
MODERN_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"},'
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}\n'
)

Benchmark = Callable[..., Any]


class EchoArguments(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(Blocks(), 4 << 20)


def test_frame_64_calls_of_one_read(benchmark: Benchmark, inbox: Inbox) -> None:
    block = b"".join(LEGACY_CALL % number for number in range(64))
    assert len(benchmark(inbox.feed, block)) == 64


def test_frame_a_mebibyte_in_pieces(benchmark: Benchmark, inbox: Inbox) -> None:
    line = b'"' + b"x" * (1 << 20) + b'"\n'
    pieces = [line[at : at + 65_536] for at in range(0, len(line), 65_536)]

    def feed() -> list[bytes | None]:
        return [message for piece in pieces for message in inbox.feed(piece)]

    assert len(benchmark(feed)) == 1


@pytest.mark.parametrize("call", [LEGACY_CALL, MODERN_CALL], ids=["legacy", "modern"])
def test_decode_the_envelope(benchmark: Benchmark, call: bytes) -> None:
    kind, members = benchmark(scan, (call % 7).rstrip(b"\n"))
    assert (kind, members["id"]) == ("message", b"7")


def test_decode_the_arguments(benchmark: Benchmark) -> None:
    decode = msgspec.json.Decoder(EchoArguments).decode
    assert benchmark(decode, b'{"text":"hello"}').text == "hello"


@pytest.mark.parametrize("tools", [10, 10_000])
def test_dispatch_by_name(benchmark: Benchmark, tools: int) -> None:
    table = Table()
    for number in range(tools):
        table[b"tool_%d" % number] = number
    assert benchmark(table.get, b"tool_9") == 9


@pytest.mark.parametrize(
    "text", ["hello", "hello\n" * 2_000, "héllo " * 2_000], ids=["short", "escaped", "wide"]
)
def test_encode_a_string(benchmark: Benchmark, text: str) -> None:
    assert msgspec.json.decode(benchmark(json_string, text)) == text


def test_dispatch_64_calls(benchmark: Benchmark) -> None:
    """From whole lines to answers written to /dev/null: everything but the system calls of a peer."""
    server: MCPServer[Any] = MCPServer("pieces")

    @server.tool
    async def echo(text: str) -> str:
        return text

    envelope = b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
    line = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"},%b}}\n'
    lines = b"".join(line % (number, envelope) for number in range(64))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Host(server) as host:
            read_fd, write_fd = os.pipe()
            stream = Stream(
                host,
                read_fd,
                os.open(os.devnull, os.O_WRONLY),
                is_socket=False,
                peer=Peer("null"),
                grace_s=0.0,
                on_closed=lambda _: None,
            )
            done = loop.create_future()

            def outside_of_any_task() -> None:
                benchmark(stream.channel.feed, lines)
                done.set_result(None)

            loop.call_soon(outside_of_any_task)
            await done
            stream.close()
            os.close(write_fd)

    asyncio.run(scenario())
