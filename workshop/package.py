"""Makes what is published, and tries it as its users get it.

package.py make           sdist and wheel into dist/; the wheel is made from the sdist, so nothing can be missing there
package.py try [ARGS]     installs the wheel into the running environment and runs the tests against it, far from the sources
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
# What the tests read beside themselves. The package is not among it: that is the point.
COMPANIONS = [
    "tests",
    "examples",
    "benches",
    "workshop",
    "Makefile",
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]


def make() -> None:
    """Builds with what is locked and installed here, so that the result does not depend on the day."""
    code = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    run([sys.executable, "-c", code])
    sdist = str(next(DIST.glob("*.tar.gz")))
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    run([*PIP, "wheel", *offline, "--wheel-dir", "dist", sdist], LDFLAGS="-Wl,--strip-debug")
    for file in sorted(DIST.iterdir()):
        print(f"{file.relative_to(ROOT)}  {file.stat().st_size:,} bytes")


def run(command: list[str], **environment: str) -> None:
    """Quietly, unless it fails."""
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, errors="replace"
    )
    if ran.returncode:
        raise SystemExit(ran.stdout + ran.stderr + "\nthe package could not be built")


def try_out(arguments: list[str]) -> int:
    """pytest's exit code."""
    wheel = str(next(DIST.glob("*.whl")))
    subprocess.run([*PIP, "install", "--force-reinstall", "--no-deps", "--no-index", wheel], check=True)
    with tempfile.TemporaryDirectory(prefix="mcpfast-wheel-") as folder:
        for name in COMPANIONS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source,
                    Path(folder, name),
                    ignore=shutil.ignore_patterns("__pycache__", "_build", "results"),
                )
            elif source.exists():
                shutil.copy(source, folder)
        environment = {**os.environ, "MCPFAST_TREE": sysconfig.get_path("platlib"), "PYTHONSAFEPATH": "1"}
        pytest = Path(sys.executable).with_name("pytest")
        return subprocess.run([pytest, *arguments], cwd=folder, env=environment).returncode


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make()
    else:
        sys.exit(try_out(sys.argv[2:]))
