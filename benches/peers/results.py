"""What a run of `make peers` found: looks, the ratios of looks of one round, and what was promised of them.

Kept whole in results.json, from which RESULTS.md (report.py) and the figures of README.md (benches/readme.py) are made.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benches.peers.catalog import OURS, Peer

RAW = Path(__file__).resolve().with_name("results.json")

Look = dict[str, Any]  # the figures of one look at one server, by their names
Looks = list[Look] | str  # one a round; or why there is none
Row = dict[str, Looks]  # by the label of the contestant; ours comes first
LESS_IS_BETTER = {"cpu_us_per_request", "rss_mb", "start_ms", "p50_us", "p99_us"}


@dataclass(slots=True)
class Results:
    """One run. `peers` tells of each by its label, `missing` why others could not be had, `left_out` why a row was not."""

    date: str
    commit: str
    machine: dict[str, Any]
    toolchains: list[str]
    rounds: int
    seconds: float  # of a look; workloads take theirs so many times
    peers: dict[str, dict[str, str]]
    missing: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    def labels(self, *, language: str | None = None, name: str | None = None) -> set[str]:
        """Of the peers of a language or of a name; of all but ours without either."""
        return {
            label
            for label, peer in self.peers.items()
            if peer["name"] != OURS and language in (None, peer["language"]) and name in (None, peer["name"])
        }


def told(peer: Peer) -> dict[str, str]:
    """What is kept of a peer."""
    names = ("name", "version", "language", "notes", "documentation")
    return {name: getattr(peer, name) for name in names}


def read(file: Path = RAW) -> Results:
    return Results(**json.loads(file.read_text()))


# ---- figures of a row ------------------------------------------------------------------------------------


def is_ours(label: str) -> bool:
    return label.startswith(OURS)


def ours_of(row: Row) -> str | None:
    """The first of ours: where there are two, the one with the best clients."""
    return next((label for label in row if is_ours(label)), None)


def values(looks: Looks, name: str) -> list[float]:
    """Of each round; none where it failed, or where the figure does not exist."""
    if isinstance(looks, str):
        return []
    return [look[name] for look in looks if look.get(name)]


def typical(looks: Looks, name: str) -> float | None:
    """The median of the rounds."""
    found = values(looks, name)
    return median(found) if found else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the looks of each round; only these saw the machine in the same moments."""

    median: float
    low: float
    high: float

    @property
    def text(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(above: Looks, below: Looks, name: str) -> Ratio | None:
    """None where one of the two has nothing to say."""
    if isinstance(above, str) or isinstance(below, str):
        return None
    pairs = zip(above, below, strict=False)
    found = [a[name] / b[name] for a, b in pairs if a.get(name) and b.get(name)]
    if not found:
        return None
    return Ratio(median(found), min(found), max(found))


def advantage(row: Row, ours: str, theirs: str, name: str) -> Ratio | None:
    """How many times better we are, whichever way the figure is better: below 1 they are ahead."""
    pair = (row[theirs], row[ours]) if name in LESS_IS_BETTER else (row[ours], row[theirs])
    return ratio(*pair, name)


def best_of(row: Row, name: str, labels: Iterable[str]) -> str | None:
    """Who of these has the best figure."""
    found = {label: value for label in labels if (value := typical(row.get(label, []), name)) is not None}
    if not found:
        return None
    return (min if name in LESS_IS_BETTER else max)(found, key=lambda label: found[label])


# ---- what was promised -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure of ours, divided by that of the best of some peers, has to reach `bar`."""

    says: str
    begin: str  # of the names of its rows: one an era, and the worst counts
    figure: str
    bar: float
    aim: float
    language: str | None = None
    name: str | None = None

    def verdict(self, value: float) -> str:
        less = self.figure in LESS_IS_BETTER
        if value <= self.aim if less else value >= self.aim:
            return "aim"
        return "ok" if (value <= self.bar if less else value >= self.bar) else "**MISSED**"


PROMISES = [
    Promise("stdio echo, 64 in flight: ours / best peer, at least", "stdio64", "rate_per_s", 8, 12),
    Promise("stdio echo, one at a time: ours / best peer, at least", "stdio1", "rate_per_s", 1.2, 1.5),
    Promise("HTTP echo, 32 connections: ours / best peer, at least", "http32", "rate_per_s", 1.8, 2.5),
    Promise("memory: ours / best Python peer, at most", "stdio64", "rss_mb", 0.5, 0.35, language="Python"),
    Promise(
        "cold start: ours / best Python peer, at most", "start", "start_ms", 0.3, 0.15, language="Python"
    ),
    Promise("shop, CPU a request: ours / rmcp, at most", "shop", "cpu_us_per_request", 1.5, 1.0, name="rmcp"),
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A promise and what became of it; without a ratio, `against` says what is missing."""

    promise: Promise
    ratio: Ratio | None
    against: str
    row: str = ""
    unmeasured: tuple[str, ...] = ()  # those it would have to hold against, too

    @property
    def verdict(self) -> str:
        return self.promise.verdict(self.ratio.median) if self.ratio else "not measured"


def outcome(promise: Promise, results: Results) -> Outcome:
    """Of the era in which it is worst."""
    rivals = sorted(results.labels(language=promise.language, name=promise.name))
    rows = {name: row for name, row in results.rows.items() if name.startswith(promise.begin)}
    seen = {
        label
        for row in rows.values()
        for label in rivals
        if typical(row.get(label, []), promise.figure) is not None
    }
    unmeasured = tuple(label for label in rivals if label not in seen)
    found = []
    for name, row in rows.items():
        ours, against = ours_of(row), best_of(row, promise.figure, rivals)
        measured = ratio(row[ours], row[against], promise.figure) if ours and against else None
        if ours and against and measured is None:
            return Outcome(promise, None, f"ours failed ({name})", name, unmeasured)
        if against and measured:
            found.append(Outcome(promise, measured, against, name, unmeasured))
    if not found:
        return Outcome(promise, None, "nobody", "", unmeasured)
    worst = max if promise.figure in LESS_IS_BETTER else min
    return worst(found, key=lambda one: one.ratio.median if one.ratio else 0.0)


def outcomes(results: Results) -> list[Outcome]:
    return [outcome(promise, results) for promise in PROMISES]
