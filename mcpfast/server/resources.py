"""Resources as objects: ready-made ones for `server.add_resource`, and what `ctx.read_resource` gives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class ReadyResource:
    """A resource that brings everything: `server.add_resource(TextResource("config://app", text="{}"))`.

    `uri` is fixed, no template. The options are those of `server.add_resource`. A subclass gives its content by `read`.
    """

    default_mime_type: str | None = None

    def __init__(
        self, uri: str, *, name: str | None = None, mime_type: str | None = None, **options: Any
    ) -> None:
        self.uri = str(uri)
        self.members: dict[str, Any] = {
            "name": name or self.uri,
            "mime_type": mime_type or self.default_mime_type,
            **options,
        }

    def read(self) -> Any:
        """The content, or a coroutine that gives it; a plain `def` runs in a worker thread."""
        raise NotImplementedError


class TextResource(ReadyResource):
    """A text that does not change."""

    default_mime_type = "text/plain"

    def __init__(self, uri: str, text: str, **options: Any) -> None:
        super().__init__(uri, **options)
        self.text = text

    async def read(self) -> str:
        return self.text


class BinaryResource(ReadyResource):
    """Bytes that do not change."""

    default_mime_type = "application/octet-stream"

    def __init__(self, uri: str, data: bytes, **options: Any) -> None:
        super().__init__(uri, **options)
        self.data = data

    async def read(self) -> bytes:
        return self.data


class FileResource(ReadyResource):
    """A file, read anew each time: as text in UTF-8, or with `is_binary` as bytes. `path` must be absolute.

    `is_binary` follows from the media type where it is not given: what is no text/*, JSON or XML is binary.
    """

    default_mime_type = "text/plain"

    def __init__(
        self, uri: str, path: str | os.PathLike[str], is_binary: bool | None = None, **options: Any
    ) -> None:
        super().__init__(uri, **options)
        self.path = Path(path)
        if not self.path.is_absolute():
            raise ValueError(f"FileResource: {str(path)!r} must be an absolute path")
        kind = self.members["mime_type"]
        self.is_binary = (
            not (kind.startswith("text/") or kind.endswith(("json", "xml")))
            if is_binary is None
            else is_binary
        )

    def read(self) -> str | bytes:
        return self.path.read_bytes() if self.is_binary else self.path.read_text(encoding="utf-8")


class FunctionResource(ReadyResource):
    """What a function gives; the same as `server.add_resource(uri, fn)`."""

    def __init__(self, uri: str, fn: Callable[..., Any], **options: Any) -> None:
        super().__init__(uri, **options)
        self.read = fn  # type: ignore[method-assign]
        self.members["name"] = options.get("name") or fn.__name__


class ReadContents:
    """One of the contents of a resource that `ctx.read_resource` read."""

    __slots__ = ("content", "meta", "mime_type", "uri")

    def __init__(self, wire: dict[str, Any]) -> None:
        self.uri: str = wire["uri"]
        self.mime_type: str | None = wire.get("mimeType")
        self.meta: dict[str, Any] | None = wire.get("_meta")
        self.content: str | bytes
        if "text" in wire:
            self.content = wire["text"]
        else:
            from base64 import b64decode

            self.content = b64decode(wire["blob"])

    @property
    def text(self) -> str:
        """The content as text. Raises TypeError for bytes."""
        if isinstance(self.content, bytes):
            raise TypeError(f"{self.uri} is binary ({self.mime_type}): read `.content`")
        return self.content


__all__ = [
    "BinaryResource",
    "FileResource",
    "FunctionResource",
    "ReadContents",
    "ReadyResource",
    "TextResource",
]
