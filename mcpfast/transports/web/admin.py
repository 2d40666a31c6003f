"""The admin API: the tenants of a server that serves, over the HTTP address that they themselves use.

    GET    /admin/tenants?after=ID&limit=N        {"tenants": [...], "after": the last id, where there are more}
    POST   /admin/tenants                         {"id": "acme", "plan": "team"}: 201
    GET    /admin/tenants/acme                    with "keys", and "live": state, calls in flight, use of its limits
    PATCH  /admin/tenants/acme                    {"quota": {"calls_per_s": 5}, "deny": null}, with "revision": only that one
    DELETE /admin/tenants/acme                    its calls drain
    POST   /admin/tenants/acme/suspend            and /resume
    POST   /admin/tenants/acme/keys               {"principal": "ci", "scopes": [...], "roles": [...], "ttl_s": 86400}: 201, with
                                                  "api_key", which is shown this once
    DELETE /admin/keys/4mYdV0aTq1Zk               the key is revoked

Names are those of the registry's TOML. An error is {"error": "text"}: 400 for what cannot be meant, with its path and the nearest
right name; 401, 403 as for MCP; 404; 405; 409 where the id is taken, or `revision` is not the present one; 413, 415; 500 where the
registry or the audit log does not work; 503 with Retry-After.

Served only where it was switched on (`Tenancy(admin=True)`), wherever HTTP is served and to nobody else: there is no address of its
own, so whoever wants it apart serves a second address that others cannot reach. It wants a credential in the Authorization header,
which no page of somebody else's makes a browser send, of a principal who has the scope "mcpfast:admin"; so has to be granted to his
tenant. Whoever has it looks after all tenants. /t/{tenant}/admin/... names the tenant for which he acts, where his token does not.
Live state and counts are those of this one process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from mcpfast.tenancy.administration import ADMIN_SCOPE, Administrator, Failed, KeyWanted, plain
from mcpfast.tenancy.api_keys import PREFIX
from mcpfast.tenancy.audit import Actor, without_secrets
from mcpfast.tenancy.decoding import ConfigurationError, decode, mistake, nearest
from mcpfast.tenancy.denied import Denied, InsufficientScope, Unauthenticated
from mcpfast.tenancy.namespace import UnsafeName
from mcpfast.tenancy.stores import Conflict, Unknown
from mcpfast.transports.web.identity import evidence_of, headers_of

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._exchange import Exchange, Head
    from mcpfast.transports.web.endpoint import Endpoint

logger = logging.getLogger("mcpfast")
PATH = "/admin"
BODY_BYTES_MAX = 1 << 20
PAGE_MAX = 500  # tenants in one answer
ANSWER_S = 30.0  # a change that takes longer goes on, and nobody is kept waiting for it
NOT_YET = "It is not done yet, and goes on; look before you ask for it again"
NO_SUCH = "There is no such thing under /admin; see /admin/tenants"


class Refused(Exception):
    """A request that cannot be served: the status, and what to say."""

    def __init__(self, status: int, text: str, extra: bytes = b"") -> None:
        super().__init__(text)
        self.status, self.extra = status, extra


class Answer(NamedTuple):
    status: int
    value: Any


class Asked(NamedTuple):
    """One request of an administrator. `id` is the tenant or key that its path names, if it names one."""

    by: Administrator
    id: str
    head: Head
    query: str

    def settings(self) -> dict[str, Any]:
        """The body. Raises Refused (415, 400)."""
        kind = (self.head.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind not in (b"application/json", b"application/merge-patch+json"):
            raise Refused(415, "A body has the Content-Type application/json")
        try:
            return msgspec.json.decode(self.head.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"The body is one JSON object: {error}") from None


def serve_admin(endpoint: Endpoint, exchange: Exchange, head: Head, path: str, query: str) -> bool:
    """Begins to answer; False: this is no path of the admin API."""
    tenant, rest = None, path
    if path.startswith("/t/"):
        tenant, _, below = path.removeprefix("/t/").partition("/")
        rest = f"/{below}"
    if rest != PATH and not rest.startswith(f"{PATH}/"):
        return False
    head.tenant = tenant
    exchange.tied = AdminCall(endpoint, exchange, head, rest.removeprefix(PATH), query)
    return True


class AdminCall:
    """One request, in a Task that ends with the client. What it has begun to change goes on."""

    def __init__(self, endpoint: Endpoint, exchange: Exchange, head: Head, path: str, query: str) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._head = head
        self._path = path
        self._query = query
        tenants = endpoint.host.dispatcher.tenants
        assert tenants is not None
        self._callers = tenants.callers
        self._task = endpoint.host.loop.create_task(self._run())

    def lost(self, reason: str) -> None:
        """The client is gone."""
        self._task.cancel(reason)

    async def _run(self) -> None:
        exchange = self._exchange
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._answer()
            exchange.respond(answer.status, msgspec.json.encode(answer.value), b"application/json")
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception as error:
            status, text, extra = self._told(error)
            exchange.respond(status, msgspec.json.encode({"error": text}), b"application/json", extra)
        finally:
            exchange.tied = None

    def _told(self, error: Exception) -> tuple[int, str, bytes]:
        """Status, text and headers of what went wrong. What is not theirs is said in the log only."""
        match error:
            case Refused():
                return error.status, str(error), error.extra
            case Denied():
                return error.status, error.message, headers_of(self._endpoint, self._exchange, error)
            case TimeoutError():
                return 503, NOT_YET, b"Retry-After: 5\r\n"
            case Unknown():
                return 404, str(error), b""
            case Conflict():
                return 409, str(error), b""
            case Failed():
                logger.error("the admin API could not do it: %s", error)
                return (
                    500,
                    "The registry or the audit log does not work; the server's log has the details",
                    b"",
                )
            case ConfigurationError() | UnsafeName():
                return 400, str(error), b""
        logger.error("the admin API failed", exc_info=error)
        return 500, "Internal error; the server's log has the details", b""

    async def _answer(self) -> Answer:
        head = self._head
        caller = await self._administrator()
        if head.doubled:
            raise Refused(400, "A header that may stand once stands twice")
        if len(head.body) > BODY_BYTES_MAX:
            raise Refused(413, f"A body has at most {BODY_BYTES_MAX:,} bytes")
        tenant, principal, _ = caller.key
        assert self._callers.administration is not None
        by = self._callers.administration.by(Actor(principal, "admin", tenant))
        serve, id = _route(self._path, head.method.decode("latin-1"))
        return await serve(Asked(by, id, head, self._query))

    async def _administrator(self) -> Caller:
        """Who asks. Raises Denied for who is nobody, or no administrator; the audit log has it then, too."""
        evidence = evidence_of(self._endpoint, self._exchange, self._head)
        method, path = self._head.method.decode("latin-1"), f"{PATH}{self._path}"
        if PREFIX in path:  # somebody's key
            path = PATH
        if evidence.header("authorization") is None:
            # also of who is known by how he is connected: a browser would send that for anybody's page
            denied = Unauthenticated(
                "This needs credentials in the Authorization header", scopes=[ADMIN_SCOPE]
            )
            self._callers.denied("identity", None, "admin", method, path, denied.message)
            raise denied
        caller = await self._callers.find_in_time(evidence, via="admin")
        if ADMIN_SCOPE not in caller.principal.scopes & caller.tenant.terms.scopes:
            missing = InsufficientScope([ADMIN_SCOPE])
            self._callers.denied("permission", caller, "admin", method, path, missing.message)
            raise missing
        return caller


# ---------------------------------------------------------------------------------------------- what is served


async def _list(asked: Asked) -> Answer:
    parameters = dict(parse_qsl(asked.query, keep_blank_values=True))
    for name in parameters.keys() - {"after", "limit"}:
        raise mistake(name, f"there is no such parameter; {nearest(name, ('after', 'limit'))}")
    limit, after = parameters.get("limit", str(PAGE_MAX)), parameters.get("after", "")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and int(limit)):
        raise mistake("limit", f"a number from 1 to {PAGE_MAX} is wanted")
    count = min(int(limit), PAGE_MAX)
    left = [record for record in await asked.by.tenants() if record.id > after]
    answer: dict[str, Any] = {"tenants": [plain(record) for record in left[:count]]}
    if len(left) > count:
        answer["after"] = left[count - 1].id
    return Answer(200, answer)


async def _add(asked: Asked) -> Answer:
    return Answer(201, plain(await asked.by.add(asked.settings())))


async def _show(asked: Asked) -> Answer:
    known = await asked.by.tenant(asked.id)
    keys = [without_secrets(plain(key)) for key in known.keys]
    return Answer(200, {**plain(known.record), "keys": keys, "live": known.live})


async def _change(asked: Asked) -> Answer:
    return Answer(200, plain(await asked.by.change(asked.id, asked.settings())))


async def _suspend(asked: Asked) -> Answer:
    return Answer(200, plain(await asked.by.suspend(asked.id)))


async def _resume(asked: Asked) -> Answer:
    return Answer(200, plain(await asked.by.resume(asked.id)))


async def _remove(asked: Asked) -> Answer:
    return Answer(200, plain(await asked.by.remove(asked.id)))


async def _new_key(asked: Asked) -> Answer:
    made = await asked.by.new_key(asked.id, decode(asked.settings(), KeyWanted))
    return Answer(201, {**without_secrets(plain(made.record)), "api_key": made.key})


async def _revoke_key(asked: Asked) -> Answer:
    if asked.id.startswith(PREFIX):  # it is not repeated
        raise mistake("", f"the id of a key are the letters between {PREFIX} and the next _")
    return Answer(200, without_secrets(plain(await asked.by.revoke_key(asked.id))))


Serve = Callable[[Asked], Awaitable[Answer]]
ROUTES: Mapping[tuple[str, ...], Mapping[str, Serve]] = {
    ("tenants",): {"GET": _list, "POST": _add},
    ("tenants", "*"): {"GET": _show, "PATCH": _change, "DELETE": _remove},
    ("tenants", "*", "suspend"): {"POST": _suspend},
    ("tenants", "*", "resume"): {"POST": _resume},
    ("tenants", "*", "keys"): {"POST": _new_key},
    ("keys", "*"): {"DELETE": _revoke_key},
}


def _route(path: str, method: str) -> tuple[Serve, str]:
    """What serves a request, and the id in its path, if there is one. Raises Refused (404, 405)."""
    parts = path.split("/")[1:]
    for shape, served in ROUTES.items():
        if shape == tuple("*" if at == 1 else part for at, part in enumerate(parts)):
            serve = served.get("GET" if method == "HEAD" else method)
            if serve is None:
                allowed = ", ".join([*served, *(["HEAD"] if "GET" in served else [])])
                raise Refused(405, f"{allowed} only", f"Allow: {allowed}\r\n".encode())
            return serve, parts[1] if "*" in shape else ""
    raise Refused(404, NO_SUCH)
