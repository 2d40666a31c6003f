"""A run of the load generator, as Python sees it; and servers that listen while they are driven."""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benches.build import binary

STDERR_LINES = 12  # of a server that failed
LEGACY, MODERN = "2025-06-18", "2026-07-28"


class RunFailed(Exception):
    """The load generator could not measure: no server, wrong answers, or none at all. The text says which."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked of a server: `window` calls in flight on each of `connections`."""

    window: int = 1
    connections: int = 1
    era: str = LEGACY
    tool: str = "echo"  # or several, with commas between: the calls go around
    payload_bytes: int = 0
    lockstep: bool = False

    def options(self) -> list[str]:
        options = ["--window", str(self.window), "--connections", str(self.connections), "--era", self.era]
        for tool in self.tool.split(","):
            options += ["--tool", tool]
        if self.payload_bytes:
            options += ["--payload-bytes", str(self.payload_bytes)]
        return [*options, "--lockstep"] if self.lockstep else options


@dataclass(frozen=True, slots=True)
class Run:
    """What the load generator reports; `native/options.h` says what each part means."""

    calls: int
    seconds: float
    rate_per_s: float
    rate_p75_per_s: float  # what a quarter of all slices of 2 ms reached: native/slices.h
    latency_us: dict[str, float]
    handshake_ms: float
    loadgen: dict[str, float]
    errors: int = 0
    error_kinds: dict[str, int] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)
    sample: str = ""


@cache
def processors() -> tuple[int, int] | None:
    """Two processors that share no core, for the load generator and the server; None where there is only one.

    Left to the scheduler, both land on one processor in some runs and on two in others, which changes the rate
    of a pipe three times over and says nothing about the server.
    """
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    siblings = Path(f"/sys/devices/system/cpu/cpu{allowed[0]}/topology/thread_siblings_list")
    same_core = {allowed[0]}
    if siblings.exists():
        for part in siblings.read_text().strip().split(","):
            first, _, last = part.partition("-")
            same_core |= set(range(int(first), int(last or first) + 1))
    others = [cpu for cpu in allowed if cpu not in same_core]
    return (others[0], allowed[0]) if others else None


def drive(
    shape: Shape,
    target: str | Sequence[str],
    *,
    seconds: float = 0.5,
    warmup: float = 0.2,
    calls: int = 0,
    pid: int = 0,
    timeout: float = 15,
    more: Sequence[str] = (),
) -> Run:
    """Drives an address, or a command over its stdin and stdout, for `seconds` or for a number of `calls`.

    Raises:
        RunFailed: wrong answers, a server that is not there or stops answering.
    """
    command = [str(binary("loadgen")), *shape.options(), "--timeout", str(timeout), "--warmup", str(warmup)]
    command += ["--calls", str(calls)] if calls else ["--duration", str(seconds)]
    if pid:
        command += ["--pid", str(pid)]
    if pair := processors():
        command += ["--cpus", f"{pair[0]},{pair[1]}"]
    command += [*more, target] if isinstance(target, str) else [*more, "--", *target]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[-STDERR_LINES:])
        if done.returncode == 1:
            said = f"wrong answers: {json.loads(done.stdout)['error_kinds']}\n{said}".strip()
        raise RunFailed(f"{said}\n  while running: {shlex.join(command)}")
    report: dict[str, Any] = json.loads(done.stdout)
    return Run(**report)


@contextmanager
def staying_on(which: int) -> Iterator[None]:
    """What is spawned in the block stays on the first (0, a load) or the second (1, a server) of two processors."""
    pair, here = processors(), os.sched_getaffinity(0)
    if pair:
        os.sched_setaffinity(0, {pair[which]})  # inherited by the child
    try:
        yield
    finally:
        os.sched_setaffinity(0, here)


@contextmanager
def running(command: Sequence[str], address: str) -> Iterator[int]:
    """A server that listens on `address` while the block runs: its pid.

    Raises:
        RunFailed: it ended, or did not listen within 30 s.
    """
    with staying_on(1):
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        await_listening(server, address)
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def serving(command: Sequence[str], address: str) -> Iterator[int]:
    """The same of a command whose last argument is `address`."""
    with running([*command, address], address) as pid:
        yield pid


def connect(address: str) -> socket.socket:
    """A blocking connection to `tcp://HOST:PORT`, `unix:///PATH` or the host of `http://HOST:PORT/PATH`."""
    if address.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address.removeprefix("unix://"))
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.partition("://")[2].partition("/")[0].rpartition(":")
    return socket.create_connection((host, int(port)))


def await_listening(server: subprocess.Popen[bytes], address: str, seconds: float = 30) -> None:
    """Returns when `address` takes connections."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect(address).close()
            return
        except OSError as error:
            if server.poll() is not None:
                raise RunFailed(f"the server ended at once (exit status {server.returncode})") from error
            if time.monotonic() > deadline:
                raise RunFailed(f"the server does not listen on {address}: {error}") from error
            time.sleep(0.01)
