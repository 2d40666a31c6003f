"""One connection: requests out, answers matched to them by id, everything else handed up.

Era and meaning are decided above; how a message travels is decided below, by the link of the transport
(`lines.py` for byte streams, `http.py`).

    request() --> link.send()                          one message
    link --> take() --> Incoming --> a waiting call | on_request | on_notification

Every wait ends: with its answer, its deadline, its cancellation, or the end of the connection, which ends all
of them at once and says why. An answer that nobody waits for (any more) is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from mcpfast.client.inbox import Inbox
from mcpfast.errors import INTERNAL_ERROR, PARSE_ERROR, ConnectionClosed, MCPError
from mcpfast.limits import Limits

if TYPE_CHECKING:
    from mcpfast.client.transport import Link, Transport
    from mcpfast.protocol.revisions import Revision

REQUEST_TIMEOUT = -32001  # never on the wire; the number the official SDK gives to the same thing
GARBAGE_SHOWN_BYTES = 200  # of what is no message, in errors


class RequestTimeout(MCPError, TimeoutError):
    """No answer within the time given. The server has been told that the call is cancelled."""

    def __init__(self, message: str) -> None:
        super().__init__(REQUEST_TIMEOUT, message)

    def __str__(self) -> str:
        return self.message


class HttpError(MCPError):
    """The server, or what stands before it, refused a request with an HTTP status and no JSON-RPC error.

    `status` is that status; `challenge` the WWW-Authenticate header, which says what a 401 or 403 wants.
    """

    def __init__(self, status: int, message: str, challenge: str | None = None) -> None:
        super().__init__(INTERNAL_ERROR, message)
        self.status = status
        self.challenge = challenge

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


class Call:
    """One request in flight, and who waits for its answer."""

    __slots__ = ("bounded", "future", "id", "method", "on_progress", "params", "seen")

    def __init__(
        self,
        id: int,
        method: str,
        params: dict[str, Any] | None,
        future: asyncio.Future[Raw],
        on_progress: Progress | None,
        bounded: bool,
    ) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.future = future
        self.on_progress = on_progress
        self.bounded = bounded  # whoever waits does so with a deadline
        self.seen = 0  # notifications that had come before its answer

    def fail(self, error: Exception) -> None:
        """Ends the wait; does nothing when it is over."""
        if not self.future.done():
            self.future.set_exception(error)


Progress = Callable[[float, float | None, str | None], Awaitable[None] | None]


class Session:
    """Request and response over one link.

    `open()` it, `close()` it; both belong to the client.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        inbox: Inbox,
        on_request: Callable[[int | str, str, Raw | None], None],
        on_notification: Callable[[str, Raw | None], None],
        on_garbage: Callable[[Exception], None],
        on_lost: Callable[[], Coroutine[Any, Any, None]],
        first_id: int = 1,
    ) -> None:
        self.limits = limits
        self._inbox = inbox
        self._on_request, self._on_notification = on_request, on_notification
        self.on_garbage = on_garbage
        self.on_lost = (
            on_lost  # the server has forgotten this session: makes a new one (HTTP, section 9, H12)
        )
        self.next_id = first_id
        self._link: Link | None = None
        self._calls: dict[int, Call] = {}
        self._ended: str | None = None
        self.last_garbage = ""

    async def open(self, transport: Transport) -> None:
        """Connects. Raises AddressError when that cannot be done."""
        self._link = await transport.link(self)

    async def close(self) -> None:
        """Sends what is still to be sent, within a deadline, and stops. Who waits gets ConnectionClosed."""
        self.end("The client was closed")
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    @property
    def link(self) -> Link:
        """What is open. Raises ConnectionClosed when nothing is."""
        if self._link is None:
            raise ConnectionClosed(self._ended or "The client is not connected")
        return self._link

    def end(self, reason: str) -> None:
        """From now on nothing is sent or awaited; the first reason stays."""
        if self._ended is not None:
            return
        self._ended = reason
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(ConnectionClosed(reason))
        if self._link is not None:
            self._link.end()

    def agree(self, revision: Revision) -> None:
        """From now on this revision is spoken."""
        self.link.agree(revision)

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
        future: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        number = self.take_id() if id is None else id
        call = Call(number, method, params, future, on_progress, timeout_s is not None)
        if timeout_s is None:
            return await self._exchange(call, cancellable)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(call, cancellable)
        except TimeoutError as error:
            if isinstance(error, RequestTimeout):  # a shorter deadline, of the link
                raise
            raise RequestTimeout(f"No answer to {method} within {timeout_s:g} s") from None

    def take_id(self) -> int:
        """The next request id. Ids are counted, and so never used twice, in flight or not (section 3, J4)."""
        self.next_id += 1
        return self.next_id - 1

    async def _exchange(self, call: Call, cancellable: bool) -> Raw:
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id, "method": call.method}
        if call.params is not None:
            body["params"] = call.params
        data = encode(body)
        if self._ended is not None:
            raise ConnectionClosed(self._ended)
        link, future = self.link, call.future
        self._calls[call.id] = call
        sent = False
        try:
            await link.ready()
            if self._ended is None:
                link.send(data, call.method, call)
            sent = True
            result = await future
        except asyncio.CancelledError:
            answered = future.done() and not future.cancelled()
            if sent and not answered and self._ended is None:
                link.abandon(call, _notice(call.id) if cancellable else None)
            raise
        finally:
            self._calls.pop(call.id, None)
            if future.done() and not future.cancelled():
                future.exception()  # looked at, even if the caller was cancelled before it came
        if self._inbox.handled < call.seen:
            await self._inbox.reach(call.seen)
        return result

    def notify(self, method: str, params: dict[str, Any] | None) -> None:
        """Sends a notification; after the end of the connection it does nothing."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            body["params"] = params
        self._send(encode(body), method)

    def respond(self, id: int | str, *, result: Any = None, error: MCPError | None = None) -> None:
        """Answers a request of the server."""
        if error is None:
            self._send(encode({"jsonrpc": "2.0", "id": id, "result": result}), None)
            return
        body = {"code": error.code, "message": error.message}
        if error.data is not None:
            body["data"] = error.data
        self._send(encode({"jsonrpc": "2.0", "id": id, "error": body}), None)

    def _send(self, data: bytes, method: str | None) -> None:
        if self._ended is None and self._link is not None:
            self._link.send(data, method, None)

    # ---- incoming

    def take(self, data: bytes, asked: Call | None = None) -> None:
        """What came: a message, a batch (2025-03-26), nothing, or garbage, which is told and skipped.

        `asked`: what came answers this call, where the link knows it.
        """
        if not data or data.isspace():
            return
        try:
            messages = _decode_batch(data) if data.lstrip()[:1] == b"[" else (_decode(data),)
        except (msgspec.DecodeError, RecursionError) as error:
            self._garbage(data, str(error))
            return
        for message in messages:
            if message.method is not UNSET:
                self._take_method(message, message.method)
            elif message.result is not UNSET or message.error is not UNSET:
                self._take_answer(message, asked)
            else:
                self._garbage(data, "neither a method nor a result nor an error")

    def _take_method(self, message: Incoming, method: str) -> None:
        params = None if message.params is UNSET else message.params
        if message.id is UNSET:
            self._on_notification(method, params)
        elif message.id is not None:
            self._on_request(message.id, method, params)

    def _take_answer(self, message: Incoming, asked: Call | None) -> None:
        if message.id is None or message.id is UNSET:
            # An error that belongs to no request. With one call in flight there is no doubt whose it is.
            if asked is None and len(self._calls) != 1:
                self.on_garbage(_error_of(message.error))
                return
            call = next(iter(self._calls.values())) if asked is None else asked
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

    def _garbage(self, data: bytes, why: str) -> None:
        shown = data[:GARBAGE_SHOWN_BYTES].decode("utf-8", "replace")
        self.last_garbage = repr(shown)
        self.on_garbage(
            MCPError(PARSE_ERROR, f"The server wrote a line that is no message ({why}): {shown!r}")
        )

    def call_of(self, id: int) -> Call | None:
        """Who waits for the answer of this id."""
        return self._calls.get(id)

    # ---- what the layer above asks

    def progress_of(self, token: object) -> Progress | None:
        """Who wants the progress of this token: tokens are request ids."""
        call = self._calls.get(token) if isinstance(token, int) else None
        return None if call is None else call.on_progress

    @property
    def ended(self) -> str | None:
        """Why the connection ended; None while it is open."""
        return self._ended


def _notice(id: int) -> bytes:
    params = {"requestId": id, "reason": "the caller waits no longer"}
    return encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


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
