"""Finds the Pythons that `make test-all` tests on: prints one `VERSION PATH` a line, PATH empty where none was found.

A name on PATH proves nothing (a version manager's shim may stand there and refuse), so each one is started and asked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ASK = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2], sys.executable)"


def find(version: str) -> str:
    """The path of a Python of this version (such as "3.12") that runs, or ""."""
    names = [f"python{version}", "python3", sys.executable]
    managed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in [*filter(None, map(shutil.which, names)), *map(str, managed)]:
        try:
            asked = subprocess.run([candidate, "-c", ASK], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        found, _, path = asked.stdout.strip().partition(" ")
        if asked.returncode == 0 and found == version:
            return path
    return ""


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(wanted, find(wanted))
