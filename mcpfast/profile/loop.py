"""loop: stalls of a server's event loop, with the stack that caused them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mcpfast.bench.report_plot import Level
from mcpfast.live.messages import Seen, Stack, Stall, Taken, Watch, Watching
from mcpfast.profile.flamegraph import draw as draw_stacks
from mcpfast.profile.inside import culprit, inside, milliseconds, missing, named, watched
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session, facts
from mcpfast.profile.stacks import Stacks, write_folded
from mcpfast.profile.timeline import Mark, Series, draw

__all__ = ["READING", "look", "missing"]
LEAD_S = 1.0
TOP = 15
NOISE_S = 0.002  # below it the timer is to blame: loops count in whole milliseconds
LINES = re.compile(r":\d+\)")
FLOOR_MS = 0.1  # of the picture
SLOTS = 600  # of the picture of the lag: the largest of each is a dot
NOWHERE = "no Python frame: compiled code, or no processor"

READING = """
An event loop does one thing at a time. While a handler computes or blocks, every other call of the server waits, and so does each
timer, each new connection, each cancellation. A stall is such a time: the loop has a timer that is due every few
milliseconds, and when it is late by more than the threshold a thread looks where the loop stands until it comes.

- The picture at the top: how late the loop was, at which time. Stems are stalls, dots the latest of each moment; below 2 ms it is
  the timer itself. A single stem says that one call blocked; a carpet of dots just below the threshold says that the loop has
  too much to do.
- The table has one row for each function, with the line seen most. `longest` is what some client waited for nothing; `total` is how
  much of the loop's time one gains by repairing that place.
- `cpu` says which kind it is. Near 100 %: it computes. Move it to a thread (`def` instead of `async def`, or
  `asyncio.to_thread`), and to a process where it is Python that computes: threads share one interpreter lock. Near 0 %: it
  blocks. Somebody calls `time.sleep`, `requests`, a database driver or file I/O from an `async def`: use the async library,
  or a `def` handler. Near 0 % with no blocking call in sight: the machine had no processor for us.
- A place is the user's innermost line; what stands behind `>` is the library's line that it was in.
- `lock held`: nobody could look for most of the stall, as C code held the interpreter's lock (a large `json.loads`, a regular
  expression, a sort), or the machine stood still. Then the place is where one could look again first, which is the line that
  called it.
- No Python frame: the time went into compiled code that was called by the loop itself, ours included (very large messages), or the
  process was not running.
- The flame graph has only the stalls, each as wide as it was long: ten stalls of 20 ms are as wide as one of 200 ms.

Two lies to know: of each stall up to one beat of its beginning is not counted (5 ms, or a quarter of the threshold where that is
less), so what lasts little longer than the threshold may be missed. And many short calls in one turn of the loop are a stall
like a long one; then the samples name several places, and the first of them is not more to blame than the others. The
beats and the looks cost some 2 % of a processor.
"""


@dataclass(slots=True)
class Group:
    """The stalls of one function, wherever in it."""

    places: Counter[str] = field(default_factory=Counter)
    count: int = 0
    longest_s: float = 0.0
    total_s: float = 0.0
    cpu_s: float = 0.0
    held: int = 0

    @property
    def where(self) -> str:
        """Its line that was seen most."""
        return self.places.most_common(1)[0][0]

    def add(self, stall: Stall, place: str) -> None:
        self.places[place] += 1
        self.count += 1
        self.longest_s = max(self.longest_s, stall.duration_s)
        self.total_s += stall.duration_s
        self.cpu_s += stall.cpu_s
        self.held += stall.held


@dataclass(slots=True)
class Found:
    """All that was seen; seconds are since the beginning."""

    begin_s: float
    stalls: list[tuple[Stall, str]] = field(default_factory=list)  # with its place
    groups: dict[str, Group] = field(default_factory=dict)
    stacks: Stacks = field(default_factory=Counter)  # in milliseconds
    lags: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0
    lost_s: float = 0.0

    def take(self, taken: Taken) -> None:
        self.lags += taken.lags
        self.lost += taken.lost
        self.lost_s += taken.lost_s
        for stall in taken.stalls:
            place = place_of(stall, taken.stacks)
            self.stalls.append((stall, place))
            self.groups.setdefault(LINES.sub(")", place), Group()).add(stall, place)
            for seen in stall.stacks or [Seen(-1, stall.duration_s)]:
                stack = taken.stacks[seen.stack] if seen.stack >= 0 else ()
                self.stacks[frames(stack, stall.handler)] += max(1, round(seen.seconds * 1000))


def frames(stack: Stack, handler: str) -> tuple[str, ...]:
    return tuple([handler] if handler else []) + (tuple(map(named, stack)) or (NOWHERE,))


def place_of(stall: Stall, stacks: list[Stack]) -> str:
    """The line to look at, the library's line that it was in, and the handler."""
    stack = stacks[stall.stacks[0].stack] if stall.stacks else ()
    guilty = culprit(stack)
    if guilty is None:
        return NOWHERE
    said = named(guilty)
    if stack[-1] is not guilty:
        said += f" > {named(stack[-1])}"
    return f"{said}, {stall.handler}" if stall.handler else said


def look(session: Session) -> Report:
    with session.called(LEAD_S) as seen, inside(session, seen.pid) as visitor:
        begun = visitor.watch(Watch("loop", session.threshold_s))
        found = Found(begun.begin_s)
        seconds = watched(session, visitor, begun, "watching its event loop", found.take)
        title = session.target.title if session.target.pid is None else f"process {visitor.pid}"
    told, warnings = facts(seen.outcome)
    told = [*told, summary(found, seconds, session.threshold_s), lag_words(found, begun)]
    if found.lost:
        warnings.append(
            f"{found.lost:,} more stalls ({found.lost_s:.1f} s) were counted and not looked at: a higher --threshold-ms"
        )
    return report(session, found, seconds, told, warnings, title)


def summary(found: Found, seconds: float, threshold_s: float) -> str:
    count, longest = (
        len(found.stalls) + found.lost,
        max((one.duration_s for one, _ in found.stalls), default=0),
    )
    total = sum(one.duration_s for one, _ in found.stalls) + found.lost_s
    if not count:
        return f"no stall of {threshold_s * 1000:g} ms or more in {seconds:.1f} s"
    return (
        f"{count:,} stalls of {threshold_s * 1000:g} ms or more in {seconds:.1f} s: the longest {milliseconds(longest)} ms, "
        f"together {total:.2f} s, {total / seconds:.1%} of the time"
    )


def lag_words(found: Found, begun: Watching) -> str:
    late = quantiles(found.lags, begun.beat_s)
    return "the loop is late by " + ", ".join(
        f"{name} {milliseconds(value)} ms" if value >= NOISE_S else f"{name} under {NOISE_S * 1000:g} ms"
        for name, value in late.items()
    )


def quantiles(lags: list[tuple[float, float]], beat_s: float) -> dict[str, float]:
    """Of what becomes due at any moment. A stall swallows the beats that would have come while it lasted: they are added."""
    late = []
    for _, lag in lags:
        late.append(lag)
        while beat_s > 0 and (lag := lag - beat_s) > beat_s:
            late.append(lag)
    late.sort()
    if not late:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    return {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]}


def report(
    session: Session, found: Found, seconds: float, told: list[str], warnings: list[str], title: str
) -> Report:
    plot, picture, folded = (session.folder / name for name in ("lag.svg", "flamegraph.svg", "stacks.txt"))
    title += ", its event loop"
    with session.progress.step("drawing"):
        plot.write_text(drawn(found, title, "; ".join(told[-2:]), seconds, session.threshold_s))
        if found.stalls:
            picture.write_text(draw_stacks(found.stacks, f"{title}: its stalls", told[-2], "ms"))
            folded.write_text(write_folded(found.stacks))
    files = [(plot, "the loop's lag over time")]
    if found.stalls:
        files += [(picture, "a flame graph of the stalls"), (folded, "what it was drawn from: ms by stack")]
    return Report(
        instrument="loop",
        title="What stalled the loop",
        columns=("stalls", "longest ms", "total ms", "cpu", "where"),
        rows=rows(found.groups),
        files=files,
        reading=READING,
        facts=told,
        warnings=warnings,
        picture=picture if found.stalls else None,
        plot=plot,
        figures=figures(found, seconds, session.threshold_s),
    )


def rows(groups: dict[str, Group]) -> list[tuple[str, ...]]:
    first = sorted(groups.values(), key=lambda group: -group.total_s)[:TOP]
    return [
        (
            f"{group.count:,}",
            milliseconds(group.longest_s),
            milliseconds(group.total_s),
            f"{min(group.cpu_s / group.total_s, 1):.0%}",
            group.where + (", lock held" if 2 * group.held > group.count else ""),
        )
        for group in first
    ]


def drawn(found: Found, title: str, subtitle: str, seconds: float, threshold_s: float) -> str:
    """The largest lag of each slot of time, and each stall."""
    slots: dict[int, tuple[float, float]] = {}
    for at_s, lag_s in found.lags:
        slot = int((at_s - found.begin_s) / max(seconds, 0.1) * SLOTS)
        slots[slot] = max(slots.get(slot, (0.0, 0.0)), (lag_s, at_s - found.begin_s))
    quiet = [
        Mark(at_s, max(lag_s * 1000, FLOOR_MS), f"at {at_s:.2f} s: {milliseconds(lag_s)} ms")
        for lag_s, at_s in slots.values()
        if lag_s < threshold_s
    ]
    stalls = [
        Mark(
            stall.begin_s - found.begin_s,
            stall.duration_s * 1000,
            f"at {stall.begin_s - found.begin_s:.2f} s: {milliseconds(stall.duration_s)} ms, {place}",
        )
        for stall, place in found.stalls
    ]
    series = [
        Series("the latest of each moment", "blue", quiet),
        Series(f"{len(stalls):,} stalls", "red", stalls, stems=True),
    ]
    level = Level(threshold_s * 1000, "a stall from here on")
    return draw(title, subtitle, series, seconds=seconds, label="the loop is late by", level=level)


def figures(found: Found, seconds: float, threshold_s: float) -> dict[str, Any]:
    """For --json: seconds everywhere."""
    return {
        "seconds": seconds,
        "threshold_s": threshold_s,
        "stalls": len(found.stalls) + found.lost,
        "total_s": sum(stall.duration_s for stall, _ in found.stalls) + found.lost_s,
        "longest_s": max((stall.duration_s for stall, _ in found.stalls), default=0.0),
        "places": [
            {
                "where": group.where,
                "stalls": group.count,
                "longest_s": group.longest_s,
                "total_s": group.total_s,
                "cpu_s": group.cpu_s,
                "lock_held": group.held,
            }
            for group in sorted(found.groups.values(), key=lambda group: -group.total_s)
        ],
        "each": [
            {
                "at_s": stall.begin_s - found.begin_s,
                "duration_s": stall.duration_s,
                "cpu_s": stall.cpu_s,
                "where": place,
                "handler": stall.handler,
                "lock_held": stall.held,
            }
            for stall, place in found.stalls
        ],
    }
