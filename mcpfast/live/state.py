"""A server as plain data: who is connected, what is in flight and where it waits, what stands in queues.

Nothing is remembered while nobody looks, and a look is taken in slices, so that ten thousand sessions stop no one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from time import monotonic
from typing import TYPE_CHECKING, Any

from mcpfast.errors import MCPError
from mcpfast.live.messages import Call, Lag, Snapshot, Threads, Transport, Unsent, Visitor
from mcpfast.live.places import UNDER_THREAD, awaited, frame_of, package_of, point_of, stack_of
from mcpfast.protocol import modern

if TYPE_CHECKING:
    from mcpfast._spine import Channel, Request
    from mcpfast.server.host import Host
    from mcpfast.server.session import Session

SLICE = 256  # sessions of one turn of the loop
LIMIT_MAX = 1_000
LISTEN = "subscriptions/listen"  # in flight for as long as the client likes: no call
TEXT_MAX, ID_MAX, POINT_MAX = 80, 24, 240


class State:
    """`look` is how the host is now. `exchanges` are those over HTTP, whether a session owns them or not."""

    def __init__(self, host: Host, addresses: list[str], exchanges: Callable[[], Iterable[Any]]) -> None:
        self._host = host
        self._addresses = addresses
        self._exchanges = exchanges
        self._heard: dict[int, tuple[int, float, bool]] = {}  # of each session: reads, since when, is it sure

    async def look(self, limit: int, lag: Lag) -> Snapshot:
        limit = max(0, min(limit, LIMIT_MAX))
        gathered = _Gathered(self, limit)
        for count, (session, channels) in enumerate(self._sessions()):
            gathered.add(session, channels)
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._heard = gathered.heard
        host, engine = self._host, self._host.engine
        made, parked, _ = engine.carriers.counts()
        return Snapshot(
            at_s=monotonic(),
            name=shown(host.server.name),
            version=shown(host.server.version),
            loop=type(host.loop).__module__.partition(".")[0],
            addresses=self._addresses,
            draining=engine.closing,
            answered=engine.answered,
            lag=lag,
            transports=sorted(gathered.transports.values(), key=lambda transport: transport.name),
            sessions=gathered.sessions,
            visitors=gathered.visitors(),
            calls=gathered.calls,
            oldest=gathered.oldest(),
            threads=self._threads(),
            warm_parked=parked,
            warm_made=made,
            unsent=gathered.unsent,
        )

    def _sessions(self) -> Iterator[tuple[Session | None, list[Channel]]]:
        """Every session with the channels that are its own now; under None what belongs to no session, or not yet."""
        met: set[int] = set()
        for session in list(self._host.sessions):
            channels = [*getattr(session, "exchanges", ()), session.channel]
            stream = getattr(
                session.channel, "stream", None
            )  # a legacy session over HTTP: its channel is an Outlet
            fresh = [one for one in (*channels, stream) if id(one) not in met and hasattr(one, "engine")]
            met.update(map(id, fresh))
            yield session, fresh
        rest = [one for one in list(self._exchanges()) if id(one) not in met]
        if any(one.calls for one in rest):
            yield None, rest

    def heard(self, session: Session, channels: list[Channel]) -> tuple[tuple[int, float, bool], float]:
        """What to remember of a session till the next look, and since when it has been silent (monotonic clock)."""
        clocks = (getattr(one, name, 0.0) for one, name in _clocks(session, channels))
        since_s = max(clocks, default=0.0)
        if since_s:  # over HTTP there is a clock already, the loop's
            return (0, since_s, True), monotonic() - (self._host.loop.time() - since_s)
        reads = sum(channel.reads for channel in channels)
        before = self._heard.get(id(session))
        if before is None:
            remembered = (reads, monotonic(), False)
        else:
            remembered = before if before[0] == reads else (reads, monotonic(), True)
        return remembered, remembered[1]

    def _threads(self) -> Threads:
        pool, most = self._host.server.pool, self._host.server.limits.threads_max
        if pool is None:
            return Threads(most)
        stats = pool.stats()
        return Threads(most, stats["threads"], stats["running"], stats["queued"])

    # ---------------------------------------------------------------- one call

    def call_of(self, request: Request) -> Call:
        session = request.channel.session
        point, threaded = self._point(request)
        return Call(
            what=request.entry.name or request.method,
            id=shown(request.id.decode(errors="replace"), ID_MAX),
            age_s=max(0.0, monotonic() - request.started_s),
            client=client_of(session, request),
            peer=peer_of(session),
            point=shown(point, POINT_MAX),
            threaded=threaded,
            cancelled=request.cancelled is not None,
        )

    def _point(self, request: Request) -> tuple[str, bool]:
        task = request.task
        if task is None:
            return "", False
        owner = getattr(request.entry, "owner", None)
        packages = {package_of(owner.handler.call)} - {"mcpfast"} if owner is not None else set()
        pool = self._host.server.pool
        if pool is not None:
            waiter: Any = getattr(task, "_fut_waiter", None)
            thread = pool.threads_of_calls().get(waiter)
            if thread is not None:
                frame = sys._current_frames().get(thread)
                return point_of(stack_of(frame, packages, UNDER_THREAD)), True
        frames = [frame_of(frame, packages) for frame in awaited(task)]
        if frames and frames[-1].function == "_Call.__await__":  # of the pool, and no thread has it
            return "the queue for a worker thread", False
        return point_of(frames), False


class _Gathered:
    """What one look has found so far."""

    def __init__(self, state: State, limit: int) -> None:
        self._state = state
        self._limit = limit
        self.heard: dict[int, tuple[int, float, bool]] = {}
        self.transports: dict[str, Transport] = {}
        self.sessions = self.calls = 0
        self.unsent = Unsent()
        self._requests: list[Request] = []
        self._silent: list[tuple[float, int, Session, list[Channel]]] = []

    def add(self, session: Session | None, channels: list[Channel]) -> None:
        name = session.peer.transport if session is not None else "http"
        transport = self.transports.setdefault(name, Transport(name))
        requests = [request for channel in channels for request in channel.requests()]
        calls = [request for request in requests if request.method != LISTEN]
        self.calls += len(calls)
        transport.calls += len(calls)
        transport.listens += len(requests) - len(calls)
        self._requests = nsmallest(self._limit, self._requests + calls, key=lambda one: one.started_s)
        if session is None:
            return
        self.sessions += 1
        transport.sessions += 1
        transport.busy += bool(calls)
        self.heard[id(session)], since_s = self._state.heard(session, channels)
        silent_s = max(0.0, monotonic() - since_s)
        transport.last_s = silent_s if transport.last_s is None else min(transport.last_s, silent_s)
        self._silent.append((-since_s, self.sessions, session, channels))
        if len(self._silent) > 2 * self._limit:
            self._silent = nsmallest(self._limit, self._silent)
        unsent = sum(channel.waiting_bytes for channel in channels)
        if unsent:
            self.unsent.total_bytes += unsent
            self.unsent.sessions += 1
            if unsent > self.unsent.most_bytes:
                self.unsent.most_bytes, self.unsent.most_of = unsent, who(session)

    def oldest(self) -> list[Call]:
        """A look takes more than one turn of the loop: what ended meanwhile is left out."""
        return [self._state.call_of(request) for request in self._requests if request.alive]

    def visitors(self) -> list[Visitor]:
        """Those heard from last."""
        found = []
        for since, _, session, channels in nsmallest(self._limit, self._silent):
            found.append(
                Visitor(
                    transport=session.peer.transport,
                    peer=peer_of(session),
                    client=client_of(session),
                    revision=session.revision.version if session.revision is not None else "",
                    calls=sum(channel.calls for channel in channels),
                    idle_s=max(0.0, monotonic() + since),
                    idle_at_least=not self.heard[id(session)][2],
                    unsent_bytes=sum(channel.waiting_bytes for channel in channels),
                )
            )
        return found


def _clocks(session: Session, channels: list[Channel]) -> list[tuple[Any, str]]:
    return [(session, "used_s")] if hasattr(session, "used_s") else [(one, "since_s") for one in channels]


def shown(text: str, most: int = TEXT_MAX) -> str:
    """What others wrote, as it may stand on a terminal: no control characters, and not too long."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def peer_of(session: Session | None) -> str:
    """The other end: "http 10.0.0.3:4123", "unix pid 812", "stdio"."""
    if session is None:
        return "http"
    peer = session.peer
    if peer.credentials is not None:
        return f"{peer.transport} pid {peer.credentials[0]}"
    return shown(f"{peer.transport} {peer.address}" if peer.address else peer.transport)


def client_of(session: Session | None, request: Request | None = None) -> str:
    """Name and version, as the client told them: when it initialized, or with this very request."""
    info = session.client_info if session is not None else None
    if info is None and request is not None and request.version is not None:
        try:
            info = modern.read_envelope(request.params).client_info
        except MCPError:
            return ""
    told = [info[name] for name in ("name", "version") if isinstance(info.get(name), str)] if info else []
    return shown(" ".join(told))


def who(session: Session) -> str:
    return f"{peer_of(session)} ({client_of(session)})" if client_of(session) else peer_of(session)
