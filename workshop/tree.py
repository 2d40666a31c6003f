"""Builds the package in one flavour beside the work tree: build/<flavour>-<python>/lib, which it prints.

    .venv/bin/python workshop/tree.py trace
    PYTHONPATH=build/trace-cpython-311-x86_64-linux-gnu/lib .venv/bin/pytest

The tree is links to the sources and the compiled rooms of that flavour, so what is written in
Python is always the newest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(flavour: str) -> Path:
    """Links, compiles what is older than its source, and returns the folder for PYTHONPATH."""
    tree = ROOT / "build" / f"{flavour}-{sysconfig.get_config_var('SOABI')}"
    package = tree / "lib" / "mcpfast"
    link(ROOT / "mcpfast", package)
    log = tree / "build.log"
    with log.open("w") as out:
        built = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tree / "lib")],
            cwd=ROOT,
            env={**os.environ, "MCPFAST_BUILD": flavour},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if built.returncode:
        sys.stderr.write(log.read_text())
        raise SystemExit(f"the {flavour} build failed")
    # Cython's coverage plug-in looks for the C beside the .so
    written = tree / "c" / "mcpfast"
    for c_file in written.rglob("*.c"):
        beside = package / c_file.relative_to(written)
        if not beside.is_symlink():
            beside.symlink_to(c_file)
    return tree / "lib"


def link(sources: Path, package: Path) -> None:
    """Links to all that stands in `sources`. A folder with compiled rooms is one of our own: through a link to it they would be
    built into the work tree."""
    if package.is_symlink():
        package.unlink()
    package.mkdir(parents=True, exist_ok=True)
    for old in package.iterdir():
        if old.is_symlink():
            old.unlink()
    for source in sources.iterdir():
        if source.is_dir() and any(source.glob("*.pyx")):
            link(source, package / source.name)
        elif source.suffix != ".so" and source.name != "__pycache__":
            (package / source.name).symlink_to(source)


if __name__ == "__main__":
    print(build(sys.argv[1]))
