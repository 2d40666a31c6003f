"""What any WebSocket server in Python pays: picows on uvloop, every frame answered with a constant under its own id.

python benches/servers/bare_ws.py ANSWER http://HOST:PORT/PATH

ANSWER holds the digits 1000000000 where the id belongs; a request has its ten behind the first `"id":`.
"""

import asyncio
import sys
from urllib.parse import urlsplit

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

BEFORE, _, BEHIND = sys.argv[1].encode().partition(b"1000000000")


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            request = frame.get_payload_as_bytes()
            at = request.find(b'"id":') + 5
            if at > 4:  # else a notification
                transport.send(WSMsgType.TEXT, BEFORE + request[at : at + 10] + BEHIND)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def serve() -> None:
    where = urlsplit(sys.argv[2])
    server = await ws_create_server(listener, where.hostname, where.port or 0)
    await asyncio.gather(server.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve())
