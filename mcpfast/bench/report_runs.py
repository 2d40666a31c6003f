"""What the report knows of a run: the figures of `--json`, whatever of them is there, and how they are written."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "–"
KEPT_SHARE = 0.95  # of the asked rate: what was answered below it did not keep pace
SLICES_MAX = 200  # over time; more are finer than a screen

Point = tuple[float, float | None]


# ---- numbers ---------------------------------------------------------------------------------------------


def figure(value: Any) -> float | None:
    """The number that it is, if it is one: results come from files, and files from anywhere."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def digits(value: float) -> str:
    """Three digits that count, and never an exponent: 0.0520, 4.37, 12.3, 850."""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    return f"{value:,.{min(places, 6)}f}"


def scaled(value: float, steps: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """In the largest unit in which it is at least 1 once it is rounded: 999.9 us are 1.00 ms."""
    rounded = abs(float(f"{value:.2e}"))
    size, unit = next((step for step in steps if rounded >= step[0]), steps[-1])
    return value / size, unit


TIMES = ((1e6, " s"), (1e3, " ms"), (1.0, " µs"))
COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def time_text(us: float | None) -> str:
    if us is None:
        return NOTHING
    value, unit = scaled(us, TIMES)
    return digits(value) + unit


def count_text(value: float | None) -> str:
    if value is None:
        return NOTHING
    value, unit = scaled(value, COUNTS)
    return digits(value) + unit


def rate_text(value: float | None) -> str:
    return NOTHING if value is None else f"{count_text(value)}/s"


def whole_text(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


def asked_text(value: float | None) -> str:
    """A rate that somebody chose: 1k/s, not 1.00k/s."""
    return NOTHING if value is None else f"{short(count_text(value))}/s"


def short(text: str) -> str:
    """A tick's label: 1.00 ms is 1 ms there."""
    number, space, unit = text.partition(" ")
    tail = number.lstrip("0123456789.,")
    plain = number.removesuffix(tail) if tail else number
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain + tail + space + unit


def time_tick(us: float) -> str:
    return short(time_text(us)) if us else "0"


def count_tick(value: float) -> str:
    return short(count_text(value))


def seconds_tick(value: float) -> str:
    return f"{value:g}"


# ---- runs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run. `label` is its own among all runs; `colour` is a class of the style sheet."""

    label: str
    colour: str
    plain: Mapping[str, Any]

    def text(self, key: str) -> str:
        value = self.plain.get(key)
        return NOTHING if value in (None, "") else str(value)

    def number(self, key: str) -> float | None:
        return figure(self.plain.get(key))

    def part(self, key: str) -> Mapping[str, Any]:
        """One of the objects within; empty where there is none."""
        value = self.plain.get(key)
        return value if isinstance(value, Mapping) else {}

    def rows(self, key: str) -> list[Mapping[str, Any]]:
        value = self.plain.get(key)
        return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []

    def latency(self, name: str) -> float | None:
        """Nothing where nothing was answered: a time of 0 would be the best of all."""
        return figure(self.part("latency_us").get(name)) if self.answered else None

    @property
    def answered(self) -> bool:
        return bool(self.number("requests"))

    @property
    def errors(self) -> float:
        return self.number("errors") or 0.0

    @property
    def rate(self) -> float | None:
        return self.number("rate_per_s")

    @property
    def asked(self) -> float | None:
        """Requests a second; None in a closed loop."""
        return self.number("rate") or None

    @property
    def kept(self) -> bool:
        return self.asked is None or (self.rate or 0.0) >= KEPT_SHARE * self.asked

    @property
    def load(self) -> str:
        connections, window = self.number("connections") or 1, self.number("window") or 1
        said = f"{connections:,.0f} connection{'s' * (connections > 1)}"
        said += f" × {window:,.0f} in flight" if window > 1 else ""
        return f"{asked_text(self.asked)} asked, {said}" if self.asked else said

    @property
    def warnings(self) -> list[str]:
        value = self.plain.get("warnings")
        return [str(warning) for warning in value] if isinstance(value, list | tuple) else []

    def tail(self) -> list[tuple[float, float]]:
        """Share of the requests and microseconds, up to the slowest request: beyond it there is no percentile."""
        requests = self.number("requests") or 0.0
        if requests < 1:
            return []
        last = 1 - 1 / requests
        found = []
        for pair in self.plain.get("percentiles") or ():
            share, us = figure(pair[0]), figure(pair[1])
            if share is not None and us is not None and us > 0 and 0 <= share < last:
                found.append((share, us))
        slowest = self.latency("max")
        if slowest:
            found.append((last, slowest))
        return sorted(found)

    def over_time(self) -> list[Mapping[str, float]]:
        """The slices of the run in order, joined to as many as can be told apart."""
        slices = [
            {
                name: figure(row.get(name)) or 0.0
                for name in ("at_s", "rate_per_s", "errors", "p50", "p99", "max")
            }
            for row in self.rows("over_time")
        ]
        slices.sort(key=lambda one: one["at_s"])
        size = -(-len(slices) // SLICES_MAX)
        return [joined(slices[at : at + size]) for at in range(0, len(slices), size or 1)]


def joined(slices: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Several slices as one: the mean of the rates and medians, the worst of what tells how bad it was."""
    if len(slices) == 1:
        return slices[0]
    busy = [one for one in slices if one["rate_per_s"] > 0]
    return {
        "at_s": slices[-1]["at_s"],
        "rate_per_s": sum(one["rate_per_s"] for one in slices) / len(slices),
        "errors": sum(one["errors"] for one in slices),
        "p50": sum(one["p50"] for one in busy) / max(1, len(busy)),
        "p99": max(one["p99"] for one in slices),
        "max": max(one["max"] for one in slices),
    }


def value_at(tail: Sequence[tuple[float, float]], share: float) -> float | None:
    """Microseconds that this share of the requests did not exceed; None beyond the last request."""
    at = bisect_left(tail, share - 1e-12, key=lambda pair: pair[0])
    return tail[at][1] if at < len(tail) else None


@dataclass(frozen=True, slots=True)
class Group:
    """What was asked for in one go: one run, or a sweep of several rates."""

    label: str
    colour: str
    runs: Sequence[Run]
    sweep: bool


COLOURS = 10
STEPS = 12  # of the colours from low to high


def groups_of(results: Sequence[Mapping[str, Any]]) -> list[Group]:
    """In the order given. A sweep's runs stand by their asked rates, lowest first."""
    names = own_names([str(result.get("name") or result.get("target") or "run") for result in results])
    groups = []
    for at, (name, result) in enumerate(zip(names, results, strict=True)):
        colour = f"c{at % COLOURS}" + (f" dash{at // COLOURS % 3}" if at >= COLOURS else "")
        sweep = [one for one in result.get("sweep") or () if isinstance(one, Mapping)]
        if len(sweep) < 2:
            groups.append(Group(name, colour, [Run(name, colour, result)], sweep=False))
            continue
        sweep.sort(key=lambda one: figure(one.get("rate")) or 0.0)
        rates = own_names([asked_text(figure(one.get("rate"))) for one in sweep])
        runs = [
            Run(f"{name} at {rate}", f"q{place * (STEPS - 1) // (len(sweep) - 1)}", one)
            for place, (rate, one) in enumerate(zip(rates, sweep, strict=True))
        ]
        groups.append(Group(name, colour, runs, sweep=True))
    return groups


def own_names(names: Sequence[str]) -> list[str]:
    """The same name twice gets a number, so that no plot shows two of it."""
    often, seen, own = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        own.append(f"{name} ({seen[name]})" if often[name] > 1 else name)
    return own
