"""Nothing is asked that the client did not declare, or that its revision does not have (sections 25 to 27)."""

from __future__ import annotations

from typing import Any

import pytest

from mcpfast import Context, MCPServer
from tests.asking import (
    Person,
    all_revisions,
    eliciting,
    make_server,
    modern,
    play,
    play_tool,
    scenario_of,
)
from tests.wire import MODERN, Wire


def capability_server() -> MCPServer[Any]:
    server = make_server()

    @server.tool
    async def form(ctx: Context) -> str:
        return (await ctx.elicit("?", Person)).action

    @server.tool
    async def url(ctx: Context) -> str:
        return (await ctx.elicit_url("Pay", "https://pay.example/1")).action

    @server.tool
    async def sample(ctx: Context) -> str:
        return (await ctx.sample("x")).content.text

    @server.tool
    async def sample_tools(ctx: Context) -> str:
        tool = {"name": "t", "inputSchema": {"type": "object"}}
        return (await ctx.sample("x", tools=[tool], tool_choice={"mode": "auto"})).content.text

    @server.tool
    async def roots(ctx: Context) -> str:
        return str(len(await ctx.list_roots()))

    return server


# tool, capabilities, what is required of a modern client (None: it is able)
CAPABILITIES = [
    ("form", {}, {"elicitation": {}}),
    ("form", {"elicitation": {}}, None),
    ("form", {"elicitation": {"form": {}}}, None),
    ("form", {"elicitation": {"url": {}}}, {"elicitation": {}}),
    ("url", {}, {"elicitation": {"url": {}}}),
    ("url", {"elicitation": {}}, {"elicitation": {"url": {}}}),
    ("url", {"elicitation": {"form": {}}}, {"elicitation": {"url": {}}}),
    ("url", {"elicitation": {"url": {}}}, None),
    ("sample", {}, {"sampling": {}}),
    ("sample", {"elicitation": {}, "roots": {}}, {"sampling": {}}),
    ("sample", {"sampling": {}}, None),
    ("sample_tools", {"sampling": {}}, {"sampling": {"tools": {}}}),
    ("sample_tools", {"sampling": {"tools": {}}}, None),
    ("roots", {"sampling": {}}, {"roots": {}}),
    ("roots", {"roots": {}}, None),
]
# What a question needs beside the client's word: the first revision that has it.
SINCE = {"form": "2025-06-18", "url": "2025-11-25", "sample_tools": "2025-11-25"}


@all_revisions
@pytest.mark.parametrize(("tool", "capabilities", "required"), CAPABILITIES)
def test_nothing_is_asked_that_the_client_did_not_declare(
    revision: str, tool: str, capabilities: dict[str, Any], required: Any
) -> None:
    able = required is None and revision >= SINCE.get(tool, "")

    async def act(wire: Wire) -> None:
        message, rounds = await play(wire, "tools/call", {"name": tool, "arguments": {}})
        assert len(rounds) == (1 if able else 0)
        if able:
            assert not message["result"].get("isError")
        elif revision == MODERN:
            assert message["error"]["code"] == -32021
            assert message["error"]["data"] == {"requiredCapabilities": required}
        else:
            assert message["result"]["isError"]
            assert "does not support" in message["result"]["content"][0]["text"]

    scenario_of(capability_server(), revision, act, capabilities=capabilities)


def test_capabilities_are_those_of_this_very_request() -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("choose")
        wire.capabilities = {}
        assert (await wire.error("tools/call", {"name": "choose"}))["code"] == -32021
        params = {"name": "choose", "arguments": {}, "requestState": first["requestState"]}
        assert (await wire.error("tools/call", params))["code"] == -32021

    modern(act)


def test_one_question_too_much_in_a_round_refuses_the_round() -> None:
    async def act(wire: Wire) -> None:
        error = await wire.error("tools/call", {"name": "all_at_once"})
        assert error["code"] == -32021 and error["data"] == {"requiredCapabilities": {"roots": {}}}

    modern(act, capabilities={"elicitation": {}})


@pytest.mark.parametrize("revision", ["2025-11-25", MODERN])
def test_a_url_elicitation(revision: str) -> None:
    server = capability_server()

    @server.tool
    async def pay(ctx: Context) -> str:
        answer = await ctx.elicit_url("Pay", "https://pay.example/1", "e-1")
        await ctx.session.send_elicit_complete("e-1")
        return answer.action

    async def act(wire: Wire) -> None:
        text, rounds = await play_tool(wire, "pay")
        params = rounds[0][0][1]
        assert text == "accept"
        expected = {"mode": "url", "message": "Pay", "url": "https://pay.example/1"}
        assert params == (expected if revision == MODERN else {**expected, "elicitationId": "e-1"})
        done = [one for one in wire.others if one["method"] == "notifications/elicitation/complete"]
        assert [one["params"] for one in done] == ([] if revision == MODERN else [{"elicitationId": "e-1"}])
        _, rounds = await play_tool(wire, "url")  # an id of its own, the same in every run of the handler
        assert ("elicitationId" in rounds[0][0][1]) is (revision != MODERN)

    scenario_of(server, revision, act)


@eliciting
def test_a_handler_may_do_without(revision: str) -> None:
    server = make_server()

    @server.tool
    async def polite(ctx: Context) -> str:
        if "elicitation" not in ctx.client_capabilities:
            return "never mind"
        return (await ctx.elicit("?", Person)).data.name

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "polite"))[0] == "never mind"

    scenario_of(server, revision, act, capabilities={})
