"""Framing: any split of the bytes gives the same lines as a plain reference, and memory stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast import _core

LINE = st.binary(max_size=300).map(lambda raw: raw.replace(b"\n", b"\r"))


def reference(data: bytes, frame_bytes_max: int) -> list[bytes | None]:
    """The lines of `data`, newline included; None stands for one that is longer than allowed."""
    *whole, rest = data.split(b"\n")
    lines = [line + b"\n" if len(line) <= frame_bytes_max else None for line in whole]
    if len(rest) > frame_bytes_max:
        lines.append(None)
    return lines


@given(
    st.lists(LINE, max_size=30),
    st.lists(st.integers(1, 400), max_size=60),
    st.sampled_from([64, 100, 4096]),
    LINE,
)
def test_any_split_gives_the_same_lines(lines: list[bytes], cuts: list[int], block: int, rest: bytes) -> None:
    data = b"".join(line + b"\n" for line in lines) + rest
    inbox = _core.Inbox(_core.Blocks(block), 120)
    seen: list[bytes | None] = []
    at = 0
    for cut in [*cuts, len(data)]:
        seen += inbox.feed(data[at : at + cut]) if data[at : at + cut] else []
        at += cut
    assert seen == reference(data, 120)


def test_byte_by_byte() -> None:
    inbox = _core.Inbox(_core.Blocks(64), 1000)
    data = b"".join(b"%d" % n * (n % 7) + b"\n" for n in range(200))
    seen = [line for n in range(len(data)) for line in inbox.feed(data[n : n + 1])]
    assert seen == reference(data, 1000)


@pytest.mark.parametrize("length", [63, 64, 65, 1023, 1024, 1025, 70_000, 1 << 20])
def test_long_lines_come_whole(length: int) -> None:
    inbox = _core.Inbox(_core.Blocks(64), 1 << 21)
    assert inbox.feed(b"a\n" + b"x" * length) == [b"a\n"]
    assert inbox.feed(b"y\nz\n") == [b"x" * length + b"y\n", b"z\n"]


def test_a_line_too_long_is_told_once_and_never_kept() -> None:
    inbox = _core.Inbox(_core.Blocks(1024), 10_000)
    told: list[bytes | None] = []
    for _ in range(2_000):  # 8 MB
        told += inbox.feed(b"x" * 4_000)
    assert told == [None]
    assert inbox.skipping
    assert inbox.feed(b"tail\nnext\n") == [b"next\n"]
    assert not inbox.skipping
