"""One figure, or both eras of a latency, over the changes: a small plot with its name and what it was last."""

from collections.abc import Sequence
from html import escape

from benches.history import Entry
from benches.series import Series
from benches.table import with_unit
from mcpfast.bench.report_figures import legend
from mcpfast.bench.report_plot import Axis, Band, Level, Line, categories, close_up, linear, plot
from mcpfast.bench.report_runs import count_tick, whole_text

LINES_MAX = 40  # more do not find room
DOTS_MAX = 24  # more would be a rope of pearls
SIZE = (312.0, 200.0)


def chart(parts: Sequence[Series], entries: Sequence[Entry]) -> str:
    first = max(0, len(entries) - LINES_MAX)
    shown = entries[first:]
    lines = [line for at, one in enumerate(parts) for line in lines_of(one, first, shown, f"c{at}")]
    title = parts[0].says.partition(": ")[2] if parts[0].latency else parts[0].says
    x = categories([entry.label for entry in shown], "change")
    bands = [Band(at, at + 1, tooltip(parts, first + at, entry)) for at, entry in enumerate(shown)]
    drawn = plot(
        lines, x, value_axis(parts, first), size=SIZE, told=title, bands=bands, levels=levels_of(parts[0])
    )
    keys = legend([(f"c{at}", f"{one.name}: {last_text(one)}") for at, one in enumerate(parts)])
    return f'<div class="chart"><h3>{escape(title)}</h3>{keys}{drawn}</div>'


def lines_of(one: Series, first: int, entries: Sequence[Entry], colour: str) -> list[Line]:
    """The figure, and what missed its bar once more in red."""
    points = [(at + 0.5, value) for at, value in enumerate(one.values[first:])]
    missed = [
        (at, value if verdict == "MISSED" else None)
        for (at, value), verdict in zip(points, one.verdicts[first:], strict=True)
    ]
    words = [tooltip([one], first + at, entry) for at, entry in enumerate(entries)]
    hollow = frozenset(at for at, entry in enumerate(entries) if not entry.landed)
    dots = words if len(entries) <= DOTS_MAX else []
    return [Line(one.name, colour, points, dots, hollow), Line(one.name, "bad", missed, words, hollow)]


def value_axis(parts: Sequence[Series], first: int) -> Axis:
    """From 0, so that the way to the bar is seen; but of a count without a bar, 3 % must be."""
    values = [value for one in parts for value in one.values[first:] if value is not None]
    budget = parts[0].budget
    if budget is None and parts[0].unit == "instructions" and values:
        return close_up(values, "instructions", whole_text, share=0.03)
    limits = [budget.bar, budget.aim] if budget else []
    label = {"x": "ratio", "": "value"}.get(parts[0].unit, parts[0].unit)
    return linear([*values, *limits], label, count_tick, room=4)


def levels_of(one: Series) -> list[Level]:
    if one.budget is None:
        return []
    budget = one.budget
    return [
        Level(budget.bar, f"bar {budget.bar:,g}", "bad"),
        Level(budget.aim, f"aim {budget.aim:,g}", "good"),
    ]


def tooltip(parts: Sequence[Series], at: int, entry: Entry) -> str:
    return "\n".join(
        [f"{entry.label} {entry.subject}", entry.date[:10], *(value_text(one, at) for one in parts)]
    )


def value_text(one: Series, at: int) -> str:
    value, verdict = one.values[at], one.verdicts[at]
    if value is None:
        return f"{one.name}: {verdict or 'not measured'}"
    return f"{one.name}: {with_unit(value, one.unit)}" + (f", {verdict}" if verdict else "")


def last_text(one: Series) -> str:
    value = one.values[-1]
    return "not in the last change" if value is None else with_unit(value, one.unit)
