"""The peers, as their peer.toml tells of them: how each is built, and how it is started."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
OURS = "mcpfast"


class CannotBuild(Exception):
    """A peer that cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to start a peer: over which transport, and which revisions it then speaks."""

    transport: str
    eras: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of the same small set of tools, written with one SDK."""

    name: str
    title: str
    language: str
    notes: str
    needs: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    ways: tuple[Way, ...]
    path: str

    @property
    def build_folder(self) -> Path:
        return HERE / "_build" / self.name

    def way(self, transport: str, era: str) -> Way | None:
        return next((way for way in self.ways if way.transport == transport and era in way.eras), None)

    def build(self) -> None:
        """Does nothing when its sources are those of the last build. Raises CannotBuild."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        if missing:
            raise CannotBuild(f"{', '.join(missing)} is not here")
        stamp, now = self.build_folder / ".built-from", self._digest()
        if stamp.exists() and stamp.read_text() == now:
            return
        self.build_folder.mkdir(parents=True, exist_ok=True)
        for step in self.steps:
            done = subprocess.run(step, cwd=HERE / self.name, capture_output=True, text=True)
            if done.returncode != 0:
                raise CannotBuild(f"{' '.join(step)}: {(done.stderr or done.stdout).strip()[-800:]}")
        stamp.write_text(now)

    def _digest(self) -> str:
        files = sorted(path for path in (HERE / self.name).rglob("*") if path.is_file())
        found = hashlib.sha256(repr((sys.executable, self.steps)).encode())
        for path in files:
            if "__pycache__" not in path.parts:
                found.update(path.read_bytes())
        return found.hexdigest()


def peers() -> list[Peer]:
    """All of them, ours first."""
    found = [_read(file) for file in sorted(HERE.glob("*/peer.toml"))]
    return sorted(found, key=lambda peer: (peer.name != OURS, peer.language, peer.name))


def _read(file: Path) -> Peer:
    told = tomllib.loads(file.read_text())
    name = file.parent.name
    known = {
        "build": str(HERE / "_build" / name),
        "source": str(file.parent),
        "python": sys.executable,
        "project": str(PROJECT),
        "packages": sysconfig.get_path("purelib"),
    }

    def filled(words: list[str]) -> tuple[str, ...]:
        for place, value in known.items():
            words = [word.replace(f"{{{place}}}", value) for word in words]
        return tuple(words)

    environment = [f"{key}={value}" for key, value in told.get("environment", {}).items()]
    prefix = ("env", *environment) if environment else ()
    ways = [
        Way(one["transport"], tuple(one["eras"]), (*prefix, *filled(one["command"]))) for one in told["serve"]
    ]
    return Peer(
        name,
        told["title"],
        told["language"],
        told["notes"],
        tuple(told["needs"]),
        tuple(filled(step) for step in told["build"]),
        tuple(ways),
        told["path"],
    )


def with_port(way: Way, port: int) -> list[str]:
    return [word.replace("{port}", str(port)) for word in way.command]
