"""Cython's annotate report: how much Python is left on each line of the compiled rooms."""

import html
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = 15
LINE = re.compile(r'<pre class="cython line score-(\d+)"[^>]*>(.*?)</pre>')
TAG = re.compile(r"<[^>]+>")


def annotate(folder: Path) -> None:
    """Writes a page for each room into `folder`, and prints the yellowest lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for room in sorted((ROOT / "mcpfast").glob("*.pyx")):
        c_file = folder / f"{room.stem}.c"
        cython = [
            sys.executable,
            "-m",
            "cython",
            "-3",
            "--annotate",
            "-I",
            str(ROOT),
            str(room),
            "-o",
            str(c_file),
        ]
        subprocess.run(cython, check=True, cwd=ROOT)
        c_file.unlink()
        page = folder / f"{room.stem}.html"
        scored = scores(page.read_text())
        white = sum(score == 0 for score, _ in scored)
        print(f"{room.name}: {white} of {len(scored)} lines with code touch no Python; the yellowest:")
        for score, text in sorted(scored, reverse=True)[:TOP]:
            print(f"  {score:4}  {text}")
        print(page)


def scores(page: str) -> list[tuple[int, str]]:
    """Of each line that became C: how many Python calls are in it (weighted by Cython), and its text."""
    lines = [(int(score), html.unescape(TAG.sub("", text))) for score, text in LINE.findall(page)]
    return [(score, text) for score, text in lines if text.startswith("+")]
