"""history/history.jsonl: what every landed change did to the figures, one line each.

`make bench ARGS=--record` adds the line of the commit that is checked out, or writes it anew: a commit has one line.
`make bench-report` draws them all.
"""

import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benches.counting import PYTHON_VERSION
from benches.gate import read_record
from benches.table import Row, commit
from mcpfast import __version__
from mcpfast.bench.result import machine

FILE = Path(__file__).resolve().with_name("history") / "history.jsonl"
HOW = "make bench ARGS=--record"
GOOD = ("ok", "aim")


class Unreadable(Exception):
    """A line is not as --record writes it; the text names file and line."""


class Entry(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One line. What could not be measured stands in `verdicts` alone."""

    commit: str  # twelve digits, and a "+" where the tree had more in it than that
    date: str  # of the measurement
    subject: str
    mcpfast: str
    python: str
    machine: dict[str, str | int]
    busy: float  # the share of the machine that others took
    figures: dict[str, float]
    verdicts: dict[str, str]  # of figures that neither hold their bar nor reach their aim
    instructions: dict[str, int]  # a call, from instructions.toml: of this Python

    @property
    def landed(self) -> bool:
        return not self.commit.endswith("+")

    @property
    def label(self) -> str:
        """The commit as git abbreviates it."""
        return self.commit[:7] + "+" * (not self.landed)


def read(file: Path) -> list[Entry]:
    """All lines, oldest first; none where there is no file.

    Raises:
        Unreadable: a line was edited or merged by hand, and badly.
    """
    lines = file.read_text().splitlines() if file.exists() else []
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.DecodeError as why:
            raise Unreadable(f"{file}, line {number}: {why}. Mend the line, or take it out.") from why
        if entry.commit in entries:
            raise Unreadable(f"{file}, line {number}: {entry.commit} has a line above. Take one of them out.")
        entries[entry.commit] = entry
    return list(entries.values())


def add(entry: Entry, file: Path) -> None:
    """Writes the entry's line: where the one of the same commit stood, else at the end."""
    entries = {known.commit: known for known in read(file)} | {entry.commit: entry}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in entries.values()))


def last_landed(entries: Sequence[Entry]) -> Entry | None:
    """The newest line of a commit: a tree that had more in it may never have become one."""
    return next((entry for entry in reversed(entries) if entry.landed), None)


def entry_of(rows: Iterable[Row], busy: float) -> Entry:
    """The line of a full run that has just ended."""
    rows, ran_on = list(rows), machine()
    counts = read_record().get(PYTHON_VERSION, {})
    return Entry(
        commit=commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        subject=subject(commit()),
        mcpfast=__version__,
        python=ran_on.pop("python"),
        machine=ran_on,
        busy=busy,
        figures={row.budget.name: rounded(row.measured.value) for row in rows if row.measured},
        verdicts={row.budget.name: row.verdict for row in rows if row.verdict not in GOOD},
        instructions={name: count for name, count in counts.items() if isinstance(count, int)},
    )


def rounded(value: float) -> float:
    """Five digits, which is more than two runs have in common."""
    return float(f"{value:.5g}")


def subject(of: str) -> str:
    git = ["git", "-C", str(FILE.parents[1]), "show", "-s", "--format=%s", of.rstrip("+")]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
