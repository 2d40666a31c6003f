"""Plain scalars that the core reads by itself: what it reads is what msgspec reads, and what it leaves alone, msgspec decides."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpfast import MCPServer
from mcpfast._entry import Entry
from tests.wire import REVISIONS, connected, run

server: MCPServer[Any] = MCPServer("scalars", version="1")


@server.tool
async def mixed(text: str, n: int = 7, on: bool = False, *, more: str = "t") -> str:
    return json.dumps([text, n, on, more])


@server.tool
async def umlaut(größe: int) -> int:  # noqa: PLC2401 - users name theirs so
    return größe


@server.tool
async def number(n: float) -> float:
    return n


@server.tool
async def short(text: Annotated[str, msgspec.Meta(max_length=3)]) -> str:
    return text


@server.tool
async def nothing() -> int:
    return 0


def entry(name: str) -> Entry:
    found: Entry = server.catalog.table.get(name.encode())
    return found


def by_msgspec(name: str, raw: bytes) -> tuple[Any, ...] | None:
    """The same arguments by msgspec; None where it refuses them."""
    signature = entry(name).owner.signature
    try:
        read = signature.decode(raw)
    except msgspec.DecodeError:
        return None
    return tuple(getattr(read, field) for field in entry(name).owner.handler.fields)


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ('{"text":"a"}', ("a", 7, False, "t")),
        ('{"text":""}', ("", 7, False, "t")),
        ('{"text":"ä€😀"}', ("ä€😀", 7, False, "t")),
        ('{"text":"' + "x" * 15 + '"}', ("x" * 15, 7, False, "t")),
        ('{"text":"' + "x" * 16 + '"}', ("x" * 16, 7, False, "t")),
        ('{"text":"' + "x" * 1000 + 'ß"}', ("x" * 1000 + "ß", 7, False, "t")),
        ('{"on":true,"n":0,"more":"u","text":"a"}', ("a", 0, True, "u")),
        (' { "text" : "a" , "n" : 123456789012345678 } '.strip(), ("a", 123456789012345678, False, "t")),
        ('{\t"text":"a","on":false}', ("a", 7, False, "t")),
    ],
)
def test_what_is_plain_is_read_here(raw: str, read: tuple[Any, ...]) -> None:
    assert entry("mixed").scalars_of(raw.encode()) == read == by_msgspec("mixed", raw.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"text":"a\\n"}',
        b'{"te\\u0078t":"a"}',
        b'{"text":"a","text":"b"}',
        b'{"text":"a","n":-1}',
        b'{"text":"a","n":1.0}',
        b'{"text":"a","n":1234567890123456789}',
        b'{"text":"a","n":"1"}',
        b'{"text":null}',
        b'{"text":"\xff"}',
        b'{"text":"\xed\xa0\x80"}',
        b'{"text":"a\x01"}',
        b'{"text":"a","n":01}',
        b'{"text":"a","n":}',
        b'{"text":"a","on":tru}',
        b'{"text":"a","on":1}',
        b'{"text":"a",}',
        b'{"text":"a"}}',
        b'{"text":"a"',
        b'{"text":"a',
        b'{"text"',
        b'{"text":"a" "n":1}',
        b'{"text" "a"}',
        b'{"texts":"a"}',
        b'{"Text":"a"}',
        b'{"n":1}',
        b"{}",
        b"{",
        b"[]",
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_msgspec(raw: bytes) -> None:
    assert entry("mixed").scalars_of(raw) is None


def test_which_tools_have_plain_scalars() -> None:
    assert entry("umlaut").scalars_of('{"größe":3}'.encode()) == (3,)
    assert entry("umlaut").scalars_of(b'{"gr\\u00f6\\u00dfe":3}') is None
    assert entry("nothing").scalars_of(b"{}") == ()
    assert entry("number").scalars_of(b'{"n":1}') is None, "how a number becomes a float is msgspec's"
    assert entry("short").scalars_of(b'{"text":"a"}') is None, "a constraint is msgspec's"


PIECES = st.sampled_from(
    [
        *('"text"', '"n"', '"on"', '"more"', '"text', ":", ",", "{", "}", " ", "\t", '"', "\\", "\\u0041"),
        *("0", "1", "-1", "1e5", "999999999999999999", "9999999999999999999", "true", "false", "null"),
        *('"a"', '"ä"', '"\x7f"', '"\x1f"', "x"),
    ]
)
SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
OBJECTS = st.dictionaries(st.sampled_from(["text", "n", "on", "more", "other"]), SCALARS)


@given(
    st.one_of(
        st.lists(PIECES, max_size=14).map(lambda pieces: "".join(pieces).encode()),
        st.lists(PIECES, max_size=10).map(lambda pieces: ("{" + "".join(pieces) + "}").encode()),
        OBJECTS.map(lambda data: json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")),
        OBJECTS.map(lambda data: msgspec.json.encode(data) if all(map(_writable, data.values())) else b"{}"),
        st.binary(max_size=40),
    )
)
@settings(max_examples=2_000)
def test_what_is_read_here_is_what_msgspec_reads(raw: bytes) -> None:
    if b"\n" in raw:
        return  # no line has one inside
    found = entry("mixed").scalars_of(raw)
    if found is not None:
        expected = by_msgspec("mixed", raw)
        assert found == expected
        assert list(map(type, found)) == list(map(type, expected or ()))


def _writable(value: Any) -> bool:
    try:
        return bool(msgspec.json.encode(value))
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
        return False


@pytest.mark.parametrize("revision", REVISIONS)
def test_defaults_and_keywords_reach_the_handler(revision: str) -> None:
    async def scenario() -> None:
        async with connected(server, revision) as wire:
            for _ in range(3):
                for arguments, expected in (
                    ({"text": "a"}, ["a", 7, False, "t"]),
                    ({"text": "b", "n": 1, "on": True, "more": "c"}, ["b", 1, True, "c"]),
                    ({"text": "b\n", "n": -1}, ["b\n", -1, False, "t"]),
                ):
                    called = await wire.ask("tools/call", {"name": "mixed", "arguments": arguments})
                    assert json.loads(called["result"]["content"][0]["text"]) == expected

    run(scenario())
