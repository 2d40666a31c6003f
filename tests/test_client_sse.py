"""The event-stream parser against the rules of WHATWG HTML, and against any split of the bytes."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.client.sse import ID_BYTES_MAX, RETRY_MS_MAX, Event, EventParser

BYTES_MAX = 1_000


def parsed(stream: bytes, *cuts: int, bytes_max: int = BYTES_MAX) -> tuple[list[Event], str, int | None]:
    parser = EventParser(bytes_max)
    events: list[Event] = []
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        events += parser.feed(stream[start:end])
    return events, parser.last_event_id, parser.retry_ms


def read_plainly(stream: bytes) -> tuple[list[tuple[str, str]], str, int | None]:
    """The same by the letter of section 9.2.6, over the whole text at once."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[tuple[str, str]] = []
    kind, data, buffer, last, retry = "", "", "", "", None
    lines = re.split("\r\n|\n|\r", text)
    for line in lines[:-1]:
        if line == "":
            last = buffer
            if data:
                events.append((kind or "message", data.removesuffix("\n")))
            kind = data = ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            buffer = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = min(int(value), RETRY_MS_MAX)
    return events, last, retry


@pytest.mark.parametrize(
    ("stream", "events", "last_event_id", "retry_ms"),
    [
        (b"data: a\n\n", [("message", b"a")], "", None),
        (b"data:a\r\rdata:  b\r\n\r\n", [("message", b"a"), ("message", b" b")], "", None),
        (b"data: 1\ndata: 2\ndata\n\n", [("message", b"1\n2\n")], "", None),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("message", b"b")], "", None),
        (b"event: x\n\ndata: b\n\n", [("message", b"b")], "", None),  # no data, no event
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("message", b"a")], "", None),
        (b": hello\n:\ndata: a\n: again\n\n", [("message", b"a")], "", None),
        (b"id: 7\nretry: 250\ndata:\n\n", [("message", b"")], "7", 250),  # the priming event
        (b"id: 7\n\n", [], "7", None),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [("message", b"a"), ("message", b"b")], "7", None),
        (b"id: 7\ndata: a\n\nid\ndata: b\n\n", [("message", b"a"), ("message", b"b")], "", None),
        (b"id: 7\ndata: a\n\nid: 8\0\ndata: b\n\n", [("message", b"a"), ("message", b"b")], "7", None),
        (b"id: 7\ndata: a\n\nid: 8\ndata: b\n", [("message", b"a")], "7", None),  # the second never ends
        (b"retry: 1s\nretry: -1\nretry:\nretry: 99999999999999999999\n\n", [], "", RETRY_MS_MAX),
        (b"datax: a\ndat: a\n data: a\n\n", [], "", None),
        ("id: ä\ndata: ü\n\n".encode(), [("message", "ü".encode())], "ä", None),
    ],
)
def test_by_the_letter(
    stream: bytes, events: list[tuple[str, bytes]], last_event_id: str, retry_ms: int | None
) -> None:
    assert parsed(stream) == (events, last_event_id, retry_ms)
    assert parsed(stream, *range(len(stream))) == (events, last_event_id, retry_ms)


WORDS = b"data event id retry : 12 a {} \0 \xef\xbb\xbf \xc3\xa4".split(b" ")
PIECES = st.sampled_from([*WORDS, b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x" * 50])


@given(pieces=st.lists(PIECES, max_size=60), data=st.data())
def test_any_split_gives_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    events, last_event_id, retry_ms = parsed(stream, *cuts)
    assert (events, last_event_id, retry_ms) == parsed(stream)
    shown = [(kind, None if held is None else held.decode("utf-8", "replace")) for kind, held in events]
    if all(held is not None for _, held in shown):
        assert (shown, last_event_id, retry_ms) == read_plainly(stream)


LONG = st.sampled_from([b"data", b"id", b"x", b"\xef\xbb\xbfdata", b"\xef\xbb\xbfid", b""])


@given(
    lines=st.lists(st.tuples(LONG, st.integers(ID_BYTES_MAX - 30, ID_BYTES_MAX + 40)), max_size=4),
    bytes_max=st.sampled_from([10, ID_BYTES_MAX - 7, ID_BYTES_MAX + 7]),
    data=st.data(),
)
def test_any_split_gives_the_same_near_the_bounds(
    lines: list[tuple[bytes, int]], bytes_max: int, data: st.DataObject
) -> None:
    stream = b"".join(name + b":" + b"y" * length + b"\n" for name, length in lines) + b"data: z\n\n"
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    whole = parsed(stream, bytes_max=bytes_max)
    assert parsed(stream, *cuts, bytes_max=bytes_max) == whole
    assert parsed(stream, *range(len(stream)), bytes_max=bytes_max) == whole


def test_bounds() -> None:
    assert parsed(b"data: " + b"x" * BYTES_MAX + b"\n\n")[0] == [("message", b"x" * BYTES_MAX)]
    too_long = b"id: 1\ndata: " + b"x" * (BYTES_MAX + 1) + b"\n\ndata: next\n\n"
    assert parsed(too_long) == ([("message", None), ("message", b"next")], "1", None)
    many = b"data: xxxxxxxxx\n" * 101
    assert parsed(many + b"\ndata: next\n\n")[0] == [("message", None), ("message", b"next")]
    assert parsed(b"data: a\nid: " + b"i" * (ID_BYTES_MAX + 1) + b"\n\n") == ([("message", b"a")], "", None)
    assert parsed(b":" + b"c" * 10_000 + b"\ndata: a\n\n")[0] == [("message", b"a")]


def test_a_line_without_end_is_not_kept() -> None:
    parser = EventParser(BYTES_MAX)
    for _ in range(1_000):
        assert parser.feed(b"data: " + b"x" * 10_000) == []
    assert len(parser._line) < 20_000
    assert parser.feed(b"\n\n") == [("message", None)]


def test_what_is_handed_on_to_the_next_stream() -> None:
    parser = EventParser(BYTES_MAX, "41", 10)
    assert parser.feed(b"data: a\n\n") == [("message", b"a")]
    assert (parser.last_event_id, parser.retry_ms) == ("41", 10)
