"""RESULTS.md: what was measured, with the machine and the versions; and results.json, from which the README's table is made."""

import json
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benches.peers.catalog import OURS, Peer
from benches.peers.contests import CONTESTS
from benches.peers.workloads import WORKLOADS
from benches.table import commit
from mcpfast.bench.view import number, time_of

FILE = Path(__file__).resolve().with_name("RESULTS.md")
RAW = FILE.with_name("results.json")

HEAD = """\
# Peers, side by side

Written by `make peers` on {date}, commit {commit}: {cpu}, {processors} processors, {system}, Python {python}.

The same small server in every SDK ([README.md](README.md)), one processor a server, the load on the other. Each figure is the
median of looks taken in turns; `x` is ours divided by theirs (or theirs by ours where less is better): above 1 we are better.

"""


def median_of(looks: Any, name: str) -> float | None:
    """None where there is nothing, or it failed."""
    if isinstance(looks, str):
        return None
    values = [look[name] for look in looks if look.get(name) is not None]
    return median(values) if values else None


def table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines)) + "\n"


def compared(value: float | None, ours: float | None, *, less: bool = False) -> str:
    if value is None or ours is None or not value or not ours:
        return ""
    return f"{(value / ours if less else ours / value):.2f}x"


def contest_tables(rows: dict[str, Any]) -> str:
    parts = []
    for contest in CONTESTS:
        looks = rows.get(contest.name)
        if not looks:
            continue
        less = contest.unit == "start_ms"
        ours = median_of(
            next((of for label, of in looks.items() if label.startswith(OURS)), []), contest.unit
        )
        lines = []
        for label, of in sorted(
            looks.items(), key=lambda pair: median_of(pair[1], contest.unit) or 0, reverse=not less
        ):
            if isinstance(of, str):
                lines.append([label, f"failed: {of}", *[""] * (2 if less else 5)])
                continue
            value = median_of(of, contest.unit) or 0
            cells = [label, f"{value:.0f} ms" if less else number(value), compared(value, ours, less=less)]
            if not less:
                latency = [median([look["latency_us"][q] for look in of]) for q in ("p50", "p99")]
                cells += [f"{median_of(of, 'cpu_us_per_request') or 0:.3g}", *(time_of(us) for us in latency)]
                cells.append(f"{median_of(of, 'rss_mb') or 0:.0f}")
            lines.append(cells)
        head = ["", "time", "x"] if less else ["", "calls/s", "x", "CPU us/call", "p50", "p99", "MB"]
        parts.append(f"## {contest.says}\n\n{table(head, lines)}")
    return "\n".join(parts)


def workload_tables(rows: dict[str, Any]) -> str:
    parts = []
    for workload in WORKLOADS:
        looks = rows.get(workload.name)
        if not looks:
            continue
        ours = median_of(next(iter(looks.values())), "cpu_us_per_request")
        lines = []
        for label, of in sorted(
            looks.items(), key=lambda pair: median_of(pair[1], "cpu_us_per_request") or 1e9
        ):
            if isinstance(of, str):
                lines.append([label, f"failed: {of}", *[""] * 5])
                continue
            cpu = median_of(of, "cpu_us_per_request") or 0
            latency = [of[0]["latency_us"][q] for q in ("p50", "p99")]
            rate = number(median_of(of, "mean_rate_per_s") or 0)
            cells = [
                label,
                f"{cpu:.0f}",
                compared(cpu, ours, less=True),
                rate,
                *(time_of(us) for us in latency),
            ]
            lines.append([*cells, f"{median_of(of, 'rss_mb') or 0:.0f}"])
        head = ["", "CPU us/request", "x", "requests/s", "p50", "p99", "MB"]
        parts.append(f"## {workload.says}\n\n{table(head, lines)}")
    return "\n".join(parts)


# ---- what was promised -----------------------------------------------------------------------------------


def best(
    rows: dict[str, Any], row: str, name: str, *, languages: set[str] | None = None, less: bool = False
) -> tuple[float | None, float | None, str]:
    """Ours, the best of the others, and who that is."""
    looks = rows.get(row, {})
    ours = median_of(next((of for label, of in looks.items() if label.startswith(OURS)), []), name)
    others = {label: median_of(of, name) for label, of in looks.items() if not label.startswith(OURS)}
    found = {
        label: value
        for label, value in others.items()
        if value is not None and (languages is None or label in languages)
    }
    if not found:
        return ours, None, ""
    label = (min if less else max)(found, key=lambda one: found[one])
    return ours, found[label], label


PROMISES = [
    # words, rows, figure, Python peers only, less is better, bar, aim
    (
        "stdio echo, 64 in flight: ours / the best peer, at least",
        "stdio64",
        "rate_per_s",
        False,
        False,
        8.0,
        12.0,
    ),
    (
        "stdio echo, one at a time: ours / the best peer, at least",
        "stdio1",
        "rate_per_s",
        False,
        False,
        1.2,
        1.5,
    ),
    (
        "HTTP echo, 32 connections: ours / the best peer, at least",
        "http32",
        "rate_per_s",
        False,
        False,
        1.8,
        2.5,
    ),
    (
        "memory after the stdio echo: ours / the best Python peer, at most",
        "stdio64",
        "rss_mb",
        True,
        True,
        0.5,
        0.35,
    ),
    ("cold start: ours / the best Python peer, at most", "start", "start_ms", True, True, 0.3, 0.15),
    ("shop, CPU a request: ours / rmcp, at most", "shop", "cpu_us_per_request", False, True, 1.5, 1.0),
]


def promises(rows: dict[str, Any], found: list[Peer]) -> str:
    """The worst era of each row."""
    python = {peer.title for peer in found if peer.language == "Python"}
    rust = {peer.title for peer in found if peer.name == "rmcp"}
    lines = []
    for words, begin, name, only_python, less, bar, aim in PROMISES:
        languages = python if only_python else rust if begin == "shop" else None
        told = []
        for row in rows:
            if row.startswith(begin):
                ours, theirs, who = best(rows, row, name, languages=languages, less=less)
                if ours and theirs:
                    told.append((ours / theirs, who, row))
        if not told:
            continue
        ratio, who, row = (max if less else min)(told)
        reached = ratio <= aim if less else ratio >= aim
        holds = ratio <= bar if less else ratio >= bar
        verdict = "aim" if reached else "ok" if holds else "**MISSED**"
        lines.append([words, f"{bar:g}", f"{aim:g}", f"**{ratio:.2f}**", verdict, f"{who} ({row})"])
    return table(["", "bar", "aim", "measured", "verdict", "against (row)"], lines) if lines else ""


def write_results(
    found: list[Peer], missing: dict[str, str], rows: dict[str, Any], machine: dict[str, Any], *, keep: bool
) -> str:
    """The text of RESULTS.md; written beside its raw data when `keep` says so."""
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    text = HEAD.format(date=date, commit=commit() or "unknown", **machine)
    text += f"## What was promised\n\nThe worst of both eras counts.\n\n{promises(rows, found)}\n"
    text += contest_tables(rows) + "\n" + workload_tables(rows)
    text += "\n## Who they are\n\n" + table(
        ["", "language", "how it is served"], [[p.title, p.language, p.notes] for p in found]
    )
    if missing:
        text += "\nLeft out: " + "; ".join(f"{title} ({why})" for title, why in missing.items()) + ".\n"
    text += f"\nRaw data, every look: [{RAW.name}]({RAW.name}).\n"
    if keep:
        FILE.write_text(text)
        raw = {"date": date, "commit": commit(), "machine": machine, "missing": missing, "rows": rows}
        raw["peers"] = {peer.title: {"language": peer.language, "notes": peer.notes} for peer in found}
        RAW.write_text(json.dumps(raw, indent=1) + "\n")
    return text
