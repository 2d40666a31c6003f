"""What a run found: the figures of `--json`, of the table and of the report."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import msgspec


class Result(msgspec.Struct, kw_only=True):
    """One run. Times are microseconds where a name says `us`, and in `over_time` and `percentiles`."""

    mcpfast: str
    date: str
    name: str
    target: str
    era: str
    loop: str  # "closed": a request begins when an answer has come; "open": when the clock says so
    connections: int
    window: int
    rate: float | None  # asked for, requests a second
    warmup_s: float
    duration_s: float
    machine: dict[str, Any]
    seconds: float
    requests: int
    rate_per_s: float
    rate_p75_per_s: float  # what a quarter of all slices of 2 ms reached: the rate without the neighbours
    errors: int
    error_kinds: dict[str, int]
    refused: int  # "too much at once": 429, 503, or such a JSON-RPC error; no error
    latency_us: dict[str, float]
    refused_latency_us: dict[str, float]
    percentiles: list[tuple[float, float]]  # share of the requests, and the time that it did not exceed
    over_time: list[dict[str, float]]
    kinds: list[dict[str, Any]]
    handshake_ms: float
    server: dict[str, Any] | None
    generator: dict[str, Any]
    warnings: list[str]
    first_error: str = ""
    sweep: list[dict[str, Any]] = []

    def plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        if not self.sweep:
            del plain["sweep"]
        return plain


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    return {
        "cpu": model or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
