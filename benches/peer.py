"""A Python that has the peer of our figures, the official SDK `mcp` 2.3.0."""

import json
import os
import subprocess
import sys
from pathlib import Path

VERSION = "2.3.0"
PACKAGES = [f"mcp=={VERSION}", "uvicorn[standard]"]
HERE = Path(__file__).resolve().parent
SERVER = HERE / "servers" / "peer_mcp.py"


def has_peer(python: str) -> bool:
    """Is this very version of the SDK installed for `python`, and what it needs to be quick over HTTP?"""
    question = "import importlib.metadata as m, json, uvicorn, uvloop, httptools; print(json.dumps(m.version('mcp')))"
    done = subprocess.run([python, "-c", question], capture_output=True, text=True)
    return done.returncode == 0 and json.loads(done.stdout) == VERSION


def peer_python() -> str:
    """MCPFAST_PEER_PYTHON, or this Python if it has the SDK, or one in benches/.venv-mcp, made when needed."""
    if chosen := os.environ.get("MCPFAST_PEER_PYTHON"):
        if not has_peer(chosen):
            sys.exit(
                f"MCPFAST_PEER_PYTHON={chosen} has no mcp {VERSION} with uvicorn, uvloop and httptools. "
                f"Install: {chosen} -m pip install {' '.join(PACKAGES)}"
            )
        return chosen
    if has_peer(sys.executable):
        return sys.executable
    python = HERE / ".venv-mcp" / "bin" / "python"
    if not (python.exists() and has_peer(str(python))):
        print(f"==> {python.parent.parent}: a virtual environment with mcp {VERSION}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(python.parent.parent)], check=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            *PACKAGES,
        ]
        subprocess.run(install, check=True)
    return str(python)


def peer_command() -> list[str]:
    """The peer's echo server: over stdio, or over HTTP at an address that is added."""
    return [peer_python(), str(SERVER)]
