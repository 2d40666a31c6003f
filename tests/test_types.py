"""The types of the protocol: what the specification's own examples hold survives a round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.protocol import types

REVISION = "2026-07-28"


def spec_folder() -> Path:
    """The specification's schemas: beside the repository where we build, copied into tests/spec elsewhere."""
    beside = Path(__file__).parents[2] / "shared" / "spec"
    return beside if beside.is_dir() else Path(__file__).parent / "spec"


EXAMPLES = sorted((spec_folder() / REVISION / "examples").glob("*/*.json"))


def reread(kind: Any, raw: bytes) -> Any:
    """What is left of `raw` after it was a `kind`."""
    return msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(raw, type=kind)))


def reread_request(raw: bytes) -> Any:
    """A request or notification: its envelope, and its params as the struct of its method."""
    message = json.loads(raw)
    if message["method"] == "elicitation/create" or "jsonrpc" not in message:
        return reread(types.InputRequest, raw)
    envelope: types.JSONRPCRequest | types.JSONRPCNotification
    if "id" in message:
        envelope = msgspec.json.decode(raw, type=types.JSONRPCRequest)
    else:
        envelope = msgspec.json.decode(raw, type=types.JSONRPCNotification)
    if envelope.params is not None:
        params = msgspec.convert(envelope.params, types.PARAMS[envelope.method])
        envelope.params = msgspec.to_builtins(params)
    return msgspec.json.decode(msgspec.json.encode(envelope))


def reread_response(folder: str, raw: bytes) -> Any:
    envelope = msgspec.json.decode(raw, type=types.JSONRPCResponse)
    kind = getattr(types, folder.removesuffix("Response"))
    envelope.result = msgspec.to_builtins(msgspec.convert(envelope.result, kind))
    return msgspec.json.decode(msgspec.json.encode(envelope))


def reread_example(folder: str, raw: bytes) -> Any:
    """An example by the struct of its folder's name, or as the generic thing that it is."""
    if folder.endswith("Response"):
        return reread_response(folder, raw)
    if folder.endswith("Error"):
        return reread(types.JSONRPCError if b'"jsonrpc"' in raw else types.ErrorData, raw)
    if folder.endswith(("Request", "Notification")):
        return reread_request(raw)
    if folder == "InputRequests":
        return reread(types.InputRequests, raw)
    if folder == "InputResponses":
        answers = {key: types.input_response(value) for key, value in json.loads(raw).items()}
        kinds = [type(answer) for answer in answers.values()]
        assert kinds == [types.ElicitResult, types.CreateMessageResult]
        return msgspec.to_builtins(answers)
    if folder.endswith("Schema"):  # one property of an elicitation's form
        schema = {"type": "object", "properties": {"x": json.loads(raw)}}
        form = json.dumps({"message": "?", "requestedSchema": schema}).encode()
        again = reread(types.ElicitRequestFormParams, form)
        return again["requestedSchema"]["properties"]["x"]
    return reread(getattr(types, folder), raw)


def test_all_examples_are_there() -> None:
    assert len(EXAMPLES) == 129


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_example_survives(path: Path) -> None:
    raw = path.read_bytes()
    assert reread_example(path.parent.name, raw) == json.loads(raw)


def test_every_method_of_the_newest_schema_has_its_structs() -> None:
    definitions = json.loads((spec_folder() / REVISION / "schema.json").read_bytes())["$defs"]
    methods = {
        definition["properties"]["method"]["const"]
        for definition in definitions.values()
        if "const" in definition.get("properties", {}).get("method", {})
    }
    assert len(methods) == 21
    assert methods - types.PARAMS.keys() == {"elicitation/create"}
    assert {
        method for method in methods if not method.startswith("notifications/")
    } == types.RESULTS.keys() - {
        # methods that only older revisions have
        "initialize",
        "ping",
        "resources/subscribe",
        "resources/unsubscribe",
        "logging/setLevel",
    }


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", REVISION])
def test_structs_know_every_member_that_the_schemas_name(version: str) -> None:
    schema = json.loads((spec_folder() / version / "schema.json").read_bytes())
    definitions = schema.get("$defs") or schema["definitions"]
    looked_at = 0
    for name, definition in definitions.items():
        kind = getattr(types, name, None)
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            continue
        known = {*kind.__struct_encode_fields__, kind.__struct_config__.tag_field}
        unknown = definition.get("properties", {}).keys() - known
        if name.endswith("Request"):
            unknown -= {"jsonrpc", "id"}  # what a question had before 2026-07-28, and JSONRPCRequest has
        if version == "2025-11-25":
            unknown -= {"task"}  # tasks come later
        assert not unknown, f"{name} of {version} has {unknown}"
        looked_at += 1
    assert looked_at > 30


def test_made_by_either_spelling() -> None:
    image: Any = types.ImageContent
    block = image(type="image", data="aGk=", mime_type="image/png")
    assert block == image(data="aGk=", mimeType="image/png", _meta=None)
    assert block.type == "image"
    hints: Any = types.ToolAnnotations
    assert hints(readOnlyHint=True).read_only_hint is True
    with pytest.raises(TypeError, match="always 'image'"):
        image(type="audio", data="", mime_type="")
    with pytest.raises(TypeError, match="foo"):
        image(data="", mime_type="", foo=1)
    with pytest.raises(TypeError, match="data_"):
        image(data_="", mime_type="")


def test_is_error_reads_as_a_bool_whatever_was_said() -> None:
    silent = msgspec.json.decode(b'{"content":[]}', type=types.CallToolResult)
    loud = msgspec.json.decode(b'{"content":[],"isError":false}', type=types.CallToolResult)
    assert silent.is_error is False
    assert loud.is_error is False
    assert msgspec.json.encode(silent) == b'{"content":[]}'
    assert b'"isError":false' in msgspec.json.encode(loud)
    assert types.CallToolResult(content=[], is_error=True).is_error is True
    silent.is_error = True
    assert b'"isError":true' in msgspec.json.encode(silent)


def test_what_the_wire_does_not_tag_is_told_apart() -> None:
    read = msgspec.json.decode(
        b'{"contents":[{"uri":"a:b","text":"x"},{"uri":"a:c","blob":"eA=="}]}', type=types.ReadResourceResult
    )
    assert isinstance(read.contents[0], types.TextResourceContents)
    assert isinstance(read.contents[1], types.BlobResourceContents)
    with pytest.raises(msgspec.ValidationError, match="text"):
        types.resource_contents({"uri": "a:b"})
    url = types.elicit_params({"mode": "url", "message": "?", "url": "https://example.com"})
    assert isinstance(url, types.ElicitRequestURLParams)
    assert url.mode == "url"
    form = types.elicit_params({"message": "?", "requestedSchema": {}})
    assert isinstance(form, types.ElicitRequestFormParams)
    assert form.mode == "form"
    with pytest.raises(msgspec.ValidationError, match="mode"):
        types.elicit_params({"mode": "telepathy", "message": "?"})
    assert isinstance(types.input_response({"roots": []}), types.ListRootsResult)
    with pytest.raises(msgspec.ValidationError):
        types.input_response({"nothing": 1})


def test_input_required_needs_one_of_its_members() -> None:
    assert types.InputRequiredResult(request_state="s").result_type == "input_required"
    with pytest.raises(ValueError, match="requestState"):
        types.InputRequiredResult()
    with pytest.raises(msgspec.ValidationError, match="requestState"):
        msgspec.json.decode(b'{"resultType":"input_required"}', type=types.InputRequiredResult)


def test_discover_result_tells_who_the_server_is() -> None:
    raw = (
        b'{"supportedVersions":[],"capabilities":{},'
        b'"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n","version":"1"}}}'
    )
    found = msgspec.json.decode(raw, type=types.DiscoverResult).server_info
    assert found == types.Implementation(name="n", version="1")
    assert (
        types.DiscoverResult(supported_versions=[], capabilities=types.ServerCapabilities()).server_info
        is None
    )


def test_sampling_content_may_be_one_block_or_several() -> None:
    one = msgspec.json.decode(
        b'{"role":"user","content":{"type":"text","text":"x"}}', type=types.SamplingMessage
    )
    assert one.content_as_list == [types.TextContent(text="x")]
    two = types.SamplingMessage(role="user", content=[types.TextContent(text="x")])
    assert two.content_as_list == one.content_as_list


scalars = st.one_of(st.text(), st.integers(-(2**53), 2**53), st.booleans(), st.none(), st.lists(st.text()))
content = st.dictionaries(st.text(), st.one_of(scalars, st.floats(allow_nan=False, allow_infinity=False)))


@given(content)
def test_elicitation_content_survives_with_its_kinds_of_number(values: dict[str, Any]) -> None:
    raw = json.dumps({"action": "accept", "content": values}).encode()
    again = msgspec.json.decode(raw, type=types.ElicitResult)
    assert again.content == values
    assert {k: type(v) for k, v in (again.content or {}).items()} == {k: type(v) for k, v in values.items()}
    assert reread(types.ElicitResult, raw)["content"] == values


@given(st.dictionaries(st.text(min_size=1), st.integers(), max_size=3))
def test_unknown_members_are_ignored(extra: dict[str, int]) -> None:
    block = {"type": "text", "text": "x"}
    raw = json.dumps({**{f"x{name}": value for name, value in extra.items()}, **block}).encode()
    assert msgspec.json.decode(raw, type=types.ContentBlock) == types.TextContent(text="x")
