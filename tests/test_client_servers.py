"""The servers that `test_client_live.py` speaks with: one source each, and who runs it. No tests here.

A source is what all frameworks share, and a part that asks the client in the framework's own way. The
official SDK's server runs here, or under MCPFAST_PEER_PYTHON, the interpreter of an environment that has
`mcp` 2.3.0.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import NamedTuple

SHARED = """
import asyncio, base64, os, sys

seen = []

@server.tool()
async def add(a: int, b: int = 2) -> int:
    "Add two numbers."
    return a + b

@server.tool()
def fail() -> str:
    raise ToolError("no such luck")

@server.tool()
async def steps(count: int, ctx: Context) -> str:
    for i in range(count):
        await ctx.report_progress(i + 1, count, f"step {i + 1}")
    return "done"

@server.tool()
async def chatty(ctx: Context) -> str:
    await ctx.debug("too low")
    await ctx.warning({"n": 1})
    return "said"

@server.tool()
async def sleep(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise
    return "slept"

@server.tool()
def what_was_seen() -> list[str]:
    return list(seen)

@server.tool()
def die() -> str:
    print("last words of the server", file=sys.stderr, flush=True)
    os._exit(3)

def new() -> str:
    return "new"

@server.resource("note://{name}")
def note(name: str) -> str:
    return f"note {name}"

@server.resource("data://blob", mime_type="application/octet-stream")
def blob() -> bytes:
    return bytes(range(8))

@server.prompt()
def review(code: str) -> str:
    return f"Review {code}"

@server.completion()
async def complete(ref, argument, context):
    given = (context.arguments or {}) if context else {}
    return Completion(values=[argument.value + tail for tail in ("one", "two")] + list(given.values()), total=9)
"""

OFFICIAL = (
    """
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import *
from pydantic import BaseModel

server = MCPServer("peer", version="1.5", instructions="Be kind.")
"""
    + SHARED
    + """
class Form(BaseModel):
    n: int

FORM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
QUESTIONS = {
    "elicit": ElicitRequest(params=ElicitRequestFormParams(message="How many?", requested_schema=FORM)),
    "sample": CreateMessageRequest(params=CreateMessageRequestParams(
        messages=[SamplingMessage(role="user", content=TextContent(text="hi"))], max_tokens=9)),
    "roots": ListRootsRequest(),
}

def told(ctx, kinds):
    "The answers of a modern client, or what asks for them."
    if ctx.protocol_version < "2026":
        return None
    if ctx.input_responses is None:
        return InputRequiredResult(input_requests={kind: QUESTIONS[kind] for kind in kinds}, request_state="s-1")
    assert ctx.request_state == "s-1", ctx.request_state
    return ctx.input_responses

@server.tool()
async def ask(ctx: Context) -> str | InputRequiredResult:
    answers = told(ctx, ["elicit"])
    if isinstance(answers, InputRequiredResult):
        return answers
    answer = answers["elicit"] if answers else await ctx.session.elicit_form("How many?", FORM)
    return f"{answer.action} {(answer.content or {}).get('n')}"

@server.tool()
async def sample(ctx: Context) -> str | InputRequiredResult:
    answers = told(ctx, ["sample"])
    if isinstance(answers, InputRequiredResult):
        return answers
    answer = answers["sample"] if answers else await ctx.session.create_message(
        [SamplingMessage(role="user", content=TextContent(text="hi"))], max_tokens=9)
    return answer.content.text

@server.tool()
async def roots(ctx: Context) -> list[str] | InputRequiredResult:
    answers = told(ctx, ["roots"])
    if isinstance(answers, InputRequiredResult):
        return answers
    answer = answers["roots"] if answers else await ctx.session.list_roots()
    return [str(root.uri) for root in answer.roots]

@server.tool()
async def both(ctx: Context) -> str | InputRequiredResult:
    answers = told(ctx, ["elicit", "sample"])
    if isinstance(answers, InputRequiredResult):
        return answers
    if not answers:
        first, second = await asyncio.gather(
            ctx.session.elicit_form("How many?", FORM),
            ctx.session.create_message([SamplingMessage(role="user", content=TextContent(text="hi"))], max_tokens=9))
    else:
        first, second = answers["elicit"], answers["sample"]
    return f"{first.content['n']} {second.content.text}"

@server.tool()
async def page(ctx: Context) -> str | InputRequiredResult:
    if ctx.protocol_version < "2026":
        return (await ctx.session.elicit_url("Look", "https://example.org/", "e-1")).action
    if ctx.input_responses is None:
        params = ElicitRequestURLParams(message="Look", url="https://example.org/")
        return InputRequiredResult(input_requests={"u": ElicitRequest(params=params)})
    return ctx.input_responses["u"].action

@server.tool()
async def grow(ctx: Context) -> str:
    server.add_tool(new)
    await ctx.notify_tools_changed()
    await ctx.notify_resource_updated("note://a")
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_resource_updated("note://a")
    server.remove_tool("new")
    return "grown"

if __name__ == "__main__":
    server.run()
"""
)

OURS = (
    """
import msgspec
from mcpfast import Context, MCPServer, ToolError
from mcpfast.protocol.types import Completion

server = MCPServer("peer", version="1.5", instructions="Be kind.")
"""
    + SHARED
    + """
class Form(msgspec.Struct):
    n: int

@server.tool
async def ask(ctx: Context) -> str:
    answer = await ctx.elicit("How many?", Form)
    return f"{answer.action} {answer.data.n if answer.action == 'accept' else None}"

@server.tool
async def sample(ctx: Context) -> str:
    return (await ctx.sample("hi", max_tokens=9)).content.text

@server.tool
async def roots(ctx: Context) -> list[str]:
    return [root.uri for root in await ctx.list_roots()]

@server.tool
async def both(ctx: Context) -> str:
    first, second = await ctx.gather(ctx.elicit("How many?", Form), ctx.sample("hi", max_tokens=9))
    return f"{first.data.n} {second.content.text}"

@server.tool
async def page(ctx: Context) -> str:
    return (await ctx.elicit_url("Look", "https://example.org/")).action

@server.tool
async def grow(ctx: Context) -> str:
    server.add_tool(new)
    server.notify_resource_updated("note://a")
    server.remove_tool("new")
    return "grown"

if __name__ == "__main__":
    server.run()
"""
)


class Peer(NamedTuple):
    """A server: its name, the interpreter that runs it (None: not on this machine), its source."""

    name: str
    python: str | None
    source: str


# The official SDK may stand beside us, or in an environment of its own.
HERE = sys.executable if importlib.util.find_spec("mcp") else None
PEERS = [
    Peer("official", os.environ.get("MCPFAST_PEER_PYTHON", HERE), OFFICIAL),
    Peer("mcpfast", sys.executable, OURS),
]
