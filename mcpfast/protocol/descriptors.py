"""What lists and handshakes describe: tools, resources, prompts, capabilities (sections 5.1, 12, 14, 16).

Users import these names from `mcpfast.types`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import field

from mcpfast.protocol.blocks import Annotations, Icon, Meta, Wire


class Implementation(Wire):
    """Name and version of a client or server, as it says itself: for display, never for decisions."""

    name: str
    version: str
    title: str | None = None
    description: str | None = None
    website_url: str | None = None
    icons: list[Icon] | None = None


# --- tools


class ToolAnnotations(Wire):
    """Hints about a tool, which no client must trust.

    Absent means: not read-only, destructive, not idempotent, open world.
    """

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class ToolExecution(Wire):
    """Whether a tool may run as a task (2025-11-25 only)."""

    task_support: Literal["forbidden", "optional", "required"] | None = None


class Tool(Wire):
    """A tool as `tools/list` tells it. The schemas are JSON Schema 2020-12, as plain dicts."""

    name: str
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    annotations: ToolAnnotations | None = None
    execution: ToolExecution | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = field(name="_meta", default=None)


# --- resources


class Resource(Wire):
    """A resource as `resources/list` tells it. `size` is in bytes, before any encoding."""

    name: str
    uri: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    icons: list[Icon] | None = None
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class ResourceTemplate(Wire):
    """A family of resources; `uri_template` is RFC 6570."""

    name: str
    uri_template: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    icons: list[Icon] | None = None
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class Root(Wire):
    """A place of the client's file system that the server may work in; `uri` starts with file://."""

    uri: str
    name: str | None = None
    meta: Meta | None = field(name="_meta", default=None)


# --- prompts and completion


class PromptArgument(Wire):
    """An argument of a prompt; the value is always a string."""

    name: str
    title: str | None = None
    description: str | None = None
    required: bool | None = None


class Prompt(Wire):
    """A prompt as `prompts/list` tells it."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = field(name="_meta", default=None)


class Completion(Wire):
    """Values that complete an argument, at most 100; `total` counts those that were not sent too."""

    values: list[str]
    total: int | None = None
    has_more: bool | None = None


# --- capabilities. What the specification leaves open, or leaves empty, is a plain dict.

OpenCapability: TypeAlias = dict[str, Any]
FormElicitationCapability: TypeAlias = OpenCapability
UrlElicitationCapability: TypeAlias = OpenCapability
SamplingContextCapability: TypeAlias = OpenCapability
SamplingToolsCapability: TypeAlias = OpenCapability
LoggingCapability: TypeAlias = OpenCapability
CompletionsCapability: TypeAlias = OpenCapability


class RootsCapability(Wire):
    """The client tells its roots, and (before 2026-07-28) when they change."""

    list_changed: bool | None = None


class SamplingCapability(Wire):
    """The client lets the server ask its model."""

    context: SamplingContextCapability | None = None
    tools: SamplingToolsCapability | None = None


class ElicitationCapability(Wire):
    """The client asks its user. Nothing inside means forms only (section 26)."""

    form: FormElicitationCapability | None = None
    url: UrlElicitationCapability | None = None


class ClientCapabilities(Wire):
    """What a client can do; anything it invents itself stands in `experimental` or `extensions`."""

    roots: RootsCapability | None = None
    sampling: SamplingCapability | None = None
    elicitation: ElicitationCapability | None = None
    tasks: OpenCapability | None = None
    extensions: dict[str, OpenCapability] | None = None
    experimental: dict[str, OpenCapability] | None = None


class ToolsCapability(Wire):
    """The server has tools, and says so when they change."""

    list_changed: bool | None = None


class PromptsCapability(Wire):
    """The server has prompts, and says so when they change."""

    list_changed: bool | None = None


class ResourcesCapability(Wire):
    """The server has resources; clients may subscribe to one, or to the list."""

    subscribe: bool | None = None
    list_changed: bool | None = None


class ServerCapabilities(Wire):
    """What a server can do; anything it invents itself stands in `experimental` or `extensions`."""

    tools: ToolsCapability | None = None
    resources: ResourcesCapability | None = None
    prompts: PromptsCapability | None = None
    completions: CompletionsCapability | None = None
    logging: LoggingCapability | None = None
    tasks: OpenCapability | None = None
    extensions: dict[str, OpenCapability] | None = None
    experimental: dict[str, OpenCapability] | None = None
