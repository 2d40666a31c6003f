"""What requests and notifications carry, and the whole messages around them.

`PARAMS` and `RESULTS` say which struct belongs to which method (section 2). Users import these names from
`mcpfast.types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import field

from mcpfast.protocol import results
from mcpfast.protocol.blocks import Meta, Wire
from mcpfast.protocol.descriptors import ClientCapabilities, Implementation
from mcpfast.protocol.questions import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
)

RequestId: TypeAlias = int | str
ProgressToken: TypeAlias = int | str
LoggingLevel: TypeAlias = Literal[
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"
]


class RequestParams(Wire):
    """Params of a request: at least `_meta`, which from 2026-07-28 on is the envelope (section 6)."""

    meta: Meta | None = field(name="_meta", default=None)


class NotificationParams(Wire):
    """Params of a notification."""

    meta: Meta | None = field(name="_meta", default=None)


# --- requests of a client


class InitializeRequestParams(RequestParams):
    protocol_version: str
    capabilities: ClientCapabilities
    client_info: Implementation


class PaginatedRequestParams(RequestParams):
    cursor: str | None = None


class InputResponseRequestParams(RequestParams):
    """Params that may answer an `input_required` result, each question by its key (section 27)."""

    input_responses: dict[str, dict[str, Any]] | None = None
    request_state: str | None = None


class CallToolRequestParams(InputResponseRequestParams):
    name: str
    arguments: dict[str, Any] | None = None
    task: dict[str, Any] | None = None


class ReadResourceRequestParams(InputResponseRequestParams):
    uri: str


class GetPromptRequestParams(InputResponseRequestParams):
    name: str
    arguments: dict[str, str] | None = None


class SubscribeRequestParams(RequestParams):
    uri: str


UnsubscribeRequestParams: TypeAlias = SubscribeRequestParams


class SetLevelRequestParams(RequestParams):
    level: LoggingLevel


class PromptReference(Wire, tag_field="type", tag="ref/prompt"):
    """A prompt whose argument is to be completed."""

    if TYPE_CHECKING:
        type: Literal["ref/prompt"] = "ref/prompt"
    name: str
    title: str | None = None


class ResourceTemplateReference(Wire, tag_field="type", tag="ref/resource"):
    """A resource template whose variable is to be completed."""

    if TYPE_CHECKING:
        type: Literal["ref/resource"] = "ref/resource"
    uri: str


class CompletionArgument(Wire):
    name: str
    value: str


class CompletionContext(Wire):
    """Arguments that are filled in already (2025-06-18 and later)."""

    arguments: dict[str, str] | None = None


class CompleteRequestParams(RequestParams):
    ref: PromptReference | ResourceTemplateReference
    argument: CompletionArgument
    context: CompletionContext | None = None


class SubscriptionFilter(Wire):
    """What a listen stream tells (section 15)."""

    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None


class SubscriptionsListenRequestParams(RequestParams):
    notifications: SubscriptionFilter


# --- notifications


class CancelledNotificationParams(NotificationParams):
    request_id: RequestId | None = None
    reason: str | None = None


class ProgressNotificationParams(NotificationParams):
    progress_token: ProgressToken
    progress: int | float
    total: int | float | None = None
    message: str | None = None


class LoggingMessageNotificationParams(NotificationParams):
    level: LoggingLevel
    logger: str | None = None
    data: Any


class ResourceUpdatedNotificationParams(NotificationParams):
    uri: str


class ElicitCompleteNotificationParams(NotificationParams):
    elicitation_id: str


class SubscriptionsAcknowledgedNotificationParams(NotificationParams):
    notifications: SubscriptionFilter


# --- whole messages


class ErrorData(Wire):
    """The error of a JSON-RPC answer."""

    code: int
    message: str
    data: Any = None


class Envelope(Wire, tag_field="jsonrpc", tag="2.0"):
    """Base of all messages."""

    if TYPE_CHECKING:
        jsonrpc: Literal["2.0"] = "2.0"
    else:

        @property
        def jsonrpc(self) -> str:
            return "2.0"


class JSONRPCRequest(Envelope):
    id: RequestId
    method: str
    params: dict[str, Any] | None = None


class JSONRPCNotification(Envelope):
    method: str
    params: dict[str, Any] | None = None


class JSONRPCResponse(Envelope):
    id: RequestId
    result: dict[str, Any]


class JSONRPCError(Envelope):
    id: RequestId | None = None
    error: ErrorData


PARAMS: dict[str, Any] = {
    "initialize": InitializeRequestParams,
    "ping": RequestParams,
    "server/discover": RequestParams,
    "subscriptions/listen": SubscriptionsListenRequestParams,
    "tools/list": PaginatedRequestParams,
    "tools/call": CallToolRequestParams,
    "resources/list": PaginatedRequestParams,
    "resources/templates/list": PaginatedRequestParams,
    "resources/read": ReadResourceRequestParams,
    "resources/subscribe": SubscribeRequestParams,
    "resources/unsubscribe": UnsubscribeRequestParams,
    "prompts/list": PaginatedRequestParams,
    "prompts/get": GetPromptRequestParams,
    "completion/complete": CompleteRequestParams,
    "logging/setLevel": SetLevelRequestParams,
    "sampling/createMessage": CreateMessageRequestParams,
    "roots/list": RequestParams,
    # elicitation/create: see questions.elicit_params, since a form may leave its `mode` out
    "notifications/initialized": NotificationParams,
    "notifications/cancelled": CancelledNotificationParams,
    "notifications/progress": ProgressNotificationParams,
    "notifications/message": LoggingMessageNotificationParams,
    "notifications/tools/list_changed": NotificationParams,
    "notifications/prompts/list_changed": NotificationParams,
    "notifications/resources/list_changed": NotificationParams,
    "notifications/resources/updated": ResourceUpdatedNotificationParams,
    "notifications/roots/list_changed": NotificationParams,
    "notifications/elicitation/complete": ElicitCompleteNotificationParams,
    "notifications/subscriptions/acknowledged": SubscriptionsAcknowledgedNotificationParams,
}

# What a complete result is; where `input_required` may come instead see modern.RETRIED.
RESULTS: dict[str, Any] = {
    "initialize": results.InitializeResult,
    "ping": results.EmptyResult,
    "server/discover": results.DiscoverResult,
    "subscriptions/listen": results.SubscriptionsListenResult,
    "tools/list": results.ListToolsResult,
    "tools/call": results.CallToolResult,
    "resources/list": results.ListResourcesResult,
    "resources/templates/list": results.ListResourceTemplatesResult,
    "resources/read": results.ReadResourceResult,
    "resources/subscribe": results.EmptyResult,
    "resources/unsubscribe": results.EmptyResult,
    "prompts/list": results.ListPromptsResult,
    "prompts/get": results.GetPromptResult,
    "completion/complete": results.CompleteResult,
    "logging/setLevel": results.EmptyResult,
    "elicitation/create": ElicitResult,
    "sampling/createMessage": CreateMessageResult,
    "roots/list": ListRootsResult,
}
