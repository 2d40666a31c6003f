"""Stubs of the room that knows how a call gets its Task."""

import asyncio
from contextvars import Context
from typing import Any

class Source: ...

class Carrier:
    source: Source | None
    task: asyncio.Task[Any] | None
    request: Any
    @property
    def cr_await(self) -> Any: ...
    @property
    def cr_code(self) -> Any: ...
    @property
    def cr_frame(self) -> Any: ...
    @property
    def cr_running(self) -> bool: ...
    @property
    def cr_suspended(self) -> bool: ...
    def __await__(self) -> Any: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

class Carriers:
    loop: asyncio.AbstractEventLoop
    base: Context
    warm: bool
    made: int
    retired_count: int
    parked_max: int
    parked_count: int
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future_type: type,
        task_type: type,
        base_context: Context,
        warm: bool = True,
        parked_max: int = 256,
    ) -> None: ...
    def check(self) -> bool: ...
    def counts(self) -> tuple[int, int, int]: ...
    def close(self) -> list[asyncio.Task[Any]]: ...
