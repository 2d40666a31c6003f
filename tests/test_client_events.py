"""What the server tells unasked: notifications on their way to the callbacks, and `subscriptions/listen`
streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpfast.client import (
    PromptsListChanged,
    RequestTimeout,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
    events,
    inbox,
)
from mcpfast.client.events import ToolListChangedNotification
from mcpfast.errors import METHOD_NOT_FOUND, ConnectionClosed, MCPError
from tests.test_client_fake import META, Fake, fake_client, run

# ---- notifications


def test_notifications_reach_the_handler_as_their_classes() -> None:
    async def server(fake: Fake) -> None:
        await fake.initialized()
        fake.tell("notifications/tools/list_changed")
        fake.tell("notifications/resources/updated", uri="x://1")
        fake.tell("notifications/elicitation/complete", elicitationId="e")
        fake.tell("notifications/custom", a=1)
        fake.tell("notifications/resources/updated")  # without what it must have
        fake.tell("notifications/progress", progressToken="whose", progress=0.5)
        fake.answer(await fake.receive())

    async def test() -> None:
        told: list[Any] = []

        async def handler(message: Any) -> None:
            await asyncio.sleep(0)
            told.append(message)

        async with fake_client(server, message_handler=handler) as client:
            await client.ping()
        assert isinstance(told[0], ToolListChangedNotification)
        assert told[1].params.uri == "x://1"
        assert told[2].params.elicitation_id == "e"
        assert (told[3].method, told[3].params) == ("notifications/custom", {"a": 1})
        assert isinstance(told[4], MCPError)
        assert told[5].params.progress == 0.5
        assert len(told) == 6

    run(test())


def test_callbacks_may_call_fail_and_take_their_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "CALLBACK_S", 60)

    async def server(fake: Fake) -> None:
        await fake.discovered()
        while call := await fake.receive():
            fake.tell(
                "notifications/progress",
                progressToken=call["params"]["_meta"].get("progressToken"),
                progress=1,
            )
            fake.text(call, "ok")

    async def test() -> None:
        told: list[Any] = []

        async def calls(*_: Any) -> None:
            told.append((await client.call_tool("inner", progress_callback=fails)).text)

        def fails(*_: Any) -> None:
            told.append("failed")
            raise RuntimeError("the callback's own trouble")

        async def never(*_: Any) -> None:
            await asyncio.sleep(30)

        async with fake_client(server) as client:
            async with asyncio.timeout(5):
                await client.call_tool("outer", progress_callback=calls)  # does not wait for itself
                await client.call_tool("next", progress_callback=fails)
                assert told == ["ok", "failed", "failed"]
                monkeypatch.setattr(inbox, "CALLBACK_S", 0.05)
                await client.call_tool("t", progress_callback=never)
        assert "the callback's own trouble" in caplog.text

    run(test())


def test_notifications_that_nobody_takes_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "CALLBACK_S", 0.05)
    monkeypatch.setattr(inbox, "WAITING_MAX", 10)

    async def server(fake: Fake) -> None:
        await fake.initialized()
        for _ in range(100):
            fake.tell("notifications/tools/list_changed")
        fake.answer(await fake.receive())

    async def test() -> None:
        count = 0

        async def slow(_: Any) -> None:
            nonlocal count
            count += 1
            await asyncio.sleep(30)

        async with fake_client(server, message_handler=slow) as client:
            await client.ping()
            assert client._connection is not None
            assert client._connection._inbox.received <= 11
        assert count == 1
        assert caplog.text.count("new ones are dropped") == 1

    run(test())


# ---- listen


def tag(request: dict[str, Any]) -> dict[str, Any]:
    return {META + "subscriptionId": request["id"]}


def acknowledge(fake: Fake, request: dict[str, Any], **honored: Any) -> None:
    fake.tell("notifications/subscriptions/acknowledged", notifications=honored, _meta=tag(request))


def test_two_streams_at_once() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        one = await fake.receive()
        assert one["params"]["notifications"] == {
            "toolsListChanged": True,
            "resourceSubscriptions": ["x://1"],
        }
        acknowledge(fake, one, toolsListChanged=True)
        two = await fake.receive()
        assert two["params"]["notifications"] == {"promptsListChanged": True, "resourcesListChanged": True}
        acknowledge(fake, two, promptsListChanged=True, resourcesListChanged=True)
        fake.tell("notifications/tools/list_changed", _meta=tag(one))
        fake.tell("notifications/tools/list_changed", _meta=tag(one))  # once is enough
        fake.tell("notifications/prompts/list_changed", _meta=tag(two))
        fake.tell("notifications/resources/list_changed", _meta=tag(two))
        fake.tell("notifications/resources/updated", uri="x://1/part", _meta=tag(one))
        fake.tell("notifications/resources/updated", uri="x://9", _meta={META + "subscriptionId": "other"})
        fake.answer(one, _meta=tag(one))
        cancelled = await fake.receive()
        assert cancelled["params"]["requestId"] == two["id"]
        assert await fake.receive() == {}

    async def test() -> None:
        told: list[Any] = []
        async with fake_client(server, message_handler=told.append) as client:
            async with client.listen(tools_list_changed=True, resource_subscriptions=["x://1"]) as one:
                assert one.honored.resource_subscriptions is None
                async with client.listen(prompts_list_changed=True, resources_list_changed=True) as two:
                    assert [event async for event in one] == [
                        ToolsListChanged(),
                        ResourceUpdated("x://1/part"),
                    ]
                    assert await anext(two) == PromptsListChanged()
                    assert await anext(two) == ResourcesListChanged()
            assert len(told) == 6  # all but what acknowledges
            with pytest.raises(TypeError, match="a list of URIs"):
                async with client.listen(resource_subscriptions="x://1"):
                    pass

    run(test())


def test_streams_that_do_not_open() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        fake.refuse(await fake.receive(), METHOD_NOT_FOUND, "no listening here")
        silent = await fake.receive()
        assert (await fake.receive())["params"]["requestId"] == silent["id"]
        fake.answer(await fake.receive())  # over before it began
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server) as client:
            with pytest.raises(MCPError, match="no listening here"):
                async with client.listen(tools_list_changed=True):
                    pass
            with pytest.raises(RequestTimeout, match="not acknowledged within"):
                async with client.listen(tools_list_changed=True, timeout_s=0.05):
                    pass
            async with client.listen(tools_list_changed=True) as stream:
                assert [event async for event in stream] == []

    run(test())


def test_streams_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 3)

    async def server(fake: Fake) -> None:
        await fake.discovered()
        flooded = await fake.receive()
        acknowledge(fake, flooded)
        for n in range(5):
            fake.tell("notifications/resources/updated", uri=f"x://{n}", _meta=tag(flooded))
        assert (await fake.receive())["method"] == "notifications/cancelled"
        torn_down = await fake.receive()
        acknowledge(fake, torn_down)
        fake.tell("notifications/cancelled", requestId=torn_down["id"], _meta=tag(torn_down))
        assert (await fake.receive())["method"] == "notifications/cancelled"
        acknowledge(fake, await fake.receive())
        fake.close()

    async def test() -> None:
        async with fake_client(server) as client:
            async with client.listen(resource_subscriptions=["x://"]) as stream:
                await asyncio.sleep(0.05)
                assert [await anext(stream) for _ in range(3)] == [
                    ResourceUpdated(f"x://{n}") for n in range(3)
                ]
                with pytest.raises(MCPError, match="3 events wait untaken"):
                    await anext(stream)
            async with client.listen(resource_subscriptions=["x://"]) as stream:
                assert [event async for event in stream] == []
            async with client.listen(resource_subscriptions=["x://"]) as stream:
                with pytest.raises(ConnectionClosed):
                    await anext(stream)

    run(test())
