"""The figures over HTTP and WebSocket: figures.py goes on, against nginx and bare servers."""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

from benches.figures import (
    IDLE_CONNECTIONS,
    SERVERS,
    Measured,
    Setting,
    Skipped,
    against,
    allow_descriptors,
    figure,
    resident_bytes,
)
from benches.http_messages import (
    Answer,
    ask,
    legacy_session,
    listen,
    modern_call,
    progress_call,
    read_until,
    upgrade,
)
from benches.load import HTTP_LEGACY, MODERN, RunFailed, Shape, connect, drive, drive_progress, over, serving
from benches.nginx import free_address, kept, nginx
from benches.peer import peer_command
from benches.rounds import in_turns
from mcpfast.bench.result import Result

CONNECTIONS = 32
MODERN_SHAPE = Shape(connections=CONNECTIONS, era=MODERN)
PROGRESS_STEPS = 2_000  # events of one stream
KINDS = [sys.executable, str(SERVERS / "kinds.py")]


class Service(NamedTuple):
    """Where a server is, which process it is, and what it answers to the call that is measured."""

    address: str
    pid: int
    answer: Answer


@contextmanager
def answering(command: Sequence[str], *, strict: bool = False) -> Iterator[Service]:
    """A server of the echo tool at an HTTP address, its answer looked at; `strict` ones must check headers, too."""
    address = free_address()
    with serving(command, address) as pid, connect(address) as connection:
        if strict:
            refused = ask(connection, modern_call(address, named="another"))
            if refused.status != 400:
                raise RunFailed(f"{address} takes another Mcp-Name than the body's: {refused.head!r}")
        yield Service(address, pid, looked_at(connection, modern_call(address)))


def looked_at(connection: socket.socket, request: bytes) -> Answer:
    """The answer, if it is right."""
    answer = ask(connection, request)
    result = json.loads(answer.body).get("result", {}) if answer.status == 200 else {}
    if [block.get("text") for block in result.get("content", [])] != ["hello"]:
        raise RunFailed(f"not the answer to echo: {answer.head!r}{answer.body!r}")
    return answer


@contextmanager
def constant(command: Sequence[str], body: bytes) -> Iterator[Service]:
    """A server that answers everything with `body`."""
    address = free_address()
    with serving([*command, body.decode()], address) as pid, connect(address) as connection:
        yield Service(address, pid, looked_at(connection, modern_call(address)))


@contextmanager
def nginx_constant(body: bytes) -> Iterator[Service]:
    with nginx(body.decode()) as (address, pid), connect(address) as connection:
        yield Service(address, pid, looked_at(connection, modern_call(address)))


# ---- rates -----------------------------------------------------------------------------------------------


def load(setting: Setting, service: Service, shape: Shape = MODERN_SHAPE) -> Callable[[], Result]:
    """A run of ours; its answers are checked."""
    return lambda: drive(shape, service.address, seconds=setting.seconds, pid=service.pid)


def load_of_constant(setting: Setting, service: Service, shape: Shape = MODERN_SHAPE) -> Callable[[], Result]:
    """A run of a server that says the same to everything."""
    return lambda: drive(shape, service.address, seconds=setting.seconds, pid=service.pid, constant=True)


@figure
def http_modern(setting: Setting) -> Measured:
    with answering(setting.echo, strict=True) as ours, nginx_constant(ours.answer.body) as its:
        return against(setting, load(setting, ours), load_of_constant(setting, its))


@figure
def http_legacy(setting: Setting) -> Measured:
    """A session on each connection."""
    shape = Shape(connections=CONNECTIONS, era=HTTP_LEGACY)
    with answering(setting.echo) as ours, nginx_constant(ours.answer.body) as its:
        return against(setting, load(setting, ours, shape), load_of_constant(setting, its, shape))


@figure
def http_vs_mcp(setting: Setting) -> Measured:
    few = replace(setting, rounds=max(3, setting.rounds // 3))
    with answering(setting.echo, strict=True) as ours, answering(peer_command(), strict=True) as its:
        return against(few, load(setting, ours), load(setting, its))


@figure
def http_cpu(setting: Setting) -> Measured:
    bare = [sys.executable, str(SERVERS / "bare_http.py")]
    with answering(setting.echo, strict=True) as ours, constant(bare, ours.answer.body) as its:
        pairs = in_turns(load(setting, ours), load_of_constant(setting, its), setting.rounds, setting.tell)
    costs = [(cpu_us(a), cpu_us(b)) for a, b in pairs]
    ratios = [a / b for a, b in costs]
    ours_us, its_us = median(a for a, _ in costs), median(b for _, b in costs)
    typical, other = pairs[len(pairs) // 2]
    note = f"{ours_us:.1f} us a request, bare {its_us:.1f}"
    return Measured(median(ratios), typical.latency_us, typical.rate_per_s, other.rate_per_s, ratios, note)


@figure
def http_p99(setting: Setting) -> Measured:
    """The same arrivals for both, at random, half as many as we can answer. Many short looks, since a neighbour on the
    processor for some milliseconds is all that a p99 sees: it spoils those it falls into, and the median is none of them.
    """
    looks = 4 * setting.rounds
    with answering(setting.echo, strict=True) as ours, nginx_constant(ours.answer.body) as its:
        at_most = median(load(setting, ours)().rate_per_s for _ in range(3))
        shape = replace(MODERN_SHAPE, rate=at_most / 2)
        pairs = in_turns(
            load(setting, ours, shape), load_of_constant(setting, its, shape), looks, setting.tell
        )
    ratios = [a.latency_us["p99"] / b.latency_us["p99"] for a, b in pairs]
    typical, other = sorted(pairs, key=lambda pair: pair[0].latency_us["p99"])[len(pairs) // 2]
    note = f"nginx {median(b.latency_us['p99'] for _, b in pairs):.0f} us, at {at_most / 2:,.0f}/s"
    return Measured(median(ratios), typical.latency_us, typical.rate_per_s, other.rate_per_s, ratios, note)


@figure
def sse_progress(setting: Setting) -> Measured:
    """The stream that the canned writer repeats is one of ours. benches/servers/kinds.py has the tool, whatever --server says."""
    canned = [sys.executable, str(SERVERS / "canned_sse.py")]
    with ExitStack() as stack:
        ours, its = free_address(), free_address()
        stack.enter_context(serving(KINDS, ours))
        request = progress_call(ours, PROGRESS_STEPS)
        stream = events_of(ours, request)
        stack.enter_context(serving([*canned, stack.enter_context(kept(stream))], its))
        if events_of(its, request) != stream:
            raise RunFailed("the canned writer does not write the stream that it was given")
        measured = against(
            setting,
            lambda: drive_progress(ours, PROGRESS_STEPS, seconds=setting.seconds),
            lambda: drive_progress(its, PROGRESS_STEPS, seconds=setting.seconds),
        )
    return replace(measured, latency_us={})  # of nothing but whole streams


@figure
def ws_echo(setting: Setting) -> Measured:
    if find_spec("picows") is None:
        raise Skipped("picows is not here. Install: pip install 'picows>=2.3,<2.4'")
    bare = [sys.executable, str(SERVERS / "bare_ws.py")]
    with ExitStack() as stack:
        ours, its = free_address(), free_address("/")
        our_pid = stack.enter_context(serving(setting.echo, ours))
        with connect(ours) as connection:
            if ask(connection, upgrade(ours)).status != 101:
                raise Skipped("the server takes no WebSocket at its HTTP address")
            answer = ask(connect(ours), modern_call(ours)).body
        its_pid = stack.enter_context(serving([*bare, answer.decode()], its))

        def over_websocket(address: str, pid: int) -> Callable[[], Result]:
            return lambda: drive(MODERN_SHAPE, over("ws", address), seconds=setting.seconds, pid=pid)

        return against(setting, over_websocket(ours, our_pid), over_websocket(its, its_pid))


# ---- what costs nothing but memory -----------------------------------------------------------------------


def idle(setting: Setting, open_one: Callable[[str], socket.socket | None], what: str) -> Measured:
    """Resident memory for each of 2,000 more, once 100 are there; what is given stays open."""
    allow_descriptors()
    with answering(setting.echo) as ours:
        opened = [open_one(ours.address) for _ in range(100)]
        before = resident_bytes(ours.pid)
        setting.tell(f"{IDLE_CONNECTIONS} {what}")
        opened += [open_one(ours.address) for _ in range(IDLE_CONNECTIONS)]
        after = resident_bytes(ours.pid)
        with connect(ours.address) as connection:
            looked_at(connection, modern_call(ours.address))  # and it still answers
        for connection_or_none in opened:
            if connection_or_none is not None:
                connection_or_none.close()
    return Measured((after - before) / IDLE_CONNECTIONS / 1e3)


@figure
def http_idle_session(setting: Setting) -> Measured:
    """All of them over one connection, as many as it likes: what is left is the sessions alone."""
    with ExitStack() as stack:
        connections: list[socket.socket] = []

        def open_one(address: str) -> None:
            if not connections:
                connections.append(stack.enter_context(connect(address)))
            legacy_session(connections[0], address)

        return idle(setting, open_one, "sessions")


@figure
def http_idle_connection(setting: Setting) -> Measured:
    def open_one(address: str) -> socket.socket:
        connection = connect(address)
        looked_at(connection, modern_call(address))
        return connection

    return idle(setting, open_one, "connections")


@figure
def http_idle_listen(setting: Setting) -> Measured:
    def open_one(address: str) -> socket.socket:
        connection = connect(address)
        connection.sendall(listen(address))
        read_until(connection, b"notifications/subscriptions/acknowledged")
        return connection

    return idle(setting, open_one, "listen streams")


# ---- what they are made with -----------------------------------------------------------------------------


def cpu_us(run: Result) -> float:
    assert run.server is not None
    return float(run.server["cpu_us_per_request"])


def events_of(address: str, request: bytes) -> bytes:
    """The body of the event stream that answers `request`, without its chunks."""
    with connect(address) as connection:
        connection.sendall(request)
        head, _, rest = read_until(connection, b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")
    if b"200 OK" not in head or b"text/event-stream" not in head:
        raise RunFailed(f"{address} answered with no event stream: {head!r}{rest[:300]!r}")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body
