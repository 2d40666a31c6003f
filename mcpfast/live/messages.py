"""What is said through the door: one JSON object a line, an answer to each question.

No argument or result of a call, no header, no token is in any of it: names, ids, ages, counts, addresses, places in the code.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Frame(Struct, frozen=True, array_like=True):
    """A place in the code: `own` where it is the user's, neither a library's nor ours."""

    function: str
    file: str  # as one knows it: notes.py, aiohttp/client.py
    line: int
    own: bool


Stack = tuple[Frame, ...]  # outermost first


# ---- questions --------------------------------------------------------------------------------------------


class Look(Struct, tag="look"):
    """How is it now? `limit`: at most so many calls, and so many sessions."""

    limit: int = 20


class Watch(Struct, tag="watch"):
    """From now on, until the visitor goes: stalls of the loop from `threshold_s` on, or pauses of the collector."""

    what: Literal["loop", "gc"]
    threshold_s: float = 0.02


class Take(Struct, tag="take"):
    """What was seen since the last one."""


Question = Look | Watch | Take


# ---- answers ----------------------------------------------------------------------------------------------


class Greeting(Struct, tag="greeting"):
    """The first word, unasked."""

    protocol: int
    mcpfast: str
    python: str


class Refused(Struct, tag="refused"):
    """Nothing is answered; the text says why."""

    why: str


class Lag(Struct):
    """How late the loop came to what was due, since the last look."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float


class Call(Struct):
    """One call in flight."""

    what: str  # the tool, or the method of another request
    id: str  # raw JSON, shortened
    age_s: float
    client: str  # its name and version, empty where it told none
    peer: str  # transport, and address or pid
    point: str  # where it waits, or where its thread is: "notes.py:42 in fetch > aiohttp/client.py:600 in _request"
    threaded: bool
    cancelled: bool  # its client wants no answer any more, and it goes on


class Visitor(Struct):
    """One session of those heard from last."""

    transport: str
    peer: str
    client: str
    revision: str  # empty where each request says its own
    calls: int
    idle_s: float
    idle_at_least: bool  # nobody looked before, so it may be longer
    unsent_bytes: int


class Transport(Struct):
    """The sessions of one transport together."""

    name: str
    sessions: int = 0
    busy: int = 0  # those with calls in flight
    calls: int = 0
    listens: int = 0  # open listen streams
    last_s: float | None = None  # since the last of them was heard from; None where there is no session


class Threads(Struct):
    """Worker threads for `def` handlers."""

    most: int
    alive: int = 0
    busy: int = 0
    queued: int = 0  # calls that wait for one


class Unsent(Struct):
    """Output that clients have not taken: in all, and of the one with most."""

    total_bytes: int = 0
    sessions: int = 0
    most_bytes: int = 0
    most_of: str = ""


class Snapshot(Struct, tag="snapshot"):
    """How a server is at one moment. `at_s` is of its monotonic clock."""

    at_s: float
    name: str
    version: str
    loop: str  # "uvloop" or "asyncio"
    addresses: list[str]
    draining: bool
    answered: int  # requests, since the start
    lag: Lag
    transports: list[Transport]
    sessions: int
    visitors: list[Visitor]
    calls: int
    oldest: list[Call]
    threads: Threads
    warm_parked: int  # Tasks that wait for a call
    warm_made: int
    unsent: Unsent


class Watching(Struct, tag="watching"):
    """What is watched, and what is to be known once: of the collector (all 0 for the loop), and the clock at the beginning."""

    begin_s: float
    beat_s: float = 0.0  # so often something is due
    enabled: bool = True
    thresholds: tuple[int, int, int] = (0, 0, 0)
    frozen: int = 0  # objects that the collector leaves alone


class Seen(Struct, array_like=True):
    """A stack, by its place in `Taken.stacks`, and how much of a stall it accounts for."""

    stack: int
    seconds: float


class Stall(Struct):
    """The loop stood still. `cpu_s` is what its thread computed meanwhile; the first stack shows what had begun it."""

    begin_s: float
    duration_s: float
    cpu_s: float
    stacks: list[Seen]  # the one seen longest first
    first: int  # -1: none was seen
    handler: str  # "tool fetch", or empty where none is on the stack
    held: bool  # nobody could look for most of it: the interpreter's lock was held, or there was no processor


class Pause(Struct, array_like=True):
    """The collector ran."""

    begin_s: float
    duration_s: float
    generation: int
    young: int  # new objects when it began
    collected: int
    uncollectable: int
    where: Frame | None  # where the code was that had to wait
    on_loop: bool  # rather than in another thread, where the loop waits all the same


class Taken(Struct, tag="taken"):
    """What was seen since the last time. `lost`: how much more there was than is kept between two questions."""

    at_s: float
    lags: list[tuple[float, float]] = []  # when something was due, and how late it came
    stalls: list[Stall] = []
    stacks: list[Stack] = []
    pauses: list[Pause] = []
    lost: int = 0
    lost_s: float = 0.0


Answer = Greeting | Refused | Snapshot | Watching | Taken
