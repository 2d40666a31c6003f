"""WebSocket at the endpoint's own path: one message a frame, subprotocol "mcp", the life of a stream. picows has the framing.

What RFC 6455 wants of a server and picows leaves to its user: messages in fragments (section 5.4), UTF-8 (8.1), the closing
handshake (5.5.1), reserved bits (5.2).
"""

from __future__ import annotations

import logging
import socket
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from picows import WSAutoPingStrategy, WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stubs lack it

from mcpfast._frames import FrameChannel
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Connection

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._exchange import Exchange, Head
    from mcpfast._http import HttpConnection
    from mcpfast.transports.web.endpoint import Endpoint
    from mcpfast.transports.web.listener import HttpListener

SUBPROTOCOL = "mcp"
TRANSPORT = "websocket"
COPIED_MAX = 512  # bytes of a message that is surely copied by `send`
HEAD_BYTES = 14  # of the largest head of a frame, as picows wants it
READ_BUFFER_BYTES = 2_048  # of a connection at rest; it grows with what comes
_log = logging.getLogger("mcpfast.websocket")
_log.setLevel(logging.CRITICAL)  # what clients do wrong they are told, by a close code
_quiet = logging.LoggerAdapter(_log, {})  # of a plain Logger picows makes one for each connection


def admit(endpoint: Endpoint, exchange: Exchange, head: Head) -> bool:
    """Whether a WebSocket may be opened; else that is answered."""
    if not endpoint.admit_origin(exchange, head):
        return False
    if endpoint.path_of(head)[0] != endpoint.path:
        exchange.respond(404, f"Nothing is served here; MCP is at {endpoint.path}\n".encode())
        return False
    if head.doubled:
        exchange.respond(400, b"A header that may stand once stands twice\n")
        return False
    offered = subprotocols(head)
    if offered and SUBPROTOCOL not in offered:
        exchange.respond(400, b"The subprotocol of MCP is mcp\n")
        return False
    return True


def admit_handshake(exchange: Exchange, head: Head) -> bool:
    """The same for what RFC 6455 says of an upgrade over HTTP/1.1."""
    if head.header(b"sec-websocket-version") != b"13":
        exchange.respond(
            426, b"The WebSocket spoken here is version 13\n", extra=b"Sec-WebSocket-Version: 13\r\n"
        )
        return False
    if not _is_key(head.header(b"sec-websocket-key")):
        exchange.respond(400, b"Sec-WebSocket-Key is 16 bytes in base64\n")
        return False
    return True


def peer_of(endpoint: Endpoint, exchange: Exchange) -> Peer:
    """Who opens the WebSocket that this exchange asks for."""
    return Peer(TRANSPORT, exchange.peer_address(), evidence=endpoint.evidence(exchange, TRANSPORT))


def _is_key(value: bytes | None) -> bool:
    try:
        return value is not None and len(b64decode(value, validate=True)) == 16
    except ValueError:
        return False


def subprotocols(head: Head) -> list[str]:
    """What the client offers."""
    values = [value.decode("latin-1") for name, value in head.headers if name == b"sec-websocket-protocol"]
    return [item.strip() for item in ",".join(values).split(",") if item.strip()]


def take_over(listener: HttpListener, connection: HttpConnection, head: Head, rest: bytes) -> None:
    """From now on the connection's bytes are frames."""
    limits = listener.limits
    peer = peer_of(listener.endpoint, connection)
    caller = connection.caller
    transport = connection.detach()
    with_protocol = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if subprotocols(head) else None

    def accept(request: object) -> object:
        from picows import WSUpgradeResponse, WSUpgradeResponseWithListener

        frames = WebSocket(listener, peer, caller).frames
        response = WSUpgradeResponse.create_101_response(with_protocol)
        return WSUpgradeResponseWithListener(response, frames)

    protocol = WSProtocol(
        None,
        None,
        False,  # the server's side
        accept,
        _quiet,
        True,  # an exception disconnects
        limits.head_s,
        False,  # pings are the sweep's
        None,
        None,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # so are the answers to the client's: they are a sign of life
        limits.frame_bytes_max,
        None,
        READ_BUFFER_BYTES,
    )
    transport.set_protocol(protocol)
    over_unix = transport.get_extra_info("socket").family == socket.AF_UNIX
    protocol.connection_made(_OverUnix(transport) if over_unix else transport)
    lines = [head.method + b" " + head.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in head.headers]
    _feed(protocol, b"\r\n".join(lines) + b"\r\n\r\n" + rest)


def _feed(protocol: WSProtocol, data: bytes) -> None:
    """Bytes that another protocol read, as the loop would hand them over."""
    while data:
        room = memoryview(protocol.get_buffer(len(data)))
        count = min(len(room), len(data))
        room[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]


class _OverUnix:
    """A transport over a Unix socket as picows can have it: that sets options of TCP on every socket, and falls over a refusal."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._transport.get_extra_info(name, default)
        return _WithoutOptions(found.fileno()) if name == "socket" else found


class _WithoutOptions:
    """The socket of such a transport."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def setsockopt(self, *_: Any) -> None: ...

    def getsockopt(self, *_: Any) -> int:
        return 0


class WebSocket(Connection):
    """One client by WebSocket."""

    __slots__ = ("_listener", "_parts", "_pinged", "_size", "_socket", "frames", "since_s")

    channel: FrameChannel

    def __init__(self, listener: HttpListener, peer: Peer, caller: Caller | None) -> None:
        self._listener = listener
        self._socket: WSTransport | None = None
        self._parts: list[bytes] | None = None  # of a message that comes in fragments
        self._size = 0
        self._pinged = False
        self.since_s = listener.host.loop.time()
        self.frames = _Frames(self)
        super().__init__(listener.host, peer, listener.limits.eof_grace_s)
        self.channel.caller = caller
        listener.sockets.add(self)

    def _make_channel(self) -> FrameChannel:
        return FrameChannel(self._host.engine, self, self._write)

    def connected(self, socket: WSTransport) -> None:
        self._socket = socket

    def _write(self, message: bytes) -> None:
        if self._socket is None:
            return
        if len(message) <= COPIED_MAX:
            self._socket.send(WSMsgType.TEXT, message)
        else:  # `send` would hand the loop a view of the frame's head, in memory that the next frame is written to
            self._socket.send_reuse_external_bytearray(
                WSMsgType.TEXT, bytearray(HEAD_BYTES) + message, HEAD_BYTES
            )

    def hold_input(self) -> None:
        if self._socket is not None:
            self._socket.underlying_transport.pause_reading()

    def take_input(self) -> None:
        if self._socket is not None:
            self._socket.underlying_transport.resume_reading()

    # ---------------------------------------------------------------- frames in

    def frame(self, frame: WSFrame) -> None:
        kind = frame.msg_type
        self.since_s, self._pinged = self._host.loop.time(), False
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.refuse(WSCloseCode.PROTOCOL_ERROR, b"no extension was agreed on")
        elif kind == WSMsgType.TEXT and frame.fin and self._parts is None:
            self._message(frame.get_payload_as_bytes())
        elif kind == WSMsgType.TEXT or kind == WSMsgType.CONTINUATION:
            self._fragment(kind, frame)
        elif kind == WSMsgType.BINARY:
            self.refuse(WSCloseCode.UNSUPPORTED_DATA, b"messages are text")
        elif kind == WSMsgType.PING and self._socket is not None:
            self._socket.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._client_closes(frame)

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        if (kind == WSMsgType.CONTINUATION) != (self._parts is not None):
            self.refuse(WSCloseCode.PROTOCOL_ERROR, b"fragments are out of order")
            return
        self._parts = self._parts if self._parts is not None else []
        self._parts.append(frame.get_payload_as_bytes())
        self._size += frame.payload_size
        if self._size > self._host.server.limits.frame_bytes_max or len(self._parts) > FRAGMENTS_MAX:
            self.refuse(WSCloseCode.MESSAGE_TOO_BIG, b"the message is larger than this server takes")
        elif frame.fin:
            message, self._parts, self._size = b"".join(self._parts), None, 0
            self._message(message)

    def _message(self, message: bytes) -> None:
        if not message.isascii():
            try:
                message.decode()
            except UnicodeDecodeError:
                self.refuse(WSCloseCode.INVALID_TEXT, b"text is UTF-8")
                return
        self.channel.message_in(message)

    def _client_closes(self, frame: WSFrame) -> None:
        """The closing handshake: what is in flight is nobody's any more (section 5.5.1: no data follows a Close)."""
        code = frame.get_close_code()
        number = int(getattr(code, "value", code))  # type: ignore[arg-type]  # an int where it is none of the enum
        known = number in CLOSE_CODES or 3000 <= number <= 4999
        self.refuse(code if known else WSCloseCode.OK if not number else WSCloseCode.PROTOCOL_ERROR, b"")

    def refuse(self, code: WSCloseCode, why: bytes) -> None:
        """Closes with a code that says why."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.send_close(code, why)
            socket.disconnect()
        self.close("the client closed" if not why else why.decode())

    # ---------------------------------------------------------------- time, and the end

    def sweep(self, now_s: float) -> None:
        """A silent client is asked for a sign of life; one that gives none is gone."""
        silent_s = now_s - self.since_s
        limits = self._host.server.limits
        if self._socket is None or silent_s <= limits.stream_comment_s:
            return
        if silent_s > limits.stream_comment_s + limits.keep_alive_s:
            self.close("the client is silent")
        elif not self._pinged:
            self._pinged = True
            self._socket.send_ping()

    def gone(self) -> None:
        """The connection broke, or was closed by us."""
        self._socket = None
        self.close("the client disconnected")

    def _release(self, reason: str) -> None:
        self._listener.sockets.discard(self)
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.send_close(WSCloseCode.GOING_AWAY, reason.encode()[:120])
            socket.disconnect()


FRAGMENTS_MAX = 10_000  # of one message
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class _Frames(WSListener):
    """What picows calls; it keeps a listener for as long as the connection."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket.connected(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._socket.frame(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._socket.gone()

    def pause_writing(self) -> None:
        self._socket.channel.pause_writing()

    def resume_writing(self) -> None:
        self._socket.channel.resume_writing()
