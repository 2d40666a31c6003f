"""`make bench-gate`, shown at work: an unchanged tree passes twice with the same counts, an extra copy a call does not."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
if "MCPFAST_TREE" in os.environ:
    pytest.skip("the gate counts release builds", allow_module_level=True)
if shutil.which("valgrind") is None:
    pytest.skip("needs valgrind: apt-get install -y valgrind", allow_module_level=True)

CASE = "stdio64_legacy"
HOT = "        if entry.context_at >= 0 or self.engine.observer"
COPY = "        copied = PyBytes_FromStringAndSize(self.line, bytes_in)\n"
RELEASE = f"build/release-{sysconfig.get_config_var('SOABI')}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the work tree with what was built in it, so that a change compiles alone."""
    copy = tmp_path_factory.mktemp("gate") / "tree"
    for folder in ("mcpfast", "examples", "benches", RELEASE):
        if (ROOT / folder).is_dir():
            ignored = shutil.ignore_patterns("_build", "__pycache__", "results", ".venv-mcp")
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy2(ROOT / "setup.py", copy)
    return copy


def python(tree: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "MCPFAST_BUILD": "release"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def gate(tree: Path, *arguments: str) -> tuple[int, int, str]:
    """Exit code, the count that was told, and the line it was told in."""
    done = python(tree, "benches/gate.py", "--counts", "--only", CASE, *arguments, timeout=300)
    found = re.search(rf"^{CASE} +([\d,]+).*$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    return done.returncode, int(found[1].replace(",", "")), found[0]


def test_an_unchanged_tree_passes_twice_and_a_planted_copy_turns_the_gate_red(tree: Path) -> None:
    _, first, _ = gate(tree, "--update")
    code, second, line = gate(tree)
    assert (code, line.split()[-1]) == (0, "ok")
    assert second == pytest.approx(first, rel=0.005)

    spine = tree / "mcpfast" / "_spine.pyx"
    source = spine.read_text()
    assert source.count(HOT) == 1
    spine.write_text(source.replace(HOT, COPY + HOT))
    built = python(tree, "setup.py", "-q", "build_ext", "--inplace", timeout=600)
    assert built.returncode == 0, built.stderr[-2_000:]
    code, slower, line = gate(tree)
    assert (code, line.split()[-1]) == (1, "ROSE")
    assert 1.03 < slower / first < 1.08, "the planted copy is meant to cost about 5 %"
