"""What a server offers and answers, as text for people or JSON for programs: `mcpfast inspect` and `mcpfast
call`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from mcpfast.client import Client
from mcpfast.protocol import types

SUMMARY_CHARACTERS = 100  # of a description, in a list


async def inspect(client: Client, *, as_json: bool) -> str:
    """Connects, and gives what the server says of itself and everything it lists. Raises as `Client` does."""
    async with client:
        has = client.server_capabilities
        listed = await asyncio.gather(
            _all(client.list_tools_all() if has.tools is not None else None),
            _all(client.list_resources_all() if has.resources is not None else None),
            _all(client.list_resource_templates_all() if has.resources is not None else None),
            _all(client.list_prompts_all() if has.prompts is not None else None),
        )
        tools, resources, templates, prompts = listed
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
        info = client.server_info
        name = (
            "a server that does not say its name"
            if info is None
            else f"{info.title or info.name} {info.version}"
        )
        parts = [f"{name}, MCP {client.protocol_version}"]
        if client.instructions:
            parts.append(client.instructions.strip())
    for title, rows in (
        ("tools", [(_signature(tool), tool) for tool in tools]),
        ("resources", [(resource.uri, resource) for resource in resources]),
        ("resource templates", [(template.uri_template, template) for template in templates]),
        ("prompts", [(_prompt_signature(prompt), prompt) for prompt in prompts]),
    ):
        if rows:
            parts.append("\n".join([title, *(_row(text, thing) for text, thing in rows)]))
    return "\n\n".join(parts)


async def call(client: Client, tool: str, arguments: dict[str, Any], *, as_json: bool) -> tuple[str, bool]:
    """Connects and calls one tool: its result as text, and whether the tool failed.

    Raises as `Client.call_tool` does.
    """
    async with client:
        result = await client.call_tool(tool, arguments)
    if as_json:
        return _json(result), result.is_error
    if not result.content and result.structured_content is not None:
        return _json(result.structured_content), result.is_error
    return "\n".join(_block(block) for block in result.content), result.is_error


async def _all(things: AsyncIterator[Any] | None) -> list[Any]:
    return [] if things is None else [thing async for thing in things]


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _row(text: str, thing: Any) -> str:
    """One line of a list: what to write, and the first line of what it is for."""
    about = (thing.description or thing.title or "").strip().partition("\n")[0]
    if len(about) > SUMMARY_CHARACTERS:
        about = about[: SUMMARY_CHARACTERS - 3].rstrip() + "..."
    return f"  {text:<40}  {about}".rstrip()


def _signature(tool: types.Tool) -> str:
    """`add(a: integer, b: integer = 2)`, from the input schema."""
    required = tool.input_schema.get("required", ())
    properties = tool.input_schema.get("properties", {})
    return f"{tool.name}({', '.join(_parameter(name, schema, name in required) for name, schema in properties.items())})"


def _parameter(name: str, schema: Any, required: bool) -> str:
    schema = schema if isinstance(schema, dict) else {}
    kind = schema.get("type")
    text = f"{name}: {kind}" if isinstance(kind, str) else name
    if "default" in schema:
        return f"{text} = {msgspec.json.encode(schema['default']).decode()}"
    return text if required else text + " (optional)"


def _prompt_signature(prompt: types.Prompt) -> str:
    arguments = prompt.arguments or ()
    return f"{prompt.name}({', '.join(a.name if a.required else a.name + ' (optional)' for a in arguments)})"


def _block(block: types.ContentBlock) -> str:
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


def _bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")
