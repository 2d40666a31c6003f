"""The history by figure: each one's values over the changes, and which of them belong together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benches.budgets import Budget, budgets
from benches.gate import RISE_MAX
from benches.history import Entry
from mcpfast.bench.report_runs import NOTHING

LATENCY = re.compile(r"([a-z]+)_(\d{4})_(.+)")  # a row of [latency] in budgets.toml: transport, era, kind
TRANSPORTS = {"stdio": "stdio", "unix": "Unix sockets", "tcp": "TCP", "http": "HTTP", "ws": "WebSocket"}
WEATHER = 0.10  # ratios of one tree move by so much from run to run


@dataclass(frozen=True, slots=True)
class Series:
    """One figure. `values` and `verdicts` have an item for each line of the history, or none: not measured there."""

    name: str
    says: str
    unit: str
    budget: Budget | None  # none of a count of the gate, nor of a figure that budgets.toml knows no more
    values: Sequence[float | None]
    verdicts: Sequence[str]

    @property
    def measured(self) -> bool:
        return any(value is not None for value in self.values)

    @property
    def latency(self) -> tuple[str, str, str] | None:
        """Transport, era and kind, of a row of latencies."""
        found = LATENCY.fullmatch(self.name)
        return (found[1], found[2], found[3]) if found and found[1] in TRANSPORTS else None

    def change(self, before: int) -> float | None:
        """Of the last value against that one, as a share of it."""
        was, now = self.values[before], self.values[-1]
        return now / was - 1 if was and now is not None else None

    def is_better(self, change: float) -> bool:
        rising = self.budget is not None and self.budget.better == "higher"
        return (change > 0) is rising


def notable(one: Series, change: float) -> bool:
    return abs(change) > (RISE_MAX if one.unit == "instructions" else WEATHER)


def change_text(change: float | None) -> str:
    return NOTHING if change is None else f"{change:+.1%}".replace("%", " %")


def series_of(entries: Sequence[Entry]) -> list[Series]:
    """Of all figures that budgets.toml or a line knows, and of the gate's counts."""
    known = budgets()
    gone = dict.fromkeys(name for entry in entries for name in entry.figures if name not in known)
    cases = dict.fromkeys(name for entry in entries for name in entry.instructions)
    held = [held_series(budget, entries) for budget in known.values()]
    return (
        held + [gone_series(name, entries) for name in gone] + [gate_series(name, entries) for name in cases]
    )


def held_series(budget: Budget, entries: Sequence[Entry]) -> Series:
    values = [entry.figures.get(budget.name) for entry in entries]
    verdicts = [
        entry.verdicts.get(budget.name) or ("" if value is None else budget.verdict(value))
        for entry, value in zip(entries, values, strict=True)
    ]
    return Series(budget.name, budget.says, budget.unit, budget, values, verdicts)


def gone_series(name: str, entries: Sequence[Entry]) -> Series:
    values = [entry.figures.get(name) for entry in entries]
    return Series(name, "budgets.toml knows it no more", "", None, values, [""] * len(entries))


def gate_series(name: str, entries: Sequence[Entry]) -> Series:
    values = [entry.instructions.get(name) for entry in entries]
    return Series(
        f"gate: {name}",
        f"{name}, as make bench-gate counts",
        "instructions",
        None,
        values,
        [""] * len(entries),
    )


# ---- what belongs together -------------------------------------------------------------------------------


def groups_of(figures: Sequence[Series]) -> dict[str, list[Series]]:
    """By the titles of their sections, in the order in which they are told."""
    titles = [
        "Rates",
        *(f"Latency: {name}" for name in TRANSPORTS.values()),
        "Costs",
        "Memory",
        "Instructions a call",
    ]
    groups: dict[str, list[Series]] = {title: [] for title in [*titles, "No longer measured"]}
    for one in figures:
        groups[title_of(one)].append(one)
    return groups


def title_of(one: Series) -> str:
    if one.unit == "instructions":
        return "Instructions a call"
    if one.budget is None:
        return "No longer measured"
    if one.latency:
        return f"Latency: {TRANSPORTS[one.latency[0]]}"
    if one.unit.endswith("B"):
        return "Memory"
    return "Rates" if one.budget.better == "higher" else "Costs"


def charts_of(group: Sequence[Series]) -> list[list[Series]]:
    """What is drawn into one plot: the eras of a latency together, everything else alone."""
    charts: dict[str, list[Series]] = {}
    for one in group:
        if one.measured:
            charts.setdefault(one.latency[2] if one.latency else one.name, []).append(one)
    return list(charts.values())
