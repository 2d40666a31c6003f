"""The modern era (2026-07-28 and later): every request carries its own envelope, no session, no server requests.

Section numbers: 6 of the protocol notes (envelope and discovery), 15 (listen), 27 (MRTR), 30 (caching hints).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from mcpfast.errors import INVALID_PARAMS, MISSING_CAPABILITY, UNSUPPORTED_VERSION, MCPError
from mcpfast.protocol import messages
from mcpfast.protocol.revisions import BY_VERSION, LOG_LEVEL_INDEX, MODERN_VERSIONS, Revision

# method -> the capability that opens it; None: always there.
METHODS: dict[str, str | None] = {
    "server/discover": None,
    "subscriptions/listen": None,
    "tools/list": "tools",
    "tools/call": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resources",
    "resources/read": "resources",
    "prompts/list": "prompts",
    "prompts/get": "prompts",
    "completion/complete": "completions",
}
# The methods that only this era has: without an envelope they are a modern client's mistake, not a legacy one's.
ONLY_HERE = frozenset({"server/discover", "subscriptions/listen"})
# The methods whose result may be `input_required` (section 27, MR1).
RETRIED = frozenset({"tools/call", "prompts/get", "resources/read"})

SUBSCRIPTION_ID = messages.META_PREFIX + "subscriptionId"
SERVER_INFO = messages.META_PREFIX + "serverInfo"


class Caller:
    """What one request says of its client. Nothing here outlives the request (section 6, M4 and M7)."""

    __slots__ = ("capabilities", "client_info", "log_level", "revision")

    def __init__(
        self,
        revision: Revision,
        capabilities: dict[str, Any],
        client_info: dict[str, Any] | None,
        log_level: str | None,
    ) -> None:
        self.revision = revision
        self.capabilities = capabilities
        self.client_info = client_info
        self.log_level = log_level


def read_envelope(params: bytes | None) -> Caller:
    """Checks `params._meta` and says who calls. Raises MCPError: -32602 for what is missing or malformed, -32022 for a version.

    The order is the specification's: a broken envelope first, then the version (section 10, precedence).
    """
    outer = messages.decode(messages.Outer, params)
    meta = outer.meta
    if not isinstance(meta, messages.Envelope):
        raise MCPError(
            INVALID_PARAMS,
            "Invalid params: _meta is missing; it must carry "
            f"{messages.META_PREFIX}protocolVersion and {messages.META_PREFIX}clientCapabilities",
        )
    version, capabilities, info, level = meta.version, meta.capabilities, meta.client_info, meta.log_level
    if not isinstance(version, str):
        raise _bad_member("protocolVersion", "a string", version)
    if not isinstance(capabilities, dict):
        raise _bad_member("clientCapabilities", "an object", capabilities)
    if info is not UNSET and not isinstance(info, dict):
        raise _bad_member("clientInfo", "an object", info)
    if meta.progress_token is not UNSET and (
        isinstance(meta.progress_token, bool) or not isinstance(meta.progress_token, str | int)
    ):
        raise MCPError(INVALID_PARAMS, "Invalid params: _meta.progressToken must be a string or an integer")
    revision = BY_VERSION.get(version)
    if revision is None or not revision.modern:
        raise unsupported_version(version)
    if level is not UNSET and (not isinstance(level, str) or level not in LOG_LEVEL_INDEX):
        raise MCPError(INVALID_PARAMS, f"Invalid params: unknown log level {str(level)[:40]!r}")
    return Caller(
        revision,
        capabilities,
        None if info is UNSET else info,
        None if level is UNSET else level,
    )


def is_modern(message: bytes) -> bool:
    """Whether a message that is JSON, whatever else it is, carries this era's key (section 7)."""
    read = msgspec.json.decode(message)
    params = read.get("params") if isinstance(read, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and messages.META_PREFIX + "protocolVersion" in meta


def _bad_member(name: str, kind: str, value: Any) -> MCPError:
    what = "is missing" if value is UNSET else f"must be {kind}"
    return MCPError(INVALID_PARAMS, f"Invalid params: _meta[{messages.META_PREFIX + name!r}] {what}")


def unsupported_version(requested: str) -> MCPError:
    """-32022 with what is supported: modern revisions only, since the others are reached through `initialize`."""
    return MCPError(
        UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        {"supported": list(MODERN_VERSIONS), "requested": requested},
    )


def missing_capability(*path: str) -> MCPError:
    """-32021: the client must declare this capability on this request, e.g. `missing_capability("elicitation", "url")`."""
    required: dict[str, Any] = {}
    for name in reversed(path):
        required = {name: required}
    return MCPError(
        MISSING_CAPABILITY,
        f"Missing client capability: {'.'.join(path)}",
        {"requiredCapabilities": required},
    )
