"""Content blocks and resource contents, of which results and messages are made (sections 12.3, 14, 25).

The base of all wire structs, `Wire`, stands here too. Attribute names are snake_case, wire names camelCase;
both work when an object is made (`ImageContent(data=..., mime_type=...)` or `mimeType=`). Members that
are absent are None, members that are not known are ignored. Users import these names from `mcpfast.types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, dataclass_transform

import msgspec
from msgspec import Struct, StructMeta, field

Meta: TypeAlias = dict[str, Any]
Role: TypeAlias = Literal["user", "assistant"]


class WireMeta(StructMeta):
    """Lets a struct be made as it stands on the wire too: by camelCase names, and with the tag it has."""

    if not TYPE_CHECKING:  # a type checker goes by the attribute names

        def __new__(mcs, name: str, bases: tuple[type, ...], namespace: Meta, **config: Any) -> Any:
            # kw_only is the one setting that a struct does not inherit.
            return super().__new__(mcs, name, bases, namespace, kw_only=True, **config)

        def __call__(cls, **given: Any) -> Any:  # noqa: N805 (of a metaclass)
            config = cls.__struct_config__
            if config.tag_field in given and given.pop(config.tag_field) != config.tag:
                raise TypeError(f"the {config.tag_field} of a {cls.__name__} is always {config.tag!r}")
            attributes = cls.__struct_fields__
            if not given.keys() <= set(attributes):
                by_wire_name = dict(zip(cls.__struct_encode_fields__, attributes, strict=True))
                given = {by_wire_name.get(camel(name), name): value for name, value in given.items()}
            return super().__call__(**given)


def camel(name: str) -> str:
    """`mime_type` as the wire spells it; what is spelled so already, and `_meta`, stays."""
    first, *rest = parts = name.split("_")
    return name if "" in parts else first + "".join(part.capitalize() for part in rest)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Wire(Struct, metaclass=WireMeta, rename="camel", omit_defaults=True):
    """What goes over the wire: equal by value, absent members left out when it is written."""


class Annotations(Wire):
    """Who a block or resource is for, how much it matters (0 to 1) and when it last changed (ISO 8601)."""

    audience: list[Role] | None = None
    priority: float | None = None
    last_modified: str | None = None


class Icon(Wire):
    """An icon of a tool, resource, prompt or implementation (2025-11-25 and later, section 32)."""

    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["light", "dark"] | None = None


class Block(Wire, tag_field="type"):
    """Base of everything that the wire tells apart by its `type`."""

    if not TYPE_CHECKING:

        @property
        def type(self) -> str:
            return self.__struct_config__.tag


class TextContent(Block, tag="text"):
    """Text for the model."""

    if TYPE_CHECKING:
        type: Literal["text"] = "text"
    text: str
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class ImageContent(Block, tag="image"):
    """An image; `data` is base64 text, as on the wire."""

    if TYPE_CHECKING:
        type: Literal["image"] = "image"
    data: str
    mime_type: str
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class AudioContent(Block, tag="audio"):
    """Sound (2025-03-26 and later); `data` is base64 text, as on the wire."""

    if TYPE_CHECKING:
        type: Literal["audio"] = "audio"
    data: str
    mime_type: str
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class ResourceLink(Block, tag="resource_link"):
    """A resource by its URI, which the client may read (2025-06-18 and later). `size` is in bytes."""

    if TYPE_CHECKING:
        type: Literal["resource_link"] = "resource_link"
    name: str
    uri: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    icons: list[Icon] | None = None
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)


class ResourceContents(Wire):
    """What text and binary contents of a resource have in common."""

    uri: str
    mime_type: str | None = None
    meta: Meta | None = field(name="_meta", default=None)


class TextResourceContents(ResourceContents):
    """Contents of a resource that are text."""

    text: str


class BlobResourceContents(ResourceContents):
    """Contents of a resource that are binary; `blob` is base64 text, as on the wire."""

    blob: str


AnyResourceContents: TypeAlias = TextResourceContents | BlobResourceContents


def resource_contents(value: Any) -> AnyResourceContents:
    """Text or blob contents, told apart by the member they have: the wire has no tag. Objects pass.

    Raises msgspec.ValidationError for an object that is neither.
    """
    if not isinstance(value, dict):
        kept: AnyResourceContents = value
        return kept
    if "blob" in value:
        return msgspec.convert(value, BlobResourceContents)
    return msgspec.convert(value, TextResourceContents)


class EmbeddedResource(Block, tag="resource"):
    """A resource that travels inside the result."""

    if TYPE_CHECKING:
        type: Literal["resource"] = "resource"
        resource: AnyResourceContents
    else:
        resource: Any
    annotations: Annotations | None = None
    meta: Meta | None = field(name="_meta", default=None)

    def __post_init__(self) -> None:
        self.resource = resource_contents(self.resource)


ContentBlock: TypeAlias = TextContent | ImageContent | AudioContent | ResourceLink | EmbeddedResource


class ToolUseContent(Block, tag="tool_use"):
    """In sampling: the model calls a tool (2025-11-25 and later)."""

    if TYPE_CHECKING:
        type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]
    meta: Meta | None = field(name="_meta", default=None)


class ToolResultContent(Block, tag="tool_result"):
    """In sampling: what the called tool answered (2025-11-25 and later)."""

    if TYPE_CHECKING:
        type: Literal["tool_result"] = "tool_result"
    tool_use_id: str
    content: list[ContentBlock]
    structured_content: Any = None
    is_error: bool | None = None
    meta: Meta | None = field(name="_meta", default=None)


SamplingContent: TypeAlias = TextContent | ImageContent | AudioContent
SamplingMessageContentBlock: TypeAlias = SamplingContent | ToolUseContent | ToolResultContent
