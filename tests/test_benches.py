"""What the figures are made with: the ceiling, budgets, the gate. The load engine has tests of its own (test_bench.py)."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import json
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

import benches.figures_http
import benches.figures_tenants  # noqa: F401  (they add their figures to FIGURES)
from benches import build, figures_latency, gate
from benches.budgets import Budget, budgets
from benches.figures import ECHO, FIGURES, Measured, Setting, canned_result
from benches.load import LEGACY, MODERN, RunFailed, Shape, drive, sample, serving
from benches.rounds import Contest
from benches.table import Row, keep
from mcpfast.bench.result import Result
from mcpfast.bench.view import number

TRANSPORTS = ["stdio", "unix", "tcp", "http", "ws"]
ERAS = ["2025", "2026"]


@pytest.fixture(scope="module")
def ceiling() -> list[str]:
    return [str(build.binary("ceiling"))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- the ceiling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 64, 1000])
@pytest.mark.parametrize("lockstep", [False, True])
def test_ceiling_answers_every_call_once(ceiling: list[str], window: int, lockstep: bool) -> None:
    run = drive(Shape(window=window, lockstep=lockstep), ceiling, calls=5_000)
    assert (run.requests, run.errors) == (5_000, 0)
    assert 0 < run.latency_us["p50"] <= run.latency_us["p99"] <= run.latency_us["max"]


def test_ceiling_answers_with_the_result_it_was_given(ceiling: list[str]) -> None:
    result = canned_result(tuple(ECHO), LEGACY)
    assert json.loads(result)["content"] == [{"type": "text", "text": "hello"}]
    assert json.loads(sample([*ceiling, "--result", result], LEGACY))["result"] == json.loads(result)


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
    assert (run.requests, run.errors) == (20_000, 0)
    assert run.server["rss_mb"] > 0.5


def test_payloads_bigger_than_every_buffer_come_back_whole(ceiling: list[str]) -> None:
    run = drive(Shape(window=3, payload_bytes=1 << 20), [*ceiling, "--echo"], calls=40)
    assert (run.requests, run.errors) == (40, 0)
    assert run.generator["bytes_per_answer"] > 1 << 20


def test_the_ceiling_compiles_without_a_warning(tmp_path: Path) -> None:
    source = ROOT / "benches" / "ceiling.c"
    subprocess.run(
        [*build.compiler(), *build.FLAGS, "-Werror", source, "-o", tmp_path / "c", "-lm"], check=True
    )


def test_a_server_that_is_wrong_is_no_figure(ceiling: list[str]) -> None:
    with pytest.raises(RunFailed, match="the server ended before"):
        drive(Shape(), [sys.executable, "-c", "input(); exit(3)"], calls=10)
    wrong = json.dumps({"content": [{"type": "text", "text": "hallo"}]})
    with pytest.raises(RunFailed, match=r"wrong answers.*wrong_text"):
        drive(Shape(), [*ceiling, "--result", wrong], calls=10)


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
        "tenants_http": (0.85, 0.95),
        "tenants_http_legacy": (0.85, 0.95),
        "tenants_stdio": (0.85, 0.95),
        "tenants_stdio_serial": (0.85, 0.95),
        "tenants_admission": (1_500, 600),
        "tenants_10000": (0.90, 0.97),
        "tenant_memory": (4, 1.5),
        "tenants_quiet_p99": (2.0, 1.3),
        "tenants_list": (0.9, 1.0),
        "tenants_reload": (20, 5),
    }
    known = {name: (budget.bar, budget.aim) for name, budget in budgets().items()}
    assert {name: known[name] for name in known if name not in latency_rows()} == promised


def latency_rows() -> set[str]:
    """What is said of every transport in both eras."""
    loads = ["one_p50", "one_p99", "half_p50", "half_p99"]
    rows = {f"{transport}_{era}_{load}" for transport in TRANSPORTS for era in ERAS for load in loads}
    rows |= {f"http_{era}_full_rate" for era in ERAS}
    return rows | {
        f"{transport}_{era}_{load}"
        for transport in set(TRANSPORTS) - {"http"}
        for era in ERAS
        for load in ("over_p99", "over_refusal_p99")
    }


def test_latencies_are_held_for_every_transport_and_era() -> None:
    known = budgets()
    assert latency_rows() <= set(known)
    assert [known[f"stdio_2025_{load}"].bar for load in ("one_p99", "half_p99", "over_p99")] == [
        3.0,
        4.0,
        2.0,
    ]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_and_its_reference_answer_over_every_transport(transport: str, era: str) -> None:
    """Everything is checked: a reference that answered something else would be no reference."""
    setting = Setting(tuple(ECHO), rounds=1, seconds=0.1)
    if transport == "http" and shutil.which("nginx") is None:
        pytest.skip("needs nginx: apt-get install -y nginx-light")
    with figures_latency.ready(setting, transport, era) as pair:
        shape = figures_latency.open_loop(transport, figures_latency.era_of(transport, era), 500)
        for run in (pair.ours(shape), pair.reference(shape)):
            assert run.errors == 0
            assert run.requests > 20


def test_a_full_server_refuses_at_once_and_the_others_keep_their_time() -> None:
    """The bars themselves are for `make bench`; what must hold on the noisiest machine is held here."""
    setting = Setting(tuple(ECHO), rounds=1, seconds=0.3)
    taken = figures_latency.measure(setting, transport="unix", era="2026", kind="over_p99")
    refused = figures_latency.measure(setting, transport="unix", era="2026", kind="over_refusal_p99")
    assert int(taken.note.split()[0]) > 100
    assert taken.value < 10
    assert refused.value < 5


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [("higher", 2.0, "aim"), ("higher", 1.5, "ok"), ("higher", 0.99, "MISSED"), ("lower", 2.01, "MISSED")],
)
def test_verdicts(better: str, value: float, verdict: str) -> None:
    bar, aim = (1.0, 2.0) if better == "higher" else (2.0, 1.0)
    assert Budget("n", "s", "x", better, bar, aim).verdict(value) == verdict


def run_of(rate: float) -> Result:
    return cast("Result", SimpleNamespace(rate_per_s=rate, rate_p75_per_s=rate, latency_us={}))


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
    ("value", "text"), [(0.468, "0.47"), (25.34, "25.3"), (3940.1, "3,940"), (1_240_000, "1.24M")]
)
def test_numbers_are_written_to_be_read(value: float, text: str) -> None:
    assert number(value) == text
