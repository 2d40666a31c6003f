"""The client: how tests, agents and the benches speak with an MCP server of either era.

    async with Client(server) as client:                    # in memory
    async with Client.stdio("python server.py") as client:  # a child process
    async with Client("http://127.0.0.1:8000/mcp", authorization="Bearer ...") as client:
    async with Client("tcp://127.0.0.1:9000") as client:    # or "unix:///run/notes.sock"
        result = await client.call_tool("add", {"a": 1, "b": 2})
        print(result.data)

`transport.py` brings the messages, over byte streams (`lines.py`) or HTTP (`http.py`), `session.py` matches
answers to requests, `negotiation.py` finds the revision, `answers.py` lets the callbacks answer the server's
questions, `events.py` holds what the server tells unasked, `connection.py` ties them together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Self

import msgspec

from mcpfast.client.answers import (
    Answers,
    ClientRequestContext,
    ElicitationCallback,
    ListRootsCallback,
    SamplingCallback,
)
from mcpfast.client.calls import Calls
from mcpfast.client.connection import Connection, LoggingCallback, MessageHandler
from mcpfast.client.events import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    Subscription,
    ToolsListChanged,
)
from mcpfast.client.negotiation import Agreement, Offer, check_mode
from mcpfast.client.results import CallToolResult
from mcpfast.client.session import HttpError, Progress, RequestTimeout
from mcpfast.client.transport import (
    Authorization,
    HttpServer,
    StdioServer,
    Transport,
    command_of,
    transport_for,
)
from mcpfast.errors import METHOD_NOT_FOUND, MCPError
from mcpfast.limits import Limits
from mcpfast.protocol import types

__all__ = [
    "CallToolResult",
    "Client",
    "ClientRequestContext",
    "HttpError",
    "HttpServer",
    "PromptsListChanged",
    "RequestTimeout",
    "ResourceUpdated",
    "ResourcesListChanged",
    "ServerEvent",
    "StdioServer",
    "Subscription",
    "ToolsListChanged",
    "Transport",
]

ACKNOWLEDGE_S = 30.0  # a listen stream that the server does not acknowledge, where no other deadline is set


class Client(Calls):
    """A connection to one MCP server while the `async with` lasts; it may be entered again afterwards.

    `target`: a server object, "http://HOST:PORT/mcp" or "https://...", "ws://..." or "wss://...",
    "tcp://HOST:PORT", "unix:///path", a Python file, a command as a list of words, a `StdioServer`, an
    `HttpServer`, or a `Transport` of your own.

    For a URL `headers` go with every request, and `authorization` is the value of the Authorization header,
    or a function (`async` or not) that is asked for it before every request. `HttpServer` says more. For a server object that
    serves tenants they say, once, whose the connection is.

    `mode`: "auto" asks for the newest revision and falls back to a session of the legacy era; "legacy" does
    the latter at once; a revision ("2025-06-18") takes that one or fails.

    `timeout_s` is the deadline of every request that names none of its own, None for none (then a wait ends
    with the connection); `connect_timeout_s` that of connecting and negotiating; `probe_timeout_s` is
    how long a server may be silent before "auto" takes it for a legacy one. `read_timeout_seconds` is another
    name of `timeout_s`.

    The callbacks, and what they may return, are described in `mcpfast.client.answers`; the capabilities
    declared follow from them. `raise_exceptions` is for a server object: its answers then carry the
    tracebacks of its handlers.
    """

    def __init__(
        self,
        target: object,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: Authorization | None = None,
        elicitation_callback: ElicitationCallback | None = None,
        elicitation_modes: Iterable[str] = ("form", "url"),
        sampling_callback: SamplingCallback | None = None,
        sampling_capabilities: types.SamplingCapability | Mapping[str, Any] | None = None,
        list_roots_callback: ListRootsCallback | None = None,
        roots: Iterable[Any] | None = None,
        progress_callback: Progress | None = None,
        logging_callback: LoggingCallback | None = None,
        message_handler: MessageHandler | None = None,
        log_level: str | None = None,
        mode: str = "auto",
        timeout_s: float | None = None,
        read_timeout_seconds: float | None = None,
        connect_timeout_s: float | None = 60.0,
        probe_timeout_s: float = 5.0,
        client_info: types.Implementation | Mapping[str, Any] | None = None,
        extensions: Mapping[str, Mapping[str, Any]] | None = None,
        raise_exceptions: bool = False,
        input_required_max_rounds: int = 10,
        limits: Limits = Limits(),  # noqa: B008 - read-only
    ) -> None:
        check_mode(mode)
        self.mode = mode
        self.timeout_s = timeout_s if timeout_s is not None else read_timeout_seconds
        self.input_required_max_rounds = input_required_max_rounds
        options: dict[str, Any] = {"raise_exceptions": True} if raise_exceptions else {}
        self._transport = transport_for(target, headers=headers, authorization=authorization, **options)
        self._answers = Answers(
            self,
            elicitation=elicitation_callback,
            elicitation_modes=elicitation_modes,
            sampling=sampling_callback,
            sampling_capabilities=sampling_capabilities,
            roots=list_roots_callback if list_roots_callback is not None else roots,
            extensions=extensions,
        )
        self._options: dict[str, Any] = {
            "mode": mode,
            "offer": Offer(
                _client_info(client_info),
                self._answers.capabilities,
            ),
            "answers": self._answers,
            "on_progress": progress_callback,
            "on_log": logging_callback,
            "on_message": message_handler,
            "log_level": log_level,
            "limits": limits,
            "connect_timeout_s": connect_timeout_s,
            "probe_timeout_s": probe_timeout_s,
        }
        self._connection: Connection | None = None
        self._next_id = 1

    @classmethod
    def stdio(
        cls,
        command: str | Sequence[str],
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Any = None,
        stderr: Any = None,
        **client_options: Any,
    ) -> Self:
        """A client that starts `command` and speaks with it over its stdin and stdout; `StdioServer` says
        what the others mean.

        One string is split as a shell would: `Client.stdio("python server.py")`, `Client.stdio("python",
        "server.py")` and `Client.stdio(["python", "server.py"])` are the same.
        """
        program, words = command_of(command, args)
        return cls(StdioServer(program, words, env, cwd, stderr), **client_options)

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("The client is connected already; it can be entered again when it was left")
        connection = Connection(self._transport, first_id=self._next_id, **self._options)
        self._connection = connection
        try:
            await connection.open()
        except BaseException:
            self._connection = None
            self._next_id = connection.next_id
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._next_id = connection.next_id

    # ---- what was agreed on

    @property
    def session(self) -> Self:
        """The client itself: in the official SDK the methods stand one step further in, too."""
        return self

    @property
    def protocol_version(self) -> str:
        """The revision in use, "2026-07-28" say."""
        return self._agreement.revision.version

    @property
    def server_info(self) -> types.Implementation | None:
        """Who the server says it is; None for a modern server that does not say."""
        return self._agreement.server_info

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """What the server offers."""
        return self._agreement.capabilities

    @property
    def instructions(self) -> str | None:
        """What the server tells the model about itself."""
        return self._agreement.instructions

    # ---- the rest of the protocol

    async def ping(self) -> bool:
        """True when the server answers: to `ping`, or to `server/discover` where `ping` is no more."""
        await self._ask("server/discover" if self._open.modern else "ping", None, types.Result)
        return True

    async def send_ping(self, *, meta: Mapping[str, Any] | None = None) -> types.EmptyResult:
        """Sends `ping` itself; from 2026-07-28 on servers answer -32601."""
        return await self._ask("ping", None, types.EmptyResult, meta)

    async def set_logging_level(self, level: str) -> None:
        """From now on the server tells log messages of this level and above, in either era."""
        await self._open.set_log_level(level)

    async def subscribe_resource(
        self, uri: Any, *, meta: Mapping[str, Any] | None = None
    ) -> types.EmptyResult:
        """`message_handler` is told when this resource changes.

        Before 2026-07-28; from then on there is `listen`.
        """
        self._legacy_only(
            "resources/subscribe", "use `async with client.listen(resource_subscriptions=[uri])`"
        )
        result = await self._ask("resources/subscribe", {"uri": str(uri)}, types.EmptyResult, meta)
        self._open.subscribed.add(str(uri))
        return result

    async def unsubscribe_resource(
        self, uri: Any, *, meta: Mapping[str, Any] | None = None
    ) -> types.EmptyResult:
        """Ends what `subscribe_resource` began."""
        self._legacy_only("resources/unsubscribe", "leave the `async with client.listen(...)`")
        self._open.subscribed.discard(str(uri))
        return await self._ask("resources/unsubscribe", {"uri": str(uri)}, types.EmptyResult, meta)

    @contextlib.asynccontextmanager
    async def listen(
        self,
        *,
        tools_list_changed: bool = False,
        prompts_list_changed: bool = False,
        resources_list_changed: bool = False,
        resource_subscriptions: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> AsyncIterator[Subscription]:
        """Opens a stream of changes (2026-07-28 and later): `async with client.listen(...) as events: async
        for event in events: ...`

        Entering waits, at most `timeout_s`, until the server has said what it will tell (`events.honored`);
        leaving ends the stream. Raises MCPError when the server refuses, or is of the legacy era.
        """
        if isinstance(resource_subscriptions, str):
            raise TypeError("resource_subscriptions is a list of URIs, not one string")
        connection = self._open
        if not connection.modern:
            raise MCPError(
                METHOD_NOT_FOUND,
                f"subscriptions/listen does not exist in {self.protocol_version}: "
                "use `subscribe_resource` and a `message_handler`",
            )
        wanted = {
            "toolsListChanged": tools_list_changed,
            "promptsListChanged": prompts_list_changed,
            "resourcesListChanged": resources_list_changed,
            "resourceSubscriptions": [str(uri) for uri in resource_subscriptions],
        }
        subscription = Subscription(connection.session.take_id())
        stream = asyncio.create_task(
            connection.listen(subscription, {name: value for name, value in wanted.items() if value})
        )
        try:
            seconds = next(s for s in (timeout_s, self.timeout_s, ACKNOWLEDGE_S) if s is not None)
            try:
                async with asyncio.timeout(seconds):
                    await subscription.acknowledged()
            except TimeoutError:
                raise RequestTimeout(
                    f"subscriptions/listen was not acknowledged within {seconds:g} s"
                ) from None
            yield subscription
        finally:
            subscription.end()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)

    async def send_roots_list_changed(self) -> None:
        """Tells the server that the roots have changed.

        Nothing to tell from 2026-07-28 on: there it asks each time.
        """
        if not self._open.modern:
            await self.notify("notifications/roots/list_changed")

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Sends any notification."""
        self._open.session.notify(method, None if params is None else dict(params))

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        progress_callback: Progress | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Any:
        """Sends any request, with the `_meta` that the revision wants, and gives the result as plain JSON,
        `input_required` included.
        """
        raw = await self._open.request(
            method,
            None if params is None else dict(params),
            timeout_s=timeout_s if timeout_s is not None else self.timeout_s,
            on_progress=progress_callback,
            meta=None if meta is None else dict(meta),
        )
        return msgspec.json.decode(raw)

    # ---- how

    @property
    def _agreement(self) -> Agreement:
        agreement = self._open.agreement
        if agreement is None:
            raise RuntimeError("The client has not agreed on a revision with the server yet")
        return agreement

    def _legacy_only(self, method: str, instead: str) -> None:
        if self._open.modern:
            raise MCPError(METHOD_NOT_FOUND, f"{method} does not exist in {self.protocol_version}: {instead}")


def _client_info(given: types.Implementation | Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        import mcpfast

        return {"name": "mcpfast", "version": str(getattr(mcpfast, "__version__", "0"))}
    info: dict[str, Any] = msgspec.to_builtins(given)
    return info
