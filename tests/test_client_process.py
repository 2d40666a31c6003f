"""Servers as child processes: how they start, what they are given, how they end.

And what the client's import costs.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mcpfast.client import Client, RequestTimeout, StdioServer, lines, process
from mcpfast.client.process import StdioTransport
from mcpfast.client.transport import command_of
from mcpfast.errors import AddressError, ConnectionClosed, MCPError
from tests.test_client_fake import run

# A server in a few lines, which each test ends with its own.
SERVER = """
import json, os, signal, subprocess, sys, time

def answer(request, result):
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)

def serve(on_call):
    for line in sys.stdin:
        request = json.loads(line)
        if request["method"] == "initialize":
            answer(request, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}})
        elif "id" in request:
            on_call(request)

def text(request, text):
    answer(request, {"content": [{"type": "text", "text": str(text)}]})
"""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """Makes a server file: `server("serve(lambda request: text(request, 'hi'))")`."""

    def make(source: str) -> list[str]:
        path = tmp_path / "server.py"
        path.write_text(SERVER + source)
        return [sys.executable, "-u", str(path)]

    return make


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "QUIT_S", 0.3)
    monkeypatch.setattr(process, "TERMINATE_S", 0.3)


def pid_of(client: Client) -> int:
    assert isinstance(client._transport, StdioTransport)
    pid = client._transport.pid
    assert pid is not None
    return pid


def alive(pid: int) -> bool:
    """Whether this process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is over: on a busy machine that takes a moment."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_what_a_server_is_given(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_SECRET", "hush")
    source = (
        "env = os.environ\n"
        "serve(lambda r: text(r, [env.get('OUR_SECRET'), env.get('GIVEN'), os.getcwd(), 'PATH' in env]))"
    )

    async def test() -> None:
        command = server(source)
        for env, expected in (
            (None, ["hush", None]),
            ({}, [None, None]),
            ({"GIVEN": "x"}, [None, "x"]),
        ):
            async with Client.stdio(command, env=env, cwd=tmp_path, mode="legacy") as client:
                assert (await client.call_tool("t")).text == str([*expected, str(tmp_path), True])

    run(test())


def test_all_ways_to_name_a_command(server: Any) -> None:
    command = server("serve(lambda r: text(r, sys.argv[1:]))")
    python, *words = command

    class Other:  # another library's description of the same
        command, args, env, cwd = python, words, None, None

    async def test() -> None:
        for client in (
            Client.stdio(command, mode="legacy"),
            Client.stdio(" ".join(command), mode="legacy"),
            Client.stdio(python, *words, mode="legacy"),
            Client(command, mode="legacy"),
            Client(words[-1], mode="legacy"),
            Client(Path(words[-1]), mode="legacy"),
            Client(StdioServer(python, words), mode="legacy"),
            Client(Other(), mode="legacy"),
        ):
            async with client:
                assert (await client.call_tool("t")).text == "[]"
        async with Client.stdio(python, *words, "a b", "c", mode="legacy") as client:
            assert (await client.call_tool("t")).text == "['a b', 'c']"

    run(test())
    assert command_of("python 'a b.py' -x", ()) == ("python", ["a b.py", "-x"])
    with pytest.raises(AddressError, match="No command given"):
        Client.stdio("")


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(AddressError, match="Cannot start '/no/such/program': No such file"):
            await Client.stdio(["/no/such/program"]).__aenter__()
        with pytest.raises(AddressError, match=f"Cannot start '{sys.executable}' in '/no/where'"):
            await Client.stdio([sys.executable], cwd="/no/where").__aenter__()
        with pytest.raises(AddressError, match="Permission denied"):
            await Client.stdio([str(tmp_path)]).__aenter__()

    run(test())


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import no_such_module")

    async def test() -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ConnectionClosed, match=r"exit code 1(?s:.)*No module named 'no_such_module'"):
            await Client.stdio([sys.executable, str(path)], stderr=subprocess.DEVNULL).__aenter__()
        assert len(os.listdir("/proc/self/fd")) == before

    run(test())


def test_stderr_goes_where_it_shall(server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    command = server("print('to whom', file=sys.stderr, flush=True)\nserve(lambda r: text(r, 'ok'))")

    async def test() -> None:
        for stderr in (None, subprocess.DEVNULL, text := io.StringIO(), raw := io.BytesIO(), closed):
            async with Client.stdio(command, stderr=stderr, mode="legacy") as client:
                await client.call_tool("t")
        assert text.getvalue() == "to whom\n"
        assert raw.getvalue() == b"to whom\n"

    closed = io.StringIO()
    closed.close()
    run(test())
    assert capfd.readouterr().err == "to whom\n"


def test_a_stubborn_server_is_ended(server: Any, hasty: None) -> None:
    """It hears neither the end of its stdin nor SIGTERM; its own child holds the pipes open."""
    source = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "serve(lambda r: text(r, child.pid))\n"
        "time.sleep(60)"
    )

    async def test() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with Client.stdio(server(source), mode="legacy") as client:
            grandchild = int((await client.call_tool("t")).text)
            child = pid_of(client)
            started = time.monotonic()
        assert (
            0.5 < time.monotonic() - started < 15
        )  # two deadlines of a quarter second, on a machine that may be busy
        assert not Path(f"/proc/{child}").exists()
        assert gone(grandchild)
        assert len(os.listdir("/proc/self/fd")) == before

    run(test())


def test_a_grandchild_that_outlives_an_obedient_server(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends by itself; what it left running on purpose stays, and costs us neither time nor
    descriptors.
    """
    source = "child = subprocess.Popen(['sleep', '60'])\nserve(lambda r: text(r, child.pid))"

    async def test() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with Client.stdio(server(source), mode="legacy") as client:
            grandchild = int((await client.call_tool("t")).text)
        try:
            assert alive(grandchild)
            assert len(os.listdir("/proc/self/fd")) == before
        finally:
            os.kill(grandchild, signal.SIGKILL)

    run(test())


def test_a_dead_server_whose_child_holds_stdout(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STDOUT_LINGER_S", 0.1)
    monkeypatch.setattr(process, "LAST_WORDS_S", 0.1)
    source = "child = subprocess.Popen(['sleep', '60'])\nserve(lambda r: os._exit(5) if r['id'] > 3 else text(r, child.pid))"

    async def test() -> None:
        async with Client.stdio(server(source), mode="legacy") as client:
            grandchild = int((await client.call_tool("t")).text)
            await client.call_tool("t")
            try:
                async with asyncio.timeout(5):
                    with pytest.raises(ConnectionClosed, match="exit code 5"):
                        await client.call_tool("t")
            finally:
                os.kill(grandchild, signal.SIGKILL)

    run(test())


def test_a_server_killed_from_outside(server: Any) -> None:
    async def test() -> None:
        async with Client.stdio(server("serve(lambda r: time.sleep(60))"), mode="legacy") as client:
            call = asyncio.create_task(client.call_tool("t"))
            await asyncio.sleep(0.1)
            os.kill(pid_of(client), signal.SIGKILL)
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionClosed, match="ended by signal 9"):
                    await call

    run(test())


def test_a_server_blocked_by_its_own_output_still_hears_the_end(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "QUIT_S", 10.0)
    source = "serve(lambda r: [text(r, 'x' * 100_000) for _ in range(100)])\ntime.sleep(0)"

    async def test() -> None:
        async with Client.stdio(server(source), mode="legacy") as client:
            connection = client._connection
            assert connection is not None
            # Nothing is read any more, as if a callback of ours blocked: the pipe is full when the client is
            # left.
            link: Any = connection.session.link
            link._tasks[0].cancel()
            await asyncio.gather(link._tasks[0], return_exceptions=True)
            await client.notify("ping", {})
            link.send(b'{"jsonrpc":"2.0","id":9,"method":"tools/call"}', "tools/call", None)
            await asyncio.sleep(0.2)
            started = time.monotonic()
        assert time.monotonic() - started < 10.0  # by itself, not by a signal

    run(test())


def test_a_server_that_closes_its_stdin(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "FLUSH_S", 0.05)

    async def test() -> None:
        source = "serve(lambda r: (text(r, 'ok'), os.close(0), time.sleep(1)))"
        async with Client.stdio(server(source), mode="legacy", timeout_s=5) as client:
            await client.call_tool("t")
            await asyncio.sleep(0.1)
            with pytest.raises(MCPError, match="takes no more messages") as raised:
                await client.call_tool("t", {"text": "x" * 1_000_000})
            assert isinstance(raised.value, ConnectionClosed)

    run(test())


def test_a_silent_server_is_ended_too(server: Any, hasty: None) -> None:
    async def test() -> None:
        command = server("print('reading tea leaves', file=sys.stderr, flush=True)\ntime.sleep(60)")
        client = Client.stdio(command, connect_timeout_s=1.0, probe_timeout_s=0.1, stderr=subprocess.DEVNULL)
        with pytest.raises(
            RequestTimeout, match=r"(?s)No connection to the server within 1 s.*reading tea leaves"
        ):
            await client.__aenter__()

    run(test())


def test_leaving_may_be_cancelled(server: Any) -> None:
    async def test() -> None:
        source = (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve(lambda r: text(r, 'ok'))\ntime.sleep(60)"
        )
        client = await Client.stdio(server(source), mode="legacy").__aenter__()
        pid = pid_of(client)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.__aexit__(None, None, None)
        await asyncio.sleep(0.2)
        assert not alive(pid)

    run(test())


def test_the_import_is_cheap_and_brings_no_server() -> None:
    code = (
        "import asyncio, msgspec, time, sys; t = time.perf_counter(); import mcpfast.client; "
        "print(time.perf_counter() - t); "
        "print([m for m in sys.modules if m.startswith(('mcpfast.server', 'mcpfast.transports', 'mcpfast._'))])"
    )
    times = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        seconds, modules = out.split("\n")[:2]
        assert modules == "[]"
        times.append(float(seconds))
    assert min(times) < 0.12  # 0.02 in peace; a machine may be busy
