"""WebSocket: one message a text frame, subprotocol "mcp"; otherwise a stream like any other, lived in by `Lines`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from mcpfast.client.endpoint import Endpoint
from mcpfast.client.transport import CLOSE_S, HttpServer, Reader, Transport, Writer

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    from mcpfast.client.session import Session
    from mcpfast.client.transport import Link

PING_S = 30.0  # a connection on which nothing is said is asked for a sign of life


class WebSocketTransport(Transport):
    """The way to one ws:// or wss:// URL. Raises AddressError for one that cannot be used."""

    def __init__(self, server: HttpServer) -> None:
        self._endpoint = Endpoint(server)
        self._socket: ClientWebSocketResponse | None = None
        self._bytes_max = 0  # of a message; 0: no bound
        self._frames: Frames | None = None

    async def link(self, session: Session) -> Link:
        self._bytes_max = session.limits.frame_bytes_max
        return await super().link(session)

    async def open(self) -> tuple[Reader, Writer]:
        self._endpoint.open()
        try:
            # One byte more than is taken: what is too long is an error of its call where that can be seen
            self._socket = await self._endpoint.websocket(heartbeat_s=PING_S, bytes_max=self._bytes_max + 1)
        except BaseException:
            await self._endpoint.close()
            raise
        self._frames = Frames(self._socket)
        return self._frames, self._frames

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        try:
            if socket is not None:
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(CLOSE_S):
                        await socket.close()
        finally:
            await self._endpoint.close()

    async def last_words(self) -> str:
        return "" if self._frames is None else self._frames.last_words


class Frames:
    """The reader and the writer of one WebSocket: a frame is a line."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._unsent: list[bytes] = []
        self.last_words = ""

    async def read(self, n: int = -1, /) -> bytes:
        from aiohttp import WSMsgType

        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            data: bytes = message.data.encode().replace(b"\n", b" ") + b"\n"
            return data
        if message.type is WSMsgType.CLOSE:
            self.last_words = f"WebSocket close code {message.data} {message.extra or ''}".rstrip()
        elif message.type is WSMsgType.BINARY:
            self.last_words = "it sent a binary frame, which is no message"
        elif message.type is WSMsgType.ERROR:
            self.last_words = str(message.data) or "the connection broke"
        return b""

    def write(self, data: bytes, /) -> None:
        self._unsent += [line for line in data.split(b"\n") if line]

    async def drain(self) -> None:
        from aiohttp import ClientError, WSMsgType

        lines, self._unsent = self._unsent, []
        for line in lines:
            try:
                await self._socket.send_frame(line, WSMsgType.TEXT)
            except ClientError as error:
                raise ConnectionError(str(error) or type(error).__name__) from None
