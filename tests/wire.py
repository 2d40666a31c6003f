"""A client that knows nothing but lines, and holds every message it sees to the schema of its revision."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs

from mcpfast import MCPServer
from mcpfast.transports import memory

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
REVISIONS = (*LEGACY, MODERN)
META = "io.modelcontextprotocol/"
SPEC = Path(__file__).parent / "spec"

# What the result of each method is called in the schemas.
RESULTS = {
    "initialize": ["InitializeResult"],
    "server/discover": ["DiscoverResult"],
    "tools/list": ["ListToolsResult"],
    "tools/call": ["CallToolResult", "InputRequiredResult"],
    "resources/list": ["ListResourcesResult"],
    "resources/templates/list": ["ListResourceTemplatesResult"],
    "resources/read": ["ReadResourceResult", "InputRequiredResult"],
    "prompts/list": ["ListPromptsResult"],
    "prompts/get": ["GetPromptResult", "InputRequiredResult"],
    "completion/complete": ["CompleteResult"],
    "subscriptions/listen": ["SubscriptionsListenResult"],
}
# Traps of the schemas: what they type too narrowly is not held against us (Q8 of the protocol notes).
ID_NULL = ("2024-11-05", "2025-03-26", "2025-06-18")


@functools.cache
def schema(revision: str) -> dict[str, Any]:
    return json.loads((SPEC / revision / "schema.json").read_text())


@functools.cache
def validator(revision: str, name: str) -> Any:
    """A validator of one definition; None where the revision does not have it."""
    whole = schema(revision)
    where = "$defs" if "$defs" in whole else "definitions"
    if name not in whole[where]:
        return None
    return jsonschema_rs.validator_for({"$schema": whole["$schema"], where: whole[where], "$ref": f"#/{where}/{name}"})


def hold(revision: str, message: Any, method: str | None = None) -> None:
    """Fails where a message of the server is not what the schema of `revision` says; `method` is that of the request it answers."""
    if isinstance(message, list):
        for one in message:
            hold(revision, one)
        return
    assert message["jsonrpc"] == "2.0"
    if "method" in message:
        kind = "ServerRequest" if "id" in message else "ServerNotification"
        check = validator(revision, kind)
        assert check is not None, f"{revision} has no server requests: {message}"
        check.validate({k: v for k, v in message.items()})
    elif "error" in message:
        assert "result" not in message
        assert isinstance(message["error"]["code"], int) and isinstance(message["error"]["message"], str)
        assert "\n" not in message["error"]["message"] or "Traceback" in message["error"]["message"]
        if message.get("id", 0) is None:
            assert revision in ID_NULL
        elif "id" in message or revision not in ID_NULL:
            check = validator(revision, "JSONRPCError") or validator(revision, "JSONRPCErrorResponse")
            check.validate(message)
    else:
        (validator(revision, "JSONRPCResponse") or validator(revision, "JSONRPCResultResponse")).validate(message)
        names = [n for n in RESULTS.get(method or "", ["EmptyResult"]) if validator(revision, n) is not None]
        if message["result"].get("resultType") == "input_required":
            names = ["InputRequiredResult"]
        elif len(names) > 1:
            names = names[:1]
        for name in names:
            validator(revision, name).validate(message["result"])


class Wire:
    """One connection of one revision."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, revision: str) -> None:
        self.reader = reader
        self.writer = writer
        self.revision = revision
        self.capabilities: dict[str, Any] = {}
        self.others: list[dict[str, Any]] = []  # notifications and requests of the server, in order
        self.answers: dict[Any, dict[str, Any]] = {}
        self._methods: dict[Any, str] = {}
        self._last = 0

    def message(self, method: str, params: dict[str, Any] | None = None, *, id: Any = None, **meta: Any) -> dict[str, Any]:
        """A request of this revision, with its envelope where it has one. `meta` goes into `_meta`."""
        self._last += 1
        id = self._last if id is None else id
        self._methods[id] = method
        params = dict(params or {})
        if self.revision == MODERN:
            meta = {
                META + "protocolVersion": MODERN,
                META + "clientCapabilities": self.capabilities,
                **{(META + k if k == "logLevel" else k): v for k, v in meta.items()},
            }
        if meta:
            params["_meta"] = meta
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
        if params:
            message["params"] = params
        return message

    def send(self, *messages: Any) -> None:
        """Messages, as objects or as raw bytes (newline added), in one write."""
        self.writer.write(
            b"".join((m if isinstance(m, bytes) else json.dumps(m).encode()) + b"\n" for m in messages)
        )

    async def receive(self, seconds: float = 5.0) -> Any:
        """The next message of the server, held to the schema."""
        line = await asyncio.wait_for(self.reader.readuntil(b"\n"), seconds)
        message = json.loads(line)
        hold(self.revision, message, self._methods.get(message.get("id")) if isinstance(message, dict) else None)
        return message

    async def answer(self, id: Any, seconds: float = 5.0) -> dict[str, Any]:
        """The answer with this id; what else arrives is kept in `others` and `answers`. An id answered twice fails."""
        while id not in self.answers:
            message = await self.receive(seconds)
            if "method" in message:
                self.others.append(message)
            else:
                assert message.get("id") not in self.answers, f"answered twice: {message}"
                self.answers[message.get("id")] = message
        return self.answers[id]

    async def request(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The result; an error of the server raises AssertionError."""
        message = await self.ask(method, params, **meta)
        assert "result" in message, message
        return message["result"]

    async def ask(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The answer, whether result or error."""
        sent = self.message(method, params, **meta)
        self.send(sent)
        return await self.answer(sent["id"])

    async def error(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        message = await self.ask(method, params, **meta)
        assert "error" in message, message
        return message["error"]

    async def call(self, name: str, arguments: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        return await self.request("tools/call", {"name": name, "arguments": arguments or {}}, **meta)

    async def settle(self) -> None:
        """Everything sent so far has been handled: a ping, or its like, has been answered."""
        await self.ask("ping" if self.revision != MODERN else "server/discover")

    async def initialize(self, capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
        self.capabilities = capabilities or {}
        if self.revision == MODERN:
            return await self.request("server/discover")
        result = await self.request(
            "initialize",
            {
                "protocolVersion": self.revision,
                "capabilities": self.capabilities,
                "clientInfo": {"name": "wire", "version": "1"},
            },
        )
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result


@asynccontextmanager
async def connected(
    server: MCPServer[Any],
    revision: str = "2025-11-25",
    *,
    capabilities: dict[str, Any] | None = None,
    warm: bool = True,
    open_session: bool = True,
) -> AsyncIterator[Wire]:
    """A Wire to a server in memory; leaves with the server still sound: nothing in flight, no answer left over."""
    async with memory.connect(server, warm=warm) as (reader, writer):
        wire = Wire(reader, writer, revision)
        if open_session:
            await wire.initialize(capabilities)
        yield wire


def loops() -> list[str]:
    """The event loops that tests run on."""
    return ["uvloop", "asyncio"]


def run(coroutine: Coroutine[Any, Any, Any], loop: str = "uvloop", seconds: float = 60.0) -> Any:
    """Runs a test's coroutine on a loop of its own, with a deadline, and fails for exceptions that nobody retrieved."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    unheard: list[dict[str, Any]] = []

    async def guarded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        return await asyncio.wait_for(coroutine, seconds)

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(guarded())
    assert not unheard, unheard
    return result
