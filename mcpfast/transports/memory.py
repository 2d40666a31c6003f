"""In memory: a client and a server in one loop, joined by a socket pair. The same way for a message as on any socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Stream

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer


@asynccontextmanager
async def connect(
    server: MCPServer[Any], *, warm: bool = True, raise_exceptions: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serves one connection; gives the client's end.

    `raise_exceptions` True shows the client the tracebacks of handlers, as `MCPServer(debug=True)` does for everybody.
    """
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
            peer=Peer("memory"),
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
