"""perf: samples of the processor's work, the kernel's too, as a flame graph. Python frames from Python 3.12 on."""

from __future__ import annotations

import glob
import os
import re
from contextlib import suppress
from pathlib import Path
from shutil import which

from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.report import Report
from mcpfast.profile.samples import sampled
from mcpfast.profile.session import Session, facts
from mcpfast.profile.stacks import Stacks, read_perf_script
from mcpfast.profile.target import Target

RATE_HZ = 299  # no divisor of anything that a server does by the clock
STACK_BYTES = 32_768  # of each sample; the event loop alone has 12 KB of them on its stack
LEAD_S = 1.0
FIELDS = "comm,pid,tid,event,ip,sym,dso"
MAPS = "/tmp/perf-{pid}.map"  # where Python says what its frames are called: 3.12, or ...
JIT = "/tmp/jit-{pid}.dump"  # ... with what unwinds them: 3.13 and newer
JITTED = "/tmp/jitted-{pid}-*.so"
# Each Python takes what it knows: from 3.13 on the second, which needs no frame pointers.
PYTHON_TELLS = {"PYTHONPERFSUPPORT": "1", "PYTHON_PERF_JIT_SUPPORT": "1"}
NOT_ALLOWED = """\
perf may not look at processes here.
  - as root: sudo mcpfast profile ...
  - for everybody on this machine: sudo sysctl kernel.perf_event_paranoid=1 (-1 shows the kernel, too)
  - in a container: docker run --cap-add PERFMON (or --privileged)"""

READING = """
The flame graph: each box is a function, as wide as the share of samples in which it was on the stack; the boxes on it are what it
called. Left and right is the alphabet, not time. The colour says where a frame lives: Python, Cython, C, kernel. Click to zoom,
Ctrl-F to search; the share of all matches is told at the top right.

- perf sees only what runs: a sample is a moment of a processor, so waiting is not in the picture at all. Together the boxes are
  the CPU time of the server, and `[kernel]` frames are the part of it that the kernel spends for it.
- Read it from the top edge: a plateau (a wide box with nothing on it) is where the time goes. In the table these are the
  functions with a high share of their own; `all` counts what they called, too.
- Under `entry_SYSCALL_64` is a system call. `__send` or `__write` with a wide kernel tower is the price of answering: waking the
  client is in it. Fewer, larger writes are the only remedy.
- The interpreter's work for a Python function is that function's own; where Python tells nothing of its frames, it is
  `_PyEval_EvalFrameDefault`. `PyObject_Malloc`, `_PyObject_Free`,
  `gc_collect_main` wide at the top: objects are made and thrown away, and their makers stand below them.
- Names with dots (`mcpfast._spine.Channel.pump`) are functions of compiled Cython modules, translated from their C names.
- Python frames are there from Python 3.12 on, where it says what it runs (`-X perf`; 3.13 and newer are whole, in 3.12
  built without frame pointers only the innermost Python function is seen). Up to 3.11, and in a server that was started
  without it, take py-spy for Python and perf for the C and the kernel below it.

`perf report -i perf.data` shows the same by library and symbol, `perf annotate` the instructions.
"""


def missing(target: Target) -> str | None:
    if which("perf") is None:
        return "perf is not installed. Install: apt-get install -y linux-perf (Ubuntu: linux-tools-generic)"
    return None


def look(session: Session) -> Report:
    session.environment |= PYTHON_TELLS
    data = session.folder / "perf.data"
    members: list[int] = []
    try:
        with session.called(LEAD_S) as seen:
            members += processes.family(seen.pid)
            with session.progress.step("looking at it with perf", session.seconds):
                record(members, data, session.seconds, session.private)
        with session.progress.step("reading what perf saw"):
            stacks = read(data, members, session.private)
    finally:
        if session.target.pid is None:
            forget(members)
    samples = sum(stacks.values())
    if not samples:
        raise ProfileFailed("perf saw nothing: the server did not run while it was looked at")
    told, warnings = facts(seen.outcome)
    told.append(f"{samples:,} samples: {samples / RATE_HZ:.1f} s of a processor in {session.seconds:g} s")
    if not python_frames(stacks):
        told.append(
            "no Python frames: no Python, one older than 3.12, or one that was started without -X perf"
        )
    report = sampled("perf", session, stacks, told, warnings, READING)
    report.files.append((data, "what perf recorded: perf report -i, perf annotate -i"))
    return report


def record(pids: list[int], data: Path, seconds: float, private: Path) -> None:
    # The monotonic clock is what Python stamps its frames with.
    recording = ["perf", "--buildid-dir", str(private), "record", "--quiet", "-k", "mono", "-F", str(RATE_HZ)]
    recording += ["--call-graph", f"dwarf,{STACK_BYTES}", "-p", ",".join(map(str, pids)), "-o", str(data)]
    done = processes.run([*recording, "--", "sleep", f"{seconds:g}"])
    if done.returncode or not data.exists():
        said = done.stdout + done.stderr
        if re.search(r"perf_event_paranoid|Permission denied|Operation not permitted|No permission", said):
            raise ProfileFailed(NOT_ALLOWED)
        raise ProfileFailed(f"perf recorded nothing: {said.strip()}")


def read(data: Path, pids: list[int], private: Path) -> Stacks:
    """The samples of a recording; what a Python has told of its frames is woven in first."""
    source = data
    if any(os.path.exists(JIT.format(pid=pid)) for pid in pids):
        source = private / "perf.jit.data"
        run("inject", "-j", "-i", str(data), "-o", str(source), private=private)
    return read_perf_script(run("script", "--no-inline", "-F", FIELDS, "-i", str(source), private=private))


def run(*words: str, private: Path) -> str:
    done = processes.run(["perf", "--buildid-dir", str(private), *words])
    if done.returncode:
        raise ProfileFailed(f"perf {words[0]} failed: {done.stderr.strip()}")
    return done.stdout


def python_frames(stacks: Stacks) -> bool:
    return any(".py)" in frame or "(<frozen" in frame for stack in stacks for frame in stack)


def forget(pids: list[int]) -> None:
    """Removes what a Python of ours, and perf for it, left in /tmp."""
    for pid in pids:
        for pattern in (MAPS, JIT, JITTED):
            for path in glob.glob(pattern.format(pid=pid)):
                with suppress(OSError):
                    os.unlink(path)
