"""HTTP+SSE of 2024-11-05 (protocol notes, section 11): a GET opens the stream, messages are posted beside it.

The stream is the connection: with it the session ends, and what is in flight is cancelled. Every legacy revision may be
negotiated over it, and the one of 2026-07-28 spoken.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from mcpfast._frames import FrameChannel
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Connection
from mcpfast.transports.web.access import accepts
from mcpfast.transports.web.sessions import is_full

if TYPE_CHECKING:
    from mcpfast._exchange import Exchange, Head
    from mcpfast.transports.web.endpoint import Endpoint

POST_PATH, STREAM_PATH = "/messages", "/sse"
PARAMETER = "sessionId"
TRANSPORT = "sse"


class OldTransport:
    """The open streams of one endpoint, by the secret name that their POSTs carry."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.open: dict[str, OldConnection] = {}

    def serve(self, exchange: Exchange, head: Head, path: str, query: str) -> None:
        method = head.method
        if path == STREAM_PATH and method == b"GET":
            self.endpoint.with_caller(exchange, head, lambda: self._open(exchange, head), TRANSPORT)
        elif path == POST_PATH and method == b"POST":
            self.endpoint.with_caller(exchange, head, lambda: self._post(exchange, head, query), TRANSPORT)
        else:
            allowed = b"GET" if path == STREAM_PATH else b"POST"
            exchange.respond(405, allowed + b" only\n", extra=b"Allow: " + allowed + b"\r\n")

    def _open(self, exchange: Exchange, head: Head) -> None:
        if not accepts(head.header(b"accept") or b"*/*", "text/event-stream"):
            exchange.respond(406, b"Accept must name text/event-stream\n")
            return
        sessions = [connection.session for connection in self.open.values()]
        if is_full(sessions, exchange.caller, self.endpoint.limits.http_sessions_max):
            self.endpoint.host.dispatcher.log_refusal(
                "refused a session: limits.http_sessions_max is reached"
            )
            exchange.respond(503, b"Too many sessions; try again later\n", extra=b"Retry-After: 10\r\n")
            return
        exchange.start_stream()
        name = secrets.token_urlsafe(24)
        self.open[name] = OldConnection(self, exchange, name)
        tenant = f"/t/{head.tenant}" if head.tenant else ""
        where = f"{exchange.root}{tenant}{POST_PATH}?{PARAMETER}={name}"
        exchange.put_raw(f"event: endpoint\ndata: {where}\n\n".encode())

    def _post(self, exchange: Exchange, head: Head, query: str) -> None:
        connection = self.open.get(parse_qs(query).get(PARAMETER, [""])[0])
        if connection is not None and not connection.is_of(exchange):
            connection = None  # somebody else's: for whoever asks it does not exist
        kind = (head.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if connection is None:
            exchange.respond(404, b"There is no such stream, or no longer: GET /sse opens one\n")
        elif kind != b"application/json":
            exchange.respond(415, b"A message has the Content-Type application/json\n")
        elif not connection.channel.reading:
            exchange.respond(503, b"The stream is not read\n", extra=b"Retry-After: 1\r\n")
        else:
            try:
                msgspec.json.decode(head.body)
            except (msgspec.DecodeError, RecursionError):
                exchange.respond(400, b"The body is no JSON\n")
                return
            connection.shown_by(exchange)
            exchange.respond(202, b"Accepted\n")
            connection.channel.message_in(head.body)

    def drain(self, deadline_s: float) -> None:
        for connection in list(self.open.values()):
            connection.drain(deadline_s)

    def close(self) -> None:
        for connection in list(self.open.values()):
            connection.close("the server is closing")


class OldConnection(Connection):
    """One stream and what was posted to it."""

    __slots__ = ("_exchange", "_name", "_transport")

    channel: FrameChannel

    def __init__(self, transport: OldTransport, exchange: Exchange, name: str) -> None:
        self._transport = transport
        self._exchange = exchange
        self._name = name
        host = transport.endpoint.host
        super().__init__(host, Peer(TRANSPORT, exchange.peer_address()), host.server.limits.eof_grace_s)
        self.shown_by(exchange)
        exchange.tied = self

    def is_of(self, exchange: Exchange) -> bool:
        """Whether this stream was opened by whose exchange this is."""
        ours, theirs = self.channel.caller, exchange.caller
        return ours is None if theirs is None else theirs.is_same(ours)

    def shown_by(self, exchange: Exchange) -> None:
        """What comes is of this request's caller, whose credential may be a newer one than the stream's."""
        self.channel.caller = exchange.caller
        self.session.peer.evidence = self._transport.endpoint.evidence(exchange, TRANSPORT)

    def _make_channel(self) -> FrameChannel:
        return FrameChannel(self._host.engine, self, self._write)

    def _write(self, message: bytes) -> None:
        exchange = self._exchange
        exchange.put_raw(b"event: message\ndata: " + message + b"\n\n")
        if exchange.waiting_bytes > self._host.server.limits.output_high_bytes:
            self.channel.pause_writing()
            exchange.taken().add_done_callback(self._taken)

    def _taken(self, _: Any) -> None:
        if not self.channel.closed:
            self.channel.resume_writing()

    # A POST is told that it comes at the wrong time: there is nothing to hold.
    def hold_input(self) -> None: ...
    def take_input(self) -> None: ...

    def _release(self, reason: str) -> None:
        del self._transport.open[self._name]
        self._exchange.tied = None
        self._exchange.end_stream()
