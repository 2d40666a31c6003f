"""`make bench-gate`: instructions a call, against what benches/instructions.toml remembers of this Python."""

import argparse
import json
import platform
import sys
import sysconfig
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benches.counting import PYTHON_VERSION, have_valgrind, instructions_a_call
from benches.figures import ECHO, SERVERS
from benches.load import LEGACY, MODERN, RunFailed, Shape

RECORD = Path(__file__).resolve().with_name("instructions.toml")
RISE_MAX = 0.03
KINDS = [sys.executable, str(SERVERS / "kinds.py")]

CASES: dict[str, tuple[Shape, list[str]]] = {
    "stdio64_legacy": (Shape(64, era=LEGACY, lockstep=True), ECHO),
    "stdio64_modern": (Shape(64, era=MODERN, lockstep=True), ECHO),
    "stdio_serial": (Shape(1, era=LEGACY, lockstep=True), ECHO),
    "mixed": (Shape(64, tool="echo,echo_two,echo_inline,echo_three", lockstep=True), KINDS),
    "context": (Shape(64, tool="echo_context", lockstep=True), KINDS),
    "waiting": (Shape(64, tool="echo_waiting", lockstep=True), KINDS),
    "inline": (Shape(64, tool="echo_inline", lockstep=True), KINDS),
}

EPILOG = """\
Instructions repeat to the digit where times swing threefold, so this is what CI holds the hot path to: a count
more than 3 % above the record fails. A rise that is meant, and a fall worth keeping, are recorded with --update
and land in the same commit as their cause. Cases: a call in a batch of 64 of either era; one at a time; four tools
in turns, so that nothing learnt from one call helps the next; a tool with a Context; a call that is suspended
once; a plain function on the loop (benches/servers/kinds.py). Where a rise comes from: profiling/callgrind.md.

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
    parser.add_argument("--only", action="append", choices=list(CASES), metavar="CASE", help="this case only")
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
        return f"{name:16} {count:>8,}  no record", True
    change = count / before - 1
    verdict = "ROSE" if change > RISE_MAX else "fell: record it with --update" if change < -RISE_MAX else "ok"
    return f"{name:16} {count:>8,}  {before:>8,}  {change:+7.2%}  {verdict}", change <= RISE_MAX


def main() -> int:
    given = options()
    if given.list:
        print("\n".join(CASES))
        return 0
    if not have_valgrind():
        print("the gate counts under valgrind. Install: apt-get install -y valgrind", file=sys.stderr)
        return 2
    record = read_record()
    known = record.get(PYTHON_VERSION, {})
    if not known and not given.update:
        print(f"No record for Python {PYTHON_VERSION} yet: nothing can fail. --update makes one.")
    print(f"{'case':16} {'now':>8}  {'record':>8}  {'change':>7}")
    passed, counts = True, dict(known)
    for name in given.only or CASES:
        try:
            counts[name] = round(instructions_a_call(*CASES[name]))
        except RunFailed as why:
            print(f"{name:16} FAILED: {why}")
            passed = False
            continue
        line, good = judge(name, int(counts[name]), known.get(name))
        print(line, flush=True)
        passed &= good
    if given.update and set(counts) - {"build"}:
        record[PYTHON_VERSION] = {
            "build": this_build(),
            **{name: counts[name] for name in CASES if name in counts},
        }
        write_record(record)
        print(f"recorded in {RECORD.relative_to(RECORD.parents[1])}")
        return 0
    if not passed and known.get("build") != this_build():
        print(f"Recorded with {known.get('build')}; this is {this_build()}: that may be part of it.")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
