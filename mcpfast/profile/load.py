"""The calls that keep a server busy while somebody looks: the engine of `mcpfast bench`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpfast.profile import ProfileFailed

LAST_LINES = 12  # of what a process said that failed
SILENCE_S = 60  # without an answer: an instrument makes a server fifty times slower, and its start more so
WRONG_ANSWERS = 1  # the exit code of mcpfast bench; higher ones say that it could not measure


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server; the names and defaults are those of `mcpfast bench`."""

    tool: str | None = None
    args: str | None = None  # a JSON object
    connections: int | None = None
    window: int | None = None
    era: str | None = None
    scenario: str | None = None  # a file

    def options(self) -> list[str]:
        """As they are written on a command line."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return [
            word for name, value in named.items() if value is not None for word in (f"--{name}", str(value))
        ]


class Outcome:
    """What came of the calls."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    @property
    def calls(self) -> int:
        """Those of the measured time."""
        return int(self.told["requests"])

    @property
    def errors(self) -> int:
        return int(self.told["errors"])

    @property
    def asked(self) -> str:
        """In a sentence: "call echo, 16 in flight, 2026-07-28"."""
        told = self.told
        kinds = ", ".join(kind["name"] for kind in told["kinds"])
        flying = f"{told['window']} in flight"
        if told["connections"] > 1:
            each = f" with {flying} on each" if told["window"] > 1 else ""
            flying = f"{told['connections']} connections{each}"
        return f"{kinds}: {flying}, {told['era']}"

    def __str__(self) -> str:
        """In a sentence: "5,210 a second, p50 210 us, p99 380 us, no errors"."""
        said = [f"{self.told['rate_per_s']:,.0f} a second"]
        said += [f"{name} {self.told['latency_us'][name]:,.0f} us" for name in ("p50", "p99")]
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.told["error_kinds"].items())
        return ", ".join([*said, f"{self.errors:,} ERRORS ({kinds})" if self.errors else "no errors"])


class Driver:
    """The calling process at work. `wait` is its end and its outcome, `stop` an end without one."""

    def __init__(self, command: Sequence[str], report: Path) -> None:
        self.report = report
        self._said = report.with_suffix(".stderr")
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def check(self) -> None:
        """Raises ProfileFailed where it has given up already: no server, no such tool."""
        if self.process.poll() not in (None, 0, WRONG_ANSWERS):
            self.wait(0)

    def wait(self, patience_s: float) -> Outcome:
        """Returns when it has ended; raises ProfileFailed where it could not do its work."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise ProfileFailed("the calls did not come to an end") from None
        if code not in (0, WRONG_ANSWERS) or not self.report.exists():
            said = self._said.read_text(errors="replace").strip().splitlines()
            raise ProfileFailed("\n  ".join(["the server could not be called:", *said[-LAST_LINES:]]))
        return Outcome(json.loads(self.report.read_text()))

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
    folder: Path,
    *,
    address: str | None = None,
    command: Sequence[str] = (),
    launched: Sequence[str] = (),
    seconds: float,
    warmup: float = 0,
    calls: int = 0,
    pid: int | None = None,
) -> Driver:
    """Starts calling a server: at its `address`, or over the stdio of `command`, which is started as `launched`.

    Calls for `seconds` after `warmup`, or so many `calls`. The one place that knows the load generator.
    """
    report = folder / "load.json"
    report.unlink(missing_ok=True)
    options = [*load.options(), "--quiet", "--timeout", str(SILENCE_S), "--warmup", f"{warmup:g}"]
    options += ["--calls", str(calls)] if calls else ["--duration", f"{seconds:g}"]
    if pid is not None:
        options += ["--pid", str(pid)]
    told = {
        "report": str(report),
        "options": options,
        "address": address,
        "command": list(command),
        "launched": list(launched),
    }
    return Driver([sys.executable, "-m", "mcpfast.profile.driver", json.dumps(told)], report)
