"""How a bench tells what it found: progress while it runs, a table at the end, a line of JSON a figure."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from benches.budgets import Budget
from benches.figures import Measured
from mcpfast.bench.result import machine
from mcpfast.bench.view import number

RESULTS = Path(__file__).resolve().with_name("results")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure's outcome; `measured` is None when it could not be had, and `verdict` says why."""

    budget: Budget
    measured: Measured | None
    verdict: str


# ---- while it runs ---------------------------------------------------------------------------------------


@contextmanager
def progress(total: int) -> Iterator[Callable[[str, bool], None]]:
    """A function to say what is going on; its second argument is True when one of `total` figures is done.

    A moving bar on a terminal, a line for each finished figure elsewhere.
    """
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda text, done: print(text, file=sys.stderr, flush=True) if done else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=total)
        yield lambda text, done: bar.update(task, description=text, advance=int(done))


# ---- at the end ------------------------------------------------------------------------------------------


def with_unit(value: float, unit: str) -> str:
    return f"{number(value)}{'' if unit == 'x' else ' '}{'' if unit == 'instructions' else unit}".strip()


def cells(row: Row) -> list[str]:
    budget, measured = row.budget, row.measured
    limits = [with_unit(budget.bar, budget.unit), with_unit(budget.aim, budget.unit)]
    if measured is None:
        return [budget.name, "", "", "", "", *limits, row.verdict, ""]
    latency = "/".join(number(measured.latency_us[q]) for q in QUANTILES if q in measured.latency_us)
    value = with_unit(measured.value, budget.unit)
    rates = ["" if rate is None else number(rate) for rate in (measured.ours_per_s, measured.reference_per_s)]
    return [budget.name, value, *rates, latency, *limits, row.verdict, measured.note]


QUANTILES = ("p50", "p99", "p999")
HEAD = ["figure", "measured", "ours/s", "reference/s", "p50/p99/p99.9 us", "bar", "aim", "verdict", ""]


def print_table(rows: list[Row]) -> None:
    lines = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for at, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if at == 0:
            print("  ".join("-" * width for width in widths).rstrip())


# ---- to keep ---------------------------------------------------------------------------------------------


@cache
def commit() -> str:
    """The commit that is measured, with a `+` where the tree differs from it; "" outside of git.

    The history of the benches is no difference: it tells of commits, and is written after they are measured.
    """
    git = ["git", "-C", str(RESULTS.parent)]
    status = ["status", "--porcelain", "-uno", "--", ":/", ":(exclude)history"]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, *status], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def busy_share(seconds: float = 0.5) -> float:
    """How much of the machine is taken by others, from 0 to 1, looked at for so long."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def counters() -> tuple[int, int]:
        ticks = [int(field) for field in stat.read_text().splitlines()[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # idle, and waiting for a disk

    total, idle = counters()
    time.sleep(seconds)
    total_after, idle_after = counters()
    return round(1 - (idle_after - idle) / max(1, total_after - total), 2)


def keep(row: Row, busy: float, file: Path) -> None:
    """Adds the figure's line of JSON to `file`; `busy` is what others took of the machine."""
    line = {
        "figure": row.budget.name,
        "verdict": row.verdict,
        "unit": row.budget.unit,
        "bar": row.budget.bar,
        "aim": row.budget.aim,
        **(asdict(row.measured) if row.measured else {"value": None}),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine(), "busy": busy},
    }
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


def results_file() -> Path:
    """A file of its own for each run of the bench."""
    return RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{commit().rstrip('+') or 'no-commit'}.jsonl"
