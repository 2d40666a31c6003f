"""Tokens over HTTP, end to end: a bad one is refused with the exact status, header and error, shows nowhere, and slows nobody.

A real server and a real issuer on loopback; the clock is a test's, so that an hour passes at once. What a token must say in detail
is the work of `test_jwt.py`, when keys are fetched that of `test_jwks.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
import json
import math
import pickle
import re
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hmac import digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mcpfast import Context, MCPServer
from mcpfast.limits import Limits
from mcpfast.tenancy import jwks as keys_module
from mcpfast.tenancy import service, signatures
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.resolvers import BEARER_CHARS_MAX
from mcpfast.tenancy.service import Callers, Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests import identities
from tests.identities import ISSUER, KEYS, RESOURCE, START_S, STRANGER, Clock, claims, forge, jwks, sign
from tests.live_server import live_server
from tests.test_http import Answer, Browser, connect, modern, request, rpc, serving
from tests.wire import run

OTHER = "https://other.example"  # an issuer that is down, or does not answer
NEIGHBOUR = new_key("acme", "bob", scopes=frozenset({"read"}), now_s=START_S)
PATHS = ("/mcp", "/t/acme/mcp")
ERAS = ("2026-07-28", "2025-11-25")
INVALID = "invalid_token"
EXPIRED = "The token has expired"
TOO_EARLY = "The token is not valid yet"
AUDIENCE = "The token is for another audience"
UNREADABLE = "The token cannot be read, or is of a kind that is not accepted here"
STRANGE_ISSUER = "The token's issuer is not accepted here"
UNKNOWN_KEY = "The token is not signed with a key of its issuer"
BAD_SIGNATURE = "The token's signature is not valid"
NO_TOKEN = "Authorization: Bearer has no token"
NOT_OURS = "Credentials of this kind are not accepted here"
TWO = "Authorization: Bearer has characters that no token has"
IN_URL = "Credentials belong in the Authorization header, never in a URL; take these for known to others"
REVOKED = "The token has been revoked"
NO_KEYS = "The keys of the token's issuer cannot be had"


class Site:
    """The web site of both issuers. `down` are the paths that fail, `hanging` those that never answer."""

    def __init__(self) -> None:
        self.keys = jwks()
        self.down: set[str] = set()
        self.hanging: set[str] = set()
        self.fetched: list[str] = []
        self.origin = ""
        self.over = asyncio.Event()

    async def answer(self, asked: web.Request) -> web.Response:
        self.fetched.append(asked.path)
        if asked.path in self.hanging:
            await self.over.wait()
        if asked.path in self.down:
            return web.Response(status=500)
        return web.Response(body=self.keys, headers={"Cache-Control": "max-age=600"})


class Stand:
    """A server of ours with one organization, two issuers and a neighbour with an API key."""

    def __init__(self, port: int, site: Site, clock: Clock, callers: Callers) -> None:
        self.port, self.site, self.clock, self.callers = port, site, clock, callers
        self.seen: list[str] = []  # what handlers saw

    def connect(self) -> Any:
        return connect(self.port)

    async def ask(self, token: str, **more: str) -> Answer:
        """A call with this token, on a connection of its own."""
        async with await self.connect() as browser:
            return await ask(browser, f"Authorization: Bearer {token}", **more)


@asynccontextmanager
async def stand(**limits: Any) -> AsyncIterator[Stand]:
    site, clock = Site(), Clock()
    runner, site.origin = await identities.serving(site.answer)
    issuers = [
        Issuer(
            issuer=ISSUER,
            audiences=(RESOURCE, "https://mcp.example/t/{tenant}/mcp"),
            jwks_url=f"{site.origin}/keys",
            tenant_claim="org",
            tenants=("acme",),
            subject_prefix="id:",
        ),
        Issuer(
            issuer=OTHER,
            audiences=(RESOURCE,),
            jwks_url=f"{site.origin}/other",
            tenant="acme",
            subject_prefix="other:",
        ),
    ]
    record = TenantRecord("acme", scopes=frozenset({"read"}))
    store = MemoryStore([record], keys=[NEIGHBOUR.record])
    server: MCPServer[Any] = MCPServer(
        "tokens",
        tenancy=Tenancy(store, issuers=issuers, scopes_asked=["read"]),
        limits=Limits(**limits),
    )
    seen: list[str] = []

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def look(ctx: Context) -> str:
        seen.extend(all_of(ctx))
        return ctx.principal.id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcpfast.server.tenants.Callers", functools.partial(Callers, now=clock))
        try:
            async with serving(server) as (listener, port):
                tenants = listener.endpoint.host.dispatcher.tenants
                assert tenants is not None
                made = Stand(port, site, clock, tenants.callers)
                made.seen = seen
                yield made
        finally:
            site.over.set()
            await runner.cleanup()


async def ask(
    browser: Browser,
    *lines: str,
    path: str = "/mcp",
    era: str = ERAS[0],
    tool: str = "echo",
    **headers: str,
) -> Answer:
    """A call of 2026-07-28, or the first request of a legacy session; `lines` are headers as they stand on the wire."""
    named = {"Host": "localhost", "Content_Type": "application/json"}
    named |= {"Accept": "application/json, text/event-stream"}
    if era == ERAS[0]:
        arguments = {"text": "hello"} if tool == "echo" else {}
        message, more = modern("tools/call", {"name": tool, "arguments": arguments}, id="one")
    else:
        info = {"name": "x", "version": "1"}
        params = {"protocolVersion": era, "capabilities": {}, "clientInfo": info}
        message, more = rpc("initialize", params, id="one"), {}
    raw = request("POST", path, json.dumps(message).encode(), **named, **more, **headers)
    first, _, rest = raw.partition(b"\r\n")
    browser.write(b"\r\n".join([first, *(line.encode("latin-1") for line in lines), rest]))
    return await browser.read()


def challenge(path: str, why: str = "") -> str:
    where = f'Bearer resource_metadata="http://localhost/.well-known/oauth-protected-resource{path}", scope="read"'
    return f'{where}, error="invalid_token", error_description="{why}"' if why else where


def is_good(answer: Answer) -> bool:
    return (
        answer.status == 200 and "result" in answer.messages[0] and "www-authenticate" not in answer.headers
    )


# ---------------------------------------------------------------- bad ones


class Bad(NamedTuple):
    """What stands in the request, and what is said to it: `lines` are made when the test runs."""

    name: str
    lines: Callable[[], list[str]]
    why: str
    status: int = 401
    error: str = INVALID


def bearing(make: Callable[[], str]) -> Callable[[], list[str]]:
    return lambda: [f"Authorization: Bearer {make()}"]


def confused() -> str:
    """Signed by everybody: HS256 with the public key as its secret."""
    public = KEYS["RS256"].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    front = forge({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, claims()).rpartition(".")[0]
    signature = forge({}, {}, digest(public, front.encode(), "sha256")).rpartition(".")[2]
    return f"{front}.{signature}"


def changed(token: str) -> str:
    """The same with scopes that it was not given."""
    header, _, signature = token.split(".")
    return f"{header}.{forge({}, claims(scope='read write admin')).split('.')[1]}.{signature}"


BAD = [
    Bad("expired", bearing(lambda: sign(claims(exp=START_S - 31))), EXPIRED),
    Bad("expired long ago", bearing(lambda: sign(claims(exp=1), algorithm="RS256")), EXPIRED),
    Bad("not yet valid", bearing(lambda: sign(claims(nbf=START_S + 31))), TOO_EARLY),
    Bad("issued in the future", bearing(lambda: sign(claims(iat=START_S + 31))), TOO_EARLY),
    Bad("wrong audience", bearing(lambda: sign(claims(aud="https://elsewhere.example/mcp"))), AUDIENCE),
    Bad("audience by its beginning", bearing(lambda: sign(claims(aud=RESOURCE + "/more"))), AUDIENCE),
    Bad("a neighbour's", bearing(lambda: sign(claims(aud="https://mcp.example/t/globex/mcp"))), AUDIENCE),
    Bad("no audience", bearing(lambda: sign(claims(aud=None))), AUDIENCE),
    Bad("wrong issuer", bearing(lambda: sign(claims(iss="https://evil.example"))), STRANGE_ISSUER),
    Bad("issuer with a slash", bearing(lambda: sign(claims(iss=ISSUER + "/"))), STRANGE_ISSUER),
    Bad("alg none", bearing(lambda: forge({"alg": "none"}, claims())), UNKNOWN_KEY),
    Bad("alg none of a key", bearing(lambda: forge({"alg": "none", "kid": "rsa"}, claims())), UNKNOWN_KEY),
    Bad("alg None", bearing(lambda: forge({"alg": "None", "kid": "rsa"}, claims())), UNKNOWN_KEY),
    Bad("HS256 with the public key", bearing(confused), UNKNOWN_KEY),
    Bad("unknown key", bearing(lambda: sign(kid="nobody's")), UNKNOWN_KEY),
    Bad("another key under a known name", bearing(lambda: sign(key=STRANGER)), BAD_SIGNATURE),
    Bad("changed claims", bearing(lambda: changed(sign())), BAD_SIGNATURE),
    Bad("brings its own key", bearing(lambda: sign(key=STRANGER, jwk=STRANGER.as_dict())), UNREADABLE),
    Bad("says where its key is", bearing(lambda: sign(jku="https://evil.example/keys")), UNREADABLE),
    Bad("no JSON in it", bearing(lambda: "YQ.Yg.Yw"), UNREADABLE),
    Bad("another kind of token", bearing(lambda: sign(typ="logout+jwt")), UNREADABLE),
    Bad("oversized", bearing(lambda: sign(claims(more="x" * BEARER_CHARS_MAX))), "The token is too long"),
    Bad("encrypted", bearing(lambda: sign() + ".YQ.YQ"), NOT_OURS),
    Bad("no JWT", bearing(lambda: "secret-that-nobody-knows"), NOT_OURS),
    Bad(
        "an API key of nobody",
        bearing(lambda: "mcpf_" + "0" * 12 + "_" + "1" * 49),
        "The API key is not valid",
    ),
    Bad("wrong scheme", lambda: ["Authorization: Basic YWxpY2U6c2VjcmV0LXdvcmQ="], NOT_OURS),
    Bad("no scheme", lambda: [f"Authorization: {sign()}"], NOT_OURS),
    Bad("nothing", list, "This needs credentials", error=""),
    Bad("no token", lambda: ["Authorization: Bearer"], NO_TOKEN, 400, "invalid_request"),
    Bad("two in one header", bearing(lambda: f"{sign()}, Bearer {sign()}"), TWO, 400, "invalid_request"),
    Bad(
        "two headers, both good",
        lambda: [f"Authorization: Bearer {sign()}", f"Authorization: Bearer {sign()}"],
        TWO,
        400,
        "invalid_request",
    ),
    Bad(
        "two headers, the second with an API key",
        lambda: [f"Authorization: Bearer {sign()}", f"Authorization: Bearer {NEIGHBOUR.key}"],
        TWO,
        400,
        "invalid_request",
    ),
    Bad(
        "good, and an API key of another principal",
        lambda: [f"Authorization: Bearer {sign()}", f"X-API-Key: {NEIGHBOUR.key}"],
        "The request has two credentials of different principals or tenants",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_a_bad_token_is_refused_exactly(bad: Bad, caplog: pytest.LogCaptureFixture) -> None:
    """On both paths and in both eras; the connection goes on, and a good token on it is good."""
    caplog.set_level("DEBUG")
    lines = bad.lines()

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            for path, era in itertools.product(PATHS, ERAS):
                answer = await ask(browser, *lines, path=path, era=era)
                assert_refused(answer, bad, path)
                assert_silent(lines, answer, caplog)
                assert is_good(await ask(browser, f"Authorization: Bearer {sign()}", path=path, era=era))

    run(scenario())


def assert_refused(answer: Answer, bad: Bad, path: str) -> None:
    assert (answer.status, answer.headers["content-type"]) == (bad.status, "application/json"), answer.body
    error: dict[str, Any] = {"code": bad.status * 10, "message": bad.why}
    if bad.error:
        error["data"] = {"error": bad.error}
    assert answer.messages == [{"jsonrpc": "2.0", "id": "one", "error": error}]
    if bad.status == 400:
        told = f'Bearer error="{bad.error}", error_description="{bad.why}"'
    else:
        told = challenge(path, bad.why if bad.error else "")
    assert answer.headers["www-authenticate"] == told
    assert "retry-after" not in answer.headers


def assert_silent(lines: list[str], answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing secret came back, or went into the log."""
    told = answer.body.decode() + repr(answer.headers) + caplog.text
    for line in lines:
        for part in re.split(r"[\s.,]+", line.partition(":")[2]):
            assert len(part) < 8 or part not in told


@pytest.mark.parametrize(
    "name", ["access_token", "ACCESS_TOKEN", "token", "api_key", "jwt", "%61ccess_token"]
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_token_in_the_url_is_refused_even_beside_a_good_one(
    name: str, beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            token = sign()
            for path in PATHS:
                lines = [f"Authorization: Bearer {token}"] if beside else []
                answer = await ask(browser, *lines, path=f"{path}?a=b&{name}={token}")
                assert_refused(answer, Bad("", list, IN_URL, 400, "invalid_request"), path)
                assert_silent([f"URL: {token}"], answer, caplog)

    run(scenario())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_session_is_opened_and_ended_by_nobody_without_a_token(method: str) -> None:
    """Requests without a body are refused alike; the error has no id, since there was none."""

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            session = await initialized_with(browser, sign())
            named = {"Host": "localhost", "Accept": "text/event-stream", "Mcp_Session_Id": session}
            for bad, why in (("", ""), (sign(claims(exp=1)), EXPIRED)):
                bearer = {"Authorization": f"Bearer {bad}"} if bad else {}
                browser.write(request(method, "/mcp", **named, **bearer))
                answer = await browser.read()
                assert (answer.status, answer.code) == (401, 4010)
                assert "id" not in answer.messages[0]
                assert answer.headers["www-authenticate"] == challenge("/mcp", why)
            browser.write(request("DELETE", "/mcp", **named, Authorization=f"Bearer {sign()}"))
            assert (await browser.read()).status == 204

    run(scenario())


async def initialized_with(browser: Browser, token: str) -> str:
    answer = await ask(browser, f"Authorization: Bearer {token}", era=ERAS[1])
    assert is_good(answer)
    return answer.headers["mcp-session-id"]


def test_a_token_larger_than_a_head_never_gets_to_be_looked_at() -> None:
    async def scenario() -> None:
        async with stand(head_bytes_max=16 << 10) as house:
            answer = await house.ask("a.b." + "c" * (1 << 20))
            assert answer.status == 431
            assert is_good(await house.ask(sign()))

    run(scenario())


@pytest.mark.parametrize(
    "said",
    [{"exp": START_S - 29}, {"nbf": START_S + 29}, {"iat": START_S + 29}, {"aud": ["x", RESOURCE]}],
    ids=lambda said: next(iter(said)),
)
def test_what_is_within_the_leeway_is_good(said: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with stand() as house:
            assert is_good(await house.ask(sign(claims(**said))))

    run(scenario())


def test_the_scheme_is_read_in_any_case() -> None:
    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            for scheme in ("Bearer", "bearer", "BEARER"):
                assert is_good(await ask(browser, f"Authorization: {scheme} {sign()}"))

    run(scenario())


# ---------------------------------------------------------------- what ends while it is used


def test_a_token_that_expires_on_an_open_connection_is_refused_from_then_on() -> None:
    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            line = f"Authorization: Bearer {sign(claims(exp=START_S - 30 + 0.4))}"  # with the leeway
            until_s = time.monotonic() + 0.4
            for _ in range(3):
                assert is_good(await ask(browser, line))
            house.clock.s += 0.4
            await asyncio.sleep(until_s - time.monotonic() + 0.05)
            assert_refused(await ask(browser, line), Bad("", list, EXPIRED), "/mcp")

    run(scenario())


def test_revoked_while_serving_is_refused_with_the_next_request() -> None:
    """Known by its digest, and its head known byte by byte: neither is of any use once the registry says so."""

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser, await house.connect() as legacy:
            line = f"Authorization: Bearer {sign(claims(iat=START_S - 10))}"
            session = await initialized_with(legacy, sign(claims(iat=START_S - 10)))
            for _ in range(5):
                assert is_good(await ask(browser, line))
            record = house.callers.registry.find("acme")
            assert record is not None
            await house.callers.registry.put(msgspec.structs.replace(record, token_generation=int(START_S)))
            for path in PATHS:
                assert_refused(await ask(browser, line, path=path), Bad("", list, REVOKED), path)
            listing = json.dumps(rpc("tools/list", id="one")).encode()
            named = {"Host": "localhost", "Content_Type": "application/json", "Mcp_Session_Id": session}
            named |= {"Accept": "application/json, text/event-stream"}
            old = f"Bearer {sign(claims(iat=START_S - 10))}"
            legacy.write(request("POST", "/mcp", listing, **named, Authorization=old))
            assert_refused(await legacy.read(), Bad("", list, REVOKED), "/mcp")
            # One that was given since is good, and so is who has no token.
            assert is_good(await ask(browser, f"Authorization: Bearer {sign(claims(iat=START_S + 1))}"))
            assert is_good(await ask(browser, f"Authorization: Bearer {NEIGHBOUR.key}"))

    run(scenario())


def test_a_key_that_is_withdrawn_takes_its_tokens_along_on_open_connections_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever was found out is found out again every SWEEP_S, also for who sends the same head for ever."""
    monkeypatch.setattr(service, "SWEEP_S", 0.05)

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            line = f"Authorization: Bearer {sign()}"
            for _ in range(3):
                assert is_good(await ask(browser, line))
            house.site.keys = jwks(KEYS["RS256"])
            house.clock.s += 601  # longer than the keys are good
            async with asyncio.timeout(5):
                while is_good(answer := await ask(browser, line)):
                    await asyncio.sleep(0.02)
            assert_refused(answer, Bad("", list, UNKNOWN_KEY), "/mcp")
            assert is_good(await ask(browser, f"Authorization: Bearer {sign(algorithm='RS256')}"))

    run(scenario())


# ---------------------------------------------------------------- issuers that cannot be asked


def assert_unavailable(answer: Answer, wait_s: int) -> None:
    assert answer.status == 503, answer.body
    assert "www-authenticate" not in answer.headers  # another token would not help
    assert int(answer.headers["retry-after"]) in (wait_s, wait_s - 1)
    (message,) = answer.messages
    assert (message["id"], message["error"]["code"], message["error"]["message"]) == ("one", 5030, NO_KEYS)
    assert message["error"]["data"].keys() == {"retryAfterMs"}
    assert math.ceil(message["error"]["data"]["retryAfterMs"] / 1000) == int(answer.headers["retry-after"])


def test_an_issuer_whose_keys_were_never_had_is_a_503_for_its_own_tokens_alone() -> None:
    async def scenario() -> None:
        async with stand() as house:
            house.site.down.add("/other")
            others = sign(claims(iss=OTHER))
            for _ in range(3):
                assert_unavailable(await house.ask(others), 30)
                assert is_good(await house.ask(sign()))
                assert is_good(await house.ask(NEIGHBOUR.key))
            assert house.site.fetched == ["/other", "/keys"]
            house.clock.s += 20
            assert_unavailable(await house.ask(others), 10)
            house.site.down.clear()
            house.clock.s += 10
            assert is_good(await house.ask(others))
            assert house.site.fetched == ["/other", "/keys", "/other"]

    run(scenario())


def test_old_keys_serve_known_and_new_tokens_while_their_issuer_is_down() -> None:
    async def scenario() -> None:
        async with stand() as house:
            known = sign(claims(exp=START_S + 200_000))
            assert is_good(await house.ask(known))
            house.site.down.add("/keys")
            house.clock.s += 4_000  # the keys are too old, and what was known of the token is
            for token in (known, sign(claims(exp=START_S + 200_000, jti="new"))):
                # not with the head of the first time: that has its caller until the next sweep
                assert is_good(await house.ask(token, X_Request_Id="2"))
            assert house.site.fetched == ["/keys", "/keys"]
            # One that names a key which nobody knows may be of a new key: it cannot be told now.
            assert_unavailable(await house.ask(sign(claims(exp=START_S + 200_000), kid="new")), 30)
            house.clock.s += 100_000  # there is an end to that
            assert_unavailable(await house.ask(known, X_Request_Id="3"), 30)

    run(scenario())


def test_an_issuer_that_hangs_is_waited_for_by_its_own_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits().identify_s > keys_module.FETCH_S  # so that it is told which of the two it was
    monkeypatch.setattr(keys_module, "FETCH_S", 0.3)

    async def scenario() -> None:
        async with stand() as house:
            house.site.hanging.add("/other")
            waiting = [asyncio.create_task(house.ask(sign(claims(iss=OTHER, jti=str(n))))) for n in range(20)]
            begun_s = time.monotonic()
            for _ in range(20):
                assert is_good(await house.ask(sign(claims(jti=secrets.token_hex()))))
                assert is_good(await house.ask(NEIGHBOUR.key))
            assert time.monotonic() - begun_s < 0.3 and not any(task.done() for task in waiting)
            for answer in await asyncio.gather(*waiting):
                assert_unavailable(answer, 30)
            assert house.site.fetched.count("/other") == 1

    run(scenario())


def test_who_cannot_be_told_in_time_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's own deadline, whatever it is that takes so long; what stands behind it on the connection goes on."""

    async def scenario() -> None:
        async with stand(identify_s=0.2) as house, await house.connect() as browser:
            house.site.hanging.add("/other")
            first = asyncio.create_task(ask(browser, f"Authorization: Bearer {sign(claims(iss=OTHER))}"))
            await asyncio.sleep(0.05)
            raw = request_bytes(NEIGHBOUR.key)
            browser.write(raw)  # before the first one is answered
            answer = await first
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, 5030, "1")
            assert is_good(await browser.read())

    run(scenario())


def test_what_stands_behind_a_request_that_waits_is_answered_after_it() -> None:
    """Pipelined: good and bad new tokens in turn, all of which wait for keys or a verification."""

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            tokens = [sign(claims(jti=str(n)), key=STRANGER if n % 2 else None) for n in range(10)]
            browser.write(b"".join(map(request_bytes, tokens)))
            assert [(await browser.read()).status for _ in tokens] == [200, 401] * 5

    run(scenario())


def request_bytes(token: str, **more: str) -> bytes:
    message, named = modern("tools/call", {"name": "echo", "arguments": {"text": "hello"}}, id="one")
    named |= {"Host": "localhost", "Content_Type": "application/json"}
    named |= {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}"}
    return request("POST", "/mcp", json.dumps(message).encode(), **named, **more)


# ---------------------------------------------------------------- floods


def test_a_flood_of_unknown_keys_is_one_fetch_in_thirty_seconds() -> None:
    async def scenario() -> None:
        async with stand() as house:

            async def flood(count: int) -> None:
                async with await house.connect() as browser:
                    for _ in range(count):
                        token = forge({"alg": "ES256", "kid": secrets.token_hex(8)}, claims(), b"s" * 64)
                        answer = await ask(browser, f"Authorization: Bearer {token}")
                        assert_refused(answer, Bad("", list, UNKNOWN_KEY), "/mcp")

            await asyncio.gather(*(flood(50) for _ in range(20)))
            assert house.site.fetched == ["/keys"]
            assert is_good(await house.ask(sign()))
            house.clock.s += 29.9
            await flood(20)
            assert house.site.fetched == ["/keys"]
            house.clock.s += 0.2
            await asyncio.gather(*(flood(10) for _ in range(10)))
            assert house.site.fetched == ["/keys"] * 2

    run(scenario())


# A server of its own process, so that only it is measured.
SERVED = """
import msgspec
from mcpfast import MCPServer
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore

ours = Issuer(issuer={issuer!r}, audiences=({resource!r},), jwks_url={keys!r}, tenant="acme", subject_prefix="id:")
other = Issuer(issuer={other!r}, audiences=({resource!r},), jwks_url={hanging!r}, tenant="acme", subject_prefix="other:")
store = MemoryStore([TenantRecord("acme")], keys=[msgspec.convert({record!r}, KeyRecord)])
server = MCPServer("tokens", tenancy=Tenancy(store, issuers=[ours, other]))

@server.tool
async def echo(text: str) -> str:
    return text
"""


class _Keys(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = jwks()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def live_stand(tmp_path: Path) -> Iterator[int]:
    """The port of a server in its own process. The keys of OTHER are on a host that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = ThreadingHTTPServer(("127.0.0.1", 0), _Keys)
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        file = tmp_path / "served.py"
        file.write_text(
            SERVED.format(
                issuer=ISSUER,
                other=OTHER,
                resource=RESOURCE,
                keys=f"http://127.0.0.1:{site.server_port}/keys",
                hanging=f"http://127.0.0.1:{silent.getsockname()[1]}/keys",
                record=msgspec.to_builtins(NEIGHBOUR.record),
            )
        )
        try:
            with live_server(str(file)) as (_, address):
                yield int(address.rpartition(":")[2].partition("/")[0])
        finally:
            site.shutdown()
            thread.join()
            site.server_close()


# Another process that sends bad tokens, so that it does not slow down who measures: over each of its connections a request when
# the one before is answered. It says when all have begun, and at the end the statuses that came.
FLOOD = """
import asyncio, pickle, sys

port, lanes = pickle.load(sys.stdin.buffer)

async def begin(requests):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(requests[0])
    return reader, writer, requests[1:]

async def go_on(reader, writer, requests):
    statuses = []
    for raw in [*requests, b""]:
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        statuses.append(int(head.split(b" ")[1]))
        writer.write(raw)
    return statuses

async def main():
    begun = [await begin(requests) for requests in lanes]
    print("begun", flush=True)
    for statuses in await asyncio.gather(*(go_on(*one) for one in begun)):
        print(*statuses)

asyncio.run(main())
"""


@contextmanager
def flooding(port: int, lanes: list[list[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", FLOOD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(pickle.dumps((port, lanes)))
            process.stdin.close()
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.kill()


class Neighbour:
    """One connection that is written to and waited for."""

    def __init__(self, port: int, raw: bytes) -> None:
        self.raw = raw
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.socket.makefile("rb")

    def call(self) -> float:
        """How many milliseconds the call took, which is good."""
        begun_s = time.perf_counter()
        self.socket.sendall(self.raw)
        assert self.answers.readline().startswith(b"HTTP/1.1 200 ")
        length = 0
        while line := self.answers.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        assert b"hello" in self.answers.read(length)
        return (time.perf_counter() - begun_s) * 1_000

    def close(self) -> None:
        self.answers.close()
        self.socket.close()


def current(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return claims(iat=now - 10, exp=now + 600, **changes)


def bad_signatures() -> bytes:
    return request_bytes(
        forge({"alg": "ES256", "kid": "ec"}, current(jti=secrets.token_hex(8)), secrets.token_bytes(64))
    )


def unknown_keys() -> bytes:
    return request_bytes(forge({"alg": "ES256", "kid": secrets.token_hex(8)}, current(), b"s" * 64))


def expired() -> bytes:
    return request_bytes(
        forge({"alg": "ES256", "kid": "ec"}, claims(exp=1, jti=secrets.token_hex(8)), b"s" * 64)
    )


def of_the_silent() -> bytes:
    return request_bytes(
        forge({"alg": "ES256", "kid": "ec"}, current(iss=OTHER, jti=secrets.token_hex(8)), b"s" * 64)
    )


LANES, ROUNDS = 16, 100


@pytest.mark.plain_build
@pytest.mark.parametrize("flood", [bad_signatures, unknown_keys, expired, of_the_silent])
def test_bad_tokens_slow_no_neighbour_down(tmp_path: Path, flood: Callable[[], bytes]) -> None:
    """One with an API key, and one with a token that is known, while a flood is on. Other work on the machine may spoil a run:
    the best of three counts."""
    with live_stand(tmp_path) as port, contextlib.ExitStack() as open_:
        neighbours = [
            Neighbour(port, request_bytes(credential)) for credential in (NEIGHBOUR.key, sign(current()))
        ]
        for neighbour in neighbours:
            open_.callback(neighbour.close)
            for _ in range(20):
                neighbour.call()
        runs: list[tuple[float, float]] = []
        while len(runs) < 3 and not any(p99_ms < 50 and median_ms < 10 for median_ms, p99_ms in runs):
            runs.append(_measured(neighbours, port, flood))
        assert min(median_ms for median_ms, _ in runs) < 10 and min(p99_ms for _, p99_ms in runs) < 50, runs


def _measured(neighbours: list[Neighbour], port: int, flood: Callable[[], bytes]) -> tuple[float, float]:
    """Median and p99, in milliseconds, of the neighbours' calls while a flood is on."""
    silent = flood is of_the_silent
    lanes = [[flood() for _ in range(1 if silent else ROUNDS)] for _ in range(200 if silent else LANES)]
    took_ms: list[float] = []
    with flooding(port, lanes) as process:
        assert process.stdout is not None
        while process.poll() is None and len(took_ms) < (500 if silent else 5_000):
            took_ms += [neighbour.call() for neighbour in neighbours]
        if silent:  # nobody has been answered, and all of them are waiting still
            assert process.poll() is None
        else:
            told = process.stdout.read().split()
            assert told == [b"401"] * (LANES * ROUNDS)
    return statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]


# ---------------------------------------------------------------- what is remembered, and what is shown


def test_a_token_is_verified_once_however_often_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times over the same connection with the same head, with other heads, and over other connections."""
    verified: list[str] = []
    verify = signatures.verify

    def counting(token: Any, key: Any) -> bool:
        verified.append(key.id)
        return verify(token, key)

    monkeypatch.setattr(signatures, "verify", counting)

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            token = sign()
            line = f"Authorization: Bearer {token}"
            for number in range(500):
                assert is_good(await ask(browser, line))
                assert is_good(await ask(browser, line, X_Request_Id=str(number)))
            for path in PATHS * 5:
                assert is_good(await house.ask(token, path=path))
            assert verified == ["ec"]
            assert is_good(await house.ask(sign(claims(jti="another"))))
            assert verified == ["ec"] * 2

    run(scenario())


def all_of(root: object, nodes_max: int = 20_000) -> Iterator[str]:
    """Everything that a handler can get at from an object by public names, keys and items, as text."""
    seen: set[int] = set()
    kept: list[object] = [root]  # so that no id comes twice
    contexts = contextvars.copy_context()
    front: list[tuple[object, int]] = [(root, 0), *((value, 1) for value in contexts.values())]
    while front and len(seen) < nodes_max:
        one, depth = front.pop(0)
        if id(one) in seen or isinstance(one, ModuleType | type):
            continue
        seen.add(id(one))
        kept.append(one)
        yield repr(one)
        if isinstance(one, str | bytes | int | float | None) or depth == 6:
            continue
        if isinstance(one, dict):
            front += [(part, depth + 1) for pair in list(one.items()) for part in pair]
        elif isinstance(one, list | tuple | set | frozenset):
            front += [(part, depth + 1) for part in list(one)]
        front += [(value, depth + 1) for value in public_of(one)]


def public_of(one: object) -> Iterator[object]:
    for name in dir(one):
        if name.startswith("_"):
            continue
        try:
            value = getattr(one, name)
        except Exception:  # a property that has nothing to say here
            continue
        if not callable(value):
            yield value


@pytest.mark.parametrize("era", ERAS)
def test_a_handler_never_sees_the_token(era: str) -> None:
    """What it does not have it cannot pass on (AU4): no part of it, in nothing that its context offers."""

    async def scenario() -> None:
        async with stand() as house, await house.connect() as browser:
            token = sign()
            line = f"Authorization: Bearer {token}"
            if era == ERAS[0]:
                answer = await ask(browser, line, tool="look")
            else:
                session = await initialized_with(browser, token)
                call = rpc(
                    "tools/call", {"name": "look", "arguments": {}, "_meta": {"mark": "a mark"}}, id="one"
                )
                named = {"Host": "localhost", "Content_Type": "application/json", "Mcp_Session_Id": session}
                named |= {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}"}
                browser.write(request("POST", "/mcp", json.dumps(call).encode(), **named))
                answer = await browser.read()
            assert answer.messages[0]["result"]["content"][0]["text"] == "id:alice", answer.body
            everything = "\n".join(house.seen)
            # The walk gets to what is there: who asks, for which tenant, and what the request says.
            assert "id:alice" in everything and "acme" in everything and "tokens" in everything
            assert "clientCapabilities" in everything if era == ERAS[0] else "a mark" in everything
            for part in token.split("."):
                assert part not in everything
            assert NEIGHBOUR.key not in everything

    run(scenario())
