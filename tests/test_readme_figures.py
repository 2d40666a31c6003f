"""The figures in README.md are those that `make peers` and `make bench` recorded (benches/readme.py writes them)."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

from benches import readme
from benches.budgets import budgets
from benches.load import LEGACY, MODERN
from benches.peers.catalog import OURS
from benches.peers.results import Looks
from tests.test_peers import LABELS, look, measurement

TEXT = "# A project\n\n<!-- figures -->\n\nold figures\n\n<!-- /figures -->\n\nmore\n"
WHOLE = {"subject": "A change", "mcpfast": "0.1.0", "busy": 0.0, "verdicts": {}, "instructions": {}}
LINES: list[dict[str, Any]] = [
    {
        **WHOLE,
        "commit": "0" * 12,
        "date": "2026-11-01T10:00:00+00:00",
        "python": "3.11.7",
        "machine": {},
        "figures": {"rss": 99.0},
    },
    {
        **WHOLE,
        "commit": "123456789abc",
        "date": "2026-11-29T10:00:00+00:00",
        "python": "3.11.7",
        "machine": {"cpu": "a processor", "processors": 2, "system": "Linux"},
        "figures": {"stdio64_legacy": 0.61, "instructions": 2778.0, "rss": 40.0, "no_longer_measured": 1.0},
    },
]


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, Path]:
    """results.json and history.jsonl of a canned measurement."""
    rows: dict[str, dict[str, Looks]] = {
        f"stdio64_{LEGACY}": {OURS: [look(1.1e6, mb=31)], "rmcp": [look(13_000, mb=5)], "mcp": "it ended"},
        f"stdio64_{MODERN}": {OURS: [look(1.3e6, mb=30)], "rmcp": [look(12_000, mb=6)]},
        f"http32_{LEGACY}": {OURS: [look(1000)], "rmcp": [look(2000)]},
        "start": {OURS: [look(1, ms=53)], "rmcp": [look(1, ms=4)]},
    }
    results = measurement(**rows)
    raw, history = tmp_path / "results.json", tmp_path / "history.jsonl"
    raw.write_text(json.dumps(asdict(results)))
    history.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return raw, history


def test_the_better_era_of_each_peer(recorded: tuple[Path, Path]) -> None:
    text = readme.renewed(TEXT, *recorded)
    assert "| **mcpfast** | Python | 1.30M/s |  | 1,000/s | 30 MB | 53 ms |" in text
    assert f"| {LABELS['rmcp']} | Rust | 13,000/s |  | 2,000/s | 5.0 MB | 4.0 ms |" in text
    assert text.index("| **mcpfast**") < text.index(f"| {LABELS['rmcp']} | Rust")
    assert f"| {LABELS['mcp']} | Python" not in text, "nothing of it was measured"


def test_promises_and_what_misses_them(recorded: tuple[Path, Path]) -> None:
    text = readme.renewed(TEXT, *recorded)
    assert "| HTTP echo, 32 connections: ours / best peer, at least | 1.8 | 0.50, **missed** |" in text
    assert (
        f"| stdio echo, 64 in flight: ours / best peer, at least | 8 | 84.62 | {LABELS['rmcp']}; without "
        in text
    )
    assert "| cold start: ours / best Python peer, at most | 0.3 | not measured | nobody; without " in text


def test_a_handful_of_the_last_bench(recorded: tuple[Path, Path]) -> None:
    text = readme.renewed(TEXT, *recorded)
    assert (
        "`make bench`, 2026-11-29, commit 123456789abc, 2 processors of a processor, Linux, Python 3.11.7."
        in text
    )
    assert f"| {budgets()['stdio64_legacy'].says} | at least 0.40x | 0.61x |" in text
    assert f"| {budgets()['rss'].says} | at most 32 MB | 40 MB, **missed** |" in text
    assert "99" not in text
    assert "at most 32 MB" not in readme.renewed(TEXT, recorded[0], recorded[1].with_name("absent"))


def test_all_else_stays_and_twice_is_once(recorded: tuple[Path, Path]) -> None:
    text = readme.renewed(TEXT, *recorded)
    assert text.startswith("# A project\n\n<!-- figures -->\n\nThe same")
    assert text.endswith("|\n\n<!-- /figures -->\n\nmore\n")
    assert "old figures" not in text
    assert readme.renewed(text, *recorded) == text


def test_what_is_lacking_is_said(recorded: tuple[Path, Path]) -> None:
    with pytest.raises(readme.Unwritable, match="make peers writes it"):
        readme.renewed(TEXT, recorded[0].with_name("absent"), recorded[1])
    with pytest.raises(readme.Unwritable, match="has not both marks"):
        readme.renewed(TEXT.replace("<!-- /figures -->", ""), *recorded)


def test_the_command(
    recorded: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recorded[0].with_name("README.md")
    file.write_text(TEXT)
    monkeypatch.setattr(readme, "README", file)
    monkeypatch.setattr(readme, "RAW", recorded[0])
    monkeypatch.setattr(readme.history, "FILE", recorded[1])
    assert readme.main(["--check"]) == 1
    assert "benches/readme.py" in capsys.readouterr().err
    assert file.read_text() == TEXT, "a check changes nothing"
    assert readme.main([]) == 0
    assert readme.main(["--check"]) == 0


def test_all_its_names_are_figures() -> None:
    assert set(readme.BENCH) <= set(budgets())


def test_readme_has_its_marks() -> None:
    text = readme.README.read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1


def test_readme_tells_what_was_recorded() -> None:
    assert readme.main(["--check"]) == 0, "write them: .venv/bin/python benches/readme.py"
