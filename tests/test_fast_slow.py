"""One answer, four ways: hot, by the slow way, through middleware, and in a batch. The bytes must be the same."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpfast import Audio, Context, Image, MCPError, MCPServer, ToolError, ToolResult
from tests.wire import MODERN, REVISIONS, Wire, connected, run

BATCHES = "2025-03-26"
all_revisions = pytest.mark.parametrize("revision", REVISIONS)


class Point(msgspec.Struct):
    x: int
    y: float = 0.5


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Pair:
    left: str
    right: list[int]


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("ways", version="1", **options)

    @server.tool
    async def text(text: str) -> str:
        return text

    @server.tool
    async def integer(n: int) -> int:
        return n

    @server.tool
    async def number(n: float) -> float:
        return n

    @server.tool
    async def flag(on: bool = True) -> bool:
        return not on

    @server.tool
    async def point(point: Point) -> Point:
        return Point(point.x + 1, point.y)

    @server.tool
    async def pair(left: str, right: list[int]) -> Pair:
        return Pair(left, right)

    @server.tool
    async def mapping(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @server.tool
    async def items(data: list[Any]) -> list[Any]:
        return data

    @server.tool
    async def nothing() -> None:
        return None

    @server.tool
    async def unannotated(data: Any):  # type: ignore[no-untyped-def]
        return data

    @server.tool
    async def media(n: int) -> list[Image]:
        return [Image(data=bytes([n]))]

    @server.tool
    async def mixed():  # type: ignore[no-untyped-def]
        return ["text", Image(data=b"i"), Audio(data=b"a"), b"raw"]

    @server.tool
    async def result(text: str) -> ToolResult:
        return ToolResult(content=text, structured_content={"t": text}, meta={"m": 1})

    @server.tool
    async def optional(
        text: str | None = None, *, colour: Colour = Colour.RED, way: Literal["a", "b"] = "a"
    ) -> str:
        return f"{text} {colour.value} {way}"

    @server.tool
    async def keyword(first: int, ctx: Context, *, second: int = 2, third: str = "é") -> str:
        return f"{first} {second} {third} {ctx.request.method} {ctx.protocol_version}"

    @server.tool
    async def context_last(a: int, *, ctx: Context) -> str:
        return f"{a} {ctx.request.params['arguments']['a']} {ctx.client_capabilities}"

    @server.tool
    async def suspending(text: str, ctx: Context) -> str:
        await asyncio.sleep(0)
        await ctx.report_progress(1)
        await asyncio.sleep(0)
        return text

    @server.tool
    def in_thread(text: str) -> str:
        return text

    @server.tool(inline=True)
    def inline(text: str, n: int = 1) -> str:
        return text * n

    @server.tool
    async def tool_error(text: str) -> str:
        raise ToolError(text)

    @server.tool
    async def mcp_error(text: str) -> int:
        await asyncio.sleep(0)
        raise MCPError(-4711, text, {"text": text})

    @server.tool(structured_output=False)
    async def alone(text: str) -> str:
        return text

    @server.tool(structured_output=False)
    async def unstructured(data: Any) -> Any:
        return data

    return server


# tool -> arguments, right ones and wrong ones
CALLS: dict[str, list[Any]] = {
    "text": [
        {"text": ""},
        {"text": 'a"\\\n\u0000\u2028\u20ac\U0001f600é\x7f'},
        {"text": "x" * 40_000},
        {"text": 1},
        {},
        {"t": ""},
    ],
    "integer": [
        {"n": 0},
        {"n": -1},
        {"n": 2**63 - 1},
        {"n": -(2**63)},
        {"n": 1.5},
        {"n": "1"},
        {"n": 1.0},
        {"n": None},
    ],
    "number": [{"n": 1}, {"n": 0.1}, {"n": 1e300}, {"n": -0.0}, {"n": 1e-7}, {"n": "x"}],
    "flag": [{}, {"on": False}, {"on": 1}, {"off": True}],
    "point": [
        {"point": {"x": 1}},
        {"point": {"x": 1, "y": 2}},
        {"point": {"x": 1, "z": 2}},
        {"point": {}},
        {"point": []},
    ],
    "pair": [{"left": "l", "right": [1, 2]}, {"left": "l", "right": []}, {"left": "l", "right": ["1"]}],
    "mapping": [
        {"data": {}},
        {"data": {"é": [None, 1.5, {"a": True}], "b": "\u2028"}},
        {"data": []},
        {"data": {"1": 1}},
    ],
    "items": [{"data": []}, {"data": [1, "x", None, {"a": []}]}, {"data": {}}],
    "nothing": [{}, {"x": 1}],
    "unannotated": [
        {"data": 1},
        {"data": None},
        {"data": "x"},
        {"data": [1]},
        {"data": {"a": 1}},
        {"data": []},
        {"data": {}},
    ],
    "media": [{"n": 7}, {"n": 300}],
    "mixed": [{}],
    "result": [{"text": "x"}],
    "optional": [
        {},
        {"text": None},
        {"text": "x", "colour": "blue", "way": "b"},
        {"colour": "green"},
        {"way": "c"},
    ],
    "keyword": [{"first": 1}, {"first": 1, "third": "x", "second": 3}, {"second": 1}],
    "context_last": [{"a": 5}, {"a": "5"}],
    "suspending": [{"text": "x"}, {"text": 5}],
    "in_thread": [{"text": "é"}, {"text": 5}],
    "inline": [{"text": "é"}, {"text": "a", "n": 3}, {"text": "a", "n": "3"}],
    "tool_error": [{"text": "told"}, {"text": 'é"\\'}],
    "mcp_error": [{"text": "refused"}, {"text": 'é"\\'}],
    "alone": [
        {"text": ""},
        {"text": 'a"\\\n\u0000\u2028\u20ac\U0001f600é\x7f'},
        {"text": "x" * 40_000},
        {"text": 1},
    ],
    "unstructured": [{"data": {"a": 1}}, {"data": "x"}, {"data": 1}],
}
Way = Callable[[Wire, list[dict[str, Any]]], Any]


async def one_by_one(wire: Wire, messages: list[dict[str, Any]]) -> list[bytes]:
    for message in messages:
        wire.send(message)
        await wire.answer(message["id"])
    return lines_of(wire)


async def all_at_once(wire: Wire, messages: list[dict[str, Any]]) -> list[bytes]:
    wire.send(*messages)
    for message in messages:
        await wire.answer(message["id"])
    return lines_of(wire)


def lines_of(wire: Wire) -> list[bytes]:
    """The answers to calls, in the order of their ids."""
    found = [(json.loads(line).get("id"), line) for line in wire.lines]
    return [
        line for id, line in sorted((id, line) for id, line in found if isinstance(id, int) and id >= 10_000)
    ]


async def as_batch(wire: Wire, messages: list[dict[str, Any]]) -> list[bytes]:
    """Each call in a batch of its own and of the answer what stands between the brackets."""
    lines = []
    for message in messages:
        wire.send([message])
        await wire.answer(message["id"], 5)
        line = wire.lines[-1]
        assert line.startswith(b"[{") and line.endswith(b"}]\n")
        lines.append(line[1:-2] + b"\n")
    return lines


async def pass_through(request: Any, call_next: Callable[[Any], Any]) -> Any:
    return await call_next(request)


def answers(
    revision: str, calls: list[tuple[str, Any]], how: str, way: Way, *, warm: bool = True
) -> list[bytes]:
    """What the server writes for these calls."""

    async def scenario() -> list[bytes]:
        server = make_server(middleware=[pass_through] if how == "middleware" else [])
        hot = [tool.entry.fast for tool in server.catalog.tools]
        assert all(hot) is (how != "middleware") and any(hot) is (how != "middleware")
        if how == "slow":
            for tool in server.catalog.tools:
                tool.entry.fast = False
        async with connected(server, revision, warm=warm, capabilities={"roots": {}}) as wire:
            wire.reader._limit = 1 << 24  # type: ignore[attr-defined]
            server._serving[-1].dispatcher.random = bytes  # an incident's id: zeros
            messages = [
                wire.message("tools/call", {"name": name, "arguments": arguments}, id=10_000 + n)
                for n, (name, arguments) in enumerate(calls)
            ]
            return await way(wire, messages)

    return run(scenario())


@all_revisions
@pytest.mark.parametrize("name", CALLS)
def test_every_way_gives_the_same_bytes(revision: str, name: str) -> None:
    calls = [(name, arguments) for arguments in CALLS[name]]
    hot = answers(revision, calls, "hot", one_by_one)
    assert len(hot) == len(calls)
    assert answers(revision, calls, "hot", all_at_once) == hot
    assert answers(revision, calls, "hot", all_at_once, warm=False) == hot
    assert answers(revision, calls, "slow", one_by_one) == hot
    assert answers(revision, calls, "slow", all_at_once) == hot
    through = answers(revision, calls, "middleware", one_by_one)
    assert [json.loads(line) for line in through] == [json.loads(line) for line in hot]
    assert through == hot
    if revision == BATCHES:
        assert answers(revision, calls, "hot", as_batch) == hot
        assert answers(revision, calls, "slow", as_batch) == hot


@all_revisions
def test_all_mixed_in_one_write(revision: str) -> None:
    calls = [(name, arguments) for name, several in CALLS.items() for arguments in several] * 2
    hot = answers(revision, calls, "hot", all_at_once)
    assert len(hot) == len(calls)
    assert answers(revision, calls, "slow", all_at_once) == hot


def test_the_slow_way_is_another_one() -> None:
    """Or the other tests would compare the hot way with itself."""

    async def seen(fast: bool) -> list[str]:
        routed: list[str] = []

        async def scenario() -> None:
            server = make_server()
            for tool in server.catalog.tools:
                tool.entry.fast = fast
            async with connected(server, "2025-06-18") as wire:
                host = server._serving[-1]
                route = host.engine.route if hasattr(host.engine, "route") else None
                assert route is None  # private to the compiled room
                call_tool = host.dispatcher._legacy["tools/call"]
                host.dispatcher._legacy["tools/call"] = lambda request, caller: (
                    routed.append(request.method),
                    call_tool(request, caller),
                )[1]
                await wire.call("text", {"text": "x"})

        await scenario()
        return routed

    assert run(seen(True)) == [] and run(seen(False)) == ["tools/call"]


# ---------------------------------------------------------------------------------------------------- any arguments

# Texts of JSON, right and wrong for the tools; and odd ways of writing it.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([
    "text", "integer", "number", "point", "mapping", "items", "unannotated", "optional", "keyword", "inline", "tool_error",
])  # fmt: skip


@st.composite
def a_call(draw: st.DrawFn) -> tuple[str, bytes]:
    """A tool and the text of its arguments."""
    name = draw(names)
    arguments: dict[str, Any] = {}
    known = {
        "text": ["text"], "integer": ["n"], "number": ["n"], "point": ["point"], "mapping": ["data"], "items": ["data"],
        "unannotated": ["data"], "optional": ["text", "colour", "way"], "keyword": ["first", "second", "third"],
        "inline": ["text", "n"], "tool_error": ["text"],
    }[name]  # fmt: skip
    fitting = {
        "text": st.text(max_size=30), "n": st.integers(-(2**63), 2**63 - 1),
        "point": st.fixed_dictionaries({"x": st.integers(0, 9)}),
        "first": st.integers(0, 9), "second": st.integers(0, 9), "third": st.text(max_size=5),
        "colour": st.sampled_from(["red", "blue"]), "way": st.sampled_from(["a", "b"]),
    }  # fmt: skip
    for member in known:
        if draw(st.integers(0, 9)):
            arguments[member] = draw(fitting.get(member, values) if draw(st.integers(0, 3)) else values)
    if not draw(st.integers(0, 9)):
        arguments[draw(st.text(max_size=5))] = draw(values)
    if name == "inline" and isinstance(arguments.get("n"), int):
        arguments["n"] %= 4
    ascii_only, spaces = draw(st.booleans()), draw(st.sampled_from([None, 1]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]))
    text = json.dumps(
        arguments, ensure_ascii=ascii_only, indent=None, separators=separators, sort_keys=spaces is None
    )
    return name, text.encode("utf-8", "surrogatepass" if ascii_only else "strict")


@all_revisions
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(calls=st.lists(a_call(), min_size=20, max_size=40))
def test_any_arguments(revision: str, calls: list[tuple[str, bytes]]) -> None:
    def lines(wire: Wire) -> list[bytes]:
        made = []
        for n, (name, arguments) in enumerate(calls):
            message = json.dumps(
                wire.message("tools/call", {"name": name, "arguments": "ARGUMENTS"}, id=10_000 + n)
            )
            made.append(message.encode().replace(b'"ARGUMENTS"', arguments))
        return made

    async def send_lines(wire: Wire, _: list[dict[str, Any]]) -> list[bytes]:
        wire.send(*lines(wire))
        for n in range(len(calls)):
            await wire.answer(10_000 + n)
        return lines_of(wire)

    async def send_batch(wire: Wire, _: list[dict[str, Any]]) -> list[bytes]:
        wire.send(b"[" + b",".join(lines(wire)) + b"]")
        found = await wire.receive()
        parts = msgspec.json.decode(wire.lines[-1], type=list[msgspec.Raw])
        order = sorted(range(len(parts)), key=lambda at: found[at]["id"])
        return [bytes(parts[at]) + b"\n" for at in order]

    hot = answers(revision, [], "hot", send_lines)
    assert len(hot) == len(calls)
    assert answers(revision, [], "slow", send_lines) == hot
    if revision == BATCHES:
        assert answers(revision, [], "hot", send_batch) == hot


# ---------------------------------------------------------------------------------------------------- other things that go two ways


@all_revisions
def test_ids_and_envelopes_of_every_spelling(revision: str) -> None:
    """What the scan finds odd goes the other way; its answer is the same but for the id, which is given back as it came."""

    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire:
            plain = json.dumps(
                wire.message("tools/call", {"name": "text", "arguments": {"text": "é"}}, id=77)
            ).encode()
            wire.send(plain)
            await wire.answer(77)
            expected = wire.lines[-1]
            for odd in (
                plain.replace(b'"method"', b'"m\\u0065thod"'),
                plain.replace(b'"tools/call"', b'"tools\\/call"'),
                plain.replace(b'"name": "text"', b'"name": "t\\u0065xt"'),
                plain.replace(b'"arguments"', b'"argum\\u0065nts"'),
                plain.replace(b'{"jsonrpc": "2.0",', b'{"more":[1,{"id":5}],"jsonrpc": "2.0",'),
                plain.replace(b'"params": {', b'"params": {"unknown":{"name":"integer"},'),
                b" \t" + plain + b" \t\r",
            ):
                assert odd != plain
                wire.answers.clear()
                wire.send(odd)
                await wire.answer(77)
                assert wire.lines[-1] == expected, odd

    run(scenario())


@all_revisions
def test_a_tool_changes_its_way_while_serving(revision: str) -> None:
    async def scenario() -> None:
        server = make_server()
        entry = server.catalog.tools.get("text").entry
        async with connected(server, revision) as wire:
            seen = set()
            for n in range(12):
                entry.fast = bool(n % 3)
                message = wire.message("tools/call", {"name": "text", "arguments": {"text": "x"}}, id=5)
                wire.answers.clear()
                wire.send(message)
                await wire.answer(5)
                seen.add(wire.lines[-1])
            assert len(seen) == 1

    run(scenario())


def test_incidents_look_the_same_but_for_their_id() -> None:
    async def scenario() -> None:
        for revision in ("2025-06-18", MODERN):
            seen = set()
            for fast in (True, False):
                server = make_server()

                @server.tool
                async def crash(text: str) -> str:
                    raise ValueError(text)

                async with connected(server, revision) as wire:
                    server.catalog.tools.get("crash").entry.fast = fast
                    server._serving[-1].dispatcher.random = lambda n: b"\0" * n
                    await wire.call("crash", {"text": "x"})
                    seen.add(wire.lines[-1])
            assert len(seen) == 1 and b"000000000000" in seen.pop()

    run(scenario())
