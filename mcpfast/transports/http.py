"""Streamable HTTP: one listener, its connections and its legacy sessions. What is hot stands in `_http`; what decides, here.

admit         may this Host, this Origin ask, and does it speak JSON and event streams
other         what is no plain POST to the endpoint: GET and DELETE of a session, OPTIONS, everything refused
session_for   the legacy session of a message (protocol notes, sections 7.1 and 9)
mirror_error  what the headers of 2026-07-28 must repeat (section 10)
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mcpfast._http import Front, HttpChannel
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
from mcpfast.transports.sockets import bind_tcp

if TYPE_CHECKING:
    from mcpfast._http import Head
    from mcpfast.limits import Limits
    from mcpfast.server.host import Host
    from mcpfast.transports.addresses import Address

T = TypeVar("T")
logger = logging.getLogger("mcpfast")
SWEEP_S = 1.0
GOOD_VALUES_MAX = 256  # header values that were found good and are known again; more are looked at each time
BACKLOG_MAX = 256  # messages to a legacy client that has no stream open
JSON, EVENTS = "application/json", "text/event-stream"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
LOOPBACK_ADDRESSES = ("localhost", "127.0.0.1", "::1")


class Outlet:
    """Where a legacy session sends what belongs to no request: its GET stream, or a bounded backlog until one is open."""

    __slots__ = ("backlog", "stream")

    def __init__(self) -> None:
        self.stream: HttpChannel | None = None
        self.backlog: list[bytes] = []

    def send(self, line: bytes) -> None:
        if self.stream is not None:
            self.stream.send(line)
        elif len(self.backlog) < BACKLOG_MAX:
            self.backlog.append(line)

    def attach(self, channel: HttpChannel) -> None:
        """From now on messages go there; those that waited first."""
        self.stream = channel
        waiting, self.backlog = self.backlog, []
        for line in waiting:
            channel.send(line)

    def requests(self) -> list[Any]:
        return []


class Recording:
    """The events of one stream of a legacy session, kept for a client that comes back with `Last-Event-ID` (section 9, H10)."""

    __slots__ = ("_recordings", "_session", "_standing", "_store", "name", "reader")

    def __init__(self, store: MemoryEventStore, session: HttpSession, *, standing: bool = False) -> None:
        self._standing = standing  # the session's own, which ends with it
        self._store = store
        self._session = session.key
        self._recordings = session.recordings
        self.name: str = _at_once(store.open(self._session))
        self.reader: HttpChannel | None = None  # came back, and is sent what comes now
        self._recordings[self.name] = self

    def add(self, data: bytes) -> bytes:
        """Keeps an event, sends it to the one who came back, and gives it as it stands in a stream."""
        id_ = _at_once(self._store.append(self._session, self.name, data))
        event = _event(id_, data)
        if self.reader is not None:
            self.reader.put_raw(event)
        return event

    def end(self) -> None:
        """No further event comes, unless it is the session's own stream."""
        if self._standing:
            return
        self._recordings.pop(self.name, None)
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.end_stream()


class HttpSession(Session):
    """A legacy session, named by `Mcp-Session-Id`; its exchanges may come over any connections."""

    __slots__ = ("exchanges", "id", "key", "own_recording", "recordings", "used_s")

    def __init__(self, limits: Limits, peer: Peer) -> None:
        super().__init__(limits, peer)
        self.id: bytes | None = None
        self.exchanges: set[HttpChannel] = set()
        self.used_s = 0.0
        self.key = ""  # its id as the event store has it
        self.recordings: dict[str, Recording] = {}
        self.own_recording: Recording | None = None  # of what belongs to no request
        self.channel: Any = Outlet()

    def find(self, id_: bytes) -> Any:
        """The request in flight with this id, on whichever connection it came."""
        for channel in self.exchanges:
            request = channel.own_call(id_)
            if request is not None:
                return request
        return None


class HttpListener:
    """Serves one address over HTTP. `start()` listens; `drain` and `close` end it."""

    def __init__(self, host: Host, address: Address) -> None:
        from httptools import HttpRequestParser

        limits = host.server.limits
        self.host = host
        self.limits = limits
        self.path = address.path
        self._socket = bind_tcp(address)
        self.address = address._replace(port=self._socket.getsockname()[1])
        # Who is asked by another name than loopback's is asked by a page that had its name resolve to us (DNS rebinding).
        self._hosts = LOOPBACK if address.host in LOOPBACK_ADDRESSES else None
        self._sessions: dict[bytes, HttpSession] = {}
        self._events = MemoryEventStore(
            limits.replay_events_max,
            limits.replay_bytes_max,
            limits.replay_s,
            session_events_max=limits.session_replay_events_max,
            session_bytes_max=limits.session_replay_bytes_max,
        )
        self._channels: set[HttpChannel] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        revisions = {version.encode() for version in MODERN_VERSIONS}
        self.front = Front(host.engine, self, self.path.encode(), HttpRequestParser, revisions, limits)

    async def start(self) -> None:
        self._server = await self.host.loop.create_server(self._connect, sock=self._socket, backlog=1024)
        self._sweep_later()

    def _connect(self) -> HttpChannel:
        channel = HttpChannel(self.front)
        channel.welcome = len(self._channels) < self.limits.connections_max
        if not channel.welcome:
            self.host.dispatcher.log_refusal("refused a connection: limits.connections_max is reached")
        self._channels.add(channel)
        return channel

    # ---------------------------------------------------------------- who may ask

    def admit(self, channel: HttpChannel, head: Head) -> bool:
        """Whether a message may come with these headers; else it is answered. What is good is known again."""
        if not self._admit_origin(channel, head):
            return False
        kind = head.header(b"content-type") or b""
        if kind.partition(b";")[0].strip().lower() != b"application/json":
            channel.respond(415, b"A message has the Content-Type application/json\n")
            return False
        accept = head.header(b"accept")
        if not _accepts(accept, JSON) or not _accepts(accept, EVENTS):
            channel.respond(406, b"Accept must name application/json and text/event-stream\n")
            return False
        _keep(self.front.types, kind.strip())
        if accept is not None:
            _keep(self.front.accepts, accept.strip())
        return True

    def _admit_origin(self, channel: HttpChannel, head: Head) -> bool:
        host = (head.header(b"host") or b"").strip()
        name = host.decode("latin-1").lower()
        bare = name.rpartition(":")[0] if name.rpartition(":")[2].isdigit() else name
        if self._hosts is not None and bare not in self._hosts:
            channel.respond(
                421,
                b"This Host is not served here: the server listens on loopback, and is asked for by localhost\n",
            )
            return False
        origin = head.header(b"origin")
        if origin is not None:
            where = origin.strip().decode("latin-1").lower().partition("://")[2]
            if where != name:
                channel.respond(403, b"This Origin may not ask: it is not the Host that is asked\n")
                return False
            _keep(self.front.origins, (origin.strip(), host))  # good for this Host, and no other
        _keep(self.front.hosts, host)
        return True

    # ---------------------------------------------------------------- what is no plain message

    def other(self, channel: HttpChannel, head: Head) -> None:
        """GET and DELETE of a session, OPTIONS, and everything that is refused."""
        if not self._admit_origin(channel, head):
            return
        path = head.target.partition(b"?")[0].decode("latin-1")
        if path != self.path:
            channel.respond(404, b"Nothing is served here\n")
        elif head.doubled:
            channel.respond(400, b"A header that may stand once stands twice\n")
        elif head.method == b"POST":
            if self.admit(channel, head):
                channel.take(head)
        elif head.protocol_version is not None and head.protocol_version in self.front.revisions:
            channel.respond(405, b"2026-07-28 has POST only\n", extra=b"Allow: POST\r\n")
        elif head.method == b"GET":
            self._open_stream(channel, head)
        elif head.method == b"DELETE":
            self._delete(channel, head)
        elif head.method == b"OPTIONS":
            channel.respond(204, extra=b"Allow: GET, POST, DELETE, OPTIONS\r\n")
        else:
            channel.respond(405, b"Not served here\n", extra=b"Allow: GET, POST, DELETE, OPTIONS\r\n")

    def _open_stream(self, channel: HttpChannel, head: Head) -> None:
        """The standalone stream of a session (section 9, H7 to H9)."""
        if not _accepts(head.header(b"accept"), EVENTS):
            channel.respond(406, b"Accept must name text/event-stream\n")
            return
        session = self._known_session(channel, head)
        if session is None:
            return
        last = head.header(b"last-event-id")
        if last is not None:
            self._resume(channel, session, last.decode("latin-1"))
        elif session.channel.stream is not None:
            channel.respond(409, b"This session has its stream open already\n")
        else:
            channel.session = session
            channel.start_stream()
            session.channel.attach(channel)

    def _resume(self, channel: HttpChannel, session: HttpSession, last: str) -> None:
        """The rest of the stream that `last` is an event of, and what it still gets (section 9, H10)."""
        replay = _at_once(self._events.replay(session.key, last))
        if replay is None:
            channel.respond(400, b"This Last-Event-ID is not known, or no longer\n")
            return
        recording = session.recordings.get(replay.stream)
        if (
            recording is not None
            and recording is session.own_recording
            and session.channel.stream is not None
        ):
            session.channel.stream.end_stream()  # the client lost that one, and we did not see it yet
        channel.session = session
        channel.resumes = True
        channel.start_stream()
        for event in replay.events:
            channel.put_raw(_event(event.id, event.data))
        if recording is None:
            channel.end_stream()
        elif recording is session.own_recording:
            channel.recording = recording
            session.channel.attach(channel)
        else:
            if recording.reader is not None:
                recording.reader.end_stream()
            recording.reader = channel

    def record(self, channel: HttpChannel) -> Recording | None:
        """Where the events of a stream that begins are kept; None for one that only repeats another. The client learns an event's
        id at once, so that it can come back even before the first message (2025-11-25 on)."""
        session = channel.session
        if channel.resumes or session is None or session.id is None:
            return None
        if channel.head is not None and channel.head.method == b"GET":
            recording = session.own_recording = session.own_recording or Recording(
                self._events, session, standing=True
            )
        else:
            recording = Recording(self._events, session)
        if session.revision is not None and session.revision.primes_streams:
            retry = b"retry: %d\n" % (1_000 * self.limits.retry_s)
            channel.put_raw(retry + recording.add(b""))
        return recording

    def _delete(self, channel: HttpChannel, head: Head) -> None:
        session = self._known_session(channel, head)
        if session is not None:
            self._end_session(session, "the client ended the session")
            channel.respond(204)

    # ---------------------------------------------------------------- legacy sessions

    def session_for(self, channel: HttpChannel, head: Head, opening: bool, readable: bool) -> Session | None:
        """The session of a legacy message, or None when that is answered already. `readable` False: what came is no JSON, and will
        be told so."""
        version = head.protocol_version
        if not readable or (opening and head.session_id is None):
            if len(self._sessions) >= self.limits.http_sessions_max:
                self.host.dispatcher.log_refusal("refused a session: limits.http_sessions_max is reached")
                channel.respond(503, b"Too many sessions; try again later\n", extra=b"Retry-After: 10\r\n")
                return None
            session = HttpSession(self.limits, self._peer(channel))
            channel.wire = None
            return session
        if version is not None and version.decode("latin-1") not in BY_VERSION:
            data = {"supported": list(MODERN_VERSIONS), "requested": version.decode("latin-1")[:80]}
            error = MCPError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)
            channel.reply_with(400, messages.error_line(error, id_null=False))
            return None
        known = self._known_session(channel, head)
        if known is not None:
            known.exchanges.add(channel)
            known.used_s = channel.since_s
            channel.wire = (
                self.host.server.answers.wires[known.revision.number] if known.revision is not None else None
            )
        return known

    def _known_session(self, channel: HttpChannel, head: Head) -> HttpSession | None:
        if head.session_id is None:
            error = MCPError(INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first")
            channel.reply_with(400, messages.error_line(error, id_null=False))
            return None
        session = self._sessions.get(head.session_id)
        if session is None:
            error = MCPError(INVALID_REQUEST, "This session is over: initialize again, without a session id")
            channel.reply_with(404, messages.error_line(error, id_null=False))
        return session

    def answered(self, channel: HttpChannel, status: int) -> None:
        """A legacy answer is about to leave: that of `initialize` names the session."""
        session = channel.session
        if session.id is None and session.state is legacy.OPEN:
            session.id = secrets.token_urlsafe(24).encode()
            session.key = session.id.decode()
            session.used_s = channel.since_s
            self._sessions[session.id] = session
            self.host.opened(session)
            channel.extra = b"Mcp-Session-Id: " + session.id + b"\r\n"

    def left(self, channel: HttpChannel) -> None:
        """An exchange of a legacy session is over."""
        session = channel.session
        if session is not None:
            session.exchanges.discard(channel)
            if session.channel.stream is channel:
                session.channel.stream = None
            for recording in list(session.recordings.values()):
                if recording.reader is channel:
                    recording.reader = None

    def _end_session(self, session: HttpSession, reason: str) -> None:
        if session.id is not None and self._sessions.pop(session.id, None) is not None:
            self.host.closed(session)
            _at_once(self._events.end(session.key))
        for channel in list(session.exchanges):
            channel.cancel_calls(reason)
        if session.channel.stream is not None:
            session.channel.stream.end_stream()

    # ---------------------------------------------------------------- 2026-07-28

    def modern_session(self, channel: HttpChannel) -> Session:
        """What a connection remembers of its modern requests: the one under way, and its listen stream."""
        if channel.own is None:
            channel.own = Session(self.limits, self._peer(channel))
            channel.own.channel = channel
            self.host.opened(channel.own)
        own: Session = channel.own
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
            _keep(self.front.plain_tools, name)
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

    # ---------------------------------------------------------------- what else the channel asks for

    def one_line(self, body: bytes) -> bytes:
        """A body that stands on several lines, on one: outside of strings a newline is a space, and inside there is none."""
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return b"-"
        return body.replace(b"\n", b" ")

    def broke(self, channel: HttpChannel, error: BaseException) -> None:
        """A fault of ours: the client is told that there was one."""
        logger.error("an HTTP exchange broke", exc_info=error)
        channel.respond(500, b"Internal error; the server's log has the details\n")

    def upgrade(self, channel: HttpChannel, head: Head | None) -> None:
        channel.refuse(400, b"No other protocol is served here\n")

    def gone(self, channel: HttpChannel) -> None:
        """A connection is over: modern calls went with it, legacy ones go on."""
        self._channels.discard(channel)
        if channel.own is not None:
            self.host.closed(channel.own)
        if channel.session is not None and channel.session is not channel.own and not channel.calls:
            self.left(channel)

    def input_ended(self) -> None: ...
    def calls_ended(self) -> None: ...

    def _peer(self, channel: HttpChannel) -> Peer:
        name = channel.transport.get_extra_info("peername")
        return Peer("http", f"{name[0]}:{name[1]}" if isinstance(name, tuple) else None)

    # ---------------------------------------------------------------- time

    def _sweep_later(self) -> None:
        self._sweep = self.host.loop.call_later(SWEEP_S, self._sweep_idle)

    def _sweep_idle(self) -> None:
        now = self.host.loop.time()
        self._events.expire()
        for channel in list(self._channels):
            silent_s = now - channel.since_s
            if channel.late(now, self.limits.head_s, self.limits.body_s):
                channel.transport.abort()
            elif channel.streaming and silent_s > self.limits.stream_comment_s:
                channel.put_raw(b": still here\n\n")
            elif not channel.busy and silent_s > self.limits.keep_alive_s:
                channel.transport.close()
        for session in list(self._sessions.values()):
            unused = not session.exchanges and session.channel.stream is None
            if unused and now - session.used_s > self.limits.session_idle_s:
                self._end_session(session, "the session was idle")
        self._sweep_later()

    # ---------------------------------------------------------------- the end

    def drain(self, deadline_s: float) -> None:
        """Ends listening; streams end, calls may until the deadline."""
        self._stop()
        for channel in list(self._channels):
            if not channel.busy:
                channel.transport.close()
                continue
            if channel.own is not None:
                channel.own.end_listens()
        for session in list(self._sessions.values()):
            self.host.closed(session)
            if session.channel.stream is not None:
                session.channel.stream.end_stream()
        self._sessions.clear()
        self.host.loop.call_later(deadline_s, self.close)

    def close(self) -> None:
        """At once."""
        self._stop()
        for channel in list(self._channels):
            channel.cancel_calls("the server is closing")
            if channel.transport is not None:
                channel.transport.abort()
        for session in list(self._sessions.values()):
            self._end_session(session, "the server is closing")

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None


def _event(id_: str, data: bytes) -> bytes:
    named = b"event: message\n" if data else b""  # one without data only tells its id
    return b"id: %s\n%sdata: %s\n\n" % (id_.encode(), named, data)


def _at_once(step: Coroutine[Any, Any, T]) -> T:
    """What a coroutine of the store in memory gives: it never waits. Stores that do come with the state backends."""
    try:
        step.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("an event store that waits cannot be used here")


def _keep(known: set[T], value: T) -> None:
    if len(known) < GOOD_VALUES_MAX:
        known.add(value)


def _accepts(header: bytes | None, kind: str) -> bool:
    """Whether an Accept header takes `kind` (RFC 9110, section 12.5.1; what weighs 0 does not count)."""
    if header is None:
        return False
    main = kind.partition("/")[0]
    for item in header.decode("latin-1").lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        if media in (kind, f"{main}/*", "*/*") and not any(
            part.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for part in parameters
        ):
            return True
    return False
