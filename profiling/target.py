"""What is profiled, and the small things that the instruments share."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.build import binary
from benches.load import Shape, serving

RESULTS = Path(__file__).resolve().with_name("results")
ROOT = RESULTS.parents[1]


@dataclass(frozen=True, slots=True)
class Target:
    """A server, the calls it gets, and how long they last."""

    command: Sequence[str]
    shape: Shape
    seconds: float


@contextmanager
def driven(target: Target) -> Iterator[int]:
    """The server's pid, while it serves a Unix socket and is driven without a pause."""
    with tempfile.TemporaryDirectory(prefix="mcpfast-profile-") as folder:
        address = f"unix://{folder}/server.sock"
        with serving(target.command, address) as pid:
            loadgen = [str(binary("loadgen")), *target.shape.options(), "--duration", "3600", address]
            driver = subprocess.Popen(loadgen, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                yield pid
            finally:
                driver.kill()
                driver.wait()


def tool(name: str) -> str:
    """The path of a program installed beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        sys.exit(
            f"{name} is not installed for {sys.executable}. Install: {sys.executable} -m pip install {name}"
        )
    return str(path)


def here(path: Path) -> str:
    """A path as it is written from the top of the repository."""
    return str(path.relative_to(ROOT))
