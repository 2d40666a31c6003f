"""The server's side of WebSocket, frame by frame (RFC 6455), on the endpoint's own path."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from typing import Any

import pytest

from mcpfast import Context, MCPServer
from tests.test_http import ENVELOPE, Browser, Tools, both_loops, connect, request, rpc, serving
from tests.wire import run

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
HANDSHAKE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": base64.b64encode(b"0123456789abcdef").decode(),
    "Sec_WebSocket_Protocol": "mcp",
}
HELLO = rpc("tools/call", {"name": "echo", "arguments": {"text": "hi"}, "_meta": ENVELOPE})


def frame(
    payload: bytes | str | dict[str, Any],
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool = True,
) -> bytes:
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    data = payload.encode() if isinstance(payload, str) else payload
    first = fin << 7 | rsv << 4 | opcode
    if len(data) < 126:
        head = bytes((first, mask << 7 | len(data)))
    elif len(data) < 1 << 16:
        head = struct.pack("!BBH", first, mask << 7 | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, mask << 7 | 127, len(data))
    if not mask:
        return head + data
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


class Socket:
    """A WebSocket whose frames are written by hand."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    async def read(self) -> tuple[int, bytes]:
        first, second = await self.browser.reader.readexactly(2)
        assert not second & 0x80, "a server masks nothing"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.browser.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.browser.reader.readexactly(8))
        assert first & 0x80, "each message is one frame"
        return first & 0x0F, await self.browser.reader.readexactly(size)

    async def message(self) -> Any:
        opcode, data = await self.read()
        assert opcode == TEXT, (opcode, data)
        return json.loads(data)

    async def ask(self, message: Any) -> Any:
        self.browser.write(frame(message))
        return await self.message()

    async def closed(self) -> int:
        """The code that the server closes with; nothing comes behind it."""
        opcode, data = await self.read()
        assert opcode == CLOSE, data
        assert await self.browser.closed() == b""
        return int(struct.unpack("!H", data[:2])[0])


async def upgraded(browser: Browser, behind: bytes = b"", **headers: str) -> Socket:
    browser.write(request("GET", "/mcp", **{**HANDSHAKE, **headers}) + behind)
    status, answer = await browser.head()
    assert status == 101, answer
    assert answer.get("sec-websocket-protocol") == (headers.get("Sec_WebSocket_Protocol", "mcp") or None)
    return Socket(browser)


async def opened(socket: Socket, revision: str = "2025-11-25", **capabilities: Any) -> None:
    info = {
        "protocolVersion": revision,
        "capabilities": capabilities,
        "clientInfo": {"name": "x", "version": "1"},
    }
    assert (await socket.ask(rpc("initialize", info)))["result"]["protocolVersion"] == revision
    socket.browser.write(frame({"jsonrpc": "2.0", "method": "notifications/initialized"}))


async def until(condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


# ---------------------------------------------------------------- the handshake


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/mcp", {"Origin": "http://evil.example"}, 403),
        ("/mcp", {"Host": "evil.example"}, 421),
        ("/other", {}, 404),
        ("/mcp", {"Sec_WebSocket_Protocol": "chat"}, 400),
        ("/mcp", {"Sec_WebSocket_Version": "8"}, 426),
        ("/mcp", {"Sec_WebSocket_Key": "short"}, 400),
        ("/mcp", {"Sec_WebSocket_Key": ""}, 400),
    ],
)
def test_handshakes_that_are_refused(path: str, headers: dict[str, str], status: int) -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (listener, port), await connect(port) as browser:
            browser.write(request("GET", path, **{**HANDSHAKE, **headers}))
            assert (await browser.head())[0] == status
            await browser.closed()
            await until(
                lambda: not listener.sockets and not listener._connections and not listener.host.sessions
            )

    run(scenario())


def test_handshakes_that_are_taken() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port):
            for headers in (
                {"Sec_WebSocket_Protocol": ""},
                {"Sec_WebSocket_Protocol": "chat, mcp", "Origin": "http://localhost"},
            ):
                async with await connect(port) as browser:
                    browser.write(request("GET", "/mcp?x=1", **{**HANDSHAKE, **headers}))
                    status, answer = await browser.head()
                    assert status == 101
                    assert ("sec-websocket-protocol" in answer) == bool(headers["Sec_WebSocket_Protocol"])
                    assert (await Socket(browser).ask(HELLO))["result"]["structuredContent"] == {
                        "result": "hi"
                    }

    run(scenario())


def test_an_upgrade_to_something_else_is_overlooked() -> None:
    """The HTTP client of Java asks for h2c in its first request."""

    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as browser:
            body = json.dumps(rpc("initialize", {"protocolVersion": "2025-11-25"})).encode()
            kinds = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
            for upgrade in ("h2c", "websocket"):  # a POST is no handshake, either
                asked = request(
                    "POST",
                    "/mcp",
                    body,
                    Host="localhost",
                    Connection="Upgrade, HTTP2-Settings",
                    Upgrade=upgrade,
                    **kinds,
                )
                for part in (asked[:200], asked[200:]):
                    browser.write(part)
                    await asyncio.sleep(0.01)
                assert (await browser.read()).messages[0]["error"]["code"] == -32602
            browser.write(b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await browser.read()).status == 400

    run(scenario())


# ---------------------------------------------------------------- messages


@both_loops
def test_both_eras_side_by_side(loop: str) -> None:
    async def scenario() -> None:
        server = Tools().server()
        async with serving(server) as (_, port), await connect(port) as browser:
            socket = await upgraded(browser, behind=frame(HELLO) + frame({**HELLO, "id": 2}))
            assert [(await socket.message())["id"] for _ in range(2)] == [1, 2]
            await opened(socket, "2025-03-26")
            browser.write(frame(json.dumps([rpc("ping", id=3), rpc("ping", id=4)])))
            assert [one["id"] for one in await socket.message()] == [3, 4]
            browser.write(frame(json.dumps(rpc("ping", id="ü"), indent=2, ensure_ascii=False)))
            assert await socket.message() == {"jsonrpc": "2.0", "id": "ü", "result": {}}
            steps = {"name": "steps", "arguments": {"n": 2}, "_meta": {"progressToken": 1}}
            browser.write(frame(rpc("tools/call", steps, 5)))
            told = [await socket.message() for _ in range(3)]
            assert [message.get("method") for message in told] == [*["notifications/progress"] * 2, None]
            server.notify_list_changed("tools")
            assert (await socket.message())["method"] == "notifications/tools/list_changed"
            assert (await socket.ask("{"))["error"]["code"] == -32700
            large = rpc("tools/call", {"name": "echo", "arguments": {"text": "x" * 200_000}}, 6)
            assert len((await socket.ask(large))["result"]["content"][0]["text"]) == 200_000

    run(scenario(), loop)


def test_the_server_asks_by_websocket() -> None:
    async def scenario() -> None:
        server: MCPServer[Any] = MCPServer("asks", version="1")

        @server.tool
        async def roots(ctx: Context) -> int:
            return len(await ctx.list_roots())

        async with serving(server) as (_, port), await connect(port) as browser:
            socket = await upgraded(browser)
            await opened(socket, roots={})
            asked = await socket.ask(rpc("tools/call", {"name": "roots", "arguments": {}}, 2))
            assert asked["method"] == "roots/list"
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": [{"uri": "file:///a"}]}}
            assert (await socket.ask(answer))["result"]["structuredContent"] == {"result": 1}

    run(scenario())


def test_a_message_in_fragments_with_a_ping_between() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as browser:
            socket = await upgraded(browser)
            text = json.dumps(HELLO).encode()
            browser.write(frame(text[:10], fin=False))
            browser.write(frame(b"there?", PING))
            assert await socket.read() == (PONG, b"there?")
            browser.write(frame(b"", CONTINUATION, fin=False), frame(text[10:20], CONTINUATION, fin=False))
            browser.write(frame(text[20:], CONTINUATION))
            assert (await socket.message())["id"] == 1
            assert (await socket.ask({**HELLO, "id": 2}))["id"] == 2

    run(scenario())


LARGE = b'"' + b"x" * 3_000 + b'"'


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(LARGE)], 1009),
        ([frame(LARGE[:1_500], fin=False), frame(LARGE[1_500:], CONTINUATION)], 1009),
        ([frame(b'"\xff"')], 1007),
        ([frame(b'"\xc3', fin=False), frame(b'"', CONTINUATION)], 1007),
        ([frame(HELLO, mask=False)], 1002),
        ([frame(HELLO, rsv=4)], 1002),
        ([frame(HELLO, rsv=1)], 1002),
        ([frame(b"x", 3)], 1002),
        ([frame(b"x", 11)], 1002),
        ([frame(HELLO, BINARY)], 1003),
        ([frame(HELLO, CONTINUATION)], 1002),
        ([frame("{", fin=False), frame(HELLO)], 1002),
        ([frame(b"x" * 126, PING)], 1002),
        ([frame(b"x", PING, fin=False)], 1002),
        ([frame(struct.pack("!H", 1000) + b"bye", CLOSE)], 1000),
        ([frame(struct.pack("!H", 3999), CLOSE)], 3999),
        ([frame(b"", CLOSE)], 1000),
        ([frame(struct.pack("!H", 999), CLOSE)], 1002),
        ([frame(struct.pack("!H", 1005), CLOSE)], 1002),
        ([frame(struct.pack("!H", 1006), CLOSE)], 1002),
        ([frame(struct.pack("!H", 5000), CLOSE)], 1002),
        ([frame(b"\x03", CLOSE)], 1002),
    ],
)
def test_frames_that_end_the_connection(frames: list[bytes], code: int) -> None:
    async def scenario() -> None:
        tools = Tools()
        async with (
            serving(tools.server(frame_bytes_max=2_000)) as (listener, port),
            await connect(port) as browser,
        ):
            socket = await upgraded(browser)
            wait = rpc("tools/call", {"name": "wait", "arguments": {"seconds": 30}, "_meta": ENVELOPE}, 9)
            browser.write(frame(wait))
            await tools.started.wait()
            browser.write(*frames)
            assert await socket.closed() == code
            await until(lambda: not listener.host.sessions and not listener.sockets)
            assert tools.ended == ["cancelled"]

    run(scenario())


# ---------------------------------------------------------------- life and end


def test_a_client_that_vanishes_takes_its_calls_along() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (listener, port):
            async with await connect(port) as browser:
                socket = await upgraded(browser)
                await opened(socket)
                browser.write(frame(rpc("tools/call", {"name": "wait", "arguments": {"seconds": 30}}, 2)))
                await tools.started.wait()
                browser.writer.transport.abort()
            await until(lambda: not listener.host.sessions and not listener.sockets)
            assert tools.ended == ["cancelled"]

    run(scenario())


@both_loops
def test_a_client_that_reads_nothing_is_read_no_further(loop: str) -> None:
    async def scenario() -> None:
        server = Tools().server(output_high_bytes=200_000, output_low_bytes=50_000)
        async with serving(server) as (listener, port), await connect(port) as browser:
            socket = await upgraded(browser)
            asked = rpc(
                "tools/call", {"name": "echo", "arguments": {"text": "x" * 50_000}, "_meta": ENVELOPE}
            )
            count = 400
            for i in range(count):
                browser.write(frame({**asked, "id": i}))
            (ours,) = listener.sockets
            await until(lambda: not ours.channel.reading)
            await asyncio.sleep(0.1)
            assert ours.channel.waiting_bytes < 1_500_000
            assert [(await socket.message())["id"] for _ in range(count)] == list(range(count))
            await until(lambda: ours.channel.reading)
            assert (await socket.ask(HELLO))["id"] == 1

    run(scenario(), loop)


@both_loops
def test_messages_of_any_size_wait_for_a_slow_reader_unharmed(loop: str) -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port), await connect(port) as browser:
            socket = await upgraded(browser)
            sizes = [(7_919 * i * i) % 150_000 for i in range(200)]
            for i, size in enumerate(sizes):
                call = {"name": "echo", "arguments": {"text": "x" * size}, "_meta": ENVELOPE}
                browser.write(frame(rpc("tools/call", call, i)))
            await asyncio.sleep(0.3)
            for i, size in enumerate(sizes):
                answer = await socket.message()
                assert (answer["id"], len(answer["result"]["content"][0]["text"])) == (i, size)

    run(scenario(), loop)


def test_a_silent_client_is_asked_for_a_sign_of_life() -> None:
    async def scenario() -> None:
        server = Tools().server(stream_comment_s=0.1, keep_alive_s=1.0)
        async with serving(server) as (listener, port), await connect(port) as browser:
            socket = await upgraded(browser)
            loop = asyncio.get_running_loop()
            (ours,) = listener.sockets
            ours.sweep(loop.time() + 0.5)
            assert await socket.read() == (PING, b"")
            before = ours.since_s
            await asyncio.sleep(0.01)  # a loop's clock has milliseconds
            browser.write(frame(b"", PONG))
            await until(lambda: ours.since_s > before)
            ours.sweep(loop.time() + 2.0)
            assert await socket.closed() == 1001
            assert not listener.host.sessions

    run(scenario())


def test_a_drain_answers_what_is_in_flight_and_closes() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (listener, port), await connect(port) as browser:
            socket = await upgraded(browser)
            wait = {"name": "wait", "arguments": {"seconds": 0.1}, "_meta": ENVELOPE}
            browser.write(frame(rpc("tools/call", wait)))
            await tools.started.wait()
            listener.host.engine.closing = True
            listener.drain(2.0)
            assert (await socket.message())["result"]["structuredContent"] == {"result": "waited"}
            assert await socket.closed() == 1001

    run(scenario())


def test_sockets_count_as_connections() -> None:
    async def scenario() -> None:
        async with serving(Tools().server(connections_max=2)) as (listener, port):
            async with await connect(port) as first, await connect(port) as second:
                await upgraded(first)
                await upgraded(second)
                async with await connect(port) as third:
                    assert await third.closed() == b""
            await until(lambda: not listener.sockets)
            async with await connect(port) as again:
                await upgraded(again)

    run(scenario())


def test_nothing_is_left_of_a_thousand_sockets() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (listener, port):

            async def one(how: int) -> None:
                async with await connect(port) as browser:
                    socket = await upgraded(browser)
                    if how % 2:
                        assert (await socket.ask(HELLO))["id"] == 1
                    if how % 3 == 0:
                        browser.writer.transport.abort()

            for _ in range(10):
                await asyncio.gather(*(one(i) for i in range(100)))
            await until(
                lambda: not listener.sockets and not listener._connections and not listener.host.sessions
            )
            descriptors = len(os.listdir("/proc/self/fd"))
            await asyncio.gather(*(one(i) for i in range(100)))
            await until(lambda: not listener.sockets and len(os.listdir("/proc/self/fd")) <= descriptors)

    run(scenario())
