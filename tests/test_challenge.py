"""What a client is told that is not let in: the exact status and headers, and a JSON-RPC error that says the same."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.errors import MCPError, RegistrationError
from mcpfast.tenancy.challenge import ProtectedResource, canonical_resource
from mcpfast.tenancy.denied import (
    Denied,
    Forbidden,
    InsufficientScope,
    InvalidToken,
    MalformedRequest,
    Unauthenticated,
    Unavailable,
)

WHERE = 'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/t/acme/mcp"'


def resource(*scopes: str, url: str = "https://mcp.example/t/acme/mcp") -> ProtectedResource:
    return ProtectedResource(url, ["https://id.example"], scopes)


ANSWERS = [
    (Unauthenticated("This needs credentials"), 401, f"Bearer {WHERE}", None),
    (
        Unauthenticated("This needs credentials", scopes=["b", "a"]),
        401,
        f'Bearer {WHERE}, scope="a b"',
        {"scopes": ["a", "b"]},
    ),
    (
        InvalidToken("The token has expired"),
        401,
        f'Bearer {WHERE}, error="invalid_token", error_description="The token has expired"',
        {"error": "invalid_token"},
    ),
    (
        InsufficientScope(["orders:write", "orders:read"]),
        403,
        (
            f'Bearer error="insufficient_scope", scope="orders:read orders:write", {WHERE}, '
            'error_description="This needs the scope orders:read orders:write"'
        ),
        {"error": "insufficient_scope", "scopes": ["orders:read", "orders:write"]},
    ),
    (
        MalformedRequest("Two tokens"),
        400,
        'Bearer error="invalid_request", error_description="Two tokens"',
        {"error": "invalid_request"},
    ),
    (Forbidden("Not yours"), 403, None, None),
    (Unavailable("Later", retry_after_s=1.2), 503, None, {"retryAfterMs": 1200}),
]


@pytest.mark.parametrize(("denied", "status", "challenge", "data"), ANSWERS)
def test_every_refusal_has_its_status_its_challenge_and_its_json_rpc_error(
    denied: Denied, status: int, challenge: str | None, data: object
) -> None:
    answer = resource().answer(denied)
    assert answer.status == status
    expected = [] if challenge is None else [("WWW-Authenticate", challenge)]
    if status == 503:
        expected.append(("Retry-After", "2"))  # whole seconds, never too early
    assert answer.headers == tuple(expected)
    assert isinstance(denied, MCPError)
    assert (denied.code, denied.data) == (status * 10, data)


def test_a_client_without_a_token_is_told_what_to_ask_for_at_first() -> None:
    answer = resource("read").answer(Unauthenticated("This needs credentials"))
    assert answer.headers == (("WWW-Authenticate", f'Bearer {WHERE}, scope="read"'),)


def test_the_metadata_of_a_tenants_own_path() -> None:
    acme = resource("read", "offline_access", url="HTTPS://MCP.Example:443/t/acme/mcp/")
    assert acme.metadata_path == "/.well-known/oauth-protected-resource/t/acme/mcp"
    assert acme.metadata_url == "https://mcp.example/.well-known/oauth-protected-resource/t/acme/mcp"
    assert json.loads(acme.metadata()) == {
        "resource": "https://mcp.example/t/acme/mcp",
        "authorization_servers": ["https://id.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["read"],  # and never offline_access
    }
    root = resource(url="https://mcp.example/")
    assert root.metadata_path == "/.well-known/oauth-protected-resource"
    assert "scopes_supported" not in json.loads(root.metadata())


def test_offline_access_is_asked_for_nowhere() -> None:
    answer = resource().answer(InsufficientScope(["write", "offline_access"]))
    assert 'scope="write"' in dict(answer.headers)["WWW-Authenticate"]


@given(st.text(), st.lists(st.text()))
def test_nothing_in_a_message_or_scope_gets_out_of_its_quotes(message: str, scopes: list[str]) -> None:
    for denied in (
        InvalidToken(message, scopes=scopes),
        InsufficientScope(scopes),
        MalformedRequest(message),
    ):
        for name, value in resource().answer(denied).headers:
            assert name == "WWW-Authenticate"
            assert value.isascii() and value.isprintable()
            assert re.fullmatch(r'Bearer [a-z_]+="[^"\\]*"(, [a-z_]+="[^"\\]*")*', value)


@pytest.mark.parametrize(
    "url", ["mcp.example/mcp", "ftp://mcp.example", 'https://a/"x', "https://a/\r\nB: c", "https:///x"]
)
def test_a_resource_that_no_header_can_name_is_refused(url: str) -> None:
    with pytest.raises(RegistrationError):
        resource(url=url)


def test_a_resource_without_an_authorization_server_is_refused() -> None:
    with pytest.raises(RegistrationError, match="authorization server"):
        ProtectedResource("https://mcp.example/mcp", [])


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://MCP.Example/T/Acme", "https://mcp.example/T/Acme"),
        ("https://mcp.example:443/mcp/", "https://mcp.example/mcp"),
        ("http://localhost:80", "http://localhost"),
        ("https://mcp.example:8443/mcp", "https://mcp.example:8443/mcp"),
        ("api://Mixed", "api://mixed"),
        ("Some-Client-Id", "Some-Client-Id"),
    ],
)
def test_one_resource_is_compared_in_one_form(url: str, canonical: str) -> None:
    assert canonical_resource(url) == canonical
    assert canonical_resource(canonical) == canonical


@given(st.text(alphabet=string.printable))
def test_the_canonical_form_is_its_own(url: str) -> None:
    assert canonical_resource(canonical_resource(url)) == canonical_resource(url)
