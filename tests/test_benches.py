"""The measuring instruments are tested like a product: an honest server passes them, a lying one is caught."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

import benches.figures_http  # noqa: F401  (adds its figures to FIGURES)
from benches import build, gate, load
from benches.budgets import Budget, budgets
from benches.figures import FIGURES, Measured, canned_result
from benches.load import LEGACY, MODERN, RunFailed, Shape, drive, serving
from benches.rounds import Contest
from benches.table import Row, keep, number

# A server that answers `echo` in its own way: the first argument says which.
ODD_SERVER = """
import json, sys, time
way, turn, held = sys.argv[1], 0, []
def say(id, text="hello", **more):
    result = {"content": [{"type": "text", "text": text}], **more}
    held.append(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}))
def flush():
    print("\\n".join(held), flush=True); held.clear()
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize": say(0); flush(); continue
    if "id" not in message: continue
    turn += 1; id = message["id"]
    odd = turn % 10 == 7
    if way == "drops" and odd: continue
    elif way == "ends" and turn == 50: sys.exit(7)
    elif way == "hangs" and turn == 50: time.sleep(60)
    elif way == "doubles" and odd: say(id); say(id)
    elif way == "wrong_id" and odd: say(id + 1_000_000)
    elif way == "stale_id" and turn == 57: say(id - 50)
    elif way == "text_id" and odd: say(str(id))
    elif way == "wrong_text" and odd: say(id, "hallo")
    elif way == "tool_error" and odd: say(id, isError=True)
    elif way == "no_json" and odd: held.append('{"jsonrpc": "2.0", "id": %d, "result": {}' % id)
    elif way == "no_result" and odd: held.append('{"jsonrpc": "2.0", "id": %d}' % id)
    elif way == "error" and odd: held.append(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -1}}))
    elif way == "escapes" and odd: say(id); held[-1] = held[-1].replace("hello", "h\\\\u0065llo")
    elif way == "chatty": held.append('{"jsonrpc": "2.0", "method": "notifications/message"}'); say(id)
    elif way == "slow": time.sleep(0.03 if turn % 20 == 0 else 0.01); say(id)
    elif way == "reversed":
        say(id)
        if len(held) < 8: continue
        held.reverse()
    else: say(id)
    if held: flush()
if held: flush()
if way == "late_double": say(id); flush()
"""


@pytest.fixture(scope="module")
def ceiling() -> list[str]:
    return [str(build.binary("ceiling"))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def odd(way: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", ODD_SERVER, way]


def report_of(command: list[str], *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and standard error of the load generator itself."""
    loadgen = [str(build.binary("loadgen")), *options, "--", *command]
    done = subprocess.run(loadgen, capture_output=True, text=True, timeout=30)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


# ---- the load generator against what is right ------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 64, 1000])
@pytest.mark.parametrize("lockstep", [False, True])
def test_ceiling_answers_every_call_once(ceiling: list[str], window: int, lockstep: bool) -> None:
    run = drive(Shape(window=window, lockstep=lockstep), ceiling, calls=5_000)
    assert (run.calls, run.errors) == (5_000, 0)
    assert 0 < run.latency_us["p50"] <= run.latency_us["p99"] <= run.latency_us["max"]


def test_calls_go_around_the_tools() -> None:
    """A server of which only one tool in three is right."""
    wrong = "import json,sys\nfor l in sys.stdin:\n m=json.loads(l)\n if 'id' in m: print(json.dumps("
    wrong += (
        "{'jsonrpc':'2.0','id':m['id'],'result':{'content':[{'type':'text','text':m['params'].get('name')}]}}"
    )
    wrong += "),flush=True)"
    tools = ["--tool", "a", "--tool", "hello", "--tool", "b"]
    code, report, _ = report_of([sys.executable, "-S", "-E", "-c", wrong], *tools, "--calls", "300")
    assert (code, report["calls"], report["error_kinds"]) == (1, 100, {"wrong_text": 200})


def test_ceiling_answers_with_the_result_it_was_given(ceiling: list[str]) -> None:
    result = canned_result(tuple(odd("plain")), LEGACY)
    assert json.loads(result) == {"content": [{"type": "text", "text": "hello"}]}
    run = drive(Shape(), [*ceiling, "--result", result], calls=10, more=["--sample"])
    assert json.loads(run.sample) == {"jsonrpc": "2.0", "id": 0, "result": json.loads(result)}


def test_modern_answers_must_say_that_they_are_complete(ceiling: list[str]) -> None:
    result = json.dumps({"resultType": "complete", "content": [{"type": "text", "text": "hello"}]})
    assert drive(Shape(64, era=MODERN), [*ceiling, "--result", result], calls=1_000).errors == 0
    with pytest.raises(RunFailed, match="bad_result"):
        drive(Shape(64, era=MODERN), ceiling, calls=1_000)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_many_connections(ceiling: list[str], kind: str, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/c.sock" if kind == "unix" else f"tcp://127.0.0.1:{free_port()}"
    with serving([*ceiling, "--listen"], address) as pid:
        run = drive(Shape(window=8, connections=50), address, calls=20_000, pid=pid)
    assert (run.calls, run.errors) == (20_000, 0)
    assert run.server["rss_mb"] > 0.5


def test_payloads_bigger_than_every_buffer_come_back_whole(ceiling: list[str]) -> None:
    run = drive(Shape(window=3, payload_bytes=1 << 20), [*ceiling, "--echo"], calls=40)
    assert (run.calls, run.errors) == (40, 0)
    assert run.loadgen["bytes_per_answer"] > 1 << 20


@pytest.mark.parametrize("way", ["plain", "reversed", "chatty", "escapes"])
def test_unusual_but_right_answers_are_right(way: str) -> None:
    code, report, _ = report_of(odd(way), "--window", "8", "--calls", "400")
    assert (code, report["calls"], report["error_kinds"]) == (0, 400, {})


# ---- the load generator against what is wrong ------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "kind", "count"),
    [
        ("doubles", "duplicate", 40),
        ("wrong_id", "unknown_id", None),
        ("text_id", "unknown_id", None),
        ("stale_id", "duplicate", 1),
        ("wrong_text", "wrong_text", 40),
        ("tool_error", "tool_error", 40),
        ("error", "error_answer", 40),
        ("no_json", "bad_json", None),
        ("no_result", "bad_result", 40),
        ("drops", "missing", None),
        ("late_double", "duplicate", 1),
    ],
)
def test_a_lying_server_is_caught(way: str, kind: str, count: int | None) -> None:
    code, report, _ = report_of(odd(way), "--window", "8", "--calls", "400", "--timeout", "0.3")
    assert code in (1, 3)
    assert report["error_kinds"][kind] == (count or report["error_kinds"][kind])
    assert report["errors"] == sum(report["error_kinds"].values()) > 0


def test_a_server_that_ends_is_told_with_its_exit_status() -> None:
    code, report, said = report_of(odd("ends"), "--calls", "400")
    assert (code, report["calls"], report["error_kinds"]) == (3, 49, {"missing": 1})
    assert "exit status 7" in said


def test_a_server_that_answers_everything_wrong_is_left_alone(ceiling: list[str]) -> None:
    code, report, said = report_of(ceiling, "--text", "not hello", "--window", "64", "--duration", "20")
    assert code == 1
    assert 1_000 < report["error_kinds"]["wrong_text"] < 2_000
    assert "most answers are wrong" in said


def test_a_server_that_hangs_ends_the_run() -> None:
    code, report, said = report_of(odd("hangs"), "--calls", "400", "--timeout", "0.2")
    assert (code, report["error_kinds"]) == (3, {"missing": 1})
    assert "nothing was answered" in said
    assert "killed" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--window", "x", "--", "true"], "--window x"),
        (["--era", "2020-01-01", "--", "true"], "--era 2020-01-01"),
        ([], "which server?"),
        (["--", "true"], "did not answer initialize"),
        (["--", "/does/not/exist"], "No such file"),
        (["unix:///does/not/exist"], "No such file"),
        (["ftp://here"], "an address is"),
    ],
)
def test_wrong_options_and_absent_servers_get_one_line(arguments: list[str], said: str) -> None:
    done = subprocess.run([build.binary("loadgen"), *arguments], capture_output=True, text=True, timeout=10)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["ceiling", "loadgen", "httpload"])
def test_the_programs_compile_without_a_warning(name: str, tmp_path: Path) -> None:
    source = ROOT / "benches" / f"{name}.c"
    subprocess.run(
        [*build.compiler(), *build.FLAGS, "-Werror", source, "-o", tmp_path / name, "-lm"], check=True
    )


# ---- what it measures ------------------------------------------------------------------------------------


def test_latencies_of_a_server_with_known_delays() -> None:
    reports = []
    for _ in range(
        5
    ):  # a busy machine can only add to a delay: the lower bounds hold always, the upper ones once
        _, report, _ = report_of(odd("slow"), "--calls", "100")
        latency = report["latency_us"]
        assert 10_000 <= latency["p50"] <= latency["p90"]  # 5 in 100 take 30 ms
        assert 30_000 <= latency["p99"] <= latency["max"]
        assert report["seconds"] == pytest.approx(100 / report["rate_per_s"], rel=1e-3)
        assert report["seconds"] > 95 * 0.01 + 5 * 0.03
        reports.append(latency)
        if latency["p50"] < 13_000 and latency["p90"] < 15_000:
            return
    pytest.fail(f"the delays of 10 ms were measured as {reports}")


def test_histogram_keeps_every_value_within_one_percent(tmp_path: Path) -> None:
    program = tmp_path / "histogram.c"
    program.write_text(
        '#include <stdio.h>\n#include "histogram.h"\nstatic histogram h;\n'
        'int main(void) {\nunsigned long long v;\nwhile (scanf("%llu", &v) == 1) histogram_add(&h, v);\n\n'
        'for (int i = 1; i <= 1000; i++) printf("%.6f\\n", histogram_quantile(&h, i / 1000.0));\nreturn 0; }\n'
    )
    native, binary = ROOT / "benches" / "native", tmp_path / "histogram"
    command = [*build.compiler(), *build.FLAGS, f"-I{native}", str(program), "-o", str(binary), "-lm"]
    subprocess.run(command, check=True)
    values = sorted(int(1.02**step) + step for step in range(1_000))  # from 1 ns to 400 ms
    text = "\n".join(map(str, values))
    told = subprocess.run([binary], input=text, capture_output=True, text=True, check=True).stdout.split()
    for value, said in zip(values, map(float, told), strict=True):
        assert said == pytest.approx(value, rel=0.008, abs=0.5)


# ---- budgets, figures and the gate -----------------------------------------------------------------------


def test_every_budget_has_its_figure_and_the_list_names_them() -> None:
    assert set(budgets()) == set(FIGURES)
    done = subprocess.run(
        [sys.executable, ROOT / "benches" / "run.py", "--list"], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(budgets())
    for line, budget in zip(lines, budgets().values(), strict=True):
        assert budget.says in line
        assert f"{budget.bar:g}" in line


def test_the_bars_are_those_that_were_promised() -> None:
    promised = {
        "stdio64_legacy": (0.40, 0.55),
        "stdio64_modern": (0.35, 0.50),
        "stdio_serial": (0.65, 0.75),
        "unix_100x8": (0.30, 0.45),
        "instructions": (6_000, 4_500),
        "vs_mcp": (200, 400),
        "spawn": (1.8, 1.3),
        "rss": (32, 26),
        "idle_connection": (12, 6),
        "tools_10000": (1.05, 1.02),
        "payload_1mib": (0.3, 0.6),
        "http_modern": (0.60, 0.85),
        "http_legacy": (0.60, 0.85),
        "http_vs_mcp": (20, 40),
        "http_cpu": (1.8, 1.3),
        "sse_progress": (0.4, 0.7),
        "ws_echo": (0.4, 0.6),
        "http_idle_session": (6, 3),
        "http_idle_connection": (16, 8),
        "http_idle_listen": (16, 8),
        "http_p99": (4, 2),
    }
    assert {name: (budget.bar, budget.aim) for name, budget in budgets().items()} == promised


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [("higher", 2.0, "aim"), ("higher", 1.5, "ok"), ("higher", 0.99, "MISSED"), ("lower", 2.01, "MISSED")],
)
def test_verdicts(better: str, value: float, verdict: str) -> None:
    bar, aim = (1.0, 2.0) if better == "higher" else (2.0, 1.0)
    assert Budget("n", "s", "x", better, bar, aim).verdict(value) == verdict


def run_of(rate: float) -> load.Run:
    return load.Run(
        calls=1, seconds=1, rate_per_s=rate, rate_p75_per_s=rate, latency_us={}, handshake_ms=0, loadgen={}
    )


def test_a_ratio_compares_neighbours_only() -> None:
    """The machine is three times as fast in the second half: the ratio of each pair stays what it was."""
    contest = Contest([run_of(r) for r in (5, 5, 15, 15, 15)], [run_of(r) for r in (10, 10, 30, 30, 10)])
    assert contest.ratio == 0.5
    assert contest.ratio_of_best == 0.5


def test_a_result_is_kept_with_what_it_depends_on(tmp_path: Path) -> None:
    budget = budgets()["stdio_serial"]
    keep(
        Row(budget, Measured(0.7, {"p50": 9.5}, 70_000, 100_000, [0.7]), "ok"),
        0.1,
        tmp_path / "r" / "one.jsonl",
    )
    keep(Row(budget, None, "skipped: no valgrind"), 0.1, tmp_path / "r" / "one.jsonl")
    first, second = map(json.loads, (tmp_path / "r" / "one.jsonl").read_text().splitlines())
    assert (first["figure"], first["value"], first["bar"], first["verdict"]) == (
        "stdio_serial",
        0.7,
        0.65,
        "ok",
    )
    assert first["latency_us"] == {"p50": 9.5}
    assert {"commit", "date", "machine"} <= set(first)
    assert second["value"] is None


def test_the_gate_fails_above_three_percent_and_not_below() -> None:
    assert gate.judge("case", 1_029, 1_000)[1]
    assert not gate.judge("case", 1_031, 1_000)[1]
    assert gate.judge("case", 500, 1_000)[1]
    assert gate.judge("case", 500, None)[1]


def test_the_gates_record_survives_being_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gate, "RECORD", tmp_path / "instructions.toml")
    record: dict[str, dict[str, int | str]] = {"3.12": {"build": "a", "waiting": 9}, "3.11": {"build": "b"}}
    gate.write_record(record)
    assert gate.read_record() == record
    assert list(tomllib.loads(gate.RECORD.read_text())) == ["3.11", "3.12"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.468, "0.47"), (25.34, "25.3"), (3940.1, "3,940"), (1_240_000, "1.24M")]
)
def test_numbers_are_written_to_be_read(value: float | None, text: str) -> None:
    assert number(value) == text
