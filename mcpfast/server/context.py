"""What a handler can do beside its arguments: `ctx: Context`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

import msgspec

from mcpfast.errors import MCPError
from mcpfast.protocol import messages
from mcpfast.protocol.revisions import LOG_LEVEL_INDEX, REVISIONS, Revision
from mcpfast.server.asking import Asker, BadAnswer, Question

if TYPE_CHECKING:
    from mcpfast._spine import Request
    from mcpfast.protocol.types import CreateMessageResult, ElicitResult, Root
    from mcpfast.server.app import MCPServer
    from mcpfast.server.dispatch import Dispatcher
    from mcpfast.server.forms import ElicitationResult, Form
    from mcpfast.server.resources import ReadContents
    from mcpfast.server.session import Peer
    from mcpfast.tenancy.identity import Principal
    from mcpfast.tenancy.namespace import Namespace
    from mcpfast.tenancy.tenant import Tenant

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    LifespanT = TypeVarWithDefault(
        "LifespanT", default=Any
    )  # so that `ctx: Context` alone is complete for a type checker
else:
    LifespanT = TypeVar("LifespanT")

TRACE_KEYS = ("traceparent", "tracestate", "baggage")


class RequestInfo:
    """The request behind a handler, as it came: `ctx.request`. Everything in it was written by the client."""

    __slots__ = ("_dispatcher", "_meta", "_request")

    def __init__(self, dispatcher: Dispatcher, request: Request) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._meta: dict[str, Any] | None = None

    @property
    def id(self) -> int | str:
        """The JSON-RPC id. Unique among this client's requests in flight only."""
        return cast("int | str", msgspec.json.decode(self._request.id))

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def params(self) -> dict[str, Any]:
        """All of `params`, decoded anew at each access."""
        return cast("dict[str, Any]", messages.decode(dict, self._request.params))

    @property
    def meta(self) -> dict[str, Any]:
        """`params._meta`; `traceparent`, `tracestate` and `baggage` (W3C trace context) are here as the client sent them."""
        if self._meta is None:
            meta = self.params.get("_meta")
            self._meta = meta if isinstance(meta, dict) else {}
        return self._meta

    @property
    def trace_context(self) -> dict[str, str]:
        """The W3C trace context of the request, ready for a propagator; empty where there is none."""
        return {key: value for key in TRACE_KEYS if isinstance(value := self.meta.get(key), str)}

    @property
    def revision(self) -> str:
        """The protocol revision this request speaks."""
        return self._request.wire.revision

    @property
    def peer(self) -> Peer:
        """The other end of the connection: transport, address, and on a Unix socket (pid, uid, gid)."""
        return cast("Peer", self._request.channel.session.peer)


class Context(Generic[LifespanT]):
    """One call's way back to its client. Injected for a parameter annotated `Context`; of no use once the call is over."""

    __slots__ = ("_asker", "_caller", "_dispatcher", "_last_progress", "_request", "_request_info")

    def __init__(self, dispatcher: Dispatcher, request: Request) -> None:
        self._dispatcher = dispatcher
        self._request = request
        self._asker: Asker | None = None
        self._caller: Any = None
        self._request_info: RequestInfo | None = None
        self._last_progress = -math.inf

    def __class_getitem__(cls, kinds: Any) -> Any:
        """`Context[AppState]`; the official SDK's second type, of the request, is taken and left out."""
        return super().__class_getitem__(kinds[0] if isinstance(kinds, tuple) else kinds)  # type: ignore[misc]

    # ---------------------------------------------------------------- who and what

    @property
    def request(self) -> RequestInfo:
        """The request as it came: id, method, `_meta`, trace context, peer."""
        if self._request_info is None:
            self._request_info = RequestInfo(self._dispatcher, self._request)
        return self._request_info

    @property
    def request_id(self) -> str:
        """The request's id as a string."""
        return str(self.request.id)

    # ---------------------------------------------------------------- whose it is

    @property
    def tenant(self) -> Tenant:
        """The tenant whose request this is; `tenant.id` is what data is kept under. Where no tenants are served, the one of all,
        "default"."""
        caller = self._request.caller
        if caller is not None:
            return cast("Tenant", caller.tenant)
        from mcpfast.tenancy.tenant import the_only

        return the_only()

    @property
    def principal(self) -> Principal:
        """Who within the tenant asks: id, scopes, roles. Where no tenants are served, "anonymous"."""
        caller = self._request.caller
        if caller is not None:
            return cast("Principal", caller.principal)
        from mcpfast.tenancy.identity import ANONYMOUS

        return ANONYMOUS

    @property
    def namespace(self) -> Namespace:
        """Where the tenant's keys live in whatever store: `ctx.namespace.encode_key("anything at all")`."""
        return self.tenant.namespace

    @property
    def mcp_server(self) -> MCPServer[LifespanT]:
        return self._dispatcher.server

    fastmcp = mcp_server

    @property
    def lifespan_context(self) -> LifespanT:
        """What the server's `lifespan` yielded; None without one."""
        return cast("LifespanT", self._dispatcher.lifespan_context)

    @property
    def request_context(self) -> Context[LifespanT]:
        """The official SDK's name for what stands here directly (`ctx.request_context.lifespan_context`)."""
        return self

    @property
    def session(self) -> ClientSession:
        """What concerns the client beyond this request: notifications, and the SDK's names for questions."""
        return ClientSession(self)

    @property
    def cancelled(self) -> bool:
        """True once the client cancelled this call or is gone. A handler in a worker thread looks here from time to time."""
        return self._request.cancelled is not None

    @property
    def protocol_version(self) -> str:
        return self._request.wire.revision

    @property
    def client_capabilities(self) -> dict[str, Any]:
        """What the client declared: in `initialize`, or on this very request (2026-07-28)."""
        return cast("dict[str, Any]", self._client.capabilities)

    @property
    def client_info(self) -> dict[str, Any] | None:
        """The client's name and version, unverified; None where it gave none."""
        return cast("dict[str, Any] | None", self._client.client_info)

    @property
    def _client(self) -> Any:
        """What the client said of itself: its session, or the envelope of this request. Not a handler's business: a session of
        HTTP leads to its requests, and these to the client's token."""
        if self._caller is None:
            self._caller = self._dispatcher.caller_of(self._request)
        return self._caller

    @property
    def _revision(self) -> Revision:
        return REVISIONS[self._request.wire.index]

    # ---------------------------------------------------------------- to the client

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Tells the client how far the call is; nothing happens when it did not ask.

        `progress` must grow from report to report (one that does not is left out); `total` in the same unit. Waits while the
        client takes nothing.
        """
        token = self._request.progress_token
        if (
            token is None
            or token == b"null"
            or not self._speaks()
            or not progress > self._last_progress
            or math.isinf(progress)
        ):
            return
        self._last_progress = progress
        params: dict[str, Any] = {"progressToken": msgspec.Raw(token), "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None and self._revision.audio:
            params["message"] = message
        await self._send("notifications/progress", params)

    async def log(
        self,
        level: str,
        data: Any = None,
        *,
        logger: str | None = None,
        logger_name: str | None = None,
        message: Any = None,
    ) -> None:
        """Sends a log message to the client, where it wants it: `level` is one of the eight of the specification, `data` any JSON.

        2026-07-28 clients ask by the request's own log level, and get nothing without it. For the server's own log use
        `logging`.
        """
        if level not in LOG_LEVEL_INDEX:
            raise ValueError(f"unknown log level {level!r}; one of {', '.join(LOG_LEVEL_INDEX)}")
        wanted = self._client.log_level
        if not self._speaks() or (wanted is None and self._revision.modern):
            return
        if not self._request.channel.session.logs(level, wanted):
            return
        params = {"level": level, "data": _loggable(data if data is not None else message)}
        name = logger or logger_name
        if name is not None:
            params["logger"] = name
        await self._send("notifications/message", params)

    async def debug(self, data: Any, *, logger_name: str | None = None) -> None:
        """`log` at level "debug"."""
        await self.log("debug", data, logger=logger_name)

    async def info(self, data: Any, *, logger_name: str | None = None) -> None:
        """`log` at level "info"."""
        await self.log("info", data, logger=logger_name)

    async def warning(self, data: Any, *, logger_name: str | None = None) -> None:
        """`log` at level "warning"."""
        await self.log("warning", data, logger=logger_name)

    async def error(self, data: Any, *, logger_name: str | None = None) -> None:
        """`log` at level "error"."""
        await self.log("error", data, logger=logger_name)

    async def notify_tools_changed(self) -> None:
        """Tells clients that listen that the tools changed. Adding or removing one does so by itself; the same for the next two."""
        self.mcp_server.notify_list_changed("tools")

    async def notify_prompts_changed(self) -> None:
        self.mcp_server.notify_list_changed("prompts")

    async def close_sse_stream(self) -> None:
        """Lets go of the client's connection in the middle of a long call (2025-11-25 and before, over HTTP).

        The client comes back with `Last-Event-ID`, after `limits.retry_s`, and is sent what was kept and what still comes. Nothing
        happens where there is no such stream: on stdio, sockets and in memory, and for 2026-07-28.
        """
        self._request.channel.close_stream()

    async def notify_resources_changed(self) -> None:
        self.mcp_server.notify_list_changed("resources")

    async def notify_resource_updated(self, uri: str) -> None:
        """Tells everyone who subscribed to exactly this URI."""
        self.mcp_server.notify_resource_updated(str(uri))

    def _speaks(self) -> bool:
        """Nothing may be sent for a call that is over or cancelled (section 21)."""
        return self._request.alive and self._request.cancelled is None

    async def _send(self, method: str, params: dict[str, Any]) -> None:
        channel = self._request.channel
        channel.send(messages.notification_line(method, params))
        if channel.waiting_bytes > self._dispatcher.server.limits.output_high_bytes:
            # a client that reads slowly slows down the handler, not the server
            await asyncio.shield(channel.taken())

    # ---------------------------------------------------------------- asking

    @property
    def asker(self) -> Asker:
        if self._asker is None:
            self._asker = self._dispatcher.asker_of(self._request, self._client)
        return self._asker

    def elicit(
        self,
        message: str,
        schema: Any = None,
        response_type: Any = None,
        *,
        key: str | None = None,
    ) -> Question[ElicitationResult[Any]]:
        """Asks the user by a form: `answer = await ctx.elicit("Which one?", Schema)`.

        `schema` is a flat type: a Struct, dataclass, TypedDict or pydantic model of primitives, a single primitive, a list of
        choices, or None for a plain confirmation. The answer has `.action` ("accept", "decline", "cancel") and, accepted,
        `.data`. With a 2026-07-28 client the handler ends here and runs again from the top when the answer is there: what must
        not happen twice goes through `ctx.once`, and `key` names the question where its place may change. Raises MCPError
        (-32021) or ToolError where the client cannot be asked. Specification: Elicitation.
        """
        from mcpfast.server.forms import Form  # only a call that asks pays for it

        form = Form.of(schema if schema is not None else response_type)
        params = {"message": message, "requestedSchema": form.requested_schema(self._request.wire.revision)}
        if self._revision.icons:
            params["mode"] = "form"
        return Question(
            self.asker, "elicitation/create", params, elicited(form), ("elicitation", "form"), key
        )

    def elicit_url(
        self, message: str, url: str, elicitation_id: str | None = None, *, key: str | None = None
    ) -> Question[ElicitationResult[Any]]:
        """Sends the user to `url` for what must not pass through the client (secrets, payments, third-party consent).

        Accepting is consent to open it, not completion.
        """
        params: dict[str, Any] = {"message": message, "mode": "url", "url": url}
        if not self._revision.modern:
            params["elicitationId"] = elicitation_id or self._dispatcher.random(16).hex()
        return Question(self.asker, "elicitation/create", params, elicited(None), ("elicitation", "url"), key)

    def sample(
        self,
        messages: str | list[Any],
        *,
        max_tokens: int = 512,
        system_prompt: str | None = None,
        temperature: float | None = None,
        model_preferences: Any = None,
        stop_sequences: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        tools: list[Any] | None = None,
        tool_choice: Any = None,
        key: str | None = None,
    ) -> Question[CreateMessageResult]:
        """Asks the client's model. `messages` is one user text, or a list of texts and SamplingMessage. Specification: Sampling."""
        from mcpfast.server import sampling

        params = sampling.params(
            messages,
            max_tokens=max_tokens,
            system_prompt=system_prompt,
            temperature=temperature,
            model_preferences=model_preferences,
            stop_sequences=stop_sequences,
            metadata=metadata,
            tools=tools,
            tool_choice=tool_choice,
        )
        capability = ("sampling", "tools") if tools else ("sampling",)
        return Question(self.asker, "sampling/createMessage", params, sampling.parse, capability, key)

    def list_roots(self, *, key: str | None = None) -> Question[list[Root]]:
        """Asks the client for its roots: file:// URIs it works in. Informational, no access control. Specification: Roots."""
        from mcpfast.server import sampling

        return Question(self.asker, "roots/list", {}, sampling.parse_roots, ("roots",), key)

    @overload
    async def gather(self, first: Question[T], /) -> tuple[T]: ...
    @overload
    async def gather(self, *questions: Question[Any]) -> tuple[Any, ...]: ...
    async def gather(self, *questions: Question[Any]) -> tuple[Any, ...]:
        """Asks several things in one round: `name, roots = await ctx.gather(ctx.elicit(...), ctx.list_roots())`."""
        for question in questions:
            if not isinstance(question, Question):
                raise TypeError(
                    "ctx.gather takes what ctx.elicit, ctx.sample and ctx.list_roots give, not awaited"
                )
        return tuple(await self.asker.ask(list(questions)))

    async def once(self, key: str, fn: Callable[[], Awaitable[T] | T], *, type: Any = None) -> Any:
        """Runs `fn` once for this call, however often its handler runs: `id = await ctx.once("order", place_order)`.

        The result must be JSON, travels in the sealed state of a 2026-07-28 client, and comes back as plain JSON values, or as
        `type`. A retry that arrives twice finds the result of the first.
        """
        return await self.asker.once(key, fn, type)

    async def read_resource(self, uri: str) -> list[ReadContents]:
        """Reads one of this server's own resources: its contents, each with `.content` (str or bytes). Raises ResourceNotFound."""
        from mcpfast.server.resources import ReadContents

        return [ReadContents(one) for one in await self._dispatcher.read_for(self._request, str(uri))]

    # ---------------------------------------------------------------- from a worker thread

    def wait(self, awaitable: Awaitable[T], timeout_s: float | None = None) -> T:
        """For a `def` handler, which runs in a thread: `ctx.wait(ctx.report_progress(1, 2))`, `ctx.wait(ctx.elicit(...))`."""
        from mcpfast.executor.threads import from_thread

        async def run() -> T:
            return await awaitable

        return from_thread(self._dispatcher.loop, run, timeout_s=timeout_s)


def _loggable(data: Any) -> Any:
    """Raw JSON of the data as results are written; what JSON cannot carry as its repr: a log line must not fail a call."""
    from mcpfast.server import encoding  # only a client that listens to logs makes it needed

    try:
        return msgspec.Raw(encoding.encode(data))
    except (TypeError, ValueError):
        return repr(data)


def elicited(form: Form | None) -> Callable[[dict[str, Any]], ElicitationResult[Any]]:
    """Reads the client's ElicitResult; `form` is None for a URL, whose answer has no content."""
    from mcpfast.server import forms

    def parse(answer: dict[str, Any]) -> ElicitationResult[Any]:
        action = answer.get("action")
        if action == "decline":
            return forms.DeclinedElicitation()
        if action == "cancel":
            return forms.CancelledElicitation()
        if action != "accept":
            raise BadAnswer("the client's elicitation result has no action of accept, decline or cancel")
        if form is None:
            return forms.AcceptedElicitation(None)
        content = answer.get("content")
        try:
            return forms.AcceptedElicitation(form.parse(content if isinstance(content, dict) else {}))
        except forms.FormError as error:
            raise BadAnswer(f"the answer does not fit the form: {error}") from None

    return parse


class ClientSession:
    """`ctx.session`: what concerns the client beyond one request, under the names of the official SDK."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: Context[Any]) -> None:
        self._ctx = ctx

    @property
    def client_info(self) -> dict[str, Any] | None:
        return self._ctx.client_info

    @property
    def client_capabilities(self) -> dict[str, Any]:
        return self._ctx.client_capabilities

    @property
    def peer(self) -> Peer:
        """The other end of the connection."""
        return self._ctx.request.peer

    async def create_message(self, messages: Any, *, max_tokens: int, **options: Any) -> CreateMessageResult:
        """`ctx.sample` under the SDK's name."""
        return await self._ctx.sample(messages, max_tokens=max_tokens, **options)

    async def list_roots(self) -> Any:
        """The SDK's ListRootsResult; `ctx.list_roots()` gives the list itself."""
        from mcpfast.protocol.types import ListRootsResult

        return ListRootsResult(roots=await self._ctx.list_roots())

    async def send_log_message(
        self, level: str, data: Any, logger: str | None = None, related_request_id: Any = None
    ) -> None:
        await self._ctx.log(level, data, logger=logger)

    async def send_progress_notification(
        self,
        progress_token: int | str,
        progress: float,
        total: float | None = None,
        message: str | None = None,
        related_request_id: Any = None,
    ) -> None:
        await self._ctx.report_progress(progress, total, message)

    def check_client_capability(self, capability: Any) -> bool:
        """Whether the client declared everything that `capability`, a ClientCapabilities or a dict, names."""
        return _declares(self.client_capabilities, msgspec.to_builtins(capability))

    async def elicit_form(
        self, message: str, requested_schema: dict[str, Any], related_request_id: Any = None
    ) -> ElicitResult:
        """`ctx.elicit` with a JSON Schema; the answer's values stand in `.content`."""
        from mcpfast.protocol.types import ElicitResult

        answer = await self._ctx.elicit(message, requested_schema)
        return ElicitResult(action=answer.action, content=answer.data if answer.action == "accept" else None)

    elicit = elicit_form

    async def elicit_url(
        self, message: str, url: str, elicitation_id: str | None = None, related_request_id: Any = None
    ) -> ElicitResult:
        """`ctx.elicit_url` under the SDK's name."""
        from mcpfast.protocol.types import ElicitResult

        return ElicitResult(action=(await self._ctx.elicit_url(message, url, elicitation_id)).action)

    async def send_tool_list_changed(self) -> None:
        await self._ctx.notify_tools_changed()

    async def send_prompt_list_changed(self) -> None:
        await self._ctx.notify_prompts_changed()

    async def send_resource_list_changed(self) -> None:
        await self._ctx.notify_resources_changed()

    async def send_resource_updated(self, uri: str) -> None:
        await self._ctx.notify_resource_updated(uri)

    async def send_elicit_complete(self, elicitation_id: str, related_request_id: Any = None) -> None:
        """What `ctx.elicit_url` started is done (2025-11-25 only; later clients find out by retrying)."""
        if self._ctx._request.wire.revision == "2025-11-25":
            self._ctx._request.channel.session.notify(
                "notifications/elicitation/complete", {"elicitationId": elicitation_id}
            )


def _declares(declared: Any, wanted: dict[str, Any]) -> bool:
    return all(
        name in declared and (not isinstance(value, dict) or _declares(declared[name], value))
        for name, value in wanted.items()
    )


__all__ = ["BadAnswer", "ClientSession", "Context", "MCPError", "RequestInfo"]
