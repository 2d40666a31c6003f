"""What `mcpfast inspect` and `mcpfast call` show, and how a person at a terminal answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpfast.client import inspection
from mcpfast.client.terminal import choices_of, read_value
from tests.test_client_fake import META, Fake, fake_client, run

HINTS = {"ttlMs": 0, "cacheScope": "private"}
TOOLS = [
    {
        "name": "add",
        "description": "Add two numbers.\nAnd more.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first.\nOf two."},
                "b": {"type": "integer", "default": 2},
                "c": True,
            },
            "required": ["a"],
        },
    },
    {"name": "now", "title": "T" * 200, "inputSchema": {"type": "object"}},
]
PROMPTS = [
    {
        "name": "review",
        "arguments": [{"name": "code", "required": True, "description": "What."}, {"name": "style"}],
    }
]
TEXT = """\
fake 2: The Fake
Be kind.

protocol      2026-07-28
capabilities  prompts, tools (listChanged)

Tools (2)
  add                          Add two numbers.
      a      integer           The first.
      b      integer = 2
      c      any, optional
  now                          TTT...

Prompts (1)
  review
      code   string            What.
      style  string, optional"""


async def server(fake: Fake) -> None:
    request = await fake.receive()
    fake.answer(
        request,
        HINTS,
        supportedVersions=["2026-07-28"],
        capabilities={"tools": {"listChanged": True}, "prompts": {"listChanged": False}},
        instructions="Be kind.\n",
        _meta={META + "serverInfo": {"name": "fake", "title": "The Fake", "version": "2"}},
        resultType="complete",
    )
    fake.revision = "2026-07-28"
    while request := await fake.receive():
        if request["method"] == "tools/list" and "cursor" not in request["params"]:
            fake.answer(request, HINTS, tools=TOOLS[:1], nextCursor="")  # an empty cursor is one
        elif request["method"] == "tools/list":
            fake.answer(request, HINTS, tools=TOOLS[1:])
        else:
            assert request["method"] == "prompts/list"  # resources are not offered, and so not asked for
            fake.answer(request, HINTS, prompts=PROMPTS)


def test_inspect() -> None:
    async def test() -> None:
        text = await inspection.inspect(fake_client(server), as_json=False)
        assert text.split("\n") == TEXT.replace("TTT", "T" * 97).split("\n")
        told = json.loads(await inspection.inspect(fake_client(server), as_json=True))
        assert told["tools"] == TOOLS
        assert told["prompts"] == PROMPTS
        assert told["serverInfo"] == {"name": "fake", "title": "The Fake", "version": "2"}
        assert told["resources"] == []

    run(test())


def test_inspect_a_server_that_says_nothing() -> None:
    async def silent(fake: Fake) -> None:
        fake.answer(
            await fake.receive(),
            HINTS,
            supportedVersions=["2026-07-28"],
            capabilities={},
            resultType="complete",
        )

    async def test() -> None:
        assert (await inspection.inspect(fake_client(silent), as_json=False)).split("\n") == [
            "A server that does not say its name",
            "",
            "protocol      2026-07-28",
            "capabilities  none",
        ]

    run(test())


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (True, "any"),
        ({}, "any"),
        ({"type": "string"}, "string"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"const": "a"}, '"a"'),
        ({"type": "array"}, "array"),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            "array of array of integer",
        ),
        ({"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Point"}, {"type": "integer"}]}, "integer | Point"),
        ({"$ref": "#/$defs/Colour"}, '"red" | "blue"'),
        ({"$ref": "#/elsewhere"}, "elsewhere"),
    ],
)
def test_a_type_in_a_few_words(schema: Any, text: str) -> None:
    root = {"$defs": {"Point": {"type": "object"}, "Colour": {"type": "string", "enum": ["red", "blue"]}}}
    assert inspection.type_text(schema, root) == text


def test_call() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": "hello"},
        {"type": "image", "data": "AAECAw==", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "x://1", "name": "x"},
        {"type": "resource", "resource": {"uri": "x://2", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "x://3", "blob": "AAEC"}},
    ]

    async def calls(fake: Fake) -> None:
        await fake.discovered()
        request = await fake.receive()
        assert request["params"]["arguments"] == {"a": 1}
        fake.answer(request, content=blocks, isError=True)

    async def structured(fake: Fake) -> None:
        await fake.discovered()
        fake.answer(await fake.receive(), content=[], structuredContent={"result": [1]})

    async def test() -> None:
        text, failed = await inspection.call(fake_client(calls), "t", {"a": 1}, as_json=False)
        assert failed
        assert text.split("\n") == [
            "hello",
            "[image/png, 4 bytes]",
            "[link x://1]",
            "inside",
            "[binary x://3, 3 bytes]",
        ]
        text, failed = await inspection.call(fake_client(calls), "t", {"a": 1}, as_json=True)
        assert failed
        assert json.loads(text)["content"] == blocks
        text, failed = await inspection.call(fake_client(structured), "t", {}, as_json=False)
        assert (json.loads(text), failed) == ({"result": [1]}, False)

    run(test())


TITLED = {"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]}
SEVERAL = {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}}


@pytest.mark.parametrize(
    ("typed", "field", "value"),
    [
        ("12", {"type": "integer"}, 12),
        ("1.5", {"type": "number"}, 1.5),
        ("Yes", {"type": "boolean"}, True),
        ("n", {"type": "boolean"}, False),
        ("any text", {"type": "string"}, "any text"),
        ("l", TITLED, "l"),
        ("red, blue", SEVERAL, ["red", "blue"]),
        ("", SEVERAL, []),
    ],
)
def test_what_is_typed_becomes_the_type_of_the_field(typed: str, field: dict[str, Any], value: Any) -> None:
    assert read_value(typed, field) == value


@pytest.mark.parametrize(
    ("typed", "field", "sentence"),
    [
        ("1.5", {"type": "integer"}, "a whole number, please"),
        ("x", {"type": "number"}, "a number, please"),
        ("9", {"type": "integer", "maximum": 8}, "from any to 8"),
        ("maybe", {"type": "boolean"}, "yes or no?"),
        ("", {"type": "string", "minLength": 1}, "from 1 to any number of characters"),
        ("m", TITLED, "one of s, l"),
        ("red, green", SEVERAL, "one of red, blue"),
    ],
)
def test_what_does_not_fit_is_told(typed: str, field: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_value(typed, field)


def test_choices() -> None:
    assert choices_of(TITLED) == ["s", "l"]
    assert choices_of(SEVERAL) == ["red", "blue"]
    assert choices_of({"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}}) == ["a"]
    assert choices_of({"type": "string"}) == []
