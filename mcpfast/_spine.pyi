"""Stubs of the spine: the way of one message."""

import asyncio
from typing import Any

from typing_extensions import Buffer

from mcpfast._caller import Caller, Pass
from mcpfast._calls import Carriers, Source
from mcpfast._core import Blocks, Table
from mcpfast._entry import Entry
from mcpfast._quota import Gate
from mcpfast.limits import Limits

class Wire:
    revision: str
    index: int
    modern: bool
    version: bytes
    structured: bool
    def __init__(
        self,
        revision: str,
        index: int,
        modern: bool,
        structured: bool,
        text_open: bytes,
        text_close: bytes,
        both_open: bytes,
        both_close: bytes,
    ) -> None: ...

class Request:
    channel: Channel
    id: bytes
    method: str
    params: bytes | None
    progress_token: bytes | None
    version: bytes | None
    wire: Wire
    entry: Entry
    task: asyncio.Task[Any] | None
    cancelled: str | None
    alive: bool
    bytes_in: int
    state: Any
    started_s: float
    caller: Caller | None
    entered: Pass | None
    timed_out: bool
    def cancel(self, reason: str | None) -> bool: ...
    def enter(self, granted: Pass) -> None: ...
    def time_is_up(self) -> None: ...

class Batch:
    def __init__(self, channel: Channel) -> None: ...
    def seal(self) -> None: ...

class Engine:
    loop: asyncio.AbstractEventLoop
    upper: Any
    carriers: Carriers
    blocks: Blocks
    tools: Table
    modern_wires: tuple[Wire, ...]
    observer: Any
    closing: bool
    tenancy: Any
    gate: Gate | None
    generation: int
    epoch_ahead_s: float
    now_s: float
    depth_max: int
    frame_bytes_max: int
    id_bytes_max: int
    output_high_bytes: int
    output_low_bytes: int
    output_bytes_max: int
    output_cork_bytes: int
    connection_calls_max: int
    answered: int
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upper: Any,
        carriers: Carriers,
        tools: Table,
        modern_wires: tuple[Wire, ...],
        log_levels: Table,
        limits: Limits,
    ) -> None: ...
    def end_of_turn(self) -> None: ...

class Channel(Source):
    engine: Engine
    closed: bool
    ended_input: bool
    wire: Wire | None
    session: Any
    caller: Caller | None
    owner: Any
    reading: bool
    reads: int
    @property
    def calls(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    @property
    def waiting_bytes(self) -> int: ...
    def __init__(self, engine: Engine, owner: Any) -> None: ...
    def feed(self, data: Buffer) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def end_input(self) -> None: ...
    def submit(self, line: bytes, batch: Batch | None) -> None: ...
    def new_batch(self) -> Batch: ...
    def find(self, id: bytes) -> Request | None: ...
    def requests(self) -> list[Request]: ...
    def cancel_calls(self, reason: str) -> None: ...
    def send(self, line: bytes) -> None: ...
    def evidence(self) -> Any: ...
    def refuses(self, error: Any) -> None: ...
    def reply(self, line: bytes) -> None: ...
    def close_stream(self) -> None: ...
    def taken(self) -> asyncio.Future[None]: ...
    def flush_now(self) -> None: ...
    def close(self) -> None: ...
