"""What `mcpfast inspect` and `mcpfast call` show."""

from __future__ import annotations

import json
from typing import Any

from mcpfast.client import inspection
from tests.test_client_fake import META, Fake, fake_client, run

HINTS = {"ttlMs": 0, "cacheScope": "private"}
TOOLS = [
    {
        "name": "add",
        "description": "Add two numbers.\nAnd more.",
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}, "c": True},
            "required": ["a"],
        },
    },
    {"name": "now", "title": "T" * 200, "inputSchema": {"type": "object"}},
]
PROMPTS = [{"name": "review", "arguments": [{"name": "code", "required": True}, {"name": "style"}]}]


async def server(fake: Fake) -> None:
    request = await fake.receive()
    fake.answer(
        request,
        HINTS,
        supportedVersions=["2026-07-28"],
        capabilities={"tools": {}, "prompts": {}},
        instructions="Be kind.",
        _meta={META + "serverInfo": {"name": "fake", "version": "2"}},
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
        assert text.split("\n") == [
            "fake 2, MCP 2026-07-28",
            "",
            "Be kind.",
            "",
            "tools",
            "  add(a: integer, b: integer = 2, c (optional))  Add two numbers.",
            "  now()" + " " * 37 + "T" * 97 + "...",
            "",
            "prompts",
            "  review(code, style (optional))",
        ]
        told = json.loads(await inspection.inspect(fake_client(server), as_json=True))
        assert told["tools"] == TOOLS
        assert told["prompts"] == PROMPTS
        assert told["serverInfo"] == {"name": "fake", "version": "2"}
        assert told["resources"] == []

    run(test())


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
