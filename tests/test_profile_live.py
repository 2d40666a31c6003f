"""`mcpfast profile loop` and `mcpfast profile gc`: what is planted in a server is what they name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mcpfast.bench.report_plot import Level
from mcpfast.cli import main
from mcpfast.live.messages import Frame, Pause, Seen, Stall, Taken, Watching
from mcpfast.profile import ProfileFailed, gc, loop
from mcpfast.profile.inside import milliseconds
from mcpfast.profile.load import Load
from mcpfast.profile.progress import Silent
from mcpfast.profile.session import profile
from mcpfast.profile.timeline import MARKS_MAX, Mark, Series, draw
from tests.live_server import live_server

pytest.importorskip("mcpfast.bench._engine", reason="the load engine runs on Linux only")
SVG = "{http://www.w3.org/2000/svg}"

SERVER = """
import gc, time
from mcpfast import MCPServer

server = MCPServer("stalling")
calls = 0

def doze():
    time.sleep(0.1)

@server.tool
async def echo(text: str) -> str:
    global calls
    calls += 1
    if calls % 400 == 0:
        doze()
    return text

@server.tool
async def clutter(text: str = "") -> str:
    global calls
    calls += 1
    for _ in range(20):
        circle = []
        circle.append(circle)
    if calls % 100 == 0:
        tidy()
    return text

def tidy():
    gc.collect()

if __name__ == "__main__":
    server.run()
"""
CLUTTER = Load(tool="clutter", args='{"text": "letters"}')


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "stalling.py"
    path.write_text(SERVER)
    return str(path)


@pytest.fixture
def live(file: str) -> Iterator[tuple[int, str]]:
    with live_server(file) as server:
        yield server


def titles(picture: Path) -> list[str]:
    """What the mouse is told."""
    return [title.text or "" for title in ET.parse(picture).getroot().iter(f"{SVG}title")]


# ------------------------------------------------------------------------------------------------ with real servers


@pytest.mark.plain_build
def test_the_word_loop(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is started and called: the planted stall is the first row, and all its files are there."""
    out, told = tmp_path / "out", tmp_path / "stalls.json"
    words = [
        "profile",
        "loop",
        file,
        "--duration",
        "2",
        "--warmup",
        "0.2",
        "-o",
        str(out),
        "--json",
        str(told),
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "doze (stalling.py:9), tool echo" in said and "How to read them (loop)" in said
    assert "stalls of 20 ms or more in" in said and "no errors" in said
    found = json.loads(told.read_text())
    worst = found["places"][0]
    assert worst["where"] == "doze (stalling.py:9), tool echo" and worst["stalls"] >= 3
    assert 0.08 <= worst["longest_s"] <= 0.2 and worst["cpu_s"] < 0.3 * worst["total_s"]
    planted = sorted(stall["duration_s"] for stall in found["each"] if stall["handler"] == "tool echo")
    assert 0.08 <= planted[len(planted) // 2] <= 0.12
    page = (out / "index.html").read_text()
    assert 'data="lag.svg"' in page and 'data="flamegraph.svg"' in page and "doze (stalling.py:9)" in page
    assert any(title.startswith("tool echo\n") for title in titles(out / "flamegraph.svg"))
    assert any("ms, doze (stalling.py:9), tool echo" in title for title in titles(out / "lag.svg"))
    assert "tool echo;echo (stalling.py:16);doze (stalling.py:9) " in (out / "stacks.txt").read_text()


@pytest.mark.plain_build
def test_a_server_over_stdio(file: str, tmp_path: Path) -> None:
    report = profile(
        "loop", command=[sys.executable, file], seconds=1, warmup=0.2, folder=tmp_path, progress=Silent()
    )
    assert report.rows[0][-1] == "doze (stalling.py:9), tool echo"


@pytest.mark.plain_build
def test_a_live_server_found_by_its_address(live: tuple[int, str], tmp_path: Path) -> None:
    report = profile(
        "gc", address=live[1], load=CLUTTER, seconds=1, warmup=0.2, folder=tmp_path, progress=Silent()
    )
    assert f"process {live[0]}" in report.facts[0]
    assert "tidy (stalling.py:31)" in [row[-1] for row in report.rows]


def test_a_live_server_that_stalls_nobody(live: tuple[int, str], tmp_path: Path) -> None:
    report = profile("loop", pid=live[0], seconds=0.5, threshold_s=2, folder=tmp_path, progress=Silent())
    assert "called by nobody but its own clients" in report.facts
    assert any(fact.startswith("no stall of 2000 ms or more in 0.") for fact in report.facts)
    assert report.rows == [] and report.picture is None and "What stalled" not in report.text()
    assert (tmp_path / "lag.svg").exists() and not (tmp_path / "flamegraph.svg").exists()


@pytest.mark.plain_build
def test_the_word_gc(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["profile", "gc", file, "--tool", "clutter", "--duration", "1.5", "--warmup", "0.2"]
    assert main([*words, "-o", str(out), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    young, _, old = found["generations"]
    assert old["pauses"] >= 3 and young["pauses"] > 3
    assert found["pauses"] == sum(one["pauses"] for one in found["generations"])
    assert 10 * found["calls"] < sum(
        one["collected"] for one in found["generations"]
    )  # twenty circles a call
    assert found["thresholds"] == [700, 10, 10] or sys.version_info >= (3, 12)
    assert found["frozen"] > 1_000 and found["enabled"]
    assert (
        len(found["longest"]) == 10 and found["longest"][0]["duration_s"] >= found["longest"][9]["duration_s"]
    )
    page = (out / "index.html").read_text()
    assert "tidy (stalling.py:31)" in page and "By generation" in page and "were in cycles" in page
    assert any("generation 2" in title for title in titles(out / "pauses.svg"))


def test_a_server_that_is_none_of_ours(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(ProfileFailed, match=r"\(\w+\) is no server that mcpfast runs"):
            profile("loop", pid=other.pid, seconds=1, folder=tmp_path / "out", progress=Silent())
        assert not (tmp_path / "out").exists()  # it is said before anything is begun
        assert other.poll() is None
        other.kill()


# ------------------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize("word", ["loop", "gc"])
def test_help_of_its_own(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["profile", word, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and said.startswith(f"usage: mcpfast profile {word}")
    assert "--json" in said and "--with" not in said and "--calls" not in said
    assert ("--threshold-ms" in said) == (word == "loop")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["loop"], 2, "mcpfast profile loop: which server?"),
        (["loop", "x.py", "--threshold-ms", "1"], 2, "--threshold-ms is at least 5"),
        (["gc", "nowhere.py"], 1, "mcpfast profile gc: 'nowhere.py': no such file"),
        (["gc", "--pid", "4194305"], 1, "no such process"),
    ],
)
def test_used_wrongly(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *words]) == code
    assert told in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what is made of it

DOZE = Frame("doze", "notes.py", 9, True)
OTHER_LINE = Frame("doze", "notes.py", 11, True)
LIBRARY = Frame("Decoder.decode", "json/decoder.py", 353, False)


def stall(
    begin_s: float, duration_s: float, stack: int, *, held: bool = False, handler: str = "tool nap"
) -> Stall:
    stacks = [Seen(stack, duration_s)] if stack >= 0 else []
    return Stall(begin_s, duration_s, duration_s / 2, stacks, stack, handler, held)


def test_stalls_are_grouped_by_function() -> None:
    found = loop.Found(100.0)
    stalls = [stall(101, 0.1, 0), stall(102, 0.3, 0), stall(103, 0.2, 1), stall(104, 0.05, 2, held=True)]
    stalls.append(stall(105, 0.03, -1, handler=""))
    found.take(
        Taken(106.0, stalls=stalls, stacks=[(DOZE,), (OTHER_LINE,), (DOZE, LIBRARY)], lost=2, lost_s=0.5)
    )
    assert loop.rows(found.groups) == [
        ("3", "300", "600", "50%", "doze (notes.py:9), tool nap"),
        (
            "1",
            "50.0",
            "50.0",
            "50%",
            "doze (notes.py:9) > Decoder.decode (json/decoder.py:353), tool nap, lock held",
        ),
        ("1", "30.0", "30.0", "50%", loop.NOWHERE),
    ]
    assert found.stacks["tool nap", "doze (notes.py:9)"] == 400  # milliseconds
    assert found.stacks[(loop.NOWHERE,)] == 30
    told = loop.figures(found, 10.0, 0.02)
    assert (told["stalls"], told["total_s"]) == (7, pytest.approx(1.18)) and told["each"][0]["at_s"] == 1.0
    assert "7 stalls of 20 ms or more in 10.0 s: the longest 300 ms, together 1.18 s, 11.8%" in loop.summary(
        found, 10.0, 0.02
    )


def test_a_stall_counts_for_all_that_it_kept_waiting() -> None:
    """A second in which nothing came is no single sample among a thousand."""
    quick = [(at / 100, 0.0001) for at in range(100)]
    late = loop.quantiles([*quick, (1.0, 1.0)], 0.01)
    assert late["max"] == 1.0 and 0.95 < late["p99"] < 1.0 and late["p50"] < 0.02
    assert loop.quantiles([], 0.01) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_what_is_said_of_pauses() -> None:
    found = gc.Found(10.0)
    pauses = [Pause(11.0 + at, 0.0001, 0, 700, 600, 0, DOZE, True) for at in range(20)]
    pauses += [Pause(12.0, 0.05, 2, 3, 0, 1, None, False)]
    found.take(Taken(40.0, pauses=pauses, lost=1, lost_s=0.5))
    assert found.longest[0].generation == 2 and len(found.longest) == 10
    assert gc.summary(found, 30.0, 220) == (
        "22 pauses in 30.0 s, together 552 ms: 1.84% of the time; the longest 50.0 ms; one in 10 calls"
    )
    assert gc.summary(found, 30.0, 11).endswith("; 2.0 for each call")
    said = "\n".join(gc.advice(found, Watching(10.0, enabled=False)))
    for words in (
        "took 50.0 ms: gc.freeze()",
        "12,000 young objects",
        "a leak",
        "1 more pauses",
        "switched off",
    ):
        assert words in said
    assert gc.longest_rows(found)[0] == ("50.0", "2.00", "2", "0", "no Python frame, in another thread")
    assert gc.advice(gc.Found(0.0), Watching(0.0)) == []
    assert "did not run" in gc.summary(gc.Found(0.0), 1.0, 5)


def test_the_picture_over_time() -> None:
    many = [Mark(at / 100, 0.1 + at, "dot") for at in range(MARKS_MAX + 500)]
    series = [
        Series("dots & all", "blue", many),
        Series("stems", "red", [Mark(1.0, 700.0, "at 1 s\n<here>")], stems=True),
    ]
    text = draw("a <title>", "x" * 500, series, seconds=40.0, label="late by", level=Level(20.0, "a stall"))
    svg = ET.fromstring(text)
    words = [one.text for one in svg.iter(f"{SVG}text")]
    assert {
        "a <title>",
        "dots & all",
        "late by, ms (logarithmic)",
        "a stall",
        "since the first look, s",
    } <= set(words)
    marks = [one.text for one in svg.iter(f"{SVG}title")]
    assert len(marks) == MARKS_MAX + 1 and "at 1 s?<here>" in marks  # the largest, and no control characters
    assert "prefers-color-scheme: dark" in text
    across = [float(one.get("cx", "0")) for one in svg.iter(f"{SVG}circle")]
    assert all(0 <= x <= 1200 for x in across)
    ET.fromstring(draw("", "", [], seconds=0.0, label="nothing"))


def test_milliseconds_with_digits_that_count() -> None:
    said: list[Any] = [milliseconds(value) for value in (1.2345, 0.0423, 0.00142, 0.0000123)]
    assert said == ["1,234", "42.3", "1.42", "0.012"]
