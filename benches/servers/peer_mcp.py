"""The echo server of the benches in the official Python SDK, `mcp` 2.3.0, as its documentation writes it.

    python benches/servers/peer_mcp.py [http://HOST:PORT/mcp]

Over HTTP at its quickest: uvicorn with uvloop and httptools, JSON answers, no access log.
"""

import sys
from urllib.parse import urlsplit

from mcp.server import MCPServer

server = MCPServer("echo", version="1.0")


@server.tool()
async def echo(text: str) -> str:
    return text


def serve_http(address: str) -> None:
    import logging

    import uvicorn

    logging.getLogger("mcp").setLevel(logging.WARNING)
    where = urlsplit(address)
    uvicorn.run(
        server.streamable_http_app(json_response=True, streamable_http_path=where.path),
        host=where.hostname or "127.0.0.1",
        port=where.port or 0,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve_http(sys.argv[1])
    else:
        server.run()
