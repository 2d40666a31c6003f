"""The client against real servers over stdio, in both eras. The servers stand in `test_client_servers.py`."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpfast.client import Client, RequestTimeout, ResourceUpdated, ToolsListChanged
from mcpfast.client.events import ResourceUpdatedNotification, ToolListChangedNotification
from mcpfast.errors import INVALID_PARAMS, METHOD_NOT_FOUND, ConnectionClosed, MCPError, ToolError
from mcpfast.protocol import types
from tests.test_client_servers import PEERS, Peer

ERAS = {"modern": "auto", "2025-11-25": "legacy", "2025-06-18": "2025-06-18"}


class Live:
    """One connected client for all tests of one server and era; the callbacks are what a test sets."""

    def __init__(self, command: list[str], mode: str) -> None:
        self.runner = asyncio.Runner()
        self.elicit: Any = None
        self.sample: Any = None
        self.messages: list[Any] = []
        self.logs: list[Any] = []
        self.client = Client.stdio(
            command,
            stderr=subprocess.DEVNULL,
            mode=mode,
            timeout_s=20,
            # What a test sets is looked up when it is called.
            elicitation_callback=lambda *asked: self.elicit(*asked),  # noqa: PLW0108
            sampling_callback=lambda *asked: self.sample(*asked),  # noqa: PLW0108
            roots=["/srv/files", types.Root(uri="file:///srv", name="srv")],
            logging_callback=self.logs.append,
            message_handler=self.messages.append,
            log_level="info",
        )

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @property
    def modern(self) -> bool:
        return self.client.protocol_version == "2026-07-28"


def server_file(peer: Peer, folder: Path) -> list[str]:
    if peer.python is None:
        pytest.skip(f"no {peer.name} server here: set MCPFAST_PEER_PYTHON to a Python that has mcp 2.3.0")
    path = folder / f"{peer.name}_server.py"
    path.write_text(peer.source)
    return [peer.python, str(path)]


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return server_file(request.param, tmp_path_factory.mktemp("peer"))


@pytest.fixture(scope="module", params=list(ERAS))
def live(request: pytest.FixtureRequest, command: list[str]) -> Iterator[Live]:
    live = Live(command, ERAS[request.param])
    with live.runner:
        live.run(live.client.__aenter__())
        try:
            assert live.modern == (request.param == "modern")
            yield live
        finally:
            live.run(live.client.__aexit__(None, None, None))


def refuse(*_: Any) -> Any:
    raise AssertionError("nobody should have asked")


def test_what_was_agreed_on(live: Live) -> None:
    client = live.client
    assert client.server_info is not None
    assert (client.server_info.name, client.server_info.version) == ("peer", "1.5")
    assert client.instructions == "Be kind."
    assert client.server_capabilities.tools is not None
    assert live.run(client.ping()) is True


def test_tools(live: Live) -> None:
    async def run() -> None:
        listed = await live.client.list_tools()
        assert {"add", "ask", "steps"} <= {tool.name for tool in listed.tools}
        add = next(tool for tool in listed.tools if tool.name == "add")
        assert add.description == "Add two numbers."
        assert add.input_schema["required"] == ["a"]
        assert [tool.name async for tool in live.client.list_tools_all()] == [t.name for t in listed.tools]

        result = await live.client.call_tool("add", {"a": 40})
        assert not result.is_error
        assert result.data == 42
        assert result.structured_content == {"result": 42}
        assert result.text == "42"

        failed = await live.client.call_tool("fail")
        assert failed.is_error
        assert "no such luck" in failed.text
        with pytest.raises(ToolError, match="no such luck"):
            await live.client.call_tool("fail", raise_on_error=True)

    live.run(run())


def test_resources(live: Live) -> None:
    async def run() -> None:
        templates = await live.client.list_resource_templates()
        assert [t.uri_template for t in templates.resource_templates] == ["note://{name}"]
        assert [r.uri async for r in live.client.list_resources_all()] == ["data://blob"]
        (text,) = (await live.client.read_resource("note://a")).contents
        assert isinstance(text, types.TextResourceContents)
        assert text.text == "note a"
        (blob,) = (await live.client.read_resource("data://blob")).contents
        assert isinstance(blob, types.BlobResourceContents)
        assert (blob.blob, blob.mime_type) == ("AAECAwQFBgc=", "application/octet-stream")
        with pytest.raises(MCPError) as raised:
            await live.client.read_resource("nowhere://x")
        assert raised.value.code in (INVALID_PARAMS, -32002)

    live.run(run())


def test_prompts_and_completion(live: Live) -> None:
    async def run() -> None:
        (prompt,) = (await live.client.list_prompts()).prompts
        assert [argument.name for argument in prompt.arguments or ()] == ["code"]
        (message,) = (await live.client.get_prompt("review", {"code": "x = 1"})).messages
        assert message.role == "user"
        assert isinstance(message.content, types.TextContent)
        assert message.content.text == "Review x = 1"
        ref = types.PromptReference(name="review")
        found = await live.client.complete(ref, {"name": "code", "value": "x"}, {"other": "given"})
        assert found.completion.values == ["xone", "xtwo", "given"]
        assert found.completion.total == 9

    live.run(run())


def test_progress_is_complete_when_the_call_returns(live: Live) -> None:
    async def run() -> None:
        told: list[Any] = []

        async def slow_callback(progress: float, total: float | None, message: str | None) -> None:
            await asyncio.sleep(0.001)
            told.append((progress, total, message))

        await live.client.call_tool("steps", {"count": 20}, progress_callback=slow_callback)
        assert told == [(i, 20, f"step {i}") for i in range(1, 21)]

    live.run(run())


def test_logging(live: Live) -> None:
    async def run() -> None:
        live.logs.clear()
        await live.client.call_tool("chatty")
        assert [(log.level, log.data) for log in live.logs] == [("warning", {"n": 1})]
        await live.client.set_logging_level("error")
        await live.client.call_tool("chatty")
        assert len(live.logs) == 1
        await live.client.set_logging_level("info")

    live.run(run())


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"n": 3}, "accept 3"),
        (types.ElicitResult(action="accept", content={"n": 4}), "accept 4"),
        (None, "decline None"),
        (types.ElicitResult(action="cancel"), "cancel None"),
    ],
    ids=["dict", "result", "none", "cancel"],
)
def test_elicitation(live: Live, outcome: Any, expected: str) -> None:
    async def elicit(context: Any, params: types.ElicitRequestParams) -> Any:
        assert isinstance(params, types.ElicitRequestFormParams)
        assert (params.message, params.mode) == ("How many?", "form")
        assert params.requested_schema["properties"]["n"]["type"] == "integer"
        assert context.session is live.client
        await asyncio.sleep(0)
        return outcome

    live.elicit = elicit
    assert live.run(live.client.call_tool("ask")).text == expected


def test_a_refusing_callback(live: Live) -> None:
    def elicit(*_: Any) -> Any:
        raise MCPError(-1, "the user is away")

    live.elicit = elicit
    if live.modern:  # the call cannot go on, and its caller is told
        with pytest.raises(MCPError, match="the user is away") as raised:
            live.run(live.client.call_tool("ask"))
        assert raised.value.code == -1
    else:  # the server is told, and decides
        try:
            assert live.run(live.client.call_tool("ask")).is_error
        except MCPError as error:
            assert error.code == -1  # noqa: PT017 - either is right


def test_elicitation_by_url(live: Live) -> None:
    live.elicit = lambda _, params: params.url == "https://example.org/"
    if live.client.protocol_version == "2025-06-18":  # there is no such mode yet
        with pytest.raises((MCPError, ToolError)):
            live.run(live.client.call_tool("page", raise_on_error=True))
    else:
        assert live.run(live.client.call_tool("page")).text == "accept"


def test_sampling_and_roots(live: Live) -> None:
    def sample(_: Any, params: types.CreateMessageRequestParams) -> str:
        assert params.max_tokens == 9
        (block,) = params.messages[0].content_as_list
        assert isinstance(block, types.TextContent)
        return block.text + " yourself"

    live.sample = sample
    assert live.run(live.client.call_tool("sample")).text == "hi yourself"
    assert live.run(live.client.call_tool("roots")).data == ["file:///srv/files", "file:///srv"]


def test_two_questions_are_asked_at_the_same_time(live: Live) -> None:
    async def run() -> None:
        both = asyncio.Barrier(2)

        async def elicit(*_: Any) -> Any:
            await both.wait()
            return {"n": 5}

        async def sample(*_: Any) -> Any:
            await both.wait()
            return "five"

        live.elicit, live.sample = elicit, sample
        assert (await live.client.call_tool("both", timeout_s=10)).text == "5 five"

    live.run(run())


def test_changes_are_told(live: Live) -> None:
    async def modern() -> None:
        async with live.client.listen(
            tools_list_changed=True, resource_subscriptions=["note://a"], timeout_s=10
        ) as events:
            assert events.honored.tools_list_changed
            assert events.honored.resource_subscriptions == ["note://a"]
            assert not events.honored.prompts_list_changed
            await live.client.call_tool("grow")
            async with asyncio.timeout(10):
                assert {await anext(events), await anext(events)} == {
                    ToolsListChanged(),
                    ResourceUpdated("note://a"),
                }
        async with asyncio.timeout(1):
            async for _ in events:  # what still waited, and then the end
                pass

    async def legacy() -> None:
        await live.client.subscribe_resource("note://a")
        live.messages.clear()
        await live.client.call_tool("grow")
        async with asyncio.timeout(10):
            while len({type(message) for message in live.messages}) < 2:
                await asyncio.sleep(0.01)
        updated = [m.params.uri for m in live.messages if isinstance(m, ResourceUpdatedNotification)]
        assert set(updated) == {"note://a"}
        assert any(isinstance(m, ToolListChangedNotification) for m in live.messages)
        await live.client.unsubscribe_resource("note://a")
        with pytest.raises(MCPError, match="use `subscribe_resource`"):
            async with live.client.listen(tools_list_changed=True):
                pass

    capabilities = live.client.server_capabilities.resources
    if live.modern:
        live.run(modern())
    elif capabilities is None or not capabilities.subscribe:
        with pytest.raises(MCPError) as raised:
            live.run(live.client.subscribe_resource("note://a"))
        assert raised.value.code == METHOD_NOT_FOUND
    else:
        live.run(legacy())


def test_many_calls_at_once(live: Live) -> None:
    async def run() -> None:
        results = await asyncio.gather(*(live.client.call_tool("add", {"a": i, "b": i}) for i in range(100)))
        assert [result.data for result in results] == [2 * i for i in range(100)]

    live.run(run())


def test_cancelling_and_timing_out_reach_the_server(live: Live) -> None:
    async def run() -> None:
        async def count() -> int:
            return len((await live.client.call_tool("what_was_seen")).data)

        before = await count()
        with pytest.raises(RequestTimeout, match=r"tools/call within 0\.2 s"):
            await live.client.call_tool("sleep", {"seconds": 30}, timeout_s=0.2)
        call = asyncio.create_task(live.client.call_tool("sleep", {"seconds": 30}))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(10):
            while await count() < before + 2:
                await asyncio.sleep(0.02)

    live.run(run())


def test_any_request(live: Live) -> None:
    result = live.run(live.client.request("tools/call", {"name": "add", "arguments": {"a": 1}}))
    assert result["structuredContent"] == {"result": 3}
    with pytest.raises(MCPError) as raised:
        live.run(live.client.request("no/such"))
    assert raised.value.code == METHOD_NOT_FOUND


def test_nothing_is_left_behind(command: list[str]) -> None:
    """No process, no descriptor, no thread that was not there; the client may be entered again."""

    async def run() -> None:
        client = Client.stdio(command, stderr=subprocess.DEVNULL, elicitation_callback=refuse)
        for _ in range(2):
            async with client:
                pid = client._transport.pid  # type: ignore[attr-defined]
                assert (await client.call_tool("add", {"a": 1})).data == 3
                assert Path(f"/proc/{pid}").exists()
            assert not Path(f"/proc/{pid}").exists()

    async def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def measured() -> None:
        before = await count()
        await run()
        assert await count() == before

    asyncio.run(measured())


def test_a_server_that_dies_ends_every_wait_and_says_how(command: list[str]) -> None:
    async def run() -> None:
        async with Client.stdio(command, stderr=subprocess.DEVNULL) as client:
            waiting = asyncio.create_task(client.call_tool("sleep", {"seconds": 60}))
            await client.call_tool("add", {"a": 1})
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionClosed, match=r"exit code 3(?s:.)*last words of the server"):
                    await client.call_tool("die")
                with pytest.raises(ConnectionClosed, match="exit code 3"):
                    await waiting
            with pytest.raises(ConnectionClosed, match="exit code 3"):
                await client.call_tool("add", {"a": 1})

    asyncio.run(run())


def test_on_uvloop(command: list[str]) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        async with Client.stdio(command, stderr=subprocess.DEVNULL):
            pass  # the loop keeps a descriptor or two for the children to come
        before = len(os.listdir("/proc/self/fd"))
        async with Client.stdio(
            command, stderr=subprocess.DEVNULL, elicitation_callback=lambda *_: {"n": 1}
        ) as client:
            assert (await client.call_tool("ask")).text == "accept 1"
            with pytest.raises(ConnectionClosed, match="exit code 3"):
                await client.call_tool("die")
        assert len(os.listdir("/proc/self/fd")) == before

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
