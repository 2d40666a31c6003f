"""What tenants cost: a server that has them beside the same one without, and one tenant beside ten thousand. figures.py goes on."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benches import registries
from benches.admission import instructions_an_admission
from benches.counting import PYTHON_VERSION, have_valgrind, instructions_a_call
from benches.figures import SERVERS, Measured, Setting, Skipped, against, figure
from benches.http_messages import Answer, ask, modern
from benches.load import HTTP_LEGACY, LEGACY, MODERN, RunFailed, Shape, connect, drive, drive_beside, serving
from benches.nginx import free_address
from benches.registries import ONE_TENANT, Registry
from benches.rounds import in_turns
from mcpfast.bench.result import Result
from mcpfast.tenancy.toml_file import replace_file

CONNECTIONS = 32
MANY = 10_000
FEW = 100
TOOLS = 1_000
QUIET_PER_S = 1_000.0
NEIGHBOURS_QUOTA_PER_S = 1_000  # and the neighbour sends ten times as much
DENIED = {"even": "odd", "odd": "even"}  # by the tool that shows that a registry holds
KEEP_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
RELOAD_S = 60.0
AFTERWARDS_S = 0.2  # what a reload replaced is let go of
SERVER = [sys.executable, str(SERVERS / "tenants.py")]
WITH, WITHOUT = [*SERVER, str(ONE_TENANT), "0"], [*SERVER, "none", "0"]
RELOADING = [sys.executable, str(SERVERS / "reloading.py")]


# ---- with tenants / without -------------------------------------------------------------------------------


@contextmanager
def http(registry: str, tools: int = 0) -> Iterator[tuple[str, int]]:
    """The server over HTTP: its address and pid."""
    address = free_address()
    with serving([*SERVER, registry, str(tools)], address) as pid:
        yield address, pid


@contextmanager
def on_and_off(tools: int = 0) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Addresses and pids: of the server with tenants, which was seen to refuse what it should, and of the one without."""
    with (
        http(str(ONE_TENANT), tools) as ours,
        http("none", tools) as its,
    ):
        check_guarded(ours[0])
        yield ours, its


def check_guarded(address: str) -> None:
    """Raises RunFailed where anybody may call the echo: such a server has no tenants to pay for."""
    for credential, status in (("", 401), (registries.token(scope="another"), 403)):
        with connect(address) as connection:
            answer = ask(connection, call(address, credential))
        if answer.status != status:
            raise RunFailed(f"{address} answers {answer.status} where {status} is right: {answer.body!r}")


@figure
def tenants_http(setting: Setting) -> Measured:
    return over_http(setting, MODERN)


@figure
def tenants_http_legacy(setting: Setting) -> Measured:
    """A session on each connection."""
    return over_http(setting, HTTP_LEGACY)


def over_http(setting: Setting, era: str) -> Measured:
    """Both are sent the same bytes: what the server without tenants does with a token is nothing."""
    shape = Shape(connections=CONNECTIONS, era=era, credentials=(registries.token(),))
    with on_and_off() as (ours, its):
        return driven_against(setting, shape, ours, its)


def driven_against(setting: Setting, shape: Shape, ours: tuple[str, int], its: tuple[str, int]) -> Measured:
    """The same work for two servers, each an address and a pid."""
    (our_address, our_pid), (its_address, its_pid) = ours, its
    return against(
        setting,
        lambda: drive(shape, our_address, seconds=setting.seconds, pid=our_pid),
        lambda: drive(shape, its_address, seconds=setting.seconds, pid=its_pid),
    )


@figure
def tenants_stdio(setting: Setting) -> Measured:
    return over_stdio(setting, Shape(window=64, era=LEGACY))


@figure
def tenants_stdio_serial(setting: Setting) -> Measured:
    return over_stdio(setting, Shape(window=1, era=LEGACY))


def over_stdio(setting: Setting, shape: Shape) -> Measured:
    return against(
        setting,
        lambda: drive(shape, WITH, seconds=setting.seconds),
        lambda: drive(shape, WITHOUT, seconds=setting.seconds),
    )


@figure
def tenants_admission(setting: Setting) -> Measured:
    """All that a call over stdio costs more for its tenant; in the note what of it is buckets, budgets and places."""
    if PYTHON_VERSION != "3.11":
        raise Skipped("the bar is for Python 3.11")
    if not have_valgrind():
        raise Skipped("valgrind is not here. Install: apt-get install -y valgrind")
    setting.tell("under callgrind")
    shape = Shape(window=64, lockstep=True)
    on, off = instructions_a_call(shape, WITH), instructions_a_call(shape, WITHOUT)
    arithmetic = instructions_an_admission(["limited", "limited"])
    return Measured(on - off, note=f"{on:,.0f} - {off:,.0f}; arithmetic of two levels {arithmetic:,.0f}")


@figure
def tenants_list(setting: Setting) -> Measured:
    """Both list the same thousand tools; the one with tenants has a hundred more, which it does not show."""
    credential = registries.token()
    shape = Shape(connections=8, era=MODERN, credentials=(credential,), lists="tools")
    with heap_kept(), on_and_off(TOOLS) as (ours, its):
        filtered, whole = listed(ours[0], credential), listed(its[0], credential)
        if filtered["tools"] != whole["tools"] or filtered["cacheScope"] != "private":
            raise RunFailed(f"not the same list, or not private: {len(filtered['tools'])} tools")
        return driven_against(setting, shape, ours, its)


@contextmanager
def heap_kept() -> Iterator[None]:
    """Servers that are started in the block give no memory back. An answer of 280 KB is four times as dear to a process that asks
    the kernel for it anew each time, and whether one does is decided by what happens to lie at the end of its heap."""
    os.environ |= KEEP_HEAP
    try:
        yield
    finally:
        for name in KEEP_HEAP:
            del os.environ[name]


def listed(address: str, credential: str) -> dict[str, Any]:
    """The result of `tools/list`."""
    with connect(address) as connection:
        answer = ask(connection, modern(address, "tools/list", {}, authorization=credential))
    result: dict[str, Any] = json.loads(answer.body)["result"]
    return result


# ---- many tenants -----------------------------------------------------------------------------------------


@figure
def tenants_10000(setting: Setting) -> Measured:
    """Each call has another key than the 9,999 before it, whoever owns them: 10,000 tenants, or one. So no head that a
    connection or the listener remembers is of help, to neither. A run is one round of all keys."""
    many, one = registries.crowd(MANY, MANY), registries.crowd(1, MANY)
    with (
        registries.kept(many.text) as many_file,
        registries.kept(one.text) as one_file,
        http(many_file) as (ours, our_pid),
        http(one_file) as (its, its_pid),
    ):

        def run_of_many() -> Result:
            return drive(everybody(many), ours, calls=MANY, pid=our_pid)

        def run_of_one() -> Result:
            return drive(everybody(one), its, calls=MANY, pid=its_pid)

        setting.tell(f"{MANY:,} first calls of each")
        run_of_many(), run_of_one()
        return against(setting, run_of_many, run_of_one)


def everybody(registry: Registry) -> Shape:
    """Each call with the next key."""
    return Shape(connections=CONNECTIONS, era=MODERN, credentials=registry.credentials)


@figure
def tenant_memory(setting: Setting) -> Measured:
    """Of a process with 10,100 tenants, all of which have called once and say nothing more, and of one with 100 of them."""
    setting.tell(f"{MANY:,} tenants call once")
    few, many = loaded_and_called(FEW), loaded_and_called(FEW + MANY)
    loaded, called = ((b - a) / MANY / 1e3 for a, b in zip(few, many, strict=True))
    return Measured(called, note=f"{loaded:.2f} KB before its first call")


def loaded_and_called(tenants: int) -> tuple[int, int]:
    """Resident memory with so many tenants in the registry, and when each of them has called once."""
    registry = registries.crowd(tenants, tenants)
    with registries.kept(registry.text) as file, http(file) as (address, pid):
        loaded = at_rest(address, pid, registry)
        drive(everybody(registry), address, calls=tenants, warmup=0.0, pid=pid)
        return loaded, at_rest(address, pid, registry)


def at_rest(address: str, pid: int, registry: Registry) -> int:
    """Resident memory without garbage."""
    with connect(address) as connection:
        said(connection, address, "rest", registry.credentials[0])
    return resident_bytes(pid)


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RunFailed(f"/proc/{pid}/smaps_rollup has no Rss")


# ---- neighbours -------------------------------------------------------------------------------------------


@figure
def tenants_quiet_p99(setting: Setting) -> Measured:
    """Both are driven by one generator at random moments; the neighbour has what its quota gives, and the rest is refused. Many
    short looks, as for http_p99."""
    text, quiet, loud = neighbours()
    times = int(10 * NEIGHBOURS_QUOTA_PER_S / QUIET_PER_S)
    seconds = max(setting.seconds, 0.3)
    with registries.kept(text) as file, http(file) as (address, pid):

        def at(times: int) -> Callable[[], Result]:
            return lambda: drive_beside(
                address, quiet, loud, rate=QUIET_PER_S, times=times, seconds=seconds, pid=pid
            )

        pairs = in_turns(at(times), at(0), 4 * setting.rounds, setting.tell)
    for crowded, _ in pairs:
        check_neighbours(crowded)
    ratios = [quiet_us(crowded)["p99"] / quiet_us(alone)["p99"] for crowded, alone in pairs]
    typical, _ = sorted(pairs, key=lambda pair: quiet_us(pair[0])["p99"])[len(pairs) // 2]
    refused = median(kind(crowded, "loud")["refused"] for crowded, _ in pairs) / seconds
    note = f"alone {median(quiet_us(alone)['p99'] for _, alone in pairs):.0f} us, {refused:,.0f}/s refused"
    return Measured(median(ratios), quiet_us(typical), samples=ratios, note=note)


def neighbours() -> tuple[str, str, str]:
    """A registry, and the credentials of its quiet and of its loud tenant."""
    random = Random(1)
    quota = f"{{ calls_per_s = {NEIGHBOURS_QUOTA_PER_S}, calls_burst = 100 }}"
    parts = [
        registries.plan(),
        registries.plan("small", quota, "{}"),
        registries.tenant("quiet"),
        registries.tenant("loud", of_plan="small"),
    ]
    quiet, loud = (registries.key(tenant, "person", random) for tenant in ("quiet", "loud"))
    return "".join([*parts, quiet[0], loud[0]]), quiet[1], loud[1]


def check_neighbours(run: Result) -> None:
    """Raises RunFailed unless the quiet one is never refused and the loud one has what its quota gives."""
    quiet, loud = kind(run, "quiet"), kind(run, "loud")
    if quiet["refused"] or not 3 * loud["requests"] < loud["refused"]:
        raise RunFailed(
            f"refused: {quiet['refused']} of the quiet one's calls, {loud['refused']} of the loud one's, "
            f"which had {loud['requests']}"
        )


def kind(run: Result, name: str) -> dict[str, Any]:
    return next(one for one in run.kinds if one["name"] == name)


def quiet_us(run: Result) -> dict[str, float]:
    times: dict[str, float] = kind(run, "quiet")["latency_us"]
    return times


# ---- a new registry while serving -------------------------------------------------------------------------


@figure
def tenants_reload(setting: Setting) -> Measured:
    """Each reload changes every tenant: a name of its own, and what its plan denies."""
    versions = {tool: registries.crowd(MANY, MANY, deny=DENIED[tool], name=tool) for tool in ("even", "odd")}
    credential = versions["even"].credentials[0]
    address = free_address()
    stalls_ms, took_s = [], []
    with (
        registries.kept(versions["even"].text) as file,
        serving([*RELOADING, file], address),
        connect(address) as connection,
    ):
        said(connection, address, "longest_us", credential)
        for turn in range(setting.rounds):
            setting.tell(f"reload {turn + 1} of {setting.rounds}")
            tool = ("odd", "even")[turn % 2]
            began_s = time.monotonic()
            replace_file(Path(file), versions[tool].text)
            await_tool(connection, address, tool, credential)
            took_s.append(time.monotonic() - began_s)
            time.sleep(AFTERWARDS_S)
            stalls_ms.append(float(said(connection, address, "longest_us", credential)) / 1e3)
    note = f"worst {max(stalls_ms):.1f} ms; a reload took {median(took_s):.2f} s"
    return Measured(median(stalls_ms), samples=stalls_ms, note=note)


def await_tool(connection: socket.socket, address: str, tool: str, credential: str) -> None:
    """Returns when the registry that does not deny `tool` holds. Raises RunFailed when it takes RELOAD_S."""
    late_s = time.monotonic() + RELOAD_S
    while b'"result"' not in ask(connection, call(address, credential, tool)).body:
        if time.monotonic() > late_s:
            raise RunFailed(f"a reload of {MANY:,} tenants took more than {RELOAD_S:g} s")
        time.sleep(0.02)


# ---- what they are asked ----------------------------------------------------------------------------------


def call(address: str, credential: str, tool: str = "echo") -> bytes:
    arguments = {"text": "hello"} if tool == "echo" else {}
    return modern(
        address, "tools/call", {"name": tool, "arguments": arguments}, name=tool, authorization=credential
    )


def said(connection: socket.socket, address: str, tool: str, credential: str) -> str:
    """What a tool answers. Raises RunFailed where it does not."""
    answer: Answer = ask(connection, call(address, credential, tool))
    if answer.status != 200:
        raise RunFailed(f"{tool}: {answer.status} {answer.body!r}")
    text: str = json.loads(answer.body)["result"]["content"][0]["text"]
    return text
