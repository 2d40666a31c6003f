"""The examples, called as a user would call them, by clients of both eras."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Client, MCPError
from mcpfast.client import ResourceUpdated
from mcpfast.client.events import ResourceUpdatedNotification

EXAMPLES = Path(__file__).parent.parent / "examples"
eras = pytest.mark.parametrize("mode", ["legacy", "auto"])


def load(name: str) -> Any:
    """A fresh copy of one example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_every_example_is_tested_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {
        "echo",
        "demo",
        "notes",
        "booking",
        "media",
        "lifespan",
        "tenants",
    }  # echo is tested by test_demo.py


@eras
def test_notes_are_read_written_and_completed(mode: str) -> None:
    async def test() -> None:
        async with Client(load("notes").server, mode=mode) as client:
            assert (await client.read_resource("notes:///welcome")).contents[
                0
            ].text == "Write something down."
            assert (await client.call_tool("write", {"name": "milk", "text": "two"})).data == "written"
            assert (await client.call_tool("write", {"name": "milk", "text": "three"})).data == "written anew"
            assert (await client.read_resource("notes:///milk")).contents[0].text == "three"
            index = (await client.read_resource("notes:///")).contents[0]
            assert (index.text, index.mime_type) == ('["milk","welcome"]', "application/json")
            with pytest.raises(MCPError, match="notes:///beer"):
                await client.read_resource("notes:///beer")
            prompt = await client.get_prompt("summarize", {"name": "milk"})
            assert prompt.messages[0].content.text.endswith("three")
            found = await client.complete(
                {"type": "ref/resource", "uri": "notes:///{name}"}, {"name": "name", "value": "mi"}
            )
            assert found.completion.values == ["milk"]

    run(test())


def test_who_subscribed_to_a_note_is_told_by_a_notification() -> None:
    async def test() -> None:
        told: asyncio.Queue[Any] = asyncio.Queue()
        async with Client(load("notes").server, mode="legacy", message_handler=told.put_nowait) as client:
            await client.subscribe_resource("notes:///milk")
            await client.call_tool("write", {"name": "beer", "text": "none"})
            await client.call_tool("write", {"name": "milk", "text": "two"})
            notification = await told.get()
            assert isinstance(notification, ResourceUpdatedNotification)
            assert notification.params.uri == "notes:///milk"
            assert told.empty()

    run(test())


def test_who_listens_to_notes_is_told_on_the_stream() -> None:
    async def test() -> None:
        async with Client(load("notes").server) as client:
            async with client.listen(resource_subscriptions=["notes:///", "notes:///milk"]) as events:
                await client.call_tool("write", {"name": "milk", "text": "two"})
                assert {await anext(events), await anext(events)} == {
                    ResourceUpdated("notes:///milk"),
                    ResourceUpdated("notes:///"),
                }

    run(test())


@eras
@pytest.mark.parametrize("sure", [True, False])
def test_a_table_is_held_once_however_often_the_handler_runs(mode: str, sure: bool) -> None:
    module = load("booking")
    asked: list[str] = []

    def answer(context: object, params: Any) -> Any:
        asked.append(params.message)
        if "people" in params.requested_schema["properties"]:
            return {"people": 3, "place": "garden"}
        if "name" in params.requested_schema["properties"]:
            return {"name": "Ada", "mail": "ada@example.org"}
        return sure

    async def test() -> None:
        async with Client(module.server, mode=mode, elicitation_callback=answer) as client:
            booked = (await client.call_tool("book", {"day": "Friday"}, raise_on_error=True)).data
            assert booked == (
                "Table 1 on Friday for Ada: 3 people, garden" if sure else "Nothing was booked."
            )

    run(test())
    assert sorted(asked) == ["3 people, garden, Friday. Book it?", "A table for Friday?", "Who are you?"]
    assert module.held == ["Friday"]


@eras
def test_a_table_is_not_booked_for_who_declines(mode: str) -> None:
    async def test() -> None:
        async with Client(load("booking").server, mode=mode, elicitation_callback=lambda *_: None) as client:
            assert (await client.call_tool("book", {"day": "Friday"})).data == "Nothing was booked."

    run(test())


@eras
def test_media_come_as_data_images_and_blobs(mode: str) -> None:
    import base64

    async def test() -> None:
        async with Client(load("media").server, mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools["forecast"].output_schema["properties"]) == {"city", "celsius", "rain"}
            assert (await client.call_tool("forecast", {"city": "Bergen"})).data == {
                "city": "Bergen",
                "celsius": 7.5,
                "rain": True,
            }
            (square,) = (await client.call_tool("square")).content
            assert square.mime_type == "image/png" and base64.b64decode(square.data).startswith(b"\x89PNG")
            album = await client.call_tool("album")
            assert [block.type for block in album.content] == ["text", "image", "image", "resource_link"]
            report = await client.call_tool("report", {"city": "Bergen"})
            assert report.text == "It stays cool in Bergen."
            assert report.structured_content == {"city": "Bergen", "samples": [7.0, 7.5, 8.0]}
            assert report.meta["source"] == "station 12"
            colour = (await client.read_resource("media://squares/red")).contents[0]
            assert base64.b64decode(colour.blob).startswith(b"\x89PNG") and colour.mime_type == "image/png"

    run(test())


@eras
def test_a_lifespan_is_shared_and_middleware_sees_every_call(mode: str) -> None:
    async def test() -> None:
        async with Client(load("lifespan").server, mode=mode) as client:
            first = await client.call_tool("add_item", {"item": "milk"}, raise_on_error=True)
            assert first.data == 1 and 0 < first.meta["example/seconds"] < 10
            assert (await client.call_tool("add_item", {"item": "bread"})).data == 2
            assert (await client.call_tool("list_items")).data == ["milk", "bread"]
            with pytest.raises(MCPError, match="not welcome"):
                await client.call_tool("list_items", meta={"example/banned": True})

    run(test())


def test_tenants_see_and_spend_their_own() -> None:
    """As a program, which keeps no key and leaves nothing behind."""
    before = sorted(EXAMPLES.iterdir())
    done = subprocess.run(
        [sys.executable, EXAMPLES / "tenants.py"], capture_output=True, text=True, timeout=90
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, acme, northwind, ann, theft, suspension = done.stdout.strip().split("\n\n")
    assert "orders 1, order 2, report 25\n" in acme and "report, 3 times " in acme
    assert "Today's budget for your account is used up; try again in" in acme
    assert "orders 1, order 2\n" in northwind and "order, 4 times " in northwind
    assert " [], whatever others ordered" in northwind and "Unknown tool: report  (error -32602)" in northwind
    assert "orders 1, wish 1\n" in ann and "try again in 1 second  (error 4291, retryAfterMs " in ann
    assert ann.endswith("a boat, one day")
    assert theft.splitlines()[1:] == [
        "  acme, with its key       HTTP 200",
        "  northwind, with its key  HTTP 404: This session is over: initialize again, without a session id",
        "  nobody, without a key    This needs credentials  (error 4010)",
    ]
    assert suspension.splitlines()[1:] == [
        "  mcpfast tenant suspend   tenant northwind is suspended",
        "  northwind                This tenant is suspended; whoever runs this server can say why  (error 4030)",
        "  acme                     3 tools, as before",
    ]
    assert sorted(EXAMPLES.iterdir()) == before


@eras
def test_a_tenant_is_served_over_stdio_by_its_name(mode: str, tmp_path: Path) -> None:
    settings = shutil.copy(EXAMPLES / "tenants.toml", tmp_path)
    options = ["--config", settings, "--listen", "stdio", "--tenant", "ann"]
    command = [sys.executable, "-m", "mcpfast", "run", str(EXAMPLES / "tenants.py"), *options]

    async def test() -> None:
        async with Client.stdio(command, mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["orders", "wish"]

    run(test())
