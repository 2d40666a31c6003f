"""Requests as bytes, framed for one server: by its era, and by what carries them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from mcpfast.bench.plan import ID_HOLE, Expectation, Step, Wire
from mcpfast.protocol.headers import NAME_MEMBERS, encode_value
from mcpfast.protocol.messages import META_PREFIX
from mcpfast.protocol.revisions import Revision

CLIENT_INFO = {"name": "mcpfast-bench", "version": "1"}
MASK = b"\x37\xfa\x21\x3d"  # WebSocket: any will do, and none may be left out (RFC 6455, 5.3)
LISTS = {
    "tools": "tools/list",
    "resources": "resources/list",
    "templates": "resources/templates/list",
    "prompts": "prompts/list",
}


@dataclass(frozen=True, slots=True)
class Speech:
    """How one server is spoken to."""

    wire: Wire
    revision: Revision
    authority: str = ""  # HTTP and WebSocket: HOST:PORT
    path: str = "/mcp"
    headers: dict[str, str] = field(default_factory=dict)  # sent with each request: credentials, say

    def request(
        self,
        name: str,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        expect: Expectation | None = None,
        counted: bool = True,
        opens_session: bool = False,
        wait_s: float = 0.0,
        cancel_step: int = -1,
    ) -> Step:
        params = dict(params or {})
        mirrored = NAME_MEMBERS.get(method)
        headers = {"Mcp-Method": method}
        if mirrored is not None:
            headers["Mcp-Name"] = encode_value(params[mirrored])
        if self.revision.modern:
            params["_meta"] = {**self.envelope(), **params.get("_meta", {})}
        message = {"jsonrpc": "2.0", "id": 0, "method": method, "params": params}
        data, session_at, masked_from = self._framed(encoded(message), headers, opens_session)
        return Step(
            name,
            "request",
            data,
            counted=counted,
            opens_session=opens_session,
            session_at=-1 if opens_session else session_at,
            masked_from=masked_from,
            mask=MASK,
            wait_s=wait_s,
            cancel_step=cancel_step,
            expect=expect or Expectation(complete=self.revision.modern),
        )

    def notice(self, name: str, method: str, params: dict[str, Any] | None = None) -> Step:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        data, session_at, masked_from = self._framed(encoded(message), {"Mcp-Method": method}, False)
        return Step(
            name, "notice", data, counted=False, session_at=session_at, masked_from=masked_from, mask=MASK
        )

    # ---- what a connection begins and ends with ------------------------------------------------------------

    def discover(self) -> Step:
        return self.request("discover", "server/discover", counted=False, expect=Expectation(refusal=True))

    def initialize(self) -> Step:
        params = {
            "protocolVersion": self.revision.version,
            "capabilities": {},
            "clientInfo": CLIENT_INFO,
        }
        return self.request(
            "initialize", "initialize", params, counted=False, opens_session=True, expect=Expectation()
        )

    def initialized(self) -> Step:
        return self.notice("initialized", "notifications/initialized")

    def cancelled(self) -> Step:
        """The notice that cancels the call whose id is put in."""
        return self.notice("cancelled", "notifications/cancelled", {"requestId": 0})

    def delete_session(self) -> Step:
        head = self._head("DELETE", {}, None)
        return Step("delete", "notice", head[0], counted=False, ends_session=True, session_at=head[1])

    def upgrade(self) -> Step:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": "mcp",
        }
        return Step("upgrade", "upgrade", self._head("GET", headers, None)[0], counted=False)

    def envelope(self) -> dict[str, Any]:
        return {
            f"{META_PREFIX}protocolVersion": self.revision.version,
            f"{META_PREFIX}clientInfo": CLIENT_INFO,
            f"{META_PREFIX}clientCapabilities": {},
        }

    # ---- framing -------------------------------------------------------------------------------------------

    def _framed(self, body: bytes, headers: dict[str, str], first: bool) -> tuple[bytes, int, int]:
        """The bytes, and where in them the session's header belongs and the mask begins."""
        if self.wire == "lines":
            return body + b"\n", -1, 0
        if self.wire == "websocket":
            head = frame_head(len(body))
            return head + masked(body), -1, len(head)
        sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.revision.modern:
            sent |= headers
        head, session_at = self._head("POST", sent, len(body), versioned=not first)
        return head + body, session_at, 0

    def _head(
        self, method: str, headers: dict[str, str], length: int | None, *, versioned: bool = True
    ) -> tuple[bytes, int]:
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {self.authority}"]
        if versioned and self.wire == "http":
            headers = {"MCP-Protocol-Version": self.revision.version, **headers}
        if length is not None:
            headers = {**headers, "Content-Length": str(length)}
        lines += [f"{name}: {value}" for name, value in {**headers, **self.headers}.items()]
        head = "".join(f"{line}\r\n" for line in lines).encode()
        return head + b"\r\n", len(head)


def encoded(message: dict[str, Any]) -> bytes:
    """The message as JSON; its id (and the id of a call that it cancels) as the hole that the engine fills."""
    data = msgspec.json.encode(message)
    if "id" in message:
        data = data.replace(b'"id":0,', b'"id":' + ID_HOLE + b",", 1)
    if message["method"] == "notifications/cancelled":
        data = data.replace(b'"requestId":0', b'"requestId":' + ID_HOLE, 1)
    return data


def masked(payload: bytes) -> bytes:
    keys = MASK * (len(payload) // 4 + 1)
    return (int.from_bytes(payload) ^ int.from_bytes(keys[: len(payload)])).to_bytes(len(payload))


def frame_head(size: int) -> bytes:
    """Of one whole text frame as a client sends it (RFC 6455, 5.2)."""
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8)
    return b"\x81" + length + MASK
