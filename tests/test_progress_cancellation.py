"""What a call says while it runs, and how it is called off (sections 20 and 21)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from mcpfast import Context, MCPServer
from tests.test_tools import make_server, text_of
from tests.wire import MODERN, REVISIONS, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)

# ---------------------------------------------------------------------------------------------------- progress


def progress_server() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("progress")

    @server.tool
    async def steps(n: int, ctx: Context) -> str:
        for step in range(n):
            await ctx.report_progress(step + 0.5, n, f"step {step}")
            if step == 1:
                await asyncio.sleep(0)
        return "done"

    @server.tool
    async def odd(ctx: Context) -> str:
        for value in (1, 1, 0.5, float("nan"), float("inf"), 2, -1, 3):
            await ctx.report_progress(value)
        return "done"

    @server.tool
    def blocking(ctx: Context) -> str:
        ctx.wait(ctx.report_progress(1, 2))
        return "done"

    @server.tool
    async def late(ctx: Context) -> str:
        async def after() -> None:
            await asyncio.sleep(0.01)
            await ctx.report_progress(1)
            await ctx.log("emergency", "late")

        LATE.append(asyncio.create_task(after()))
        return "done"

    return server


LATE: list[asyncio.Task[None]] = []


@all_revisions
@pytest.mark.parametrize("token", ["t", "", 'é"\\', 0, 7, -1, 2**60])
@pytest.mark.parametrize("warm", [True, False])
def test_progress(revision: str, token: Any, warm: bool) -> None:
    async def scenario() -> None:
        async with connected(progress_server(), revision, warm=warm) as wire:
            assert text_of(await wire.call("steps", {"n": 3}, progressToken=token)) == "done"
            assert [one["method"] for one in wire.others] == ["notifications/progress"] * 3
            for step, one in enumerate(wire.others):
                expected = {"progressToken": token, "progress": step + 0.5, "total": 3}
                if revision != "2024-11-05":
                    expected["message"] = f"step {step}"
                assert one["params"] == expected and type(one["params"]["progressToken"]) is type(token)
            wire.others.clear()
            assert text_of(await wire.call("steps", {"n": 3})) == "done"
            assert wire.others == []  # nobody asked

    run(scenario())


@all_revisions
def test_progress_grows_and_is_a_number(revision: str) -> None:
    async def scenario() -> None:
        async with connected(progress_server(), revision) as wire:
            await wire.call("odd", progressToken=1)
            assert [one["params"]["progress"] for one in wire.others] == [1, 2, 3]

    run(scenario())


@all_revisions
def test_progress_from_a_thread(revision: str) -> None:
    async def scenario() -> None:
        async with connected(progress_server(), revision) as wire:
            await wire.call("blocking", progressToken=1)
            assert [one["params"] for one in wire.others] == [{"progressToken": 1, "progress": 1, "total": 2}]

    run(scenario())


@all_revisions
def test_nothing_is_said_for_a_call_that_is_over(revision: str) -> None:
    async def scenario() -> None:
        async with connected(progress_server(), revision) as wire:
            extra = {"logLevel": "debug"} if revision == MODERN else {}
            await wire.call("late", progressToken=1, **extra)
            await LATE.pop()
            await wire.settle()
            assert wire.others == []

    run(scenario())


@all_revisions
@pytest.mark.parametrize("token", [1.5, None, True, {}, [1]])
@pytest.mark.parametrize("tool", ["steps", "odd"])
def test_progress_tokens_that_are_none(revision: str, token: Any, tool: str) -> None:
    """A token is a string or an integer in every revision."""

    async def scenario() -> None:
        async with connected(progress_server(), revision) as wire:
            sent = wire.message(
                "tools/call", {"name": tool, "arguments": {"n": 1} if tool == "steps" else {}}
            )
            sent["params"].setdefault("_meta", {})["progressToken"] = token
            wire.send(sent)
            if token is None and revision != MODERN:  # clients that write all members of an object exist
                assert "result" in await wire.answer(sent["id"])
            else:
                assert (await wire.answer(sent["id"]))["error"]["code"] == -32602
            assert wire.others == []

    run(scenario())


@all_revisions
def test_progress_of_calls_side_by_side(revision: str) -> None:
    async def scenario() -> None:
        async with connected(progress_server(), revision) as wire:
            calls = [
                wire.message("tools/call", {"name": "steps", "arguments": {"n": 3}}, progressToken=f"t{n}")
                for n in range(9)
            ]
            wire.send(*calls)
            for call in calls:
                await wire.answer(call["id"])
            for n in range(9):
                own = [
                    one["params"]["progress"]
                    for one in wire.others
                    if one["params"]["progressToken"] == f"t{n}"
                ]
                assert own == [0.5, 1.5, 2.5]

    run(scenario())


# ---------------------------------------------------------------------------------------------------- cancellation


def cancel_server(told: list[str], started: threading.Event | None = None) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("cancel")
    started = started or threading.Event()

    @server.tool
    async def forever(ctx: Context) -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            told.append(f"cancelled {ctx.cancelled}")
            await ctx.report_progress(2)
            await ctx.log("emergency", "x")
            raise
        return "no"

    @server.tool
    async def stubborn(ctx: Context) -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        told.append("went on")
        return "finished all the same"

    @server.tool
    async def fails(ctx: Context) -> str:
        try:
            await asyncio.sleep(1000)
        finally:
            told.append("failed")
            raise ValueError("in the clean-up")

    @server.tool
    def thread(ctx: Context) -> str:
        started.set()
        while not ctx.cancelled:
            time.sleep(0.001)
        told.append("thread saw it")
        return "no"

    @server.resource("wait://x")
    async def resource(ctx: Context) -> str:
        return await forever(ctx)

    @server.prompt
    async def prompt(ctx: Context) -> str:
        return await forever(ctx)

    return server


@all_revisions
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        ("tools/call", {"name": "forever"}, "cancelled True"),
        ("tools/call", {"name": "stubborn"}, "went on"),
        ("tools/call", {"name": "fails"}, "failed"),
        ("tools/call", {"name": "thread"}, "thread saw it"),
        ("resources/read", {"uri": "wait://x"}, "cancelled True"),
        ("prompts/get", {"name": "prompt"}, "cancelled True"),
    ],
)
def test_a_cancelled_call_is_told_and_not_answered(
    revision: str, warm: bool, method: str, params: dict[str, Any], says: str
) -> None:
    told: list[str] = []
    started = threading.Event()

    async def scenario() -> None:
        async with connected(cancel_server(told, started), revision, warm=warm) as wire:
            extra = {"logLevel": "debug"} if revision == MODERN else {}
            sent = wire.message(method, params, id="it", progressToken="p", **extra)
            wire.send(sent)
            await wire.settle()
            if says.startswith("thread"):  # one that waits for a thread still would never begin
                assert await asyncio.to_thread(started.wait, 5)
            wire.notify("notifications/cancelled", {"requestId": "it", "reason": "no more", "_meta": {}})
            wire.cancel("it")  # twice is once
            for _ in range(200):
                if told:
                    break
                await asyncio.sleep(0.005)
            await wire.settle()
            assert told == [says] and "it" not in wire.answers and wire.others == []
            wire.sent.clear()
            again = wire.message(method, params, id="it")  # the id is free again
            wire.send(again)
            await wire.settle()
            assert "it" not in wire.answers
            wire.cancel("it")
            await wire.settle()

    run(scenario())


@all_revisions
def test_an_id_is_cancelled_by_its_value_and_its_type(revision: str) -> None:
    told: list[str] = []

    async def scenario() -> None:
        async with connected(cancel_server(told), revision) as wire:
            for id in (1000, "1000", "é", 2**60):
                wire.send(wire.message("tools/call", {"name": "forever"}, id=id))
            await wire.settle()
            for wrong in ("1", 1000.5, True, None, ["1000"], "É"):
                wire.cancel(wrong)
            await wire.settle()
            assert told == []
            wire.cancel("1000")
            wire.send(
                b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\\u00e9"}}'
            )
            wire.cancel(2**60)
            await wire.settle()
            assert len(told) == 3
            wire.cancel(1000)
            await wire.settle()
            assert len(told) == 4

    run(scenario())


@all_revisions
def test_a_cancellation_that_comes_too_late(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            sent = wire.message("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            wire.send(
                sent,
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": sent["id"]}},
            )
            assert text_of((await wire.answer(sent["id"]))["result"]) == "x"
            assert text_of(await wire.call("echo", {"text": "y"})) == "y"

    run(scenario())


@all_revisions
def test_what_is_in_flight_ends_with_the_connection(revision: str) -> None:
    told: list[str] = []

    async def scenario() -> None:
        server = cancel_server(told)
        async with connected(server, revision, open_session=False) as wire:
            await wire.initialize()
            wire.send(*[wire.message("tools/call", {"name": "forever"}) for _ in range(3)])
            await wire.settle()
        for _ in range(100):
            if len(told) == 3:
                break
            await asyncio.sleep(0.005)
        assert told == ["cancelled True"] * 3

    run(scenario())
