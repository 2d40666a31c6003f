"""What a server answers: one struct for the result of each method.

`result_type` absent means "complete" (2026-07-28); `ttl_ms` and `cache_scope` are the caching hints of that
revision. Users import these names from `mcpfast.types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType, field

from mcpfast.protocol.blocks import AnyResourceContents, ContentBlock, Meta, Role, Wire, resource_contents
from mcpfast.protocol.descriptors import (
    Completion,
    Implementation,
    Prompt,
    Resource,
    ResourceTemplate,
    ServerCapabilities,
    Tool,
)
from mcpfast.protocol.questions import InputRequest


class Result(Wire):
    """Any result."""

    meta: Meta | None = field(name="_meta", default=None)
    result_type: str | None = None


EmptyResult = Result
SubscriptionsListenResult = Result


class CacheableResult(Result):
    """A result that says how long (milliseconds) and by whom it may be kept (section 30)."""

    ttl_ms: int | None = None
    cache_scope: Literal["public", "private"] | None = None


class PaginatedResult(CacheableResult):
    """A page of a list; `next_cursor` absent means that it is the last."""

    next_cursor: str | None = None


class InitializeResult(Result):
    """The server's half of the legacy handshake."""

    protocol_version: str
    capabilities: ServerCapabilities
    server_info: Implementation
    instructions: str | None = None


class DiscoverResult(CacheableResult):
    """What a modern server is (server/discover)."""

    supported_versions: list[str]
    capabilities: ServerCapabilities
    instructions: str | None = None

    @property
    def server_info(self) -> Implementation | None:
        """Who the server says it is: it stands in `_meta` here (section 31)."""
        info = (self.meta or {}).get("io.modelcontextprotocol/serverInfo")
        return None if info is None else msgspec.convert(info, Implementation)


class ListToolsResult(PaginatedResult):
    tools: list[Tool]


class ListResourcesResult(PaginatedResult):
    resources: list[Resource]


class ListResourceTemplatesResult(PaginatedResult):
    resource_templates: list[ResourceTemplate]


class ListPromptsResult(PaginatedResult):
    prompts: list[Prompt]


class CallToolResult(Result):
    """What a tool answered. `structured_content` is None when there is none; `is_error`: the tool failed."""

    content: list[ContentBlock]
    structured_content: Any = None
    if TYPE_CHECKING:
        is_error: bool = False
    else:
        # Kept as it was said, so that a result which says `"isError": false` is written again as it was read.
        error_said: bool | UnsetType = field(name="isError", default=UNSET)

        @property
        def is_error(self) -> bool:
            return self.error_said is True

        @is_error.setter
        def is_error(self, value: bool) -> None:
            self.error_said = value


class ReadResourceResult(CacheableResult):
    """The contents of a resource: text or base64, several of them when the resource has parts."""

    if TYPE_CHECKING:
        contents: list[AnyResourceContents]
    else:
        contents: list[Any]

    def __post_init__(self) -> None:
        self.contents = [resource_contents(item) for item in self.contents]


class PromptMessage(Wire):
    """One message of a prompt."""

    role: Role
    content: ContentBlock


class GetPromptResult(Result):
    """A prompt, filled in."""

    messages: list[PromptMessage]
    description: str | None = None


class CompleteResult(Result):
    """Values that complete an argument."""

    completion: Completion


class InputRequiredResult(Result):
    """The server needs answers before it can go on (section 27); one of the two members is there."""

    # Never left out when it is written: it is what tells this result from all others.
    result_type: str = field(default_factory=lambda: "input_required")
    input_requests: dict[str, InputRequest] | None = None
    request_state: str | None = None

    def __post_init__(self) -> None:
        if not self.input_requests and self.request_state is None:
            raise ValueError("an input_required result needs inputRequests or requestState")
