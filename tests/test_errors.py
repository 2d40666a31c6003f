"""What an error becomes: for the model, for the client, for the log; and what never leaves the house."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

import mcpfast
from mcpfast import Context, MCPError, MCPServer, ResourceNotFound, ToolError
from tests.wire import MODERN, REVISIONS, Wire, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)
SECRET = "hunter2"
INCIDENT = re.compile(r"Incident ([0-9a-f]{12})")


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even its text fails")


def raising(kind: str) -> None:
    if kind == "tool":
        raise ToolError("try a smaller number")
    if kind == "mcp":
        raise MCPError(-4711, "not today", {"until": "tomorrow"})
    if kind == "plain mcp":
        raise MCPError(-4712, "no data")
    if kind == "missing":
        raise ResourceNotFound("x://gone")
    if kind == "odd":
        raise OddError
    if kind == "group":
        raise ExceptionGroup("several", [ValueError(SECRET), KeyError(SECRET)])
    if kind == "exit":
        raise SystemExit(SECRET)
    if kind == "interrupt":
        raise asyncio.CancelledError(SECRET)
    if kind == "stop":
        raise StopAsyncIteration(SECRET)
    raise ValueError(f"password {SECRET} at {__file__}")


# What each way of failing is, other than an incident.
KNOWN = {
    "mcp": {"code": -4711, "message": "not today", "data": {"until": "tomorrow"}},
    "plain mcp": {"code": -4712, "message": "no data"},
}
INCIDENTS = ["value", "group", "odd", "stop"]


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("errors", version="1", **options)

    @server.tool
    async def hot(kind: str) -> str:
        raising(kind)
        return "no"

    @server.tool
    async def late(kind: str) -> str:
        await asyncio.sleep(0.001)
        raising(kind)
        return "no"

    @server.tool
    async def with_context(kind: str, ctx: Context) -> int:
        raising(kind)
        return 1

    @server.tool
    def in_thread(kind: str) -> str:
        raising(kind)
        return "no"

    @server.tool(inline=True)
    def inline(kind: str) -> str:
        raising(kind)
        return "no"

    @server.tool
    async def asked_too_much(kind: str) -> object:
        return {"cannot be": object()} if kind == "value" else raising(kind)

    @server.prompt
    async def prompt(kind: str) -> str:
        raising(kind)
        return "no"

    @server.resource("fail://{kind}")
    async def resource(kind: str) -> str:
        raising(kind.replace("-", " "))
        return "no"

    @server.completion
    async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        raising(argument.value)
        return []

    return server


TOOLS = ["hot", "late", "with_context", "in_thread", "inline"]


def requests(kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """A failing request of every other method that runs a handler."""
    return {
        "prompt": ("prompts/get", {"name": "prompt", "arguments": {"kind": kind}}),
        "resource": ("resources/read", {"uri": f"fail://{kind.replace(' ', '-')}"}),
        "completion": (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "prompt"}, "argument": {"name": "kind", "value": kind}},
        ),
    }


async def alive(wire: Wire) -> None:
    assert await wire.request("tools/list")


def logged(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """The log's part of an incident, found by the id that the client was told."""
    (found,) = INCIDENT.findall(text)
    (record,) = [one for one in caplog.records if found in one.getMessage()]
    assert record.levelname == "ERROR" and record.name == "mcpfast" and record.exc_info
    return caplog.handler.format(record)


@all_revisions
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_error_is_for_the_model(revision: str, tool: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            result = await wire.call(tool, {"kind": "tool"})
            assert result["isError"] is True
            assert result["content"] == [{"type": "text", "text": "try a smaller number"}]
            assert "structuredContent" not in result
            await alive(wire)

    run(scenario())
    assert not caplog.records  # told, not logged


@all_revisions
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", KNOWN)
def test_an_mcp_error_of_a_tool_is_a_protocol_error(revision: str, tool: str, kind: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            assert await wire.error("tools/call", {"name": tool, "arguments": {"kind": kind}}) == KNOWN[kind]
            await alive(wire)

    run(scenario())


@all_revisions
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", INCIDENTS)
def test_an_unexpected_error_of_a_tool_leaks_nothing(
    revision: str, tool: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> str:
        async with connected(make_server(), revision) as wire:
            result = await wire.call(tool, {"kind": kind})
            assert result["isError"] is True and "structuredContent" not in result
            (block,) = result["content"]
            await alive(wire)
            line = b"".join(wire.lines)
            for leak in (SECRET, "Error", "Traceback", ".py", "tests"):
                assert leak.encode() not in line.replace(b'"isError"', b""), leak
            return block["text"]

    text = run(scenario())
    assert tool in text and "\n" not in text
    record = logged(caplog, text)
    assert tool in record
    assert "Traceback" in record and "raising" in record
    assert (SECRET in record) is (kind != "odd")


@all_revisions
@pytest.mark.parametrize("what", ["prompt", "resource", "completion"])
@pytest.mark.parametrize("kind", INCIDENTS)
def test_an_unexpected_error_elsewhere_is_32603(
    revision: str, what: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> str:
        async with connected(make_server(), revision) as wire:
            method, params = requests(kind)[what]
            error = await wire.error(method, params)
            assert error.keys() == {"code", "message"} and error["code"] == -32603
            assert SECRET not in error["message"] and "Error" not in error["message"]
            await alive(wire)
            return error["message"]

    text = run(scenario())
    record = logged(caplog, text)
    assert requests(kind)[what][0] in record and "Traceback" in record


@all_revisions
@pytest.mark.parametrize("what", ["prompt", "resource", "completion"])
def test_known_errors_elsewhere(revision: str, what: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for kind, expected in KNOWN.items():
                method, params = requests(kind)[what]
                assert await wire.error(method, params) == expected
            method, params = requests("tool")[what]  # no model reads it here
            error = await wire.error(method, params)
            assert error == {"code": -32603, "message": "try a smaller number"}
            await alive(wire)

    run(scenario())


@all_revisions
def test_resource_not_found_has_the_code_of_its_revision_wherever_it_is_raised(revision: str) -> None:
    code = -32602 if revision == MODERN else -32002

    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for method, params in requests("missing").values():
                error = await wire.error(method, params)
                assert error["code"] == code and error["data"] == {"uri": "x://gone"}
            for tool in TOOLS:
                error = await wire.error("tools/call", {"name": tool, "arguments": {"kind": "missing"}})
                assert error["code"] == code and error["data"] == {"uri": "x://gone"}

    run(scenario())


@all_revisions
def test_a_result_that_cannot_be_written_is_an_incident(
    revision: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> str:
        async with connected(make_server(), revision) as wire:
            result = await wire.call("asked_too_much", {"kind": "value"})
            assert result["isError"] is True
            await alive(wire)
            return result["content"][0]["text"]

    assert "object" in logged(caplog, run(scenario()))


@all_revisions
def test_a_result_against_its_annotation_is_an_incident(
    revision: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()

    @server.tool
    async def wrong(kind: str) -> int:
        return "many"  # type: ignore[return-value]

    @server.tool
    async def no_text(kind: str) -> str:
        return 5  # type: ignore[return-value]

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            for tool in ("wrong", "no_text"):
                result = await wire.call(tool, {"kind": "x"})
                assert result["isError"] is True and "many" not in result["content"][0]["text"]

    run(scenario())
    assert len(caplog.records) == 2


@all_revisions
@pytest.mark.parametrize("tool", TOOLS)
def test_debug_shows_the_traceback(revision: str, tool: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(debug=True), revision) as wire:
            text = (await wire.call(tool, {"kind": "value"}))["content"][0]["text"]
            assert "Traceback" in text and SECRET in text and "raising" in text
            for method, params in requests("value").values():
                message = (await wire.error(method, params))["message"]
                assert "Traceback" in message and SECRET in message

    run(scenario())


@pytest.mark.parametrize("tool", ["hot", "late", "inline"])
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("many", [1, 40])
def test_a_handler_that_cancels_itself_to_death_is_answered(tool: str, warm: bool, many: int) -> None:
    """Nothing is lost: a CancelledError that nobody asked for is an error like any other."""

    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", warm=warm) as wire:
            calls = [
                wire.message("tools/call", {"name": tool, "arguments": {"kind": "interrupt"}})
                for _ in range(many)
            ]
            wire.send(*calls)
            for call in calls:
                assert (await wire.answer(call["id"]))["result"]["isError"] is True
            await alive(wire)

    run(scenario())


@all_revisions
def test_every_failing_call_of_a_burst_is_answered_once(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            kinds = ["tool", "mcp", "value", "odd", "group", "missing"]
            calls = [
                wire.message("tools/call", {"name": tool, "arguments": {"kind": kind}})
                for _ in range(5)
                for tool in TOOLS
                for kind in kinds
            ]
            wire.send(*calls)
            for call in calls:
                answer = await wire.answer(call["id"])
                protocol = call["params"]["arguments"]["kind"] in ("mcp", "missing")
                assert ("error" in answer) is protocol
            assert (
                len({INCIDENT.search(line.decode()).group(1) for line in wire.lines if b"Incident" in line})
                == 75
            )  # type: ignore[union-attr]

    run(scenario())


def test_codes_of_handlers_may_be_anything() -> None:
    server: MCPServer[Any] = MCPServer("codes")

    @server.tool
    async def fail(code: int) -> str:
        raise MCPError(code, 'é\n"quoted"')

    async def scenario() -> None:
        async with connected(server, "2025-11-25") as wire:
            for code in (0, 1, -1, 2**31, -32000, -32602):
                sent = wire.message("tools/call", {"name": "fail", "arguments": {"code": code}})
                wire.send(sent)
                line = await wire.reader.readline()
                assert json.loads(line)["error"] == {"code": code, "message": 'é\n"quoted"'}
                wire.sent.clear()

    run(scenario())


@all_revisions
def test_what_a_client_wrote_is_quoted_in_one_short_line(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            name = "no\nsuch\targument" + "x" * 20_000
            answer = await wire.ask("tools/call", {"name": "hot", "arguments": {name: 1}})
            text = answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"]
            assert "no such argument" in text and len(text) < 2_000
            for method, params in (
                ("prompts/get", {"name": "prompt", "arguments": {name: "x", "kind": "x"}}),
                ("prompts/get", {"name": name}),
                ("completion/complete", {"ref": {"type": name}, "argument": {"name": "x", "value": ""}}),
                ("tools/call", {"name": name}),
                ("resources/read", {"uri": name}),
                (name, {}),
            ):
                message = (await wire.error(method, params))["message"]
                assert len(message) < 2_000, method

    run(scenario())


@pytest.mark.parametrize("name", ["FastMCP", "FastMCPServer", "Server"])
def test_what_others_call_the_server_is_answered_with_our_name(name: str) -> None:
    sentence = f"mcpfast has no {name}; its class is MCPServer: from mcpfast import MCPServer"
    with pytest.raises(ImportError, match=sentence):
        exec(f"from mcpfast import {name}")
    with pytest.raises(AttributeError, match=sentence):
        getattr(mcpfast, name)
    assert not hasattr(mcpfast, name)


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'mcpfast'"):
        exec("from mcpfast import Nothing")
    with pytest.raises(AttributeError, match="module 'mcpfast' has no attribute 'Nothing'"):
        getattr(mcpfast, "Nothing")  # noqa: B009 - mypy knows better
