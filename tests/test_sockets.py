"""TCP and Unix sockets: many clients, back-pressure both ways, idle and frame limits, stale files, peers, an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPServer
from mcpfast.errors import AddressError
from mcpfast.serve import serve
from mcpfast.transports.addresses import Address, parse
from tests.wire import Wire, loops, run

both_loops = pytest.mark.parametrize("loop", loops())


def make_server(**limits: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("sockets", version="1", limits=Limits(**limits))

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def sleep(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @server.tool
    async def big(size: int) -> str:
        return "x" * size

    @server.tool
    async def peer(ctx: Context) -> str:
        found = ctx.request.peer
        return json.dumps([found.transport, found.address, found.credentials])

    return server


@asynccontextmanager
async def serving(server: MCPServer[Any], *addresses: str) -> AsyncIterator[list[Address]]:
    """The server on these addresses; cancelled at the end."""
    ready: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(server, list(addresses), ready=ready.set_result))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield await ready
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def wire_to(
    address: Address, *, open_session: bool = True, limit: int = 1 << 26
) -> AsyncIterator[Wire]:
    if address.kind == "tcp":
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=limit)
    else:
        reader, writer = await asyncio.open_unix_connection(address.socket, limit=limit)
    try:
        wire = Wire(reader, writer, "2025-11-25")
        if open_session:
            await wire.initialize()
        yield wire
    finally:
        writer.close()


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:0" if request.param == "tcp" else f"unix://{tmp_path}/s"


@both_loops
def test_many_clients(address: str, loop: str) -> None:
    async def client(where: Address, number: int) -> None:
        async with wire_to(where) as wire:
            for n in range(5):
                assert (await wire.call("echo", {"text": f"{number}.{n}"}))["content"][0][
                    "text"
                ] == f"{number}.{n}"

    async def scenario() -> None:
        async with serving(make_server(), address) as [where]:
            await asyncio.gather(*(client(where, number) for number in range(50)))

    run(scenario(), loop)


def test_several_listeners_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(make_server(), "tcp://127.0.0.1:0", f"unix://{tmp_path}/s") as both:
            for where in both:
                async with wire_to(where) as wire:
                    assert (await wire.call("echo", {"text": "x"}))["content"][0]["text"] == "x"

    run(scenario())


def test_peers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(make_server(), "tcp://127.0.0.1:0", f"unix://{tmp_path}/s") as (tcp, unix):
            async with wire_to(tcp) as wire:
                transport, address, credentials = json.loads((await wire.call("peer"))["content"][0]["text"])
                port = wire.writer.get_extra_info("sockname")[1]
                assert (transport, address, credentials) == ("tcp", f"127.0.0.1:{port}", None)
            async with wire_to(unix) as wire:
                transport, address, credentials = json.loads((await wire.call("peer"))["content"][0]["text"])
                assert (transport, address) == ("unix", f"{tmp_path}/s")
                assert credentials == [os.getpid(), os.getuid(), os.getgid()]

    run(scenario())


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def scenario() -> None:
        before = os.umask(0)
        try:
            async with serving(make_server(), f"unix://{path}"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
        finally:
            os.umask(before)
        assert not path.exists()

    run(scenario())


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()

    async def scenario() -> None:
        async with serving(make_server(), f"unix://{path}") as [where]:
            with pytest.raises(AddressError, match="another server listens there"):
                async with serving(make_server(), f"unix://{path}"):
                    pass
            async with wire_to(where) as wire:
                await wire.settle()

    run(scenario())


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    async def scenario() -> None:
        async with serving(make_server(), f"unix://{path}"):
            pass

    with pytest.raises(AddressError, match="no socket"):
        run(scenario())
    assert path.read_text() == "data"


@pytest.mark.parametrize(
    "text",
    [
        "tcp://",
        "tcp://x",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "unix://relative",
        "unix://",
        "ftp://x",
        "x",
        "",
    ],
)
def test_addresses_that_cannot_be(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)


HTTP_HERE = "one address serves Streamable HTTP, and HTTP+SSE at /sse; write http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("unix:/run/x.sock", "write unix:///run/x.sock"),
        ("unix://run/x.sock", f"write unix://{os.getcwd()}/run/x.sock"),
        ("unix:x.sock", f"write unix://{os.getcwd()}/x.sock"),
        ("unix://", "as in unix:///run/notes.sock"),
        ("tcp:[::1]:9000", "write tcp://[::1]:9000"),
        ("tcp", "as in tcp://127.0.0.1:9000"),
        ("sse", HTTP_HERE),
        ("streamable-http", HTTP_HERE),
        ("ws://127.0.0.1:8000/mcp", "write http://127.0.0.1:8000/mcp"),
        ("wss://127.0.0.1:8000", "write https://127.0.0.1:8000"),
        ("https://127.0.0.1/mcp", "HTTPS needs a port from 0 to 65535, as in https://127.0.0.1:8000"),
        ("unix+http://run/x", f"write unix+http://{os.getcwd()}/run/x"),
        ("http://127.0.0.1/mcp", "HTTP needs a port from 0 to 65535, as in http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/mcp?x=1", "is plain, as in http://127.0.0.1:8000/mcp"),
    ],
)
def test_a_wrong_address_is_told_with_the_right_spelling(text: str, sentence: str) -> None:
    with pytest.raises(AddressError) as caught:
        make_server().run(text)
    assert str(caught.value).startswith(repr(text)) and str(caught.value).endswith(sentence)


def test_the_options_of_other_servers_are_answered() -> None:
    server = make_server()
    for transport, kind in (("stdio", "http"), ("tcp", "tcp"), ("streamable-http", "http")):
        with pytest.raises(AddressError, match=rf'write "{kind}://0\.0\.0\.0:9"; there are "stdio"'):
            server.run(transport=transport, host="0.0.0.0", port=9)
    with pytest.raises(AddressError, match=r'write "http://127\.0\.0\.1:9"'):
        run(server.run_async(port=9))
    with pytest.raises(TypeError, match="there is no option 'path' or 'lop' for serving"):
        server.run("tcp://127.0.0.1:0", path="/mcp", lop="uvloop")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("stdio", Address("stdio")),
        ("tcp://127.0.0.1:9000", Address("tcp", "127.0.0.1", 9000)),
        ("tcp://:9000", Address("tcp", "127.0.0.1", 9000)),
        ("tcp://[::1]:9000", Address("tcp", "::1", 9000)),
        ("unix:///run/x.sock", Address("unix", socket="/run/x.sock")),
        ("unix+http:///run/x.sock", Address("unix+http", path="/mcp", socket="/run/x.sock")),
        ("https://:8443/", Address("https", "127.0.0.1", 8443, "/mcp")),
        ("http://[::1]:8000/notes", Address("http", "::1", 8000, "/notes")),
    ],
)
def test_addresses_that_can(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:

        async def scenario() -> None:
            async with serving(make_server(), f"tcp://127.0.0.1:{taken.getsockname()[1]}"):
                pass

        with pytest.raises(AddressError, match=r"cannot listen on tcp://127\.0\.0\.1"):
            run(scenario())


@pytest.mark.plain_build
@both_loops
def test_a_client_that_reads_nothing_slows_itself_alone(address: str, loop: str) -> None:
    """It asks for 60 MB and takes none of it: the server stops reading it, keeps little, and serves its neighbour."""

    async def scenario() -> None:
        server = make_server(output_high_bytes=1 << 18)
        async with (
            serving(server, address) as [where],
            wire_to(where, limit=1 << 16) as slow,
            wire_to(where) as neighbour,
        ):
            calls = [
                slow.message("tools/call", {"name": "big", "arguments": {"size": 10_000}})
                for _ in range(3_000)
            ]
            before = resident_kb()
            slow.send(*calls)
            for _ in range(20):
                assert (await neighbour.call("echo", {"text": "quick"}))["content"][0]["text"] == "quick"
            await asyncio.sleep(0.1)
            assert resident_kb() - before < 30_000
            for message in calls:
                assert len((await slow.answer(message["id"]))["result"]["content"][0]["text"]) == 10_000

    run(scenario(), loop)


def resident_kb() -> int:
    return next(
        int(row.split()[1])
        for row in Path("/proc/self/status").read_text().splitlines()
        if row.startswith("VmRSS")
    )


def test_a_client_that_never_reads_what_is_pushed_is_let_go() -> None:
    """Notifications cannot be held back by not reading: the hard limit ends the connection."""
    server = make_server(output_bytes_max=1 << 20, output_high_bytes=1 << 30)

    @server.tool
    async def push(ctx: Context) -> str:
        try:
            for n in range(100_000):
                await ctx.log("info", f"{n} " + "x" * 1_000)
                if n % 100 == 0:
                    await asyncio.sleep(0)
        finally:
            if ctx.cancelled:
                ended.set()
        return "done"

    ended = asyncio.Event()

    async def scenario() -> None:
        async with serving(server, "tcp://127.0.0.1:0") as [where], wire_to(where, limit=1 << 14) as wire:
            wire.send(wire.message("tools/call", {"name": "push", "arguments": {}}))
            await asyncio.wait_for(ended.wait(), 20)

    run(scenario())


def test_the_client_closes_its_side_and_gets_what_is_in_flight(address: str) -> None:
    async def scenario() -> None:
        async with serving(make_server(), address) as [where], wire_to(where) as wire:
            message = wire.message("tools/call", {"name": "sleep", "arguments": {"seconds": 0.1}})
            wire.send(message)
            wire.writer.write_eof()
            assert (await wire.answer(message["id"]))["result"]["content"][0]["text"] == "slept"
            assert await wire.reader.read() == b""

    run(scenario())


@both_loops
def test_a_connection_that_breaks_cancels_its_calls(address: str, loop: str) -> None:
    cancelled: list[int] = []
    server = make_server()

    @server.tool
    async def wait(n: int) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        return "no"

    async def scenario() -> None:
        async with serving(server, address) as [where]:
            async with wire_to(where) as wire:
                wire.send(
                    *[wire.message("tools/call", {"name": "wait", "arguments": {"n": n}}) for n in range(20)]
                )
                await wire.settle()
                broken = wire.writer.get_extra_info("socket")
                broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                wire.writer.transport.abort()
            for _ in range(300):
                await asyncio.sleep(0.01)
                if len(cancelled) == 20:
                    break
            assert sorted(cancelled) == list(range(20))

    run(scenario(), loop)


def test_idle_connections_are_closed_and_busy_ones_are_not(address: str) -> None:
    async def scenario() -> None:
        server = make_server(idle_s=0.2)
        async with (
            serving(server, address) as [where],
            wire_to(where) as idle,
            wire_to(where) as busy,
            wire_to(where) as waits,
        ):
            message = waits.message("tools/call", {"name": "sleep", "arguments": {"seconds": 0.8}})
            waits.send(message)
            for _ in range(16):
                await asyncio.sleep(0.05)
                await busy.settle()
            assert await asyncio.wait_for(idle.reader.read(), 1) == b""
            assert (await waits.answer(message["id"]))["result"]["content"][0]["text"] == "slept"

    run(scenario())


def test_no_more_connections_than_allowed(address: str) -> None:
    async def scenario() -> None:
        async with serving(make_server(connections_max=2), address) as [where]:
            async with wire_to(where) as one, wire_to(where):
                async with wire_to(where, open_session=False) as third:
                    assert await asyncio.wait_for(third.reader.read(), 2) == b""
                await one.settle()
            await asyncio.sleep(0.05)
            async with wire_to(where) as again:
                await again.settle()

    run(scenario())


def test_frame_limits_hold_on_sockets(address: str) -> None:
    async def scenario() -> None:
        async with serving(make_server(frame_bytes_max=10_000), address) as [where], wire_to(where) as wire:
            wire.send(b'{"jsonrpc":"2.0","id":5,"method":"' + b"x" * 5_000_000 + b'"}')
            assert (await wire.receive())["error"]["code"] == -32600
            await wire.settle()

    run(scenario())


def test_a_signal_drains_every_listener(tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text(
        "import asyncio\nfrom mcpfast import MCPServer\nserver = MCPServer('s')\n"
        "@server.tool\nasync def sleep(seconds: float) -> str:\n    await asyncio.sleep(seconds)\n    return 'slept'\n"
        f"server.run(['tcp://127.0.0.1:0', 'unix://{tmp_path}/s'])\n"
    )

    async def scenario() -> None:
        process = subprocess.Popen([sys.executable, str(source)], stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], 20)[0], "nothing is said"
            assert re.fullmatch(
                r"mcpfast: listening on tcp://127\.0\.0\.1:[1-9]\d+\n", process.stderr.readline()
            )
            where = Address("unix", socket=f"{tmp_path}/s")
            assert process.stderr.readline() == f"mcpfast: listening on {where}\n"
            async with wire_to(where) as wire:
                message = wire.message("tools/call", {"name": "sleep", "arguments": {"seconds": 0.3}})
                wire.send(message)
                await wire.settle()
                process.terminate()
                assert (await wire.answer(message["id"]))["result"]["content"][0]["text"] == "slept"
                assert await asyncio.wait_for(wire.reader.read(), 5) == b""
            assert process.wait(5) == 0
            assert process.stderr.read() == ""
            assert not os.path.exists(where.path)
        finally:
            process.kill()
            process.communicate()

    run(scenario())


def test_servers_in_several_threads_of_one_process() -> None:
    """One server object, a loop in each of four threads, a client in each: nothing is shared that must not be."""
    server = make_server()
    failures: list[BaseException] = []

    def thread(number: int) -> None:
        async def scenario() -> None:
            async with serving(server, "tcp://127.0.0.1:0") as [where], wire_to(where) as wire:
                for n in range(200):
                    given = f"{number}.{n}"
                    assert (await wire.call("echo", {"text": given}))["content"][0]["text"] == given
                    if n % 50 == 0:
                        await wire.call("sleep", {"seconds": 0.001})

        try:
            run(scenario(), "uvloop" if number % 2 else "asyncio")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert failures == []
