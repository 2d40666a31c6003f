"""Processes as /proc shows them: a server may be started by a wrapper, and then it is not the process that we started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mcpfast.bench.processes import family

PROC = Path("/proc")
__all__ = ["alive", "end", "family", "is_python", "run", "words"]


def run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a tool to its end: what it said, and how it ended."""
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent to hear of it does not."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def is_python(pid: int) -> bool:
    """Whether it runs a Python interpreter, or a program that has loaded one."""
    try:
        if Path(os.readlink(PROC / str(pid) / "exe")).name.startswith("python"):
            return True
        return "/libpython3." in (PROC / str(pid) / "maps").read_text()
    except OSError:
        return False


def words(pid: int) -> str:
    """The command line of a process, as far as we may see it."""
    with suppress(OSError):
        return (
            (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    return ""


def end(process: subprocess.Popen[bytes], server: int | None, patience_s: float) -> None:
    """Asks the `server` itself to end, not what was wrapped around it: a wrapper that dies first takes its results along."""
    with suppress(ProcessLookupError):
        os.kill(server or process.pid, signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        for pid in reversed(family(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
