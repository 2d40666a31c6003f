"""What is seen of a run: a line that lives while it goes on, and tables in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mcpfast.bench.drive import Watch
from mcpfast.bench.plan import Plan
from mcpfast.bench.result import Result

QUANTILES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))


def number(value: float) -> str:
    """Three or four digits that count: 0.468, 25.3, 3,940, 1.24M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f}M"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def time_of(us: float) -> str:
    """With the unit that suits: 850 us, 12.3 ms, 1.50 s."""
    if us >= 1e6:
        return f"{number(us / 1e6)} s"
    return f"{number(us / 1e3)} ms" if us >= 1e3 else f"{number(us)} us"


# ---- while it runs ---------------------------------------------------------------------------------------


@contextmanager
def live(plan: Plan) -> Iterator[Watch | None]:
    """Something to tell how it goes; None where nobody looks on."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.fields[phase]:>10}"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=1, phase="opening")
        begun = [0, 0.0]  # answered before the phase began

        def watch(seen: dict[str, Any]) -> None:
            length = {"warming up": plan.warmup_s + plan.ramp_s, "measuring": plan.duration_s}.get(
                seen["phase"], 0.0
            )
            share = min(1.0, seen["seconds"] / length) if length else None
            if plan.calls:
                share = min(1.0, seen["answered"] / (plan.calls + plan.warmup_calls))
            rate = (seen["answered"] - begun[0]) / max(0.05, seen["seconds"])
            if seen["phase"] != "measuring":
                begun[0] = seen["answered"]
            bar.update(task, completed=share or 0, phase=seen["phase"], description=words(seen, rate))

        yield watch


def words(seen: dict[str, Any], rate: float) -> str:
    if seen["phase"] != "measuring":
        return f"{seen['open']:,} connections open"
    said = [f"{number(rate)}/s", f"p50 {time_of(seen['p50_us'])}", f"p99 {time_of(seen['p99_us'])}"]
    if seen["refused"]:
        said.append(f"{seen['refused']:,} refused")
    said.append(f"[red]{seen['errors']:,} errors[/red]" if seen["errors"] else "no errors")
    if seen["waiting"]:
        said.append(f"{seen['waiting']:,} wait")
    return "  ".join(said)


# ---- in the end ------------------------------------------------------------------------------------------


def print_result(result: Result) -> None:
    load = f"{result.connections} connection{'s' * (result.connections > 1)}"
    if result.window > 1:
        load += f" x {result.window} in flight"
    load += f", {number(result.rate)}/s asked for" if result.rate else ""
    print(f"{result.target}  (MCP {result.era}; {load}; {result.seconds:.1f} s after {result.warmup_s:g} s)")
    print(f"  rate     {number(result.rate_per_s)}/s, {result.requests:,} requests, {errors_of(result)}")
    print(f"  latency  {latencies(result.latency_us)}")
    if result.refused:
        print(f"  refused  {result.refused:,}: {latencies(result.refused_latency_us)}")
    if len(result.kinds) > 1:
        width = max(len(kind["name"]) for kind in result.kinds)
        for kind in result.kinds:
            wrong = f", {kind['errors']:,} wrong" if kind["errors"] else ""
            print(
                f"    {kind['name']:{width}}  {kind['requests']:>9,}{wrong}  {latencies(kind['latency_us'])}"
            )
    if result.server:
        print(f"  server   {server_words(result.server)}")
    for warning in result.warnings:
        print(f"  note     {warning}")
    if result.errors:
        print(f"  first wrong answer: {result.first_error}")


def errors_of(result: Result) -> str:
    if not result.errors:
        return "all answers right"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.error_kinds.items())
    return f"{result.errors:,} WRONG ({kinds})"


def latencies(times: dict[str, float]) -> str:
    return ", ".join(f"{shown} {time_of(times[name])}" for name, shown in QUANTILES)


def server_words(server: dict[str, Any]) -> str:
    said = [f"{server['cpu_us_per_request']:.3g} us of CPU a request"]
    if "cpu_share" in server:
        said.append(f"{server['cpu_share']:.0%} of a processor")
    if "rss_mb" in server:
        said.append(
            f"{server['rss_mb']:.1f} MB resident, {server['descriptors']} descriptors, {server['threads']} threads"
        )
    if "voluntary_switches_per_request" in server:
        switches = server["voluntary_switches_per_request"] + server["involuntary_switches_per_request"]
        said.append(f"{switches:.2g} context switches a request")
    return "; ".join(said)


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """A line for each run, one below the other."""
    head = [
        "run",
        "asked/s",
        "rate/s",
        "errors",
        "refused",
        *(shown for _, shown in QUANTILES),
        "CPU us",
        "MB",
    ]
    lines = [head, *(cells(result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for at, line in enumerate(lines):
        first, *rest = (
            cell.ljust(w) if at_ == 0 else cell.rjust(w)
            for at_, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())
        if at == 0:
            print("  ".join("-" * width for width in widths))


def cells(result: dict[str, Any]) -> list[str]:
    server = result["server"] or {}
    return [
        result["name"],
        number(result["rate"]) if result["rate"] else "",
        number(result["rate_per_s"]),
        f"{result['errors']:,}",
        f"{result['refused']:,}",
        *(time_of(result["latency_us"][name]) for name, _ in QUANTILES),
        number(server["cpu_us_per_request"]) if "cpu_us_per_request" in server else "",
        number(server["rss_mb"]) if "rss_mb" in server else "",
    ]
