"""py-spy: samples of the stack, Python, Cython and C together, as a flame graph."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.report import Report
from mcpfast.profile.samples import sampled
from mcpfast.profile.session import Session, facts
from mcpfast.profile.stacks import read_folded
from mcpfast.profile.target import Target, program

RATE_HZ = 250
LEAD_S = 3.0  # py-spy reads the symbols of every library first
FEW_SAMPLES = 50
NOT_NATIVE = re.compile(
    r"argument '--native'"
)  # py-spy has no such option on platforms where it cannot do it
NOT_ALLOWED = """\
py-spy may not look into process {pid}: it reads another process by ptrace, and this is not allowed here.
  - as root: sudo {python} -m mcpfast profile ...
  - in a container: docker run --cap-add SYS_PTRACE ...
  - on a machine of your own: sudo sysctl kernel.yama.ptrace_scope=0"""

READING = """
The flame graph: each box is a function, as wide as the share of samples in which it was on the stack; the boxes on it are what it
called. Left and right is the alphabet, not time. The colour says where a frame lives: Python, Cython, C, kernel. Click to zoom,
Ctrl-F to search; the share of all matches is told at the top right.

- Read it from the top edge: a plateau (a wide box with nothing on it) is where time is spent. High towers are no problem, wide
  tops are. In the table these are the functions with a high share of their own.
- `all` counts the high shares of what a function called, too: the way to where it is slow. `own` is what you can change there.
- A handler of yours is a Python frame above frames of `mcpfast/_calls.pyx`. If it is the widest thing, make it quicker, or give
  it a thread or a process; if it is narrow, the framework and the kernel are what you see, and there is little to gain.
- `write`, `send`, `read` and `recv` at the tips are the kernel. A write includes waking the process on the other end, which in a
  virtual machine is most of it.
- `epoll_wait` at a tip is waiting. Idle threads are left out, so the first lines of the report say in how many of all looks the
  server was busy: far below 100 % means that the calls did not fill it (more `--window`, more `--connections`), or that it
  waits for something else (a database, a lock, a sleep), which no profile of the processor shows.
- Cython frames have the line of their `.pyx`; small inlined C functions are charged to the line they were inlined into.

Two lies to know: py-spy stops the process for each look, which lengthens system calls a little; and what happens between two
looks is not seen, so trust shares above a few percent and take a longer `--duration` for smaller ones.
"""


def missing(target: Target) -> str | None:
    if program("py-spy") is None:
        return f"py-spy is not installed. Install: {sys.executable} -m pip install py-spy"
    return None


def look(session: Session) -> Report:
    raw = session.private / "py-spy.txt"
    with session.called(LEAD_S) as seen:
        pid = python_in(seen.pid)
        seconds = max(1, round(session.seconds))
        with session.progress.step("looking at it with py-spy", seconds):
            said = record(pid, raw, seconds)
        stacks = read_folded(raw.read_text())
    samples = sum(stacks.values())
    if not samples:
        raise ProfileFailed(
            f"py-spy saw process {pid} only idle: nobody called it, or it waits for something"
        )
    told, warnings = facts(seen.outcome)
    busy = samples / (RATE_HZ * seconds)
    told.append(f"{samples:,} samples: the server was busy in {min(busy, 1):.0%} of all looks")
    if samples < FEW_SAMPLES:
        warnings.append(f"{samples} samples are too few for shares; look for longer or call it more")
    if errors := re.search(r"Errors: ([1-9]\d*)", said):
        told.append(f"{int(errors[1]):,} looks failed")
    return sampled("py-spy", session, stacks, told, warnings, READING)


def python_in(pid: int) -> int:
    """The first Python of a process and its descendants: `uv run` and npx are none, what they start is."""
    found = next((member for member in processes.family(pid) if processes.is_python(member)), None)
    if found is None:
        said = processes.words(pid) or f"process {pid}"
        raise ProfileFailed(f"py-spy looks into Python; this is none: {said} (perf looks into everything)")
    return found


def record(pid: int, out: Path, seconds: int) -> str:
    """Stacks as lines into `out`; what py-spy said."""
    spy = [program("py-spy") or "py-spy", "record", "--rate", str(RATE_HZ), "--duration", str(seconds)]
    spy += ["--format", "raw", "--output", str(out), "--pid", str(pid)]
    if len([member for member in processes.family(pid) if processes.is_python(member)]) > 1:
        spy.append("--subprocesses")
    done = processes.run([*spy, "--native"])
    if done.returncode and NOT_NATIVE.search(done.stdout + done.stderr):
        done = processes.run(spy)
    said = done.stdout + done.stderr
    if done.returncode or not out.exists():
        raise ProfileFailed(why(pid, said))
    return said


def why(pid: int, said: str) -> str:
    """py-spy's failure in words that help."""
    if re.search(r"[Pp]ermission [Dd]enied|Operation not permitted|elevated permissions|EPERM", said):
        return NOT_ALLOWED.format(pid=pid, python=sys.executable)
    reason = said.partition("Stack backtrace")[0].strip() or "it said nothing"
    return f"py-spy could not look into process {pid}: {reason}"
