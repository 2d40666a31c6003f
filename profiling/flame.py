"""py-spy: a flame graph with native frames, and the functions in which the samples end."""

import subprocess
from collections import Counter
from pathlib import Path

from target import RESULTS, Target, driven, here, tool

from benches.load import RunFailed

RATE_HZ = 500
TOP = 25


def flame(target: Target) -> None:
    svg, raw = RESULTS / "py-spy.svg", RESULTS / "py-spy.txt"
    with driven(target) as pid:
        record(pid, "flamegraph", svg, target.seconds)
        record(pid, "raw", raw, target.seconds)
    own = own_time(raw)
    total = sum(own.values())
    print(f"own time, {total} samples:")
    for where, samples in own.most_common(TOP):
        print(f"  {samples / total:6.1%}  {where}")
    print(f"{here(svg)} (open it in a browser), {here(raw)}")


def record(pid: int, form: str, out: Path, seconds: float) -> None:
    spy = [tool("py-spy"), "record", "--native", "--rate", str(RATE_HZ), "--duration", str(round(seconds))]
    done = subprocess.run(
        [*spy, "--format", form, "--output", str(out), "--pid", str(pid)], capture_output=True, text=True
    )
    if done.returncode:
        raise RunFailed(f"py-spy cannot look into another process here (it needs ptrace):\n{done.stderr}")


def own_time(raw: Path) -> Counter[str]:
    """Samples by the innermost frame; each line of a raw profile is `outer;...;inner count`."""
    own: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        own[stack.rpartition(";")[2]] += int(count)
    return own
