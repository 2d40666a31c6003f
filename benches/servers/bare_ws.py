"""What any WebSocket server in Python pays: picows on uvloop, every frame sent back as it came.

python benches/servers/bare_ws.py http://HOST:PORT/PATH
"""

import asyncio
import sys
from urllib.parse import urlsplit

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def serve() -> None:
    where = urlsplit(sys.argv[1])
    server = await ws_create_server(listener, where.hostname, where.port or 0)
    await asyncio.gather(server.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve())
