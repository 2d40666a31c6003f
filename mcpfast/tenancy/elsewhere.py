"""Work in Python that takes long, done in a process of its own.

In a thread it would hold the interpreter for 5 ms whenever the event loop wants it back, and a loop gives it up at each system
call: 10,000 tenants of TOML would make every call of 0.4 s a slow one. A forked child would inherit the loop. So it is a fresh
interpreter, which knows nothing but what it is given.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError

DEADLINE_S = 120.0
NICE = 10
REFUSED = 3  # the exit code of a child that tells on stderr what the function raised


async def call(function: Callable[[bytes], bytes], argument: bytes) -> bytes:
    """`function(argument)`; the function stands at the top of its module. Raises what it raises of ConfigurationError, and
    ConfigurationError where the process cannot be started or fails."""
    try:
        done = await asyncio.to_thread(_run, function, argument)
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"a process of our own failed: {error}") from None
    if done.returncode == 0:
        return done.stdout
    if done.returncode == REFUSED:
        module, name, text = msgspec.msgpack.decode(done.stderr, type=tuple[str, str, str])
        raise getattr(import_module(module), name)(text)
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    raise ConfigurationError(f"a process of our own failed with exit code {done.returncode}: {last}")


def _run(function: Callable[[bytes], bytes], argument: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", __name__, function.__module__, function.__name__]
    path = os.pathsep.join(place for place in sys.path if place)
    return subprocess.run(
        command,
        check=False,
        input=argument,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=DEADLINE_S,
    )


def main(module: str, name: str) -> int:
    """The child: one call, from stdin to stdout. Where processors are few, whoever serves comes first."""
    os.nice(NICE)
    try:
        sys.stdout.buffer.write(getattr(import_module(module), name)(sys.stdin.buffer.read()))
    except ConfigurationError as error:
        kind = type(error)
        sys.stderr.buffer.write(msgspec.msgpack.encode((kind.__module__, kind.__name__, str(error))))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
