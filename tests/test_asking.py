"""One handler, both eras: what it asks reaches the client and comes back, by a request on the wire or by rounds of retries."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mcpfast import Context, KeyRing, Limits, MCPError, MCPServer
from tests.wire import LEGACY, MODERN, REVISIONS, Wire, connected, run

# Who can be asked what: forms came with 2025-06-18, URLs with 2025-11-25.
ELICITING = ("2025-06-18", "2025-11-25", MODERN)
EVERYTHING: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": True},
}
MODERN_EVERYTHING = {**EVERYTHING, "roots": {}}
all_revisions = pytest.mark.parametrize("revision", REVISIONS)
eliciting = pytest.mark.parametrize("revision", ELICITING)
Answer = Callable[[str, dict[str, Any]], Any]


class Person(msgspec.Struct):
    name: str


class Size(msgspec.Struct):
    size: int


def accept(**content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}


def sampled(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": {"type": "text", "text": text}, "model": "m"}


def obliging(method: str, params: dict[str, Any]) -> Any:
    """A client that answers everything."""
    if method == "elicitation/create":
        if "url" in params:
            return {"action": "accept"}
        names = params["requestedSchema"]["properties"]
        return accept(**{name: 3 if schema["type"] == "integer" else "Ada" for name, schema in names.items()})
    if method == "sampling/createMessage":
        return sampled(f"to: {params['messages'][0]['content']['text']}")
    return {"roots": [{"uri": "file:///home/ada", "name": "home"}]}


async def play(
    wire: Wire, method: str, params: dict[str, Any], answer: Answer = obliging
) -> tuple[dict[str, Any], list[list[tuple[str, dict[str, Any]]]]]:
    """A whole call with its questions answered; gives its answer, and what was asked, round by round."""
    rounds: list[list[tuple[str, dict[str, Any]]]] = []
    if wire.revision == MODERN:
        extra: dict[str, Any] = {}
        while True:
            message = await wire.ask(method, {**params, **extra})
            result = message.get("result", {})
            if result.get("resultType") != "input_required":
                return message, rounds
            asked = result["inputRequests"]
            rounds.append([(one["method"], one.get("params", {})) for one in asked.values()])
            extra = {"inputResponses": {k: answer(one["method"], one.get("params", {})) for k, one in asked.items()}}
            extra["requestState"] = result["requestState"]
    sent = wire.message(method, params)
    wire.send(sent)
    while sent["id"] not in wire.answers:
        await wire.take()
        questions = [one for one in wire.others if "id" in one]
        for question in questions:
            wire.others.remove(question)
            wire.reply(question, answer(question["method"], question.get("params", {})))
        if questions:
            rounds.append([(one["method"], one.get("params", {})) for one in questions])
    return wire.answers[sent["id"]], rounds


async def play_tool(wire: Wire, name: str, answer: Answer = obliging, **arguments: Any) -> tuple[str, Any]:
    """The text of the result, and the rounds."""
    message, rounds = await play(wire, "tools/call", {"name": name, "arguments": arguments}, answer)
    assert "result" in message, message
    return message["result"]["content"][0]["text"], rounds


def declared(revision: str) -> dict[str, Any]:
    return MODERN_EVERYTHING if revision == MODERN else EVERYTHING


def scenario_of(server: MCPServer[Any], revision: str, act: Callable[[Wire], Any], **options: Any) -> Any:
    async def scenario() -> Any:
        options.setdefault("capabilities", declared(revision))
        async with connected(server, revision, **options) as wire:
            return await act(wire)

    return run(scenario())


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("asking", version="1", **options)

    @server.tool
    async def interview(ctx: Context, title: str) -> str:
        person = await ctx.elicit(f"{title}: who?", Person)
        poem = await ctx.sample(f"a poem for {person.data.name}", max_tokens=7)
        roots = await ctx.list_roots()
        return f"{person.action} {person.data.name}, {poem.content.text}, {roots[0].uri}"

    @server.tool
    async def sample_and_roots(ctx: Context) -> str:
        poem = await ctx.sample("hello", system_prompt="be kind", temperature=0.5)
        roots = await ctx.list_roots()
        return f"{poem.model}: {poem.content.text}, {len(roots)}"

    @server.tool
    async def choose(ctx: Context) -> str:
        answer = await ctx.elicit("Which?", Person)
        return answer.action if answer.action != "accept" else answer.data.name

    @server.tool
    async def all_at_once(ctx: Context) -> str:
        person, size, roots = await ctx.gather(
            ctx.elicit("who?", Person, key="person"), ctx.elicit("size?", Size, key="size"), ctx.list_roots()
        )
        return f"{person.data.name} {size.data.size} {len(roots)}"

    return server


# ---------------------------------------------------------------------------------------------------- the same for all


@eliciting
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "own"])
def test_one_handler_asks_three_things(revision: str, warm: bool) -> None:
    async def act(wire: Wire) -> None:
        for _ in range(2):
            text, rounds = await play_tool(wire, "interview", title="Dear")
            assert text == "accept Ada, to: a poem for Ada, file:///home/ada"
            assert [[method for method, _ in one] for one in rounds] == [
                ["elicitation/create"],
                ["sampling/createMessage"],
                ["roots/list"],
            ]
            form = rounds[0][0][1]
            assert form["message"] == "Dear: who?"
            assert form["requestedSchema"]["properties"].keys() == {"name"}
            assert form["requestedSchema"]["required"] == ["name"]
            assert form.get("mode") == (None if revision == "2025-06-18" else "form")
            assert rounds[1][0][1]["maxTokens"] == 7

    scenario_of(make_server(), revision, act, warm=warm)


@all_revisions
def test_sampling_and_roots_in_every_revision(revision: str) -> None:
    async def act(wire: Wire) -> None:
        text, rounds = await play_tool(wire, "sample_and_roots")
        assert text == "m: to: hello, 1"
        assert rounds[0][0][1] == {
            "messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}],
            "maxTokens": 512,
            "systemPrompt": "be kind",
            "temperature": 0.5,
        }

    scenario_of(make_server(), revision, act)


@eliciting
@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_a_user_may_say_no(revision: str, action: str) -> None:
    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "choose", lambda *_: {"action": action}))[0] == action

    scenario_of(make_server(), revision, act)


@eliciting
def test_gather_asks_in_one_round(revision: str) -> None:
    async def act(wire: Wire) -> None:
        if revision == MODERN:
            text, rounds = await play_tool(wire, "all_at_once")
            assert [len(one) for one in rounds] == [3]
            first = await wire.call("all_at_once")
            assert list(first["inputRequests"]) == ["person", "size", "q3"]
        else:
            call = wire.message("tools/call", {"name": "all_at_once", "arguments": {}})
            wire.send(call)
            questions = [await wire.receive() for _ in range(3)]  # all three, before any of them is answered
            assert len({one["id"] for one in questions}) == 3
            for one in reversed(questions):  # in any order
                wire.reply(one, obliging(one["method"], one.get("params", {})))
            text = (await wire.answer(call["id"]))["result"]["content"][0]["text"]
        assert text == "Ada 3 1"

    scenario_of(make_server(), revision, act)


@eliciting
def test_gather_takes_questions_only(revision: str) -> None:
    server = make_server()

    @server.tool
    async def wrong(ctx: Context) -> str:
        try:
            await ctx.gather(asyncio.sleep(0))  # type: ignore[arg-type]
        except TypeError as error:
            return str(error)
        return "no error"

    async def act(wire: Wire) -> None:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            assert "ctx.gather" in (await play_tool(wire, "wrong"))[0]

    scenario_of(server, revision, act)


@eliciting
def test_many_rounds_in_their_order(revision: str) -> None:
    server = make_server()
    runs: list[int] = []

    @server.tool
    async def count(ctx: Context, up_to: int) -> str:
        runs.append(1)
        got = [(await ctx.elicit(f"number {n}?", Size)).data.size for n in range(up_to)]
        return " ".join(map(str, got))

    async def act(wire: Wire) -> None:
        numbers = iter(range(100, 200))
        text, rounds = await play_tool(wire, "count", lambda *_: accept(size=next(numbers)), up_to=8)
        assert text == "100 101 102 103 104 105 106 107"
        assert [one[0][1]["message"] for one in rounds] == [f"number {n}?" for n in range(8)]
        assert len(runs) == (9 if revision == MODERN else 1)

    scenario_of(server, revision, act)


@eliciting
def test_calls_that_ask_are_independent(revision: str) -> None:
    async def act(wire: Wire) -> None:
        async def one(n: int) -> None:
            if revision != MODERN:
                return
            text, _ = await play_tool(wire, "interview", lambda m, p: obliging(m, p), title=f"t{n}")
            assert "Ada" in text

        for n in range(5):
            await one(n)
        if revision != MODERN:
            calls = [wire.message("tools/call", {"name": "choose", "arguments": {}}) for _ in range(20)]
            wire.send(*calls)
            questions = [await wire.receive() for _ in calls]
            for n, question in reversed(list(enumerate(questions))):
                wire.reply(question, accept(name=f"answer {n}"))
            for n, call in enumerate(calls):
                assert (await wire.answer(call["id"]))["result"]["content"][0]["text"] == f"answer {n}"

    scenario_of(make_server(), revision, act)


@eliciting
def test_a_plain_except_does_not_swallow_the_question(revision: str) -> None:
    server = make_server()

    @server.tool
    async def careful(ctx: Context) -> str:
        try:
            return (await ctx.elicit("who?", Person)).data.name
        except Exception as error:
            return f"caught {error!r}"
        finally:
            await asyncio.sleep(0)

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "careful"))[0] == "Ada"

    scenario_of(server, revision, act)


@eliciting
@pytest.mark.parametrize("how", ["gather", "group"])
def test_questions_inside_asyncio_gather_and_task_groups(revision: str, how: str) -> None:
    server = make_server()

    @server.tool
    async def both(ctx: Context) -> str:
        async def who() -> str:
            return (await ctx.elicit("who?", Person, key="a")).data.name

        async def size() -> int:
            return (await ctx.elicit("size?", Size, key="b")).data.size

        if how == "gather":
            one, two = await asyncio.gather(who(), size())
            return f"{one} {two}"
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(who()), group.create_task(size())
        return f"{first.result()} {second.result()}"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "both"))[0] == "Ada 3"

    scenario_of(server, revision, act)


@eliciting
def test_def_handlers_ask_through_wait(revision: str) -> None:
    server = make_server()

    @server.tool
    def blocking(ctx: Context) -> str:
        person = ctx.wait(ctx.elicit("who?", Person))
        size = ctx.wait(ctx.elicit("size?", Size))
        return f"{person.data.name} {size.data.size}"

    async def act(wire: Wire) -> None:
        text, rounds = await play_tool(wire, "blocking")
        assert text == "Ada 3" and len(rounds) == 2

    scenario_of(server, revision, act)


@eliciting
def test_prompts_and_resources_ask_too(revision: str) -> None:
    server = make_server()

    @server.prompt
    async def greet(ctx: Context, greeting: str) -> str:
        return f"{greeting} {(await ctx.elicit('who?', Person)).data.name}"

    @server.resource("asks://fixed")
    async def fixed(ctx: Context) -> str:
        return (await ctx.elicit("who?", Person)).data.name

    @server.resource("asks://{place}/size")
    async def templated(place: str, ctx: Context) -> str:
        return f"{place} {(await ctx.elicit('size?', Size)).data.size}"

    async def act(wire: Wire) -> None:
        message, rounds = await play(wire, "prompts/get", {"name": "greet", "arguments": {"greeting": "Hi"}})
        assert message["result"]["messages"][0]["content"]["text"] == "Hi Ada" and len(rounds) == 1
        message, rounds = await play(wire, "resources/read", {"uri": "asks://fixed"})
        assert message["result"]["contents"][0]["text"] == "Ada" and len(rounds) == 1
        message, rounds = await play(wire, "resources/read", {"uri": "asks://here/size"})
        assert message["result"]["contents"][0]["text"] == "here 3" and len(rounds) == 1

    scenario_of(server, revision, act)


@eliciting
def test_a_resource_that_a_tool_reads_may_ask(revision: str) -> None:
    server = make_server()

    @server.resource("asks://fixed")
    async def fixed(ctx: Context) -> str:
        return (await ctx.elicit("who?", Person)).data.name

    @server.tool
    async def reads(ctx: Context) -> str:
        size = (await ctx.elicit("size?", Size)).data.size
        contents = await ctx.read_resource("asks://fixed")
        again = (await ctx.elicit("size again?", Size)).data.size
        return f"{size} {contents[0]['text'] if isinstance(contents[0], dict) else contents[0].text} {again}"

    async def act(wire: Wire) -> None:
        text, rounds = await play_tool(wire, "reads")
        assert text == "3 Ada 3"
        assert [one[0][1]["message"] for one in rounds] == ["size?", "who?", "size again?"]

    scenario_of(server, revision, act)


@eliciting
def test_what_a_tool_did_once_stays_done_when_a_resource_it_reads_asks(revision: str) -> None:
    server = make_server()
    done: list[str] = []

    @server.resource("asks://fixed")
    async def fixed(ctx: Context) -> str:
        await ctx.once("resource", lambda: done.append("resource"))
        return (await ctx.elicit("who?", Person)).data.name

    @server.tool
    async def reads(ctx: Context) -> str:
        await ctx.once("tool", lambda: done.append("tool"))
        await ctx.read_resource("asks://fixed")
        return "read"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "reads"))[0] == "read"
        assert done == ["tool", "resource"]

    scenario_of(server, revision, act)


@eliciting
def test_a_context_says_the_same_in_every_round(revision: str) -> None:
    server = make_server()
    seen: list[Any] = []

    @server.tool
    async def curious(ctx: Context) -> str:
        seen.append((ctx.client_capabilities, ctx.client_info, ctx.protocol_version, ctx.request.params["arguments"]))
        await ctx.log("warning", "here")
        await ctx.report_progress(len(seen))
        await ctx.elicit("?", Person)
        await ctx.info("there")
        return "done"

    async def act(wire: Wire) -> None:
        wire_message = wire.message
        wire.message = lambda method, params=None, **meta: wire_message(  # type: ignore[method-assign]
            method, params, progressToken="p", **({"logLevel": "debug"} if revision == MODERN else {}), **meta
        )
        assert (await play_tool(wire, "curious"))[0] == "done"
        assert len(seen) == (2 if revision == MODERN else 1)
        assert all(one == seen[0] for one in seen) and seen[0][0] == declared(revision)
        logs = [one["params"]["data"] for one in wire.others if one["method"] == "notifications/message"]
        assert logs == ["here"] * len(seen) + ["there"]
        assert len([one for one in wire.others if one["method"] == "notifications/progress"]) == len(seen)

    scenario_of(server, revision, act)


@all_revisions
def test_the_names_of_the_official_sdk(revision: str) -> None:
    server = make_server()

    @server.tool
    async def sdk(ctx: Context) -> str:
        made = await ctx.session.create_message([{"role": "user", "content": {"type": "text", "text": "x"}}], max_tokens=5)
        roots = await ctx.session.list_roots()
        return f"{made.content.text} {roots.roots[0].name}"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "sdk"))[0] == "to: x home"

    scenario_of(server, revision, act)


# ---------------------------------------------------------------------------------------------------- what must not happen twice


def ordering_server(placed: list[str], **options: Any) -> MCPServer[Any]:
    server = make_server(**options)

    @server.tool
    async def order(ctx: Context, what: str) -> str:
        async def place() -> dict[str, Any]:
            placed.append(what)
            await asyncio.sleep(0.005)
            return {"id": len(placed)}

        before = await ctx.once("before", place)
        person = await ctx.elicit("for whom?", Person)
        after = await ctx.once("after", lambda: placed.append(f"bill for {person.data.name}") or "billed")
        return f"{before['id']} {after}"

    return server


@eliciting
def test_once_happens_once(revision: str) -> None:
    placed: list[str] = []

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "order", what="tea"))[0] == "1 billed"
        assert placed == ["tea", "bill for Ada"]
        assert (await play_tool(wire, "order", what="tea"))[0] == "3 billed"  # another call is another order
        assert placed == ["tea", "bill for Ada"] * 2

    scenario_of(ordering_server(placed), revision, act)


@pytest.mark.parametrize("together", [True, False])
def test_a_retry_that_arrives_twice(together: bool) -> None:
    placed: list[str] = []

    async def act(wire: Wire) -> None:
        first = await wire.call("order", {"what": "tea"})
        params = {"name": "order", "arguments": {"what": "tea"}, "requestState": first["requestState"]}
        params["inputResponses"] = {"q1": accept(name="Ada")}
        retries = [wire.message("tools/call", params) for _ in range(4)]
        if together:
            wire.send(*retries)
        for retry in retries:
            if not together:
                wire.send(retry)
            assert (await wire.answer(retry["id"]))["result"]["content"][0]["text"] == "1 billed"
        assert placed == ["tea", "bill for Ada"]

    scenario_of(ordering_server(placed), MODERN, act)


@eliciting
def test_once_gives_what_it_is_told_to_give(revision: str) -> None:
    server = make_server()

    @server.tool
    async def typed(ctx: Context) -> str:
        person = await ctx.once("person", lambda: Person(name="Eve"), type=Person)
        plain = await ctx.once("plain", lambda: {"n": 1, "none": None})
        nothing = await ctx.once("nothing", lambda: None)
        await ctx.elicit("go on?", Size)
        return f"{type(person).__name__} {person.name} {plain} {nothing}"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "typed"))[0] == "Person Eve {'n': 1, 'none': None} None"

    scenario_of(server, revision, act)


@eliciting
def test_once_that_failed_is_tried_again(revision: str) -> None:
    server = make_server()
    tries: list[int] = []

    @server.tool
    async def unlucky(ctx: Context) -> str:
        def work() -> int:
            tries.append(1)
            if len(tries) < 3:
                raise OSError("not yet")
            return len(tries)

        for _ in range(3):
            try:
                return str(await ctx.once("work", work))
            except OSError:
                pass
        return "never"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "unlucky"))[0] == "3"

    scenario_of(server, revision, act)


# ---------------------------------------------------------------------------------------------------- rounds of the modern era


def modern(act: Callable[[Wire], Any], server: MCPServer[Any] | None = None, **options: Any) -> Any:
    return scenario_of(server or make_server(), MODERN, act, **options)


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
    [{"action": "accept", "content": {"size": "many"}}, {"action": "accept"}, {"action": "perhaps"}, {}, accept(other=1)],
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


@pytest.mark.parametrize("responses", [[], "x", 5, None, {"q1": 5}, {"q1": None}, {"q1": []}, {"q1": "accept"}])
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
            params = {"name": "choose", "arguments": {}, "requestState": state, "inputResponses": {"q1": accept(name="x")}}
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
        answers = {"requestState": first["requestState"], "inputResponses": {"q1": accept(name="users-answer")}}
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
            connected(ordering_server(placed, state_keys=ring), MODERN, capabilities=MODERN_EVERYTHING) as one,
            connected(ordering_server(placed, state_keys=ring), MODERN, capabilities=MODERN_EVERYTHING) as two,
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
            connected(make_server(state_keys=KeyRing([old])), MODERN, capabilities=MODERN_EVERYTHING) as before,
            connected(make_server(state_keys=KeyRing([new, old])), MODERN, capabilities=MODERN_EVERYTHING) as after,
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


# ---------------------------------------------------------------------------------------------------- capabilities


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


# ---------------------------------------------------------------------------------------------------- errors among questions


@eliciting
def test_an_error_after_an_answer(revision: str) -> None:
    server = make_server()

    @server.tool
    async def fails(ctx: Context) -> str:
        await ctx.elicit("?", Person)
        raise MCPError(-4711, "no", {"why": "because"})

    async def act(wire: Wire) -> None:
        message, rounds = await play(wire, "tools/call", {"name": "fails"})
        assert message["error"] == {"code": -4711, "message": "no", "data": {"why": "because"}} and len(rounds) == 1

    scenario_of(server, revision, act)


def test_a_result_of_once_that_is_too_large_to_seal_is_an_incident_not_a_crash(caplog: pytest.LogCaptureFixture) -> None:
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
