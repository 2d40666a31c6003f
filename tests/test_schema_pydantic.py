"""pydantic's models, Field and types in signatures, for users who have pydantic."""

import collections
import dataclasses
import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import jsonschema_rs
import msgspec
import pytest
from typing_extensions import TypedDict

from mcpfast.server.content import to_call_result
from mcpfast.server.signature import Signature

pydantic = pytest.importorskip("pydantic")
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, PositiveInt, RootModel  # noqa: E402
from pydantic.dataclasses import dataclass as pydantic_dataclass  # noqa: E402


class Context:
    pass


class Item(BaseModel):
    """An item."""

    count: int = Field(ge=0, description="how many")
    other_name: str = Field(default="x", alias="otherName")
    made: dt.date | None = None


class Tree(BaseModel):
    kids: list["Tree"] = []


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: dt.date


class Numbers(RootModel[list[int]]):
    pass


class Wrapping(msgspec.Struct):
    item: Item
    n: int


@pydantic_dataclass
class Checked:
    a: Annotated[int, Field(gt=3)]


class Typed(TypedDict):
    a: Annotated[int, Field(ge=3)]


def of(fn: Callable[..., Any], **options: Any) -> Signature:
    return Signature.of(fn, context_type=Context, **options)


def refusal(decode: Callable[[bytes], Any], arguments: Any) -> str:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(msgspec.json.encode(arguments))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_are_read_and_refused_in_one_line() -> None:
    def handler(item: Item, tree: Tree | None = None, more: dict[str, Item] = {}) -> None: ...  # noqa: B006

    decode = of(handler).decode
    read = decode(
        b'{"item":{"count":1,"otherName":"o","made":"2026-07-28"},"tree":{"kids":[{}]},"more":{"a":{"count":2}}}'
    )
    assert read.item == Item(count=1, otherName="o", made=dt.date(2026, 7, 28))
    assert read.tree == Tree(kids=[Tree()])
    assert read.more == {"a": Item(count=2)}
    secret = "s" * 1000
    assert refusal(decode, {"item": {"count": -1}}) == (
        "Input should be greater than or equal to 0 (in `count`) - at `$.item`"
    )
    assert refusal(decode, {"item": {"count": secret, "made": 1.5}}).endswith(
        "(in `count`), and 1 more - at `$.item`"
    )
    assert secret not in refusal(decode, {"item": secret})
    assert "kids[0]" in refusal(decode, {"item": {"count": 1}, "tree": {"kids": [1]}})


def test_a_strict_model_reads_json() -> None:
    def handler(one: Strict) -> None: ...

    assert of(handler).decode(b'{"one":{"day":"2026-07-28"}}').one.day == dt.date(2026, 7, 28)


def test_a_model_inside_a_struct_and_a_union() -> None:
    def handler(one: Wrapping, two: Item | str, three: Item | Tree | None = None) -> Wrapping:
        return one

    signature = of(handler)
    read = signature.decode(b'{"one":{"item":{"count":1},"n":2},"two":{"count":3},"three":{"kids":[]}}')
    assert (read.one.item.count, read.two.count, read.three) == (1, 3, Tree())
    assert signature.decode(b'{"one":{"item":{"count":1},"n":2},"two":"text"}').two == "text"
    assert "$.one.item" in refusal(signature.decode, {"one": {"item": {"count": -1}, "n": 2}, "two": ""})
    assert signature.encode_structured(read.one) == b'{"item":{"count":1,"otherName":"x","made":null},"n":2}'


def test_schemas_keep_the_users_words_and_drop_the_made_up_titles() -> None:
    def handler(item: Item, tree: Tree, again: list[Item]) -> None: ...

    schema = of(handler).input_schema
    assert jsonschema_rs.meta.is_valid(schema)
    assert schema["properties"] == {
        "item": {"$ref": "#/$defs/Item"},
        "tree": {"$ref": "#/$defs/Tree"},
        "again": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
    }
    assert schema["$defs"]["Item"] == {
        "type": "object",
        "description": "An item.",
        "properties": {
            "count": {"type": "integer", "minimum": 0, "description": "how many"},
            "otherName": {"type": "string", "default": "x"},
            "made": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
        },
        "required": ["count"],
    }
    assert set(schema["$defs"]) == {"Item", "Tree"}


def fields(
    plain: Annotated[int, Field(ge=1, le=9, description="plain")],
    default: int = Field(default=5, multiple_of=5, title="Default", examples=[10]),
    word: str = Field(min_length=2, pattern="^a", json_schema_extra={"format": "word"}),
    items: list[int] = Field(default_factory=lambda: [1], max_length=2),  # noqa: B008
    renamed: int = Field(0, alias="reNamed"),
    maybe: int | None = Field(None, ge=0),
    positive: PositiveInt = 1,
) -> None: ...


def test_fields_are_enforced_by_msgspec_itself() -> None:
    signature = of(fields)
    read = signature.decode(b'{"plain":1,"word":"ab"}')
    got = [getattr(read, name) for name in signature.field_names]
    assert got == [1, 5, "ab", [1], 0, None, 1]
    assert signature.decode(b'{"plain":1,"word":"ab","reNamed":7}').renamed == 7
    for arguments in (
        {"plain": 0},
        {"default": 6},
        {"word": "a"},
        {"word": "ba"},
        {"items": [1, 2, 3]},
        {"renamed": 1},
        {"maybe": -1},
        {"positive": 0},
        {"plain": "1"},
    ):
        refusal(signature.decode, {"plain": 1, "word": "ab", **arguments})
    properties = signature.input_schema["properties"]
    assert signature.input_schema["required"] == ["plain", "word"]
    assert properties["plain"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "plain"}
    assert properties["default"] == {
        "type": "integer",
        "multipleOf": 5,
        "title": "Default",
        "examples": [10],
        "default": 5,
    }
    assert properties["word"] == {"type": "string", "minLength": 2, "pattern": "^a", "format": "word"}
    assert properties["reNamed"] == {"type": "integer", "default": 0}
    assert properties["maybe"] == {
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}],
        "default": None,
    }


def test_what_only_pydantic_understands_is_read_by_pydantic() -> None:
    def handler(
        url: HttpUrl,
        more: Annotated[int, AfterValidator(lambda n: n + 1)],
        checked: Checked,
        typed: Typed,
        queue: collections.deque[int],
    ) -> None: ...

    good = {"url": "https://example.com", "more": 1, "checked": {"a": 4}, "typed": {"a": 3}, "queue": [1]}
    signature = of(handler)
    read = signature.decode(msgspec.json.encode(good))
    assert str(read.url) == "https://example.com/"
    assert (read.more, read.checked.a, read.typed) == (2, 4, {"a": 3})
    assert read.queue == collections.deque([1])
    bad: dict[str, Any]
    for bad in (
        {"url": "nowhere"},
        {"checked": {"a": 3}},
        {"typed": {"a": 2}},
        {"queue": ["x"]},
        {"more": []},
    ):
        refusal(signature.decode, {**good, **bad})
    assert jsonschema_rs.meta.is_valid(signature.input_schema)
    assert signature.input_schema["properties"]["url"]["format"] == "uri"


def test_results_are_validated_and_written_by_pydantic() -> None:
    class More(Item):
        extra: int = 1

    def handler() -> Item: ...  # type: ignore[empty-body]

    signature = of(handler)
    schema = signature.output_schema
    assert schema is not None
    assert jsonschema_rs.meta.is_valid(schema)
    assert schema["type"] == "object"
    assert "title" not in schema
    assert not signature.wraps_output
    written = b'{"count":1,"otherName":"x","made":null}'
    assert signature.encode_structured(Item(count=1)) == written
    assert signature.encode_structured({"count": 1}) == written
    assert signature.encode_structured(More(count=1)) == written[:-1] + b',"extra":1}'
    assert signature.check_structured({"count": 1}) == b'{"count":1}'
    for wrong in ({"count": -1}, 5):
        with pytest.raises(TypeError, match=r"handler\(\): the result does not conform"):
            signature.encode_structured(wrong)
        with pytest.raises(TypeError, match=r"handler\(\): the result does not conform"):
            signature.check_structured(wrong)
    result = to_call_result(Item(count=1), signature)
    assert result.structured_content == {"count": 1, "otherName": "x", "made": None}
    assert result.content[0].text == written.decode()  # type: ignore[union-attr]


def test_results_of_models_inside_others_are_wrapped_or_not() -> None:
    def items() -> list[Item]: ...  # type: ignore[empty-body]
    def by_name() -> dict[str, Item]: ...  # type: ignore[empty-body]
    def numbers() -> Numbers: ...  # type: ignore[empty-body]
    def maybe() -> Item | None: ...

    @dataclasses.dataclass
    class Holder:
        item: Item

    def holder() -> Holder: ...  # type: ignore[empty-body]

    item = '{"count":1,"otherName":"x","made":null}'
    for fn, value, written in (
        (items, [Item(count=1)], f'{{"result":[{item}]}}'),
        (by_name, {"a": {"count": 1}}, f'{{"a":{item}}}'),
        (numbers, Numbers([1]), '{"result":[1]}'),
        (maybe, None, '{"result":null}'),
        (holder, Holder(Item(count=1)), f'{{"item":{item}}}'),
    ):
        signature = of(fn)
        assert signature.encode_structured(value).decode() == written
        schema = signature.output_schema
        assert schema is not None
        assert schema["type"] == "object"
        jsonschema_rs.validate(schema, msgspec.json.decode(written))
        assert signature.check_structured(msgspec.json.decode(written)) == written.encode()


def test_models_without_a_schema_are_text() -> None:
    result = to_call_result([Item(count=1), {"deep": Item(count=2)}])
    assert result.content[0].text == (  # type: ignore[union-attr]
        '[{"count":1,"otherName":"x","made":null},{"deep":{"count":2,"otherName":"x","made":null}}]'
    )


def test_definitions_of_one_name_are_kept_apart() -> None:
    def make(kind: Any) -> Any:
        inner = pydantic.create_model("Inner", a=(kind, ...))
        return pydantic.create_model("Outer", inner=(inner, ...))

    def handler(one: Any, two: Any) -> None: ...

    handler.__annotations__ = {"one": make(int), "two": make(str)}
    schema = of(handler).input_schema
    assert len(schema["$defs"]) == 4
    validator = jsonschema_rs.Draft202012Validator(schema)
    assert validator.is_valid({"one": {"inner": {"a": 1}}, "two": {"inner": {"a": "x"}}})
    assert not validator.is_valid({"one": {"inner": {"a": "x"}}, "two": {"inner": {"a": "x"}}})


def test_pydantic_is_never_imported_by_us() -> None:
    code = (
        "import sys, mcpfast.server.signature as s\n"
        "from typing import Annotated\n"
        "import datetime\n"
        "class C: pass\n"
        "def f(a: list[int], b: Annotated[int, 'words'] = 1, c: datetime.date | str = '') -> dict[str, int]:\n"
        "    'F.'\n"
        "g = s.Signature.of(f, context_type=C); g.input_schema, g.output_schema, g.encode_structured({'a': 1})\n"
        "assert 'pydantic' not in sys.modules and 'jsonschema_rs' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
