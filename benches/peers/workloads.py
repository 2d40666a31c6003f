"""The published workloads: what stands behind the shop, and a run of it."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benches.load import LEGACY, MODERN, RunFailed, await_listening, processors, running, staying_on
from benches.nginx import free_address
from benches.peers.catalog import HERE, OURS, Peer, with_port
from benches.peers.contests import Contestant, figures
from mcpfast.bench.drive import drive_target, result_of
from mcpfast.bench.messages import Speech
from mcpfast.bench.plan import Plan
from mcpfast.bench.scenario import Scenario, read_scenario, steps_of
from mcpfast.bench.target import target_of
from mcpfast.protocol.revisions import BY_VERSION

SHOP = HERE.parent / "shop"


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


@contextmanager
def behind_the_shop() -> Iterator[Shop]:
    """Redis and the HTTP service, on the processor of the load. Raises NoShop."""
    for program, package in (("redis-server", "redis-server"), ("go", "golang")):
        if shutil.which(program) is None:
            raise NoShop(f"{program} is not here. Install: apt-get install -y {package}")
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
    with staying_on(0):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        await_listening(process, address)
        yield
    finally:
        process.terminate()
        process.wait(10)


@dataclass(frozen=True, slots=True)
class Workload:
    """One published workload in one era."""

    name: str
    says: str
    file: Path
    era: str
    both_clients: bool = False  # ours runs it with the usual clients and with the best ones

    def contestants(self, found: list[Peer]) -> list[Contestant]:
        made = []
        for peer in found:
            way = peer.way("http", self.era)
            if way is None:
                continue
            if peer.name == OURS and self.both_clients:
                made.append(Contestant(peer, way, f"{peer.title}, best clients", {"PEER_CLIENTS": "best"}))
                made.append(Contestant(peer, way, f"{peer.title}, httpx and redis-py"))
            else:
                made.append(Contestant(peer, way, peer.title))
        return made

    def scenario(self, shop: Shop) -> Scenario:
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(self.file.read_text().replace("API_URL", shop.api))
            file.flush()
            return read_scenario(Path(file.name))

    def look(self, one: Contestant, shop: Shop, seconds: float) -> dict[str, Any]:
        shop.seed()
        address = free_address(one.peer.path)
        port = int(address.rpartition(":")[2].partition("/")[0])
        known = {"API_URL": shop.api, "REDIS_URL": shop.redis, **one.environment}
        command = ["env", *(f"{name}={value}" for name, value in known.items()), *with_port(one.way, port)]
        with running(command, address) as pid:
            return self.drive(address, self.scenario(shop), pid, seconds)

    def drive(self, address: str, scenario: Scenario, pid: int, seconds: float) -> dict[str, Any]:
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
            warmup_s=2.0,
            duration_s=seconds,
            intervals=0,
        )
        if pair := processors():
            plan = replace(plan, processor=pair[0])
        done = drive_target(target, plan, pid=pid)
        result = result_of(done, plan, target=address, era=self.era)
        if result.errors or done.outcome["failure"]:
            raise RunFailed(
                f"{result.errors} wrong answers {result.error_kinds}: {result.first_error or done.outcome['failure']}"
            )
        return {**figures(result), "kinds": result.kinds}


WORKLOADS = [
    Workload("v1 sessions", "v1, a session for each call", SHOP / "v1.toml", LEGACY),
    Workload("v1 modern", "v1, 2026-07-28", SHOP / "v1.toml", MODERN),
    Workload("shop sessions", "shop, a session for each call", SHOP / "shop.toml", LEGACY, both_clients=True),
    Workload("shop modern", "shop, 2026-07-28", SHOP / "shop.toml", MODERN, both_clients=True),
]
