"""`mcpfast top`: the command line, from options to exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import msgspec

from mcpfast.arguments import Parser, Refusal
from mcpfast.live import view
from mcpfast.live.caller import NoDoor, Visit, visit
from mcpfast.live.messages import Snapshot
from mcpfast.live.vitals import Pulse
from mcpfast.profile import ProfileFailed
from mcpfast.profile.target import listening

FAILED, WRONG_USAGE = 1, 2
INTERVAL_S_MIN, INTERVAL_S_MAX = 0.1, 30.0  # above it the server would send us away

DESCRIPTION = """\
Show a live server of this machine: its sessions, its calls in flight with their age and the line each of them waits at, its
queues, how late its event loop is."""
EPILOG = """\
examples:
  mcpfast top --pid 4711                      live, until Ctrl-C
  mcpfast top http://127.0.0.1:8000/mcp       the server that listens there
  mcpfast top unix:///run/notes.sock --once   one look, as text
  mcpfast top --pid 4711 --json | jq '.oldest[] | select(.age_s > 10)'

A call waits at the innermost line of your own code; what stands behind ">" is the library's line that it is in. Numbers "a second",
the loop's lag and the processor's share are of the time since the look before (--once and --json: of one --interval).

A server can be looked into (Linux) when it was started by server.run() or `mcpfast run`, by its own user and by root, by one
at a time. Before somebody looks it costs nothing. No argument and no result of a call is shown, or leaves the server. Exit
code 1: there is no looking in; 2: wrong options."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast top",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    made.add_argument(
        "target", metavar="ADDRESS", nargs="?", help="where it listens: http://..., tcp://..., unix://..."
    )
    made.add_argument("--pid", type=int, help="or: its process")
    made.add_argument(
        "--once", action="store_true", help="one look, as text; so it is where stdout is no terminal"
    )
    made.add_argument("--json", action="store_true", help="one look, as JSON")
    made.add_argument("--interval", type=float, default=1.0, metavar="S", help="look so often (1)")
    made.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most N calls, and N sessions (20)"
    )
    return made


def main(arguments: Sequence[str], command: Sequence[str] = ()) -> int:
    """The exit code. `command` is what stood behind --, and there is no use for it."""
    given = parser().parse_args(arguments)
    try:
        check(given, command)
        pid = given.pid if given.pid is not None else listening(given.target).pid
        assert pid is not None
        with visit(pid) as visitor:
            return show(Look(visitor, given.limit), given)
    except Refusal as error:
        sys.stderr.write(f"mcpfast top: {error}\n")
        return WRONG_USAGE
    except (NoDoor, ProfileFailed) as error:
        sys.stderr.write(f"mcpfast top: {error}\n")
        return FAILED
    except KeyboardInterrupt:  # the way to end it
        return 0


def check(given: Any, command: Sequence[str]) -> None:
    if command or (given.target is None) == (given.pid is None):
        raise Refusal("which server? its ADDRESS, or --pid PID")
    if given.target is not None and "://" not in given.target:
        raise Refusal(
            f"{given.target!r} is no address: http://HOST:PORT/mcp, tcp://HOST:PORT, unix:///PATH, or --pid PID"
        )
    if not INTERVAL_S_MIN <= given.interval <= INTERVAL_S_MAX:
        raise Refusal(f"--interval is {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds")
    if given.limit < 0:
        raise Refusal("--limit is not less than 0")
    if given.once and given.json:
        raise Refusal("either --once or --json: both are one look")


class Look:
    """Look after look at one server."""

    def __init__(self, visitor: Visit, limit: int) -> None:
        self._visitor = visitor
        self._limit = limit
        self._pulse = Pulse(visitor.pid)
        self._before: Snapshot | None = None

    def take(self) -> view.Seen:
        now = self._visitor.look(self._limit)
        seen = view.Seen(self._visitor.greeting, self._pulse.take(), now, self._before)
        self._before = now
        return seen


def show(look: Look, given: Any) -> int:
    lives = not (given.once or given.json) and sys.stdout.isatty()
    if lives and find_spec("rich") is None:
        sys.stderr.write(
            "mcpfast top: the live view needs rich. Install: pip install rich; this is one look\n"
        )
        lives = False
    if lives:
        return show_live(look, given.interval)
    look.take()
    time.sleep(given.interval)
    seen = look.take()
    sys.stdout.write(as_json(seen) if given.json else view.text(seen))
    sys.stdout.flush()
    return 0


def show_live(look: Look, interval_s: float) -> int:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(view.page(look.take()), refresh=True)
            time.sleep(interval_s)


def as_json(seen: view.Seen) -> str:
    """The snapshot with what /proc says beside it; seconds and bytes everywhere."""
    told = {"process": seen.vitals, "python": seen.greeting.python, "mcpfast": seen.greeting.mcpfast}
    if seen.before is not None and seen.now.at_s > seen.before.at_s:
        seconds = seen.now.at_s - seen.before.at_s
        told["requests_per_s"] = (seen.now.answered - seen.before.answered) / seconds  # type: ignore[assignment]
    plain = msgspec.to_builtins(told) | msgspec.to_builtins(seen.now)
    plain.pop("type")
    return json.dumps(msgspec.json.decode(msgspec.json.encode(plain)), indent=2) + "\n"
