"""What the load engine is told: bytes with holes, in the order in which they are sent. `native/plan.h` is its other side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

ID_HOLE = (
    b"1000000000"  # where an id belongs: ten digits, so that every request of a step is as long as the other
)
StepKind = Literal["request", "notice", "upgrade", "pause", "reconnect"]
Wire = Literal["lines", "http", "websocket"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come back: a result, and in its first content block `text`, or JSON with these members."""

    refusal: bool = False  # an error is as good as a result
    complete: bool = False  # 2026-07-28: resultType is "complete"
    text: str | None = None
    members: dict[str, str] = field(
        default_factory=dict
    )  # by path ("a.b"): the JSON of the value, as the server writes it
    lengths: dict[str, int] = field(default_factory=dict)  # by path: how many elements the array has


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is sent, or done, and what must come back. Steps of one name are counted together."""

    name: str
    kind: StepKind
    data: bytes = b""
    counted: bool = True  # part of the figures
    opens_session: bool = (
        False  # HTTP: Mcp-Session-Id of the answer goes with all that follows on the connection
    )
    ends_session: bool = False
    session_at: int = -1  # offset in `data` where the session's header belongs
    masked_from: int = 0  # WebSocket: offset of the masked payload
    mask: bytes = b"\0\0\0\0"
    wait_s: float = 0.0  # of a pause; of a request: it is cancelled after so long, 0 never
    cancel_step: int = -1  # index of the notice that cancels it; -1: by closing the connection
    expect: Expectation = Expectation()


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    wire: Wire
    steps: Sequence[Step]
    body: Sequence[int]  # steps by their index, around and around
    prologue: Sequence[int] = ()  # and those that each new connection begins with
    pipe: tuple[int, int] | None = None  # descriptors to read from and to write to, non-blocking
    address: str | tuple[str, int] | None = (
        None  # or: the path of a Unix socket; a numeric IP address and a port
    )
    connections: int = 1
    window: int = 1  # calls in flight on each connection
    scripted: bool = False  # each connection goes through the body by itself, one step after another
    stride: int = (
        0  # and begins so many steps behind the one before it: the steps of one round; 0: all of them
    )
    lockstep: bool = False  # the next window is sent when the last one is answered whole
    rate: float = 0.0  # requests a second, whatever comes back; 0: as fast as they are answered
    even: bool = False  # at even distances, not at random moments
    seed: int = 1  # of these moments
    ramp_s: float = 0.0
    warmup_s: float = 0.2
    duration_s: float = 1.0
    timeout_s: float = 10.0
    calls: int = 0  # measure this many instead of for a time
    warmup_calls: int = 0
    connection_calls: int = 0  # a connection makes so many, then a new one is opened; 0: no end
    intervals: int = 100  # parts of the measured time that are told by themselves
    processor: int = -1  # to stay on; -1: any
    answer_bytes_max: int = 256 << 20
    pids: Sequence[int] = ()  # of a local server
    refusals: Sequence[int] = (
        4290,
        4291,
        5030,
        -32000,
    )  # codes of JSON-RPC errors that mean "too much at once"
