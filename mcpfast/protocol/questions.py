"""What a server asks its client: elicitation, sampling and roots, and the answers (sections 24 to 27).

Before 2026-07-28 each is a request of its own; from then on they travel inside an `InputRequiredResult`.
Users import these names from `mcpfast.types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import field

from mcpfast.protocol.blocks import Meta, Role, SamplingMessageContentBlock, Wire
from mcpfast.protocol.descriptors import Root, Tool

# --- sampling


class ModelHint(Wire):
    """Part of a model's name, say "sonnet"."""

    name: str | None = None


class ModelPreferences(Wire):
    """What the server would like in a model; priorities from 0 to 1."""

    hints: list[ModelHint] | None = None
    cost_priority: float | None = None
    speed_priority: float | None = None
    intelligence_priority: float | None = None


class SamplingMessage(Wire):
    """One message of a conversation; several blocks from 2025-11-25 on."""

    role: Role
    content: SamplingMessageContentBlock | list[SamplingMessageContentBlock]
    meta: Meta | None = field(name="_meta", default=None)

    @property
    def content_as_list(self) -> list[SamplingMessageContentBlock]:
        """The content as a list, whatever the wire had."""
        return self.content if isinstance(self.content, list) else [self.content]


class ToolChoice(Wire):
    """Whether the model may, must or must not call tools."""

    mode: Literal["auto", "required", "none"] | None = None


class CreateMessageRequestParams(Wire):
    """The server asks the client's model (sampling/createMessage)."""

    messages: list[SamplingMessage]
    max_tokens: int
    model_preferences: ModelPreferences | None = None
    system_prompt: str | None = None
    include_context: Literal["none", "thisServer", "allServers"] | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    meta: Meta | None = field(name="_meta", default=None)


class CreateMessageResult(SamplingMessage):
    """What the client's model said.

    `stop_reason` is endTurn, stopSequence, maxTokens, toolUse or the provider's own word.
    """

    model: str
    stop_reason: str | None = None


CreateMessageResultWithTools: TypeAlias = CreateMessageResult

# --- elicitation


class ElicitRequestFormParams(Wire):
    """The server asks the user to fill in a form; `requested_schema` is a flat object of primitives."""

    # Not a Literal: "form" as read from the wire is another object than the default, and so is written again.
    # Absent stays absent, which clients of 2025-06-18 need.
    mode: str = "form"
    message: str
    requested_schema: dict[str, Any]
    meta: Meta | None = field(name="_meta", default=None)


class ElicitRequestURLParams(Wire, tag_field="mode", tag="url"):
    """The server asks the user to open a page (2025-11-25 and later, `elicitation_id` only there)."""

    if TYPE_CHECKING:
        mode: Literal["url"] = "url"
    else:

        @property
        def mode(self) -> str:
            return "url"

    message: str
    url: str
    elicitation_id: str | None = None
    meta: Meta | None = field(name="_meta", default=None)


ElicitRequestParams: TypeAlias = ElicitRequestFormParams | ElicitRequestURLParams
ElicitRequestedSchema: TypeAlias = dict[str, Any]


def elicit_params(value: Any) -> ElicitRequestParams:
    """Form or URL params, told apart by `mode`, which a form may leave out. Objects pass as they are.

    Raises msgspec.ValidationError for what is neither.
    """
    if not isinstance(value, dict):
        kept: ElicitRequestParams = value
        return kept
    mode = value.get("mode", "form")
    if mode == "url":
        return msgspec.convert(value, ElicitRequestURLParams)
    if mode != "form":
        raise msgspec.ValidationError("`mode` must be form or url")
    return msgspec.convert(value, ElicitRequestFormParams)


class ElicitResult(Wire):
    """What the user did; `content` holds the form's values, only with accept."""

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, str | int | float | bool | list[str] | None] | None = None
    meta: Meta | None = field(name="_meta", default=None)


# --- roots


class ListRootsResult(Wire):
    """The client's roots."""

    roots: list[Root]
    meta: Meta | None = field(name="_meta", default=None)


# --- the three as they stand in `inputRequests`: method and params, no id


class InputRequestBase(Wire, tag_field="method"):
    """Base of what the wire tells apart by its `method`."""

    if not TYPE_CHECKING:

        @property
        def method(self) -> str:
            return self.__struct_config__.tag


class ElicitRequest(InputRequestBase, tag="elicitation/create"):
    """Ask the user."""

    if TYPE_CHECKING:
        method: Literal["elicitation/create"] = "elicitation/create"
        params: ElicitRequestParams
    else:
        params: Any

    def __post_init__(self) -> None:
        self.params = elicit_params(self.params)


class CreateMessageRequest(InputRequestBase, tag="sampling/createMessage"):
    """Ask the client's model."""

    if TYPE_CHECKING:
        method: Literal["sampling/createMessage"] = "sampling/createMessage"
    params: CreateMessageRequestParams


class ListRootsRequest(InputRequestBase, tag="roots/list"):
    """Ask for the roots."""

    if TYPE_CHECKING:
        method: Literal["roots/list"] = "roots/list"
    id: int | str | None = None  # not in the schema of 2026-07-28, but in its example
    params: dict[str, Any] | None = None


InputRequest: TypeAlias = ElicitRequest | CreateMessageRequest | ListRootsRequest
InputRequests: TypeAlias = dict[str, InputRequest]
InputResponse: TypeAlias = ElicitResult | CreateMessageResult | ListRootsResult
InputResponses: TypeAlias = dict[str, InputResponse]


def input_response(value: Any) -> InputResponse:
    """A client's answer to one question, told apart by the member that only it has. Objects pass as they are.

    Raises msgspec.ValidationError for what is none of the three.
    """
    if not isinstance(value, dict):
        kept: InputResponse = value
        return kept
    if "action" in value:
        return msgspec.convert(value, ElicitResult)
    if "roots" in value:
        return msgspec.convert(value, ListRootsResult)
    return msgspec.convert(value, CreateMessageResult)
