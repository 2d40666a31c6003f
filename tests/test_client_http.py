"""The client over Streamable HTTP against servers of the official SDK, in every shape that they have."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpfast.client import (
    Client,
    HttpError,
    PromptsListChanged,
    RequestTimeout,
    ResourceUpdated,
    ToolsListChanged,
    http,
)
from mcpfast.client.events import ResourceUpdatedNotification, ToolListChangedNotification
from mcpfast.errors import ConnectionClosed, MCPError
from mcpfast.protocol import types
from tests.http_peer import Peer
from tests.test_client_fake import MODERN, run

pytest.importorskip("aiohttp", reason="the client needs it for HTTP: pip install 'mcpfast[http]'")

# ---------------------------------------------------------------- the official server, in every shape

SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "modern": ({}, "auto"),
    "modern, JSON": ({"json_response": True}, "auto"),
    "2025-11-25": ({"events": True}, "legacy"),
    "2025-11-25, JSON": ({"json_response": True}, "legacy"),
    "2025-11-25, stateless": ({"stateless_http": True}, "legacy"),
    "2025-06-18": ({"events": True}, "2025-06-18"),
    "2025-03-26": ({}, "2025-03-26"),
}


class Live:
    """A client of one server, connected for all tests of one shape."""

    def __init__(self, peer: Peer, shape: str) -> None:
        self.runner = asyncio.Runner()
        self.shape = shape
        self.messages: list[Any] = []
        self.logs: list[Any] = []
        self.authorized = 0
        self.client = Client(
            peer.url,
            mode=SHAPES[shape][1],
            timeout_s=20,
            headers={"X-Tenant": "acme"},
            authorization=self.authorize,
            elicitation_callback=lambda *_: {"n": 3},
            sampling_callback=lambda *_: "hello",
            roots=["/srv/files"],
            logging_callback=self.logs.append,
            message_handler=self.messages.append,
            log_level="info",
        )

    async def authorize(self) -> str:
        self.authorized += 1
        return f"Bearer t-{self.authorized}"

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @property
    def modern(self) -> bool:
        return self.shape.startswith("modern")

    @property
    def asks(self) -> bool:
        """Whether questions come through: as requests of the server they need a session, and a stream."""
        return self.modern or not ("JSON" in self.shape or "stateless" in self.shape)

    async def seen(self) -> list[tuple[str, dict[str, str]]]:
        found = (await self.client.call_tool("requests_seen")).data
        return [(verb, json.loads(headers)) for verb, headers in found]


@pytest.fixture(scope="module", params=list(SHAPES))
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    peer = Peer(tmp_path_factory.mktemp("peer"), **SHAPES[request.param][0])
    live = Live(peer, request.param)
    with live.runner:
        try:
            live.run(peer.start())
            live.run(live.client.__aenter__())
            yield live
            live.run(live.client.__aexit__(None, None, None))
            assert not asyncio.all_tasks(live.runner.get_loop())
        finally:
            peer.stop()


def test_what_was_agreed_on(live: Live) -> None:
    expected = MODERN if live.modern else live.shape[:10]
    assert live.client.protocol_version == expected
    assert live.client.server_info is not None
    assert live.client.server_info.name == "peer"
    assert live.client.instructions == "Be kind."
    assert live.run(live.client.ping()) is True


def test_the_verbs(live: Live) -> None:
    async def test() -> None:
        client = live.client
        assert {"add", "steps"} <= {tool.name async for tool in client.list_tools_all()}
        assert (await client.call_tool("add", {"a": 40})).data == 42
        assert (await client.call_tool("fail")).is_error
        both = await asyncio.gather(*(client.call_tool("add", {"a": i, "b": i}) for i in range(40)))
        assert [result.data for result in both] == [2 * i for i in range(40)]
        read = await client.read_resource("note://moin")
        assert [content.text for content in read.contents] == ["note moin"]  # type: ignore[union-attr]
        prompt = await client.get_prompt("review", {"code": "x = 1"})
        assert isinstance(prompt.messages[0].content, types.TextContent)
        completed = await client.complete(
            types.PromptReference(name="review"), {"name": "code", "value": "t"}
        )
        assert completed.completion.values == ["tone", "ttwo"]
        with pytest.raises(MCPError):
            await client.get_prompt("none")

    live.run(test())


def test_progress_and_logs_come_before_the_answer(live: Live) -> None:
    async def test() -> None:
        told: list[tuple[float, float | None, str | None]] = []
        result = await live.client.call_tool(
            "steps", {"count": 3}, progress_callback=lambda *step: told.append(step)
        )
        assert result.text == "done"
        live.logs.clear()
        assert (await live.client.call_tool("chatty")).text == "said"
        if "JSON" not in live.shape:
            assert told == [(i, 3, f"step {i}") for i in (1, 2, 3)]
            assert [log.level for log in live.logs] == ["warning"]

    live.run(test())


def test_questions(live: Live) -> None:
    if not live.asks:
        pytest.skip("this shape has no way for questions")

    async def test() -> None:
        client = live.client
        assert (await client.call_tool("ask")).text == "accept 3"
        assert (await client.call_tool("sample")).text == "hello"
        assert (await client.call_tool("roots")).data == ["file:///srv/files"]
        assert (await client.call_tool("both")).text == "3 hello"

    live.run(test())


def test_what_a_request_says_in_its_head(live: Live) -> None:
    async def test() -> None:
        client = live.client
        await client.read_resource("note://grüße")
        *_, (_, read), (verb, call) = await live.seen()
        assert (verb, call["x-tenant"], call["content-type"]) == ("POST", "acme", "application/json")
        assert call["accept"] == "application/json, text/event-stream"
        assert call["authorization"] == f"Bearer t-{live.authorized}"  # a new one each time
        assert call["authorization"] != read["authorization"]
        if live.modern:
            assert call["mcp-protocol-version"] == MODERN
            assert (call["mcp-method"], call["mcp-name"]) == ("tools/call", "requests_seen")
            assert read["mcp-name"] == "=?base64?bm90ZTovL2dyw7zDn2U=?="
            assert "mcp-session-id" not in call
        else:
            assert call.get("mcp-protocol-version") == (
                None if live.shape == "2025-03-26" else live.shape[:10]
            )
            assert ("mcp-session-id" in call) == ("stateless" not in live.shape)
            assert "mcp-method" not in call

    live.run(test())


def test_a_call_that_nobody_waits_for_is_cancelled(live: Live) -> None:
    if "JSON" in live.shape or "stateless" in live.shape:
        pytest.skip("the official server does not notice in this shape")

    async def test() -> None:
        client = live.client
        with pytest.raises(RequestTimeout, match="No answer to tools/call within"):
            await client.call_tool("sleep", {"seconds": 30}, timeout_s=0.3)
        async with asyncio.timeout(5):
            while "cancelled" not in (await client.call_tool("what_was_seen")).data:
                await asyncio.sleep(0.02)
        assert (await client.call_tool("add", {"a": 1})).data == 3

    live.run(test())


def test_changes(live: Live) -> None:
    async def modern() -> None:
        client = live.client
        async with client.listen(tools_list_changed=True, resource_subscriptions=["note://a"]) as events:
            assert events.honored.tools_list_changed
            await client.call_tool("grow")
            async with asyncio.timeout(5):
                assert {await anext(events), await anext(events)} == {
                    ToolsListChanged(),
                    ResourceUpdated("note://a"),
                }

    async def legacy() -> None:  # over the GET stream, which is open a moment after the session is
        client = live.client
        async with asyncio.timeout(5):
            while "GET" not in [verb for verb, _ in await live.seen()]:
                await asyncio.sleep(0.02)
        live.messages.clear()
        await client.call_tool("grow")
        async with asyncio.timeout(5):
            while not {ToolListChangedNotification, ResourceUpdatedNotification} <= {
                *map(type, live.messages)
            }:
                await asyncio.sleep(0.02)

    if "stateless" in live.shape:
        pytest.skip("without a session there is no stream")
    live.run(modern() if live.modern else legacy())


def test_arguments_in_headers(live: Live) -> None:
    async def test() -> None:
        client = Client(live.client._transport, mode=SHAPES[live.shape][1], timeout_s=20)
        async with client:
            # Nobody has listed the tools: the first call is refused for its headers, and sent again.
            assert (await client.call_tool("measured", {"region": "west 1"})).text == "west 1 1"
            arguments = {"region": " süd", "count": -7}
            assert (await client.call_tool("measured", arguments)).text == " süd -7"
            found = json.loads((await client.call_tool("requests_seen")).data[-2][1])
            with (
                pytest.raises(ValueError, match="'count' cannot be sent")
                if live.modern
                else (contextlib.nullcontext())
            ):
                await client.call_tool("measured", {"region": "", "count": 2**53})
        sent = {name: value for name, value in found.items() if name.startswith("mcp-param")}
        mirrored = {"mcp-param-region": "=?base64?IHPDvGQ=?=", "mcp-param-count": "-7"}
        assert sent == (mirrored if live.modern else {})

    live.run(live.client.__aexit__(None, None, None))
    try:
        live.run(test())
    finally:
        live.run(live.client.__aenter__())


def test_a_session_is_ended_by_whoever_began_it(live: Live) -> None:
    async def test() -> None:
        await live.client.__aexit__(None, None, None)
        await live.client.__aenter__()
        ended = [headers for verb, headers in await live.seen() if verb == "DELETE"]
        assert bool(ended) == (not live.modern and "stateless" not in live.shape)
        assert all("mcp-session-id" in headers for headers in ended)

    live.run(test())


def test_a_stream_that_the_server_interrupts_is_taken_up(live: Live) -> None:
    if live.shape != "2025-11-25":
        pytest.skip("only here the server keeps events and interrupts streams")

    async def test() -> None:
        told: list[float] = []
        result = await live.client.call_tool("polled", progress_callback=lambda now, *_: told.append(now))
        assert (result.text, told) == ("polled", [1, 2])
        assert any("last-event-id" in headers for verb, headers in await live.seen() if verb == "GET")

    live.run(test())


# ---------------------------------------------------------------- the official server comes and goes


@contextlib.asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[Peer]:
    peer = Peer(folder, **options)
    try:
        await peer.start()
        yield peer
    finally:
        peer.stop()


def test_a_server_that_has_forgotten_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RESUME_S", 0.05)

    async def test() -> None:
        messages: list[Any] = []
        async with served(tmp_path) as peer:
            async with Client(
                peer.url, mode="legacy", timeout_s=20, log_level="warning", message_handler=messages.append
            ) as client:
                assert (await client.call_tool("add", {"a": 1})).data == 3
                peer.stop()
                with pytest.raises(ConnectionClosed, match=r"Connection refused|broke"):
                    await client.call_tool("add", {"a": 2})
                await peer.start()
                # Side by side: one new session for all of them.
                calls = (client.call_tool("add", {"a": i}) for i in range(5))
                assert [result.data for result in await asyncio.gather(*calls)] == [2, 3, 4, 5, 6]
                seen = (await client.call_tool("requests_seen")).data
                sessions = [json.loads(told).get("mcp-session-id") for verb, told in seen if verb == "POST"]
                assert sessions.count(None) == 1
                # The stream of what belongs to no call is there again, too.
                async with asyncio.timeout(10):
                    while not any(isinstance(message, ToolListChangedNotification) for message in messages):
                        await client.call_tool("grow")
                        await asyncio.sleep(0.05)

    run(test())


def test_a_listen_stream_that_breaks_is_opened_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as peer, Client(peer.url, timeout_s=20) as client:
            wanted = {"prompts_list_changed": True, "resource_subscriptions": ["note://a"]}
            async with client.listen(**wanted) as events:  # type: ignore[arg-type]
                first = events.id
                peer.stop()
                await asyncio.sleep(0.1)
                await peer.start()
                async with asyncio.timeout(10):  # whatever may have happened meanwhile
                    told = {await anext(events), await anext(events)}
                assert told == {PromptsListChanged(), ResourceUpdated("note://a")}
                assert events.id != first
                await client.call_tool("grow")
                async with asyncio.timeout(5):
                    assert await anext(events) == ResourceUpdated("note://a")
                peer.stop()

    run(test())


def test_the_old_transport_and_a_wrong_path(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path, sse=True) as peer:
            base = peer.url.removesuffix("/mcp")
            with pytest.raises(
                HttpError, match=r"/sse answered initialize with HTTP 405 .*old HTTP\+SSE"
            ) as refused:
                await Client(base + "/sse").__aenter__()
            assert refused.value.status == 405
            with pytest.raises(HttpError, match=r"/nowhere answered initialize with HTTP 404 Not Found"):
                await Client(base + "/nowhere").__aenter__()

    run(test())
