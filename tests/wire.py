"""A client that knows nothing but lines, and holds every message it sees to the schema of its revision.

More closely than the schemas do: they allow unknown members nearly everywhere, here each object has the members that its
revision knows and no others (section 36 of the protocol notes). And what schemas cannot say is held too: an answer belongs to
one request and comes once, progress grows and ends with its call, nothing of a listen stream comes before its acknowledgement.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
import re
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
SUBSCRIPTION_ID = META + "subscriptionId"
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
CACHEABLE = {
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
}
# Traps of the schemas: what they type too narrowly is not held against us (Q8 of the protocol notes).
ID_NULL = ("2024-11-05", "2025-03-26", "2025-06-18")
# What is open by its nature: metadata, capabilities, and the schemas that users write.
OPEN_DEFINITIONS = {
    "ServerCapabilities",
    "ClientCapabilities",
    "Result",
    "Request",
    "Notification",
    "EmptyResult",
}
OPEN_MEMBERS = {"_meta", "inputSchema", "outputSchema", "structuredContent", "data", "metadata"}


def closed(node: Any) -> Any:
    """A schema in which objects have the members it names and no others, where nothing else is said."""
    if isinstance(node, list):
        return [closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {}
    for name, value in node.items():
        if name == "properties":
            made[name] = {k: v if k in OPEN_MEMBERS else closed(v) for k, v in value.items()}
        else:
            made[name] = closed(value)
    if isinstance(node.get("properties"), dict) and not made.get("additionalProperties"):
        made["additionalProperties"] = False
    return made


@functools.cache
def schema(revision: str) -> dict[str, Any]:
    whole = json.loads((SPEC / revision / "schema.json").read_text())
    where = "$defs" if "$defs" in whole else "definitions"
    whole[where] = {
        name: one if name in OPEN_DEFINITIONS or name.endswith("MetaObject") else closed(one)
        for name, one in whole[where].items()
    }
    return whole


@functools.cache
def validator(revision: str, name: str) -> Any:
    """A validator of one definition; None where the revision does not have it."""
    whole = schema(revision)
    where = "$defs" if "$defs" in whole else "definitions"
    if name not in whole[where]:
        return None
    return jsonschema_rs.validator_for(
        {"$schema": whole["$schema"], where: whole[where], "$ref": f"#/{where}/{name}"}
    )


def hold(revision: str, message: Any, method: str | None = None) -> None:
    """Fails where a message of the server is not what the schema of `revision` says; `method` is that of the request it answers."""
    assert message["jsonrpc"] == "2.0"
    if "method" in message:
        kind = "ServerRequest" if "id" in message else "ServerNotification"
        check = validator(revision, kind)
        assert check is not None, f"{revision} has no server requests: {message}"
        assert message.keys() <= {"jsonrpc", "id", "method", "params"}, message
        check.validate(
            message
            if validator(revision, "Icon")
            else {k: v for k, v in message.items() if k not in ("jsonrpc", "id")}
        )
    elif "error" in message:
        hold_error(revision, message)
    else:
        hold_result(revision, message, method)


def hold_error(revision: str, message: dict[str, Any]) -> None:
    error = message["error"]
    assert "result" not in message
    assert isinstance(error["code"], int) and isinstance(error["message"], str) and error["message"]
    assert "\n" not in error["message"] or "Traceback" in error["message"]
    assert error.keys() <= {"code", "message", "data"}, error
    code = error["code"]
    if revision == MODERN:
        assert code not in (-32002, -32042), f"{code} does not exist any more"
    else:
        assert code not in (-32020, -32021, -32022), f"{code} does not exist yet"
    if message.get("id", 0) is None:
        assert revision in ID_NULL
    elif "id" in message or revision not in ID_NULL:
        check = validator(revision, "JSONRPCError") or validator(revision, "JSONRPCErrorResponse")
        check.validate(message)


def hold_result(revision: str, message: dict[str, Any], method: str | None) -> None:
    result = message["result"]
    assert message.keys() == {"jsonrpc", "id", "result"}, message
    (validator(revision, "JSONRPCResultResponse") or validator(revision, "JSONRPCResponse")).validate(message)
    if method is None:  # whose answer it is nobody knows
        return
    names = [n for n in RESULTS.get(method, ["EmptyResult"]) if validator(revision, n) is not None]
    assert names, f"{revision} has no {method}"
    asks = result.get("resultType") == "input_required"
    if asks:
        assert len(names) == 2, f"{method} may not ask"
        hold_questions(result)
    validator(revision, names[1] if asks else names[0]).validate(result)
    if revision == MODERN:
        assert result["resultType"] in ("complete", "input_required")
        assert result["_meta"][META + "serverInfo"].keys() >= {"name", "version"}
        assert (method in CACHEABLE and not asks) == ("ttlMs" in result) == ("cacheScope" in result)
    else:
        assert not result.keys() & {"resultType", "ttlMs", "cacheScope", "inputRequests", "requestState"}, (
            result
        )


def hold_questions(result: dict[str, Any]) -> None:
    """Section 27, MR2: embedded requests are no messages of their own."""
    assert result.get("inputRequests") or result.get("requestState")
    for question in result.get("inputRequests", {}).values():
        assert question.keys() <= {"method", "params"}, question


class Sent:
    """A request of ours that has not been answered."""

    def __init__(self, message: dict[str, Any], session: str) -> None:
        params = message.get("params")
        meta = (params.get("_meta") if isinstance(params, dict) else None) or {}
        self.method = message["method"]
        self.revision = MODERN if META + "protocolVersion" in meta else session
        self.token = meta.get("progressToken")
        self.log_level = meta.get(META + "logLevel")
        self.progress = float("-inf")
        self.acknowledged = False


def key(id: Any) -> tuple[type, Any]:
    "1, '1', 1.0 and True are four ids."
    return type(id), id


class Wire:
    """One connection of one revision. `session` is that of its legacy session, `revision` the one that messages are written in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, revision: str) -> None:
        self.reader = reader
        self._writer = writer
        self.revision = revision
        self.session = revision
        self.capabilities: dict[str, Any] = {}
        self.others: list[dict[str, Any]] = []  # notifications and requests of the server, in order
        self.answers: dict[Any, dict[str, Any]] = {}
        self.lines: list[bytes] = []  # everything received, as it came
        self.sent: dict[tuple[type, Any], collections.deque[Sent]] = {}  # requests that are not answered yet
        self._raw: bytes | None = (
            None  # a line was sent that nobody here read: its answers are taken as they come
        )
        self._last = 0

    @property
    def writer(self) -> asyncio.StreamWriter:
        """For bytes that are no whole lines: what is answered to them is taken as it comes."""
        self._raw = self._raw or b""
        return self._writer

    def message(
        self, method: str, params: dict[str, Any] | None = None, *, id: Any = None, **meta: Any
    ) -> dict[str, Any]:
        """A request of this revision, with its envelope where it has one. `meta` goes into `_meta`."""
        self._last += 1
        id = self._last if id is None else id
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
        for message in messages:
            self.remember(message)
        self._writer.write(
            b"".join((m if isinstance(m, bytes) else json.dumps(m).encode()) + b"\n" for m in messages)
        )

    def remember(self, message: Any) -> None:
        """Done by `send`; for messages that are written in pieces, too."""
        for one in message if isinstance(message, list) else [message]:
            if isinstance(one, bytes):
                self._raw = one
            elif (
                isinstance(one, dict)
                and isinstance(one.get("method"), str)
                and isinstance(one.get("id"), int | str)
            ):
                self.sent.setdefault(key(one["id"]), collections.deque()).append(Sent(one, self.session))

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Sends a notification."""
        self.send({"jsonrpc": "2.0", "method": method} | ({"params": params} if params is not None else {}))

    def cancel(self, id: Any) -> None:
        """Cancels a request of ours."""
        self.notify("notifications/cancelled", {"requestId": id})

    async def receive(self, seconds: float = 5.0) -> Any:
        """The next message of the server, held to the schema."""
        line = await asyncio.wait_for(self.reader.readuntil(b"\n"), seconds)
        self.lines.append(line)
        message = json.loads(line)
        if isinstance(message, list):
            assert self.session == "2025-03-26" and message, message
            for one in message:
                assert "method" not in one or "id" not in one, "a batch of the server holds answers"
        for one in message if isinstance(message, list) else [message]:
            self._hold(one)
        return message

    def _hold(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self._hold_other(message)
            return
        waiting = self.sent.get(key(message.get("id")))
        if not waiting:
            assert self._raw is not None or "id" not in message or message["id"] is None, (
                f"nobody asked: {message}"
            )
            named = re.findall(
                r'"m(?:e|\\u0065)thod"\s*:\s*"([^"]*)"', (self._raw or b"").decode(errors="replace")
            )
            hold(
                self.revision if self._raw is not None else self.session,
                message,
                named[-1] if named else None,
            )
            return
        sent = waiting.popleft()
        if not waiting:
            del self.sent[key(message["id"])]
        hold(sent.revision, message, sent.method)
        if sent.method == "subscriptions/listen" and "result" in message:
            assert sent.acknowledged
            assert message["result"]["_meta"][SUBSCRIPTION_ID] == message["id"]

    def _hold_other(self, message: dict[str, Any]) -> None:
        """A notification or a request of the server."""
        method, params = message["method"], message.get("params", {})
        in_flight = [sent for waiting in self.sent.values() for sent in waiting]
        if method == "notifications/progress":
            owners = [sent for sent in in_flight if key(sent.token) == key(params["progressToken"])]
            assert owners, f"progress of no call in flight: {message}"
            assert params["progress"] > owners[0].progress, "progress must grow"
            owners[0].progress = params["progress"]
            hold(owners[0].revision, message)
        elif method == "notifications/message" and self.session == MODERN:
            assert any(sent.log_level for sent in in_flight), f"nobody asked for logs: {message}"
            hold(MODERN, message)
        elif SUBSCRIPTION_ID in (params.get("_meta") or {}):
            hold(MODERN, message)
            id = params["_meta"][SUBSCRIPTION_ID]
            (sent,) = self.sent[key(id)]
            assert sent.method == "subscriptions/listen"
            assert sent.acknowledged is (method != "notifications/subscriptions/acknowledged"), message
            sent.acknowledged = True
        else:
            assert self.session != MODERN, f"belongs to no request: {message}"
            hold(self.session, message)

    async def answer(self, id: Any, seconds: float = 5.0) -> dict[str, Any]:
        """The answer with this id; what else arrives is kept in `others` and `answers`. An id answered twice fails."""
        while id not in self.answers:
            await self.take(seconds)
        return self.answers[id]

    async def take(self, seconds: float = 5.0) -> Any:
        """The next message, put where it belongs."""
        message = await self.receive(seconds)
        for one in message if isinstance(message, list) else [message]:
            if "method" in one:
                self.others.append(one)
            else:
                assert one.get("id") not in self.answers, f"answered twice: {one}"
                self.answers[one.get("id")] = one
        return message

    async def other(self, method: str, seconds: float = 5.0) -> dict[str, Any]:
        """The next notification or request of the server with this method; taken out of `others`."""
        while True:
            for at, message in enumerate(self.others):
                if message["method"] == method:
                    return self.others.pop(at)
            await self.take(seconds)

    def reply(self, question: dict[str, Any], result: Any = None, *, error: Any = None) -> None:
        """Answers a request of the server."""
        said = {"result": result} if error is None else {"error": error}
        self.send({"jsonrpc": "2.0", "id": question["id"], **said})

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
        """Everything sent so far has been handled, and so has what the server told its loop to do soon: two pings were answered."""
        for _ in range(2):
            await self.ask("ping" if self.revision != MODERN else "server/discover")

    async def initialize(self, capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
        self.capabilities = capabilities or {}
        self.session = self.revision
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
        self.notify("notifications/initialized")
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
    """A Wire to a server in memory; left with the server still sound: it answers, and what is in flight was left on purpose."""
    async with memory.connect(server, warm=warm) as (reader, writer):
        (session,) = server._serving[-1].sessions
        wire = Wire(reader, writer, revision)
        if open_session:
            await wire.initialize(capabilities)
        yield wire
        if open_session:
            await wire.settle()
            unanswered = sum(len(waiting) for waiting in wire.sent.values())
            assert session.channel.calls <= unanswered, "something that nobody asked for is in flight"


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
