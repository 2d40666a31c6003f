"""Draws what happened over time: one SVG that stands alone, readable on white and on black.

The axes are those of `mcpfast bench --html`. What is measured has a logarithmic scale: a loop answers within 50 microseconds
nearly always, and after half a second when it matters.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from heapq import nlargest
from typing import NamedTuple

from mcpfast.bench.report_plot import (
    BOTTOM,
    RIGHT,
    TOP,
    Axis,
    Frame,
    Level,
    grid,
    level_line,
    linear,
    logarithmic,
    text,
)

WIDTH, HEIGHT, HEAD, LEFT = 1200, 410, 76, 66
LETTER = 7.4  # the width of a letter of the 12 px font, a little generous
SUBTITLE_LETTERS = 165
MARKS_MAX = 3_000  # of a series; of more, the largest


class Mark(NamedTuple):
    at_s: float
    ms: float
    words: str  # for the mouse


class Series(NamedTuple):
    """Marks of one kind: dots, or stems that stand on the axis. `colour` is one of STYLE's, `name` for the legend."""

    name: str
    colour: str
    marks: Sequence[Mark]
    stems: bool = False


def draw(
    title: str,
    subtitle: str,
    series: Sequence[Series],
    *,
    seconds: float,
    label: str,
    level: Level | None = None,
) -> str:
    """The SVG. `label` is what is measured, `seconds` how long somebody looked."""
    values = [mark.ms for one in series for mark in one.marks] + ([level.value] if level else [])
    x = linear(
        [max(seconds, 0.1)], "since the first look, s", lambda value: f"{value:g}", exact=True, room=10
    )
    y = logarithmic(values or [0.1, 10.0], f"{label}, ms", lambda value: f"{value:g}")
    frame = Frame(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - HEAD - TOP - BOTTOM)
    drawn = grid(frame, x, y)
    for one in series:
        drawn += _marks(one, frame, x, y)
    if level is not None:
        drawn.append(level_line(frame, level, y))
        above = frame.y(y.place(level.value)) - 6
        drawn.append(text(frame.left + frame.width - 6, above, level.text, "tick end halo"))
    return TEMPLATE.format(
        width=WIDTH,
        height=HEIGHT,
        head=HEAD,
        style=STYLE,
        title=html.escape(title),
        subtitle=html.escape(
            subtitle if len(subtitle) <= SUBTITLE_LETTERS else subtitle[: SUBTITLE_LETTERS - 1] + "…"
        ),
        legend="".join(_legend(series)),
        drawn="\n".join(drawn),
    )


def _marks(series: Series, frame: Frame, x: Axis, y: Axis) -> Iterator[str]:
    foot = frame.y(0)
    shown = nlargest(MARKS_MAX, series.marks, key=lambda mark: mark.ms)
    for mark in sorted(shown, key=lambda mark: mark.at_s):
        across, high = frame.x(x.place(mark.at_s)), frame.y(y.place(mark.ms))
        words = "".join(letter if letter.isprintable() else "?" for letter in mark.words)
        stem = f'<path d="M{across:.1f} {foot:.1f}V{high:.1f}"/>' if series.stems else ""
        yield (
            f'<g class="{series.colour}"><title>{html.escape(words)}</title>{stem}'
            f'<circle cx="{across:.1f}" cy="{high:.1f}" r="{4 if series.stems else 2}"/></g>'
        )


def _legend(series: Sequence[Series]) -> Iterator[str]:
    across = 10.0
    for one in series:
        yield f'<circle class="{one.colour}" cx="{across + 6:.1f}" cy="62" r="{4 if one.stems else 3}"/>'
        yield text(across + 16, 66, one.name, "tick")
        across += 16 + LETTER * len(one.name) + 18


STYLE = """
svg { --page: #fcfcfb; --ink: #1f2328; --soft: #656d76; --grid: #e3e6ea; --blue: #2467c9; --orange: #d95f0e; --green: #0f8a68;
      --red: #c8283c; background: var(--page); font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) {
svg { --page: #16181c; --ink: #e6e8eb; --soft: #9aa2ab; --grid: #2a2f37; --blue: #6ea8fe; --orange: #ff9a4d; --green: #3ecf9f;
      --red: #ff8080; } }
text { fill: var(--ink); } text.title { font-size: 15px; font-weight: 600; }
.tick, .label, text.soft { fill: var(--soft); } .label { font-weight: 600; }
.halo { paint-order: stroke; stroke: var(--page); stroke-width: 5px; }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--grid); fill: none; } .grid.faint { stroke-opacity: .45; } .axis { stroke: var(--soft); fill: none; }
.level { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
.blue { fill: var(--blue); stroke: var(--blue); } .orange { fill: var(--orange); stroke: var(--orange); }
.green { fill: var(--green); stroke: var(--green); } .red { fill: var(--red); stroke: var(--red); }
circle { stroke: none; } g > path { stroke-width: 2; fill: none; } g:hover > circle { stroke: var(--ink); stroke-width: 2; }
"""

TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="100%" preserveAspectRatio="xMidYMin">\
<style>{style}</style>
<text class="title" x="10" y="24">{title}</text><text class="soft" x="10" y="42">{subtitle}</text>
{legend}
<g transform="translate(0 {head})">{drawn}</g></svg>
"""
