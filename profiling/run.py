"""`make profile`: where the time of the echo server goes, seen by four instruments. Results in profiling/results/."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from annotate import annotate
from callgrind import callgrind
from flame import flame
from lines import lines
from target import RESULTS, Target

from benches.figures import ECHO
from benches.load import LEGACY, MODERN, RunFailed, Shape

INSTRUMENTS = {"py-spy": flame, "scalene": lines, "callgrind": callgrind, "annotate": annotate}
EPILOG = """\
  py-spy     a flame graph of Python, Cython and C together     profiling/py-spy.md
  scalene    CPU and memory by line of Python                   profiling/scalene.md
  callgrind  instructions a call, function by function          profiling/callgrind.md
  annotate   how much Python is left in the compiled rooms      profiling/annotate.md

Each page says how to run it, how to read it, and what was seen. Without a name all four run, about a minute.

  make profile ARGS=py-spy
  make profile ARGS="callgrind --tool echo_waiting --server 'python benches/servers/kinds.py'"
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="profiling/run.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("instruments", nargs="*", metavar="INSTRUMENT", help=", ".join(INSTRUMENTS))
    parser.add_argument("--seconds", type=float, default=5, help="how long to look (5)")
    parser.add_argument("--window", type=int, default=64, help="calls in flight (64)")
    parser.add_argument("--era", choices=[LEGACY, MODERN], default=LEGACY)
    parser.add_argument("--tool", default="echo", help="a tool that takes `text` and gives it back (echo)")
    parser.add_argument("--server", default="", metavar="COMMAND", help="instead of examples/echo.py")
    given = parser.parse_args()
    unknown = [name for name in given.instruments if name not in INSTRUMENTS]
    if unknown:
        parser.error(f"{unknown[0]}: no such instrument; there are {', '.join(INSTRUMENTS)}")
    return given


def main() -> int:
    given = options()
    command = given.server.split() if given.server else ECHO
    if command[0] in ("python", "python3"):
        command[0] = sys.executable
    target = Target(command, Shape(given.window, era=given.era, tool=given.tool), given.seconds)
    RESULTS.mkdir(exist_ok=True)
    for name in given.instruments or INSTRUMENTS:
        print(f"==> {name} (profiling/{name}.md says how to read it)", flush=True)
        try:
            INSTRUMENTS[name](target)
        except RunFailed as why:
            print(f"{name}: {why}", file=sys.stderr)
            return 1
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
