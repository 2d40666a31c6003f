"""Latencies for every transport and era: one call in flight, half of the maximum rate, and twice of it. figures.py goes on."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import median

from benches.budgets import budgets
from benches.build import binary
from benches.figures import SERVERS, Measured, Setting, canned_result, figure_named, sockets
from benches.figures_http import answering, nginx_constant
from benches.load import RunFailed, Shape, drive, over, serving
from benches.nginx import free_address
from benches.rounds import in_turns
from benches.servers.limited import CALLS_MAX, TOOL_S
from mcpfast.bench.plan import ID_HOLE
from mcpfast.bench.result import Result

IN_FLIGHT = 32  # of the maximum rate
OPEN_LOOP_WINDOW = 256
RATE_MAX = 100_000.0  # of an open loop: above it the generator is as busy as the server
ERAS = {"2025": "2025-06-18", "2026": "2026-07-28"}
LIMITED = [sys.executable, str(SERVERS / "limited.py")]
CAPACITY_PER_S = CALLS_MAX / TOOL_S

Drive = Callable[[Shape], Result]


@dataclass(frozen=True, slots=True)
class Pair:
    """Ours and the reference, ready to be driven."""

    ours: Drive
    reference: Drive


def era_of(transport: str, era: str) -> str:
    return "2025-11-25" if transport == "http" and era == "2025" else ERAS[era]


def driver(setting: Setting, target: str | Sequence[str], pid: int = 0, *, constant: bool = False) -> Drive:
    return lambda shape: drive(shape, target, seconds=setting.seconds, pid=pid, constant=constant)


@contextmanager
def ready(setting: Setting, transport: str, era: str) -> Iterator[Pair]:
    """Ours and its reference over one transport; they stay for as long as the block runs."""
    ceiling = [str(binary("ceiling")), "--result", canned_result(tuple(setting.echo), ERAS[era])]
    with ExitStack() as stack:
        enter = stack.enter_context
        if transport == "stdio":
            yield Pair(driver(setting, setting.echo), driver(setting, ceiling))
        elif transport in ("unix", "tcp"):
            ours, its = enter(sockets()) if transport == "unix" else (tcp_address(), tcp_address())
            our_pid, its_pid = enter(serving(setting.echo, ours)), enter(serving([*ceiling, "--listen"], its))
            yield Pair(driver(setting, ours, our_pid), driver(setting, its, its_pid))
        elif transport == "http":
            service = enter(answering(setting.echo))
            nginx = enter(nginx_constant(service.answer.body))
            its_drive = driver(setting, nginx.address, nginx.pid, constant=True)
            yield Pair(driver(setting, service.address, service.pid), its_drive)
        else:
            answer = f'{{"jsonrpc":"2.0","id":{ID_HOLE.decode()},"result":{ceiling[-1]}}}'
            bare = [sys.executable, str(SERVERS / "bare_ws.py"), answer]
            ours, its = free_address(), free_address("/")
            our_pid, its_pid = enter(serving(setting.echo, ours)), enter(serving(bare, its))
            yield Pair(driver(setting, over("ws", ours), our_pid), driver(setting, over("ws", its), its_pid))


def tcp_address() -> str:
    return over("tcp", free_address(""))


# ---- what is measured ------------------------------------------------------------------------------------


@cache
def compared(setting: Setting, transport: str, era: str, load: str) -> list[tuple[Result, Result]]:
    """Pairs of runs with one call in flight ("one"), or at half of our maximum rate ("half")."""
    revision = era_of(transport, era)
    with ready(setting, transport, era) as pair:
        shape = Shape(era=revision)
        if load == "half":
            shape = open_loop(transport, revision, maximum(pair, transport, revision) / 2)
        return in_turns(
            partial(pair.ours, shape), partial(pair.reference, shape), setting.rounds, setting.tell
        )


def crowd(transport: str, revision: str, window: int) -> Shape:
    """Over HTTP a connection has one call in flight, so there are more of them."""
    if transport == "http":
        return Shape(era=revision, connections=IN_FLIGHT)
    return Shape(era=revision, window=window)


def open_loop(transport: str, revision: str, rate: float) -> Shape:
    return replace(crowd(transport, revision, OPEN_LOOP_WINDOW), rate=min(rate, RATE_MAX))


def maximum(pair: Pair, transport: str, revision: str) -> float:
    shape = crowd(transport, revision, IN_FLIGHT)
    return median(pair.ours(shape).rate_per_s for _ in range(3))


def ratio(pairs: list[tuple[Result, Result]], quantile: str) -> Measured:
    ratios = [ours.latency_us[quantile] / its.latency_us[quantile] for ours, its in pairs]
    typical, other = sorted(pairs, key=lambda pair: pair[0].latency_us[quantile])[len(pairs) // 2]
    its_time = median(its.latency_us[quantile] for _, its in pairs)
    note = f"{median(ours.latency_us[quantile] for ours, _ in pairs):.3g} us, reference {its_time:.3g}"
    return Measured(median(ratios), typical.latency_us, typical.rate_per_s, other.rate_per_s, ratios, note)


def measure(setting: Setting, *, transport: str, era: str, kind: str) -> Measured:
    load, _, quantile = kind.partition("_")
    if load == "full":
        return full(setting, transport, era)
    if load == "over":
        return crowded_out(setting, transport, era, kind)
    return ratio(compared(setting, transport, era, load), quantile)


def full(setting: Setting, transport: str, era: str) -> Measured:
    """Twice the maximum: what cannot be answered at once waits, and the server goes on as fast as it can."""
    revision, ratios = era_of(transport, era), []
    with ready(setting, transport, era) as pair:
        for turn in range(setting.rounds):
            setting.tell(f"round {turn + 1} of {setting.rounds}")
            at_most = maximum(pair, transport, revision)
            shape = replace(crowd(transport, revision, OPEN_LOOP_WINDOW), rate=2 * at_most)
            ratios.append(pair.ours(shape).rate_per_s / at_most)
    return Measured(median(ratios), samples=ratios, note=f"at {2 * at_most:,.0f}/s")


@cache
def crowded(setting: Setting, transport: str, era: str) -> list[tuple[Result, Result]]:
    """Pairs of runs at twice and at half of what the limited server has places for."""
    longer = replace(setting, seconds=max(setting.seconds, 0.3))
    with ExitStack() as stack:
        target: str | Sequence[str] = LIMITED
        pid = 0
        if transport != "stdio":
            address = {
                "unix": lambda: stack.enter_context(sockets())[0],
                "tcp": tcp_address,
                "ws": free_address,
            }[transport]()
            pid = stack.enter_context(serving(LIMITED, address))
            target = over("ws", address) if transport == "ws" else address
        run = driver(longer, target, pid)

        def at(rate: float) -> Callable[[], Result]:
            shape = replace(open_loop(transport, ERAS[era], rate), tool="wait")
            return partial(run, shape)

        return in_turns(at(2 * CAPACITY_PER_S), at(CAPACITY_PER_S / 2), setting.rounds, setting.tell)


def crowded_out(setting: Setting, transport: str, era: str, kind: str) -> Measured:
    pairs = crowded(setting, transport, era)
    refused = median(crowd.refused for crowd, _ in pairs)
    if refused == 0:
        raise RunFailed("nothing was refused at twice of what there are places for")
    if kind == "over_refusal_p99":
        times = [crowd.refused_latency_us["p99"] for crowd, _ in pairs]
        return Measured(median(times) / (TOOL_S * 1e6), samples=times, note=f"{median(times):.0f} us")
    ratios = [crowd.latency_us["p99"] / calm.latency_us["p99"] for crowd, calm in pairs]
    typical = pairs[len(pairs) // 2][0]
    return Measured(
        median(ratios), typical.latency_us, typical.rate_per_s, samples=ratios, note=f"{refused:.0f} refused"
    )


for name in budgets():
    transport, _, rest = name.partition("_")
    era, _, kind = rest.partition("_")
    if era in ERAS:
        figure_named(name, partial(measure, transport=transport, era=era, kind=kind))
