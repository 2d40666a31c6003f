"""The load engine of `mcpfast bench`, as the benches use it; and servers that listen while they are driven."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mcpfast.bench.drive import RunFailed, drive_target, result_of
from mcpfast.bench.messages import Speech
from mcpfast.bench.plan import Expectation, Plan, Step
from mcpfast.bench.result import Result
from mcpfast.bench.scenario import Action, Scenario, Steps, steps_of
from mcpfast.bench.target import Target, target_of
from mcpfast.protocol.revisions import BY_VERSION

SAID_BYTES_MAX = 2_000
SILENCE_S = 30.0  # of a server that is asked by hand
LEGACY, HTTP_LEGACY, MODERN = "2025-06-18", "2025-11-25", "2026-07-28"


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked of a server: `window` calls in flight on each of `connections`."""

    window: int = 1
    connections: int = 1
    era: str = LEGACY
    tool: str = "echo"  # or several, with commas between: the calls go around
    payload_bytes: int = 0
    lockstep: bool = False
    rate: float = 0.0  # open loop: calls a second, at random moments that depend on `seed`
    seed: int = 1
    credentials: tuple[str, ...] = ()  # HTTP: values of Authorization; of several, each call has the next
    lists: str = ""  # instead of calling a tool: "tools", say

    def scenario(self) -> Scenario:
        if self.lists:
            return Scenario(action=[Action(list=self.lists)])
        actions = [
            Action(call=tool, payload_bytes=self.payload_bytes)
            if self.payload_bytes
            else Action(call=tool, arguments={"text": "hello"}, expect="hello")
            for tool in self.tool.split(",")
        ]
        return Scenario(action=actions)


@cache
def processors() -> tuple[int, int] | None:
    """Two processors that share no core, for the load generator and the server; None where there is only one.

    Left to the scheduler, both land on one processor in some runs and on two in others, which changes the rate
    of a pipe three times over and says nothing about the server.
    """
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    siblings = Path(f"/sys/devices/system/cpu/cpu{allowed[0]}/topology/thread_siblings_list")
    same_core = {allowed[0]}
    if siblings.exists():
        for part in siblings.read_text().strip().split(","):
            first, _, last = part.partition("-")
            same_core |= set(range(int(first), int(last or first) + 1))
    others = [cpu for cpu in allowed if cpu not in same_core]
    return (others[0], allowed[0]) if others else None


def drive(
    shape: Shape,
    target: str | Sequence[str],
    *,
    seconds: float = 0.5,
    warmup: float = 0.2,
    calls: int = 0,
    pid: int = 0,
    timeout: float = 15,
    constant: bool = False,
) -> Result:
    """Drives an address, or a command over its stdin and stdout, for `seconds` or for a number of `calls`.

    `constant` is for a server that says the same to every HTTP request: its status is looked at, not its ids.

    Raises:
        RunFailed: wrong answers, a server that is not there or stops answering.
    """
    found = target_of(target) if isinstance(target, str) else target_of(None, target)
    plan = replace(
        planned(shape, found, constant),
        warmup_s=warmup,
        duration_s=seconds,
        calls=calls,
        timeout_s=timeout,
    )
    return checked(found, plan, shape.era, pid)


def checked(target: Target, plan: Plan, era: str, pid: int = 0) -> Result:
    """A run whose every answer was right. Raises RunFailed."""
    own, server = processors() or (-1, None)
    plan = replace(plan, processor=own, intervals=0)
    done = drive_target(target, plan, pid=pid or None, processor=server)
    if done.outcome["failure"] or done.outcome["errors"]:
        said = done.outcome["failure"] or f"wrong answers: {done.wrong}"
        raise RunFailed(
            f"{said}\n{done.outcome['first_error']}\n  while driving {target.text}".replace("\n\n", "\n")
        )
    return result_of(done, plan, target=target.text, era=era)


def planned(shape: Shape, target: Target, constant: bool = False) -> Plan:
    headers = {"Authorization": shape.credentials[0]} if shape.credentials else {}
    speech = Speech(target.wire, BY_VERSION[shape.era], target.authority, target.path, headers)
    steps = steps_of(shape.scenario(), speech)
    if len(shape.credentials) > 1:
        steps = around(steps, shape.credentials)
    if constant:
        sent = [replace(step, kind="notice", session_at=-1) for step in steps.steps if step.counted]
        steps = replace(steps, steps=sent, prologue=[], body=list(range(len(sent))))
    return Plan(
        target.wire,
        steps.steps,
        steps.body,
        steps.prologue,
        address=target.address,
        connections=shape.connections,
        window=shape.window,
        lockstep=shape.lockstep,
        rate=shape.rate,
        seed=shape.seed,
    )


def around(steps: Steps, credentials: Sequence[str]) -> Steps:
    """The body once for each credential; all of them are as long as the first, which is in the steps. What a connection begins
    with stays the first one's."""
    first = credentials[0]
    assert all(len(one) == len(first) for one in credentials), (
        "a session's header would be put into another place"
    )
    made, body = list(steps.steps), []
    for credential in credentials:
        for index in steps.body:
            body.append(len(made))
            made.append(with_credential(steps.steps[index], first, credential))
    return replace(steps, steps=made, body=body)


def with_credential(step: Step, before: str, now: str) -> Step:
    return replace(step, data=step.data.replace(before.encode(), now.encode(), 1))


def drive_beside(
    address: str,
    quiet: str,
    loud: str,
    *,
    rate: float,
    times: int,
    seconds: float,
    connections: int = 32,
    pid: int = 0,
) -> Result:
    """The echo over HTTP in an open loop: `quiet` calls at `rate` a second, and `loud`, another credential, `times` as often.

    They are the kinds "quiet" and "loud" of the result, whose calls may be refused. One generator sends both, so neither waits for
    the other's on this side. Raises RunFailed.
    """
    target = target_of(address)
    speech = Speech(target.wire, BY_VERSION[MODERN], target.authority, target.path, {"Authorization": quiet})
    step = replace(steps_of(Shape().scenario(), speech).steps[0], name="quiet")
    plan = Plan(
        target.wire,
        [step, replace(with_credential(step, quiet, loud), name="loud")],
        [0] + [1] * times,
        address=target.address,
        connections=connections,
        rate=rate * (1 + times),
        duration_s=seconds,
        timeout_s=15,
    )
    return checked(target, plan, MODERN, pid)


def drive_progress(address: str, events: int, *, seconds: float) -> Result:
    """Calls the tool `progress` over HTTP, one call at a time; each is answered with a stream of so many notifications.

    Rates are of notifications. Raises RunFailed when a stream is not whole.
    """
    target = target_of(address)
    speech = Speech(target.wire, BY_VERSION[MODERN], target.authority, target.path)
    params = {"name": "progress", "arguments": {"steps": events}, "_meta": {"progressToken": "p"}}
    plan = Plan(
        target.wire,
        [speech.request("progress", "tools/call", params, expect=Expectation(complete=True, text="hello"))],
        [0],
        address=target.address,
        duration_s=seconds,
        intervals=0,
        processor=(processors() or (-1, None))[0],
    )
    done = drive_target(target, plan)
    result = result_of(done, plan, target=address, era=MODERN)
    streams = done.outcome["verdicts"]["right"]
    if result.errors or done.outcome["notifications"] != streams * events:
        came = f"{done.outcome['notifications']} notifications in {streams} streams"
        raise RunFailed(f"the streams are not whole: {came} of {events} each. {result.first_error}")
    result.rate_per_s *= events
    result.rate_p75_per_s *= events
    return result


def sample(command: Sequence[str], era: str) -> bytes:
    """One answer of a server to the call, under some id."""
    shape = Shape(era=era)
    target = target_of(None, command)
    plan = replace(planned(shape, target), calls=1, intervals=0)
    done = drive_target(target, plan)
    answer = done.samples[plan.body[0]]
    if answer is None:
        raise RunFailed(done.outcome["failure"] or done.outcome["first_error"])
    return answer


@contextmanager
def staying_on(which: int) -> Iterator[None]:
    """What is spawned in the block stays on the first (0, a load) or the second (1, a server) of two processors."""
    pair, here = processors(), os.sched_getaffinity(0)
    if pair:
        os.sched_setaffinity(0, {pair[which]})  # inherited by the child
    try:
        yield
    finally:
        os.sched_setaffinity(0, here)


@contextmanager
def running(command: Sequence[str], address: str) -> Iterator[int]:
    """A server that listens on `address` while the block runs: its pid. What it says is only told when it fails.

    Raises:
        RunFailed: it ended, or did not listen within 30 s.
    """
    with tempfile.TemporaryFile() as said:
        with staying_on(1):
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            await_listening(server, address)
            yield server.pid
        except RunFailed as why:
            said.seek(max(0, said.seek(0, os.SEEK_END) - SAID_BYTES_MAX))
            raise RunFailed(f"{why}\n{said.read().decode(errors='replace')}".rstrip()) from why
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextmanager
def serving(command: Sequence[str], address: str) -> Iterator[int]:
    """The same of a command whose last argument is `address`."""
    with running([*command, address], address) as pid:
        yield pid


def over(scheme: str, address: str) -> str:
    """The same place as an http:// address, spoken to in another way: `over("ws", "http://...")`."""
    return f"{scheme}://{address.removeprefix('http://')}"


def connect(address: str) -> socket.socket:
    """A blocking connection to `tcp://HOST:PORT`, `unix:///PATH` or the host of `http://HOST:PORT/PATH`.

    Raises OSError, and later TimeoutError, which is one, where nothing comes for SILENCE_S.
    """
    if address.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SILENCE_S)
        try:
            connection.connect(address.removeprefix("unix://"))
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.partition("://")[2].partition("/")[0].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SILENCE_S)


def await_listening(server: subprocess.Popen[bytes], address: str, seconds: float = 30) -> None:
    """Returns when `address` takes connections."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connect(address).close()
            return
        except OSError as error:
            if server.poll() is not None:
                raise RunFailed(f"the server ended at once (exit status {server.returncode})") from error
            if time.monotonic() > deadline:
                raise RunFailed(f"the server does not listen on {address}: {error}") from error
            time.sleep(0.01)
