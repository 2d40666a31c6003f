"""Clients that abuse HTTP, by the ten thousand: nothing of them stays, and their neighbours do not notice.

The server is a process of its own; a plain route tells what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.test_http import Browser, connect, initialized, modern, post, request, rpc
from tests.test_http_doors import sent
from tests.wire import run

SERVER = """
import asyncio, gc, os, sys
from mcpfast import Context, Limits, MCPServer

server = MCPServer("abused", version="1", limits=Limits(**eval(sys.argv[1])))

@server.tool
async def echo(text: str) -> str:
    return text

@server.tool
async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"

@server.tool
async def steps(n: int, ctx: Context, text: str = "") -> str:
    for i in range(n):
        await ctx.report_progress(i, n, text)
        await asyncio.sleep(0)
    return "done"

@server.route("GET", "/counts")
async def counts() -> dict:
    gc.collect()
    (host,) = server._serving
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "blocks": sys.getallocatedblocks(),
        "sessions": len(host.sessions),
        "kilobytes": int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    }

server.run("http://127.0.0.1:0")
"""
WIDTH = 50  # connections at once
WARM_TASKS = 256  # parked for the next call: there are as many as there once were calls at the same time
EVENTS = {"Host": "localhost", "Accept": "text/event-stream"}


@asynccontextmanager
async def abused(folder: Path, **limits: Any) -> AsyncIterator[tuple[int, Path]]:
    """The port, and where the server's log is."""
    (folder / "abused.py").write_text(SERVER)
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "abused.py", repr(limits)], cwd=folder, stderr=stderr)
        try:
            async with asyncio.timeout(20):
                while "listening on" not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    await asyncio.sleep(0.02)
            yield int(log.read_text().split("127.0.0.1:")[1].split("/")[0]), log
            assert process.poll() is None, "the server died"
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()
            process.wait()


async def counts(port: int) -> dict[str, int]:
    async with await connect(port) as browser:
        answer = await sent(browser, request("GET", "/counts", Host="localhost"))
        found: dict[str, int] = json.loads(answer.body)
        return found


async def settled(port: int, before: dict[str, int], blocks: int) -> None:
    """The server holds what it held `before`, but for so many blocks of memory."""
    after: dict[str, int] = {}
    for _ in range(100):
        after = await counts(port)
        same = all(after[name] <= before[name] for name in ("descriptors", "sessions"))
        if (
            same
            and after["tasks"] <= before["tasks"] + WARM_TASKS
            and after["blocks"] - before["blocks"] <= blocks
        ):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"before {before}, after {after}")


def reset(browser: Browser) -> None:
    """The connection ends with a RST, as when a process is killed."""
    raw = browser.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    browser.writer.transport.abort()


async def many(rounds: int, one: Callable[[int], Awaitable[None]]) -> None:
    numbers = iter(range(rounds))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(WIDTH)))


def test_ten_thousand_aborted_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with abused(tmp_path) as (port, _), await connect(port) as opening:
            session = await initialized(opening)
            old = {"Mcp_Session_Id": session}
            new_slow, slow_headers = modern("tools/call", {"name": "slow", "arguments": {"seconds": 0.05}})
            params = {"name": "steps", "arguments": {"n": 50}}
            new_steps, steps_headers = modern("tools/call", params, progressToken=1)
            old_steps = rpc("tools/call", {**params, "_meta": {"progressToken": 1}}, "{}")
            old_slow = rpc("tools/call", {"name": "slow", "arguments": {"seconds": 0.05}}, "{}")

            async def one(number: int) -> None:
                browser = await connect(port)
                kind = number % 6
                if kind == 0:
                    browser.write(post(new_slow, **slow_headers)[:60])
                elif kind == 1:
                    browser.write(post(new_slow, **slow_headers)[:-20])
                elif kind == 2:
                    browser.write(post(new_slow, **slow_headers))
                elif kind == 3:
                    browser.write(post({**old_slow, "id": number}, **old))
                elif kind == 4:
                    browser.write(post(new_steps, **steps_headers))
                else:
                    browser.write(post({**old_steps, "id": number}, **old))
                if kind >= 4:
                    await browser.head()
                    await browser.chunk()
                else:
                    await asyncio.sleep(0)
                reset(browser)

            await many(600, one)
            await asyncio.sleep(0.2)
            before = await counts(port)
            await many(10_000, one)
            # the session keeps what its clients may come back for, up to its share of events
            await sent(opening, request("DELETE", "/mcp", Host="localhost", **old))
            await settled(port, {**before, "descriptors": before["descriptors"]}, 2_500)

    run(scenario(), seconds=120)


def test_ten_thousand_streams_opened_and_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        listen, listen_headers = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        async with abused(tmp_path) as (port, _), await connect(port) as opening:
            sessions = [await initialized(opening) for _ in range(WIDTH)]
            free = list(sessions)

            async def got(number: int) -> None:
                session = free.pop()
                async with await connect(port) as browser:
                    for _ in range(100):
                        browser.write(request("GET", "/mcp", **EVENTS, Mcp_Session_Id=session))
                        status, _ = await browser.head()
                        if status == 200:
                            break
                        # the one before it was dropped, and the server has not seen it yet
                        assert status == 409
                        await browser.reader.readline()
                        await asyncio.sleep(0.005)
                    reset(browser)
                free.append(session)

            async def listened(number: int) -> None:
                async with await connect(port) as browser:
                    browser.write(post(listen, **listen_headers))
                    assert (await browser.head())[0] == 200
                    reset(browser)

            for one in (got, listened):
                await many(600, one)
                await asyncio.sleep(0.1)
                before = await counts(port)
                await many(10_000, one)
                # each GET stream keeps the event that primed it, within the share of its session
                await settled(port, before, 2_500 if one is listened else 60_000)

    run(scenario(), seconds=180)


async def timed(port: int, until: asyncio.Event) -> list[float]:
    """How long the calls of a well-behaved neighbour take, in seconds."""
    took: list[float] = []
    async with await connect(port) as browser:
        while not until.is_set():
            began = time.perf_counter()
            assert (await browser.call("echo", {"text": "x"})).status == 200
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
    return sorted(took)


@pytest.mark.plain_build
def test_a_client_that_stops_reading_its_stream_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with abused(tmp_path, output_bytes_max=8_000_000, output_high_bytes=4_000_000) as (port, _):
            over = asyncio.Event()
            neighbour = asyncio.create_task(timed(port, over))
            before = await counts(port)
            async with await connect(port) as browser:
                browser.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                browser.writer.transport.pause_reading()  # type: ignore[attr-defined]
                params = {"name": "steps", "arguments": {"n": 100_000, "text": "x" * 10_000}}
                message, headers = modern("tools/call", params, progressToken=1)
                browser.write(post(message, **headers))
                await asyncio.sleep(0.5)
                during = await counts(port)
                assert during["kilobytes"] - before["kilobytes"] < 60_000
            over.set()
            took = await neighbour
            assert len(took) > 50
            assert took[len(took) // 2] < 0.010 and took[int(len(took) * 0.99)] < 0.100, took[-5:]
            await settled(port, before, 2_500)
            assert (await counts(port))["kilobytes"] - before["kilobytes"] < 30_000

    run(scenario())


@pytest.mark.plain_build
def test_clients_that_drip_are_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with abused(tmp_path, head_s=1.0, body_s=2.0, keep_alive_s=30.0) as (port, _):
            over = asyncio.Event()
            neighbour = asyncio.create_task(timed(port, over))
            whole = post(*modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})[:1])

            async def drip(text: bytes, at_most_s: float) -> float:
                began = time.perf_counter()
                async with await connect(port) as browser:
                    ended = asyncio.create_task(browser.closed())
                    for byte in text:
                        browser.write(bytes((byte,)))
                        await asyncio.wait([ended], timeout=0.2)
                        if ended.done():
                            break
                    with contextlib.suppress(ConnectionResetError):
                        await ended
                    took = time.perf_counter() - began
                    assert took < at_most_s
                    return took

            async def drip_body() -> None:
                async with await connect(port) as browser:
                    head, _, body = whole.partition(b"\r\n\r\n")
                    browser.write(head + b"\r\n\r\n")
                    began = time.perf_counter()
                    with contextlib.suppress(ConnectionError):
                        for byte in body:
                            browser.write(bytes((byte,)))
                            await browser.writer.drain()
                            await asyncio.sleep(0.2)
                            if browser.reader.at_eof():
                                break
                    assert time.perf_counter() - began < 5.0

            await asyncio.gather(*(drip(whole, 4.0) for _ in range(20)), *(drip_body() for _ in range(20)))
            over.set()
            took = await neighbour
            assert took[len(took) // 2] < 0.010 and took[int(len(took) * 0.99)] < 0.100, took[-5:]

    run(scenario())


def test_sessions_are_bounded_and_come_free(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with abused(tmp_path, http_sessions_max=50) as (port, _), await connect(port) as browser:
            sessions = [await initialized(browser) for _ in range(50)]
            info = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            }
            full = await browser.ask(rpc("initialize", info))
            assert full.status == 503 and full.headers["retry-after"] == "10"
            assert (await browser.ask(b"{")).status == 400  # what is no JSON is told so, however full it is
            assert (await browser.call("echo", {"text": "x"})).status == 200  # 2026-07-28 has none
            await sent(browser, request("DELETE", "/mcp", Host="localhost", Mcp_Session_Id=sessions[0]))
            await initialized(browser)

    run(scenario())


@pytest.mark.parametrize(
    ("flood", "statuses"),
    [
        (b"POST /mcp HTTP/1.1\r\nHost : x\r\n\r\n", {400}),
        (b"POST /mcp HTTP/1.1\r\n" + b"X: " + b"y" * 40_000, {431, 400}),
        (b"GET /mcp HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n", {431}),
        (
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1000\r\n" + b"x" * 4096 + b"\r\n",
            {413},
        ),
    ],
)
def test_floods_get_an_answer_and_an_end(tmp_path: Path, flood: bytes, statuses: set[int]) -> None:
    async def scenario() -> None:
        async with abused(tmp_path, frame_bytes_max=100_000) as (port, _), await connect(port) as browser:
            again = flood if b"chunked" not in flood else b"1000\r\n" + b"x" * 4096 + b"\r\n"
            with contextlib.suppress(ConnectionError):
                browser.write(flood)
                for _ in range(100):
                    browser.write(again)
                    await browser.writer.drain()
            assert (await browser.head())[0] in statuses
            async with await connect(port) as neighbour:
                assert (await neighbour.call("echo", {"text": "x"})).status == 200

    run(scenario())


def test_a_pipeline_without_end_is_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with abused(tmp_path) as (port, _), await connect(port) as browser:
            message, headers = modern("tools/call", {"name": "slow", "arguments": {"seconds": 0.3}})
            browser.write(post(message, **headers) * 100)
            with contextlib.suppress(ConnectionResetError):
                answers = await browser.closed()
                assert answers.count(b"HTTP/1.1") < 20

    run(scenario())
