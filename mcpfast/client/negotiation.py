"""Which revision to speak with this server (sections 6 and 7).

auto      server/discover in the newest modern revision
            a result that lists a modern revision we know   modern, the newest of both
            -32022 that names one we know                   discover again in that one
            -32022 that names none we know, modern or not   the server is newer than we are: an error
            -32020, -32021                                  modern, but not with us: an error
            HTTP 401, 403, 407, 429, 502 to 504             says nothing about the era: an error
            any other error, or silence                     initialize
          initialize with 2025-11-25
            any legacy revision we know                     legacy, that one
            -32022 that names a modern one we know          the probe came late but did arrive: discover again
legacy    initialize alone
"2025-06-18", "2026-07-28", ...                             that one and no other
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw

from mcpfast.client.session import HttpError, RequestTimeout
from mcpfast.errors import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    ConnectionClosed,
    MCPError,
)
from mcpfast.protocol import messages, types
from mcpfast.protocol.messages import META_PREFIX
from mcpfast.protocol.revisions import BY_VERSION, LATEST_LEGACY, MODERN_VERSIONS, Revision

R = TypeVar("R")

# Who is asking, or whether anybody is there at all: a proxy may say so of a server of any era.
ERALESS_STATUS = frozenset({401, 403, 407, 429, 502, 503, 504})


class Agreement(NamedTuple):
    """What client and server settled on."""

    revision: Revision
    server_info: types.Implementation | None
    capabilities: types.ServerCapabilities
    instructions: str | None


class Speaker(Protocol):
    """Who says it, without any envelope: a `Session`."""

    def request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        timeout_s: float | None = None,
        cancellable: bool = True,
    ) -> Awaitable[Raw]: ...

    def notify(self, method: str, params: dict[str, Any] | None) -> None: ...

    def agree(self, revision: Revision) -> None: ...


class Offer(NamedTuple):
    """What this client says of itself."""

    client_info: dict[str, Any]
    capabilities: Callable[[Revision], dict[str, Any]]


class ProbeEndedConnection(ConnectionClosed):
    """The server went away when it was asked `server/discover`: some old ones do.

    Worth another try with `initialize` alone.
    """


def envelope(revision: Revision, offer: Offer, log_level: str | None) -> dict[str, Any]:
    """`params._meta` of every modern request (section 6, M1)."""
    meta: dict[str, Any] = {
        META_PREFIX + "protocolVersion": revision.version,
        META_PREFIX + "clientInfo": offer.client_info,
        META_PREFIX + "clientCapabilities": offer.capabilities(revision),
    }
    if log_level is not None:
        meta[META_PREFIX + "logLevel"] = log_level
    return meta


def check_mode(mode: str) -> None:
    """Raises ValueError for a `mode` that is none."""
    if mode not in ("auto", "legacy") and mode not in BY_VERSION:
        raise ValueError(f"mode {mode!r} is unknown; use 'auto', 'legacy' or one of {', '.join(BY_VERSION)}")


async def negotiate(speaker: Speaker, mode: str, offer: Offer, probe_timeout_s: float) -> Agreement:
    """Settles on a revision and, in the legacy era, opens the session.

    Raises MCPError when there is no common ground.
    """
    if mode == "legacy":
        return await initialize(speaker, LATEST_LEGACY, offer, pinned=False)
    if mode != "auto":
        revision = BY_VERSION[mode]
        if not revision.modern:
            return await initialize(speaker, revision, offer, pinned=True)
        found = await _discover(speaker, revision, offer, None)
        if revision.version not in found.supported_versions:
            raise _no_common_revision(found.supported_versions, revision.version)
        return _modern(speaker, found, revision)
    return await _auto(speaker, offer, probe_timeout_s)


async def _auto(speaker: Speaker, offer: Offer, probe_timeout_s: float) -> Agreement:
    version = MODERN_VERSIONS[0]
    for first in (True, False):
        try:
            found = await _discover(speaker, BY_VERSION[version], offer, probe_timeout_s)
            if mutual := _mutual(found.supported_versions):
                return _modern(speaker, found, BY_VERSION[mutual])
        except ConnectionClosed as error:
            raise ProbeEndedConnection(error.message) from None
        except RequestTimeout:
            pass
        except MCPError as error:
            if error.code in (HEADER_MISMATCH, MISSING_CAPABILITY) or error.code > 0:
                raise  # above 0: of the server's own, which was reached and understood, and refuses (tenants, quotas)
            if isinstance(error, HttpError) and error.status in ERALESS_STATUS:
                raise
            supported = _supported(error)
            if first and (mutual := _mutual(supported)):
                version = mutual
                continue
            if supported and not any(known in BY_VERSION for known in supported):
                raise _no_common_revision(supported, version) from None
        try:
            return await initialize(speaker, LATEST_LEGACY, offer, pinned=False)
        except MCPError as error:
            mutual = _mutual(_supported(error))
            if not first or mutual is None:
                raise
            version = mutual
    raise AssertionError("both rounds return or raise")


async def _discover(
    speaker: Speaker, revision: Revision, offer: Offer, timeout_s: float | None
) -> types.DiscoverResult:
    # Not cancelled when it times out: a server that waits for `initialize` need not understand any
    # notification.
    params = {"_meta": envelope(revision, offer, None)}
    raw = await speaker.request("server/discover", params, timeout_s=timeout_s, cancellable=False)
    return read_result("server/discover", raw, types.DiscoverResult)


def _modern(speaker: Speaker, found: types.DiscoverResult, revision: Revision) -> Agreement:
    speaker.agree(revision)
    try:
        info = found.server_info
    except msgspec.ValidationError:  # for display only, and so no reason to fail (section 6, M5)
        info = None
    return Agreement(revision, info, found.capabilities, found.instructions)


async def initialize(speaker: Speaker, revision: Revision, offer: Offer, *, pinned: bool) -> Agreement:
    """Opens a session of the legacy era (section 5), in `revision` and no other if it is `pinned`."""
    params = {
        "protocolVersion": revision.version,
        "capabilities": offer.capabilities(revision),
        "clientInfo": offer.client_info,
    }
    raw = await speaker.request("initialize", params, cancellable=False)
    result = read_result("initialize", raw, types.InitializeResult)
    agreed = BY_VERSION.get(result.protocol_version)
    if agreed is None or agreed.modern or (pinned and agreed is not revision):
        raise _no_common_revision([result.protocol_version], revision.version)
    speaker.agree(agreed)
    speaker.notify("notifications/initialized", None)
    return Agreement(agreed, result.server_info, result.capabilities, result.instructions)


def read_result(method: str, raw: Raw, kind: type[R]) -> R:
    """A result decoded as what it must be. Raises MCPError that says what is wrong with the answer."""
    try:
        read: R = messages.decoder(kind).decode(raw)
        return read
    except (msgspec.DecodeError, RecursionError) as error:
        raise MCPError(INTERNAL_ERROR, f"The server's answer to {method} cannot be read: {error}") from None


def _supported(error: MCPError) -> list[str]:
    """The versions that a -32022 names."""
    data = error.data
    named = data.get("supported") if error.code == UNSUPPORTED_VERSION and isinstance(data, dict) else None
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _mutual(versions: list[str]) -> str | None:
    """The newest modern version that both know."""
    return next((version for version in MODERN_VERSIONS if version in versions), None)


def _no_common_revision(theirs: list[str], ours: str) -> MCPError:
    return MCPError(
        UNSUPPORTED_VERSION,
        f"No common protocol revision: the server speaks {', '.join(theirs)}, this client asked for {ours}",
        {"supported": theirs, "requested": ours},
    )
