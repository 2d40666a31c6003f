"""The official Python client drives a server: python drive.py MODE COMMAND ...ARGUMENTS over stdio, drive.py MODE URL over HTTP

Runs where `mcp` 2.3.0 is installed. What it saw is one line of JSON on stdout, of the same shape as that of drive.mjs.
"""

import asyncio
import json
import sys
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp_types import ElicitResult


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def drive(mode: str, command: str, *args: str) -> dict[str, Any]:
    asked: list[str] = []
    progress: list[Any] = []

    async def elicit(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"cups": 2, "milk": True})

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append([done, total, message])

    server: Any = command
    if not command.startswith("http"):
        server = StdioServerParameters(command=command, args=list(args))
    async with Client(server, mode=mode, elicitation_callback=elicit) as client:
        counted = await client.call_tool("count", {"to": 3}, progress_callback=on_progress)
        summed = await client.call_tool("blocking_sum", {"numbers": [1.5, 2.5]})
        refused = await client.call_tool("echo", {"text": 7})
        ordered = await client.call_tool("order_coffee", {})
        read = await client.read_resource("echo://moin")
        prompt = await client.get_prompt("review", {"code": "x = 1"})
        echoes = await asyncio.gather(*(client.call_tool("echo", {"text": f"{i}"}) for i in range(50)))
        unknown = None
        try:
            await client.call_tool("nope", {})
        except MCPError as error:
            unknown = error.error.code
        return {
            "protocol": client.protocol_version,
            "server": client.server_info.name if client.server_info else None,
            "instructions": client.instructions,
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            "templates": [
                one.uri_template for one in (await client.list_resource_templates()).resource_templates
            ],
            "prompts": [one.name for one in (await client.list_prompts()).prompts],
            "echoes": [[one.structured_content, plain(one.content[0])["text"]] for one in echoes],
            "refused": [refused.is_error, "echo" in plain(refused.content[0])["text"]],
            "unknown": unknown,
            "counted": counted.structured_content,
            "progress": progress,
            "summed": summed.structured_content,
            "ordered": ordered.structured_content,
            "asked": asked,
            "read": [plain(one) for one in read.contents],
            "prompt": [plain(one) for one in prompt.messages],
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(*sys.argv[1:]))))
