"""`make bench-pieces`: how long each piece of the hot path takes, beside its last landed run, in one table."""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pytest_benchmark.utils import get_machine_id

from benches.table import commit
from mcpfast.bench.result import machine

PIECES = Path(__file__).resolve().with_name("test_pieces.py")
ROOT = PIECES.parents[1]
STORAGE = ROOT / "benches" / "history" / "pieces"
COLUMNS = "min,median"
EPILOG = """\
The last landed run is kept for each kind of machine (system, Python, word size) in benches/history/pieces. Where there
is none, the times are shown alone. On a machine that others use, look at the minimum.

  make bench-pieces                        all pieces, half a minute
  make bench-pieces ARGS="-k http"         some of them; whatever pytest takes
  make bench-pieces ARGS=--record          the run becomes the last landed one: commit its file
"""


def options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="benches/pieces.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--record", action="store_true", help="keep this run as the last landed one")
    given, for_pytest = parser.parse_known_args()
    if given.record and for_pytest:
        parser.error(f"--record keeps whole runs: leave out {shlex.join(for_pytest)}")
    return given, for_pytest


def landed_file() -> Path:
    """Of this kind of machine. Its name is as much of it as a column of the table shows."""
    return STORAGE / kind_of_machine() / "last.json"


def kind_of_machine() -> str:
    return cast("str", get_machine_id())  # type: ignore[no-untyped-call]


def run(into: Path, *more: str) -> int:
    command = [sys.executable, "-m", "pytest", str(PIECES), "--benchmark-enable", f"--benchmark-json={into}"]
    command += [f"--benchmark-storage=file://{STORAGE}", f"--benchmark-columns={COLUMNS},iqr,rounds", *more]
    return subprocess.call(command, cwd=ROOT)


def compare(landed: Path, now: Path) -> int:
    """One line for each piece that was measured now: then, now, and the change."""
    measured = {one["fullname"] for one in json.loads(now.read_text())["benchmarks"]}
    then = json.loads(landed.read_text())
    then["benchmarks"] = [one for one in then["benchmarks"] if one["fullname"] in measured]
    last = now.with_name(landed.name)
    last.write_text(json.dumps(then))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", f"--between={COLUMNS}", "--name=short"]
    return subprocess.call([*command, last, now], cwd=ROOT)


def stripped(measured: dict[str, Any]) -> dict[str, Any]:
    """What a comparison needs: without each single time, the arguments, and what the machine is called."""
    told = {"commit": commit(), "datetime": measured["datetime"], "machine_info": machine()}
    return told | {"benchmarks": [piece(one) for one in measured["benchmarks"]]}


def record(now: Path, landed: Path) -> None:
    landed.parent.mkdir(parents=True, exist_ok=True)
    landed.write_text(json.dumps(stripped(json.loads(now.read_text())), indent=1) + "\n")


def piece(one: dict[str, Any]) -> dict[str, Any]:
    stats = {
        key: float(f"{value:.4g}") for key, value in one["stats"].items() if isinstance(value, int | float)
    }
    return {"group": None, "name": one["name"], "fullname": one["fullname"], "stats": stats}


def about(landed: Path) -> str:
    told = json.loads(landed.read_text())
    there, here = told["machine_info"], machine()
    other = "" if there == here else f", on another machine or Python: {there}, and this is {here}"
    return f"`last` is {told['commit']} of {told['datetime'][:10]}{other}."


def main() -> int:
    given, for_pytest = options()
    landed = landed_file()
    quiet = ["--benchmark-quiet"] if landed.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        now = Path(folder) / "now.json"
        code = run(now, *quiet, *for_pytest)
        if not now.exists() or code:
            return code
        if landed.exists():
            print(about(landed), flush=True)
            code = compare(landed, now)
        else:
            print(f"No run has landed for {kind_of_machine()} yet: there is nothing to compare with.")
        if given.record:
            record(now, landed)
            print(f"recorded in {landed}")
    return code


if __name__ == "__main__":
    sys.exit(main())
