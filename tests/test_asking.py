"""One handler, both eras: what it asks reaches the client and comes back, by a request on the wire or by rounds of retries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast import Context, MCPError
from tests.asking import (
    Person,
    Size,
    accept,
    all_revisions,
    declared,
    eliciting,
    make_server,
    obliging,
    ordering_server,
    play,
    play_tool,
    scenario_of,
)
from tests.wire import MODERN, Wire

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
        calls = [wire.message("tools/call", {"name": "choose", "arguments": {}}) for _ in range(20)]
        wire.send(*calls)
        if revision == MODERN:
            states = [(await wire.answer(call["id"]))["result"]["requestState"] for call in calls]
            assert len(set(states)) == 20
            extras = [
                {"requestState": state, "inputResponses": {"q1": accept(name=f"answer {n}")}}
                for n, state in enumerate(states)
            ]
            calls = [
                wire.message("tools/call", {"name": "choose", "arguments": {}, **extra}) for extra in extras
            ]
            wire.send(*reversed(calls))
        else:
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
        seen.append(
            (ctx.client_capabilities, ctx.client_info, ctx.protocol_version, ctx.request.params["arguments"])
        )
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
        made = await ctx.session.create_message(
            [{"role": "user", "content": {"type": "text", "text": "x"}}], max_tokens=5
        )
        roots = await ctx.session.list_roots()
        return f"{made.content.text} {roots.roots[0].name}"

    async def act(wire: Wire) -> None:
        assert (await play_tool(wire, "sdk"))[0] == "to: x home"

    scenario_of(server, revision, act)


# ---------------------------------------------------------------------------------------------------- what must not happen twice


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
        assert (
            message["error"] == {"code": -4711, "message": "no", "data": {"why": "because"}}
            and len(rounds) == 1
        )

    scenario_of(server, revision, act)
