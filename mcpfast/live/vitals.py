"""What /proc says of a process: nothing that the process itself would have to work for."""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec import Struct

from mcpfast.bench.processes import usage

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Vitals(Struct):
    """`processor` is the share of one processor since the look before, None at the first."""

    pid: int
    uptime_s: float
    processor: float | None
    rss_mb: float  # MB of 1,000,000 bytes
    descriptors: int
    threads: int


class Pulse:
    """Looks at one process, again and again."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before: tuple[float, float] | None = None  # when, and the seconds that it had computed by then

    def take(self) -> Vitals | None:
        """None where there is nothing to be seen: it has ended."""
        now_s = time.monotonic()
        used = usage([self._pid])
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
            since_boot_s = float(Path("/proc/uptime").read_text().split()[0])
        except OSError:
            return None
        if used is None:
            return None
        computed_s = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
        share = None
        if self._before is not None and now_s > self._before[0]:
            share = (computed_s - self._before[1]) / (now_s - self._before[0])
        self._before = now_s, computed_s
        uptime_s = max(0.0, since_boot_s - int(fields[19]) / TICKS_A_SECOND)
        return Vitals(self._pid, uptime_s, share, used.rss_mb, used.descriptors, used.threads)
