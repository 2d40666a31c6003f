"""Writes requirements/*.txt from pyproject.toml: exact versions with hashes, one file a word, good for every Python we support.

    make lock             keeps what is locked and still fits
    make lock UPGRADE=1   takes the newest of everything

All files come from one resolution, so that any of them can be installed into the same environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = {  # what each file holds beside the run-time dependencies of mcpfast
    "run": ["build"],
    "test": ["build", "test"],
    "lint": ["lint"],
    "fuzz": ["fuzz"],
    "profile": ["profile"],
    "lock": ["lock"],
}


def compile_file(out: Path, groups: list[str], *more: str) -> None:
    """Resolves the run-time dependencies and `groups` into `out`."""
    chosen = [argument for group in groups for argument in ("--group", group)]
    command = [
        str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "pyproject.toml", *chosen, *more,
        "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-config",
        "--custom-compile-command", "make lock", "--output-file", str(out),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    everything = ROOT / "build" / "lock" / "everything.txt"
    everything.parent.mkdir(parents=True, exist_ok=True)
    everything.unlink(missing_ok=True)
    upgrade = bool(os.environ.get("UPGRADE"))
    locked = sorted((ROOT / "requirements").glob("*.txt"))
    if locked and not upgrade:  # uv keeps the versions that it finds in its output file
        everything.write_text("".join(file.read_text() for file in locked))
    groups = sorted({group for chosen in FILES.values() for group in chosen})
    compile_file(everything, groups)
    for name, chosen in FILES.items():
        out = ROOT / "requirements" / f"{name}.txt"
        out.unlink(missing_ok=True)
        compile_file(out, chosen, "--constraint", str(everything.relative_to(ROOT)))
        print(
            out.relative_to(ROOT),
            sum(line[:1].isalnum() for line in out.read_text().splitlines()),
            "packages",
        )


if __name__ == "__main__":
    main()
