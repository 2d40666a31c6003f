"""The published workloads: what stands behind the shop, and a look at a server that does it."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.load import LEGACY, MODERN, await_listening, processors, running, staying_on
from benches.nginx import free_address
from benches.peers.catalog import HERE, OURS, Peer
from benches.peers.contests import Contestant, checked, figures
from benches.peers.results import Look
from mcpfast.bench.drive import drive_target, result_of
from mcpfast.bench.messages import Speech
from mcpfast.bench.plan import Plan
from mcpfast.bench.scenario import Scenario, read_scenario, steps_of
from mcpfast.bench.target import target_of
from mcpfast.protocol.revisions import BY_VERSION

SHOP = HERE.parent / "shop"
LOG = HERE / "_build" / "shop.log"  # of Redis and the service
PUBLISHED_S = 300.0


class NoShop(Exception):
    """Redis or Go is not here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Shop:
    """Where the things behind the servers are."""

    api: str
    redis: str

    def seed(self) -> None:
        python = HERE / "_build" / OURS / "bin" / "python"
        subprocess.run([python, SHOP / "seed.py", self.redis], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shop_lacks() -> str:
    """The programs behind the shop that are not here, with where to get them; "" when all are."""
    needs = {"redis-server": "apt-get install -y redis-server", "go": "https://go.dev/dl (1.26 or newer)"}
    missing = [program for program in needs if shutil.which(program) is None]
    return "; ".join(f"{program} is not here. Get it: {needs[program]}" for program in missing)


@contextmanager
def behind_the_shop() -> Iterator[Shop]:
    """Redis and the HTTP service, on the processor of the load. Raises NoShop."""
    if lacks := shop_lacks():
        raise NoShop(lacks)
    api = HERE / "_build" / "shopapi"
    subprocess.run(["go", "build", "-o", api, "."], cwd=SHOP / "api", check=True)
    ports = free_port(), free_port()
    redis = [
        "redis-server",
        "--port",
        str(ports[1]),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--loglevel",
        "warning",
    ]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfast-shop-"))
        stack.enter_context(beside([str(api), str(ports[0])], f"tcp://127.0.0.1:{ports[0]}"))
        stack.enter_context(beside([*redis, "--dir", folder], f"tcp://127.0.0.1:{ports[1]}"))
        yield Shop(f"http://127.0.0.1:{ports[0]}", f"redis://127.0.0.1:{ports[1]}")


@contextmanager
def beside(command: list[str], address: str) -> Iterator[None]:
    with staying_on(0), LOG.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        await_listening(process, address)
        yield
    finally:
        process.terminate()
        process.wait(10)


@dataclass(frozen=True, slots=True)
class Workload:
    """One published workload in one era. Its file has the users and their schedule."""

    family: str
    name: str
    says: str
    era: str
    published_ramp_s: float

    @property
    def file(self) -> Path:
        return SHOP / f"{self.family}.toml"

    def contestants(self, found: list[Peer]) -> list[Contestant]:
        """Ours comes twice: with the best clients, and with those of the other Python peers."""
        made = []
        for peer in found:
            way = peer.way("http", self.era)
            if way is None:
                continue
            if peer.name == OURS:
                made.append(Contestant(peer, way, f"{peer.label}, best clients", {"PEER_CLIENTS": "best"}))
                made.append(Contestant(peer, way, f"{peer.label}, httpx and redis-py"))
            else:
                made.append(Contestant(peer, way, peer.label))
        return made

    @property
    def ceiling_per_s(self) -> float:
        """What the script lets a server count that takes no time: its users, and how long they rest."""
        scenario = read_scenario(self.file)
        opens = 0 if BY_VERSION[self.era].modern else sum(action.open for action in scenario.action)
        counted = opens + sum(
            action.call is not None or action.list is not None for action in scenario.action
        )
        rest_ms = sum((one.pause_ms or 0) + one.arguments.get("delay_ms", 0) for one in scenario.action)
        return (scenario.connections or 1) * counted / rest_ms * 1e3

    def schedule(self, seconds: float) -> str:
        """In words: `seconds` times the schedule of the file, beside the published one."""
        told = read_scenario(self.file)
        return (
            f"{told.connections} users join one after another within {told.ramp_s:g} s "
            f"(published: {self.published_ramp_s:g} s), {told.warmup_s:g} s go by uncounted, and then "
            f"{(told.duration_s or 1) * seconds:g} s are measured, in each round (published: {PUBLISHED_S:g} s, once, "
            f"ramps counted). There is no ramp down: nothing would be counted in it."
        )

    def scenario(self, shop: Shop) -> Scenario:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(self.file.read_text().replace("API_URL", shop.api))
            file.flush()
            return read_scenario(Path(file.name))

    def look(self, one: Contestant, shop: Shop, seconds: float) -> Look:
        """At a server that was started for it. Raises RunFailed, also when one answer of all was wrong."""
        if self.family == "shop":
            shop.seed()
        address = free_address(one.peer.path)
        with running(one.command(address, API_URL=shop.api, REDIS_URL=shop.redis), address) as pid:
            return self.drive(address, self.scenario(shop), pid, seconds)

    def drive(self, address: str, scenario: Scenario, pid: int, seconds: float) -> Look:
        target = target_of(address)
        speech = Speech(target.wire, BY_VERSION[self.era], target.authority, target.path)
        steps = steps_of(scenario, speech)
        plan = Plan(
            target.wire,
            steps.steps,
            steps.body,
            steps.prologue,
            address=target.address,
            connections=scenario.connections or 1,
            scripted=True,
            stride=steps.stride,
            ramp_s=scenario.ramp_s or 0.0,
            warmup_s=scenario.warmup_s or 0.0,
            duration_s=(scenario.duration_s or 1.0) * seconds,
            intervals=0,
            processor=(processors() or (-1, None))[0],
        )
        done = checked(drive_target(target, plan, pid=pid))
        result = result_of(done, plan, target=address, era=self.era)
        return {**figures(result), "kinds": result.kinds}


WORKLOADS = [
    Workload("v1", "v1 sessions", "v1, a session for each call", LEGACY, 10),
    Workload("v1", "v1 modern", "v1, 2026-07-28", MODERN, 10),
    Workload("shop", "shop sessions", "shop, a session for each call", LEGACY, 15),
    Workload("shop", "shop modern", "shop, 2026-07-28", MODERN, 15),
]
