"""Writes the figures of README.md, between its two marks, from what `make peers` and `make bench` recorded.

    .venv/bin/python benches/readme.py            rewrites them
    .venv/bin/python benches/readme.py --check    says whether they are what was recorded, and changes nothing

The peers come from benches/peers/results.json; the figures of `make bench` from the last line of
benches/history/history.jsonl, where there is one.
Exit code 0: README.md is right. 1: it is not (--check), or there is nothing to write. 2: wrong options.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches import history
from benches.budgets import budgets
from benches.history import Entry
from benches.peers.report import Column, megabytes, milliseconds, table
from benches.peers.results import (
    LESS_IS_BETTER,
    RAW,
    Results,
    is_ours,
    outcomes,
    read,
    typical,
)
from benches.table import with_unit
from mcpfast.bench.view import number

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
PEERS = [  # a column, and how the names of its rows begin
    ("stdio64", Column("stdio, 64 in flight", "rate_per_s", lambda rate: f"{number(rate)}/s")),
    ("stdio1", Column("stdio, one at a time", "rate_per_s", lambda rate: f"{number(rate)}/s")),
    ("http32", Column("HTTP, 32 connections", "rate_per_s", lambda rate: f"{number(rate)}/s")),
    ("stdio64", Column("memory", "rss_mb", lambda size: f"{megabytes(size)} MB")),
    ("start", Column("start", "start_ms", milliseconds)),
]
BENCH = (
    "stdio64_legacy",
    "stdio64_modern",
    "stdio_serial",
    "unix_100x8",
    "http_modern",
    "http_legacy",
    "ws_echo",
    "sse_progress",
    "payload_1mib",
    "instructions",
    "spawn",
    "rss",
    "idle_connection",
    "http_idle_session",
    "tenants_http",
    "tenants_stdio",
    "tenants_admission",
    "tenants_10000",
    "tenant_memory",
    "tenants_quiet_p99",
    "tenants_list",
    "tenants_reload",
)


PEERS_SAY = """\
The same small server in every SDK, one processor each, every answer checked; the better of both eras. `make peers`, {date},
{machine}. Each era by itself, CPU, latencies and two published workloads:
[benches/peers/RESULTS.md](benches/peers/RESULTS.md).
"""
PROMISES_SAY = (
    "What is promised of these, in the worse of both eras; a ratio is the median of those of each round:"
)
BENCH_SAY = """\
Beside what the machine itself can carry: `make bench`, {date}, commit {commit}, {machine}. More than 1 is no mistake: the ceiling
answers each batch in one write, and we write while we still work at it, so that the client has something to do.
"""


class Unwritable(Exception):
    """The figures cannot be written; the text says why, and what to do."""


# ---- the text --------------------------------------------------------------------------------------------


def figures(results: Results, last: Entry | None) -> str:
    """What stands between the marks."""
    parts = [
        PEERS_SAY.format(date=results.date, machine=machine(results.machine)),
        peers_table(results),
        PROMISES_SAY,
        promises_table(results),
    ]
    if last is not None:
        told = machine({"python": last.python, **last.machine})
        parts += [
            BENCH_SAY.format(date=last.date[:10], commit=last.commit, machine=told),
            bench_table(last.figures),
        ]
    return "\n\n".join(part.strip() for part in parts)


def machine(told: dict[str, Any]) -> str:
    return f"{told['processors']} processors of {told['cpu']}, {told['system']}, Python {told['python']}"


def peers_table(results: Results) -> str:
    """In the order of the first column."""
    lines = {}
    for label, peer in results.peers.items():
        found = [best(results, label, begin, column) for begin, column in PEERS]
        if any(value is not None for value in found):
            shown = ["" if v is None else column.show(v) for v, (_, column) in zip(found, PEERS, strict=True)]
            lines[label] = (
                found[0] or 0.0,
                [f"**{label}**" if is_ours(label) else label, peer["language"], *shown],
            )
    ordered = [line for _, line in sorted(lines.values(), key=lambda pair: -pair[0])]
    return table(["", "language", *(column.head for _, column in PEERS)], ordered)


def best(results: Results, label: str, begin: str, column: Column) -> float | None:
    """Of all rows that begin so; None where it was not measured."""
    rows = [row for name, row in results.rows.items() if name.startswith(begin)]
    found = [value for row in rows if (value := typical(row.get(label, []), column.figure)) is not None]
    choose = min if column.figure in LESS_IS_BETTER else max
    return choose(found) if found else None


def promises_table(results: Results) -> str:
    lines = []
    for one in outcomes(results):
        measured = f"{one.ratio.median:.2f}" if one.ratio else one.verdict
        missed = ", **missed**" if "MISSED" in one.verdict else ""
        without = f"; without {', '.join(one.unmeasured)}" if one.unmeasured else ""
        lines.append([one.promise.says, f"{one.promise.bar:g}", measured + missed, f"{one.against}{without}"])
    return table(["", "bar", "measured", "against"], lines)


def bench_table(measured: dict[str, float]) -> str:
    """A handful; the names are those of budgets.toml."""
    known = budgets()
    lines = []
    for name in BENCH:
        if name in measured and name in known:
            budget, value = known[name], measured[name]
            sense = "at least" if budget.better == "higher" else "at most"
            missed = "" if budget.holds(value) else ", **missed**"
            shown = [with_unit(figure, budget.unit) for figure in (budget.bar, value)]
            lines.append([budget.says, f"{sense} {shown[0]}", shown[1] + missed])
    return table(["", "bar", "measured"], lines)


# ---- the file --------------------------------------------------------------------------------------------


def renewed(text: str, raw: Path, recorded: Path) -> str:
    """`text` of README.md with the figures that were recorded. Raises Unwritable."""
    if not raw.exists():
        raise Unwritable(f"{raw} is not there: make peers writes it")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Unwritable(f"README.md has not both marks, {BEGIN} and {END}")
    try:
        entries = history.read(recorded)
    except history.Unreadable as why:
        raise Unwritable(str(why)) from why
    return f"{before}{BEGIN}\n\n{figures(read(raw), entries[-1] if entries else None)}\n\n{END}{after}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benches/readme.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when README.md is not right"
    )
    given = parser.parse_args(words)
    text = README.read_text()
    try:
        wanted = renewed(text, RAW, history.FILE)
    except Unwritable as why:
        print(why, file=sys.stderr)
        return 1
    if text == wanted:
        return 0
    if given.check:
        print(
            "The figures in README.md are not those recorded. Write them: .venv/bin/python benches/readme.py",
            file=sys.stderr,
        )
        return 1
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
