"""In memory: a client and a server in one loop, joined by a socket pair. The same way for a message as on any socket."""

from __future__ import annotations

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
async def connect(server: MCPServer[Any], *, warm: bool = True) -> AsyncIterator[socket.socket]:
    """Serves one connection; gives the client's end, which is non-blocking and the caller's to close."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    try:
        async with Host(server, warm=warm) as host:
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
            stream.channel.start_reading()
            try:
                yield theirs
            finally:
                stream.close("the client is gone")
    finally:
        theirs.close()
