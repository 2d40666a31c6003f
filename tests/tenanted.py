"""A served server with tenants, and wires to it: who is at the other end of each the name of its transport says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from mcpfast import MCPServer
from mcpfast._quota import Gate, Meter
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.server.tenants import Tenants
from mcpfast.tenancy.identity import Claim, Principal, TenantRecord
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.resolvers import Evidence
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from mcpfast.transports.stream import Stream
from tests.wire import MODERN, Wire

LEGACY = "2025-11-25"


class Named:
    """The resolver of wires: "test!acme/bob/orders:read,orders:write" is bob of acme, with these scopes.

    `expires_s` is by principal; `asked` counts.
    """

    def __init__(self) -> None:
        self.expires_s: dict[str, float] = {}
        self.asked = 0

    async def resolve(self, evidence: Evidence) -> Claim | None:
        kind, _, who = evidence.transport.partition("!")
        if kind != "test":
            return None
        self.asked += 1
        tenant, principal, scopes = (*who.split("/"), "", "")[:3]
        return Claim(
            Principal(
                principal or "bob",
                scopes=frozenset(filter(None, scopes.split(","))),
                expires_s=self.expires_s.get(principal, 0.0),
                issuer="test",
            ),
            tenant,
        )


def tenancy(*records: TenantRecord, plans: Any = None, **options: Any) -> Tenancy:
    options.setdefault("resolvers", [Named()])
    return Tenancy(MemoryStore(records, plans), **options)


class Served:
    """One host of a server, and the wires to it."""

    def __init__(self, host: Host, stack: AsyncExitStack) -> None:
        self.host = host
        self._stack = stack
        self.streams: list[Stream] = []

    @property
    def tenants(self) -> Tenants:
        tenants = self.host.dispatcher.tenants
        assert tenants is not None
        return tenants

    @property
    def registry(self) -> Registry:
        return self.tenants.callers.registry

    @property
    def gate(self) -> Gate:
        gate = self.host.engine.gate
        assert gate is not None
        return gate

    def meter(self, tenant: str = "acme") -> Meter:
        found = self.registry.tenant(tenant)
        assert found is not None
        meter: Meter = found.meter.tenant
        return meter

    async def wire(
        self, who: str = "acme/bob", revision: str = LEGACY, *, open_session: bool = True, **capabilities: Any
    ) -> Wire:
        """A connection of a principal, opened; it ends with the host, or by `close`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = ours.detach()
        stream = Stream(
            self.host,
            fd,
            fd,
            is_socket=True,
            peer=Peer(f"test!{who}"),
            grace_s=self.host.server.limits.eof_grace_s,
            on_closed=lambda _: None,
        )
        self._stack.callback(stream.close, "the client is gone")
        stream.channel.start_reading()
        reader, writer = await asyncio.open_connection(sock=theirs, limit=1 << 24)
        self._stack.callback(writer.close)
        wire = Wire(reader, writer, revision)
        wire.capabilities = capabilities
        if revision == MODERN:  # which has no handshake, and what is asked for is counted
            wire.session = MODERN
        elif open_session:
            await wire.initialize(capabilities)
        self.streams.append(stream)
        return wire

    def close(self, wire: Wire) -> None:
        wire._writer.close()

    async def change(self, id: str = "acme", **changes: Any) -> None:
        """The tenant's record, from now on with these changes."""
        import msgspec

        record = self.registry.find(id)
        assert record is not None
        await self.registry.put(msgspec.structs.replace(record, **changes))


@asynccontextmanager
async def serving(server: MCPServer[Any], *, warm: bool = True) -> AsyncIterator[Served]:
    """The server on one host, without a connection yet. It is left with nothing in flight."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(Host(server, warm=warm))
        yield Served(host, stack)


async def until(true: Any, seconds: float = 5.0) -> None:
    """Waits until `true()` is."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["result"]["content"][0]["text"])


def names(result: dict[str, Any]) -> list[str]:
    """Of a list of any kind."""
    (items,) = [value for value in result.values() if isinstance(value, list)]
    return [one.get("uri") or one.get("uriTemplate") or one["name"] for one in items]


async def all_pages(wire: Wire, method: str) -> list[list[str]]:
    """The names on each page of a list."""
    pages, cursor = [], {}
    while True:
        result = await wire.request(method, cursor)
        pages.append(names(result))
        if "nextCursor" not in result:
            return pages
        cursor = {"cursor": result["nextCursor"]}


def codes(answers: Iterable[dict[str, Any]]) -> list[int | None]:
    """The error code of each answer; None for a result."""
    return [answer["error"]["code"] if "error" in answer else None for answer in answers]
