"""`mcpfast profile`: the command line, from options to exit code."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcpfast.arguments import Parser, Refusal
from mcpfast.profile import ProfileFailed
from mcpfast.profile.load import Load
from mcpfast.profile.progress import progress
from mcpfast.profile.session import INSTRUMENTS, profile

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

DESCRIPTION = (
    "Start an MCP server, call it, look where its time or memory goes, and say how to read what was seen."
)
EPILOG = """\
examples:
  mcpfast profile notes.py --tool add --args '{"a": 1, "b": 2}'
  mcpfast profile notes.py --load scenario.toml --with memray --duration 30 -o memory
  mcpfast profile --with callgrind --tool echo --calls 5000 -- python server.py
  mcpfast profile http://127.0.0.1:8000/mcp --with perf     a live server of this machine, called by us
  mcpfast profile --pid 4711                                a live server, called by its own clients
  mcpfast profile loop --help, mcpfast profile gc --help    its event loop's stalls, its collector's pauses

The instruments:

  py-spy     samples: a flame graph of Python, Cython and C
  perf       samples: the same with the kernel (Python frames from Python 3.12 on)
  memray     each allocation: the peak, and what was not given back
  scalene    processor and memory by line of Python
  callgrind  instructions a call, by function

py-spy, perf and memray look at live servers, too. Without --tool and --load the tool `echo` is called. What is missing is told
with the command that installs it. Exit code 1: there is no profile; 2: wrong options."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast profile",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py[:OBJECT], the address of a live server, or -- COMMAND",
    )
    made.add_argument(
        "--with",
        dest="instrument",
        default="py-spy",
        choices=INSTRUMENTS,
        metavar="INSTRUMENT",
        help=f"{', '.join(INSTRUMENTS)} (py-spy)",
    )
    made.add_argument(
        "--pid",
        type=int,
        help="a live server, where it has no address or is not found by it; none is started",
    )
    called = made.add_argument_group("how it is called")
    called.add_argument("--load", metavar="FILE", help="by a scenario, as mcpfast bench --scenario reads it")
    called.add_argument("--tool", metavar="NAME", help="or: this tool (echo)")
    called.add_argument("--args", metavar="JSON", help="with these arguments: a JSON object")
    called.add_argument(
        "--era", metavar="REVISION", help="2026-07-28, 2025-06-18, ... (the newest it speaks)"
    )
    called.add_argument(
        "-c", "--connections", type=int, metavar="N", help="connections at once (1; 16 over HTTP)"
    )
    called.add_argument(
        "--window", type=int, metavar="N", help="calls in flight on each (16; HTTP: always 1)"
    )
    seen = made.add_argument_group("how long")
    seen.add_argument("--duration", type=float, default=10.0, metavar="S", help="look for so long (10)")
    seen.add_argument("--warmup", type=float, default=1.0, metavar="S", help="after so long (1)")
    seen.add_argument(
        "--calls",
        type=int,
        default=0,
        metavar="N",
        help="callgrind: N calls instead, to repeat almost to the digit",
    )
    told = made.add_argument_group("what is told")
    told.add_argument("-o", "--output", metavar="DIR", help="the results (a new folder in profiles/)")
    told.add_argument("--open", action="store_true", help="show the page in the browser")
    return made


def main(arguments: Sequence[str], command: Sequence[str] = ()) -> int:
    """The exit code. `command` is what stood behind --."""
    given = parser().parse_args(arguments)
    try:
        check(given, command)
        return look(given, command)
    except Refusal as error:
        sys.stderr.write(f"mcpfast profile: {error}\n")
        return WRONG_USAGE
    except ProfileFailed as error:
        sys.stderr.write(f"mcpfast profile: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def check(given: Any, command: Sequence[str]) -> None:
    is_address = "://" in (given.target or "")
    if given.target is not None and command:
        raise Refusal("either a TARGET or a command behind --, not both")
    if given.target is None and not command and given.pid is None:
        raise Refusal("which server? FILE.py, an address, a command behind --, or --pid PID")
    if given.pid is not None and (command or (given.target is not None and not is_address)):
        raise Refusal("--pid is a server that runs already, so TARGET is its address, or left out")
    if given.load and (given.tool or given.args):
        raise Refusal("--load says what is called: no --tool or --args beside it")
    if given.duration <= 0 or given.warmup < 0 or given.calls < 0:
        raise Refusal("--duration is more than 0; --warmup and --calls are not less")


def look(given: Any, command: Sequence[str]) -> int:
    address = given.target if "://" in (given.target or "") else None
    http = (address or "").startswith(("http", "unix+http"))
    unsaid = given.connections is None and given.window is None and given.load is None
    load = Load(
        tool=given.tool,
        args=given.args,
        era=given.era,
        scenario=given.load,
        connections=16 if unsaid and http else given.connections,
        window=16 if unsaid and not http else given.window,
    )
    report = profile(
        given.instrument,
        file=None if address else given.target,
        command=command,
        pid=given.pid,
        address=address,
        load=load,
        seconds=given.duration,
        warmup=given.warmup,
        calls=given.calls,
        # A new folder for each session: what was measured before stays.
        folder=given.output or Path("profiles", time.strftime(f"{given.instrument}-%Y%m%d-%H%M%S")),
        progress=progress(),
    )
    sys.stdout.write(report.text())
    sys.stdout.flush()
    if given.open:
        import webbrowser

        webbrowser.open(report.files[0][0].absolute().as_uri())
    return 0
