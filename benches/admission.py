"""Instructions of one admission, counted by callgrind: three levels, each with every limit there is, in and out again."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benches.counting import repeatable

FEW, MANY = 20_000, 120_000
PROGRAM = """
import sys
from mcpfast._quota import Admission, Meter
from mcpfast.tenancy.identity import Quota

quota = Quota(calls_per_s=1e9, bytes_per_s=1e12, concurrent_calls_max=100, request_bytes_max=1 << 20, daily_units_max=1e9,
              monthly_units_max=1e9)
admission = Admission(*[Meter(quota if limits == "limited" else None) for limits in sys.argv[2:]])
calls = int(sys.argv[1])
assert admission.repeat(calls, 1.0, 100.0, 100.0, 1e4, 1.8e9) == calls
"""


def counted(calls: int, levels: list[str], out: Path) -> int:
    """All instructions of a process that lets so many calls in and out."""
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--log-file={out}.log"]
    subprocess.run([*valgrind, sys.executable, "-c", PROGRAM, str(calls), *levels], check=True)
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
    assert found is not None, "callgrind wrote no total"
    return int(found[1])


def instructions_an_admission(levels: list[str]) -> float:
    """What it costs to let one call in and out through levels that are "limited" or "unlimited"."""
    with repeatable(), tempfile.TemporaryDirectory() as folder:
        few, many = (counted(calls, levels, Path(folder) / str(calls)) for calls in (FEW, MANY))
    return (many - few) / (MANY - FEW)


if __name__ == "__main__":
    for levels in (["limited"] * 3, ["limited"], ["unlimited"] * 3, ["unlimited"]):
        print(f"{instructions_an_admission(levels):6.1f}  {', '.join(levels)}")
