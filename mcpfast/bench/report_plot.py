"""Plots as inline SVG: their colours come from the page's style sheet, so that one drawing suits every colour scheme.

Drawn here and not by a library: pygal has one scale for both axes and writes a style sheet of its own into every
plot, matplotlib draws letters as shapes that no style sheet reaches and weighs 130 MB, plotly puts 4.8 MB of script
into every file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from mcpfast.bench.report_runs import Point

LETTER = 7.0  # pixels, of the style sheet's 12.5 px: a little more than the mean, so that labels do not touch
TOP, BOTTOM, LEFT, RIGHT = 30.0, 46.0, 60.0, 18.0  # LEFT at least, so that plots below each other are in line

Write = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Tick:
    place: float  # from 0 to 1 along the axis
    label: str
    rank: int  # the labels of a rank are left out together, where they do not all find room


@dataclass(frozen=True, slots=True)
class Axis:
    label: str  # with the unit
    place: Callable[[float], float]
    ticks: Sequence[Tick]


@dataclass(frozen=True, slots=True)
class Line:
    """Points in order; None is a gap. A dot has its text for a tooltip, and is hollow where `hollow` names its index."""

    name: str
    colour: str
    points: Sequence[Point]
    dots: Sequence[str] = ()
    hollow: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch along x with all that is to be said of it: it answers to the mouse."""

    begin: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """A value that the others are held against: a line across the plot, and what it is."""

    value: float
    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    colour: str
    value: float | None
    text: str


# ---- axes ------------------------------------------------------------------------------------------------


def linear(values: Iterable[float], label: str, write: Write, *, exact: bool = False, room: int = 8) -> Axis:
    """From 0. `exact` ends with the largest value, otherwise the axis ends at a round number above it."""
    most = max(values, default=0.0)
    most = most if most > 0 else 1.0
    step = step_of(most, room)
    steps = math.floor(most / step + 1e-9) if exact else math.ceil(most / step - 1e-9)
    end = most if exact else steps * step
    ticks = [Tick(at * step / end, write(at * step), at % 2) for at in range(steps + 1)]
    return Axis(label, lambda value: value / end, ticks)


def close_up(values: Sequence[float], label: str, write: Write, *, share: float, room: int = 4) -> Axis:
    """For values that hardly change: not from 0, but from this share below the least to as much above the largest."""
    low, high = min(values) * (1 - share), max(values) * (1 + share)
    step = step_of(high - low or 1.0, room)
    first = math.floor(low / step + 1e-9)
    span = max(1, math.ceil(high / step - 1e-9) - first)
    ticks = [Tick(at / span, write((first + at) * step), at % 2) for at in range(span + 1)]
    return Axis(f"{label} (not from 0)", lambda value: (value / step - first) / span, ticks)


def step_of(span: float, room: int) -> float:
    """A round number that goes into `span` about `room` times."""
    raw = span / room
    size = 10.0 ** math.floor(math.log10(raw))
    return next(part * size for part in (1, 2, 2.5, 5, 10) if part * size >= raw * 0.999)


def categories(names: Sequence[str], label: str) -> Axis:
    """Things in a row, each in the middle of its own stretch: the third one is at 2.5.

    Where not all names find room, the last one is written, and with it every second, fourth, eighth of those before.
    """
    count = len(names)

    def rank(back: int) -> int:
        return count.bit_length() + 1 - (back & -back).bit_length() if back else 0

    ticks = [Tick((at + 0.5) / count, name, rank(count - 1 - at)) for at, name in enumerate(names)]
    return Axis(label, lambda value: value / count, ticks)


def logarithmic(values: Iterable[float], label: str, write: Write) -> Axis:
    """From a round number below the least of the values above 0 to one above the largest."""
    shown = [value for value in values if value > 0] or [1.0]
    low, high = min(shown), max(shown)
    bounds = [digit * 10.0**power for power in range(-4, 16) for digit in (1, 2, 5)]
    begin = max((bound for bound in bounds if bound <= low * 0.96), default=bounds[0])
    end = min((bound for bound in bounds if bound >= high / 0.96), default=bounds[-1])
    span = math.log10(end / begin)

    def place(value: float) -> float:
        return math.log10(max(value, begin) / begin) / span

    ranks = {1: 0, 5: 1, 2: 1, 3: 2, 4: 2, 7: 2} if span < 1 else {1: 0, 5: 1, 2: 1}
    ticks = [
        Tick(place(digit * 10.0**power), write(digit * 10.0**power), rank)
        for power in range(math.floor(math.log10(begin)), math.ceil(math.log10(end)) + 1)
        for digit, rank in ranks.items()
        if begin * 0.9999 <= digit * 10.0**power <= end * 1.0001
    ]
    return Axis(f"{label} (logarithmic)", place, ticks)


def tail_axis(shares: Iterable[float], label: str) -> Axis:
    """Every step to the right leaves a tenth of the requests: 0 %, 90 %, 99 %, 99.9 %."""
    decades = max(1.0, *(decades_of(share) for share in shares), 1.0)
    ticks = [Tick(0.0, "0 %", 0), Tick(math.log10(2) / decades, "50 %", 9)]
    ticks += [
        Tick(at / decades, f"{100 - 10 ** (2 - at):.{max(0, at - 2)}f} %", max(0, at - 3))
        for at in range(1, math.floor(decades + 1e-9) + 1)
    ]
    return Axis(label, lambda share: decades_of(share) / decades, ticks)


def decades_of(share: float) -> float:
    return -math.log10(max(1e-12, 1 - share))


def labelled(ticks: Sequence[Tick], length: float, size: Callable[[Tick], float]) -> list[Tick]:
    """Those whose labels are written: rank after rank, as long as all labels of the rank find room."""
    shown: list[Tick] = []
    for rank in sorted({tick.rank for tick in ticks}):
        tried = sorted([*shown, *(tick for tick in ticks if tick.rank == rank)], key=lambda tick: tick.place)
        pairs = pairwise(tried)
        if all((b.place - a.place) * length >= (size(a) + size(b)) / 2 for a, b in pairs) or not shown:
            shown = tried
    return shown


# ---- drawing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the plot's own area lies, in pixels."""

    left: float
    top: float
    width: float
    height: float

    def x(self, place: float) -> float:
        return self.left + min(1.0, max(0.0, place)) * self.width

    def y(self, place: float) -> float:
        return self.top + (1 - min(1.0, max(0.0, place))) * self.height


def text(x: float, y: float, words: str, kind: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{more}>{escape(words)}</text>'


def grid(frame: Frame, x: Axis, y: Axis) -> list[str]:
    """Both axes: lines, labels, and what they measure."""
    drawn = []
    high = labelled(y.ticks, frame.height, lambda tick: 30.0 if tick.rank else 17.0)
    wide = labelled(x.ticks, frame.width, lambda tick: len(tick.label) * LETTER + 12)
    for tick in y.ticks:
        at, kind = frame.y(tick.place), "grid" if tick in high else "grid faint"
        drawn.append(f'<path class="{kind}" d="M{frame.left:.1f} {at:.1f}h{frame.width:.1f}"/>')
    for tick in x.ticks:
        at, kind = frame.x(tick.place), "grid" if tick in wide else "grid faint"
        drawn.append(f'<path class="{kind}" d="M{at:.1f} {frame.top:.1f}v{frame.height:.1f}"/>')
    drawn += [text(frame.left - 8, frame.y(tick.place) + 4, tick.label, "tick end") for tick in high]
    below = frame.top + frame.height
    drawn += [text(frame.x(tick.place), below + 18, tick.label, "tick middle") for tick in wide]
    drawn.append(f'<path class="axis" d="M{frame.left:.1f} {below:.1f}h{frame.width:.1f}"/>')
    drawn.append(text(4, 14, y.label, "label"))
    drawn.append(text(frame.left + frame.width, below + 38, x.label, "label end"))
    return drawn


def path_of(frame: Frame, line: Line, x: Axis, y: Axis) -> str:
    """A lone point between gaps becomes a stroke without length, which round ends make a dot."""
    steps, pen = [], "M"
    for at, value in line.points:
        if value is None:
            pen = "M"
            continue
        steps.append(
            f"{pen}{frame.x(x.place(at)):.1f} {frame.y(y.place(value)):.1f}" + ("h0" if pen == "M" else "")
        )
        pen = "L"
    return f'<path class="line {line.colour}" d="{"".join(steps)}"/>' if steps else ""


def dots_of(frame: Frame, line: Line, x: Axis, y: Axis) -> list[str]:
    drawn = []
    for at, ((along, value), words) in enumerate(zip(line.points, line.dots, strict=False)):
        if value is not None:
            kind = f"dot {line.colour}" + (" hollow" if at in line.hollow else "")
            place = f'cx="{frame.x(x.place(along)):.1f}" cy="{frame.y(y.place(value)):.1f}"'
            drawn.append(f'<circle class="{kind}" {place} r="4.5"><title>{escape(words)}</title></circle>')
    return drawn


def level_line(frame: Frame, level: Level, y: Axis) -> str:
    kind = f"level {level.colour}".rstrip()
    return (
        f'<path class="{kind}" d="M{frame.left:.1f} {frame.y(y.place(level.value)):.1f}h{frame.width:.1f}"/>'
    )


def levels_of(frame: Frame, levels: Sequence[Level], y: Axis) -> list[str]:
    drawn = [level_line(frame, level, y) for level in levels]
    words = [f'<tspan class="{level.colour}">{escape(level.text)}</tspan>' for level in levels]
    if words:
        place = f'x="{frame.left + frame.width:.1f}" y="14"'
        drawn.append(f'<text {place} class="tick end">{" · ".join(words)}</text>')
    return drawn


def plot(
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    size: tuple[float, float],
    told: str,
    bands: Sequence[Band] = (),
    stems: Sequence[tuple[float, float]] = (),
    levels: Sequence[Level] = (),
) -> str:
    """One plot. `told` is what it shows, for those who do not see it; `stems` stand on the x axis; what `levels` say
    stands above the plot, where it meets neither the lines nor each other.
    """
    width, height = size
    left = max(LEFT, max((len(tick.label) for tick in y.ticks), default=0) * LETTER + 16)
    frame = Frame(left, TOP, width - left - RIGHT, height - TOP - BOTTOM)
    drawn = grid(frame, x, y)
    drawn += levels_of(frame, levels, y)
    for along, value in stems:
        foot, head = frame.y(0), frame.y(y.place(value))
        drawn.append(
            f'<path class="stem" d="M{frame.x(x.place(along)):.1f} {foot:.1f}V{min(head, foot - 5):.1f}"/>'
        )
    drawn += [path_of(frame, line, x, y) for line in lines]
    for band in bands:
        begin, end = frame.x(x.place(band.begin)), frame.x(x.place(band.end))
        place = f'x="{begin:.1f}" y="{frame.top:.1f}" width="{max(0.5, end - begin):.1f}" height="{frame.height:.1f}"'
        drawn.append(f'<rect class="band" {place}><title>{escape(band.text)}</title></rect>')
    for line in lines:
        drawn += dots_of(frame, line, x, y)
    return svg(width, height, told, drawn)


def bars(rows: Sequence[Bar], axis: Axis, *, width: float, told: str) -> str:
    """A bar for each row, its name above and its figure behind it: names of any length find room so."""
    each = 40.0
    right = max(len(row.text) for row in rows) * LETTER + 14
    frame = Frame(4, 4, width - 4 - right, len(rows) * each)
    drawn = []
    for tick in (shown := labelled(axis.ticks, frame.width, lambda tick: len(tick.label) * LETTER + 12)):
        drawn.append(
            f'<path class="grid" d="M{frame.x(tick.place):.1f} {frame.top:.1f}v{frame.height:.1f}"/>'
        )
    drawn.append(f'<path class="axis" d="M{frame.left} {frame.top}v{frame.height}"/>')
    for at, row in enumerate(rows):
        top = frame.top + at * each
        length = frame.x(axis.place(row.value)) - frame.left if row.value is not None else 0.0
        name = row.name if len(row.name) * LETTER < width else row.name[: int(width / LETTER) - 1] + "…"
        place = f'x="{frame.left}" y="{top + 18:.1f}" width="{max(1.0, length):.1f}" height="15" rx="2"'
        words = f"<title>{escape(f'{row.name}: {row.text}')}</title>"
        drawn.append(text(frame.left, top + 13, name, "name"))
        drawn.append(f'<rect class="bar {row.colour}" {place}>{words}</rect>')
        drawn.append(text(frame.left + length + 7, top + 30, row.text, "value"))
    below = frame.top + frame.height
    for at, tick in enumerate(shown):
        kind = "tick middle" if at else "tick"
        drawn.append(text(frame.x(tick.place), below + 16, tick.label, kind))
    drawn.append(text(frame.left, below + 36, axis.label, "label"))
    return svg(width, below + 42, told, drawn)


def svg(width: float, height: float, told: str, drawn: Sequence[str]) -> str:
    said = escape(told, quote=True)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{said}">{"".join(drawn)}</svg>'


def wide_and_narrow(draw: Callable[[tuple[float, float]], str], wide: tuple[float, float]) -> str:
    """Drawn twice, and the style sheet shows the one that fits: letters that shrink with the plot cannot be read."""
    return f'<div class="wide">{draw(wide)}</div><div class="narrow">{draw((400, 320))}</div>'
