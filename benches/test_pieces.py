"""The pieces of the hot path one by one: `make bench-pieces` shows them beside their last landed run.

Times of small pieces lie (caches are warm, branches are learnt): use them to compare two versions of one piece. What
a call costs in all, `make bench-gate` says.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Literal

import msgspec
import pytest
from httptools import HttpRequestParser

from mcpfast import MCPServer
from mcpfast._core import Blocks, Inbox, Table, json_string, scan
from mcpfast._http import HttpConnection, Port
from mcpfast.server.encoding import encode
from mcpfast.server.host import Host
from mcpfast.server.registered import Tool
from mcpfast.server.schema_raw import validator
from mcpfast.server.session import Peer
from mcpfast.server.uri_template import TemplateTable, UriTemplate
from mcpfast.transports.stream import Stream
from mcpfast.transports.web.endpoint import Endpoint
from mcpfast.transports.web.settings import HttpSettings

LEGACY_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}\n'
)
MODERN_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"},'
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},'
    b'"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}\n'
)

HANDSHAKE = (
    b'{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
)
HTTP_HEAD = (
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nUser-Agent: %s\r\n"
    b"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
    b"Mcp-Name: echo\r\nContent-Length: %d\r\n\r\n"
)
HTTP_REQUESTS = 50_000

Benchmark = Any  # pytest-benchmark's fixture, which has no types


class EchoArguments(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str


class Offer(msgspec.Struct):
    name: str
    euros: float


def find(kind: Literal["beans", "ground"], pieces: int, euros_max: float = 20.0) -> list[Offer]:
    """What there is to buy.

    Args:
        kind: beans, or ground already
        euros_max: nothing dearer than this
    """
    raise NotImplementedError


async def echo(text: str) -> str:
    return text


async def echo_times(text: str, times: int, loud: bool) -> str:
    return text


def tool_of(function: Callable[..., Any]) -> Tool:
    server: MCPServer[Any] = MCPServer("pieces")
    server.tool(function)
    tool: Tool
    (tool,) = server.catalog.tools
    return tool


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


def test_read_scalar_arguments(benchmark: Benchmark) -> None:
    """What a tool of strings, whole numbers and booleans has instead of a decoder."""
    read = benchmark(tool_of(echo_times).entry.scalars_of, b'{"text":"hello","times":3,"loud":true}')
    assert read == ("hello", 3, True)


def test_validate_by_json_schema(benchmark: Benchmark) -> None:
    sku = {"type": "string", "pattern": "^[A-Z]{3}$"}
    validate = validator({"type": "object", "properties": {"sku": sku}, "required": ["sku"]}, "by_sku")
    benchmark(validate, {"sku": "ABC"})
    with pytest.raises(msgspec.ValidationError):
        validate({"sku": "abc"})


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


def test_encode_structured_content(benchmark: Benchmark) -> None:
    offers = [Offer("Santos", 9.5)] * 10
    written = benchmark(tool_of(find).signature.encode_structured, offers)
    assert msgspec.json.decode(written, type=dict[str, list[Offer]]) == {"result": offers}


def test_encode_plain_dicts(benchmark: Benchmark) -> None:
    offers = [{"name": "Santos", "euros": 9.5}] * 10
    assert msgspec.json.decode(benchmark(encode, offers)) == offers


def test_match_a_uri_template(benchmark: Benchmark) -> None:
    templates = [
        UriTemplate("library:///{title}{?page}"),
        UriTemplate("notes://{name}"),
        UriTemplate("file:///{+path}"),
    ]
    table = TemplateTable((template, template.prefix) for template in templates)
    assert benchmark(table.find, "library:///emma?page=2") == ("library:///", {"title": "emma", "page": "2"})


def test_describe_a_tool(benchmark: Benchmark) -> None:
    """From a function to its schemas: what each tool adds to the start of a server."""

    def describe() -> dict[str, Any]:
        return tool_of(find).signature.input_schema

    assert list(benchmark(describe)["properties"]) == ["kind", "pieces", "euros_max"]


# ---- whole calls -----------------------------------------------------------------------------------------


@asynccontextmanager
async def hosting(tool: Callable[..., Any]) -> AsyncIterator[Host]:
    server: MCPServer[Any] = MCPServer("pieces")
    server.tool(tool)
    async with Host(server) as host:
        yield host


async def as_the_loop_does(act: Callable[[], Any]) -> None:
    """Calls `act` outside of any Task: inside of one no warm Task can be entered."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def step() -> None:
        try:
            done.set_result(act())
        except BaseException as why:
            done.set_exception(why)

    loop.call_soon(step)
    await done


@pytest.mark.parametrize(
    ("before", "call"), [(HANDSHAKE, LEGACY_CALL), (b"", MODERN_CALL)], ids=["legacy", "modern"]
)
def test_dispatch_64_calls(benchmark: Benchmark, before: bytes, call: bytes) -> None:
    """From whole lines to answers written to /dev/null: everything but the system calls of a peer."""
    lines = b"".join(call % number for number in range(64))

    async def scenario() -> None:
        async with hosting(echo) as host:
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
            await as_the_loop_does(lambda: stream.channel.feed(before))
            answered = host.engine.answered
            await as_the_loop_does(lambda: benchmark(stream.channel.feed, lines))
            assert (host.engine.answered - answered) % 64 == 0
            assert host.engine.answered > answered
            stream.close()
            os.close(write_fd)

    asyncio.run(scenario())


class Listener:
    """What an HTTP connection asks of the one that accepted it."""

    def made(self, connection: HttpConnection) -> None: ...
    def gone(self, connection: HttpConnection) -> None: ...


class Written(asyncio.Transport):
    """Keeps what was written last. It has TLS, as far as it is asked: then nothing goes past it to a descriptor."""

    last = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return name == "sslcontext" or default

    def write(self, data: Any) -> None:
        self.last = bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("agent", [b"the same", b"%08d"], ids=["known head", "new head"])
def test_answer_an_http_request(benchmark: Benchmark, agent: bytes) -> None:
    """From bytes to bytes. A head that was seen before goes past the parser and the checks of its headers."""
    body = (MODERN_CALL % 7).rstrip(b"\n")
    numbers = count()

    def request() -> tuple[tuple[bytes], dict[str, Any]]:
        name = agent % next(numbers) if b"%" in agent else agent
        return (HTTP_HEAD % (name, len(body)) + body,), {}

    async def scenario() -> None:
        async with hosting(echo) as host:
            endpoint = Endpoint(host, "/mcp", HttpSettings(), loopback=True)
            connection = HttpConnection(
                Port(endpoint.front, Listener(), HttpRequestParser, host.server.limits)
            )
            connection.welcome = True
            connection.connection_made(written := Written())
            ask = partial(benchmark.pedantic, connection.data_received, setup=request, rounds=HTTP_REQUESTS)
            await as_the_loop_does(ask)
            assert written.last.startswith(b"HTTP/1.1 200") and b'"hello"' in written.last
            connection.connection_lost(None)
            endpoint.close()

    asyncio.run(scenario())
