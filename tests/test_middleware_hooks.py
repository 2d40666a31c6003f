"""What stands around a call: middleware, the named hook points, trace context, lifespan."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from mcpfast import Context, MCPError, MCPServer, ToolError
from tests.wire import LEGACY, META, MODERN, REVISIONS, Wire, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)
both_ways = pytest.mark.parametrize("warm", [True, False])


class Name(msgspec.Struct):
    name: str


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("around", version="1", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def slow(text: str) -> str:
        await asyncio.sleep(0.002)
        return text

    @server.tool
    async def forever(text: str) -> str:
        await asyncio.sleep(1000)
        return text

    @server.tool
    async def fails(kind: str) -> int:
        if kind == "tool":
            raise ToolError("told")
        if kind == "mcp":
            raise MCPError(-4711, "refused")
        raise ValueError("secret")

    @server.tool
    async def asks(ctx: Context) -> str:
        return (await ctx.elicit("who?", Name)).data.name

    @server.tool
    async def trace(ctx: Context) -> dict[str, Any]:
        return {"trace": ctx.request.trace_context, "meta": ctx.request.meta, "id": ctx.request_id}

    @server.resource("x://fixed")
    async def fixed(ctx: Context) -> str:
        return str(ctx.request.trace_context)

    @server.prompt
    async def prompt(ctx: Context) -> str:
        return str(ctx.request.trace_context)

    return server


async def added() -> str:
    return "added"


def text_of(answer: dict[str, Any]) -> str:
    return answer.get("result", answer)["content"][0]["text"]


# ---------------------------------------------------------------------------------------------------- middleware


@all_revisions
@both_ways
def test_middleware_goes_around_every_request_in_order(revision: str, warm: bool) -> None:
    seen: list[Any] = []

    def layer(name: str) -> Callable[..., Any]:
        async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
            seen.append((name, request.method, request.params.get("name"), request.revision))
            result = await call_next(request)
            assert isinstance(result, dict)
            seen.append((name, "after"))
            return result

        return around

    async def scenario() -> None:
        server = make_server(middleware=[layer("outer"), layer("inner")])
        async with connected(server, revision, warm=warm) as wire:
            for method, params in (
                ("tools/call", {"name": "echo", "arguments": {"text": "x"}}),
                ("tools/call", {"name": "slow", "arguments": {"text": "x"}}),
                ("tools/list", {}),
                ("resources/read", {"uri": "x://fixed"}),
                ("prompts/get", {"name": "prompt"}),
            ):
                seen.clear()
                await wire.request(method, params)
                name = params.get("name")
                assert seen == [
                    ("outer", method, name, revision),
                    ("inner", method, name, revision),
                    ("inner", "after"),
                    ("outer", "after"),
                ]
            seen.clear()
            if revision != MODERN:
                await wire.request("ping")
                assert seen == []  # liveness is nobody's business

    run(scenario())


@all_revisions
def test_middleware_may_change_replace_and_refuse(revision: str) -> None:
    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        text = request.params.get("arguments", {}).get("text")
        if text == "mine":
            return {
                "content": [{"type": "text", "text": "from the middleware"}],
                **COMPLETE.get(revision, {}),
            }
        if text == "refuse":
            raise MCPError(-4712, "not allowed", {"why": 1})
        if text == "tell":
            raise ToolError("try later")
        if text == "crash":
            raise RuntimeError("secret")
        if text == "twice":
            await call_next(request)
        result = await call_next(request)
        if text == "change":
            result["content"].append({"type": "text", "text": "and more"})
            result.setdefault("_meta", {})["seen"] = True
        return result

    async def scenario() -> None:
        async with connected(make_server(middleware=[around]), revision) as wire:
            assert text_of(await wire.call("echo", {"text": "x"})) == "x"
            changed = await wire.call("echo", {"text": "change"})
            assert [one["text"] for one in changed["content"]] == ["change", "and more"] and changed["_meta"][
                "seen"
            ] is True
            assert text_of(await wire.call("echo", {"text": "mine"})) == "from the middleware"
            assert text_of(await wire.call("slow", {"text": "twice"})) == "twice"
            arguments = {"name": "echo", "arguments": {"text": "refuse"}}
            assert await wire.error("tools/call", arguments) == {
                "code": -4712,
                "message": "not allowed",
                "data": {"why": 1},
            }
            told = await wire.call("echo", {"text": "tell"})
            assert told["isError"] and text_of(told) == "try later"
            crashed = await wire.call("echo", {"text": "crash"})
            assert crashed["isError"] and "Incident" in text_of(crashed) and "secret" not in text_of(crashed)

    run(scenario())


COMPLETE = {
    MODERN: {"resultType": "complete", "_meta": {META + "serverInfo": {"name": "around", "version": "1"}}}
}


@all_revisions
@pytest.mark.parametrize(
    "given", [None, "text", [1], {}, {"content": "text"}, {"resultType": "complete"}], ids=repr
)
def test_what_middleware_may_not_return(revision: str, given: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def forgets(request: Any, call_next: Callable[[Any], Any]) -> Any:
        result = await call_next(request)
        return given if request.method.startswith("tools/") else result

    async def scenario() -> None:
        async with connected(make_server(middleware=[forgets]), revision) as wire:
            crashed = await wire.call("echo", {"text": "x"})
            assert crashed["isError"] and "Incident" in text_of(crashed)
            if not isinstance(given, dict):
                error = await wire.error("tools/list")
                assert error["code"] == -32603 and "Incident" in error["message"]

    run(scenario())
    assert "middleware returned" in caplog.text


@all_revisions
def test_middleware_sees_errors_and_lets_them_pass(revision: str) -> None:
    seen: list[str] = []

    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        try:
            return await call_next(request)
        except Exception as error:
            seen.append(type(error).__name__)
            raise

    async def scenario() -> None:
        async with connected(make_server(middleware=[around]), revision) as wire:
            assert text_of(await wire.call("fails", {"kind": "tool"})) == "told"
            assert (await wire.error("tools/call", {"name": "fails", "arguments": {"kind": "mcp"}}))[
                "code"
            ] == -4711
            assert "Incident" in text_of(await wire.call("fails", {"kind": "other"}))
            assert (await wire.error("tools/call", {"name": "nope"}))["code"] == -32602
            assert (await wire.error("no/such"))["code"] == -32601
            answer = await wire.ask("tools/call", {"name": "echo", "arguments": {"text": 5}})
            assert ("error" in answer) is (revision < "2025-11-25")
            missing = await wire.error("resources/read", {"uri": "x://gone"})
            assert missing["code"] == (-32602 if revision == MODERN else -32002)
            assert seen == [
                "ToolError",
                "MCPError",
                "ValueError",
                "MCPError",
                "ArgumentsRefused",
                "ResourceNotFound",
            ]

    run(scenario())


@all_revisions
def test_middleware_that_is_added_later_holds_for_what_was_registered_before(revision: str) -> None:
    """A check that some calls slip past is none."""
    seen: list[str] = []

    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        seen.append(request.method)
        return await call_next(request)

    async def scenario() -> None:
        server = make_server()
        server.middleware.append(around)
        async with connected(server, revision) as wire:
            await wire.call("echo", {"text": "x"})
            assert seen[-1] == "tools/call"

    run(scenario())


@pytest.mark.parametrize("revision", ["2025-11-25", MODERN])
def test_questions_pass_through_middleware(revision: str) -> None:
    seen: list[str] = []

    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        try:
            result = await call_next(request)
        except Exception:
            seen.append("caught")
            raise
        seen.append("done")
        return result

    async def scenario() -> None:
        async with connected(
            make_server(middleware=[around]), revision, capabilities={"elicitation": {}}
        ) as wire:
            seen.clear()
            accepted = {"action": "accept", "content": {"name": "Ada"}}
            if revision == MODERN:
                first = await wire.call("asks")
                extra = {"requestState": first["requestState"], "inputResponses": {"q1": accepted}}
                result = await wire.request("tools/call", {"name": "asks", "arguments": {}, **extra})
            else:
                call = wire.message("tools/call", {"name": "asks"})
                wire.send(call)
                wire.reply(await wire.other("elicitation/create"), accepted)
                result = (await wire.answer(call["id"]))["result"]
            assert text_of(result) == "Ada" and seen == ["done"]

    run(scenario())


@all_revisions
@both_ways
def test_calls_behind_middleware_can_be_cancelled(revision: str, warm: bool) -> None:
    seen: list[str] = []

    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        try:
            return await call_next(request)
        except asyncio.CancelledError:
            seen.append(request.method)
            raise

    async def scenario() -> None:
        server = make_server(middleware=[around])
        async with connected(server, revision, warm=warm) as wire:
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="f"))
            if revision == MODERN:
                wire.send(
                    wire.message(
                        "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id="s"
                    )
                )
                await wire.other("notifications/subscriptions/acknowledged")
                server.add_tool(added)
                await wire.other("notifications/tools/list_changed")
                wire.cancel("s")
            await wire.settle()  # it runs: what is cancelled before its first step is never seen
            wire.cancel("f")
            await wire.settle()
            assert not {"f", "s"} & set(wire.answers)
            assert sorted(seen) == (
                ["subscriptions/listen", "tools/call"] if revision == MODERN else ["tools/call"]
            )
            wire.sent.clear()

    run(scenario())


def test_middleware_in_batches() -> None:
    seen: list[str] = []

    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        seen.append(request.method)
        return await call_next(request)

    async def scenario() -> None:
        async with connected(make_server(middleware=[around]), "2025-03-26") as wire:
            names = ["echo", "slow", "echo"]
            calls = [
                wire.message("tools/call", {"name": name, "arguments": {"text": f"{n}"}})
                for n, name in enumerate(names)
            ]
            wire.send([*calls, wire.message("tools/list", id="l")])
            answers = {one["id"]: one for one in await wire.receive()}
            assert [text_of(answers[call["id"]]) for call in calls] == ["0", "1", "2"]
            assert "tools" in answers["l"]["result"]
            assert sorted(seen) == ["tools/call"] * 3 + ["tools/list"]

    run(scenario())


# ---------------------------------------------------------------------------------------------------- hook points


class Observer:
    """Takes notes."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []
        self.open: dict[int, Any] = {}
        self.ended: list[tuple[str, str, str, int, int, str, float]] = []
        self.closed = 0

    def session_opened(self, session: Any) -> None:
        self.sessions.append(session)

    def session_closed(self, session: Any) -> None:
        assert session in self.sessions
        self.closed += 1

    def request_started(self, request: Any) -> None:
        assert id(request) not in self.open
        self.open[id(request)] = request

    def request_ended(self, request: Any, outcome: str, duration_s: float, bytes_out: int) -> None:
        assert self.open.pop(id(request)) is request
        assert request.channel.session in self.sessions
        self.ended.append(
            (
                request.method,
                request.entry.name,
                outcome,
                request.bytes_in,
                bytes_out,
                request.wire.revision,
                duration_s,
            )
        )


async def observed(
    wire: Wire, observer: Observer, message: dict[str, Any]
) -> tuple[str, str, str, int, int, str, float]:
    """What the observer saw of one request."""
    observer.ended.clear()
    wire.send(message)
    await wire.answer(message["id"])
    (one,) = observer.ended
    return one


@all_revisions
@both_ways
@pytest.mark.parametrize("middleware", [True, False])
def test_every_request_is_seen_from_start_to_end(revision: str, warm: bool, middleware: bool) -> None:
    async def around(request: Any, call_next: Callable[[Any], Any]) -> Any:
        return await call_next(request)

    observer = Observer()
    server = make_server(middleware=[around] if middleware else [])
    server.observer = observer

    @server.tool(inline=True)
    def inline(text: str) -> str:
        return text

    @server.tool
    def thread(text: str) -> str:
        return text

    text = {"arguments": {"text": "é" * 10}}
    argument_errors = "error"
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        ("tools/call", {"name": "echo", **text}, "echo", "ok"),
        ("tools/call", {"name": "slow", **text}, "slow", "ok"),
        ("tools/call", {"name": "inline", **text}, "inline", "ok"),
        ("tools/call", {"name": "thread", **text}, "thread", "ok"),
        ("tools/call", {"name": "trace"}, "trace", "ok"),
        ("tools/call", {"name": "fails", "arguments": {"kind": "tool"}}, "fails", "error"),
        ("tools/call", {"name": "fails", "arguments": {"kind": "mcp"}}, "fails", "error"),
        ("tools/call", {"name": "fails", "arguments": {"kind": "x"}}, "fails", "error"),
        ("tools/call", {"name": "echo", "arguments": {"text": 5}}, "echo", argument_errors),
        ("tools/call", {"name": "inline", "arguments": {}}, "inline", argument_errors),
        ("tools/call", {"name": "nope"}, "", "error"),
        ("tools/list", {}, "", "ok"),
        ("resources/read", {"uri": "x://fixed"}, "", "ok"),
        ("resources/read", {"uri": "x://gone"}, "", "error"),
        ("prompts/get", {"name": "prompt"}, "", "ok"),
        ("no/such", {}, "", "error"),
    ]

    async def scenario() -> None:
        async with connected(server, revision, warm=warm) as wire:
            assert len(observer.sessions) == 1 and observer.sessions[0].peer.transport == "memory"
            for method, params, name, outcome in cases:
                message = wire.message(method, params)

                got = await observed(wire, observer, message)
                what = (method, params)
                assert got[0] == method, what
                # behind middleware the name of a tool is known while it runs, and given back
                assert got[1] == name or middleware, what
                assert got[2] == outcome, what
                assert got[3] == len(json.dumps(message)), what
                assert got[4] == len(wire.lines[-1]), what
                assert got[5] == revision and 0 <= got[6] < 5, what
            assert observer.open == {} and observer.closed == 0

    run(scenario())
    assert observer.closed == 1


@all_revisions
@both_ways
def test_a_cancelled_request_ends_cancelled(revision: str, warm: bool) -> None:
    observer = Observer()
    server = make_server()
    server.observer = observer

    async def scenario() -> None:
        async with connected(server, revision, warm=warm) as wire:
            observer.ended.clear()
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="f"))
            await wire.settle()
            assert len(observer.open) == 1
            wire.cancel("f")
            await wire.settle()
            (one,) = [one for one in observer.ended if one[1] == "forever"]
            assert one[2] == "cancelled" and one[4] == 0 and observer.open == {}
            wire.sent.clear()

    run(scenario())


def test_a_question_is_no_error() -> None:
    observer = Observer()
    server = make_server()
    server.observer = observer

    async def scenario() -> None:
        async with connected(server, MODERN, capabilities={"elicitation": {}}) as wire:
            assert (await observed(wire, observer, wire.message("tools/call", {"name": "asks"})))[
                2
            ] == "input_required"
            wire.capabilities = {}
            assert (await observed(wire, observer, wire.message("tools/call", {"name": "asks"})))[
                2
            ] == "error"

    run(scenario())


def test_requests_of_a_batch_are_seen() -> None:
    observer = Observer()
    server = make_server()
    server.observer = observer

    async def scenario() -> None:
        async with connected(server, "2025-03-26") as wire:
            observer.ended.clear()
            calls = [
                wire.message("tools/call", {"name": name, "arguments": {"text": "x"}})
                for name in ("echo", "slow", "nope")
            ]
            wire.send(
                [*calls, wire.message("ping"), {"jsonrpc": "2.0", "method": "notifications/unheard_of"}]
            )
            assert len(await wire.receive()) == 4
            assert sorted((one[0], one[1], one[2]) for one in observer.ended) == [
                ("ping", "", "ok"),
                ("tools/call", "", "error"),
                ("tools/call", "echo", "ok"),
                ("tools/call", "slow", "ok"),
            ]
            assert all(one[4] > 30 for one in observer.ended) and observer.open == {}

    run(scenario())


def test_what_ends_with_its_connection_is_seen_to_end() -> None:
    observer = Observer()
    server = make_server()
    server.observer = observer

    async def scenario() -> None:
        async with connected(server, open_session=False) as wire:
            await wire.initialize()
            wire.send(
                *[
                    wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}})
                    for _ in range(3)
                ]
            )
            await wire.settle()
            assert len(observer.open) == 3
        for _ in range(100):
            if not observer.open:
                break
            await asyncio.sleep(0.005)
        assert observer.open == {} and observer.closed == 1
        assert [one[2] for one in observer.ended if one[1] == "forever"] == ["cancelled"] * 3

    run(scenario())


# ---------------------------------------------------------------------------------------------------- trace context

TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "user=é",
}


@all_revisions
def test_trace_context_reaches_the_handler(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            result = await wire.call("trace", {}, **TRACE, other="x")

            seen = json.loads(text_of(result))
            assert seen["trace"] == TRACE and seen["meta"]["other"] == "x" and seen["id"].isdigit()
            read = await wire.request("resources/read", {"uri": "x://fixed"}, **TRACE)
            assert read["contents"][0]["text"] == str(TRACE)
            got = await wire.request("prompts/get", {"name": "prompt"}, **TRACE)
            assert got["messages"][0]["content"]["text"] == str(TRACE)
            without = json.loads(text_of(await wire.call("trace")))
            assert without["trace"] == {}
            odd = json.loads(
                text_of(await wire.call("trace", {}, traceparent=5, tracestate=None, baggage="b"))
            )
            assert odd["trace"] == {"baggage": "b"}  # what is no text is left out

    run(scenario())


@pytest.mark.parametrize("revision", LEGACY)
def test_meta_that_is_no_object(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for meta in (None, 5, "x", []):
                message = wire.message("tools/call", {"name": "trace", "arguments": {}, "_meta": meta})
                sent = {**message, "id": f"m{meta}"}
                wire.send(b'{"jsonrpc":"2.0","method":"notifications/x"}')  # its shape is not ours to hold
                wire._writer.write(msgspec.json.encode(sent) + b"\n")
                answer = await wire.receive()
                assert answer["id"] == sent["id"]
                if "result" in answer:
                    assert '"meta":{}' in text_of(answer)
                else:
                    assert answer["error"]["code"] == -32602

    run(scenario())


# ---------------------------------------------------------------------------------------------------- lifespan


@all_revisions
def test_lifespan(revision: str) -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(server: MCPServer[Any]) -> AsyncIterator[dict[str, Any]]:
        happened.append(f"open {server.name}")
        await asyncio.sleep(0)
        try:
            yield {"db": 42}
        finally:
            await asyncio.sleep(0)
            happened.append("close")

    server = make_server(lifespan=lifespan)

    @server.tool
    async def db(ctx: Context) -> int:
        happened.append("call")
        assert ctx.request_context.lifespan_context is ctx.lifespan_context
        return ctx.lifespan_context["db"]

    @server.resource("db://x")
    def in_thread(ctx: Context) -> str:
        return str(ctx.lifespan_context)

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            assert text_of(await wire.call("db")) == "42"
            read = await wire.request("resources/read", {"uri": "db://x"})
            assert read["contents"][0]["text"] == "{'db': 42}"
        assert happened == ["open around", "call", "close"]

    run(scenario())


def test_without_a_lifespan_there_is_none() -> None:
    server = make_server()

    @server.tool
    async def db(ctx: Context) -> bool:
        return ctx.lifespan_context is None

    async def scenario() -> None:
        async with connected(server) as wire:
            assert text_of(await wire.call("db")) == "true"

    run(scenario())


def test_a_lifespan_that_fails_lets_nobody_in() -> None:
    @asynccontextmanager
    async def lifespan(server: MCPServer[Any]) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    async def scenario() -> None:
        with pytest.raises(OSError, match="no database"):
            async with connected(make_server(lifespan=lifespan)):
                raise AssertionError("served all the same")

    run(scenario())


def test_a_lifespan_sees_why_the_serving_ended() -> None:
    ends: list[str] = []

    @asynccontextmanager
    async def lifespan(server: MCPServer[Any]) -> AsyncIterator[None]:
        try:
            yield
        except RuntimeError as error:
            ends.append(str(error))
            raise

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="stop"):
            async with connected(make_server(lifespan=lifespan)):
                raise RuntimeError("stop")

    run(scenario())
    assert ends == ["stop"]
