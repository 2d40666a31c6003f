"""The session eras (2024-11-05 to 2025-11-25): subscriptions, log levels, and requests of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPError, MCPServer
from tests.wire import LEGACY, Wire, connected, run

legacy_revisions = pytest.mark.parametrize("revision", LEGACY)
ABLE: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("legacy", version="1", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def slow(text: str, ms: int = 5) -> str:
        await asyncio.sleep(ms / 1000)
        return text

    @server.tool
    async def forever(text: str) -> str:
        await asyncio.sleep(1000)
        return text

    @server.tool
    async def logs(ctx: Context) -> str:
        for level in LEVELS:
            await ctx.log(level, level)
        await ctx.debug("d")
        await ctx.error({"e": [1, None]}, logger_name="named")
        return "logged"

    @server.tool
    async def roots(ctx: Context) -> str:
        return " ".join(root.uri for root in await ctx.list_roots())

    @server.tool
    async def sample(ctx: Context, text: str) -> str:
        return (await ctx.sample(text)).content.text

    @server.tool
    async def careful(ctx: Context) -> str:
        try:
            return str(await ctx.list_roots())
        except MCPError as error:
            return f"{error.code} {error.message} {error.data}"

    @server.tool
    async def progress(ctx: Context) -> str:
        await ctx.report_progress(1)
        return "done"

    @server.resource("x://fixed")
    async def fixed() -> str:
        return "x"

    @server.resource("x://of/{name}")
    async def named(name: str) -> str:
        return name

    return server


async def added() -> str:
    return "added"


def text_of(answer: dict[str, Any]) -> str:
    return answer["result"]["content"][0]["text"]


# ---------------------------------------------------------------------------------------------------- subscriptions, lists


@legacy_revisions
def test_subscriptions(revision: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire, connected(server, revision) as other:
            server.notify_resource_updated("x://fixed")
            await wire.settle()
            assert wire.others == []
            for uri in ("x://fixed", "x://fixed", "x://of/a"):
                assert await wire.request("resources/subscribe", {"uri": uri}) == {}
            for uri in ("x://fixed", "x://of/a", "x://of/b", "x://"):
                server.notify_resource_updated(uri)
            await wire.settle()
            assert [one["params"] for one in wire.others] == [{"uri": "x://fixed"}, {"uri": "x://of/a"}]
            wire.others.clear()
            for uri in ("x://fixed", "x://never"):
                assert await wire.request("resources/unsubscribe", {"uri": uri}) == {}
            server.notify_resource_updated("x://fixed")
            server.notify_resource_updated("x://of/a")
            await wire.settle()
            await other.settle()
            assert [one["params"] for one in wire.others] == [{"uri": "x://of/a"}]
            assert other.others == []  # another session subscribed to nothing

    run(scenario())


@legacy_revisions
def test_subscriptions_that_are_refused(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(limits=Limits(subscriptions_max=2)), revision) as wire:
            error = await wire.error("resources/subscribe", {"uri": "x://nothing"})
            assert error["code"] == -32002 and error["data"] == {"uri": "x://nothing"}
            for params in ({}, {"uri": 5}):
                for method in ("resources/subscribe", "resources/unsubscribe"):
                    assert (await wire.error(method, params))["code"] == -32602
            for uri in ("x://of/1", "x://of/2", "x://of/1"):
                await wire.request("resources/subscribe", {"uri": uri})
            assert (
                not -32768 <= (await wire.error("resources/subscribe", {"uri": "x://of/3"}))["code"] <= -32000
            )
            await wire.request("resources/unsubscribe", {"uri": "x://of/1"})
            await wire.request("resources/subscribe", {"uri": "x://of/3"})

    run(scenario())


@legacy_revisions
def test_list_changed(revision: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire:
            for change, kind in (
                (lambda: server.add_tool(added), "tools"),
                (lambda: server.add_prompt(added), "prompts"),
                (lambda: server.add_resource("a://b", added), "resources"),
                (lambda: server.remove_resource("a://b"), "resources"),
                (lambda: server.remove_prompt("added"), "prompts"),
                (lambda: server.remove_tool("added"), "tools"),
            ):
                change()
                await wire.settle()
                assert [one["method"] for one in wire.others] == [f"notifications/{kind}/list_changed"]
                wire.others.clear()
            for n in range(20):
                server.add_tool(added, name=f"t{n}")
            await wire.settle()
            assert len(wire.others) == 1  # several changes, told once
            listed = (await wire.request("tools/list"))["tools"]
            assert {f"t{n}" for n in range(20)} <= {tool["name"] for tool in listed}

    run(scenario())


# ---------------------------------------------------------------------------------------------------- log levels


@legacy_revisions
def test_log_levels(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            await wire.call("logs")
            assert [one["params"]["level"] for one in wire.others] == [*LEVELS, "debug", "error"]
            assert wire.others[-1]["params"] == {
                "level": "error",
                "data": {"e": [1, None]},
                "logger": "named",
            }
            for at, level in enumerate(LEVELS):
                wire.others.clear()
                assert await wire.request("logging/setLevel", {"level": level}) == {}
                await wire.call("logs")
                got = [one["params"]["level"] for one in wire.others]
                assert got[: 8 - at] == LEVELS[at:]
                assert len(got) == 8 - at + (at <= 0) + (at <= 4)
            for params in ({"level": "loud"}, {"level": "Debug"}, {"level": 5}, {"level": None}, {}):
                assert (await wire.error("logging/setLevel", params))["code"] == -32602
            wire.others.clear()
            await wire.call("logs")
            assert [one["params"]["level"] for one in wire.others] == [
                "emergency"
            ]  # what was refused changed nothing

    run(scenario())


def test_the_log_level_is_the_sessions_own() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server) as one, connected(server) as two:
            await one.request("logging/setLevel", {"level": "emergency"})
            await two.call("logs")
            await one.call("logs")
            assert len(one.others) == 1 and len(two.others) == 10

    run(scenario())


# ---------------------------------------------------------------------------------------------------- requests of the server


async def question(wire: Wire) -> dict[str, Any]:
    while True:
        for one in wire.others:
            if "id" in one:
                wire.others.remove(one)
                return one
        await wire.take()


@legacy_revisions
@pytest.mark.parametrize("warm", [True, False])
def test_a_question_and_its_answer(revision: str, warm: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=ABLE, warm=warm) as wire:
            call = wire.message("tools/call", {"name": "roots"})
            wire.send(call)
            asked = await question(wire)
            assert asked["method"] == "roots/list"
            assert text_of(await wire.ask("tools/call", {"name": "echo", "arguments": {"text": "x"}})) == "x"
            wire.reply(
                asked, {"roots": [{"uri": "file:///a"}, {"uri": "file:///b", "name": "B", "_meta": {}}]}
            )
            assert text_of(await wire.answer(call["id"])) == "file:///a file:///b"
            wire.reply(asked, {"roots": []})  # twice: nobody waits any more
            wire.reply({"id": 1}, {"roots": []})
            await wire.settle()

    run(scenario())


@legacy_revisions
def test_answers_in_any_order(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=ABLE) as wire:
            calls = [
                wire.message("tools/call", {"name": "sample", "arguments": {"text": f"{n}"}})
                for n in range(30)
            ]
            wire.send(*calls)
            asked = [await question(wire) for _ in calls]
            assert len({one["id"] for one in asked}) == 30
            for one in reversed(asked):
                said = one["params"]["messages"][0]["content"]["text"]
                wire.reply(
                    one,
                    {"role": "assistant", "content": {"type": "text", "text": f"re {said}"}, "model": "m"},
                )
            for n, call in enumerate(calls):
                assert text_of(await wire.answer(call["id"])) == f"re {n}"

    run(scenario())


@legacy_revisions
@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"code": -1, "message": "User rejected"}, "-1 User rejected None"),
        ({"code": -32601, "message": "no roots", "data": {"reason": "x"}}, "-32601 no roots {'reason': 'x'}"),
        ({"code": "x", "message": "y"}, "-32603 The client's response is malformed None"),
        ({}, "-32603 The client's response is malformed None"),
        ([], "-32603 The client's response is malformed None"),
    ],
)
def test_a_client_that_answers_with_an_error(revision: str, error: Any, text: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=ABLE) as wire:
            call = wire.message("tools/call", {"name": "careful"})
            wire.send(call)
            wire.reply(await question(wire), error=error)
            assert text_of(await wire.answer(call["id"])) == text
            uncaught = wire.message("tools/call", {"name": "roots"})
            wire.send(uncaught)
            wire.reply(await question(wire), error=error)
            assert (await wire.answer(uncaught["id"]))["error"]["code"] == int(text.split(maxsplit=1)[0])

    run(scenario())


@legacy_revisions
@pytest.mark.parametrize(
    "result", [{}, {"roots": None}, {"roots": [{"name": "x"}]}, [], "x", 5, None, {"roots": {}}]
)
def test_an_answer_that_does_not_fit_is_the_tools_error(revision: str, result: Any) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=ABLE) as wire:
            call = wire.message("tools/call", {"name": "roots"})
            wire.send(call)
            wire.reply(await question(wire), result)
            answer = (await wire.answer(call["id"]))["result"]
            assert answer["isError"] and "client" in answer["content"][0]["text"]

    run(scenario())


@legacy_revisions
def test_a_client_that_does_not_answer_in_time(revision: str) -> None:
    async def scenario() -> None:
        async with connected(
            make_server(limits=Limits(question_s=0.03)), revision, capabilities=ABLE
        ) as wire:
            call = wire.message("tools/call", {"name": "careful"})
            wire.send(call)
            asked = await question(wire)
            cancelled = await wire.other("notifications/cancelled")
            assert cancelled["params"]["requestId"] == asked["id"] and cancelled["params"]["reason"]
            assert "0.03 s" in text_of(await wire.answer(call["id"]))
            wire.reply(asked, {"roots": []})  # too late, and nobody minds
            await wire.settle()

    run(scenario())


@legacy_revisions
@pytest.mark.parametrize("warm", [True, False])
def test_a_call_cancelled_while_it_asks(revision: str, warm: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=ABLE, warm=warm) as wire:
            call = wire.message("tools/call", {"name": "roots"})
            wire.send(call)
            asked = await question(wire)
            wire.cancel(call["id"])
            cancelled = await wire.other("notifications/cancelled")
            assert cancelled["params"]["requestId"] == asked["id"]
            wire.reply(asked, {"roots": []})
            await wire.settle()
            assert call["id"] not in wire.answers
            wire.sent.clear()

    run(scenario())


@legacy_revisions
def test_gather_that_fails_takes_its_other_questions_back(revision: str) -> None:
    server = make_server()

    @server.tool
    async def both(ctx: Context) -> str:
        try:
            await ctx.gather(ctx.list_roots(), ctx.sample("x"))
        except MCPError as error:
            return f"{error.code}"
        return "no error"

    async def scenario() -> None:
        async with connected(server, revision, capabilities=ABLE) as wire:
            call = wire.message("tools/call", {"name": "both"})
            wire.send(call)
            one, two = await question(wire), await question(wire)
            wire.reply(one, error={"code": -1, "message": "no"})
            cancelled = await wire.other("notifications/cancelled")
            assert cancelled["params"]["requestId"] == two["id"]
            assert text_of(await wire.answer(call["id"])) == "-1"

    run(scenario())


@legacy_revisions
def test_questions_are_bounded(revision: str) -> None:
    async def scenario() -> None:
        async with connected(
            make_server(limits=Limits(questions_max=2)), revision, capabilities=ABLE
        ) as wire:
            calls = [wire.message("tools/call", {"name": "careful"}) for _ in range(3)]
            wire.send(*calls)
            assert "limits.questions_max" in text_of(await wire.answer(calls[2]["id"]))
            for _ in range(2):
                wire.reply(await question(wire), {"roots": []})
            for call in calls[:2]:
                assert text_of(await wire.answer(call["id"])) == "[]"
            again = wire.message("tools/call", {"name": "careful"})
            wire.send(again)
            wire.reply(await question(wire), {"roots": []})
            assert text_of(await wire.answer(again["id"])) == "[]"

    run(scenario())


@legacy_revisions
def test_a_client_that_goes_away_while_it_is_asked(revision: str) -> None:
    ended: list[str] = []
    server = make_server()

    @server.tool
    async def asks(ctx: Context) -> str:
        try:
            await ctx.list_roots()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise
        return "no"

    async def scenario() -> None:
        async with connected(server, revision, open_session=False) as wire:
            await wire.initialize(ABLE)
            wire.send(wire.message("tools/call", {"name": "asks"}))
            await question(wire)
        for _ in range(100):
            if ended:
                break
            await asyncio.sleep(0.005)
        assert len(ended) == 1 and ended[0] in ("ConnectionClosed", "CancelledError")

    run(scenario())
