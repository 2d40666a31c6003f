"""A hundred thousand aborted calls leave nothing behind: no task, no descriptor, no object, no memory, no entry in a registry.

Calls end before their time in every way there is: cancelled by the client, dropped with their connection, refused; in warm Tasks
and in Tasks of their own. After a round to warm up, everything is counted, before and after.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPServer
from mcpfast.server.host import Host
from mcpfast.transports.addresses import Address
from mcpfast.transports.sockets import Listener
from tests.wire import META, run

ABORTED, ROUNDS = 100_000, 10
IN_FLIGHT = 250  # of one connection at a time
# What may be more after 100,000 calls than before: what a leak of one in a thousand calls would exceed.
OBJECTS_OF_A_TYPE_MAX = 40
BLOCKS_MAX = 400
RSS_BYTES_MAX = 2 << 20

MODERN_META = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {"elicitation": {}}}


def make_server() -> MCPServer[Any]:
    limits = Limits(eof_grace_s=0.01, threads_max=4)  # so that all four threads are there after the warm-up
    server: MCPServer[Any] = MCPServer("leaks", version="1", limits=limits)

    @server.tool
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @server.tool
    async def wait_with_context(seconds: float, ctx: Context) -> str:
        await ctx.report_progress(1, 2)
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(seconds))
            await asyncio.sleep(seconds)
        return "slept"

    @server.tool
    async def wait_stubbornly(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # tidies up, and answers, too late
        return "late"

    @server.tool
    async def ask(ctx: Context) -> str:
        return str((await ctx.elicit("Which?", str)).action)

    @server.tool
    def block(ctx: Context) -> str:
        while not ctx.cancelled:
            time.sleep(0.001)
        return "stopped"

    @server.tool
    async def add(a: int, b: int) -> int:
        return a + b

    return server


class Client:
    """A connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, address: Address) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_unix_connection(address.socket, limit=1 << 22)
        try:
            client = cls(reader, writer)
            hello = {"protocolVersion": "2025-11-25", "clientInfo": {"name": "x", "version": "1"}}
            answers = await client.ask(
                client.request("initialize", {**hello, "capabilities": {"elicitation": {}}}), answers=1
            )
            assert b'"result"' in answers[0]
            yield client
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        return {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", {"name": name, "arguments": arguments})

    def modern(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return self.request(method, {**params, "_meta": {**MODERN_META, "progressToken": self._last}})

    def send(self, *messages: dict[str, Any], more: bytes = b"") -> None:
        self._writer.write(b"".join(json.dumps(one).encode() + b"\n" for one in messages) + more)

    async def ask(self, *messages: dict[str, Any], answers: int) -> list[bytes]:
        self.send(*messages)
        return [await asyncio.wait_for(self._reader.readuntil(b"\n"), 20) for _ in range(answers)]

    async def settle(self, *, others: int = 0) -> None:
        """Everything sent so far was handled; the server sends `others` lines about it."""
        ping = self.request("ping", {})
        lines = await self.ask(ping, answers=1 + others)
        assert {"jsonrpc": "2.0", "id": ping["id"], "result": {}} in map(json.loads, lines)


# ---------------------------------------------------------------- the ways to end before the time


def cancelled(id: int) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": id, "reason": "enough"},
    }


def waiting(client: Client, count: int) -> list[dict[str, Any]]:
    """Calls that do not end by themselves, of every kind that the loop carries."""
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: client.call("wait", seconds=1000),
        lambda: client.call("wait_with_context", seconds=1000),
        lambda: client.call("wait_stubbornly", seconds=1000),
        lambda: client.modern("tools/call", {"name": "wait_with_context", "arguments": {"seconds": 1000}}),
    ]
    return [kinds[n % len(kinds)]() for n in range(count)]


def progress_of(calls: list[dict[str, Any]]) -> int:
    """How many of them report progress."""
    return sum("_meta" in call["params"] for call in calls)


async def cancel_by_notification(where: Address, count: int) -> None:
    async with Client.at(where) as client:
        for done in range(0, count, IN_FLIGHT):
            calls = waiting(client, min(IN_FLIGHT, count - done))
            client.send(*calls)
            await client.settle(others=progress_of(calls))
            client.send(*(cancelled(call["id"]) for call in calls))
            await client.settle()


async def cancel_in_the_same_write(where: Address, count: int) -> None:
    async with Client.at(where) as client:
        for done in range(0, count, IN_FLIGHT):
            calls = [client.call("wait", seconds=1000) for _ in range(min(IN_FLIGHT, count - done))]
            client.send(*(one for call in calls for one in (call, cancelled(call["id"]))))
            await client.settle()


async def disconnect(where: Address, count: int) -> None:
    for done in range(0, count, IN_FLIGHT):
        async with Client.at(where) as client:
            calls = waiting(client, min(IN_FLIGHT, count - done))
            client.send(*calls)
            if done % (2 * IN_FLIGHT):  # some are gone before their calls began
                await client.settle(others=progress_of(calls))


async def disconnect_in_the_middle_of_a_message(where: Address, count: int) -> None:
    for _ in range(0, count, 25):
        async with Client.at(where) as client:
            half = json.dumps(client.call("wait", seconds=1000)).encode()[:-20]
            client.send(*waiting(client, 24), more=half)


async def refuse(where: Address, count: int) -> None:
    async with Client.at(where) as client:
        kinds: list[Callable[[], dict[str, Any]]] = [
            lambda: client.call("add", a="one", b=2),
            lambda: client.call("add", a=1),
            lambda: client.call("unknown", a=1),
            lambda: client.modern("tools/call", {"name": "nobody", "arguments": {}}),
            lambda: client.request("no/method", {}),
        ]
        for done in range(0, count, IN_FLIGHT):
            refused = [kinds[n % len(kinds)]() for n in range(min(IN_FLIGHT, count - done))]
            answers = await client.ask(*refused, answers=len(refused))
            assert all(b'"error"' in line or b'"isError":true' in line for line in answers)


async def leave_questions_open(where: Address, count: int) -> None:
    """Half of them cancelled, which tells the client to forget the question; half gone with the connection."""
    for _ in range(0, count, 50):
        async with Client.at(where) as client:
            calls = [client.call("ask") for _ in range(50)]
            client.send(*calls)
            await client.settle(others=50)
            client.send(*(cancelled(call["id"]) for call in calls[:25]))
            await client.settle()


async def leave_listen_streams(where: Address, count: int) -> None:
    for _ in range(0, count, 20):
        async with Client.at(where) as client:
            streams = [
                client.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
                for _ in range(20)
            ]
            client.send(*streams)
            await client.settle(others=20)
            client.send(*(cancelled(stream["id"]) for stream in streams[:10]))
            await client.settle()


async def abandon_threads(where: Address, count: int) -> None:
    for done in range(0, count, 50):
        async with Client.at(where) as client:
            calls = [client.call("block") for _ in range(min(50, count - done))]
            client.send(*calls)
            await client.settle()
            client.send(*(cancelled(call["id"]) for call in calls[:25]))
            await client.settle()


WAYS: list[tuple[Callable[[Address, int], Awaitable[None]], float]] = [  # and their share
    (cancel_by_notification, 0.30),
    (cancel_in_the_same_write, 0.15),
    (disconnect, 0.20),
    (disconnect_in_the_middle_of_a_message, 0.05),
    (refuse, 0.27),
    (leave_questions_open, 0.01),
    (leave_listen_streams, 0.01),
    (abandon_threads, 0.01),
]


# ---------------------------------------------------------------- counting


class Census:
    """What there is in this process now."""

    def __init__(self, host: Host) -> None:
        gc.collect()
        self.blocks = sys.getallocatedblocks()
        self.objects = collections.Counter(type(one).__qualname__ for one in gc.get_objects())
        self.descriptors = sorted(os.listdir("/proc/self/fd"))
        parked = host.engine.carriers.counts()[1]
        self.tasks = len(asyncio.all_tasks()) - parked
        self.rss_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def at_rest(host: Host, listener: Listener, others: set[asyncio.Task[Any]]) -> None:
    """Every connection is gone, and what was cancelled has ended: but for `others`, the test's own, every Task is parked."""
    async with asyncio.timeout(20):
        while host.sessions or listener.connections or host.server.threads().stats()["running"]:
            await asyncio.sleep(0.002)
        while len(asyncio.all_tasks() - others) > host.engine.carriers.counts()[1]:
            await asyncio.sleep(0.002)


async def abort(where: Address, count: int) -> None:
    for way, share in WAYS:
        await way(where, int(count * share))


@pytest.mark.plain_build
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors and memory through /proc")
@pytest.mark.parametrize("warm", [True, False], ids=["warm tasks", "own tasks"])
def test_aborted_calls_leave_nothing(warm: bool, tmp_path: Path) -> None:
    assert sum(share for _, share in WAYS) == pytest.approx(1)

    async def scenario() -> None:
        server, others = make_server(), asyncio.all_tasks()
        address = Address("unix", socket=str(tmp_path / "s"))
        async with Host(server, warm=warm) as host:
            listener = Listener(host, address)
            await abort(address, ABORTED // ROUNDS)
            await at_rest(host, listener, others)
            before = Census(host)
            for _ in range(ROUNDS):  # each like the one to warm up, so that none needs more at its height
                await abort(address, ABORTED // ROUNDS)
                await at_rest(host, listener, others)
            after = Census(host)
            listener.close()

        assert after.tasks == before.tasks
        assert after.descriptors == before.descriptors
        more = {name: n for name, n in (after.objects - before.objects).items() if n > OBJECTS_OF_A_TYPE_MAX}
        assert not more, f"objects more than before, by type: {more}"
        assert after.blocks - before.blocks <= BLOCKS_MAX
        assert after.rss_bytes - before.rss_bytes <= RSS_BYTES_MAX
        assert asyncio.all_tasks() == others, "the host is closed, and its Tasks are still there"

    run(scenario(), seconds=110)


@pytest.mark.parametrize("warm", [True, False], ids=["warm tasks", "own tasks"])
def test_a_connection_that_lives_on_remembers_nothing(warm: bool, tmp_path: Path) -> None:
    """Registries of one connection: requests in flight, questions, listen streams."""

    async def scenario() -> None:
        server, others = make_server(), asyncio.all_tasks()
        address = Address("unix", socket=str(tmp_path / "s"))
        async with Host(server, warm=warm) as host:
            listener = Listener(host, address)
            async with Client.at(address) as client:
                (session,) = host.sessions
                calls = [*waiting(client, 40), *(client.call("ask") for _ in range(20))]
                calls += [client.modern("subscriptions/listen", {"notifications": {}}) for _ in range(10)]
                client.send(*calls)
                await client.settle(others=progress_of(calls[:40]) + 20 + 10)
                assert session.channel.calls == len(session.channel.requests()) == 70
                assert len(session.listens or ()) == 10
                assert len(session._questions or ()) == 20
                client.send(*(cancelled(call["id"]) for call in calls))
                await client.settle()
                async with asyncio.timeout(5):
                    while session.channel.calls:
                        await asyncio.sleep(0)
                assert session.channel.requests() == []
                assert not session.listens
                assert not session._questions
            await at_rest(host, listener, others)
            listener.close()

    run(scenario())
