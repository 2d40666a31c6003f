"""What the server asks and tells on its own: questions in both eras, `input_required` rounds, notifications,
streams.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from mcpfast.client import answers
from mcpfast.errors import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, MCPError
from mcpfast.limits import Limits
from mcpfast.protocol import types
from tests.test_client_fake import Fake, fake_client, played, run

FORM = {"type": "object", "properties": {"n": {"type": "integer"}}}
VALUE = {"type": "object", "properties": {"value": {"type": "string"}}}
MESSAGES = [{"role": "user", "content": {"type": "text", "text": "hi"}}]
ELICIT = {"method": "elicitation/create", "params": {"message": "m", "requestedSchema": FORM}}


# ---- before 2026-07-28: requests of the server


def test_questions_are_answered_while_other_things_go_on() -> None:
    async def server(fake: Fake) -> None:
        await fake.initialized()
        call = await fake.receive()
        fake.ask("q", "elicitation/create", message="m", requestedSchema=FORM, _meta={"k": 1})
        fake.ask(7, "ping")
        assert await fake.receive() == {"jsonrpc": "2.0", "id": 7, "result": {}}
        fake.ask("r", "roots/list")
        answer = await fake.receive()
        assert (answer["id"], answer["result"]["roots"][0]["uri"]) == ("r", "file:///srv/files")
        fake.ask(8, "sampling/createMessage", messages=MESSAGES, maxTokens=5)
        assert (await fake.receive())["result"]["content"] == {"type": "text", "text": "hello"}
        fake.tell("notifications/progress", progressToken=0, progress=1)  # nobody's
        released.set()
        assert await fake.receive() == {
            "jsonrpc": "2.0",
            "id": "q",
            "result": {"action": "accept", "content": {"n": 1}},
        }
        fake.text(call, "done")

    async def elicit(context: answers.ClientRequestContext, params: types.ElicitRequestParams) -> Any:
        assert (context.request_id, context.meta) == ("q", {"k": 1})
        await released.wait()
        return {"n": 1}

    released = asyncio.Event()

    async def test() -> None:
        async with fake_client(
            server, elicitation_callback=elicit, sampling_callback=lambda *_: "hello", roots=["/srv/files"]
        ) as client:
            assert (await client.call_tool("t")).text == "done"

    run(test())


@pytest.mark.parametrize(
    ("method", "params", "code", "says"),
    [
        ("no/such", {}, METHOD_NOT_FOUND, "does not answer no/such"),
        ("roots/list", {}, METHOD_NOT_FOUND, "does not answer roots/list"),
        (
            "elicitation/create",
            {"mode": "url", "message": "m", "url": "u"},
            INVALID_PARAMS,
            "'url' is not offered",
        ),
        ("elicitation/create", {"mode": "voice", "message": "m"}, INVALID_PARAMS, "mode"),
        ("elicitation/create", {"message": "m"}, INVALID_PARAMS, "requestedSchema"),
        ("sampling/createMessage", {"messages": MESSAGES}, INVALID_PARAMS, "maxTokens"),
        ("sampling/createMessage", {"messages": MESSAGES, "maxTokens": 1}, -9, "not today"),
        ("elicitation/create", ELICIT["params"], INTERNAL_ERROR, "callback failed: ZeroDivisionError"),
    ],
)
def test_questions_that_are_refused(
    method: str, params: dict[str, Any], code: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def server(fake: Fake) -> None:
        await fake.initialized()
        fake.ask(1, method, **params)
        answer = await fake.receive()
        assert answer["error"]["code"] == code
        assert says in answer["error"]["message"]

    async def test() -> None:
        async with fake_client(
            server,
            elicitation_callback=lambda *_: 1 / 0,
            elicitation_modes=["form"],
            sampling_callback=lambda *_: types.ErrorData(code=-9, message="not today"),
        ) as client:
            await played(client)

    with caplog.at_level(logging.CRITICAL):
        run(test())


def test_a_question_taken_back_is_not_answered() -> None:
    cancelled: list[str] = []

    async def server(fake: Fake) -> None:
        await fake.initialized()
        for name in (1, 1, "s"):
            fake.ask(name, "elicitation/create", **ELICIT["params"])
        fake.ask(2, "elicitation/create", **ELICIT["params"])  # one more than may wait
        assert "Too many questions" in (await fake.receive())["error"]["message"]
        fake.tell("notifications/cancelled", requestId=1, reason="never mind")
        fake.tell("notifications/cancelled", requestId="1")
        fake.tell("notifications/cancelled", requestId={"odd": 1})
        fake.tell("notifications/cancelled")
        fake.ask(3, "ping")
        assert (await fake.receive())["id"] == 3
        assert await fake.receive() == {}  # the one that is left was cancelled when the client was left

    async def elicit(context: answers.ClientRequestContext, _: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.append(str(context.request_id))

    async def test() -> None:
        async with fake_client(server, elicitation_callback=elicit, limits=Limits(questions_max=2)):
            await asyncio.sleep(0.05)
            assert cancelled == ["1"]
        assert cancelled == ["1", "s"]

    run(test())


def test_a_modern_server_gets_no_answers() -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        call = await fake.receive()
        fake.ask(1, "ping")
        fake.ask(2, "elicitation/create", **ELICIT["params"])
        fake.text(call, "ok")
        assert await fake.receive() == {}

    async def test() -> None:
        async with fake_client(server, elicitation_callback=lambda *_: pytest.fail("asked")) as client:
            await client.call_tool("t")

    run(test())


# ---- from 2026-07-28 on: rounds


def test_rounds_keep_the_call_and_the_state_and_change_the_id() -> None:
    state = 'v1."quoted"\\ü☃'

    async def server(fake: Fake) -> None:
        await fake.discovered()
        first = await fake.receive()
        fake.answer(
            first,
            resultType="input_required",
            requestState=state,
            inputRequests={
                "a": ELICIT,
                "b": {"method": "sampling/createMessage", "params": {"messages": MESSAGES, "maxTokens": 1}},
                "c": {"method": "roots/list"},
            },
        )
        second = await fake.receive()
        assert second["id"] != first["id"]
        tokens = [message["params"]["_meta"].pop("progressToken") for message in (first, second)]
        assert tokens == [first["id"], second["id"]]
        added = {name: second["params"].pop(name) for name in ("inputResponses", "requestState")}
        assert second["params"] == first["params"]
        assert added == {
            "requestState": state,
            "inputResponses": {
                "a": {"action": "accept", "content": {"n": 2}},
                "b": {"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"},
                "c": {"roots": [{"uri": "file:///srv/files"}]},
            },
        }
        fake.answer(second, resultType="input_required", inputRequests={"d": ELICIT})
        third = await fake.receive()
        assert "requestState" not in third["params"]  # none was given in this round
        assert list(third["params"]["inputResponses"]) == ["d"]
        fake.tell("notifications/progress", progressToken=first["id"], progress=1)
        fake.tell("notifications/progress", progressToken=third["id"], progress=3)
        fake.text(third, "done")

    async def test() -> None:
        told: list[Any] = []
        said = types.CreateMessageResult(role="assistant", content=types.TextContent(text="x"), model="m")
        async with fake_client(
            server,
            elicitation_callback=lambda *_: {"n": 2},
            sampling_callback=lambda *_: said,
            list_roots_callback=lambda _: types.ListRootsResult(roots=[types.Root(uri="file:///srv/files")]),
            progress_callback=lambda *progress: told.append(progress),
        ) as client:
            result = await client.call_tool("t", {"x": [1, None, "ü"]}, meta={"traceparent": "00-1"})
            assert result.text == "done"
            assert told == [(3, None, None)]

    run(test())


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
def test_prompts_and_resources_have_rounds_too(method: str) -> None:
    async def server(fake: Fake) -> None:
        await fake.discovered()
        first = await fake.receive()
        assert first["method"] == method
        assert first["params"]["requestState"] == "kept from yesterday"
        assert first["params"]["inputResponses"] == {"k": {"action": "cancel"}}
        fake.answer(first, resultType="input_required", requestState="s")
        second = await fake.receive()
        assert second["params"]["requestState"] == "s"
        assert "inputResponses" not in second["params"]
        fake.answer(second, resultType="input_required", inputRequests={"a": ELICIT})
        third = await fake.receive()
        assert "requestState" not in third["params"]
        fake.answer(third, messages=[], contents=[], ttlMs=0, cacheScope="private")

    async def test() -> None:
        seed = {
            "request_state": "kept from yesterday",
            "input_responses": {"k": types.ElicitResult(action="cancel")},
        }
        async with fake_client(server, elicitation_callback=lambda *_: None) as client:
            if method == "prompts/get":
                assert (await client.get_prompt("p", {"a": "b"}, **seed)).messages == []
            else:
                assert (await client.read_resource("x://1", **seed)).contents == []

    run(test())


def test_rounds_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "STATE_ONLY_S", 0.001)

    async def server(fake: Fake) -> None:
        await fake.discovered()
        for _ in range(4):  # the first call, and three rounds
            fake.answer(await fake.receive(), resultType="input_required", requestState="s")
        for odd in (
            {"resultType": "input_required"},
            {"resultType": "input_required", "inputRequests": []},
            {"resultType": "input_required", "inputRequests": {"a": {"method": "tools/call", "params": {}}}},
            {"resultType": "task", "taskId": "1"},
        ):
            fake.answer(await fake.receive(), odd)
        fake.answer(
            await fake.receive(), resultType="input_required", inputRequests={"a": ELICIT, "b": ELICIT}
        )
        assert await fake.receive() == {}

    async def test() -> None:
        asked: list[str] = []

        async def elicit(context: answers.ClientRequestContext, _: Any) -> None:
            asked.append(str(context.request_id))
            if len(asked) == 2:
                raise KeyError("the user's own trouble")
            await asyncio.sleep(10)

        async with fake_client(server, input_required_max_rounds=3, elicitation_callback=elicit) as client:
            for match in (
                "still asks after 3 rounds",
                "asks nothing and has no requestState",
                "input_required result cannot be read",
                "does not answer tools/call",
                "answer to tools/call cannot be read",
            ):
                with pytest.raises(MCPError, match=match):
                    await client.call_tool("t")
            with pytest.raises(
                KeyError, match="the user's own trouble"
            ):  # and the other question is not awaited
                await client.call_tool("t")
            assert asked == ["a", "b"]

    run(test())


def test_what_callbacks_may_return() -> None:
    form = types.ElicitRequestFormParams(message="m", requested_schema=FORM)
    value = types.ElicitRequestFormParams(message="m", requested_schema=VALUE)
    url = types.ElicitRequestURLParams(message="m", url="u")

    class Struct(msgspec.Struct):
        n: int

    accept = {"action": "accept"}
    for outcome, asked, expected in (
        ({"n": 1}, form, accept | {"content": {"n": 1}}),
        (Struct(2), form, accept | {"content": {"n": 2}}),
        (True, form, accept),
        (True, value, accept | {"content": {"value": True}}),
        ("x", value, accept | {"content": {"value": "x"}}),
        ({"value": "y"}, value, accept | {"content": {"value": "y"}}),
        (True, url, accept),
        (False, url, {"action": "decline"}),
        (None, form, {"action": "decline"}),
        (types.ElicitResult(action="cancel", content={"n": 1}), form, {"action": "cancel"}),
    ):
        assert answers.elicit_result(outcome, asked) == expected
    with pytest.raises(TypeError, match="return a dict of the form's fields"):
        answers.elicit_result("x", form)
    with pytest.raises(TypeError, match="return a str or a CreateMessageResult"):
        answers.sampling_result(5)
    with pytest.raises(TypeError, match="return a list of roots"):
        answers.roots_result("/srv/files")
