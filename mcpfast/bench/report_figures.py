"""The plots of the report, each with what it found and how it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from mcpfast.bench.report_plot import (
    Axis,
    Band,
    Bar,
    Level,
    Line,
    Write,
    bars,
    decades_of,
    linear,
    logarithmic,
    plot,
    tail_axis,
    wide_and_narrow,
)
from mcpfast.bench.report_runs import (
    Group,
    Run,
    asked_text,
    count_tick,
    rate_text,
    ratio_text,
    seconds_tick,
    time_text,
    time_tick,
    value_at,
)

WIDE = (992.0, 380.0)
LOW = (992.0, 280.0)
HALF = (482.0, 240.0)
ALIKE = 20.0  # times: up to this, rates share one scale


def section(title: str, found: str, inner: str, read: str) -> str:
    """`found`, `title` and `read` are plain text, `inner` is HTML."""
    said = f'<p class="found">{escape(found)}</p>' if found else ""
    return (
        f"<section><h2>{escape(title)}</h2>{said}<figure>{inner}"
        f'<figcaption class="read">{escape(read)}</figcaption></figure></section>'
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Of colour and name."""
    items = [f'<li><span class="swatch {colour}"></span>{escape(name)}</li>' for colour, name in entries]
    return f'<ul class="legend">{"".join(items)}</ul>'


# ---- several runs side by side ---------------------------------------------------------------------------


def bars_section(runs: Sequence[Run]) -> str:
    if len(runs) < 2:
        return ""
    panels = [
        bar_panel(runs, "answered, requests/s", [run.rate for run in runs], rate_text, count_tick),
        bar_panel(runs, "p50 latency", [run.latency("p50") for run in runs], time_text, time_tick),
        bar_panel(runs, "p99 latency", [run.latency("p99") for run in runs], time_text, time_tick),
    ]
    return section(
        "The runs compared: rate and latency",
        fastest(runs),
        f'<div class="three">{"".join(panels)}</div>',
        f"Longer bars are better for the rate and worse for the latencies. In brackets: how many times "
        f"the figure of the first run, {runs[0].label}.",
    )


def bar_panel(
    runs: Sequence[Run],
    label: str,
    values: Sequence[float | None],
    write: Callable[[float | None], str],
    tick: Write,
) -> str:
    first = values[0]
    rows = []
    for at, (run, value) in enumerate(zip(runs, values, strict=True)):
        ratio = f" ({ratio_text(value / first)})" if at and value is not None and first else ""
        rows.append(Bar(run.label, run.colour, value, write(value) + ratio))
    axis = linear([value for value in values if value is not None], label, tick, exact=True, room=4)
    told = f"{label}: " + "; ".join(f"{row.name} {row.text}" for row in rows)
    return f"<div>{bars(rows, axis, width=312, told=told)}</div>"


def fastest(runs: Sequence[Run]) -> str:
    order = sorted((run for run in runs if run.rate), key=lambda run: run.rate or 0.0)
    if len(order) < 2 or any(run.asked for run in runs):
        return ""
    low, high = order[0], order[-1]
    times = ratio_text((high.rate or 0.0) / (low.rate or 1.0))
    return f"{high.label} answers the most, {rate_text(high.rate)}: {times} as many as {low.label}."


# ---- rate against latency --------------------------------------------------------------------------------


def rates_section(groups: Sequence[Group]) -> str:
    """Only where rates were asked for: in a closed loop the rate is an outcome like the latency."""
    curves = curves_of(groups)
    if not any(len(curve.runs) > 1 for curve in curves):
        return ""
    shown = [run for curve in curves for run in curve.runs]
    rates = [run.rate or 0.0 for run in shown]
    if max(rates) > ALIKE * min(rates):
        x = logarithmic(rates, "answered, requests/s", count_tick)
    else:
        x = linear(rates, "answered, requests/s", count_tick)
    times = [run.latency(name) or 0.0 for run in shown for name in ("p50", "p99")]
    y = logarithmic(times, "latency", time_tick)
    lines = [rate_line(curve, name) for name in ("p50", "p99") for curve in curves]

    def draw(size: tuple[float, float]) -> str:
        return plot(lines, x, y, size=size, told="p50 and p99 latency against the answered rate")

    entries = [(curve.colour, f"{curve.label}, p99") for curve in curves]
    entries += [(f"{curve.colour} dashed", f"{curve.label}, p50") for curve in curves]
    return section(
        "Latency at each rate",
        " ".join(filter(None, map(kept_up, curves))),
        legend(entries) + wide_and_narrow(draw, WIDE),
        "Each dot is a run at one rate; further right and lower is better. Where the line turns upwards, requests begin "
        "to queue. A hollow dot did not keep pace: less than 95 % of the asked rate was answered.",
    )


def curves_of(groups: Sequence[Group]) -> list[Group]:
    """Sweeps as they are; single runs of one name at several asked rates make a curve together."""
    found: dict[str, list[Run]] = {}
    colours: dict[str, str] = {}
    for group in groups:
        for run in group.runs:
            key = group.label if group.sweep else run.text("name")
            if run.asked and run.rate and run.latency("p99"):
                found.setdefault(key, []).append(run)
                colours.setdefault(key, group.colour)
    return [
        Group(label, colours[label], sorted(runs, key=lambda run: run.asked or 0.0), sweep=True)
        for label, runs in found.items()
    ]


def rate_line(curve: Group, name: str) -> Line:
    words = [
        f"{run.label}: {rate_text(run.rate)} answered of {asked_text(run.asked)}, {name} {time_text(run.latency(name))}"
        for run in curve.runs
    ]
    points = [(run.rate or 0.0, run.latency(name) or None) for run in curve.runs]
    hollow = frozenset(at for at, run in enumerate(curve.runs) if not run.kept)
    return Line(name, curve.colour + " dashed" * (name == "p50"), points, words, hollow)


def kept_up(curve: Group) -> str:
    kept = [run for run in curve.runs if run.kept]
    if not kept:
        return f"{curve.label} kept pace with no rate."
    best = kept[-1]
    words = f"{curve.label} kept pace up to {asked_text(best.asked)}, with a p99 of {time_text(best.latency('p99'))} there"
    lost = next((run for run in curve.runs if not run.kept), None)
    if lost is None:
        return f"{words}: the end was not reached."
    return f"{words}; of {asked_text(lost.asked)} asked, {rate_text(lost.rate)} were answered."


# ---- percentiles -----------------------------------------------------------------------------------------


def tail_section(groups: Sequence[Group]) -> list[str]:
    """One plot of all single runs, and one for each sweep."""
    single = [group.runs[0] for group in groups if not group.sweep]
    sets = [(single[0].label if len(single) == 1 else "single runs", single)] if single else []
    sets += [(group.label, list(group.runs)) for group in groups if group.sweep]
    return [one_tail(runs, f": {label}" if len(sets) > 1 else "") for label, runs in sets]


def one_tail(runs: Sequence[Run], of: str) -> str:
    tails = {run.label: run.tail() for run in runs}
    shown = [run for run in runs if tails[run.label]]
    if not shown:
        return ""
    pairs = [pair for run in shown for pair in tails[run.label]]
    x = tail_axis((share for share, _ in pairs), "percentile")
    y = logarithmic((us for _, us in pairs), "latency", time_tick)
    lines = [tail_line(run, tails[run.label]) for run in shown]
    bands = tail_bands(shown, tails, max(decades_of(share) for share, _ in pairs))

    def draw(size: tuple[float, float]) -> str:
        wide = size == WIDE
        return plot(lines, x, y, size=size, told=f"latency by percentile{of}", bands=bands if wide else ())

    return section(
        f"Latency by percentile{of}",
        tail_words(shown),
        legend([(run.colour, run.label) for run in shown]) + wide_and_narrow(draw, WIDE),
        "At 99 % stands the time that 99 of 100 requests did not exceed; each step to the right leaves a tenth of the "
        "requests. A flat line is a steady server; a line ends at its slowest request.",
    )


def tail_line(run: Run, tail: Sequence[tuple[float, float]]) -> Line:
    dots = [f"{run.label}: {time_text(tail[0][1])}"] if len(tail) == 1 else []
    return Line(run.label, run.colour, tail, dots)


def tail_bands(
    runs: Sequence[Run], tails: dict[str, list[tuple[float, float]]], decades: float
) -> list[Band]:
    found = []
    for step in range(1, math.floor(decades * 10) + 1):
        share = 1 - 10 ** (-step / 10)
        told = [(run.label, value_at(tails[run.label], share)) for run in runs]
        text = "\n".join(f"{label}: {time_text(us)}" for label, us in told if us is not None)
        begin, end = 1 - 10 ** (-(step - 0.5) / 10), 1 - 10 ** (-(step + 0.5) / 10)
        found.append(Band(begin, end, f"{100 * share:.{max(1, step // 10)}f} %\n{text}"))
    return found


def tail_words(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        run = runs[0]
        half, late = run.latency("p50"), run.latency("p99")
        if not half or not late:
            return ""
        return (
            f"Half of the requests took at most {time_text(half)}, 99 of 100 at most {time_text(late)}, "
            f"which is {ratio_text(late / half)} the median; the slowest took {time_text(run.latency('max'))}."
        )
    order = sorted((run for run in runs if run.latency("p99")), key=lambda run: run.latency("p99") or 0.0)
    if len(order) < 2:
        return ""
    best, worst = order[0], order[-1]
    return (
        f"The p99 lies between {time_text(best.latency('p99'))} ({best.label}) "
        f"and {time_text(worst.latency('p99'))} ({worst.label})."
    )


# ---- over time -------------------------------------------------------------------------------------------


def over_time_section(groups: Sequence[Group]) -> str:
    """Two plots a run. The latencies of all runs have one scale; so have rates that are not worlds apart."""
    runs = [run for group in groups for run in group.runs]
    shown = [run for run in runs if run.over_time()]
    if not shown:
        none = "No course over time was recorded: the runs were too short." if runs else ""
        return f'<section><h2>Over time</h2><p class="soft">{none}</p></section>' if none else ""
    slices = [one for run in shown for one in run.over_time()]
    latency = logarithmic(
        (one[name] for one in slices for name in ("p50", "p99", "max")), "latency", time_tick
    )
    tops = [max(run.asked or 0.0, *(one["rate_per_s"] for one in run.over_time())) for run in shown]
    shared = max(tops) <= ALIKE * min(tops)
    size = LOW if len(shown) == 1 else HALF
    rows = []
    for run, top in zip(shown, tops, strict=True):
        rate = linear([max(tops) if shared else top], "rate, requests/s", count_tick, room=5)
        head = (
            f'<h3><span class="swatch {run.colour}"></span>{escape(run.label)}</h3>' if len(runs) > 1 else ""
        )
        inner = latency_plot(run, latency, size) + rate_plot(run, rate, size)
        rows.append(
            f'<div class="row">{head}<div class="{"pair" if size == HALF else ""}">{inner}</div></div>'
        )
    absent = [run.label for run in runs if run not in shown]
    end = f'<p class="soft">Without a course over time: {escape(", ".join(absent))}.</p>' if absent else ""
    keys = legend([("p50", "p50"), ("p99", "p99"), ("max", "slowest")])
    return section(
        "Latency and rate over time",
        stalls(shown),
        keys + "".join(rows) + end,
        "A steady server draws flat lines. Peaks that come again and again point to a collector or to other work on the "
        "machine, a rise that stays to a queue or a leak. A gap is a time without any answer. Red: wrong answers. "
        + (
            "All runs have the same scales."
            if shared
            else "The latencies have one scale, each rate has its own."
        ),
    )


def stalls(runs: Sequence[Run]) -> str:
    worst = max(
        ((one["max"], one["at_s"], run) for run in runs for one in run.over_time()),
        key=lambda found: found[0],
    )
    if worst[0] <= 0:
        return ""
    of = f" of {worst[2].label}" if len(runs) > 1 else ""
    words = (
        f"The slowest request{of} was answered after {time_text(worst[0])}, {worst[1]:.3g} s into the run."
    )
    silent = sum(one["rate_per_s"] <= 0 for run in runs for one in run.over_time())
    if silent:
        share = silent / sum(len(run.over_time()) for run in runs)
        words += f" Nothing was answered in {max(1.0, 100 * share):.0f} % of the time slices."
    return words


def seconds_axis(run: Run) -> Axis:
    return linear([one["at_s"] for one in run.over_time()], "time, s", seconds_tick, exact=True)


def latency_plot(run: Run, y: Axis, size: tuple[float, float]) -> str:
    slices = run.over_time()
    x = seconds_axis(run)
    lines = [
        Line(
            name,
            f"{name} thin" if name == "max" else name,
            [(one["at_s"], one[name] or None) for one in slices],
        )
        for name in ("max", "p99", "p50")
    ]
    bands = [
        Band(begin, one["at_s"], f"{one['at_s']:.3g} s\nslowest {time_text(one['max'])}\n"
             f"p99 {time_text(one['p99'])}\np50 {time_text(one['p50'])}")
        for begin, one in zip([0.0, *(one["at_s"] for one in slices)], slices, strict=False)
        if one["max"] > 0
    ]  # fmt: skip

    def draw(size: tuple[float, float]) -> str:
        shown = bands if size in (LOW, HALF) else ()
        return plot(lines, x, y, size=size, told=f"{run.label}: p50, p99 and slowest over time", bands=shown)

    return f"<div>{wide_and_narrow(draw, size)}</div>"


def rate_plot(run: Run, y: Axis, size: tuple[float, float]) -> str:
    slices = run.over_time()
    x = seconds_axis(run)
    begins = [0.0, *(one["at_s"] for one in slices)]
    line = Line("rate", run.colour, [(one["at_s"], one["rate_per_s"]) for one in slices])
    wrong = [
        (one["at_s"], one["errors"] / max(1e-9, one["at_s"] - begin))
        for begin, one in zip(begins, slices, strict=False)
        if one["errors"] > 0
    ]
    bands = [
        Band(begin, one["at_s"], f"{one['at_s']:.3g} s\n{rate_text(one['rate_per_s'])}"
             + (f"\n{one['errors']:,.0f} errors" if one["errors"] else ""))
        for begin, one in zip(begins, slices, strict=False)
    ]  # fmt: skip
    levels = [Level(run.asked, f"dashed: {asked_text(run.asked)} asked")] if run.asked else []

    def draw(size: tuple[float, float]) -> str:
        shown = bands if size in (LOW, HALF) else ()
        told = f"{run.label}: answered requests a second over time"
        return plot([line], x, y, size=size, told=told, bands=shown, stems=wrong, levels=levels)

    return f"<div>{wide_and_narrow(draw, size)}</div>"
