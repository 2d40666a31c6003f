"""scalene: processor and memory by line of Python."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.report import Report
from mcpfast.profile.session import Session, facts
from mcpfast.profile.target import Target, has_module, python_of

TOP = 10

READING = """
For each line of Python the share of processor time in `Python` (the interpreter runs that line), in `native` (a C or Cython
function that was called from it) and in `system` (the kernel, for it); then what it allocated. `scalene.html` has the same for
every line of every file, with graphs of memory over time.

- It is the instrument for handlers and for start-up, not for what is compiled: scalene sees a server only between two lines of
  Python. What the event loop and mcpfast's own core did since the last one is charged, as native and system, to the line that
  comes next: the first of a handler (its decorator), or `runner.run_until_complete(...)`. For what happens inside, take
  py-spy or callgrind.
- A line of a handler with much `Python` becomes quicker by writing it differently; one with much `native` only by calling
  something else, or by calling it less.
- Other lines of `mcpfast/` should be all but absent: they run when a tool is registered or a session opens, not
  for each call. One that shows up under calls is a finding: tell us.
- `MB` is what a line allocated in all, given back or not. A line that allocates much for each call costs time, too. Growth that
  goes on while the calls stay the same is a leak: see the line's timeline in the page, and then take memray.
- A coroutine's time stands at the lines that ran; what was awaited is no time of the processor, and not counted.

scalene slows a server by a third or so; shares within the server remain comparable. It has threads of its own, which it charges
to `threading.py`: that line is left out of the table, and the shares are of what remains.
"""


class Line(NamedTuple):
    """A line of Python; shares in percent of the processor time of the server."""

    python: float
    native: float
    system: float
    allocated_mb: float
    place: str
    text: str

    @property
    def share(self) -> float:
        return self.python + self.native + self.system


def missing(target: Target) -> str | None:
    if target.command is None:
        return "scalene cannot look into a live process: give it the server's file or command, or take py-spy"
    python = python_of(target.command)
    if python is None:
        return f"scalene looks into Python; this is none: {target.title}"
    if not has_module(python.interpreter[0], "scalene"):
        return f"scalene is not installed for {python.interpreter[0]}. Install: {python.interpreter[0]} -m pip install scalene"
    return None


def look(session: Session) -> Report:
    python = python_of(session.target.command or ())
    assert python is not None
    out = session.folder / "scalene.json"
    out.unlink(missing_ok=True)
    options = ["--profile-all", "--memory", "--use-virtual-time", "-o", str(out.absolute())]
    outcome = session.wrapped(
        [*python.interpreter, "-m", "scalene", "run", *options, *program(python.program)]
    )
    if not out.exists():
        raise ProfileFailed(
            f"scalene wrote no profile: the server did not come to its end\n{session.server_log()}"
        )
    told: dict[str, Any] = json.loads(out.read_text())
    lines = hottest(told)
    about, warnings = facts(outcome)
    about.append(f"memory at most {told.get('max_footprint_mb', 0):.1f} MB above the start")
    files = [(out, "the whole profile: python -m scalene view")]
    with session.progress.step("making scalene's page"):
        if page := view(python.interpreter[0], out, session.private):
            files.insert(0, (page, "every line of every file"))
    return Report(
        instrument="scalene",
        title="Lines that cost most",
        columns=("Python", "native", "system", "MB", "line"),
        rows=[
            (
                f"{line.python:.1f}%",
                f"{line.native:.1f}%",
                f"{line.system:.1f}%",
                f"{line.allocated_mb:,.0f}",
                f"{line.place}  {line.text[:70]}",
            )
            for line in lines[:TOP]
        ],
        files=files,
        reading=READING,
        facts=about,
        warnings=warnings,
    )


def program(words: tuple[str, ...]) -> list[str]:
    """A program with its arguments, as scalene wants them: what stands behind a file is behind `---`."""
    if words[0] == "-m" or len(words) == 1:
        return list(words)
    return [words[0], "---", *words[1:]]


def hottest(profile: dict[str, Any]) -> list[Line]:
    """All lines with a share, the highest first; scalene's own threads left out."""
    found = []
    for name, file in profile["files"].items():
        short = "/".join(PurePath(name).parts[-2:])
        for line in file["lines"]:
            if short.endswith("threading.py") and "self._target(" in line["line"]:
                continue
            shares = [line[f"n_{where}"] for where in ("cpu_percent_python", "cpu_percent_c", "sys_percent")]
            if sum(shares) or line["n_malloc_mb"]:
                python, native, system = shares
                place, text = f"{short}:{line['lineno']}", as_written(line["line"])
                found.append(Line(python, native, system, line["n_malloc_mb"], place, text))
    whole = sum(line.share for line in found) / 100 or 1
    shares_of_rest = [
        line._replace(python=line.python / whole, native=line.native / whole, system=line.system / whole)
        for line in found
    ]
    return sorted(shares_of_rest, key=lambda line: (-line.share, -line.allocated_mb))


def as_written(text: str) -> str:
    """A line of source; scalene writes `<`, `>` and `&` as if its profile stood in a page."""
    return re.sub(r"\\u00(3c|3e|26)", lambda match: chr(int(match[1], 16)), text).strip()


def view(python: str, profile: Path, private: Path) -> Path | None:
    """scalene's own page beside the profile, in one file; None where this scalene makes none."""
    done = processes.run(
        [python, "-m", "scalene", "view", "--standalone", str(profile.absolute())], cwd=private
    )
    made = private / "scalene-profile.html"
    if done.returncode or not made.exists():
        return None
    page = profile.with_suffix(".html")
    page.write_bytes(made.read_bytes())
    return page
