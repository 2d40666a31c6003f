"""Schemas of arguments and results: 2020-12, as the user wrote the types, and true to what is accepted."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import jsonschema_rs
import msgspec
import pytest
from annotated_types import Interval, Len
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from typing_extensions import Doc

from mcpfast.errors import RegistrationError
from mcpfast.protocol import types
from mcpfast.server.content import Audio, Image, ToolResult
from mcpfast.server.schema import Writer
from mcpfast.server.schema_types import Fitter, union_of
from mcpfast.server.signature import Signature

T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
UserId = NewType("UserId", int)
Bare = typing.List  # noqa: UP006 (users write it)
BareIterable = typing.Iterable


class Context:
    pass


class Colour(enum.Enum):
    """How it looks."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct, forbid_unknown_fields=True):
    """A place."""

    x: int
    y: Annotated[int, Meta(ge=0, description="up")] = 0


class Camel(msgspec.Struct, rename="camel", tag="camel"):
    two_words: list[Point]


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str = ""


class Node(msgspec.Struct):
    children: list[Node] = []


class Crate(msgspec.Struct, Generic[T]):
    inside: T


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T
    size: int = 3


class Options(TypedDict, total=False):
    z: Required[int]
    a: Literal["y", "x"]
    b: NotRequired[Point]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Person:
    """A person."""

    name: str
    age: int = 30
    _secret: str = ""

    def __init__(self, name: str) -> None:
        self.name = name


def of(fn: Callable[..., Any], **options: Any) -> Signature:
    return Signature.of(fn, context_type=Context, **options)


def schema_of(kind: Any) -> dict[str, Any]:
    writer = Writer()
    return writer.root(writer.write(Fitter().fit(kind)))


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (Any, {}),
        (None, {"type": "null"}),
        (bool, {"type": "boolean"}),
        (float, {"type": "number"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.timedelta, {"type": "string", "format": "duration"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, {"type": ["string", "number"], "format": "decimal"}),
        (pathlib.Path, {"type": "string", "format": "path"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Iterable[str], {"type": "array", "items": {"type": "string"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
                "items": False,
            },
        ),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[Literal["b", "a"], Any], {"type": "object", "propertyNames": {"enum": ["b", "a"]}}),
        (Literal["b", "a"], {"type": "string", "enum": ["b", "a"]}),
        (Literal["one"], {"type": "string", "const": "one"}),
        (
            Literal[2, "x", None, True],
            {"type": ["integer", "string", "null", "boolean"], "enum": [2, "x", None, True]},
        ),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (str | dt.date, {"anyOf": [{"type": "string"}, {"type": "string", "format": "date"}]}),
        (Colour, {"type": "string", "enum": ["red", "blue"], "description": "How it looks."}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (
            Annotated[int, Meta(gt=0, le=9, multiple_of=3, title="T", description="D", examples=[3])],
            {
                "type": "integer",
                "exclusiveMinimum": 0,
                "maximum": 9,
                "multipleOf": 3,
                "title": "T",
                "description": "D",
                "examples": [3],
            },
        ),
        (
            Annotated[
                str, Meta(min_length=1, max_length=5, pattern="^a", extra_json_schema={"format": "email"})
            ],
            {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^a", "format": "email"},
        ),
        (
            Annotated[list[int], Meta(max_length=2)],
            {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        ),
        (Annotated[dict[str, Any], Meta(min_length=1)], {"type": "object", "minProperties": 1}),
        (
            Annotated[bytes, Meta(max_length=4)],
            {"type": "string", "contentEncoding": "base64", "maxLength": 8},
        ),
        (Annotated[int, "only words"], {"type": "integer", "description": "only words"}),
        (Annotated[int, Doc("only words")], {"type": "integer", "description": "only words"}),
        (Annotated[int, object()], {"type": "integer"}),
        (Annotated[int, Interval(ge=1, lt=5)], {"type": "integer", "minimum": 1, "exclusiveMaximum": 5}),
        (
            Annotated[list[int], Len(1, 2)],
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ),
        (UserId, {"type": "integer"}),
        (T, {}),
        (Bound, {"type": "integer"}),
        (Bare, {"type": "array"}),
        (BareIterable, {"type": "array"}),
        (Literal[1] | float, {"anyOf": [{"type": "integer", "const": 1}, {"type": "number"}]}),
        (
            Annotated[int | str | None, Meta(ge=1), Meta(max_length=3)],
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "string", "maxLength": 3},
                    {"type": "null"},
                ]
            },
        ),
        (
            Point,
            {
                "type": "object",
                "description": "A place.",
                "properties": {
                    "x": {"type": "integer"},
                    "y": {"type": "integer", "minimum": 0, "description": "up", "default": 0},
                },
                "required": ["x"],
                "additionalProperties": False,
            },
        ),
        (
            Options,
            {
                "type": "object",
                "properties": {
                    "z": {"type": "integer"},
                    "a": {"type": "string", "enum": ["y", "x"]},
                    "b": {"$ref": "#/$defs/Point"},
                },
                "required": ["z"],
            },
        ),
        (
            Pair,
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string", "default": "r"}],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
        (
            Row,
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string", "default": ""}],
                "minItems": 1,
            },
        ),
        (
            Camel,
            {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "const": "camel"},
                    "twoWords": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
                },
                "required": ["type", "twoWords"],
            },
        ),
        (
            Box[int],
            {
                "type": "object",
                "properties": {"inside": {"type": "integer"}, "size": {"type": "integer", "default": 3}},
                "required": ["inside"],
            },
        ),
        (
            Crate[str],
            {"type": "object", "properties": {"inside": {"type": "string"}}, "required": ["inside"]},
        ),
    ],
    ids=str,
)
def test_schema_of_a_type(kind: Any, schema: dict[str, Any]) -> None:
    found = schema_of(kind)
    found.pop("$defs", None)
    assert found == schema
    assert list(found.get("properties", ())) == list(schema.get("properties", ()))
    assert jsonschema_rs.meta.is_valid(found)


def test_a_class_that_contains_itself_is_written_out_once_and_kept() -> None:
    inner = {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}
    node = {"type": "object", "properties": {"children": inner}}
    assert schema_of(Node) == {**node, "$defs": {"Node": node}}


def test_classes_of_one_name_are_kept_apart() -> None:
    def make(member: Any) -> Any:
        return msgspec.defstruct("Same", [("member", member)])

    one, two, three = make(int), make(str), make(bool)
    schema = schema_of(tuple[one, two, three, one])  # type: ignore[valid-type]
    refs = [item["$ref"] for item in schema["prefixItems"]]
    assert len(set(refs)) == 3
    assert refs[0] == refs[3] == "#/$defs/Same"
    assert len(schema["$defs"]) == 3


ORIGIN = Point(1)


async def typical(
    query: str,
    options: Options,
    limit: Annotated[int, Meta(ge=1, le=100, description="own words")] = 10,
    tags: list[str] | None = None,
    colour: Colour = Colour.RED,
    *,
    point: Point = ORIGIN,
) -> Box[Point]:
    """Searches everything.

    Slowly, if need be.

    Args:
        query: What to look for,
            in the words of the user.
        limit: How many at most.
        colour (Colour): Which one.

    Returns:
        A box.
    """
    raise NotImplementedError


def test_an_input_schema_as_clients_want_it() -> None:
    schema = of(typical).input_schema
    assert jsonschema_rs.meta.is_valid(schema)
    assert list(schema) == ["type", "properties", "required", "additionalProperties", "$defs"]
    assert schema["type"] == "object"
    assert schema["required"] == ["query", "options"]
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ["query", "options", "limit", "tags", "colour", "point"]
    assert schema["properties"] == {
        "query": {"type": "string", "description": "What to look for, in the words of the user."},
        "options": {"$ref": "#/$defs/Options"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "description": "own words", "default": 10},
        "tags": {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "default": None,
        },
        "colour": {"$ref": "#/$defs/Colour", "default": "red", "description": "Which one."},
        "point": {"$ref": "#/$defs/Point", "default": {"x": 1, "y": 0}},
    }
    assert list(schema["$defs"]) == ["Options", "Colour", "Point"]
    assert "title" not in json.dumps(schema)
    assert of(typical).summary == "Searches everything.\n\nSlowly, if need be."


@pytest.mark.parametrize(
    "doc",
    [
        "Adds.\n\nParameters\n----------\na : int\n    the first\n",
        "Adds.\n\n:param a: the first\n:returns: it",
        "Adds.\n\nArgs:\n    a (int): the first\n",
    ],
)
def test_docstrings_of_every_style(doc: str) -> None:
    def handler(a: int) -> int:
        return a

    handler.__doc__ = doc
    assert of(handler).summary == "Adds."
    assert of(handler).input_schema["properties"]["a"]["description"] == "the first"


def test_no_parameters_is_the_advised_form() -> None:
    assert of(lambda: None).input_schema == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


# ------------------------------------------------------------------------------- true to what is accepted


def _either(arms: tuple[Any, ...]) -> Any:
    return Any if Any in arms else union_of(list(arms))


leaves = st.sampled_from(
    [int, float, str, bool, None, Literal["a", "b"], Literal[1, 2], Colour, Point, Options, Row, Any, Node]
)
kinds: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: GenericAlias(list, (one,))),
        inner.map(lambda one: GenericAlias(dict, (str, one))),
        st.tuples(inner, inner).map(lambda two: GenericAlias(tuple, two)),
        st.tuples(inner, inner).map(_either),
        inner.map(lambda one: _either((one, None))),
    ),
    max_leaves=4,
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(0.5),  # 1.0 is an integer for JSON Schema, and none for msgspec
    st.sampled_from(["a", "b", "red", "", "x"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyzab"), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(kinds, st.lists(values, min_size=3, max_size=6))
def test_what_is_accepted_is_what_the_schema_says(kind: Any, given_values: list[Any]) -> None:
    def handler(a: Any) -> None: ...

    handler.__annotations__ = {"a": kind}
    signature = of(handler)
    assert jsonschema_rs.meta.is_valid(signature.input_schema)
    validator = jsonschema_rs.Draft202012Validator(signature.input_schema)
    for value in given_values:
        arguments = {"a": value}
        try:
            signature.decode(msgspec.json.encode(arguments))
            accepted = True
        except msgspec.ValidationError:
            accepted = False
        assert validator.is_valid(arguments) is accepted, (kind, arguments)


# ------------------------------------------------------------------------------- results


def returning(kind: Any) -> Callable[..., Any]:
    def handler() -> Any: ...

    handler.__annotations__ = {"return": kind}
    return handler


WRAPPED = {"type": "object", "required": ["result"]}


@pytest.mark.parametrize(
    ("kind", "good", "written", "bad"),
    [
        (str, "é", '{"result":"é"}', 1),
        (int, 3, '{"result":3}', True),
        (float, 3, '{"result":3}', float("nan")),
        (bool, True, '{"result":true}', 1),
        (list[int], [1], '{"result":[1]}', ["1"]),
        (int | None, None, '{"result":null}', "x"),
        (tuple[int, str], (1, "a"), '{"result":[1,"a"]}', (1,)),
        (Pair, Pair(1), '{"result":[1,"r"]}', [1, 2]),
        (Colour, Colour.RED, '{"result":"red"}', "green"),
        (Literal["a"], "a", '{"result":"a"}', "b"),
        (dt.date, dt.date(2026, 7, 28), '{"result":"2026-07-28"}', "yesterday"),
        (Row, Row(1), '{"result":[1,""]}', [""]),
        (dict[int, str], {1: "a"}, '{"result":{"1":"a"}}', {"x": "a"}),
        (Point | Box[int], Box(1), '{"result":{"inside":1,"size":3}}', {"q": 1}),
        (Point, Point(1), '{"x":1,"y":0}', Point("1")),  # type: ignore[arg-type]
        (Point, {"x": 1}, '{"x":1}', {"x": 1, "more": 2}),
        (Box[int], Box(1), '{"inside":1,"size":3}', Box("1")),
        (Options, {"z": 1}, '{"z":1}', {"a": "x"}),
        (dict[str, int], {"a": 1}, '{"a":1}', {"a": "1"}),
        (dict, {"a": Point(1)}, '{"a":{"x":1,"y":0}}', [1]),
        (dict[str, Any], {"a": 10**30}, '{"a":1000000000000000000000000000000}', "{}"),
        (Person, Person("Ann"), '{"name":"Ann","age":30}', Person(5)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_a_result_is_written_as_its_schema_says_or_not_at_all(
    kind: Any, good: Any, written: str, bad: Any
) -> None:
    signature = of(returning(kind))
    schema = signature.output_schema
    assert signature.is_structured
    assert schema is not None
    assert schema["type"] == "object"
    assert jsonschema_rs.meta.is_valid(schema)
    assert signature.wraps_output == written.startswith('{"result":')
    if signature.wraps_output:
        assert {name: schema[name] for name in WRAPPED} == WRAPPED
    assert signature.encode_structured(good).decode() == written
    jsonschema_rs.validate(schema, json.loads(written))
    assert signature.check_structured(json.loads(written)).decode() == written
    with pytest.raises(
        TypeError, match=r"handler\(\): the result does not conform to the return annotation: "
    ):
        signature.encode_structured(bad)
    if not (isinstance(bad, float) or bad is True):
        with pytest.raises(TypeError, match="does not conform"):
            signature.check_structured({"result": bad} if signature.wraps_output else bad)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Any, False),
        (None, False),
        (list, False),
        (tuple, False),
        (bytes, True),
        (Image, True),
        (list[Audio | str], True),
        (str | Image, True),
        (types.TextContent, True),
        (tuple[types.ContentBlock, ...], True),
        (types.ContentBlock | None, True),
        (ToolResult, True),
        (types.CallToolResult, True),
        (Annotated[list[Image], "pictures"], True),
        (type("Unknown", (), {}), False),
    ],
    ids=str,
)
def test_content_and_what_promises_nothing_have_no_output_schema(kind: Any, content: bool) -> None:
    signature = of(returning(kind))
    assert signature.output_schema is None
    assert not signature.is_structured
    assert signature.returns_content is content
    with pytest.raises(TypeError, match="no output schema"):
        signature.encode_structured({})


def test_no_annotation_promises_nothing() -> None:
    assert of(lambda: 1).output_schema is None


def test_data_beside_control_is_what_the_schema_describes() -> None:
    assert of(returning(Point | types.InputRequiredResult)).output_schema == schema_of(Point)
    assert of(returning(Annotated[types.CallToolResult, Point])).output_schema == schema_of(Point)


def test_structured_output_can_be_forced_or_refused() -> None:
    assert of(returning(int), structured_output=False).output_schema is None
    assert of(returning(Point), structured_output=False).output_schema is None
    forced = of(returning(bytes), structured_output=True)
    assert forced.encode_structured(b"hi") == b'{"result":"aGk="}'
    assert of(returning(Any), structured_output=True).encode_structured([1]) == b'{"result":[1]}'
    with pytest.raises(RegistrationError, match="needs a return annotation"):
        of(lambda: 1, structured_output=True)
    with pytest.raises(RegistrationError, match="Unknown annotates no attributes"):
        of(returning(type("Unknown", (), {})), structured_output=True)


def test_a_subclass_may_say_more_than_its_annotation() -> None:
    @dataclasses.dataclass
    class Bigger(Box[int]):
        extra: str = "e"

    assert of(returning(Box[int])).encode_structured(Bigger(1)) == b'{"inside":1,"size":3,"extra":"e"}'
