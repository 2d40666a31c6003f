"""One connection: requests out, answers matched to them by id, everything else handed up.

Era and meaning are decided above.

    request() --> outbox --> writer task --> bytes      one write for all of one turn of the loop
    bytes --> reader task --> line --> Incoming --> a waiting call | on_request | on_notification

Every wait ends: with its answer, its deadline, its cancellation, or the end of the connection, which ends all
of them at once and says why. An answer that nobody waits for (any more) is dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mcpfast.client.inbox import Inbox
from mcpfast.client.transport import READ_BYTES, Reader, Writer
from mcpfast.errors import INTERNAL_ERROR, PARSE_ERROR, ConnectionClosed, MCPError
from mcpfast.limits import Limits

REQUEST_TIMEOUT = -32001  # never on the wire; the number the official SDK gives to the same thing
FLUSH_S = 1.0  # at the end, what was said (cancellations, say) may take this long to be sent
GARBAGE_SHOWN_BYTES = 200  # of a line that is no message, in errors


class RequestTimeout(MCPError, TimeoutError):
    """No answer within the time given. The server has been told that the call is cancelled."""

    def __init__(self, message: str) -> None:
        super().__init__(REQUEST_TIMEOUT, message)

    def __str__(self) -> str:
        return self.message


class Incoming(Struct):
    """One message of the server: a request, a notification or a response, by which members it has."""

    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Any = UNSET


class Cancelled(Struct, rename="camel"):
    request_id: int | str | None = None
    reason: Any = None


_decode = msgspec.json.Decoder(Incoming).decode
_decode_batch = msgspec.json.Decoder(list[Incoming]).decode
encode = msgspec.json.encode

# The id of an answer whose line is too long to be kept. Only where it stands first: further in it could be
# anybody's.
_LEADING_ID = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')


class Call:
    """One request in flight."""

    __slots__ = ("future", "on_progress", "seen")

    def __init__(self, future: asyncio.Future[Raw], on_progress: Progress | None) -> None:
        self.future = future
        self.on_progress = on_progress
        self.seen = 0  # notifications that had come before its answer


Progress = Callable[[float, float | None, str | None], Awaitable[None] | None]


class Session:
    """Request and response over one reader and one writer.

    `start()` it, `close()` it; both belong to the client.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        *,
        limits: Limits,
        inbox: Inbox,
        on_request: Callable[[int | str, str, Raw | None], None],
        on_notification: Callable[[str, Raw | None], None],
        on_garbage: Callable[[MCPError], None],
        last_words: Callable[[], Awaitable[str]],
        first_id: int = 1,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._limits = limits
        self._inbox = inbox
        self._on_request, self._on_notification, self._on_garbage = on_request, on_notification, on_garbage
        self._last_words = last_words
        self.next_id = first_id
        self._calls: dict[int, Call] = {}
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._something = asyncio.Event()  # stands in the outbox
        self._room = asyncio.Event()  # is in the outbox
        self._room.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: str | None = None
        self._over = asyncio.Event()
        self._last_garbage = ""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._read(), name="mcpfast client reader"),
            asyncio.create_task(self._write(), name="mcpfast client writer"),
        ]

    async def close(self) -> None:
        """Sends what is still to be sent, within a deadline, and stops. Who waits gets ConnectionClosed."""
        self.end("The client was closed")
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

    def end(self, reason: str) -> None:
        """From now on nothing is sent or awaited; the first reason stays."""
        if self._ended is not None:
            return
        self._ended = reason
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(ConnectionClosed(reason))
        self._over.set()
        self._room.set()
        self._something.set()

    # ---- outgoing

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None,
        *,
        id: int | None = None,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        cancellable: bool = True,
    ) -> Raw:
        """The result of one request, as it stood on the wire.

        Raises MCPError for an error answer, RequestTimeout after `timeout_s`, ConnectionClosed when the
        server goes away. Cancelled or timed out, it tells the server so unless `cancellable` is False
        (`initialize` must not be cancelled, section 21).
        """
        number = self.take_id() if id is None else id
        if timeout_s is None:
            return await self._exchange(number, method, params, on_progress, cancellable)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(number, method, params, on_progress, cancellable)
        except TimeoutError:
            raise RequestTimeout(f"No answer to {method} within {timeout_s:g} s") from None

    def take_id(self) -> int:
        """The next request id. Ids are counted, and so never used twice, in flight or not (section 3, J4)."""
        self.next_id += 1
        return self.next_id - 1

    async def _exchange(
        self,
        id: int,
        method: str,
        params: dict[str, Any] | None,
        on_progress: Progress | None,
        cancellable: bool,
    ) -> Raw:
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            body["params"] = params
        line = encode(body)
        if self._ended is not None:
            raise ConnectionClosed(self._ended)
        call = Call(asyncio.get_running_loop().create_future(), on_progress)
        self._calls[id] = call
        sent = False
        try:
            while not self._room.is_set():
                await self._room.wait()
            self.send(line)
            sent = True
            result = await call.future
        except asyncio.CancelledError:
            answered = call.future.done() and not call.future.cancelled()
            if sent and cancellable and not answered:
                self.notify(
                    "notifications/cancelled", {"requestId": id, "reason": "the caller waits no longer"}
                )
            raise
        finally:
            self._calls.pop(id, None)
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # looked at, even if the caller was cancelled before it came
        if self._inbox.handled < call.seen:
            await self._inbox.reach(call.seen)
        return result

    def notify(self, method: str, params: dict[str, Any] | None) -> None:
        """Sends a notification; after the end of the connection it does nothing."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            body["params"] = params
        self.send(encode(body))

    def respond(self, id: int | str, *, result: Any = None, error: MCPError | None = None) -> None:
        """Answers a request of the server."""
        if error is None:
            self.send(encode({"jsonrpc": "2.0", "id": id, "result": result}))
            return
        body = {"code": error.code, "message": error.message}
        if error.data is not None:
            body["data"] = error.data
        self.send(encode({"jsonrpc": "2.0", "id": id, "error": body}))

    def send(self, line: bytes) -> None:
        """Puts one message, without its newline, into the outbox."""
        if self._ended is not None:
            return
        self._outbox.append(line)
        self._outbox_bytes += len(line)
        if self._outbox_bytes > self._limits.output_high_bytes:
            self._room.clear()
        self._something.set()

    async def _write(self) -> None:
        """The writer task: all that was said since the last write, in one write."""
        try:
            while self._outbox or self._ended is None:
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
                self.end(f"The server takes no more messages: {error}")

    # ---- incoming

    async def _read(self) -> None:
        """The reader task: bytes into lines, for as long as there are any."""
        reason = "The server closed the connection"
        kept = bytearray()  # of a line that has begun
        skipping = False  # the rest of a line that is too long
        try:
            while self._ended is None and (data := await self._reader.read(READ_BYTES)):
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
                if len(kept) > self._limits.frame_bytes_max:
                    self._refuse_long(bytes(kept[:256]))
                    kept.clear()
                    skipping = True
            if self._ended is None:
                reason += await self._circumstances()
        except OSError as error:
            reason = f"The connection broke: {error}" + await self._circumstances()
        except Exception as error:  # a mistake of ours must not leave anybody waiting for ever
            import logging

            reason = f"The client failed while it read a message: {error!r}"
            logging.getLogger("mcpfast.client").exception("The client failed while it read a message")
        finally:
            self.end(reason)

    async def _circumstances(self) -> str:
        """What else is known about the end of the server."""
        words = await self._last_words()
        text = f": {words}" if words else ""
        if self._last_garbage:
            text += f"\n    (it also wrote a line that is no message: {self._last_garbage})"
        return text

    def _take(self, line: bytes) -> None:
        """One line: a message, a batch (2025-03-26), nothing, or garbage, which is told and skipped."""
        if not line or line.isspace():
            return
        if len(line) > self._limits.frame_bytes_max:
            self._refuse_long(line[:256])
            return
        try:
            messages = _decode_batch(line) if line.lstrip()[:1] == b"[" else (_decode(line),)
        except (msgspec.DecodeError, RecursionError) as error:
            self._garbage(line, str(error))
            return
        for message in messages:
            if message.method is not UNSET:
                self._take_method(message, message.method)
            elif message.result is not UNSET or message.error is not UNSET:
                self._take_answer(message)
            else:
                self._garbage(line, "neither a method nor a result nor an error")

    def _take_method(self, message: Incoming, method: str) -> None:
        params = None if message.params is UNSET else message.params
        if message.id is UNSET:
            self._on_notification(method, params)
        elif message.id is not None:
            self._on_request(message.id, method, params)

    def _take_answer(self, message: Incoming) -> None:
        if message.id is None or message.id is UNSET:
            # An error that belongs to no request. With one call in flight there is no doubt whose it is.
            if len(self._calls) != 1:
                self._on_garbage(_error_of(message.error))
                return
            (call,) = self._calls.values()
        else:
            known = self._calls.get(message.id) if isinstance(message.id, int) else None
            if known is None:
                return  # late, twice, or never asked
            call = known
        if call.future.done():
            return
        call.seen = self._inbox.received
        if isinstance(message.result, Raw) and message.error is UNSET:
            call.future.set_result(message.result)
        else:
            call.future.set_exception(_error_of(message.error))

    def _garbage(self, line: bytes, why: str) -> None:
        shown = line[:GARBAGE_SHOWN_BYTES].decode("utf-8", "replace")
        self._last_garbage = repr(shown)
        self._on_garbage(
            MCPError(PARSE_ERROR, f"The server wrote a line that is no message ({why}): {shown!r}")
        )

    def _refuse_long(self, head: bytes) -> None:
        """A line beyond the limit: an error for the call it answers if that can be seen, else the end, since
        somebody waits for it.
        """
        bytes_max = self._limits.frame_bytes_max
        text = f"The server's answer is longer than limits.frame_bytes_max ({bytes_max} bytes)"
        match = _LEADING_ID.match(head)
        call = self._calls.get(int(match[1])) if match else None
        if call is None:
            self.end(text)
        elif not call.future.done():
            call.future.set_exception(MCPError(INTERNAL_ERROR, text))

    # ---- what the layer above asks

    def progress_of(self, token: object) -> Progress | None:
        """Who wants the progress of this token: tokens are request ids."""
        call = self._calls.get(token) if isinstance(token, int) else None
        return None if call is None else call.on_progress

    @property
    def ended(self) -> str | None:
        """Why the connection ended; None while it is open."""
        return self._ended


def _error_of(error: Any) -> MCPError:
    """The error of an answer. What is malformed in it does not keep the call from ending."""
    if not isinstance(error, dict):
        return MCPError(
            INTERNAL_ERROR, f"The server answered with a malformed error: {error!r}"[:GARBAGE_SHOWN_BYTES]
        )
    code, message = error.get("code"), error.get("message")
    return MCPError(
        code if isinstance(code, int) else INTERNAL_ERROR,
        message if isinstance(message, str) else "The server gave no message",
        error.get("data"),
    )
