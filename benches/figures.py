"""The figures of `make bench`, one function each, by the names of budgets.toml, which says what they are."""

import compileall
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median

from benches.build import binary
from benches.counting import PYTHON_VERSION, have_valgrind, instructions_a_call
from benches.load import LEGACY, MODERN, RunFailed, Shape, connect, drive, sample, serving
from benches.peer import peer_command
from benches.rounds import contest, in_turns
from mcpfast.bench.result import Result

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mcpfast"
SERVERS = ROOT / "benches" / "servers"
ECHO = [sys.executable, str(ROOT / "examples" / "echo.py")]
IDLE_CONNECTIONS = 2_000
MEBIBYTE = 1 << 20


class Skipped(Exception):
    """The figure cannot be had here; the text says why and what to install."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a bench is run: which server, how long, and where to say what is going on."""

    echo: Sequence[str] = tuple(ECHO)
    rounds: int = 9
    seconds: float = 0.4
    tell: Callable[[str], None] = field(default=lambda text: None, compare=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and what it was made from."""

    value: float
    latency_us: dict[str, float] = field(default_factory=dict)
    ours_per_s: float | None = None
    reference_per_s: float | None = None
    samples: list[float] = field(default_factory=list)
    note: str = ""
    best: float | None = None  # our best run / the reference's


FIGURES: dict[str, Callable[[Setting], Measured]] = {}


def figure(function: Callable[[Setting], Measured]) -> Callable[[Setting], Measured]:
    FIGURES[function.__name__] = function
    return function


def figure_named(name: str, measure: Callable[[Setting], Measured]) -> None:
    FIGURES[name] = measure


# ---- rates -----------------------------------------------------------------------------------------------


@cache
def canned_result(echo: tuple[str, ...], era: str) -> str:
    """The result of the very server that is measured, so that the ceiling's answers have its size."""
    answer = json.loads(sample(echo, era))
    return json.dumps(answer["result"], separators=(",", ":"), ensure_ascii=False)


def against(setting: Setting, ours: Callable[[], Result], reference: Callable[[], Result]) -> Measured:
    pairs = contest(ours, reference, setting.rounds, setting.tell)
    return Measured(
        pairs.ratio,
        pairs.typical.latency_us,
        pairs.typical.rate_p75_per_s,
        median(run.rate_p75_per_s for run in pairs.reference),
        pairs.ratios,
        f"best {pairs.ratio_of_best:.2f}",
        pairs.ratio_of_best,
    )


def stdio_against_ceiling(setting: Setting, shape: Shape) -> Measured:
    ceiling = [str(binary("ceiling")), "--result", canned_result(tuple(setting.echo), shape.era)]
    return against(
        setting,
        lambda: drive(shape, setting.echo, seconds=setting.seconds),
        lambda: drive(shape, ceiling, seconds=setting.seconds),
    )


@figure
def stdio64_legacy(setting: Setting) -> Measured:
    return stdio_against_ceiling(setting, Shape(window=64, era=LEGACY))


@figure
def stdio64_modern(setting: Setting) -> Measured:
    return stdio_against_ceiling(setting, Shape(window=64, era=MODERN))


@figure
def stdio_serial(setting: Setting) -> Measured:
    return stdio_against_ceiling(setting, Shape(window=1, era=LEGACY))


@figure
def unix_100x8(setting: Setting) -> Measured:
    shape = Shape(window=8, connections=100)
    ceiling = [str(binary("ceiling")), "--result", canned_result(tuple(setting.echo), LEGACY), "--listen"]
    with sockets() as (a, b), serving(setting.echo, a) as our_pid, serving(ceiling, b) as its_pid:
        return against(
            setting,
            lambda: drive(shape, a, seconds=setting.seconds, pid=our_pid),
            lambda: drive(shape, b, seconds=setting.seconds, pid=its_pid),
        )


@figure
def payload_1mib(setting: Setting) -> Measured:
    shape = Shape(payload_bytes=MEBIBYTE)
    ceiling = [str(binary("ceiling")), "--echo"]
    return against(
        setting,
        lambda: drive(shape, setting.echo, seconds=setting.seconds),
        lambda: drive(shape, ceiling, seconds=setting.seconds),
    )


@figure
def vs_mcp(setting: Setting) -> Measured:
    shape, peer = Shape(window=64), peer_command()
    return against(
        replace(setting, rounds=max(3, setting.rounds // 3)),
        lambda: drive(shape, setting.echo, seconds=setting.seconds),
        lambda: drive(shape, peer, seconds=3 * setting.seconds, timeout=30),
    )


# ---- costs -----------------------------------------------------------------------------------------------


@figure
def instructions(setting: Setting) -> Measured:
    if PYTHON_VERSION != "3.11":
        raise Skipped(f"the bar is for Python 3.11; make bench-gate counts on {PYTHON_VERSION}")
    if not have_valgrind():
        raise Skipped("valgrind is not here. Install: apt-get install -y valgrind")
    setting.tell("under callgrind")
    return Measured(instructions_a_call(Shape(window=64, lockstep=True), setting.echo))


@figure
def rss(setting: Setting) -> Measured:
    compile_package()
    setting.tell("20,000 calls")
    run = drive(Shape(window=64), setting.echo, calls=20_000)
    return Measured(run.server["rss_mb"], run.latency_us, run.rate_p75_per_s)


@figure
def tools_10000(setting: Setting) -> Measured:
    """By the servers' CPU time, in turns: so a difference of 2 % can be seen, which no rate shows."""
    many = [sys.executable, str(SERVERS / "many_tools.py")]
    shape = Shape(window=64, tool="tool_9")
    with sockets() as (a, b), serving([*many, "10000"], a) as big, serving([*many, "10"], b) as small:
        pairs = in_turns(
            lambda: drive(shape, a, seconds=setting.seconds / 2, pid=big),
            lambda: drive(shape, b, seconds=setting.seconds / 2, pid=small),
            2 * setting.rounds + 1,
            setting.tell,
        )
    ratios = [x.server["cpu_us_per_request"] / y.server["cpu_us_per_request"] for x, y in pairs]
    typical = pairs[len(pairs) // 2][0]
    cost = min(x.server["cpu_us_per_request"] for x, _ in pairs)
    return Measured(
        median(ratios), typical.latency_us, typical.rate_p75_per_s, None, ratios, f"{cost:.2f} us a call"
    )


@figure
def spawn(setting: Setting) -> Measured:
    """Both to the first line they write: what a Python does while it ends is nobody's waiting time.

    With byte-code, as pip leaves it for both where it installs them: a work tree has none where Python may not write it.
    """
    compile_package()
    imports = [sys.executable, "-c", "import uvloop, msgspec; print('{\"result\":0}', flush=True)"]
    pairs = in_turns(
        lambda: seconds_to_answer(setting.echo),
        lambda: seconds_to_answer(imports),
        2 * setting.rounds + 1,
        setting.tell,
    )[1:]  # the first one fills the disk cache
    ours = sorted(a * 1e6 for a, _ in pairs)
    ratios = [a / b for a, b in pairs]
    latency = {"p50": median(ours), "p99": ours[-1], "p999": ours[-1]}
    return Measured(median(ratios), latency, None, None, ratios, f"{median(ours) / 1e3:.0f} ms")


@figure
def idle_connection(setting: Setting) -> Measured:
    """Between 100 and 2,100 connections, each of which has initialized and says nothing more."""
    allow_descriptors()
    with sockets() as (address, _), serving(setting.echo, address) as pid:
        opened = [initialized(address) for _ in range(100)]
        before = resident_bytes(pid)
        setting.tell(f"{IDLE_CONNECTIONS} connections")
        opened += [initialized(address) for _ in range(IDLE_CONNECTIONS)]
        after = resident_bytes(pid)
        run = drive(Shape(), address, seconds=setting.seconds, pid=pid)  # and it still answers
        for connection in opened:
            connection.close()
    return Measured((after - before) / IDLE_CONNECTIONS / 1e3, run.latency_us, run.rate_p75_per_s)


# ---- what they are made with -----------------------------------------------------------------------------


def compile_package() -> None:
    """What `pip install` does."""
    compileall.compile_dir(str(PACKAGE), quiet=2)


INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}\n'
)
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


@contextmanager
def sockets() -> Iterator[tuple[str, str]]:
    """Two addresses of Unix sockets that nobody listens on yet."""
    with tempfile.TemporaryDirectory(prefix="mcpfast-bench-") as folder:
        yield f"unix://{folder}/a.sock", f"unix://{folder}/b.sock"


def seconds_to_answer(command: Sequence[str]) -> float:
    """From the spawn of a process to the line with which it answers `initialize`, over stdio."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(INITIALIZE)
        answer = server.stdout.readline()
        took = time.perf_counter() - began
        server.stdin.close()
    if b'"result"' not in answer:
        raise RunFailed(f"{command} answered initialize with {answer!r}")
    return took


def initialized(address: str) -> socket.socket:
    """A connection that has shaken hands."""
    connection = connect(address)
    connection.sendall(INITIALIZE)
    answer = b""
    while not answer.endswith(b"\n"):
        piece = connection.recv(65_536)
        if not piece:
            raise RunFailed(f"{address}: the server closed a connection instead of answering initialize")
        answer += piece
    connection.sendall(INITIALIZED)
    return connection


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def allow_descriptors() -> None:
    """As many as the machine gives; a server spawned later inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < IDLE_CONNECTIONS + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
