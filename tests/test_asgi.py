"""`server.asgi_app()` under a real uvicorn: everything that our own listener has, and the lifespan."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mcpfast import Client, HttpRequest, MCPServer
from tests.test_http import Browser, Tools, connect, initialized, modern, request, rpc
from tests.test_http_doors import OldClient, sent
from tests.test_websocket import HELLO, frame, opened, until, upgraded
from tests.wire import run


@asynccontextmanager
async def uvicorn_serving(app: Any) -> AsyncIterator[int]:
    """A uvicorn in this loop; its lifespan is the application's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # an older uvicorn's
        serving = asyncio.create_task(server.serve([listening]))
        try:
            async with asyncio.timeout(10):
                while not server.started:
                    assert not serving.done(), "uvicorn did not start"
                    await asyncio.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def with_routes(**limits: Any) -> tuple[Tools, MCPServer[Any]]:
    tools = Tools()
    server = tools.server(**limits)

    @server.route("GET", "/health")
    async def health(request: HttpRequest) -> str:
        return f"well, {request.method}"

    return tools, server


def test_both_eras() -> None:
    async def scenario() -> None:
        _, server = with_routes()
        app = server.asgi_app()
        async with uvicorn_serving(app) as port:
            for mode in ("auto", "legacy"):
                steps: list[Any] = []

                async def progress(done: float, *_: Any, seen: list[Any] = steps) -> None:
                    seen.append(done)

                async with Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client:
                    large = "x" * 300_000
                    assert (await client.call_tool("echo", {"text": large})).data == large
                    await client.call_tool("steps", {"n": 3}, progress_callback=progress)
                    assert steps == [0, 1, 2]
                    results = await asyncio.gather(
                        *(client.call_tool("echo", {"text": str(i)}) for i in range(30))
                    )
                    assert [result.data for result in results] == [str(i) for i in range(30)]
            assert app._serving is not None and not app._serving.endpoint.exchanges
        assert app._serving is None

    run(scenario())


def test_sessions_streams_and_what_is_refused() -> None:
    async def scenario() -> None:
        _, server = with_routes(frame_bytes_max=5_000)
        async with uvicorn_serving(server.asgi_app()) as port, await connect(port) as browser:
            id_ = await initialized(browser)
            async with await connect(port) as streaming:
                got = request("GET", "/mcp", Host="localhost", Accept="text/event-stream", Mcp_Session_Id=id_)
                streaming.write(got)
                assert (await streaming.head())[0] == 200
                assert (await streaming.chunk()).startswith(b"retry: 1000\nid: ")
                server.notify_list_changed("tools")
                event = await streaming.chunk()
                assert b"tools/list_changed" in event
            server.notify_list_changed("prompts")
            last = event.split(b"\n")[0].removeprefix(b"id: ").decode()
            async with await connect(port) as again:
                await asyncio.sleep(0.1)
                again.write(
                    request(
                        "GET",
                        "/mcp",
                        Host="localhost",
                        Accept="text/event-stream",
                        Mcp_Session_Id=id_,
                        Last_Event_ID=last,
                    )
                )
                assert (await again.head())[0] == 200
                assert b"prompts/list_changed" in await again.chunk()
            gone = await sent(browser, request("DELETE", "/mcp", Host="localhost", Mcp_Session_Id=id_))
            assert gone.status == 204
            assert (await browser.ask(rpc("ping"), Mcp_Session_Id=id_)).status == 404
            message, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            wrong = await browser.ask(message, **{**headers, "Mcp_Name": "other"})
            assert (wrong.status, wrong.code) == (400, -32020)
            assert (await browser.ask(message, **headers, Origin="http://evil.example")).status == 403
            assert (await browser.ask(message, **headers, Host="evil.example")).status == 421
            assert (await sent(browser, request("GET", "/nowhere", Host="localhost"))).status == 404
            got_health = await sent(browser, request("HEAD", "/health", Host="localhost"), head=True)
            assert (got_health.status, got_health.headers["content-length"]) == (200, "10")
            large = await browser.ask(rpc("tools/call", {"text": "x" * 6_000}))
            assert large.status == 413

    run(scenario())


def test_who_goes_away() -> None:
    async def scenario() -> None:
        tools, server = with_routes()
        waiting = {"name": "wait", "arguments": {"seconds": 0.2}}
        async with uvicorn_serving(server.asgi_app()) as port:
            async with await connect(port) as browser:
                message, headers = modern("tools/call", waiting)
                task = asyncio.create_task(browser.ask(message, **headers))
                await tools.started.wait()
                task.cancel()
            await until(lambda: tools.ended == ["cancelled"])  # 2026-07-28: with its client
            tools.started.clear()
            async with await connect(port) as browser:
                id_ = await initialized(browser)
                task = asyncio.create_task(browser.ask(rpc("tools/call", waiting), Mcp_Session_Id=id_))
                await tools.started.wait()
                task.cancel()
            await until(lambda: tools.ended == ["cancelled", "done"])  # before: without it

    run(scenario())


def test_websocket() -> None:
    async def scenario() -> None:
        tools, server = with_routes(frame_bytes_max=100_000)
        app = server.asgi_app()
        async with uvicorn_serving(app) as port:
            async with await connect(port) as browser:
                browser_socket = await upgraded(browser)
                assert (await browser_socket.ask(HELLO))["id"] == 1
                await opened(browser_socket)
                for i in range(300):
                    browser.write(frame(rpc("ping", id=i)))
                assert [(await browser_socket.message())["id"] for _ in range(300)] == list(range(300))
                browser.write(frame(rpc("tools/call", {"name": "wait", "arguments": {"seconds": 30}}, 2)))
                await tools.started.wait()
            await until(lambda: tools.ended == ["cancelled"])
            async with await connect(port) as browser:
                binary = await upgraded(browser)
                browser.write(frame(b"x", 2))
                assert await binary.closed() == 1003
            async with await connect(port) as browser:
                browser.write(
                    request(
                        "GET",
                        "/mcp",
                        Host="localhost",
                        Origin="http://evil.example",
                        Connection="Upgrade",
                        Upgrade="websocket",
                        Sec_WebSocket_Version="13",
                        Sec_WebSocket_Key="MDEyMzQ1Njc4OWFiY2RlZg==",
                    )
                )
                assert (await browser.head())[0] == 403
            assert app._serving is not None
            await until(lambda: app._serving is None or not app._serving.sockets)

    run(scenario())


@pytest.mark.parametrize("told", [True, False])
def test_mounted_in_starlette(told: bool) -> None:
    """Starlette does not tell a mounted application of its lifespan; `app.lifespan` can be handed to it."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, int]]:
        seen.append("entered")
        yield {"answer": 42}
        seen.append("left")

    async def scenario() -> None:
        server: MCPServer[Any] = MCPServer("mounted", version="1", lifespan=lifespan)

        @server.tool
        async def echo(text: str) -> str:
            return text

        mcp = server.asgi_app(path="/")
        routes = [Route("/", lambda _: PlainTextResponse("home")), Mount("/ai", mcp)]
        app = Starlette(routes=routes, lifespan=mcp.lifespan if told else None)
        async with uvicorn_serving(app) as port:
            assert seen == (["entered"] if told else [])
            async with Client(f"http://127.0.0.1:{port}/ai/") as client:
                assert (await client.call_tool("echo", {"text": "x"})).data == "x"
            async with await connect(port) as stream, await connect(port) as poster:
                stream.write(request("GET", "/ai/sse", Host="localhost", Accept="text/event-stream"))
                assert (await stream.head())[0] == 200
                where = (await stream.chunk()).decode().splitlines()[1].removeprefix("data: ")
                assert where.startswith("/ai/messages?sessionId=")
                old = OldClient(stream, poster)
                old.where = where
                assert (await old.say(rpc("ping"))).status == 202
                assert await old.hear() == {"jsonrpc": "2.0", "id": 1, "result": {}}
            assert seen == ["entered"]
            if not told:
                assert mcp._serving is not None
                await mcp._serving.stop()
        assert seen == ["entered", "left"]

    run(scenario())


def test_a_lifespan_that_fails_is_told() -> None:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    async def scenario() -> None:
        app = MCPServer("broken", version="1", lifespan=lifespan).asgi_app()
        events: list[Any] = []

        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            events.append(message)

        with pytest.raises(RuntimeError, match="no database"):
            await app({"type": "lifespan"}, receive, send)
        assert events == [{"type": "lifespan.startup.failed", "message": "RuntimeError: no database"}]
        for _ in range(2):  # and each request tries anew
            with pytest.raises(RuntimeError, match="no database"):
                await app({"type": "http"}, receive, send)

    run(scenario())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ssl_certfile": "x"}, TypeError),
        ({"port": 8000}, TypeError),
        ({"path": "mcp"}, ValueError),
        ({"session_mode": "x"}, ValueError),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Tools().server().asgi_app(**options)


# ---------------------------------------------------------------- processes of their own

APP = """
from mcpfast import Context, MCPServer
server = MCPServer("workers", version="1")

@server.tool
async def echo(text: str) -> str:
    return text

app = server.asgi_app(session_mode="sealed")
"""


@contextmanager
def worker(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    (folder / "workers.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "MCPFAST_STATE_KEYS": "k1:" + "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="}
    command = [sys.executable, "-m", "uvicorn", "workers:app", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


async def patiently(port: int) -> Browser:
    async with asyncio.timeout(20):
        while True:
            try:
                return await connect(port)
            except OSError:
                await asyncio.sleep(0.05)


def test_sealed_sessions_are_served_by_every_worker_and_streams_end_with_a_signal(tmp_path: Path) -> None:
    async def scenario() -> None:
        with worker(tmp_path) as (first_process, first), worker(tmp_path) as (_, second):
            async with await patiently(first) as here, await patiently(second) as there:
                id_ = await initialized(here)
                for browser in (there, here, there):
                    answer = await browser.ask(
                        rpc("tools/call", {"name": "echo", "arguments": {"text": "x"}}), Mcp_Session_Id=id_
                    )
                    assert answer.messages[0]["result"]["structuredContent"] == {"result": "x"}
                async with await connect(first) as streaming, await connect(first) as listening:
                    stream = request(
                        "GET", "/mcp", Host="localhost", Accept="text/event-stream", Mcp_Session_Id=id_
                    )
                    streaming.write(stream)
                    assert (await streaming.head())[0] == 200
                    params = {"notifications": {"toolsListChanged": True}}
                    message, headers = modern("subscriptions/listen", params)
                    body = json.dumps(message).encode()
                    kinds = {
                        "Content_Type": "application/json",
                        "Accept": "application/json, text/event-stream",
                    }
                    listening.write(request("POST", "/mcp", body, Host="localhost", **kinds, **headers))
                    assert (await listening.head())[0] == 200
                    first_process.send_signal(signal.SIGTERM)
                    # other servers hang here until somebody kills them
                    await asyncio.wait_for(asyncio.to_thread(first_process.wait), 5)
                    assert (await streaming.closed()).endswith(b"0\r\n\r\n")
                    assert b'"result"' in await listening.closed()

    run(scenario(), seconds=40)
