"""The strict scan of one line, held to msgspec: what it passes a parser passes, what it refuses a parser refuses."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpfast import _core

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
ROUTED = ["jsonrpc", "id", "method", "params", "result", "error"]


def oracle(line: bytes) -> bool:
    """Whether msgspec takes the line, as one whole JSON value in strict UTF-8.

    A number beyond its range (1e999, 5,000 digits) is well-formed JSON all the same: it is refused later, as an argument.
    """
    try:
        line.decode()
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "out of range" in str(error) and second_opinion(line)
    return True


def second_opinion(line: bytes) -> bool:
    """What msgspec cannot say of a line once it met such a number: whether the rest of it is well-formed, too."""
    try:
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=int)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
    except ValueError:
        return False
    return True


def accepts(line: bytes) -> bool:
    kind, _ = _core.scan(line)
    return kind in ("message", "array", "scalar")


@given(JSON, st.booleans())
def test_every_json_value_is_taken(value: Any, ascii_only: bool) -> None:
    assert accepts(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(st.dictionaries(st.sampled_from([*ROUTED, "other"]), JSON, max_size=5), st.integers(0, 2))
def test_the_members_of_a_message_are_found(message: dict[str, Any], indent: int) -> None:
    line = json.dumps(message, separators=((",", ":"), (" , ", " : "), (",\t", ":\r"))[indent]).encode()
    kind, members = _core.scan(line)
    assert kind == "message"
    for name in ROUTED:
        assert (name in members) == (name in message)
        if name in members:
            assert json.loads(members[name]) == message[name]


@given(JSON, st.data())
@settings(max_examples=400)
def test_a_damaged_line_is_taken_exactly_when_a_parser_takes_it(value: Any, data: st.DataObject) -> None:
    line = bytearray(json.dumps({"id": 1, "params": value}, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "insert"]))
        byte = data.draw(
            st.sampled_from(b'"\\{}[]:,0123456789-+.eEtfn\x00\x1f\x7f\x80\xc0\xc2\xe0\xed\xf0\xf4\xff ud8')
        )
        if how == "change":
            line[at] = byte
        elif how == "cut":
            del line[at]
        else:
            line.insert(at, byte)
        if not line:
            return
    fixed = bytes(line).replace(b"\n", b" ")
    if fixed.strip(b" \t\r"):
        assert accepts(fixed) == oracle(fixed), fixed


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":"\\ud800"}',  # a lone high surrogate
        b'{"a":"\\udc00"}',
        b'{"a":"\\ud800\\u0041"}',
        b'{"a":"\\ud83dx"}',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',  # overlong
        b'{"a":"\xed\xa0\x80"}',  # an encoded surrogate
        b'{"a":"\xf4\x90\x80\x80"}',  # above U+10FFFF
        b'{"a":"\xe2\x82"}',
        b'{"a":"\x00"}',
        b'{"a":"\x1f"}',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":+1}',
        b'{"a":1e}',
        b'{"a":--1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":tru}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12g4"}',
        b'{"a" 1}',
        b'{"a":1,}',
        b"{,}",
        b"[1,]",
        b'{"a":1}}',
        b'{"a":1} x',
        b'{"a"',
        b'{"a":"b',
        b'\xef\xbb\xbf{"a":1}',
        b"\x00",
        b"{'a':1}",
    ],
)
def test_what_no_parser_takes_is_refused(line: bytes) -> None:
    assert _core.scan(line)[0] == "bad"
    assert not oracle(line)


def test_depth_is_bounded_and_the_id_in_front_is_known() -> None:
    deep = b'{"id":7,"params":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}"
    kind, members = _core.scan(deep, 256)
    assert kind == "deep"
    assert members["id"] == b"7"
    fits = b'{"id":7,"a":' + b"[" * 255 + b"]" * 255 + b"}"
    assert _core.scan(fits, 256)[0] == "message"
    over = b'{"id":7,"a":' + b"[" * 256 + b"]" * 256 + b"}"
    assert _core.scan(over, 256)[0] == "deep"


@pytest.mark.parametrize(
    "line",
    [
        b'{"\\u0069d":1}',
        b'{"id":1,"id":2}',
        b'{"params":{"name":"a","name":"b"}}',
        b'{"params":{"_meta":{},"_meta":{}}}',
    ],
)
def test_names_that_want_a_full_parser_are_marked(line: bytes) -> None:
    assert "odd" in _core.scan(line)[1]


def test_kinds() -> None:
    assert _core.scan(b"")[0] == _core.scan(b" \t\r")[0] == "blank"
    assert _core.scan(b"[1,2]")[0] == "array"
    assert _core.scan(b"5")[0] == _core.scan(b'"x"')[0] == "scalar"


def test_what_routing_needs_of_params_and_meta() -> None:
    line = json.dumps(
        {
            "params": {
                "name": "add",
                "arguments": {"a": [1, {"name": "inner"}]},
                "_meta": {
                    "progressToken": "p",
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
                    "io.modelcontextprotocol/logLevel": "info",
                },
            }
        }
    ).encode()
    _, members = _core.scan(line)
    assert members["name"] == b'"add"'
    assert json.loads(members["arguments"]) == {"a": [1, {"name": "inner"}]}
    assert members["progress_token"] == b'"p"'
    assert members["version"] == b'"2026-07-28"'
    assert json.loads(members["capabilities"]) == {"elicitation": {}}
    assert members["log_level"] == b'"info"'


@given(st.text())
@example('\x00\x1f"\\\n\r\t/\x7f é€𝄞' * 5)
@example("a" * 15 + '"')
@example("a" * 16 + "\x01" + "b" * 40)
def test_strings_are_written_as_json(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            _core.json_string(text)
        return
    assert json.loads(_core.json_string(text)) == text


@given(st.dictionaries(st.binary(min_size=1, max_size=24), st.integers(), max_size=120), st.data())
def test_the_table_is_a_dict(model: dict[bytes, int], data: st.DataObject) -> None:
    table = _core.Table()
    for key, value in model.items():
        table[key] = value
    for key in data.draw(st.sets(st.sampled_from(sorted(model)))) if model else set():
        del table[key]
        del model[key]
    assert len(table) == len(model)
    assert {key: table.get(key) for key in model} == model
    assert table.get(b"\xff" * 30) is None


def test_the_table_keeps_its_values_alive_and_lets_them_go() -> None:
    class Value:
        pass

    table, value = _core.Table(), Value()
    before = sys.getrefcount(value)
    table[b"k"] = value
    assert sys.getrefcount(value) == before + 1
    table[b"k"] = None
    assert sys.getrefcount(value) == before
