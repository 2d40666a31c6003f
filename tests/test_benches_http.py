"""The instruments of the HTTP figures: honest servers pass them, lying ones are caught, and time counts as it says."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

from benches import build
from benches.figures import ECHO
from benches.figures_http import KINDS, answering, constant, events_of, nginx_constant
from benches.http_load import cpu_seconds, free_address, httpload, kept, wrk
from benches.http_messages import counted_call, modern_call, progress_call, upgrade
from benches.load import Run, RunFailed, connect, serving

BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}'
BARE = [sys.executable, str(ROOT / "benches" / "servers" / "bare_http.py")]
CANNED = [sys.executable, str(ROOT / "benches" / "servers" / "canned_sse.py")]
needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="apt-get install -y wrk")
needs_nginx = pytest.mark.skipif(
    not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"),
    reason="apt-get install -y nginx-light",
)

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def stub(answer: Answer) -> Iterator[str]:
    """An HTTP address where `answer` is called with each piece that comes; it closes a connection by raising OSError."""
    door = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(65_536):
                    answer(connection, piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}/mcp"
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()


def reply(connection: socket.socket, _: bytes, *, body: bytes = BODY, status: int = 200) -> None:
    connection.sendall(b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


def hang_up(connection: socket.socket, _: bytes) -> None:
    raise OSError


# ---- open loop -------------------------------------------------------------------------------------------


def open_loop(address: str, *more: str, seconds: float = 0.3) -> Run:
    return httpload("open", address, modern_call(address), seconds=seconds, more=["--warmup", "0.05", *more])


def test_an_open_loop_keeps_its_rate() -> None:
    with stub(reply) as address:
        run = httpload("open", address, modern_call(address), seconds=0.5, more=["--rate", "800"])
    assert run.errors == 0
    assert 0.7 * 400 < run.calls < 1.3 * 400  # at random moments, so that the number is not quite the same
    assert 0 < run.latency_us["p50"] <= run.latency_us["p99"] <= run.latency_us["max"]


def test_the_same_seed_is_the_same_arrivals() -> None:
    def calls(seed: int) -> int:
        return open_loop(address, "--rate", "500", "--warmup", "0", "--seed", str(seed)).calls

    with stub(reply) as address:
        first, again, *others = (calls(seed) for seed in (7, 7, 8, 9, 10, 11))
    assert abs(first - again) <= 4  # an answer or two fall behind the end
    assert max(others) - min(others) > 4


def test_a_server_that_stalls_is_not_spared_what_came_meanwhile() -> None:
    """200 ms without an answer, at 500 requests a second: a hundred requests waited, not one."""
    stalled = threading.Event()
    began = time.monotonic()

    def stall_once(connection: socket.socket, piece: bytes) -> None:
        if time.monotonic() - began > 0.2 and not stalled.is_set():
            stalled.set()
            time.sleep(0.2)
        reply(connection, piece)

    with stub(stall_once) as address:
        more = ["--rate", "500", "--connections", "1", "--warmup", "0"]
        run = httpload("open", address, modern_call(address), seconds=0.7, more=more)
    assert run.latency_us["p90"] > 50_000  # a closed loop would have seen one slow request in 350


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (partial(reply, status=500), "no whole answer with status 200"),
        (partial(reply, body=BODY.replace(b"hello", b"hallo")), "not the answer"),
        (hang_up, "closed connections"),
        (lambda connection, piece: None, "stopped answering"),
        (lambda connection, piece: [reply(connection, piece) for _ in range(2)], "no whole answer"),
    ],
    ids=["status", "text", "closes", "silent", "twice"],
)
def test_a_lying_http_server_is_caught(answer: Answer, said: str) -> None:
    with stub(answer) as address, pytest.raises(RunFailed, match=said):
        open_loop(address, "--rate", "500", "--timeout", "0.3")


# ---- streams of events -----------------------------------------------------------------------------------


def test_a_stream_of_progress_is_counted_and_a_short_one_is_caught() -> None:
    ours, its, short = free_address(), free_address(), free_address()
    with serving(KINDS, ours):
        stream = events_of(ours, progress_call(ours, 200))
    assert stream.count(b"notifications/progress") == 200
    request, options = progress_call(ours, 200), ["--events", "200", "--warmup", "0"]
    cut = stream[stream.index(b"\n\n") + 2 :]
    with kept(stream) as whole, kept(cut) as less:
        with serving([*CANNED, whole], its):
            assert events_of(its, request) == stream
            run = httpload("sse", its, request, seconds=0.1, more=options)
        assert run.errors == 0
        assert run.calls % 200 == 0
        assert run.calls > 0
        with serving([*CANNED, less], short), pytest.raises(RunFailed, match="the stream is not whole"):
            httpload("sse", short, request, seconds=0.1, more=options)


# ---- WebSocket -------------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def unmasked(frame: bytes) -> bytes:
    """The text of one frame of 126 to 65,535 bytes."""
    assert frame[:2] == bytes([0x81, 0x80 | 126])
    assert int.from_bytes(frame[2:4], "big") == len(frame) - 8
    key, text = frame[4:8], frame[8:]
    return bytes(letter ^ key[at % 4] for at, letter in enumerate(text))


def echo_frame(connection: socket.socket, piece: bytes, *, change: tuple[bytes, bytes] = (b"", b"")) -> None:
    if piece.startswith(b"GET "):
        assert b"Sec-WebSocket-Protocol: mcp\r\n" in piece
        connection.sendall(SWITCH)
        return
    text = unmasked(piece).replace(*change) if change[0] else unmasked(piece)
    connection.sendall(
        b"\x89\x00" + bytes([0x81, 126]) + len(text).to_bytes(2, "big") + text
    )  # behind a ping


def websocket(address: str, *more: str) -> Run:
    sent = upgrade(address) + counted_call()
    return httpload("ws", address, sent, seconds=0.2, more=["--warmup", "0.02", *more])


def test_calls_over_websocket_are_masked_and_counted() -> None:
    with stub(echo_frame) as address:
        run = httpload(
            "ws", address, upgrade(address) + counted_call(), seconds=0.2, more=["--connections", "4"]
        )
    assert run.errors == 0
    assert run.calls > 20


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (partial(echo_frame, change=(b"hello", b"hallo")), "not the answer"),
        (partial(echo_frame, change=(b"100000000", b"900000000")), "not the answer"),
        (reply, "refused the upgrade"),
    ],
    ids=["text", "id", "no upgrade"],
)
def test_a_lying_websocket_server_is_caught(answer: Answer, said: str) -> None:
    with stub(answer) as address, pytest.raises(RunFailed, match=said):
        websocket(address, "--timeout", "0.3")


# ---- what is measured against ----------------------------------------------------------------------------


def test_a_server_that_does_not_look_at_headers_is_not_measured() -> None:
    with answering(ECHO, strict=True) as ours:
        assert b'"hello"' in ours.answer.body
    with pytest.raises(RunFailed, match="another Mcp-Name"), answering([*BARE, BODY.decode()], strict=True):
        pass


def test_the_bare_server_answers_what_it_was_given() -> None:
    with constant(BARE, BODY) as service:
        assert (service.answer.status, service.answer.body) == (200, BODY)


@needs_nginx
def test_nginx_answers_what_it_was_given() -> None:
    with nginx_constant(BODY) as service, connect(service.address) as connection:
        assert (service.answer.status, service.answer.body) == (200, BODY)
        connection.sendall(modern_call(service.address) * 3)  # keeps its connection
        assert connection.recv(1) == b"H"


@needs_wrk
@pytest.mark.parametrize("different", [1, 3])
def test_wrk_counts_answers_and_looks_at_their_length(different: int) -> None:
    with constant(BARE, BODY) as service:
        requests = [modern_call(service.address)] * different
        size = service.answer.bytes_in_all
        run = wrk(service.address, requests, seconds=1, answer_bytes=size, pid=service.pid)
        assert run.calls > 1_000
        assert 0 < run.server["cpu_us_per_request"] < 1e6 / run.rate_per_s * 1.2
        with pytest.raises(RunFailed, match="bytes were looked for"):
            wrk(service.address, requests, seconds=1, answer_bytes=size + 1, pid=service.pid)


@needs_wrk
def test_wrk_tells_of_refusals() -> None:
    with stub(partial(reply, status=503)) as address, pytest.raises(RunFailed, match="'status'"):
        wrk(address, [modern_call(address)], seconds=1, answer_bytes=100, pid=os.getpid())


def test_cpu_time_of_another_process_is_its_own() -> None:
    before, own = cpu_seconds(os.getpid()), time.process_time()
    until = own + 0.05
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid()) - before == pytest.approx(time.process_time() - own, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["open", "/dev/null", "tcp://127.0.0.1:1"], "--rate is wanted"),
        (["closed", "/dev/null", "tcp://127.0.0.1:1"], "open, ws or sse"),
        (["ws", "/dev/null", "tcp://127.0.0.1:1"], "an upgrade and a message"),
        (["sse", "/dev/null", "tcp://127.0.0.1:1"], "Connection refused"),
        (["sse", "/does/not/exist", "tcp://127.0.0.1:1"], "No such file"),
        (["--rate", "x", "sse", "/dev/null", "tcp://127.0.0.1:1"], "--rate x"),
        ([], "see --help"),
    ],
)
def test_wrong_options_get_one_line(arguments: list[str], said: str) -> None:
    done = subprocess.run([build.binary("httpload"), *arguments], capture_output=True, text=True, timeout=10)
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
