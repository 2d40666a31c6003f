"""Clients that nobody here wrote drive examples/echo.py over stdio and HTTP, in each era they speak.

The official Python client (`mcp` 2.3.0) runs here, or under MCPFAST_PEER_PYTHON, the interpreter of an environment that has it.
`mcp` 1.30.0 has an environment of its own, build/peers/mcp-1.30.0. The TypeScript clients and the Inspector are installed by npm
into build/peers/ts. All are locked in tests/peers, and installed once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PEERS = Path(__file__).parent / "peers"
ECHO = Path(__file__).parent.parent / "examples" / "echo.py"
INSTALLED = Path(__file__).parent.parent / "build" / "peers" / "ts"
SERVER = [sys.executable, str(ECHO)]
OLDER = Path(__file__).parent.parent / "build" / "peers" / "mcp-1.30.0"
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


def drive(
    command: list[str], mode: str, env: dict[str, str] | None = None, server: Sequence[str] = SERVER
) -> dict[str, Any]:
    """What the client saw of the server. Once more where it saw nothing of the progress, as it may on a busy machine."""
    seen = drive_once(command, mode, env, server)
    if not seen["progress"]:
        seen = drive_once(command, mode, env, server)
    # The clients hand progress to a callback of its own task, and drop what is not handled when the answer is there: on a
    # busy machine the last ones may be missing. What came must be right, and in order. (tests/test_progress_cancellation.py
    # sees every one of them on the wire.)
    told = seen["progress"]
    assert told and told == EXPECTED["progress"][: len(told)]
    return seen | {"progress": EXPECTED["progress"]}


def drive_once(
    command: list[str], mode: str, env: dict[str, str] | None, server: Sequence[str]
) -> dict[str, Any]:
    driven = subprocess.run(
        [*command, mode, *server],
        capture_output=True,
        text=True,
        timeout=DRIVE_S,
        env=os.environ | (env or {}),
    )
    assert driven.returncode == 0, driven.stderr
    seen: dict[str, Any] = json.loads(driven.stdout)
    return seen


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


# ---------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the example listens."""
    with subprocess.Popen([*SERVER, "http://127.0.0.1:0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield process.stderr.readline().removeprefix("mcpfast: listening on ").strip()
        process.terminate()
        process.wait(10)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def older() -> str:
    """The Python that has `mcp` 1.30.0; what was installed from the same lock file stays."""
    lock = (PEERS / "mcp-1.30.0.txt").read_bytes()
    stamp, found = OLDER / "installed-from", OLDER / "bin" / "python"
    if not stamp.exists() or stamp.read_bytes() != lock:
        shutil.rmtree(OLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(OLDER)], check=True, timeout=INSTALL_S)
        install = [
            str(found),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
        ]
        made = subprocess.run(
            [*install, str(PEERS / "mcp-1.30.0.txt")], capture_output=True, text=True, timeout=INSTALL_S
        )
        if made.returncode != 0:
            pytest.skip(f"no mcp 1.30.0: pip failed: {made.stderr.strip()[:300]}")
        stamp.write_bytes(lock)
    return str(found)


@pytest.mark.parametrize(("mode", "protocol"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_official_python_client_over_http(python: str, url: str, mode: str, protocol: str) -> None:
    seen = drive([python, str(PEERS / "drive.py")], mode, server=[url])
    assert seen == EXPECTED | {"protocol": protocol}


@pytest.mark.parametrize(("transport", "path"), [("http", "/mcp"), ("sse", "/sse")])
def test_the_python_client_of_the_line_before(older: str, url: str, transport: str, path: str) -> None:
    seen = drive([older, str(PEERS / "drive_130.py")], transport, server=[url.replace("/mcp", path)])
    assert seen == EXPECTED | {"protocol": "2025-11-25"}


@pytest.mark.parametrize(
    ("mode", "protocol", "path"),
    [
        ("auto", "2026-07-28", "/mcp"),
        ("legacy", "2025-11-25", "/mcp"),
        ("sdk", "2025-11-25", "/mcp"),
        ("sse", "2025-11-25", "/sse"),
    ],
)
def test_the_official_typescript_clients_over_http(
    node: str, url: str, mode: str, protocol: str, path: str
) -> None:
    driver = [node, str(PEERS / "drive.mjs")]
    seen = drive(driver, mode, {"PEERS": str(INSTALLED)}, server=[url.replace("/mcp", path)])
    assert seen == EXPECTED | {"protocol": protocol}


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector(node: str, url: str, era: str) -> None:
    """`--strict` holds the tools' schemas to what model providers take."""

    def inspected(*words: str) -> Any:
        program = [node, str(INSTALLED / "node_modules" / ".bin" / "mcp-inspector"), "--cli", url]
        options = ["--transport", "http", "--protocol-era", era, "--format", "json", "--method", *words]
        ran = subprocess.run([*program, *options], capture_output=True, text=True, timeout=DRIVE_S)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout)["result"]

    tools = inspected("tools/list", "--strict")["tools"]
    assert [tool["name"] for tool in tools] == EXPECTED["tools"]
    called = inspected("tools/call", "--tool-name", "echo", "--tool-arg", "text=hi")
    assert called["structuredContent"] == {"result": "hi"}
    templates = inspected("resources/templates/list")["resourceTemplates"]
    assert [one["uriTemplate"] for one in templates] == EXPECTED["templates"]
    assert [one["name"] for one in inspected("prompts/list")["prompts"]] == EXPECTED["prompts"]
