"""Whose HTTP request it is: what it shows as `Evidence`, the answer of the chain, and what is told to who is not let in.

Mostly the answer is there at once. Where it has to be waited for (keys of an issuer), a Task does, the exchange's answer waits
with it, and other connections go on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast.errors import MCPError
from mcpfast.protocol import messages
from mcpfast.server.tenants import TOO_LATE
from mcpfast.tenancy.challenge import WELL_KNOWN, ProtectedResource
from mcpfast.tenancy.denied import Denied, Unavailable
from mcpfast.tenancy.namespace import UnsafeName, check_tenant_id
from mcpfast.tenancy.resolvers import Evidence

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._exchange import Exchange, Head
    from mcpfast.transports.web.endpoint import Endpoint


def identify(endpoint: Endpoint, exchange: Exchange, head: Head, go_on: Callable[[], None]) -> None:
    """Goes on with `exchange.caller` set, or answers."""
    evidence = evidence_of(exchange, head)
    tenants = endpoint.host.dispatcher.tenants
    assert tenants is not None
    finding = tenants.callers.find(evidence)
    try:
        finding.send(None)
    except StopIteration as found:
        _known(exchange, head, found.value, go_on)
    except Denied as denied:
        deny(endpoint, exchange, head, denied)
    else:  # it has to be waited for: once more, by a Task
        finding.close()
        task = asyncio.get_running_loop().create_task(_wait(endpoint, exchange, head, evidence, go_on))
        endpoint.identifying.add(task)
        task.add_done_callback(endpoint.identifying.discard)


async def _wait(
    endpoint: Endpoint, exchange: Exchange, head: Head, evidence: Evidence, go_on: Callable[[], None]
) -> None:
    tenants = endpoint.host.dispatcher.tenants
    assert tenants is not None
    # Not within this Task: what is called next has a Task of its own.
    end = asyncio.get_running_loop().call_soon
    try:
        async with asyncio.timeout(endpoint.limits.identify_s):
            caller = await tenants.callers.find(evidence)
    except TimeoutError:
        end(deny, endpoint, exchange, head, Unavailable(TOO_LATE, retry_after_s=1.0))
    except Denied as denied:
        end(deny, endpoint, exchange, head, denied)
    except Exception as error:
        end(endpoint.broke, exchange, error)
    else:
        end(_known, exchange, head, caller, go_on)


def _known(exchange: Exchange, head: Head, caller: Caller, go_on: Callable[[], None]) -> None:
    head.caller = exchange.caller = caller
    if not exchange.closed:
        go_on()


def evidence_of(exchange: Exchange, head: Head) -> Evidence:
    """What a request shows. A header that came twice has both values: two credentials are never read as one."""

    def header(name: str) -> str | None:
        wanted = name.encode("latin-1")
        values = [value.decode("latin-1").strip() for known, value in head.headers if known == wanted]
        return ", ".join(values) if values else None

    query = head.target.partition(b"?")[2].decode("latin-1")
    return Evidence(transport="http", header=header, query=query, path_tenant=head.tenant or "")


# ---------------------------------------------------------------- who is not let in


def deny(endpoint: Endpoint, exchange: Exchange, head: Head, denied: Denied) -> None:
    """The status and the challenge of HTTP, and the JSON-RPC error for a client that reads the body."""
    if exchange.closed:
        return
    exchange.reply_with(denied.status, error_line(denied, head.body), _told(endpoint, head, denied))


def headers_of(endpoint: Endpoint, exchange: Exchange, error: MCPError) -> bytes:
    """What HTTP says beside the error of a request whose caller is known: a challenge, or when to come back."""
    if isinstance(error, Denied) and exchange.head is not None:
        return _told(endpoint, exchange.head, error)
    wait_ms = (error.data or {}).get("retryAfterMs")
    return b"" if wait_ms is None else b"Retry-After: %d\r\n" % max(1, -(-wait_ms // 1000))


def _told(endpoint: Endpoint, head: Head, denied: Denied) -> bytes:
    """Challenge and Retry-After of a Denied, as lines."""
    resource = resource_of(endpoint, head)
    if resource is not None:
        return _lines(resource.answer(denied).headers)
    headers = [("WWW-Authenticate", "Bearer")] if denied.status == 401 else []
    if denied.retry_after_s > 0:
        headers.append(("Retry-After", str(math.ceil(denied.retry_after_s))))
    return _lines(headers)


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)


def error_line(error: MCPError, body: bytes | None) -> bytes:
    """The error with the id of the request that `body` is, if it is one."""
    try:
        id_ = msgspec.json.decode(body or b"", type=_Request).id
    except msgspec.DecodeError:
        id_ = msgspec.UNSET
    if isinstance(id_, msgspec.UnsetType):
        return messages.error_line(error, id_null=False)
    return messages.error_answer(error, msgspec.json.encode(id_))


class _Request(msgspec.Struct):
    id: str | int | msgspec.UnsetType = msgspec.UNSET


def serve_metadata(endpoint: Endpoint, exchange: Exchange, head: Head, path: str) -> None:
    """RFC 9728, for every tenant that could be: it tells nothing of which there are."""
    tenant = path.removeprefix("/t/").partition("/")[0] if path.startswith("/t/") else None
    if tenant is not None:
        try:
            head.tenant = check_tenant_id(tenant)
        except UnsafeName:
            exchange.respond(404, b"There is no such resource\n")
            return
    resource = resource_of(endpoint, head)
    if resource is None:
        exchange.respond(404, b"No authorization server is known here; this server takes API keys\n")
        return
    if head.method != b"GET":
        exchange.respond(405, b"GET only\n", extra=b"Allow: GET\r\n")
    elif path and WELL_KNOWN + path != resource.metadata_path:
        exchange.respond(404, b"There is no such resource\n")
    else:
        exchange.respond(200, resource.metadata(), b"application/json")


def resource_of(endpoint: Endpoint, head: Head) -> ProtectedResource | None:
    """What the request asked for, as tokens and metadata name it: scheme, host and the path of its tenant. None where no issuer
    gives tokens for it."""
    tenants: Any = endpoint.host.dispatcher.tenants
    host = (head.header(b"host") or b"").decode("latin-1")
    path = endpoint.path if not head.tenant else f"/t/{head.tenant}{endpoint.path}"
    scheme = "https" if endpoint.tls else "http"
    issuers = [issuer.issuer for issuer in tenants.callers.tenancy.issuers]
    if not issuers:
        return None
    return ProtectedResource(f"{scheme}://{host}{path}", issuers, tenants.callers.tenancy.scopes_asked)
