"""The report of `mcpfast bench --html`: one file with tables and plots, for light and dark screens, phones and paper.

It loads nothing and holds no script; its policy forbids both, so that even a name which escaped our escaping could do
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mcpfast.bench.report_figures import bars_section, over_time_section, rates_section, tail_section
from mcpfast.bench.report_runs import (
    NOTHING,
    Group,
    Run,
    asked_text,
    count_text,
    figure,
    groups_of,
    rate_text,
    time_text,
    whole_text,
)
from mcpfast.bench.report_style import style

QUANTILES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(
    results: Sequence[Mapping[str, Any]], file: Path, *, title: str = "MCP server measured by mcpfast bench"
) -> None:
    """Write what was measured as one HTML file that needs nothing else.

    A result is what `mcpfast bench --json` writes. Several are compared in the order given; the runs of a sweep over
    several rates stand side by side. Whatever a result lacks is left out. Raises OSError when the file cannot be written.
    """
    groups = groups_of(results)
    runs = [run for group in groups for run in group.runs]
    body = [
        heading(title, runs),
        warnings(runs),
        tiles(runs[0]) if len(runs) == 1 and runs[0].answered else "",
        summary(groups),
        bars_section([group.runs[0] for group in groups if not group.sweep]),
        rates_section(groups),
        *tail_section(groups),
        over_time_section(groups),
        kinds(runs),
        errors(runs),
        settings(runs),
        footer(runs),
    ]
    write_page(title, body, file)


def write_page(title: str, body: Iterable[str], file: Path) -> None:
    """The parts of `body` that are not empty, as a page with the report's style sheet and its policy."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{style()}</style>"
    )
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
    page += "\n".join(part for part in body if part) + "\n</main></body></html>\n"
    file.write_text(page, encoding="utf-8", errors="backslashreplace")


# ---- tables ----------------------------------------------------------------------------------------------


def cell(words: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(words)}</td>' if kind else f"<td>{escape(words)}</td>"


def named(run: Run) -> str:
    return f'<th scope="row"><span class="swatch {run.colour}"></span>{escape(run.label)}</th>'


def table(head: Sequence[str], rows: Iterable[str], kind: str = "figures") -> str:
    columns = "".join(f'<th scope="col">{escape(column)}</th>' for column in head)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
    )


def error_cell(errors: float) -> str:
    return cell(whole_text(errors), "bad" if errors else "")


# ---- sections --------------------------------------------------------------------------------------------


def heading(title: str, runs: Sequence[Run]) -> str:
    dates = sorted({run.text("date")[:10] for run in runs} - {NOTHING})
    targets = list(dict.fromkeys(run.text("target") for run in runs))
    said = [" to ".join(dict.fromkeys((dates[0], dates[-1])))] if dates else []
    said.append(f"{len(runs)} run{'s' * (len(runs) != 1)}")
    shown = f" of <code>{escape(targets[0])}</code>" if len(targets) == 1 else f" of {len(targets)} targets"
    return f'<header><h1>{escape(title)}</h1><p class="soft">{escape(", ".join(said))}{shown if runs else ""}</p></header>'


def warnings(runs: Sequence[Run]) -> str:
    """What a reader must know before believing the figures, above all of them."""
    wrong = [
        f"{escape(run.label)}: {whole_text(run.errors)} of {whole_text(run.number('requests'))} requests failed"
        for run in runs
        if run.errors
    ]
    notes = notes_of(runs)
    machines = {
        tuple(sorted((key, str(value)) for key, value in run.part("machine").items())) for run in runs
    }
    if len(machines) > 1:
        notes.append("These runs come from different machines or Pythons: compare their figures with care.")
    return box("wrong", "Not every answer was right", wrong) + box(
        "note", "Before you read the figures", notes
    )


def notes_of(runs: Sequence[Run]) -> list[str]:
    """The runs' warnings. One that several runs have with other figures is told once: ten lines of it would hide the rest."""
    alike: dict[str, list[tuple[Run, str]]] = {}
    for run in runs:
        for warning in run.warnings:
            alike.setdefault(re.sub(r"\d[\d.,]*", "0", warning), []).append((run, warning))
    notes = []
    for (run, warning), *others in alike.values():
        also = ", ".join(escape(other.label) for other, _ in others)
        end = f' <span class="soft">(The same, with their own figures, for {also}.)</span>' if also else ""
        notes.append(f"{escape(run.label)}: {escape(warning)}{end}")
    return notes


def box(kind: str, title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<section class="box {kind}"><strong>{title}</strong><ul>{items}</ul></section>'


def tiles(run: Run) -> str:
    shown = [
        ("answered, requests/s", rate_text(run.rate)),
        ("p50: half were faster", time_text(run.latency("p50"))),
        ("p99: one in 100 was slower", time_text(run.latency("p99"))),
        ("slowest request", time_text(run.latency("max"))),
        ("errors", whole_text(run.errors)),
    ]
    inner = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in shown)
    return f'<section class="tiles">{inner}</section>'


def summary(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    if not runs:
        return '<p class="box note">There is no run to show.</p>'
    asked = any(run.asked for run in runs)
    refused = any(run.number("refused") for run in runs)
    server = any(run.part("server") for run in runs)
    head = ["run", *["asked"] * asked, "rate", "errors", *["refused"] * refused]
    head += [shown for _, shown in QUANTILES]
    head += ["server CPU a request", "server memory"] * server

    def row(run: Run) -> str:
        cells = [named(run)]
        cells += [cell(asked_text(run.asked))] * asked
        cells += [cell(rate_text(run.rate)), error_cell(run.errors)]
        cells += [cell(whole_text(run.number("refused")))] * refused
        cells += [cell(time_text(run.latency(name))) for name, _ in QUANTILES]
        if server:
            own = run.part("server")
            memory = figure(own.get("rss_mb"))
            cells.append(cell(time_text(figure(own.get("cpu_us_per_request")))))
            cells.append(cell(f"{count_text(memory)} MB" if memory is not None else NOTHING))
        return "".join(cells)

    said = (
        "Times are what a client waits for an answer: p99 is the time that 99 of 100 requests did not exceed."
    )
    return f'<section><h2>Summary</h2>{table(head, map(row, runs))}<p class="read">{said}</p></section>'


def kinds(runs: Sequence[Run]) -> str:
    """What was called, where it was more than one thing."""
    shown = [run for run in runs if len(run.rows("kinds")) > 1]
    if not shown:
        return ""
    head = ["run", "kind of request", "requests", "errors", *(name for _, name in QUANTILES)]
    rows = []
    for run in shown:
        for kind in run.rows("kinds"):
            times = kind.get("latency_us")
            times = times if isinstance(times, Mapping) and figure(kind.get("requests")) else {}
            cells = [named(run), cell(str(kind.get("name", NOTHING)), "words")]
            cells += [
                cell(whole_text(figure(kind.get("requests")))),
                error_cell(figure(kind.get("errors")) or 0),
            ]
            cells += [cell(time_text(figure(times.get(name)))) for name, _ in QUANTILES]
            rows.append("".join(cells))
    said = "One row for each kind of request in the mix: a mean over all of them hides the slow kind."
    return f'<section><h2>Kinds of requests</h2>{table(head, rows)}<p class="read">{said}</p></section>'


def errors(runs: Sequence[Run]) -> str:
    rows = [
        named(run) + cell(str(kind), "words") + cell(whole_text(figure(count)))
        for run in runs
        for kind, count in run.part("error_kinds").items()
    ]
    if not rows:
        return ""
    firsts = [
        f"<p>First wrong answer of {escape(run.label)}: <code>{escape(run.text('first_error'))}</code></p>"
        for run in runs
        if run.text("first_error") != NOTHING
    ]
    return f"<section><h2>What went wrong</h2>{table(['run', 'error', 'requests'], rows)}{''.join(firsts)}</section>"


def facts(run: Run) -> dict[str, str]:
    """The settings of a run and what it ran on, by their names on the page."""
    machine, server, generator = run.part("machine"), run.part("server"), run.part("generator")
    seconds, busy = run.number("duration_s"), figure(generator.get("busy"))
    loop = {
        "open": "open: requests are sent by the clock",
        "closed": "closed: the next request waits for an answer",
    }
    best, handshake, refused = run.number("rate_p75_per_s"), run.number("handshake_ms"), run.number("refused")
    refusal = figure(run.part("refused_latency_us").get("p99"))
    switches = [figure(server.get(f"{kind}_switches_per_request")) for kind in ("voluntary", "involuntary")]
    known = [part for part in switches if part is not None]
    return {
        "Target": run.text("target"),
        "MCP revision": run.text("era"),
        "Loop": loop.get(run.text("loop"), run.text("loop")),
        "Load": run.load,
        "Measured": f"{seconds:g} s after {run.number('warmup_s') or 0:g} s of warm-up"
        if seconds
        else NOTHING,
        "Requests": whole_text(run.number("requests")),
        "Rate in the best quarter of the time": f"{rate_text(best)} or more" if best else NOTHING,
        "Refused": f"{whole_text(refused)}, p99 {time_text(refusal)}" if refused else NOTHING,
        "Handshake": time_text(handshake * 1e3) if handshake else NOTHING,
        "Date": run.text("date").replace("T", " "),
        "mcpfast": run.text("mcpfast"),
        "Processor": f"{machine.get('cpu', NOTHING)}, {machine.get('processors', NOTHING)} usable",
        "System": str(machine.get("system", NOTHING)),
        "Python": str(machine.get("python", NOTHING)),
        "Load generator": f"busy {100 * busy:.0f} %" if busy is not None else NOTHING,
        "Server's threads": whole_text(figure(server.get("threads"))),
        "Server's descriptors": whole_text(figure(server.get("descriptors"))),
        "Context switches a request": f"{sum(known):.2g}" if known else NOTHING,
    }


def settings(runs: Sequence[Run]) -> str:
    """What all runs share is said once; what differs has a table."""
    if not runs:
        return ""
    told = [facts(run) for run in runs]
    names = [name for name in told[0] if any(one[name] != NOTHING for one in told)]
    same = [name for name in names if len({one[name] for one in told}) == 1]
    other = [name for name in names if name not in same]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(told[0][name])}</dd>" for name in same)
    shared = f"<dl>{items}</dl>" if same else ""
    rows = [
        named(run) + "".join(cell(one[name], "words") for name in other)
        for run, one in zip(runs, told, strict=True)
    ]
    differing = (
        f"<h3>What differs between the runs</h3>{table(['run', *other], rows, 'facts')}" if other else ""
    )
    return f"<section><h2>Settings and machine</h2>{shared}{differing}</section>"


def footer(runs: Sequence[Run]) -> str:
    said = ["Measured by <code>mcpfast bench</code>; every answer was checked."]
    if any(run.asked for run in runs):
        said.append(
            "In an open loop a latency counts from the moment at which the request was due, so waiting counts too."
        )
    if any(not run.asked for run in runs):
        said.append(
            "In a closed loop a slow server is asked less often: its latencies say nothing of a given rate."
        )
    return f"<footer>{' '.join(said)}</footer>"
