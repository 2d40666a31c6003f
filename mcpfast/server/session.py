"""What a connection remembers: the legacy session, questions to the client, subscriptions and open listen streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast.errors import INTERNAL_ERROR, ConnectionClosed, MCPError
from mcpfast.protocol import legacy, messages, modern
from mcpfast.protocol.revisions import LOG_LEVEL_INDEX, Revision

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._spine import Channel, Request
    from mcpfast.limits import Limits
    from mcpfast.tenancy.resolvers import Evidence


class Peer:
    """Who is at the other end, as far as the transport knows. `credentials` is (pid, uid, gid) of a Unix socket's client,
    `evidence` what the request that opened the connection showed, where it is one over HTTP and tenants are served."""

    __slots__ = ("address", "credentials", "evidence", "transport")

    def __init__(
        self,
        transport: str,
        address: str | None = None,
        credentials: tuple[int, int, int] | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        self.transport = transport
        self.address = address
        self.credentials = credentials
        self.evidence = evidence


class Session:
    """One connection, seen from the protocol. `state` and `revision` are the legacy era's; the modern one has no session."""

    __slots__ = (
        "_last_question",
        "_questions",
        "capabilities",
        "channel",
        "client_info",
        "cut",
        "limits",
        "listens",
        "log_level",
        "peer",
        "revision",
        "state",
        "subscriptions",
    )

    def __init__(self, limits: Limits, peer: Peer) -> None:
        self.limits = limits
        self.peer = peer
        self.channel: Channel  # set by the transport, once
        self.state = legacy.NEW
        self.revision: Revision | None = None
        self.capabilities: dict[str, Any] = {}
        self.client_info: dict[str, Any] | None = None
        self.log_level: str | None = None
        self.subscriptions: set[str] | None = None
        self.listens: dict[bytes, Listen] | None = None
        self.cut: Caller | None = None  # may not listen any more, until it is known anew who asks
        self._questions: dict[str, asyncio.Future[Any]] | None = None
        self._last_question = 0

    # ---------------------------------------------------------------- to the client

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Sends a notification, behind what already waits."""
        self.channel.send(messages.notification_line(method, params))

    async def ask(self, method: str, params: dict[str, Any], channel: Channel) -> Any:
        """Sends a request to the client (legacy era) on `channel`, where the call behind it came, and gives its result.

        Raises MCPError: the client's, or ours when it is gone.
        Waits at most `limits.question_s`. Cancelled, it tells the client so and forgets the question.
        """
        questions = self._questions
        if questions is None:
            questions = self._questions = {}
        if len(questions) >= self.limits.questions_max:
            raise MCPError(INTERNAL_ERROR, "Too many questions wait for this client (limits.questions_max)")
        self._last_question += 1
        id_ = f"mcpfast-{self._last_question}"
        answer = asyncio.get_running_loop().create_future()
        questions[id_] = answer
        channel.send(messages.request_line(id_, method, params))
        try:
            async with asyncio.timeout(self.limits.question_s):
                return await answer
        except (TimeoutError, asyncio.CancelledError) as error:
            late = isinstance(error, TimeoutError)
            told = {"requestId": id_, "reason": "timed out" if late else "the request was cancelled"}
            channel.send(messages.notification_line("notifications/cancelled", told))
            if late:
                raise MCPError(
                    INTERNAL_ERROR, f"The client did not answer {method} within {self.limits.question_s:g} s"
                ) from None
            raise
        finally:
            questions.pop(id_, None)

    def answered(self, id_: bytes, result: bytes | None, error: bytes | None) -> None:
        """The client's response to a question; one that nobody asked is ignored, as the specification has it."""
        try:
            key = msgspec.json.decode(id_)
        except msgspec.DecodeError:
            return
        future = self._questions.get(key) if self._questions and isinstance(key, str) else None
        if future is None or future.done():
            return
        try:
            if result is not None:
                future.set_result(msgspec.json.decode(result))
            else:
                told = messages.decode(ErrorObject, error)
                future.set_exception(MCPError(told.code, told.message, told.data))
        except (msgspec.DecodeError, MCPError):
            future.set_exception(MCPError(INTERNAL_ERROR, "The client's response is malformed"))

    def closed(self) -> None:
        """The connection is gone: nobody waits for its client any longer."""
        for future in (self._questions or {}).values():
            if not future.done():
                future.set_exception(ConnectionClosed())

    def logs(self, level: str, at_least: str | None) -> bool:
        """Whether a message of `level` is to be sent, `at_least` being what the client asked for."""
        return at_least is None or LOG_LEVEL_INDEX[level] >= LOG_LEVEL_INDEX[at_least]

    # ---------------------------------------------------------------- changes

    def list_changed(self, kind: str) -> None:
        """`kind` is "tools", "prompts" or "resources": told to a ready legacy session, and on listen streams that asked."""
        if self.state is legacy.READY:
            self.notify(f"notifications/{kind}/list_changed")
        for listen in (self.listens or {}).values():
            if listen.wants(kind):
                listen.notify(f"notifications/{kind}/list_changed", {})

    def resource_updated(self, uri: str) -> None:
        """Told to a legacy session that subscribed to exactly this URI, and on listen streams that did."""
        if self.subscriptions and uri in self.subscriptions:
            self.notify("notifications/resources/updated", {"uri": uri})
        for listen in (self.listens or {}).values():
            if uri in listen.uris:
                listen.notify("notifications/resources/updated", {"uri": uri})

    @property
    def listening(self) -> Channel | None:
        """Where it is told of changes; None where nobody would hear."""
        heard = self.listens or self.subscriptions or self.state is legacy.READY
        return self.channel if heard else None

    @property
    def caller(self) -> Caller | None:
        """Whose it is, where tenants are served and somebody has asked for something."""
        return self.channel.caller

    @caller.setter
    def caller(self, caller: Caller | None) -> None:
        self.channel.caller = caller

    def calls(self) -> Iterable[Request]:
        """Its calls that are in flight and wait."""
        return self.channel.requests()

    def subscribes(self, uri: str) -> bool:
        """Whether a change of exactly this resource is to be told here."""
        if self.subscriptions and uri in self.subscriptions:
            return True
        return any(uri in listen.uris for listen in (self.listens or {}).values())

    def cut_off(self) -> None:
        """Its caller may not listen any more."""
        self.cut, self.subscriptions = self.caller, None
        self.end_listens()

    def end_listens(self) -> None:
        """Ends every listen stream gracefully: each is answered (section 15, U7)."""
        for listen in list((self.listens or {}).values()):
            listen.end()


class ErrorObject(msgspec.Struct):
    """The `error` of a JSON-RPC response."""

    code: int
    message: str
    data: Any = None


class Listen:
    """One open `subscriptions/listen` stream (2026-07-28, section 15)."""

    __slots__ = ("_done", "channel", "id", "kinds", "uris")

    def __init__(self, request: Request, wanted: messages.ListenFilter) -> None:
        self.channel = request.channel
        self.id = msgspec.Raw(request.id)
        self.kinds = {
            kind
            for kind, on in (
                ("tools", wanted.tools_list_changed),
                ("prompts", wanted.prompts_list_changed),
                ("resources", wanted.resources_list_changed),
            )
            if on
        }
        self.uris = frozenset(wanted.resource_subscriptions)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wants(self, kind: str) -> bool:
        return kind in self.kinds

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """One notification of this stream, tagged with its id (U4)."""
        told = {"_meta": {modern.SUBSCRIPTION_ID: self.id}, **params}
        self.channel.send(messages.notification_line(method, told))

    def acknowledge(self) -> None:
        """What was accepted, before anything else of this stream (U3)."""
        accepted: dict[str, Any] = {f"{kind}ListChanged": True for kind in sorted(self.kinds)}
        if self.uris:
            accepted["resourceSubscriptions"] = sorted(self.uris)
        self.notify("notifications/subscriptions/acknowledged", {"notifications": accepted})

    async def ended(self) -> None:
        """Waits until the server ends the stream; the client ends it by cancelling."""
        await self._done

    def end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
