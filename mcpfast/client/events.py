"""What the server tells without being asked: notifications by name, and `subscriptions/listen` streams
(section 15).

The notification classes have the names of the official SDK, so that a `message_handler` can tell them apart
with `isinstance`.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from msgspec import Raw, Struct

from mcpfast.errors import INTERNAL_ERROR, MCPError
from mcpfast.protocol import messages, types

EVENTS_MAX = 1_024  # of one subscription that nobody has taken yet; equal ones count once


class Notification:
    """A notification of the server: its `method`, and its `params` as the struct of that method (a dict for
    an unknown one).
    """

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: Any) -> None:
        self.method = method
        self.params = params

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.method!r}, {self.params!r})"


class CancelledNotification(Notification):
    __slots__ = ()


class ProgressNotification(Notification):
    __slots__ = ()


class LoggingMessageNotification(Notification):
    __slots__ = ()


class ResourceUpdatedNotification(Notification):
    __slots__ = ()


class ResourceListChangedNotification(Notification):
    __slots__ = ()


class ToolListChangedNotification(Notification):
    __slots__ = ()


class PromptListChangedNotification(Notification):
    __slots__ = ()


class ElicitCompleteNotification(Notification):
    __slots__ = ()


class SubscriptionsAcknowledgedNotification(Notification):
    __slots__ = ()


BY_METHOD: dict[str, type[Notification]] = {
    "notifications/cancelled": CancelledNotification,
    "notifications/progress": ProgressNotification,
    "notifications/message": LoggingMessageNotification,
    "notifications/resources/updated": ResourceUpdatedNotification,
    "notifications/resources/list_changed": ResourceListChangedNotification,
    "notifications/tools/list_changed": ToolListChangedNotification,
    "notifications/prompts/list_changed": PromptListChangedNotification,
    "notifications/elicitation/complete": ElicitCompleteNotification,
    "notifications/subscriptions/acknowledged": SubscriptionsAcknowledgedNotification,
}


def read_notification(method: str, params: Raw | None) -> Notification:
    """A notification as its class. Raises msgspec.DecodeError when its params are not those of its method."""
    kind = types.PARAMS.get(method, dict[str, Any])
    return BY_METHOD.get(method, Notification)(method, messages.decoder(kind).decode(params or b"{}"))


class ToolsListChanged(Struct, frozen=True):
    """The server's tools have changed: list them again."""


class PromptsListChanged(Struct, frozen=True):
    """The server's prompts have changed."""


class ResourcesListChanged(Struct, frozen=True):
    """The server's resources have changed."""


class ResourceUpdated(Struct, frozen=True):
    """The resource at `uri`, or a part of it, has changed: read it again."""

    uri: str


ServerEvent: TypeAlias = ToolsListChanged | PromptsListChanged | ResourcesListChanged | ResourceUpdated


def event_of(notification: Notification) -> ServerEvent | None:
    """The event that a notification tells, None if it tells none."""
    match notification:
        case ToolListChangedNotification():
            return ToolsListChanged()
        case PromptListChangedNotification():
            return PromptsListChanged()
        case ResourceListChangedNotification():
            return ResourcesListChanged()
        case ResourceUpdatedNotification(params=params):
            return ResourceUpdated(params.uri)
    return None


class Subscription:
    """One open `subscriptions/listen` stream: an async iterator of events, made by `Client.listen`.

    Every event says "look again", so one that waits already is not kept twice. The iteration ends when the
    server closes the stream; it raises ConnectionClosed when the connection breaks, MCPError when the server
    ends the stream with an error or more than `EVENTS_MAX` different events wait. What happened in between is
    not told again: listen anew, and look at everything.

    Over HTTP a stream that breaks while the server is there is opened again by itself, and then tells every
    event that it can tell (`honored`), since nobody knows what happened in between.
    """

    def __init__(self, id: int) -> None:
        self.id = id  # of the stream that is open
        self.live = False  # that stream was acknowledged
        self.honored = types.SubscriptionFilter()
        self._begun = asyncio.Event()  # acknowledged, or ended before it was
        self._acknowledged = False
        self._events: dict[ServerEvent, None] = {}
        self._news = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    async def acknowledged(self) -> None:
        """Waits until `honored` is known. Raises what ended the stream before."""
        await self._begun.wait()
        if self._error is not None and not self._acknowledged:
            raise self._error

    def take(self, notification: Notification) -> None:
        """One notification of this stream, in order."""
        if isinstance(notification, SubscriptionsAcknowledgedNotification):
            if not self.live and not self._ended:
                self.live = True
                self.honored = notification.params.notifications
                if self._acknowledged:
                    self._tell_all()
                self._acknowledged = True
                self._begun.set()
            return
        event = event_of(notification)
        if event is not None:
            self._keep(event)

    def again(self, id: int) -> None:
        """The stream broke, and another one is asked for."""
        self.id = id
        self.live = False

    @property
    def known(self) -> bool:
        """Whether the server has ever acknowledged it."""
        return self._acknowledged

    def _tell_all(self) -> None:
        honored = self.honored
        if honored.tools_list_changed:
            self._keep(ToolsListChanged())
        if honored.prompts_list_changed:
            self._keep(PromptsListChanged())
        if honored.resources_list_changed:
            self._keep(ResourcesListChanged())
        for uri in honored.resource_subscriptions or ():
            self._keep(ResourceUpdated(uri))

    def _keep(self, event: ServerEvent) -> None:
        if self._ended:
            return
        if len(self._events) >= EVENTS_MAX and event not in self._events:
            self.end(
                MCPError(
                    INTERNAL_ERROR, f"{EVENTS_MAX} events wait untaken; listen anew and look at everything"
                )
            )
            return
        self._events[event] = None
        self._news.set()

    def end(self, error: BaseException | None = None) -> None:
        """No more events will come; those that wait may still be taken. The first end counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._begun.set()
            self._news.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ServerEvent:
        while not self._events:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        event = next(iter(self._events))
        del self._events[event]
        return event
