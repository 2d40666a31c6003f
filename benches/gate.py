"""`make bench-gate`: instructions a call against benches/instructions.toml, and ratios against benches/budgets.toml."""

import argparse
import json
import platform
import sys
import sysconfig
import tomllib
from collections.abc import Collection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import benches.figures_http  # noqa: F401  (adds its figures to FIGURES)
from benches.budgets import budgets
from benches.counting import PYTHON_VERSION, have_valgrind, instructions_a_call
from benches.figures import ECHO, FIGURES, SERVERS, Setting, Skipped
from benches.figures_tenants import WITH
from benches.load import HTTP_LEGACY, LEGACY, MODERN, RunFailed, Shape

RECORD = Path(__file__).resolve().with_name("instructions.toml")
RISE_MAX = 0.03
KINDS = [sys.executable, str(SERVERS / "kinds.py")]

CASES: dict[str, tuple[Shape, list[str], str]] = {
    "stdio64_legacy": (Shape(64, era=LEGACY, lockstep=True), ECHO, "stdio"),
    "stdio64_modern": (Shape(64, era=MODERN, lockstep=True), ECHO, "stdio"),
    "stdio_serial": (Shape(1, era=LEGACY, lockstep=True), ECHO, "stdio"),
    "mixed": (Shape(64, tool="echo,echo_two,echo_inline,echo_three", lockstep=True), KINDS, "stdio"),
    "context": (Shape(64, tool="echo_context", lockstep=True), KINDS, "stdio"),
    "waiting": (Shape(64, tool="echo_waiting", lockstep=True), KINDS, "stdio"),
    "inline": (Shape(64, tool="echo_inline", lockstep=True), KINDS, "stdio"),
    "tenants64_legacy": (Shape(64, era=LEGACY, lockstep=True), WITH, "stdio"),
    "http_modern": (Shape(era=MODERN, lockstep=True), ECHO, "http"),
    "http_legacy": (Shape(era=HTTP_LEGACY, lockstep=True), ECHO, "http"),
    "ws64_legacy": (Shape(64, era=LEGACY, lockstep=True), ECHO, "ws"),
}

RATIOS = ("stdio64_legacy", "stdio64_modern", "stdio_serial", "http_modern", "http_legacy", "ws_echo")
ROUNDS, SECONDS, LOOKS_MAX = 5, 0.3, 3

EPILOG = """\
Instructions repeat to the digit where times swing threefold, so this is what CI holds the hot path to: a count
more than 3 % above the record fails. A rise that is meant, and a fall worth keeping, are recorded with --update
and land in the same commit as their cause. Cases: a call in a batch of 64 of either era; one at a time; four tools
in turns, so that nothing learnt from one call helps the next; a tool with a Context; a call that is suspended
once; a plain function on the loop (benches/servers/kinds.py); a call of a tenant, with scopes and quotas; a call
over HTTP and over WebSocket. Where a rise comes from: profiling/callgrind.md.

Instructions do not see the kernel, nor a wait. So the rates of the same calls are compared with the ceiling, nginx or
a bare server in turns, and the best run of ours with the best of the reference: a neighbour can slow a run down, but
not make it faster. A ratio below its bar in benches/budgets.toml fails when it is below in three looks.

Exit code 0: nothing rose. 1: something did, or a server failed. 2: no valgrind.
"""

HEADER = """\
# Instructions a call (callgrind, user space), by Python version: the record of `make bench-gate`.
# Written by `python benches/gate.py --update`. `build` is the Python they were counted with; another build of
# the same version may differ by some percent.
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/gate.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="record what is counted now for this Python")
    parser.add_argument("--counts", action="store_true", help="instructions only, no ratios")
    parser.add_argument(
        "--only", action="append", choices=sorted({*CASES, *RATIOS}), metavar="CASE", help="this case only"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    return parser.parse_args()


def read_record() -> dict[str, dict[str, int | str]]:
    return tomllib.loads(RECORD.read_text()) if RECORD.exists() else {}


def write_record(record: dict[str, dict[str, int | str]]) -> None:
    lines = [HEADER]
    for version in sorted(record, key=lambda text: tuple(map(int, text.split(".")))):
        lines.append(f'["{version}"]')
        lines += [f"{key} = {json.dumps(value)}" for key, value in record[version].items()]
        lines.append("")
    RECORD.write_text("\n".join(lines))


def this_build() -> str:
    compiler = platform.python_compiler()
    return f"{platform.python_version()}, {compiler}, {sysconfig.get_platform()}"


def judge(name: str, count: int, before: int | str | None) -> tuple[str, bool]:
    """The line to print, and whether the case passes."""
    if not isinstance(before, int):
        return f"{name:20} {count:>8,}  no record", True
    change = count / before - 1
    verdict = "ROSE" if change > RISE_MAX else "fell: record it with --update" if change < -RISE_MAX else "ok"
    return f"{name:20} {count:>8,}  {before:>8,}  {change:+7.2%}  {verdict}", change <= RISE_MAX


def count(name: str, before: int | str | None) -> int:
    """Instructions a call; a rise is believed when it is there in LOOKS_MAX looks, and then the lowest is told.

    A busy machine may read a socket in more pieces, and an edit has a .pyc file written: both only add.
    """
    lowest = round(instructions_a_call(*CASES[name]))
    for _ in range(LOOKS_MAX - 1):
        if judge(name, lowest, before)[1]:
            break
        lowest = min(lowest, round(instructions_a_call(*CASES[name])))
    return lowest


def count_all(names: Collection[str], known: dict[str, int | str]) -> tuple[dict[str, int], bool]:
    """Counts and prints each case: the counts that could be had, and whether all pass."""
    print(f"{'instructions a call':20} {'now':>8}  {'record':>8}  {'change':>7}")
    passed, counts = True, {}
    for name in names:
        try:
            counts[name] = count(name, known.get(name))
        except RunFailed as why:
            print(f"{name:20} FAILED: {why}")
            passed = False
            continue
        line, good = judge(name, counts[name], known.get(name))
        print(line, flush=True)
        passed &= good
    return counts, passed


def best_ratio(name: str) -> float:
    """The best ratio of up to LOOKS_MAX looks; the first that holds is enough.

    Raises:
        RunFailed: not one look was possible.
    """
    best, failure = 0.0, None
    for look in range(LOOKS_MAX):
        try:
            measured = FIGURES[name](Setting(rounds=ROUNDS * (look + 1), seconds=SECONDS))
        except RunFailed as why:
            failure = why
            continue
        best = max(best, measured.best or measured.value)
        if budgets()[name].holds(best):
            break
    if failure and not best:
        raise failure
    return best


def compare_all(names: Collection[str]) -> bool:
    """Measures and prints each ratio; whether all pass."""
    print(f"\n{'ratio to reference':20} {'now':>8}  {'bar':>8}")
    passed = True
    for name in names:
        bar = budgets()[name].bar
        try:
            best = best_ratio(name)
        except Skipped as why:
            print(f"{name:20} skipped: {why}")
            continue
        except RunFailed as why:
            print(f"{name:20} FAILED: {why}")
            passed = False
            continue
        good = budgets()[name].holds(best)
        print(f"{name:20} {best:>8.2f}  {bar:>8.2f}  {'ok' if good else 'TOO SLOW'}", flush=True)
        passed &= good
    return passed


def update(record: dict[str, dict[str, int | str]], counts: dict[str, int]) -> None:
    """Records `counts` for this Python; a case that was not counted keeps what it had."""
    kept = {**record.get(PYTHON_VERSION, {}), **counts}
    record[PYTHON_VERSION] = {"build": this_build(), **{name: kept[name] for name in CASES if name in kept}}
    write_record(record)
    print(f"recorded in {RECORD.relative_to(RECORD.parents[1])}")


def main() -> int:
    given = options()
    if given.list:
        print("\n".join(sorted({*CASES, *RATIOS})))
        return 0
    if not have_valgrind():
        print("the gate counts under valgrind. Install: apt-get install -y valgrind", file=sys.stderr)
        return 2
    record = read_record()
    known = record.get(PYTHON_VERSION, {})
    if not known and not given.update:
        print(f"No record for Python {PYTHON_VERSION} yet: nothing can fail. --update makes one.")
    chosen = given.only or [*CASES, *RATIOS]
    counts, passed = count_all([name for name in CASES if name in chosen], known)
    if given.update:
        if counts:
            update(record, counts)
        return 0
    if not passed and known.get("build") != this_build():
        print(f"Recorded with {known.get('build')}; this is {this_build()}: that may be part of it.")
    if not given.counts:
        passed &= compare_all([name for name in RATIOS if name in chosen])
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
