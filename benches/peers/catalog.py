"""The peers, as their peer.toml tells of them: how each is built, and how it is started. README.md beside this says more."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
OURS = "mcpfast"
VERSION_OF = {"go": ["go", "version"]}  # others say it when asked for --version


class CannotBuild(Exception):
    """A peer that cannot be had here; the text says why, and what to install."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to start a peer: over which transport, and which revisions it then speaks."""

    transport: str
    eras: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of the same small set of tools, written with one SDK; the words are explained in README.md."""

    name: str  # its folder
    title: str
    version: str
    language: str
    notes: str
    documentation: str
    needs: dict[str, str]  # programs, and where they are had from
    shares: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    ways: tuple[Way, ...]
    path: str

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.title} {self.version}".strip()

    @property
    def build_folder(self) -> Path:
        return HERE / "_build" / self.name

    @property
    def log(self) -> Path:
        """Where its stderr goes while it is measured."""
        return self.build_folder / "stderr.log"

    def way(self, transport: str, era: str) -> Way | None:
        return next((way for way in self.ways if way.transport == transport and era in way.eras), None)

    @property
    def lacks(self) -> str:
        """The programs it needs that are not here, with where to get them; "" when all are."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        return "; ".join(f"{program} is not here. Get it: {self.needs[program]}" for program in missing)

    @property
    def is_built(self) -> bool:
        return self._stamp.exists() and self._stamp.read_text() == self._digest()

    def build(self) -> None:
        """Does nothing when its sources are those of the last build. Raises CannotBuild."""
        if self.lacks:
            raise CannotBuild(self.lacks)
        if self.is_built:
            return
        self.build_folder.mkdir(parents=True, exist_ok=True)
        for step in self.steps:
            done = subprocess.run(step, cwd=HERE / self.name, capture_output=True, text=True)
            if done.returncode != 0:
                raise CannotBuild(f"{' '.join(step)}: {(done.stderr or done.stdout).strip()[-800:]}")
        self._stamp.write_text(self._digest())

    @property
    def _stamp(self) -> Path:
        return self.build_folder / ".built-from"

    def _digest(self) -> str:
        """Of all that a build is made from. What only tells of the peer (peer.toml) is not; its steps are."""
        folder = HERE / self.name
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        files = [path for path in files if path.name != "peer.toml"] + [folder / name for name in self.shares]
        found = hashlib.sha256(repr((sys.executable, self.steps)).encode())
        for path in sorted(files):
            found.update(path.read_bytes())
        return found.hexdigest()


def peers() -> list[Peer]:
    """All of them, ours first."""
    found = [_read(file) for file in sorted(HERE.glob("*/peer.toml"))]
    return sorted(found, key=lambda peer: (peer.name != OURS, peer.language, peer.name))


def _read(file: Path) -> Peer:
    told = tomllib.loads(file.read_text())
    filled = _filling(file.parent)
    environment = [f"{key}={value}" for key, value in told.get("environment", {}).items()]
    prefix = ("env", *environment) if environment else ()
    return Peer(
        name=file.parent.name,
        title=told["title"],
        version=told.get("version", ""),
        language=told["language"],
        notes=told["notes"],
        documentation=told["documentation"],
        needs=told["needs"],
        shares=tuple(told.get("shares", ())),
        steps=tuple(filled(step) for step in told["build"]),
        ways=tuple(
            Way(one["transport"], tuple(one["eras"]), (*prefix, *filled(one["command"])))
            for one in told["serve"]
        ),
        path=told["path"],
    )


def _filling(folder: Path) -> Callable[[list[str]], tuple[str, ...]]:
    """Puts the places of this machine into the words of a command; {port} is known later."""
    known = {
        "{build}": str(HERE / "_build" / folder.name),
        "{source}": str(folder),
        "{python}": sys.executable,
        "{project}": str(PROJECT),
        "{packages}": sysconfig.get_path("purelib"),
    }

    def filled(words: list[str]) -> tuple[str, ...]:
        for place, value in known.items():
            words = [word.replace(place, value) for word in words]
        return tuple(words)

    return filled


def toolchains(found: list[Peer]) -> list[str]:
    """What the programs that the peers are built with say of their versions."""
    programs = dict.fromkeys(program for peer in found for program in peer.needs)
    commands = [VERSION_OF.get(program, [program, "--version"]) for program in programs]
    said = [subprocess.run(command, capture_output=True, text=True).stdout.strip() for command in commands]
    lines = [(program, text.partition("\n")[0]) for program, text in zip(programs, said, strict=True)]
    return [text if text.startswith(program) else f"{program} {text}" for program, text in lines if text]
