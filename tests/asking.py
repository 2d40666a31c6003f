"""A server that asks, and a client that answers whatever it is asked, in either era."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mcpfast import Context, MCPServer
from tests.wire import MODERN, REVISIONS, Wire, connected, run

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
            extra = {
                "inputResponses": {
                    k: answer(one["method"], one.get("params", {})) for k, one in asked.items()
                }
            }
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


def modern(act: Callable[[Wire], Any], server: MCPServer[Any] | None = None, **options: Any) -> Any:
    return scenario_of(server or make_server(), MODERN, act, **options)
