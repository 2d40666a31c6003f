"""The legacy era (2024-11-05 to 2025-11-25): a session is made by `initialize`, and lasts as long as its connection.

The lifecycle, as a table. A session is NEW until `initialize` is answered, then OPEN; `notifications/initialized` makes it
READY, which matters for what the *server* may send (section 5, L4), not for what the client may ask: clients that pipeline
their first request behind the notification exist, and so do clients that forget the notification.

    state \\ method   initialize        ping    any other request
    NEW              -> OPEN           {}      -32600 not initialized
    OPEN, READY      -32600 once only  {}      served under the negotiated revision
"""

from __future__ import annotations

from mcpfast.errors import INVALID_PARAMS, INVALID_REQUEST, MCPError
from mcpfast.protocol.revisions import BY_VERSION, LATEST_LEGACY, Revision

NEW, OPEN, READY = "new", "open", "ready"

# method -> the capability that opens it; None: always there. (2024-11-05 needs no capability for completion.)
METHODS: dict[str, str | None] = {
    "initialize": None,
    "ping": None,
    "logging/setLevel": "logging",
    "tools/list": "tools",
    "tools/call": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "resources/subscribe": "resources",
    "resources/unsubscribe": "resources",
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "completion/complete": "completions",
}
BEFORE_INITIALIZE = frozenset({"initialize", "ping"})


def negotiate(requested: str) -> Revision:
    """The revision to answer `initialize` with: the client's where we have it, else our latest with a handshake (L3)."""
    revision = BY_VERSION.get(requested)
    return revision if revision is not None and not revision.modern else LATEST_LEGACY


def check(state: str, method: str) -> None:
    """Raises MCPError where the table above says so."""
    if state == NEW and method not in BEFORE_INITIALIZE:
        raise MCPError(
            INVALID_REQUEST,
            "Not initialized: send `initialize` first, or the 2026-07-28 envelope in params._meta",
        )
    if state != NEW and method == "initialize":
        raise MCPError(INVALID_REQUEST, "Already initialized: a session is initialized once")


def check_progress_token(raw: bytes | None) -> None:
    """A token is a string or an integer (section 20); null is no token, as clients have it. Raises MCPError for others."""
    if raw is None or raw[:1] == b'"' or raw == b"null" or raw.removeprefix(b"-").isdigit():
        return
    raise MCPError(INVALID_PARAMS, "Invalid params: _meta.progressToken must be a string or an integer")
