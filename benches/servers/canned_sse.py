"""What any writer of events in Python pays: a recorded stream, one event a chunk and a write, on uvloop.

    python benches/servers/canned_sse.py FILE http://HOST:PORT/PATH

FILE is the body of an event stream, without its chunks. It is the answer to whatever request comes; nothing of that
is looked at but its id, of ten digits, and where it ends. While the client does not read, nothing is written.
"""

import asyncio
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


EVENTS = [event + b"\n\n" for event in Path(sys.argv[1]).read_bytes().split(b"\n\n") if event]
RECORDED_ID = b"1000000000"
PIECES = [HEAD, *map(chunk, EVENTS[:-1])]
ANSWER = chunk(EVENTS[-1])


class Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are of no class of asyncio's
        self.left: Iterator[bytes] = iter(())
        self.full = False
        self.request = b""

    def data_received(self, data: bytes) -> None:
        self.request += data
        if self.request.endswith(b"}"):  # the JSON of a small request, whole
            at = self.request.index(b'"id":') + 5
            answer = ANSWER.replace(RECORDED_ID, self.request[at : at + len(RECORDED_ID)])
            self.request, self.left = b"", chain(PIECES, (answer, b"0\r\n\r\n"))
            self.go_on()

    def go_on(self) -> None:
        write = self.transport.write
        for piece in self.left:
            write(piece)
            if self.full:
                return

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.go_on()


async def serve() -> None:
    where = urlsplit(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Canned, where.hostname, where.port or 0)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
