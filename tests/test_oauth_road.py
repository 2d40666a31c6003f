"""The way of a client that has nothing: 401, where tokens come from, registration, consent, token, call, and one scope more.

The official Python client (`mcp` 2.3.0) goes it, against a real authorization server (Authlib) and a real server of ours.
"""

from __future__ import annotations

import json
import socket
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from mcpfast import MCPServer
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests.oauth_server import OAuthServer, Person, authorization_server
from tests.test_http import serving
from tests.wire import run

WELL_KNOWN = "/.well-known/oauth-protected-resource"
AUTHORIZATION_SERVER = "/.well-known/oauth-authorization-server/as"
ERAS = {"auto": "2026-07-28", "legacy": "2025-11-25"}


class Kept:
    """What a client remembers: its registration and its token."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info

    def claims(self) -> dict[str, Any]:
        """Of the token, as its issuer wrote them."""
        assert self.tokens is not None
        part = self.tokens.access_token.split(".")[1]
        claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return claims


class Road:
    """A client and its browser: what was asked for on the way, and how it was answered."""

    def __init__(self, url: str, kept: Kept) -> None:
        self.url, self.kept = url, kept
        self.asked: list[tuple[str, str, int]] = []
        self.challenges: list[str] = []
        self.consents: list[dict[str, str]] = []  # what the browser was sent to ask for
        self._came_back: dict[str, str] = {}

    def provider(self) -> OAuthClientProvider:
        metadata = OAuthClientMetadata(
            client_name="a client that was never here",
            redirect_uris=["http://127.0.0.1:8765/callback"],
            grant_types=["authorization_code"],
            token_endpoint_auth_method="none",
        )
        return OAuthClientProvider(self.url, metadata, self.kept, self._browse, self._callback)

    async def _browse(self, url: str) -> None:
        """The browser of a person who is signed in and agrees; the redirect back is read, and not followed."""
        self.consents.append(_query(url))
        async with httpx2.AsyncClient() as browser:
            answer = await browser.get(url)
        assert answer.status_code == 302, answer.text
        self._came_back = _query(answer.headers["location"])

    async def _callback(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**self._came_back)

    async def saw(self, response: httpx2.Response) -> None:
        self.asked.append((response.request.method, response.request.url.path, response.status_code))
        if "www-authenticate" in response.headers:
            self.challenges.append(response.headers["www-authenticate"])

    @asynccontextmanager
    async def client(self, mode: str) -> AsyncIterator[Client]:
        hooks = {"response": [self.saw]}
        async with httpx2.AsyncClient(auth=self.provider(), event_hooks=hooks, timeout=10) as http:
            async with Client(streamable_http_client(self.url, http_client=http), mode=mode) as client:
                yield client


def _query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


class House(NamedTuple):
    """A server of ours whose tokens `authorization` gives."""

    origin: str
    authorization: OAuthServer


@asynccontextmanager
async def house(algorithm: str = "RS256") -> AsyncIterator[House]:
    """Two tenants, of which each may read and write orders. The tokens of `/mcp` are for it; each tenant's own for its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    async with authorization_server(algorithm) as authorization:
        authorization.resources = {f"{origin}{path}" for path in ("/mcp", "/t/acme/mcp", "/t/globex/mcp")}
        issuer = Issuer(
            issuer=authorization.issuer,
            audiences=(f"{origin}/mcp", f"{origin}/t/{{tenant}}/mcp"),
            tenant_claim="tenant",
            tenants=("acme", "globex"),
        )
        granted = frozenset({"orders:read", "orders:write"})
        store = MemoryStore([TenantRecord(id, scopes=granted) for id in ("acme", "globex")])
        tenancy = Tenancy(store, issuers=[issuer], scopes_asked=["orders:read"])
        async with serving(orders(tenancy), f"http://127.0.0.1:{port}"):
            yield House(origin, authorization)


def orders(tenancy: Tenancy) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("orders", tenancy=tenancy)

    @server.tool
    async def hello() -> str:
        return "hello"

    @server.tool(scopes={"orders:read"})
    async def list_orders() -> str:
        return "none yet"

    @server.tool(scopes={"orders:write"})
    async def order(what: str) -> str:
        return f"ordered {what}"

    return server


def text(result: Any) -> str:
    assert not result.is_error, result
    said: str = result.content[0].text
    return said


@pytest.mark.parametrize("path", ["/mcp", "/t/acme/mcp"])
@pytest.mark.parametrize(("mode", "algorithm"), [("auto", "RS256"), ("legacy", "ES256")])
def test_from_nothing_to_a_call_and_one_scope_further(path: str, mode: str, algorithm: str) -> None:
    async def scenario() -> None:
        async with house(algorithm) as (origin, authorization):
            road = Road(origin + path, kept := Kept())
            async with road.client(mode) as client:
                assert client.protocol_version == ERAS[mode]
                # The first request of all was refused, and then went the whole road.
                assert road.asked[:5] == [
                    ("POST", path, 401),
                    ("GET", WELL_KNOWN + path, 200),
                    ("GET", AUTHORIZATION_SERVER, 200),
                    ("POST", "/as/register", 201),
                    ("POST", "/as/token", 200),
                ]
                where = f'resource_metadata="{origin}{WELL_KNOWN}{path}"'
                assert road.challenges == [f'Bearer {where}, scope="orders:read"']
                assert authorization.visited.count("/as/jwks") == 1
                claims = kept.claims()
                assert claims["aud"] == origin + path  # RFC 8707: what was asked for, and nothing else
                assert (claims["tenant"], claims["sub"], claims["scope"]) == ("acme", "alice", "orders:read")

                listed = {tool.name for tool in (await client.list_tools()).tools}
                assert listed == {"hello", "list_orders"}  # what a step up would open is not listed
                assert text(await client.call_tool("list_orders", {})) == "none yet"
                assert road.asked.count(("POST", "/as/token", 200)) == 1

                # A tool that needs more: 403 says what, and the client asks its person for that and what it has.
                assert text(await client.call_tool("order", {"what": "tea"})) == "ordered tea"
                refused = road.asked.index(("POST", path, 403))
                assert road.asked[refused + 1 : refused + 3] == [
                    ("POST", "/as/token", 200),
                    ("POST", path, 200),
                ]
                why = 'error_description="This needs the scope orders:write"'
                needed = f'Bearer error="insufficient_scope", scope="orders:write", {where}, {why}'
                assert road.challenges[1:] == [needed]
                assert [consent["scope"] for consent in road.consents] == [
                    "orders:read",
                    "orders:read orders:write",
                ]
                assert {consent["resource"] for consent in road.consents} == {origin + path}
                assert len((await client.list_tools()).tools) == 3
                assert text(await client.call_tool("order", {"what": "more"})) == "ordered more"
                assert len(road.consents) == 2

    run(scenario())


def test_a_token_of_one_tenants_resource_opens_no_other() -> None:
    """A client that brings the token which it got elsewhere is told so, and where to get its own."""

    async def scenario() -> None:
        async with house() as (origin, authorization):
            road = Road(f"{origin}/t/acme/mcp", kept := Kept())
            async with road.client("auto") as client:
                assert text(await client.call_tool("hello", {})) == "hello"
            assert kept.tokens is not None
            bearer = {"Authorization": f"Bearer {kept.tokens.access_token}"}
            # `/mcp` names no tenant: then the claim does, and the token's own resource is that tenant's.
            status = {"/t/acme/mcp": 200, "/mcp": 200, "/t/globex/mcp": 401, "/t/nobody/mcp": 401}
            async with httpx2.AsyncClient(headers=bearer) as http:
                for path, expected in status.items():
                    async with http.stream("POST", origin + path, **_discover()) as answer:
                        await answer.aread()
                        assert (path, answer.status_code) == (path, expected), answer.text

            # Whoever is signed in for globex gets there with a token of its own, on the same road.
            authorization.signed_in = Person("gerda", "globex")
            other = Road(f"{origin}/t/globex/mcp", Kept())
            async with other.client("auto") as client:
                assert text(await client.call_tool("list_orders", {})) == "none yet"
            assert other.kept.claims()["aud"] == f"{origin}/t/globex/mcp"

    run(scenario())


def test_who_may_act_for_another_tenant_only_gets_no_further_by_asking_again() -> None:
    """The token is good, and for another tenant than the path's: 403 without a challenge, since no other token would help."""

    async def scenario() -> None:
        async with house() as (origin, authorization):
            authorization.signed_in = Person("gerda", "globex")
            road = Road(f"{origin}/t/acme/mcp", Kept())
            with pytest.raises(BaseExceptionGroup) as failed:
                async with road.client("auto"):
                    raise AssertionError("let in")
            assert failed.group_contains(MCPError), failed.value
            assert len(road.consents) == 1

    run(scenario())


@pytest.mark.parametrize(
    "path", ["", "/mcp", "/t/acme/mcp", "/t/globex/mcp", "/t/there-is-no-such-tenant/mcp"]
)
def test_each_path_has_metadata_of_its_own(path: str) -> None:
    async def scenario() -> None:
        async with house() as (origin, authorization), httpx2.AsyncClient() as http:
            answer = await http.get(f"{origin}{WELL_KNOWN}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.json() == {
                "resource": f"{origin}{path or '/mcp'}",
                "authorization_servers": [authorization.issuer],
                "bearer_methods_supported": ["header"],
                "scopes_supported": ["orders:read"],
            }

    run(scenario())


def test_the_authorization_server_of_these_tests_refuses_what_it_should() -> None:
    """Or the road above would prove little: no unknown resource, no other one for the code, no code twice or without its proof."""

    async def scenario() -> None:
        async with house() as (origin, authorization), httpx2.AsyncClient() as http:
            issuer = authorization.issuer
            redirect = "http://127.0.0.1:8765/callback"
            client = {"redirect_uris": [redirect], "token_endpoint_auth_method": "none"}
            registered = (await http.post(f"{issuer}/register", json=client)).json()
            # of the verifier "v" * 43
            asked = {
                "response_type": "code",
                "client_id": registered["client_id"],
                "redirect_uri": redirect,
                "resource": f"{origin}/mcp",
                "scope": "orders:read",
                "state": "s",
                "code_challenge": "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM",
                "code_challenge_method": "S256",
            }

            async def consent(**changes: str) -> dict[str, str]:
                answer = await http.get(f"{issuer}/authorize", params={**asked, **changes})
                return _query(answer.headers["location"])

            async def token(code: str, **changes: str) -> tuple[int, str | None]:
                form = {
                    "grant_type": "authorization_code",
                    "code": code,
                    "redirect_uri": redirect,
                    "client_id": registered["client_id"],
                    "resource": f"{origin}/mcp",
                    "code_verifier": "v" * 43,
                }
                answer = await http.post(f"{issuer}/token", data={**form, **changes})
                return answer.status_code, answer.json().get("error")

            assert (await consent(resource="https://elsewhere.example/mcp"))["error"] == "invalid_target"
            code = (await consent())["code"]
            assert await token(code, resource=f"{origin}/t/acme/mcp") == (400, "invalid_target")
            assert await token(code, code_verifier="w" * 43) == (400, "invalid_grant")
            assert await token(code) == (200, None)
            assert await token(code) == (400, "invalid_grant")

    run(scenario())


def _discover() -> dict[str, Any]:
    """A request of 2026-07-28 by hand, as httpx takes it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {
        "json": {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}},
        "headers": {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "server/discover",
        },
    }
