"""The one URL of an HTTP server: requests out, answers in, and what may be said of it when it fails.

aiohttp does the HTTP. It is loaded when the first connection is opened. No error of ours quotes a header, a
query, or a user and password of the URL: what a server repeats of them is blotted out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from mcpfast.client.session import HttpError, RequestTimeout
from mcpfast.client.transport import READ_BYTES, HttpServer, without_secrets
from mcpfast.errors import AddressError, ConnectionClosed

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ClientWebSocketResponse

IDLE_S = 4.0  # an idle connection is kept so long; servers close theirs after 5 s and more
REDIRECTS_MAX = 3
REFUSAL_BYTES_MAX = 1 << 16  # of the body of an answer that is an error
SHOWN_CHARACTERS = 200  # of it
SECRET_CHARACTERS_MIN = 4  # what is shorter is no secret, but part of every other word
# A server that is gone without a word is noticed after KEEPALIVE_IDLE_S + 3 x KEEPALIVE_PAUSE_S, even on a
# stream on which nothing is ever said.
KEEPALIVE_IDLE_S = 30
KEEPALIVE_PAUSE_S = 10

# What the protocol itself says in every request.
RESERVED = frozenset(
    {"accept", "connection", "content-length", "content-type", "last-event-id", "transfer-encoding"}
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Endpoint:
    """One server, as often as it is opened. Raises AddressError for a URL or headers that cannot be used."""

    def __init__(self, server: HttpServer) -> None:
        self.shown = without_secrets(server.url)  # in errors
        self._server = server
        self._url, self._authorization = _taken_apart(server)
        self._headers = _checked(server.headers or {}, self._authorization is not None)
        self._secrets = dict(self._headers)
        self._http: ClientSession | None = None

    def open(self) -> None:
        """Makes ready to connect, which the first request does. Raises AddressError without aiohttp."""
        try:
            import aiohttp
        except ImportError:
            raise AddressError(
                f"{self.shown}: HTTP needs aiohttp, which is not installed: pip install 'mcpfast[http]'"
            ) from None
        connector = aiohttp.TCPConnector(
            limit=0,  # an answer of ours must never wait for the very call that asks for it
            ssl=True if self._server.ssl is None else self._server.ssl,
            keepalive_timeout=IDLE_S,
            socket_factory=_socket,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._server.connect_s),
            read_bufsize=READ_BYTES // 2,  # aiohttp holds twice as much
        )

    async def close(self) -> None:
        """Ends every connection. Harmless when nothing is open."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    @contextlib.asynccontextmanager
    async def request(
        self,
        verb: str,
        headers: Mapping[str, str],
        data: bytes | None = None,
        *,
        first_byte_s: float | None,
    ) -> AsyncIterator[ClientResponse]:
        """One answer of the server, whose body is still to be read; left before its end it is cut off.

        Raises AddressError when the server cannot be reached, ConnectionClosed when the connection breaks,
        while the body is read, too, RequestTimeout when the answer does not begin in time, and HttpError for
        a redirect that is not followed.
        """
        import aiohttp

        everything = {**self._headers, **headers}
        authorization = await self._authorized()
        if authorization is not None:
            everything["Authorization"] = authorization
        response: ClientResponse | None = None
        try:
            try:
                async with asyncio.timeout(first_byte_s):
                    response = await self._send(verb, everything, data)
            except aiohttp.ConnectionTimeoutError:
                raise AddressError(
                    f"Cannot connect to {self.shown}: no connection within {self._server.connect_s:g} s"
                ) from None
            except TimeoutError:
                raise RequestTimeout(
                    f"{self.shown} did not begin to answer within {first_byte_s:g} s"
                ) from None
            yield response
        except aiohttp.ClientConnectorError as error:
            raise AddressError(f"Cannot connect to {self.shown}: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, RequestTimeout):
                raise
            text = self.blotted(_reason(error))
            raise ConnectionClosed(f"The connection to {self.shown} broke: {text}") from None
        finally:
            if response is not None:
                if response.content.at_eof():
                    response.release()
                else:
                    response.close()

    async def websocket(self, *, heartbeat_s: float, bytes_max: int) -> ClientWebSocketResponse:
        """A WebSocket that speaks "mcp". Raises AddressError when there is none to be had, HttpError when the server refuses."""
        import aiohttp

        if self._http is None:
            raise ConnectionClosed("The client was closed")
        everything = dict(self._headers)
        authorization = await self._authorized()
        if authorization is not None:
            everything["Authorization"] = authorization
        try:
            async with asyncio.timeout(self._server.connect_s):
                return await self._http.ws_connect(
                    self._url,
                    protocols=("mcp",),
                    headers=everything,
                    heartbeat=heartbeat_s,
                    max_msg_size=bytes_max,
                )
        except TimeoutError:
            raise AddressError(
                f"Cannot connect to {self.shown}: no WebSocket within {self._server.connect_s:g} s"
            ) from None
        except aiohttp.WSServerHandshakeError as error:
            challenge = None if error.headers is None else error.headers.get("WWW-Authenticate")
            text = f"{self.shown} answered the WebSocket's handshake with HTTP {error.status}"
            raise HttpError(
                error.status, text, None if challenge is None else self.blotted(challenge)
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise AddressError(f"Cannot connect to {self.shown}: {self.blotted(_reason(error))}") from None

    async def _send(self, verb: str, headers: Mapping[str, str], data: bytes | None) -> ClientResponse:
        if self._http is None:
            raise ConnectionClosed("The client was closed")
        for _ in range(REDIRECTS_MAX):
            response = await self._http.request(
                verb, self._url, headers=headers, data=data, allow_redirects=False
            )
            location = response.headers.get("Location")
            if not 300 <= response.status < 400 or location is None:
                return response
            response.close()
            self._redirect(response.status, location)
        raise HttpError(response.status, f"{self.shown} redirects again and again")

    def _redirect(self, status: int, location: str) -> None:
        """Goes where the server says, if that is the same server and asks for the same request.

        Elsewhere the headers would be told to somebody else.
        """
        from yarl import URL

        old = URL(self._url, encoded=True)
        try:
            new = old.join(URL(location))
        except ValueError:
            new = URL()
        if status in (307, 308) and new.absolute and new.origin() == old.origin():
            self._url = str(new.with_fragment(None))
            return
        where = without_secrets(str(new)) if new.absolute else "somewhere unknown"
        raise HttpError(
            status, f"{self.shown} redirects to {where}; use that URL if it is the server that you want"
        )

    async def _authorized(self) -> str | None:
        given: Any = self._authorization
        if callable(given):
            made = given()
            given = await made if isinstance(made, Awaitable) else made
        elif given is None:
            return None
        if not _may_be_value(given):
            raise TypeError("authorization must be or return the value of a header, such as 'Bearer ...'")
        value: str = given
        self.confide("authorization", value)
        return value

    def confide(self, name: str, value: str) -> None:
        """From now on `value` is shown in no error; it takes the place of what had this name before."""
        self._secrets[name] = value

    def refusal(self, response: ClientResponse, what: str, body: bytes) -> HttpError:
        """The error for an answer that is neither a message nor an acceptance."""
        text = f"{self.shown} answered {what} with HTTP {response.status} {response.reason or ''}".rstrip()
        kind = response.content_type
        if kind == "application/json" or (kind == "text/plain" and body):
            shown = " ".join(self.blotted(body.decode("utf-8", "replace")).split())
            text += f": {shown[:SHOWN_CHARACTERS]}" if shown else ""
        if what == "initialize" and response.status in (404, 405):
            text += " (is the path right? the old HTTP+SSE transport is not spoken here)"
        challenge = response.headers.get("WWW-Authenticate")
        return HttpError(response.status, text, None if challenge is None else self.blotted(challenge))

    def blotted(self, text: str) -> str:
        """A text of the server's without what we had told it in confidence."""
        for secret in self._secrets.values():
            for part in {secret, secret.rpartition(" ")[2]}:
                if len(part) >= SECRET_CHARACTERS_MIN:
                    text = text.replace(part, "***")
        return text


async def body_of(response: ClientResponse, bytes_max: int) -> bytes | None:
    """The whole body; None when it is longer than `bytes_max`. Raises aiohttp's errors."""
    if (response.content_length or 0) > bytes_max:
        return None
    parts: list[bytes] = []
    size = 0
    while part := await response.content.readany():
        size += len(part)
        if size > bytes_max:
            return None
        parts.append(part)
    return b"".join(parts)


def _taken_apart(server: HttpServer) -> tuple[str, Any]:
    """The URL without a user, and who we say we are."""
    from urllib.parse import unquote, urlsplit, urlunsplit

    shown = without_secrets(server.url)
    try:
        parts = urlsplit(server.url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme.lower() not in ("http", "https", "ws", "wss") or not parts.hostname or port == 0:
        raise AddressError(f"{shown!r} is not an address; write http://HOST:PORT/PATH or https://HOST/PATH")
    authorization: Any = server.authorization
    if parts.username is not None:
        import base64

        if authorization is not None:
            raise AddressError(f"{shown}: either a user in the URL or authorization, not both")
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(who.encode()).decode()
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")), authorization


def _checked(headers: Mapping[str, str], authorized: bool) -> dict[str, str]:
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise AddressError(f"headers: {name!r} is not the name of a header")
        if lower in RESERVED or lower.startswith("mcp-"):
            raise AddressError(f"headers: {name} is set by the protocol itself")
        if lower == "authorization" and authorized:
            raise AddressError("headers: Authorization is given twice")
        if not _may_be_value(value):
            raise AddressError(f"headers: the value of {name} is not one line of text")
    return dict(headers)


def _may_be_value(text: Any) -> bool:
    return isinstance(text, str) and not any(character in text for character in "\r\n\0")


def _reason(error: Exception) -> str:
    """What went wrong, in the words of the operating system or of TLS where there are any."""
    if isinstance(error, ssl.SSLCertVerificationError) or hasattr(error, "certificate_error"):
        cause = getattr(error, "certificate_error", error)
        return f"its certificate is not trusted ({getattr(cause, 'verify_message', cause)})"
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if (
        isinstance(cause, OSError)
        and not isinstance(cause, ssl.SSLError)
        and number is not None
        and number > 0
    ):
        return os.strerror(number)  # asyncio has words of its own for some
    return getattr(cause, "strerror", None) or str(cause) or type(error).__name__


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_PAUSE_S),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
