"""What any HTTP server in Python pays: httptools on uvloop, a constant as the answer to every request.

python benches/servers/bare_http.py BODY http://HOST:PORT/PATH
"""

import asyncio
import sys
from typing import cast
from urllib.parse import urlsplit

import uvloop
from httptools import HttpRequestParser

BODY = sys.argv[1].encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = HEAD % len(BODY) + BODY


class Constant(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast("asyncio.Transport", transport).write  # uvloop's are of no class of asyncio's
        self.feed = HttpRequestParser(self).feed_data

    def data_received(self, data: bytes) -> None:
        self.feed(data)

    def on_message_complete(self) -> None:
        self.write(ANSWER)


async def serve() -> None:
    where = urlsplit(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Constant, where.hostname, where.port or 0)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
