"""What the instruments say, read and shown: stacks, pictures, tables, pages, and what is told when one is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from mcpfast import cli
from mcpfast.profile import (
    ProfileFailed,
    callgrind,
    command,
    memray,
    perf,
    processes,
    progress,
    py_spy,
    scalene,
    session,
    target,
)
from mcpfast.profile.flamegraph import draw, kind, placed, tree
from mcpfast.profile.load import Driver, Load, Outcome
from mcpfast.profile.report import Report, reading_html, reading_text, table
from mcpfast.profile.stacks import hottest, plain, read_folded, read_perf_script, write_folded

SVG = "{http://www.w3.org/2000/svg}"

# ------------------------------------------------------------------------------------------------ stacks

RAW = """\
run (app.py:3);grind (hot.py:7) 6
run (app.py:3);grind (hot.py:8) 2
run (app.py:3);send (libc.so.6) 1
run (app.py:4);grind (hot.py:8);run (app.py:3) 1
run (app.py:4);0x7f00 (libc.so.6) 1
run (app.py:4);0x7f10 (libc.so.6) 1

not a stack
"""


def test_stacks_are_counted_by_function() -> None:
    stacks = read_folded(RAW)
    assert sum(stacks.values()) == 12
    heats = {heat.function: (heat.own, heat.total) for heat in hottest(stacks)}
    assert heats["grind (hot.py)"] == (8, 9)  # lines of one function together
    assert heats["run (app.py)"] == (1, 12)  # and one that is twice on a stack once
    assert heats["? (libc.so.6)"] == (2, 2)
    assert hottest(stacks, 1)[0].function == "grind (hot.py)"
    assert read_folded(write_folded(stacks)) == stacks


PERF = """\
python  4712/4712  cycles:
\t           8c9c4 _PyEval_EvalFrameDefault (/usr/lib/libpython3.13.so.1.0)
\t              85 py::grind:/srv/hot.py (/tmp/jitted-4712-388.so)
\t          2bc5f0 py_trampoline_evaluator (/usr/lib/libpython3.13.so.1.0)
\t           f01be PyObject_Vectorcall (/usr/lib/libpython3.13.so.1.0)
\t              85 py::main:/srv/hot.py (/tmp/perf-4712.map)
\tffffffffffffffff [unknown] ([unknown])

loop thread  4712/4713  cycles:
\tffffffff8157247d sock_write+0x1d ([kernel.kallsyms])
\t            a07d __pyx_f_7mcpfast_7_stream_13StreamChannel_flush (/srv/mcpfast/_stream.cpython-313-x86_64-linux-gnu.so)
\t            a07e dec_ref (/srv/mcpfast/_stream.cpython-313-x86_64-linux-gnu.so)

"""


def test_perf_is_read_from_the_outermost_frame() -> None:
    assert read_perf_script(PERF) == {
        ("python", "main (hot.py)", "PyObject_Vectorcall (libpython3.13.so.1.0)", "grind (hot.py)"): 1,
        (
            "loop thread",
            "dec_ref (_stream.so)",
            "mcpfast._stream.StreamChannel.flush (_stream.pyx)",
            "sock_write [kernel]",
        ): 1,
    }
    assert perf.python_frames(read_perf_script(PERF))
    assert not perf.python_frames(read_folded("a (libc.so.6);b [kernel] 3"))


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_f_7mcpfast_5_core_6Outbox_flush", "mcpfast._core.Outbox.flush"),
        (
            "__pyx_pw_7mcpfast_7_stream_13StreamChannel_3on_readable",
            "mcpfast._stream.StreamChannel.on_readable",
        ),
        ("__pyx_pw_7mcpfast_6_calls_7Carrier_3the_end", "mcpfast._calls.Carrier.the_end"),
        ("__pyx_f_6uvloop_4loop___on_uvpoll_event", "uvloop.loop.__on_uvpoll_event"),
        ("__pyx_f_99mcpfast_x", "99mcpfast_x"),
        ("_PyEval_EvalFrameDefault", "_PyEval_EvalFrameDefault"),
    ],
)
def test_cython_names_as_they_were_written(symbol: str, name: str) -> None:
    assert plain(symbol) == name


# ------------------------------------------------------------------------------------------------ the picture


def test_the_picture_has_a_box_for_each_frame() -> None:
    svg = ET.fromstring(draw(read_folded(RAW), "a <title>", "& more"))
    boxes = {box.find(f"{SVG}title").text: box for box in svg.iter(f"{SVG}g")}  # type: ignore[union-attr]
    grind = boxes["grind (hot.py:7)\n6 samples, 50.00%"]
    assert float(grind.get("data-w", "0")) == pytest.approx(0.5)
    assert grind.get("class") == "python"
    assert float(grind.find(f"{SVG}rect").get("width", "0")) == pytest.approx(590)  # type: ignore[union-attr]
    assert "all\n12 samples, 100.00%" in boxes
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert "a <title>" in texts and "& more" in texts


def test_boxes_stand_side_by_side_on_their_caller() -> None:
    places = placed(tree(read_folded("a;c 1\na;b 2\nd 1")))
    assert [
        (place.box.name, place.left, place.share, place.row)
        for place in sorted(places, key=lambda p: p[0].name)
    ] == [
        ("a", 0, 0.75, 1),
        ("all", 0, 1, 0),
        ("b", 0, 0.5, 2),
        ("c", 0.5, 0.25, 2),
        ("d", 0.75, 0.25, 1),
    ]


def test_a_picture_of_deep_and_of_narrow_stacks() -> None:
    deep = ";".join(f"f{number} (a.py:1)" for number in range(3000))
    assert len(placed(tree(read_folded(f"{deep} 1")))) == 3001
    many = "\n".join(f"narrow{number} 1" for number in range(20_000))
    assert len(placed(tree(read_folded(many)))) == 1  # nobody could see them
    ET.fromstring(draw(read_folded("\x01odd & <strange> 1"), "", "x" * 500))
    ET.fromstring(draw(read_folded(""), "", ""))


def test_colours_say_where_a_frame_lives() -> None:
    kinds = {
        "run (app.py:7)": "python",
        "<module> (<frozen runpy>:88)": "python",
        "pump (mcpfast/_spine.pyx:3)": "cython",
        "send (libc.so.6)": "native",
        "uv_run (core.c:464)": "native",
        "do_syscall_64 [kernel]": "kernel",
        "process 17": "other",
    }
    assert {frame: kind(frame) for frame in kinds} == kinds


# ------------------------------------------------------------------------------------------------ report


def made(folder: Path) -> Report:
    for name in ("flamegraph.svg", "stacks.txt"):
        (folder / name).write_text("x")
    return Report(
        "py-spy",
        "Where the samples end",
        ("own", "function"),
        [("60.0%", "grind <b>"), ("5.0%", "send")],
        [(folder / "flamegraph.svg", "the flame graph"), (folder / "stacks.txt", "its lines")],
        "Read `it` so.\nReally.\n\n- one\n  thing\n- another",
        facts=["hot.py", "100 samples"],
        warnings=["too few"],
        picture=folder / "flamegraph.svg",
    )


def test_the_text_of_a_report(tmp_path: Path) -> None:
    said = made(tmp_path).text()
    assert "    own  function\n  60.0%  grind <b>\n   5.0%  send\n" in said
    assert "WARNING: too few" in said
    assert f"{tmp_path}/stacks.txt      its lines" in said
    assert said.endswith("  Read `it` so. Really.\n\n  - one thing\n  - another\n")


def test_the_page_of_a_report(tmp_path: Path) -> None:
    page = made(tmp_path).page()
    assert "<td>grind &lt;b&gt;</td>" in page
    assert '<object data="flamegraph.svg" type="image/svg+xml"' in page
    assert '<a href="stacks.txt">' in page
    assert "<code>it</code>" in page and "<li>one thing</li><li>another</li>" in page
    assert "prefers-color-scheme: dark" in page


def test_words_and_tables() -> None:
    assert table(("n", "x"), [("10", "a")]) == ["   n  x", "  10  a"]
    assert reading_text("- a\n- b") == "  - a\n  - b"
    assert reading_html("a <b>") == "<p>a &lt;b&gt;</p>"


@pytest.mark.parametrize("name", session.INSTRUMENTS)
def test_each_instrument_has_its_page_of_words(name: str) -> None:
    """A page: enough to read by, and not more than one reads."""
    words = session.instrument(name).READING
    assert 150 < len(words.split()) < 450
    assert "\n- " in words
    assert len(max(reading_text(words).splitlines(), key=len)) <= 100


# ------------------------------------------------------------------------------------------------ each instrument's own words

SCALENE_LINE = {"n_cpu_percent_python": 0.0, "n_cpu_percent_c": 0.0, "n_sys_percent": 0.0, "n_malloc_mb": 0.0}


def test_scalene_without_its_own_threads() -> None:
    def line(number: int, text: str, **more: float) -> dict[str, Any]:
        return {**SCALENE_LINE, "lineno": number, "line": text, **more}

    idle = line(982, "self._target(*self._args)", n_cpu_percent_c=75.0)
    hot = line(7, " if a \\u003c b: \n", n_cpu_percent_python=10.0, n_cpu_percent_c=5.0, n_sys_percent=5.0)
    files = {
        "/usr/lib/python3.11/threading.py": {"lines": [idle]},
        "/srv/app/hot.py": {"lines": [hot, line(8, "x = []", n_malloc_mb=9.0), line(9, "pass")]},
        "/srv/app/other.py": {"lines": [line(1, "y = 1", n_cpu_percent_python=5.0)]},
    }
    lines = scalene.hottest({"files": files})
    assert [one.place for one in lines] == ["app/hot.py:7", "app/other.py:1", "app/hot.py:8"]
    assert (lines[0].python, lines[0].native, lines[0].system) == pytest.approx((40, 20, 20))
    assert lines[0].text == "if a < b:"


def test_scalene_takes_arguments_behind_dashes() -> None:
    assert scalene.program(("-m", "mcpfast", "run")) == ["-m", "mcpfast", "run"]
    assert scalene.program(("server.py",)) == ["server.py"]
    assert scalene.program(("server.py", "--port", "1")) == ["server.py", "---", "--port", "1"]


PYTHON_STACK = (
    "_PyObject_Malloc;Objects/obmalloc.c;2003|hoard;/srv/app/hot.py;14|run;/srv/mcpfast/serve.py;64"
)
IMPORT_STACK = "r_object;Python/marshal.c;1|<module>;/srv/app/hot.py;1|exec;<frozen importlib._bootstrap>;241"


def test_memray_by_the_innermost_line_of_python() -> None:
    def row(size: int, stack: str, blocks: int = 1) -> dict[str, str]:
        return {"size": str(size), "num_allocations": str(blocks), "stack_trace": stack}

    peak = [
        row(3_000_000, PYTHON_STACK, 3),
        row(500, PYTHON_STACK),
        row(1_000, IMPORT_STACK),
        row(7, "clone3;clone3.S;1"),
    ]
    places = memray.gathered(peak, [row(500, PYTHON_STACK)])
    assert list(places) == ["hoard (app/hot.py:14)", "importing modules", "clone3 (clone3.S, no Python)"]
    assert memray.rows(places)[0] == ("2.86", "0.00", "4", "hoard (app/hot.py:14)")
    totals = {"total_bytes_allocated": 10 << 20, "total_num_allocations": 50}
    said = memray.summary(places, totals, 100)
    assert said.startswith("peak 2.9 MB, 0.0 MB not given back") and "0.5 blocks a call" in said
    assert "a call" not in memray.summary(places, totals, 0)
    assert memray.where("") == "unknown"


CALLGRIND = """\
--------------------------------------------------------------------------------
Ir
--------------------------------------------------------------------------------
8,000 (100.0%)  PROGRAM TOTALS

5,000 (62.50%)  ./Python/ceval.c:_PyEval_EvalFrameDefault'2 [/usr/lib/libpython3.11.so]
1,000 (12.50%)  ./Python/ceval.c:_PyEval_EvalFrameDefault [/usr/lib/libpython3.11.so]
2,000 (25.00%)  build/_spine.c:__pyx_f_7mcpfast_6_spine_7Channel_pump [/srv/_spine.so]
    5 ( 0.06%)  ???:0x0000 [???]
"""


def test_callgrind_by_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=CALLGRIND)
    )
    own = callgrind.costs(tmp_path, inclusive=False)
    assert own["_PyEval_EvalFrameDefault  ceval.c"] == 6000  # a recursion is one function
    assert own["mcpfast._spine.Channel.pump  _spine.c"] == 2000
    assert callgrind.costs(tmp_path, inclusive=True)["_PyEval_EvalFrameDefault  ceval.c"] == 1000
    few = own.copy()
    few["_PyEval_EvalFrameDefault  ceval.c"] = 1000
    assert callgrind.by_function(few, own, 10) == [(500.0, "_PyEval_EvalFrameDefault  ceval.c")]
    file = callgrind.write(tmp_path / "functions.txt", [(1500.25, "pump  _spine.c")])
    assert file.read_text() == "     1,500.2  pump  _spine.c\n"
    with pytest.raises(ProfileFailed, match="wrote no total"):
        callgrind.instructions(tmp_path / "nothing")
    (tmp_path / "out").write_text("events: Ir\nsummary: 8000\n")
    assert callgrind.instructions(tmp_path / "out") == 8000


def test_py_spy_that_may_not_look_says_what_to_do() -> None:
    said = py_spy.why(
        17, "Error: Permission Denied: Try running again with elevated permissions by going 'sudo py-spy'"
    )
    assert "process 17" in said and "ptrace" in said and "--cap-add SYS_PTRACE" in said
    assert (
        py_spy.why(17, "Error: no such\n\nStack backtrace:\n 0: x")
        == "py-spy could not look into process 17: Error: no such"
    )
    assert py_spy.NOT_NATIVE.search("error: unexpected argument '--native' found")
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(ProfileFailed, match=r"this is none: sleep 60 \(perf"):
            py_spy.python_in(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_perf_that_may_not_look_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess(
        [], 255, "", "Error:\nConsider adjusting /proc/sys/kernel/perf_event_paranoid"
    )
    monkeypatch.setattr(processes, "run", lambda *_, **__: failed)
    with pytest.raises(ProfileFailed, match=r"sysctl kernel\.perf_event_paranoid"):
        perf.record([1], tmp_path / "perf.data", 1, tmp_path)
    failed.stderr = "something else"
    with pytest.raises(ProfileFailed, match="perf recorded nothing: something else"):
        perf.record([1], tmp_path / "perf.data", 1, tmp_path)
    with pytest.raises(ProfileFailed, match="perf script failed: something else"):
        perf.run("script", private=tmp_path)


# ------------------------------------------------------------------------------------------------ what is missing

FILE = target.Target("hot.py", (sys.executable, "-m", "mcpfast", "run", "hot.py"), "unix:///nowhere")
LIVE = target.Target("process 1", pid=1)
SHELL = target.Target("sh", ("sh", "-c", "true"))


@pytest.mark.parametrize(
    ("name", "what", "told"),
    [
        ("py-spy", FILE, "pip install py-spy"),
        ("perf", FILE, "apt-get install -y linux-perf"),
        ("callgrind", FILE, "apt-get install -y valgrind"),
        ("memray", FILE, f"{sys.executable} -m pip install memray"),
        ("scalene", FILE, f"{sys.executable} -m pip install scalene"),
        ("memray", LIVE, "memray"),
        ("memray", SHELL, "this is none: sh"),
        ("scalene", SHELL, "this is none: sh"),
        ("scalene", LIVE, "cannot look into a live process"),
        ("callgrind", LIVE, "cannot look into a live process"),
    ],
)
def test_what_is_missing_is_told_in_one_line(
    name: str, what: target.Target, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = session.instrument(name)
    for finder in ("program", "which"):
        monkeypatch.setattr(module, finder, lambda *_: None, raising=False)
    monkeypatch.setattr(module, "has_module", lambda *_: False, raising=False)
    said = module.missing(what)
    assert told in said
    assert "\n" not in said


def test_a_missing_instrument_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hot.py"
    file.write_text("raise SystemExit('started')")
    monkeypatch.setattr(perf, "which", lambda _: None)
    with pytest.raises(ProfileFailed, match="Install: "):
        session.profile("perf", file=str(file), folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ targets


def test_a_command_taken_apart(tmp_path: Path) -> None:
    python = sys.executable
    assert target.python_of([python, "server.py", "-v"]) == ((python,), ("server.py", "-v"))
    assert target.python_of([python, "-u", "-X", "dev", "-m", "pkg", "-m"]) == (
        (python, "-u", "-X", "dev"),
        ("-m", "pkg", "-m"),
    )
    assert target.python_of([python]) is None
    assert target.python_of([python, "-"]) is None
    assert target.python_of(["sh", "-c", "python"]) is None
    assert target.python_of(["no-such-program"]) is None
    script = tmp_path / "serve"
    script.write_text(f"#!{python}\nprint()\n")
    script.chmod(0o755)
    assert target.python_of([str(script), "--x"]) == ((python,), (str(script), "--x"))
    script.write_text("#!/bin/sh\n")
    assert target.python_of([str(script)]) is None
    assert target.has_module(python, "json") and not target.has_module(python, "no_such_module")


def test_targets_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileFailed, match="no such file"):
        target.of_file("nowhere.py", tmp_path)
    with pytest.raises(ProfileFailed, match="no-such-program: no such program"):
        target.of_command(["no-such-program"])
    with pytest.raises(ProfileFailed, match="no such process"):
        target.running(2**22 + 1, None)
    with pytest.raises(ProfileFailed, match="say --pid PID"):
        target.listening(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(ProfileFailed, match="TLS"):
        target.listening("https://127.0.0.1:1/mcp")


def test_a_server_file_is_served_where_nobody_else_reaches(tmp_path: Path) -> None:
    file = tmp_path / "hot.py"
    file.touch()
    found = target.of_file(f"{file}:make", tmp_path)
    assert found.address == f"unix://{tmp_path}/server.sock"
    assert found.command is not None and found.command[-3:] == (f"{file}:make", "--listen", found.address)
    assert not found.stdio and target.of_command(["sh", "-c", "true"]).stdio


def test_launch_tells_its_pid_and_becomes_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    launch = [sys.executable, "-I", "-S", str(session.LAUNCH), str(pid_file)]
    ran = subprocess.run([*launch, "sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == pid_file.read_text()
    failed = subprocess.run([*launch, "no-such-program"], capture_output=True, text=True)
    assert (failed.returncode, failed.stderr) == (1, "no-such-program: No such file or directory\n")


# ------------------------------------------------------------------------------------------------ calls


def outcome(**more: Any) -> Outcome:
    told = {
        "requests": 100,
        "rate_per_s": 5210.4,
        "errors": 0,
        "error_kinds": {},
        "latency_us": {"p50": 210.0, "p99": 380.2},
        "kinds": [{"name": "call echo"}],
        "connections": 1,
        "window": 16,
        "era": "2026-07-28",
        "warnings": [],
    }
    return Outcome({**told, **more})


def test_calls_in_a_sentence() -> None:
    assert str(outcome()) == "5,210 a second, p50 210 us, p99 380 us, no errors"
    assert str(outcome(errors=3, error_kinds={"missing": 3})).endswith("3 ERRORS (missing 3)")
    assert outcome().asked == "call echo: 16 in flight, 2026-07-28"
    assert outcome(connections=4).asked == "call echo: 4 connections with 16 in flight on each, 2026-07-28"
    assert outcome(connections=4, window=1).asked == "call echo: 4 connections, 2026-07-28"
    assert session.facts(None) == (["called by nobody but its own clients"], [])
    about, warnings = session.facts(outcome(errors=3, warnings=["the run ended early: gone", "busy"]))
    assert len(about) == 1 and len(warnings) == 2


def test_a_load_as_options() -> None:
    load = Load(tool="add", args="{}", window=4, scenario=None)
    assert load.options() == ["--tool", "add", "--args", "{}", "--window", "4"]


def test_a_driver_that_fails_or_does_not_end(tmp_path: Path) -> None:
    report = tmp_path / "load.json"
    failing = Driver([sys.executable, "-c", "raise SystemExit('nobody there')"], report)
    with pytest.raises(ProfileFailed, match="nobody there"):
        failing.wait(30)
    usage = Driver([sys.executable, "-c", "import sys; print('bad option'); sys.exit(2)"], report)
    usage.process.wait()
    with pytest.raises(ProfileFailed, match="bad option"):
        usage.check()
    endless = Driver(["sleep", "60"], report)
    endless.check()
    with pytest.raises(ProfileFailed, match="did not come to an end"):
        endless.wait(0.1)
    assert endless.process.returncode is not None
    report.write_text(json.dumps({"requests": 3}))
    assert Driver(["true"], report).wait(30).calls == 3


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "which server?"),
        (["hot.py", "--", "sh"], "either a TARGET or a command"),
        (["--pid", "1", "hot.py"], "--pid is a server that runs already"),
        (["--pid", "1", "--", "sh"], "--pid is a server that runs already"),
        (["hot.py", "--load", "a.toml", "--tool", "x"], "--load says what is called"),
        (["hot.py", "--duration", "0"], "--duration is more than 0"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_no_profile_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "nowhere.py", "--with", "perf"]) == 1
    assert "nowhere.py" in capsys.readouterr().err


def test_an_unknown_instrument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["profile", "hot.py", "--with", "gprof"])
    assert "py-spy" in capsys.readouterr().err


def test_what_a_word_hands_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixteen calls at once unless said: in flight on one connection, or on sixteen over HTTP."""
    handed: dict[str, Any] = {}

    def profile(name: str, **given: Any) -> Report:
        handed.update(given, name=name)
        return made(tmp_path)

    shown: list[str] = []
    monkeypatch.setattr(command, "profile", profile)
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert cli.main(["profile", "hot.py", "--tool", "x", "--open"]) == 0
    assert (handed["name"], handed["file"], handed["address"]) == ("py-spy", "hot.py", None)
    assert handed["load"] == Load(tool="x", window=16)
    assert handed["folder"].parts[0] == "profiles"
    assert shown[0].startswith("file:///") and "How to read" in capsys.readouterr().out
    cli.main(["profile", "http://127.0.0.1:1/mcp", "--with", "perf", "-o", "there"])
    assert (handed["file"], handed["address"], handed["folder"]) == (None, "http://127.0.0.1:1/mcp", "there")
    assert handed["load"] == Load(connections=16)
    cli.main(["profile", "--load", "a.toml", "-c", "3", "--", "sh", "-c", "true"])
    assert handed["load"] == Load(scenario="a.toml", connections=3)
    assert handed["command"] == ["sh", "-c", "true"]


def test_mcpfast_alone_loads_no_profiler() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys, mcpfast, mcpfast.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mcpfast.profile" not in ran.stdout


# ------------------------------------------------------------------------------------------------ progress


def test_progress_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    said = progress.progress()  # pytest's stderr is no terminal
    with said.step("looking", 3), said.step("drawing"):
        pass
    with progress.Silent().step("nothing"):
        pass
    assert capsys.readouterr().err == "profile: looking (3 s)\nprofile: drawing\n"


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    pytest.importorskip("rich")
    live = progress.progress()
    assert isinstance(live, progress.Live)
    with live.step("looking", 0.01):
        pass
    with live.step("drawing"):
        pass
    assert "looking" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert type(progress.progress()) is progress.Progress
