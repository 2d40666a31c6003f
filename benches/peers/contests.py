"""The rows of the echo table: what is asked of every server, a second at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benches.figures import compile_package, seconds_to_answer
from benches.load import LEGACY, MODERN, Shape, drive, running, staying_on
from benches.nginx import free_address
from benches.peers.catalog import Peer, Way, with_port
from mcpfast.bench.result import Result

HTTP_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Contestant:
    """A peer in one of its ways; `label` is what tables call it."""

    peer: Peer
    way: Way
    label: str
    environment: dict[str, str] = field(default_factory=dict)


def figures(run: Result) -> dict[str, Any]:
    """What is kept of a run."""
    server = run.server or {}
    return {
        "rate_per_s": run.rate_p75_per_s,
        "mean_rate_per_s": run.rate_per_s,
        "latency_us": run.latency_us,
        "cpu_us_per_request": server.get("cpu_us_per_request"),
        "rss_mb": server.get("rss_mb"),
        "generator_busy": run.generator["busy"],
    }


def over_stdio(window: int) -> Callable[[Contestant, str, float], dict[str, Any]]:
    def look(one: Contestant, era: str, seconds: float) -> dict[str, Any]:
        return figures(drive(Shape(window=window, era=era), one.way.command, seconds=seconds, warmup=0.5))

    return look


def over_http(one: Contestant, era: str, seconds: float) -> dict[str, Any]:
    address = free_address(one.peer.path)
    port = int(address.rpartition(":")[2].partition("/")[0])
    with running(with_port(one.way, port), address) as pid:
        shape = Shape(connections=HTTP_CONNECTIONS, era=era)
        return figures(drive(shape, address, seconds=seconds, warmup=0.5, pid=pid))


def to_initialize(one: Contestant, era: str, seconds: float) -> dict[str, Any]:
    compile_package()
    with staying_on(1):
        return {"start_ms": seconds_to_answer(one.way.command) * 1e3}


@dataclass(frozen=True, slots=True)
class Contest:
    """One row: a way to ask, over one transport, in one era."""

    name: str
    says: str
    transport: str
    era: str
    measure: Callable[[Contestant, str, float], dict[str, Any]]
    unit: str = "rate_per_s"

    def contestants(self, found: list[Peer]) -> list[Contestant]:
        pairs = [(peer, peer.way(self.transport, self.era)) for peer in found]
        return [Contestant(peer, way, peer.title) for peer, way in pairs if way is not None]

    def look(self, one: Contestant, seconds: float) -> dict[str, Any]:
        return self.measure(one, self.era, seconds)


def _each_era(name: str, says: str, transport: str, measure: Any) -> list[Contest]:
    return [Contest(f"{name} {era}", f"{says}, {era}", transport, era, measure) for era in (LEGACY, MODERN)]


CONTESTS = [
    *_each_era("stdio64", "stdio, 64 in flight", "stdio", over_stdio(64)),
    *_each_era("stdio1", "stdio, one at a time", "stdio", over_stdio(1)),
    *_each_era("http32", f"HTTP, {HTTP_CONNECTIONS} connections", "http", over_http),
    Contest("start", "start to initialize answered", "stdio", LEGACY, to_initialize, "start_ms"),
]
