"""Looking into a live server: real ones, rung at from outside; what is told is true, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from mcpfast import Client, MCPServer
from mcpfast.cli import main
from mcpfast.live import caller, door, doorway, state, view
from mcpfast.live.caller import NoDoor, Visit, ringable, visit
from mcpfast.live.door import Door
from mcpfast.live.lag import LagMeter
from mcpfast.live.messages import Greeting, Pause, Refused, Snapshot, Taken, Watch
from mcpfast.live.places import Handlers
from mcpfast.serve import serve
from mcpfast.server.host import Host
from tests.wire import connected, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the door is an abstract Unix socket")
T = TypeVar("T")
SECRET = "the-secret-argument"

SERVER = """
import asyncio, gc, os, signal, sys, threading, time
from mcpfast import Context, Limits, MCPServer

server = MCPServer("notes", version="1.0", limits=Limits(threads_max=2))

async def fetch(seconds):
    await asyncio.sleep(seconds)

@server.tool
async def wait(seconds: float, note: str = "") -> str:
    await fetch(seconds)
    return note

@server.tool
async def wait_in_a_task(seconds: float) -> str:
    await asyncio.create_task(fetch(seconds))
    return "waited"

@server.tool
def work(seconds: float) -> str:
    return doze(seconds)

def doze(seconds):
    time.sleep(seconds)
    return "worked"

@server.tool
async def stall(seconds: float) -> str:
    return doze(seconds)

@server.tool
async def hold(size: int) -> int:
    return sum(range(size))  # C code, which gives the lock to nobody

@server.tool
async def cycles(count: int) -> int:
    for _ in range(count):
        circle = []
        circle.append(circle)
    return sum(gc.collect() for _ in range(3))

@server.tool
async def echo(text: str) -> str:
    return text

@server.tool
async def fork() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    return child

@server.tool
async def much(size: int) -> str:
    return "x" * size

@server.tool
async def stubborn() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(1)
    return "late"

@server.tool
async def inside() -> dict:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() != "mcp_call"]
    return {
        "pid": os.getpid(),
        "loaded": [name for name in sys.modules if name.startswith("mcpfast.live")],
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(tasks),
        "callbacks": len(gc.callbacks),
    }

if __name__ == "__main__":
    if "--own-handler" in sys.argv:
        signal.signal(signal.SIGURG, lambda *_: print("rung", file=sys.stderr, flush=True))
        sys.argv.remove("--own-handler")
    server.run(sys.argv[1:] or "stdio")
"""


@contextmanager
def started(folder: Path, *words: str, text: str = SERVER) -> Iterator[subprocess.Popen[str]]:
    """The server above; `args` are its addresses."""
    file = folder / "notes.py"
    file.write_text(text)
    server = subprocess.Popen([sys.executable, str(file), *words], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    addresses = []
    while len(addresses) < sum("://" in word for word in words):
        line = server.stderr.readline()
        assert line, "the server did not start"
        addresses += [line.split()[-1]] if "listening on" in line else []
    server.args = addresses
    try:
        yield server
    finally:
        server.kill()
        server.wait(10)
        server.stderr.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str, str]]:
    """One server for many tests: its pid, its Unix address, its address over HTTP."""
    folder = tmp_path_factory.mktemp("live")
    with started(folder, f"unix://{folder}/s", "http://127.0.0.1:0") as server:
        yield server.pid, *server.args  # type: ignore[misc]
        assert server.poll() is None  # nobody who looked has hurt it


@pytest.fixture
def live(served: tuple[int, str, str]) -> tuple[int, str, str]:
    """The same at rest: what a test before began has ended."""
    deadline = time.monotonic() + 5
    while (seen := looked(served[0])).calls or seen.threads.busy or seen.sessions:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return served


def looked(pid: int, limit: int = 20, pause_s: float = 0.0) -> Snapshot:
    with visit(pid) as visitor:
        if pause_s:
            visitor.look(limit)
            time.sleep(pause_s)
        return visitor.look(limit)


async def aside(look: Callable[..., T], *given: Any) -> T:
    """In a thread: this loop is the clients'."""
    return await asyncio.to_thread(look, *given)


@asynccontextmanager
async def calling(
    client: Client, *calls: tuple[str, dict[str, Any]]
) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Calls in flight, in the order in which they are given."""
    tasks = []
    for name, arguments in calls:
        tasks.append(asyncio.create_task(client.call_tool(name, arguments)))
        await asyncio.sleep(0.05)
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def inside(client: Client) -> dict[str, Any]:
    told: dict[str, Any] = (await client.call_tool("inside", {})).data
    return told


# ------------------------------------------------------------------------------------------------ calls


def point(line: str, function: str) -> str:
    """Where a line of the server above is, as it is told."""
    number = next(at for at, text in enumerate(SERVER.splitlines(), 1) if line in text)
    return f"notes.py:{number} in {function}"


@pytest.mark.parametrize(
    ("transport", "mode"),
    [
        ("stdio", "2025-06-18"),
        ("stdio", "auto"),
        ("unix", "2025-11-25"),
        ("http", "2025-11-25"),
        ("http", "auto"),
    ],
)
def test_calls_in_flight(transport: str, mode: str, live: tuple[int, str, str], tmp_path: Path) -> None:
    """Their age, their client, and where they wait: a coroutine, one below a Task, a thread."""
    file = tmp_path / "notes.py"
    file.write_text(SERVER)
    command = Client.stdio([sys.executable, str(file)], mode=mode)
    client = command if transport == "stdio" else Client(live[1 if transport == "unix" else 2], mode=mode)
    waits = ("wait", {"seconds": 30.0, "note": SECRET})

    async def scenario() -> Snapshot:
        async with client:
            pid = (await inside(client))["pid"]
            work = ("work", {"seconds": 1.0})
            async with calling(client, waits, ("wait_in_a_task", {"seconds": 30.0}), work):
                await asyncio.sleep(0.25)
                return await aside(looked, pid)

    seen = run(scenario(), 30)
    first, second, third = seen.oldest
    assert [call.what for call in seen.oldest] == ["wait", "wait_in_a_task", "work"] and seen.calls == 3
    assert first.point.startswith(point("await asyncio.sleep(seconds)", "fetch") + " > asyncio/tasks.py:")
    assert second.point.startswith(point("await asyncio.sleep(seconds)", "fetch"))
    assert third.point == point("time.sleep(seconds)", "doze") and third.threaded and not first.threaded
    assert 0.35 <= first.age_s <= 5 and first.age_s > second.age_s > third.age_s
    assert first.client.startswith("mcpfast ") and first.peer.startswith(transport)
    assert first.id.strip('"').isalnum()
    row = next(one for one in seen.transports if one.name == transport)
    assert (row.busy >= 1, row.calls) == (True, 3)
    assert (seen.threads.busy, seen.threads.most) == (1, 2)
    assert SECRET.encode() not in msgspec.json.encode(seen) and b"30.0" not in msgspec.json.encode(seen)


def test_what_waits_for_a_thread_and_what_was_cancelled(live: tuple[int, str, str]) -> None:
    async def scenario() -> Snapshot:
        async with Client(live[1]) as client:
            works = [("work", {"seconds": 1.0})] * 3
            async with calling(client, *works, ("stubborn", {})) as tasks:
                tasks[-1].cancel()
                await asyncio.sleep(0.1)
                return await aside(looked, live[0])

    seen = run(scenario())
    assert [call.point for call in seen.oldest][2] == "the queue for a worker thread"
    assert (seen.threads.busy, seen.threads.queued) == (2, 1)
    assert [call.cancelled for call in seen.oldest] == [False, False, False, True]
    assert "stubborn (cancelled)" in view.text(view.Seen(Greeting(1, "0", "3"), None, seen, None))


def test_the_oldest_calls_first_and_no_more_than_asked_for(live: tuple[int, str, str]) -> None:
    async def scenario() -> Snapshot:
        async with Client(live[1]) as one, Client(live[2]) as other:
            async with calling(one, ("stubborn", {})), calling(other, *[("wait", {"seconds": 30.0})] * 4):
                return await aside(looked, live[0], 3)

    seen = run(scenario())
    assert [call.what for call in seen.oldest] == ["stubborn", "wait", "wait"] and seen.calls == 5
    ages = [call.age_s for call in seen.oldest]
    assert ages == sorted(ages, reverse=True) and len(seen.visitors) == min(3, seen.sessions)
    words = view.text(view.Seen(Greeting(1, "0", "3"), None, seen, None))
    assert "and 2 younger ones (--limit)" in words


def test_sessions_by_transport_and_who_was_heard_from_last(live: tuple[int, str, str]) -> None:
    async def scenario() -> tuple[Snapshot, Snapshot]:
        async with Client(live[2], mode="2025-06-18"), Client(live[1], mode="2025-11-25") as unix:
            with visit(live[0]) as visitor:
                first = visitor.look()
                await asyncio.sleep(0.3)
                await unix.call_tool("echo", {"text": "x"})
                await asyncio.sleep(0.1)
                return first, visitor.look()

    first, second = run(scenario())
    assert [row.name for row in second.transports] == ["http", "unix"]
    assert first.visitors[0].idle_at_least or first.visitors[-1].idle_at_least  # nobody knows since when
    latest = second.visitors[0]
    assert (latest.transport, latest.revision, latest.idle_at_least) == ("unix", "2025-11-25", False)
    assert latest.idle_s < 0.3 and latest.peer == f"unix pid {os.getpid()}"
    http = next(one for one in second.visitors if one.transport == "http")
    assert http.revision == "2025-06-18" and 0.3 < http.idle_s < 30
    assert second.answered == first.answered + 1


def test_a_listen_stream_is_no_call(live: tuple[int, str, str]) -> None:
    async def scenario() -> Snapshot:
        async with Client(live[1]) as client, client.listen(tools_list_changed=True):
            return await aside(looked, live[0])

    seen = run(scenario())
    assert seen.calls == 0 and seen.oldest == []
    assert next(row.listens for row in seen.transports if row.name == "unix") == 1


def test_unsent_output_and_who_does_not_take_it(live: tuple[int, str, str]) -> None:
    info = {"name": "a\x1b[2Jdeaf", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
    lines: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    call = {"name": "much", "arguments": {"size": 300_000}}
    lines += [{"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": call} for n in range(1, 4)]
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.settimeout(5)
        deaf.connect(live[1].removeprefix("unix://"))
        deaf.sendall("".join(json.dumps(line) + "\n" for line in lines).encode())
        deadline = time.monotonic() + 5
        while (seen := looked(live[0])).unsent.most_bytes < 100_000 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert seen.unsent.total_bytes == seen.unsent.most_bytes > 100_000 and seen.unsent.sessions == 1
    assert (
        seen.unsent.most_of == f"unix pid {os.getpid()} (a?[2Jdeaf 1)"
    )  # nothing that moves a terminal's cursor


def test_a_call_that_belongs_to_no_session(tmp_path: Path) -> None:
    """Over HTTP without sessions, and with a client of the legacy era."""
    text = SERVER.replace('"stdio")', '"stdio", session_mode="off")')
    with started(tmp_path, "http://127.0.0.1:0", text=text) as server:

        async def scenario() -> Snapshot:
            async with Client(server.args[0], mode="2025-06-18") as client:
                async with calling(client, ("wait", {"seconds": 30.0})):
                    return await aside(looked, server.pid)

        seen = run(scenario())
    (call,) = seen.oldest
    assert (call.what, call.client, seen.sessions, seen.calls) == ("wait", "", 0, 1)
    assert call.point.startswith(point("await asyncio.sleep(seconds)", "fetch"))
    assert call.peer.startswith("http 127.")
    assert [(row.name, row.calls) for row in seen.transports] == [("http", 1)]


def test_whose_code_it_is() -> None:
    server: MCPServer[Any] = MCPServer("makes handlers")

    class Home:
        def method(self) -> str:
            return ""

        async def __call__(self) -> str:
            return ""

    def made(name: str) -> None:
        async def one() -> str:
            return name

        server.add_tool(one, name)

    made("first"), made("second"), made("third")
    server.add_tool(Home().method)
    server.add_tool(Home(), "callable")
    server.add_prompt(functools.partial(Home.method, Home()), "partial")
    server.add_resource("notes://{name}", lambda name: name)
    named = sorted(Handlers(server).named.values())
    assert named == [
        "resource notes://{name}",
        "tool callable",
        "tool first (or one like it)",
        "tool method (or one like it)",
    ]
    assert Handlers(server).packages == {"tests"}


def test_every_answered_request_is_counted_once() -> None:
    server: MCPServer[Any] = MCPServer("counted", version="1")

    @server.tool
    async def quick() -> str:
        return "done"

    @server.tool
    async def slow() -> str:
        await asyncio.sleep(0.01)
        return "done"

    @server.tool
    async def broken() -> str:
        raise ValueError

    async def scenario() -> None:
        async with connected(server, "2025-03-26") as wire:
            (host,) = server._serving
            before = host.engine.answered
            calls = [
                wire.message("tools/call", {"name": name})
                for name in ("quick", "quick", "slow", "broken", "nobody")
            ]
            for call in calls:
                wire.send(call)
                await wire.answer(call["id"])
            assert host.engine.answered - before == 5
            batch = [wire.message("tools/call", {"name": "quick"}), wire.message("ping")]
            wire.send(batch)
            await wire.answer(batch[1]["id"])
            assert host.engine.answered - before == 7
            late = wire.message("tools/call", {"name": "slow"})
            wire.send(late)
            wire.cancel(late["id"])
            ping = wire.message("ping")
            wire.send(ping)
            await wire.answer(ping["id"])
            assert host.engine.answered - before == 8  # what was cancelled is not answered

    run(scenario())


# ------------------------------------------------------------------------------------------------ the loop, the collector


def watched(pid: int, what: Watch, begun: threading.Event, done: threading.Event) -> Taken:
    with visit(pid) as visitor:
        visitor.watch(what)
        begun.set()
        assert done.wait(10)
        time.sleep(0.05)
        return visitor.take()


async def watching(pid: int, what: Watch, client: Client, name: str, arguments: dict[str, Any]) -> Taken:
    """What is seen of one call."""
    begun, done = threading.Event(), threading.Event()
    looking = asyncio.create_task(aside(watched, pid, what, begun, done))
    await aside(begun.wait, 10)
    await asyncio.sleep(0.1)
    await client.call_tool(name, arguments)
    done.set()
    return await looking


@pytest.mark.plain_build
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_planted_stall_is_found(loop: str, tmp_path: Path) -> None:
    """As long as it was, and where. Machines stand still on their own, too: other stalls may be told beside it."""
    file = tmp_path / "notes.py"
    file.write_text(SERVER.replace('sys.argv[1:] or "stdio"', f'"stdio", loop="{loop}"'))

    async def scenario() -> Taken:
        async with Client.stdio([sys.executable, str(file)]) as client:
            pid = (await inside(client))["pid"]
            for attempt in range(3):  # and once it may stand still just then
                taken = await watching(pid, Watch("loop", 0.02), client, "stall", {"seconds": 0.1})
                (planted,) = [stall for stall in taken.stalls if stall.handler == "tool stall"]
                if 0.08 <= planted.duration_s <= 0.12 or attempt == 2:
                    return taken
        raise AssertionError

    taken = run(scenario(), 30)
    (planted,) = [stall for stall in taken.stalls if stall.handler == "tool stall"]
    assert 0.08 <= planted.duration_s <= 0.12
    assert planted.cpu_s < 0.05 and not planted.held
    stack = taken.stacks[planted.stacks[0].stack]
    assert planted.first == planted.stacks[0].stack
    assert [frame.function for frame in stack][-2:] == ["stall", "doze"]
    assert (
        f"{stack[-1].file}:{stack[-1].line} in doze" == point("time.sleep(seconds)", "doze") and stack[-1].own
    )
    assert planted.stacks[0].seconds == pytest.approx(planted.duration_s, rel=0.2)
    assert len(taken.lags) > 10


@pytest.mark.plain_build
def test_c_code_that_holds_the_lock_is_named_all_the_same(live: tuple[int, str, str]) -> None:
    async def scenario() -> Taken:
        async with Client(live[1]) as client:
            return await watching(live[0], Watch("loop", 0.02), client, "hold", {"size": 12_000_000})

    taken = run(scenario())
    (stall,) = [stall for stall in taken.stalls if stall.handler == "tool hold"]
    assert stall.held and stall.duration_s > 0.06
    assert taken.stacks[stall.first][-1].function == "hold"


def test_pauses_of_the_collector(live: tuple[int, str, str]) -> None:
    async def scenario() -> Taken:
        async with Client(live[1]) as client:
            return await watching(live[0], Watch("gc"), client, "cycles", {"count": 20_000})

    taken = run(scenario())

    def of(generation: int) -> list[Pause]:
        return [pause for pause in taken.pauses if pause.generation == generation]

    assert len(of(2)) >= 3
    called = [
        pause for pause in of(2) if pause.where is not None and pause.where.function.startswith("cycles")
    ]
    assert len(called) == 3 and all(pause.on_loop and pause.duration_s > 0 for pause in called)
    assert len(of(0)) >= 3 and sum(pause.collected for pause in taken.pauses) >= 20_000
    assert sum(pause.young for pause in of(0)) >= 10_000
    assert [pause.begin_s for pause in taken.pauses] == sorted(pause.begin_s for pause in taken.pauses)


def test_the_lag_of_a_loop_that_stands_still() -> None:
    async def scenario() -> None:
        meter = LagMeter(asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        assert meter.take().count > 1
        time.sleep(0.15)
        await asyncio.sleep(0.05)
        late = meter.take()
        assert 0.12 <= late.max_s < 5 and late.p50_s < late.max_s
        assert meter.take().count == 0
        meter.close()
        await asyncio.sleep(0.05)
        assert meter.take().count == 0

    run(scenario())


# ------------------------------------------------------------------------------------------------ nothing is left behind


def test_a_server_that_nobody_looks_into_has_loaded_nothing(tmp_path: Path) -> None:
    """And one that was looked into is as before, but for that."""

    def all_of_it(pid: int) -> None:
        with visit(pid) as visitor:
            visitor.look()
            visitor.watch(Watch("loop"))
            time.sleep(0.1)
            assert visitor.take().lags
            with pytest.raises(NoDoor, match="one thing is watched already"):
                visitor.watch(Watch("gc"))
        with visit(pid) as visitor:
            visitor.watch(Watch("gc"))
            visitor.take()

    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        with started(tmp_path, f"unix://{tmp_path}/s") as server:
            async with Client(f"unix://{tmp_path}/s") as client:
                before = await inside(client)
                await aside(all_of_it, server.pid)
                deadline = time.monotonic() + 5
                while time.monotonic() < deadline:
                    after = await inside(client)
                    if {**after, "loaded": []} == before:
                        break
                    await asyncio.sleep(0.02)
                return before, after

    before, after = run(scenario(), 30)
    assert before["loaded"] == []
    assert "mcpfast.live.door" in after["loaded"]
    assert {**after, "loaded": []} == before


def test_one_visitor_at_a_time(live: tuple[int, str, str]) -> None:
    with visit(live[0]) as first:
        with pytest.raises(NoDoor, match="somebody looks into this server already"), visit(live[0]):
            pass
        assert first.look().name == "notes"
    with visit(live[0]) as second:
        assert second.look().version == "1.0"


def test_a_server_that_ends_takes_the_visitor_along(tmp_path: Path) -> None:
    """A drain does not wait for who only looks."""
    with started(tmp_path, f"unix://{tmp_path}/s") as server, visit(server.pid) as visitor:
        visitor.watch(Watch("loop"))
        server.terminate()
        assert server.wait(3) == 0
        with pytest.raises(NoDoor, match=f"process {server.pid} has ended"):
            visitor.look()
        assert server.stderr is not None and server.stderr.read() == ""


def test_serving_that_is_over_has_no_door(tmp_path: Path) -> None:
    """In a loop that goes on; nobody else would clear up there."""
    address = f"unix://{tmp_path}/s"

    async def scenario() -> None:
        others, opened = asyncio.all_tasks(), asyncio.Event()
        server: MCPServer[Any] = MCPServer("within")
        serving = asyncio.create_task(serve(server, address, signals=True, ready=lambda _: opened.set()))
        await opened.wait()
        with contextlib.ExitStack() as stack:
            visitor = await aside(stack.enter_context, visit(os.getpid()))
            await aside(visitor.watch, Watch("gc"))
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "mcpfast-visit" in names and len(gc.callbacks) > before
            serving.cancel()
            await asyncio.wait([serving])
            await asyncio.sleep(0.05)
            assert asyncio.all_tasks() == others and len(gc.callbacks) == before
            assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL

    before = len(gc.callbacks)
    run(scenario())


# ------------------------------------------------------------------------------------------------ who may not, and what is wrong


def test_a_wrong_process_is_told_and_unharmed() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        with (
            pytest.raises(NoDoor, match=rf"process {other.pid} \(\w+\) is no server that mcpfast runs"),
            visit(other.pid),
        ):
            pass
        caller.ring(other.pid)  # a wrong pid that looked right
        time.sleep(0.05)
        assert other.poll() is None
        other.kill()
    with pytest.raises(NoDoor, match=f"there is no process {other.pid}"), visit(other.pid):
        pass
    with pytest.raises(NoDoor, match=f"there is no process {other.pid}"):
        caller.ring(other.pid)


def test_a_handler_of_the_users_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "OPEN_S", 0.3)
    with started(tmp_path, f"unix://{tmp_path}/s", "--own-handler") as server:
        with pytest.raises(NoDoor, match="catches the signal and opens no door"), visit(server.pid):
            pass
        assert server.stderr is not None and server.stderr.readline() == "rung\n"
        assert server.poll() is None


def test_the_server_behind_what_started_it(live: tuple[int, str, str], tmp_path: Path) -> None:
    assert ringable(os.getpid()) == live[0]  # this process has no handler, its child has one
    assert not caller.is_go(live[0])
    with started(tmp_path, f"unix://{tmp_path}/s") as other:
        with pytest.raises(NoDoor, match=f"has started several servers: --pid {live[0]} or {other.pid}"):
            ringable(os.getpid())
        assert ringable(other.pid) == other.pid


def test_what_a_server_has_forked_is_not_asked(live: tuple[int, str, str]) -> None:
    """It has the handler, too, and no loop that runs."""

    async def scenario() -> None:
        async with Client(live[1]) as client:
            child = (await client.call_tool("fork", {})).data
            try:
                assert caller.catches(child) and ringable(live[0]) == live[0]
            finally:
                os.kill(child, signal.SIGKILL)

    run(scenario())


def test_somebody_elses_process_and_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(NoDoor, match="process 1 is somebody else's: sudo"):
        caller.ring(1)
    monkeypatch.setattr(os, "readlink", str)
    with pytest.raises(NoDoor, match=r"another network namespace .* nsenter --net --target 17"):
        caller.check_network(17)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NoDoor, match="Linux only"), visit(1):
        pass


def test_who_answers_must_be_who_was_asked(
    live: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can take an abstract name that is free."""
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(b"\0mcpfast-test-impostor")
        impostor.listen()
        monkeypatch.setattr(doorway, "name_of", lambda pid: b"\0mcpfast-test-impostor")
        with (
            pytest.raises(NoDoor, match=f"process {os.getpid()} answers in the name of process {live[0]}"),
            visit(live[0]),
        ):
            pass


def test_only_the_servers_own_user_and_root_may_look() -> None:
    assert doorway.may_look(1000, 1000) and doorway.may_look(0, 1000)
    assert not doorway.may_look(1001, 1000) and not doorway.may_look(1000, 0)


class Knocker:
    """Whoever comes to a door of this process."""

    def __init__(self) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(5)
        try:
            self.connection.connect(doorway.name_of(os.getpid()))
        except OSError:
            self.connection.close()
            raise

    def line(self, said: bytes = b"") -> Any:
        """What is said to `said`; None at the end."""
        if said:
            self.connection.sendall(said)
        read = b""
        while not read.endswith(b"\n"):
            more = self.connection.recv(65536)
            if not more:
                return None
            read += more
        return msgspec.json.decode(read)


@asynccontextmanager
async def ajar() -> AsyncIterator[Door]:
    """A door of a server in this process, rung at and open."""
    async with Host(MCPServer("home", version="2")) as host:
        made = Door(host, ["memory"])
        made.ring()
        await asyncio.sleep(0.05)
        yield made
        made.close()
        await asyncio.sleep(0.05)


def test_a_stranger_is_sent_away_and_the_door_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with ajar():
            monkeypatch.setattr(doorway, "may_look", lambda uid, own: False)
            stranger = await aside(Knocker)
            refused = await aside(stranger.line)
            assert refused == {
                "type": "refused",
                "why": "only the server's own user and root may look into it",
            }
            assert await aside(stranger.line) is None
            monkeypatch.undo()
            friend = await aside(Knocker)
            assert (await aside(friend.line))["type"] == "greeting"
            seen = await aside(friend.line, b'{"type":"look","limit":5}\n')
            assert (seen["name"], seen["addresses"], seen["loop"]) == ("home", ["memory"], "uvloop")
            stranger.connection.close()
            friend.connection.close()

    run(scenario())


@pytest.mark.parametrize(
    "said",
    [b"no json\n", b'{"type":"unknown"}\n', b'{"type":"watch","what":"everything"}\n', b"x" * 5000],
    ids=["no json", "unknown", "wrong", "endless"],
)
def test_what_is_no_question_ends_the_visit(said: bytes) -> None:
    async def scenario() -> None:
        async with ajar() as made:
            guest = await aside(Knocker)
            await aside(guest.line)
            answer = await aside(guest.line, said)
            assert answer is None or (answer["type"] == "refused" and await aside(guest.line) is None)
            guest.connection.close()
            made.ring()
            await asyncio.sleep(0.05)
            again = await aside(Knocker)
            assert (await aside(again.line))["type"] == "greeting"
            assert (await aside(again.line, b'{"type":"take"}\n'))["why"].startswith("nothing is watched")
            again.connection.close()

    run(scenario())


def test_nobody_comes_or_says_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "OPEN_S", 0.15)
    monkeypatch.setattr(doorway, "SILENCE_S", 0.15)

    async def scenario() -> None:
        others = asyncio.all_tasks()
        async with ajar() as made:
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionRefusedError):
                Knocker()
            made.ring()
            made.ring()  # once more is not twice
            await asyncio.sleep(0.05)
            silent = await aside(Knocker)
            assert (await aside(silent.line))["type"] == "greeting"
            assert await aside(silent.line) is None
            silent.connection.close()
        assert asyncio.all_tasks() == others

    run(scenario())


def test_a_door_that_knocking_keeps_busy_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "may_look", lambda uid, own: False)
    monkeypatch.setattr(door, "KNOCKS_MAX", 3)

    async def scenario() -> None:
        async with ajar():
            for _ in range(3):
                knocker = await aside(Knocker)
                assert (await aside(knocker.line))["type"] == "refused"
                knocker.connection.close()
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectionRefusedError):
                Knocker()

    run(scenario())


def test_a_name_that_is_taken_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as squatter:
            squatter.bind(doorway.name_of(os.getpid()))
            async with ajar():
                pass

    run(scenario())
    assert [record.message[:20] for record in caplog.records] == ["cannot open the door"]


def test_an_answer_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another version, of a server that is gone in the middle of a word."""
    for said, told in (
        (b'{"type":"greeting","protocol":99,"mcpfast":"9","python":"3"}\n', "another version"),
        (b'{"type":"hello"}\n', "another version"),
        (msgspec.json.encode(Refused("not today")) + b"\n", "process 17: not today"),
        (b'{"type":"gree', "process 17 has ended"),
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
            with ours.makefile("rb") as lines, pytest.raises(NoDoor, match=told):
                Visit(17, ours, lines)


def test_a_loop_that_stands_still_is_told(
    live: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "ANSWER_S", 0.2)

    async def scenario() -> None:
        async with Client(live[1]) as client:
            with visit(live[0]) as visitor:
                stalled = asyncio.create_task(client.call_tool("stall", {"seconds": 0.6}))
                await asyncio.sleep(0.1)
                with pytest.raises(NoDoor, match=r"its event loop has stood still for 0\.2 s"):
                    visitor.look()
            await stalled

    run(scenario())


# ------------------------------------------------------------------------------------------------ the words


def test_top_once(live: tuple[int, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with Client(live[1]) as client, calling(client, ("wait", {"seconds": 30.0, "note": SECRET})):
            assert (
                await aside(main, ["top", live[1], "--interval", "0.2"]) == 0
            )  # no terminal: as with --once

    run(scenario())
    said = capsys.readouterr().out
    assert said.startswith("notes 1.0\nprocess ")
    assert f"Python {sys.version.split()[0]}" in said and live[2] in said
    assert "Calls in flight: 1\n" in said and " > asyncio/tasks.py:" in said
    assert "a second; " in said and "of 2 busy" in said and "MB resident" in said
    assert SECRET not in said


def test_top_as_json(live: tuple[int, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with Client(live[2]) as client:
            looking = asyncio.create_task(
                aside(main, ["top", "--pid", str(live[0]), "--json", "--interval", "0.5"])
            )
            while not looking.done():
                await client.call_tool("echo", {"text": "x"})
                await asyncio.sleep(0.01)
            assert await looking == 0

    run(scenario())
    told = json.loads(capsys.readouterr().out)
    assert told["process"]["pid"] == live[0] and told["process"]["rss_mb"] > 5
    assert told["requests_per_s"] > 5 and 0 <= told["process"]["processor"] < 2
    assert told["lag"]["count"] > 5 and told["addresses"] == [live[1], live[2]]


def test_top_lives_on_a_terminal_until_it_is_interrupted(live: tuple[int, str, str]) -> None:
    pytest.importorskip("rich")
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="40")
        os.execv(
            sys.executable,
            [sys.executable, "-m", "mcpfast", "top", "--pid", str(live[0]), "--interval", "0.1"],
        )
    seen = b""
    deadline = time.monotonic() + 15
    while seen.count(b"Calls in flight") < 3 and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.5)[0]:
            seen += os.read(fd, 65536)
    os.kill(pid, signal.SIGINT)
    try:
        while piece := os.read(fd, 65536):
            seen += piece
    except OSError:
        pass  # that is how a terminal ends
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert seen.count(b"Calls in flight") >= 3 and b"loop lag" in seen
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1  # the screen of before comes back
    assert b"Traceback" not in seen


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["top"], 2, "which server?"),
        (["top", "--pid", "1", "unix:///x"], 2, "which server?"),
        (["top", "notes.py"], 2, "is no address"),
        (["top", "--pid", "1", "--interval", "90"], 2, "--interval is 0.1 to 30 seconds"),
        (["top", "--pid", "1", "--limit", "-1"], 2, "--limit"),
        (["top", "--pid", "1", "--once", "--json"], 2, "both are one look"),
        (["top", "unix:///nowhere/s"], 1, "say --pid PID"),
        (["top", "--pid", "4194305"], 1, "there is no process 4194305"),
    ],
)
def test_top_used_wrongly(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    said = capsys.readouterr()
    assert said.out == "" and told in said.err and said.err.startswith("mcpfast top: ")


def test_top_without_rich_gives_one_look(
    live: tuple[int, str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpfast.live.top.find_spec", lambda name: None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["top", "--pid", str(live[0]), "--interval", "0.1"]) == 0
    said = capsys.readouterr()
    assert "needs rich" in said.err and said.out.startswith("notes 1.0\n")


def test_times_and_sizes_as_they_are_read() -> None:
    assert [view.short(value) for value in (0.0004, 0.25, 12.34, 99.9)] == [
        "under 2 ms",
        "250 ms",
        "12.3 s",
        "99.9 s",
    ]
    assert [view.short(value) for value in (135, 7_980, 180_000)] == ["2 min 15 s", "2 h 13 min", "2 d 2 h"]
    assert view.long(7) == "7 s"
    assert [view.size(value) for value in (12, 1_500, 2_340_000)] == ["12 bytes", "1.5 KB", "2.3 MB"]
    assert view.count(1, "call") == "1 call" and view.count(1_200, "call") == "1,200 calls"
    assert state.shown("a\nb\x1b" + "c" * 100, 10) == "a?b?ccccc…"
