"""The fixture of the conformance suite, driven in memory in both eras: everything the suite calls is there and does its part.

What the suite itself finds over HTTP is `make conformance`; this finds in a second, and without npm, what is wrong with the
fixture.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mcpfast import Client, MCPError
from mcpfast.client import PromptsListChanged, ToolsListChanged
from mcpfast.protocol import types
from tests.conformance.run import SCORED, frozen_scenarios, judge
from tests.conformance.server import ENUMS, JSON_SCHEMA_2020_12, server
from tests.wire import LEGACY, MODERN, run

both_eras = pytest.mark.parametrize(
    "mode", ["2025-06-18", "2025-11-25", MODERN]
)  # those that can ask by a form

NO_ARGUMENTS = {
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_tool_with_logging",
    "test_logging_tool",
    "test_tool_with_progress",
    "test_reconnection",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_streaming_elicitation",
    "test_missing_capability",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    *(
        f"test_input_required_result_{what}"
        for what in (
            "elicitation",
            "sampling",
            "list_roots",
            "request_state",
            "tampered_state",
            "multiple_inputs",
            "multi_round",
            "capabilities",
        )
    ),
}
WITH_ARGUMENTS = {
    "test_sampling": {"prompt"},
    "test_elicitation": {"message"},
    "test_x_mcp_header": {"region"},
    "json_schema_2020_12_tool": {"name", "address", "contactMethod", "phone", "email"},
}
# What the user of the suite's client types into the forms.
TYPED: dict[str, Any] = {
    "username": "testuser",
    "email": "test@example.com",
    "name": "Alice",
    "age": 25,
    "score": 88.0,
    "status": "inactive",
    "verified": False,
    "untitledSingle": "option1",
    "titledSingle": "value1",
    "legacyEnum": "opt1",
    "untitledMulti": ["option1", "option2"],
    "titledMulti": ["value1", "value2"],
    "ok": True,
    "color": "blue",
    "context": "a test",
}
TYPED_DEFAULTS = '{"name":"Alice","age":25,"score":88.0,"status":"inactive","verified":false}'


class User:
    """Who answers the fixture's questions, and remembers them."""

    def __init__(self) -> None:
        self.forms: list[dict[str, Any]] = []
        self.sampled: list[str] = []

    def elicit(self, context: Any, asked: Any) -> dict[str, Any]:
        self.forms.append(asked.requested_schema)
        return {name: TYPED[name] for name in asked.requested_schema["properties"]}

    def sample(self, context: Any, asked: types.CreateMessageRequestParams) -> str:
        self.sampled.append(asked.messages[0].content.text)  # type: ignore[union-attr]
        return "Hello there!"


def drive(mode: str, act: Callable[[Client], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """`act` with a client of the fixture that speaks this revision, and can be asked everything unless `options` are given."""
    if not options:
        user = User()
        options = {
            "elicitation_callback": user.elicit,
            "sampling_callback": user.sample,
            "roots": ["file:///test/root"],
        }

    async def scenario() -> Any:
        async with Client(server, mode=mode, timeout_s=10, **options) as client:
            assert client.protocol_version == mode
            return await act(client)

    return run(scenario())


def call(mode: str, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
    return drive(mode, lambda client: client.call_tool(name, arguments or {}), **options)


def refused(mode: str, name: str, arguments: dict[str, Any]) -> bool:
    """Whether arguments are: by a result that the model reads, before 2025-11-25 by an error."""
    try:
        return bool(call(mode, name, arguments).is_error)
    except MCPError as error:
        return mode < "2025-11-25" and error.code == -32602


def raw_call(name: str, **params: Any) -> dict[str, Any]:
    """The plain result of one round of a call in the modern era."""

    async def act(client: Client) -> Any:
        return await client.request("tools/call", {"name": name, "arguments": {}, **params})

    found: dict[str, Any] = drive(MODERN, act)
    return found


# ---------------------------------------------------------------------------------------------- what is listed


@pytest.mark.parametrize("mode", [*LEGACY, MODERN])
def test_the_tools(mode: str) -> None:
    async def act(client: Client) -> None:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == NO_ARGUMENTS | WITH_ARGUMENTS.keys()
        for tool in tools:
            assert tool.description
            assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", tool.name)
            assert tool.input_schema["type"] == "object"
            assert set(tool.input_schema.get("properties", ())) == WITH_ARGUMENTS.get(tool.name, set())
        assert [tool.name for tool in (await client.list_tools()).tools] == [tool.name for tool in tools]
        schemas = {tool.name: tool.input_schema for tool in tools}
        assert schemas["json_schema_2020_12_tool"] == JSON_SCHEMA_2020_12
        region = schemas["test_x_mcp_header"]["properties"]["region"]
        assert region["type"] == "string" and region["x-mcp-header"] == "Region"
        assert "region" not in schemas["test_x_mcp_header"].get("required", ())

    drive(mode, act)


@both_eras
def test_the_resources_and_prompts(mode: str) -> None:
    async def act(client: Client) -> None:
        resources = (await client.list_resources()).resources
        assert {one.uri: one.mime_type for one in resources} == {
            "test://static-text": "text/plain",
            "test://static-binary": "image/png",
            "test://watched-resource": "text/plain",
        }
        (template,) = (await client.list_resource_templates()).resource_templates
        assert template.uri_template == "test://template/{id}/data"
        prompts = (await client.list_prompts()).prompts
        arguments = {one.name: [argument.name for argument in one.arguments or ()] for one in prompts}
        assert arguments == {
            "test_simple_prompt": [],
            "test_prompt_with_arguments": ["arg1", "arg2"],
            "test_prompt_with_embedded_resource": ["resourceUri"],
            "test_prompt_with_image": [],
            "test_input_required_result_prompt": [],
        }
        assert all(argument.required for one in prompts for argument in one.arguments or ())
        for described in (*resources, template, *prompts):
            assert described.description

    drive(mode, act)


def test_what_is_declared() -> None:
    """What is not declared, the suite skips."""

    async def act(client: Client) -> Any:
        return client.server_capabilities

    for mode in ("2025-11-25", MODERN):
        declared = drive(mode, act)
        assert declared.tools.list_changed and declared.prompts.list_changed
        assert declared.resources.list_changed and declared.resources.subscribe
        assert declared.completions is not None and declared.logging is not None


# ---------------------------------------------------------------------------------------------- tools


@both_eras
def test_content(mode: str) -> None:
    (text,) = call(mode, "test_simple_text").content
    assert text.type == "text" and text.text
    (image,) = call(mode, "test_image_content").content
    assert (image.type, image.mime_type) == ("image", "image/png")
    assert base64.b64decode(image.data, validate=True).startswith(b"\x89PNG\r\n\x1a\n")
    (audio,) = call(mode, "test_audio_content").content
    assert (audio.type, audio.mime_type) == ("audio", "audio/wav")
    assert base64.b64decode(audio.data, validate=True).startswith(b"RIFF")
    (embedded,) = call(mode, "test_embedded_resource").content
    assert (embedded.type, embedded.resource.uri) == ("resource", "test://embedded-resource")
    assert embedded.resource.mime_type and embedded.resource.text
    mixed = call(mode, "test_multiple_content_types").content
    assert [block.type for block in mixed] == ["text", "image", "resource"]


@both_eras
def test_a_tool_that_fails_gives_a_result(mode: str) -> None:
    failed = call(mode, "test_error_handling")
    assert failed.is_error and failed.text


@both_eras
def test_log_messages(mode: str) -> None:
    seen: list[Any] = []
    done = call(mode, "test_tool_with_logging", log_level="debug", logging_callback=seen.append)
    assert not done.is_error
    assert [(one.level, one.data) for one in seen] == [
        ("info", "Tool execution started"),
        ("info", "Tool processing data"),
        ("info", "Tool execution completed"),
    ]


def test_nothing_is_logged_unless_the_request_asks() -> None:
    for wanted, count in (({}, 0), ({"log_level": "info"}, 1)):
        seen: list[Any] = []
        assert not call(MODERN, "test_logging_tool", logging_callback=seen.append, **wanted).is_error
        assert len(seen) == count


@both_eras
def test_progress(mode: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def act(client: Client) -> Any:
        return await client.call_tool(
            "test_tool_with_progress", {}, progress_callback=lambda done, of, said: seen.append((done, of))
        )

    assert not drive(mode, act).is_error
    assert seen == [(0, 100), (50, 100), (100, 100)]
    assert not call(mode, "test_tool_with_progress").is_error  # nobody wants to know


@both_eras
def test_arguments_are_checked_by_the_verbatim_schema(mode: str) -> None:
    fits = {"name": "Ada", "contactMethod": "phone", "phone": "1"}
    assert call(mode, "json_schema_2020_12_tool", fits).text == (
        '{"contactMethod": "phone", "name": "Ada", "phone": "1"}'
    )
    for misfit in ({"name": "Ada"}, {"contactMethod": "phone", "email": "a@b"}, fits | {"fax": "1"}):
        assert refused(mode, "json_schema_2020_12_tool", misfit)
    assert call(mode, "test_x_mcp_header", {"region": "eu"}).text == "region=eu"
    assert call(mode, "test_x_mcp_header").text == "region="


@both_eras
def test_closing_the_stream_where_there_is_none(mode: str) -> None:
    assert call(mode, "test_reconnection").text == "Reconnected"


# ---------------------------------------------------------------------------------------------- asking


@both_eras
@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("test_sampling", {"prompt": "Say hello"}, "LLM response: Hello there!"),
        (
            "test_elicitation",
            {"message": "Who?"},
            'User response: action=accept, content={"username":"testuser","email":"test@example.com"}',
        ),
        (
            "test_elicitation_sep1034_defaults",
            {},
            f"Elicitation completed: action=accept, content={TYPED_DEFAULTS}",
        ),
        ("test_streaming_elicitation", {}, 'action=accept, content={"ok":true}'),
        ("test_missing_capability", {}, "LLM response: Hello there!"),
        ("test_input_required_result_elicitation", {}, "Hello, Alice!"),
        ("test_input_required_result_sampling", {}, "The model says: Hello there!"),
        ("test_input_required_result_list_roots", {}, "Roots: file:///test/root"),
        ("test_input_required_result_request_state", {}, 'state-ok, action=accept, content={"ok":true}'),
        ("test_input_required_result_tampered_state", {}, 'state-ok, action=accept, content={"ok":true}'),
        ("test_input_required_result_multiple_inputs", {}, "Hello there! Alice, 1 roots"),
        ("test_input_required_result_multi_round", {}, "Alice likes blue"),
        ("test_input_required_result_capabilities", {}, "2 answers"),
    ],
)
def test_tools_that_ask(mode: str, name: str, arguments: dict[str, Any], text: str) -> None:
    result = call(mode, name, arguments)
    assert not result.is_error and result.text == text


def test_the_forms_with_defaults_and_choices() -> None:
    user = User()
    call("2025-11-25", "test_elicitation_sep1034_defaults", elicitation_callback=user.elicit)
    chosen = call("2025-11-25", "test_elicitation_sep1330_enums", elicitation_callback=user.elicit)
    assert chosen.text.startswith("Elicitation completed: action=accept, content={") and not chosen.is_error
    defaults, choices = (form["properties"] for form in user.forms)
    assert {name: (field["type"], field["default"]) for name, field in defaults.items()} == {
        "name": ("string", "John Doe"),
        "age": ("integer", 30),
        "score": ("number", 95.5),
        "status": ("string", "active"),
        "verified": ("boolean", True),
    }
    assert defaults["status"]["enum"] == ["active", "inactive", "pending"]
    assert choices == ENUMS["properties"]


def test_who_cannot_sample_is_told_what_is_missing() -> None:
    with pytest.raises(MCPError) as error:
        call(MODERN, "test_missing_capability", roots=[])
    assert error.value.code == -32021
    assert error.value.data == {"requiredCapabilities": {"sampling": {}}}
    assert call("2025-11-25", "test_missing_capability", roots=[]).is_error


ROUNDS: dict[str, dict[str, str]] = {
    "elicitation": {"user_name": "elicitation/create"},
    "sampling": {"capital_question": "sampling/createMessage"},
    "list_roots": {"client_roots": "roots/list"},
    "request_state": {"confirm": "elicitation/create"},
    "tampered_state": {"confirm": "elicitation/create"},
    "multi_round": {"step1": "elicitation/create"},
    "multiple_inputs": {
        "user_name": "elicitation/create",
        "greeting": "sampling/createMessage",
        "client_roots": "roots/list",
    },
}


@pytest.mark.parametrize("name", ROUNDS)
def test_what_the_first_round_asks(name: str) -> None:
    asked = raw_call(f"test_input_required_result_{name}")
    assert asked["resultType"] == "input_required" and asked["requestState"]
    assert {key: one["method"] for key, one in asked["inputRequests"].items()} == ROUNDS[name]


def accepted(**content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}


def test_rounds_one_by_one() -> None:
    """A new state each time, and another question."""
    name = "test_input_required_result_multi_round"
    first = raw_call(name)
    second = raw_call(
        name, requestState=first["requestState"], inputResponses={"step1": accepted(name="Alice")}
    )
    assert second["resultType"] == "input_required" and [*second["inputRequests"]] == ["step2"]
    assert second["requestState"] != first["requestState"]
    last = raw_call(
        name, requestState=second["requestState"], inputResponses={"step2": accepted(color="blue")}
    )
    assert last["resultType"] == "complete" and last["content"][0]["text"] == "Alice likes blue"


def test_answers_that_do_not_fit() -> None:
    """Asked again, or refused; never a complete result. What was not asked for is ignored."""
    name = "test_input_required_result_elicitation"
    wrong_key = raw_call(name, inputResponses={"wrong_key": accepted(data="wrong")})
    assert wrong_key["resultType"] == "input_required" and [*wrong_key["inputRequests"]] == ["user_name"]
    for malformed in ({"user_name": 12345}, None):
        with pytest.raises(MCPError) as error:
            raw_call(name, inputResponses=malformed)
        assert error.value.code == -32602
    more = {"user_name": accepted(name="Alice"), "other": accepted(foo="bar"), "third": accepted(baz=123)}
    assert raw_call(name, inputResponses=more)["resultType"] == "complete"


def test_a_state_that_was_tampered_with() -> None:
    name = "test_input_required_result_tampered_state"
    state = raw_call(name)["requestState"]
    answers = {"confirm": accepted(ok=True)}
    with pytest.raises(MCPError) as error:
        raw_call(name, requestState=state + "-TAMPERED", inputResponses=answers)
    assert error.value.code == -32602
    assert "state-ok" in raw_call(name, requestState=state, inputResponses=answers)["content"][0]["text"]


@both_eras
def test_only_what_the_client_declared_is_asked(mode: str) -> None:
    user = User()
    result = call(mode, "test_input_required_result_capabilities", sampling_callback=user.sample)
    assert result.text == "1 answers" and user.sampled == ["Say hello"]


# ---------------------------------------------------------------------------------------------- resources, prompts


@both_eras
def test_reading(mode: str) -> None:
    async def act(client: Client) -> None:
        (text,) = (await client.read_resource("test://static-text")).contents
        assert text.mime_type == "text/plain" and text.text
        (blob,) = (await client.read_resource("test://static-binary")).contents
        assert blob.mime_type == "image/png" and base64.b64decode(blob.blob).startswith(b"\x89PNG")
        (data,) = (await client.read_resource("test://template/123/data")).contents
        assert (data.uri, data.mime_type) == ("test://template/123/data", "application/json")
        assert '"123"' in data.text
        with pytest.raises(MCPError) as unknown:
            await client.read_resource("test://nonexistent")
        assert unknown.value.code == (-32602 if mode == MODERN else -32002)
        assert unknown.value.data == {"uri": "test://nonexistent"}

    drive(mode, act)


@both_eras
def test_getting_prompts(mode: str) -> None:
    async def act(client: Client) -> None:
        async def blocks(name: str, **arguments: str) -> list[Any]:
            messages = (await client.get_prompt(name, arguments)).messages
            assert {message.role for message in messages} == {"user"}
            return [message.content for message in messages]

        (simple,) = await blocks("test_simple_prompt")
        assert simple.text
        (filled,) = await blocks("test_prompt_with_arguments", arg1="testValue1", arg2="testValue2")
        assert "testValue1" in filled.text and "testValue2" in filled.text
        resource, text = await blocks("test_prompt_with_embedded_resource", resourceUri="test://example")
        assert resource.resource.uri == "test://example" and text.text
        image, text = await blocks("test_prompt_with_image")
        assert image.mime_type == "image/png" and image.data and text.text
        (asked,) = await blocks("test_input_required_result_prompt")
        assert "a test" in asked.text

    drive(mode, act)


def test_the_prompt_that_asks_first() -> None:
    async def act(client: Client) -> Any:
        return await client.request("prompts/get", {"name": "test_input_required_result_prompt"})

    asked = drive(MODERN, act)
    assert asked["resultType"] == "input_required" and [*asked["inputRequests"]] == ["user_context"]


@both_eras
def test_completion(mode: str) -> None:
    async def act(client: Client) -> Any:
        ref = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
        return (await client.complete(ref, {"name": "arg1", "value": "testV"})).completion.values

    assert drive(mode, act) == ["testValue1", "testValue2"]


def test_what_older_clients_set_up() -> None:
    async def act(client: Client) -> None:
        assert await client.ping()
        await client.set_logging_level("info")
        await client.subscribe_resource("test://watched-resource")
        await client.unsubscribe_resource("test://watched-resource")

    drive("2025-11-25", act)


@pytest.mark.parametrize(
    ("tool", "filter", "event"),
    [
        ("test_trigger_tool_change", "tools_list_changed", ToolsListChanged),
        ("test_trigger_prompt_change", "prompts_list_changed", PromptsListChanged),
    ],
)
def test_changes_are_told_to_who_listens(tool: str, filter: str, event: type) -> None:
    async def act(client: Client) -> None:
        before = await client.list_tools(), await client.list_prompts()
        async with client.listen(**{filter: True}) as events:
            await client.call_tool(tool, {}, raise_on_error=True)
            assert isinstance(await anext(aiter(events)), event)
        after = await client.list_tools(), await client.list_prompts()
        assert before[0].tools == after[0].tools and before[1].prompts == after[1].prompts

    drive(MODERN, act)


# ---------------------------------------------------------------------------------------------- the runner


def check(id: str, status: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "status": status, "description": "", **more}


@pytest.mark.parametrize(
    ("scenario", "checks", "wrong"),
    [
        ("ping", [check("ping", "SUCCESS"), check("wire-schema-valid", "SUCCESS"), check("x", "INFO")], []),
        ("ping", [check("ping", "FAILURE", errorMessage="no")], [("ping", "FAILURE", "no")]),
        ("ping", [check("a", "SUCCESS"), check("ping", "WARNING")], [("ping", "WARNING", "")]),
        ("ping", [check("a", "SUCCESS"), check("ping", "SKIPPED")], [("ping", "SKIPPED", "")]),
        ("tasks-status-notifications", [check("tasks-status-notifications", "SKIPPED")], []),
        (
            "ping",
            [check("wire-schema-valid", "SUCCESS")],
            [("ping", "NOTHING CHECKED", "no check of this scenario was made")],
        ),
        (
            "server-session-lifecycle",
            [
                check("server-session-delete-accepted", "SUCCESS"),
                check("no-session", "INFO", details={"message": "none"}),
            ],
            [("server-session-terminated-returns-404", "NEVER MADE", "none")],
        ),
        ("ping", None, [("ping", "NO RESULT", "the suite wrote none; its output says why")]),
    ],
)
def test_what_the_runner_takes_for_wrong(scenario: str, checks: Any, wrong: list[Any]) -> None:
    assert judge(scenario, checks) == wrong


def test_how_the_runner_reads_a_frozen_list() -> None:
    text = """
# server: a comment
server:
  - first
  - second

client:
  - not-ours

not_scored:
  - scenario: also-not-ours
    leg: client
    reason: extension
  - scenario: third
    leg: server
    reason: pending
    note: >-
      because
"""
    assert frozen_scenarios(text) == {"first": True, "second": True, "third": False}
    assert SCORED == {"2025-06-18": 27, "2025-11-25": 30, "2026-07-28": 37}
