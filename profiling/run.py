"""`make profile`: where the time and the memory of the echo server go. Results in profiling/results/.

The instruments are those of `mcpfast profile`, and one that is about this repository's own build: annotate.
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from annotate import ROOT, annotate

from mcpfast.profile import ProfileFailed
from mcpfast.profile.load import Load
from mcpfast.profile.progress import progress
from mcpfast.profile.session import INSTRUMENTS, profile

RESULTS = Path(__file__).resolve().with_name("results")
ECHO = ROOT / "examples" / "echo.py"
CALLS = 6_400  # that callgrind counts: whole windows of 64
EPILOG = """\
  py-spy     a flame graph of Python, Cython and C together
  perf       the same with the kernel; Python frames from Python 3.12 on
  memray     the peak of memory, and what was not given back
  scalene    processor and memory by line of Python
  callgrind  instructions a call, function by function          profiling/callgrind.md
  annotate   how much Python is left in the compiled rooms      profiling/annotate.md

Each session ends with a page that says how to read it; profiling/README.md says what was seen. Without a name all of
them run, one that is not installed is skipped with a word.

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
    names = [*INSTRUMENTS, "annotate"]
    parser.add_argument("instruments", nargs="*", metavar="INSTRUMENT", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=5, help="how long to look (5)")
    parser.add_argument("--window", type=int, default=64, help="calls in flight (64)")
    parser.add_argument("--era", default="2025-06-18", metavar="REVISION", help="(2025-06-18)")
    parser.add_argument("--tool", default="echo", help="with `text`, which it gives back (echo)")
    parser.add_argument(
        "--server", default="", metavar="COMMAND", help="over stdio, instead of examples/echo.py"
    )
    given = parser.parse_args()
    unknown = [name for name in given.instruments if name not in names]
    if unknown:
        parser.error(f"{unknown[0]}: no such instrument; there are {', '.join(names)}")
    given.instruments = given.instruments or names
    return given


def main() -> int:
    given = options()
    problem = 0
    for name in given.instruments:
        print(f"==> {name}", flush=True)
        if name == "annotate":
            annotate(RESULTS / name)
            continue
        try:
            print(session(name, given), flush=True)
        except ProfileFailed as why:
            print(f"{name}: {why}\n", flush=True)
            problem |= len(given.instruments) == 1  # what was asked for by its name is no extra
    return problem


def session(name: str, given: argparse.Namespace) -> str:
    """What one instrument tells of the server."""
    command = shlex.split(given.server)
    if command and command[0] in ("python", "python3"):
        command[0] = sys.executable
    text = '{"text": "hello"}'
    return profile(
        name,
        file=str(ECHO),
        command=command,
        load=Load(tool=given.tool, args=text, window=given.window, era=given.era),
        seconds=given.seconds,
        calls=CALLS if name == "callgrind" else 0,
        folder=RESULTS / name,
        progress=progress(),
    ).text()


if __name__ == "__main__":
    sys.exit(main())
