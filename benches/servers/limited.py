"""A server with few places: a tool that takes 10 ms, and 32 calls at once on a connection. `... limited.py [ADDRESS]`.

What it can do at most is known, 3,200 calls a second, so that twice as much can be asked of it.
"""

import asyncio
import sys

from mcpfast import Limits, MCPServer

CALLS_MAX, TOOL_S = 32, 0.01
server = MCPServer("limited", version="1.0", limits=Limits(connection_calls_max=CALLS_MAX))


@server.tool
async def wait(text: str) -> str:
    await asyncio.sleep(TOOL_S)
    return text


if __name__ == "__main__":
    server.run(sys.argv[1] if len(sys.argv) > 1 else "stdio")
