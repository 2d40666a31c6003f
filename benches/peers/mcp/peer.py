"""The peers' server with the official SDK: `peer.py stdio` or `peer.py http PORT`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mcp.server import MCPServer
from mcp_types import CallToolResult, TextContent
from work import Work, fibonacci, transformed

mcp = MCPServer("peer", log_level="WARNING")  # else a line for each request, of httpx and of its own


def said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


def told(value: Any) -> CallToolResult:
    return said(json.dumps(value))


work = Work("mcp")


@mcp.tool()
async def echo(text: str) -> CallToolResult:
    """Gives the text back."""
    return said(text)


@mcp.tool()
async def calculate_fibonacci(n: int) -> CallToolResult:
    """The nth Fibonacci number, naively."""
    if not 0 <= n <= 40:
        raise ValueError("n is 0 to 40")
    return told({"result": fibonacci(n)})


@mcp.tool()
async def fetch_external_data(endpoint: str) -> CallToolResult:
    """What an HTTP endpoint says."""
    return told(await work.fetch(endpoint))


@mcp.tool()
async def process_json_data(data: dict[str, Any]) -> CallToolResult:
    """The strings of an object in upper case."""
    return told(transformed(data))


@mcp.tool()
async def simulate_database_query(query: str, delay_ms: int) -> CallToolResult:
    """Waits as a database would."""
    await asyncio.sleep(min(max(delay_ms, 0), 5000) / 1000)
    return told({"query": query, "delay_ms": delay_ms, "rows": 1})


@mcp.tool()
async def search_products(category: str, min_price: float, max_price: float, limit: int) -> CallToolResult:
    """Products of a category and a price, with their popularity."""
    return told(await work.search(category, min_price, max_price, limit))


@mcp.tool()
async def get_user_cart(user_id: str) -> CallToolResult:
    """A user's cart and recent orders."""
    return told(await work.cart(user_id))


@mcp.tool()
async def checkout(user_id: str, items: list[dict[str, Any]]) -> CallToolResult:
    """Orders what is in the list."""
    return told(await work.checkout(user_id, items))


def serve_http(port: int) -> None:
    import uvicorn

    app = mcp.streamable_http_app(json_response=True, stateless_http=True)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", log_level="warning", access_log=False)


if __name__ == "__main__":
    if sys.argv[1] == "http":
        serve_http(int(sys.argv[2]))
    else:
        mcp.run()
