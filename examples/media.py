"""Results that are more than text: structured output with a schema, images, files, links, and all of them together.

mcpfast call examples/media.py forecast '{"city": "Bergen"}' --json
"""

import struct
import zlib
from typing import Any

import msgspec

from mcpfast import Image, MCPServer, ToolResult
from mcpfast.types import ContentBlock, ResourceLink, TextContent

server = MCPServer("media", version="1.0")


class Forecast(msgspec.Struct):
    "The weather of tomorrow."

    city: str
    celsius: float
    rain: bool


def png(red: int, green: int, blue: int, side: int = 16) -> bytes:
    "A square of one colour."

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@server.tool
async def forecast(city: str) -> Forecast:
    "A typed result: its class is the output schema, and the client gets it as data and as text."
    return Forecast(city=city, celsius=7.5, rain=True)


@server.tool
async def square(red: int = 0, green: int = 128, blue: int = 0) -> Image:
    "An image."
    return Image(data=png(red, green, blue), format="png")


@server.tool
async def album() -> list[ContentBlock | Image]:
    "Several blocks in one result."
    return [
        TextContent(text="Two squares, and where more are:"),
        Image(data=png(255, 0, 0), format="png"),
        Image(data=png(0, 0, 255), format="png"),
        ResourceLink(uri="media://squares/green", name="green", mime_type="image/png"),
    ]


@server.tool
async def report(city: str) -> ToolResult:
    "What the model reads, what programs read, and what only the host sees, said apart."
    numbers: dict[str, Any] = {"city": city, "samples": [7.0, 7.5, 8.0]}
    return ToolResult(f"It stays cool in {city}.", structured_content=numbers, meta={"source": "station 12"})


@server.resource("media://squares/{name}", mime_type="image/png")
async def colour(name: str) -> bytes:
    "Bytes are a blob."
    return png(*{"red": (255, 0, 0), "green": (0, 128, 0)}.get(name, (0, 0, 0)))


if __name__ == "__main__":
    server.run()
