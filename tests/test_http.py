"""Streamable HTTP on real sockets: what comes in, what goes out, what is refused (protocol notes, sections 7, 9, 10)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpfast import Context, Limits, MCPServer
from mcpfast.errors import RegistrationError
from mcpfast.server.host import Host
from mcpfast.transports.addresses import parse
from mcpfast.transports.web.listener import HttpListener
from mcpfast.transports.web.settings import HttpSettings
from tests.wire import loops, run

both_loops = pytest.mark.parametrize("loop", loops())
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
BASE = {
    "Host": "localhost",
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
}


class Answer:
    """One HTTP response: `messages` are the JSON-RPC messages in it, of a JSON body or of events."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        kind = headers.get("content-type", "")
        self.messages: list[Any] = []
        if kind == "application/json" and body:
            self.messages = [json.loads(body)]
        elif kind == "text/event-stream":
            self.messages = [
                json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")
            ]

    @property
    def code(self) -> int | None:
        return self.messages[0].get("error", {}).get("code") if self.messages else None


class Browser:
    """A connection whose bytes are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)

    async def head(self) -> tuple[int, dict[str, str]]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def read(self) -> Answer:
        status, headers = await self.head()
        if status == 100:
            return Answer(status, headers, b"")
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while piece := await self.chunk():
                body += piece
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def ask(self, message: Any, **headers: str) -> Answer:
        self.write(post(message, **headers))
        return await self.read()

    async def call(self, name: str, arguments: dict[str, Any], **meta: Any) -> Answer:
        """A modern tools/call."""
        message, headers = modern("tools/call", {"name": name, "arguments": arguments}, **meta)
        return await self.ask(message, **headers)

    async def closed(self) -> bytes:
        """What is left to read until the server closes."""
        return await self.reader.read()

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.writer.close()


def request(method: str, target: str, body: Any = b"", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items() if value)]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(body)


def post(message: Any, **headers: str) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    base = {name.replace("-", "_"): value for name, value in BASE.items()}
    return request("POST", "/mcp", body, **{**base, **headers})


def rpc(method: str, params: Any = None, id: Any = 1) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": id, "method": method}
    return message if params is None else {**message, "params": params}


def modern(
    method: str, params: dict[str, Any], id: Any = 1, **meta: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    headers = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": method}
    name = params.get("name") or params.get("uri")
    if name:
        headers["Mcp_Name"] = name
    return rpc(method, {**params, "_meta": {**ENVELOPE, **meta}}, id), headers


class Tools:
    """The tools of the tests, and what they saw."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended: list[str] = []

    def server(self, **limits: Any) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer("http", version="1", limits=Limits(**limits))

        @server.tool
        async def echo(text: str) -> str:
            return text

        @server.tool
        async def steps(n: int, ctx: Context) -> str:
            for i in range(n):
                await ctx.report_progress(i, n)
            return "done"

        @server.tool
        async def wait(seconds: float) -> str:
            self.started.set()
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("done")
            return "waited"

        return server


@asynccontextmanager
async def serving(
    server: MCPServer[Any], address: str = "http://127.0.0.1:0", **options: Any
) -> AsyncIterator[tuple[HttpListener, int]]:
    async with Host(server) as host:
        listener = HttpListener(host, parse(address), HttpSettings.taken_from(options))
        await listener.start()
        try:
            yield listener, listener.address.port
        finally:
            listener.close()


@asynccontextmanager
async def browsing(server: MCPServer[Any] | None = None) -> AsyncIterator[Browser]:
    async with serving(server or Tools().server()) as (_, port), await connect(port) as browser:
        yield browser


async def connect(port: int) -> Browser:
    return Browser(*await asyncio.open_connection("127.0.0.1", port))


async def initialized(browser: Browser, revision: str = "2025-11-25") -> str:
    """The id of a new legacy session."""
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    answer = await browser.ask(rpc("initialize", params))
    assert answer.status == 200, answer.body
    id_ = answer.headers["mcp-session-id"]
    told = await browser.ask({"jsonrpc": "2.0", "method": "notifications/initialized"}, Mcp_Session_Id=id_)
    assert (told.status, told.body) == (202, b"")
    return id_


# ---------------------------------------------------------------- answers


@both_loops
def test_a_modern_call_is_answered_with_json(loop: str) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            for text in ("a", "b\n", "ü"):
                answer = await browser.call("echo", {"text": text})
                assert answer.status == 200
                assert answer.messages[0]["result"]["content"][0]["text"] == text
                assert "mcp-session-id" not in answer.headers
                assert answer.headers["cache-control"] == "no-store"

    run(scenario(), loop)


@both_loops
def test_an_answer_turns_to_events_with_the_first_notification(loop: str) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            answer = await browser.call("steps", {"n": 3}, progressToken="p")
            assert answer.headers["content-type"] == "text/event-stream"
            assert [message.get("method") for message in answer.messages] == [
                *["notifications/progress"] * 3,
                None,
            ]
            assert answer.messages[-1]["result"]["content"][0]["text"] == "done"
            assert (await browser.call("steps", {"n": 3})).headers["content-type"] == "application/json"

    run(scenario(), loop)


def test_a_body_may_stand_on_several_lines_and_be_spelled_oddly() -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            pretty = json.dumps(message, indent=2).encode()
            assert (await browser.ask(pretty, **headers)).status == 200
            assert (
                await browser.ask(pretty.replace(b'"method"', b'"m\\u0065thod"'), **headers)
            ).status == 200
            assert (await browser.ask(pretty.replace(b'"x"', b'"x\n"'), **headers)).code == -32700

    run(scenario())


def test_a_large_body_comes_and_goes() -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            for size in (40_000, 70_000, 3_000_000):
                answer = await browser.call("echo", {"text": "x" * size})
                assert len(answer.messages[0]["result"]["content"][0]["text"]) == size

    run(scenario())


# ---------------------------------------------------------------- the modern status table (section 10)


@pytest.mark.parametrize(
    ("change", "headers", "status", "code"),
    [
        ({}, {"Mcp_Name": ""}, 400, -32020),
        ({}, {"Mcp_Name": "other"}, 400, -32020),
        ({}, {"Mcp_Method": ""}, 400, -32020),
        ({}, {"Mcp_Method": "TOOLS/CALL"}, 400, -32020),
        ({}, {"MCP_Protocol_Version": ""}, 400, -32020),
        ({}, {"MCP_Protocol_Version": "2025-11-25"}, 400, -32020),
        ({}, {"Mcp_Name": "  echo  "}, 200, None),
        ({"method": "nope"}, {"Mcp_Method": "nope"}, 404, -32601),
        ({"method": "initialize"}, {"Mcp_Method": "initialize"}, 404, -32601),
        ({"params": {}}, {}, 400, -32602),
        ({"params": {"_meta": {}}}, {}, 400, -32602),
    ],
)
def test_status_of_modern_errors(
    change: dict[str, Any], headers: dict[str, str], status: int, code: int | None
) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            message, good = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id="one")
            answer = await browser.ask({**message, **change}, **{**good, **headers})
            assert (answer.status, answer.code) == (status, code), answer.body
            assert answer.messages[0]["id"] == "one"

    run(scenario())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, -32700),
        (b"{", 400, -32700),
        (b"[]", 400, -32600),
        (b"3", 400, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
    ],
)
def test_what_is_no_message(body: bytes, status: int, code: int) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            for headers in ({}, {"MCP_Protocol_Version": "2026-07-28"}):
                answer = await browser.ask(body, **headers)
                assert (answer.status, answer.code) == (status, code), answer.body

    run(scenario())


def test_modern_notifications_are_taken_and_responses_refused() -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            version = {"MCP_Protocol_Version": "2026-07-28"}
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            assert (await browser.ask(told, **version)).status == 202
            assert (await browser.ask({"jsonrpc": "2.0", "id": 1, "result": {}}, **version)).status == 400

    run(scenario())


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("PUT", "/mcp", {}, 405),
        ("GET", "/mcp", {"MCP_Protocol_Version": "2026-07-28"}, 405),
        ("DELETE", "/mcp", {"MCP_Protocol_Version": "2026-07-28"}, 405),
        ("GET", "/mcp", {"Accept": "application/json"}, 406),
        ("GET", "/mcp", {}, 400),
        ("GET", "/mcp", {"Mcp_Session_Id": "unknown"}, 404),
        ("DELETE", "/mcp", {"Mcp_Session_Id": "unknown"}, 404),
        ("OPTIONS", "/mcp", {}, 204),
        ("POST", "/mcp", {"Content_Type": "text/plain"}, 415),
        ("POST", "/mcp", {"Accept": "application/json"}, 406),
        ("POST", "/mcp", {"Accept": "text/event-stream;q=0, application/json"}, 406),
        ("POST", "/mcp", {"Accept": "*/*"}, 400),
        ("POST", "/mcp", {"Origin": "http://evil.example.com"}, 403),
        ("POST", "/mcp", {"Origin": "http://localhost"}, 400),
        ("POST", "/mcp", {"Host": "evil.example.com"}, 421),
        ("GET", "/mcp", {"Host": "evil.example.com"}, 421),
    ],
)
def test_status_of_http_alone(method: str, target: str, headers: dict[str, str], status: int) -> None:
    base = {name.replace("-", "_"): value for name, value in BASE.items()}

    async def scenario() -> None:
        async with browsing() as browser:
            browser.write(request(method, target, b"{" if method == "POST" else b"", **{**base, **headers}))
            answer = await browser.read()
            assert answer.status == status, answer.body
            if status == 405:
                assert "POST" in answer.headers["allow"]

    run(scenario())


def test_an_origin_is_good_for_its_own_host_only() -> None:
    """What was let in under one Host is not known again under another."""

    async def scenario() -> None:
        async with browsing() as browser:
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            for host, origin, status in (
                ("localhost", "http://localhost", 200),
                ("127.0.0.1", "http://127.0.0.1", 200),
                ("localhost", "http://127.0.0.1", 403),
                ("127.0.0.1", "http://localhost", 403),
                ("localhost:80", "http://localhost", 403),
            ):
                answer = await browser.ask(message, **{**headers, "Host": host, "Origin": origin})
                assert answer.status == status, (host, origin)

    run(scenario())


# ---------------------------------------------------------------- legacy sessions (section 9)


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_legacy_session(revision: str) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            session = {"Mcp_Session_Id": await initialized(browser, revision)}
            answer = await browser.ask(
                rpc("tools/call", {"name": "echo", "arguments": {"text": "x"}}), **session
            )
            assert answer.messages[0]["result"]["content"][0]["text"] == "x"
            assert (await browser.ask(rpc("nope"), **session)).status == 200
            assert (await browser.ask(rpc("tools/list"))).status == 400, "without its id"
            assert (
                await browser.ask(rpc("tools/list"), MCP_Protocol_Version="1999-01-01", **session)
            ).status == 400
            batch = [rpc("ping", id=1), rpc("ping", id=2)]
            answer = await browser.ask(batch, **session)
            if revision == "2025-03-26":
                assert [one["id"] for one in answer.messages[0]] == [1, 2]
            else:
                assert (answer.status, answer.code) == (400, -32600)
            browser.write(request("DELETE", "/mcp", Host="localhost", **session))
            assert (await browser.read()).status == 204
            assert (await browser.ask(rpc("tools/list"), **session)).status == 404

    run(scenario())


@both_loops
def test_the_stream_of_a_session_carries_what_belongs_to_no_request(loop: str) -> None:
    async def scenario() -> None:
        server = Tools().server()
        async with serving(server) as (_, port), await connect(port) as browser, await connect(port) as other:
            session = {"Mcp_Session_Id": await initialized(browser)}
            browser.write(request("GET", "/mcp", Host="localhost", Accept="text/event-stream", **session))
            assert (await browser.head())[0] == 200
            assert events_of(await browser.chunk())[0]["data"] == "", "an id to come back with"
            other.write(request("GET", "/mcp", Host="localhost", Accept="text/event-stream", **session))
            assert (await other.read()).status == 409
            server.notify_list_changed("tools")
            assert b"notifications/tools/list_changed" in await browser.chunk()
            other.write(request("DELETE", "/mcp", Host="localhost", **session))
            assert (await other.read()).status == 204
            assert await browser.chunk() == b"", "with the session its stream ends"

    run(scenario(), loop)


def test_a_modern_listen_stream() -> None:
    async def scenario() -> None:
        server = Tools().server()
        async with browsing(server) as browser:
            message, headers = modern(
                "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="s"
            )
            browser.write(post(message, **headers))
            assert (await browser.head())[1]["content-type"] == "text/event-stream"
            assert b"notifications/subscriptions/acknowledged" in await browser.chunk()
            server.notify_list_changed("tools")
            assert b'subscriptionId":"s"' in await browser.chunk()

    run(scenario())


# ---------------------------------------------------------------- who goes away


@both_loops
def test_a_modern_call_ends_with_its_client_and_a_legacy_one_does_not(loop: str) -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (_, port):
            async with await connect(port) as browser:
                session = {"Mcp_Session_Id": await initialized(browser)}
            for message, headers, end in (
                (*modern("tools/call", {"name": "wait", "arguments": {"seconds": 0.2}}), "cancelled"),
                (rpc("tools/call", {"name": "wait", "arguments": {"seconds": 0.2}}), session, "done"),
            ):
                tools.started.clear()
                async with await connect(port) as browser:
                    browser.write(post(message, **headers))
                    await tools.started.wait()
                while not tools.ended:
                    await asyncio.sleep(0.01)
                assert tools.ended.pop() == end

    run(scenario(), loop)


def test_a_legacy_call_is_cancelled_from_another_connection() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with (
            serving(tools.server()) as (_, port),
            await connect(port) as browser,
            await connect(port) as other,
        ):
            session = {"Mcp_Session_Id": await initialized(browser)}
            browser.write(
                post(rpc("tools/call", {"name": "wait", "arguments": {"seconds": 30}}, id=5), **session)
            )
            await tools.started.wait()
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
            assert (await other.ask(told, **session)).status == 202
            answer = await browser.read()
            assert answer.messages == []
            assert tools.ended == ["cancelled"]

    run(scenario())


def test_nothing_is_left_of_a_thousand_aborted_requests() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (listener, port):
            message, headers = modern("tools/call", {"name": "wait", "arguments": {"seconds": 30}})
            raw = post(message, **headers)
            before = len(asyncio.all_tasks())
            for _ in range(20):
                browsers = [await connect(port) for _ in range(50)]
                for number, browser in enumerate(browsers):
                    browser.write(raw[: len(raw) - 10 * (number % 3)])
                await asyncio.sleep(0.02)
                for browser in browsers:
                    browser.writer.transport.abort()
            while listener._connections:
                await asyncio.sleep(0.01)
            assert not listener.host.sessions
            assert len(asyncio.all_tasks()) <= before + 256, "warm Tasks may be more"
            async with await connect(port) as browser:
                assert (await browser.call("echo", {"text": "x"})).status == 200

    run(scenario())


# ---------------------------------------------------------------- bytes


def exchanges() -> bytes:
    parts = []
    for text in ("a", "b" * 300, "c"):
        message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": text}})
        parts.append(post(message, **headers))
    message, headers = modern("tools/call", {"name": "steps", "arguments": {"n": 2}}, progressToken=1)
    parts.append(post(message, **headers))
    body = json.dumps(modern("tools/call", {"name": "echo", "arguments": {"text": "d"}})[0]).encode()
    chunked = post(b"", **modern("tools/call", {"name": "echo", "arguments": {}})[1])
    chunked = chunked.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    parts.append(chunked + b"5\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n")
    return b"".join(parts)


@given(st.lists(st.integers(1, 2000), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_split_and_pipelining_gives_the_same_answers(sizes: list[int]) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            whole, at = exchanges(), 0
            for size in sizes:
                browser.write(whole[at : at + size])
                at += size
                await asyncio.sleep(0)
            browser.write(whole[at:])
            answers = [await browser.read() for _ in range(5)]
            assert [answer.messages[-1]["result"]["content"][0]["text"] for answer in answers] == [
                "a", "b" * 300, "c", "done", "d",
            ]  # fmt: skip

    run(scenario())


GOOD = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        GOOD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GOOD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        GOOD + b"Content-Length: +3\r\n\r\nabc",
        GOOD + b"Content-Length: -3\r\n\r\nabc",
        GOOD + b"Content-Length: 3 4\r\n\r\nabc",
        GOOD + b"Content-Length: 0x3\r\n\r\nabc",
        GOOD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        GOOD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        GOOD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        GOOD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        GOOD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        GOOD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        GOOD + b"X: a\r\n folded\r\n\r\n",
        GOOD + b"X : a\r\n\r\n",
        GOOD + b"X\x00Y: a\r\n\r\n",
        GOOD + b"X: a\x00b\r\n\r\n",
        b"POST /mcp HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n",
        b"POST /mcp HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_smuggles_is_refused_and_the_connection_closed(raw: bytes) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            browser.write(raw, SMUGGLED)
            left = await browser.closed()
            assert left.startswith(b"HTTP/1.1 400 "), left
            assert left.count(b"HTTP/1.1") == 1, "nothing behind it was looked at"
            assert b"Connection: close" in left

    run(scenario())


@pytest.mark.parametrize("header", ["Host", "Mcp-Session-Id", "Mcp-Method", "MCP-Protocol-Version", "Accept"])
def test_a_routing_header_stands_once(header: str) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            raw = post(message, **headers).replace(
                b"\r\n\r\n", f"\r\n{header}: x\r\n{header}: x\r\n\r\n".encode(), 1
            )
            browser.write(raw)
            assert (await browser.read()).status in (400, 421)

    run(scenario())


@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_give_an_answer_or_a_close(raw: bytes) -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port):
            async with await connect(port) as browser:
                browser.write(raw)
                browser.writer.write_eof()
                left = await browser.closed()
                assert not left or left.startswith(b"HTTP/1.1 4"), left
            async with await connect(port) as browser:
                assert (await browser.call("echo", {"text": "x"})).status == 200

    run(scenario())


# ---------------------------------------------------------------- limits


def test_limits_of_a_request() -> None:
    async def scenario() -> None:
        limits = {"frame_bytes_max": 1000, "head_bytes_max": 2000, "headers_max": 20}
        async with serving(Tools().server(**limits)) as (_, port):
            for raw, status in (
                (post(b"x" * 1001), 413),
                (post(b"").replace(b"Content-Length: 0", b"Content-Length: " + b"9" * 30), 400),
                (
                    post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
                    + b"400\r\n"
                    + b"x" * 1024,
                    413,
                ),
                (post(b"{}", X="y" * 3000)[:2500], 431),
                (post(b"{}", X="y" * 3000), 431),  # whole in one piece
                (post(b"{}", **{f"X{n}": "y" * 200 for n in range(10)}), 431),
                (post(b"{}", **{f"X{n}": "y" for n in range(30)}), 431),
                (post(b"{}", Expect="the impossible"), 417),
            ):
                async with await connect(port) as browser:
                    browser.write(raw)
                    left = await browser.closed()
                    assert left.startswith(f"HTTP/1.1 {status} ".encode()), left
            async with await connect(port) as browser:
                browser.write(post(b"{}", Expect="100-continue"))
                assert (await browser.read()).status == 100
                assert (await browser.read()).status == 400

    run(scenario())


def test_who_sends_nothing_or_slowly_is_let_go() -> None:
    async def trickle(browser: Browser, raw: bytes) -> None:
        for at in range(len(raw)):
            browser.write(raw[at : at + 1])
            await asyncio.sleep(0.1)

    async def scenario() -> None:
        async with serving(Tools().server(head_s=0.5, body_s=0.7, keep_alive_s=0.5)) as (_, port):
            async with await connect(port) as idle, await connect(port) as head, await connect(port) as body:
                raw = post(b"{}" + b" " * 500)
                body.write(raw[:-500])
                slowly = [
                    asyncio.ensure_future(trickle(head, raw)),
                    asyncio.ensure_future(trickle(body, raw[-500:])),
                ]
                assert await idle.closed() == b""
                for browser in (head, body):
                    with contextlib.suppress(ConnectionResetError):
                        assert await browser.closed() == b""
                for one in slowly:
                    one.cancel()

    run(scenario())


def test_a_silent_stream_is_kept_open_with_comments() -> None:
    async def scenario() -> None:
        async with serving(Tools().server(stream_comment_s=0.5)) as (_, port), await connect(port) as browser:
            session = {"Mcp_Session_Id": await initialized(browser)}
            browser.write(request("GET", "/mcp", Host="localhost", Accept="text/event-stream", **session))
            await browser.head()
            await browser.chunk()
            assert (await browser.chunk()).startswith(b":")

    run(scenario())


def test_sessions_are_limited() -> None:
    async def scenario() -> None:
        async with browsing(Tools().server(http_sessions_max=1)) as browser:
            session = await initialized(browser)
            params = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            }
            assert (await browser.ask(rpc("initialize", params))).status == 503
            browser.write(request("DELETE", "/mcp", Host="localhost", Mcp_Session_Id=session))
            await browser.read()
            await initialized(browser)

    run(scenario())


@both_loops
def test_a_drain_ends_streams_and_lets_calls_end(loop: str) -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (listener, port), await connect(port) as caller:
            async with await connect(port) as stream, await connect(port) as idle:
                session = {"Mcp_Session_Id": await initialized(stream)}
                stream.write(request("GET", "/mcp", Host="localhost", Accept="text/event-stream", **session))
                assert (await stream.head())[0] == 200
                assert events_of(await stream.chunk())[0]["data"] == ""
                message, headers = modern("tools/call", {"name": "wait", "arguments": {"seconds": 0.2}})
                caller.write(post(message, **headers))
                await tools.started.wait()
                listener.host.engine.closing = True
                listener.drain(5.0)
                assert await idle.closed() == b""
                assert await stream.chunk() == b""
                answer = await caller.read()
                assert answer.messages[0]["result"]["content"][0]["text"] == "waited"
                assert await caller.closed() == b""
            with pytest.raises(OSError):
                await connect(port)

    run(scenario(), loop)


# ---------------------------------------------------------------- arguments that headers mirror (section 13)


def test_mirrored_arguments_are_held_against_their_headers() -> None:
    async def scenario() -> None:
        server = Tools().server()

        @server.tool
        async def place(
            region: Annotated[str, msgspec.Meta(extra_json_schema={"x-mcp-header": "Region"})] = "",
        ) -> str:
            return region

        with pytest.raises(RegistrationError, match="x-mcp-header"):

            @server.tool
            async def wrong(
                ratio: Annotated[float, msgspec.Meta(extra_json_schema={"x-mcp-header": "Ratio"})],
            ) -> None: ...

        async with browsing(server) as browser:
            for arguments, header, status in (
                ({"region": "us-west1"}, "us-west1", 200),
                ({"region": "Hello"}, "=?base64?SGVsbG8=?=", 200),
                ({"region": "Hello"}, "=?base64?SGVsbG8?=", 400),
                ({"region": "us-west1"}, "us-east1", 400),
                ({"region": "us-west1"}, "", 400),
                ({}, "us-west1", 400),
                ({}, "", 200),
            ):
                message, named = modern("tools/call", {"name": "place", "arguments": arguments})
                answer = await browser.ask(message, **named, Mcp_Param_Region=header)
                assert (answer.status, answer.code) == (status, None if status == 200 else -32020), (
                    answer.body
                )
            message, named = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            assert (await browser.ask(message, **named, Mcp_Param_Region="ignored")).status == 200
            named["Mcp_Name"] = "=?base64?ZWNobw==?="
            assert (await browser.ask(message, **named)).status == 200

    run(scenario())


# ---------------------------------------------------------------- coming back (section 9, H5 and H10)


def events_of(raw: bytes) -> list[dict[str, str]]:
    """Events as name: value of their lines."""
    return [
        dict(line.split(": ", 1) for line in event.splitlines() if line)
        for event in raw.decode().split("\n\n")
        if event
    ]


@both_loops
def test_a_client_that_lost_its_stream_comes_back_for_the_rest(loop: str) -> None:
    async def scenario() -> None:
        server, go, lost = Tools().server(), asyncio.Event(), asyncio.Event()

        @server.tool
        async def far(ctx: Context) -> str:
            await ctx.report_progress(1, 3)
            await ctx.close_sse_stream()
            await ctx.report_progress(2, 3)
            lost.set()
            await go.wait()
            await ctx.report_progress(3, 3)
            return "there"

        async with serving(server) as (_, port), await connect(port) as browser, await connect(port) as other:
            session = {"Mcp_Session_Id": await initialized(browser)}
            params = {"name": "far", "arguments": {}, "_meta": {"progressToken": "p"}}
            browser.write(post(rpc("tools/call", params, id=9), **session))
            answer = await browser.read()
            first, progress = events_of(answer.body)
            assert (first["data"], first["retry"]) == ("", "1000") and "event" not in first
            assert '"progress":1' in progress["data"]
            assert await browser.closed() == b""
            await lost.wait()
            resume = {"Host": "localhost", "Accept": "text/event-stream", **session}
            other.write(request("GET", "/mcp", **resume, Last_Event_ID=first["id"]))
            assert (await other.head())[0] == 200
            seen = await other.chunk() + await other.chunk()
            assert next(event["id"] for event in events_of(seen)) == progress["id"]
            assert b'"progress":2' in seen
            go.set()
            rest = b""
            while piece := await other.chunk():
                rest += piece
            assert b'"progress":3' in rest and json.loads(events_of(rest)[-1]["data"])["id"] == 9
            other.write(request("GET", "/mcp", **resume, Last_Event_ID=progress["id"]))
            again = await other.read()
            assert [event["id"] for event in events_of(again.body)][-1] == events_of(rest)[-1]["id"]
            other.write(request("GET", "/mcp", **resume, Last_Event_ID="never-seen"))
            assert (await other.read()).status == 400

    run(scenario(), loop)


def test_the_session_s_own_stream_is_resumed() -> None:
    async def scenario() -> None:
        server = Tools().server()
        async with serving(server) as (listener, port):
            async with await connect(port) as browser:
                session = {"Mcp_Session_Id": await initialized(browser)}
                opened = {"Host": "localhost", "Accept": "text/event-stream", **session}
                browser.write(request("GET", "/mcp", **opened))
                await browser.head()
                (primed,) = events_of(await browser.chunk())
                server.notify_list_changed("tools")
                assert b"tools/list_changed" in await browser.chunk()
            while len(listener._connections):
                await asyncio.sleep(0.01)
            server.notify_list_changed("prompts")
            async with await connect(port) as browser:
                browser.write(request("GET", "/mcp", **opened, Last_Event_ID=primed["id"]))
                assert (await browser.head())[0] == 200
                assert b"tools/list_changed" in await browser.chunk()
                assert b"prompts/list_changed" in await browser.chunk()

    run(scenario())


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18"])
def test_streams_are_not_primed_before_2025_11_25(revision: str) -> None:
    async def scenario() -> None:
        async with browsing() as browser:
            session = {"Mcp_Session_Id": await initialized(browser, revision)}
            params = {"name": "steps", "arguments": {"n": 1}, "_meta": {"progressToken": "p"}}
            answer = await browser.ask(rpc("tools/call", params), **session)
            assert [bool(event["id"]) and bool(event["data"]) for event in events_of(answer.body)] == [
                True,
                True,
            ]

    run(scenario())
