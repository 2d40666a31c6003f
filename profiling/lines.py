"""scalene: CPU and memory by line of Python, over stdio (it writes its profile when the server ends)."""

import json
import subprocess
import sys
from typing import Any

from target import RESULTS, Target, here

from benches.build import binary
from benches.load import RunFailed

TOP = 15


def lines(target: Target) -> None:
    out, page = RESULTS / "scalene.json", RESULTS / "scalene.html"
    out.unlink(missing_ok=True)
    python, *arguments = target.command
    program = arguments.pop(0)
    scalene = [python, "-m", "scalene", "run", "--profile-all", "--memory", "-o", str(out), program]
    if arguments:
        scalene += ["---", *arguments]
    loadgen = [
        str(binary("loadgen")),
        *target.shape.options(),
        "--duration",
        str(target.seconds),
        "--timeout",
        "60",
    ]
    done = subprocess.run([*loadgen, "--", *scalene], capture_output=True, text=True)
    if done.returncode or not out.exists():
        raise RunFailed(f"scalene wrote no profile: {done.stderr or done.stdout}")
    print_lines(json.loads(out.read_text()))
    view = [sys.executable, "-m", "scalene", "view", "--standalone", out.name]
    if subprocess.run(view, cwd=RESULTS, capture_output=True).returncode == 0:
        (RESULTS / "scalene-profile.html").replace(page)
        print(f"{here(page)} (open it in a browser), {here(out)}")


def print_lines(profile: dict[str, Any]) -> None:
    """The lines that cost most, all files together."""
    found = []
    for name, file in profile["files"].items():
        for line in file["lines"]:
            share = [line["n_cpu_percent_python"], line["n_cpu_percent_c"], line["n_sys_percent"]]
            if sum(share) >= 0.5:
                found.append((sum(share), share, f"{name}:{line['lineno']}", line["line"].strip()))
    print(f"{'Python':>7} {'native':>7} {'system':>7}  line")
    for _, (python, native, system), where, text in sorted(found, reverse=True)[:TOP]:
        print(f"{python:6.1f}% {native:6.1f}% {system:6.1f}%  {where}  {text[:60]}")
    print(f"memory at most {profile['max_footprint_mb']:.1f} MB above the start")
