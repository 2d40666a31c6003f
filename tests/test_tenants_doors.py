"""The other doors over HTTP with tenants: WebSocket, the transport of 2024-11-05, ASGI."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcpfast import Client
from mcpfast.client.http import HttpServer
from mcpfast.server.host import Host
from mcpfast.tenancy.denied import InvalidToken
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.resolvers import Evidence
from tests.test_asgi import uvicorn_serving
from tests.test_http import Answer, Browser, both_loops, connect, modern, request, rpc, serving
from tests.test_http_doors import OldClient, sent
from tests.test_tenants_web import METADATA, Badges
from tests.test_websocket import HANDSHAKE, Socket, frame, opened, upgraded
from tests.web_tenants import Tenanted, call, change, initialize, registry_of, text_of
from tests.wire import run


def asked(name: str = "who", id: Any = 1) -> dict[str, Any]:
    return modern("tools/call", {"name": name, "arguments": {}}, id)[0]


# ---------------------------------------------------------------- WebSocket


async def opened_at(browser: Browser, path: str, **headers: str) -> Socket | Answer:
    browser.write(request("GET", path, **{**HANDSHAKE, **headers}))
    status, answer = await browser.head()
    if status == 101:
        return Socket(browser)
    return Answer(status, answer, await browser.reader.readexactly(int(answer.get("content-length", "0"))))


@both_loops
def test_a_websocket_is_of_who_opened_it(loop: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port):
            for path, credential, whose in (
                ("/mcp", tenanted.alice, "acme/alice"),
                ("/t/globex/mcp", tenanted.eve, "globex/eve"),
            ):
                async with await connect(port) as browser:
                    socket = await opened_at(browser, path, **credential)
                    assert isinstance(socket, Socket)
                    for _ in range(2):
                        assert text_of(await socket.ask(asked())) == whose
                    await opened(socket)
                    called = await socket.ask(rpc("tools/call", {"name": "who", "arguments": {}}, 2))
                    assert text_of(called) == whose
                    refused = await socket.ask(asked("write"))
                    assert ("error" in refused) == (whose != "acme/alice")
            for path, credential, status in (
                ("/mcp", {}, 401),
                ("/mcp", {"Authorization": "Bearer mcpf_bad"}, 401),
                ("/t/globex/mcp", tenanted.alice, 403),
                ("/t/nobody/mcp", tenanted.alice, 403),
                ("/mcp?token=abc", tenanted.alice, 400),
                ("/t/acme/other", tenanted.alice, 404),
                ("/mcp", {**tenanted.alice, "Origin": "http://evil.example"}, 403),
            ):
                async with await connect(port) as browser:
                    answer = await opened_at(browser, path, **credential)
                    assert isinstance(answer, Answer) and answer.status == status, (path, answer)
                    if status == 401:
                        assert "resource_metadata=" in answer.headers["www-authenticate"]
                        assert answer.code == 4010
                    assert await browser.closed() == b""

    run(scenario(), loop)


def test_a_websocket_is_asked_about_again_after_a_change() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (listener, port), await connect(port) as browser:
            socket = await upgraded(browser, **tenanted.alice)
            assert text_of(await socket.ask(asked())) == "acme/alice"
            await change(listener.host, state="suspended")
            assert (await socket.ask(asked()))["error"]["code"] == 4030
            await change(listener.host, state="active")
            assert text_of(await socket.ask(asked())) == "acme/alice"
            await registry_of(listener.host).revoke_key(tenanted.key_ids["alice"])
            assert (await socket.ask(asked()))["error"]["code"] == 4010

    run(scenario())


@both_loops
def test_frames_wait_until_it_is_known_whose_they_are(loop: str) -> None:
    async def scenario() -> None:
        badges = Badges()
        tenanted = Tenanted(resolvers=[badges])
        async with serving(tenanted.server()) as (listener, port):
            for badge in ("good", "bad"):
                badges.gate.clear()
                async with await connect(port) as browser:
                    hello = request("GET", "/mcp", **HANDSHAKE, X_Badge=badge)
                    browser.write(hello + frame(asked(id="behind")))
                    await asyncio.sleep(0.05)
                    browser.write(frame(asked(id="later")))
                    await asyncio.sleep(0.05)
                    assert not listener.sockets
                    badges.gate.set()
                    status, _ = await browser.head()
                    assert status == (101 if badge == "good" else 401)
                    if badge == "good":
                        answers = [await Socket(browser).message() for _ in range(2)]
                        assert {one["id"]: text_of(one) for one in answers} == {
                            "behind": "acme/carol",
                            "later": "acme/carol",
                        }

    run(scenario(), loop)


def test_our_client_shows_its_credential_at_every_door() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port):
            for scheme in ("http", "ws"):
                target = HttpServer(f"{scheme}://127.0.0.1:{port}/t/acme/mcp", headers=tenanted.alice)
                for mode in ("auto", "legacy"):
                    async with Client(target, mode=mode) as client:
                        assert (await client.call_tool("who", {})).data == "acme/alice"

    run(scenario())


# ---------------------------------------------------------------- 2024-11-05


class OldTenant(OldClient):
    """The same, of somebody, at a path of their own."""

    def __init__(self, stream: Browser, poster: Browser, named: dict[str, str], path: str = "") -> None:
        super().__init__(stream, poster)
        self.named, self.path = named, path

    async def open(self) -> None:
        asked = request("GET", f"{self.path}/sse", Host="localhost", Accept="text/event-stream", **self.named)
        self.stream.write(asked)
        assert (await self.stream.head())[0] == 200
        event = (await self.stream.chunk()).decode()
        assert event.startswith(f"event: endpoint\ndata: {self.path}/messages?sessionId=")
        self.where = event.splitlines()[1].removeprefix("data: ")

    async def say(self, message: Any, **other: str) -> Answer:
        body = json.dumps(message).encode()
        named = other or self.named
        posted = request("POST", self.where, body, Host="localhost", Content_Type="application/json", **named)
        return await sent(self.poster, posted)


@pytest.mark.parametrize("path", ["", "/t/acme"])
def test_the_transport_of_2024(path: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (listener, port), await connect(port) as poster:
            nobody = request("GET", f"{path}/sse", Host="localhost", Accept="text/event-stream")
            assert (await sent(poster, nobody)).status == 401
            async with await connect(port) as stream:
                client = OldTenant(stream, poster, tenanted.alice, path)
                await client.open()
                assert (await client.say(initialize("2024-11-05"))).status == 202
                assert (await client.hear())["result"]["protocolVersion"] == "2024-11-05"
                await client.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
                mine = rpc("tools/call", {"name": "who", "arguments": {}}, 2)
                assert (await client.say(mine)).status == 202
                assert text_of(await client.hear()) == "acme/alice"
                theirs = await client.say(mine, **tenanted.bob)
                client.where, where = client.where[:-1] + "?", client.where
                assert theirs.status == (await client.say(mine)).status == 404
                assert theirs.body == (await client.say(mine)).body
                client.where = where
                assert (await client.say(mine, Authorization="Bearer mcpf_bad")).status == 401
                assert (await client.say(mine, **tenanted.eve)).status == (403 if path else 404)
                await change(listener.host, state="suspended")
                assert (await client.say(mine)).status == 403
                await change(listener.host, state="active")
                assert (await client.say(mine)).status == 202
                assert text_of(await client.hear()) == "acme/alice"

    run(scenario())


def test_a_stream_of_2024_goes_on_with_a_newer_credential() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        other = Tenanted()  # alice has a second key there
        async with serving(tenanted.server()) as (listener, port), await connect(port) as poster:
            async with await connect(port) as stream:
                client = OldTenant(stream, poster, tenanted.alice)
                await client.open()
                await client.say(initialize("2024-11-05"))
                await client.hear()
                registry = registry_of(listener.host)
                async with Host(other.server()) as host:
                    newer = registry_of(host).find_key(other.key_ids["alice"])
                assert newer is not None
                await registry.put_key(newer)
                await registry.revoke_key(tenanted.key_ids["alice"])
                mine = rpc("tools/call", {"name": "who", "arguments": {}}, 2)
                assert (await client.say(mine)).status == 401
                for _ in range(2):
                    assert (await client.say(mine, **other.alice)).status == 202
                    assert text_of(await client.hear()) == "acme/alice"

    run(scenario())


def test_who_listens_on_a_stream_of_2024_or_a_websocket_is_found_again() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        server = tenanted.server()
        told = {"uri": "note://one"}
        async with serving(server) as (listener, port), await connect(port) as poster:
            async with await connect(port) as stream, await connect(port) as browser:
                client = OldTenant(stream, poster, tenanted.alice)
                await client.open()
                socket = await upgraded(browser, **tenanted.alice)
                await client.say(initialize("2024-11-05"))
                await client.hear()
                await client.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
                await client.say(rpc("resources/subscribe", told, 2))
                assert (await client.hear())["result"] == {}
                await opened(socket)
                assert (await socket.ask(rpc("resources/subscribe", told, 2)))["result"] == {}
                for name in ("still acme", "acme again"):
                    await change(listener.host, name=name)
                    await asyncio.sleep(0.05)  # looked at, and found to be alice still
                    server.notify_resource_updated("note://one")
                    for heard in (await client.hear(), await socket.message()):
                        assert (heard["method"], heard["params"]) == ("notifications/resources/updated", told)
                await change(listener.host, state="suspended")
                await asyncio.sleep(0.05)
                server.notify_resource_updated("note://one")
                assert (await socket.ask(rpc("ping", id=3)))["id"] == 3

    run(scenario())


def test_no_tenant_takes_the_others_room_for_streams_of_2024() -> None:
    async def scenario() -> None:
        tenanted = Tenanted(http_sessions_max=4)
        async with serving(tenanted.server()) as (_, port), AsyncExitStack() as stack:
            for credential, status in (
                (tenanted.alice, 200),
                (tenanted.bob, 200),
                (tenanted.alice, 503),
                (tenanted.eve, 200),
            ):
                browser = await stack.enter_async_context(await connect(port))
                browser.write(
                    request("GET", "/sse", Host="localhost", Accept="text/event-stream", **credential)
                )
                assert (await browser.head())[0] == status

    run(scenario())


class Withdrawn:
    """Badges that can be taken away, at a desk that may be on fire."""

    def __init__(self) -> None:
        self.good = {"carol", "dave"}
        self.burns = False

    async def resolve(self, evidence: Evidence) -> Claim | None:
        badge = evidence.header("x-badge")
        if badge is None:
            return None
        if self.burns:
            raise OSError("the desk is on fire")
        if badge not in self.good:
            raise InvalidToken("The badge is not known")
        return Claim(Principal(badge, issuer="badge"), "acme")


def test_who_may_listen_no_more_hears_nothing_although_a_resolver_has_failed_before() -> None:
    async def scenario() -> None:
        desk = Withdrawn()
        server = Tenanted(resolvers=[desk]).server()
        async with (
            serving(server) as (listener, port),
            await connect(port) as one,
            await connect(port) as two,
        ):
            sockets = [await upgraded(one, X_Badge="carol"), await upgraded(two, X_Badge="dave")]

            async def heard() -> list[int]:
                """How much each is told of a change of the resource and of one of the list."""
                server.notify_resource_updated("note://one")
                server.notify_list_changed("tools")
                await asyncio.sleep(0.05)
                counts = []
                for socket in sockets:
                    socket.browser.write(frame(rpc("ping", id="last")))
                    counts.append(0)
                    while (await socket.message()).get("id") != "last":
                        counts[-1] += 1
                return counts

            async def subscribed() -> None:
                for socket in sockets:
                    answer = await socket.ask(rpc("resources/subscribe", {"uri": "note://one"}, 2))
                    assert answer["result"] == {}

            async def changed(name: str) -> None:
                await change(listener.host, name=name)
                await asyncio.sleep(0.05)

            for socket in sockets:
                await opened(socket)
            await subscribed()
            assert await heard() == [2, 2]
            desk.burns = True
            await changed("one")
            assert await heard() == [0, 0]
            desk.burns = False
            await subscribed()
            assert await heard() == [2, 2]
            desk.good = {"dave"}
            await changed("two")
            assert await heard() == [0, 2]

    run(scenario())


# ---------------------------------------------------------------- ASGI


@pytest.mark.parametrize("root", ["", "/sub"])
def test_asgi(root: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        app = tenanted.server().asgi_app()
        served: Any = Starlette(routes=[Mount(root, app)], lifespan=app.lifespan) if root else app
        async with uvicorn_serving(served) as port, await connect(port) as browser:

            async def post(path: str, message: Any, **headers: str) -> Answer:
                base = {"Host": "localhost", "Content_Type": "application/json"}
                both = {"Accept": "application/json, text/event-stream"}
                body = json.dumps(message).encode()
                return await sent(browser, request("POST", root + path, body, **{**base, **both, **headers}))

            message, named = modern("tools/call", {"name": "who", "arguments": {}})
            for path in ("/mcp", "/t/acme/mcp"):
                assert (
                    text_of((await post(path, message, **named, **tenanted.alice)).messages[0])
                    == "acme/alice"
                )
                refused = await post(path, message, **named)
                assert (refused.status, refused.code) == (401, 4010)
                url = f"http://localhost{root}{METADATA}{path}"
                assert f'resource_metadata="{url}"' in refused.headers["www-authenticate"]
                got = await sent(browser, request("GET", f"{root}{METADATA}{path}", Host="localhost"))
                assert json.loads(got.body)["resource"] == f"http://localhost{root}{path}"
            assert (await post("/t/globex/mcp", message, **named, **tenanted.alice)).status == 403
            stepped = await post("/mcp", asked("write"), **{**named, "Mcp_Name": "write"}, **tenanted.bob)
            assert stepped.status == 403 and 'scope="write"' in stepped.headers["www-authenticate"]
            begun = await post("/mcp", initialize(), **tenanted.alice)
            ours = {**tenanted.alice, "Mcp_Session_Id": begun.headers["mcp-session-id"]}
            assert (await post("/mcp", rpc("ping"), **ours)).status == 200
            assert (await post("/mcp", rpc("ping"), **{**ours, **tenanted.bob})).status == 404
            assert app._serving is not None
            await change(app._serving.host, state="suspended")
            assert (await post("/mcp", message, **named, **tenanted.alice)).status == 403

    run(scenario())


def test_asgi_behind_a_proxy_that_tells_the_path_and_the_scheme() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        app = tenanted.server().asgi_app()

        async def proxied(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope = {**scope, "root_path": "/api", "scheme": "https"}
            await app(scope, receive, send)

        async with uvicorn_serving(proxied) as port, await connect(port) as browser:
            answer = await call(browser)
            assert answer.status == 401
            url = f"https://localhost/api{METADATA}/mcp"
            assert f'resource_metadata="{url}"' in answer.headers["www-authenticate"]
            for path in (f"/api{METADATA}/mcp", f"{METADATA}/mcp", f"{METADATA}/api/mcp"):
                got = await sent(browser, request("GET", path, Host="localhost"))
                assert json.loads(got.body)["resource"] == "https://localhost/api/mcp", path

    run(scenario())


def test_a_websocket_by_asgi() -> None:
    async def scenario() -> None:
        badges = Badges()
        tenanted = Tenanted(resolvers=[badges])
        app = tenanted.server().asgi_app()
        async with uvicorn_serving(app) as port:
            for path, credential, whose in (
                ("/mcp", tenanted.alice, "acme/alice"),
                ("/t/acme/mcp", {"X_Badge": "good"}, "acme/carol"),
            ):
                async with await connect(port) as browser:
                    socket = await opened_at(browser, path, **credential)
                    assert isinstance(socket, Socket)
                    assert text_of(await socket.ask(asked())) == whose
                    assert app._serving is not None
                    await change(app._serving.host, state="suspended")
                    assert (await socket.ask(asked()))["error"]["code"] == 4030
                    await change(app._serving.host, state="active")
                    assert text_of(await socket.ask(asked())) == whose
            for path, named, status in (
                ("/mcp", {}, 401),
                ("/mcp", {"X_Badge": "bad"}, 401),
                ("/t/globex/mcp", tenanted.alice, 403),
                ("/t/acme/other", tenanted.alice, 404),
            ):
                async with await connect(port) as browser:
                    answer = await opened_at(browser, path, **named)
                    assert isinstance(answer, Answer) and answer.status == status, (path, answer)
                    if status == 401:
                        assert "resource_metadata=" in answer.headers["www-authenticate"]

    run(scenario())
