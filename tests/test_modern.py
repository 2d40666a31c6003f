"""The stateless era (2026-07-28): discovery, the envelope, caching, log levels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast import CacheHint, Context, Limits, MCPServer
from tests.wire import META, MODERN, connected, run

VERSION, CAPABILITIES, INFO, LEVEL = (
    META + name for name in ("protocolVersion", "clientCapabilities", "clientInfo", "logLevel")
)


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("modern", version="1", instructions="Be brief.", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def slow(text: str) -> str:
        await asyncio.sleep(0.005)
        return text

    @server.tool
    async def forever(text: str) -> str:
        await asyncio.sleep(1000)
        return text

    @server.tool
    async def logs(ctx: Context, wait: bool = False) -> str:
        for level in ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"):
            await ctx.log(level, {"at": level}, logger="mine")
            if wait:
                await asyncio.sleep(0)
        return "logged"

    @server.resource("x://fixed")
    async def fixed(ctx: Context) -> str:
        await ctx.info("reading")
        return "fixed"

    @server.resource("x://of/{name}")
    async def named(name: str) -> str:
        return name

    @server.prompt
    async def prompt(ctx: Context) -> str:
        await ctx.warning("prompting")
        return "prompt"

    @server.completion
    async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        return ["a"]

    return server


REQUESTS: dict[str, dict[str, Any]] = {
    "server/discover": {},
    "tools/list": {},
    "tools/call": {"name": "echo", "arguments": {"text": "x"}},
    "resources/list": {},
    "resources/templates/list": {},
    "resources/read": {"uri": "x://fixed"},
    "prompts/list": {},
    "prompts/get": {"name": "prompt"},
    "completion/complete": {
        "ref": {"type": "ref/prompt", "name": "prompt"},
        "argument": {"name": "x", "value": ""},
    },
    "subscriptions/listen": {"notifications": {}},
}
every_method = pytest.mark.parametrize("method", REQUESTS)


# ---------------------------------------------------------------------------------------------------- discovery, envelope


def test_discover() -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            result = await wire.request("server/discover")
            assert result == {
                "resultType": "complete",
                "supportedVersions": [MODERN],
                "capabilities": {
                    "tools": {"listChanged": True},
                    "resources": {"subscribe": True, "listChanged": True},
                    "prompts": {"listChanged": True},
                    "logging": {},
                    "completions": {},
                },
                "instructions": "Be brief.",
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": {META + "serverInfo": {"name": "modern", "version": "1"}},
            }

    run(scenario())


def with_meta(method: str, meta: Any) -> dict[str, Any]:
    params = {**REQUESTS[method], "_meta": meta}
    if meta is ...:
        del params["_meta"]
    return {"jsonrpc": "2.0", "id": "e", "method": method, "params": params}


@every_method
@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({VERSION: MODERN}, -32602),
        ({VERSION: MODERN, CAPABILITIES: None}, -32602),
        ({VERSION: MODERN, CAPABILITIES: [], "progressToken": 1}, -32602),
        ({VERSION: "v999.0.0", CAPABILITIES: {}}, -32022),
        ({VERSION: "2025-11-25", CAPABILITIES: {}}, -32022),
        ({VERSION: 20260728, CAPABILITIES: {}}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, LEVEL: "loud"}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, LEVEL: None}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, INFO: []}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, "progressToken": {}}, -32602),
    ],
)
@pytest.mark.parametrize("session", [True, False])
def test_every_method_reads_its_envelope(method: str, meta: Any, code: int, session: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=session) as wire:
            wire.send(with_meta(method, meta))
            error = (await wire.answer("e"))["error"]
            assert error["code"] == code
            if code == -32022:
                assert error["data"] == {"supported": [MODERN], "requested": meta[VERSION]}

    run(scenario())


@every_method
def test_every_method_without_its_envelope(method: str) -> None:
    """No session either: what only the modern era has says which member is missing, the rest asks for `initialize`."""

    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            for meta in (..., {}, {"progressToken": 1}, {CAPABILITIES: {}}):
                wire.send(with_meta(method, meta))
                error = (await wire.answer("e"))["error"]
                assert error["code"] == (
                    -32602 if method in ("server/discover", "subscriptions/listen") else -32600
                )
                wire.answers.clear()

    run(scenario())


@every_method
def test_every_method_needs_nothing_before_it(method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN, open_session=False) as wire:
            sent = wire.message(method, REQUESTS[method])
            del sent["params"]["_meta"][CAPABILITIES]
            sent["params"]["_meta"] |= {
                CAPABILITIES: {"x": {}},
                INFO: {"name": "n", "version": "1"},
                "a.b/c": [1],
                "traceparent": 5,
            }
            wire.send(sent)
            if method == "subscriptions/listen":
                await wire.other("notifications/subscriptions/acknowledged")
            else:
                assert "result" in await wire.answer(sent["id"])

    run(scenario())


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "unknown/method"]
)
@pytest.mark.parametrize("session", [True, False])
def test_legacy_methods_with_an_envelope(method: str, session: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=session) as wire:
            wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": "e",
                    "method": method,
                    "params": {
                        "uri": "x://fixed",
                        "level": "info",
                        "_meta": {VERSION: MODERN, CAPABILITIES: {}},
                    },
                }
            )
            assert (await wire.answer("e"))["error"]["code"] == -32601

    run(scenario())


# ---------------------------------------------------------------------------------------------------- caching hints


def test_caching_hints_are_private_and_stale_at_once_unless_said() -> None:
    async def scenario() -> None:
        hints = {
            "tools/list": CacheHint(60_000, "public"),
            "resources/read": CacheHint(5),
            "server/discover": CacheHint(0, "public"),
        }
        async with connected(make_server(cache_hints=hints, limits=Limits(page_items=1)), MODERN) as wire:
            for method in (
                "tools/list",
                "resources/read",
                "server/discover",
                "prompts/list",
                "resources/list",
            ):
                result = await wire.request(method, REQUESTS[method])
                expected = hints.get(method, CacheHint())
                assert (result["ttlMs"], result["cacheScope"]) == (expected.ttl_ms, expected.scope)
            cursor = (await wire.request("tools/list"))["nextCursor"]
            assert (await wire.request("tools/list", {"cursor": cursor}))[
                "cacheScope"
            ] == "public"  # the same on all pages

    run(scenario())


@pytest.mark.parametrize("hint", [CacheHint(-1), CacheHint(0, "shared"), CacheHint(0, "")])
def test_hints_that_make_no_sense(hint: CacheHint) -> None:
    with pytest.raises(ValueError, match="CacheHint"):
        make_server(cache_hints={"tools/list": hint})


# ---------------------------------------------------------------------------------------------------- log levels


@pytest.mark.parametrize("wait", [True, False])
def test_logs_come_for_the_request_that_asked_and_at_its_level(wait: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            arguments = {"name": "logs", "arguments": {"wait": wait}}
            for level, count in (("debug", 8), ("warning", 5), ("emergency", 1)):
                wire.others.clear()
                await wire.request("tools/call", arguments, logLevel=level)
                assert len(wire.others) == count
                assert wire.others[0]["params"] == {"level": level, "logger": "mine", "data": {"at": level}}
            wire.others.clear()
            await wire.request("tools/call", arguments)
            assert wire.others == []
            await wire.request("resources/read", {"uri": "x://fixed"}, logLevel="info")
            await wire.request("prompts/get", {"name": "prompt"}, logLevel="info")
            assert [one["params"]["data"] for one in wire.others] == ["reading", "prompting"]

    run(scenario())


def test_an_unknown_level_in_a_handler_is_its_error() -> None:
    server = make_server()

    @server.tool
    async def wrong(ctx: Context) -> str:
        try:
            await ctx.log("loud", "x")
        except ValueError as error:
            return str(error)
        return "no error"

    async def scenario() -> None:
        async with connected(server, MODERN) as wire:
            assert "'loud'" in (await wire.call("wrong"))["content"][0]["text"]

    run(scenario())


def test_a_modern_request_leaves_nothing_behind() -> None:
    """Capabilities, log level and client of one request are not those of the next (M4, M7)."""
    seen: list[Any] = []

    async def scenario() -> None:
        server = make_server()

        @server.tool
        async def who(ctx: Context) -> str:
            seen.append((ctx.client_capabilities, ctx.client_info))
            await ctx.log("emergency", "x")
            return "x"

        async with connected(server, MODERN) as wire:
            wire.capabilities = {"sampling": {}}
            sent = wire.message(
                "tools/call", {"name": "who"}, logLevel="debug", **{INFO: {"name": "n", "version": "1"}}
            )
            wire.send(sent)
            await wire.answer(sent["id"])
            assert len(wire.others) == 1
            wire.capabilities = {}
            await wire.call("who")
            assert len(wire.others) == 1
            assert seen == [({"sampling": {}}, {"name": "n", "version": "1"}), ({}, None)]

    run(scenario())
