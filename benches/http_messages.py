"""HTTP requests as bytes, and their answers: what the figures send, and what they look at before they measure."""

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benches.load import HTTP_LEGACY, MODERN, RunFailed

FIRST_ID = 1_000_000_000  # ids have ten digits, as those of the load engine
CLIENT_INFO = {"name": "mcpfast-bench", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT_INFO,
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}
LEGACY_SESSION = re.compile(rb"(?i)\r\nmcp-session-id: *([^\r\n]+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: its status, its head as it came, its body."""

    status: int
    head: bytes
    body: bytes

    @property
    def bytes_in_all(self) -> int:
        return len(self.head) + len(self.body)


def place(address: str) -> tuple[str, str]:
    """Authority and path of `http://HOST:PORT/PATH`."""
    authority, _, path = address.partition("://")[2].partition("/")
    return authority, f"/{path}"


def message(method: str, params: Mapping[str, Any] | None = None, number: int | None = FIRST_ID) -> str:
    """A JSON-RPC request; a notification where `number` is None."""
    members: dict[str, Any] = {"jsonrpc": "2.0"}
    members |= {"method": method} if number is None else {"id": number, "method": method}
    return json.dumps(members if params is None else {**members, "params": params}, separators=(",", ":"))


def post(address: str, body: str, headers: Mapping[str, str]) -> bytes:
    """A POST as clients of MCP write it: JSON, and either kind of answer is taken."""
    authority, path = place(address)
    lines = {
        "Host": authority,
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **headers,
        "Content-Length": str(len(body.encode())),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n{body}".encode()


# ---- 2026-07-28 ------------------------------------------------------------------------------------------


def modern(
    address: str,
    method: str,
    params: Mapping[str, Any],
    *,
    name: str = "",
    meta: Mapping[str, Any] | None = None,
    authorization: str = "",
) -> bytes:
    """A request with its envelope, and the headers that repeat it."""
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method} | ({"Mcp-Name": name} if name else {})
    headers |= {"Authorization": authorization} if authorization else {}
    return post(address, message(method, {**params, "_meta": {**ENVELOPE, **(meta or {})}}), headers)


def modern_call(address: str, named: str = "echo") -> bytes:
    """The call of the figures; with another name in its header than in its body it has to be refused."""
    return modern(address, "tools/call", {"name": "echo", "arguments": {"text": "hello"}}, name=named)


def progress_call(address: str, steps: int) -> bytes:
    params = {"name": "progress", "arguments": {"steps": steps}}
    return modern(address, "tools/call", params, name="progress", meta={"progressToken": "p"})


def listen(address: str) -> bytes:
    return modern(address, "subscriptions/listen", {"notifications": {"toolsListChanged": True}})


# ---- 2025-11-25 ------------------------------------------------------------------------------------------


def legacy_session(connection: socket.socket, address: str) -> str:
    """Shakes hands; the id of the session."""
    params = {"protocolVersion": HTTP_LEGACY, "capabilities": {}, "clientInfo": CLIENT_INFO}
    answer = ask(connection, post(address, message("initialize", params, 0), {}))
    found = LEGACY_SESSION.search(answer.head)
    if answer.status != 200 or found is None:
        raise RunFailed(f"{address} opened no session: {answer.head!r}{answer.body!r}")
    session = found[1].decode().strip()
    headers = {"MCP-Protocol-Version": HTTP_LEGACY, "Mcp-Session-Id": session}
    taken = ask(connection, post(address, message("notifications/initialized", number=None), headers))
    if taken.status != 202:
        raise RunFailed(f"{address} did not take notifications/initialized: {taken.head!r}{taken.body!r}")
    return session


# ---- WebSocket -------------------------------------------------------------------------------------------


def upgrade(address: str) -> bytes:
    authority, path = place(address)
    return (
        f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
    ).encode()


# ---- asking once -----------------------------------------------------------------------------------------


def ask(connection: socket.socket, request: bytes) -> Answer:
    """Sends `request` and reads its answer, which tells its length."""
    connection.sendall(request)
    got = b""
    while True:
        head, blank, body = got.partition(b"\r\n\r\n")
        if blank:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            whole = int(length[1]) if length else 0
            if len(body) >= whole:
                return Answer(int(head.split(b" ", 2)[1]), head + blank, body)
        piece = connection.recv(65_536)
        if not piece:
            raise RunFailed(
                f"the server closed the connection instead of answering; it had sent {got[:300]!r}"
            )
        got += piece


def read_until(connection: socket.socket, ending: bytes) -> bytes:
    """All that comes, up to and with `ending`."""
    pieces, last = [], b""
    while ending not in last:
        piece = connection.recv(1 << 20)
        if not piece:
            raise RunFailed(f"the server ended a stream early; its last bytes were {last[-300:]!r}")
        pieces.append(piece)
        last = last[-len(ending) :] + piece
    return b"".join(pieces)
