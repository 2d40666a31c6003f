"""What handlers return, as content blocks, prompt messages and resource contents."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime as dt
import decimal
import pathlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.protocol import types
from mcpfast.server import encoding
from mcpfast.server.content import (
    AssistantMessage,
    Audio,
    Image,
    Message,
    ToolResult,
    UserMessage,
    to_call_result,
    to_prompt_messages,
    to_prompt_result,
    to_resource_contents,
)
from mcpfast.server.signature import Signature


class Context:
    pass


class Point(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Box:
    point: Point


class Person:
    name: str
    nick: str

    def __init__(self, name: str) -> None:
        self.name = name


def wire(value: Any) -> Any:
    return msgspec.to_builtins(value)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def returning(kind: Any, **options: Any) -> Signature:
    def handler() -> Any: ...

    handler.__annotations__ = {"return": kind}
    return Signature.of(handler, context_type=Context, **options)


PNG = b"\x89PNG"
PICTURE = {"type": "image", "data": base64.b64encode(PNG).decode(), "mimeType": "image/png"}
LINK = types.ResourceLink(name="n", uri="a:b")
TEXT_CONTENTS = types.TextResourceContents(uri="a:c", text="t")
BYTES = {
    "type": "resource",
    "resource": {"uri": "mcpfast:bytes", "mimeType": "application/octet-stream", "blob": "aGk="},
}


# ------------------------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("a \u2028 é", [text("a \u2028 é")]),
        ("", [text("")]),
        (None, []),
        (5, [text("5")]),
        (True, [text("true")]),
        ({"a": {1}}, [text('{"a":[1]}')]),
        ({"big": 10**30, "x": {1: 2}}, [text('{"big":1000000000000000000000000000000,"x":{"1":2}}')]),
        (Point(1), [text('{"x":1}')]),
        (Box(Point(1)), [text('{"point":{"x":1}}')]),
        ([Box(Point(1)), Person("Ann")], [text('[{"point":{"x":1}},{"name":"Ann"}]')]),
        ([], [text("[]")]),
        (["a", 1], [text('["a",1]')]),
        (("a", 1), [text('["a",1]')]),
        (b"hi", [BYTES]),
        (bytearray(b"hi"), [BYTES]),
        (memoryview(b"hi"), [BYTES]),
        (Image(data=PNG), [PICTURE]),
        (types.TextContent(text="t"), [text("t")]),
        (LINK, [wire(LINK)]),
        (TEXT_CONTENTS, [{"type": "resource", "resource": {"uri": "a:c", "text": "t"}}]),
        (
            ["a", Image(data=PNG), {"k": 1}, None, (b"hi", 2)],
            [text("a"), PICTURE, text('{"k":1}'), BYTES, text("2")],
        ),
    ],
    ids=repr,
)
def test_a_value_without_a_schema_becomes_blocks(value: Any, content: list[Any]) -> None:
    assert wire(to_call_result(value)) == {"content": content}
    assert wire(to_call_result(value, returning(Any))) == {"content": content}


class Named:
    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return self._name


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (Named('a " b'), [text('"a \\" b"')]),
        ({"a": [Named("n"), 1]}, [text('{"a":["n",1]}')]),
        ([Named("n"), 1], [text('["n",1]')]),
        ([Named("n"), Image(data=PNG)], [text('"n"'), PICTURE]),
        (1j, [text('"1j"')]),
        (ValueError("no"), [text('"no"')]),
    ],
    ids=repr,
)
def test_without_a_promise_an_object_is_what_str_says(value: Any, content: list[Any]) -> None:
    assert wire(to_call_result(value, returning(Any))) == {"content": content}
    assert wire(to_call_result(value, of_nothing())) == {"content": content}


def test_without_a_promise_an_iterator_is_a_list() -> None:
    assert wire(to_call_result((n for n in [1, Named("n")]), of_nothing())) == {"content": [text('[1,"n"]')]}


def of_nothing() -> Signature:
    return Signature.of(lambda: None, context_type=Context)


@pytest.mark.parametrize("kind", [str, dict[str, Any], list[Any], object, list, Named, Image, None], ids=str)
def test_what_promises_something_else_tells_nothing_of_an_object(kind: Any) -> None:
    for signature in (returning(kind), returning(kind, structured_output=False)):
        for value in (Named("secret"), [Named("secret")], {"a": Named("secret")}):
            with pytest.raises(TypeError) as caught:
                to_call_result(value, signature)
            assert "secret" not in str(caught.value)


def test_some_mistakes_are_mistakes_even_without_a_promise() -> None:
    for value, message in (
        ({"image": Image(data=b"")}, "a result of type Image cannot be written"),
        ({(1, 2): Named("n")}, "keys of type tuple"),
        ({"a": Named("\ud800")}, "lone surrogate"),
    ):
        with pytest.raises(TypeError, match=message):
            to_call_result(value, of_nothing())


@pytest.mark.parametrize("kind", [list[Any], list[object], tuple[Any, ...]], ids=str)
def test_media_in_a_list_of_anything_are_blocks_and_data(kind: Any) -> None:
    value = ["a", Image(data=PNG), {"k": 1}]
    content = [text("a"), PICTURE, text('{"k":1}')]
    result = wire(to_call_result(tuple(value) if kind == tuple[Any, ...] else value, returning(kind)))
    assert result == {"content": content, "structuredContent": {"result": ["a", PICTURE, {"k": 1}]}}
    assert wire(to_call_result(value, of_nothing())) == {"content": content}
    plain = to_call_result(["a"], returning(kind))
    assert wire(plain) == {"content": [text('["a"]')], "structuredContent": {"result": ["a"]}}


def test_media_where_other_data_was_promised_do_not_conform() -> None:
    with pytest.raises(TypeError, match="does not conform"):
        to_call_result([Image(data=PNG)], returning(list[int]))


def test_a_list_that_is_annotated_as_content_is_never_json() -> None:
    signature = returning(list[str | Image])
    assert wire(to_call_result([], signature)) == {"content": []}
    assert wire(to_call_result(["a", "b"], signature)) == {"content": [text("a"), text("b")]}


@pytest.mark.parametrize(
    ("kind", "value", "words", "structured"),
    [
        (str, 'a"b', 'a"b', {"result": 'a"b'}),
        (int, 1, "1", {"result": 1}),
        (int | None, None, "null", {"result": None}),
        (list[int], [1, 2], "[1,2]", {"result": [1, 2]}),
        (Point, Point(1), '{"x":1}', {"x": 1}),
        (dict[str, Any], {"a": Point(1)}, '{"a":{"x":1}}', {"a": {"x": 1}}),
    ],
    ids=str,
)
def test_a_schema_gives_text_and_structured_content(
    kind: Any, value: Any, words: str, structured: Any
) -> None:
    result = to_call_result(value, returning(kind))
    assert wire(result) == {"content": [text(words)], "structuredContent": structured}
    with pytest.raises(TypeError, match="does not conform"):
        to_call_result(object if kind is str else "wrong", returning(kind))


def test_content_with_forced_structure_is_both() -> None:
    result = to_call_result(b"hi", returning(bytes, structured_output=True))
    assert wire(result) == {"content": [BYTES], "structuredContent": {"result": "aGk="}}


def test_a_tool_result_says_everything_itself() -> None:
    result = to_call_result(ToolResult(["a", Image(data=PNG)], {"k": Point(1)}, {"m": 1}))
    assert wire(result) == {
        "content": [text("a"), PICTURE],
        "structuredContent": {"k": {"x": 1}},
        "_meta": {"m": 1},
    }
    assert wire(to_call_result(ToolResult(structured_content={"k": 1}))) == {
        "content": [text('{"k":1}')],
        "structuredContent": {"k": 1},
    }
    assert wire(to_call_result(ToolResult())) == {"content": []}
    assert wire(to_call_result(ToolResult("bad", is_error=True))) == {
        "content": [text("bad")],
        "isError": True,
    }


def whole(content: Any, structured: Any, is_error: bool = False) -> Any:
    return types.CallToolResult(content=content, structured_content=structured, is_error=is_error)


@pytest.mark.parametrize(
    "make", [ToolResult, lambda c, s, **k: whole([], s, **k)], ids=["ToolResult", "CallToolResult"]
)
def test_structured_content_of_ones_own_must_conform(make: Callable[..., Any]) -> None:
    signature = returning(Point)
    assert to_call_result(make("t", {"x": 1}), signature).structured_content == {"x": 1}
    assert to_call_result(make("t", Point(1)), signature).structured_content == {"x": 1}
    assert to_call_result(make("t", {"x": "no"}, is_error=True), signature).is_error
    assert to_call_result(make("t", None, is_error=True), signature).structured_content is None
    with pytest.raises(TypeError, match=r"Expected `int`, got `str` - at `\$\.x`"):
        to_call_result(make("t", {"x": "no"}), signature)
    with pytest.raises(TypeError, match="needs structured_content"):
        to_call_result(make("t", None), signature)
    wrapped = returning(list[int])
    assert to_call_result(make("t", {"result": [1]}), wrapped).structured_content == {"result": [1]}
    with pytest.raises(TypeError, match="does not conform"):
        to_call_result(make("t", [1]), wrapped)


def test_what_json_cannot_carry_is_told_in_a_sentence() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value, message in (
        (object(), "a result of type object cannot be written as JSON: return a str"),
        ({"deep": [object()]}, "a result of type object cannot be written"),
        (ValueError("x"), "a result of type ValueError cannot be written"),
        ((n for n in "ab"), "a result of type generator cannot be written"),
        ({(1, 2): 3}, "keys of type tuple"),
        ({"image": Image(data=b"")}, "a result of type Image cannot be written"),
        ({"a": "\ud800"}, "lone surrogate"),
        (loop, "contains itself"),
    ):
        with pytest.raises(TypeError, match=message):
            to_call_result(value)


def test_kinds_of_values_beyond_those_of_json() -> None:
    value = {
        "when": dt.datetime(2026, 7, 28, tzinfo=dt.UTC),
        "money": decimal.Decimal("1.50"),
        "path": pathlib.PurePosixPath("/a"),
        "queue": collections.deque([1]),
        "map": collections.ChainMap({"a": 1}),
        "keys": {"k": 1}.keys(),
        "bytes": b"hi",
        "nan": float("nan"),
    }
    written = msgspec.json.decode(encoding.encode(value))
    when = written.pop("when")
    assert when.startswith("2026-07-28T00:00:00")
    assert written == {
        "money": "1.50",
        "path": "/a",
        "queue": [1],
        "map": {"a": 1},
        "keys": ["k"],
        "bytes": "aGk=",
        "nan": None,
    }


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(json_values)
def test_plain_values_survive_with_and_without_orjson(value: Any) -> None:
    assert msgspec.json.decode(encoding.encode(value)) == value
    found = encoding._dumps
    encoding._dumps = encoding._dumps_by_msgspec
    try:
        assert msgspec.json.decode(encoding.encode(value)) == value
    finally:
        encoding._dumps = found


# ------------------------------------------------------------------------------- images and sound


def test_media_know_their_type(tmp_path: pathlib.Path) -> None:
    picture = tmp_path / "chart.JPG"
    picture.write_bytes(PNG)
    block = Image(picture).to_image_content()
    assert (block.mime_type, base64.b64decode(block.data)) == ("image/jpeg", PNG)
    assert Image(path=str(picture), format="webp").mime_type == "image/webp"
    assert Image(data=PNG, format="jpg").mime_type == "image/jpeg"
    assert Image(data=PNG, format="heic").mime_type == "image/heic"
    assert Image(path="x.unknown").mime_type == "application/octet-stream"
    assert Image(path="none").mime_type == "application/octet-stream"
    assert Audio(data=b"").mime_type == "audio/wav"
    assert Audio(path="x.mp3").mime_type == "audio/mpeg"
    assert Audio(
        data=b"hi", annotations=types.Annotations(priority=1.0)
    ).to_audio_content() == types.AudioContent(
        data="aGk=", mime_type="audio/wav", annotations=types.Annotations(priority=1.0)
    )
    wrongs: list[dict[str, Any]] = [{}, {"path": "x", "data": b""}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="either path= or data="):
            Image(**wrong)
    with pytest.raises(OSError, match="nowhere"):
        to_call_result(Image(tmp_path / "nowhere.png"))


# ------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("hi", [("user", text("hi"))]),
        (["a", AssistantMessage("b")], [("user", text("a")), ("assistant", text("b"))]),
        (Message("m", role="assistant"), [("assistant", text("m"))]),
        (UserMessage(Image(data=PNG)), [("user", PICTURE)]),
        (Message({"k": 1}), [("user", text('{"k":1}'))]),
        ({"role": "assistant", "content": "c"}, [("assistant", text("c"))]),
        ({"role": "user", "content": text("c")}, [("user", text("c"))]),
        ({"role": "user", "content": LINK}, [("user", wire(LINK))]),
        ({"k": 1}, [("user", text('{"k":1}'))]),
        (types.PromptMessage(role="user", content=LINK), [("user", wire(LINK))]),
        ((Image(data=PNG), b"hi"), [("user", PICTURE), ("user", BYTES)]),
        ([], []),
    ],
    ids=repr,
)
def test_a_prompt_becomes_messages(value: Any, messages: list[Any]) -> None:
    expected = [{"role": role, "content": content} for role, content in messages]
    assert wire(to_prompt_messages(value)) == expected
    assert wire(to_prompt_result(value)) == {"messages": expected}


def test_a_whole_prompt_result_passes() -> None:
    result = types.GetPromptResult(messages=[types.PromptMessage(role="user", content=LINK)], description="d")
    assert to_prompt_result(result) is result
    assert to_prompt_messages(result) is result.messages


def test_what_cannot_be_a_message_is_told() -> None:
    for value, message in (
        (None, "must return at least one message"),
        ({"role": "system", "content": ""}, "'user' or 'assistant', not 'system'"),
        ({"role": "user", "content": {"type": "video"}}, "no content block: Invalid value 'video'"),
        ([object()], "cannot be written as JSON"),
    ):
        with pytest.raises(TypeError, match=message):
            to_prompt_messages(value)


# ------------------------------------------------------------------------------- resources


def part(**members: str) -> dict[str, str]:
    return {"uri": "u:v", **members}


@pytest.mark.parametrize(
    ("value", "contents"),
    [
        ("t", [part(mimeType="text/plain", text="t")]),
        (b"hi", [part(mimeType="application/octet-stream", blob="aGk=")]),
        ({"a": Point(1)}, [part(mimeType="application/json", text='{"a":{"x":1}}')]),
        (["a", "b"], [part(mimeType="application/json", text='["a","b"]')]),
        (Image(data=b"hi"), [part(mimeType="image/png", blob="aGk=")]),
        (types.TextContent(text="t"), [part(mimeType="text/plain", text="t")]),
        (TEXT_CONTENTS, [{"uri": "a:c", "text": "t"}]),
        (types.EmbeddedResource(resource=TEXT_CONTENTS), [{"uri": "a:c", "text": "t"}]),
        (
            [TEXT_CONTENTS, b"hi", "t"],
            [
                {"uri": "a:c", "text": "t"},
                part(mimeType="application/octet-stream", blob="aGk="),
                part(mimeType="text/plain", text="t"),
            ],
        ),
        (types.ReadResourceResult(contents=[TEXT_CONTENTS]), [{"uri": "a:c", "text": "t"}]),
    ],
    ids=repr,
)
def test_a_resource_becomes_contents(value: Any, contents: list[Any]) -> None:
    assert wire(to_resource_contents(value, "u:v")) == contents


def test_a_resource_keeps_the_type_it_was_registered_with() -> None:
    for value in ("t", b"t", {"t": 1}, Image(data=b"t")):
        assert to_resource_contents(value, "u:v", "text/x")[0].mime_type == "text/x"
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        to_resource_contents(object(), "u:v")
