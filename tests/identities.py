"""What the tests of identities share: a clock, tenants, an issuer that signs, and what a request shows."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from mcpfast.tenancy.fetch import Fetched
from mcpfast.tenancy.identity import Member, TenantRecord
from mcpfast.tenancy.resolvers import Evidence

ISSUER = "https://id.example"
RESOURCE = "https://mcp.example/mcp"
START_S = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.s = START_S

    def __call__(self) -> float:
        return self.s


class Tenants:
    """A registry: two organizations and a person, who is a member of the first."""

    def __init__(self) -> None:
        acme = TenantRecord(
            "acme", members={"alice": Member(scopes=frozenset({"read"}), roles=frozenset({"buyer"}))}
        )
        self.records = {
            "acme": acme,
            "globex": TenantRecord("globex"),
            "alice": TenantRecord("alice", kind="personal"),
        }

    def find(self, tenant_id: str) -> TenantRecord | None:
        return self.records.get(tenant_id)


KEYS: dict[str, Any] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})  # of nobody we know, under a known id


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys or KEYS.values()]}).encode()


class Site:
    """What the issuer has on its web site. `down` makes every fetch fail."""

    def __init__(self, body: bytes = b"", **headers: str) -> None:
        self.answer = Fetched(200, headers, body or jwks())
        self.down = False
        self.fetched: list[str] = []
        self.gate: asyncio.Event | None = None  # a fetch waits for it

    async def __call__(self, url: str) -> Fetched:
        self.fetched.append(url)
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise OSError("no route to host")
        return self.answer


class _Anything(jws.JWSRegistry):
    """Signs whatever is wanted, also what nobody should accept."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        pass


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token of alice for acme; None takes one away."""
    usual = {
        "iss": ISSUER,
        "aud": RESOURCE,
        "sub": "alice",
        "org": "acme",
        "scope": "read write",
        "iat": int(START_S) - 10,
        "exp": int(START_S) + 3_600,
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def sign(
    payload: dict[str, Any] | bytes | None = None,
    *,
    algorithm: str = "ES256",
    key: Any = None,
    **header: Any,
) -> str:
    key = key or KEYS[algorithm]
    said = {"alg": algorithm, "kid": key.kid, **header}
    said = {name: value for name, value in said.items() if value is not None}
    body = payload if isinstance(payload, bytes) else json.dumps(payload or claims()).encode()
    return jws.serialize_compact(said, body, key, registry=_Anything())


def forge(header: Any, payload: Any, signature: bytes = b"") -> str:
    """A token by hand, of whatever is wanted."""

    def part(value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return urlsafe_b64encode(data).rstrip(b"=").decode()

    return f"{part(header)}.{part(payload)}.{part(signature)}"


def secret_key(secret: bytes) -> OctKey:
    return OctKey.import_key(secret)


def bearer(token: str, **more: Any) -> Evidence:
    return headers(authorization=f"Bearer {token}", **more)


def headers(authorization: str | None = None, x_api_key: str | None = None, **more: Any) -> Evidence:
    known = {"authorization": authorization, "x-api-key": x_api_key}
    return Evidence(transport="http", header=known.get, **more)


async def serving(handler: Any) -> tuple[web.AppRunner, str]:
    """A real HTTP server on loopback: what ends it, and its origin."""
    app = web.Application()
    app.router.add_get("/{name:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)
