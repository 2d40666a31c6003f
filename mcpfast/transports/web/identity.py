"""Whose HTTP request it is: what it shows as `Evidence`, the answer of the chain, and what is told to who is not let in.

Mostly the answer is there at once. Where it has to be waited for (keys of an issuer), a Task does, the exchange's answer waits
with it, and other connections go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from mcpfast.errors import MCPError, RegistrationError
from mcpfast.protocol import messages
from mcpfast.tenancy.challenge import WELL_KNOWN, ProtectedResource, answer
from mcpfast.tenancy.denied import Denied
from mcpfast.tenancy.local import tls_names
from mcpfast.tenancy.namespace import UnsafeName, check_tenant_id
from mcpfast.tenancy.resolvers import Evidence, Peer
from mcpfast.transports.sockets import peer_credentials
from mcpfast.transports.web.access import preflight

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._exchange import Exchange, Head
    from mcpfast._http import HttpConnection
    from mcpfast.transports.web.endpoint import Endpoint


class Shown(NamedTuple):
    """What a connection shows of who is asking, whatever its requests say."""

    peer: Peer | None
    tls_names: tuple[str, ...]


READ_BYTES_MAX = 64 << 10
NOTHING_SHOWN = Shown(None, ())


def shown_by(connection: HttpConnection) -> Shown | None:
    """The user behind a Unix socket, the names of a client certificate that TLS has verified; None where there is neither."""
    transport = connection.transport
    credentials = peer_credentials(transport.get_extra_info("socket"))
    peer = None if credentials is None else Peer(*credentials)
    names = tls_names(transport.get_extra_info("peercert"))
    return Shown(peer, names) if peer is not None or names else None


def identify(
    endpoint: Endpoint, exchange: Exchange, head: Head, go_on: Callable[[], None], transport: str = "http"
) -> None:
    """Goes on with `exchange.caller` set, or answers."""
    evidence = evidence_of(endpoint, exchange, head, transport)
    tenants = endpoint.host.dispatcher.tenants
    assert tenants is not None
    if tenants.callers.needs_task:
        _begin_to_wait(endpoint, exchange, head, evidence, go_on)
        return
    finding = tenants.callers.find(evidence)
    try:
        finding.send(None)
    except StopIteration as found:
        _known(endpoint, exchange, head, found.value, go_on)
    except Denied as denied:
        deny(endpoint, exchange, head, denied, head.body)
    except Exception as error:
        endpoint.broke(exchange, error)
    else:  # it has to be waited for: once more, by a Task
        finding.close()
        _begin_to_wait(endpoint, exchange, head, evidence, go_on)


def _begin_to_wait(
    endpoint: Endpoint, exchange: Exchange, head: Head, evidence: Evidence, go_on: Callable[[], None]
) -> None:
    task = asyncio.get_running_loop().create_task(_wait(endpoint, exchange, head, head.body, evidence, go_on))
    endpoint.identifying.add(task)
    task.add_done_callback(endpoint.identifying.discard)
    exchange.tied = _Finding(task)


class _Finding:
    """A Task that finds out who asks. It ends with the client: so there are never more of them than connections."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def lost(self, reason: str) -> None:
        self._task.cancel(reason)


async def _wait(
    endpoint: Endpoint,
    exchange: Exchange,
    head: Head,
    body: bytes | None,
    evidence: Evidence,
    go_on: Callable[[], None],
) -> None:
    tenants = endpoint.host.dispatcher.tenants
    assert tenants is not None
    # Not within this Task: what is called next has a Task of its own.
    end = asyncio.get_running_loop().call_soon
    try:
        caller = await tenants.callers.find_in_time(evidence)
    except Denied as denied:
        end(deny, endpoint, exchange, head, denied, body)
    except Exception as error:
        end(endpoint.broke, exchange, error)
    else:
        end(_known, endpoint, exchange, head, caller, go_on)
    finally:
        exchange.tied = None


def _known(
    endpoint: Endpoint, exchange: Exchange, head: Head, caller: Caller, go_on: Callable[[], None]
) -> None:
    exchange.caller, exchange.asked = caller, None
    if exchange.shown is None:
        head.caller = caller
    else:  # the same head on another connection may be somebody else's
        exchange.asked = head
    if exchange.closed:
        return
    try:
        go_on()
    except Exception as error:
        endpoint.broke(exchange, error)


def evidence_of(endpoint: Endpoint, exchange: Exchange, head: Head, transport: str = "http") -> Evidence:
    """What a request shows. A header that came twice has both values: two credentials are never read as one."""

    def header(name: str) -> str | None:
        wanted = name.encode("latin-1")
        values = [value.decode("latin-1").strip() for known, value in head.headers if known == wanted]
        return ", ".join(values) if values else None

    shown = exchange.shown or NOTHING_SHOWN
    return Evidence(
        transport=transport,
        header=header,
        query=head.target.partition(b"?")[2].decode("latin-1"),
        path_tenant=head.tenant or "",
        host_tenant=endpoint.access.tenant(host_of(head)),
        peer=shown.peer,
        tls_names=shown.tls_names,
    )


def host_of(head: Head) -> str:
    return (head.header(b"host") or b"").strip().decode("latin-1")


# ---------------------------------------------------------------- who is not let in


def deny(endpoint: Endpoint, exchange: Exchange, head: Head, denied: Denied, body: bytes | None) -> None:
    """The status and the challenge of HTTP, and the JSON-RPC error for a client that reads the body."""
    if exchange.closed:
        return
    told = _told(endpoint, exchange, head, denied)
    exchange.reply_with(denied.status, error_line(denied, body), told)


def headers_of(endpoint: Endpoint, exchange: Exchange, error: MCPError) -> bytes:
    """What HTTP says beside the error of a request whose caller is known: a challenge, or when to come back."""
    if isinstance(error, Denied) and exchange.head is not None:
        return _told(endpoint, exchange, exchange.head, error)
    wait_ms = (error.data or {}).get("retryAfterMs")
    return b"" if wait_ms is None else b"Retry-After: %d\r\n" % max(1, -(-wait_ms // 1000))


def _told(endpoint: Endpoint, exchange: Exchange, head: Head, denied: Denied) -> bytes:
    """Challenge and Retry-After of a Denied, as lines."""
    resource = resource_of(endpoint, exchange, head)
    return _lines((answer(denied) if resource is None else resource.answer(denied)).headers)


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)


def error_line(error: MCPError, body: bytes | None) -> bytes:
    """The error with the id of the request that `body` is, if it is one; what is long is not read for somebody unknown."""
    id_: str | int | msgspec.UnsetType = msgspec.UNSET
    if body and len(body) <= READ_BYTES_MAX:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            id_ = msgspec.json.decode(body, type=_Request).id
    if isinstance(id_, msgspec.UnsetType):
        return messages.error_line(error, id_null=False)
    return messages.error_answer(error, msgspec.json.encode(id_))


class _Request(msgspec.Struct):
    id: str | int | msgspec.UnsetType = msgspec.UNSET


def serve_metadata(endpoint: Endpoint, exchange: Exchange, head: Head, path: str) -> None:
    """RFC 9728, for every tenant that could be: it tells nothing of which there are. Asks nobody who it is (AU2)."""
    path = path.removeprefix(exchange.root)  # behind the well-known name it may stand as clients know it, too
    tenant = path.removeprefix("/t/").partition("/")[0] if path.startswith("/t/") else None
    if tenant is not None:
        try:
            head.tenant = check_tenant_id(tenant)
        except UnsafeName:
            exchange.respond(404, b"There is no such resource\n")
            return
    resource = resource_of(endpoint, exchange, head)
    if resource is None:
        exchange.respond(404, b"No authorization server is known here; this server takes API keys\n")
        return
    if head.method == b"OPTIONS":  # pages ask with MCP-Protocol-Version, so their browser asks before
        exchange.respond(204, extra=preflight(head) or b"Allow: GET, OPTIONS\r\n")
    elif head.method != b"GET":
        exchange.respond(405, b"GET only\n", extra=b"Allow: GET, OPTIONS\r\n")
    elif path and WELL_KNOWN + path != resource.metadata_path:
        exchange.respond(404, b"There is no such resource\n")
    else:
        exchange.respond(200, resource.metadata(), b"application/json")


def resource_of(endpoint: Endpoint, exchange: Exchange, head: Head) -> ProtectedResource | None:
    """What the request asked for, as tokens and metadata name it: scheme, host and the path of its tenant. None where no issuer
    gives tokens for it, or its host is none that could be named."""
    tenants: Any = endpoint.host.dispatcher.tenants
    tenancy = tenants.callers.tenancy
    if not tenancy.issuers:
        return None
    tenant = f"/t/{head.tenant}" if head.tenant else ""
    url = f"{_base(endpoint, exchange, head)}{exchange.root}{tenant}{endpoint.path}"
    servers = [issuer.issuer for issuer in tenancy.issuers]
    try:
        return ProtectedResource(url, servers, tenancy.scopes_asked, root=exchange.root)
    except RegistrationError:
        return None


def _base(endpoint: Endpoint, exchange: Exchange, head: Head) -> str:
    """Scheme and host as the client knows them. Behind a proxy only `public_url` tells; a tenant's own host name is the Host's."""
    host = host_of(head)
    if endpoint.public_url is None:
        return f"{'https' if exchange.secure else 'http'}://{host}"
    if endpoint.access.tenant(host):
        return f"{urlsplit(endpoint.public_url).scheme}://{host}"
    return endpoint.public_url
