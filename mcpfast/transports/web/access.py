"""Who may ask: the Host that is asked for, the Origin of the page that asks (protocol notes, sections 9 and 10)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mcpfast.transports.web.settings import TENANT

if TYPE_CHECKING:
    from mcpfast._exchange import Head
    from mcpfast.transports.web.settings import HttpSettings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
LOOPBACK_ADDRESSES = ("localhost", "127.0.0.1", "::1")
# What a page may send and read beside what every page may. Mcp-Param-* come on top: they are the tools' own.
SENT = frozenset(
    (
        *("accept", "authorization", "content-type", "last-event-id", "x-api-key"),
        *("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"),
    )
)
READ = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.ASCII)  # of a tenant that a host name can say
PREFLIGHT_S = 7_200  # a browser asks again after
SHOWN_MAX = 200  # characters of a refused value that are told again


class Refused(Exception):
    """Who may not ask: the HTTP status and what to say."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.body = why.encode("latin-1", "replace") + b"\n"


class Access:
    """The rule of one address. `loopback`: it is bound to loopback.

    Whoever is asked there by another name than loopback's is asked by a page that had its name resolve to us (DNS rebinding).
    """

    def __init__(self, settings: HttpSettings, *, loopback: bool) -> None:
        hosts = {host.lower() for host in settings.allowed_hosts}
        self._hosts: frozenset[str] | set[str] | None = None
        if "*" not in hosts and (hosts or loopback):
            self._hosts = hosts | LOOPBACK if loopback else hosts
        pattern = (settings.tenant_host or "").lower()
        self._tenant_domain = pattern.removeprefix(TENANT)  # with the dot before it
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    def check_host(self, host: str) -> None:
        """Raises Refused (421) for a Host that is not served here."""
        if self._hosts is None:
            return
        name, bare = host.lower(), _without_port(host.lower())
        if name not in self._hosts and bare not in self._hosts and not self.tenant(host):
            raise Refused(
                421,
                f"The Host {host[:SHOWN_MAX]!r} is not served here. To allow it: "
                f"server.run(..., allowed_hosts=[{host[:SHOWN_MAX]!r}]), or --allow-host on the command line",
            )

    def tenant(self, host: str) -> str:
        """The tenant that a Host names, or "" where it names none. Whether there is one of this name others say."""
        if not self._tenant_domain:
            return ""
        name = _without_port(host.lower())
        label = name.removesuffix(self._tenant_domain)
        return label if label != name and _LABEL.fullmatch(label) else ""

    def check(self, host: str, origin: str | None) -> bytes:
        """Gives the headers that the answer to this Origin has. Raises Refused: 421 for the Host, 403 for the Origin."""
        self.check_host(host)
        if origin is None:
            return b""
        if origin.lower().partition("://")[2] == host.lower():
            return b""
        if "*" in self._origins or origin.lower() in self._origins:
            allowed = "*" if "*" in self._origins else origin
            return (
                f"Access-Control-Allow-Origin: {allowed}\r\nAccess-Control-Expose-Headers: {READ}\r\n"
                "Vary: Origin\r\n"
            ).encode("latin-1")
        raise Refused(
            403,
            f"The Origin {origin[:SHOWN_MAX]!r} may not ask here. To allow it: "
            f"server.run(..., allowed_origins=[{origin[:SHOWN_MAX]!r}]), or --allow-origin on the command line",
        )


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdigit() else host


def text(value: bytes | None) -> str | None:
    """A header's value as text."""
    return None if value is None else value.strip().decode("latin-1")


def preflight(head: Head) -> bytes | None:
    """The headers that answer a browser's question before the question; None where it is none."""
    if head.header(b"origin") is None or head.header(b"access-control-request-method") is None:
        return None
    wanted = (text(head.header(b"access-control-request-headers")) or "").lower().split(",")
    allowed = [name for name in map(str.strip, wanted) if name in SENT or _is_parameter(name)]
    return (
        "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS\r\n"
        f"Access-Control-Allow-Headers: {', '.join(allowed)}\r\nAccess-Control-Max-Age: {PREFLIGHT_S}\r\n"
    ).encode("latin-1")


def _is_parameter(name: str) -> bool:
    rest = name.removeprefix("mcp-param-")
    return rest != name and rest.replace("-", "").replace("_", "").isalnum() and rest.isascii()


def accepts(header: bytes | None, kind: str) -> bool:
    """Whether an Accept header takes `kind` (RFC 9110, section 12.5.1; what weighs 0 does not count)."""
    if header is None:
        return False
    main = kind.partition("/")[0]
    for item in header.decode("latin-1").lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        if media in (kind, f"{main}/*", "*/*") and not any(
            part.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for part in parameters
        ):
            return True
    return False
