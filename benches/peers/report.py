"""RESULTS.md: the tables of a run, where others are ahead of us, and what the published workloads are known to get wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.peers.catalog import OURS
from benches.peers.contests import CONTESTS
from benches.peers.results import (
    LESS_IS_BETTER,
    Outcome,
    Results,
    Row,
    advantage,
    is_ours,
    ours_of,
    outcomes,
    typical,
)
from benches.peers.workloads import WORKLOADS, Workload
from mcpfast.bench.view import number, time_of

FILE = Path(__file__).resolve().with_name("RESULTS.md")

HEAD = """\
# Peers, side by side

Written by `make peers` on {date}, commit {commit}: {cpu}, {processors} processors, {system}, Python {python}{toolchains}.

## What was promised

The worst of both eras counts. A ratio is the median over {rounds} rounds of ours divided by theirs in the same round, with the
smallest and the largest of them in parentheses.

{promises}
## How to read the tables

The same small server in every SDK, each in the idiom and with the fastest setting of its own documentation
([README.md](README.md)); one processor for the server, another for the load and what it needs. Every server is looked at
once a round, {rounds} rounds; a figure is the median of its looks. `x` says how many times better we are, by the looks of each
round: **below 1 they are ahead of us**. A figure in bold is better than ours.

## Where others are ahead of us

{ahead}
"""

NOTES = {
    "v1": """\
TM Dev Lab, "3.9 M requests", February 2026; load and checks are those ([what differs](../shop/README.md)). Known defects of the
published figures: the article says 50 virtual users, every published raw file and the script's first commit say 10, and so do
we. Then the script's rests allow about {ceiling} counted requests a second: rates near that tell of the script and not of a
server, so compare the CPU. The published Python server made a new HTTP client for each call; all servers here keep one.
""",
    "shop": """\
TM Dev Lab, "39.9 M requests", 27 and 28 February 2026; load and checks are those ([what differs](../shop/README.md)). Known
defects of the published figures: 50 users who rest for 50 ms cannot count more than {ceiling} requests a second in this era,
and with Redis at half a processor the harness filled up near 4,800, which its two quickest servers reached without being busy;
its Rust server ran on a patched SDK; Go and Java ended their sessions, Python did not; a server had two processors, here it has
one. Compare the CPU.
""",
}
CLIENTS = """\
The first `x` is against ours with the best clients that we found, as rmcp has the best of its language; the second is against
ours with the clients of the Python peers, httpx and redis-py: what is left then is the framework.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a table."""

    head: str
    figure: str
    show: Callable[[float], str]


def milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def megabytes(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


COSTS = [
    Column("p50", "p50_us", time_of),
    Column("p99", "p99_us", time_of),
    Column("MB", "rss_mb", megabytes),
]
ECHO = [Column("calls/s", "rate_per_s", number), Column("CPU us/call", "cpu_us_per_request", number), *COSTS]
START = [Column("time", "start_ms", milliseconds)]
WORK = [
    Column("CPU us/request", "cpu_us_per_request", number),
    Column("requests/s", "mean_rate_per_s", number),
    *COSTS,
]


# ---- tables ----------------------------------------------------------------------------------------------


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Figures stand to the right, below each other; `words` to the left."""
    rule = ["---"] + ["---" if words else "---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines)) + "\n"


def cell(row: Row, label: str, column: Column) -> str:
    """Bold where it is better than ours."""
    value = typical(row[label], column.figure)
    if value is None:
        return ""
    shown = column.show(value)
    ours = ours_of(row)
    mine = typical(row[ours], column.figure) if ours else None
    if mine is None or is_ours(label):
        return shown
    better = value < mine if column.figure in LESS_IS_BETTER else value > mine
    return f"**{shown}**" if better else shown


def compared(row: Row, ours: str | None, label: str, figure: str) -> str:
    if ours is None or is_ours(label):
        return ""
    found = advantage(row, ours, label, figure)
    return "" if found is None else found.text if found.median >= 1 else f"**{found.text}**"


def row_table(
    row: Row, columns: list[Column], also: str | None = None, python: frozenset[str] = frozenset()
) -> str:
    """Best first. `also` is another one of ours that `python` are compared with, in a column of its own."""
    first = columns[0].figure
    sign = 1 if first in LESS_IS_BETTER else -1
    order = sorted(row, key=lambda label: sign * (typical(row[label], first) or sign * float("inf")))
    more = ["x, same clients"] if also else []
    lines = []
    for label in order:
        looks = row[label]
        name = f"**{label}**" if is_ours(label) else label
        if isinstance(looks, str):
            lines.append([name, f"failed: {looks.replace('|', '/')}", *[""] * (len(columns) + len(more))])
            continue
        ratios = [compared(row, ours_of(row), label, first)]
        ratios += [compared(row, also, label, first) if label in python else ""] if also else []
        lines.append(
            [name, cell(row, label, columns[0]), *ratios, *(cell(row, label, one) for one in columns[1:])]
        )
    return table(["", columns[0].head, "x", *more, *(one.head for one in columns[1:])], lines)


def contest_tables(results: Results) -> str:
    parts = []
    for contest in CONTESTS:
        if row := results.rows.get(contest.name):
            columns = START if contest.name == "start" else ECHO
            parts.append(f"## {contest.says}\n\n{row_table(row, columns)}")
    return "\n".join(parts)


def workload_tables(results: Results) -> str:
    parts = []
    python = frozenset(results.labels(language="Python"))
    for workload in WORKLOADS:
        if row := results.rows.get(workload.name):
            also = next((label for label in list(row)[1:] if is_ours(label)), None)
            note = note_of(workload, results.seconds, with_clients=also is not None)
            parts.append(f"## {workload.says}\n\n{note}\n{row_table(row, WORK, also, python)}")
    return "\n".join(parts)


def note_of(workload: Workload, seconds: float, *, with_clients: bool) -> str:
    known = NOTES[workload.family].format(ceiling=number(workload.ceiling_per_s))
    return "\n".join([known, workload.schedule(seconds), *(["", CLIENTS] if with_clients else [""])])


# ---- what was promised, and where others are ahead -------------------------------------------------------


def promises(found: list[Outcome]) -> str:
    lines = []
    for one in found:
        shown = f"**{one.ratio.text}**" if one.ratio else ""
        against = f"{one.against} ({one.row})" if one.row else one.against
        if one.unmeasured:
            against += f"; not measured: {', '.join(one.unmeasured)}"
        lines.append(
            [one.promise.says, f"{one.promise.bar:g}", f"{one.promise.aim:g}", shown, one.verdict, against]
        )
    return table(["", "bar", "aim", "measured", "verdict", "against (row)"], lines, words=True)


def ahead(results: Results) -> str:
    """A line for each row in which somebody has a better figure than we."""
    lines = []
    for name, row in results.rows.items():
        columns = START if name == "start" else ECHO if any(c.name == name for c in CONTESTS) else WORK
        found = [
            f"{label} ({', '.join(column.head for column in columns if cell(row, label, column).startswith('**'))})"
            for label in row
            if any(cell(row, label, column).startswith("**") for column in columns)
        ]
        if found:
            lines.append(f"- {name}: {', '.join(found)}")
    return "\n".join(lines) or "Nowhere, in what was measured."


# ---- the whole -------------------------------------------------------------------------------------------


def report(results: Results) -> str:
    """The text of RESULTS.md."""
    parts = [
        HEAD.format(
            date=results.date,
            commit=results.commit or "unknown",
            rounds=results.rounds,
            toolchains="".join(f", {line}" for line in results.toolchains),
            promises=promises(outcomes(results)),
            ahead=ahead(results),
            **results.machine,
        ),
        contest_tables(results),
        workload_tables(results),
        who_they_are(results),
    ]
    return "\n".join(part for part in parts if part)


def who_they_are(results: Results) -> str:
    lines = []
    for label, peer in results.peers.items():
        link = peer["documentation"]
        lines.append([label, peer["language"], peer["notes"], f"<{link}>" if peer["name"] != OURS else link])
    text = (
        f"## Who they are\n\n{table(['', 'language', 'how it is served', 'as told in'], lines, words=True)}"
    )
    absent = results.missing | results.left_out
    if absent:
        text += "\nLeft out: " + "; ".join(f"{what} ({why})" for what, why in absent.items()) + ".\n"
    return text + "\nRaw data, every look: [results.json](results.json).\n"
