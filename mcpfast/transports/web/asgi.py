"""The endpoint behind another server: an ASGI application, for uvicorn and its like, alone or mounted in Starlette or FastAPI.

The server's lifespan is entered with the application's. Where nobody tells of one (a mounted application is not told), it begins
with the first request and ends with the loop; `app.lifespan` can be handed to the application around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from mcpfast._exchange import Head, RelayedExchange
from mcpfast._frames import FrameChannel
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Connection
from mcpfast.transports.web.access import LOOPBACK_ADDRESSES, Access, Refused
from mcpfast.transports.web.endpoint import Endpoint
from mcpfast.transports.web.settings import HttpSettings

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast.server.app import MCPServer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SWEEP_S = 1.0
MESSAGES_AHEAD = (
    64  # of a WebSocket, that the server above us has not taken; what comes behind waits in the channel
)
ALWAYS = [(b"x-content-type-options", b"nosniff")]
ANSWER = [*ALWAYS, (b"cache-control", b"no-store")]
STREAM = [
    (b"content-type", b"text/event-stream"),
    *ALWAYS,
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),
]


class AsgiApp:
    """`app = server.asgi_app()`. Serves on the loop that calls it."""

    def __init__(self, server: MCPServer[Any], path: str, settings: HttpSettings) -> None:
        self.server = server
        self.path = path
        self._settings = settings
        self._serving: Serving | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        serving = await self._started()
        if scope["type"] == "http":
            await serving.request(scope, receive, send)
        elif scope["type"] == "websocket":
            await serving.websocket(scope, receive, send)
        else:
            raise RuntimeError(f"ASGI scope {scope['type']!r} is not served")

    async def _started(self) -> Serving:
        loop = asyncio.get_running_loop()
        if self._serving is None or self._serving.loop is not loop:
            self._serving = Serving(self, loop)
        serving = self._serving
        try:
            await serving.ready()
        except BaseException:
            if serving.failed and self._serving is serving:  # the next request tries again
                self._serving = None
            raise
        return serving

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """For the application around a mounted one: `Starlette(routes=[Mount("/", app)], lifespan=app.lifespan)`."""
        serving = await self._started()
        with _streams_end_at_signals(serving):
            try:
                yield
            finally:
                self._serving = None
                await serving.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        started = False
        try:
            async with self.lifespan():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            ended = "shutdown" if started else "startup"
            await send({"type": f"lifespan.{ended}.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})


class Serving:
    """The server on one loop, in a Task of its own: a lifespan ends in the Task that it began in."""

    def __init__(self, app: AsgiApp, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.limits = app.server.limits
        self.endpoint: Endpoint
        self.sockets: set[RelayedSocket] = set()
        self._requests: set[asyncio.Task[Any]] = set()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._stop: asyncio.Future[None] = loop.create_future()
        self._sweep: asyncio.TimerHandle | None = None
        self._loopback = Access(app._settings, loopback=True)
        self._task = loop.create_task(self._serve())

    async def _serve(self) -> None:
        try:
            async with Host(self.app.server) as host:
                self.host = host
                self.endpoint = Endpoint(host, self.app.path, self.app._settings, loopback=False)
                self._sweep_later()
                self._begun.set_result(None)
                try:
                    await self._stop
                finally:
                    if self._sweep is not None:
                        self._sweep.cancel()
                    self.endpoint.close()
                    for socket in list(self.sockets):
                        socket.close("the server is closing")
        except Exception as error:
            if self._begun.done():
                raise
            self._begun.set_exception(error)

    @property
    def failed(self) -> bool:
        """The server's lifespan did not begin."""
        return self._begun.done() and (self._begun.cancelled() or self._begun.exception() is not None)

    async def ready(self) -> None:
        """Raises what the server's lifespan raised."""
        await asyncio.shield(self._begun)

    async def stop(self) -> None:
        """Calls in flight may end within `limits.drain_s`; then everything is over."""
        self.drain()
        if self._requests:
            await asyncio.wait(self._requests, timeout=self.limits.drain_s)
        if not self._stop.done():
            self._stop.set_result(None)
        await self._task

    def drain(self) -> None:
        """Streams end, so that the server above us need not wait for them."""
        self.host.engine.closing = True
        self.endpoint.drain(self.limits.drain_s)
        for socket in list(self.sockets):
            socket.drain(self.limits.drain_s)

    def _sweep_later(self) -> None:
        self._sweep = self.loop.call_later(SWEEP_S, self._sweep_now)

    def _sweep_now(self) -> None:
        self.endpoint.sweep(self.loop.time())
        self._sweep_later()

    # ---------------------------------------------------------------- one request

    async def request(self, scope: Message, receive: Receive, send: Send) -> None:
        relay, exchange = self._relayed(scope)
        self.endpoint.exchanges.add(exchange)
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        watch: asyncio.Task[None] | None = None
        try:
            body = await self._body(receive, relay)
            if body is None:
                if not relay.ended:
                    return  # the client is gone
            else:
                head = Head.made(scope["method"].encode(), _target(scope), scope["headers"], body)
                if self._host_is_ours(scope, head, relay):
                    # not inside this Task: a handler has one of its own
                    self.loop.call_soon(exchange.perform, head)
                    watch = self.loop.create_task(_disconnected(receive, exchange, relay))
            await relay.pump(send)
        finally:
            self._requests.discard(task)
            if watch is not None:
                watch.cancel()
            exchange.lost()

    def _relayed(self, scope: Message) -> tuple[Relay, RelayedExchange]:
        relay = Relay(scope)
        exchange = relay.exchange = RelayedExchange(self.endpoint.front, relay)
        exchange.root = scope.get("root_path", "").rstrip("/")
        exchange.secure = scope.get("scheme") in ("https", "wss")
        return relay, exchange

    async def _body(self, receive: Receive, relay: Relay) -> bytes | None:
        """None where there is none: then it is answered, or the client gone."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self.limits.frame_bytes_max:
                        relay.say(413, b"The request's body is larger than this server takes\n")
                        return None
                    parts.append(part)
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            relay.say(408, b"The request's body did not come in time\n")
            return None

    def _host_is_ours(self, scope: Message, head: Head, relay: Relay) -> bool:
        """A server on loopback is asked by loopback's names, however it came to listen there."""
        if (scope.get("server") or ("",))[0] in LOOPBACK_ADDRESSES:
            try:
                self._loopback.check_host((head.header(b"host") or b"").strip().decode("latin-1"))
            except Refused as refused:
                relay.say(refused.status, refused.body)
                return False
        return True

    # ---------------------------------------------------------------- one WebSocket

    async def websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        from mcpfast.transports.web import websocket

        await receive()  # websocket.connect
        head = Head.made(b"GET", _target(scope), scope["headers"], b"")
        relay, exchange = self._relayed(scope)
        exchange.expect(head)
        try:
            if self._host_is_ours(scope, head, relay) and websocket.admit(self.endpoint, exchange, head):
                self.endpoint.with_caller(exchange, head, relay.accept, websocket.TRANSPORT)
            if not await relay.accepts():
                await _refuse(scope, relay, send)
                return
            peer, caller = websocket.peer_of(self.endpoint, exchange), exchange.caller
        finally:
            exchange.lost()
        chosen = websocket.SUBPROTOCOL if scope.get("subprotocols") else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        await RelayedSocket(self, peer, caller).run(receive, send)


class Relay:
    """What an exchange says, as ASGI messages that leave as fast as they are taken."""

    def __init__(self, scope: Message) -> None:
        client = scope.get("client")
        self.peer_address = f"{client[0]}:{client[1]}" if client else None
        self.exchange: RelayedExchange
        self.waiting_bytes = 0
        self.ended = False
        self._aborted = self._accepted = False
        self._messages: deque[Message] = deque()
        self._more: asyncio.Future[None] | None = None
        self._head_only = scope.get("method") == "HEAD"

    # ---------------------------------------------------------------- said by the exchange

    def start(self, status: int, kind: bytes | None, extra: bytes, length: int | None) -> None:
        headers = list(STREAM if length is None else ANSWER)
        if kind is not None:
            headers.append((b"content-type", kind))
        if length is not None and status != 204:
            headers.append((b"content-length", b"%d" % length))
        for line in extra.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            headers.append((name.strip().lower(), value.strip()))
        self._put({"type": "http.response.start", "status": status, "headers": headers})

    def piece(self, data: bytes) -> None:
        if not self._head_only:
            self.waiting_bytes += len(data)
            self._put({"type": "http.response.body", "body": data, "more_body": True})

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._put({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Says no more; the server above closes a response that is not whole."""
        self.ended = self._aborted = True
        self._messages.clear()
        self._wake()

    def say(self, status: int, why: bytes) -> None:
        """A whole answer that no exchange stands behind."""
        self.start(status, b"text/plain; charset=utf-8", b"", len(why))
        self.piece(why)
        self.end()

    def accept(self) -> None:
        """Lets in the WebSocket that was asked for."""
        self._accepted = True
        self._wake()

    # ---------------------------------------------------------------- taken by the server above

    async def accepts(self) -> bool:
        """Waits until it is known whether a WebSocket is let in; what is said to one that is not, `answer` has."""
        while not self._accepted and not self.ended:
            await self._wait()
        return self._accepted

    def answer(self) -> list[Message]:
        """What is said and was not taken."""
        return list(self._messages)

    async def pump(self, send: Send) -> None:
        """Until the response is whole, or the client gone."""
        while True:
            while self._messages:
                message = self._messages.popleft()
                self.waiting_bytes -= len(message.get("body", b""))
                await send(message)
            self.exchange.taken_all()
            if self.ended:
                return
            await self._wait()

    async def _wait(self) -> None:
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def _put(self, message: Message) -> None:
        if not self._aborted:
            self._messages.append(message)
            self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class RelayedSocket(Connection):
    """One client by WebSocket, whose frames another server reads and writes."""

    __slots__ = ("_code", "_ended", "_messages", "_more", "_paused", "_serving")

    channel: FrameChannel

    def __init__(self, serving: Serving, peer: Peer, caller: Caller | None) -> None:
        self._serving = serving
        self._messages: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._ended = self._paused = False
        self._code: int | None = 1001  # to close with; None: the client did
        super().__init__(serving.host, peer, serving.limits.eof_grace_s)
        self.channel.caller = caller
        serving.sockets.add(self)

    def _make_channel(self) -> FrameChannel:
        return FrameChannel(self._host.engine, self, self._write)

    def _write(self, message: bytes) -> None:
        self._messages.append(message)
        self._more.set()
        if len(self._messages) >= MESSAGES_AHEAD:
            self._paused = True
            self.channel.pause_writing()

    # Reading waits while answers are not taken: `run` looks at `channel.reading`.
    def hold_input(self) -> None: ...

    def take_input(self) -> None:
        self._more.set()

    async def run(self, receive: Receive, send: Send) -> None:
        """Until one side ends it."""
        reading = self._serving.loop.create_task(self._read(receive))
        try:
            while not self._ended:
                await self._more.wait()
                self._more.clear()
                while self._messages:
                    await send({"type": "websocket.send", "text": self._messages.popleft().decode()})
                if self._paused and not self._ended:
                    self._paused = False
                    self.channel.resume_writing()
            if self._code is not None:
                await send({"type": "websocket.close", "code": self._code})
        finally:
            reading.cancel()
            self.close("the client disconnected")

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self._code = None
                break
            text = message.get("text")
            if text is None:
                self._code = 1003  # messages are text
                break
            if len(text) > self._serving.limits.frame_bytes_max:
                self._code = 1009
                break
            self._serving.loop.call_soon(self.channel.message_in, text.encode())
            while not self.channel.reading and not self.channel.closed:
                await self.channel.taken()
        self.close("the client disconnected")

    def _release(self, reason: str) -> None:
        self._ended = True
        self._serving.sockets.discard(self)
        self._more.set()


async def _refuse(scope: Message, relay: Relay, send: Send) -> None:
    """A WebSocket that is not let in: with status and headers, where the server above can tell them; else it says 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        for message in relay.answer():
            await send({**message, "type": f"websocket.{message['type']}"})
    else:
        await send({"type": "websocket.close", "code": 1008})


async def _disconnected(receive: Receive, exchange: RelayedExchange, relay: Relay) -> None:
    """The client is gone: what is modern is cancelled, what is legacy goes on without it."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.lost()
    relay.abort()


def _target(scope: Message) -> bytes:
    """Path and query as the endpoint knows them: without the place where the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    query: bytes = scope.get("query_string", b"")
    target = (path or "/").encode()
    return target + b"?" + query if query else target


@contextlib.contextmanager
def _streams_end_at_signals(serving: Serving) -> Any:
    """Servers wait for open responses before they tell of the end: a signal that they handle ends our streams, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced: dict[int, Any] = {}

    def chained(number: int, frame: Any) -> None:
        serving.loop.call_soon_threadsafe(serving.drain)
        replaced[number](number, frame)

    for ending in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(ending)
        if callable(handler) and handler is not signal.default_int_handler:
            replaced[ending] = handler
            signal.signal(ending, chained)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            if signal.getsignal(number) is chained:
                signal.signal(number, handler)
