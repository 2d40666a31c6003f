"""Why somebody is not let in. One tree for every resolver and every transport.

Denied (an MCPError, so a JSON-RPC error on every transport; `status` is what HTTP says)
+-- MalformedRequest    400  credentials that cannot be read, or come in a place where none may be
+-- Unauthenticated     401  no credential
|   +-- InvalidToken         one that is expired, revoked, for somebody else, or not genuine
+-- Forbidden           403  known, but not for this tenant
|   +-- InsufficientScope    known, but more has to be granted first; `scopes` says what
+-- Unavailable         503  it cannot be told now; `retry_after_s` says when to ask again

`challenge.py` makes the HTTP answer of each. No message quotes a credential, and none tells whether a tenant exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Final

from mcpfast.errors import MCPError

# The one answer for a tenant that does not exist, one of which the caller is no member, and one that its credential is not for.
NOT_YOURS: Final = "These credentials are not for the tenant that was asked for, or it does not exist"


class Denied(MCPError):
    """A request that is not let in. Raised by resolvers: final, no later resolver softens it.

    `message` is shown to the caller: one plain sentence, without anything secret. `error` is the OAuth error code (RFC 6750,
    section 3.1), empty where there is none. The JSON-RPC code is ten times the HTTP status, outside every reserved range.
    """

    status: ClassVar[int]
    error_code: ClassVar[str] = ""

    def __init__(self, message: str, *, scopes: Iterable[str] = (), retry_after_s: float = 0.0) -> None:
        self.scopes = tuple(sorted(set(scopes)))
        self.retry_after_s = retry_after_s
        super().__init__(self.status * 10, message, self._data())

    def _data(self) -> dict[str, object] | None:
        data: dict[str, object] = {}
        if self.error_code:
            data["error"] = self.error_code
        if self.scopes:
            data["scopes"] = list(self.scopes)
        if self.retry_after_s > 0:
            data["retryAfterMs"] = math.ceil(self.retry_after_s * 1000)
        return data or None


class MalformedRequest(Denied):
    """Credentials that cannot be read (protocol notes, section 34, AU6), or that stand in the URL (AU3)."""

    status = 400
    error_code = "invalid_request"


class Unauthenticated(Denied):
    """Nobody said who is asking."""

    status = 401


class InvalidToken(Unauthenticated):
    """A credential that is expired, not yet good, revoked, not for this server, or not genuine."""

    error_code = "invalid_token"


class Forbidden(Denied):
    """Who is asking is known, and may not: another one's tenant, or one that is suspended."""

    status = 403


class InsufficientScope(Forbidden):
    """The credential is good, and too weak (AU5). `scopes`: all that this one operation needs, and no more."""

    error_code = "insufficient_scope"

    def __init__(self, scopes: Iterable[str]) -> None:
        needed = sorted(set(scopes))
        super().__init__(f"This needs the scope {' '.join(needed)}", scopes=needed)


class Unavailable(Denied):
    """It cannot be told now who is asking, or the tenant takes no new calls; the same request may be good later."""

    status = 503
