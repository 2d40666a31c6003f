"""One profiling session: the server is started, called and looked at, and what was seen is told.

Two kinds of instrument there are. Those that *attach* look at a process that serves already (py-spy, perf, memray on a live
server; loop and gc, which a server of ours lets in itself). Those that *wrap* are what the server runs in, from its first
line to its last (callgrind, scalene, memray).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from mcpfast.bench.processes import listener_of
from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.load import LAST_LINES, Driver, Load, Outcome, drive
from mcpfast.profile.progress import Progress
from mcpfast.profile.report import Report, machine
from mcpfast.profile.target import Target, listening, of_command, of_file, running

INSTRUMENTS = {
    "py-spy": "py_spy",
    "perf": "perf",
    "memray": "memray",
    "scalene": "scalene",
    "callgrind": "callgrind",
}
INSIDE = {"loop": "loop", "gc": "gc"}  # words of their own: they look from inside a server of ours
START_S = 30.0  # until a server listens; one that runs in an instrument takes longer
WRAPPED_START_S = 180.0
END_S = 60.0  # until it has ended and its instrument has written what it saw
LAUNCH = Path(__file__).with_name("launch.py")


class Instrument(Protocol):
    """What each module of INSTRUMENTS offers."""

    READING: str  # how to read its results: a page of words

    def missing(self, target: Target) -> str | None:
        """What it lacks to look at `target`, and what to install; None where it can."""

    def look(self, session: Session) -> Report: ...


@dataclass(slots=True)
class Seen:
    """A server that is being called: its process, and, when the block has ended, what came of the calls."""

    pid: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class Session:
    """What an instrument works with."""

    target: Target
    load: Load
    seconds: float
    warmup: float
    calls: int
    folder: Path  # of the results
    private: Path  # for everything else; removed at the end
    progress: Progress
    environment: dict[str, str] = field(default_factory=dict)  # what the server sees beside ours
    threshold_s: float = 0.02  # loop: from here on it is a stall

    @contextmanager
    def called(self, lead_s: float = 1) -> Iterator[Seen]:
        """Around an instrument that attaches: the server is up and called, until `lead_s` + `seconds` have passed."""
        lasting = lead_s + self.seconds
        with ExitStack() as stack:
            driver: Driver | None = None
            if self.target.stdio:
                with self.progress.step("starting the server, and calls over its stdio"):
                    driver = stack.enter_context(self.driven(lasting, command=self.target.command or ()))
                    pid = self.await_pid(driver)
            else:
                pid = self.target.pid or stack.enter_context(self.served(self.target.command or (), START_S))
                if self.target.address:
                    driver = stack.enter_context(self.driven(lasting, pid=pid))
            if driver:
                with self.progress.step("calling it", self.warmup):
                    time.sleep(self.warmup)
                    driver.check()
            seen = Seen(pid)
            yield seen
            if driver:
                with self.progress.step("letting the last calls end"):
                    seen.outcome = driver.wait(lasting + END_S)
            elif not processes.alive(pid):
                raise ProfileFailed("the server ended while it was looked at")

    def wrapped(self, command: Sequence[str], *, calls: int = 0, seconds: float | None = None) -> Outcome:
        """Starts the server as `command`, which is the target's with an instrument around it; calls it; sees it end well."""
        lasting = self.seconds if seconds is None else seconds
        if self.target.stdio:
            step = self.progress.step(
                "starting the server, and calls over its stdio", 0 if calls else lasting
            )
            with step, self.driven(lasting, command=command, calls=calls) as driver:
                return driver.wait(lasting + WRAPPED_START_S + END_S)
        with self.served(command, WRAPPED_START_S) as pid:
            step = self.progress.step("calling it", 0 if calls else lasting)
            with step, self.driven(lasting, calls=calls, pid=pid) as driver:
                return driver.wait(lasting + WRAPPED_START_S + END_S)

    @contextmanager
    def driven(
        self, seconds: float, *, command: Sequence[str] = (), calls: int = 0, pid: int | None = None
    ) -> Iterator[Driver]:
        """Around calls: at the target's address, or over the stdio of `command`, which is the target's or wraps it."""
        driver = drive(
            self.load,
            self.private,
            address=None if command else self.target.address,
            command=(self.target.command or ()) if command else (),
            launched=self.launched(command) if command else (),
            seconds=seconds,
            warmup=self.warmup,
            calls=calls,
            pid=pid,
        )
        try:
            yield driver
        except ProfileFailed as failure:
            raise ProfileFailed(f"{failure}\n{self.server_log()}".strip()) from None
        finally:
            driver.stop()

    @contextmanager
    def served(self, command: Sequence[str], patience_s: float) -> Iterator[int]:
        """The server listens on the target's address inside the block: its pid, or that of what wraps it."""
        self.socket.unlink(missing_ok=True)
        with self.progress.step("starting the server"), self.log.open("ab") as log:
            server = subprocess.Popen(
                self.launched(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # a session of its own: Ctrl-C is for us, and we end the server
            try:
                self.await_listening(server, patience_s)
            except BaseException:
                processes.end(server, None, 1)
                raise
        try:
            yield server.pid
        finally:
            with self.progress.step("ending the server"):
                processes.end(server, listener_of(str(self.socket)), END_S)

    def launched(self, command: Sequence[str]) -> list[str]:
        """`command`, as a process that tells its pid first and may be looked at."""
        self.pid_file.unlink(missing_ok=True)
        said = [f"{name}={value}" for name, value in self.environment.items()]
        wrapped = ["env", *said, *command] if said else command
        return [sys.executable, "-I", "-S", str(LAUNCH), str(self.pid_file), *wrapped]

    @property
    def socket(self) -> Path:
        """Where a server of ours listens."""
        return Path((self.target.address or "").removeprefix("unix://"))

    @property
    def pid_file(self) -> Path:
        return self.private / "server.pid"

    @property
    def log(self) -> Path:
        """What a server of ours wrote to stdout and stderr."""
        return self.private / "server.log"

    def server_log(self) -> str:
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in said[-LAST_LINES:])

    def await_pid(self, driver: Driver) -> int:
        deadline = time.monotonic() + START_S
        while not self.pid_file.exists():
            driver.check()
            if time.monotonic() > deadline:
                raise ProfileFailed("the server was not started")
            time.sleep(0.01)
        return int(self.pid_file.read_text())

    def await_listening(self, server: subprocess.Popen[bytes], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0:
                    return
            if server.poll() is not None:
                raise ProfileFailed(f"the server did not start:\n{self.server_log()}")
            if time.monotonic() > deadline:
                raise ProfileFailed(f"the server does not listen after {patience_s:g} s\n{self.server_log()}")
            time.sleep(0.02)


def instrument(name: str) -> Instrument:
    return cast(Instrument, import_module(f"mcpfast.profile.{(INSTRUMENTS | INSIDE)[name]}"))


def profile(
    name: str,
    *,
    file: str | None = None,
    command: Sequence[str] = (),
    pid: int | None = None,
    address: str | None = None,
    load: Load | None = None,
    seconds: float = 10,
    warmup: float = 1,
    calls: int = 0,
    threshold_s: float = 0.02,
    folder: str | Path,
    progress: Progress | None = None,
) -> Report:
    """Looks at one server with the instrument `name`; the results, a page among them, are in `folder`.

    The server is a `file` of ours, a `command` that serves over stdio, or a live one of this machine: a process `pid`, or who
    listens on `address` (tcp://, unix://, http://, ws://). Without an address it is called only by its own clients. `calls`:
    this many instead of `seconds`, where an instrument counts rather than samples. `threshold_s`: what is a stall of the loop.

    Raises ProfileFailed: the instrument is not there or may not look, or the server does not start, answer or go on living.
    """
    into = Path(folder)
    with tempfile.TemporaryDirectory(prefix="mcpfast-profile-") as made:
        private = Path(made)
        if pid is not None:
            target = running(pid, address)
        elif address is not None:
            target = listening(address)
        else:
            target = of_command(command) if command else of_file(file or "", private)
        with_what = instrument(name)
        if lacking := with_what.missing(target):
            raise ProfileFailed(lacking)
        into.mkdir(parents=True, exist_ok=True)
        session = Session(
            target,
            load or Load(),
            seconds,
            warmup,
            calls,
            into,
            private,
            progress or Progress(),
            threshold_s=threshold_s,
        )
        report = with_what.look(session)
    report.facts.insert(0, target.title)
    report.facts.append(f"{time.strftime('%Y-%m-%d %H:%M')}, {machine()}")
    report.files.insert(0, (into / "index.html", "all of this as a page: open it in a browser"))
    report.files[0][0].write_text(report.page())
    return report


def facts(outcome: Outcome | None) -> tuple[list[str], list[str]]:
    """How the server was called, and a warning where the calls went wrong."""
    if outcome is None:
        return ["called by nobody but its own clients"], []
    warnings = [warning for warning in outcome.told["warnings"] if warning.startswith("the run ended early")]
    if outcome.errors:
        warnings.append(f"{outcome.errors:,} answers were wrong; this may be the profile of a way of failing")
    return [f"{outcome.asked}: {outcome}"], warnings
