"""Stubs of a tool as the hot way needs it."""

from collections.abc import Callable
from typing import Any

BODY: int
ENCODE: int
TEXT: int
ALONE: int

class Entry:
    name: str
    owner: Any
    context_at: int
    kind: int
    fast: bool
    own_task: bool
    scalars: bool
    def __init__(
        self,
        name: str,
        owner: Any,
        fn: Callable[..., Any] | None,
        decode: Callable[[Any], Any] | None,
        fields: tuple[str, ...],
        keywords: tuple[str, ...] = (),
        context_at: int = -1,
        kind: int = 2,
        encode: Callable[[Any, Any], bytes] | None = None,
        fast: bool = True,
        own_task: bool = False,
        inline: bool = False,
        scalars: bool = False,
        decoded_type: type | None = None,
        members: tuple[tuple[bytes, type] | tuple[bytes, type, object], ...] | None = None,
    ) -> None: ...
    def find_offsets(self, decoded_type: type | None) -> bool: ...
    def scalars_of(self, arguments: bytes) -> tuple[str | int | bool | Any, ...] | None: ...
    def learn_members(self, members: tuple[Any, ...]) -> None: ...
