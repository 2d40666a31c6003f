"""Tools as clients see them: lists and their pages, calls, threads (sections 12 and 19)."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Annotated, Any, Literal

import msgspec
import pytest

from mcpfast import Limits, MCPServer, RegistrationError, ToolResult
from tests.wire import LEGACY, REVISIONS, Wire, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)


class Point(msgspec.Struct):
    x: int
    y: int = 0


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("tools", version="1", **options)

    @server.tool
    async def echo(text: str) -> str:
        """Gives the text back.

        Args:
            text: what to say
        """
        return text

    @server.tool(
        title="A point",
        description="Moves a point.",
        annotations={"readOnlyHint": True, "title": "P"},
        meta={"a": 1},
    )
    async def move(
        point: Point, by: Annotated[int, msgspec.Meta(ge=0)] = 1, *, way: Literal["x", "y"] = "x"
    ) -> Point:
        return Point(point.x + by, point.y) if way == "x" else Point(point.x, point.y + by)

    @server.tool
    async def nothing() -> None:
        return None

    @server.tool
    async def number(n: int) -> int:
        return n + 1

    @server.tool
    async def numbers(n: int) -> list[int]:
        return list(range(n))

    @server.tool
    async def plain() -> dict[str, Any]:
        return {"b": [1, None, 1.5], "a": "é"}

    @server.tool(structured_output=False)
    async def unstructured(n: int) -> int:
        return n

    return server


def text_of(result: dict[str, Any]) -> str:
    (block,) = result["content"]
    return block["text"]


# ---------------------------------------------------------------------------------------------------- the list


@all_revisions
def test_the_list(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            result = await wire.request("tools/list")
            assert "nextCursor" not in result
            tools = {tool["name"]: tool for tool in result["tools"]}
            assert list(tools) == ["echo", "move", "nothing", "number", "numbers", "plain", "unstructured"]
            echo = tools["echo"]["inputSchema"]
            assert echo["type"] == "object" and echo["required"] == ["text"]
            assert echo["properties"]["text"] == {"type": "string", "description": "what to say"}
            assert tools["echo"]["description"] == "Gives the text back."
            assert tools["nothing"]["inputSchema"] == {
                "type": "object",
                "properties": {},
                "additionalProperties": False,
            }
            move = tools["move"]["inputSchema"]
            assert move["required"] == ["point"] and set(move["properties"]) == {"point", "by", "way"}
            assert move["properties"]["by"]["minimum"] == 0 and move["properties"]["by"]["default"] == 1
            assert tools["move"]["description"] == "Moves a point."
            assert ("annotations" in tools["move"]) is (revision >= "2025-03-26")
            assert ("title" in tools["move"]) is ("_meta" in tools["move"]) is (revision >= "2025-06-18")
            if revision >= "2025-06-18":
                assert tools["number"]["outputSchema"]["properties"]["result"] == {"type": "integer"}
                assert "outputSchema" not in tools["unstructured"]
                assert set(tools["move"]["outputSchema"]["properties"]) == {"x", "y"}
                assert all(
                    tool["outputSchema"]["type"] == "object"
                    for tool in tools.values()
                    if "outputSchema" in tool
                )
            assert (await wire.request("tools/list", {}))["tools"] == result["tools"]

    run(scenario())


async def pages(wire: Wire, method: str, member: str) -> list[list[str]]:
    """The names (or URIs) of every page."""
    found, cursor = [], None
    while True:
        result = await wire.request(method, {} if cursor is None else {"cursor": cursor})
        found.append([one.get("uri") or one.get("uriTemplate") or one["name"] for one in result[member]])
        cursor = result.get("nextCursor")
        if cursor is None:
            return found
        assert cursor != ""


@all_revisions
@pytest.mark.parametrize(("method", "member"), [
    ("tools/list", "tools"),
    ("prompts/list", "prompts"),
    ("resources/list", "resources"),
    ("resources/templates/list", "resourceTemplates"),
])  # fmt: skip
@pytest.mark.parametrize("count", [0, 1, 3, 4, 6, 7])
def test_pages(revision: str, method: str, member: str, count: int) -> None:
    async def scenario() -> None:
        server: MCPServer[Any] = MCPServer("pages", limits=Limits(page_items=3))
        expected = []
        for n in range(count):
            if member == "tools":
                server.add_tool(nullary, name=f"t{n}")
                expected.append(f"t{n}")
            elif member == "prompts":
                server.add_prompt(nullary, name=f"p{n}")
                expected.append(f"p{n}")
            elif member == "resources":
                server.add_resource(f"r://{n}", nullary)
                expected.append(f"r://{n}")
            else:
                server.add_resource(f"r{n}://{{x}}", unary)
                expected.append(f"r{n}://{{x}}")
        async with connected(server, revision) as wire:
            got = await pages(wire, method, member)
            assert [name for page in got for name in page] == expected
            assert all(len(page) == 3 for page in got[:-1]) and len(got) == max(1, -(-count // 3))
            assert await pages(wire, method, member) == got

    run(scenario())


async def nullary() -> str:
    return "x"


async def unary(x: str) -> str:
    return x


@all_revisions
def test_cursors_hold_while_the_list_changes_and_on_every_worker(revision: str) -> None:
    def worker() -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer("pages", limits=Limits(page_items=2))
        for n in range(6):
            server.add_tool(nullary, name=f"t{n}")
        return server

    async def scenario() -> None:
        one, two = worker(), worker()
        async with connected(one, revision) as here, connected(two, revision) as there:
            cursor = (await here.request("tools/list"))["nextCursor"]
            second = await there.request("tools/list", {"cursor": cursor})
            assert [tool["name"] for tool in second["tools"]] == ["t2", "t3"]
            one.remove_tool("t1")  # the last one seen
            one.remove_tool("t2")
            one.add_tool(nullary, name="t1")  # comes back at the end
            rest = await here.request("tools/list", {"cursor": cursor})
            assert [tool["name"] for tool in rest["tools"]] == ["t3", "t4"]
            last = await here.request("tools/list", {"cursor": rest["nextCursor"]})
            assert [tool["name"] for tool in last["tools"]] == ["t5", "t1"] and "nextCursor" not in last

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "dG9vbHM6MQ", "dG9vbHM6OTk5OQ==", "dG9vbHM6LTE=", "é", 1, {}, [], True]
)
@pytest.mark.parametrize(
    "method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
)
def test_bad_cursors(revision: str, cursor: Any, method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(limits=Limits(page_items=2)), revision) as wire:
            assert (await wire.error(method, {"cursor": cursor}))["code"] == -32602

    run(scenario())


@all_revisions
def test_a_cursor_of_another_list(revision: str) -> None:
    async def scenario() -> None:
        server = make_server(limits=Limits(page_items=2))
        for n in range(5):
            server.add_prompt(nullary, name=f"p{n}")
        async with connected(server, revision) as wire:
            cursor = (await wire.request("tools/list"))["nextCursor"]
            assert (await wire.error("prompts/list", {"cursor": cursor}))["code"] == -32602

    run(scenario())


# ---------------------------------------------------------------------------------------------------- calls


@all_revisions
@pytest.mark.parametrize(
    ("name", "arguments", "text", "structured"),
    [
        (
            "echo",
            {"text": 'é\n"\\\u2028\U0001f600\x7f'},
            'é\n"\\\u2028\U0001f600\x7f',
            {"result": 'é\n"\\\u2028\U0001f600\x7f'},
        ),
        ("echo", {"text": ""}, "", {"result": ""}),
        ("number", {"n": 41}, "42", {"result": 42}),
        ("number", {"n": -(2**63)}, str(-(2**63) + 1), {"result": -(2**63) + 1}),
        ("numbers", {"n": 3}, "[0,1,2]", {"result": [0, 1, 2]}),
        ("numbers", {"n": 0}, "[]", {"result": []}),
        ("move", {"point": {"x": 1}}, '{"x":2,"y":0}', {"x": 2, "y": 0}),
        ("move", {"point": {"x": 1, "y": 2}, "by": 3, "way": "y"}, '{"x":1,"y":5}', {"x": 1, "y": 5}),
        ("plain", {}, '{"b":[1,null,1.5],"a":"é"}', {"b": [1, None, 1.5], "a": "é"}),
        ("unstructured", {"n": 7}, "7", ...),
    ],
)
def test_results(revision: str, name: str, arguments: dict[str, Any], text: str, structured: Any) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            result = await wire.call(name, arguments)
            assert text_of(result) == text
            assert not result.get("isError")
            if structured is ... or revision < "2025-06-18":
                assert "structuredContent" not in result
            else:
                assert result["structuredContent"] == structured

    run(scenario())


@all_revisions
@pytest.mark.parametrize("arguments", [{}, None, ...])
def test_a_call_without_arguments(revision: str, arguments: Any) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            params = {"name": "nothing"} if arguments is ... else {"name": "nothing", "arguments": arguments}
            result = await wire.request("tools/call", params)
            assert result["content"] == []

    run(scenario())


@all_revisions
def test_an_unknown_tool_is_named(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            error = await wire.error("tools/call", {"name": "ech\u00f6", "arguments": {}})
            assert error["code"] == -32602 and "ech\u00f6" in error["message"]
            long = await wire.error("tools/call", {"name": "x" * 100_000})
            assert long["code"] == -32602 and len(long["message"]) < 1000

    run(scenario())


@pytest.mark.parametrize("revision", LEGACY)
def test_a_task_that_nobody_offered_is_ignored(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            params = {"name": "echo", "arguments": {"text": "x"}, "task": {"ttl": 60000}}
            assert text_of(await wire.request("tools/call", params)) == "x"

    run(scenario())


@all_revisions
def test_tools_come_and_go(revision: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire:
            before = [tool["name"] for tool in (await wire.request("tools/list"))["tools"]]
            server.add_tool(nullary)
            assert text_of(await wire.call("nullary")) == "x"
            assert [tool["name"] for tool in (await wire.request("tools/list"))["tools"]] == [
                *before,
                "nullary",
            ]
            server.remove_tool("nullary")
            assert (await wire.error("tools/call", {"name": "nullary"}))["code"] == -32602
            assert [tool["name"] for tool in (await wire.request("tools/list"))["tools"]] == before

    run(scenario())


@pytest.mark.parametrize("name", ["", "a b", "é", "a/b", "x" * 129, "a\n", "@x", "a:b"])
def test_names_that_no_tool_may_have(name: str) -> None:
    server = make_server()
    if name:
        with pytest.raises(RegistrationError, match="cannot name a tool"):
            server.add_tool(nullary, name=name)
    else:
        assert server.add_tool(nullary, name=name).name == "nullary"  # "" is no name, so the function's


def test_names_are_taken_once() -> None:
    server = make_server()
    for name in ("A", "a", "x" * 128, "_", "0", "a.b-c_d"):
        server.add_tool(nullary, name=name)
    with pytest.raises(RegistrationError, match="registered already"):
        server.add_tool(nullary, name="A")
    with pytest.raises(RegistrationError, match="nobody"):
        server.remove_tool("nobody")


@all_revisions
def test_raw_schemas(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("raw")
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"type": "string"}},
        "required": ["n"],
        "additionalProperties": False,
    }

    async def raw(n: int, s: str = "default") -> str:
        return f"{n} {s}"

    server.add_tool(raw, input_schema=schema)

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            (tool,) = (await wire.request("tools/list"))["tools"]
            assert tool["inputSchema"] == schema
            assert text_of(await wire.call("raw", {"n": 2})) == "2 default"
            assert text_of(await wire.call("raw", {"n": 2, "s": "é"})) == "2 é"
            for wrong in ({"n": 0}, {}, {"n": "1"}, {"n": 1, "more": 1}):
                answer = await wire.ask("tools/call", {"name": "raw", "arguments": wrong})
                if revision >= "2025-11-25":
                    assert answer["result"]["isError"] and "raw" in text_of(answer["result"])
                else:
                    assert answer["error"]["code"] == -32602

    run(scenario())


@all_revisions
def test_a_tool_result_in_full(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("full")

    @server.tool
    async def full(fail: bool) -> ToolResult:
        return ToolResult(content="said", structured_content={"a": 1}, meta={"mine": [1]}, is_error=fail)

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            for fail in (False, True):
                result = await wire.call("full", {"fail": fail})
                assert text_of(result) == "said" and result.get("isError", False) is fail
                assert result["_meta"]["mine"] == [1]
                assert result.get("structuredContent") == ({"a": 1} if revision >= "2025-06-18" else None)

    run(scenario())


# ---------------------------------------------------------------------------------------------------- where handlers run


@all_revisions
def test_threads_and_loop(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("threads")
    seen: dict[str, int] = {}

    @server.tool
    def blocking(a: int, *, b: int = 1) -> int:
        seen["blocking"] = threading.get_ident()
        time.sleep(0.02)
        return a + b

    @server.tool(inline=True)
    def inline(a: int, *, b: int = 1) -> int:
        seen["inline"] = threading.get_ident()
        return a + b

    @server.tool
    async def on_loop(a: int, *, b: int = 1) -> int:
        seen["on_loop"] = threading.get_ident()
        return a + b

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            names = ["blocking", "inline", "on_loop"]
            calls = [
                wire.message("tools/call", {"name": name, "arguments": {"a": 1, "b": 5}}) for name in names
            ]
            wire.send(*calls)
            for call in calls:
                assert text_of((await wire.answer(call["id"]))["result"]) == "6"
            assert list(wire.answers)[-1] == calls[0]["id"]  # the others did not wait for the one that blocks
            here = threading.get_ident()
            assert seen["inline"] == seen["on_loop"] == here != seen["blocking"]

    run(scenario())


def test_inline_is_for_def_alone() -> None:
    with pytest.raises(RegistrationError, match="inline"):
        MCPServer("x").add_tool(nullary, inline=True)


@all_revisions
def test_blocking_handlers_run_beside_each_other(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("threads")
    barrier = threading.Barrier(4, timeout=5)

    @server.tool
    def meet() -> str:
        barrier.wait()
        return "met"

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            calls = [wire.message("tools/call", {"name": "meet"}) for _ in range(4)]
            wire.send(*calls)
            for call in calls:
                assert text_of((await wire.answer(call["id"]))["result"]) == "met"

    run(scenario())


@all_revisions
def test_too_many_calls_in_flight(revision: str) -> None:
    server: MCPServer[Any] = MCPServer("many", limits=Limits(connection_calls_max=3))
    gate = asyncio.Event()

    @server.tool
    async def wait() -> str:
        await gate.wait()
        return "x"

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            calls = [wire.message("tools/call", {"name": "wait"}) for _ in range(5)]
            wire.send(*calls)
            for call in calls[3:]:
                error = (await wire.answer(call["id"]))["error"]
                assert not -32768 <= error["code"] <= -32000 and "3" in error["message"]
            gate.set()
            for call in calls[:3]:
                assert text_of((await wire.answer(call["id"]))["result"]) == "x"
            assert text_of(await wire.call("wait")) == "x"

    run(scenario())


# ------------------------------------------------------------------------------- what is told at once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": 3}, "MCPServer(name=...) takes a str, not 3"),
        ({"version": 1.0}, "MCPServer(version=...) takes a str, not 1.0"),
        ({"instructions": ["a"]}, "MCPServer(instructions=...) takes a str, not ['a']"),
        ({"website_url": b"x"}, "MCPServer(website_url=...) takes a str, not b'x'"),
        ({"tenancy": "x.toml"}, "MCPServer(tenancy=...) takes Tenancy(\"tenants.toml\"), not 'x.toml'"),
        ({"limits": {}}, "MCPServer(limits=...) takes Limits(...), not {}"),
        ({"lifespan": 1}, "MCPServer(lifespan=...) takes a function of the server that gives an async"),
        (
            {"middleware": [3]},
            "MCPServer(middleware=...) takes a list of `async (request, call_next)`, not [3]",
        ),
        (
            {"middleware": run},
            "MCPServer(middleware=...) takes a list of `async (request, call_next)`, not <function",
        ),
        (
            {"cache_hints": {"tools/list": 5}},
            "MCPServer(cache_hints=...) takes a dict of CacheHint by method, not {",
        ),
        ({"tools": run}, "MCPServer(tools=...) takes a list of functions, not <function"),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_type_is_told_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        MCPServer(**options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("warm", [True, False])
def test_a_wrong_choice_is_told_the_right_ones_on_the_wire(revision: str, warm: bool) -> None:
    server: MCPServer[Any] = MCPServer("choices")

    @server.tool
    async def paint(colour: Literal["red", "blue"], thing: object) -> Any:
        return object

    @server.prompt
    async def ask(colour: Literal["red", "blue"]) -> str:
        return colour

    @server.resource("colours://{colour}")
    async def colour(colour: Literal["red", "blue"]) -> str:
        return colour

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            if warm:
                drawn = await wire.call("paint", {"colour": "red", "thing": [1]})
                assert text_of(drawn) == "\"<class 'object'>\""
            said = 'Invalid enum value \'green\' - at `$.colour`; allowed: "red", "blue"'
            params = {"name": "paint", "arguments": {"colour": "green", "thing": 1}}
            answer = await wire.ask("tools/call", params)
            told = answer["error"]["message"] if "error" in answer else text_of(answer["result"])
            assert told == f"Invalid arguments for tool paint: {said}"
            error = await wire.error("prompts/get", {"name": "ask", "arguments": {"colour": "green"}})
            assert error["message"] == f"Invalid arguments for prompt ask: {said}"
            error = await wire.error("resources/read", {"uri": "colours://green"})
            assert error["message"] == f"Invalid resource URI: {said}"

    run(scenario())
