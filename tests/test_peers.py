"""`make peers`: what it makes of a measurement, that its peers are the versions it tells of, and that ours does the workloads."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

from __future__ import annotations

import json
import re
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

from benches.load import LEGACY, MODERN, running
from benches.nginx import free_address
from benches.peers import run
from benches.peers.catalog import HERE, OURS, CannotBuild, Peer, Way, peers
from benches.peers.contests import Contestant, over_stdio
from benches.peers.report import report
from benches.peers.results import Look, Looks, Results, outcomes, ratio, read, told
from benches.peers.workloads import WORKLOADS, Shop, Workload, behind_the_shop, shop_lacks
from mcpfast.bench.drive import RunFailed

PEERS = {peer.name: peer for peer in peers()}
LABELS = {name: peer.label for name, peer in PEERS.items()}


# ---- a canned measurement --------------------------------------------------------------------------------


def look(rate: float, *, mb: float = 30.0, cpu: float = 10.0, ms: float = 50.0) -> Look:
    costs = {"p50_us": 1e6 / rate, "p99_us": 3e6 / rate, "cpu_us_per_request": cpu, "rss_mb": mb}
    return {"rate_per_s": rate, "mean_rate_per_s": rate, "start_ms": ms, **costs}


def measurement(**rows: Mapping[str, Looks]) -> Results:
    """Rows by their names with `_` for the space; peers by the names of their folders."""
    machine = {"cpu": "a processor", "processors": 2, "system": "Linux", "python": "3.11"}
    results = Results(
        "2026-11-29", "abc", machine, ["go version 1"], 3, 1.0, {p.label: told(p) for p in peers()}
    )
    for name, row in rows.items():
        results.rows[name.replace("_", " ")] = {LABELS.get(who, who): looks for who, looks in row.items()}
    return results


def test_a_ratio_is_taken_within_each_round() -> None:
    ours, theirs = [look(rate) for rate in (10, 90, 20)], [look(rate) for rate in (5, 9, 5)]
    found = ratio(ours, theirs, "rate_per_s")
    assert found is not None
    assert (found.low, found.median, found.high) == (2, 4, 10), "not 20 / 5, the ratio of the medians"
    assert ratio(ours, "it failed", "rate_per_s") is None
    assert ratio(ours, [{"rate_per_s": None}] * 3, "rate_per_s") is None


def test_who_is_ahead_of_us_is_told() -> None:
    row: dict[str, Looks] = {OURS: [look(100, mb=30)], "rmcp": [look(125, mb=5)], "go": [look(50, mb=40)]}
    text = report(measurement(**{f"http32_{MODERN}": row}))
    assert f"- http32 {MODERN}: {LABELS['rmcp']} (calls/s, p50, p99, MB)" in text
    assert f"| {LABELS['rmcp']} | **125** | **0.80 (0.80 to 0.80)** |" in text
    assert f"| {LABELS['go']} | 50 | 2.00 (2.00 to 2.00) |" in text
    assert text.index(f"| {LABELS['rmcp']} | **125**") < text.index("| **mcpfast** | 100"), (
        "the best comes first"
    )
    row = {OURS: [look(1)], "go": [look(1, ms=60)]}
    assert "Nowhere, in what was measured." in report(measurement(start=row))


def test_less_is_better_where_it_is() -> None:
    text = report(
        measurement(start={OURS: [look(1, ms=50)], "mcp": [look(1, ms=500)], "rmcp": [look(1, ms=5)]})
    )
    assert f"| {LABELS['mcp']} | 500 ms | 10.00 (10.00 to 10.00) |" in text
    assert f"| {LABELS['rmcp']} | **5.0 ms** | **0.10 (0.10 to 0.10)** |" in text


def test_failures_and_absences_are_told() -> None:
    row: dict[str, Looks] = {OURS: [look(9)], "typescript": "wrong answers: {'bad_id': 3}"}
    results = measurement(**{f"stdio1_{LEGACY}": row})
    results.missing[LABELS["go"]] = "go is not here. Get it: https://go.dev/dl"
    results.left_out["the workloads"] = "redis-server is not here"
    text = report(results)
    assert f"| {LABELS['typescript']} | failed: wrong answers: {{'bad_id': 3}} |" in text
    assert (
        f"Left out: {LABELS['go']} (go is not here. Get it: https://go.dev/dl); the workloads (redis-server"
        in text
    )


# ---- what was promised -----------------------------------------------------------------------------------


def promised(results: Results, words: str) -> tuple[float | None, str, str, tuple[str, ...]]:
    one = next(one for one in outcomes(results) if one.promise.says.startswith(words))
    return one.ratio.median if one.ratio else None, one.verdict, one.against, one.unmeasured


def test_the_worse_era_counts() -> None:
    row: dict[str, Looks] = {OURS: [look(900)], "rmcp": [look(100)], "go": [look(10)]}
    modern: dict[str, Looks] = {OURS: [look(500)], "go": [look(100)]}
    results = measurement(**{f"stdio64_{LEGACY}": row, f"stdio64_{MODERN}": modern})
    value, verdict, against, unmeasured = promised(results, "stdio echo, 64")
    assert (value, verdict, against) == (5, "**MISSED**", LABELS["go"])
    assert LABELS["mcp"] in unmeasured
    assert LABELS["rmcp"] not in unmeasured
    del results.rows[f"stdio64 {MODERN}"]
    assert promised(results, "stdio echo, 64")[:3] == (9, "ok", LABELS["rmcp"])
    results.rows[f"stdio64 {MODERN}"] = {LABELS[OURS]: "it ended", LABELS["go"]: [look(100)]}
    assert promised(results, "stdio echo, 64")[1] == "not measured", "ours failed in one of them"


def test_promises_about_python_are_held_to_python() -> None:
    row: dict[str, Looks] = {
        OURS: [look(9, mb=30, ms=60)],
        "mcp": [look(9, mb=75, ms=400)],
        "rmcp": [look(9, mb=5, ms=3)],
    }
    results = measurement(**{f"stdio64_{LEGACY}": row, "start": row})
    assert promised(results, "memory") == (0.4, "ok", LABELS["mcp"], (LABELS["fastmcp"],))
    results.rows[f"stdio64 {MODERN}"] = {LABELS[OURS]: [look(9, mb=45)], LABELS["mcp"]: [look(9, mb=75)]}
    assert promised(results, "memory")[:2] == (0.6, "**MISSED**"), "the worse era, also where less is better"
    del results.rows[f"stdio64 {MODERN}"]
    assert promised(results, "cold start")[:2] == (0.15, "aim")
    text = report(results)
    assert (
        f"| 0.5 | 0.35 | **0.40 (0.40 to 0.40)** | ok | {LABELS['mcp']} (stdio64 {LEGACY}); not measured: "
        in text
    )


def test_the_shop_is_promised_with_the_best_clients_against_rmcp() -> None:
    row: dict[str, Looks] = {
        "mcpfast, best clients": [look(9, cpu=110)],
        "mcpfast, httpx and redis-py": [look(9, cpu=400)],
        "rmcp": [look(9, cpu=100)],
        "turbomcp": [look(9, cpu=50)],
        "mcp": [look(9, cpu=1200)],
    }
    results = measurement(shop_modern=row)
    assert promised(results, "shop")[:3] == (1.1, "ok", LABELS["rmcp"])
    text = report(results)
    assert f"| {LABELS['mcp']} | 1,200 | 10.91 (10.91 to 10.91) | 3.00 (3.00 to 3.00) |" in text
    assert f"| {LABELS['rmcp']} | **100** | **0.91 (0.91 to 0.91)** |  |" in text
    assert "Known\ndefects" in text
    assert "50 users join one after another within 1.5 s (published: 15 s)" in text


def test_what_was_not_measured_is_said() -> None:
    results = measurement(start={OURS: [look(1)]})
    assert promised(results, "shop") == (None, "not measured", "nobody", (LABELS["rmcp"],))
    assert all(one.verdict == "not measured" for one in outcomes(results))
    assert report(results).count("| not measured |") == 6


def test_results_are_kept_whole(tmp_path: Path) -> None:
    results = measurement(start={OURS: [look(1)], "rmcp": "it ended"})
    run.write(results, tmp_path / "RESULTS.md", tmp_path / "results.json")
    assert read(tmp_path / "results.json") == results
    assert (tmp_path / "RESULTS.md").read_text() == report(results)


# ---- rounds ----------------------------------------------------------------------------------------------


def peer(name: str, *command: str) -> Peer:
    return replace(PEERS[OURS], name=name, title=name, ways=(Way("stdio", (LEGACY, MODERN), command),))


@pytest.fixture
def quiet_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Peers keep their logs here for the test."""
    monkeypatch.setattr(Peer, "log", property(lambda _: tmp_path / "stderr.log"))
    return tmp_path / "stderr.log"


def test_every_round_begins_at_the_other_end(quiet_log: Path) -> None:
    asked: list[str] = []
    told_of: list[tuple[str, bool]] = []

    def one_look(one: Contestant) -> Look:
        asked.append(one.label)
        return look(len(asked))

    contestants = [Contestant(peer(name), Way("stdio", (), ()), name) for name in "abc"]
    row = run.in_turns("row", contestants, one_look, 3, lambda *words: told_of.append(words))
    assert "".join(asked) == "abccbaabc"
    assert row["a"] == [look(1), look(6), look(7)]
    assert told_of[-1] == ("row", True)


def test_a_failed_look_ends_a_server_and_tells_its_last_words(
    quiet_log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet_log.write_text("x" * 5000 + "\nAddress already in use\n")

    def one_look(one: Contestant) -> Look:
        if one.label == "b":
            raise RunFailed("it ended\nmore")
        return look(1)

    contestants = [Contestant(peer(name), Way("stdio", (), ()), name) for name in "ab"]
    row = run.in_turns("row", contestants, one_look, 3, lambda *_: None)
    assert row == {"a": [look(1)] * 3, "b": "it ended"}
    said = capsys.readouterr().err
    assert said.count("b failed: it ended") == 1
    assert said.endswith("Address already in use\n")
    assert len(said) < 1200


# ---- peers and what they are built with ------------------------------------------------------------------


def pinned(name: str) -> str:
    """The version of the SDK in the file that the peer is built from."""
    folder = HERE / name
    if name in ("mcp", "fastmcp"):
        return str(re.findall(rf"^{name}==(\S+)$", (folder / "requirements.txt").read_text(), re.M)[0])
    if name == "go":
        return str(
            re.findall(r"modelcontextprotocol/go-sdk v(\S+)$", (folder / "go.mod").read_text(), re.M)[0]
        )
    if name == "typescript":
        wanted = json.loads((folder / "package.json").read_text())["dependencies"][
            "@modelcontextprotocol/server"
        ]
        locked = json.loads((folder / "package-lock.json").read_text())["packages"]
        assert locked["node_modules/@modelcontextprotocol/server"]["version"] == wanted
        return str(wanted)
    wanted = tomllib.loads((folder / "Cargo.toml").read_text())["dependencies"][name]["version"]
    locked = tomllib.loads((folder / "Cargo.lock").read_text())["package"]
    assert [one["version"] for one in locked if one["name"] == name] == [wanted.lstrip("=")]
    return str(wanted.lstrip("="))


@pytest.mark.parametrize("name", [name for name in PEERS if name != OURS])
def test_versions_are_those_that_are_built(name: str) -> None:
    assert PEERS[name].version == pinned(name)
    assert PEERS[name].version in (HERE / "README.md").read_text()
    assert PEERS[name].documentation in (HERE / "README.md").read_text()


def test_ours_comes_first_and_all_speak_both_transports() -> None:
    assert next(iter(PEERS)) == OURS
    for one in PEERS.values():
        assert one.way("stdio", LEGACY)
        assert one.way("http", LEGACY)
    silent = [
        name for name, one in PEERS.items() if not one.way("stdio", MODERN) or not one.way("http", MODERN)
    ]
    assert silent == ["turbomcp"]


def test_a_missing_toolchain_is_told_with_where_to_get_it() -> None:
    absent = replace(PEERS["go"], needs={"no-such-program": "https://example.com"})
    assert absent.lacks == "no-such-program is not here. Get it: https://example.com"
    with pytest.raises(CannotBuild, match="no-such-program is not here"):
        absent.build()


def test_a_build_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Peer, "build_folder", property(lambda _: tmp_path))
    broken = replace(PEERS[OURS], steps=(("sh", "-c", "echo no such crate >&2; exit 1"),))
    with pytest.raises(CannotBuild, match="no such crate"):
        broken.build()
    assert not broken.is_built
    replace(PEERS[OURS], steps=(("true",),)).build()
    assert replace(PEERS[OURS], steps=(("true",),)).is_built
    assert not broken.is_built


def test_what_a_server_says_goes_to_its_log_and_a_slow_start_is_in_no_figure(quiet_log: Path) -> None:
    quiet_log.write_text("of an earlier look")
    slow = 'echo chatter >&2; sleep 0.7; exec "$@"'
    echo = peer("slow", "sh", "-c", slow, "sh", sys.executable, str(ROOT / "examples" / "echo.py"))
    found = over_stdio(1)(Contestant(echo, echo.ways[0], "slow"), MODERN, 0.3)
    assert found["p99_us"] < 300_000
    assert found["mean_rate_per_s"] > 100
    assert quiet_log.read_text() == "chatter\n"


def test_a_server_that_ends_is_a_failure(quiet_log: Path) -> None:
    ends = peer("ends", "sh", "-c", "exit 3")
    with pytest.raises(RunFailed):
        over_stdio(1)(Contestant(ends, ends.ways[0], "ends"), LEGACY, 0.1)


# ---- the workloads ---------------------------------------------------------------------------------------


def workload(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


def test_a_workload_knows_its_ceiling() -> None:
    found = {one.name: round(one.ceiling_per_s) for one in WORKLOADS}
    assert found == {"v1 sessions": 909, "v1 modern": 455, "shop sessions": 8000, "shop modern": 4000}


def test_ours_runs_workloads_with_two_sets_of_clients() -> None:
    labels = [one.label for one in workload("v1 modern").contestants(list(PEERS.values()))]
    assert labels[:2] == ["mcpfast, best clients", "mcpfast, httpx and redis-py"]
    assert LABELS["turbomcp"] not in labels
    assert len({row.name for row in run.ROWS}) == len(run.ROWS)


class Constant(BaseHTTPRequestHandler):
    """What the v1 workload fetches."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"message": "hello"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def constant_api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Constant) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def briefly(one: Workload, shop: Shop, address: str, pid: int) -> Look:
    """With few users, so that all have come around on a busy machine, too. Raises RunFailed when one answer is wrong."""
    shape = {"connections": 3, "ramp_s": 0.1, "warmup_s": 0.1, "duration_s": 1.0}
    return one.drive(address, msgspec.structs.replace(one.scenario(shop), **shape), pid, 1.0)


@pytest.mark.parametrize("name", ["v1 sessions", "v1 modern"])
def test_our_peer_answers_the_first_workload(name: str) -> None:
    address = free_address()
    port = address.rpartition(":")[2].partition("/")[0]
    with (
        constant_api() as api,
        running([sys.executable, str(HERE / OURS / "peer.py"), "http", port], address) as pid,
    ):
        found = briefly(workload(name), Shop(api, ""), address, pid)
    tools = {"call calculate_fibonacci", "call fetch_external_data", "call process_json_data", "list tools"}
    assert tools <= {kind["name"] for kind in found["kinds"]}


def test_a_wrong_answer_fails_the_workload() -> None:
    address = free_address()
    port = address.rpartition(":")[2].partition("/")[0]
    with running([sys.executable, str(HERE / OURS / "peer.py"), "http", port], address) as pid:
        with pytest.raises(RunFailed):
            briefly(workload("v1 modern"), Shop("http://127.0.0.1:9", ""), address, pid)


@pytest.mark.plain_build  # Redis has an allocator of its own, which the sanitizer's does not go with
@pytest.mark.skipif(bool(shop_lacks()), reason=f"the shop: {shop_lacks()}")
@pytest.mark.skipif(not PEERS[OURS].is_built, reason="make peers has not been run here")
def test_our_peer_answers_the_shop_with_both_clients() -> None:
    one = workload("shop modern")
    with behind_the_shop() as shop:
        shop.seed()
        for contestant in one.contestants([PEERS[OURS]]):
            address = free_address()
            command = contestant.command(address, API_URL=shop.api, REDIS_URL=shop.redis)
            with running(command, address) as pid:
                kinds = {kind["name"] for kind in briefly(one, shop, address, pid)["kinds"]}
            tools = {"call search_products", "call get_user_cart", "call checkout", "list tools"}
            assert tools <= kinds, contestant.label
