"""Rounds of the modern era: keys, replay, sealed states and who may use them (section 27)."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from mcpfast import Context, KeyRing, Limits, MCPServer
from tests.asking import (
    MODERN_EVERYTHING,
    Person,
    Size,
    accept,
    eliciting,
    make_server,
    modern,
    ordering_server,
    play,
    play_tool,
    scenario_of,
)
from tests.wire import LEGACY, MODERN, Wire, connected, run


def test_keys_are_given_or_by_order() -> None:
    server = make_server()

    @server.tool
    async def keyed(ctx: Context) -> str:
        await ctx.elicit("1", Size)
        await ctx.elicit("2", Size, key="mine")
        await ctx.elicit("3", Size)
        return "done"

    async def act(wire: Wire) -> None:
        keys: list[str] = []
        extra: dict[str, Any] = {}
        while "inputRequests" in (result := await wire.request("tools/call", {"name": "keyed", **extra})):
            (key,) = result["inputRequests"]
            keys.append(key)
            extra = {"requestState": result["requestState"], "inputResponses": {key: accept(size=1)}}
        assert keys == ["q1", "mine", "q3"]

    modern(act, server)


@eliciting
def test_a_key_asked_twice_is_an_error_of_the_handler(revision: str) -> None:
    server = make_server()

    @server.tool
    async def twice(ctx: Context) -> str:
        await ctx.elicit("1", Size, key="same")
        await ctx.elicit("2", Size, key="same")
        return "done"

    async def act(wire: Wire) -> None:
        message, rounds = await play(wire, "tools/call", {"name": "twice"})
        assert message["result"]["isError"] and "'same'" in message["result"]["content"][0]["text"]
        assert len(rounds) == 1

    scenario_of(server, revision, act)


def test_a_replay_that_asks_something_else_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    server = make_server()
    numbers = iter(range(100))

    @server.tool
    async def fickle(ctx: Context) -> str:
        await ctx.elicit(f"question {next(numbers)}", Size)
        return "done"

    @server.prompt
    async def fickle_prompt(ctx: Context) -> str:
        await ctx.elicit(f"question {next(numbers)}", Size)
        return "done"

    async def act(wire: Wire) -> None:
        message, _ = await play(wire, "tools/call", {"name": "fickle"})
        assert message["result"]["isError"]
        assert "asked something else" in message["result"]["content"][0]["text"]
        message, _ = await play(wire, "prompts/get", {"name": "fickle_prompt"})
        assert message["error"]["code"] == -32603 and "asked something else" in message["error"]["message"]

    modern(act, server)
    assert "ReplayMismatch" in caplog.text


def test_what_is_missing_is_asked_again_and_what_is_too_much_is_ignored() -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("all_at_once")
        assert set(first["inputRequests"]) == {"person", "size", "q3"}
        second = await wire.request(
            "tools/call",
            {
                "name": "all_at_once",
                "arguments": {},
                "requestState": first["requestState"],
                "inputResponses": {"size": accept(size=9), "unheard of": {"x": 1}, "q7": accept(name="no")},
            },
        )
        assert set(second["inputRequests"]) == {"person", "q3"}
        assert second["inputRequests"]["person"] == first["inputRequests"]["person"]
        third = await wire.request(
            "tools/call",
            {
                "name": "all_at_once",
                "arguments": {},
                "requestState": second["requestState"],
                "inputResponses": {"q3": {"roots": []}, "person": accept(name="Bob"), "size": accept(size=1)},
            },
        )
        assert third["content"][0]["text"] == "Bob 9 0"  # the first answer to "size" stands

    modern(act)


def test_a_retry_without_answers_is_asked_again() -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("choose")
        for extra in ({}, {"inputResponses": {}}):
            params = {"name": "choose", "arguments": {}, "requestState": first["requestState"], **extra}
            again = await wire.request("tools/call", params)
            assert again["inputRequests"] == first["inputRequests"]
        answered = {"requestState": again["requestState"], "inputResponses": {"q1": accept(name="x")}}
        assert (await wire.request("tools/call", {"name": "choose", **answered}))["content"][0]["text"] == "x"

    modern(act)


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "accept", "content": {"size": "many"}},
        {"action": "accept"},
        {"action": "perhaps"},
        {},
        accept(other=1),
    ],
)
def test_an_answer_that_does_not_fit_is_asked_again(answer: dict[str, Any]) -> None:
    server = make_server()

    @server.tool
    async def size(ctx: Context) -> str:
        return str((await ctx.elicit("size?", Size)).data.size)

    async def act(wire: Wire) -> None:
        given = iter([answer, answer, accept(size=4)])
        text, rounds = await play_tool(wire, "size", lambda *_: next(given))
        assert text == "4" and len(rounds) == 3

    modern(act, server)


@pytest.mark.parametrize(
    "responses", [[], "x", 5, None, {"q1": 5}, {"q1": None}, {"q1": []}, {"q1": "accept"}]
)
def test_malformed_input_responses(responses: Any) -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("choose")
        for extra in ({"requestState": first["requestState"]}, {}):
            params = {"name": "choose", "arguments": {}, "inputResponses": responses, **extra}
            assert (await wire.error("tools/call", params))["code"] == -32602
        good = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="y")}}
        assert (await wire.request("tools/call", {"name": "choose", **good}))["content"][0]["text"] == "y"

    modern(act)


def spoiled(token: str) -> list[Any]:
    """Everything that a state must not survive."""
    middle = len(token) // 2
    other = "A" if token[middle] != "A" else "B"
    last = "A" if token[-1] != "A" else "Q"
    return [
        token[:middle] + other + token[middle + 1 :],
        token[:-1] + last,
        token[:-1],
        token + "A",
        token[1:],
        token.swapcase(),
        f" {token}",
        token.replace(".", ""),
        "",
        "x",
        "é",
        "v1.k.AAAA",
        5,
        None,
        {},
        [token],
    ]


def test_a_tampered_state_is_refused_with_one_sentence() -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("choose")
        said = set()
        for state in spoiled(first["requestState"]):
            assert state != first["requestState"]
            params = {
                "name": "choose",
                "arguments": {},
                "requestState": state,
                "inputResponses": {"q1": accept(name="x")},
            }
            error = await wire.error("tools/call", params)
            assert error["code"] == -32602, state
            if isinstance(state, str):
                said.add(error["message"])
        assert len(said) == 1, said  # who tampers learns nothing

    modern(act)


def test_every_character_of_a_state_counts() -> None:
    async def act(wire: Wire) -> None:
        token = (await wire.call("choose"))["requestState"]
        for at in range(0, len(token), 3):
            changed = token[:at] + ("B" if token[at] != "B" else "C") + token[at + 1 :]
            params = {"name": "choose", "arguments": {}, "requestState": changed}
            assert (await wire.error("tools/call", params))["code"] == -32602, at

    modern(act)


def foreign_server() -> MCPServer[Any]:
    server = make_server()

    @server.tool
    async def same(ctx: Context, a: Any = None, b: Any = None) -> str:
        return (await ctx.elicit("Which?", Person)).data.name

    @server.tool
    async def another(ctx: Context, a: Any = None, b: Any = None) -> str:
        return (await ctx.elicit("Which?", Person)).data.name

    @server.prompt(name="same")
    async def same_prompt(ctx: Context) -> str:
        return (await ctx.elicit("Which?", Person)).data.name

    @server.resource("same://{x}")
    async def resource(x: str, ctx: Context) -> str:
        return (await ctx.elicit("Which?", Person)).data.name

    return server


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "another", "arguments": {"a": 1, "b": [1, 2]}}),
        ("tools/call", {"name": "same", "arguments": {"a": 1, "b": [2, 1]}}),
        ("tools/call", {"name": "same", "arguments": {"a": 1, "b": [1, 2.5]}}),
        ("tools/call", {"name": "same", "arguments": {"a": "1", "b": [1, 2]}}),
        ("tools/call", {"name": "same", "arguments": {"a": True, "b": [1, 2]}}),
        ("tools/call", {"name": "same", "arguments": {"a": 1}}),
        ("tools/call", {"name": "same"}),
        ("prompts/get", {"name": "same"}),
        ("resources/read", {"uri": "same://x"}),
    ],
)
def test_a_state_is_good_for_its_own_call_alone(method: str, params: dict[str, Any]) -> None:
    async def act(wire: Wire) -> None:
        own = {"name": "same", "arguments": {"a": 1, "b": [1, 2]}}
        first = await wire.request("tools/call", own)
        extra = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="x")}}
        assert (await wire.error(method, {**params, **extra}))["code"] == -32602
        respelled = {"name": "same", "arguments": {"b": [1, 2], "a": 1}}  # the same value, another text
        assert (await wire.request("tools/call", {**respelled, **extra}))["content"][0]["text"] == "x"

    modern(act, foreign_server())


def test_a_state_of_a_tool_is_no_state_of_its_namesakes() -> None:
    async def act(wire: Wire) -> None:
        for method, other in (("tools/call", "prompts/get"), ("prompts/get", "tools/call")):
            first = await wire.request(method, {"name": "same"})
            extra = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="x")}}
            assert (await wire.error(other, {"name": "same", **extra}))["code"] == -32602
            assert (await wire.request(method, {"name": "same", **extra}))["resultType"] == "complete"

    modern(act, foreign_server())


def test_a_state_expires() -> None:
    async def act(wire: Wire) -> None:
        first = await wire.call("choose")
        await asyncio.sleep(0.06)
        params = {"name": "choose", "arguments": {}, "requestState": first["requestState"]}
        late = await wire.error("tools/call", {**params, "inputResponses": {"q1": accept(name="x")}})
        assert late["code"] == -32602
        tampered = await wire.error("tools/call", {**params, "requestState": "x"})
        assert tampered == late

    modern(act, make_server(limits=Limits(sealed_state_s=0.05)))


def test_a_state_says_nothing_to_who_carries_it() -> None:
    server = make_server()

    @server.tool
    async def secret(ctx: Context) -> str:
        await ctx.once("k", lambda: "the-server's-secret")
        await ctx.elicit("1", Person)
        await ctx.elicit("2", Person)
        return "done"

    async def act(wire: Wire) -> None:
        first = await wire.call("secret")
        answers = {
            "requestState": first["requestState"],
            "inputResponses": {"q1": accept(name="users-answer")},
        }
        second = await wire.request("tools/call", {"name": "secret", "arguments": {}, **answers})
        for token in (first["requestState"], second["requestState"]):
            seen = token.encode() + base64.urlsafe_b64decode(token.rpartition(".")[2] + "===")
            assert b"secret" not in seen and b"users-answer" not in seen and b"asked" not in seen
        assert first["requestState"] != second["requestState"]

    modern(act, server)


def test_workers_with_the_same_keys_take_over_each_others_calls() -> None:
    ring = KeyRing.generate()
    placed: list[str] = []

    async def scenario() -> None:
        async with (
            connected(
                ordering_server(placed, state_keys=ring), MODERN, capabilities=MODERN_EVERYTHING
            ) as one,
            connected(
                ordering_server(placed, state_keys=ring), MODERN, capabilities=MODERN_EVERYTHING
            ) as two,
            connected(ordering_server(placed), MODERN, capabilities=MODERN_EVERYTHING) as stranger,
        ):
            first = await one.call("order", {"what": "tea"})
            extra = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="Bob")}}
            params = {"name": "order", "arguments": {"what": "tea"}, **extra}
            assert (await stranger.error("tools/call", params))["code"] == -32602
            assert placed == ["tea"]
            assert (await two.request("tools/call", params))["content"][0]["text"] == "1 billed"
            assert placed == ["tea", "bill for Bob"]

    run(scenario())


def test_a_server_of_another_name_is_a_stranger_despite_the_same_keys() -> None:
    ring = KeyRing.generate()

    def named(name: str) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer(name, state_keys=ring)

        @server.tool
        async def choose(ctx: Context) -> str:
            return (await ctx.elicit("Which?", Person)).data.name

        return server

    async def scenario() -> None:
        async with (
            connected(named("a"), MODERN, capabilities=MODERN_EVERYTHING) as one,
            connected(named("b"), MODERN, capabilities=MODERN_EVERYTHING) as two,
        ):
            first = await one.call("choose")
            params = {"name": "choose", "arguments": {}, "requestState": first["requestState"]}
            assert (await two.error("tools/call", params))["code"] == -32602

    run(scenario())


def test_keys_are_rotated_without_losing_calls() -> None:
    old, new = ("old", b"o" * 32), ("new", b"n" * 32)

    async def scenario() -> None:
        async with (
            connected(
                make_server(state_keys=KeyRing([old])), MODERN, capabilities=MODERN_EVERYTHING
            ) as before,
            connected(
                make_server(state_keys=KeyRing([new, old])), MODERN, capabilities=MODERN_EVERYTHING
            ) as after,
        ):
            first = await before.call("choose")
            extra = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="x")}}
            result = await after.request("tools/call", {"name": "choose", "arguments": {}, **extra})
            assert result["content"][0]["text"] == "x"

    run(scenario())


def test_answers_may_come_before_they_are_asked_for() -> None:
    """A client that knows a server's keys needs one round less; without a state there is nothing to verify."""

    async def act(wire: Wire) -> None:
        params = {"name": "choose", "arguments": {}, "inputResponses": {"q1": accept(name="early")}}
        assert (await wire.request("tools/call", params))["content"][0]["text"] == "early"

    modern(act)


@pytest.mark.parametrize("revision", LEGACY)
def test_legacy_clients_cannot_send_answers_of_the_modern_era(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("s")

    @server.tool
    async def echo(text: str) -> str:
        return text

    async def act(wire: Wire) -> None:
        params = {"name": "echo", "arguments": {"text": "x"}, "requestState": "forged", "inputResponses": 5}
        assert (await wire.request("tools/call", params))["content"][0]["text"] == "x"

    scenario_of(server, revision, act)


def test_a_result_of_once_that_is_too_large_to_seal_is_an_incident_not_a_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_server()

    @server.tool
    async def large(ctx: Context) -> str:
        await ctx.once("large", lambda: "x" * (2 << 20))
        await ctx.elicit("?", Person)
        return "done"

    async def act(wire: Wire) -> None:
        result = await wire.call("large")
        assert result["isError"] and "Incident" in result["content"][0]["text"]
        assert (await play_tool(wire, "choose"))[0] == "Ada"

    modern(act, server)
    assert "sealed" in caplog.text


def test_questions_leave_the_wire_as_json_once_only() -> None:
    """An embedded request has neither an id nor a version of its own."""

    async def act(wire: Wire) -> None:
        await wire.call("choose")
        (question,) = json.loads(wire.lines[-1])["result"]["inputRequests"].values()
        assert question.keys() == {"method", "params"}

    modern(act)
