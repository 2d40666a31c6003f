"""One JSON message a line, both ways over one byte stream: stdio, sockets, memory.

    send() --> outbox --> writer task --> bytes      one write for all of one turn of the loop
    bytes --> reader task --> line --> Session.take

The end of the stream is the end of the session.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mcpfast.client.session import Call, Session
from mcpfast.client.transport import READ_BYTES, Reader, Writer
from mcpfast.errors import INTERNAL_ERROR, MCPError

if TYPE_CHECKING:
    from mcpfast.protocol.revisions import Revision
    from mcpfast.protocol.types import Tool

FLUSH_S = 1.0  # at the end, what was said (cancellations, say) may take this long to be sent

# The id of an answer whose line is too long to be kept. Only where it stands first: further in it could be
# anybody's.
_LEADING_ID = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')


class Lines:
    """The link of one session over one reader and one writer; begins to read at once."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        session: Session,
        last_words: Callable[[], Awaitable[str]],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._session = session
        self._last_words = last_words
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._something = asyncio.Event()  # stands in the outbox
        self._room = asyncio.Event()  # is in the outbox
        self._room.set()
        self._over = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._read(), name="mcpfast client reader"),
            asyncio.create_task(self._write(), name="mcpfast client writer"),
        ]

    async def close(self) -> None:
        if not self._tasks:
            return
        reader, writer = self._tasks
        self._tasks = []
        reader.cancel()
        self._something.set()  # the writer sees the end and returns when the outbox is empty
        _, late = await asyncio.wait([writer], timeout=FLUSH_S)
        for task in late:
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)

    def end(self) -> None:
        self._over.set()
        self._room.set()
        self._something.set()

    def agree(self, revision: Revision) -> None:
        pass  # what is said says it

    def learn(self, tools: list[Tool]) -> list[Tool]:
        return tools

    # ---- outgoing

    async def ready(self) -> None:
        while not self._room.is_set():
            await self._room.wait()

    def send(self, data: bytes, method: str | None, call: Call | None) -> None:
        self._outbox.append(data)
        self._outbox_bytes += len(data)
        if self._outbox_bytes > self._session.limits.output_high_bytes:
            self._room.clear()
        self._something.set()

    def abandon(self, call: Call, notice: bytes | None) -> None:
        if notice is not None:
            self.send(notice, None, None)

    async def _write(self) -> None:
        """The writer task: all that was said since the last write, in one write."""
        session = self._session
        try:
            while self._outbox or session.ended is None:
                await self._something.wait()
                self._something.clear()
                lines, self._outbox, self._outbox_bytes = self._outbox, [], 0
                if lines:
                    lines.append(b"")
                    self._writer.write(b"\n".join(lines))
                    self._room.set()
                    await self._writer.drain()
        except OSError as error:
            # The server reads no more. Most often it is dead, and the reader knows in a moment how it died.
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._over.wait()
            except TimeoutError:
                session.end(f"The server takes no more messages: {error}")

    # ---- incoming

    async def _read(self) -> None:
        """The reader task: bytes into lines, for as long as there are any."""
        session = self._session
        reason = "The server closed the connection"
        kept = bytearray()  # of a line that has begun
        skipping = False  # the rest of a line that is too long
        try:
            while session.ended is None and (data := await self._reader.read(READ_BYTES)):
                *lines, rest = data.split(b"\n")
                for line in lines:
                    if skipping:
                        skipping = False
                        continue
                    if kept:
                        kept += line
                        line = bytes(kept)  # noqa: PLW2901
                        kept.clear()
                    self._take(line)
                if not skipping:
                    kept += rest
                if len(kept) > session.limits.frame_bytes_max:
                    self._refuse_long(bytes(kept[:256]))
                    kept.clear()
                    skipping = True
            if session.ended is None:
                reason += await self._circumstances()
        except OSError as error:
            reason = f"The connection broke: {error}" + await self._circumstances()
        except Exception as error:  # a mistake of ours must not leave anybody waiting for ever
            import logging

            reason = f"The client failed while it read a message: {error!r}"
            logging.getLogger("mcpfast.client").exception("The client failed while it read a message")
        finally:
            session.end(reason)

    async def _circumstances(self) -> str:
        """What else is known about the end of the server."""
        words = await self._last_words()
        text = f": {words}" if words else ""
        if self._session.last_garbage:
            text += f"\n    (it also wrote a line that is no message: {self._session.last_garbage})"
        return text

    def _take(self, line: bytes) -> None:
        if len(line) > self._session.limits.frame_bytes_max:
            self._refuse_long(line[:256])
        else:
            self._session.take(line)

    def _refuse_long(self, head: bytes) -> None:
        """A line beyond the limit: an error for the call it answers if that can be seen, else the end, since
        somebody waits for it.
        """
        text = too_long(self._session.limits.frame_bytes_max)
        match = _LEADING_ID.match(head)
        call = self._session.call_of(int(match[1])) if match else None
        if call is None:
            self._session.end(text)
        else:
            call.fail(MCPError(INTERNAL_ERROR, text))


def too_long(bytes_max: int) -> str:
    """What a call is told whose answer is beyond the limit."""
    return f"The server's answer is longer than limits.frame_bytes_max ({bytes_max} bytes)"
