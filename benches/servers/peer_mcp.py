"""The echo server of the benches in the official Python SDK, `mcp` 2.3.0, as its documentation writes it."""

from mcp.server import MCPServer

server = MCPServer("echo", version="1.0")


@server.tool()
async def echo(text: str) -> str:
    return text


if __name__ == "__main__":
    server.run()
