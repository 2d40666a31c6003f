"""Profiling sessions with the real instruments: what is hot in a server is what they name. One that is not here is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mcpfast.profile import ProfileFailed, processes
from mcpfast.profile.command import main
from mcpfast.profile.load import Load
from mcpfast.profile.progress import Silent
from mcpfast.profile.report import Report
from mcpfast.profile.session import profile
from mcpfast.profile.target import program
from tests.live_server import live_server

pytest.importorskip("mcpfast.bench._engine", reason="the load engine runs on Linux only")
pytestmark = pytest.mark.plain_build

SERVER = """
from mcpfast import MCPServer

server = MCPServer("hot")
hoard = []

def grind_the_letters(text):
    total = 0
    for _ in range(400):
        for letter in text:
            total += ord(letter)
    return total

def hoard_the_letters():
    hoard.append(bytearray(20_000))
    if len(hoard) > 1000:
        hoard.clear()

@server.tool
async def grind(text: str) -> str:
    grind_the_letters(text)
    hoard_the_letters()
    return text

@server.tool
async def echo(text: str) -> str:
    return text
"""
HOT, HOARD = "grind_the_letters", "hoard_the_letters"
GRIND = Load(tool="grind", args='{"text": "letters"}', window=8)


def perf_may_look() -> bool:
    """It is often there, and not allowed: in containers, say."""
    command = ["perf", "record", "-o", os.devnull, "true"]
    return which("perf") is not None and subprocess.run(command, capture_output=True).returncode == 0


HERE = {
    "py-spy": program("py-spy") is not None,
    "perf": perf_may_look(),
    "memray": find_spec("memray") is not None,
    "scalene": find_spec("scalene") is not None,
    "callgrind": which("valgrind") is not None,
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not HERE[name], reason=f"{name} is not on this machine")


@pytest.fixture
def hot(tmp_path: Path) -> str:
    file = tmp_path / "hot.py"
    file.write_text(SERVER)
    return str(file)


@pytest.fixture
def live(hot: str, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A server that runs already, over HTTP: its process, and its address."""
    with live_server(hot) as server:
        yield server


def look(name: str, tmp_path: Path, file: str, load: Load = GRIND, *, calls: int = 0) -> Report:
    folder = tmp_path / "results"
    return profile(
        name, file=file, load=load, seconds=2, warmup=0.3, calls=calls, folder=folder, progress=Silent()
    )


def frames(picture: Path) -> list[str]:
    """What the boxes of a flame graph are called."""
    svg = ET.parse(picture).getroot()
    return [title.text or "" for title in svg.iter("{http://www.w3.org/2000/svg}title")]


def test_a_session_leaves_a_page_and_no_process(hot: str, tmp_path: Path) -> None:
    """Whichever instrument is here: its page opens, its files are there, its server is gone."""
    name = next((name for name in ("py-spy", "perf", "callgrind") if HERE[name]), None)
    if name is None:
        pytest.skip("no instrument is on this machine")
    report = look(name, tmp_path, hot, calls=100 if name == "callgrind" else 0)
    page = (tmp_path / "results" / "index.html").read_text()
    assert report.reading.strip()[:40] in page.replace("\n", " ")
    assert "no errors" in page or name == "callgrind"
    assert all(path.exists() for path, _ in report.files)
    assert 5 <= len(report.rows) <= 10
    others = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if entry.name != str(os.getpid())]
    assert [pid for pid in others if hot in processes.words(pid)] == []


@needs("py-spy")
def test_py_spy_sees_what_is_hot(hot: str, tmp_path: Path) -> None:
    report = look("py-spy", tmp_path, hot)
    assert report.picture is not None
    seen = frames(report.picture)
    assert any(frame.startswith(HOT) for frame in seen)
    assert any("_spine.pyx" in frame for frame in seen)  # native frames
    assert report.rows[0][-1] == f"{HOT} (hot.py)"


@needs("py-spy")
def test_what_is_not_called_is_not_seen(hot: str, tmp_path: Path) -> None:
    report = look("py-spy", tmp_path, hot, Load(tool="echo", window=8))
    assert report.picture is not None
    assert not any(HOT in frame for frame in frames(report.picture))


@needs("py-spy")
def test_a_live_server_is_found_by_its_address(live: tuple[int, str], tmp_path: Path) -> None:
    pid, address = live
    report = profile(
        "py-spy", address=address, load=GRIND, seconds=2, warmup=0.3, folder=tmp_path, progress=Silent()
    )
    assert f"process {pid}" in report.facts[0]
    assert report.picture is not None
    assert any(frame.startswith(HOT) for frame in frames(report.picture))


@needs("py-spy")
def test_a_live_server_that_nobody_calls(live: tuple[int, str], tmp_path: Path) -> None:
    """An idle server: few samples with a warning, or none, which is said."""
    try:
        said = profile("py-spy", pid=live[0], seconds=1, folder=tmp_path, progress=Silent()).warnings[0]
    except ProfileFailed as failure:
        said = str(failure)
    assert "too few" in said or "only idle" in said


@needs("py-spy")
def test_a_command_over_stdio_behind_a_launcher(hot: str, tmp_path: Path) -> None:
    """As `npx` and `uv run` do it: the process that we start is not the server."""
    command = ["sh", "-c", f"{sys.executable} -m mcpfast run {hot}; true"]
    report = profile(
        "py-spy", command=command, load=GRIND, seconds=2, warmup=0.3, folder=tmp_path, progress=Silent()
    )
    assert report.rows[0][-1] == f"{HOT} (hot.py)"


@needs("perf")
def test_perf_sees_c_and_the_kernel(hot: str, tmp_path: Path) -> None:
    report = look("perf", tmp_path, hot)
    assert report.picture is not None
    seen = frames(report.picture)
    assert any(frame.startswith("mcpfast._spine.Channel") for frame in seen)
    assert any("[kernel]" in frame for frame in seen) or not kernel_is_shown()
    python_is_told = any(frame.startswith(HOT) for frame in seen)
    assert python_is_told == (sys.version_info >= (3, 12))
    assert python_is_told or any("no Python frames" in fact for fact in report.facts)
    assert not list(Path("/tmp").glob(f"perf-{os.getpid()}*"))


def kernel_is_shown() -> bool:
    return os.geteuid() == 0 and Path("/proc/sys/kernel/kptr_restrict").read_text().strip() == "0"


@needs("perf")
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_perf_names_python_functions(version: str, tmp_path: Path) -> None:
    """A Python that tells what it runs; any stdio server will do, ours need not be built for it."""
    python = newer_python(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    server = tmp_path / "plain.py"
    server.write_text(PLAIN_SERVER)
    before = set(Path("/tmp").glob("perf-*")) | set(Path("/tmp").glob("jit*"))
    command = [python, str(server)]
    load = Load(tool="echo", window=8, era="2025-06-18")
    report = profile(
        "perf", command=command, load=load, seconds=2, warmup=0.3, folder=tmp_path / "out", progress=Silent()
    )
    assert report.rows[0][-1] == f"{HOT} (plain.py)"
    assert set(Path("/tmp").glob("perf-*")) | set(Path("/tmp").glob("jit*")) <= before


def newer_python(version: str) -> str | None:
    found = subprocess.run(
        [sys.executable, "workshop/interpreters.py", version],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return found.stdout.split()[1] if len(found.stdout.split()) > 1 else None


PLAIN_SERVER = """
import json, sys

TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "plain", "version": "1"}}

def grind_the_letters(text):
    total = 0
    for _ in range(400):
        for letter in text:
            total += ord(letter)
    return total

def answer(message):
    if message["method"] == "initialize":
        return HELLO
    if message["method"] == "tools/list":
        return {"tools": TOOLS}
    grind_the_letters("letters")
    return {"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]}

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}), flush=True)
"""


@needs("memray")
def test_memray_sees_who_hoards(hot: str, tmp_path: Path) -> None:
    report = look("memray", tmp_path, hot)
    peak, left, _, place = report.rows[0]
    assert place.startswith(f"{HOARD} (")
    assert 15 < float(peak) < 25  # 1,000 times 20,000 bytes
    assert float(left) <= float(peak)
    assert HOARD in (tmp_path / "results" / "peak.html").read_text()
    assert HOARD in (tmp_path / "results" / "left.html").read_text()


@needs("memray")
def test_memray_gets_into_a_live_server(live: tuple[int, str], tmp_path: Path) -> None:
    if sys.version_info < (3, 14) and not which("gdb"):
        pytest.skip("gdb is not on this machine")
    report = profile(
        "memray", address=live[1], load=GRIND, seconds=2, warmup=0.3, folder=tmp_path, progress=Silent()
    )
    assert report.rows[0][-1].startswith(f"{HOARD} (")


@needs("scalene")
def test_scalene_sees_the_line(hot: str, tmp_path: Path) -> None:
    report = look("scalene", tmp_path, hot)
    lines = [row[-1] for row in report.rows]
    assert "hot.py:" in lines[0] and any(part in lines[0] for part in ("ord(letter)", "for letter", "for _"))
    assert sum(float(row[0][:-1]) for row in report.rows) > 10
    assert "threading.py" not in "".join(lines)
    assert "total += ord(letter)" in (tmp_path / "results" / "scalene.html").read_text()


@needs("callgrind")
def test_callgrind_counts_a_call(hot: str, tmp_path: Path) -> None:
    report = look("callgrind", tmp_path, hot, calls=160)
    assert "_PyEval_EvalFrameDefault" in report.rows[0][-1]  # the interpreter, for the handler's loop
    assert instructions(report) > 400 * 7 * 50  # that many times around, and not for nothing
    assert "mcpfast._spine.Channel" in (tmp_path / "results" / "functions.txt").read_text()


@needs("callgrind")
def test_callgrind_counts_the_same_twice(tmp_path: Path) -> None:
    """That is what it is for; and a call costs the same, whether so many were asked for or so long."""
    server = tmp_path / "plain.py"
    server.write_text(PLAIN_SERVER)
    load = Load(tool="echo", window=8, era="2025-06-18")

    def counted(**how: float) -> float:
        command = [sys.executable, str(server)]
        given: dict[str, Any] = {"command": command, "load": load, "folder": tmp_path, "progress": Silent()}
        return instructions(profile("callgrind", **given, **how))

    first = counted(calls=160)
    assert abs(counted(calls=160) - first) < 0.002 * first
    assert abs(counted(seconds=2) - first) < 0.02 * first


def instructions(report: Report) -> float:
    return float(report.facts[1].split(" instructions")[0].split()[-1].replace(",", ""))


# ------------------------------------------------------------------------------------------------ what goes wrong


@needs("py-spy")
def test_a_server_that_does_not_start_shows_why(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("raise KeyError('no settings here')")
    with pytest.raises(ProfileFailed, match="no settings here"):
        look("py-spy", tmp_path, str(file))


@needs("py-spy")
def test_an_unknown_tool_is_told(hot: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileFailed, match="there is no tool 'mint'; the server offers: echo, grind"):
        look("py-spy", tmp_path, hot, Load(tool="mint"))


@needs("py-spy")
def test_a_server_that_dies_under_the_calls(tmp_path: Path) -> None:
    file = tmp_path / "mortal.py"
    file.write_text(SERVER + "\nimport os, threading\nthreading.Timer(2, os._exit, [3]).start()\n")
    report = look("py-spy", tmp_path, str(file))
    assert "the run ended early" in report.warnings[0]


@needs("py-spy")
def test_wrong_answers_are_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "failing.py"
    file.write_text(
        SERVER
        + "\nimport random\n\n@server.tool\nasync def fail() -> str:\n    return str(1 / random.randrange(9))\n"
    )
    report = look("py-spy", tmp_path, str(file), Load(tool="fail", window=8))
    assert "answers were wrong" in report.warnings[0]
    assert "ERRORS" in report.text()


@needs("py-spy")
def test_the_word_itself(hot: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mcpfast profile` with a scenario: the table, where the results are, how to read them."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('window = 4\n[[action]]\ncall = "grind"\narguments = { text = "letters" }\n')
    out = tmp_path / "out"
    code = main([hot, "--load", str(scenario), "--duration", "1", "--warmup", "0.3", "-o", str(out)])
    said, progress = capsys.readouterr()
    assert code == 0
    assert HOT in said and str(out / "flamegraph.svg") in said and "How to read them (py-spy)" in said
    assert "call grind: 4 in flight" in said
    assert "profile: looking at it with py-spy (1 s)" in progress


def test_an_interrupted_session_ends_its_server(hot: str, tmp_path: Path) -> None:
    """Ctrl-C: no server is left behind."""
    name = next((name for name in ("py-spy", "perf", "callgrind") if HERE[name]), None)
    if name is None:
        pytest.skip("no instrument is on this machine")
    command = [sys.executable, "-m", "mcpfast", "profile", hot, "--with", name, "-o", str(tmp_path / "out")]
    session = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert session.stderr is not None
    for line in session.stderr:
        if "calling it" in line:
            break
    family = processes.family(session.pid)
    os.killpg(session.pid, 2)
    session.stderr.read()
    session.stderr.close()
    assert session.wait(60) == 130
    deadline = time.monotonic() + 30
    while any(processes.alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in family if processes.alive(pid)] == []
