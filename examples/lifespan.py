"""What a server opens once and all calls share: `lifespan`. And middleware, which sees every request.

mcpfast call examples/lifespan.py add_item '{"item": "milk"}'
"""

import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcpfast import Context, MCPError, MCPServer
from mcpfast.errors import INVALID_REQUEST


@dataclass
class Shop:
    "What every handler finds as `ctx.lifespan_context`."

    items: sqlite3.Connection


@asynccontextmanager
async def lifespan(server: MCPServer[Shop]) -> AsyncIterator[Shop]:
    "Before the first client, and after the last."
    items = sqlite3.connect(":memory:", check_same_thread=False)  # `def` handlers run in worker threads
    items.execute("CREATE TABLE items (name TEXT)")
    try:
        yield Shop(items)
    finally:
        items.close()


async def refuse_strangers(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    "Middleware may answer itself, or raise."
    if request.meta.get("example/banned"):
        raise MCPError(INVALID_REQUEST, "You are not welcome here")
    return await call_next(request)


async def measure(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    "It may look at the result, and change it: a dict as it goes to the client."
    begun = time.perf_counter()
    result = await call_next(request)
    if request.method == "tools/call":
        result.setdefault("_meta", {})["example/seconds"] = time.perf_counter() - begun
    return result


server = MCPServer("shop", version="1.0", lifespan=lifespan, middleware=[refuse_strangers, measure])


@server.tool
def add_item(item: str, ctx: Context[Shop]) -> int:
    "Put something on the list; says how much is on it."
    shop = ctx.lifespan_context.items
    shop.execute("INSERT INTO items VALUES (?)", (item,))
    return int(shop.execute("SELECT count(*) FROM items").fetchone()[0])


@server.tool
def list_items(ctx: Context[Shop]) -> list[str]:
    "What is on the list."
    return [name for (name,) in ctx.lifespan_context.items.execute("SELECT name FROM items ORDER BY rowid")]


if __name__ == "__main__":
    server.run()
