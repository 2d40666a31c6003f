"""Forms: what a client is shown conforms to its revision, what comes back is checked and in the type that was asked with."""

from __future__ import annotations

import datetime as dt
import enum
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import jsonschema_rs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from mcpfast.errors import McpFastError, RegistrationError, ToolError
from mcpfast.server import forms
from mcpfast.server.forms import (
    AcceptedElicitation,
    CancelledElicitation,
    DeclinedElicitation,
    ElicitationResult,
    Form,
    FormError,
)

C, D, E = "2025-06-18", "2025-11-25", "2026-07-28"
SPEC = Path(__file__).parent / "spec"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Priority(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Booking(msgspec.Struct):
    name: Annotated[
        str, Meta(title="Your name", description="As in the passport", min_length=2, max_length=40)
    ]
    day: dt.date
    guests: Annotated[int, Meta(ge=1, lt=9)] = 2
    budget: Annotated[float, Meta(le=5000)] | None = None
    color: Color = Color.BLUE
    priority: Priority = Priority.LOW
    meal: Literal["meat", "fish"] | None = None
    at: dt.datetime | None = None
    mail: Annotated[str, Meta(extra_json_schema={"format": "email"})] = ""
    code: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "ABC"
    window: bool = False


class Several(msgspec.Struct):
    colors: Annotated[list[Color], Meta(min_length=1, max_length=2)]
    sizes: list[Literal[1, 2]] = []


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(title="Full name", min_length=1, pattern="^[^0-9]*$")
    age: int = pydantic.Field(default=30, ge=0, lt=200, description="in years")
    site: pydantic.AnyUrl | None = None
    color: Color = Color.RED
    size: str = pydantic.Field(
        default="s",
        json_schema_extra={"oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]},
    )


@dataclass
class Answer:
    text: str
    sure: bool = True
    tags: list[Literal["a", "b"]] = field(default_factory=list)


class Loose(TypedDict, total=False):
    needed: Required[float]
    more: NotRequired[int | None]


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


RAW = {
    "type": "object",
    "title": "Not shown",
    "properties": {
        "mail": {"type": "string", "format": "email", "title": "Mail"},
        "site": {"type": "string", "format": "uri"},
        "count": {"type": "integer", "minimum": 1, "multipleOf": 2, "default": 4},
        "ratio": {"type": "number", "exclusiveMinimum": 0},
        "old": {"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
        "maybe": {"type": ["string", "null"]},
    },
    "required": ["mail"],
    "additionalProperties": False,
}
FORMS: list[Any] = [
    *(Booking, Person, Loose, Renamed, RAW, None),
    *(str, int, float, bool, dt.date, dt.datetime, Decimal, Color, Priority, int | None),
    *(Literal["a", "b"], Literal[1, 2], Literal["only"], Annotated[str, Meta(description="What?")]),
    *(["a", "b"], {"a": {"title": "First"}, "b": {}}, {"a": "First"}),
]
SEVERAL: list[Any] = [
    Several,
    Answer,
    list[Color],
    list[Literal["a"]],
    [["a", "b"]],
    [{"a": {"title": "First"}}],
]


def shown(schema: Any, revision: str = E) -> Any:
    return Form.of(schema).requested_schema(revision)["properties"]


# ---------------------------------------------------------------- to the client


def spec_validator(revision: str) -> Any:
    """For the params of an elicitation, without the leniency of the specification's schema: nothing that it does not name."""
    spec = json.loads((SPEC / revision / "schema.json").read_text())
    definitions = "definitions" if revision == C else "$defs"
    kinds = [name for name in spec[definitions] if name.endswith("Schema")]
    for name in kinds:
        if "properties" in spec[definitions][name]:
            spec[definitions][name]["additionalProperties"] = False
            spec[definitions][name]["properties"].setdefault("pattern", {})  # D's text has it, its schema not
    params = {"$ref": f"#/{definitions}/ElicitRequestFormParams"}
    if revision == C:
        params = spec["definitions"]["ElicitRequest"]["properties"]["params"]
    return jsonschema_rs.validator_for(
        {"$schema": spec["$schema"], definitions: spec[definitions], "allOf": [params]}
    )


@pytest.mark.parametrize("revision", [C, D, E])
def test_every_form_conforms_to_the_revision(revision: str) -> None:
    validator = spec_validator(revision)
    for schema in FORMS + (SEVERAL if revision != C else []):
        requested = Form.of(schema).requested_schema(revision)
        validator.validate({"message": "?", "requestedSchema": requested})
        assert requested.keys() <= {"type", "properties", "required"}
        assert requested is Form.of(schema).requested_schema(revision)  # made once
    with pytest.raises(jsonschema_rs.ValidationError):  # it can refuse
        validator.validate(
            {"message": "?", "requestedSchema": {"type": "object", "properties": {"a": {"type": "object"}}}}
        )


def test_a_struct() -> None:
    requested = Form.of(Booking).requested_schema(E)
    assert requested["required"] == ["name", "day"]
    assert requested["properties"] == {
        "name": {
            "type": "string",
            "title": "Your name",
            "description": "As in the passport",
            "minLength": 2,
            "maxLength": 40,
        },
        "day": {"type": "string", "format": "date"},
        "guests": {"type": "integer", "minimum": 1, "maximum": 8, "default": 2},
        "budget": {"type": "number", "maximum": 5000},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "blue"},
        "priority": {"type": "string", "enum": ["1", "2"], "default": "1"},
        "meal": {"type": "string", "enum": ["meat", "fish"]},
        "at": {"type": "string", "format": "date-time"},
        "mail": {"type": "string", "format": "email"},  # "" is no mail, so it is not offered as one
        "code": {"type": "string", "pattern": "^[A-Z]{3}$", "default": "ABC"},
        "window": {"type": "boolean", "default": False},
    }
    assert list(requested["properties"]) == list(Booking.__struct_fields__)


def test_the_first_revision_knows_less() -> None:
    early = shown(Booking, C)
    assert early["guests"] == {"type": "integer", "minimum": 1, "maximum": 8}
    assert early["color"] == {"type": "string", "enum": ["red", "blue"]}
    assert early["code"] == {"type": "string"}
    assert early["window"] == {"type": "boolean", "default": False}
    assert shown(Person, C)["size"] == {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]}
    for schema in SEVERAL:
        with pytest.raises(
            ToolError, match=r"This client cannot be asked: the field `.*` lets several be chosen"
        ):
            Form.of(schema).requested_schema(C)


def test_a_pydantic_model() -> None:
    assert shown(Person) == {
        "name": {"type": "string", "title": "Full name", "minLength": 1, "pattern": "^[^0-9]*$"},
        "age": {"type": "integer", "description": "in years", "minimum": 0, "maximum": 199, "default": 30},
        "site": {"type": "string", "format": "uri", "minLength": 1},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "size": {
            "type": "string",
            "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}],
            "default": "s",
        },
    }
    assert Form.of(Person).requested_schema(E)["required"] == ["name"]


def test_other_classes() -> None:
    assert Form.of(Answer).requested_schema(E) == {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "sure": {"type": "boolean", "default": True},
            "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        },
        "required": ["text"],
    }
    assert Form.of(Loose).requested_schema(E) == {
        "type": "object",
        "properties": {"needed": {"type": "number"}, "more": {"type": "integer"}},
        "required": ["needed"],
    }
    assert list(shown(Renamed)) == ["firstName"]
    assert shown(Several) == {
        "colors": {
            "type": "array",
            "items": {"type": "string", "enum": ["red", "blue"]},
            "minItems": 1,
            "maxItems": 2,
        },
        "sizes": {"type": "array", "items": {"type": "string", "enum": ["1", "2"]}, "default": []},
    }


def test_a_json_schema() -> None:
    assert Form.of(RAW).requested_schema(E) == {
        "type": "object",
        "properties": {
            "mail": {"type": "string", "format": "email", "title": "Mail"},
            "site": {"type": "string", "format": "uri"},
            "count": {"type": "integer", "minimum": 1, "default": 4},
            "ratio": {"type": "number"},
            "old": {"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
            "maybe": {"type": "string"},
        },
        "required": ["mail"],
    }


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (str, {"type": "string"}),
        (int | None, {"type": "integer"}),
        (Annotated[int, Meta(ge=1)], {"type": "integer", "minimum": 1}),
        (
            Annotated[int, pydantic.Field(ge=1, title="Count")],
            {"type": "integer", "minimum": 1, "title": "Count"},
        ),
        (Decimal, {"type": "number"}),
        (int | float, {"type": "number"}),
        (int | float | None, {"type": "number"}),
        (msgspec.defstruct("S", [("value", Decimal, Decimal("1.50"))]), {"type": "number", "default": 1.5}),
        (Literal["a", None], {"type": "string", "enum": ["a"]}),
        (
            {"type": "object", "properties": {"value": {"allOf": [{"type": "string"}], "title": "T"}}},
            {"type": "string", "title": "T"},
        ),
        (Annotated[str, {"un": "hashable"}], {"type": "string"}),
        (["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (
            {"a": {"title": "First"}, "b": {}},
            {"type": "string", "oneOf": [{"const": "a", "title": "First"}, {"const": "b", "title": "b"}]},
        ),
        ([["a", "b"]], {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}),
        ([{"a": "First"}], {"type": "array", "items": {"anyOf": [{"const": "a", "title": "First"}]}}),
        (Literal["only"], {"type": "string", "enum": ["only"]}),
    ],
)
def test_a_single_value_is_the_field_value(schema: Any, value: dict[str, Any]) -> None:
    assert shown(schema) == {"value": value}


def test_nothing_but_yes_or_no() -> None:
    assert Form.of(None).requested_schema(E) == {"type": "object", "properties": {}}
    assert Form.of(None).parse({"anything": 1}) == {}


def test_the_specifications_examples_stay_what_they_are() -> None:
    folders = [folder for folder in (SPEC / E / "examples").iterdir() if folder.name.endswith("Schema")]
    seen = 0
    for example in [file for folder in folders for file in folder.iterdir()]:
        member = json.loads(example.read_text())
        if member.get("type") in ("string", "number", "integer", "boolean", "array"):
            seen += 1
            assert shown({"type": "object", "properties": {"x": member}}) == {"x": member}, example
    assert seen >= 7


# ---------------------------------------------------------------- what no form can show


class Inner(msgspec.Struct):
    booking: Booking


class Texts(msgspec.Struct):
    tags: list[str]


class Both(msgspec.Struct):
    either: str | int


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


class Recursive(msgspec.Struct):
    again: Recursive | None = None


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Inner, "form `Inner`: field `booking`: an object is not possible in a form: a field is a str, int,"),
        (Recursive, "form `Recursive`: field `again`: an object is not possible"),
        (Texts, "form `Texts`: field `tags`: a list of anything but choices is not possible"),
        (Both, "form `Both`: field `either`: a union is not possible"),
        (
            Secret,
            "form `Secret`: field `password`: a secret must never be asked by a form; send the user to a page",
        ),
        (dict[str, int], "field `value`: an object is not possible"),
        (list[int], "field `value`: a list of anything but choices"),
        (bytes, "field `value`: binary content is not possible"),
        (object(), "nothing that JSON has a value for"),
        (complex, "form `complex`: complex cannot be read from JSON"),
        ([], "choices are given as"),
        ([1], "choices are given as"),
        ({}, "choices are given as"),
        (["a", "a"], "two of its choices look the same"),
        (Literal[1, "1"], "two of its choices look the same"),
        ([object()], "it is no JSON"),
        ({"type": "string"}, 'a JSON Schema must say "type": "object"'),
        ({"properties": {}}, 'a JSON Schema must say "type": "object"'),
        ({"type": "object"}, "it names no fields"),
        ({"type": "object", "properties": {"a": True}}, "field `a`: its schema is no object"),
        ({"type": "object", "properties": {"a": {}}}, "field `a`: this is not possible in a form"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}},
            "refers to #/$defs/a, which is not there",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/a"}},
                "$defs": {"a": {"$ref": "#/$defs/a"}},
            },
            "field `a`: its schema refers to itself",
        ),
        ({"type": "object", "properties": {"a": {"enum": [{}]}}}, "a choice between objects or lists"),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": "1"}}},
            "schema cannot be used",
        ),
    ],
)
def test_what_is_refused_and_why(schema: Any, told: str) -> None:
    with pytest.raises(RegistrationError) as error:
        Form.of(schema)
    assert told in str(error.value)


# ---------------------------------------------------------------- and back

FULL = {
    "name": "Ada",
    "day": "2026-12-24",
    "guests": 3.0,  # a JSON integer
    "budget": 100,
    "color": "red",
    "priority": "2",
    "meal": "fish",
    "at": "2026-12-24T18:00:00Z",
    "mail": "ada@example.org",
    "code": "XYZ",
    "window": True,
}


def test_a_struct_comes_back() -> None:
    assert Form.of(Booking).parse({**FULL, "unknown": 1}) == Booking(
        name="Ada",
        day=dt.date(2026, 12, 24),
        guests=3,
        budget=100.0,
        color=Color.RED,
        priority=Priority.HIGH,
        meal="fish",
        at=dt.datetime(2026, 12, 24, 18, tzinfo=dt.UTC),
        mail="ada@example.org",
        code="XYZ",
        window=True,
    )
    least = Form.of(Booking).parse({"name": "Ada", "day": "2026-12-24", "budget": None})
    assert least == Booking("Ada", dt.date(2026, 12, 24))


@pytest.mark.parametrize(
    ("schema", "content", "data"),
    [
        (Person, {"name": "Ada", "size": "l"}, Person(name="Ada", size="l")),
        (Answer, {"text": "yes", "tags": ["b"]}, Answer("yes", True, ["b"])),
        (Loose, {"needed": 1}, {"needed": 1.0}),
        (Renamed, {"firstName": "Ada"}, Renamed("Ada")),
        (Several, {"colors": ["blue"], "sizes": ["2", 1]}, Several([Color.BLUE], [2, 1])),
        (RAW, {"mail": "a@b", "count": 2.0, "x": 1}, {"mail": "a@b", "count": 2}),
        (str, {"value": ""}, ""),
        (int, {"value": 3.0}, 3),
        (int | None, {}, None),
        (float, {"value": 3}, 3.0),
        (bool, {"value": False}, False),
        (Decimal, {"value": 1.5}, Decimal("1.5")),
        (dt.date, {"value": "2026-12-24"}, dt.date(2026, 12, 24)),
        (Color, {"value": "red"}, Color.RED),
        (Priority, {"value": "2"}, Priority.HIGH),
        (Priority, {"value": 2}, Priority.HIGH),
        (Literal[1, 2], {"value": "2"}, 2),
        (list[Color], {"value": []}, []),
        (["a", "b"], {"value": "b"}, "b"),
        ({"a": {"title": "First"}}, {"value": "a"}, "a"),
        ([["a", "b"]], {"value": ["b", "a"]}, ["b", "a"]),
    ],
)
def test_the_answer_has_the_type_that_was_asked_with(schema: Any, content: dict[str, Any], data: Any) -> None:
    found = Form.of(schema).parse(content)
    assert found == data and type(found) is type(data)


def test_a_required_null_of_a_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]}
    assert Form.of(schema).parse({}) == {"a": None}


@pytest.mark.parametrize(
    ("schema", "change", "at", "told"),
    [
        (Booking, {"name": None}, "name", "is missing"),
        (Booking, {"name": 1}, "name", "expected text"),
        (Booking, {"name": "A"}, "name", "expected at least 2 characters"),
        (Booking, {"name": "A" * 41}, "name", "expected at most 40 characters"),
        (Booking, {"day": "24.12.2026"}, "day", "expected a date"),
        (Booking, {"day": "2026-12-24T18:00:00Z"}, "day", "expected a date"),
        (Booking, {"at": "2026-12-24"}, "at", "expected a date-time"),
        (Booking, {"guests": True}, "guests", "expected a whole number"),
        (Booking, {"guests": 2.5}, "guests", "expected a whole number"),
        (Booking, {"guests": "2"}, "guests", "expected a whole number"),
        (Booking, {"guests": 0}, "guests", "expected at least 1"),
        (Booking, {"guests": 9}, "guests", "expected at most 8"),
        (Booking, {"budget": 5000.5}, "budget", "expected at most 5000"),
        (Booking, {"budget": "1"}, "budget", "expected a number"),
        (Booking, {"window": 1}, "window", "expected true or false"),
        (Booking, {"color": "green"}, "color", "expected one of red, blue"),
        (Booking, {"priority": True}, "priority", "expected one of 1, 2"),
        (Booking, {"priority": ["1"]}, "priority", "expected one of 1, 2"),
        (Booking, {"mail": "nobody"}, "mail", "expected an email"),
        (Booking, {"code": "abc"}, "code", "expected text that matches ^[A-Z]{3}$"),
        (RAW, {"mail": "a@b", "site": "no uri"}, "site", "expected a uri"),
        (RAW, {"mail": "a@b", "count": 3}, "count", "multiple of 2"),
        (RAW, {"mail": "a@b", "ratio": 0}, "ratio", "minimum of 0"),
        (Several, {"colors": "red"}, "colors", "expected a list of texts"),
        (Several, {"colors": []}, "colors", "expected at least 1 choices"),
        (Several, {"colors": ["red"] * 3}, "colors", "expected at most 2 choices"),
        (Several, {"colors": ["green"]}, "colors", "expected one of red, blue"),
        (int, {}, "value", "is missing"),
        (Annotated[int, Meta(multiple_of=2)], {"value": 3}, "value", "multiple"),
    ],
)
def test_what_does_not_fit_is_told_with_its_field(
    schema: Any, change: dict[str, Any], at: str, told: str
) -> None:
    content = {**FULL, **change} if schema is Booking else change
    with pytest.raises(FormError) as error:
        Form.of(schema).parse(content)
    assert error.value.field == at and told in error.value.reason
    assert str(error.value) == f"field `{at}`: {error.value.reason}"
    assert isinstance(error.value, McpFastError)


class Checked(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        if text == "bad":
            raise ValueError("we do not like it")
        return text


def test_a_models_own_checks_count() -> None:
    assert Form.of(Checked).parse({"text": "good"}) == Checked(text="good")
    with pytest.raises(FormError, match=r"we do not like it.*`text`"):
        Form.of(Checked).parse({"text": "bad"})


def test_a_pattern_of_another_dialect_is_left_to_who_converts() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^\p{Lu}$"}}}
    assert Form.of(schema).parse({"a": "\u00c9"}) == {"a": "\u00c9"}
    with pytest.raises(FormError, match="field `a`"):
        Form.of(schema).parse({"a": "\u00e9"})


@given(
    st.builds(
        Booking,
        name=st.text(min_size=2, max_size=40),
        day=st.dates(),
        guests=st.integers(1, 8),
        budget=st.none() | st.floats(max_value=5000, allow_nan=False, allow_infinity=False),
        color=st.sampled_from(Color),
        priority=st.sampled_from(Priority),
        meal=st.sampled_from(["meat", "fish", None]),
        at=st.none() | st.datetimes(timezones=st.just(dt.UTC)),
        mail=st.just("a@b"),
        code=st.from_regex(r"\A[A-Z]{3}\Z"),
        window=st.booleans(),
    )
)
def test_any_answer_that_a_form_allows_comes_back(booking: Booking) -> None:
    content = {name: value for name, value in msgspec.to_builtins(booking).items() if value is not None}
    content["priority"] = str(content["priority"])
    jsonschema_rs.Draft202012Validator(Form.of(Booking).requested_schema(E)).validate(content)
    assert Form.of(Booking).parse(content) == booking


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3
)


@given(st.dictionaries(st.sampled_from([*Booking.__struct_fields__]), anything))
def test_any_other_answer_is_refused_or_comes_back_checked(content: dict[str, Any]) -> None:
    for schema in (Booking, Several, Person, RAW):
        try:
            Form.of(schema).parse(content)
        except FormError:
            pass


# ---------------------------------------------------------------- cache, answers, cost


def test_forms_are_kept_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Form.of(Booking) is Form.of(Booking)
    assert Form.of(["a", "b"]) is Form.of(["a", "b"])
    assert Form.of(["a", "b"]) is not Form.of([["a", "b"]])
    assert Form.of(Literal[1]) is not Form.of(Literal[True])
    monkeypatch.setattr(forms, "FORMS_KEPT_MAX", 5)
    for n in range(20):
        Form.of([str(n)])
        assert len(forms._forms) <= 5 or n == 0


def describe(answer: ElicitationResult[Any]) -> str:
    match answer:
        case AcceptedElicitation(data=data):
            return f"{answer.action} {data}"
        case DeclinedElicitation():
            return answer.action
        case CancelledElicitation():
            return answer.action


def test_answers() -> None:
    answers: list[ElicitationResult[int]] = [
        AcceptedElicitation(data=1),
        DeclinedElicitation(),
        CancelledElicitation(),
    ]
    assert [describe(answer) for answer in answers] == ["accept 1", "decline", "cancel"]
    assert AcceptedElicitation(1) == AcceptedElicitation(data=1) != AcceptedElicitation(2)
    assert repr(AcceptedElicitation(1)) == "AcceptedElicitation(data=1)"
    match AcceptedElicitation("x"):
        case AcceptedElicitation(text):
            assert text == "x"
    with pytest.raises(AttributeError):
        AcceptedElicitation(1).data = 2  # type: ignore[misc]


@pytest.mark.parametrize("module", ["pydantic", "jsonschema_rs"])
def test_what_is_not_needed_is_not_imported(module: str) -> None:
    code = f"""
import sys
from mcpfast.server.forms import Form
Form.of(int).requested_schema("2026-07-28")
Form.of(["a"]).parse({{"value": "a"}})
print({module!r} in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_type_of_parse(recwarn: pytest.WarningsRecorder) -> None:
    parse: Callable[[dict[str, Any]], Any] = Form.of(Person).parse
    parse({"name": "Ada"})
    assert not recwarn.list
