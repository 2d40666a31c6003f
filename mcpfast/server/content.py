"""What handlers may return, as the wire has it: content blocks, prompt messages, resource contents.

Users import `Image`, `Audio`, `ToolResult`, `Message`, `UserMessage` and `AssistantMessage` from `mcpfast`. Imported
when the first result needs more than text.
"""

from __future__ import annotations

from binascii import b2a_base64
from os import fsdecode
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mcpfast.protocol.blocks import (
    Annotations,
    AnyResourceContents,
    AudioContent,
    BlobResourceContents,
    Block,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    Meta,
    ResourceContents,
    Role,
    TextContent,
    TextResourceContents,
)
from mcpfast.protocol.results import CallToolResult, GetPromptResult, PromptMessage, ReadResourceResult
from mcpfast.server.encoding import encode, encode_text

if TYPE_CHECKING:
    from os import PathLike

    from mcpfast.server.signature import Described

# The URI of bytes that a tool returns: an embedded resource must have one, these bytes have no other place.
BYTES_URI = "mcpfast:bytes"
BYTES_TYPE = "application/octet-stream"


class Media:
    """Base of `Image` and `Audio`: raw bytes, or a file that is read when the result is sent.

    `path` or `data`, one of them; `format` is a file ending ("png", "wav"), for when the path does not tell.
    Raises ValueError for both or neither, OSError where the file cannot be read.
    """

    kind: str
    default_format: str
    formats: dict[str, str]

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        data: bytes | None = None,
        format: str | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        if (path is None) == (data is None):
            raise ValueError(f"{type(self).__name__} takes either path= or data=")
        self.path = None if path is None else fsdecode(path)
        self.data = data
        self.annotations = annotations
        self.mime_type = self._mime_type(format)

    def _mime_type(self, format_name: str | None) -> str:
        if format_name is None and self.path is not None:
            ending = self.path.rpartition(".")[2].lower()
            return self.formats.get(ending, BYTES_TYPE)
        ending = (format_name or self.default_format).lower()
        return self.formats.get(ending, f"{self.kind}/{ending}")

    def base64(self) -> str:
        """The bytes as base64 text."""
        if self.path is None:
            return base64(self.data)
        with open(self.path, "rb") as file:
            return base64(file.read())


class Image(Media):
    """An image to return from a tool or put into a prompt: `Image(path="chart.png")`, `Image(data=png_bytes)`."""

    kind = "image"
    default_format = "png"
    formats = {  # noqa: RUF012
        "png": "image/png",
        "jpg": "image/jpeg",
        "jpeg": "image/jpeg",
        "gif": "image/gif",
        "webp": "image/webp",
        "svg": "image/svg+xml",
        "bmp": "image/bmp",
        "tif": "image/tiff",
        "tiff": "image/tiff",
        "avif": "image/avif",
        "ico": "image/x-icon",
    }

    def to_image_content(self) -> ImageContent:
        """The image as a content block."""
        return ImageContent(data=self.base64(), mime_type=self.mime_type, annotations=self.annotations)


class Audio(Media):
    """Sound to return from a tool or put into a prompt: `Audio(path="note.wav")`, `Audio(data=raw, format="mp3")`."""

    kind = "audio"
    default_format = "wav"
    formats = {  # noqa: RUF012
        "wav": "audio/wav",
        "mp3": "audio/mpeg",
        "ogg": "audio/ogg",
        "oga": "audio/ogg",
        "opus": "audio/opus",
        "flac": "audio/flac",
        "aac": "audio/aac",
        "m4a": "audio/mp4",
        "weba": "audio/webm",
    }

    def to_audio_content(self) -> AudioContent:
        """The sound as a content block."""
        return AudioContent(data=self.base64(), mime_type=self.mime_type, annotations=self.annotations)


class ToolResult:
    """A tool's result in full: what the model reads, what a program reads, `_meta`, and whether the tool failed.

    `content` is anything a tool may return; left out, it is the structured content as JSON. `structured_content` must
    conform to the tool's output schema, if it has one.
    """

    __slots__ = ("content", "is_error", "meta", "structured_content")

    def __init__(
        self,
        content: Any = None,
        structured_content: Any = None,
        meta: Meta | None = None,
        is_error: bool = False,
    ) -> None:
        self.content = content
        self.structured_content = structured_content
        self.meta = meta
        self.is_error = is_error


class Message:
    """One message of a prompt. `content` is a str, a content block, an Image or Audio; anything else becomes JSON."""

    __slots__ = ("content", "role")

    def __init__(self, content: Any, role: Role = "user") -> None:
        self.role: Role = role
        self.content = to_block(content)


class UserMessage(Message):
    """A message of the user."""

    __slots__ = ()

    def __init__(self, content: Any) -> None:
        super().__init__(content, "user")


class AssistantMessage(Message):
    """A message of the assistant."""

    __slots__ = ()

    def __init__(self, content: Any) -> None:
        super().__init__(content, "assistant")


# What becomes a block of its own; everything else becomes text.
CONTENT = (Block, Media, ResourceContents, bytes, bytearray, memoryview)


def base64(data: Any) -> str:
    """Bytes, or any buffer, as base64 text."""
    return b2a_base64(data, newline=False).decode()


# ---------------------------------------------------------------------------------------------- tools


def to_call_result(value: Any, signature: Described | None = None) -> CallToolResult:
    """The result of a tool whose handler returned `value` (section 12.3).

    Content blocks, `Image`, `Audio`, bytes, and lists in which one of these stands, become content blocks; a str is
    text, None is nothing, everything else is JSON text; of an object that JSON has nothing for it is what `str` says, if
    the tool is annotated as returning Any or not at all. A tool with an output schema gives structured content too.
    Raises TypeError for what cannot be written as JSON or does not conform to the tool's output schema.
    """
    if isinstance(value, CallToolResult):
        value.structured_content = _checked(value.structured_content, value.is_error, signature)
        return value
    if isinstance(value, ToolResult):
        structured = _checked(value.structured_content, value.is_error, signature)
        content = value.content if value.content is not None else value.structured_content
        result = CallToolResult(content=to_content(content), structured_content=structured, meta=value.meta)
        if value.is_error:
            result.is_error = True
        return result
    if signature is None:
        return CallToolResult(content=to_content(value))
    if not signature.is_structured:
        anything = signature.return_type is Any  # or there is none
        return CallToolResult(content=to_content(value, signature.returns_content, anything))
    is_mixed = isinstance(value, list | tuple) and any(isinstance(item, Media | Block) for item in value)
    if (
        is_mixed
    ):  # a list[Any], say: blocks for the model, and the same as data, since the schema promises data
        value = [to_block(item) if isinstance(item, Media) else item for item in value]
    raw = signature.encode_structured(value)
    if is_mixed or (signature.structured_output and has_content(value)):
        blocks = to_content(value)
    elif isinstance(value, str):
        blocks = [TextContent(text=value)]
    else:
        inner = raw[len(b'{"result":') : -1] if signature.wraps_output else raw
        blocks = [TextContent(text=inner.decode())]
    return CallToolResult(content=blocks, structured_content=msgspec.json.decode(raw))


def _checked(structured: Any, is_error: bool, signature: Described | None) -> Any:
    """Structured content that a handler put together itself, as plain values."""
    if signature is not None and signature.is_structured and not is_error:
        if structured is None:
            raise TypeError(f"{signature.name}() has an output schema; its result needs structured_content")
        return msgspec.json.decode(signature.check_structured(structured))
    return structured if structured is None else msgspec.json.decode(encode(structured))


def to_content(value: Any, only_blocks: bool = False, anything: bool = False) -> list[ContentBlock]:
    """The content blocks of a value. With `only_blocks` every list is a list of blocks, be it empty or of str.

    With `anything` no object is refused.
    """
    if value is None:
        return []
    if isinstance(value, list | tuple) and (only_blocks or has_content(value)):
        return [block for item in value for block in to_content(item, only_blocks, anything)]
    return [to_block(value, anything)]


def has_content(value: Any) -> bool:
    """Whether the value is, or is a list with, something that becomes a content block other than text."""
    if isinstance(value, list | tuple):
        return any(issubclass(kind, CONTENT) for kind in set(map(type, value)))  # few types, maybe many items
    return isinstance(value, CONTENT)


def to_block(value: Any, anything: bool = False) -> ContentBlock:
    """One content block for one value. Raises TypeError for what cannot be written as JSON."""
    if isinstance(value, str):
        return TextContent(text=value)
    if isinstance(value, Block):
        return value  # type: ignore[return-value]
    if isinstance(value, Image):
        return value.to_image_content()
    if isinstance(value, Audio):
        return value.to_audio_content()
    if isinstance(value, bytes | bytearray | memoryview):
        blob = BlobResourceContents(uri=BYTES_URI, mime_type=BYTES_TYPE, blob=base64(value))
        return EmbeddedResource(resource=blob)
    if isinstance(value, TextResourceContents | BlobResourceContents):
        return EmbeddedResource(resource=value)
    return TextContent(text=encode_text(value, anything=anything))


# ---------------------------------------------------------------------------------------------- prompts


def to_prompt_messages(value: Any) -> list[PromptMessage]:
    """The messages of a prompt whose handler returned `value`: one or a list of str, Message, dict, content.

    What has no role is the user's. Raises TypeError for what cannot be a message.
    """
    if isinstance(value, GetPromptResult):
        return value.messages
    if value is None:
        raise TypeError("a prompt must return at least one message, not None")
    items = value if isinstance(value, list | tuple) else [value]
    return [_message(item) for item in items]


def to_prompt_result(value: Any) -> GetPromptResult:
    """The same as a whole result; a GetPromptResult passes as it is."""
    return (
        value if isinstance(value, GetPromptResult) else GetPromptResult(messages=to_prompt_messages(value))
    )


def _message(item: Any) -> PromptMessage:
    if isinstance(item, PromptMessage):
        return item
    if isinstance(item, dict) and item.keys() >= {"role", "content"}:
        return PromptMessage(role=_role(item["role"]), content=_block_of(item["content"]))
    if isinstance(item, Message):
        return PromptMessage(role=_role(item.role), content=item.content)
    return PromptMessage(role="user", content=to_block(item))


def _role(role: Any) -> Literal["user", "assistant"]:
    if role in ("user", "assistant"):
        return role  # type: ignore[no-any-return]
    raise TypeError(f"the role of a prompt message is 'user' or 'assistant', not {role!r}")


def _block_of(content: Any) -> ContentBlock:
    """The content of a message written as a dict: a block may be a dict too."""
    if isinstance(content, dict) and "type" in content:
        try:
            block: ContentBlock = msgspec.convert(content, ContentBlock)
            return block
        except msgspec.ValidationError as error:
            raise TypeError(f"a prompt message has content that is no content block: {error}") from None
    return to_block(content)


# ---------------------------------------------------------------------------------------------- resources


def to_resource_contents(value: Any, uri: str, mime_type: str | None = None) -> list[AnyResourceContents]:
    """The contents of the resource `uri` whose handler returned `value` (section 14).

    A str is text, bytes are a blob, resource contents pass as they are, a list in which one of the last two stands is
    several contents; everything else is JSON text. `mime_type` is what the resource was registered with.
    Raises TypeError for what cannot be written as JSON.
    """
    if isinstance(value, ReadResourceResult):
        return value.contents
    if isinstance(value, list | tuple) and has_content(value):
        return [part for item in value for part in to_resource_contents(item, uri, mime_type)]
    if isinstance(value, TextResourceContents | BlobResourceContents):
        return [value]
    if isinstance(value, EmbeddedResource):
        return [value.resource]
    if isinstance(value, bytes | bytearray | memoryview):
        return [BlobResourceContents(uri=uri, mime_type=mime_type or BYTES_TYPE, blob=base64(value))]
    if isinstance(value, Media):
        return [BlobResourceContents(uri=uri, mime_type=mime_type or value.mime_type, blob=value.base64())]
    if isinstance(value, TextContent):
        value = value.text
    text = encode_text(value)
    kind = mime_type or ("text/plain" if isinstance(value, str) else "application/json")
    return [TextResourceContents(uri=uri, mime_type=kind, text=text)]
