"""The server that is driven: a command that is started, or an address."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from mcpfast.bench.plan import Wire
from mcpfast.errors import AddressError, McpFastError

END_S = 5.0  # a server whose stdin has ended is given so long


class TargetError(McpFastError):
    """The server cannot be started or found; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """`command` is started and driven over its stdin and stdout; else `address` is connected to."""

    text: str  # as the user wrote it
    wire: Wire
    command: tuple[str, ...] = ()
    address: str | tuple[str, int] | None = (
        None  # the path of a Unix socket, or a numeric IP address and a port
    )
    authority: str = ""
    path: str = ""


def target_of(text: str | None, command: Sequence[str] = ()) -> Target:
    """Raises AddressError that says what may be written."""
    if command:
        return Target(shlex.join(command), "lines", tuple(command))
    if text is None:
        raise AddressError(
            "which server? FILE.py, an address (http://, ws://, tcp://, unix://), or a command behind --"
        )
    scheme, colon, rest = text.partition("://")
    if not colon:
        return _file(text)
    if scheme in ("https", "wss"):
        raise AddressError(f"{text}: TLS is not spoken here; bench the server behind what ends the TLS")
    if scheme == "unix":
        return Target(text, "lines", address=rest)
    if scheme == "unix+http":
        return Target(text, "http", address=rest, authority="localhost", path="/mcp")
    if scheme not in ("tcp", "http", "ws"):
        raise AddressError(f"{text}: use http://HOST:PORT/mcp, ws://..., tcp://HOST:PORT or unix:///PATH")
    return _inet(text, scheme)


def _file(text: str) -> Target:
    path = text.rpartition(":")[0] if ".py:" in text else text
    if not path.endswith(".py"):
        raise AddressError(f"{text!r} is neither FILE.py nor an address; a command stands behind --")
    if not os.path.isfile(path):
        raise AddressError(f"{path}: no such file")
    return Target(text, "lines", (sys.executable, "-m", "mcpfast", "run", text))


def _inet(text: str, scheme: str) -> Target:
    parts = urlsplit(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"{text}: {error}") from None
    if host is None or (port is None and scheme == "tcp"):
        raise AddressError(f"{text}: write {scheme}://HOST:PORT{'' if scheme == 'tcp' else '/mcp'}")
    port = 80 if port is None else port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressError(f"{text}: {error.strerror or error}") from None
    # The first address is what a browser would take; a name with several of them (localhost) may listen on another.
    numeric = next((str(one[4][0]) for one in found if _listens(one)), str(found[0][4][0]))
    if scheme == "tcp":
        return Target(text, "lines", address=(numeric, port))
    path = parts.path or "/mcp"
    path += f"?{parts.query}" if parts.query else ""
    return Target(
        text,
        "websocket" if scheme == "ws" else "http",
        address=(numeric, port),
        authority=parts.netloc.rpartition("@")[2],
        path=path,
    )


def _listens(found: tuple[object, ...]) -> bool:
    family, kind, _, _, address = found
    with socket.socket(family, kind) as probe:  # type: ignore[arg-type]
        probe.settimeout(2)
        try:
            probe.connect(address)  # type: ignore[arg-type]
        except OSError:
            return False
    return True


@dataclass(slots=True)
class Child:
    """A server that was started for the run."""

    process: subprocess.Popen[bytes]
    pipe: tuple[int, int]
    was_killed: bool = False  # it stayed when its input had ended

    @property
    def pid(self) -> int:
        return self.process.pid

    def epitaph(self) -> str:
        """How it ended, if it did so by itself."""
        try:
            status = self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            return ""
        return f" (exit status {status})" if status >= 0 else f" (killed by signal {-status})"


@contextmanager
def started(target: Target, *, processor: int | None = None, quiet: bool = False) -> Iterator[Child]:
    """The command of `target`, with its stdin and stdout at our end of two pipes. It is ended as the specification asks:
    its input ends, and only who stays is killed.

    Raises TargetError when it cannot be started.
    """
    before = os.sched_getaffinity(0)
    if processor is not None:
        os.sched_setaffinity(0, {processor})  # the child inherits it
    try:
        process = subprocess.Popen(
            target.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
        )
    except OSError as error:
        raise TargetError(f"{target.command[0]}: {error.strerror}") from None
    finally:
        os.sched_setaffinity(0, before)
    assert process.stdin is not None and process.stdout is not None
    pipe = process.stdout.fileno(), process.stdin.fileno()
    for end in pipe:
        os.set_blocking(end, False)
    child = Child(process, pipe)
    try:
        yield child
    finally:
        _end(child)


def _end(child: Child) -> None:
    process = child.process
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except OSError:
        pass
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        child.was_killed = True
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()
