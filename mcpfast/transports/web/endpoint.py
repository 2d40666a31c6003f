"""The endpoint: what HTTP exchanges ask of the house. What is hot stands in `_exchange`; what decides, here.

admit         may this Host, this Origin ask, and does it speak JSON and event streams
other         what is no plain POST to the endpoint: GET and DELETE of a session, OPTIONS, routes, everything refused
session_for   the legacy session of a message (protocol notes, sections 7.1 and 9)
mirror_error  what the headers of 2026-07-28 must repeat (section 10)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast._exchange import Front
from mcpfast.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNSUPPORTED_VERSION,
    MCPError,
    RegistrationError,
)
from mcpfast.protocol import headers, legacy, messages
from mcpfast.protocol.revisions import BY_VERSION, MODERN_VERSIONS
from mcpfast.server.events import MemoryEventStore
from mcpfast.server.session import Peer, Session
from mcpfast.transports.web.access import Access, Refused, accepts, preflight, text
from mcpfast.transports.web.sessions import (
    HttpSession,
    NoSessions,
    Recording,
    SealedSessions,
    StatefulSessions,
    at_once,
    event,
)

if TYPE_CHECKING:
    from mcpfast._exchange import Exchange, Head
    from mcpfast._spine import Request, Wire
    from mcpfast.server.host import Host
    from mcpfast.tenancy.resolvers import Evidence
    from mcpfast.transports.web.old import OldTransport
    from mcpfast.transports.web.settings import HttpSettings

logger = logging.getLogger("mcpfast")
GOOD_VALUES_MAX = 256  # header values that were found good and are known again; more are looked at each time
OLD_PATHS = ("/sse", "/messages")  # of the transport of 2024-11-05
WELL_KNOWN = "/.well-known/oauth-protected-resource"
JSON, EVENTS = "application/json", "text/event-stream"


class Endpoint:
    """One path that speaks MCP, whoever reads and writes the bytes: a listener of ours, or another server by ASGI."""

    def __init__(self, host: Host, path: str, settings: HttpSettings, *, loopback: bool) -> None:
        limits = host.server.limits
        self.host = host
        self.limits = limits
        self.path = path
        self.access = Access(settings, loopback=loopback)
        self.exchanges: set[Exchange] = set()
        self.identifying: set[asyncio.Task[None]] = set()
        self.public_url = settings.public_url
        self._events = MemoryEventStore(
            limits.replay_events_max,
            limits.replay_bytes_max,
            limits.replay_s,
            session_events_max=limits.session_replay_events_max,
            session_bytes_max=limits.session_replay_bytes_max,
        )
        self._sessions: StatefulSessions
        if settings.session_mode == "sealed":
            self._sessions = SealedSessions(limits, host.server.sealer(), host.opened, self._forget)
        else:
            self._sessions = (
                NoSessions(limits) if settings.session_mode == "off" else StatefulSessions(limits)
            )
        if host.dispatcher.tenants is not None:
            host.dispatcher.tenants.calls_beside.append(self.calls)
        self._old: OldTransport | None = None  # the transport of 2024-11-05, once somebody asks for it
        revisions = {version.encode() for version in MODERN_VERSIONS}
        versions = {version.encode() for version in BY_VERSION}
        sessions: Any = self._sessions.kept if self._sessions.ids_are_all else None
        sessionless = not self._sessions.offered
        self.front = Front(host.engine, self, path.encode(), revisions, versions, sessions, sessionless)

    # ---------------------------------------------------------------- who may ask

    def admit(self, exchange: Exchange, head: Head) -> bool:
        """Whether a message may come with these headers; else it is answered. What is good is known again."""
        if not self.admit_origin(exchange, head):
            return False
        kind = head.header(b"content-type") or b""
        if kind.partition(b";")[0].strip().lower() != b"application/json":
            exchange.respond(415, b"A message has the Content-Type application/json\n")
            return False
        accept = head.header(b"accept")
        if not accepts(accept, JSON) or not accepts(accept, EVENTS):
            exchange.respond(406, b"Accept must name application/json and text/event-stream\n")
            return False
        if len(self.front.types) < GOOD_VALUES_MAX:
            self.front.types.add(kind.strip())
        if accept is not None and len(self.front.accepts) < GOOD_VALUES_MAX:
            self.front.accepts.add(accept.strip())
        return True

    def admit_origin(self, exchange: Exchange, head: Head) -> bool:
        """Whether this Host may be asked, and by a page of this Origin; else it is answered."""
        host, origin = text(head.header(b"host")) or "", text(head.header(b"origin"))
        try:
            extra = self.access.check(host, origin)
        except Refused as refused:
            exchange.respond(refused.status, refused.body)
            return False
        head.extra = exchange.extra = extra
        if len(self.front.hosts) < GOOD_VALUES_MAX:
            self.front.hosts.add(host.encode("latin-1"))
        if (
            origin is not None and len(self.front.origins) < GOOD_VALUES_MAX
        ):  # good for this Host, and no other
            self.front.origins[origin.encode("latin-1"), host.encode("latin-1")] = extra
        return True

    # ---------------------------------------------------------------- whose request it is

    @property
    def has_tenants(self) -> bool:
        return self.host.dispatcher.tenants is not None

    def with_caller(
        self, exchange: Exchange, head: Head, go_on: Callable[[], None], transport: str = "http"
    ) -> None:
        """Goes on when it is known whose request this is, where tenants are served; at once where not."""
        if self.has_tenants:
            self.identify(exchange, head, go_on, transport)
        else:
            go_on()

    def identify(
        self, exchange: Exchange, head: Head, go_on: Callable[[], None], transport: str = "http"
    ) -> None:
        """Finds out whose request it is, and goes on; who may not is answered. What was found is remembered with the head."""
        from mcpfast.transports.web.identity import identify  # nobody without tenants needs it

        identify(self, exchange, head, go_on, transport)

    def evidence(self, exchange: Exchange, transport: str = "http") -> Evidence | None:
        """What the request under way shows of who is asking; None where no tenants are served."""
        if not self.has_tenants:
            return None
        from mcpfast.transports.web.identity import evidence_of

        assert exchange.head is not None
        return evidence_of(self, exchange, exchange.head, transport)

    def refuses(self, exchange: Exchange, error: MCPError) -> None:
        """The headers that go with the refusal of a request; in a batch the last one's."""
        from mcpfast.transports.web.identity import headers_of

        assert exchange.head is not None
        exchange.extra = (exchange.head.extra or b"") + headers_of(self, exchange, error)

    def calls(self) -> Iterator[Request]:
        """Those in flight, also of exchanges without a session."""
        for exchange in list(self.exchanges):
            yield from exchange.requests()

    # ---------------------------------------------------------------- what is no plain message

    def other(self, exchange: Exchange, head: Head) -> None:
        """GET and DELETE of a session, OPTIONS, routes, and everything that is refused."""
        if not self.admit_origin(exchange, head):
            return
        path, query = self.path_of(head)
        if path != self.path:
            self._elsewhere(exchange, head, path, query)
        elif head.doubled:
            exchange.respond(400, b"A header that may stand once stands twice\n")
        elif head.method == b"POST":
            if self.admit(exchange, head):
                exchange.take(head)
        elif head.method == b"OPTIONS":
            asked = preflight(head)
            extra = b"Allow: GET, POST, DELETE, OPTIONS\r\n" if asked is None else asked
            exchange.respond(204, extra=extra)
        elif head.protocol_version is not None and head.protocol_version in self.front.revisions:
            exchange.respond(405, b"2026-07-28 has POST only\n", extra=b"Allow: POST\r\n")
        elif head.method in (b"GET", b"DELETE") and not self._sessions.offered:
            exchange.respond(405, b"There are no sessions here, and POST only\n", extra=b"Allow: POST\r\n")
        elif head.method == b"GET":
            self.with_caller(exchange, head, lambda: self._open_stream(exchange, head))
        elif head.method == b"DELETE":
            self.with_caller(exchange, head, lambda: self._delete(exchange, head))
        else:
            exchange.respond(405, b"Not served here\n", extra=b"Allow: GET, POST, DELETE, OPTIONS\r\n")

    def path_of(self, head: Head) -> tuple[str, str]:
        """Path and query. /t/{tenant} before a path of the protocol says which tenant is meant, and is not part of it."""
        path, _, query = head.target.decode("latin-1").partition("?")
        if self.has_tenants and path.startswith("/t/"):
            tenant, _, rest = path.removeprefix("/t/").partition("/")  # ids need no escapes
            if tenant and f"/{rest}" in (self.path, *OLD_PATHS):
                head.tenant = tenant
                return f"/{rest}", query
        return path, query

    def _elsewhere(self, exchange: Exchange, head: Head, path: str, query: str) -> None:
        """Another path than the endpoint's: a plain route, or the transport of 2024-11-05."""
        server, tenants = self.host.server, self.host.dispatcher.tenants
        if tenants is not None and tenants.callers.administration is not None:
            from mcpfast.transports.web.admin import serve_admin

            if serve_admin(self, exchange, head, path, query):
                return
        if path in server.routes:
            from mcpfast.transports.web.routes import serve_route

            serve_route(self, exchange, head, server.routes[path], query)
        elif path.startswith(WELL_KNOWN) and self.has_tenants:
            from mcpfast.transports.web.identity import serve_metadata

            serve_metadata(self, exchange, head, path.removeprefix(WELL_KNOWN))
        elif path in OLD_PATHS:
            if self._old is None:
                from mcpfast.transports.web.old import OldTransport

                self._old = OldTransport(self)
            self._old.serve(exchange, head, path, query)
        else:
            exchange.respond(404, f"Nothing is served here; MCP is at {self.path}\n".encode())

    def _open_stream(self, exchange: Exchange, head: Head) -> None:
        """The standalone stream of a session (section 9, H7 to H9)."""
        if not accepts(head.header(b"accept"), EVENTS):
            exchange.respond(406, b"Accept must name text/event-stream\n")
            return
        session = self._known_session(exchange, head)
        if session is None:
            return
        last = head.header(b"last-event-id")
        if last is not None:
            self._resume(exchange, session, last.decode("latin-1"))
        elif session.channel.stream is not None:
            exchange.respond(409, b"This session has its stream open already\n")
        else:
            exchange.session = session
            exchange.start_stream()
            session.channel.attach(exchange)

    def _resume(self, exchange: Exchange, session: HttpSession, last: str) -> None:
        """The rest of the stream that `last` is an event of, and what it still gets (section 9, H10)."""
        replay = at_once(self._events.replay(session.key, last))
        if replay is None:
            exchange.respond(400, b"This Last-Event-ID is not known, or no longer\n")
            return
        recording = session.recordings.get(replay.stream)
        standing = recording is not None and recording is session.own_recording
        if standing and session.channel.stream is not None:
            session.channel.stream.end_stream()  # the client lost that one, and we did not see it yet
        exchange.session = session
        exchange.resumes = True
        exchange.start_stream()
        for one in replay.events:
            exchange.put_raw(event(one.id, one.data))
        if recording is None:
            exchange.end_stream()
        elif standing:
            exchange.recording = recording
            session.channel.attach(exchange)
        else:
            if recording.reader is not None:
                recording.reader.end_stream()
            recording.reader = exchange

    def record(self, exchange: Exchange) -> Recording | None:
        """Where the events of a stream that begins are kept; None for one that only repeats another. The client learns an event's
        id at once, so that it can come back even before the first message (2025-11-25 on)."""
        session = exchange.session
        if exchange.resumes or session is None or session.id is None:
            return None
        if exchange.head is not None and exchange.head.method == b"GET":
            recording = session.own_recording = session.own_recording or Recording(
                self._events, session, standing=True
            )
        else:
            recording = Recording(self._events, session)
        if session.revision is not None and session.revision.primes_streams:
            retry = b"retry: %d\n" % (1_000 * self.limits.retry_s)
            exchange.put_raw(retry + recording.add(b""))
        return recording

    def _delete(self, exchange: Exchange, head: Head) -> None:
        session = self._known_session(exchange, head)
        if session is not None:
            self._end_session(session, "the client ended the session")
            exchange.respond(204)

    # ---------------------------------------------------------------- legacy sessions

    def session_for(self, exchange: Exchange, head: Head, opening: bool, readable: bool) -> Session | None:
        """The session of a legacy message, or None when that is answered already. `readable` False: what came is no JSON, and will
        be told so."""
        version = text(head.protocol_version)
        exchange.wire = None
        if not readable:
            return self._new_session(exchange)
        if opening and (head.session_id is None or not self._sessions.offered):
            if self._sessions.full(exchange.caller):
                self.host.dispatcher.log_refusal("refused a session: limits.http_sessions_max is reached")
                exchange.respond(503, b"Too many sessions; try again later\n", extra=b"Retry-After: 10\r\n")
                return None
            return self._new_session(exchange)
        if version is not None and version not in BY_VERSION:
            data = {"supported": list(MODERN_VERSIONS), "requested": version[:80]}
            error = MCPError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)
            exchange.reply_with(400, messages.error_line(error, id_null=False))
            return None
        known = self._known_session(exchange, head)
        if known is not None:
            known.exchanges.add(exchange)
            known.used_s = exchange.since_s
            exchange.wire = self._wire_of(known)
        return known

    def _wire_of(self, session: HttpSession) -> Wire | None:
        if session.wire is None and session.revision is not None:
            session.wire = self.host.server.answers.wires[session.revision.number]
        return session.wire

    def _new_session(self, exchange: Exchange) -> HttpSession:
        return HttpSession(self.limits, Peer("http", exchange.peer_address()), exchange.caller)

    def _known_session(self, exchange: Exchange, head: Head) -> HttpSession | None:
        if head.session_id is None and self._sessions.offered:
            error = MCPError(INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first")
            exchange.reply_with(400, messages.error_line(error, id_null=False))
            return None
        session = self._sessions.find(exchange, head, lambda: self._new_session(exchange))
        if session is None:
            error = MCPError(INVALID_REQUEST, "This session is over: initialize again, without a session id")
            exchange.reply_with(404, messages.error_line(error, id_null=False))
        return session

    def answered(self, exchange: Exchange) -> None:
        """A legacy answer is about to leave: that of `initialize` names the session."""
        session = exchange.session
        if session.id is None and session.state is legacy.OPEN and self._sessions.offered:
            session.used_s = exchange.since_s
            self._wire_of(session)
            id_ = self._sessions.add(session)
            self.host.opened(session)
            exchange.extra = (exchange.extra or b"") + b"Mcp-Session-Id: " + id_ + b"\r\n"

    def left(self, exchange: Exchange) -> None:
        """An exchange of a legacy session is over."""
        session = exchange.session
        if session is not None:
            session.exchanges.discard(exchange)
            if session.channel.stream is exchange:
                session.channel.stream = None
            for recording in list(session.recordings.values()):
                if recording.reader is exchange:
                    recording.reader = None

    def _end_session(self, session: HttpSession, reason: str) -> None:
        if self._sessions.take_out(session, for_good=True):
            self._close_session(session)
        for exchange in list(session.exchanges):
            exchange.cancel_calls(reason)
        if session.channel.stream is not None:
            session.channel.stream.end_stream()

    def _forget(self, session: HttpSession) -> None:
        """A session that nobody uses is let go; one whose id says all may come back."""
        if self._sessions.take_out(session, for_good=False):
            self._close_session(session)

    def _close_session(self, session: HttpSession) -> None:
        self.host.closed(session)
        at_once(self._events.end(session.key))

    # ---------------------------------------------------------------- 2026-07-28

    def modern_session(self, exchange: Exchange) -> Session:
        """What a connection remembers of its modern requests: the one under way, and its listen stream."""
        if exchange.own is None:
            exchange.own = Session(self.limits, Peer("http", exchange.peer_address()))
            exchange.own.channel = exchange
            self.host.opened(exchange.own)
        own: Session = exchange.own
        return own

    def mirror_error(
        self, head: Head, id_: bytes, method: bytes, params: bytes, version: bytes
    ) -> bytes | None:
        """The refusal where the headers do not say what the body says; None where they do."""
        asked: dict[str, Any] = messages.decode(dict, params)
        try:
            spoken, called = msgspec.json.decode(version), msgspec.json.decode(method)
            name = asked.get(headers.NAME_MEMBERS.get(called, ""))
            headers.check_mirror(
                called,
                name if isinstance(name, str) else None,
                spoken if isinstance(spoken, str) else "",
                head.header(b"mcp-method"),
                head.header(b"mcp-name"),
                head.header(b"mcp-protocol-version"),
            )
        except MCPError as error:
            return messages.error_answer(error, id_)
        return None

    def params_differ(
        self, head: Head, name: bytes, method: bytes, arguments: bytes | None, id_: bytes
    ) -> bytes | None:
        """The same of the arguments that a tool's schema has mirrored in Mcp-Param-* headers (section 13)."""
        tool = self.host.dispatcher.catalog.tools.get(msgspec.json.decode(name))
        if tool is None or method != b'"tools/call"':
            return None
        try:
            mirrored = tool.mirrored()
        except (
            RegistrationError
        ) as error:  # deep in a type: clients drop such a tool, and this one was called all the same
            self.host.dispatcher.log_refusal("%s", error)
            mirrored = None
        if mirrored is None:
            if len(self.front.plain_tools) < GOOD_VALUES_MAX:
                self.front.plain_tools.add(name)
            return None
        values = dict(reversed(head.headers))
        try:
            if sum(one.startswith(b"mcp-param-") for one, _ in head.headers) > sum(
                one.startswith(b"mcp-param-") for one in values
            ):
                raise MCPError(HEADER_MISMATCH, "An Mcp-Param header stands twice")
            asked = msgspec.json.decode(arguments or b"{}")
            if isinstance(asked, dict):  # what else it is, the tool's own check says
                mirrored.check(asked, {one.decode("latin-1"): value for one, value in values.items()})
        except MCPError as error:
            return messages.error_answer(error, id_)
        return None

    def broken_envelope(self, id_: bytes | None) -> bytes:
        error = MCPError(INVALID_PARAMS, "Invalid params: _meta lacks the envelope of 2026-07-28")
        if id_ is None:
            return messages.error_line(error, id_null=False)
        return messages.error_answer(error, id_)

    # ---------------------------------------------------------------- what else an exchange asks for

    def broke(self, exchange: Exchange, error: BaseException) -> None:
        """A fault of ours: the client is told that there was one."""
        logger.error("an HTTP exchange broke", exc_info=error)
        exchange.respond(500, b"Internal error; the server's log has the details\n")
        if exchange.streaming:
            exchange.abort()

    def gone(self, exchange: Exchange) -> None:
        """A client is gone: what is modern went with it, legacy calls go on."""
        self.exchanges.discard(exchange)
        if exchange.own is not None:
            self.host.closed(exchange.own)
        if exchange.session is not None and exchange.session is not exchange.own and not exchange.calls:
            self.left(exchange)
        tied, exchange.tied = exchange.tied, None
        if tied is not None:
            tied.lost("the client disconnected")

    def input_ended(self) -> None: ...
    def calls_ended(self) -> None: ...

    # ---------------------------------------------------------------- time

    def sweep(self, now_s: float) -> None:
        """Now and then: a sign of life on silent streams; what nobody uses is let go."""
        self._events.expire()
        for exchange in list(self.exchanges):
            if exchange.streaming and now_s - exchange.since_s > self.limits.stream_comment_s:
                exchange.put_raw(b": still here\n\n")
        for session in list(self._sessions.kept.values()):
            if not session.in_use and now_s - session.used_s > self.limits.session_idle_s:
                self._forget(session)
        self._sessions.expire(now_s)

    # ---------------------------------------------------------------- the end

    def drain(self, deadline_s: float) -> None:
        """Streams end; calls may still be answered."""
        for exchange in list(self.exchanges):
            if exchange.busy and exchange.own is not None:
                exchange.own.end_listens()
        for session in list(self._sessions.kept.values()):
            self.host.closed(session)
            if session.channel.stream is not None:
                session.channel.stream.end_stream()
        self._sessions.kept.clear()
        if self._old is not None:
            self._old.drain(deadline_s)

    def close(self) -> None:
        """At once."""
        for task in self.identifying:
            task.cancel()
        for exchange in list(self.exchanges):
            exchange.cancel_calls("the server is closing")
            exchange.abort()
        for session in list(self._sessions.kept.values()):
            self._end_session(session, "the server is closing")
        if self._old is not None:
            self._old.close()
