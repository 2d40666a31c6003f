"""gc: the pauses of a server's garbage collector, and what to do about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from mcpfast.live.messages import Pause, Taken, Watch, Watching
from mcpfast.profile.inside import inside, milliseconds, missing, named, watched
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session, facts
from mcpfast.profile.timeline import Mark, Series, draw

__all__ = ["READING", "look", "missing"]
LEAD_S = 1.0
LONGEST = 10
SLOT_S = 0.05  # of the picture: the longest pause of each is a mark
COLOURS = ("blue", "green", "orange")
LONG_S = 0.01  # a pause that a client notices
LEAKY = 0.5  # of the objects looked at: so many collected means that cycles are made for each call

READING = """
Python frees an object when nobody refers to it any more. Objects that refer to each other in a circle are not freed so: the
collector finds them. It looks at the young ones often (generation 0), at older ones seldom (1), at everything now and then (2),
and nothing else of the process runs meanwhile, not even other threads.

- Generation 0 is looked at each time so many more objects were made than freed as the first threshold says, which the facts at
  the top have. A pause takes some 10 to 100 microseconds. Many of them are no harm by themselves.
- Generation 2 looks at every object there is, but for the frozen ones: a server with a million objects in a cache stands
  still for a tenth of a second. Those are the tall stems of the picture. mcpfast freezes what is loaded when it begins to serve
  (`gc.freeze`); what your lifespan loads comes after that. Call `gc.collect()` and `gc.freeze()` at its end, and the collector
  does not look at it again.
- A higher threshold makes pauses rarer and memory a little larger: `gc.set_threshold(10_000, 20, 50)` at the start of the
  program. It makes no pause shorter.
- `collected` near zero: the collector finds nothing, and only its work is to be saved, by freezing and thresholds. `collected`
  large: your calls make cycles. Usual ones: an exception that is kept in a variable of the frame that its traceback holds; an
  object whose children know their parent; a closure that refers to itself. Break the circle (`weakref`, `del error`), and what a
  call makes is freed at once, without a collector. `gc.set_debug(gc.DEBUG_SAVEALL)` in a test shows which objects they are.
- `struck at` is where the code was that had to wait: the line that happened to make one object too many. In the ten longest this
  is chance; a place that is struck again and again makes many objects, and perhaps need not.
- An uncollectable object is a leak, of an extension module most likely.

What is told is told by the collector itself, and each pause is measured from its beginning to its end. That costs each pause
two or three microseconds.
"""


@dataclass(slots=True)
class Generation:
    """The pauses of one generation; durations in seconds."""

    durations: list[float] = field(default_factory=list)
    collected: int = 0
    uncollectable: int = 0

    @property
    def total_s(self) -> float:
        return sum(self.durations)

    def quantile(self, share: float) -> float:
        return sorted(self.durations)[int(len(self.durations) * share)] if self.durations else 0.0


@dataclass(slots=True)
class Found:
    """All that was seen."""

    begin_s: float
    generations: dict[int, Generation] = field(default_factory=lambda: {n: Generation() for n in range(3)})
    longest: list[Pause] = field(default_factory=list)
    marks: dict[tuple[int, int], Mark] = field(
        default_factory=dict
    )  # by generation and slot of time: the longest
    struck: Counter[str] = field(default_factory=Counter)
    young: int = 0  # new objects that generation 0 looked at
    elsewhere: int = 0  # pauses that another thread than the loop's had set off
    lost: int = 0
    lost_s: float = 0.0

    def take(self, taken: Taken) -> None:
        self.lost += taken.lost
        self.lost_s += taken.lost_s
        self.longest = nlargest(LONGEST, self.longest + taken.pauses, key=lambda pause: pause.duration_s)
        for pause in taken.pauses:
            generation = self.generations.setdefault(pause.generation, Generation())
            generation.durations.append(pause.duration_s)
            generation.collected += pause.collected
            generation.uncollectable += pause.uncollectable
            self.struck[struck_at(pause)] += 1
            self.young += pause.young if pause.generation == 0 else 0
            self.elsewhere += not pause.on_loop
            self._mark(pause)

    def _mark(self, pause: Pause) -> None:
        at_s, ms = pause.begin_s - self.begin_s, pause.duration_s * 1000
        slot = pause.generation, int(at_s / SLOT_S)
        if slot not in self.marks or self.marks[slot].ms < ms:
            words = f"at {at_s:.2f} s: {milliseconds(pause.duration_s)} ms, generation {pause.generation}"
            self.marks[slot] = Mark(at_s, ms, f"{words}, {pause.collected:,} collected, {struck_at(pause)}")

    @property
    def count(self) -> int:
        return sum(len(generation.durations) for generation in self.generations.values()) + self.lost

    @property
    def total_s(self) -> float:
        return sum(generation.total_s for generation in self.generations.values()) + self.lost_s


def struck_at(pause: Pause) -> str:
    return named(pause.where) if pause.where is not None else "no Python frame"


def look(session: Session) -> Report:
    with session.called(LEAD_S) as seen, inside(session, seen.pid) as visitor:
        begun = visitor.watch(Watch("gc"))
        found = Found(begun.begin_s)
        seconds = watched(session, visitor, begun, "watching its collector", found.take)
        title = session.target.title if session.target.pid is None else f"process {visitor.pid}"
    told, warnings = facts(seen.outcome)
    # it was called for longer than it was watched
    calls = round(seen.outcome.told["rate_per_s"] * seconds) if seen.outcome else 0
    told += [summary(found, seconds, calls), settings(begun)]
    warnings += advice(found, begun)
    plot = session.folder / "pauses.svg"
    with session.progress.step("drawing"):
        plot.write_text(drawn(found, f"{title}, its garbage collector", told[-2], seconds))
    return Report(
        instrument="gc",
        title="The longest pauses",
        columns=("ms", "at s", "generation", "collected", "struck at"),
        rows=longest_rows(found),
        files=[(plot, "the pauses over time")],
        reading=READING,
        facts=told,
        warnings=warnings,
        plot=plot,
        more=[
            ("By generation", GENERATION_COLUMNS, generation_rows(found, seconds)),
            (
                "Struck most",
                ("pauses", "struck at"),
                [(f"{n:,}", where) for where, n in found.struck.most_common(5)],
            ),
        ],
        figures=figures(found, begun, seconds, calls),
    )


def summary(found: Found, seconds: float, calls: int) -> str:
    if not found.count:
        return f"the collector did not run in {seconds:.1f} s"
    said = f"{found.count:,} pauses in {seconds:.1f} s, together {milliseconds(found.total_s)} ms"
    said += f": {found.total_s / seconds:.2%} of the time"
    said += f"; the longest {milliseconds(found.longest[0].duration_s)} ms" if found.longest else ""
    if calls > 2 * found.count:
        said += f"; one in {calls / found.count:,.0f} calls"
    elif calls:
        said += f"; {found.count / calls:.1f} for each call"
    return said


def settings(begun: Watching) -> str:
    on = "on" if begun.enabled else "switched off (gc.disable)"
    return f"the collector is {on}, thresholds {begun.thresholds}, {begun.frozen:,} objects frozen"


def advice(found: Found, begun: Watching) -> list[str]:
    """What is plainly wrong."""
    said = []
    oldest = found.generations[max(found.generations)]
    if any(duration > LONG_S for duration in oldest.durations):
        said.append(
            f"a full collection took {milliseconds(max(oldest.durations))} ms: gc.freeze() after loading (see below)"
        )
    first = found.generations[0]
    if found.young > 10_000 and first.collected > LEAKY * found.young:
        said.append(
            f"{first.collected:,} young objects were in cycles: something makes them in each call (see below)"
        )
    if any(generation.uncollectable for generation in found.generations.values()):
        said.append("there were uncollectable objects: a leak")
    if found.lost:
        said.append(f"{found.lost:,} more pauses ({found.lost_s:.2f} s) were counted and not looked at")
    if not begun.enabled:
        said.append("the collector is switched off: cycles are never freed")
    return said


GENERATION_COLUMNS = (
    "pauses",
    "a second",
    "p50 ms",
    "p99 ms",
    "longest ms",
    "total ms",
    "collected",
    "generation",
)


def generation_rows(found: Found, seconds: float) -> list[tuple[str, ...]]:
    return [
        (
            f"{len(one.durations):,}",
            f"{len(one.durations) / seconds:,.1f}",
            milliseconds(one.quantile(0.5)),
            milliseconds(one.quantile(0.99)),
            milliseconds(max(one.durations, default=0.0)),
            milliseconds(one.total_s),
            f"{one.collected:,}",
            f"{number}" + (f", {found.young:,} new objects looked at" if number == 0 else ""),
        )
        for number, one in sorted(found.generations.items())
    ]


def longest_rows(found: Found) -> list[tuple[str, ...]]:
    return [
        (
            milliseconds(pause.duration_s),
            f"{pause.begin_s - found.begin_s:.2f}",
            f"{pause.generation}",
            f"{pause.collected:,}",
            struck_at(pause) + ("" if pause.on_loop else ", in another thread"),
        )
        for pause in found.longest
    ]


def drawn(found: Found, title: str, subtitle: str, seconds: float) -> str:
    series = [
        Series(
            f"generation {number} ({len(one.durations):,})",
            COLOURS[min(number, 2)],
            [mark for (generation, _), mark in found.marks.items() if generation == number],
            stems=number > 1,
        )
        for number, one in sorted(found.generations.items())
    ]
    return draw(title, subtitle, series, seconds=seconds, label="a pause of the collector")


def figures(found: Found, begun: Watching, seconds: float, calls: int) -> dict[str, Any]:
    """For --json: seconds everywhere."""
    return {
        "seconds": seconds,
        "calls": calls,
        "enabled": begun.enabled,
        "thresholds": list(begun.thresholds),
        "frozen": begun.frozen,
        "pauses": found.count,
        "total_s": found.total_s,
        "generations": [
            {
                "generation": number,
                "pauses": len(one.durations),
                "total_s": one.total_s,
                "p50_s": one.quantile(0.5),
                "p99_s": one.quantile(0.99),
                "longest_s": max(one.durations, default=0.0),
                "collected": one.collected,
                "uncollectable": one.uncollectable,
            }
            for number, one in sorted(found.generations.items())
        ],
        "longest": [
            {
                "at_s": pause.begin_s - found.begin_s,
                "duration_s": pause.duration_s,
                "generation": pause.generation,
                "collected": pause.collected,
                "struck_at": struck_at(pause),
                "on_loop": pause.on_loop,
            }
            for pause in found.longest
        ],
        "struck": found.struck.most_common(LONGEST),
    }
