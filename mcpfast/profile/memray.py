"""memray: every allocation, with its Python and native stack: the peak, and what was not given back."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePath
from shutil import which
from typing import Any

from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.py_spy import python_in
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session, facts
from mcpfast.profile.target import Python, Target, has_module, python_of

TOP, SMALLEST = 10, 10_000  # rows, and bytes of the peak that are worth one
ATTACH_S = 15.0  # until memray is inside a live process, or its file is written
MEGABYTE = 1 << 20

READING = """
Two flame graphs, each a page of its own. `peak.html`: what was in use at the moment when most was. `left.html`: what was in use
still when the server had ended. A box is as wide as the memory that was allocated in it and in what it called; here the calls
grow downwards. Native frames (C, Cython) stand below the Python line that called them.

- The table gathers both by the innermost line of Python. `peak` is what counts for the size of the machine.
- All that was imported is in the peak, as one row here (`importing modules`): the price of libraries, not of calls. A module
  that is only needed sometimes can be imported by the function that needs it.
- `left` is not a leak by itself: modules, caches and pools live until the very end. Run it again with `--duration` three times
  as long: a row that has grown threefold keeps something for each call. Look for lists, dicts and caches without a bound,
  tasks that are never awaited, `lru_cache` on methods.
- The facts at the top say how much was allocated for each call, given back or not. What is allocated and freed at once
  costs time rather than memory: rows with many blocks and a small peak are for py-spy.
- Small objects (up to 512 bytes) come from Python's own pools, and a pool is taken from the system in pieces of 256 KB or
  1 MB: the piece is charged to the line that happened to need a new one. For objects one by one, start the server yourself
  with `python -m memray run --trace-python-allocators`, which is a good deal slower.
- On a live server (`--pid`) only what was allocated while memray looked is in the pages, and `left` is what was still in use when
  it stopped looking. memray leaves hooks behind in the process that cost it some of its speed until it is started anew.

The resident size that the system shows is higher: it holds the code of libraries, and memory that was given back to the
allocator, but not to the system.
"""


@dataclass(slots=True)
class Place:
    """What was allocated in one place, in bytes and in blocks."""

    peak: int = 0
    left: int = 0
    blocks: int = 0


def missing(target: Target) -> str | None:
    if target.command is None:
        python = sys.executable
        if sys.version_info < (3, 14) and not (which("gdb") or which("lldb")):
            return "memray needs gdb to get into a live process. Install: apt-get install -y gdb"
    else:
        found = python_of(target.command)
        if found is None:
            return f"memray looks into Python; this is none: {target.title}"
        python = found.interpreter[0]
    if not has_module(python, "memray"):
        return f"memray is not installed for {python}. Install: {python} -m pip install memray"
    return None


def look(session: Session) -> Report:
    recorded = session.folder / "memray.bin"
    recorded.unlink(missing_ok=True)
    if session.target.command is None:
        python = sys.executable
        outcome = attached(session, recorded)
    else:
        found = python_of(session.target.command)
        assert found is not None
        python = found.interpreter[0]
        outcome = session.wrapped(wrap(found, recorded))
    if not recorded.exists() or not recorded.stat().st_size:
        raise ProfileFailed(
            f"memray wrote nothing: the server did not come to its end\n{session.server_log()}"
        )
    told, warnings = facts(outcome)
    memray = Reporter(python, recorded, session.private)
    with session.progress.step("drawing (native symbols take a while)"):
        pages = [
            memray.page(session.folder / "peak.html"),
            memray.page(session.folder / "left.html", "--leaks"),
        ]
        places = gathered(memray.rows(), memray.rows("--leaks"))
        totals = memray.totals()
    told.append(summary(places, totals, outcome.calls if outcome else 0))
    return Report(
        instrument="memray",
        title="Where the memory is, at the peak",
        columns=("peak MB", "left MB", "blocks", "allocated by"),
        rows=rows(places),
        files=[
            (pages[0], "the peak, as a flame graph"),
            (pages[1], "what was not given back, as a flame graph"),
            (recorded, "what memray recorded: python -m memray table, tree, stats ..."),
        ],
        reading=READING,
        facts=told,
        warnings=warnings,
    )


def wrap(python: Python, recorded: Path) -> list[str]:
    """The command of a server, under memray."""
    memray = ["-m", "memray", "run", "--native", "--quiet", "--force", "-o", str(recorded.absolute())]
    return [*python.interpreter, *memray, *python.program]


def attached(session: Session, recorded: Path) -> Any:
    """Lets memray into a live server for a while; returns what came of the calls, if we made any."""
    with session.called() as seen:
        pid = python_in(seen.pid)
        seconds = max(1, round(session.seconds))
        with session.progress.step("letting memray into it"):
            command = [sys.executable, "-m", "memray", "attach", "--native", "--force", "-o"]
            done = processes.run([*command, str(recorded.absolute()), "--duration", str(seconds), str(pid)])
        if done.returncode:
            raise ProfileFailed(
                f"memray could not get into process {pid}:\n{(done.stdout + done.stderr).strip()}"
            )
        with session.progress.step("counting what it allocates", seconds):
            time.sleep(seconds)
            await_whole(recorded)
    return seen.outcome


def await_whole(recorded: Path) -> None:
    """Returns when memray has stopped writing: the process itself writes, and tells nobody of its end."""
    deadline, before = time.monotonic() + ATTACH_S, -1
    while time.monotonic() < deadline:
        time.sleep(0.5)
        size = recorded.stat().st_size if recorded.exists() else -1
        if size > 0 and size == before:
            return
        before = size


class Reporter:
    """memray's own reports, made by the memray that recorded."""

    def __init__(self, python: str, recorded: Path, private: Path) -> None:
        self.python, self.recorded, self.private = python, recorded, private

    def page(self, out: Path, *options: str) -> Path:
        # All that the page needs goes into it: it can be sent on, and opens without a network.
        self._run("flamegraph", "--no-web", "--force", *options, "-o", str(out), str(self.recorded))
        return out

    def rows(self, *options: str) -> list[dict[str, str]]:
        out = self.private / "memray.csv"
        self._run("transform", *options, "--force", "-o", str(out), "csv", str(self.recorded))
        csv.field_size_limit(1 << 30)  # a stack is one field
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    def totals(self) -> dict[str, Any]:
        out = self.private / "memray.json"
        self._run("stats", "--json", "--force", "-o", str(out), str(self.recorded))
        told: dict[str, Any] = json.loads(out.read_text())
        return told

    def _run(self, *words: str) -> None:
        done = processes.run([self.python, "-m", "memray", *words])
        if done.returncode:
            raise ProfileFailed(f"memray {words[0]} failed: {(done.stdout + done.stderr).strip()}")


def gathered(peak: list[dict[str, str]], left: list[dict[str, str]]) -> dict[str, Place]:
    """By the innermost line of Python."""
    places: dict[str, Place] = defaultdict(Place)
    for row in peak:
        place = places[where(row["stack_trace"])]
        place.peak += int(row["size"])
        place.blocks += int(row["num_allocations"])
    for row in left:
        places[where(row["stack_trace"])].left += int(row["size"])
    return places


def where(stack: str) -> str:
    """`function;file;line|...`, innermost first, as a place that somebody can change."""
    frames = [frame.rsplit(";", 2) for frame in stack.split("|")]
    frames = [frame for frame in frames if len(frame) == 3]
    if any("<frozen importlib" in file for _, file, _ in frames):
        return "importing modules"
    for function, file, line in frames:
        if file.endswith((".py", ".pyx")) or file.startswith("<"):
            return f"{function} ({'/'.join(PurePath(file).parts[-2:])}:{line})"
    return f"{frames[-1][0]} ({PurePath(frames[-1][1]).name}, no Python)" if frames else "unknown"


def rows(places: dict[str, Place]) -> list[tuple[str, ...]]:
    first = sorted(places.items(), key=lambda item: (-item[1].peak, item[0]))[:TOP]
    first = [item for rank, item in enumerate(first) if rank < 3 or item[1].peak >= SMALLEST]
    return [
        (f"{place.peak / MEGABYTE:.2f}", f"{place.left / MEGABYTE:.2f}", f"{place.blocks:,}", name)
        for name, place in first
    ]


def summary(places: dict[str, Place], totals: dict[str, Any], calls: int) -> str:
    peak = sum(place.peak for place in places.values()) / MEGABYTE
    left = sum(place.left for place in places.values()) / MEGABYTE
    allocated, blocks = totals["total_bytes_allocated"], totals["total_num_allocations"]
    said = f"peak {peak:,.1f} MB, {left:,.1f} MB not given back at the end; {allocated / MEGABYTE:,.1f} MB allocated in all"
    return said + (
        f", {allocated / calls:,.0f} bytes and {blocks / calls:.2g} blocks a call" if calls else ""
    )
