"""Addresses of transports, as text and taken apart."""

from __future__ import annotations

import os
from typing import NamedTuple

from mcpfast.errors import AddressError

FORMS = '"stdio", "http://HOST:PORT", "https://HOST:PORT", "tcp://HOST:PORT", "unix:///PATH" or "unix+http:///PATH"'
WEB = ("http", "https", "unix+http")  # what HTTP is spoken on
ENDPOINT = "/mcp"  # the path of an HTTP address that names none


class Address(NamedTuple):
    """`kind` is "stdio", "tcp", "unix", "http", "https" or "unix+http". `host` and `port` are set for tcp, http and https, `socket`
    (a file) for unix and unix+http, `path` (the endpoint's) for all that speak HTTP."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    socket: str = ""

    def __str__(self) -> str:
        if self.kind in ("tcp", "http", "https"):
            host = f"[{self.host}]" if ":" in self.host else self.host
            return f"{self.kind}://{host}:{self.port}{self.path}"
        return f"{self.kind}://{self.socket}" if self.socket else self.kind


def parse(text: str) -> Address:
    """Raises AddressError that names the text and the forms there are. Without a host TCP and HTTP bind to loopback."""
    scheme, _, rest = text.partition(":")
    if text == "stdio":
        return Address("stdio")
    if scheme in ("unix", "unix+http"):
        return _unix(text, scheme, rest)
    if scheme == "tcp":
        return _tcp(text, rest)
    if scheme in ("http", "https"):
        return _http(text, scheme, rest)
    if scheme in ("ws", "wss"):
        spoken = "https" if scheme == "wss" else "http"
        raise AddressError(
            f"{text!r}: WebSocket clients are served at the address of HTTP; write {spoken}:{rest}"
        )
    if scheme in ("sse", "streamable-http", "streamable_http"):
        raise AddressError(
            f"{text!r}: one address serves Streamable HTTP, and HTTP+SSE at /sse; write http://127.0.0.1:8000"
        )
    raise AddressError(f"{text!r} is no address; use {FORMS}")


def _unix(text: str, kind: str, rest: str) -> Address:
    path = rest.removeprefix("//")
    if len(path) < 2:
        raise AddressError(f"{text!r}: a Unix socket needs an absolute path, as in {kind}:///run/notes.sock")
    if not rest.startswith("///"):
        raise AddressError(
            f"{text!r}: a Unix socket needs two slashes and an absolute path; write {kind}://{os.path.abspath(path)}"
        )
    if len(path.encode()) > 107:
        raise AddressError(f"{text!r}: the path of a Unix socket has at most 107 bytes")
    return Address(kind, path=ENDPOINT if kind == "unix+http" else "", socket=path)


def _host_and_port(text: str, rest: str, example: str) -> tuple[str, int]:
    host, colon, port = rest.removeprefix("//").rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        kind = example.partition(":")[0].upper()
        raise AddressError(f"{text!r}: {kind} needs a port from 0 to 65535, as in {example}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _http(text: str, kind: str, rest: str) -> Address:
    where, slash, path = rest.removeprefix("//").partition("/")
    if "?" in path or "#" in path or not path.isascii():
        raise AddressError(f"{text!r}: the path of an HTTP address is plain, as in http://127.0.0.1:8000/mcp")
    host, port = _host_and_port(text, where, f"{kind}://127.0.0.1:8000")
    return Address(kind, host, port, slash + path if path else ENDPOINT)


def _tcp(text: str, rest: str) -> Address:
    address = Address("tcp", *_host_and_port(text, rest, "tcp://127.0.0.1:9000"))
    if not rest.startswith("//"):
        raise AddressError(f"{text!r}: TCP needs two slashes; write {address}")
    return address
