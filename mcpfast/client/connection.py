"""The life of one client connection: open, negotiate, route what comes, close.

The verbs that users call stand in `__init__.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from mcpfast.client import negotiation
from mcpfast.client.events import (
    LoggingMessageNotification,
    Notification,
    ProgressNotification,
    Subscription,
    SubscriptionsAcknowledgedNotification,
    read_notification,
)
from mcpfast.client.inbox import Inbox
from mcpfast.client.session import Cancelled, HttpError, Progress, RequestTimeout, Session
from mcpfast.client.transport import MemoryTransport, Transport
from mcpfast.errors import HEADER_MISMATCH, INTERNAL_ERROR, PARSE_ERROR, ConnectionClosed, MCPError
from mcpfast.limits import Limits
from mcpfast.protocol import messages, types
from mcpfast.protocol.modern import SUBSCRIPTION_ID
from mcpfast.protocol.revisions import LOG_LEVEL_INDEX

if TYPE_CHECKING:
    from mcpfast.client.answers import Answers

# Requests that may take long enough for a client-wide progress callback to be of use.
SLOW = frozenset({"tools/call", "resources/read", "prompts/get"})

# A listen stream that breaks while the server may still be there (HTTP) is opened again, after a pause that
# doubles each time it fails or lasts no longer than the longest of them.
LISTEN_PAUSE_S = 0.25
LISTEN_PAUSE_MAX_S = 8.0
LISTEN_AGAIN_S = 120.0  # for so long

LoggingCallback = Callable[[types.LoggingMessageNotificationParams], Awaitable[None] | None]
MessageHandler = Callable[[Notification | Exception], Awaitable[None] | None]


class Connection:
    """One way to a server, while it is open. Requests go out with the envelope of the era agreed on."""

    def __init__(
        self,
        transport: Transport,
        *,
        mode: str,
        offer: negotiation.Offer,
        answers: Answers,
        on_progress: Progress | None,
        on_log: LoggingCallback | None,
        on_message: MessageHandler | None,
        log_level: str | None,
        limits: Limits,
        connect_timeout_s: float | None,
        probe_timeout_s: float,
        first_id: int,
    ) -> None:
        self._transport = transport
        self._mode = mode
        self._offer = offer
        self._answers = answers
        self._on_progress, self._on_log, self._on_message = on_progress, on_log, on_message
        self._log_level = log_level
        self._limits = limits
        self._connect_timeout_s = connect_timeout_s
        self._probe_timeout_s = probe_timeout_s
        self._first_id = first_id
        self._questions: dict[int | str, asyncio.Task[None]] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._inbox = Inbox()
        self.subscribed: set[str] = set()  # URIs, by resources/subscribe (legacy)
        self._envelope: dict[str, Any] = {}
        self._envelope_raw = Raw(b"{}")
        self._session: Session | None = None
        self.agreement: negotiation.Agreement | None = None

    # ---- life

    async def open(self) -> None:
        """Connects and negotiates; when that fails, nothing is left open.

        Raises AddressError when the server cannot be reached, RequestTimeout when it does not
        answer in time, MCPError when there is no common revision, ConnectionClosed when it goes away.
        """
        try:
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._open()
            except TimeoutError as error:
                if isinstance(error, RequestTimeout):
                    raise
                words = await self._transport.last_words()
                raise RequestTimeout(
                    f"No connection to the server within {self._connect_timeout_s:g} s"
                    + (words and f": {words}")
                ) from None
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        try:
            agreement = await self._connect(self._mode)
        except negotiation.ProbeEndedConnection:
            if isinstance(self._transport, MemoryTransport):
                raise
            await self.close()
            agreement = await self._connect("legacy")
        self._adopt(agreement)
        if self._log_level is not None:
            await self.set_log_level(self._log_level)

    async def _connect(self, mode: str) -> negotiation.Agreement:
        self._session = session = Session(
            limits=self._limits,
            inbox=self._inbox,
            on_request=self._take_request,
            on_notification=self._take_notification,
            on_garbage=self._tell,
            on_lost=self._renew,
            first_id=self._first_id,
        )
        await session.open(self._transport)
        return await negotiation.negotiate(session, mode, self._offer, self._probe_timeout_s)

    def _adopt(self, agreement: negotiation.Agreement) -> None:
        self.agreement = agreement
        self._answers.revision = agreement.revision
        if agreement.revision.modern:
            self._envelope = negotiation.envelope(agreement.revision, self._offer, self._log_level)
            self._envelope_raw = Raw(msgspec.json.encode(self._envelope))

    async def close(self) -> None:
        """Ends everything that is open, within the deadlines of session and transport."""
        session, self._session = self._session, None
        try:
            if session is not None:
                self._first_id = session.next_id
                for subscription in self._subscriptions.values():
                    subscription.end()
                await session.close()
                questions = [task for task in self._questions.values() if task is not asyncio.current_task()]
                for task in questions:
                    task.cancel()
                await asyncio.gather(*questions, return_exceptions=True)
                await self._inbox.close()
        finally:
            await self._transport.close()

    @property
    def session(self) -> Session:
        """The open session. Raises RuntimeError outside of `async with`."""
        if self._session is None:
            raise RuntimeError(
                "The client is not connected; use it inside `async with Client(...) as client:`"
            )
        return self._session

    @property
    def next_id(self) -> int:
        """The id that the next connection of the same client starts with."""
        return self._first_id if self._session is None else self._session.next_id

    @property
    def modern(self) -> bool:
        return self.agreement is not None and self.agreement.revision.modern

    # ---- out

    async def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        meta: dict[str, Any] | None = None,
        id: int | None = None,
    ) -> Raw:
        """One request with the `_meta` it needs; the raw result. Raises as `Session.request` does."""
        try:
            return await self._request(method, params, timeout_s, on_progress, meta, id)
        except MCPError as error:
            if error.code != HEADER_MISMATCH or method != "tools/call":
                raise
        # Some arguments of this tool must stand in headers, too (section 13). Its schema says which ones, and
        # nobody has asked for it yet, or it has changed. Nothing was executed: a mismatch is seen before that.
        await self._list_tools(timeout_s)
        return await self._request(method, params, timeout_s, on_progress, meta, None)

    async def _request(
        self,
        method: str,
        params: dict[str, Any] | None,
        timeout_s: float | None,
        on_progress: Progress | None,
        meta: dict[str, Any] | None,
        id: int | None,
    ) -> Raw:
        session = self.session
        number = session.take_id() if id is None else id
        if on_progress is None and method in SLOW:
            on_progress = self._on_progress
        if on_progress is not None and "progressToken" not in (meta or {}):
            meta = {**(meta or {}), "progressToken": number}
        if meta is not None:
            params = {**(params or {}), "_meta": self._envelope | meta}
        elif self.modern:
            params = {**(params or {}), "_meta": self._envelope_raw}
        return await session.request(method, params, id=number, timeout_s=timeout_s, on_progress=on_progress)

    def learn(self, tools: list[types.Tool]) -> list[types.Tool]:
        """Sees what `tools/list` gave, and keeps those that can be called over this connection."""
        return self.session.link.learn(tools) if self.modern else tools

    async def _list_tools(self, timeout_s: float | None) -> None:
        cursor: str | None = None
        while True:
            asked = None if cursor is None else {"cursor": cursor}
            raw = await self._request("tools/list", asked, timeout_s, None, None, None)
            page = negotiation.read_result("tools/list", raw, types.ListToolsResult)
            self.learn(page.tools)
            if page.next_cursor is None or page.next_cursor == cursor:
                return
            cursor = page.next_cursor

    async def set_log_level(self, level: str) -> None:
        """From now on only log messages of this level and above arrive (section 18).

        Raises ValueError for an unknown one.
        """
        if level not in LOG_LEVEL_INDEX:
            raise ValueError(f"log level {level!r} is unknown; there are {', '.join(LOG_LEVEL_INDEX)}")
        self._log_level = level
        agreement = self.agreement
        assert agreement is not None
        if agreement.revision.modern:  # no request for it there: each one says for itself
            self._adopt(agreement)
        elif agreement.capabilities.logging is not None:
            await self.request("logging/setLevel", {"level": level})
        # Other legacy servers may send messages all the same, of levels of their own choice: see
        # _take_notification.

    async def listen(self, subscription: Subscription, notifications: dict[str, Any]) -> None:
        """Keeps a listen stream until the server ends it; cancelled, it tells the server.

        A stream that breaks while the server may still be there is opened again (section 15, U8).
        """
        loop = asyncio.get_running_loop()
        pause_s, give_up = LISTEN_PAUSE_S, 0.0
        while True:
            begun = loop.time()
            error = await self._listen(subscription, notifications)
            if error is None or not self._may_come_back(subscription, error):
                break
            if subscription.live:
                give_up = loop.time() + LISTEN_AGAIN_S
                if loop.time() - begun > LISTEN_PAUSE_MAX_S:
                    pause_s = LISTEN_PAUSE_S
            elif loop.time() > give_up:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LISTEN_PAUSE_MAX_S)
            if self._session is None:
                break
            subscription.again(self.session.take_id())
        subscription.end(error)

    async def _listen(self, subscription: Subscription, notifications: dict[str, Any]) -> Exception | None:
        """One stream; why it broke, None for an end that the server said."""
        self._subscriptions[subscription.id] = subscription
        try:
            await self.request("subscriptions/listen", {"notifications": notifications}, id=subscription.id)
        except Exception as error:
            return error
        finally:
            self._subscriptions.pop(subscription.id, None)
        return None

    def _may_come_back(self, subscription: Subscription, error: Exception) -> bool:
        if self._session is None or self._session.ended is not None or not subscription.known:
            return False
        if isinstance(error, HttpError):
            return error.status >= 500 or error.status in (408, 425, 429)
        return isinstance(error, ConnectionClosed | RequestTimeout)

    async def _renew(self) -> None:
        """The server has forgotten our session: a new one, and what the old one had been told (section 9, H12).

        Raises as `open` does.
        """
        session, agreement = self.session, self.agreement
        if agreement is None:
            raise ConnectionClosed("The server forgot the session before it was open")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                self.agreement = await negotiation.initialize(
                    session, agreement.revision, self._offer, pinned=True
                )
                if self._log_level is not None and self.agreement.capabilities.logging is not None:
                    await session.request("logging/setLevel", {"level": self._log_level})
                for uri in sorted(self.subscribed):
                    await session.request("resources/subscribe", {"uri": uri})
        except TimeoutError as error:
            if isinstance(error, RequestTimeout):
                raise
            raise RequestTimeout(
                f"The server forgot the session, and made no new one within {self._connect_timeout_s:g} s"
            ) from None

    # ---- in

    def _take_notification(self, method: str, params: Raw | None) -> None:
        """Called by the reader, in order.

        What belongs to the protocol is done at once; callbacks get theirs through the inbox.
        """
        if method == "notifications/cancelled":
            self._take_cancelled(params)
            return
        try:
            notification = read_notification(method, params)
        except (msgspec.DecodeError, RecursionError) as error:
            self._tell(MCPError(PARSE_ERROR, f"The server sent a malformed {method}: {error}"))
            return
        told = notification.params
        if isinstance(notification, ProgressNotification):
            on_progress = self.session.progress_of(told.progress_token)
            if on_progress is not None:
                self._inbox.put(on_progress, told.progress, told.total, told.message)
        elif isinstance(notification, LoggingMessageNotification):
            least = LOG_LEVEL_INDEX.get(self._log_level or "", 0)
            if self._on_log is not None and LOG_LEVEL_INDEX[told.level] >= least:
                self._inbox.put(self._on_log, told)
        else:
            subscription = self._subscription_of(told)
            if subscription is not None:
                subscription.take(notification)
                if isinstance(notification, SubscriptionsAcknowledgedNotification):
                    return
        self._tell(notification)

    def _take_cancelled(self, params: Raw | None) -> None:
        """The server takes a question back, or ends a listen stream; anything else is ignored, as the
        specification wants.
        """
        try:
            cancelled = messages.decoder(Cancelled).decode(params or b"{}")
        except msgspec.DecodeError:
            return
        if cancelled.request_id in self._questions and not self.modern:
            self._questions[cancelled.request_id].cancel()
        elif isinstance(cancelled.request_id, int) and cancelled.request_id in self._subscriptions:
            self._subscriptions[cancelled.request_id].end()

    def _subscription_of(self, params: Any) -> Subscription | None:
        meta = params.get("_meta") if isinstance(params, dict) else params.meta
        named = meta.get(SUBSCRIPTION_ID) if isinstance(meta, dict) else None
        return self._subscriptions.get(named) if isinstance(named, int) else None

    def _tell(self, message: Notification | Exception) -> None:
        if self._on_message is not None:
            self._inbox.put(self._on_message, message)

    def _take_request(self, id: int | str, method: str, params: Raw | None) -> None:
        """Called by the reader.

        A question is answered by a task of its own, so that the user may take their time.
        """
        session = self.session
        if self.modern:
            return  # this era has no requests of the server and no responses of the client (section 8, S3)
        if method == "ping":
            session.respond(id, result={})
        elif id in self._questions:
            pass  # two of the same id: whichever answer came would answer both
        elif len(self._questions) >= self._limits.questions_max:
            session.respond(
                id, error=MCPError(INTERNAL_ERROR, "Too many questions are waiting for an answer")
            )
        else:
            task = asyncio.create_task(
                self._answer(session, id, method, params), name=f"mcpfast client {method}"
            )
            self._questions[id] = task
            task.add_done_callback(lambda _: self._questions.pop(id, None))

    async def _answer(self, session: Session, id: int | str, method: str, params: Raw | None) -> None:
        try:
            session.respond(id, result=await self._answers.answer(method, params, id))
        except MCPError as error:
            session.respond(id, error=error)
        except Exception as error:  # the callback is the user's: it is told to both sides
            import logging

            logging.getLogger("mcpfast.client").warning("The callback for %s failed", method, exc_info=True)
            session.respond(
                id, error=MCPError(INTERNAL_ERROR, f"The client's callback failed: {type(error).__name__}")
            )
