"""`make bench`: measures every figure of benches/budgets.toml, and fails when one misses its bar."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benches.figures_http
import benches.figures_latency
import benches.figures_tenants  # noqa: F401  (they add their figures to FIGURES)
from benches import history
from benches.budgets import Budget, budgets
from benches.figures import ECHO, FIGURES, Measured, Setting, Skipped
from benches.load import RunFailed, Shape, drive
from benches.table import Row, busy_share, commit, keep, machine, print_table, progress, results_file

BUSY_MAX = 0.15
EPILOG = """\
Each figure is a ratio to something measured in the same moments: the ceiling (benches/ceiling.c, what a pipe or
a socket can carry at most), nginx, the peer, or a bare server in Python. Only ratios can be compared between machines, or between
today and yesterday. Close what else is running; a figure that misses its bar is measured once more, with twice
the rounds. Figures and bars: benches/budgets.toml, or --list.

  make bench                                    everything, a few minutes
  make bench ARGS="--quick"                     fewer and shorter rounds: a first idea
  make bench ARGS="--only stdio64_legacy"       one figure (may be given several times)
  make bench ARGS="--server 'python mine.py'"   another server with a tool echo(text: str) -> str
  make bench ARGS=--record                      and a line for this commit in benches/history/history.jsonl

The load comes from the engine of `mcpfast bench`. The HTTP figures need nginx: apt-get install -y nginx-light.
A server given with --server takes its address as its last argument.
MCPFAST_PEER_PYTHON names a Python that has the peer, mcp 2.3.0; without it, and if this one has none, a virtual
environment is made in benches/.venv-mcp. A line of JSON for each figure goes to benches/results/.
Exit code 0: every bar holds. 1: one does not, or the server does not run. 2: wrong options.
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/run.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument(
        "--only", action="append", choices=list(budgets()), metavar="NAME", help="this figure only"
    )
    parser.add_argument("--quick", action="store_true", help="3 short rounds instead of 9")
    parser.add_argument("--rounds", type=int, metavar="N", help="pairs of runs for each ratio")
    parser.add_argument(
        "--server", type=shlex.split, default=ECHO, metavar="COMMAND", help="instead of examples/echo.py"
    )
    parser.add_argument("--record", action="store_true", help="keep what is measured in benches/history")
    given = parser.parse_args()
    if given.record and (why := no_history(given)):
        parser.error(f"--record keeps whole runs of a commit: {why}")
    return given


def no_history(given: argparse.Namespace) -> str:
    """Why what was asked for cannot be recorded, found out before minutes are spent; "" when it can."""
    partial_run = {"--only": given.only, "--quick": given.quick, "--server": given.server != ECHO}
    if any(partial_run.values()):
        return f"leave out {' and '.join(option for option, used in partial_run.items() if used)}"
    if not commit():
        return "this is no work tree of git"
    try:
        history.read(history.FILE)
    except history.Unreadable as why:
        return str(why)
    return ""


def list_figures() -> None:
    width = max(map(len, FIGURES))
    for name, budget in budgets().items():
        sense = "at least" if budget.better == "higher" else "at most"
        print(f"{name:{width}}  {budget.says}; {sense} {budget.bar:g} {budget.unit}, aim {budget.aim:g}")


def try_out(setting: Setting) -> None:
    """One call, before minutes are spent; what is wrong is said once."""
    try:
        drive(Shape(), setting.echo, calls=1)
    except RunFailed as why:
        sys.exit(f"{shlex.join(setting.echo)} does not answer a call of its tool `echo`:\n{why}")


def measure(budget: Budget, setting: Setting) -> Row:
    """One figure; looked at twice before it is said to miss its bar."""
    try:
        measured: Measured = FIGURES[budget.name](setting)
        if not budget.holds(measured.value):
            measured = FIGURES[budget.name](replace(setting, rounds=2 * setting.rounds))
            measured = replace(measured, note=f"{measured.note}, second look".strip(", "))
        return Row(budget, measured, budget.verdict(measured.value))
    except Skipped as why:
        return Row(budget, None, f"skipped: {why}")
    except (RunFailed, OSError) as why:
        print(f"{budget.name}: {why}", file=sys.stderr)
        return Row(budget, None, "FAILED")


def tell_of(tell: Callable[[str, bool], None], name: str, text: str) -> None:
    tell(f"{name}: {text}", False)


def shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def main() -> int:
    given = options()
    if given.list:
        list_figures()
        return 0
    rounds = given.rounds or (3 if given.quick else 9)
    setting = Setting(echo=tuple(given.server), rounds=rounds, seconds=0.15 if given.quick else 0.4)
    try_out(setting)
    chosen = [budget for name, budget in budgets().items() if name in (given.only or FIGURES)]
    rows, file, busy = [], results_file(), busy_share()
    if busy > BUSY_MAX:
        print(f"Others take {busy:.0%} of this machine: figures near their bar mean little.", file=sys.stderr)
    with progress(len(chosen)) as tell:
        for budget in chosen:
            began = time.monotonic()
            say = partial(tell_of, tell, budget.name)
            row = measure(budget, replace(setting, tell=say))
            tell(f"{budget.name}: {row.verdict}, {time.monotonic() - began:.0f} s", True)
            keep(row, busy, file)
            rows.append(row)
    print(" ".join(f"{key} {value}," for key, value in machine().items()).rstrip(","), end="\n\n")
    print_table(rows)
    print(f"\n{shown(file)}")
    if given.record:
        history.add(history.entry_of(rows, busy), history.FILE)
        print(f"{shown(history.FILE)}: the line of {commit()}; `make bench-report` draws it")
    missed = [row.budget.name for row in rows if row.verdict in ("MISSED", "FAILED")]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
