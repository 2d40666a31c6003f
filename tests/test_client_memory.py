"""`Client(server)`: how users test their servers, on both loops and in both eras."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mcpfast import Client, Context, MCPError, MCPServer, Tenancy
from mcpfast.errors import AddressError, ConnectionClosed
from mcpfast.tenancy import Claim, Evidence, MemoryStore, Principal, TenantRecord, new_key


class Form(msgspec.Struct):
    n: int


def make_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("memory", version="1")

    @server.tool
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    async def ask(ctx: Context[Any]) -> str:
        answer = await ctx.elicit("How many?", Form)
        return f"{answer.action} {getattr(answer, 'data', None)}"

    @server.tool
    async def steps(ctx: Context[Any]) -> str:
        await ctx.report_progress(1, 2)
        await ctx.report_progress(2, 2)
        return "done"

    @server.tool
    async def broken() -> str:
        raise ZeroDivisionError("the handler's own trouble")

    return server


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a test on either loop; no task and no descriptor may be left."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else None

    async def held(coroutine: Any) -> None:
        async with Client(make_server()):
            pass  # a loop keeps a descriptor or two from its first connection on
        before = len(os.listdir("/proc/self/fd"))
        async with asyncio.timeout(15):
            await coroutine
        await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) == before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run(coroutine: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(held(coroutine))

    return run


@pytest.mark.parametrize(
    ("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25"), ("2024-11-05", "2024-11-05")]
)
def test_in_memory(run: Callable[[Any], None], mode: str, version: str) -> None:
    async def test() -> None:
        told: list[Any] = []
        async with Client(
            make_server(), mode=mode, timeout_s=5, elicitation_callback=lambda *_: {"n": 4}
        ) as client:
            assert client.protocol_version == version
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "add",
                "ask",
                "steps",
                "broken",
            ]
            result = await client.call_tool("add", {"a": 1, "b": 2})
            assert result.text == "3"
            assert result.data == (None if version == "2024-11-05" else 3)
            if version != "2024-11-05":
                assert (await client.call_tool("ask")).text == "accept Form(n=4)"
            await client.call_tool("steps", progress_callback=lambda *progress: told.append(progress))
            assert told == [(1, 2, None), (2, 2, None)]
            hidden = await client.call_tool("broken")
            assert hidden.is_error
            assert "trouble" not in hidden.text
        with pytest.raises(RuntimeError, match="not connected"):
            await client.call_tool("add", {"a": 1, "b": 2})

    run(test())


def test_raise_exceptions_shows_what_went_wrong(run: Callable[[Any], None]) -> None:
    async def test() -> None:
        async with Client(make_server(), raise_exceptions=True) as client:
            shown = await client.call_tool("broken")
            assert shown.is_error
            assert "the handler's own trouble" in shown.text

    run(test())


def test_several_clients_of_one_server(run: Callable[[Any], None]) -> None:
    async def test() -> None:
        server = make_server()
        async with Client(server) as one, Client(server, mode="legacy") as two:
            results = await asyncio.gather(
                *(client.call_tool("add", {"a": i, "b": i}) for i in range(20) for client in (one, two))
            )
            assert [result.data for result in results] == [2 * i for i in range(20) for _ in (one, two)]

    run(test())


def test_leaving_with_a_call_in_flight(run: Callable[[Any], None]) -> None:
    async def test() -> None:
        server = make_server()

        @server.tool
        async def forever() -> str:
            await asyncio.sleep(60)
            return "never"

        async with Client(server) as client:
            waiting = asyncio.create_task(client.call_tool("forever"))
            await asyncio.sleep(0.02)
        with pytest.raises(ConnectionClosed, match="The client was closed"):
            await waiting

    run(test())


def test_whose_a_client_is(run: Callable[[Any], None], caplog: pytest.LogCaptureFixture) -> None:
    """Of several tenants in one test: what a client shows counts, and not how the process was started."""

    class Badge:
        async def resolve(self, evidence: Evidence) -> Claim | None:
            badge = evidence.header("x-badge")
            return None if badge is None else Claim(Principal(badge, issuer="badge"), tenant="globex")

    made = new_key("acme", "amy", now_s=0)
    store = MemoryStore([TenantRecord("acme"), TenantRecord("globex")], keys=[made.record])
    server: MCPServer[Any] = MCPServer("shared", tenancy=Tenancy(store, resolvers=[Badge()]))

    @server.tool
    async def who(ctx: Context[Any]) -> str:
        return f"{ctx.principal.id} of {ctx.tenant.id}"

    @server.tool
    async def fails() -> str:
        raise RuntimeError

    async def later() -> str:
        return f"Bearer {made.key}"

    async def test() -> None:
        for authorization in (f"Bearer {made.key}", lambda: f"Bearer {made.key}", later):
            async with Client(server, authorization=authorization) as client:
                assert (await client.call_tool("who")).text == "amy of acme"
        async with Client(server, headers={"X-Badge": "gus"}) as client:
            assert (await client.call_tool("who")).text == "gus of globex"
            assert (await client.call_tool("fails")).is_error
        assert [one.getMessage().partition(" in ")[2] for one in caplog.records] == [
            "fails, called by 'gus' of globex"
        ]
        assert server.tenancy is not None
        server.tenancy.tenant = "acme"
        async with Client(server) as client:
            assert (await client.call_tool("who")).text == "acme of acme"
        with pytest.raises(MCPError, match="not valid"):  # what it shows is bad, and nothing makes up for it
            async with Client(server, authorization="Bearer mcpf_no") as client:
                await client.call_tool("who")
        with pytest.raises(AddressError, match="has no tenants"):
            async with Client(make_server(), headers={}):
                pass

    run(test())
