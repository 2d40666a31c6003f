"""A server in a process of its own, over HTTP, as `mcpfast run` starts it: for those who look at live ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def live_server(file: str) -> Iterator[tuple[int, str]]:
    """Its process, and its address. Nobody who looks may end it."""
    command = [sys.executable, "-m", "mcpfast", "run", file, "--listen", "http://127.0.0.1:0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = next(line for line in server.stderr if "listening on" in line).split()[-1]
    try:
        yield server.pid, address
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(30)
        server.stderr.close()
