"""How often payload is copied, how often memory is asked for, and what a kept `msgspec.Raw` still holds: as ARCHITECTURE.md says.

Copies and allocations are counted in a process of its own, by a library that stands before libc's memcpy and malloc (copies.c).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcpfast import MCPServer
from mcpfast._entry import BODY, Entry
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Stream
from tests.wire import loops, run

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB  # what one read takes at most, and what a connection reads into
both_loops = pytest.mark.parametrize("loop", loops())


class Client:
    """The other end of a socket whose every read is known: the server takes up each piece before the next is sent."""

    def __init__(self, stream: Stream, end: socket.socket) -> None:
        self._stream = stream
        self._end = end

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            before = self._stream.channel.reads
            assert self._end.send(piece) == len(piece)
            while self._stream.channel.reads == before:
                await asyncio.sleep(0)

    async def receive(self, lines: int) -> bytes:
        """So many answers."""
        loop, got = asyncio.get_running_loop(), b""
        while got.count(b"\n") < lines:
            got += await loop.sock_recv(self._end, 4 * MIB)  # the deadline is that of `run`
        assert got.endswith(b"\n") and b'"error"' not in got and b'"isError"' not in got, got[:500]
        return got

    async def ask(self, *lines: bytes, pieces: tuple[bytes, ...] = ()) -> bytes:
        """The answers to `lines`, which are sent in `pieces`, or as one."""
        await self.send(*(pieces or (b"".join(lines),)))
        return await self.receive(len(lines))


@asynccontextmanager
async def connected(server: MCPServer[Any], revision: str = "2025-06-18") -> AsyncIterator[Client]:
    async with Host(server) as host:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * MIB)
        fd = ours.detach()
        stream = Stream(
            host, fd, fd, is_socket=True, peer=Peer("memory"), grace_s=1.0, on_closed=lambda _: None
        )
        stream.channel.start_reading()
        with theirs:
            client = Client(stream, theirs)
            hello = {
                "protocolVersion": revision,
                "capabilities": {},
                "clientInfo": {"name": "x", "version": "1"},
            }
            await client.ask(message(0, "initialize", hello))
            yield client
            stream.close()


def message(id: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n"


def call(name: str, id: int = 1, **arguments: Any) -> bytes:
    return message(id, "tools/call", {"name": name, "arguments": arguments})


def make_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("copies", version="1")

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def length(text: str) -> int:
        return len(text)

    @server.tool
    async def decoded_length(text: str | None) -> int:
        return len(text or "")

    @server.tool
    async def raw_length(data: msgspec.Raw) -> int:
        return len(memoryview(data))

    return server


# ---------------------------------------------------------------- where the bytes of arguments are


class Buffer(ctypes.Structure):
    """Py_buffer: where an object says that its bytes are."""

    _fields_ = [
        ("at", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("rest", ctypes.c_char * 96),
    ]


def address_of(buffer: Any) -> int:
    view = Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(view), 0)
    at = int(view.at)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
    return at


class Nothing(msgspec.Struct):
    """Decoded arguments of which none reaches the handler."""


class Seen:
    """A tool's decoder that looks at the buffer it is given: which one, where, and what stands in it."""

    def __init__(self, server: MCPServer[Any]) -> None:
        self.buffers: list[Any] = []
        self.at: list[int] = []
        self.text: list[bytes] = []
        entry = Entry(
            "seen", None, lambda: b"{}", self.decode, (), kind=BODY, inline=True, decoded_type=Nothing
        )
        server.catalog.table[b"seen"] = entry

    def decode(self, buffer: Any) -> Nothing:
        self.buffers.append(buffer)
        self.at.append(address_of(buffer))
        self.text.append(bytes(buffer))
        return Nothing()


@both_loops
def test_arguments_are_decoded_where_they_were_read_to(loop: str) -> None:
    lines = [call("seen", id=n, text="x" * (7 * n)) for n in range(60)]
    starts = [sum(map(len, lines[:n])) + lines[n].index(b'{"text"') for n in range(60)]

    async def scenario() -> None:
        server = make_server()
        seen = Seen(server)
        async with connected(server) as client:
            await client.ask(*lines)
            assert {id(buffer) for buffer in seen.buffers} == {id(seen.buffers[0])}, "one read, one buffer"
            # as far from each other in memory as they were on the wire: nothing was taken out and put elsewhere
            assert [at - seen.at[0] for at in seen.at] == [start - starts[0] for start in starts]
            assert [json.loads(text) for text in seen.text] == [
                json.loads(line)["params"]["arguments"] for line in lines
            ]

    run(scenario(), loop)


def test_a_line_that_came_in_pieces_is_decoded_where_it_lies() -> None:
    """No line is whole with the first piece, so nothing has moved by the time the last comes."""

    async def scenario() -> None:
        server = make_server()
        seen = Seen(server)
        line = call("seen", text="y" * 20_000)
        async with connected(server) as client:
            await client.ask(line, line, pieces=(line[:9_000], line[9_000:] + line))
            assert seen.buffers[0] is seen.buffers[1]
            assert seen.at[1] - seen.at[0] == len(line)

    run(scenario())


# ---------------------------------------------------------------- what is copied, what is allocated


def counted(kind: type, name: str) -> Callable[..., int]:
    function = getattr(ctypes.CDLL(None), name)
    function.restype = kind
    return function  # type: ignore[no-any-return]


class Counts:
    """Bytes copied, by library, while `async with` lasts."""

    def __init__(self) -> None:
        self._bytes = counted(ctypes.c_uint64, "copies_bytes")
        self._reset = counted(ctypes.c_int, "copies_reset")
        self.ours = self.msgspec = 0

    def __enter__(self) -> Counts:
        self._reset()
        return self

    def __exit__(self, *error: object) -> None:
        self.ours = self._bytes(b"/mcpfast/_")
        self.msgspec = self._bytes(b"/msgspec/")


async def copied(client: Client, *lines: bytes, pieces: tuple[bytes, ...] = ()) -> tuple[int, int]:
    """Bytes copied by mcpfast and by msgspec for these lines; the second time, when everything is warm."""
    await client.ask(*lines, pieces=pieces)
    with Counts() as counts:
        await client.ask(*lines, pieces=pieces)
    return counts.ours, counts.msgspec


async def allocated(client: Client, lines: int) -> int:
    """Allocations while so many lines, all in one read, are handled and answered."""
    allocations = counted(ctypes.c_uint64, "copies_allocations")
    whole = call("echo", text="hello") * lines
    before = allocations()
    await client.send(whole)
    after = allocations()
    await client.receive(lines)
    return after - before


async def measure() -> dict[str, Any]:
    """In the process with copies.c: everything that is looked at below."""
    found: dict[str, Any] = {}
    async with connected(make_server()) as client:
        for size in (8 * KIB, 40 * KIB, MIB):
            found[f"raw {size}"] = await copied(client, call("raw_length", data="x" * size))
            found[f"length {size}"] = await copied(client, call("length", text="x" * size))
            found[f"decoded {size}"] = await copied(client, call("decoded_length", text="x" * size))
            found[f"echo {size}"] = await copied(client, call("echo", text="x" * size))
        for name, kept in (("short", 5_000), ("long", 20_000)):
            line = call("raw_length", data="x" * 30_000)
            pieces = (line + line[:kept], line[kept:])
            found[f"split {name}"] = await copied(client, line, line, pieces=pieces)
        for lines in (1, 50, 100, 200):
            await allocated(client, lines)
            found[f"allocations {lines}"] = min([await allocated(client, lines) for _ in range(3)])
    async with connected(make_server(), "2024-11-05") as client:
        found["echo unstructured"] = await copied(client, call("echo", text="x" * 40 * KIB))
    return found


def in_own_process(code: str, extra: dict[str, str]) -> str:
    """What `code` prints, run by this Python with the build under test; `extra` is put into its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    # the build under test first, then the tests
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])
    code = f"import asyncio, json; from tests import test_zero_copy; {code}"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | extra, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler: cc is not here")
    library = tmp_path_factory.mktemp("copies") / "copies.so"
    source = Path(__file__).with_name("copies.c")
    flags = ["-O2", "-shared", "-fPIC", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-Wall"]
    subprocess.run([compiler, *flags, source, "-o", library, "-ldl"], check=True, timeout=60)
    environment = {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    printed = in_own_process("print(json.dumps(asyncio.run(test_zero_copy.measure())))", environment)
    return json.loads(printed)  # type: ignore[no-any-return]


@pytest.mark.plain_build
@pytest.mark.parametrize("size", [8 * KIB, 40 * KIB])
def test_a_line_of_one_read_is_not_copied(counts: dict[str, Any], size: int) -> None:
    assert counts[f"raw {size}"] == [0, 0]
    assert counts[f"length {size}"] == [size, 0], "once, into the str that the handler gets"
    assert counts[f"decoded {size}"] == [0, size], "once, by msgspec, where it is more than a plain scalar"


@pytest.mark.plain_build
def test_the_rest_of_a_read_is_copied_once_or_twice(counts: dict[str, Any]) -> None:
    """Behind whole lines: moved to the front, or, where it is short, kept in a little block till more comes."""
    assert counts["split short"] == [2 * 5_000, 0]
    assert counts["split long"] == [20_000, 0]


@pytest.mark.plain_build
def test_of_a_long_line_only_the_first_block_moves(counts: dict[str, Any]) -> None:
    """The block of the last long line is kept: what fitted the first, small one moves there, the rest is read into it.

    (The very first long line doubles its memory as it comes, and moves less than twice its length.)
    """
    ours, msgspecs = counts[f"raw {MIB}"]
    assert 0 < ours <= 64 * KIB
    assert msgspecs == 0
    assert counts[f"decoded {MIB}"] == [ours, MIB]
    assert counts[f"length {MIB}"] == [ours + MIB, 0]


@pytest.mark.plain_build
@pytest.mark.parametrize("size", [8 * KIB, 40 * KIB, MIB])
def test_a_str_result_is_written_once_and_copied_once_more(counts: dict[str, Any], size: int) -> None:
    """Escaped into the outbox for the text block; that, copied, is the structured content."""
    ours, msgspecs = counts[f"echo {size}"]
    assert ours - counts[f"length {size}"][0] == size
    assert msgspecs == 0
    assert counts["echo unstructured"] == [40 * KIB, 0], "2024-11-05 has the text alone"


@pytest.mark.plain_build
def test_allocations_a_call(counts: dict[str, Any]) -> None:
    """The str and the coroutine; nothing that grows with what is in flight."""
    for few, many in ((1, 100), (50, 100), (100, 200)):
        each = (counts[f"allocations {many}"] - counts[f"allocations {few}"]) / (many - few)
        assert 1 < each < 2.2, f"{each} allocations a call between {few} and {many} in one read"


async def grow() -> list[int]:
    """Blocks of memory more after 10,000 calls, six times; the first ones warm up."""
    lines = [call("echo", id=n, text=f"text number {n}") for n in range(200)]
    grown = []
    async with connected(make_server()) as client:
        for _ in range(6):
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(50):
                await client.ask(*lines)
            gc.collect()
            grown.append(sys.getallocatedblocks() - before)
    return grown


@pytest.mark.plain_build
@both_loops
def test_ten_thousand_calls_leave_no_block(loop: str) -> None:
    """In a process of its own: what other tests left running would be counted too."""
    grown = json.loads(
        in_own_process(f"from tests.wire import run; print(run(test_zero_copy.grow(), {loop!r}))", {})
    )
    assert min(grown[1:]) <= 2, f"blocks more after 10,000 calls each: {grown}"


# ---------------------------------------------------------------- a Raw that is kept


class Keeper:
    """A server whose tool keeps what it was given, and compares it with what was sent when all is over."""

    def __init__(self) -> None:
        self.kept: dict[int, msgspec.Raw] = {}
        self.server: MCPServer[Any] = MCPServer("keeper", version="1")

        @self.server.tool
        async def keep(number: int, data: msgspec.Raw) -> int:
            self.kept[number] = data
            return number

        @self.server.tool
        async def keep_and_wait(number: int, data: msgspec.Raw) -> int:
            self.kept[number] = data
            await asyncio.sleep(0)
            return number

        @self.server.tool
        async def forget(data: msgspec.Raw) -> int:
            return len(memoryview(data))


def payload(number: int, size: int) -> dict[str, Any]:
    """Different for each number, everywhere in it."""
    return {"number": number, "data": f"<{number:06d}>" * (size // 8)}


@both_loops
@pytest.mark.parametrize("tool", ["keep", "keep_and_wait"])
@pytest.mark.parametrize(
    ("size", "count", "kept_every"),
    [(64, 6_000, 7), (3_000, 2_000, 5), (30_000, 300, 3), (300_000, 24, 2)],
    ids=["small", "medium", "half a block", "longer than a block"],
)
def test_a_kept_raw_stays_what_it_was(size: int, count: int, kept_every: int, tool: str, loop: str) -> None:
    """The lines are cut without regard to where they end, so most reads hold a piece of one."""

    async def scenario() -> None:
        keeper = Keeper()
        chance = random.Random(size)
        async with connected(keeper.server) as client:
            lines = [
                call(tool, id=n, number=n, data=payload(n, size))
                if n % kept_every == 0
                else call("forget", id=n, data=payload(n, size))
                for n in range(count)
            ]
            stream, answered = b"".join(lines), 0
            while stream:
                cut = chance.randrange(1, BLOCK)
                piece, stream = stream[:cut], stream[cut:]
                await client.send(piece)
                whole = piece.count(b"\n")
                if whole:
                    await client.receive(whole)
                answered += whole
            assert answered == count
        assert len(keeper.kept) == len(range(0, count, kept_every))
        for number, raw in keeper.kept.items():
            assert msgspec.json.decode(bytes(raw)) == payload(number, size)

    run(scenario(), loop)


def test_raws_of_a_batch_stay_what_they_were() -> None:
    async def scenario() -> None:
        keeper = Keeper()
        async with connected(keeper.server, "2025-03-26") as client:
            for first in range(0, 3_000, 100):
                lines = [
                    call("keep", id=n, number=n, data=payload(n, 200)) for n in range(first, first + 100)
                ]
                await client.send(b"[" + b",".join(line.rstrip() for line in lines) + b"]\n")
                await client.receive(1)
        assert len(keeper.kept) == 3_000
        for number, raw in keeper.kept.items():
            assert msgspec.json.decode(bytes(raw)) == payload(number, 200)

    run(scenario())
