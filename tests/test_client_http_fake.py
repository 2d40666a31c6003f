"""The client over Streamable HTTP against a scripted server: addresses, negotiation, streams, sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest

from mcpfast.client import Client, HttpError, HttpServer, ToolsListChanged, connection, http
from mcpfast.client.events import ToolListChangedNotification
from mcpfast.errors import HEADER_MISMATCH, UNSUPPORTED_VERSION, AddressError, ConnectionClosed, MCPError
from tests.http_peer import FakeHttp, Reply, Request, answering, event, legacy, modern
from tests.test_client_fake import MODERN, run

pytest.importorskip("aiohttp", reason="the client needs it for HTTP: pip install 'mcpfast[http]'")

# ---------------------------------------------------------------- addresses


def test_addresses() -> None:
    for url in ("http://", "http://h:99999/", "http://h:0", "https:///path", "http://[::1"):
        with pytest.raises(AddressError, match="is not an address"):
            Client(url)
    with pytest.raises(AddressError, match="Accept is set by the protocol"):
        Client("http://h/", headers={"Accept": "*/*"})
    with pytest.raises(AddressError, match="the value of X-A is not one line") as failed:
        Client("http://h/", headers={"X-A": "secret\r\nX-B: 1"})
    assert "secret" not in str(failed.value)
    with pytest.raises(AddressError, match="headers and authorization go with a URL"):
        Client("tcp://127.0.0.1:1", authorization="Bearer x")
    with pytest.raises(AddressError, match="either a user in the URL or authorization"):
        Client("http://me:secret@h/", authorization="Bearer x")
    server = HttpServer("http://me:secret@h/mcp?key=secret#secret", {"X": "secret"}, "Bearer secret")
    assert repr(server) == "HttpServer('http://h/mcp')"


def test_nobody_listens() -> None:
    async def test() -> None:
        async with FakeHttp(modern) as fake:
            pass
        with pytest.raises(AddressError, match=rf"Cannot connect to {fake.url}: Connection refused"):
            await Client(fake.url).__aenter__()
        with pytest.raises(AddressError, match=r"Cannot connect to http://no\.such\.host\.invalid: "):
            await Client("http://no.such.host.invalid").__aenter__()

    run(test())


def test_aiohttp_is_loaded_when_it_is_used() -> None:
    source = "import sys; from mcpfast.client import Client; Client('http://h/mcp'); assert 'aiohttp' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", source], timeout=30).returncode == 0


def test_aiohttp_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(AddressError, match=r"pip install 'mcpfast\[http\]'"):
        asyncio.run(Client("http://h/mcp").__aenter__())  # type: ignore[arg-type]


# ---------------------------------------------------------------- a server that the test writes


NEGOTIATION: dict[str, tuple[int, int | None, Any, str]] = {
    # what the probe is answered with -> what comes of it
    "400, empty": (400, None, None, "2025-11-25"),
    "404, empty": (404, None, None, "2025-11-25"),
    "405, empty": (405, None, None, "2025-11-25"),
    "400, any error": (400, -32600, None, "2025-11-25"),
    "404, -32601": (404, -32601, None, "2025-11-25"),
    "200, an error": (200, -32601, None, "2025-11-25"),
    "400, a version of ours": (400, UNSUPPORTED_VERSION, {"supported": [MODERN]}, MODERN),
    "400, no version of ours": (400, UNSUPPORTED_VERSION, {"supported": ["2031-01-01"]}, "No common"),
    "400, a header is missed": (400, HEADER_MISMATCH, None, "no"),
    "401": (401, None, None, "HTTP 401"),
    "403": (403, None, None, "HTTP 403"),
    "503": (503, None, None, "HTTP 503"),
}


@pytest.mark.parametrize("name", list(NEGOTIATION))
def test_negotiation(name: str) -> None:
    status, code, data, outcome = NEGOTIATION[name]
    probes = 0

    async def script(request: Request, reply: Reply) -> None:
        nonlocal probes
        if request.method == "server/discover":
            assert request.headers["mcp-protocol-version"] == MODERN
            assert request.headers["mcp-method"] == "server/discover"
            probes += 1
            if probes > 1:
                reply.discovered()
            else:
                reply.raw(status, b"" if code is None else reply.error(code, data=data))
        else:
            await legacy()(request, reply)

    async def test() -> None:
        async with FakeHttp(script) as fake:
            client = Client(fake.url, timeout_s=5)
            if outcome.startswith("20"):
                async with client:
                    assert client.protocol_version == outcome
                if outcome != MODERN:
                    initialize = fake.seen[1]
                    assert initialize.method == "initialize"
                    assert not {name for name in initialize.headers if name.startswith("mcp-")}
            else:
                with pytest.raises(MCPError, match=outcome):
                    await client.__aenter__()
                assert "initialize" not in fake.methods()

    run(test())


def test_what_follows_a_notification_waits_for_it() -> None:
    async def script(request: Request, reply: Reply) -> None:
        if "id" not in request.message and request.verb == "POST":
            await asyncio.sleep(0.05)
        await legacy()(request, reply)

    async def test() -> None:
        async with FakeHttp(script) as fake, Client(fake.url, mode="legacy", roots=[], timeout_s=5) as client:
            await client.call_tool("t")
            await client.send_roots_list_changed()
            await client.send_roots_list_changed()
            await client.call_tool("t")
            assert [method for method in fake.methods() if method != "GET"] == [
                "initialize",
                "notifications/initialized",
                "tools/call",
                "notifications/roots/list_changed",
                "notifications/roots/list_changed",
                "tools/call",
            ]

    run(test())


def test_leaving_closes_everything() -> None:
    held = asyncio.Event()

    async def get(request: Request, reply: Reply) -> None:
        reply.stream(b": hello\n\n")
        await held.wait()

    async def hang(reply: Reply) -> None:
        reply.stream(b": working\n\n")
        await held.wait()

    async def test() -> None:
        async with FakeHttp(legacy(hang, get=get)) as fake:
            async with Client(fake.url, mode="legacy", timeout_s=None) as client:
                waiting = asyncio.create_task(client.call_tool("t"))
                while fake.open < 2:
                    await asyncio.sleep(0.01)
            with pytest.raises(ConnectionClosed, match="The client was closed"):
                await waiting
            assert fake.seen[-1].verb == "DELETE"
            assert fake.seen[-1].headers["mcp-session-id"] == "s-1"
            held.set()
            async with asyncio.timeout(2):
                while fake.open:
                    await asyncio.sleep(0.01)

    run(test())


def test_a_modern_call_is_cancelled_by_closing_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER_S", 30.0)  # which would close it, too
    closed = asyncio.Event()

    async def hang(reply: Reply) -> None:
        reply.stream(b": working\n\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.01)
                reply.stream(b": still\n\n")
                await reply.writer.drain()
        closed.set()

    async def test() -> None:
        async with FakeHttp(answering(hang)) as fake, Client(fake.url, timeout_s=5) as client:
            call = asyncio.create_task(client.call_tool("t"))
            await asyncio.sleep(0.05)
            call.cancel()
            async with asyncio.timeout(2):
                await closed.wait()
            given_up = asyncio.create_task(client.call_tool("t"))
            await asyncio.sleep(0)
            given_up.cancel()  # before anything was sent
            assert (await client.call_tool("t")).text == "ok"
            assert "notifications/cancelled" not in fake.methods()

    run(test())


# ---------------------------------------------------------------- streams and sessions


def test_resumption() -> None:
    ids: list[int] = []
    resumed: list[str | None] = []

    def broken(reply: Reply) -> None:
        ids.append(reply.request.message["id"])
        reply.stream(b"retry: 20\n" + event(b"", "e-1"))
        reply.cut()

    def unmarked(reply: Reply) -> None:
        reply.stream(b"retry: 20\n" + event(b'{"jsonrpc":"2.0","method":"notifications/x"}'))
        reply.cut()

    def get(request: Request, reply: Reply) -> None:
        last = request.headers.get("last-event-id")
        if last is None:  # the stream of what belongs to no call
            reply.raw(405)
            return
        resumed.append(last)
        answer = {"jsonrpc": "2.0", "id": ids[-1], "result": {"content": []}}
        match len(resumed):
            case 1:
                reply.stream(event(b"", "e-2") + b"id: e-3\ndata: half")
                reply.cut()
            case 2:
                reply.raw(503)
            case 3:
                reply.stream(event(json.dumps(answer).encode(), "e-4"))
                reply.end()
            case _:
                reply.raw(400)

    async def test() -> None:
        async with FakeHttp(legacy(broken, broken, unmarked, get=get)) as fake:
            async with Client(fake.url, mode="legacy", timeout_s=5) as client:
                assert (await client.call_tool("t")).content == []
                assert resumed == ["e-1", "e-2", "e-2"]  # never an id of an event that is not whole
                with pytest.raises(HttpError, match="answered the resumption of a stream with HTTP 400"):
                    await client.call_tool("t")
                with pytest.raises(ConnectionClosed, match="broke"):
                    await client.call_tool("t")
                assert len(resumed) == 4

    run(test())


def test_the_stream_of_what_belongs_to_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RESUME_S", 0.02)
    opened: list[str | None] = []
    done = asyncio.Event()

    async def get(request: Request, reply: Reply) -> None:
        opened.append(request.headers.get("last-event-id"))
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["mcp-session-id"] == "s-1"
        told = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
        reply.stream(event(told, f"e-{len(opened)}"))
        if len(opened) < 3:
            reply.cut()
        else:
            reply.stream(event(b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}'))
            await done.wait()

    async def test() -> None:
        messages: list[Any] = []
        async with FakeHttp(legacy(get=get)) as fake:
            async with Client(
                fake.url, mode="legacy", timeout_s=5, roots=[], message_handler=messages.append
            ) as client:
                async with asyncio.timeout(5):
                    while not any("result" in request.message for request in fake.seen):
                        await asyncio.sleep(0.01)
                assert opened == [None, "e-1", "e-2"]
                assert [type(message) for message in messages] == 3 * [ToolListChangedNotification]
                (answer,) = [request.message for request in fake.seen if "result" in request.message]
                assert answer == {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}
                assert (await client.call_tool("t")).text == "ok"
            done.set()

    run(test())


def test_a_lost_session_is_made_anew_with_what_it_knew() -> None:
    sessions = 0
    lost = True

    async def script(request: Request, reply: Reply) -> None:
        nonlocal sessions, lost
        told = request.headers.get("mcp-session-id")
        if request.method == "initialize":
            assert told is None
            sessions += 1
            reply.initialized("2025-06-18", Mcp_Session_Id=f"s-{sessions}")
        elif request.method == "tools/call" and lost:
            lost = False
            reply.raw(404, b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"gone"}}')
        elif request.method == "tools/call" and request.message["params"]["name"] == "never":
            reply.raw(404)
        else:
            await legacy()(request, reply)

    async def test() -> None:
        async with FakeHttp(script) as fake:
            async with Client(fake.url, mode="legacy", timeout_s=5, log_level="error") as client:
                await client.subscribe_resource("x://1")
                await client.subscribe_resource("x://2")
                await client.unsubscribe_resource("x://2")
                fake.seen.clear()
                assert (await client.call_tool("t")).text == "ok"
                posts = [request for request in fake.seen if request.verb == "POST"]
                assert [(request.method, request.headers.get("mcp-session-id")) for request in posts] == [
                    ("tools/call", "s-1"),
                    ("initialize", None),
                    ("notifications/initialized", "s-2"),
                    ("logging/setLevel", "s-2"),
                    ("resources/subscribe", "s-2"),
                    ("tools/call", "s-2"),
                ]
                assert posts[1].message["params"]["protocolVersion"] == "2025-06-18"
                assert posts[4].message["params"] == {"uri": "x://1"}
                with pytest.raises(HttpError, match="HTTP 404"):  # once, and not for ever
                    await client.call_tool("never")
                assert sessions == 3
                assert (await client.call_tool("t")).text == "ok"

    run(test())


def test_a_lost_session_that_nobody_makes_anew() -> None:
    sessions = 0

    async def script(request: Request, reply: Reply) -> None:
        nonlocal sessions
        if request.method == "initialize":
            sessions += 1
            if sessions > 1:
                reply.raw(503)
            else:
                reply.initialized(Mcp_Session_Id="s")
        elif request.method == "tools/call":
            reply.raw(404)
        else:
            await legacy()(request, reply)

    async def test() -> None:
        async with FakeHttp(script) as fake, Client(fake.url, mode="legacy", timeout_s=5) as client:
            done = await asyncio.gather(*(client.call_tool("t") for _ in range(3)), return_exceptions=True)
            assert ["HTTP 503" in str(error) for error in done] == [True] * 3

    run(test())


def test_a_listen_stream_is_given_up_when_the_server_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LISTEN_PAUSE_S", 0.02)
    opened = 0

    def listen(reply: Reply) -> None:
        nonlocal opened
        opened += 1
        id = reply.request.message["id"]
        meta = {"io.modelcontextprotocol/subscriptionId": id}
        told = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        message = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": told}
        if opened == 3:
            reply.raw(502)
        elif opened == 5:
            reply.raw(404, reply.error(-32601))
        else:
            reply.stream(event(json.dumps(message).encode()))
            reply.cut()

    async def exhaust(events: Any) -> None:
        async for told in events:
            assert told == ToolsListChanged()

    async def test() -> None:
        async with FakeHttp(answering(*5 * [listen])) as fake, Client(fake.url, timeout_s=5) as client:
            async with client.listen(tools_list_changed=True) as events:
                with pytest.raises(MCPError, match="no"):
                    await exhaust(events)
            assert opened == 5
            ids = [request.message["id"] for request in fake.seen if request.method == "subscriptions/listen"]
            assert len({*ids}) == 5

    run(test())
