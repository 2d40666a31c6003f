"""A server with two organizations over HTTP, and who calls it. No tests here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from mcpfast import Context, Limits, MCPServer
from mcpfast.server.host import Host
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.identity import Member, Quota, TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.resolvers import Resolver
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests.test_http import Answer, Browser, modern, rpc

ISSUER = Issuer(issuer="https://id.example", audiences=("x",), tenant="acme", secret=b"s" * 32)


class Tenanted:
    """acme, with alice, who may write, and bob; globex, with eve, who may be asked for more than she has."""

    def __init__(
        self,
        *,
        quota: Quota | None = None,
        issuers: Iterable[Issuer] = (ISSUER,),
        resolvers: Iterable[Resolver] = (),
        **limits: Any,
    ) -> None:
        granted = frozenset({"write"})
        members = {"alice": Member(granted), "bob": Member()}
        made = [
            new_key("acme", "alice", scopes=granted, now_s=time.time()),
            new_key("acme", "bob", now_s=time.time()),
            new_key("globex", "eve", now_s=time.time()),
        ]
        records = [
            TenantRecord("acme", scopes=granted, quota=quota, members=members),
            TenantRecord("globex", scopes=granted),
        ]
        self.key_ids = {key.record.principal: key.record.id for key in made}
        self.alice, self.bob, self.eve = ({"Authorization": f"Bearer {key.key}"} for key in made)
        self.limits = limits
        store = MemoryStore(records, keys=[key.record for key in made])
        self.tenancy = Tenancy(
            store, issuers=issuers, resolvers=resolvers, scopes_asked=["write"], drain_s=0.2
        )
        self.started = asyncio.Event()
        self.ended: list[str] = []

    def server(self) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer("tenants", limits=Limits(**self.limits), tenancy=self.tenancy)

        @server.tool
        async def who(ctx: Context) -> str:
            return f"{ctx.tenant.id}/{ctx.principal.id}"

        @server.tool
        async def echo(text: str) -> str:
            return text

        @server.tool(scopes={"write"})
        async def write(ctx: Context) -> str:
            await ctx.report_progress(1, 1)
            return "written"

        @server.tool
        async def wait() -> str:
            self.started.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            return "waited"

        @server.resource("note://one")
        async def one() -> str:
            return "one"

        @server.route("GET", "/health")
        async def health() -> str:
            return "well"

        return server


def registry_of(host: Host) -> Registry:
    tenants = host.dispatcher.tenants
    assert tenants is not None
    return tenants.callers.registry


async def change(host: Host, tenant: str = "acme", **changes: Any) -> None:
    """Changes a tenant while it is served."""
    registry = registry_of(host)
    record = registry.find(tenant)
    assert record is not None
    await registry.put(msgspec.structs.replace(record, **changes))


async def call(browser: Browser, name: str = "who", id: Any = 1, **headers: str) -> Answer:
    """A call as 2026-07-28 has it."""
    message, named = modern("tools/call", {"name": name, "arguments": {}}, id)
    return await browser.ask(message, **{**named, **headers})


def text_of(message: dict[str, Any]) -> str:
    text: str = message["result"]["content"][0]["text"]
    return text


async def who(browser: Browser, **headers: str) -> str | int:
    """Whom the server takes for the caller; the status where it takes nobody."""
    answer = await call(browser, **headers)
    return text_of(answer.messages[0]) if answer.status == 200 else answer.status


def initialize(revision: str = "2025-06-18") -> dict[str, Any]:
    info = {"name": "x", "version": "1"}
    return rpc("initialize", {"protocolVersion": revision, "capabilities": {}, "clientInfo": info})


async def session(browser: Browser, revision: str = "2025-06-18", **headers: str) -> dict[str, str]:
    """The headers of a new legacy session, with who opened it."""
    answer = await browser.ask(initialize(revision), **headers)
    assert answer.status == 200, answer.body
    named = {**headers, "MCP_Protocol_Version": revision}
    if "mcp-session-id" in answer.headers:
        named["Mcp_Session_Id"] = answer.headers["mcp-session-id"]
    told = await browser.ask({"jsonrpc": "2.0", "method": "notifications/initialized"}, **named)
    assert told.status == 202
    return named
