"""How a client's messages reach a server: a socket, a child process, HTTP, or a server object in this process.

    Transport   one way to one server: opens, closes, knows why it ended
    Link        one open connection of it: takes messages, and gives the session what comes back
                lines.py: one message a line, over a reader and a writer
                http.py: one request of HTTP a message; websocket.py: one frame, otherwise as a stream

What a message means is decided above (`session.py`). To bring your own byte stream, subclass `Transport` and
hand an instance to `Client(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

from mcpfast.errors import AddressError

if TYPE_CHECKING:
    from ssl import SSLContext

    from mcpfast.client.session import Call, Session
    from mcpfast.protocol.revisions import Revision
    from mcpfast.protocol.types import Tool

READ_BYTES = 1 << 18  # what one read takes at most, and what a reader holds before it pauses the server
CLOSE_S = 1.0  # a socket may take this long to send what was written before it is closed

TARGETS = (
    'a server object, "http://HOST:PORT/mcp", "ws://HOST:PORT/mcp", "tcp://HOST:PORT", "unix:///path/to.sock", '
    "a Python file, "
    "a list of words that is a command, or Client.stdio(command)"
)


class Reader(Protocol):
    """What a session reads from. `asyncio.StreamReader` is one."""

    async def read(self, n: int = -1, /) -> bytes:
        """Some bytes, at most `n`, as soon as there are any; `b""` at the end of the stream."""


class Writer(Protocol):
    """What a session writes to. `asyncio.StreamWriter` is one."""

    def write(self, data: bytes, /) -> None:
        """Sends soon, never blocks."""

    async def drain(self) -> None:
        """Waits while the server takes nothing. Raises ConnectionError when it is gone."""


class Link(Protocol):
    """One open connection, as its session sees it.

    What comes goes to `session.take`, the end of everything to `session.end`.
    """

    async def ready(self) -> None:
        """Waits while the server takes less than is said."""

    def send(self, data: bytes, method: str | None, call: Call | None) -> None:
        """Puts one message on its way, never blocks.

        `call` is who waits for the answer to a request; `method` is None for an answer of ours.
        """

    def abandon(self, call: Call, notice: bytes | None) -> None:
        """Nobody waits for this answer any more; `notice` is the notification that says so, if one may."""

    def agree(self, revision: Revision) -> None:
        """From now on this revision is spoken."""

    def learn(self, tools: list[Tool]) -> list[Tool]:
        """Sees what `tools/list` gave, and keeps those that can be called this way."""

    def end(self) -> None:
        """Nothing is awaited any more, and only what was said already is still sent."""

    async def close(self) -> None:
        """Sends what is still to be sent, within a deadline, and stops."""


class Transport:
    """One way to one server. Opened once at a time; may be opened again after it was closed."""

    async def open(self) -> tuple[Reader, Writer]:
        """Connects. Raises AddressError when it cannot; then nothing is left open."""
        raise NotImplementedError

    async def link(self, session: Session) -> Link:
        """Connects `session`; a byte stream carries one message a line. Raises as `open` does."""
        from mcpfast.client.lines import Lines

        reader, writer = await self.open()
        return Lines(reader, writer, session, self.last_words)

    async def close(self) -> None:
        """Lets go of everything, within a deadline of its own. Harmless when nothing is open."""
        raise NotImplementedError

    async def last_words(self) -> str:
        """Why the server ended, as far as anybody knows: it is added to the error of whoever waits.

        "" for nothing known.
        """
        return ""


class SocketTransport(Transport):
    """A stream socket: TCP when `host` and `port` are given, a Unix socket when `path` is."""

    def __init__(self, *, host: str = "", port: int = 0, path: str = "") -> None:
        self._host, self._port, self._path = host, port, path
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> tuple[Reader, Writer]:
        try:
            if self._path:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
            else:
                # asyncio and uvloop both set TCP_NODELAY: a small request does not wait for the
                # acknowledgement of the last.
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
        except OSError as error:
            where = self._path or f"{self._host} port {self._port}"
            what = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
            raise AddressError(f"Cannot connect to {where}: {what}") from error
        self._writer = writer
        return reader, writer

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
        except (OSError, TimeoutError):  # the server takes no more, or is gone
            pass
        finally:
            writer.transport.abort()


class MemoryTransport(Transport):
    """A server object of this process, reached through memory: for tests, and for hosts that embed one.

    `mcpfast.transports.memory.connect(server, **options)` serves one connection for as long as its context
    lasts, and gives the client's reader and writer. `headers` and `authorization` say whose the connection is, where the
    server has tenants.
    """

    def __init__(
        self,
        server: object,
        options: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        authorization: Authorization | None = None,
    ) -> None:
        self._server = server
        self._options = options
        self._headers = headers
        self._authorization = authorization
        self._connection: contextlib.AbstractAsyncContextManager[tuple[Reader, Writer]] | None = None

    async def open(self) -> tuple[Reader, Writer]:
        # By name, since the client must not depend on the server: whoever passes one has loaded it already.
        from importlib import import_module

        options = dict(self._options)
        if self._headers is not None or self._authorization is not None:
            options["headers"] = await self._shown()
        connection = import_module("mcpfast.transports.memory").connect(self._server, **options)
        streams: tuple[Reader, Writer] = await connection.__aenter__()
        self._connection = connection
        return streams

    async def _shown(self) -> dict[str, str]:
        headers = dict(self._headers or {})
        given: Any = self._authorization
        if given is not None:
            made = given() if callable(given) else given
            headers["Authorization"] = await made if isinstance(made, Awaitable) else made
        return headers

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.__aexit__(None, None, None)


class StdioServer(NamedTuple):
    """A server that is started as a child process and spoken to over its stdin and stdout.

    `env` None: the child inherits our environment. A mapping: the child gets these variables and the few that
    programs need to run at all (PATH, HOME, LANG and their kin), none of our others: for servers that need
    not know our secrets. `stderr` None: shown on our stderr; `subprocess.DEVNULL`: not shown; anything with
    `write`: written there. In every case its end is kept, and told when the server dies.
    """

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    cwd: str | os.PathLike[str] | None = None
    stderr: Any = None


class HttpServer(NamedTuple):
    """A server that is spoken to over Streamable HTTP, or by WebSocket.

    `url`: "http://127.0.0.1:8000/mcp", "https://...", "ws://...", "wss://...". `headers` go with every request.
    `authorization` is the value of the Authorization header, "Bearer ..." say, or a function (`async` or not)
    that is asked for it before every request. `ssl`: how certificates are checked, if not against those of this machine.
    `connect_s`: to connect may take that long; `first_byte_s`: and an answer that long to begin, where the
    call has no deadline of its own (None: for ever).
    """

    url: str
    headers: Mapping[str, str] | None = None
    authorization: Authorization | None = None
    ssl: SSLContext | None = None
    connect_s: float = 10.0
    first_byte_s: float | None = 300.0

    def __repr__(self) -> str:  # what else is in it may be secret
        return f"HttpServer({without_secrets(self.url)!r})"


Authorization = str | Callable[[], str | Awaitable[str]]


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return url.partition(":")[0] + "://..."


def command_of(command: str | Sequence[str], args: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The program and its arguments.

    A single string is split as a shell would; several words are taken as they are.
    """
    if isinstance(command, str) and not args:
        import shlex

        command = shlex.split(command)
    words = [command, *args] if isinstance(command, str) else [*command, *args]
    if not words or not words[0]:
        raise AddressError("No command given; say for example Client.stdio(['python', 'server.py'])")
    return words[0], words[1:]


def transport_for(
    target: object,
    *,
    headers: Mapping[str, str] | None = None,
    authorization: Authorization | None = None,
    **options: Any,
) -> Transport:
    """The way to `target`, in any of the forms of `TARGETS`.

    `headers` and `authorization` are for a URL or a server object, `options` for a server object alone. Raises
    AddressError for what is none of them.
    """
    if isinstance(target, str) and target.lower().startswith(("http://", "https://", "ws://", "wss://")):
        target = HttpServer(target, headers, authorization)
    elif (headers is not None or authorization is not None) and not _is_server_object(target):
        raise AddressError(
            "headers and authorization go with a URL, http://HOST:PORT/mcp, or a server object; use HttpServer otherwise"
        )
    if isinstance(target, HttpServer) and target.url.lower().startswith(("ws://", "wss://")):
        from mcpfast.client.websocket import WebSocketTransport

        return WebSocketTransport(target)
    if isinstance(target, HttpServer):
        from mcpfast.client.http import HttpTransport

        return HttpTransport(target)
    if isinstance(target, Transport):
        return target
    if isinstance(target, os.PathLike):
        target = os.fspath(target)
    if isinstance(target, str):
        return _by_address(target)
    if isinstance(target, list | tuple) and not isinstance(target, StdioServer):
        target = StdioServer(*command_of([str(word) for word in target], ()))
    if _is_command(target):
        from mcpfast.client.process import StdioTransport

        return StdioTransport(
            StdioServer(
                target.command,
                tuple(target.args),
                target.env,
                target.cwd,
                getattr(target, "stderr", None),
            )
        )
    if not _is_server_object(target):
        raise AddressError(f"Cannot reach a server by {target!r}; use {TARGETS}")
    return MemoryTransport(target, options, headers, authorization)


def _is_server_object(target: object) -> bool:
    """Whether it is none of the other forms of a target."""
    others = str, bytes, int, float, dict, set, list, tuple, os.PathLike, Transport
    return target is not None and not isinstance(target, others) and not _is_command(target)


def _is_command(target: object) -> TypeGuard[StdioServer]:
    """Our own `StdioServer`, or another library's description of the same."""
    return isinstance(getattr(target, "command", None), str) and hasattr(target, "args")


def _by_address(address: str) -> Transport:
    if address.startswith("tcp://"):
        host, colon, port = address.removeprefix("tcp://").rstrip("/").rpartition(":")
        host = host.removeprefix("[").removesuffix("]")  # an IPv6 address
        if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise AddressError(f"{address!r} is not an address; write tcp://HOST:PORT")
        return SocketTransport(host=host, port=int(port))
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if not path.startswith("/"):
            raise AddressError(f"{address!r} is not an address; write unix:///absolute/path")
        return SocketTransport(path=path)
    if address.endswith(".py"):
        if not os.path.isfile(address):
            raise AddressError(f"{address!r} is not a file")
        from mcpfast.client.process import StdioTransport

        return StdioTransport(StdioServer(sys.executable, (address,)))
    raise AddressError(f"{address!r} is not an address; use {TARGETS}")
