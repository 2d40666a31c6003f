"""An event stream (text/event-stream), read as it comes: any split of the bytes gives the same events.

WHATWG HTML, section 9.2.6 (interpreting an event stream), with two bounds that it does not have: an event
beyond `bytes_max` is told without its data, and an id beyond ID_BYTES_MAX is as none. The data stays bytes:
whoever reads it as JSON sees for itself whether it is UTF-8.
"""

from __future__ import annotations

from typing import NamedTuple

ID_BYTES_MAX = 4_096
RETRY_MS_MAX = 3_600_000  # no server may send a client to sleep for more than an hour
_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 16  # more than any name of a field and a BOM: a line may be so much longer than what it carries


class Event(NamedTuple):
    """One event: its type, "message" unless the server names another, and its data; None for too much data."""

    type: str
    data: bytes | None


class EventParser:
    """Bytes in, events out. One for each stream; `last_event_id` and `retry_ms` may be handed to the next."""

    __slots__ = (
        "_bytes_max",
        "_data",
        "_data_bytes",
        "_first",
        "_id",
        "_line",
        "_line_bytes_max",
        "_skip_lf",
        "_too_long",
        "_type",
        "last_event_id",
        "retry_ms",
    )

    def __init__(self, bytes_max: int, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self.last_event_id = last_event_id  # of the last event that is complete; "" for none
        self.retry_ms = retry_ms  # how long to wait before the stream is opened again, if the server said so
        self._bytes_max = bytes_max
        self._line_bytes_max = max(bytes_max, ID_BYTES_MAX) + _HEAD_BYTES
        self._id = last_event_id  # of the event that is being read
        self._type = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._too_long = False
        self._line = bytearray()  # one that has begun
        self._skip_lf = False  # the last byte was a CR: a LF belongs to it
        self._first = True  # line of the stream: a BOM may stand before it

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with these bytes, in order."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if not chunk:
            return []
        lines = chunk.splitlines()  # of bytes: at CR, LF and CRLF, and nowhere else
        rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        self._skip_lf = chunk.endswith(b"\r")
        events: list[Event] = []
        for line in lines:
            if self._line:
                self._begin(line)
                line = bytes(self._line)  # noqa: PLW2901
                self._line.clear()
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)  # noqa: PLW2901
            if line:
                self._field(line)
            else:
                self._dispatch(events)
        self._begin(rest)
        return events

    def _begin(self, part: bytes) -> None:
        """Keeps a part of a line; of one that is too long, no more than shows it."""
        if len(self._line) <= self._line_bytes_max + len(_BOM):
            self._line += part

    def _field(self, line: bytes) -> None:
        if len(line) > self._line_bytes_max:  # perhaps not all of it: what counts is what it would have been
            line = line[: line.find(b":") + 1]
            self._too_long = self._too_long or line == b"data:"
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._bytes_max + 1:
                self._too_long = True
            if self._too_long:
                self._data = []
            else:
                self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace") if len(value) <= ID_BYTES_MAX else ""
        elif name == b"retry" and value.isdigit():
            self.retry_ms = min(int(value[:18]), RETRY_MS_MAX)
        # A comment has no name; fields of other names are ignored.

    def _dispatch(self, events: list[Event]) -> None:
        self.last_event_id = self._id
        if self._too_long:
            events.append(Event(self._type or "message", None))
        elif self._data_bytes:
            events.append(Event(self._type or "message", b"\n".join(self._data)))
        self._type = ""
        self._data = []
        self._data_bytes = 0
        self._too_long = False
