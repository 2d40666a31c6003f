"""Clients that nobody here wrote drive examples/echo.py over stdio, in each era they speak.

The official Python client (`mcp` 2.3.0) runs here, or under MCPFAST_PEER_PYTHON, the interpreter of an environment that has it.
The TypeScript client is installed by npm into build/peers/ts, from the lock file in tests/peers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PEERS = Path(__file__).parent / "peers"
ECHO = Path(__file__).parent.parent / "examples" / "echo.py"
INSTALLED = Path(__file__).parent.parent / "build" / "peers" / "ts"
SERVER = [sys.executable, str(ECHO)]
INSTALL_S = 120
DRIVE_S = 60

EXPECTED: dict[str, Any] = {
    "server": "echo",
    "instructions": "Echoes, counts and asks.",
    "tools": ["echo", "count", "order_coffee", "blocking_sum"],
    "templates": ["echo://{word}"],
    "prompts": ["review"],
    "echoes": [[{"result": str(i)}, str(i)] for i in range(50)],
    "refused": [True, True],
    "unknown": -32602,
    "counted": {"result": 3},
    "progress": [[i, 3, f"{i} of 3"] for i in (1, 2, 3)],
    "summed": {"result": 4},
    "ordered": {"result": "2 cups, with milk"},
    "asked": ["How much coffee?"],
    "read": [{"uri": "echo://moin", "mimeType": "text/plain", "text": "moin"}],
    "prompt": [{"role": "user", "content": {"type": "text", "text": "Please review this code:\n\nx = 1"}}],
}


def drive(command: list[str], mode: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What the client saw of the server."""
    driven = subprocess.run(
        [*command, mode, *SERVER],
        capture_output=True,
        text=True,
        timeout=DRIVE_S,
        env=os.environ | (env or {}),
    )
    assert driven.returncode == 0, driven.stderr
    seen: dict[str, Any] = json.loads(driven.stdout)
    # The clients hand progress to a callback of its own task, and drop what is not handled when the answer is there: on a
    # busy machine the last ones may be missing. What came must be right, and in order. (tests/test_progress_cancellation.py
    # sees every one of them on the wire.)
    told = seen["progress"]
    assert told and told == EXPECTED["progress"][: len(told)]
    return seen | {"progress": EXPECTED["progress"]}


@pytest.fixture(scope="module")
def python() -> str:
    found = os.environ.get("MCPFAST_PEER_PYTHON", sys.executable if importlib.util.find_spec("mcp") else "")
    if not found:
        pytest.skip("no official Python client: set MCPFAST_PEER_PYTHON to a Python that has mcp 2.3.0")
    return found


@pytest.fixture(scope="module")
def node() -> str:
    """node, with the TypeScript client installed; what was installed from the same lock file stays."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if not found or not npm:
        pytest.skip("no official TypeScript client: node and npm are not on this machine")
    lock = (PEERS / "package-lock.json").read_bytes()
    stamp = INSTALLED / "installed-from"
    if not stamp.exists() or stamp.read_bytes() != lock:
        INSTALLED.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PEERS / name, INSTALLED)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            made = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            pytest.skip("no official TypeScript client: npm did not end in time")
        if made.returncode != 0:
            pytest.skip(f"no official TypeScript client: npm failed: {made.stderr.strip()[:300]}")
        stamp.write_bytes(lock)
    return found


@pytest.mark.parametrize(("mode", "protocol"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_official_python_client(python: str, mode: str, protocol: str) -> None:
    assert drive([python, str(PEERS / "drive.py")], mode) == EXPECTED | {"protocol": protocol}


def test_the_official_python_client_that_asks_nothing_first(python: str) -> None:
    """Pinned to a revision it neither initializes nor discovers: it knows no server, and everything works."""
    expected = EXPECTED | {"protocol": "2026-07-28", "server": None, "instructions": None}
    assert drive([python, str(PEERS / "drive.py")], "2026-07-28") == expected


@pytest.mark.parametrize(("mode", "protocol"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_official_typescript_client(node: str, mode: str, protocol: str) -> None:
    seen = drive([node, str(PEERS / "drive.mjs")], mode, {"PEERS": str(INSTALLED)})
    assert seen == EXPECTED | {"protocol": protocol}
