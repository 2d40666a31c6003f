"""What is profiled: a server file, a command, or a process that runs already."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import NamedTuple

from mcpfast.profile import ProfileFailed, processes

SHEBANG = re.compile(r"#!\s*(\S*python[\d.]*)(?:\s|$)|#!\s*/usr/bin/env\s+(?:-S\s+)?(python[\d.]*)")


@dataclass(frozen=True, slots=True)
class Target:
    """A server: the `command` that starts it, or its `pid`; the `address` that it is called at, None for the stdio of a command."""

    title: str
    command: tuple[str, ...] | None = None
    address: str | None = None
    pid: int | None = None

    @property
    def stdio(self) -> bool:
        return self.command is not None and self.address is None


def of_file(file: str, private: Path) -> Target:
    """A server of ours, on a socket that nobody else can reach."""
    path = file if os.path.isfile(file) else file.rpartition(":")[0]
    if not os.path.isfile(path):
        raise ProfileFailed(f"{file!r}: no such file; write FILE.py, FILE.py:OBJECT or, behind --, a command")
    address = f"unix://{private}/server.sock"
    command = (sys.executable, "-m", "mcpfast", "run", file, "--listen", address)
    return Target(os.path.basename(file), command, address)


def of_command(command: Sequence[str]) -> Target:
    if which(command[0]) is None:
        raise ProfileFailed(f"{command[0]}: no such program")
    return Target(shlex.join([os.path.basename(command[0]), *command[1:]]), tuple(command))


def running(pid: int, address: str | None) -> Target:
    """A live server; where an address is given it gets calls from us, elsewhere there are only those of its clients."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        raise ProfileFailed(f"--pid {pid}: no such process") from None
    except PermissionError:
        raise ProfileFailed(f"--pid {pid}: the process of somebody else; try sudo") from None
    return Target(f"process {pid}", address=address, pid=pid)


def listening(address: str) -> Target:
    """A live server of this machine, found by its address."""
    from mcpfast.bench.processes import listener_of
    from mcpfast.bench.target import target_of
    from mcpfast.errors import AddressError

    try:
        place = target_of(address).address
    except AddressError as error:
        raise ProfileFailed(str(error)) from None
    pid = listener_of(place) if place is not None else None
    if pid is None:
        raise ProfileFailed(f"{address}: which process listens there is not to be seen; say --pid PID")
    return Target(f"{address} (process {pid})", address=address, pid=pid)


class Python(NamedTuple):
    """A command, taken apart: the interpreter with its own options, and the program that it is to run with what that is told."""

    interpreter: tuple[str, ...]
    program: tuple[str, ...]  # ("server.py", ...) or ("-m", "package", ...)


def python_of(command: Sequence[str]) -> Python | None:
    """None where a command is no Python. A script that begins with `#!.../python`, as those that pip installs, is one."""
    path = which(command[0])
    if path is None:
        return None
    if re.fullmatch(r"python[\d.]*", os.path.basename(path)):
        return _parted(path, list(command[1:]))
    try:
        with open(path, "rb") as file:
            first = file.readline(300).decode(errors="replace")
    except OSError:
        return None
    match = SHEBANG.match(first)
    python = which(match[1] or match[2]) if match else None
    return Python((python,), (path, *command[1:])) if python else None


def _parted(path: str, words: list[str]) -> Python | None:
    """`-u -X dev server.py --port 1`: the first word that is no option of the interpreter begins the program."""
    place = 0
    while place < len(words) and words[place].startswith("-") and words[place] not in ("-m", "-c", "-"):
        place += 2 if words[place] in ("-X", "-W") else 1
    if place == len(words) or words[place] == "-":
        return None
    return Python((path, *words[:place]), tuple(words[place:]))


def has_module(python: str, name: str) -> bool:
    """Whether that interpreter, which need not be ours, can import it."""
    if python == sys.executable:
        from importlib.util import find_spec

        return find_spec(name) is not None
    asked = f"import sys, importlib.util as u; sys.exit(u.find_spec({name!r}) is None)"
    return processes.run([python, "-c", asked]).returncode == 0


def program(name: str) -> str | None:
    """The path of a program, first of one that was installed beside this Python."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else which(name)
