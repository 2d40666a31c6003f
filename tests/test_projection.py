"""What each revision may see: described and answered once in the newest words, told to each client in its own (section 36)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpfast import Audio, Image, MCPServer, ToolResult
from mcpfast.protocol import types
from tests.wire import REVISIONS, Wire, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)
A, B, C, D, E = REVISIONS
ICONS = [{"src": "https://example.org/i.png", "mimeType": "image/png", "sizes": ["48x48", "any"]}]
NOTES = {"audience": ["user"], "priority": 0.5, "lastModified": "2026-01-01T00:00:00Z"}
META = {"example.org/mine": {"deep": [1, None]}}

# member -> the first revision that has it; everything else is in all of them
TOOL_SINCE = {"annotations": B, "title": C, "outputSchema": C, "_meta": C, "icons": D}
THING_SINCE = {"title": C, "_meta": C, "icons": D}


async def nullary() -> int:
    return 1


async def unary(x: str) -> str:
    return x


def make_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("projection", version="1")
    common: dict[str, Any] = {"title": "Title", "icons": ICONS, "meta": META, "description": "What it is"}
    server.add_tool(
        nullary,
        annotations=types.ToolAnnotations(title="T", read_only_hint=True, open_world_hint=False),
        **common,
    )
    server.add_prompt(unary, **common)
    server.add_resource("fixed://x", nullary, annotations=NOTES, mime_type="text/plain", **common)
    server.add_resource("many://{x}", unary, annotations=NOTES, mime_type="text/plain", **common)
    return server


def seen(thing: dict[str, Any], since: dict[str, str], revision: str) -> None:
    """Exactly the members that this revision has."""
    for member, first in since.items():
        assert (member in thing) is (revision >= first), (member, revision)
    assert thing["description"] == "What it is"
    if revision >= D:
        assert thing["icons"] == ICONS
    if revision >= C:
        assert thing["_meta"] == META and thing["title"] == "Title"


def notes(revision: str) -> dict[str, Any]:
    return (
        NOTES if revision >= C else {name: value for name, value in NOTES.items() if name != "lastModified"}
    )


@all_revisions
def test_descriptors(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            (tool,) = (await wire.request("tools/list"))["tools"]
            seen(tool, TOOL_SINCE, revision)
            if revision >= B:
                assert tool["annotations"] == {"title": "T", "readOnlyHint": True, "openWorldHint": False}
            if revision >= C:
                assert tool["outputSchema"]["type"] == "object"
            assert "execution" not in tool
            (prompt,) = (await wire.request("prompts/list"))["prompts"]
            seen(prompt, THING_SINCE, revision)
            (resource,) = (await wire.request("resources/list"))["resources"]
            (template,) = (await wire.request("resources/templates/list"))["resourceTemplates"]
            for thing in (resource, template):
                seen(thing, THING_SINCE, revision)
                assert thing["annotations"] == notes(revision) and thing["mimeType"] == "text/plain"

    run(scenario())


def test_a_revision_is_not_told_what_another_one_was() -> None:
    """The prepared lists are kept for each revision; one server serves them all."""

    async def scenario() -> None:
        server = make_server()
        for revision in (*REVISIONS, *reversed(REVISIONS)):
            async with connected(server, revision) as wire:
                (tool,) = (await wire.request("tools/list"))["tools"]
                seen(tool, TOOL_SINCE, revision)

    run(scenario())


# ---------------------------------------------------------------------------------------------------- blocks


def blocks() -> list[Any]:
    note = types.Annotations(audience=["user"], priority=0.5, last_modified="2026-01-01T00:00:00Z")
    text = types.TextResourceContents(uri="x://t", text="inner", mime_type="text/plain", meta=dict(META))
    return [
        types.TextContent(text="text", annotations=note, meta=dict(META)),
        types.ImageContent(data="aW1n", mime_type="image/png", annotations=note, meta=dict(META)),
        types.AudioContent(data="d2F2", mime_type="audio/wav", annotations=note, meta=dict(META)),
        types.ResourceLink(
            uri="x://l", name="link", title="Link", description="where", mime_type="text/html", size=3, annotations=note,
            icons=[types.Icon(src="https://example.org/i.png")], meta=dict(META),
        ),
        types.EmbeddedResource(resource=text, annotations=note, meta=dict(META)),
        types.EmbeddedResource(resource=types.BlobResourceContents(uri="x://b", blob="YmxvYg==", meta=dict(META))),
    ]  # fmt: skip


def block_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("blocks", version="1")

    @server.tool
    async def all_of_them() -> list[types.ContentBlock]:
        return blocks()

    @server.tool
    async def result() -> ToolResult:
        return ToolResult(content=blocks(), structured_content={"a": 1}, meta=META)

    @server.tool
    async def media():  # type: ignore[no-untyped-def]
        return [Image(data=b"img"), Audio(data=b"wav", format="mp3"), b"raw", "text"]

    @server.prompt
    async def prompt() -> list[Any]:
        return blocks()

    @server.resource("several://x")
    async def several() -> list[Any]:
        return [block.resource for block in blocks() if isinstance(block, types.EmbeddedResource)]

    return server


def check_blocks(got: list[dict[str, Any]], revision: str) -> None:
    text, image, audio, link, embedded, blob = got
    assert text["text"] == "text" and image["data"] == "aW1n" and image["mimeType"] == "image/png"
    for block in (text, image, embedded):
        assert block["annotations"] == notes(revision)
        assert ("_meta" in block) is (revision >= C)
    if revision >= B:
        assert audio["type"] == "audio" and audio["data"] == "d2F2" and audio["mimeType"] == "audio/wav"
        assert audio["annotations"] == notes(revision)
    else:
        assert audio["type"] == "resource"
        assert audio["resource"]["blob"] == "d2F2" and audio["resource"]["mimeType"] == "audio/wav"
        assert audio["annotations"] == notes(revision)
    if revision >= C:
        assert link["type"] == "resource_link" and link["uri"] == "x://l" and link["name"] == "link"
        assert link["title"] == "Link" and link["description"] == "where" and link["size"] == 3
        assert ("icons" in link) is (revision >= D)
    else:
        assert link["type"] == "text" and "x://l" in link["text"] and "Link" in link["text"]
        assert link["annotations"] == notes(revision)
    assert embedded["resource"]["text"] == "inner" and blob["resource"]["blob"] == "YmxvYg=="
    for block in (embedded, blob):
        assert ("_meta" in block["resource"]) is (revision >= C)


async def blocks_of(wire: Wire, source: str) -> list[dict[str, Any]]:
    if source == "prompt":
        return [one["content"] for one in (await wire.request("prompts/get", {"name": "prompt"}))["messages"]]
    return (await wire.call(source))["content"]


@all_revisions
@pytest.mark.parametrize("source", ["all_of_them", "result", "prompt"])
def test_blocks(revision: str, source: str) -> None:
    async def scenario() -> None:
        async with connected(block_server(), revision) as wire:
            check_blocks(await blocks_of(wire, source), revision)

    run(scenario())


@all_revisions
def test_results_keep_their_meta_and_lose_what_is_not_known(revision: str) -> None:
    async def scenario() -> None:
        async with connected(block_server(), revision) as wire:
            result = await wire.call("result")
            assert result["_meta"]["example.org/mine"] == META["example.org/mine"]
            assert ("structuredContent" in result) is (revision >= C)

    run(scenario())


@all_revisions
def test_contents_of_resources(revision: str) -> None:
    async def scenario() -> None:
        async with connected(block_server(), revision) as wire:
            for one in (await wire.request("resources/read", {"uri": "several://x"}))["contents"]:
                assert ("_meta" in one) is (revision >= C)
                assert one["uri"].startswith("x://")

    run(scenario())


@all_revisions
def test_media(revision: str) -> None:
    async def scenario() -> None:
        async with connected(block_server(), revision) as wire:
            image, audio, raw, text = (await wire.call("media"))["content"]
            assert image == {"type": "image", "data": "aW1n", "mimeType": "image/png"}
            assert (audio.get("data") or audio["resource"]["blob"]) == "d2F2"
            assert raw["type"] == "resource" and raw["resource"]["blob"] == "cmF3"
            assert text == {"type": "text", "text": "text"}

    run(scenario())


# ---------------------------------------------------------------------------------------------------- structured content


@all_revisions
@pytest.mark.parametrize("value", [1, 1.5, True, None, "text", [1, "x", None], {"a": {"b": [1]}}])
def test_structured_content_is_an_object_wherever_it_exists(revision: str, value: Any) -> None:
    server: MCPServer[Any] = MCPServer("structured", version="1")

    async def typed() -> Any:
        return value

    typed.__annotations__["return"] = list[Any] if isinstance(value, list) else type(value)
    server.add_tool(typed)

    @server.tool
    async def free() -> ToolResult:
        return ToolResult(structured_content=value)

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            result = await wire.call("typed")
            if revision < C:
                assert "structuredContent" not in result
            elif isinstance(value, dict):
                assert result["structuredContent"] == value
            elif value is not None or "structuredContent" in result:
                assert result["structuredContent"] == {"result": value}
            if value is not None:
                text = result["content"][0]["text"]
                assert text == value if isinstance(value, str) else json.loads(text) == value
            free = await wire.call("free")
            if value is None:
                return
            assert ("structuredContent" in free) is (revision >= C)
            if revision in (C, D):
                assert free["structuredContent"] == (value if isinstance(value, dict) else {"result": value})
            if revision == E:
                assert free["structuredContent"] == value  # any JSON since 2026-07-28

    run(scenario())


@all_revisions
def test_errors_of_tools_look_the_same_in_every_revision(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("errors", version="1")

    @server.tool
    async def fails() -> ToolResult:
        return ToolResult(content=["no", Audio(data=b"wav")], is_error=True)

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            result = await wire.call("fails")
            assert result["isError"] is True and result["content"][0] == {"type": "text", "text": "no"}
            assert result["content"][1]["type"] == ("audio" if revision >= B else "resource")

    run(scenario())
