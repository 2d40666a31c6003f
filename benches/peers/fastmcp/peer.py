"""The peers' server with FastMCP: `peer.py stdio` or `peer.py http PORT`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fastmcp import FastMCP
from fastmcp.tools import ToolResult
from work import Work, fibonacci, transformed

mcp = FastMCP("peer")


def said(text: str) -> ToolResult:
    return ToolResult(content=text)


def told(value: Any) -> ToolResult:
    return said(json.dumps(value))


work = Work("fastmcp")


@mcp.tool()
async def echo(text: str) -> ToolResult:
    """Gives the text back."""
    return said(text)


@mcp.tool()
async def calculate_fibonacci(n: int) -> ToolResult:
    """The nth Fibonacci number, naively."""
    if not 0 <= n <= 40:
        raise ValueError("n is 0 to 40")
    return told({"result": fibonacci(n)})


@mcp.tool()
async def fetch_external_data(endpoint: str) -> ToolResult:
    """What an HTTP endpoint says."""
    return told(await work.fetch(endpoint))


@mcp.tool()
async def process_json_data(data: dict[str, Any]) -> ToolResult:
    """The strings of an object in upper case."""
    return told(transformed(data))


@mcp.tool()
async def simulate_database_query(query: str, delay_ms: int) -> ToolResult:
    """Waits as a database would."""
    await asyncio.sleep(min(max(delay_ms, 0), 5000) / 1000)
    return told({"query": query, "delay_ms": delay_ms, "rows": 1})


@mcp.tool()
async def search_products(category: str, min_price: float, max_price: float, limit: int) -> ToolResult:
    """Products of a category and a price, with their popularity."""
    return told(await work.search(category, min_price, max_price, limit))


@mcp.tool()
async def get_user_cart(user_id: str) -> ToolResult:
    """A user's cart and recent orders."""
    return told(await work.cart(user_id))


@mcp.tool()
async def checkout(user_id: str, items: list[dict[str, Any]]) -> ToolResult:
    """Orders what is in the list."""
    return told(await work.checkout(user_id, items))


if __name__ == "__main__":
    if sys.argv[1] == "http":
        config = {"loop": "uvloop", "http": "httptools", "access_log": False}
        mcp.run(
            "http",
            show_banner=False,
            port=int(sys.argv[2]),
            path="/mcp",
            json_response=True,
            stateless_http=True,
            log_level="warning",
            uvicorn_config=config,
        )
    else:
        mcp.run(show_banner=False, log_level="warning")
