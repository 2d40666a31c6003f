"""A listening address that speaks HTTP/1.1: its connections, from the first byte to the orderly end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mcpfast._http import HttpConnection, Port
from mcpfast.errors import AddressError
from mcpfast.transports.sockets import BACKLOG, bind_tcp, bind_unix, identity, remove_file
from mcpfast.transports.web.access import LOOPBACK_ADDRESSES
from mcpfast.transports.web.endpoint import Endpoint

if TYPE_CHECKING:
    import ssl

    from mcpfast._exchange import Head
    from mcpfast.server.host import Host
    from mcpfast.transports.addresses import Address
    from mcpfast.transports.web.settings import HttpSettings
    from mcpfast.transports.web.websocket import WebSocket

SWEEP_S = 1.0


class HttpListener:
    """Serves one address over HTTP. `start()` listens; `drain` and `close` end it. `address` has the port that was given for 0."""

    def __init__(self, host: Host, address: Address, settings: HttpSettings) -> None:
        from httptools import HttpRequestParser

        self.host = host
        self.limits = host.server.limits
        tenants = host.dispatcher.tenants is not None
        self._tls = _tls_context(settings, tenants) if address.kind == "https" else None
        self._file: tuple[int, int] | None = None
        if address.kind == "unix+http":
            self._socket = bind_unix(address)
            self._file = identity(address.socket)
            self.address = address
        else:
            self._socket = bind_tcp(address)
            self.address = address._replace(port=self._socket.getsockname()[1])
        self.endpoint = Endpoint(host, address.path, settings, loopback=address.host in LOOPBACK_ADDRESSES)
        self._port = Port(self.endpoint.front, self, HttpRequestParser, self.limits)
        self._connections: set[HttpConnection] = set()
        self.sockets: set[WebSocket] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        loop = self.host.loop
        options: dict[str, Any] = {"sock": self._socket, "backlog": BACKLOG}
        if self._tls is not None:
            options.update(ssl=self._tls, ssl_handshake_timeout=self.limits.head_s)
        if self.address.kind == "unix+http":
            self._server = await loop.create_unix_server(self._connect, **options)
        else:
            self._server = await loop.create_server(self._connect, **options)
        self._sweep_later()

    def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._port)
        connection.welcome = len(self._connections) + len(self.sockets) < self.limits.connections_max
        if not connection.welcome:
            self.host.dispatcher.log_refusal("refused a connection: limits.connections_max is reached")
        return connection

    # ---------------------------------------------------------------- told by a connection

    def made(self, connection: HttpConnection) -> None:
        if self.endpoint.has_tenants:
            from mcpfast.transports.web.identity import shown_by

            connection.shown = shown_by(connection)
        self._connections.add(connection)
        self.endpoint.exchanges.add(connection)

    def gone(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)

    def upgrade(self, connection: HttpConnection, head: Head, rest: bytes) -> None:
        """A GET that asks for a WebSocket; `rest` are bytes that came behind it."""
        from mcpfast.transports.web import websocket

        if websocket.admit(self.endpoint, connection, head) and websocket.admit_handshake(connection, head):

            def take_over() -> None:
                connection.transport.resume_reading()
                websocket.take_over(self, connection, head, rest)

            self.endpoint.with_caller(connection, head, take_over, websocket.TRANSPORT)
            if connection.busy and not connection.closed:  # frames wait until it is known whose they are
                connection.transport.pause_reading()

    @property
    def busy(self) -> bool:
        """A request is being answered."""
        return any(connection.busy for connection in self._connections)

    # ---------------------------------------------------------------- time

    def _sweep_later(self) -> None:
        self._sweep = self.host.loop.call_later(SWEEP_S, self._sweep_idle)

    def _sweep_idle(self) -> None:
        self._sweep_later()
        now_s = self.host.loop.time()
        self.endpoint.sweep(now_s)
        for connection in list(self._connections):
            if connection.late(now_s, self.limits.head_s, self.limits.body_s):
                connection.abort()
            elif not connection.busy and now_s - connection.since_s > self.limits.keep_alive_s:
                connection.hang_up()
        for socket in list(self.sockets):
            socket.sweep(now_s)

    # ---------------------------------------------------------------- the end

    def drain(self, deadline_s: float) -> None:
        """Ends listening; streams end, calls may until the deadline."""
        self._stop()
        for connection in list(self._connections):
            if not connection.busy:
                connection.hang_up()
        self.endpoint.drain(deadline_s)
        for socket in list(self.sockets):
            socket.drain(deadline_s)
        self.host.loop.call_later(deadline_s, self.close)

    def close(self) -> None:
        """At once."""
        self._stop()
        self.endpoint.close()
        for socket in list(self.sockets):
            socket.close("the server is closing")

    def _stop(self) -> None:
        if self._server is not None:
            if self._file is not None:
                remove_file(self.address.socket, self._file)
                self._file = None
            self._server.close()
            self._server = None
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None


def _tls_context(settings: HttpSettings, tenants: bool) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with Python's choice of ciphers. Raises AddressError for files that do not serve."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    assert settings.ssl_certfile is not None  # settings.check
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise AddressError(
            f"cannot use ssl_certfile {settings.ssl_certfile!r} with ssl_keyfile {settings.ssl_keyfile!r}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None
    if settings.ssl_ca_certs is not None:
        try:
            context.load_verify_locations(settings.ssl_ca_certs)
        except (OSError, ssl.SSLError) as error:
            raise AddressError(
                f"cannot use ssl_ca_certs {settings.ssl_ca_certs!r}: {getattr(error, 'strerror', None) or error}"
            ) from None
        # With tenants who shows none may have a token; without, nothing else says who it is.
        context.verify_mode = ssl.CERT_OPTIONAL if tenants else ssl.CERT_REQUIRED
    return context
