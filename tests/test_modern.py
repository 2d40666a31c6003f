"""The stateless era (2026-07-28): discovery, the envelope, listen streams, caching, log levels; beside a legacy session."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpfast import CacheHint, Context, Limits, MCPServer
from mcpfast.transports import memory
from tests.wire import META, MODERN, SUBSCRIPTION_ID, Wire, connected, run

VERSION, CAPABILITIES, INFO, LEVEL = (
    META + name for name in ("protocolVersion", "clientCapabilities", "clientInfo", "logLevel")
)


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("modern", version="1", instructions="Be brief.", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def slow(text: str) -> str:
        await asyncio.sleep(0.005)
        return text

    @server.tool
    async def forever(text: str) -> str:
        await asyncio.sleep(1000)
        return text

    @server.tool
    async def logs(ctx: Context, wait: bool = False) -> str:
        for level in ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"):
            await ctx.log(level, {"at": level}, logger="mine")
            if wait:
                await asyncio.sleep(0)
        return "logged"

    @server.resource("x://fixed")
    async def fixed(ctx: Context) -> str:
        await ctx.info("reading")
        return "fixed"

    @server.resource("x://of/{name}")
    async def named(name: str) -> str:
        return name

    @server.prompt
    async def prompt(ctx: Context) -> str:
        await ctx.warning("prompting")
        return "prompt"

    @server.completion
    async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        return ["a"]

    return server


REQUESTS: dict[str, dict[str, Any]] = {
    "server/discover": {},
    "tools/list": {},
    "tools/call": {"name": "echo", "arguments": {"text": "x"}},
    "resources/list": {},
    "resources/templates/list": {},
    "resources/read": {"uri": "x://fixed"},
    "prompts/list": {},
    "prompts/get": {"name": "prompt"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "prompt"}, "argument": {"name": "x", "value": ""}},
    "subscriptions/listen": {"notifications": {}},
}
every_method = pytest.mark.parametrize("method", REQUESTS)


# ---------------------------------------------------------------------------------------------------- discovery, envelope


def test_discover() -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            result = await wire.request("server/discover")
            assert result == {
                "resultType": "complete",
                "supportedVersions": [MODERN],
                "capabilities": {
                    "tools": {"listChanged": True},
                    "resources": {"subscribe": True, "listChanged": True},
                    "prompts": {"listChanged": True},
                    "logging": {},
                    "completions": {},
                },
                "instructions": "Be brief.",
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {META + "serverInfo": {"name": "modern", "version": "1"}},
            }

    run(scenario())


def with_meta(method: str, meta: Any) -> dict[str, Any]:
    params = {**REQUESTS[method], "_meta": meta}
    if meta is ...:
        del params["_meta"]
    return {"jsonrpc": "2.0", "id": "e", "method": method, "params": params}


@every_method
@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({VERSION: MODERN}, -32602),
        ({VERSION: MODERN, CAPABILITIES: None}, -32602),
        ({VERSION: MODERN, CAPABILITIES: [], "progressToken": 1}, -32602),
        ({VERSION: "v999.0.0", CAPABILITIES: {}}, -32022),
        ({VERSION: "2025-11-25", CAPABILITIES: {}}, -32022),
        ({VERSION: 20260728, CAPABILITIES: {}}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, LEVEL: "loud"}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, LEVEL: None}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, INFO: []}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, "progressToken": {}}, -32602),
    ],
)
@pytest.mark.parametrize("session", [True, False])
def test_every_method_reads_its_envelope(method: str, meta: Any, code: int, session: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=session) as wire:
            wire.send(with_meta(method, meta))
            error = (await wire.answer("e"))["error"]
            assert error["code"] == code
            if code == -32022:
                assert error["data"] == {"supported": [MODERN], "requested": meta[VERSION]}

    run(scenario())


@every_method
def test_every_method_without_its_envelope(method: str) -> None:
    """No session either: what only the modern era has says which member is missing, the rest asks for `initialize`."""

    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            for meta in (..., {}, {"progressToken": 1}, {CAPABILITIES: {}}):
                wire.send(with_meta(method, meta))
                error = (await wire.answer("e"))["error"]
                assert error["code"] == (-32602 if method in ("server/discover", "subscriptions/listen") else -32600)
                wire.answers.clear()

    run(scenario())


@every_method
def test_every_method_needs_nothing_before_it(method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            sent = wire.message(method, REQUESTS[method])
            del sent["params"]["_meta"][CAPABILITIES]
            sent["params"]["_meta"] |= {CAPABILITIES: {"x": {}}, INFO: {"name": "n", "version": "1"}, "a.b/c": [1], "traceparent": 5}
            wire.send(sent)
            if method == "subscriptions/listen":
                await wire.other("notifications/subscriptions/acknowledged")
            else:
                assert "result" in await wire.answer(sent["id"])

    run(scenario())


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "unknown/method"])
@pytest.mark.parametrize("session", [True, False])
def test_legacy_methods_with_an_envelope(method: str, session: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=session) as wire:
            wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": "e",
                    "method": method,
                    "params": {"uri": "x://fixed", "level": "info", "_meta": {VERSION: MODERN, CAPABILITIES: {}}},
                }
            )
            assert (await wire.answer("e"))["error"]["code"] == -32601

    run(scenario())


# ---------------------------------------------------------------------------------------------------- caching hints


def test_caching_hints_are_private_and_stale_at_once_unless_said() -> None:
    async def scenario() -> None:
        hints = {
            "tools/list": CacheHint(60_000, "public"),
            "resources/read": CacheHint(5),
            "server/discover": CacheHint(0, "public"),
        }
        async with connected(make_server(cache_hints=hints, limits=Limits(page_items=1)), MODERN) as wire:
            for method in ("tools/list", "resources/read", "server/discover", "prompts/list", "resources/list"):
                result = await wire.request(method, REQUESTS[method])
                expected = hints.get(method, CacheHint())
                assert (result["ttlMs"], result["cacheScope"]) == (expected.ttl_ms, expected.scope)
            cursor = (await wire.request("tools/list"))["nextCursor"]
            assert (await wire.request("tools/list", {"cursor": cursor}))["cacheScope"] == "public"  # the same on all pages

    run(scenario())


@pytest.mark.parametrize("hint", [CacheHint(-1), CacheHint(0, "shared"), CacheHint(0, "")])
def test_hints_that_make_no_sense(hint: CacheHint) -> None:
    with pytest.raises(ValueError, match="CacheHint"):
        make_server(cache_hints={"tools/list": hint})


# ---------------------------------------------------------------------------------------------------- log levels


@pytest.mark.parametrize("wait", [True, False])
def test_logs_come_for_the_request_that_asked_and_at_its_level(wait: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            arguments = {"name": "logs", "arguments": {"wait": wait}}
            for level, count in (("debug", 8), ("warning", 5), ("emergency", 1)):
                wire.others.clear()
                await wire.request("tools/call", arguments, logLevel=level)
                assert len(wire.others) == count
                assert wire.others[0]["params"] == {"level": level, "logger": "mine", "data": {"at": level}}
            wire.others.clear()
            await wire.request("tools/call", arguments)
            assert wire.others == []
            await wire.request("resources/read", {"uri": "x://fixed"}, logLevel="info")
            await wire.request("prompts/get", {"name": "prompt"}, logLevel="info")
            assert [one["params"]["data"] for one in wire.others] == ["reading", "prompting"]

    run(scenario())


def test_an_unknown_level_in_a_handler_is_its_error() -> None:
    server = make_server()

    @server.tool
    async def wrong(ctx: Context) -> str:
        try:
            await ctx.log("loud", "x")
        except ValueError as error:
            return str(error)
        return "no error"

    async def scenario() -> None:
        async with connected(server, MODERN) as wire:
            assert "'loud'" in (await wire.call("wrong"))["content"][0]["text"]

    run(scenario())


# ---------------------------------------------------------------------------------------------------- listen streams


async def listen(wire: Wire, id: Any, **filter: Any) -> dict[str, Any]:
    """Opens a stream; what was acknowledged."""
    wire.send(wire.message("subscriptions/listen", {"notifications": filter}, id=id))
    note = await wire.other("notifications/subscriptions/acknowledged")
    assert note["params"]["_meta"] == {SUBSCRIPTION_ID: id}
    return note["params"]["notifications"]


def told(wire: Wire) -> list[tuple[Any, str, Any]]:
    """What listen streams told since the last time: (stream, what, uri)."""
    found = [
        (one["params"]["_meta"][SUBSCRIPTION_ID], one["method"].removeprefix("notifications/"), one["params"].get("uri"))
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


@pytest.mark.parametrize("id", [1000, "s1", "", "é\"", 0, -5])
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
                assert sorted(told(wire), key=str) == [("same", "tools/list_changed", None), (1000, "tools/list_changed", None)]
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
            await listen(wire, "s", toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=["x://fixed"])
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
            assert not -32768 <= (await wire.error("subscriptions/listen", {"notifications": {}}))["code"] <= -32000
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
            sent = wire.message("subscriptions/listen", {"notifications": {}}, id="s", progressToken="p", logLevel="debug")
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


# ---------------------------------------------------------------------------------------------------- both eras at once


def test_both_eras_on_one_connection() -> None:
    """Each request is what its own reserved key says, whatever came before (section 7)."""

    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-06-18", open_session=False) as wire:
            legacy = {"jsonrpc": "2.0", "method": "tools/call", "params": REQUESTS["tools/call"]}
            modern = with_meta("tools/call", {VERSION: MODERN, CAPABILITIES: {}})
            for round in range(2):  # before and after the session is made
                wire.send({**modern, "id": f"m{round}"}, {**legacy, "id": f"l{round}"}, {**modern, "id": f"n{round}"})
                first, second = await wire.answer(f"m{round}"), await wire.answer(f"n{round}")
                assert first["result"] == second["result"]
                assert first["result"]["resultType"] == "complete"
                answer = await wire.answer(f"l{round}")
                if round == 0:
                    assert answer["error"]["code"] == -32600
                    await wire.initialize()
                else:
                    assert "resultType" not in answer["result"] and answer["result"]["structuredContent"] == {"result": "x"}
            wire.send({**legacy, "id": 500, "params": {"name": "slow", "arguments": {"text": "l"}}})
            wire.send({**modern, "id": "500", "params": {**modern["params"], "name": "slow", "arguments": {"text": "m"}}})
            assert "resultType" not in (await wire.answer(500))["result"]
            assert (await wire.answer("500"))["result"]["resultType"] == "complete"

    run(scenario())


def test_discover_does_not_pin_the_connection() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=False) as wire:
            for version in ("v999.0.0", MODERN):
                wire.send(with_meta("server/discover", {VERSION: version, CAPABILITIES: {}}))
                await wire.answer("e")
                wire.answers.clear()
            assert (await wire.initialize())["protocolVersion"] == "2025-11-25"
            assert (await wire.call("echo", {"text": "x"}))["content"]

    run(scenario())


def test_a_change_is_told_to_the_session_and_to_its_streams() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-11-25") as wire:
            wire.revision = MODERN
            await listen(wire, "s", toolsListChanged=True, resourceSubscriptions=["x://fixed"])
            wire.revision = "2025-11-25"
            await wire.request("resources/subscribe", {"uri": "x://fixed"})
            server.add_tool(added)
            server.notify_resource_updated("x://fixed")
            await wire.settle()
            tagged = ["_meta" in one.get("params", {}) for one in wire.others]
            methods = [one["method"].removeprefix("notifications/") for one in wire.others]
            assert sorted(zip(methods, tagged, strict=True)) == [
                ("resources/updated", False),
                ("resources/updated", True),
                ("tools/list_changed", False),
                ("tools/list_changed", True),
            ]

    run(scenario())


@pytest.mark.parametrize("era", ["2025-11-25", MODERN])
def test_a_bare_cancellation_finds_the_request_of_either_era(era: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-11-25") as wire:
            wire.revision = era
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="f"))
            if era == MODERN:
                await listen(wire, "s")
            await wire.settle()
            wire.revision = "2025-11-25"
            (session,) = server._serving[0].sessions
            assert session.channel.calls == (2 if era == MODERN else 1)
            wire.cancel("f")
            wire.notify("notifications/cancelled", {"requestId": "s", "_meta": {VERSION: MODERN, CAPABILITIES: {}}})
            await wire.settle()
            assert session.channel.calls == 0
            assert not {"f", "s"} & set(wire.answers)

    run(scenario())


def test_an_id_in_flight_is_one_for_both_eras() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25") as wire:
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="same"))
            wire.revision = MODERN
            wire.send(wire.message("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id="same"))
            line = json.loads(await wire.reader.readline())
            assert line["id"] == "same" and line["error"]["code"] == -32600
            wire.revision = "2025-11-25"
            wire.sent[str, "same"].pop()
            wire.cancel("same")

    run(scenario())


def test_ids_may_be_used_again_at_once() -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            for tool in ("echo", "slow") * 3:
                wire.answers.pop("id", None)
                sent = wire.message("tools/call", {"name": tool, "arguments": {"text": tool}}, id="id")
                wire.send(sent)
                assert (await wire.answer("id"))["result"]["structuredContent"] == {"result": tool}

    run(scenario())


def test_a_modern_request_leaves_nothing_behind() -> None:
    """Capabilities, log level and client of one request are not those of the next (M4, M7)."""
    seen: list[Any] = []

    async def scenario() -> None:
        server = make_server()

        @server.tool
        async def who(ctx: Context) -> str:
            seen.append((ctx.client_capabilities, ctx.client_info))
            await ctx.log("emergency", "x")
            return "x"

        async with connected(server, MODERN) as wire:
            wire.capabilities = {"sampling": {}}
            sent = wire.message("tools/call", {"name": "who"}, logLevel="debug", **{INFO: {"name": "n", "version": "1"}})
            wire.send(sent)
            await wire.answer(sent["id"])
            assert len(wire.others) == 1
            wire.capabilities = {}
            await wire.call("who")
            assert len(wire.others) == 1
            assert seen == [({"sampling": {}}, {"name": "n", "version": "1"}), ({}, None)]

    run(scenario())
