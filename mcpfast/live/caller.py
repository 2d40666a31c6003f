"""The visitor's end of the door: rings at a process, makes sure who answers, and asks.

Everything that can be in the way is told in one line with what to do: no such process, not ours, somebody else's, in another
network namespace, a loop that stands still.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from mcpfast.bench.processes import family
from mcpfast.errors import McpFastError
from mcpfast.live import doorway
from mcpfast.live.messages import (
    Answer,
    Greeting,
    Look,
    Question,
    Refused,
    Snapshot,
    Take,
    Taken,
    Watch,
    Watching,
)

ANSWER_S = 15.0  # for one answer; above the longest stall that one wants to hear of at once
RING_AGAIN_S = 1.0
PROC = Path("/proc")
T = TypeVar("T")


class NoDoor(McpFastError):
    """There is no looking into this process; the text says why, and what to do."""


class Visit:
    """Inside. A question has its answer within ANSWER_S; raises NoDoor where the server ends, or stands still."""

    def __init__(self, pid: int, connection: socket.socket, lines: BinaryIO) -> None:
        self.pid = pid  # of the server itself: who was asked for may have started it
        self._connection = connection
        self._lines = lines
        self._decode = msgspec.json.Decoder(Answer).decode
        self.greeting = self._read(Greeting)

    def look(self, limit: int = 20) -> Snapshot:
        return self._ask(Look(limit), Snapshot)

    def watch(self, question: Watch) -> Watching:
        return self._ask(question, Watching)

    def take(self) -> Taken:
        return self._ask(Take(), Taken)

    def _ask(self, question: Question, kind: type[T]) -> T:
        try:
            self._connection.sendall(msgspec.json.encode(question) + b"\n")
        except OSError:
            raise NoDoor(f"process {self.pid} has ended") from None
        return self._read(kind)

    def _read(self, kind: type[T]) -> T:
        try:
            line = self._lines.readline(doorway.ANSWER_BYTES_MAX + 2)
        except TimeoutError:
            raise NoDoor(
                f"process {self.pid} does not answer: its event loop has stood still for {ANSWER_S:g} s; where it stands: "
                f"py-spy dump --pid {self.pid}"
            ) from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise NoDoor(f"process {self.pid} has ended")
        try:
            answer = self._decode(line)
        except msgspec.DecodeError as error:
            raise NoDoor(f"process {self.pid} speaks another version of mcpfast: {error}") from None
        if isinstance(answer, Refused):
            raise NoDoor(f"process {self.pid}: {answer.why}")
        if not isinstance(answer, kind) or (
            isinstance(answer, Greeting) and answer.protocol != doorway.PROTOCOL
        ):
            raise NoDoor(f"process {self.pid} speaks another version of mcpfast")
        return answer


@contextmanager
def visit(pid: int, patience_s: float = 0.0) -> Iterator[Visit]:
    """Inside the server that `pid` is, or has started. `patience_s`: it may just be starting, and not serve yet.

    Raises NoDoor.
    """
    if sys.platform != "linux":
        raise NoDoor("looking into a live server works on Linux only")
    deadline_s = time.monotonic() + patience_s
    while not (server := ringable(pid)):
        if time.monotonic() > deadline_s:
            raise NoDoor(why_not(pid))
        time.sleep(0.05)
    check_network(server)
    with connected(server) as connection, connection.makefile("rb") as lines:
        yield Visit(server, connection, lines)


# ---- who can be rung at -----------------------------------------------------------------------------------


def ringable(pid: int) -> int:
    """The one among a process and its descendants that catches the signal (`uv run` and npx are not the server); 0: none.

    What a server has forked is left out. Raises NoDoor where there are several.
    """
    found: list[int] = []
    forked: set[int] = set()
    for member in family(pid):
        if member not in forked and catches(member) and not is_go(member):
            found.append(member)
            forked.update(family(member))
    if len(found) > 1:
        raise NoDoor(f"process {pid} has started several servers: --pid {' or '.join(map(str, found))}")
    return found[0] if found else 0


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty where there is no such process."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def catches(pid: int) -> bool:
    """Whether it has a handler for SIGURG."""
    told = status(pid)
    if told.get("State", "Z")[:1] in "ZX":
        return False
    return bool(int(told.get("SigCgt", "0"), 16) >> (signal.SIGURG - 1) & 1)


def is_go(pid: int) -> bool:
    """Go's runtime catches SIGURG for itself. What we may not look at is asked all the same: it says so then."""
    try:
        return "python" not in os.readlink(PROC / str(pid) / "exe") and not any(
            "/libpython3." in line for line in (PROC / str(pid) / "maps").read_text().splitlines()
        )
    except OSError:
        return False


def why_not(pid: int) -> str:
    told = status(pid)
    if not told or told["State"][:1] in "ZX":
        return f"there is no process {pid}"
    return (
        f"process {pid} ({told['Name']}) is no server that mcpfast runs: `server.run` and `mcpfast run` have a door to look "
        "through, from the moment they listen; a server behind ASGI, in `run_async` or with a handler of its own for SIGURG "
        f"has none. What any Python does now: py-spy dump --pid {pid}"
    )


def check_network(pid: int) -> None:
    """Abstract sockets are of one network namespace."""
    try:
        theirs, ours = (os.readlink(PROC / which / "ns" / "net") for which in (str(pid), "self"))
    except OSError:
        return
    if theirs != ours:
        raise NoDoor(
            f"process {pid} lives in another network namespace (a container). Go there: "
            f"nsenter --net --target {pid} {' '.join(sys.orig_argv)}"
        )


# ---- in ---------------------------------------------------------------------------------------------------


@contextmanager
def connected(pid: int) -> Iterator[socket.socket]:
    """Rings until the door is open, and makes sure that it is this process who stands behind it."""
    inside = int(
        status(pid).get("NSpid", str(pid)).split()[-1] or pid
    )  # its pid as it knows it, in a container
    give_up_s = time.monotonic() + doorway.OPEN_S
    ring_s = 0.0
    while True:
        if time.monotonic() >= ring_s:
            ring(pid)
            ring_s = time.monotonic() + RING_AGAIN_S
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(ANSWER_S)
            connection.connect(doorway.name_of(inside))
            break
        except OSError:
            connection.close()
        if time.monotonic() > give_up_s:
            raise NoDoor(
                f"process {pid} catches the signal and opens no door within {doorway.OPEN_S:g} s: its event loop stands still "
                f"(where: py-spy dump --pid {pid}), or it is no server of mcpfast's"
            )
        time.sleep(0.01)
    with connection:
        answers = doorway.other_end(connection).pid
        if answers != pid:
            raise NoDoor(f"process {answers} answers in the name of process {pid}: nothing was asked of it")
        yield connection


def ring(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGURG)
    except ProcessLookupError:
        raise NoDoor(f"there is no process {pid}") from None
    except PermissionError:
        raise NoDoor(f"process {pid} is somebody else's: sudo {' '.join(sys.orig_argv)}") from None
