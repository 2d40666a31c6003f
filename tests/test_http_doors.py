"""The other doors of the HTTP endpoint: session modes, pages of other origins, names it is asked by, plain routes, TLS, a Unix
socket, and the transport of 2024-11-05."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Context, HttpRequest, HttpResponse, MCPServer
from mcpfast.errors import AddressError, RegistrationError
from mcpfast.server.sealed import KeyRing
from mcpfast.transports.web.access import Access, Refused
from mcpfast.transports.web.settings import HttpSettings
from tests.test_http import (
    Answer,
    Browser,
    Tools,
    both_loops,
    connect,
    initialized,
    modern,
    request,
    rpc,
    serving,
)
from tests.wire import run

HELLO = {"name": "echo", "arguments": {"text": "hello"}}
KEYS = KeyRing([("k1", b"1" * 32)])
NEWER = KeyRing([("k2", b"2" * 32), ("k1", b"1" * 32)])


def sealed(keys: KeyRing = KEYS, **limits: Any) -> MCPServer[Any]:
    server = Tools().server(**limits)
    server.state_keys = keys
    return server


async def call(browser: Browser, session: str | None, **headers: str) -> Any:
    named = {"Mcp_Session_Id": session} if session else {}
    return await browser.ask(rpc("tools/call", HELLO), **named, **headers)


async def sent(browser: Browser, raw: bytes, *, head: bool = False) -> Answer:
    browser.write(raw)
    return Answer(*await browser.head(), b"") if head else await browser.read()


# ---------------------------------------------------------------- session modes


def test_a_sealed_session_is_served_by_every_process_with_its_key() -> None:
    async def scenario() -> None:
        async with serving(sealed(), session_mode="sealed") as (_, port), await connect(port) as first:
            id_ = await initialized(first, "2025-06-18")
            assert re.fullmatch(r"[!-~]+", id_) and len(id_) < 4_096
            async with serving(sealed(NEWER), session_mode="sealed") as (there, other):
                async with await connect(other) as second:
                    for _ in range(2):
                        answer = await call(second, id_)
                        assert answer.messages[0]["result"]["structuredContent"] == {"result": "hello"}
                    assert len(there.endpoint._sessions.kept) == 1
                    # the negotiated revision came with it: batches are not of 2025-06-18
                    assert (await second.ask([rpc("ping")], Mcp_Session_Id=id_)).code == -32600
                    newer = await initialized(second)
                    assert (await call(first, newer)).status == 404  # sealed under a key that is unknown here

    run(scenario())


def test_a_sealed_session_comes_back_after_it_was_let_go() -> None:
    async def scenario() -> None:
        async with serving(sealed(http_sessions_max=2), session_mode="sealed") as (listener, port):
            async with await connect(port) as browser:
                ids = [await initialized(browser) for _ in range(4)]
                kept = listener.endpoint._sessions.kept
                assert list(kept) == [id_.encode() for id_ in ids[2:]]
                assert len(listener.host.sessions) == 2
                assert (await call(browser, ids[0])).status == 200
                assert list(kept) == [ids[3].encode(), ids[0].encode()]

    run(scenario())


def test_what_tampers_with_a_sealed_session_finds_none() -> None:
    async def scenario() -> None:
        async with serving(sealed(), session_mode="sealed") as (_, port), await connect(port) as browser:
            id_ = await initialized(browser)
            async with serving(sealed(), session_mode="sealed") as (_, other), await connect(other) as fresh:
                middle = len(id_) // 2
                swapped = id_[:middle] + ("A" if id_[middle] != "A" else "B") + id_[middle + 1 :]
                for wrong in (swapped, id_[:-1], id_ + "A", "v1.k1.AAAA", "x", "v1..", "\xff"):
                    answer = await fresh.ask(rpc("tools/call", HELLO), Mcp_Session_Id=wrong)
                    assert (answer.status, answer.code) == (404, -32600), wrong

    run(scenario())


def test_a_sealed_session_ends_with_delete_and_with_its_time() -> None:
    async def scenario() -> None:
        server = sealed(sealed_session_s=0.3)
        async with serving(server, session_mode="sealed") as (listener, port), await connect(port) as browser:
            id_ = await initialized(browser)
            gone = await sent(browser, request("DELETE", "/mcp", Host="localhost", Mcp_Session_Id=id_))
            assert gone.status == 204 and not listener.host.sessions
            assert (await call(browser, id_)).status == 404
            late = await initialized(browser)
            listener.endpoint._forget(listener.endpoint._sessions.kept[late.encode()])
            await asyncio.sleep(0.35)
            assert (await call(browser, late)).status == 404

    run(scenario())


def test_a_sealed_session_carries_what_the_server_has_use_for_however_much_was_said() -> None:
    async def scenario() -> None:
        much = {"elicitation": {"form": {}}, "experimental": {"x": "y" * 5_000}}
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": much,
            "clientInfo": {"name": "c", "version": "1"},
        }
        async with serving(sealed(), session_mode="sealed") as (_, port), await connect(port) as browser:
            id_ = (await browser.ask(rpc("initialize", params))).headers["mcp-session-id"]
            assert len(id_) < 1_000
        async with (
            serving(sealed(), session_mode="sealed") as (listener, port),
            await connect(port) as browser,
        ):
            assert (await call(browser, id_)).status == 200
            (session,) = listener.endpoint._sessions.kept.values()
            assert session.capabilities == {"elicitation": {"form": {}}}

    run(scenario())


def test_without_sessions_each_message_stands_alone() -> None:
    async def scenario() -> None:
        async with serving(Tools().server(), session_mode="off") as (listener, port):
            async with await connect(port) as browser:
                params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}}
                params["clientInfo"] = {"name": "x", "version": "1"}
                opened = await browser.ask(rpc("initialize", params))
                assert opened.status == 200 and "mcp-session-id" not in opened.headers
                told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
                assert (await browser.ask(told)).status == 202
                for version in ("2025-06-18", "2025-11-25"):
                    answer = await call(browser, None, MCP_Protocol_Version=version)
                    assert answer.messages[0]["result"]["structuredContent"] == {"result": "hello"}
                unnamed = await call(browser, None)  # 2025-03-26, which has no structured content
                assert "structuredContent" not in unnamed.messages[0]["result"]
                assert (await call(browser, "whatever", MCP_Protocol_Version="2025-06-18")).status == 200
                assert (await call(browser, None, MCP_Protocol_Version="2020-01-01")).code == -32022
                for method in ("GET", "DELETE"):
                    got = await sent(
                        browser, request(method, "/mcp", Host="localhost", Accept="text/event-stream")
                    )
                    assert (got.status, got.headers["allow"]) == (405, "POST")
                stepped = await browser.ask(
                    rpc("tools/call", {"name": "steps", "arguments": {"n": 2}, "_meta": {"progressToken": 1}})
                )
                assert [m.get("method") for m in stepped.messages] == [*["notifications/progress"] * 2, None]
                assert not listener.host.sessions and not listener.endpoint._sessions.kept

    run(scenario())


def test_without_sessions_nothing_of_a_message_reaches_the_next_on_its_connection() -> None:
    """A session that a message left as it was made serves the next one; each that it changed, or that somebody keeps, does not."""
    server: MCPServer[Any] = MCPServer("alone", version="1")
    kept: list[Any] = []

    @server.tool
    async def which(keep: bool, ctx: Context) -> str:
        session = ctx.request._request.channel.session
        if keep:
            kept.append(session)
        return f"{id(session)} {session.log_level} {session.revision.version}"

    async def scenario() -> None:
        async with serving(server, session_mode="off") as (_, port):
            async with await connect(port) as browser:

                async def called(version: str = "2025-06-18", *, keep: bool = False) -> list[str]:
                    asked = rpc("tools/call", {"name": "which", "arguments": {"keep": keep}})
                    answer = await browser.ask(asked, MCP_Protocol_Version=version)
                    told: str = answer.messages[0]["result"]["content"][0]["text"]
                    return told.split()

                first = await called()
                assert await called() == first
                other = await called("2025-11-25")
                assert other[2] == "2025-11-25"
                kept_one = await called("2025-11-25", keep=True)
                assert (await called("2025-11-25"))[0] != kept_one[0]
                kept.clear()
                level = rpc("logging/setLevel", {"level": "error"})
                assert (await browser.ask(level, MCP_Protocol_Version="2025-06-18")).status == 200
                assert (await called())[1] == "None"
                init = {"protocolVersion": "2025-06-18", "clientInfo": {"name": "x", "version": "1"}}
                assert (await browser.ask(rpc("initialize", {**init, "capabilities": {}}))).status == 200
                assert (await called())[1:] == ["None", "2025-06-18"]

    run(scenario())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"session_mode": "none"}, "session_mode must be one of 'stateful', 'sealed', 'off', not 'none'"),
        ({"allowed_hosts": "a"}, "allowed_hosts takes a list of str, as in ['a']"),
        ({"allowed_origins": ["a.b"]}, "write it with its scheme, as in https://a.b"),
        ({"ssl_certfile": "x"}, "no address is https://"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError, AddressError), match=re.escape(sentence)):
        Tools().server().run("http://127.0.0.1:0", **options)


# ---------------------------------------------------------------- who may ask


def test_pages_of_a_listed_origin_may_ask_and_read() -> None:
    async def scenario() -> None:
        origin = "https://app.example.com"
        async with serving(Tools().server(), allowed_origins=[origin]) as (_, port):
            async with await connect(port) as browser:
                asked = await sent(
                    browser,
                    request(
                        "OPTIONS",
                        "/mcp",
                        Host="localhost",
                        Origin=origin,
                        Access_Control_Request_Method="POST",
                        Access_Control_Request_Headers="Content-Type, mcp-param-region, x-other",
                    ),
                )
                assert asked.status == 204
                assert asked.headers["access-control-allow-origin"] == origin
                assert asked.headers["access-control-allow-headers"] == "content-type, mcp-param-region"
                assert "POST" in asked.headers["access-control-allow-methods"]
                message, headers = modern("tools/call", HELLO)
                for _ in range(3):  # the second and third go past the checks
                    answer = await browser.ask(message, Origin=origin, **headers)
                    assert answer.status == 200 and answer.headers["vary"] == "Origin"
                    assert answer.headers["access-control-allow-origin"] == origin
                    assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]
                plain = await browser.ask(message, **headers)
                assert "access-control-allow-origin" not in plain.headers
                message, headers = modern(
                    "tools/call", {"name": "steps", "arguments": {"n": 1}}, progressToken=1
                )
                streamed = await browser.ask(message, Origin=origin, **headers)
                assert streamed.headers["access-control-allow-origin"] == origin
                other = await browser.ask(message, Origin="https://evil.example", **headers)
                assert other.status == 403 and "access-control-allow-origin" not in other.headers
                assert b"allowed_origins=['https://evil.example']" in other.body

    run(scenario())


@pytest.mark.parametrize(
    ("settings", "loopback", "host", "origin", "outcome"),
    [
        ({}, True, "localhost:80", None, b""),
        ({}, True, "[::1]:80", None, b""),
        ({}, True, "LOCALHOST", "http://localhost", b""),
        ({}, True, "evil.example", None, 421),
        ({}, True, "localhost.evil.example", None, 421),
        ({}, True, "127.0.0.1.evil.example", None, 421),
        ({}, True, "", None, 421),
        ({"allowed_hosts": ["mcp.example"]}, True, "mcp.example:443", None, b""),
        ({"allowed_hosts": ["mcp.example"]}, True, "localhost", None, b""),
        ({"allowed_hosts": ["mcp.example:443"]}, True, "mcp.example:80", None, 421),
        ({"allowed_hosts": ["*"]}, True, "evil.example", None, b""),
        ({}, False, "any.example", None, b""),
        ({"allowed_hosts": ["mcp.example"]}, False, "any.example", None, 421),
        ({"allowed_hosts": ["mcp.example"]}, False, "localhost", None, 421),
        ({}, False, "a.example", "https://a.example", b""),
        ({}, False, "a.example", "https://b.example", 403),
        ({}, False, "a.example", "null", 403),
        ({}, False, "a.example", "https://a.example.evil.example", 403),
        ({"allowed_origins": ["https://b.example"]}, False, "a.example", "http://b.example", 403),
        (
            {"allowed_origins": ["https://b.example"]},
            False,
            "a.example",
            "https://B.example",
            "https://B.example",
        ),
        ({"allowed_origins": ["*"]}, False, "a.example", "https://x.example", "*"),
        ({"allowed_origins": ["null"]}, False, "a.example", "null", "null"),
    ],
)
def test_the_rule_of_hosts_and_origins(
    settings: dict[str, Any], loopback: bool, host: str, origin: str | None, outcome: bytes | int | str
) -> None:
    access = Access(HttpSettings.taken_from(settings), loopback=loopback)
    if isinstance(outcome, int):
        with pytest.raises(Refused) as refused:
            access.check(host, origin)
        assert refused.value.status == outcome
    elif isinstance(outcome, str):
        assert f"Access-Control-Allow-Origin: {outcome}\r\n".encode() in access.check(host, origin)
    else:
        assert access.check(host, origin) == outcome


# ---------------------------------------------------------------- plain routes


def with_routes() -> MCPServer[Any]:
    server = Tools().server()

    @server.route("GET", "/health")
    def health() -> dict[str, bool]:  # in a worker thread
        return {"ok": True}

    @server.route("POST", "/hook")
    async def hook(request: HttpRequest) -> Any:
        asked = request.json()
        if asked == "nothing":
            return None
        if asked == "broken":
            raise RuntimeError("secret details")
        if asked == "split":
            return HttpResponse(b"", headers={"X": "a\r\nSet-Cookie: b"})
        return HttpResponse(
            f"{request.method} {request.path} {request.query['q']} {asked}", 201, headers={"X-Seen": "yes"}
        )

    @server.route("GET", "/slow")
    async def slow(request: HttpRequest) -> bytes:
        try:
            await asyncio.sleep(30)
        finally:
            server.name = "cancelled"
        return b""

    return server


def test_plain_routes() -> None:
    async def scenario() -> None:
        async with serving(with_routes()) as (_, port), await connect(port) as browser:
            for _ in range(2):
                got = await sent(browser, request("GET", "/health", Host="localhost"))
                assert (got.status, got.body) == (200, b'{"ok":true}')
                assert got.headers["content-type"] == "application/json"
            head = await sent(browser, request("HEAD", "/health", Host="localhost"), head=True)
            assert (head.status, head.headers["content-length"], head.body) == (200, "11", b"")
            made = await sent(browser, request("POST", "/hook?q=a%20b&q=c", b'"x"', Host="localhost"))
            assert (made.status, made.body, made.headers["x-seen"]) == (201, b"POST /hook a b x", "yes")
            assert (
                await sent(browser, request("POST", "/hook", b'"nothing"', Host="localhost"))
            ).status == 204
            for body in (b'"broken"', b'"split"', b"no json"):
                broken = await sent(browser, request("POST", "/hook", body, Host="localhost"))
                assert broken.status == 500 and b"secret" not in broken.body
                assert "set-cookie" not in broken.headers
            wrong = await sent(browser, request("PUT", "/health", Host="localhost"))
            assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
            assert (await sent(browser, request("GET", "/health", Host="evil.example"))).status == 421
            nowhere = await sent(browser, request("GET", "/nowhere", Host="localhost"))
            assert nowhere.status == 404 and b"MCP is at /mcp" in nowhere.body

    run(scenario())


def test_a_route_ends_with_its_client() -> None:
    async def scenario() -> None:
        server = with_routes()
        async with serving(server) as (_, port):
            async with await connect(port) as browser:
                browser.write(request("GET", "/slow", Host="localhost"))
                await asyncio.sleep(0.05)
            for _ in range(100):
                if server.name == "cancelled":
                    return
                await asyncio.sleep(0.01)
        raise AssertionError("the handler went on")

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("FETCH", "/x", "use one of GET, POST"),
        ("GET", "x", "as in /health"),
        ("GET", "/x/{id}", "as in /health"),
        ("GET", "/health", "GET /health has a handler already"),
        ("GET", "/two", "a route takes the request, or nothing"),
    ],
)
def test_routes_that_cannot_be(method: str, path: str, sentence: str) -> None:
    server = with_routes()

    def two(first: Any, second: Any) -> None: ...
    def one() -> None: ...

    with pytest.raises(RegistrationError, match=re.escape(sentence)):
        server.route(method, path)(two if path == "/two" else one)


# ---------------------------------------------------------------- TLS, Unix sockets


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for localhost that signed itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert_file), str(key_file)


@both_loops
def test_https(loop: str, tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)

    async def scenario() -> None:
        options = {"ssl_certfile": cert_file, "ssl_keyfile": key_file}
        async with serving(Tools().server(), "https://127.0.0.1:0", **options) as (_, port):
            trusting = ssl.create_default_context(cafile=cert_file)
            opened = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
            )
            async with Browser(*opened) as browser:
                for _ in range(3):
                    assert (await browser.call("echo", {"text": "x" * 100_000})).status == 200
                stepped = await browser.call("steps", {"n": 3}, progressToken=1)
                assert len(stepped.messages) == 4
            old = ssl.create_default_context(cafile=cert_file)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            old.minimum_version = ssl.TLSVersion.TLSv1_2
            opened = await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")
            async with Browser(*opened) as browser:
                assert (await browser.call("echo", {"text": "x"})).status == 200

    run(scenario(), loop)


def test_https_needs_files_that_serve(tmp_path: Path) -> None:
    server = Tools().server()
    with pytest.raises(AddressError, match="https:// needs a certificate: give ssl_certfile"):
        server.run("https://127.0.0.1:0")
    with pytest.raises(AddressError, match=r"cannot use ssl_certfile .*No such file"):
        server.run("https://127.0.0.1:0", ssl_certfile=str(tmp_path / "none.pem"))


@both_loops
def test_http_on_a_unix_socket(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        file = tmp_path / "s"
        async with serving(Tools().server(), f"unix+http://{file}"):
            assert file.stat().st_mode & 0o777 == 0o600
            async with Browser(*await asyncio.open_unix_connection(file)) as browser:
                answer = await browser.call("echo", {"text": "x"}, Host="whatever.example")
                assert answer.status == 200
                id_ = await initialized(browser)
                assert (await call(browser, id_)).status == 200
        assert not file.exists()

    run(scenario(), loop)


def test_the_start_tells_the_address_and_what_a_client_takes(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "from mcpfast import MCPServer\nserver = MCPServer('notes')\nserver.run('http://127.0.0.1:0')\n"
    )
    with subprocess.Popen([sys.executable, str(app)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            listening = process.stderr.readline()
            url = listening.removeprefix("mcpfast: listening on ").strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/mcp", url)
            assert "client's configuration" in process.stderr.readline()
            pasted = "".join(process.stderr.readline() for _ in range(8))
            assert json.loads(pasted) == {"mcpServers": {"notes": {"type": "http", "url": url}}}
            socket.create_connection(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))).close()
        finally:
            process.terminate()
            process.wait(10)
    assert process.returncode == 0


# ---------------------------------------------------------------- HTTP+SSE of 2024-11-05


class OldClient:
    """A stream, and messages posted beside it."""

    def __init__(self, stream: Browser, poster: Browser) -> None:
        self.stream, self.poster = stream, poster
        self.where = ""

    async def open(self) -> None:
        self.stream.write(request("GET", "/sse", Host="localhost", Accept="text/event-stream"))
        head = await self.stream.head()
        assert head[0] == 200
        event = (await self.stream.chunk()).decode()
        assert event.startswith("event: endpoint\ndata: /messages?sessionId=")
        self.where = event.splitlines()[1].removeprefix("data: ")

    async def say(self, message: Any) -> Any:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await sent(
            self.poster, request("POST", self.where, body, Host="localhost", Content_Type="application/json")
        )

    async def hear(self) -> Any:
        event = (await self.stream.chunk()).decode()
        assert event.startswith("event: message\ndata: ")
        return json.loads(event.splitlines()[1].removeprefix("data: "))


def test_the_transport_of_2024() -> None:
    async def scenario() -> None:
        tools = Tools()
        server = tools.server()
        async with serving(server) as (listener, port), await connect(port) as poster:
            async with await connect(port) as stream:
                client = OldClient(stream, poster)
                await client.open()
                info = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {},
                    "clientInfo": {"name": "x", "version": "1"},
                }
                assert (await client.say(rpc("initialize", info))).status == 202
                assert (await client.hear())["result"]["protocolVersion"] == "2024-11-05"
                assert (
                    await client.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
                ).status == 202
                steps = {"name": "steps", "arguments": {"n": 2}, "_meta": {"progressToken": "t"}}
                assert (await client.say(rpc("tools/call", steps, 2))).status == 202
                assert [(await client.hear())["method"] for _ in range(2)] == ["notifications/progress"] * 2
                assert (await client.hear())["id"] == 2
                server.notify_list_changed("tools")
                assert (await client.hear())["method"] == "notifications/tools/list_changed"
                assert (await client.say(b"{")).status == 400
                assert (await client.say(b'{"jsonrpc":"2.0"}')).status == 202
                assert (await client.hear())["error"]["code"] == -32600
                pretty = json.dumps(rpc("ping", id=3), indent=1).encode()
                assert (await client.say(pretty)).status == 202
                assert (await client.hear()) == {"jsonrpc": "2.0", "id": 3, "result": {}}
                waiting = {"name": "wait", "arguments": {"seconds": 30}}
                assert (await client.say(rpc("tools/call", waiting, 4))).status == 202
                await tools.started.wait()
            for _ in range(100):
                if not listener.host.sessions:
                    break
                await asyncio.sleep(0.01)
            assert tools.ended == ["cancelled"] and not listener.host.sessions
            assert (await client.say(rpc("ping"))).status == 404

    run(scenario())


def test_what_the_transport_of_2024_refuses() -> None:
    async def scenario() -> None:
        async with serving(Tools().server(http_sessions_max=1)) as (_, port), await connect(port) as browser:
            got = await sent(browser, request("POST", "/sse", b"{}", Host="localhost"))
            assert (got.status, got.headers["allow"]) == (405, "GET")
            got = await sent(browser, request("GET", "/messages", Host="localhost"))
            assert (got.status, got.headers["allow"]) == (405, "POST")
            assert (await sent(browser, request("POST", "/messages", b"{}", Host="localhost"))).status == 404
            foreign = request("GET", "/sse", Host="localhost", Origin="http://evil.example")
            assert (await sent(browser, foreign)).status == 403
            async with await connect(port) as stream:
                client = OldClient(stream, browser)
                await client.open()
                plain = request("POST", client.where, b"{}", Host="localhost", Content_Type="text/plain")
                assert (await sent(browser, plain)).status == 415
                full = await sent(browser, request("GET", "/sse", Host="localhost"))
                assert full.status == 503 and full.headers["retry-after"]

    run(scenario())


def test_a_drain_ends_the_stream_of_2024() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (listener, port), await connect(port) as stream:
            client = OldClient(stream, stream)
            await client.open()
            listener.drain(1.0)
            assert await asyncio.wait_for(stream.chunk(), 1.0) == b""

    run(scenario())


# ---------------------------------------------------------------- the end

SLOW = """
import asyncio
from mcpfast import Limits, MCPServer
server = MCPServer("slow", limits=Limits(drain_s=3.0))

@server.tool
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"

@server.route("GET", "/slow")
async def slow() -> str:
    await asyncio.sleep(0.8)
    return "slept"

server.run("http://127.0.0.1:0")
"""


def test_a_signal_lets_what_is_under_way_be_answered(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)

    async def scenario(process: subprocess.Popen[str], port: int) -> None:
        async with await connect(port) as old, await connect(port) as new, await connect(port) as plain:
            async with await connect(port) as idle, await connect(port) as stream:
                session = await initialized(old)
                waiting = {"name": "wait", "arguments": {"seconds": 0.6}}
                old_call = asyncio.create_task(old.ask(rpc("tools/call", waiting), Mcp_Session_Id=session))
                # it ends first: its session must not be what keeps the server alive
                message, headers = modern("tools/call", {"name": "wait", "arguments": {"seconds": 0.2}})
                new_call = asyncio.create_task(new.ask(message, **headers))
                route = asyncio.create_task(sent(plain, request("GET", "/slow", Host="localhost")))
                stream.write(
                    request(
                        "GET", "/mcp", Host="localhost", Accept="text/event-stream", Mcp_Session_Id=session
                    )
                )
                assert (await stream.head())[0] == 200
                await asyncio.sleep(0.1)
                process.terminate()
                assert (await stream.closed()).endswith(b"0\r\n\r\n") and await idle.closed() == b""
                for call_ in (old_call, new_call):
                    assert (await call_).messages[0]["result"]["content"][0]["text"] == "waited"
                assert (await route).body == b"slept"
                assert await old.closed() == b""
        await asyncio.to_thread(process.wait, 2)
        assert process.returncode == 0

    command = [sys.executable, "slow.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = int(process.stderr.readline().split("127.0.0.1:")[1].split("/")[0])
            run(scenario(process, port))
        finally:
            process.kill()
