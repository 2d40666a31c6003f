"""One run: the engine in a thread of its own, the server looked at beside it, and a `Result` in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mcpfast import __version__
from mcpfast.bench import processes
from mcpfast.bench.plan import Plan
from mcpfast.bench.result import Result, machine
from mcpfast.bench.target import END_S, Target, started
from mcpfast.errors import McpFastError

LOOK_S = 0.05  # how often what is going on is looked at
SOON_S = 0.002  # at first: short runs end soon
BUSY_MAX = 0.5  # of a processor: a generator that is busier may be what is measured
LATE_US_MAX = 500.0  # p99 of how late the generator itself was, open loop

Watch = Callable[[dict[str, Any]], None]


class RunFailed(McpFastError):
    """Nothing could be measured: no server, or one that stopped answering. The text says which."""


@dataclass(slots=True)
class Run:
    """A finished run: what the engine found, and what the server used."""

    outcome: dict[str, Any]
    server: dict[str, Any] | None
    samples: list[bytes | None] = field(default_factory=list)  # a right answer to each step
    last_answer: bytes = b""
    was_killed: bool = False  # the server, which stayed when its input had ended

    @property
    def wrong(self) -> dict[str, int]:
        fine = ("right", "refused", "cancelled", "not_an_answer")
        return {kind: count for kind, count in self.outcome["verdicts"].items() if kind not in fine}


@dataclass(slots=True)
class _Look:
    answered: int
    usage: processes.Usage | None


def run(plan: Plan, *, pid: int | None = None, watch: Watch | None = None) -> Run:
    """Drives a server as `plan` says. `pid` is the server's, where it is local; `watch` is told now and then how it goes.

    An interrupt (Ctrl-C) ends the run early, and gives what was measured until then.
    """
    from mcpfast.bench._engine import Engine

    pids = processes.family(pid) if pid else []
    engine = Engine(replace(plan, pids=tuple(pids)))
    thread = threading.Thread(target=engine.run, name="mcpfast-bench", daemon=True)
    thread.start()
    looks: list[_Look] = []
    pause = SOON_S
    while thread.is_alive():
        try:
            thread.join(pause)
            pause = min(LOOK_S, pause * 2)
            seen = engine.look()
            if pids and not looks and seen["phase"] == "measuring":
                looks.append(_Look(seen["answered"], processes.usage(pids)))
            if watch is not None:
                watch(seen)
        except KeyboardInterrupt:
            engine.stop()
    if pids:
        looks.append(_Look(engine.look()["answered"], processes.usage(pids)))
    outcome = engine.outcome()
    samples = [engine.sample(index) for index in range(len(plan.steps))]
    return Run(outcome, _server(outcome, pids, looks), samples, engine.last_answer())


def drive_target(
    target: Target,
    plan: Plan,
    *,
    pid: int | None = None,
    processor: int | None = None,
    watch: Watch | None = None,
) -> Run:
    """The same for a server that is started for the run, where `target` is a command; `processor` is where it stays.

    Raises TargetError when it cannot be started.
    """
    if not target.command:
        return run(plan, pid=pid, watch=watch)
    with started(target, processor=processor) as child:
        done = run(replace(plan, pipe=child.pipe, address=None), pid=child.pid, watch=watch)
        if done.outcome["failure"]:
            done.outcome["failure"] += child.epitaph()
    done.was_killed = child.was_killed
    return done


def _server(outcome: dict[str, Any], pids: Sequence[int], looks: Sequence[_Look]) -> dict[str, Any] | None:
    if not pids:
        return None
    calls = max(1, outcome["answered"])
    found: dict[str, Any] = {"pid": pids[0], "cpu_us_per_request": outcome["server_cpu_s"] * 1e6 / calls}
    if outcome["seconds"] > 0:
        found["cpu_share"] = outcome["server_cpu_s"] / outcome["seconds"]
    last = looks[-1].usage
    if last is None:
        return found
    found |= {"rss_mb": last.rss_mb, "descriptors": last.descriptors, "threads": last.threads}
    first = looks[0].usage
    between = looks[-1].answered - looks[0].answered
    if first is not None and between > 0:
        found["voluntary_switches_per_request"] = (
            last.voluntary_switches - first.voluntary_switches
        ) / between
        found["involuntary_switches_per_request"] = (
            last.involuntary_switches - first.involuntary_switches
        ) / between
    return found


def result_of(done: Run, plan: Plan, *, target: str, era: str, name: str = "") -> Result:
    """The figures of a run. Raises RunFailed when it came to no measured answer."""
    outcome = done.outcome
    failure = outcome["failure"]
    if outcome["seconds"] <= 0 or (outcome["answered"] + outcome["refused"] == 0):
        raise RunFailed(failure or _why_nothing(outcome))
    busy = outcome["own_cpu_s"] / outcome["seconds"]
    rate = outcome["answered"] / outcome["seconds"]
    result = Result(
        mcpfast=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        name=name or target,
        target=target,
        era=era,
        loop="open" if plan.rate else "closed",
        connections=plan.connections,
        window=plan.window,
        rate=plan.rate or None,
        warmup_s=plan.warmup_s,
        duration_s=plan.duration_s,
        machine=machine(),
        seconds=outcome["seconds"],
        requests=outcome["requests"],
        rate_per_s=rate,
        rate_p75_per_s=outcome["rate_p75_per_s"] or rate,
        errors=outcome["errors"],
        error_kinds=done.wrong,
        refused=outcome["refused"],
        latency_us=outcome["latency_us"],
        refused_latency_us=outcome["refused_latency_us"],
        percentiles=outcome["percentiles"],
        over_time=outcome["intervals"],
        kinds=[{"name": name, **kind} for name, kind in outcome["kinds"].items()],
        handshake_ms=outcome["handshake_ms"],
        server=done.server,
        generator={
            "cpu_us_per_request": outcome["own_cpu_s"] * 1e6 / max(1, outcome["answered"]),
            "busy": busy,
            "late_us_p99": outcome["lateness_us"]["p99"],
            "reads_per_request": outcome["reads"] / max(1, outcome["answered"]),
            "writes_per_request": outcome["writes"] / max(1, outcome["answered"]),
            "bytes_per_answer": outcome["answer_bytes"] / max(1, outcome["answered"]),
            "connections_made": outcome["connections_made"],
            "notifications": outcome["notifications"],
        },
        warnings=[],
        first_error=outcome["first_error"],
    )
    result.warnings += warnings(result, failure)
    if done.was_killed:
        result.warnings.append(f"the server was still there {END_S:g} s after its input had ended: killed")
    return result


def _why_nothing(outcome: dict[str, Any]) -> str:
    if outcome["first_error"]:
        return f"no right answer came. The first wrong one: {outcome['first_error']}"
    return "no answer came in the measured time; make --duration longer"


def warnings(result: Result, failure: str) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    if failure:
        found.append(f"the run ended early: {failure}")
    if result.loop == "closed" and result.generator["busy"] > BUSY_MAX:
        share = (result.server or {}).get("cpu_share")
        server = f" (the server {share:.0%})" if share is not None else ""
        found.append(
            f"the load generator was busy {result.generator['busy']:.0%} of the time{server}: "
            "it could not have driven a server twice as fast"
        )
    if result.loop == "open" and result.generator["late_us_p99"] > LATE_US_MAX:
        found.append(
            f"one request in a hundred was sent {result.generator['late_us_p99'] / 1e3:.1f} ms late or later, "
            "because no connection was free or this machine was busy: latencies count it as the server's time"
        )
    if result.rate is not None and result.rate_per_s < 0.95 * result.rate:
        found.append(
            f"{result.rate:,.0f} requests a second were asked for, {result.rate_per_s:,.0f} were answered"
        )
    if result.requests < 100:
        found.append(f"only {result.requests} requests: percentiles above the median say little")
    return found
