"""The official Python client of the line before drives a server over HTTP: python drive_130.py http|sse URL

Runs where `mcp` 1.30.0 is installed (mcp-1.30.0.txt). What it saw is one line of JSON on stdout, of the same shape as that of
drive.py.
"""

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import ElicitResult
from pydantic import AnyUrl


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def drive(transport: str, url: str) -> dict[str, Any]:
    asked: list[str] = []
    progress: list[Any] = []

    async def elicit(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"cups": 2, "milk": True})

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append([done, total, message])

    made = sse_client(url) if transport == "sse" else streamablehttp_client(url)
    async with made as streams, ClientSession(streams[0], streams[1], elicitation_callback=elicit) as client:
        opened = await client.initialize()
        counted = await client.call_tool("count", {"to": 3}, progress_callback=on_progress)
        summed = await client.call_tool("blocking_sum", {"numbers": [1.5, 2.5]})
        refused = await client.call_tool("echo", {"text": 7})
        ordered = await client.call_tool("order_coffee", {})
        read = await client.read_resource(AnyUrl("echo://moin"))
        prompt = await client.get_prompt("review", {"code": "x = 1"})
        echoes = await asyncio.gather(*(client.call_tool("echo", {"text": f"{i}"}) for i in range(50)))
        unknown = None
        try:
            await client.call_tool("nope", {})
        except McpError as error:
            unknown = error.error.code
        templates = (await client.list_resource_templates()).resourceTemplates
        return {
            "protocol": opened.protocolVersion,
            "server": opened.serverInfo.name,
            "instructions": opened.instructions,
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            "templates": [one.uriTemplate for one in templates],
            "prompts": [one.name for one in (await client.list_prompts()).prompts],
            "echoes": [[one.structuredContent, plain(one.content[0])["text"]] for one in echoes],
            "refused": [refused.isError, "echo" in plain(refused.content[0])["text"]],
            "unknown": unknown,
            "counted": counted.structuredContent,
            "progress": progress,
            "summed": summed.structuredContent,
            "ordered": ordered.structuredContent,
            "asked": asked,
            "read": [plain(one) for one in read.contents],
            "prompt": [plain(one) for one in prompt.messages],
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(*sys.argv[1:]))))
