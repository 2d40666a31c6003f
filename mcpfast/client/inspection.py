"""What a server offers and answers, as text for people or JSON for programs: `mcpfast inspect` and `mcpfast call`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec

from mcpfast.client import Client
from mcpfast.protocol import types

SUMMARY_CHARACTERS = 100  # of a description, in a list
COLUMN_CHARACTERS = 32  # a column is as wide as its widest cell, but no wider than this

Row = tuple[str, ...]


async def inspect(client: Client, *, as_json: bool) -> str:
    """Connects, and gives what the server says of itself and everything it lists. Raises as `Client` does."""
    async with client:
        has = client.server_capabilities
        tools, resources, templates, prompts = await asyncio.gather(
            _all(client.list_tools_all() if has.tools is not None else None),
            _all(client.list_resources_all() if has.resources is not None else None),
            _all(client.list_resource_templates_all() if has.resources is not None else None),
            _all(client.list_prompts_all() if has.prompts is not None else None),
        )
        if as_json:
            whole = {
                "protocolVersion": client.protocol_version,
                "serverInfo": client.server_info,
                "capabilities": has,
                "instructions": client.instructions,
                "tools": tools,
                "resources": resources,
                "resourceTemplates": templates,
                "prompts": prompts,
            }
            return _json(whole)
        parts = [_head(client)]
    parts += _sections(
        ("Tools", [row for tool in tools for row in _tool(tool)]),
        ("Resources", [row for resource in resources for row in _resource(resource.uri, resource)]),
        ("Resource templates", [row for one in templates for row in _resource(one.uri_template, one)]),
        ("Prompts", [row for prompt in prompts for row in _prompt(prompt)]),
    )
    return "\n\n".join(parts)


async def call(client: Client, tool: str, arguments: dict[str, Any], *, as_json: bool) -> tuple[str, bool]:
    """Connects and calls one tool: its result as text, and whether the tool failed. Raises as `Client.call_tool` does."""
    async with client:
        result = await client.call_tool(tool, arguments)
    if as_json:
        return _json(result), result.is_error
    if not result.content and result.structured_content is not None:
        return _json(result.structured_content), result.is_error
    return "\n".join(block_text(block) for block in result.content), result.is_error


def block_text(block: types.ContentBlock) -> str:
    """A content block as a line or more of text; what is binary is only named."""
    if isinstance(block, types.TextContent):
        return block.text
    if isinstance(block, types.ResourceLink):
        return f"[link {block.uri}]"
    if isinstance(block, types.EmbeddedResource):
        held = block.resource
        if isinstance(held, types.TextResourceContents):
            return held.text
        return f"[{held.mime_type or 'binary'} {held.uri}, {_bytes(held.blob)} bytes]"
    return f"[{block.mime_type}, {_bytes(block.data)} bytes]"


async def _all(things: AsyncIterator[Any] | None) -> list[Any]:
    return [] if things is None else [thing async for thing in things]


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


# ---------------------------------------------------------------------------------------------- the text


def _head(client: Client) -> str:
    info = client.server_info
    lines = ["A server that does not say its name"]
    if info is not None:
        lines = [f"{info.name} {info.version}" + (f": {info.title}" if info.title else "")]
    if client.instructions:
        lines.append(client.instructions.strip())
    lines += ["", f"protocol      {client.protocol_version}"]
    lines.append(f"capabilities  {_capabilities(client.server_capabilities) or 'none'}")
    return "\n".join(lines)


def _capabilities(declared: types.ServerCapabilities) -> str:
    """`resources (listChanged, subscribe), tools`."""
    texts = []
    for name, settings in sorted(msgspec.to_builtins(declared).items()):
        on = sorted(key for key, value in settings.items() if value) if isinstance(settings, dict) else []
        texts.append(f"{name} ({', '.join(on)})" if on else name)
    return ", ".join(texts)


def _sections(*sections: tuple[str, list[Row]]) -> Iterator[str]:
    """Titles and aligned rows; a column is equally wide in all of them."""
    rows = [row for _, rows in sections for row in rows]
    widths = [
        min(COLUMN_CHARACTERS, max((len(row[i]) for row in rows if len(row) > 2), default=0)) for i in (0, 1)
    ]
    for title, rows in sections:
        if rows:
            lines = "\n".join(_line(row, widths) for row in rows)
            yield f"{title} ({sum(not row[0].startswith(' ') for row in rows)})\n{lines}"


def _line(row: Row, widths: list[int]) -> str:
    if len(row) == 2:  # a thing of its own: its name, what it is for
        return f"  {row[0]:<{sum(widths) + 2}}  {row[1]}".rstrip()
    return f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip()


def _tool(tool: types.Tool) -> Iterator[Row]:
    yield tool.name, _summary(tool)
    schema = tool.input_schema
    required = schema.get("required", ())
    for name, asked in schema.get("properties", {}).items():
        asked = asked if isinstance(asked, dict) else {}  # noqa: PLW2901 - true is a schema, too
        yield _argument(name, type_text(asked, schema), name in required, asked)


def _prompt(prompt: types.Prompt) -> Iterator[Row]:
    yield prompt.name, _summary(prompt)
    for argument in prompt.arguments or ():
        yield _argument(
            argument.name, "string", bool(argument.required), {"description": argument.description}
        )


def _resource(uri: str, resource: types.Resource | types.ResourceTemplate) -> Iterator[Row]:
    about = _summary(resource)
    yield uri, f"{about}  [{resource.mime_type}]".lstrip() if resource.mime_type else about


def _argument(name: str, kind: str, required: bool, asked: dict[str, Any]) -> Row:
    if "default" in asked:
        kind += f" = {msgspec.json.encode(asked['default']).decode()}"
    elif not required:
        kind += ", optional"
    return f"    {name}", kind, _first_line(asked.get("description"))


def _summary(thing: Any) -> str:
    return _first_line(thing.description or thing.title)


def _first_line(text: Any) -> str:
    line = text.strip().partition("\n")[0] if isinstance(text, str) else ""
    return line if len(line) <= SUMMARY_CHARACTERS else line[: SUMMARY_CHARACTERS - 3].rstrip() + "..."


def type_text(schema: Any, root: dict[str, Any]) -> str:
    """What a value must be, in a few words: `integer`, `array of string`, `"a" | "b"`, `Point`."""
    if not isinstance(schema, dict):
        return "any"
    if "enum" in schema:
        return _either(msgspec.json.encode(value).decode() for value in schema["enum"])
    if "const" in schema:
        return msgspec.json.encode(schema["const"]).decode()
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        definition = root.get("$defs", {}).get(name)
        plain = isinstance(definition, dict) and definition.get("type") not in ("object", None)
        return type_text(definition, root) if plain else name
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return _either(type_text(arm, root) for arm in schema[union])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either(str(one) for one in kind)
    if kind == "array":
        inner = type_text(schema.get("items"), root)
        return "array" if inner == "any" else f"array of {inner}"
    return kind if isinstance(kind, str) else "any"


def _either(texts: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(texts))


__all__ = ["block_text", "call", "inspect", "type_text"]
