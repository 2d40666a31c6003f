"""The way of one message, where it is not hot: the spine in Python, read top to bottom.

    route        which era, who, which method -> a handler below
    <handlers>   one for each method, the same for both eras; bytes are a result, a coroutine becomes a call
    failed       what a raised error becomes; refused, malformed: what bad input is told

The compiled `_spine` calls these methods; what they return it puts behind the request's id. One Dispatcher serves one loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RESOURCE_NOT_FOUND,
    TOO_MANY_CALLS,
    MCPError,
    ResourceNotFound,
    ToolError,
)
from mcpfast.protocol import legacy, messages, modern, projection
from mcpfast.protocol.revisions import LOG_LEVEL_INDEX, MODERN_VERSIONS, REVISIONS
from mcpfast.server.asking import (
    PURPOSE,
    Asker,
    BadAnswer,
    InputRequired,
    ReplayMismatch,
    State,
    joined,
    refuse_state,
)
from mcpfast.server.context import Context
from mcpfast.server.registered import ArgumentsRefused, Tool
from mcpfast.server.session import Listen, Session

if TYPE_CHECKING:
    from mcpfast._entry import Entry
    from mcpfast._quota import Verdict
    from mcpfast._spine import Channel, Request, Wire
    from mcpfast.server.app import MCPServer
    from mcpfast.server.tenants import Tenants

Outcome = bytes | Coroutine[Any, Any, Any]
logger = logging.getLogger("mcpfast")


class Dispatcher:
    """`upper` of the compiled Engine: decides every message that is not a plain tools/call."""

    def __init__(
        self, server: MCPServer[Any], loop: asyncio.AbstractEventLoop, *, debug: bool = False
    ) -> None:
        self.server = server
        self.loop = loop
        self.debug = debug
        self.limits = server.limits
        self.catalog = server.catalog
        self.answers = server.answers
        self.lifespan_context: Any = None
        self.tenants: Tenants | None = None  # set by the host of a server that has tenants
        self.random: Callable[[int], bytes] = os.urandom
        self._log_again_at = 0.0
        methods: dict[str, Callable[[Request, Any], Outcome]] = {
            "tools/list": self.list_tools,
            "tools/call": self.call_tool,
            "resources/list": self.list_resources,
            "resources/templates/list": self.list_templates,
            "resources/read": self.read_resource,
            "prompts/list": self.list_prompts,
            "prompts/get": self.get_prompt,
            "completion/complete": self.complete,
            "server/discover": self.discover,
            "subscriptions/listen": self.listen,
            "initialize": self.initialize,
            "ping": self.ping,
            "logging/setLevel": self.set_level,
            "resources/subscribe": self.subscribe,
            "resources/unsubscribe": self.unsubscribe,
        }
        self._legacy = {name: methods[name] for name in legacy.METHODS}
        self._modern = {name: methods[name] for name in modern.METHODS}

    # ---------------------------------------------------------------- requests

    def route(self, request: Request) -> Outcome:
        """A request: its era by its own reserved key, then its method. Raises MCPError for what is refused."""
        if request.version is not None:
            caller: Any = modern.read_envelope(request.params)
            request.wire = self.answers.wires[caller.revision.number]
            handlers, opened_by = self._modern, modern.METHODS
        else:
            caller = request.channel.session
            if caller.state is legacy.NEW and request.method in modern.ONLY_HERE:
                modern.read_envelope(request.params)  # says which member of the envelope is missing
            legacy.check(caller.state, request.method)
            legacy.check_progress_token(request.progress_token)
            handlers, opened_by = self._legacy, legacy.METHODS
        handler = handlers.get(request.method)
        if handler is None or not self.server.offers(opened_by[request.method]):
            raise MCPError(METHOD_NOT_FOUND, messages.sentence(f"Method not found: {request.method}"))
        request.state = caller
        self.admit(request)

        def handle() -> Outcome:
            if self.server.middleware and request.method not in legacy.BEFORE_INITIALIZE:
                return self._through_middleware(request, lambda: handler(request, caller))
            return handler(request, caller)

        if self.tenants is not None and request.method != "ping":
            return self.tenants.begin(request, handle)
        return handle()

    def admit(self, request: Request) -> None:
        """Whether this connection may have one more call. Raises MCPError. Its tenant is asked next (`tenants`)."""
        channel = request.channel
        if channel.find(request.id) is not None:
            raise MCPError(INVALID_REQUEST, "This request id is in flight already")
        if channel.calls >= self.limits.connection_calls_max:
            raise MCPError(
                TOO_MANY_CALLS,
                f"Too many calls in flight on this connection ({self.limits.connection_calls_max})",
            )

    async def _through_middleware(self, request: Request, handle: Callable[[], Outcome]) -> bytes:
        """The result as middleware sees it is a dict; what comes out of the last one is answered."""
        own_entry = request.entry

        async def call_handler(_: Any) -> dict[str, Any]:
            outcome = await value_of(request, handle())
            entry, request.entry = request.entry, own_entry
            if entry is not own_entry:
                outcome = self.entry_result(entry, outcome, request.wire)
            result: dict[str, Any] = msgspec.json.decode(outcome)
            return result

        call_next: Callable[[Any], Any] = call_handler
        for layer in reversed(self.server.middleware):
            call_next = _layer(layer, call_next)
        return messages.encode(_result(await call_next(self.make_context(request).request), request.method))

    def entry_result(self, entry: Entry, value: Any, wire: Wire) -> bytes:
        """A tool's value as its result's JSON."""
        tool: Tool = entry.owner
        return tool.encode(value, wire)

    def ping(self, request: Request, session: Session) -> bytes:
        return b"{}"

    # ---------------------------------------------------------------- opening (sections 5 and 6)

    def initialize(self, request: Request, session: Session) -> bytes:
        asked: messages.InitializeParams = messages.decode(messages.InitializeParams, request.params)
        revision = legacy.negotiate(asked.protocol_version)
        session.state, session.revision = legacy.OPEN, revision
        session.capabilities, session.client_info = asked.capabilities, asked.client_info
        request.channel.wire = request.wire = self.answers.wires[revision.number]
        result: dict[str, Any] = {
            "protocolVersion": revision.version,
            "capabilities": self.server.capabilities(revision),
            "serverInfo": projection.describe(self.answers.server_info, revision),
        }
        if self.server.instructions:
            result["instructions"] = self.server.instructions
        return messages.encode(result)

    def discover(self, request: Request, caller: modern.Caller) -> bytes:
        result: dict[str, Any] = {
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": self.server.capabilities(caller.revision),
        }
        if self.server.instructions:
            result["instructions"] = self.server.instructions
        return self.answers.of(result, request.wire, request.method)

    # ---------------------------------------------------------------- tools (section 12)

    def list_tools(self, request: Request, caller: Any) -> bytes:
        return self._list(request, self.catalog.tools)

    def _list(self, request: Request, shelf: Any) -> bytes:
        asked: messages.ListParams = messages.decode(messages.ListParams, request.params)
        cursor = None if asked.cursor is msgspec.UNSET else asked.cursor
        view = None if self.tenants is None else self.tenants.view_of(request)
        page = shelf.page(REVISIONS[request.wire.index], cursor, self.limits.page_items, view)
        return self.answers.complete(page, request.wire, request.method, private=view is not None)

    def call_tool(self, request: Request, caller: Any) -> Outcome:
        asked: messages.CallParams = messages.decode(messages.CallParams, request.params)
        tool: Tool | None = self.catalog.tools.get(asked.name)
        if tool is None:
            raise unknown_tool(asked.name)
        arguments = self._object(asked.arguments, "arguments")
        self._open_retry(request, caller, asked)
        request.entry = tool.entry
        return tool.invoke(self, request, arguments)

    @staticmethod
    def _object(raw: Any, name: str) -> bytes:
        """An optional object among the params; null counts as absent, as clients have it."""
        written = b"null" if raw is msgspec.UNSET else bytes(raw)
        if written == b"null":
            return messages.EMPTY_OBJECT
        if written[:1] != b"{":
            raise MCPError(INVALID_PARAMS, f"Invalid params: {name} must be an object")
        return written

    def _open_retry(self, request: Request, caller: Any, asked: messages.Retry) -> None:
        """Takes up an answered `input_required`. Legacy clients never send one: whatever they send under these names is ignored."""
        retried = asked.input_responses is not msgspec.UNSET or asked.request_state is not msgspec.UNSET
        if retried and caller.revision.modern:
            asker = Asker(self, request, caller)
            asker.open(asked, *self.target_of(request))
            request.state = (caller, asker)

    def target_of(self, request: Request) -> tuple[str, bytes]:
        """What a sealed state is bound to beside the method: the name (or URI) and the arguments, raw JSON."""
        target: messages.Target = messages.decode(messages.Target, request.params)
        return target.name or target.uri or "", self._object(target.arguments, "arguments")

    # ---------------------------------------------------------------- resources (section 14)

    def list_resources(self, request: Request, caller: Any) -> bytes:
        return self._list(request, self.catalog.resources)

    def list_templates(self, request: Request, caller: Any) -> bytes:
        return self._list(request, self.catalog.templates)

    def read_resource(self, request: Request, caller: Any) -> Outcome:
        asked: messages.ReadParams = messages.decode(messages.ReadParams, request.params)
        self._open_retry(request, caller, asked)
        return self._read(request, asked.uri)

    async def _read(self, request: Request, uri: str) -> bytes:
        contents = await self.read_own(request, uri)
        result = projection.read_result({"contents": contents}, REVISIONS[request.wire.index])
        return self.answers.of(result, request.wire, request.method, private=self.tenants is not None)

    async def read_own(self, request: Request, uri: str) -> list[dict[str, Any]]:
        """The contents behind a URI: a fixed resource first, then the most specific template. Raises ResourceNotFound."""
        resource, variables = self.server.find_resource(uri)
        if resource is None:
            raise unknown_resource(uri)
        return await resource.read(variables, self.make_context(request), uri)

    async def read_for(self, request: Request, uri: str) -> list[dict[str, Any]]:
        """The same for a handler of ours that reads on behalf of its caller, who may not have asked for this one."""
        if self.tenants is not None and not self.tenants.may_read(request, uri):
            raise unknown_resource(uri)
        return await self.read_own(request, uri)

    def subscribe(self, request: Request, session: Session) -> bytes:
        asked: messages.SubscribeParams = messages.decode(messages.SubscribeParams, request.params)
        if self.server.find_resource(asked.uri)[0] is None:
            raise unknown_resource(asked.uri)
        subscribed = session.subscriptions = session.subscriptions or set()
        if len(subscribed) >= self.limits.subscriptions_max and asked.uri not in subscribed:
            raise MCPError(TOO_MANY_CALLS, f"Too many subscriptions on this connection ({len(subscribed)})")
        subscribed.add(asked.uri)
        return b"{}"

    def unsubscribe(self, request: Request, session: Session) -> bytes:
        asked: messages.SubscribeParams = messages.decode(messages.SubscribeParams, request.params)
        if session.subscriptions:
            session.subscriptions.discard(asked.uri)
        return b"{}"

    def listen(self, request: Request, caller: modern.Caller) -> Outcome:
        """Section 15: acknowledged first, then what was asked for, until the client cancels or the server ends."""
        asked: messages.ListenParams = messages.decode(messages.ListenParams, request.params)
        session: Session = request.channel.session
        listens = session.listens = session.listens if session.listens is not None else {}
        if len(listens) >= self.limits.subscriptions_max or (
            len(asked.notifications.resource_subscriptions) > self.limits.subscriptions_max
        ):
            raise MCPError(TOO_MANY_CALLS, "Too many subscriptions on this connection")
        stream = Listen(request, asked.notifications)
        if self.tenants is not None:
            stream.uris = self.tenants.readable(request, stream.uris)
        return self._listen(request, listens, stream)

    async def _listen(self, request: Request, listens: dict[bytes, Listen], stream: Listen) -> bytes:
        stream.acknowledge()
        listens[request.id] = stream
        try:
            await stream.ended()
        finally:
            del listens[request.id]
        return self.answers.of({"_meta": {modern.SUBSCRIPTION_ID: stream.id}}, request.wire)

    # ---------------------------------------------------------------- prompts, completion, logging (sections 16 to 18)

    def list_prompts(self, request: Request, caller: Any) -> bytes:
        return self._list(request, self.catalog.prompts)

    def get_prompt(self, request: Request, caller: Any) -> Outcome:
        asked: messages.PromptParams = messages.decode(messages.PromptParams, request.params)
        prompt = self.catalog.prompts.get(asked.name)
        if prompt is None:
            raise unknown_prompt(asked.name)
        self._open_retry(request, caller, asked)
        return self._get_prompt(request, prompt, asked.arguments or {})

    async def _get_prompt(self, request: Request, prompt: Any, arguments: dict[str, str]) -> bytes:
        result = await prompt.get(arguments, self.make_context(request))
        return self.answers.of(projection.prompt_result(result, REVISIONS[request.wire.index]), request.wire)

    def complete(self, request: Request, caller: Any) -> Outcome:
        asked: messages.CompleteParams = messages.decode(messages.CompleteParams, request.params)
        ref = asked.ref
        if ref.type == "ref/prompt":
            known = ref.name is not None and ref.name in self.catalog.prompts
        elif ref.type == "ref/resource":
            known = ref.uri is not None and (
                ref.uri in self.catalog.templates or self.server.find_resource(ref.uri)[0] is not None
            )
        else:
            raise MCPError(INVALID_PARAMS, "Invalid params: ref.type must be ref/prompt or ref/resource")
        if not known:
            raise unknown_reference(ref)
        return self._complete(request, asked)

    async def _complete(self, request: Request, asked: messages.CompleteParams) -> bytes:
        completer = self.server.completer
        assert completer is not None  # else the method is not offered
        from mcpfast.server import completion  # few servers complete

        found = await completion.run(completer, asked, self.limits.completion_values_max)
        return self.answers.of({"completion": found}, request.wire)

    def set_level(self, request: Request, session: Session) -> bytes:
        asked: messages.SetLevelParams = messages.decode(messages.SetLevelParams, request.params)
        if asked.level not in LOG_LEVEL_INDEX:
            raise MCPError(INVALID_PARAMS, f"Invalid params: unknown log level {asked.level[:40]!r}")
        session.log_level = asked.level
        return b"{}"

    # ---------------------------------------------------------------- what is no request

    def notice(self, channel: Channel, method: str, params: bytes | None) -> None:
        """A notification: never answered, not even with an error (section 3, J5)."""
        session: Session = channel.session
        if method == "notifications/cancelled":
            self.cancel(channel, params)
        elif method == "notifications/initialized" and session.state is legacy.OPEN:
            session.state = legacy.READY

    def cancel(self, channel: Channel, params: bytes | None) -> None:
        """By the id it names, whichever era that request was of (section 7.2); unknown, finished or malformed: ignored."""
        try:
            told: messages.CancelledParams = messages.decode(messages.CancelledParams, params)
        except MCPError:
            return
        if told.request_id is None or isinstance(told.request_id, bool):
            return
        request = channel.find(messages.encode(told.request_id)) or self._find_respelled(
            channel, told.request_id
        )
        if request is not None:
            request.cancel(str(told.reason)[:200] if told.reason else "cancelled by the client")

    @staticmethod
    def _find_respelled(channel: Channel, id_: int | str) -> Request | None:
        """An id may be written in several ways in JSON; what counts is its value."""
        for request in channel.requests():
            if (
                b"\\" not in request.id and request.id != b"-0"
            ):  # written as everybody writes it, so it was found or is another
                continue
            if msgspec.json.decode(request.id) == id_ and (request.id[:1] == b'"') is isinstance(id_, str):
                return request
        return None

    def response(self, channel: Channel, id_: bytes, result: bytes | None, error: bytes | None) -> None:
        """A client's answer to a question of ours (legacy era)."""
        session: Session = channel.session
        session.answered(id_, result, error)

    # ---------------------------------------------------------------- bad input (Appendix C of the protocol notes)

    def malformed(self, channel: Channel, why: str, id_: bytes | None, line: bytes) -> bytes | None:
        """The line to answer for what is no message as it should be."""
        if why == "long":
            error = MCPError(INVALID_REQUEST, f"Message longer than {self.limits.frame_bytes_max} bytes")
        elif why == "deep":
            error = MCPError(INVALID_REQUEST, f"Message nested deeper than {self.limits.depth_max} levels")
        elif why == "json":
            error = MCPError(PARSE_ERROR, "Parse error: not one JSON value in UTF-8 on one line")
        else:
            error = MCPError(
                INVALID_REQUEST, "Invalid request: not a JSON-RPC 2.0 request, notification or response"
            )
        self.log_refusal("refused a malformed message (%s)", why)
        if id_ is not None and why != "json":
            return messages.error_answer(error, id_)
        session: Session = channel.session
        return messages.error_line(
            error, id_null=session.revision is not None and session.revision.error_id_null
        )

    def plain(self, line: bytes) -> bytes | None:
        """A line with escaped or repeated member names, written anew without; None where a parser refuses it.

        Of the message, its `params` and `_meta`, which are what routing looks into; all else stays as it was written.
        """
        try:
            return messages.encode(_members(line, ("params", "_meta")))
        except (msgspec.DecodeError, RecursionError):
            return None

    def one_line(self, body: bytes) -> bytes:
        """A message that stands on several lines, on one: outside of strings a newline is a space, and inside there is none."""
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return b"-"
        return body.replace(b"\n", b" ")

    def batch(self, channel: Channel, raw: bytes, items: int) -> None:
        """A JSON-RPC batch of so many items: 2025-03-26 alone has them (section 3.1)."""
        session: Session = channel.session
        id_null = session.revision is not None and session.revision.error_id_null
        refusal: MCPError | None = None
        elements: list[msgspec.Raw] = []
        if session.revision is None or not session.revision.batches:
            refusal = MCPError(INVALID_REQUEST, "Invalid request: batches exist in 2025-03-26 only")
        elif not items:
            refusal = MCPError(INVALID_REQUEST, "Invalid request: an empty batch")
        elif (
            items > self.limits.batch_messages_max
        ):  # before it is taken apart: items need 40 times their bytes
            refusal = MCPError(
                INVALID_REQUEST,
                f"Invalid request: more than {self.limits.batch_messages_max} messages in a batch",
            )
        else:
            elements = msgspec.json.decode(raw, type=list[msgspec.Raw])
            if b"protocolVersion" in raw and any(modern.is_modern(element) for element in elements):
                refusal = MCPError(INVALID_REQUEST, "Invalid request: the 2026-07-28 era has no batches")
        if refusal is not None:
            channel.reply(messages.error_line(refusal, id_null=id_null))
            return
        answers = channel.new_batch()
        for element in elements:
            channel.submit(bytes(element), answers)
        answers.seal()

    def text(self, raw: bytes) -> str:
        """A JSON string, scanned already."""
        return raw[1:-1].decode() if b"\\" not in raw else msgspec.json.decode(raw, type=str)

    def log_refusal(self, message: str, *details: object) -> None:
        """A line in the log, a few times a second at most: refusing is cheap, and must stay so."""
        now = time.monotonic()
        if now >= self._log_again_at:
            self._log_again_at = now + 1.0 / self.limits.invalid_log_per_s
            logger.info(message, *details)

    def over_quota(self, channel: Channel, verdict: Verdict, name: str) -> bytes:
        """What stands behind the id of a call that its tenant may not begin, or not go on with."""
        assert self.tenants is not None
        return messages.error_tail(self.tenants.refusal(channel, verdict, "tools/call", name))

    # ---------------------------------------------------------------- what errors become

    def refused(self, entry: Entry, wire: Wire, error: BaseException) -> bytes:
        """Arguments that do not fit: seen by the model from 2025-11-25 on, a protocol error before (section 12.4)."""
        tool: Tool = entry.owner
        said = tool.signature.explain(error) if isinstance(error, msgspec.ValidationError) else error
        text = f"Invalid arguments for tool {entry.name}: {messages.sentence(said)}"
        self.log_refusal("refused the arguments of %s", entry.name)
        if REVISIONS[wire.index].argument_errors_are_results:
            return messages.result_tail(self.tool_error(text, wire))
        return messages.error_tail(MCPError(INVALID_PARAMS, text))

    def tool_error(self, text: str, wire: Wire) -> bytes:
        return self.answers.of(
            {"content": [{"type": "text", "text": messages.writable(text)}], "isError": True}, wire
        )

    def failed(self, request: Request | None, entry: Entry, wire: Wire, error: BaseException) -> bytes | None:
        """What stands behind the id when a handler raised; None where nothing may be answered any more."""
        try:
            return self._told(request, entry, wire, error)
        except (
            Exception
        ) as broken:  # data that is no JSON, an error that cannot say what it is: still an answer
            tool = request.method == "tools/call" if request is not None else True
            return self._incident(
                entry.name or (request.method if request else "?"), tool, wire, broken, request
            )

    def _told(self, request: Request | None, entry: Entry, wire: Wire, error: BaseException) -> bytes | None:
        tool = isinstance(entry.owner, Tool) or (request is not None and request.method == "tools/call")
        if request is not None and request.cancelled is not None:
            return None
        if isinstance(error, BaseExceptionGroup):
            error = joined(error) or error
        if isinstance(error, asyncio.CancelledError) and self.tenants is not None and request is not None:
            error = self.tenants.why_cancelled(request) or error
        if isinstance(error, InputRequired) and request is not None:
            return self._input_required(request, error, wire)
        if isinstance(error, MCPError):
            return messages.error_tail(self._for_revision(error, wire))
        if isinstance(error, ArgumentsRefused):
            return self.refused(entry, wire, error.__cause__ or error)
        if isinstance(error, ToolError | BadAnswer):
            if tool:
                return messages.result_tail(self.tool_error(str(error), wire))
            return messages.error_tail(MCPError(INTERNAL_ERROR, messages.writable(str(error))))
        return self._incident(entry.name or (request.method if request else "?"), tool, wire, error, request)

    def _input_required(self, request: Request, error: InputRequired, wire: Wire) -> bytes | None:
        try:
            return messages.result_tail(error.asker.input_required(error.questions, *self.target_of(request)))
        except Exception as broken:  # a key ring that cannot be used, say
            return self._incident(request.method, request.method == "tools/call", wire, broken, request)

    @staticmethod
    def _for_revision(error: MCPError, wire: Wire | None) -> MCPError:
        """-32002 until 2025-11-25, -32602 from 2026-07-28 on (section 14, R5)."""
        if isinstance(error, ResourceNotFound) and wire is not None and not wire.modern:
            return MCPError(RESOURCE_NOT_FOUND, error.message, error.data)
        return error

    def _incident(
        self, what: str, tool: bool, wire: Wire, error: BaseException, request: Request | None
    ) -> bytes:
        """Nothing of an unexpected error reaches the client but an id; the log has the rest under it, and whose call it was."""
        incident = self.random(6).hex()
        caller = None if request is None else request.caller
        whose = "" if caller is None else f", called by {caller.principal.id!r} of {caller.tenant.id}"
        logger.error("incident %s in %s%s", incident, what, whose, exc_info=error)
        if self.debug:
            import traceback  # only a server under development shows it

            text = "".join(traceback.format_exception(error)).rstrip()
        elif isinstance(error, ReplayMismatch):
            text = f"{what} cannot be continued: {error}"
        else:
            text = f"{what} failed unexpectedly. Incident {incident}: the server's log has the details."
        if tool:
            return messages.result_tail(self.tool_error(text, wire))
        return messages.error_tail(MCPError(INTERNAL_ERROR, messages.writable(text)))

    # ---------------------------------------------------------------- what a Context asks for

    def make_context(self, request: Request) -> Context[Any]:
        return Context(self, request)

    def caller_of(self, request: Request) -> Any:
        """Who calls, for a request that took the hot way: read when a handler asks."""
        state = request.state
        if state is None:
            state = modern.read_envelope(request.params) if request.wire.modern else request.channel.session
            request.state = state
        return state[0] if isinstance(state, tuple) else state

    def asker_of(self, request: Request, caller: Any) -> Asker:
        """One for a request: the Contexts of a tool and of the resources it reads share what was asked and done."""
        if not isinstance(request.state, tuple):
            request.state = (caller, Asker(self, request, caller))
        asker: Asker = request.state[1]
        return asker

    def seal(self, state: State, binding: bytes) -> str:
        ttl_s = self.limits.sealed_state_s
        token: str = self.server.sealer().seal(
            messages.encode(state), purpose=PURPOSE, binding=binding, ttl_s=ttl_s
        )
        return token

    def unseal(self, token: str, binding: bytes, kind: type[State]) -> State:
        """Raises MCPError -32602, the same for every reason."""
        from mcpfast.server.sealed import SealError

        try:
            payload = self.server.sealer().open(token, purpose=PURPOSE, binding=binding)
            state: State = messages.decoder(kind).decode(payload)
            return state
        except (SealError, msgspec.DecodeError):
            raise refuse_state() from None

    def once_records(self) -> Any:
        return self.server.once_records()


async def value_of(request: Request, outcome: Outcome) -> Any:
    """What an Outcome comes to, on a way that is a coroutine already: a tool that wants a Task of its own has it there, too."""
    if isinstance(outcome, bytes):
        return outcome
    return await (asyncio.create_task(outcome) if request.entry.own_task else outcome)


def unknown_tool(name: str) -> MCPError:
    """There is no such tool, or none that this caller may see: the same words."""
    return MCPError(INVALID_PARAMS, messages.sentence(f"Unknown tool: {name}"))


def unknown_prompt(name: str) -> MCPError:
    return MCPError(INVALID_PARAMS, messages.sentence(f"Unknown prompt: {name}"))


def unknown_reference(ref: messages.Reference) -> MCPError:
    """There is nothing to complete arguments for."""
    return MCPError(INVALID_PARAMS, messages.sentence(f"Unknown {ref.type[4:]}: {ref.name or ref.uri or ''}"))


def unknown_resource(uri: str) -> ResourceNotFound:
    return ResourceNotFound(uri, messages.sentence(f"Resource not found: {uri}"))


def _members(raw: bytes | msgspec.Raw, inner: tuple[str, ...]) -> dict[str, Any]:
    """The members of a JSON object, raw; in the one that `inner` begins with, if it is an object, the same again."""
    members: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    value = members.get(inner[0]) if inner else None
    if value is not None and memoryview(value)[0] == ord("{"):
        members[inner[0]] = _members(value, inner[1:])
    return members


def _result(value: Any, method: str) -> dict[str, Any]:
    """What came out of the outermost middleware, or TypeError for what no client could read."""
    if not isinstance(value, dict):
        raise TypeError(
            f"middleware returned {type(value).__name__} for {method}; it must return the result, a dict: "
            "`return await call_next(request)`"
        )
    is_call = method == "tools/call" and value.get("resultType", "complete") == "complete"
    if is_call and not isinstance(value.get("content"), list):
        raise TypeError('middleware returned a result of tools/call whose "content" is no list of blocks')
    return value


def _layer(layer: Callable[..., Any], inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def call(request: Any) -> Any:
        return await layer(request, inner)

    return call
