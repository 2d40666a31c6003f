"""The rows of the echo table: what is asked of every server, a second at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benches.figures import compile_package, seconds_to_answer
from benches.load import LEGACY, MODERN, Shape, drive, planned, processors, running, staying_on
from benches.nginx import free_address
from benches.peers.catalog import Peer, Way
from benches.peers.results import Look
from mcpfast.bench.drive import Run, RunFailed, result_of, run
from mcpfast.bench.result import Result
from mcpfast.bench.target import started, target_of

HTTP_CONNECTIONS = 32
WARMUP_S = 0.5
START_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """A peer in one of its ways; `label` is what tables call it."""

    peer: Peer
    way: Way
    label: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, address: str = "", **environment: str) -> list[str]:
        """What starts it, over HTTP at `address`. What it says goes to the peer's log, which begins anew: over stdio, stderr."""
        port = address.rpartition(":")[2].partition("/")[0]
        variables = [f"{name}={value}" for name, value in (self.environment | environment).items()]
        words = [word.replace("{port}", port) for word in self.way.command]
        kept = '>"$0" 2>&1' if address else '2>"$0"'
        return ["sh", "-c", f'exec "$@" {kept}', str(self.peer.log), "env", *variables, *words]


Measure = Callable[[Contestant, str, float], Look]


def figures(run: Result) -> Look:
    """What is kept of a run."""
    server = run.server or {}
    return {
        "rate_per_s": run.rate_p75_per_s,
        "mean_rate_per_s": run.rate_per_s,
        "p50_us": run.latency_us["p50"],
        "p99_us": run.latency_us["p99"],
        "cpu_us_per_request": server.get("cpu_us_per_request"),
        "rss_mb": server.get("rss_mb"),
        "generator_busy": run.generator["busy"],
    }


def over_stdio(window: int) -> Measure:
    def look(one: Contestant, era: str, seconds: float) -> Look:
        """It answers one call before the time begins: how long it takes to start is a row of its own."""
        target = target_of(None, one.command())
        own, server = processors() or (-1, None)
        plan = replace(planned(Shape(window, era=era), target), processor=own, intervals=0)
        with started(target, processor=server) as child:
            plan = replace(plan, pipe=child.pipe, address=None)
            checked(run(replace(plan, window=1, calls=1, timeout_s=START_S_MAX)))
            plan = replace(plan, prologue=[], warmup_s=WARMUP_S, duration_s=seconds)
            done = checked(run(plan, pid=child.pid))
        return figures(result_of(done, plan, target=target.text, era=era))

    return look


def checked(done: Run) -> Run:
    """Raises RunFailed unless every answer was right."""
    said = done.outcome["failure"] or (done.outcome["errors"] and f"wrong answers: {done.wrong}")
    if said:
        raise RunFailed(f"{said} {done.outcome['first_error']}".strip())
    return done


def over_http(one: Contestant, era: str, seconds: float) -> Look:
    address = free_address(one.peer.path)
    with running(one.command(address), address) as pid:
        shape = Shape(connections=HTTP_CONNECTIONS, era=era)
        return figures(drive(shape, address, seconds=seconds, warmup=WARMUP_S, pid=pid))


def to_initialize(one: Contestant, era: str, seconds: float) -> Look:
    """By its own command: a shell before it would be measured, too."""
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
    measure: Measure

    def contestants(self, found: list[Peer]) -> list[Contestant]:
        pairs = [(peer, peer.way(self.transport, self.era)) for peer in found]
        return [Contestant(peer, way, peer.label) for peer, way in pairs if way is not None]

    def look(self, one: Contestant, seconds: float) -> Look:
        """Raises RunFailed."""
        return self.measure(one, self.era, seconds)


def _each_era(name: str, says: str, transport: str, measure: Measure) -> list[Contest]:
    return [Contest(f"{name} {era}", f"{says}, {era}", transport, era, measure) for era in (LEGACY, MODERN)]


CONTESTS = [
    *_each_era("stdio64", "stdio, 64 in flight", "stdio", over_stdio(64)),
    *_each_era("stdio1", "stdio, one at a time", "stdio", over_stdio(1)),
    *_each_era("http32", f"HTTP, {HTTP_CONNECTIONS} connections", "http", over_http),
    Contest("start", "start to initialize answered", "stdio", LEGACY, to_initialize),
]
