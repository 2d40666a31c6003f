"""A server with N echo tools, tool_0 to tool_<N-1>: `python benches/servers/many_tools.py N [ADDRESS]`."""

import sys

from mcpfast import MCPServer

server = MCPServer("many", version="1.0")


def register(number: int) -> None:
    @server.tool(name=f"tool_{number}")
    async def echo(text: str) -> str:
        "Says what it is told."
        return text


for each in range(int(sys.argv[1])):
    register(each)

if __name__ == "__main__":
    server.run(sys.argv[2] if len(sys.argv) > 2 else "stdio")
