"""`mcpfast profile`, `mcpfast profile loop` and `mcpfast profile gc`: the command lines, from options to exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcpfast.arguments import Parser, Refusal
from mcpfast.profile import ProfileFailed
from mcpfast.profile.load import Load
from mcpfast.profile.progress import progress
from mcpfast.profile.session import INSIDE, INSTRUMENTS, profile

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

LOOP = """\
Start an MCP server that mcpfast runs, call it, and report each stall of its event loop with the stack that caused it; or watch
one that runs already, while its own clients call it."""
LOOP_EPILOG = """\
examples:
  mcpfast profile loop notes.py --tool add --args '{"a": 1, "b": 2}'
  mcpfast profile loop notes.py --load scenario.toml --duration 60 --json stalls.json
  mcpfast profile loop --pid 4711 --threshold-ms 100        a live server, called by its own clients
  mcpfast profile loop http://127.0.0.1:8000/mcp --tool add  a live server of this machine, called by us
  mcpfast profile loop --tool echo -- python server.py      over stdio

A server has a door for this (Linux) when it was started by server.run() or `mcpfast run`. It opens for its own user and root, for
one visitor at a time; before, it costs nothing. Exit code 1: there is no profile; 2: wrong options."""
GC = """\
Start an MCP server that mcpfast runs, call it, and report each pause of its garbage collector, and what to do about them; or
watch one that runs already, while its own clients call it."""
GC_EPILOG = """\
examples:
  mcpfast profile gc notes.py --tool add --args '{"a": 1, "b": 2}'
  mcpfast profile gc notes.py --load scenario.toml --duration 60 --json pauses.json
  mcpfast profile gc --pid 4711                             a live server, called by its own clients
  mcpfast profile gc http://127.0.0.1:8000/mcp --tool add   a live server of this machine, called by us

A server has a door for this (Linux) when it was started by server.run() or `mcpfast run`. It opens for its own user and root, for
one visitor at a time; before, it costs nothing. Exit code 1: there is no profile; 2: wrong options."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast profile",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    made.add_argument(
        "--with",
        dest="instrument",
        default="py-spy",
        choices=INSTRUMENTS,
        metavar="INSTRUMENT",
        help=f"{', '.join(INSTRUMENTS)} (py-spy)",
    )
    _add_options(made)
    made.set_defaults(threshold_ms=20.0, json=None)
    return made


def inside_parser(word: str) -> argparse.ArgumentParser:
    """Of `mcpfast profile loop` or `gc`."""
    made = Parser(
        prog=f"mcpfast profile {word}",
        description=LOOP if word == "loop" else GC,
        epilog=LOOP_EPILOG if word == "loop" else GC_EPILOG,
    )
    told = _add_options(made, counts=False)
    told.add_argument(
        "--json", metavar="FILE", help="write the figures as JSON (- for stdout, and nothing else)"
    )
    made.set_defaults(instrument=word, calls=0, threshold_ms=20.0)
    if word == "loop":
        made.add_argument(
            "--threshold-ms", type=float, metavar="MS", help="a stall is what lasts at least so long (20)"
        )
    return made


def _add_options(made: argparse.ArgumentParser, *, counts: bool = True) -> Any:
    """What all of them share; gives the group of what is told."""
    made.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="FILE.py[:OBJECT], the address of a live server, or -- COMMAND",
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
    if counts:
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
    return told


def main(arguments: Sequence[str], command: Sequence[str] = ()) -> int:
    """The exit code. `command` is what stood behind --."""
    inside = next((word for word in INSIDE if list(arguments[:1]) == [word]), None)
    given = (
        parser().parse_args(arguments) if inside is None else inside_parser(inside).parse_args(arguments[1:])
    )
    said = "mcpfast profile" if inside is None else f"mcpfast profile {inside}"
    try:
        check(given, command)
        return look(given, command)
    except Refusal as error:
        sys.stderr.write(f"{said}: {error}\n")
        return WRONG_USAGE
    except ProfileFailed as error:
        sys.stderr.write(f"{said}: {error}\n")
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
    if given.threshold_ms < 5:
        raise Refusal(
            "--threshold-ms is at least 5: loops count in whole milliseconds, and machines have moods"
        )


def write_json(file: str, figures: dict[str, Any]) -> None:
    told = json.dumps(figures, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(told)
        return
    try:
        Path(file).write_text(told)
    except OSError as error:
        raise ProfileFailed(f"--json {file}: {error.strerror}") from None


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
        threshold_s=given.threshold_ms / 1000,
        # A new folder for each session: what was measured before stays.
        folder=given.output or Path("profiles", time.strftime(f"{given.instrument}-%Y%m%d-%H%M%S")),
        progress=progress(),
    )
    if given.json is not None and report.figures is not None:
        write_json(given.json, report.figures)
    if given.json != "-":
        sys.stdout.write(report.text())
    sys.stdout.flush()
    if given.open:
        import webbrowser

        webbrowser.open(report.files[0][0].absolute().as_uri())
    return 0
