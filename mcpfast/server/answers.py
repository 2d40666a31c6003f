"""Results as bytes: the prepared front and back of each revision around what a handler gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mcpfast._spine import Wire
from mcpfast.protocol import messages, modern, projection
from mcpfast.protocol.revisions import REVISIONS


class CacheHint(NamedTuple):
    """How long and for whom a client may keep a result (2026-07-28, caching). `scope` is "private" or "public".

    Public results may be given to *any* caller by a shared gateway, whatever token fetched them: opt in only for what
    everybody may see.
    """

    ttl_ms: int = 0
    scope: str = "private"


CACHEABLE = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)


class Answers:
    """Makes the results of one server. `server_info` is its Implementation object, newest revision."""

    def __init__(self, server_info: dict[str, Any], cache_hints: Mapping[str, CacheHint]) -> None:
        self.server_info = server_info
        self._meta = {modern.SERVER_INFO: server_info}
        self._back = b',"_meta":%b}' % messages.encode(self._meta)
        self._cache = {method: _cache_members(cache_hints.get(method, CacheHint())) for method in CACHEABLE}
        self._private = {
            method: _cache_members(cache_hints.get(method, CacheHint())._replace(scope="private"))
            for method in CACHEABLE
        }
        self.wires: tuple[Wire, ...] = tuple(self._make_wire(revision.number) for revision in REVISIONS)

    def _make_wire(self, index: int) -> Wire:
        """What stands around a str result: `front text" back` and, structured, `front text" middle text" back`."""
        revision = REVISIONS[index]
        kind = b'"resultType":"complete",' if revision.modern else b""
        back = self._back if revision.modern else b"}"
        return Wire(
            revision.version,
            index,
            revision.modern,
            revision.structured,
            b',"result":{' + kind + b'"content":[{"type":"text","text":"',
            b'"}]' + back + b"}\n",
            b'"}],"structuredContent":{"result":"',
            b'"}' + back + b"}\n",
        )

    def complete(
        self, members: bytes, wire: Wire, method: str | None = None, *, private: bool = False
    ) -> bytes:
        """A result of prepared members (JSON without the braces, at least one), for the revision of `wire`. `private`: whatever
        the hints say, it is nobody else's."""
        if not wire.modern:
            return b"{" + members + b"}"
        hints = self._private if private else self._cache
        cache = hints[method] if method in CACHEABLE else b""
        return b'{"resultType":"complete",' + members + cache + self._back

    def of(
        self, result: dict[str, Any], wire: Wire, method: str | None = None, *, private: bool = False
    ) -> bytes:
        """A result given as a dict; its own `_meta` is kept. `private` as for `complete`."""
        if wire.modern:
            result = {
                "resultType": "complete",
                **result,
                "_meta": {**self._meta, **(result.get("_meta") or {})},
            }
            if method in CACHEABLE:
                for member, value in self._hints(method, private).items():
                    result.setdefault(member, value)
        return messages.encode(result)

    def _hints(self, method: str, private: bool) -> dict[str, Any]:
        hints = self._private if private else self._cache
        hint: dict[str, Any] = messages.decode(dict, b"{" + hints[method][1:] + b"}")
        return hint

    def call(self, result: dict[str, Any], wire: Wire) -> bytes:
        """A CallToolResult given as the newest revision writes it."""
        return self.of(projection.call_result(result, REVISIONS[wire.index]), wire)

    def input_required(self, requests: dict[str, Any], state: str) -> bytes:
        """Section 27, MR2."""
        return messages.encode(
            {
                "resultType": "input_required",
                "inputRequests": requests,
                "requestState": state,
                "_meta": self._meta,
            }
        )


def _cache_members(hint: CacheHint) -> bytes:
    if hint.scope not in ("private", "public") or hint.ttl_ms < 0:
        raise ValueError(f"a CacheHint has ttl_ms >= 0 and scope 'private' or 'public', not {hint!r}")
    return b',"ttlMs":%d,"cacheScope":"%b"' % (hint.ttl_ms, hint.scope.encode())
