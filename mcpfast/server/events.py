"""Resumable streams of legacy HTTP: what was sent on an event stream, for a client that comes back with `Last-Event-ID`.

    EventStore         what a store promises (protocol notes, section 9, H5 and H10); write your own to share it between machines
    MemoryEventStore   the one of this house: in this process, bounded by events, bytes and age

A stream belongs to a session. Whoever serves it opens it, appends what is sent, and writes each event with the id it is given.
The era of 2026-07-28 has no event ids, and none of this.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

# No id of ours is longer; what a client sends beyond is not looked at.
EVENT_ID_CHARACTERS_MAX = 64
STREAM_NAME_BYTES = 8


class Event(NamedTuple):
    """One event as it was sent: its id, and its data, empty for the one that primes a client (H5)."""

    id: str
    data: bytes


class Replay(NamedTuple):
    """What a client has missed on one stream, oldest first; perhaps nothing."""

    stream: str
    events: list[Event]


class EventStore(Protocol):
    """Keeps the events of streams for a while. A store may live elsewhere: every method may wait, and may raise what it likes.

    `session` is whatever the server calls a session, its principal included where there is one (H15): a store finds events only
    under the session they were appended to, so ids need not be secret. Ids and names are visible ASCII without spaces.
    """

    async def open(self, session: str) -> str:
        """A new stream's name, unlike any other's of the session, whichever process opened it."""

    async def append(self, session: str, stream: str, data: bytes) -> str:
        """Keeps an event and gives its id: unique in the session, telling its stream (H10). Calls for one stream come in order."""

    async def replay(self, session: str, event_id: str) -> Replay | None:
        """All later events of the stream that `event_id` is of, and of no other; None where the id is not known, or where some
        of the later ones are no longer kept. What is appended meanwhile may be missing: hold it back, and send it after these.
        """

    async def end(self, session: str) -> None:
        """The session is over: forgets its streams. Harmless for one that is unknown."""


class MemoryEventStore:
    """An EventStore in memory, for one event loop. When a bound is passed the oldest events go first.

    `session_events_max` and `session_bytes_max` hold for one session, so that a loud one spends its own share; `events_max` and
    `bytes_max` (of data) for all of them; an event older than `age_s` is gone. Nothing else is kept: a stream without events
    takes no memory. `now` gives seconds on a clock that never goes back, `random(n)` n random bytes.

    No method ever suspends: one `send(None)` runs it to its end. Each takes constant time, `replay` and `end` for each event
    that they give or forget. Raises ValueError for a bound below 1, or an age that is not above 0.
    """

    __slots__ = ("_age_s", "_all", "_last_number", "_now", "_random", "_sessions", "_share")

    def __init__(
        self,
        events_max: int = 10_000,
        bytes_max: int = 64 << 20,
        age_s: float = 3_600.0,
        *,
        session_events_max: int = 1_000,
        session_bytes_max: int = 8 << 20,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if min(events_max, bytes_max, session_events_max, session_bytes_max) < 1 or not age_s > 0:
            raise ValueError("the bounds of an event store must be at least 1, and its age above 0 s")
        self._all = _Queue(events_max, bytes_max)
        self._share = (session_events_max, session_bytes_max)
        self._age_s = age_s
        self._now = now
        self._random = random
        self._sessions: dict[str, _Session] = {}
        # The highest number of any stream that was forgotten: one that comes to life again goes on above it, so that none of
        # its ids is ever given twice.
        self._last_number = 0

    def __len__(self) -> int:
        """How many events are kept, those included that have expired since the last call of any method."""
        return len(self._all.events)

    @property
    def kept_bytes(self) -> int:
        """The data of these events."""
        return self._all.bytes

    async def open(self, session: str) -> str:
        return self._random(STREAM_NAME_BYTES).hex()  # known from its first event on

    async def append(self, session: str, stream: str, data: bytes) -> str:
        now = self._now()
        self._expire(now)
        owner = self._sessions.get(session)
        if owner is None:
            owner = self._sessions[session] = _Session(session, *self._share)
        record = owner.streams.get(stream)
        if record is None:
            record = owner.streams[stream] = _Stream(stream, owner, self._last_number)
        record.number += 1
        event = _Kept(record.number, data, now, record)
        record.events[event.number] = event
        owner.queue.add(event)
        self._all.add(event)
        while owner.queue.is_over():
            self._forget(owner.queue.oldest())
        while self._all.is_over():
            self._forget(self._all.oldest())
        return f"{stream}-{event.number}"

    async def replay(self, session: str, event_id: str) -> Replay | None:
        self.expire()
        if len(event_id) > EVENT_ID_CHARACTERS_MAX:
            return None
        name, _, digits = event_id.rpartition("-")
        owner = self._sessions.get(session)
        record = None if owner is None else owner.streams.get(name)
        if record is None or not (digits.isascii() and digits.isdecimal()) or digits[0] == "0":
            return None
        number = int(digits)
        # The newest of those that are gone is still good: all that came after it is here.
        if not (record.start < number and record.first - 1 <= number <= record.number):
            return None
        return Replay(
            name,
            [Event(f"{name}-{k}", record.events[k].data) for k in range(number + 1, record.number + 1)],
        )

    async def end(self, session: str) -> None:
        owner = self._sessions.get(session)
        while owner is not None and owner.queue.events:
            self._forget(owner.queue.oldest())

    def expire(self) -> None:
        """Forgets what is too old, as every append and replay does, too: for when there are none."""
        self._expire(self._now())

    def _expire(self, now: float) -> None:
        events = self._all.events
        while events and now - self._all.oldest().at_s >= self._age_s:
            self._forget(self._all.oldest())

    def _forget(self, event: _Kept) -> None:
        """Drops the oldest event of a session, which therefore is the oldest of its stream; and these two, if it was their last."""
        stream = event.stream
        owner = stream.session
        self._all.remove(event)
        owner.queue.remove(event)
        del stream.events[event.number]
        stream.first = event.number + 1
        if not stream.events:
            self._last_number = max(self._last_number, stream.number)
            del owner.streams[stream.name]
        if not owner.streams:
            del self._sessions[owner.name]


class _Kept:
    """An event in memory. `at_s` is when it was appended."""

    __slots__ = ("at_s", "data", "number", "stream")

    def __init__(self, number: int, data: bytes, at_s: float, stream: _Stream) -> None:
        self.number = number
        self.data = data
        self.at_s = at_s
        self.stream = stream


class _Stream:
    """A stream with events in memory. They have the numbers `first` to `number`; `start` is the one before its very first."""

    __slots__ = ("events", "first", "name", "number", "session", "start")

    def __init__(self, name: str, session: _Session, start: int) -> None:
        self.name = name
        self.session = session
        self.start = self.number = start
        self.first = start + 1
        self.events: dict[int, _Kept] = {}


class _Session:
    """A session with events in memory: its streams, and their events in the order they came."""

    __slots__ = ("name", "queue", "streams")

    def __init__(self, name: str, events_max: int, bytes_max: int) -> None:
        self.name = name
        self.streams: dict[str, _Stream] = {}
        self.queue = _Queue(events_max, bytes_max)


class _Queue:
    """Events in the order they came, and their bounds. An OrderedDict, since any of them may leave at any time."""

    __slots__ = ("_bytes_max", "_events_max", "bytes", "events")

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self.events: OrderedDict[int, _Kept] = OrderedDict()  # by identity
        self.bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max

    def add(self, event: _Kept) -> None:
        self.events[id(event)] = event
        self.bytes += len(event.data)

    def remove(self, event: _Kept) -> None:
        del self.events[id(event)]
        self.bytes -= len(event.data)
        if not self.events:
            self.events.clear()  # gives back the table, which keeps the size of its fullest day

    def oldest(self) -> _Kept:
        return next(iter(self.events.values()))

    def is_over(self) -> bool:
        return len(self.events) > self._events_max or self.bytes > self._bytes_max
