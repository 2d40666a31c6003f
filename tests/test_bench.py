"""`mcpfast bench` is tested like a product: what is right passes, what lies is caught, and times are what they were."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_UNIX, create_server, socket
from statistics import median, quantiles
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the load engine is built on epoll", allow_module_level=True)

from mcpfast.bench import command, processes, target, view
from mcpfast.bench.drive import Run, RunFailed, drive_target, result_of, run
from mcpfast.bench.messages import Speech, frame_head, masked
from mcpfast.bench.plan import Expectation, Plan, Step
from mcpfast.bench.probe import meet
from mcpfast.bench.scenario import Action, Scenario, ScenarioError, in_turns, read_scenario, steps_of
from mcpfast.bench.target import target_of
from mcpfast.errors import AddressError
from mcpfast.protocol.revisions import BY_VERSION, LATEST

ROOT = Path(__file__).resolve().parents[1]
LEGACY, MODERN = BY_VERSION["2025-06-18"], LATEST
ECHO = Scenario(action=[Action(call="echo", arguments={"text": "hello"}, expect="hello")])

# A server that answers `echo` in its own way: the first argument says which.
ODD_SERVER = """
import json, sys, time
way, turn, held = sys.argv[1], 0, []
def say(id, text="hello", **more):
    result = {"content": [{"type": "text", "text": text}], **more}
    held.append(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}))
def flush():
    print("\\n".join(held), flush=True); held.clear()
def error(id, code):
    held.append(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}}))
for line in sys.stdin:
    message = json.loads(line)
    id, method = message.get("id"), message.get("method")
    if method == "initialize" and way == "refuses": error(id, -32600); flush(); continue
    if method == "initialize": say(id, protocolVersion="2025-06-18"); flush(); continue
    if method == "tools/list": say(id, tools=[{"name": "echo"}]); flush(); continue
    if method == "server/discover": error(id, -32601); flush(); continue
    if method == "notifications/cancelled" and way == "late": say(message["params"]["requestId"]); flush(); continue
    if method is None and way == "asks": assert message.get("result") == {} or message["error"]["code"] == -32601; continue
    if id is None: continue
    turn += 1
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
    elif way == "error" and odd: error(id, -1)
    elif way == "busy" and odd: error(id, 4290)
    elif way == "escapes" and odd: say(id); held[-1] = held[-1].replace("hello", "h\\\\u0065llo")
    elif way == "id_last": say(id); m = json.loads(held[-1]); held[-1] = json.dumps({**{k: m[k] for k in m if k != "id"}, "id": id})
    elif way == "crlf": say(id); held[-1] += "\\r"
    elif way == "chatty": held.append('{"jsonrpc": "2.0", "method": "notifications/message"}'); say(id)
    elif way == "asks": held.append('{"jsonrpc": "2.0", "id": "s1", "method": "%s"}' % ("ping" if odd else "roots/list")); say(id)
    elif way == "late" and odd: continue
    elif way == "json": say(id, json.dumps({"total": 3, "rows": [1, [2], "]"], "deep": {"a": "x"}}))
    elif way == "reversed":
        say(id)
        if len(held) < 8: continue
        held.reverse()
    else: say(id)
    if held: flush()
if held: flush()
if way == "late_double": say(id); flush()
if way == "stays": time.sleep(60)
"""


def odd(way: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", ODD_SERVER, way]


def planned(scenario: Scenario, *, revision: Any = LEGACY, **more: Any) -> Plan:
    steps = steps_of(scenario, Speech("lines", revision))
    plan = Plan("lines", steps.steps, steps.body, steps.prologue, warmup_s=0, timeout_s=0.4, intervals=0)
    return replace(plan, scripted=scenario.script, stride=steps.stride, **more)


def driven(server: list[str], scenario: Scenario = ECHO, **more: Any) -> Run:
    return drive_target(target_of(None, server), planned(scenario, **more))


def bench(*arguments: str, timeout: float = 30) -> tuple[int, dict[str, Any], str]:
    """Exit code, figures and standard error of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "mcpfast", "bench", "--json", "-", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


# ---- what is right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 64, 1000])
@pytest.mark.parametrize("lockstep", [False, True])
def test_every_call_is_answered_once(window: int, lockstep: bool) -> None:
    outcome = driven(odd("plain"), window=window, lockstep=lockstep, calls=2_000).outcome
    assert (outcome["answered"], outcome["errors"]) == (2_000, 0)
    latency = outcome["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


@pytest.mark.parametrize("way", ["plain", "reversed", "chatty", "asks", "escapes", "id_last", "crlf"])
def test_unusual_but_right_answers_are_right(way: str) -> None:
    done = driven(odd(way), window=8, calls=400)
    assert (done.outcome["answered"], done.wrong) == (400, {}), done.outcome["first_error"]


def test_json_in_the_text_is_looked_into() -> None:
    def looked_for(**members: Any) -> dict[str, int]:
        action = Action(call="echo", arguments={"text": "hello"}, **members)
        return driven(odd("json"), Scenario(action=[action]), calls=20).wrong

    assert looked_for(expect_json={"total": 3, "deep.a": "x"}, expect_items={"rows": 3}) == {}
    for wrong in ({"total": 4}, {"deep.b": 1}, {"deep.a": "y"}, {"none": 3}):
        assert looked_for(expect_json=wrong) == {"wrong_text": 20}
    assert looked_for(expect_items={"rows": 2}) == {"wrong_text": 20}
    assert looked_for(expect_items={"total": 0}) == {"wrong_text": 20}


def test_refusals_are_no_errors_and_are_told_apart() -> None:
    done = driven(odd("busy"), window=8, calls=400)
    assert (done.wrong, done.outcome["refused"], done.outcome["answered"]) == ({}, 40, 360)
    assert done.outcome["refused_latency_us"]["p50"] > 0


def test_cancelled_calls_are_neither_errors_nor_answers_even_when_they_are_answered() -> None:
    action = Action(call="echo", arguments={"text": "hello"}, expect="hello", cancel_after_ms=5)
    done = driven(odd("late"), Scenario(action=[action]), window=4, calls=100)
    assert done.wrong == {}
    assert done.outcome["verdicts"]["cancelled"] >= 10
    assert done.outcome["answered"] == 90


def test_modern_answers_must_say_that_they_are_complete() -> None:
    assert driven(odd("plain"), revision=MODERN, calls=100).wrong == {"bad_result": 100}


def test_the_start_of_a_command_is_no_part_of_its_calls() -> None:
    """Of either era; 2026-07-28 has no handshake that would be waited for."""
    late = "import time; time.sleep(0.5)\n" + ODD_SERVER.replace(
        '"text": text}]', '"text": text}], "resultType": "complete"'
    )
    for revision in (LEGACY, MODERN):
        server = [sys.executable, "-S", "-E", "-c", late, "plain"]
        done = driven(server, revision=revision, duration_s=0.2, timeout_s=5)
        assert done.wrong == {}, done.outcome["first_error"]
        assert done.outcome["latency_us"]["max"] < 300_000


# ---- what is wrong ---------------------------------------------------------------------------------------


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
    ],
)
def test_a_lying_server_is_caught(way: str, kind: str, count: int | None) -> None:
    done = driven(odd(way), window=8, calls=400)
    assert done.wrong[kind] == (count or done.wrong[kind])
    assert done.outcome["errors"] == sum(done.wrong.values()) > 0
    assert done.outcome["first_error"]


def test_a_server_that_ends_is_told_with_its_exit_status() -> None:
    outcome = driven(odd("ends"), calls=400).outcome
    assert outcome["failure"] == "the server ended before the run did (exit status 7)"
    assert (outcome["answered"], outcome["verdicts"]["lost"]) == (49, 1)


def test_a_server_that_hangs_ends_the_run() -> None:
    outcome = driven(odd("hangs"), calls=400).outcome
    assert outcome["failure"].startswith("nothing was answered for 0.4 s")
    assert outcome["verdicts"]["missing"] == 1


def test_a_server_that_stays_when_its_input_has_ended_is_killed_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(target, "END_S", 0.2)
    plan = planned(ECHO, calls=100)
    result = result_of(drive_target(target_of(None, odd("stays")), plan), plan, target="odd", era="")
    assert any("killed" in warning for warning in result.warnings)
    assert result.errors == 0


def test_a_server_that_answers_everything_wrong_is_left_alone() -> None:
    scenario = Scenario(action=[Action(call="echo", arguments={"text": "x"}, expect="not hello")])
    done = driven(odd("plain"), scenario, window=64, duration_s=20.0)
    assert 1_000 < done.wrong["wrong_text"] < 3_000


def test_a_server_that_refuses_initialize_ends_the_run_before_it_begins() -> None:
    outcome = driven(odd("refuses"), calls=10).outcome
    assert "the server refuses what comes first" in outcome["failure"]
    assert outcome["answered"] == 0


# ---- time ------------------------------------------------------------------------------------------------


class Held:
    """A server over a Unix socket that holds each call as long as it was told, and knows how long it really was."""

    def __init__(self, path: Path, hold: Callable[[int], float]) -> None:
        self.hold, self.took = hold, []
        self.door = socket(AF_UNIX)
        self.door.bind(str(path))
        self.door.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with self.door:
            connection, _ = self.door.accept()
            with connection, connection.makefile("rb") as stream:
                try:
                    for number, line in enumerate(stream):
                        connection.sendall(self.answer(number, line))
                except OSError:
                    return

    def answer(self, number: int, line: bytes) -> bytes:
        began = time.perf_counter()
        until = began + self.hold(number)
        result = {"resultType": "complete", "content": [{"type": "text", "text": "hello"}]}
        said = json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": result}).encode()
        while (left := until - time.perf_counter()) > 0:
            time.sleep(left / 2 if left > 2e-4 else 0)
        self.took.append((time.perf_counter() - began) * 1e6)
        return said + b"\n"


def held_run(tmp_path: Path, hold: Callable[[int], float], **more: Any) -> tuple[dict[str, Any], list[float]]:
    path = tmp_path / f"{time.monotonic_ns()}.sock"
    server = Held(path, hold)
    plan = replace(planned(ECHO, revision=MODERN), address=str(path), timeout_s=10.0, intervals=20)
    outcome = run(replace(plan, **more)).outcome
    server.thread.join(5)
    assert outcome["errors"] == 0, outcome["first_error"]
    return outcome, server.took


def way_there_and_back_us(tmp_path: Path, hold: Callable[[int], float]) -> float:
    """What a plain client sees beyond the delay itself: waking two processes takes 20 us on one machine and 100 on another."""
    path = tmp_path / f"{time.monotonic_ns()}.sock"
    server = Held(path, hold)
    seen = []
    with socket(AF_UNIX) as client:
        client.connect(str(path))
        for id in range(60):
            began = time.perf_counter()
            client.sendall(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % id)
            client.recv(4_096)
            seen.append((time.perf_counter() - began) * 1e6)
    server.thread.join(5)
    return median(saw - took for saw, took in zip(seen, server.took, strict=True))


HOLDS: dict[str, Callable[[int], float]] = {
    "constant": lambda number: 0.004,
    "bimodal": lambda number: 0.02 if number % 5 == 3 else 0.002,
    "three": lambda number: (0.001, 0.003, 0.009)[number % 3],
}


@pytest.mark.plain_build
@pytest.mark.parametrize("shape", list(HOLDS))
def test_percentiles_of_known_delays_are_right_within_two_percent(tmp_path: Path, shape: str) -> None:
    seen = []
    for _ in range(12):  # a neighbour on the processor for some seconds spoils a few
        outcome, took = held_run(tmp_path, HOLDS[shape], calls=200)
        at = quantiles(took, n=1000, method="inclusive")
        way = way_there_and_back_us(tmp_path, HOLDS[shape])
        told = [outcome["latency_us"][name] for name in ("p50", "p90", "p99")]
        seen.append((told, [at[499] + way, at[899] + way, at[989] + way]))
        if told == pytest.approx(seen[-1][1], rel=0.02):
            return
    pytest.fail(f"told and true: {seen}")


@pytest.mark.plain_build
def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(tmp_path: Path) -> None:
    """100 ms without an answer at 500 requests a second: fifty requests waited, and not one."""
    stall = lambda number: 0.1 if number == 100 else 0.0  # noqa: E731
    closed, _ = held_run(tmp_path, stall, calls=500)
    open_, _ = held_run(tmp_path, stall, rate=500.0, even=True, duration_s=1.0, window=256)
    assert closed["latency_us"]["p99"] < 20_000
    assert open_["latency_us"]["max"] == pytest.approx(100_000, rel=0.1)
    # of 500 requests, 50 waited between 0 and 100 ms: the slowest 2 % of all 80 ms and more
    assert dict(open_["percentiles"])[1 - 10**-1.7] == pytest.approx(82_000, rel=0.15)
    assert max(interval["max"] for interval in open_["intervals"]) > 90_000


@pytest.mark.plain_build
def test_an_open_loop_keeps_its_rate_and_its_moments_come_from_the_seed(tmp_path: Path) -> None:
    def requests(seed: int, **more: Any) -> int:
        quick = lambda number: 0.0  # noqa: E731
        outcome, _ = held_run(tmp_path, quick, rate=2_000.0, duration_s=0.5, window=64, seed=seed, **more)
        return int(outcome["requests"])

    assert requests(1, even=True) == pytest.approx(1_000, abs=3)
    first, again, *others = (requests(seed) for seed in (7, 7, 8, 9, 10))
    assert abs(first - again) <= 3
    assert max(others) - min(others) > 3
    assert 850 < first < 1_150


def test_the_histogram_keeps_every_value_within_one_percent(tmp_path: Path) -> None:
    program = tmp_path / "histogram.c"
    program.write_text(
        '#include <stdio.h>\n#include "histogram.h"\nstatic histogram h;\n'
        'int main(void) {\nunsigned long long v;\nwhile (scanf("%llu", &v) == 1) histogram_add(&h, v);\n\n'
        'for (int i = 1; i <= 1000; i++) printf("%.6f\\n", histogram_quantile(&h, i / 1000.0));\nreturn 0; }\n'
    )
    native = Path(command.__file__).parent / "native"
    binary = tmp_path / "histogram"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", f"-I{native}", program, "-o", binary, "-lm"], check=True)
    values = sorted(int(1.02**step) + step for step in range(1_000))  # from 1 ns to 400 ms
    text = "\n".join(map(str, values))
    told = subprocess.run([binary], input=text, capture_output=True, text=True, check=True).stdout.split()
    for value, said in zip(values, map(float, told), strict=True):
        assert said == pytest.approx(value, rel=0.008, abs=0.5)


# ---- HTTP ------------------------------------------------------------------------------------------------


class OddHttp(BaseHTTPRequestHandler):
    """An HTTP server of every manner that one may have."""

    protocol_version = "HTTP/1.1"
    way = "plain"
    seen: list[str] = []  # noqa: RUF012

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(message["method"])
        if "id" not in message:
            return self.reply(202, b"")
        if message["method"] == "initialize":
            return self.reply(200, self.answer(message), {"Mcp-Session-Id": "s-1"})
        if "Mcp-Session-Id" in self.headers:
            assert self.headers["Mcp-Session-Id"] == "s-1"
        return self.call(message)

    def do_DELETE(self) -> None:
        self.seen.append("DELETE")
        self.reply(405, b"")

    def answer(self, message: Any, text: str = "hello") -> bytes:
        result = {"resultType": "complete", "content": [{"type": "text", "text": text}]}
        return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def call(self, message: Any) -> None:
        way, body = self.way, self.answer(message)
        if way == "status":
            self.reply(500, b"oops")
        elif way == "busy":
            self.reply(503, b"later")
        elif way == "wrong_text":
            self.reply(200, self.answer(message, "hallo"))
        elif way == "twice":
            self.reply(200, body)
            self.reply(200, body)
        elif way == "other_id":
            self.reply(200, self.answer({"id": 5}))
        elif way == "hangs_up":
            self.close_connection = True
        elif way == "no_http":
            self.wfile.write(b"SSH-2.0-x\r\n\r\n")
        elif way == "closes":
            self.reply(200, body, {"Connection": "close"})
            self.close_connection = True
        elif way == "to_end":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
            self.close_connection = True
        elif way in ("chunked", "events", "empty_events"):
            self.chunks(way, body)
        elif way == "interim":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n")
            self.reply(200, body)
        else:
            self.reply(200, body)

    def chunks(self, way: str, body: bytes) -> None:
        events = way != "chunked"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if events else "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        note = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
        pieces = [body[:9], body[9:]]
        if events:
            head, tail = (b"", b"") if way == "empty_events" else (body[:1], body[1:])
            pieces = [b"id: 1\ndata:\n\n: comment\n\nevent: message\r\ndata: " + note + b"\r\n\r\n"]
            if way == "events":
                pieces += [b"data: " + head, b"\ndata: " + tail + b"\n\n"]
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def http_server(way: str) -> Iterator[tuple[str, type[OddHttp]]]:
    handler = type("Handler", (OddHttp,), {"way": way, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mcp", handler
    finally:
        server.shutdown()
        server.server_close()


def http_run(address: str, scenario: Scenario = ECHO, *, revision: Any = MODERN, **more: Any) -> Run:
    target = target_of(address)
    speech = Speech(target.wire, revision, target.authority, target.path)
    steps = steps_of(scenario, speech)
    plan = Plan(
        target.wire, steps.steps, steps.body, steps.prologue, address=target.address, scripted=scenario.script
    )
    plan = replace(plan, stride=steps.stride, connections=2, warmup_s=0, timeout_s=0.5, intervals=0)
    return run(replace(plan, **more))


@pytest.mark.parametrize("way", ["plain", "chunked", "events", "closes", "to_end", "interim"])
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
def test_answers_of_every_http_manner_are_right(way: str, revision: Any) -> None:
    with http_server(way) as (address, _):
        done = http_run(address, revision=revision, calls=60)
    assert (done.outcome["answered"], done.wrong) == (60, {}), done.outcome["first_error"]
    assert done.outcome["notifications"] == (60 if way == "events" else 0)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("status", "bad_status"),
        ("wrong_text", "wrong_text"),
        ("twice", "duplicate"),
        ("other_id", "unknown_id"),
        ("empty_events", "missing"),
        ("hangs_up", "lost"),
        ("no_http", "bad_http"),
    ],
)
def test_a_lying_http_server_is_caught(way: str, kind: str) -> None:
    with http_server(way) as (address, _):
        done = http_run(address, calls=20)
    assert done.wrong.get(kind, 0) > 0, done.wrong


def test_status_503_is_a_refusal() -> None:
    with http_server("busy") as (address, _):
        done = http_run(address, calls=20)
    assert (done.wrong, done.outcome["refused"]) == ({}, 20)


def test_a_script_opens_and_ends_sessions_and_pauses() -> None:
    actions = [Action(open=True), ECHO.action[0], Action(close=True), Action(pause_ms=20)]
    with http_server("plain") as (address, handler):
        done = http_run(
            address, Scenario(action=actions, script=True), revision=LEGACY, connections=1, duration_s=0.3
        )
    assert done.wrong == {}
    round_ = ["initialize", "notifications/initialized", "tools/call", "DELETE"]
    assert handler.seen == round_ * (len(handler.seen) // 4)
    assert 3 <= len(handler.seen) // 4 <= 15
    assert set(done.outcome["kinds"]) == {"initialize", "call echo"}


# ---- WebSocket -------------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def read_masked(connection: Any) -> bytes:
    head = connection.read(2)
    if len(head) < 2 or head[0] == 0x8A:
        return b"pong" if head and connection.read(4 + (head[1] & 0x7F)) else b""
    assert head[0] == 0x81 and head[1] & 0x80
    size = head[1] & 0x7F
    if size > 125:
        size = int.from_bytes(connection.read(2 if size == 126 else 8))
    key, text = connection.read(4), connection.read(size)
    return bytes(letter ^ key[at % 4] for at, letter in enumerate(text))


@contextmanager
def websocket_server(change: Callable[[bytes], list[bytes]]) -> Iterator[str]:
    """Answers each message with the frames that `change` makes of the right answer."""
    door = create_server(("127.0.0.1", 0))

    def serve(connection: socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while (line := stream.readline()) != b"\r\n":
                if not line:
                    return  # the client left
            connection.sendall(SWITCH)
            try:
                while text := read_masked(stream):
                    if text != b"pong":
                        answer(connection, text)
            except OSError:
                return

    def answer(connection: socket, text: bytes) -> None:
        result = {"resultType": "complete", "content": [{"type": "text", "text": "hello"}]}
        said = json.dumps({"jsonrpc": "2.0", "id": json.loads(text)["id"], "result": result}).encode()
        for frame in change(said):
            connection.sendall(frame)

    def accept() -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"ws://127.0.0.1:{door.getsockname()[1]}/mcp"
    finally:
        door.close()


def frame(kind: int, data: bytes) -> bytes:
    return bytes([kind, 126]) + len(data).to_bytes(2) + data


WEBSOCKET_WAYS: dict[str, Callable[[bytes], list[bytes]]] = {
    "plain": lambda answer: [frame(0x81, answer)],
    "pinged": lambda answer: [b"\x89\x02hi", frame(0x81, answer)],
    "in pieces": lambda answer: [
        frame(0x01, answer[:20]),
        b"\x89\x00",
        frame(0x00, answer[20:40]),
        frame(0x80, answer[40:]),
    ],
    "byte by byte": lambda answer: [bytes([byte]) for byte in frame(0x81, answer)],
}


@pytest.mark.parametrize("way", list(WEBSOCKET_WAYS))
def test_calls_over_websocket(way: str) -> None:
    with websocket_server(WEBSOCKET_WAYS[way]) as address:
        done = http_run(address, calls=60, window=4)
    assert (done.outcome["answered"], done.wrong) == (60, {}), done.outcome["first_error"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda answer: [frame(0x81, answer.replace(b"hello", b"hallo"))], "wrong_text"),
        (lambda answer: [frame(0x81, answer.replace(b'"id": 1', b'"id": 9'))], "unknown_id"),
        (lambda answer: [b"\xf1\x00"], "bad_frame"),
        (lambda answer: [b"\x88\x00"], "lost"),
    ],
)
def test_a_lying_websocket_server_is_caught(change: Callable[[bytes], list[bytes]], kind: str) -> None:
    with websocket_server(change) as address:
        done = http_run(address, calls=20)
    assert done.wrong.get(kind, 0) > 0, done.wrong


def test_a_server_that_knows_no_websocket_is_told() -> None:
    with http_server("plain") as (address, _):
        done = http_run(address.replace("http", "ws"), calls=5)
    assert done.outcome["failure"]


@pytest.mark.parametrize("size", [5, 125, 126, 65_535, 65_536])
def test_frames_are_masked_as_rfc_6455_says(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    sent = frame_head(size) + masked(payload)

    class Reader:
        at = 0

        def read(self, count: int) -> bytes:
            piece = sent[self.at : self.at + count]
            self.at += count
            return piece

    assert read_masked(Reader()) == payload


# ---- scenarios -------------------------------------------------------------------------------------------


def test_a_mix_is_spread_evenly_by_weight() -> None:
    assert in_turns([1]) == [0]
    assert in_turns([2, 2]) == [0, 1]
    order = in_turns([5, 1, 1])
    assert [order.count(kind) for kind in range(3)] == [5, 1, 1]
    assert order[0] == 0
    assert 1 in order[1:6]


def test_calls_go_around_the_actions_and_are_counted_apart() -> None:
    actions = [replace_action(ECHO.action[0], weight=3), Action(ping=True), Action(list="tools")]
    kinds = driven(odd("plain"), Scenario(action=actions), calls=500).outcome["kinds"]
    assert {name: kind["requests"] for name, kind in kinds.items()} == {
        "call echo": 300,
        "ping": 100,
        "list tools": 100,
    }


def replace_action(action: Action, **changes: Any) -> Action:
    import msgspec

    return msgspec.structs.replace(action, **changes)


def test_users_are_put_into_arguments() -> None:
    action = Action(call="t", arguments={"who": "user-{user:05d}", "n": [1, "{user}"]})
    steps = steps_of(Scenario(action=[action], users=3), Speech("lines", LEGACY))
    sent = [json.loads(step.data)["params"]["arguments"] for step in steps.steps if step.counted]
    assert sent == [{"who": f"user-{n:05d}", "n": [1, str(n)]} for n in range(3)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Object missing required field `action`"),
        ("action = []", "at least one [[action]]"),
        ("[[action]]\ncall = 'a'\nlist = 'tools'", "action 1 (call a): exactly one of"),
        ("[[action]]\nweight = 2", "exactly one of"),
        ("[[action]]\nlist = 'everything'", "list is one of tools"),
        ("[[action]]\ncall = 'a'\nweight = 0", "weight is at least 1"),
        ("[[action]]\npause_ms = 5", "script = true only"),
        ("[[action]]\ncall = 'a'\nargumnets = {}", "unknown field `argumnets`"),
        ("[[action]]\ncall = 5", "Expected `str | null`, got `int` - at `$.action[0].call`"),
        ("users = 0\n[[action]]\nping = true", "users: at least 1"),
        ("not toml", "line 1"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ScenarioError) as error:
        read_scenario(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_over_http_only_2026_calls_can_be_cancelled() -> None:
    scenario = Scenario(action=[Action(call="echo", cancel_after_ms=5)])
    with pytest.raises(ScenarioError, match="2026-07-28"):
        steps_of(scenario, Speech("http", LEGACY, "h"))
    assert steps_of(scenario, Speech("http", MODERN, "h")).steps[0].cancel_step == -1


# ---- plans that make no sense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"connections": 0}, "at least one connection"),
        ({"window": 0}, "at least one connection"),
        ({"body": []}, "at least one connection"),
        ({"body": [5]}, "no step 5"),
        ({"prologue": [-1]}, "no step -1"),
        ({"address": "/x" * 100}, "too long for a socket"),
        ({"steps": [Step("a", "request", b"1000000000" * 5)]}, "more than 4 ids"),
        ({"steps": [Step("a", "request", cancel_step=7)]}, "no step 7"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    from mcpfast.bench._engine import Engine

    plan = Plan("lines", [Step("a", "request", b"x", expect=Expectation())], [0], address="/nowhere")
    with pytest.raises(ValueError, match=said):
        Engine(replace(plan, **changes))


# ---- the command -----------------------------------------------------------------------------------------


def test_the_figures_of_a_run(tmp_path: Path) -> None:
    code, told, said = bench(
        "--tool", "echo", "--duration", "0.3", "--warmup", "0.1", str(ROOT / "examples" / "echo.py")
    )
    assert code == 0, said
    assert (told["era"], told["errors"], told["loop"]) == ("2026-07-28", 0, "closed")
    assert told["rate_per_s"] == pytest.approx(told["requests"] / told["seconds"], rel=0.05)
    assert list(told["latency_us"]) == ["p50", "p90", "p99", "p999", "mean", "max"]
    assert told["server"]["cpu_us_per_request"] > 0
    assert 15 < told["server"]["rss_mb"] < 200
    assert told["server"]["descriptors"] > 3
    assert len(told["over_time"]) >= 90
    shares = [share for share, _ in told["percentiles"]]
    assert shares == sorted(shares)


@pytest.mark.parametrize("scheme", ["unix", "tcp", "http", "ws"])
@pytest.mark.parametrize("era", ["2025-06-18", "2025-11-25", "2026-07-28"])
def test_our_own_server_at_every_address(served: dict[str, str], scheme: str, era: str) -> None:
    code, told, said = bench(served[scheme], "-c", "4", "--duration", "0.1", "--warmup", "0", "--era", era)
    assert (code, told["errors"], told["era"]) == (0, 0, era), said
    assert told["requests"] > 20
    assert told["server"]["pid"] == int(served["pid"])


def test_several_rates_and_a_table(served: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mcpfast",
            "bench",
            served["http"],
            "--rate",
            "200,0.4k",
            "--duration",
            "0.3",
            "--json",
            file,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(file.read_text())
    assert [one["rate"] for one in told["sweep"]] == [200, 400]
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["run", "asked/s", "rate/s", "errors"]
    assert len(lines) == 4


def test_a_scenario_file_is_driven(served: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(
        "connections = 3\nduration_s = 0.2\nwarmup_s = 0\nrequests_per_connection = 20\n"
        '[[action]]\ncall = "echo"\narguments = { text = "tea" }\nexpect = "tea"\nweight = 4\n'
        '[[action]]\nlist = "tools"\n[[action]]\ncall = "echo"\nname = "big"\npayload_bytes = 100_000\n'
    )
    code, told, said = bench("--scenario", str(file), served["http"])
    assert (code, told["errors"], told["connections"]) == (0, 0, 3), said
    kinds = {kind["name"]: kind["requests"] for kind in told["kinds"]}
    assert set(kinds) == {"call echo", "list tools", "big"}
    assert kinds["call echo"] > 3 * kinds["big"]
    assert told["generator"]["connections_made"] > 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "which server?"),
        (["nothing"], 2, "neither FILE.py nor an address"),
        (["none.py"], 2, "no such file"),
        (["ftp://here"], 2, "use http://HOST:PORT/mcp"),
        (["https://here"], 2, "TLS is not spoken here"),
        (["tcp://here"], 2, "write tcp://HOST:PORT"),
        (["--era", "1999-01-01", "tcp://127.0.0.1:1"], 2, "--era 1999-01-01"),
        (["--rate", "x", "--", *odd("plain")], 2, "--rate x"),
        (["--rate", "0", "--", *odd("plain")], 2, "more than 0"),
        (["--args", "[]", "--", *odd("plain")], 2, "--args must be a JSON object"),
        (["--tool", "ecko", "--", *odd("plain")], 2, "there is no tool 'ecko'; the server offers: echo"),
        (["-c", "2", "--", *odd("plain")], 2, "a command has one stdin"),
        (["--window", "0", "--", *odd("plain")], 2, "at least 1"),
        (["--cpus", "x", "--", *odd("plain")], 2, "two numbers"),
        (["--header", "x", "--", *odd("plain")], 2, "Name: value"),
        (["--header", "a: b\nc: d", "--", *odd("plain")], 2, "cannot be sent"),
        (["--bearer-env", "NOT_SET_HERE", "--", *odd("plain")], 2, "not set"),
        (["--scenario", "none.toml", "--", *odd("plain")], 2, "no such file"),
        (["--compare", "none.json"], 2, "--compare none.json"),
        (["tcp://127.0.0.1:1", "--", "true"], 2, "not both"),
        (["tcp://127.0.0.1:1"], 3, "the server takes no connection: Connection refused"),
        (["unix:///does/not/exist"], 3, "No such file"),
        (["--timeout", "1", "--", "true"], 3, "the server"),
        (["--", "/does/not/exist"], 3, "No such file"),
        (["--", *odd("refuses")], 3, "refuses"),
    ],
)
def test_what_cannot_be_driven_gets_one_line(arguments: list[str], code: int, said: str) -> None:
    given, _, stderr = bench(*arguments)
    assert given == code
    assert said in stderr
    assert stderr.startswith("mcpfast bench: ")
    assert stderr.count("\n") == 1


def test_wrong_answers_are_exit_code_1() -> None:
    code, told, _ = bench("--calls", "100", "--timeout", "0.3", "--", *odd("wrong_text"))
    assert (code, told["error_kinds"]) == (1, {"wrong_text": 10})


def test_without_a_tool_named_echo_the_tools_are_told() -> None:
    server = "from mcpfast import MCPServer\ns = MCPServer('x')\n@s.tool\ndef add(a: int) -> int:\n    return a\ns.run()\n"
    code, _, said = bench("--", sys.executable, "-c", server)
    assert code == 2
    assert "it offers: add" in said


def test_the_era_is_found_out() -> None:
    target = target_of(None, odd("plain"))
    meeting = meet(target, Speech("lines", LATEST), "auto")
    assert (meeting.revision, list(meeting.tools or ())) == (LEGACY, ["echo"])
    meeting = meet(target_of(str(ROOT / "examples" / "echo.py")), Speech("lines", LATEST), "auto")
    assert meeting.revision == MODERN
    assert "echo" in (meeting.tools or {})
    with pytest.raises(RunFailed, match="refuses initialize"):
        meet(target_of(None, odd("refuses")), Speech("lines", LATEST), "2025-06-18")


def test_a_generator_that_may_be_the_limit_says_so() -> None:
    done = driven(odd("plain"), calls=300)
    plan = planned(ECHO)
    told = result_of(done, plan, target="t", era="e")
    assert not any("generator" in warning for warning in told.warnings)
    done.outcome["own_cpu_s"] = done.outcome["seconds"] * 0.8
    told = result_of(done, plan, target="t", era="e")
    assert any("could not have driven a server twice as fast" in warning for warning in told.warnings)


def test_addresses_name_what_may_be_written() -> None:
    with pytest.raises(AddressError, match="which server"):
        target_of(None)
    assert target_of("http://127.0.0.1:81/x?y=1").path == "/x?y=1"
    assert target_of("http://127.0.0.1").address == ("127.0.0.1", 80)
    assert target_of("unix:///a/b.sock").address == "/a/b.sock"


# ---- what a server uses ----------------------------------------------------------------------------------


def test_a_process_and_its_children_are_looked_at_together() -> None:
    inner = [sys.executable, "-S", "-E", "-c", "import sys; sys.stdin.read()"]
    script = (
        f"import subprocess,sys; p=subprocess.Popen({inner!r}); print(p.pid,flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as outer:
        assert outer.stdout is not None
        child = int(outer.stdout.readline())
        assert processes.family(outer.pid) == [outer.pid, child]
        both, one = processes.usage([outer.pid, child]), processes.usage([outer.pid])
        assert both is not None
        assert one is not None
        assert both.rss_mb > one.rss_mb > 1
        assert both.threads == 2
        outer.communicate("")
    assert processes.usage([outer.pid]) is None


def test_the_listener_of_an_address_is_found(tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as door:
        assert processes.listener_of(door.getsockname()) == os.getpid()
    assert processes.listener_of(("127.0.0.1", 1)) is None
    with socket(AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        assert processes.listener_of(str(tmp_path / "s")) == os.getpid()
    assert processes.listener_of(str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("us", "text"), [(0.5, "0.50 us"), (850, "850 us"), (12_345, "12.3 ms"), (1_500_000, "1.50 s")]
)
def test_times_have_the_unit_that_suits(us: float, text: str) -> None:
    assert view.time_of(us) == text


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The echo server at an address of each kind."""
    with create_server(("127.0.0.1", 0)) as first, create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
    path = tmp_path_factory.mktemp("bench") / "s.sock"
    addresses = {
        "unix": f"unix://{path}",
        "tcp": f"tcp://127.0.0.1:{ports[0]}",
        "http": f"http://127.0.0.1:{ports[1]}/mcp",
    }
    listen = [part for address in addresses.values() for part in ("--listen", address)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mcpfast", "run", str(ROOT / "examples" / "echo.py"), *listen],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    yield {**addresses, "ws": addresses["http"].replace("http", "ws"), "pid": str(server.pid)}
    server.terminate()
    server.wait(10)
