"""The client by WebSocket: against our own server in both eras, and a server that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from mcpfast import Client, Context, Limits, MCPError, MCPServer
from mcpfast.client.session import HttpError
from mcpfast.errors import AddressError, ConnectionClosed
from tests.test_http import Tools, both_loops, serving
from tests.wire import run

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


class Amount(msgspec.Struct):
    cups: int


def asking() -> MCPServer[Any]:
    server = Tools().server()

    @server.tool
    async def ask(ctx: Context) -> str:
        answer = await ctx.elicit("How much?", Amount)
        return f"{answer.action} {answer.data.cups}" if answer.action == "accept" else answer.action

    return server


async def accept(*_: Any) -> Any:
    return {"cups": 3}


@both_loops
@both_eras
def test_a_session(loop: str, mode: str) -> None:
    async def scenario() -> None:
        seen: list[Any] = []
        server = asking()

        async def progress(*step: Any) -> None:
            seen.append(step[0])

        async with serving(server) as (listener, port):
            async with Client(f"ws://127.0.0.1:{port}/mcp", mode=mode, elicitation_callback=accept) as client:
                assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
                many = [client.call_tool("echo", {"text": f"{i}ü\n"}) for i in range(50)]
                assert [r.data for r in await asyncio.gather(*many)] == [f"{i}ü\n" for i in range(50)]
                large = "x" * 300_000
                assert (await client.call_tool("echo", {"text": large})).data == large
                assert (await client.call_tool("steps", {"n": 3}, progress_callback=progress)).data == "done"
                assert seen == [0, 1, 2]
                assert (await client.call_tool("ask", {})).data == "accept 3"
                with pytest.raises(MCPError, match="Unknown tool"):
                    await client.call_tool("none", {})
                assert len(listener.sockets) == 1
            for _ in range(100):
                if not listener.sockets and not listener.host.sessions:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("the server keeps the connection")

    run(scenario(), loop)


def test_a_call_that_is_given_up_is_cancelled() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (_, port), Client(f"ws://127.0.0.1:{port}/mcp") as client:
            waiting = asyncio.create_task(client.call_tool("wait", {"seconds": 30}))
            await tools.started.wait()
            waiting.cancel()
            for _ in range(100):
                if tools.ended:
                    break
                await asyncio.sleep(0.01)
            assert tools.ended == ["cancelled"]
            assert (await client.call_tool("echo", {"text": "x"})).data == "x"

    run(scenario())


def test_the_end_of_the_server_ends_the_calls() -> None:
    async def scenario() -> None:
        tools = Tools()
        async with serving(tools.server()) as (listener, port):
            async with Client(f"ws://127.0.0.1:{port}/mcp") as client:
                waiting = asyncio.create_task(client.call_tool("wait", {"seconds": 30}))
                await tools.started.wait()
                listener.close()
                with pytest.raises(
                    ConnectionClosed, match=r"WebSocket close code 1001 the server is closing"
                ):
                    await waiting

    run(scenario())


def test_what_is_no_endpoint() -> None:
    async def scenario() -> None:
        async with serving(Tools().server()) as (_, port):
            for path, status in (("/other", 404),):
                with pytest.raises(HttpError, match=f"handshake with HTTP {status}") as failed:
                    async with Client(f"ws://127.0.0.1:{port}{path}"):
                        pass
                assert failed.value.status == status
            with pytest.raises(HttpError, match="HTTP 403"):
                async with Client(f"ws://127.0.0.1:{port}/mcp", headers={"Origin": "http://evil.example"}):
                    pass
        with pytest.raises(AddressError, match=r"Cannot connect to ws://127\.0\.0\.1"):
            async with Client(f"ws://127.0.0.1:{port}/mcp"):
                pass

    run(scenario())


@asynccontextmanager
async def scripted(script: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("mcp",))
        await socket.prepare(request)
        await socket.receive()
        await script(socket)
        return socket

    app = web.Application()
    app.router.add_get("/mcp", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def closes(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1013, message=b"come back later")


async def speaks_binary(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"{}")


async def vanishes(socket: web.WebSocketResponse) -> None:
    assert socket._req is not None and socket._req.transport is not None
    socket._req.transport.abort()


async def says_too_much(socket: web.WebSocketResponse) -> None:
    await socket.send_str('{"jsonrpc":"2.0","id":0,"result":{"x":"' + "y" * 5_000 + '"}}')
    await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (closes, "close code 1013 come back later"),
        (speaks_binary, "binary frame"),
        (vanishes, "closed the connection"),
        (says_too_much, "closed the connection|longer than"),
    ],
)
def test_servers_that_misbehave(
    script: Callable[[web.WebSocketResponse], Awaitable[None]], said: str
) -> None:
    async def scenario() -> None:
        async with scripted(script) as port:
            limits = Limits(frame_bytes_max=2_000)
            with pytest.raises(MCPError, match=said):
                async with Client(f"ws://127.0.0.1:{port}/mcp", limits=limits, mode="legacy"):
                    pass

    run(scenario())
