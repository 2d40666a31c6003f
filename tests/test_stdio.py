"""stdio as users have it: pipes, files, terminals, sockets; ends of all kinds; nothing half-written, nobody left behind."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
SERVER = """

import asyncio, os, subprocess, sys, threading, time
from mcpfast import Context, Limits, MCPServer

server = MCPServer("stdio", version="1", limits=Limits(eof_grace_s={grace}, drain_s={drain}))

@server.tool
async def echo(text: str) -> str:
    return text

@server.tool
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"

@server.tool
def block(seconds: float) -> str:
    time.sleep(seconds)
    return "blocked"

@server.tool
async def block_elsewhere(seconds: float) -> str:
    await asyncio.to_thread(time.sleep, seconds)
    return "blocked"

@server.tool
def shout() -> str:
    print("a stray print", flush=True)
    os.write(1, b"a stray write\\n")
    subprocess.run(["echo", "a stray child"])
    sys.stdin.read(1)
    return "shouted"

@server.tool
async def big(size: int) -> str:
    return "x" * size

server.run(loop={loop!r})
"""


@pytest.fixture(params=["uvloop", "asyncio"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return make(tmp_path, loop=request.param)


def make(folder: Path, *, grace: float = 1.0, drain: float = 1.0, loop: str = "uvloop") -> list[str]:
    path = folder / "server.py"
    path.write_text(textwrap.dedent(SERVER).format(grace=grace, drain=drain, loop=loop))
    return [sys.executable, str(path)]


def call(id: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments},
    }


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def answers(out: bytes) -> dict[Any, Any]:
    assert out == b"" or out.endswith(b"\n"), "half a message"
    found: dict[Any, Any] = {}
    for line in out.splitlines():
        message = json.loads(line)
        assert message["id"] not in found
        found[message["id"]] = message
    return found


def text(answer: Any) -> str:
    return answer["result"]["content"][0]["text"]


def test_a_pipe(command: list[str]) -> None:
    done = subprocess.run(
        command,
        input=lines(INITIALIZE, call(1, "echo", text="a"), call(2, "sleep", seconds=0.05)),
        capture_output=True,
        timeout=20,
    )
    found = answers(done.stdout)
    assert done.returncode == 0 and done.stderr == b""
    assert text(found[1]) == "a" and text(found[2]) == "slept"


def test_the_last_line_may_lack_its_newline(command: list[str]) -> None:
    done = subprocess.run(
        command, input=lines(INITIALIZE, call(1, "echo", text="a"))[:-1], capture_output=True, timeout=20
    )
    assert text(answers(done.stdout)[1]) == "a"


def test_half_a_message_at_the_end(command: list[str]) -> None:
    done = subprocess.run(
        command, input=lines(INITIALIZE) + b'{"jsonrpc":"2.0","id":7,"meth', capture_output=True, timeout=20
    )
    assert [json.loads(line).get("error", {}).get("code") for line in done.stdout.splitlines()] == [
        None,
        -32700,
    ]
    assert done.returncode == 0


def test_a_file_as_stdin_and_as_stdout(command: list[str], tmp_path: Path) -> None:
    many = [call(n, "echo", text="x" * 100) for n in range(1, 3000)]
    (tmp_path / "in").write_bytes(lines(INITIALIZE, *many))
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as taken:
        assert subprocess.run(command, stdin=given, stdout=taken, timeout=30).returncode == 0
    assert len(answers((tmp_path / "out").read_bytes())) == 3000


def test_dev_null_as_stdin(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_socket_as_stdin_and_stdout(command: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen(command, stdin=theirs, stdout=theirs) as process:
        theirs.close()
        ours.settimeout(20)
        ours.sendall(lines(INITIALIZE, call(1, "echo", text="a"), call(2, "big", size=3_000_000)))
        received = b""
        while received.count(b"\n") < 3:
            received += ours.recv(1 << 16)
        assert len(text(answers(received)[2])) == 3_000_000
        assert ours.getblocking()
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(10) == 0


def test_a_terminal(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        os.write(ours, lines(INITIALIZE))
        received = b""
        while b'"serverInfo"' not in received:
            received += os.read(ours, 1 << 16)
        os.write(ours, b"\x04")  # end of input
        assert process.wait(10) == 0
    os.close(ours)


class ByHand:
    """A server that a person started in a terminal; stderr apart."""

    def __init__(self, command: list[str]) -> None:
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # in a terminal nobody has SIGINT ignored; who runs the suite in the background may have
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
        )
        os.close(theirs)

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.fd)

    def reads_a_line(self) -> str:
        assert self.process.stderr is not None
        assert select.select([self.process.stderr], [], [], 20)[0], "nothing is said"
        return self.process.stderr.readline()

    def ends(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=10)
        return self.process.returncode, err


def test_started_by_hand_it_says_what_it_waits_for_and_ctrl_c_ends_it(command: list[str]) -> None:
    with ByHand(command) as server:
        assert server.reads_a_line() == (
            "mcpfast: this server speaks MCP on stdin and stdout, and waits for a client (Ctrl-C stops it); "
            f"to try it: mcpfast inspect -- {shlex.join(command)}\n"
        )
        server.process.send_signal(signal.SIGINT)
        assert server.ends() == (130, "")


def test_by_hand_the_word_mcpfast_is_enough_and_sigterm_is_an_orderly_end(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("from mcpfast import MCPServer\nserver = MCPServer('s')\n")
    (tmp_path / "mcpfast").write_text("import sys\nfrom mcpfast.cli import main\nsys.exit(main())\n")
    words = ["run", str(tmp_path / "server.py")]
    with ByHand([sys.executable, str(tmp_path / "mcpfast"), *words]) as server:
        assert server.reads_a_line().endswith(f"inspect -- {shlex.join(['mcpfast', *words])}\n")
        server.process.terminate()
        assert server.ends() == (0, "")
    with ByHand([sys.executable, str(tmp_path / "mcpfast"), *words]) as server:
        server.reads_a_line()
        server.process.send_signal(signal.SIGINT)
        assert server.ends() == (130, "")


def test_ctrl_c_while_the_lifespan_begins(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(
        "import asyncio, contextlib, sys\nfrom mcpfast import MCPServer\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(server):\n"
        "    print('begins', file=sys.stderr, flush=True)\n    await asyncio.sleep(60)\n    yield\n"
        "MCPServer('s', lifespan=lifespan).run()\n"
    )
    with ByHand([sys.executable, str(tmp_path / "server.py")]) as server:
        assert server.reads_a_line() == "begins\n"
        server.process.send_signal(signal.SIGINT)
        assert server.ends() == (130, "")


def test_what_runs_over_the_grace_is_cancelled_and_the_process_is_gone(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        make(tmp_path, grace=0.3),
        input=lines(
            INITIALIZE,
            call(1, "echo", text="a"),
            call(2, "sleep", seconds=60),
            call(3, "sleep", seconds=0.05),
        ),
        capture_output=True,
        timeout=20,
    )
    found = answers(done.stdout)
    assert set(found) == {0, 1, 3} and done.returncode == 0
    assert 0.3 <= time.monotonic() - started < 8


@pytest.mark.parametrize("tool", ["block", "block_elsewhere"])
def test_a_thread_that_blocks_does_not_hold_the_process(tmp_path: Path, tool: str) -> None:
    started = time.monotonic()
    done = subprocess.run(
        make(tmp_path, grace=0.2),
        input=lines(INITIALIZE, call(1, tool, seconds=60)),
        capture_output=True,
        timeout=20,
    )
    assert set(answers(done.stdout)) == {0} and done.returncode == 0
    assert time.monotonic() - started < 10


def test_stray_output_does_not_reach_the_client(command: list[str]) -> None:
    done = subprocess.run(
        command,
        input=lines(INITIALIZE, call(1, "shout"), call(2, "echo", text="x")),
        capture_output=True,
        timeout=20,
    )
    assert set(answers(done.stdout)) == {0, 1, 2}
    for stray in (b"a stray print", b"a stray write", b"a stray child"):
        assert stray in done.stderr


def test_a_closed_stdout_ends_it_at_once(command: list[str]) -> None:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(lines(INITIALIZE))
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()  # stdin stays open, nothing is asked
        assert process.wait(5) == 0
        process.stdin.close()


@pytest.mark.plain_build
def test_a_full_pipe_blocks_nobody(command: list[str]) -> None:
    """The client asks and asks and reads nothing; then it reads, and everything is there."""
    many = 2_000
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        feeder = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"],
            stdin=subprocess.PIPE,
            stdout=process.stdin,
        )
        process.stdin.close()
        assert feeder.stdin is not None
        feeder.stdin.write(lines(INITIALIZE, *[call(n, "big", size=3_000) for n in range(1, many)]))
        feeder.stdin.close()
        time.sleep(0.5)
        assert process.poll() is None
        assert resident_kb(process.pid) < 100_000
        assert len(answers(process.stdout.read())) == many
        assert process.wait(10) == 0
        feeder.wait(5)


def resident_kb(pid: int) -> int:
    return next(
        int(row.split()[1])
        for row in Path(f"/proc/{pid}/status").read_text().splitlines()
        if row.startswith("VmRSS")
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_calls_end(command: list[str], number: int) -> None:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(lines(INITIALIZE, call(1, "sleep", seconds=0.8), call(2, "sleep", seconds=60)))
        process.stdin.write(lines(call(3, "echo", text="x")))
        process.stdin.flush()
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == [0, 3]
        started = time.monotonic()
        process.send_signal(number)
        assert set(answers(process.stdout.read())) == {1}
        assert process.wait(10) == 0
        assert 0.5 < time.monotonic() - started < 5
        assert process.stderr.read() == b""
        process.stdin.close()


def test_the_flags_of_the_parents_descriptors_stay(command: list[str]) -> None:
    """O_NONBLOCK belongs to the open file, which the parent shares: it must not be set there."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    with subprocess.Popen(command, stdin=read_in, stdout=write_out) as process:
        os.write(write_in, lines(INITIALIZE))
        os.read(read_out, 1 << 16)
        assert all(os.get_blocking(fd) for fd in (read_in, write_out))
        os.close(write_in)
        assert process.wait(10) == 0
        assert all(os.get_blocking(fd) for fd in (read_in, write_out))
    for fd in (read_in, read_out, write_out):
        os.close(fd)


def test_without_stdout_there_is_a_clear_error(command: list[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
    )
    assert done.returncode == 1 and b"stdout is closed" in done.stderr


LIFESPAN = """
import contextlib, os
from mcpfast import MCPServer

@contextlib.asynccontextmanager
async def lifespan(server):
    print("a stray print at the start", flush=True)
    yield
    os.write(1, b"a stray write at the end\\n")

MCPServer("stdio", lifespan=lifespan).run()
"""


def test_what_a_lifespan_prints_does_not_reach_the_client(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(LIFESPAN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "server.py")],
        input=lines(INITIALIZE),
        capture_output=True,
        timeout=20,
    )
    assert set(answers(done.stdout)) == {0} and done.returncode == 0
    assert b"a stray print at the start" in done.stderr and b"a stray write at the end" in done.stderr


def test_stdio_is_served_once_and_not_inside_a_running_loop(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(
        "import asyncio\nfrom mcpfast import MCPServer\nserver = MCPServer('s')\n"
        "async def main():\n"
        "    try: server.run()\n"
        "    except RuntimeError as error: print(error)\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        for _ in range(2): group.create_task(server.run_async())\n"
        "try: asyncio.run(main())\n"
        "except* Exception as errors: print(errors.exceptions)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "server.py")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "await server.run_async" in done.stdout and "serves it already" in done.stdout
    assert "never awaited" not in done.stderr and done.returncode == 0


def test_files_are_read_from_where_they_stand_and_appended_to(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"skip this\n" + lines(INITIALIZE))
    (tmp_path / "out").write_bytes(b"keep this\n")
    with open(tmp_path / "in", "rb", buffering=0) as given, open(tmp_path / "out", "ab") as taken:
        given.seek(len(b"skip this\n"))
        assert subprocess.run(command, stdin=given, stdout=taken, timeout=30).returncode == 0
    kept, answer = (tmp_path / "out").read_bytes().splitlines()
    assert kept == b"keep this" and json.loads(answer)["id"] == 0
