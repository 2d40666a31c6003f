"""HTTP under load: wrk for the closed loop, httpload.c for what wrk cannot, nginx as the ceiling.

With one thread wrk is about as quick as one process of nginx: against that it is busy all the time.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benches.build import binary
from benches.load import Run, RunFailed, processors, running, staying_on

CONNECTIONS = 32
ERRORS = ("connect", "read", "write", "timeout", "status")
SCRIPT = Path(__file__).resolve().with_name("call.lua")
NGINX_CONF = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {authority};
        location / {{ return 200 '{body}'; }}
    }}
}}
"""


def program(name: str, package: str) -> str:
    """Where a program is that Debian has. Raises RunFailed, with the command that installs it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise RunFailed(f"the HTTP figures need {name}. Install: apt-get install -y {package}")
    return found


def free_address(path: str = "/mcp") -> str:
    """An HTTP address on loopback that nobody listens on yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}{path}"


@contextmanager
def nginx(body: str) -> Iterator[tuple[str, int]]:
    """One process of nginx that answers every request with `body`: its address and pid."""
    command = program("nginx", "nginx-light")
    if any(letter in body for letter in "'$\\"):
        raise RunFailed(f"nginx takes ', $ and \\ in its configuration for its own: {body}")
    address = free_address("/")
    authority = address.partition("://")[2].rstrip("/")
    with tempfile.TemporaryDirectory(prefix="mcpfast-bench-") as folder:
        conf = Path(folder) / "nginx.conf"
        conf.write_text(NGINX_CONF.format(folder=folder, authority=authority, body=body))
        with running([command, "-p", folder, "-e", f"{folder}/error.log", "-c", str(conf)], address) as pid:
            yield address, pid


@contextmanager
def kept(content: bytes) -> Iterator[str]:
    """The path of a file with this content, for as long as the block runs."""
    with tempfile.NamedTemporaryFile(prefix="mcpfast-bench-") as file:
        file.write(content)
        file.flush()
        yield file.name


def cpu_seconds(pid: int) -> float:
    """What process `pid` has used, to the nanosecond: clock_getcpuclockid(3), as Linux numbers these clocks."""
    return time.clock_gettime((~pid << 3) | 2)


# ---- closed loop -----------------------------------------------------------------------------------------


def wrk(address: str, requests: Sequence[bytes], *, seconds: float, answer_bytes: int, pid: int) -> Run:
    """`requests` in turns over 32 keep-alive connections. wrk counts whole seconds, and this at least one.

    Raises:
        RunFailed: an error, or answers that are not all of `answer_bytes`, as long as the one that was looked at.
    """
    listed = b"".join(b"%d\n%b" % (len(request), request) for request in requests)
    with kept(listed) as file, staying_on(0):
        command = [program("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
        before = cpu_seconds(pid)
        done = subprocess.run(
            [*command, "-s", str(SCRIPT), address, "--", file], capture_output=True, text=True
        )
        cpu = cpu_seconds(pid) - before
    if done.returncode != 0 or not done.stdout.strip().endswith("}"):
        raise RunFailed(f"wrk failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    report: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    calls = int(report["calls"])
    errors = {kind: int(report[kind]) for kind in ERRORS if report[kind]}
    beyond = report["bytes"] - calls * answer_bytes  # of answers that were not whole at the end
    if errors or calls == 0 or not 0 <= beyond <= 2 * CONNECTIONS * answer_bytes:
        said = f"{calls} answers of {answer_bytes} bytes were looked for, {report['bytes']:.0f} bytes came"
        raise RunFailed(f"wrong answers under wrk: {errors or said}")
    rate = calls / report["seconds"]
    latency = {name: report[name] for name in ("mean", "p50", "p90", "p99", "p999", "max")}
    server = {"cpu_us_per_request": cpu / calls * 1e6}
    return Run(calls, report["seconds"], rate, rate, latency, 0, {}, server=server)


# ---- what httpload.c drives ------------------------------------------------------------------------------


def httpload(mode: str, address: str, sent: bytes, *, seconds: float, more: Sequence[str] = ()) -> Run:
    """One run of httpload.c, whose --help says what the modes are.

    Raises:
        RunFailed: wrong answers, or a server that stops answering.
    """
    command = [str(binary("httpload")), "--duration", str(seconds), *more]
    if pair := processors():
        command += ["--cpu", str(pair[0])]
    with kept(sent) as file:
        authority = address.partition("://")[2].partition("/")[0]
        done = subprocess.run([*command, mode, file, f"tcp://{authority}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"{done.stderr.strip()}\n{done.stdout.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return Run(**report)
