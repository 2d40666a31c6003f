"""Signatures: what a function's parameters become, what is read and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import annotated_types
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.errors import RegistrationError
from mcpfast.server.signature import RawSignature, Signature

if TYPE_CHECKING:
    from fractions import Fraction  # a name that is not known at run time

T = TypeVar("T")


class Context(Generic[T]):
    """Stands for the server's Context."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Size(msgspec.Struct):
    width: int
    height: int


@dataclasses.dataclass
class Box:
    corner: Point
    names: list[str] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    depth: int
    mode: Literal["fast", "slow"]


class Pair(NamedTuple):
    left: int
    right: str = "r"


def of(fn: Callable[..., Any], **options: Any) -> Signature:
    return Signature.of(fn, context_type=Context, **options)


def call(fn: Callable[..., Any], arguments: str) -> Any:
    """Calls `fn` with arguments as a client sends them, the way the server does."""
    signature = of(fn)
    read = signature.decode(arguments.encode())
    positional = [getattr(read, name) for name in signature.field_names]
    named = {name: getattr(read, name) for name in signature.keyword_names}
    if signature.context_index >= 0:
        positional.insert(signature.context_index, Context())
    elif signature.context_name is not None:
        named[signature.context_name] = Context()
    return fn(*positional, **named)


# ------------------------------------------------------------------------------- callables


class Service:
    def method(self, a: int, ctx: Context[Any] | None = None) -> int:
        """A method."""
        return a if isinstance(ctx, Context) else -1

    async def __call__(self, a: int) -> int:
        """The call."""
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    @staticmethod
    def static(a: int) -> int:
        return a


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


async def base(a: int, b: int = 2, *, c: int = 3) -> int:
    """The base."""
    return a + b + c


def everything(a: int, /, b: int, ctx: Context[int], *, c: int, d: int = 4) -> tuple[Any, ...]:
    return (a, b, isinstance(ctx, Context), c, d)


def context_by_keyword(a: int, *, ctx: Context[Any]) -> tuple[Any, ...]:
    return (a, isinstance(ctx, Context))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (base, ("base", ("a", "b"), ("c",), None, -1, True, "The base.")),
        (everything, ("everything", ("a", "b"), ("c", "d"), "ctx", 2, False, "")),
        (context_by_keyword, ("context_by_keyword", ("a",), (), "ctx", -1, False, "")),
        (Service().method, ("method", ("a",), (), "ctx", 1, False, "A method.")),
        (Service.of_class, ("of_class", ("a",), (), None, -1, False, "")),
        (Service.static, ("static", ("a",), (), None, -1, False, "")),
        (Service(), ("Service", ("a",), (), None, -1, True, "The call.")),
        (functools.partial(base, 1), ("base", ("b",), ("c",), None, -1, True, "The base.")),
        (functools.partial(base, c=1), ("base", ("a", "b"), ("c",), None, -1, True, "The base.")),
        (logged(base), ("base", ("a", "b"), ("c",), None, -1, True, "The base.")),
        (logged(everything), ("everything", ("a", "b"), ("c", "d"), "ctx", 2, False, "")),
        (lambda a: a, ("<lambda>", ("a",), (), None, -1, False, "")),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if callable(value) else "",
)
def test_what_a_callable_is(fn: Callable[..., Any], expected: tuple[Any, ...]) -> None:
    signature = of(fn)
    found = (
        signature.name,
        signature.field_names,
        signature.keyword_names,
        signature.context_name,
        signature.context_index,
        signature.is_async,
        signature.summary,
    )
    assert found == expected


def test_a_context_reaches_its_place() -> None:
    assert call(everything, '{"a":1,"b":2,"c":3}') == (1, 2, True, 3, 4)
    assert call(logged(everything), '{"a":1,"b":2,"c":3}') == (1, 2, True, 3, 4)
    assert call(context_by_keyword, '{"a":1}') == (1, True)
    assert call(Service().method, '{"a":7}') == 7


def test_a_context_is_found_in_every_spelling() -> None:
    class Mine(Context[int]):
        pass

    def plain(c: Context) -> None: ...  # type: ignore[type-arg]
    def generic(c: Context[int]) -> None: ...
    def optional(c: Context[int] | None = None) -> None: ...
    def subclass(c: Mine) -> None: ...
    def annotated(c: Annotated[Context[str], "the context"]) -> None: ...
    def text(c: "Context[Any]") -> None: ...  # noqa: UP037

    for fn in (plain, generic, optional, subclass, annotated, text):
        assert of(fn).context_name == "c", fn.__name__
        assert of(fn).input_schema["properties"] == {}, fn.__name__


def test_the_context_imported_only_for_type_checkers_is_known() -> None:
    namespace: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef handler(a: int, ctx: Context) -> str: ...", namespace)
    assert of(namespace["handler"]).context_name == "ctx"


def test_types_defined_in_a_function_are_known() -> None:
    class Local(msgspec.Struct):
        n: int

    def around(kind: type) -> Signature:
        class Inner(msgspec.Struct):
            m: int

        def handler(a: Local, b: Inner, c: kind) -> Inner: ...  # type: ignore[empty-body,valid-type]

        return of(handler)

    read = around(int).decode(b'{"a":{"n":1},"b":{"m":2},"c":3}')
    assert (read.a.n, read.b.m, read.c) == (1, 2, 3)


# ------------------------------------------------------------------------------- reading


def many(
    colour: Colour,
    point: Point,
    box: Box,
    options: Options,
    pair: Pair,
    when: dt.datetime,
    where: pathlib.Path,
    words: Iterable[str],
    one: Point | Size,
    text: dt.date | str,
    limited: Annotated[int | None, msgspec.Meta(ge=0)] = None,
    mode: Literal["b", "a"] = "a",
    tags: list[str] = [],  # noqa: B006
    preset: list[int] = [1, 2],  # noqa: B006
    free: Any = None,
) -> Any:
    return locals()


GOOD = {
    "colour": "red",
    "point": {"x": 1},
    "box": {"corner": {"x": 1, "y": 2}, "names": ["n"]},
    "options": {"depth": 1},
    "pair": [1],
    "when": "2026-07-28T00:00:00Z",
    "where": "/tmp/x",
    "words": ["a", "b"],
    "one": {"width": 1, "height": 2},
    "text": "2026-07-28",
}


def test_every_kind_of_parameter_is_read() -> None:
    got = call(many, msgspec.json.encode(GOOD).decode())
    assert got == {
        "colour": Colour.RED,
        "point": Point(1),
        "box": Box(Point(1, 2), ["n"]),
        "options": {"depth": 1},
        "pair": Pair(1),
        "when": dt.datetime(2026, 7, 28, tzinfo=dt.UTC),
        "where": pathlib.Path("/tmp/x"),
        "words": ["a", "b"],
        "one": Size(1, 2),
        "text": dt.date(2026, 7, 28),
        "limited": None,
        "mode": "a",
        "tags": [],
        "preset": [1, 2],
        "free": None,
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("colour", "green", "Invalid enum value 'green' - at `$.colour`"),
        ("point", {"x": "1"}, "Expected `int`, got `str` - at `$.point.x`"),
        ("point", {"y": 1}, "Object missing required field `x` - at `$.point`"),
        ("box", {"corner": {"x": 1}, "names": [1]}, "Expected `str`, got `int` - at `$.box.names[0]`"),
        ("options", {"mode": "slower"}, "Invalid enum value 'slower' - at `$.options.mode`"),
        ("pair", [], "Expected `array` of length 1 to 2 - at `$.pair`"),
        ("where", 5, "Expected `str`, got `int` - at `$.where`"),
        ("one", {"x": "no", "width": 1}, "Expected one of `Point`, `Size` - at `$.one`"),
        ("limited", -1, "Expected `int` >= 0 - at `$.limited`"),
        ("unknown", 1, "Object contains unknown field `unknown`"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        of(many).decode(msgspec.json.encode({**GOOD, name: value}))
    assert str(caught.value) == message


class Number(enum.Enum):
    ONE = 1
    TWO = 2


class Deep(msgspec.Struct):
    number: Number
    inner: Deep | None = None


def choose(
    colour: Colour = Colour.RED,
    number: Number | None = None,
    mode: Literal["fast", "slow"] | int = "fast",
    many: list[Colour] = [],  # noqa: B006
    pair: tuple[int, Colour] = (1, Colour.RED),
    by_name: dict[str, Colour] = {},  # noqa: B006
    options: Options = {},  # noqa: B006
    deep: Deep | None = None,
    by_colour: dict[Colour, int] = {},  # noqa: B006
    count: int = 0,
) -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("colour", "green", 'Invalid enum value \'green\' - at `$.colour`; allowed: "red", "blue"'),
        ("number", 3, "Invalid enum value 3 - at `$.number`; allowed: 1, 2"),
        ("mode", "no", 'Invalid enum value \'no\' - at `$.mode`; allowed: "fast", "slow"'),
        ("many", ["red", "no"], 'Invalid enum value \'no\' - at `$.many[1]`; allowed: "red", "blue"'),
        ("pair", [1, "no"], 'Invalid enum value \'no\' - at `$.pair[1]`; allowed: "red", "blue"'),
        ("by_name", {"k": "no"}, 'Invalid enum value \'no\' - at `$.by_name[...]`; allowed: "red", "blue"'),
        (
            "options",
            {"mode": "no"},
            'Invalid enum value \'no\' - at `$.options.mode`; allowed: "fast", "slow"',
        ),
        (
            "deep",
            {"number": 1, "inner": {"number": 3}},
            "Invalid enum value 3 - at `$.deep.inner.number`; allowed: 1, 2",
        ),
        ("by_colour", {"no": 1}, "Invalid enum value 'no' - at `key` in `$.by_colour`"),
        ("count", "no", "Expected `int`, got `str` - at `$.count`"),
    ],
)
def test_a_wrong_choice_is_told_the_right_ones(name: str, value: Any, message: str) -> None:
    signature = of(choose)
    with pytest.raises(msgspec.ValidationError) as caught:
        signature.decode(msgspec.json.encode({name: value}))
    assert signature.explain(caught.value) == message


def test_a_refused_union_takes_the_member_that_knows_most() -> None:
    class Wide(msgspec.Struct):
        x: int
        y: int = 0
        z: int = 0

    def pick(one: Point | Wide | list[int] | list[str]) -> None: ...

    decode = of(pick).decode
    assert decode(b'{"one":{"x":1}}').one == Point(1)
    assert decode(b'{"one":{"x":1,"y":1,"z":1}}').one == Wide(1, 1, 1)
    assert decode(b'{"one":["a"]}').one == ["a"]
    assert decode(b'{"one":[1]}').one == [1]


def test_numbers_are_read_as_the_schema_says() -> None:
    def handler(whole: int, real: float) -> None: ...

    decode = of(handler).decode
    assert decode(b'{"whole":1,"real":2}').real == 2.0
    for refused in (b'{"whole":"1","real":2}', b'{"whole":true,"real":2}', b'{"whole":1.5,"real":2}'):
        with pytest.raises(msgspec.ValidationError):
            decode(refused)


def test_a_default_that_can_change_is_new_for_each_call() -> None:
    decode = of(many).decode
    raw = msgspec.json.encode(GOOD)
    decode(raw).preset.append(3)
    decode(raw).tags.append("t")
    assert decode(raw).preset == [1, 2]
    assert decode(raw).tags == []


def test_what_is_no_json_is_refused_as_such() -> None:
    def handler(text: str) -> None: ...

    decode = of(handler).decode
    for broken in (b'{"text":', b'{"text":"\\ud800"}', b"[]", b"null"):
        with pytest.raises(msgspec.DecodeError):
            decode(broken)


# ------------------------------------------------------------------------------- refusals


class Plain:
    pass


class Name(str):
    __slots__ = ()


def generator(a: int) -> Iterable[int]:
    yield a


async def async_generator(a: int) -> Any:
    yield a


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda *a: a, r"`\*a` cannot be described to a client; name each parameter"),
        (lambda **k: k, r"`\*\*k` cannot be described to a client"),
        (generator, "cannot yield"),
        (async_generator, "cannot yield"),
        (5, "not callable"),
        (int, "parameters cannot be read"),
    ],
)
def test_what_cannot_be_a_handler(fn: Any, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        of(fn)


class Level(enum.IntEnum):
    LOW = 1


Short = Annotated[str, msgspec.Meta(max_length=2)]
NOT_GIVEN = object()


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (int, "s"),
        (int, True),
        (int, []),
        (float, "1"),
        (bool, 1),
        (str, 3),
        (str, b"s"),
        (int | None, "s"),
        (Short, 3),
        (Literal["a", "b"], "c"),
        (Literal["a", "b"] | None, 1),
    ],
    ids=str,
)
def test_a_default_of_another_type_is_refused(kind: Any, default: Any) -> None:
    def find(a: Any = default, *, b: int) -> None: ...

    find.__annotations__["a"] = kind
    with pytest.raises(RegistrationError) as caught:
        of(find)
    said = str(caught.value)
    assert said.startswith(
        f"find(): the default {default!r} of the parameter `a` does not fit its annotation `"
    )
    assert "\n" not in said


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (str, None),
        (int, Level.LOW),
        (int, 10**30),
        (float, 1),
        (float, float("inf")),
        (int | str, "s"),
        (Short, "longer than it may be"),
        (Literal["a", 1] | float, 2.5),
        (int, NOT_GIVEN),
        (Colour, Colour.RED),
        (object, 3),
        (Any, "s"),
    ],
    ids=str,
)
def test_a_default_that_fits_or_says_not_given_is_kept(kind: Any, default: Any) -> None:
    def find(a: Any = default) -> None: ...

    find.__annotations__["a"] = kind
    assert of(find).decode(b"{}").a == default


# ------------------------------------------------------------------------------- any JSON


class Anything(msgspec.Struct):
    inside: object


@pytest.mark.parametrize("value", [None, True, 1, 2.5, "s", [1, "a"], {"a": {"b": None}}], ids=repr)
def test_an_object_is_any_json(value: Any) -> None:
    def take(
        a: object, b: list[object], c: Anything, d: object | None = 5, e: dict[str, object] | int = 0
    ) -> None: ...

    arguments = {"a": value, "b": [value], "c": {"inside": value}, "d": value, "e": {"k": value}}
    signature = of(take)
    read = signature.decode(msgspec.json.encode(arguments))
    assert msgspec.to_builtins(read) == arguments
    assert signature.input_schema["properties"]["a"] == {}
    assert signature.convert({"a": "t", "b": "[1]", "c": '{"inside": 1}'})["a"] == "t"


# ------------------------------------------------------------------------------- annotations and schemas


def test_annotations_that_cannot_be_read_say_what_to_change() -> None:
    def own(a: Plain) -> None: ...
    def function(a: Callable[[int], int]) -> None: ...
    def unknown(a: Fraction) -> None: ...
    def nested(a: list[Plain]) -> None: ...
    def two(a: Context[Any], b: Context[Any]) -> None: ...
    def limit(a: Annotated[int, msgspec.Meta(min_length=1)]) -> None: ...
    def either(a: Annotated[str | None, msgspec.Meta(ge=1)]) -> None: ...
    def text(a: Name) -> None: ...
    def kind(a: type[int]) -> None: ...
    def counter(a: collections.Counter[Plain]) -> None: ...
    def predicate(a: Annotated[int, annotated_types.Predicate(bool), msgspec.Meta(ge=1)]) -> None: ...
    def number(a: Any) -> None: ...

    number.__annotations__ = {"a": 5}

    for fn, message in (
        (own, r"own\(\): the parameter `a`: Plain cannot be read from JSON; make it a dataclass"),
        (function, "nothing that JSON has a value for"),
        (unknown, "`Fraction` is not known where the handler is registered; import it at run time"),
        (nested, "Plain cannot be read"),
        (two, "both the context"),
        (limit, "min_length"),
        (either, "ge suits no member of"),
        (text, "Name is a subclass of a built-in type"),
        (kind, "nothing that JSON has a value for"),
        (counter, "use list, dict, set or tuple"),
        (predicate, "the constraint Predicate is not understood"),
        (number, "`5` is nothing that JSON has a value for"),
    ):
        with pytest.raises(RegistrationError, match=message):
            of(fn)


def test_a_class_with_a_member_that_cannot_be_read_is_refused_when_registered() -> None:
    @dataclasses.dataclass
    class Holder:
        plain: Plain

    def handler(a: list[Holder]) -> None: ...

    for _ in range(2):  # the second look must not be more lenient
        with pytest.raises(RegistrationError, match="its member `plain`: Plain cannot be read"):
            of(handler)


# ------------------------------------------------------------------------------- strings as arguments


def fill(
    count: int,
    on: bool = False,
    items: list[int] = [],  # noqa: B006
    text: str = "",
    colour: Colour = Colour.RED,
    point: Point | None = None,
) -> None: ...


def test_strings_are_read_as_their_parameters_want() -> None:
    convert = of(fill).convert
    assert convert({"count": "3"}) == {
        "count": 3,
        "on": False,
        "items": [],
        "text": "",
        "colour": Colour.RED,
        "point": None,
    }
    texts = {
        "count": "3",
        "on": "true",
        "items": "[1, 2]",
        "text": "[1]",
        "colour": "blue",
        "point": '{"x":1}',
    }
    assert convert(texts) == {
        "count": 3,
        "on": True,
        "items": [1, 2],
        "text": "[1]",
        "colour": Colour.BLUE,
        "point": Point(1),
    }
    for refused in ({"count": "many"}, {}, {"count": "1", "items": "[1"}, {"count": "1", "unknown": ""}):
        with pytest.raises(msgspec.ValidationError):
            convert(refused)


@given(st.integers(), st.text(), st.booleans())
def test_strings_and_json_give_the_same(count: int, text: str, on: bool) -> None:
    signature = of(fill)
    read = signature.decode(msgspec.json.encode({"count": count, "text": text, "on": on}))
    texts = {"count": str(count), "text": text, "on": str(on).lower()}
    assert signature.convert(texts) == {name: getattr(read, name) for name in signature.field_names}


# ------------------------------------------------------------------------------- raw schemas

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 1},
        "b": {"type": "array", "items": {"$ref": "#/$defs/word"}},
    },
    "required": ["a"],
    "$defs": {"word": {"type": "string"}},
}


def raw(schema: dict[str, Any], fn: Callable[..., Any]) -> RawSignature:
    return Signature.raw(schema, fn, context_type=Context)


def test_a_raw_schema_is_kept_and_enforced() -> None:
    async def handler(a: int, ctx: Context[Any], b: Any = None) -> dict[str, Any]:
        """Does it."""
        return {}

    signature = raw(SCHEMA, handler)
    assert signature.input_schema is SCHEMA
    assert (signature.field_names, signature.context_name, signature.is_async) == (("a", "b"), "ctx", True)
    assert signature.output_schema == {"type": "object"}
    assert signature.summary == "Does it."
    assert signature.decode(b'{"a":1,"b":["x"],"other":1}') == {"a": 1, "b": ["x"]}
    secret = "s" * 5000
    for arguments, message in (
        ({"a": 0}, "The value is less than the minimum of 1 - at `$.a`"),
        ({}, '"a" is a required property'),
        ({"a": 1, "b": [secret, 5]}, 'The value is not of type "string" - at `$.b[1]`'),
        ({"a": secret}, 'The value is not of type "integer" - at `$.a`'),
        ([], "Expected `object`, got `array`"),
    ):
        with pytest.raises(msgspec.ValidationError) as caught:
            signature.decode(msgspec.json.encode(arguments))
        assert str(caught.value) == message


def test_a_raw_schema_may_feed_any_keyword() -> None:
    def handler(**arguments: Any) -> None: ...

    assert raw(SCHEMA, handler).decode(b'{"a":1,"other":2}') == {"a": 1, "other": 2}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array"}, 'must say "type": "object"'),
        ({"type": "object", "properties": {"a": {"type": "nope"}}}, r"at `\$\.properties\.a\.type`"),
        ({"type": "object", "$ref": "https://example.com/schema"}, "Retrieval is disabled"),
        ({"type": "object", "$ref": "file:///etc/passwd"}, "Retrieval is disabled"),
        ({"type": "object", "$ref": "#/$defs/nothing"}, "does not exist"),
        ({"type": "object", "$schema": "https://example.com/dialect"}, "Unknown meta-schema"),
        ({"type": "object", "properties": {"z": {}}}, "its input schema has `z`, the function does not"),
    ],
)
def test_a_raw_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        raw(schema, lambda a=None: a)


def test_a_function_that_wants_more_than_its_raw_schema_is_refused() -> None:
    with pytest.raises(RegistrationError, match="`c` is not among the properties"):
        raw(SCHEMA, lambda a, b=0, *, c: None)
    schema = {"type": "object", "properties": {"a": {}}}
    with pytest.raises(RegistrationError, match='does not list it under "required"'):
        raw(schema, lambda a: None)


def test_a_draft_7_schema_is_validated_as_one() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"a": {"items": [{"type": "integer"}]}},  # in 2020-12 `items` is no list
        "required": ["a"],
    }
    with pytest.raises(msgspec.ValidationError, match="integer"):
        raw(schema, lambda a: a).decode(b'{"a":["x"]}')
