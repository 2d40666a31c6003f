"""Stubs of one HTTP exchange."""

from collections.abc import Iterable
from typing import Any

from mcpfast._caller import Caller
from mcpfast._spine import Channel, Engine, Request

class Head:
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    extra: bytes | None
    caller: Caller | None
    tenant: str | None
    keep_alive: bool
    chunks: bool
    doubled: bool
    admitted: bool
    @staticmethod
    def made(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Head: ...
    def header(self, name: bytes) -> bytes | None: ...
    @property
    def protocol_version(self) -> bytes | None: ...
    @property
    def session_id(self) -> bytes | None: ...

class Front:
    engine: Engine
    upper: Any
    path: bytes
    accepts: set[bytes]
    types: set[bytes]
    hosts: set[bytes]
    origins: dict[tuple[bytes, bytes], bytes]
    revisions: set[bytes]
    plain_tools: set[bytes]
    versions: set[bytes]
    sessions: dict[bytes, Any] | None
    sessionless: bool
    def __init__(
        self,
        engine: Engine,
        upper: Any,
        path: bytes,
        revisions: set[bytes],
        versions: set[bytes],
        sessions: dict[bytes, Any] | None,
        sessionless: bool,
    ) -> None: ...

class Exchange(Channel):
    front: Front
    head: Head | None
    since_s: float
    modern: bool
    own: Any
    recording: Any
    extra: bytes | None
    tied: Any
    root: str
    secure: bool
    shown: Any
    asked: Head | None
    resumes: bool
    def __init__(self, front: Front) -> None: ...
    def hang_up(self) -> None: ...
    def abort(self) -> None: ...
    def peer_address(self) -> str | None: ...
    def respond(self, status: int, body: bytes = b"", kind: bytes = ..., extra: bytes = b"") -> None: ...
    def reply_with(self, status: int, line: bytes, extra: bytes = b"") -> None: ...
    def send(self, line: bytes) -> None: ...
    def start_stream(self) -> None: ...
    def put_raw(self, text: bytes) -> None: ...
    def close_stream(self) -> None: ...
    def end_stream(self) -> None: ...
    def lost(self) -> None: ...
    def take(self, head: Head) -> None: ...
    def go_on(self) -> None: ...
    def own_call(self, id: bytes) -> Request | None: ...
    def find(self, id: bytes) -> Request | None: ...
    @property
    def busy(self) -> bool: ...
    @property
    def streaming(self) -> bool: ...

class RelayedExchange(Exchange):
    outlet: Any
    def __init__(self, front: Front, outlet: Any) -> None: ...
    def expect(self, head: Head) -> None: ...
    def perform(self, head: Head) -> None: ...
    def taken_all(self) -> None: ...
    @property
    def waiting_bytes(self) -> int: ...
