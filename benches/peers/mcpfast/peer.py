"""The peers' server with mcpfast: `peer.py stdio` or `peer.py http PORT`.

PEER_CLIENTS=best: the shop with the best clients that we found (best.py), else with those of the other Python peers.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import msgspec
from work import Work, fibonacci, transformed

from mcpfast import MCPServer

mcp = MCPServer("peer")


def said(text: str) -> str:
    return text


def told(value: Any) -> str:
    return msgspec.json.encode(value).decode()


if os.environ.get("PEER_CLIENTS") == "best":
    from best import BestWork

    work: Any = BestWork("mcpfast")
else:
    work = Work("mcpfast")


@mcp.tool(structured_output=False)
async def echo(text: str) -> str:
    """Gives the text back."""
    return said(text)


@mcp.tool(structured_output=False)
async def calculate_fibonacci(n: int) -> str:
    """The nth Fibonacci number, naively."""
    if not 0 <= n <= 40:
        raise ValueError("n is 0 to 40")
    return told({"result": fibonacci(n)})


@mcp.tool(structured_output=False)
async def fetch_external_data(endpoint: str) -> str:
    """What an HTTP endpoint says."""
    return told(await work.fetch(endpoint))


@mcp.tool(structured_output=False)
async def process_json_data(data: dict[str, Any]) -> str:
    """The strings of an object in upper case."""
    return told(transformed(data))


@mcp.tool(structured_output=False)
async def simulate_database_query(query: str, delay_ms: int) -> str:
    """Waits as a database would."""
    await asyncio.sleep(min(max(delay_ms, 0), 5000) / 1000)
    return told({"query": query, "delay_ms": delay_ms, "rows": 1})


@mcp.tool(structured_output=False)
async def search_products(category: str, min_price: float, max_price: float, limit: int) -> str:
    """Products of a category and a price, with their popularity."""
    return told(await work.search(category, min_price, max_price, limit))


@mcp.tool(structured_output=False)
async def get_user_cart(user_id: str) -> str:
    """A user's cart and recent orders."""
    return told(await work.cart(user_id))


@mcp.tool(structured_output=False)
async def checkout(user_id: str, items: list[dict[str, Any]]) -> str:
    """Orders what is in the list."""
    return told(await work.checkout(user_id, items))


if __name__ == "__main__":
    if sys.argv[1] == "http":
        mcp.run(f"http://127.0.0.1:{sys.argv[2]}/mcp", session_mode="off")  # as the other peers: no sessions
    else:
        mcp.run()
