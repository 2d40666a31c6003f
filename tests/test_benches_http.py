"""The instruments of the HTTP figures: honest servers pass them, lying ones are caught, and time counts as it says."""
# ruff: noqa: E402  (a source distribution has no benches: that is found out before they are imported)

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "benches").is_dir():
    pytest.skip("the benches are not part of this distribution", allow_module_level=True)
sys.path.append(str(ROOT))

from benches.figures import ECHO
from benches.figures_http import KINDS, answering, constant, events_of, nginx_constant
from benches.http_messages import modern_call, progress_call
from benches.load import MODERN, RunFailed, Shape, connect, drive, drive_progress, serving
from benches.nginx import free_address, kept

BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}'
BARE = [sys.executable, str(ROOT / "benches" / "servers" / "bare_http.py")]
CANNED = [sys.executable, str(ROOT / "benches" / "servers" / "canned_sse.py")]
needs_nginx = pytest.mark.skipif(
    not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"),
    reason="apt-get install -y nginx-light",
)

# ---- streams of events -----------------------------------------------------------------------------------


def test_a_stream_of_progress_is_counted_and_a_short_one_is_caught() -> None:
    ours, its, short = free_address(), free_address(), free_address()
    with serving(KINDS, ours):
        stream = events_of(ours, progress_call(ours, 200))
    assert stream.count(b"notifications/progress") == 200
    cut = stream[stream.index(b"\n\n") + 2 :]
    with kept(stream) as whole, kept(cut) as less:
        with serving([*CANNED, whole], its):
            assert events_of(its, progress_call(its, 200)) == stream
            run = drive_progress(its, 200, seconds=0.1)
        assert run.rate_per_s > 200 * 10
        with serving([*CANNED, less], short), pytest.raises(RunFailed, match="streams are not whole"):
            drive_progress(short, 200, seconds=0.1)


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


def test_a_constant_is_driven_by_its_status_alone() -> None:
    with constant(BARE, BODY) as service:
        run = drive(
            Shape(connections=4, era=MODERN), service.address, seconds=0.1, pid=service.pid, constant=True
        )
        assert run.requests > 100
        with pytest.raises(RunFailed, match="unknown_id"):
            drive(Shape(connections=4, era=MODERN), service.address, seconds=0.1)
