"""Whose an HTTP request is: what is refused and how that is told, in every era; what is remembered, and for how long."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpfast.errors import MCPError
from mcpfast.server.sealed import KeyRing
from mcpfast.tenancy.denied import InvalidToken
from mcpfast.tenancy.identity import Claim, Principal, Quota
from mcpfast.tenancy.resolvers import Evidence
from tests.test_http import BASE, Answer, Browser, both_loops, connect, modern, post, request, rpc, serving
from tests.test_http_doors import sent
from tests.web_tenants import Tenanted, call, change, initialize, registry_of, session, text_of, who
from tests.wire import run

METADATA = "/.well-known/oauth-protected-resource"
ERAS = ["modern", "stateful", "sealed", "off"]
in_every_era = pytest.mark.parametrize("era", ERAS)


def options(era: str) -> dict[str, Any]:
    return {} if era == "modern" else {"session_mode": era}


class Calls:
    """Calls of one era on one connection."""

    def __init__(self, browser: Browser, era: str, named: dict[str, str]) -> None:
        self.browser, self.era, self.named = browser, era, named

    @classmethod
    async def of(cls, browser: Browser, era: str, credential: dict[str, str]) -> Calls:
        if era in ("modern", "off"):
            version = {} if era == "modern" else {"MCP_Protocol_Version": "2025-06-18"}
            return cls(browser, era, {**credential, **version})
        return cls(browser, era, await session(browser, **credential))

    async def call(self, name: str, arguments: Any = None, **headers: str) -> Answer:
        asked = {"name": name, "arguments": arguments or {}}
        if self.era == "modern":
            message, mirrored = modern("tools/call", {**asked, "_meta": {}})
            return await self.browser.ask(message, **{**mirrored, **self.named, **headers})
        return await self.browser.ask(rpc("tools/call", asked), **{**self.named, **headers})


# ---------------------------------------------------------------- who is not let in


@both_loops
def test_who_shows_nothing_or_something_bad_is_challenged(loop: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            where = f'resource_metadata="http://localhost{METADATA}/mcp"'
            for message in (initialize(), rpc("tools/list"), modern("tools/list", {})[0]):
                answer = await browser.ask(message)
                assert (answer.status, answer.code) == (401, 4010), answer.body
                assert answer.messages[0]["id"] == 1
                assert answer.headers["www-authenticate"] == f'Bearer {where}, scope="write"'
            bad = await call(browser, Authorization="Bearer mcpf_bad")
            assert (bad.status, bad.code) == (401, 4010)
            assert 'error="invalid_token"' in bad.headers["www-authenticate"]
            told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            notified = await browser.ask(told, Authorization="Bearer mcpf_bad")
            assert notified.status == 401 and "id" not in notified.messages[0]
            assert (await browser.ask([rpc("ping")])).status == 401
            in_url = request("POST", "/mcp?access_token=abc", b"{}", **BASE)
            assert (await sent(browser, in_url)).status == 400
            assert await who(browser, **tenanted.alice) == "acme/alice"

    run(scenario(), loop)


def test_a_path_means_a_tenant_and_says_nothing_of_others() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            message, named = modern("tools/call", {"name": "who", "arguments": {}})
            base = {name.replace("-", "_"): value for name, value in BASE.items()}

            async def at(path: str) -> Answer:
                body = json.dumps(message).encode()
                return await sent(browser, request("POST", path, body, **{**base, **named, **tenanted.alice}))

            for _ in range(2):  # the second time the head is known
                ours = await at("/t/acme/mcp")
                assert text_of(ours.messages[0]) == "acme/alice"
            theirs, nobodys, odd = [await at(f"/t/{name}/mcp") for name in ("globex", "nobody", "a%2f..")]
            assert theirs.status == nobodys.status == odd.status == 403
            assert theirs.body == nobodys.body == odd.body
            assert (await at("/t//mcp")).status == (await at("/t/acme/other")).status == 404
            assert (await at("/t/acme/health")).status == 404

    run(scenario())


def test_checks_come_in_order_and_routes_ask_nobody() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            assert (await call(browser, Origin="http://evil.example")).status == 403
            assert (await call(browser, Host="evil.example")).status == 421
            assert (await call(browser, Mcp_Name="other")).status == 401
            assert (await call(browser, Mcp_Name="other", **tenanted.alice)).code == -32020
            for method in ("GET", "DELETE"):
                asked = {"Host": "localhost", "Accept": "text/event-stream", "Mcp_Session_Id": "x"}
                assert (await sent(browser, request(method, "/mcp", **asked))).status == 401
            assert (await sent(browser, request("GET", "/health", Host="localhost"))).body == b"well"

    run(scenario())


def test_pages_may_send_credentials_and_read_challenges() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        page = {"Host": "localhost", "Origin": "https://app.example"}
        asks = {"Access_Control_Request_Method": "POST"}
        wanted = {"Access_Control_Request_Headers": "authorization, x-api-key, mcp-protocol-version"}
        async with serving(tenanted.server(), allowed_origins=["https://app.example"]) as (_, port):
            async with await connect(port) as browser:
                for path in ("/mcp", "/t/acme/mcp", f"{METADATA}/mcp"):
                    answer = await sent(browser, request("OPTIONS", path, **page, **asks, **wanted))
                    assert answer.status == 204, path
                    allowed = answer.headers["access-control-allow-headers"]
                    assert allowed == "authorization, x-api-key, mcp-protocol-version"
                    assert answer.headers["access-control-allow-origin"] == "https://app.example"
                refused = await call(browser, **page)
                assert refused.status == 401
                shown = refused.headers["access-control-expose-headers"].split(", ")
                assert {"WWW-Authenticate", "Retry-After"} <= set(shown)

    run(scenario())


@pytest.mark.parametrize(
    ("setting", "host", "base"),
    [
        ({}, "localhost", "http://localhost"),
        ({"public_url": "https://mcp.example.com"}, "localhost", "https://mcp.example.com"),
        (
            {"public_url": "https://mcp.example.com", "tenant_host": "{tenant}.mcp.example.com"},
            "acme.mcp.example.com",
            "https://acme.mcp.example.com",
        ),
    ],
)
def test_the_metadata_are_for_everybody(setting: dict[str, Any], host: str, base: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server(), **setting) as (_, port), await connect(port) as browser:
            for tenant in ("", "/t/acme", "/t/nobody"):
                got = await sent(browser, request("GET", f"{METADATA}{tenant}/mcp", Host=host))
                assert got.status == 200
                assert json.loads(got.body)["resource"] == f"{base}{tenant}/mcp"
                assert json.loads(got.body)["authorization_servers"] == ["https://id.example"]
            assert (await sent(browser, request("GET", f"{METADATA}/other", Host=host))).status == 404
            assert (await sent(browser, request("GET", f"{METADATA}/t/A..b/mcp", Host=host))).status == 404
            challenge = (await call(browser, Host=host)).headers["www-authenticate"]
            assert f'resource_metadata="{base}{METADATA}/mcp"' in challenge

    run(scenario())


def test_a_host_that_no_header_could_name_breaks_nothing() -> None:
    async def scenario() -> None:
        async with serving(Tenanted().server(), allowed_hosts=["*"]) as (_, port):
            async with await connect(port) as browser:
                answer = await call(browser, Host='a"b')
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")

    run(scenario())


# ---------------------------------------------------------------- names of hosts


def test_a_host_name_means_a_tenant() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server(), tenant_host="{tenant}.mcp.example") as (_, port):
            async with await connect(port) as browser:
                for host in ("acme.mcp.example", "ACME.mcp.example:8443", "localhost"):
                    assert await who(browser, Host=host, **tenanted.alice) == "acme/alice"
                assert await who(browser, Host="globex.mcp.example", **tenanted.alice) == 403
                assert await who(browser, Host="globex.mcp.example", **tenanted.eve) == "globex/eve"
                for host in (
                    "mcp.example",
                    ".mcp.example",
                    "a.b.mcp.example",
                    "acmemcp.example",
                    "-.mcp.example",
                ):
                    assert await who(browser, Host=host, **tenanted.alice) == 421, host
                message, named = modern("tools/call", {"name": "who", "arguments": {}})
                base = {name.replace("-", "_"): value for name, value in BASE.items()}
                named = {**base, **named, **tenanted.alice, "Host": "acme.mcp.example"}
                for tenant, status in (("acme", 200), ("globex", 403)):
                    asked = request("POST", f"/t/{tenant}/mcp", json.dumps(message).encode(), **named)
                    assert (await sent(browser, asked)).status == status

    run(scenario())


# ---------------------------------------------------------------- permission and quotas, in every era


@in_every_era
def test_a_step_up_is_asked_for_before_any_event(era: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        server = tenanted.server()
        server.state_keys = KeyRing([("k", b"1" * 32)])
        async with serving(server, **options(era)) as (_, port), await connect(port) as browser:
            bobs = await Calls.of(browser, era, tenanted.bob)
            for _ in range(2):
                answer = await bobs.call("write")
                assert answer.status == 403
                assert answer.headers["content-type"] == "application/json"
                assert (answer.code, answer.messages[0]["id"]) == (4030, 1)
                assert answer.messages[0]["error"]["data"]["scopes"] == ["write"]
                assert answer.headers["www-authenticate"] == (
                    'Bearer error="insufficient_scope", scope="write", '
                    f'resource_metadata="http://localhost{METADATA}/mcp", '
                    'error_description="This needs the scope write"'
                )
                assert text_of((await bobs.call("who")).messages[-1]) == "acme/bob"
            written = await (await Calls.of(browser, era, tenanted.alice)).call("write")
            assert (written.status, text_of(written.messages[-1])) == (200, "written")

    run(scenario())


@in_every_era
def test_a_quota_says_when_to_come_back(era: str) -> None:
    async def scenario() -> None:
        quota = Quota(calls_per_s=0.1, calls_burst=12, request_bytes_max=4_000)
        tenanted = Tenanted(quota=quota)
        async with serving(tenanted.server(), **options(era)) as (_, port), await connect(port) as browser:
            calls = await Calls.of(browser, era, tenanted.alice)
            large = await calls.call("echo", {"text": "x" * 5_000})
            assert (large.status, large.code) == (429, 4291)
            assert "retry-after" not in large.headers  # it would be refused whenever it came
            answers = [await calls.call("echo", {"text": "x"}) for _ in range(14)]
            assert {answer.status for answer in answers} == {200, 429}
            last = answers[-1]
            assert (last.status, last.code) == (429, 4291)
            assert 1 <= int(last.headers["retry-after"]) <= 10
            data = last.messages[0]["error"]["data"]
            assert int(last.headers["retry-after"]) == -(-data["retryAfterMs"] // 1000)
            assert "www-authenticate" not in last.headers
            others = await Calls.of(browser, era, tenanted.eve)
            assert (await others.call("echo", {"text": "x"})).status == 200

    run(scenario())


@in_every_era
def test_a_full_server_says_when_to_come_back(era: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted(running_calls_max=1, waiting_calls_max=0)
        async with serving(tenanted.server(), **options(era)) as (_, port):
            async with await connect(port) as first, await connect(port) as second:
                busy = await Calls.of(first, era, tenanted.eve)
                calls = await Calls.of(second, era, tenanted.alice)
                waiting = asyncio.create_task(busy.call("wait"))
                await tenanted.started.wait()
                answer = await calls.call("echo", {"text": "x"})
                assert (answer.status, answer.code) == (503, 5030), answer.body
                assert int(answer.headers["retry-after"]) >= 1
                waiting.cancel()

    run(scenario())


def test_only_refusals_of_the_tenant_say_a_status() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        server = tenanted.server()

        @server.tool
        async def fails() -> str:
            raise MCPError(4031, "of the handler's own making")

        async with serving(server) as (_, port), await connect(port) as browser:
            answer = await call(browser, "fails", **tenanted.alice)
            assert (answer.status, answer.code) == (200, 4031)

    run(scenario())


def test_a_batch_is_one_answer() -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            bobs = await session(browser, "2025-03-26", **tenanted.bob)
            calls = [
                rpc("tools/call", {"name": name}, id) for id, name in enumerate(("who", "write", "write"))
            ]
            answer = await browser.ask(calls, **bobs)
            assert answer.status == 200
            told = {one["id"]: one for one in answer.messages[0]}
            assert text_of(told[0]) == "acme/bob"
            assert told[1]["error"]["code"] == told[2]["error"]["code"] == 4030
            assert (await browser.ask(calls, **{**bobs, **tenanted.eve})).status == 404
            assert (await browser.ask(calls, **{**bobs, "Authorization": "Bearer mcpf_x"})).status == 401

    run(scenario())


# ---------------------------------------------------------------- sessions are of who opened them


@pytest.mark.parametrize("mode", ["stateful", "sealed"])
def test_a_session_is_of_who_opened_it(mode: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        server = tenanted.server()
        server.state_keys = KeyRing([("k", b"1" * 32)])
        async with serving(server, session_mode=mode) as (listener, port), await connect(port) as browser:
            ours = await session(browser, **tenanted.alice)
            assert (await browser.ask(rpc("ping"), **ours)).status == 200
            for other in (tenanted.bob, tenanted.eve):
                theirs = {**ours, **other}
                assert (await browser.ask(rpc("ping"), **theirs)).status == 404
                for method in ("GET", "DELETE"):
                    asked = {"Host": "localhost", "Accept": "text/event-stream", **theirs}
                    assert (await sent(browser, request(method, "/mcp", **asked))).status == 404
            listener.endpoint._sessions.kept.clear()  # a sealed one comes back: to its own only
            assert (await browser.ask(rpc("ping"), **{**ours, **tenanted.eve})).status == 404
            back = 200 if mode == "sealed" else 404
            assert (await browser.ask(rpc("ping"), **ours)).status == back

    run(scenario())


# ---------------------------------------------------------------- what is remembered


@both_loops
def test_a_known_head_is_asked_about_again_after_a_change(loop: str) -> None:
    async def scenario() -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server()) as (listener, port):
            async with await connect(port) as browser, await connect(port) as other:
                for _ in range(3):
                    assert await who(browser, **tenanted.alice) == "acme/alice"
                    assert await who(other, **tenanted.alice) == "acme/alice"
                    assert await who(browser, **tenanted.eve) == "globex/eve"
                bobs = await session(browser, **tenanted.bob)
                told = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
                for _ in range(3):
                    assert (await browser.ask(told, **bobs)).status == 202
                await change(listener.host, state="suspended")
                assert (await browser.ask(told, **bobs)).status == 403
                assert await who(browser, **tenanted.alice) == await who(other, **tenanted.alice) == 403
                assert await who(browser, **tenanted.eve) == "globex/eve"
                await change(listener.host, state="active")
                assert await who(browser, **tenanted.alice) == "acme/alice"
                await registry_of(listener.host).revoke_key(tenanted.key_ids["alice"])
                assert await who(browser, **tenanted.alice) == await who(other, **tenanted.alice) == 401
                await registry_of(listener.host).remove("globex")
                assert await who(browser, **tenanted.eve) in (401, 403)

    run(scenario(), loop)


def test_calls_of_a_suspended_tenant_end_after_a_while() -> None:
    async def scenario(era: str) -> None:
        tenanted = Tenanted()
        async with serving(tenanted.server(), **options(era)) as (listener, port):
            async with await connect(port) as browser:
                calls = await Calls.of(browser, era, tenanted.alice)
                waiting = asyncio.create_task(calls.call("wait"))
                await tenanted.started.wait()
                await change(listener.host, state="suspended")
                await waiting
                assert tenanted.ended == ["cancelled"]

    for era in ERAS:
        run(scenario(era))


class Badges:
    """A resolver as users write them: it waits, with a deadline of its own."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def resolve(self, evidence: Evidence) -> Claim | None:
        badge = evidence.header("x-badge")
        if badge is None:
            return None
        self.asked += 1
        async with asyncio.timeout(5):
            await self.gate.wait()
            await asyncio.sleep(0)
        if badge == "broken":
            raise ValueError("a fault of the resolver")
        if badge != "good":
            raise InvalidToken("The badge is not known")
        return Claim(Principal("carol", issuer="badge"), "acme")


@both_loops
def test_a_resolver_of_ones_own_may_wait(loop: str) -> None:
    async def scenario() -> None:
        badges = Badges()
        tenanted = Tenanted(resolvers=[badges], identify_s=0.3)
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            assert await who(browser, X_Badge="good") == "acme/carol"
            assert await who(browser, X_Badge="good") == "acme/carol"
            assert badges.asked == 2  # a head is remembered when it comes again
            assert await who(browser, X_Badge="good") == "acme/carol"
            assert badges.asked == 2
            assert await who(browser, X_Badge="bad") == 401
            assert await who(browser, X_Badge="broken") == 500
            assert await who(browser, **tenanted.alice) == "acme/alice"
            badges.gate.clear()
            late = await call(browser, X_Badge="bad")
            assert (late.status, late.headers["retry-after"]) == (503, "1")
            async with await connect(port) as other:  # nobody waits for somebody else's resolver
                waiting = asyncio.create_task(call(other, X_Badge="slow"))
                await asyncio.sleep(0.05)
                assert await who(browser, X_Badge="good") == "acme/carol"
                badges.gate.set()
                assert (await waiting).status == 401

    run(scenario(), loop)


def test_a_client_that_leaves_while_it_is_asked_about_leaves_nothing() -> None:
    async def scenario() -> None:
        badges = Badges()
        badges.gate.clear()
        tenanted = Tenanted(resolvers=[badges])
        async with serving(tenanted.server()) as (listener, port):
            async with await connect(port) as browser:
                waiting = asyncio.create_task(call(browser, X_Badge="good"))
                while not badges.asked:
                    await asyncio.sleep(0.01)
                waiting.cancel()
            await asyncio.sleep(0.05)
            badges.gate.set()
            await asyncio.sleep(0.05)
            assert not listener.endpoint.identifying and not listener.endpoint.exchanges

    run(scenario())


# ---------------------------------------------------------------- odd bodies of who is nobody


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("body", "id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"x"}', 7),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', None),
        (b'{"a":' + b"[" * 30_000, None),
        (b'{"id":"\xff"}', None),
        (b'{"id":7,"a":"' + b"x" * (64 << 10) + b'"}', None),
        (b"", None),
    ],
)
def test_who_is_nobody_is_told_so_whatever_he_sends(body: bytes, id: int | None, waits: bool) -> None:
    async def scenario() -> None:
        tenanted = Tenanted(resolvers=[Badges()] if waits else [])
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            answer = await browser.ask(body, **({"X_Badge": "bad"} if waits else {}))
            assert (answer.status, answer.code) == (401, 4010)
            assert answer.messages[0].get("id") == id

    run(scenario())


def test_nobody_is_asked_about_who_has_gone() -> None:
    async def scenario() -> None:
        badges = Badges()
        badges.gate.clear()
        async with serving(Tenanted(resolvers=[badges]).server()) as (listener, port):
            waiting = listener.endpoint.identifying
            for number in range(3):
                async with await connect(port) as browser:
                    browser.write(post(modern("tools/list", {})[0], X_Badge=f"number {number}"))
                    async with asyncio.timeout(5):
                        while not waiting:
                            await asyncio.sleep(0.01)
                async with asyncio.timeout(5):
                    while waiting:
                        await asyncio.sleep(0.01)

    run(scenario())


# ---------------------------------------------------------------- room for sessions


async def opens(browser: Browser, credential: dict[str, str]) -> int:
    return (await browser.ask(initialize(), **credential)).status


def test_no_tenant_takes_the_others_room_for_sessions() -> None:
    async def scenario() -> None:
        tenanted = Tenanted(http_sessions_max=4)
        async with serving(tenanted.server()) as (_, port), await connect(port) as browser:
            assert [await opens(browser, tenanted.alice) for _ in range(2)] == [200, 200]
            for credential in (tenanted.alice, tenanted.bob):
                refused = await browser.ask(initialize(), **credential)
                assert (refused.status, refused.headers["retry-after"]) == (503, "10")
            assert [await opens(browser, tenanted.eve) for _ in range(2)] == [200, 503]

    run(scenario())


def test_a_sealed_session_makes_room_among_its_own_tenants() -> None:
    async def scenario() -> None:
        tenanted = Tenanted(http_sessions_max=4)
        server = serving(tenanted.server(), session_mode="sealed")
        async with server as (listener, port), await connect(port) as browser:
            assert await opens(browser, tenanted.eve) == 200
            assert [await opens(browser, tenanted.alice) for _ in range(5)] == [200] * 5
            kept = [one.caller.key[0] for one in listener.endpoint._sessions.kept.values() if one.caller]
            assert kept == ["globex", "acme", "acme"]

    run(scenario())
