"""Opening a connection: versions, capabilities, order; what exists in which revision (sections 2 and 5 of the protocol notes)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpfast import Context, MCPServer
from tests.wire import LEGACY, MODERN, REVISIONS, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)
legacy_revisions = pytest.mark.parametrize("revision", LEGACY)


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("lifecycle", version="1.2", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def client(ctx: Context) -> dict[str, Any]:
        return {
            "capabilities": ctx.client_capabilities,
            "info": ctx.client_info,
            "version": ctx.protocol_version,
            "same": ctx.request.revision == ctx.protocol_version,
        }

    return server


def hello(version: str = "2025-11-25", **changed: Any) -> dict[str, Any]:
    params = {
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "wire", "version": "1"},
        **changed,
    }
    return {name: value for name, value in params.items() if value is not ...}


async def added() -> str:
    return "added"


# ---------------------------------------------------------------------------------------------------- the handshake


@legacy_revisions
def test_a_version_we_have_is_answered_with_itself(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(instructions="Be brief."), revision, open_session=False) as wire:
            result = await wire.initialize()
            assert result["protocolVersion"] == revision
            assert result["serverInfo"] == {"name": "lifecycle", "version": "1.2"}
            assert result["instructions"] == "Be brief."
            assert (await wire.call("client"))["content"][0]["text"].find(f'"{revision}"') > 0

    run(scenario())


@pytest.mark.parametrize("asked", [MODERN, "1999-01-01", "2025-11-26", "", "latest", "2025-11-25 "])
def test_a_version_we_have_not_is_answered_with_our_latest_handshake(asked: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), open_session=False) as wire:
            assert (await wire.request("initialize", hello(asked)))["protocolVersion"] == "2025-11-25"
            assert (await wire.call("echo", {"text": "x"}))["structuredContent"] == {"result": "x"}

    run(scenario())


@pytest.mark.parametrize(
    "params",
    [
        {},
        hello(protocolVersion=...),
        hello(capabilities=...),
        hello(clientInfo=...),
        hello(protocolVersion=5),
        hello(capabilities=[]),
        hello(clientInfo="me"),
        hello(protocolVersion=None),
    ],
)
def test_a_broken_initialize_opens_nothing(params: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with connected(make_server(), open_session=False) as wire:
            assert (await wire.error("initialize", params))["code"] == -32602
            assert (await wire.error("tools/list"))["code"] == -32600
            await wire.initialize()  # and may be tried again
            assert await wire.call("echo", {"text": "x"})

    run(scenario())


def test_a_session_is_initialized_once() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2024-11-05") as wire:
            assert (await wire.error("initialize", hello("2025-11-25")))["code"] == -32600
            assert "structuredContent" not in await wire.call(
                "echo", {"text": "x"}
            )  # still the first revision

    run(scenario())


@legacy_revisions
def test_a_client_may_send_everything_at_once(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            messages = [
                wire.message("ping"),
                wire.message("initialize", hello(revision)),
                {"jsonrpc": "2.0", "method": "notifications/initialized"},
                wire.message("tools/list"),
                wire.message("tools/call", {"name": "echo", "arguments": {"text": "x"}}),
            ]
            wire.send(*messages)
            for message in messages:
                if "id" in message:
                    assert "result" in await wire.answer(message["id"])
            assert list(wire.answers) == [one["id"] for one in messages if "id" in one]

    run(scenario())


@legacy_revisions
def test_requests_between_initialize_and_initialized_are_served(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            await wire.request("initialize", hello(revision))
            assert (await wire.call("echo", {"text": "x"}))["content"][0]["text"] == "x"

    run(scenario())


@legacy_revisions
def test_initialize_cannot_be_cancelled(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            message = wire.message("initialize", hello(revision), id="first")
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "first"}}
            wire.send(cancel, message, cancel)
            assert (await wire.answer("first"))["result"]["protocolVersion"] == revision
            assert await wire.request("tools/list")

    run(scenario())


def test_initialize_must_not_be_in_a_batch() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-03-26", open_session=False) as wire:
            wire.send(b'[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]')
            assert (await wire.receive())["error"]["code"] == -32600
            await wire.initialize()
            wire.send([wire.message("initialize", hello("2025-03-26"), id="i"), wire.message("ping", id="p")])
            refused, pong = await wire.receive()
            assert refused["id"] == "i" and refused["error"]["code"] == -32600
            assert pong["id"] == "p" and pong["result"] == {}

    run(scenario())


@legacy_revisions
def test_ping_at_any_time(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            assert await wire.request("ping") == {}
            await wire.request("initialize", hello(revision))
            assert await wire.request("ping", {"_meta": {"progressToken": "x"}}) == {}
            wire.notify("notifications/initialized")
            assert await wire.request("ping") == {}

    run(scenario())


@legacy_revisions
def test_lists_that_change_are_told_to_ready_sessions_only(revision: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision, open_session=False) as wire:
            wire.notify("notifications/initialized")  # too early, means nothing
            server.add_tool(added, name="one")
            await wire.settle()
            await wire.request("initialize", hello(revision))
            server.add_tool(added, name="two")
            await wire.settle()
            assert wire.others == []
            wire.notify("notifications/initialized")
            await wire.settle()
            server.add_tool(added, name="three")
            await wire.settle()
            assert [one["method"] for one in wire.others] == ["notifications/tools/list_changed"]
            wire.notify("notifications/initialized")  # twice means nothing either
            server.add_tool(added, name="four")
            await wire.settle()
            assert len(wire.others) == 2

    run(scenario())


# ---------------------------------------------------------------------------------------------------- capabilities


@all_revisions
def test_what_is_declared(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            declared = (await wire.initialize())["capabilities"]
            assert declared == {
                "tools": {"listChanged": True},
                "resources": {"subscribe": True, "listChanged": True},
                "prompts": {"listChanged": True},
                "logging": {},
            }

    run(scenario())


@all_revisions
def test_completions_are_declared_since_2025_03_26_and_only_where_served(revision: str) -> None:
    async def scenario() -> None:
        ask = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}
        without, server = make_server(), make_server()

        @without.prompt
        async def p(a: str) -> str:
            return a

        server.add_prompt(p)

        @server.completion
        async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
            return ["x"]

        async with connected(without, revision, open_session=False) as wire:
            assert "completions" not in (await wire.initialize())["capabilities"]
            assert (await wire.error("completion/complete", ask))["code"] == -32601
        async with connected(server, revision, open_session=False) as wire:
            assert ("completions" in (await wire.initialize())["capabilities"]) is (revision != "2024-11-05")
            assert (await wire.request("completion/complete", ask))["completion"]["values"] == ["x"]

    run(scenario())


@all_revisions
def test_what_a_client_declares_is_kept_whole(revision: str) -> None:
    capabilities = {
        "sampling": {"later": {"x": [1, None]}},
        "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}},
        "experimental": {"mine": {}},
        "unheardOf": {"a": 1.5},
    }

    async def scenario() -> None:
        async with connected(make_server(), revision, capabilities=capabilities) as wire:
            result = await wire.call("client")
            seen = json.loads(result["content"][0]["text"])
            assert seen["capabilities"] == capabilities
            assert seen["info"] == (None if revision == MODERN else {"name": "wire", "version": "1"})
            assert seen["version"] == revision and seen["same"] is True

    run(scenario())


def test_client_info_of_a_modern_request_is_its_own() -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            info = {"name": "me", "version": "3", "icons": []}
            sent = wire.message(
                "tools/call", {"name": "client"}, **{"io.modelcontextprotocol/clientInfo": info}
            )
            wire.send(sent)
            assert (await wire.answer(sent["id"]))["result"]["structuredContent"]["info"] == info
            assert (await wire.call("client"))["structuredContent"]["info"] is None

    run(scenario())


# ---------------------------------------------------------------------------------------------------- what exists where

EVERYWHERE = ["tools/list", "resources/list", "resources/templates/list", "prompts/list"]
LEGACY_ONLY = ["ping", "initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
MODERN_ONLY = ["server/discover", "subscriptions/listen"]
# Methods of clients or of extensions that this server does not declare, and what looks like a method.
NOWHERE = [
    "tasks/get",
    "tasks/result",
    "tasks/list",
    "tasks/cancel",
    "tasks/update",
    "sampling/createMessage",
    "roots/list",
    "elicitation/create",
    "notifications/initialized",
    "Tools/list",
    "tools/list ",
    "tools",
    "",
    "__class__",
    "rpc.discover",
]


@all_revisions
@pytest.mark.parametrize("method", NOWHERE)
def test_methods_that_no_server_of_ours_has(revision: str, method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            error = await wire.error(method, {"taskId": "x"})
            assert error["code"] == -32601

    run(scenario())


@all_revisions
def test_methods_of_the_other_era(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for method in LEGACY_ONLY if revision == MODERN else MODERN_ONLY:
                assert (await wire.error(method, {"notifications": {}, "uri": "x:", "level": "info"}))[
                    "code"
                ] == -32601
            for method in EVERYWHERE:
                assert await wire.request(method)

    run(scenario())


@all_revisions
def test_the_server_describes_itself_as_the_revision_knows(revision: str) -> None:
    server: MCPServer[Any] = MCPServer(
        "full",
        title="The full one",
        description="All there is",
        website_url="https://example.org",
        icons=[{"src": "https://example.org/i.png", "sizes": ["48x48"]}],
        version="2",
    )
    known = {"name": "full", "version": "2"}
    if revision >= "2025-06-18":
        known["title"] = "The full one"
    if revision >= "2025-11-25":
        known |= {
            "description": "All there is",
            "websiteUrl": "https://example.org",
            "icons": [{"src": "https://example.org/i.png", "sizes": ["48x48"]}],  # type: ignore[dict-item]
        }

    async def scenario() -> None:
        async with connected(server, revision, open_session=False) as wire:
            result = await wire.initialize()
            if revision == MODERN:
                assert "serverInfo" not in result
                assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == known
            else:
                assert result["serverInfo"] == known
            assert "instructions" not in result

    run(scenario())


def test_two_connections_of_one_server_have_sessions_of_their_own() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2024-11-05") as old, connected(server, "2025-11-25") as new:
            assert "structuredContent" not in await old.call("echo", {"text": "x"})
            assert "structuredContent" in await new.call("echo", {"text": "x"})
            async with connected(server, "2025-06-18", open_session=False) as closed:
                assert (await closed.error("tools/list"))["code"] == -32600

    run(scenario())


def test_wire_itself_refuses_what_a_revision_does_not_know() -> None:
    """The tests lean on it."""
    from tests.wire import hold

    answer: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"tools": [{"name": "x", "inputSchema": {"type": "object"}}]},
    }
    hold("2024-11-05", answer, "tools/list")
    answer["result"]["tools"][0]["title"] = "X"
    hold("2025-06-18", answer, "tools/list")
    for message, revision in (
        (answer, "2024-11-05"),
        ({**answer, "more": 1}, "2025-06-18"),
        (answer, MODERN),
    ):
        with pytest.raises(Exception, match=r"."):
            hold(revision, message, "tools/list")


def test_wire_itself_refuses_what_nobody_asked_for() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25") as wire:
            for message in (
                {"jsonrpc": "2.0", "id": 77, "result": {}},
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": 1, "progress": 1},
                },
            ):
                with pytest.raises(AssertionError):
                    wire._hold(message)

    run(scenario())
