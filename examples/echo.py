"""A small server that shows a bit of everything. `python examples/echo.py` serves over stdio, `... tcp://127.0.0.1:9000` there."""

import asyncio
import sys

import msgspec

from mcpfast import Context, MCPServer

server = MCPServer("echo", version="1.0", instructions="Echoes, counts and asks.")


@server.tool
async def echo(text: str) -> str:
    "Give back the text."
    return text


@server.tool
async def count(to: int, ctx: Context) -> int:
    """Count up, telling the client how far it is.

    Args:
        to: where to stop
    """
    for step in range(1, to + 1):
        await ctx.report_progress(step, to, f"{step} of {to}")
        await asyncio.sleep(0.001)
    return to


class Size(msgspec.Struct):
    "What the user is asked for."

    cups: int
    milk: bool = False


@server.tool
async def order_coffee(ctx: Context) -> str:
    "Ask the user how they want their coffee."
    answer = await ctx.elicit("How much coffee?", Size)
    if answer.action != "accept":
        return "No coffee, then."
    return f"{answer.data.cups} cups, {'with' if answer.data.milk else 'without'} milk"


@server.tool
def blocking_sum(numbers: list[float]) -> float:
    "A plain `def` runs in a worker thread, so it may block."
    return sum(numbers)


@server.resource("echo://{word}", mime_type="text/plain")
async def word(word: str) -> str:
    "Every word is a resource."
    return word


@server.prompt
def review(code: str) -> str:
    "Ask for a review."
    return f"Please review this code:\n\n{code}"


if __name__ == "__main__":
    server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")
