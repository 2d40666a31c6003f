"""The calls that keep a server busy while somebody looks: one run of the load generator, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mcpfast.profile import ProfileFailed

LAST_LINES = 12  # of what a process said that failed
WRONG_ANSWERS = 1  # the exit code of the load generator; higher ones say that it could not measure


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server; names and defaults are those of `mcpfast bench`."""

    tool: str | None = None
    args: str | None = None  # a JSON object
    connections: int = 1
    window: int = 16
    era: str | None = None
    scenario: str | None = None  # a file

    def options(self) -> list[str]:
        """As they are written on a command line."""
        said: list[str] = []
        for name in ("tool", "args", "era", "scenario"):
            value = getattr(self, name)
            if value is not None:
                said += [f"--{name}", str(value)]
        if self.connections != 1:
            said += ["--connections", str(self.connections)]
        return said if self.scenario else [*said, "--window", str(self.window)]

    def __str__(self) -> str:
        """In a sentence: "tool echo, 16 calls in flight"."""
        asked = f"scenario {Path(self.scenario).name}" if self.scenario else f"tool {self.tool or 'echo'}"
        flying = "" if self.scenario else f", {self.window} calls in flight"
        if self.connections != 1:
            flying += f" on each of {self.connections} connections"
        return f"{asked}{flying}" + (f", {self.era}" if self.era else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the load generator says at its end."""

    calls: int
    rate_per_s: float
    errors: int = 0
    error_kinds: dict[str, int] = field(default_factory=dict)
    latency_us: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, told: dict[str, Any], seconds: float) -> Outcome:
        rate = float(told["rate_per_s"])
        return cls(
            calls=int(told.get("calls", rate * float(told.get("seconds", seconds)))),
            rate_per_s=rate,
            errors=int(told.get("errors", 0)),
            error_kinds=dict(told.get("error_kinds", {})),
            latency_us=dict(told.get("latency_us", {})),
        )

    def __str__(self) -> str:
        """In a sentence: "5,210 calls a second, p50 210 us, p99 380 us, no errors"."""
        said = [f"{self.rate_per_s:,.0f} calls a second"]
        said += [
            f"{name} {self.latency_us[name]:,.0f} us" for name in ("p50", "p99") if name in self.latency_us
        ]
        if not self.errors:
            return ", ".join([*said, "no errors"])
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.error_kinds.items())
        return ", ".join([*said, f"{self.errors:,} ERRORS ({kinds})"])


class Driver:
    """A load generator at work. `wait` is its end and its outcome, `stop` an end without one."""

    def __init__(self, command: Sequence[str], report: Path, seconds: float) -> None:
        self.command, self.report, self.seconds = command, report, seconds
        self._said = report.with_suffix(".stderr")
        with self._said.open("wb") as said, report.with_suffix(".stdout").open("wb") as told:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, stderr=said)

    def check(self) -> None:
        """Raises ProfileFailed where it has given up already: no server, no such tool."""
        if self.process.poll() is not None:
            self.wait(0)

    def wait(self, patience_s: float) -> Outcome:
        """Returns when it has ended; raises ProfileFailed where it could not do its work."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise ProfileFailed(f"the calls did not come to an end: {' '.join(self.command)}") from None
        told = self._report()
        if code > WRONG_ANSWERS or told is None:
            said = self._said.read_text(errors="replace").strip().splitlines()
            raise ProfileFailed("\n  ".join(["the server could not be called:", *said[-LAST_LINES:]]))
        return Outcome.read(told, self.seconds)

    def _report(self) -> dict[str, Any] | None:
        for place in (self.report, self.report.with_suffix(".stdout")):
            try:
                told = json.loads(place.read_text())
                return told if isinstance(told, dict) else None
            except (OSError, ValueError):
                continue
        return None

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def drive(
    load: Load,
    target: str | Sequence[str],
    folder: Path,
    *,
    seconds: float,
    warmup: float = 0,
    calls: int = 0,
    pid: int | None = None,
) -> Driver:
    """Starts calling `target`: an address, or a command over its stdin and stdout; `calls` of them, or for `seconds`.

    The one place that knows which load generator there is.
    """
    report = folder / "load.json"
    report.unlink(missing_ok=True)
    engine = _bench(report) if find_spec("mcpfast.bench") else _loadgen(load)
    command = [*engine, *load.options(), "--warmup", f"{warmup:g}", "--timeout", "60"]
    command += ["--calls", str(calls)] if calls else ["--duration", f"{seconds:g}"]
    if pid is not None:
        command += ["--pid", str(pid)]
    return Driver(
        [*command, target] if isinstance(target, str) else [*command, "--", *target], report, seconds
    )


def _bench(report: Path) -> list[str]:
    return [sys.executable, "-m", "mcpfast", "bench", "--json", str(report)]


def _loadgen(load: Load) -> list[str]:
    """The load generator of the work tree."""
    if load.scenario:
        raise ProfileFailed(
            "--load needs `mcpfast bench`, which this build does not have; say --tool and --args"
        )
    program = Path(__file__).parents[2] / "benches" / "_build" / "loadgen"
    if not program.exists():
        raise ProfileFailed(f"no load generator here: {sys.executable} benches/build.py makes it")
    return [str(program)]
