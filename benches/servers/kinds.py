"""One echo tool of each kind whose cost the gate watches, and one that tells of progress: `... kinds.py [ADDRESS]`."""

import asyncio
import sys

from mcpfast import Context, MCPServer

server = MCPServer("kinds", version="1.0")


@server.tool
async def echo(text: str) -> str:
    return text


@server.tool
async def echo_two(text: str) -> str:
    """The same under another name, for calls that go around."""
    return text


@server.tool(name="echo_three")
async def echo_three(text: str) -> str:
    return text


@server.tool
async def echo_context(text: str, ctx: Context) -> str:
    """The same, with a context made for it."""
    return text


@server.tool
async def echo_waiting(text: str) -> str:
    """The same, but the call is suspended once: it gets a task of its own and can be cancelled."""
    await asyncio.sleep(0)
    return text


@server.tool(inline=True)
def echo_inline(text: str) -> str:
    """A plain function that runs on the loop."""
    return text


@server.tool
async def progress(steps: int, ctx: Context) -> str:
    """Tells of every step, as fast as it can."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
    return "hello"


if __name__ == "__main__":
    server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")
