"""Instructions a call, counted by callgrind: the same to the last digits wherever times swing threefold.

The server runs under valgrind for a few calls and for many; the difference, divided by the calls
between, is what a call costs. Start and end cancel out. The load generator sends in lockstep, so that each run
reads and writes the same bytes in the same pieces.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from benches.load import RunFailed, Shape, drive, over, serving
from benches.nginx import free_address

FEW, MANY = 1_280, 7_680  # both hold whole windows of 64
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def have_valgrind() -> bool:
    return which("valgrind") is not None


@contextmanager
def repeatable() -> Iterator[None]:
    """Hashes of strings, and with them the layout of every dict, are the same in each run."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def counted(shape: Shape, command: Sequence[str], calls: int, out: Path, scheme: str) -> int:
    """All instructions of a server's life with `calls` calls; callgrind's profile stays in `out`."""
    valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--vgdb=no",
        f"--callgrind-out-file={out}",
        f"--log-file={out}.log",
    ]
    work(shape, [*valgrind, *command], calls, scheme)
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
    if found is None:
        raise RunFailed(f"callgrind wrote no total: {Path(f'{out}.log').read_text()}")
    return int(found[1])


def work(shape: Shape, command: Sequence[str], calls: int, scheme: str) -> None:
    """Lets a server live for `calls` calls, over stdio or at an address that is its last argument."""
    if scheme == "stdio":
        drive(shape, command, calls=calls, timeout=300)
        return
    address = free_address()
    with serving(command, address) as pid:
        drive(shape, over(scheme, address), calls=calls, pid=pid, timeout=300)


def instructions_a_call(shape: Shape, command: Sequence[str], scheme: str = "stdio") -> float:
    """What one call costs the server, in instructions of user space, over "stdio", "http" or "ws".

    Raises:
        RunFailed: the server does not run, under valgrind or at all.
    """
    with repeatable(), tempfile.TemporaryDirectory() as folder:
        work(shape, command, FEW, scheme)  # writes .pyc files, so that neither run below does
        # twice: what disturbs a run makes it longer, and a longer one here would hide what a call costs
        few = min(counted(shape, command, FEW, Path(folder) / "few", scheme) for _ in range(2))
        many = counted(shape, command, MANY, Path(folder) / "many", scheme)
    return (many - few) / (MANY - FEW)
