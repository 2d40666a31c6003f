"""Streams of subscriptions/listen (2026-07-28, section 15)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPServer
from mcpfast.transports import memory
from tests.test_modern import make_server
from tests.wire import MODERN, SUBSCRIPTION_ID, Wire, connected, run


async def listen(wire: Wire, id: Any, **filter: Any) -> dict[str, Any]:
    """Opens a stream; what was acknowledged."""
    wire.send(wire.message("subscriptions/listen", {"notifications": filter}, id=id))
    note = await wire.other("notifications/subscriptions/acknowledged")
    assert note["params"]["_meta"] == {SUBSCRIPTION_ID: id}
    return note["params"]["notifications"]


def told(wire: Wire) -> list[tuple[Any, str, Any]]:
    """What listen streams told since the last time: (stream, what, uri)."""
    found = [
        (
            one["params"]["_meta"][SUBSCRIPTION_ID],
            one["method"].removeprefix("notifications/"),
            one["params"].get("uri"),
        )
        for one in wire.others
    ]
    wire.others.clear()
    return found


async def added() -> str:
    return "added"


async def change_everything(server: MCPServer[Any], wire: Wire) -> None:
    server.add_tool(added)
    server.add_prompt(added)
    server.add_resource("added://x", added)
    server.notify_resource_updated("x://fixed")
    server.notify_resource_updated("x://of/a")
    await wire.settle()


@pytest.mark.parametrize("id", [1000, "s1", "", 'é"', 0, -5])
@pytest.mark.parametrize("warm", [True, False])
def test_a_stream_tells_what_was_asked_for_and_nothing_else(id: Any, warm: bool) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN, warm=warm) as wire:
            await change_everything(server, wire)
            assert wire.others == []  # nobody listens
            assert await listen(wire, id, toolsListChanged=True, resourceSubscriptions=["x://fixed"]) == {
                "toolsListChanged": True,
                "resourceSubscriptions": ["x://fixed"],
            }
            server.remove_tool("added")
            server.remove_prompt("added")
            server.remove_resource("added://x")
            await change_everything(server, wire)
            got = told(wire)
            assert got.count((id, "tools/list_changed", None)) >= 1
            assert set(got) == {(id, "tools/list_changed", None), (id, "resources/updated", "x://fixed")}

    run(scenario())


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"toolsListChanged": True}, ["tools/list_changed"]),
        ({"promptsListChanged": True}, ["prompts/list_changed"]),
        ({"resourcesListChanged": True}, ["resources/list_changed"]),
        ({"toolsListChanged": False, "promptsListChanged": True}, ["prompts/list_changed"]),
        ({"resourceSubscriptions": ["x://of/a", "x://fixed"]}, ["resources/updated", "resources/updated"]),
        ({"resourceSubscriptions": ["x://of/a", "x://of/a"]}, ["resources/updated"]),
        ({"resourceSubscriptions": ["x://of"]}, []),
        ({"resourceSubscriptions": []}, []),
        ({}, []),
        ({"unheardOf": True, "toolsListChanged": True}, ["tools/list_changed"]),
    ],
)
def test_filters(filter: dict[str, Any], expected: list[str]) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN) as wire:
            accepted = await listen(wire, "s", **filter)
            assert set(accepted) <= set(filter) and "unheardOf" not in accepted
            assert all(accepted.values())
            await change_everything(server, wire)
            assert sorted(what for _, what, _ in told(wire)) == expected

    run(scenario())


def test_streams_side_by_side_each_get_their_copy() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN) as one, connected(server, MODERN) as two:
            for wire in (one, two):
                await listen(wire, "same", toolsListChanged=True)  # ids are a connection's own
                await listen(wire, 1000, toolsListChanged=True, promptsListChanged=True)
                await listen(wire, "1000", promptsListChanged=True)
            server.add_tool(added)
            for wire in (one, two):
                await wire.settle()
                assert sorted(told(wire), key=str) == [
                    ("same", "tools/list_changed", None),
                    (1000, "tools/list_changed", None),
                ]
            one.cancel(1000)
            await one.settle()
            server.add_prompt(added)
            for wire in (one, two):
                await wire.settle()
            assert told(one) == [("1000", "prompts/list_changed", None)]
            assert {id for id, _, _ in told(two)} == {1000, "1000"}

    run(scenario())


def test_several_changes_at_once_are_told_once() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN) as wire:
            await listen(wire, "s", toolsListChanged=True)
            for n in range(50):
                server.add_tool(added, name=f"added{n}")
            await wire.settle()
            assert told(wire) == [("s", "tools/list_changed", None)]
            server.remove_tool("added7")
            await wire.settle()
            assert told(wire) == [("s", "tools/list_changed", None)]

    run(scenario())


def test_changes_may_come_from_another_thread_and_from_a_handler() -> None:
    async def scenario() -> None:
        server = make_server()

        @server.tool
        async def grow(ctx: Context) -> str:
            server.add_tool(added, name="grown")
            await ctx.session.send_resource_updated("x://fixed")
            await ctx.session.send_prompt_list_changed()
            return "grown"

        async with connected(server, MODERN) as wire:
            await listen(
                wire, "s", toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=["x://fixed"]
            )
            await asyncio.to_thread(server.add_tool, added)
            await wire.settle()
            assert told(wire) == [("s", "tools/list_changed", None)]
            await wire.call("grow")
            await wire.settle()
            assert sorted(what for _, what, _ in told(wire)) == [
                "prompts/list_changed",
                "resources/updated",
                "tools/list_changed",
            ]

    run(scenario())


def test_a_cancelled_stream_says_nothing_more() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN) as wire:
            await listen(wire, "s", toolsListChanged=True)
            wire.cancel("s")
            await wire.settle()
            server.add_tool(added)
            await wire.settle()
            assert wire.others == [] and "s" not in wire.answers
            del wire.sent[str, "s"]
            await listen(wire, "s", toolsListChanged=True)  # the id is free again
            server.remove_tool("added")
            await wire.settle()
            assert told(wire) == [("s", "tools/list_changed", None)]

    run(scenario())


def test_a_server_that_ends_answers_its_streams() -> None:
    async def scenario() -> None:
        server = make_server()
        async with memory.connect(server) as (reader, writer):
            wire = Wire(reader, writer, MODERN)
            await listen(wire, "s", toolsListChanged=True)
            await listen(wire, 7)
            writer.write_eof()  # the end of the connection begins, gracefully
            for id in ("s", 7):
                result = (await wire.answer(id))["result"]
                assert result["resultType"] == "complete" and result["_meta"][SUBSCRIPTION_ID] == id
            assert await reader.read() == b""

    run(scenario())


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": None},
        {"notifications": []},
        {"notifications": {"toolsListChanged": "yes"}},
        {"notifications": {"resourceSubscriptions": "x://fixed"}},
        {"notifications": {"resourceSubscriptions": [5]}},
    ],
)
def test_listen_params_that_are_malformed(params: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            assert (await wire.error("subscriptions/listen", params))["code"] == -32602
            assert wire.others == []

    run(scenario())


def test_streams_are_bounded() -> None:
    async def scenario() -> None:
        async with connected(make_server(limits=Limits(subscriptions_max=3)), MODERN) as wire:
            for n in range(3):
                await listen(wire, f"s{n}")
            assert (
                not -32768
                <= (await wire.error("subscriptions/listen", {"notifications": {}}))["code"]
                <= -32000
            )
            wire.cancel("s1")
            await wire.settle()
            await listen(wire, "s4")
            too_many = {"notifications": {"resourceSubscriptions": [f"x://of/{n}" for n in range(4)]}}
            assert not -32768 <= (await wire.error("subscriptions/listen", too_many))["code"] <= -32000

    run(scenario())


def test_no_progress_and_no_logs_on_a_stream() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, MODERN) as wire:
            sent = wire.message(
                "subscriptions/listen", {"notifications": {}}, id="s", progressToken="p", logLevel="debug"
            )
            wire.send(sent)
            await wire.other("notifications/subscriptions/acknowledged")
            await wire.call("logs")
            await change_everything(server, wire)
            assert wire.others == []

    run(scenario())


def test_a_stream_is_acknowledged_before_anything_else_in_the_same_write() -> None:
    async def scenario() -> None:
        server = make_server()

        @server.tool(inline=True)
        def grow() -> str:
            server.add_tool(added)
            return "grown"

        async with connected(server, MODERN) as wire:
            wire.send(
                wire.message("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="s"),
                wire.message("tools/call", {"name": "grow"}),
            )
            await wire.other("notifications/subscriptions/acknowledged")
            await wire.other("notifications/tools/list_changed")

    run(scenario())
