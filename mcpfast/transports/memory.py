"""In memory: a client and a server in one loop, joined by a socket pair. The same way for a message as on any socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcpfast.errors import AddressError
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Stream

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer
    from mcpfast.tenancy.resolvers import Evidence


@asynccontextmanager
async def connect(
    server: MCPServer[Any],
    *,
    warm: bool = True,
    raise_exceptions: bool = False,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serves one connection; gives the client's end.

    `raise_exceptions` True shows the client the tracebacks of handlers, as `MCPServer(debug=True)` does for everybody. `headers`
    are the credentials of the client, as it would show them over HTTP; a server that asks nobody for any raises AddressError.
    """
    shown = None if headers is None else _shown(server, headers)
    async with Host(
        server, warm=warm, debug=raise_exceptions
    ) as host:  # its lifespan may fail: before there are sockets
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = ours.detach()
        stream = Stream(
            host,
            fd,
            fd,
            is_socket=True,
            peer=Peer("memory", evidence=shown),
            grace_s=server.limits.eof_grace_s,
            on_closed=lambda _: None,
        )
        try:
            stream.channel.start_reading()
            reader, writer = await asyncio.open_connection(sock=theirs)
            try:
                yield reader, writer
            finally:
                writer.close()
        finally:
            stream.close("the client is gone")


def _shown(server: MCPServer[Any], headers: Mapping[str, str]) -> Evidence:
    """What the headers say, and nothing else: neither the environment nor the tenant of stdio speaks for who has credentials."""
    if server.tenancy is None:
        raise AddressError("headers and authorization say whose a request is, and this server has no tenants")
    from mcpfast.tenancy.resolvers import Evidence

    by_name = {name.lower(): value for name, value in headers.items()}
    return Evidence(transport="memory", header=by_name.get)
