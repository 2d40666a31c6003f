"""Legacy sessions over HTTP (protocol notes, section 9): what belongs to one, where they are kept, how an id finds one.

HttpSession        one session, over any connections
Outlet, Recording  where it sends what belongs to no request; what a client that comes back may still get
StatefulSessions   kept in this process; SealedSessions: in their ids; NoSessions: not at all
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mcpfast.protocol import legacy
from mcpfast.protocol.revisions import BY_VERSION
from mcpfast.server.events import MemoryEventStore
from mcpfast.server.session import Peer, Session

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._exchange import Exchange, Head
    from mcpfast._spine import Request, Wire
    from mcpfast.limits import Limits
    from mcpfast.server.sealed import Sealer

T = TypeVar("T")
BACKLOG_MAX = 256  # messages to a legacy client that has no stream open
SEAL_PURPOSE = "session"
SEALED_BYTES_MAX = 2_048  # of what was negotiated; above it only the capabilities below
SERVED = ("elicitation", "sampling", "roots")
UNNAMED_REVISION = "2025-03-26"  # a client without sessions that names none (H17)


class Outlet:
    """Where a legacy session sends what belongs to no request: its GET stream, or a bounded backlog until one is open."""

    __slots__ = ("backlog", "stream")

    def __init__(self) -> None:
        self.stream: Exchange | None = None
        self.backlog: list[bytes] = []

    def send(self, line: bytes) -> None:
        if self.stream is not None:
            self.stream.send(line)
        elif len(self.backlog) < BACKLOG_MAX:
            self.backlog.append(line)

    def attach(self, exchange: Exchange) -> None:
        """From now on messages go there; those that waited first."""
        self.stream = exchange
        waiting, self.backlog = self.backlog, []
        for line in waiting:
            exchange.send(line)

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
        self.name: str = at_once(store.open(self._session))
        self.reader: Exchange | None = None  # came back, and is sent what comes now
        self._recordings[self.name] = self

    def add(self, data: bytes) -> bytes:
        """Keeps an event, sends it to the one who came back, and gives it as it stands in a stream."""
        id_ = at_once(self._store.append(self._session, self.name, data))
        text = event(id_, data)
        if self.reader is not None:
            self.reader.put_raw(text)
        return text

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

    __slots__ = ("_caller", "exchanges", "id", "key", "own_recording", "recordings", "used_s", "wire")

    def __init__(self, limits: Limits, peer: Peer, caller: Caller | None = None) -> None:
        super().__init__(limits, peer)
        self._caller = caller
        self.id: bytes | None = None
        self.exchanges: set[Exchange] = set()
        self.used_s = 0.0
        self.key = ""  # its id as the event store has it
        self.recordings: dict[str, Recording] = {}
        self.wire: Wire | None = None  # of its revision
        self.own_recording: Recording | None = None  # of what belongs to no request
        self.channel: Any = Outlet()

    @property
    def caller(self) -> Caller | None:
        """Who opened it, where tenants are served; for everybody else it does not exist."""
        return self._caller

    @caller.setter
    def caller(self, caller: Caller | None) -> None:
        self._caller = caller

    @property
    def listening(self) -> Exchange | None:
        stream: Exchange | None = self.channel.stream
        return stream

    def calls(self) -> Iterator[Request]:
        for exchange in self.exchanges:
            yield from exchange.requests()

    def cut_off(self) -> None:
        super().cut_off()
        if self.channel.stream is not None:
            self.channel.stream.end_stream()

    @property
    def in_use(self) -> bool:
        """A request is under way, or its stream is open."""
        return bool(self.exchanges) or self.channel.stream is not None

    @property
    def as_made(self) -> bool:
        """No message has left anything in it, and none is under way."""
        outlet = self.channel
        left = (
            self.id
            or self.log_level
            or self.client_info
            or self.capabilities
            or self.subscriptions is not None
            or self.listens is not None
            or self._last_question
            or self.exchanges
            or self.recordings
            or outlet.backlog
            or outlet.stream
        )
        return self.state is legacy.READY and not left

    def find(self, id_: bytes) -> Any:
        """The request in flight with this id, on whichever connection it came."""
        for exchange in self.exchanges:
            request = exchange.own_call(id_)
            if request is not None:
                return request
        return None


def binding_of(caller: Caller | None) -> bytes:
    """What a sealed id is bound to."""
    return b"" if caller is None else msgspec.json.encode(caller.key)


class StatefulSessions:
    """The sessions of one endpoint, in this process."""

    offered = True
    ids_are_all = True  # a session is here, or there is none

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.kept: dict[bytes, HttpSession] = {}

    def full(self, caller: Caller | None) -> bool:
        """No further session of this caller's fits."""
        return is_full(self.kept.values(), caller, self.limits.http_sessions_max)

    def add(self, session: HttpSession) -> bytes:
        """Names a session that `initialize` opened, and keeps it."""
        return self._keep(session, self._name(session))

    def _name(self, session: HttpSession) -> bytes:
        return secrets.token_urlsafe(24).encode()

    def _keep(self, session: HttpSession, id_: bytes) -> bytes:
        session.id = id_
        session.key = hashlib.blake2b(id_, digest_size=16).hexdigest()
        self.kept[id_] = session
        return id_

    def find(self, exchange: Exchange, head: Head, make: Callable[[], HttpSession]) -> HttpSession | None:
        """The session that a request names, or None. `make` gives a new one, where the id is all that is needed."""
        return of_caller(self.kept.get(head.session_id or b""), exchange)

    def take_out(self, session: HttpSession, *, for_good: bool) -> bool:
        """Forgets a session; `for_good`: its client ended it, and it does not come back. False: it was not here."""
        return session.id is not None and self.kept.pop(session.id, None) is not None

    def expire(self, now_s: float) -> None: ...


class SealedState(msgspec.Struct, array_like=True):
    """What a sealed id carries."""

    revision: str
    capabilities: dict[str, Any]
    client_info: dict[str, Any] | None


class SealedSessions(StatefulSessions):
    """Their ids carry what was negotiated, sealed under the server's keys; what is kept here is only what needs memory.

    When there are too many the one that was unused longest is let go: its id brings it back.
    """

    ids_are_all = False

    def __init__(
        self,
        limits: Limits,
        sealer: Sealer,
        opened: Callable[[HttpSession], None],
        evict: Callable[[HttpSession], None],
    ) -> None:
        super().__init__(limits)
        self._sealer = sealer
        self._opened = opened
        self._evict = evict
        self._ended: dict[bytes, float] = {}  # ids that a client ended, until they would have expired

    def full(self, caller: Caller | None) -> bool:
        if super().full(caller):
            idle = [session for session in self.kept.values() if not session.in_use]
            oldest = next((session for session in idle if is_of_tenant(session, caller)), None)
            if oldest is None and len(self.kept) >= self.limits.http_sessions_max:
                oldest = next(iter(idle), None)
            if oldest is not None:
                self._evict(oldest)
        return super().full(caller)

    def _name(self, session: HttpSession) -> bytes:
        info = session.client_info and {
            name: value for name, value in session.client_info.items() if name in ("name", "version", "title")
        }
        assert session.revision is not None  # `initialize` was answered
        capabilities = session.capabilities
        payload = msgspec.json.encode(SealedState(session.revision.version, capabilities, info))
        if (
            len(payload) > SEALED_BYTES_MAX
        ):  # it is sent with every request: what the server has use for is enough
            capabilities = {name: capabilities[name] for name in SERVED if name in capabilities}
            payload = msgspec.json.encode(SealedState(session.revision.version, capabilities, None))
        return self._sealer.seal(
            payload,
            purpose=SEAL_PURPOSE,
            binding=binding_of(session.caller),
            ttl_s=self.limits.sealed_session_s,
        ).encode()

    def find(self, exchange: Exchange, head: Head, make: Callable[[], HttpSession]) -> HttpSession | None:
        id_ = head.session_id or b""
        kept = self.kept.pop(id_, None)
        if kept is not None:
            self.kept[id_] = kept  # the last in use stands last
            return of_caller(kept, exchange)
        if id_ in self._ended:
            return None
        from mcpfast.server.sealed import SealError

        try:
            binding = binding_of(exchange.caller)
            payload = self._sealer.open(id_.decode("latin-1"), purpose=SEAL_PURPOSE, binding=binding)
        except SealError:
            return None
        state = msgspec.json.decode(payload, type=SealedState)
        session = make()
        session.state, session.revision = legacy.READY, BY_VERSION[state.revision]
        session.capabilities, session.client_info = state.capabilities, state.client_info
        if not self.full(exchange.caller):
            session.used_s = exchange.since_s
            self._keep(session, id_)
            self._opened(session)
        return session

    def take_out(self, session: HttpSession, *, for_good: bool) -> bool:
        if for_good and session.id is not None:
            while len(self._ended) >= self.limits.http_sessions_max:
                del self._ended[next(iter(self._ended))]
            self._ended[session.id] = session.used_s + self.limits.sealed_session_s
        return super().take_out(session, for_good=for_good)

    def expire(self, now_s: float) -> None:
        while self._ended:
            first = next(iter(self._ended))
            if self._ended[first] > now_s:
                return
            del self._ended[first]


class NoSessions(StatefulSessions):
    """Each message stands alone: its session lives as long as its exchange, under the revision that its header names."""

    offered = False
    ids_are_all = False

    def full(self, caller: Caller | None) -> bool:
        return False

    def find(self, exchange: Exchange, head: Head, make: Callable[[], HttpSession]) -> HttpSession | None:
        session = make()
        named = head.protocol_version or UNNAMED_REVISION.encode()
        session.state, session.revision = legacy.READY, BY_VERSION[named.decode("latin-1")]
        return session


def is_full(sessions: Collection[Session], caller: Caller | None, sessions_max: int) -> bool:
    """Whether no further session of this caller's fits. Where tenants are served, each holds at most what it leaves free for the
    others: one alone gets half of the room, and whoever comes new finds some."""
    free = sessions_max - len(sessions)
    if caller is None or len(sessions) < free:  # nobody's share can be used up
        return free <= 0
    return sum(is_of_tenant(session, caller) for session in sessions) >= free


def is_of_tenant(session: Session, caller: Caller | None) -> bool:
    """Whether a session is of this caller's tenant; where none are served, all are."""
    return caller is None or (session.caller is not None and session.caller.tenant is caller.tenant)


def of_caller(session: HttpSession | None, exchange: Exchange) -> HttpSession | None:
    """The session, if it was opened by whose exchange this is."""
    if session is None or exchange.caller is None or exchange.caller.is_same(session.caller):
        return session
    return None


def event(id_: str, data: bytes) -> bytes:
    """One event as it stands in a stream."""
    named = b"event: message\n" if data else b""  # one without data only tells its id
    return b"id: %s\n%sdata: %s\n\n" % (id_.encode(), named, data)


def at_once(step: Coroutine[Any, Any, T]) -> T:
    """What a coroutine of the store in memory gives: it never waits. Stores that do come with the state backends."""
    try:
        step.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("an event store that waits cannot be used here")
