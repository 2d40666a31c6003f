"""Addresses of transports: "stdio", "tcp://HOST:PORT", "unix:///PATH"."""

from __future__ import annotations

from typing import NamedTuple

from mcpfast.errors import AddressError

FORMS = '"stdio", "tcp://HOST:PORT" or "unix:///PATH"'


class Address(NamedTuple):
    """`kind` is "stdio", "tcp" or "unix"; `host` and `port` are set for tcp, `path` for unix."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "tcp":
            return (
                f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"
            )
        return f"unix://{self.path}" if self.kind == "unix" else self.kind


def parse(text: str) -> Address:
    """Raises AddressError that names the text and the forms there are. Without a host TCP binds to loopback."""
    if text == "stdio":
        return Address("stdio")
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "unix":
        if len(rest) < 2 or not rest.startswith("/"):
            raise AddressError(
                f"{text!r}: a Unix socket needs an absolute path, as in unix:///run/notes.sock"
            )
        if len(rest.encode()) > 107:
            raise AddressError(f"{text!r}: the path of a Unix socket has at most 107 bytes")
        return Address("unix", path=rest)
    if separator and scheme == "tcp":
        host, colon, port = rest.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise AddressError(f"{text!r}: TCP needs a port from 0 to 65535, as in tcp://127.0.0.1:9000")
        host = host.removeprefix("[").removesuffix("]")
        return Address("tcp", host or "127.0.0.1", int(port))
    if text in ("http", "sse", "streamable-http") or scheme in ("http", "https", "ws", "wss"):
        raise AddressError(f"{text!r}: HTTP is not served by this version; use {FORMS}")
    raise AddressError(f"{text!r} is no address; use {FORMS}")
