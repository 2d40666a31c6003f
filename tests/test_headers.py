"""The routing headers of 2026-07-28: the codec's vectors, the mirror of method, name and version, and `x-mcp-header`."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpfast.errors import HEADER_MISMATCH, MCPError, RegistrationError
from mcpfast.protocol.headers import INTEGER_MAX, ParamHeaders, check_mirror, decode_value, encode_value

VERSION = "2026-07-28"


def refusal(*says: str) -> Any:
    """The -32020 that is expected, in one sentence that says all of this."""

    def is_it(error: MCPError) -> bool:
        text = error.message
        return error.code == HEADER_MISMATCH and "\n" not in text and all(part in text for part in says)

    return pytest.raises(MCPError, check=is_it)


# ---------------------------------------------------------------- one value


@pytest.mark.parametrize(
    ("value", "header"),
    [  # protocol notes, appendix B
        ("us-west1", "us-west1"),
        ("us west 1", "us west 1"),
        (" us-west1", "=?base64?IHVzLXdlc3Qx?="),
        ("日本語", "=?base64?5pel5pys6Kqe?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("\tindented", "=?base64?CWluZGVudGVk?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        (True, "true"),
        (False, "false"),
        (42, "42"),
        ("", ""),
        # and ours
        ("a\tb", "a\tb"),
        ("us-west1\t", "=?base64?dXMtd2VzdDEJ?="),
        ("\x7f", "=?base64?fw==?="),
        ("=?base64?=", "=?base64?PT9iYXNlNjQ/PQ==?="),
        ("=?BASE64?x?=", "=?BASE64?x?="),
        ("=?base64?x", "=?base64?x"),
        (-INTEGER_MAX, "-9007199254740991"),
    ],
)
def test_a_value_is_written_so(value: str | int | bool, header: str) -> None:
    assert encode_value(value) == header
    if isinstance(value, str):
        assert decode_value(header.encode("ascii")) == value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"=?base64?SGVsbG8=?=", "Hello"),
        (b"SGVsbG8=", "SGVsbG8="),
        (b"=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
        (b"=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
        (b"foo ", "foo"),
        (b" \tfoo\t ", "foo"),
        (b"", ""),
        (b" \t ", ""),
        (b" =?base64?SGVsbG8=?=\t", "Hello"),
        (b"=?base64??=", ""),
        (b"=?base64?=", "=?base64?="),
        (b"a \t b", "a \t b"),
    ],
)
def test_a_header_says(header: bytes, value: str) -> None:
    assert decode_value(header) == value


@pytest.mark.parametrize(
    "header",
    [
        b"=?base64?SGVsbG8?=",  # no padding
        b"=?base64?SGVs!!!bG8=?=",  # not of the alphabet
        b"=?base64?SGVsbG8=\n?=",
        b"=?base64? SGVsbG8=?=",
        b"=?base64?SGVsbG8==?=",
        b"=?base64?SGVsbG8=SGVs?=",
        b"=?base64?SGVsbG9=?=",  # bits that are not zero: not canonical
        b"=?base64?-_-_?=",  # the alphabet for URLs
        b"=?base64?=?=",
        b"=?base64?gICA?=",  # not UTF-8
        b"=?base64?7aCA?=",  # a lone surrogate
        b"=?base64?wIA=?=",  # overlong
        b"caf\xc3\xa9",
        b"caf\xe9",
        b"a\x00b",
        b"a\x7f",
        b"a\rb",
        b"a\nb",
        b"\xa0a",  # no white space of HTTP's
        b"\x0ba",
    ],
)
def test_a_bad_header_is_refused(header: bytes) -> None:
    with refusal("Mcp-Name "):
        decode_value(header, "Mcp-Name")


@given(st.text())
@example("=?base64??=")
@example("=?base64?=")
@example(" ")
@example("\t")
@example("a\x7f")
def test_every_text_comes_back(text: str) -> None:
    header = encode_value(text)
    assert decode_value(header.encode("ascii")) == text
    assert decode_value(b" \t" + header.encode("ascii") + b"\t ") == text
    assert header == header.strip()
    assert all(character == "\t" or " " <= character <= "~" for character in header)


def wrapped(text: str) -> bytes:
    return b"=?base64?" + base64.b64encode(text.encode()) + b"?="


@given(st.binary() | st.binary().map(lambda payload: b"=?base64?" + payload + b"?="))
@example(b"=?base64?SGVsbG9=?=")
def test_bytes_are_a_text_in_one_of_two_ways_or_refused(header: bytes) -> None:
    try:
        text = decode_value(header)
    except MCPError:
        return
    assert header.strip(b" \t") in (text.encode(), wrapped(text))


@given(st.binary(max_size=12))
def test_only_canonical_base64_of_utf8_is_read(payload: bytes) -> None:
    try:
        expected = base64.b64decode(payload, validate=True).decode()
        assert base64.b64encode(expected.encode()) == payload
    except (ValueError, AssertionError):
        expected = None
    try:
        assert decode_value(b"=?base64?" + payload + b"?=") == expected
    except MCPError:
        assert expected is None


def test_what_no_header_carries_is_no_value() -> None:
    for number in (INTEGER_MAX + 1, -INTEGER_MAX - 1, 10**5000):
        with pytest.raises(ValueError, match="integers"):
            encode_value(number)
    with pytest.raises(ValueError):
        encode_value("\ud800")
    with pytest.raises(TypeError, match="list"):
        encode_value([])  # type: ignore[arg-type]


# ---------------------------------------------------------------- method, name, version


@pytest.mark.parametrize(
    ("method", "name", "method_header", "name_header"),
    [
        ("tools/list", None, b"tools/list", None),
        ("tools/list", None, b" tools/list\t", b"of no meaning here \xff"),
        ("tools/call", "add", b"tools/call", b"add"),
        ("tools/call", "add", b"tools/call", b"  add "),
        ("tools/call", "日本語", b"tools/call", b"=?base64?5pel5pys6Kqe?="),
        ("tools/call", "add", b"tools/call", b"=?base64?YWRk?="),
        ("prompts/get", "hi", b"prompts/get", b"hi"),
        ("resources/read", "x://1?a=b", b"resources/read", b"x://1?a=b"),
        ("tools/call", None, b"tools/call", None),  # refused later, for what the body lacks
    ],
)
def test_a_true_mirror(
    method: str, name: str | None, method_header: bytes, name_header: bytes | None
) -> None:
    check_mirror(method, name, VERSION, method_header, name_header, b" 2026-07-28 ")


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_three_methods_need_a_name(method: str) -> None:
    member = "params.uri" if method == "resources/read" else "params.name"
    with refusal("Mcp-Name is missing", member):
        check_mirror(method, "x", VERSION, method.encode(), None, VERSION.encode())
    with refusal("Mcp-Name is 'y'", f"{member} is 'x'"):
        check_mirror(method, "x", VERSION, method.encode(), b"y", VERSION.encode())


@pytest.mark.parametrize(
    ("method_header", "name_header", "version_header", "says"),
    [
        (None, b"add", b"2026-07-28", "Mcp-Method is missing"),
        (b"TOOLS/CALL", b"add", b"2026-07-28", "Mcp-Method is 'TOOLS/CALL', but the message's method is 'tools/call'"),
        (b"", b"add", b"2026-07-28", "Mcp-Method is ''"),
        (b"=?base64?dG9vbHMvY2FsbA==?=", b"add", b"2026-07-28", "Mcp-Method is '=?base64?"),
        (b"tools/call\xff", b"add", b"2026-07-28", "Mcp-Method has a character"),
        (b"tools/call", None, b"2026-07-28", "Mcp-Name is missing"),
        (b"tools/call", b"Add", b"2026-07-28", "Mcp-Name is 'Add', but params.name is 'add'"),
        (b"tools/call", b"=?base64?YWRk?", b"2026-07-28", "Mcp-Name is '=?base64?YWRk?'"),
        (b"tools/call", b"=?base64?YWR?=", b"2026-07-28", "Mcp-Name has no canonical base64"),
        (b"tools/call", b"=?base64?gICA?=", b"2026-07-28", "Mcp-Name has base64 that is no UTF-8"),
        (b"tools/call", b"\xe4dd", b"2026-07-28", "Mcp-Name has a character"),
        (b"tools/call", b"add", None, "MCP-Protocol-Version is missing"),
        (b"tools/call", b"add", b"2025-11-25", "MCP-Protocol-Version is '2025-11-25', but the message's protocolVersion is"),
        (b"wrong", b"wrong", b"wrong", "MCP-Protocol-Version"),  # one sentence, about the first
    ],
)  # fmt: skip
def test_a_false_mirror(
    method_header: bytes | None, name_header: bytes | None, version_header: bytes | None, says: str
) -> None:
    with refusal(says):
        check_mirror("tools/call", "add", VERSION, method_header, name_header, version_header)


@given(st.text(max_size=120), st.text(max_size=120))
@example("a" * 81, "b" * 81)
@example("\x00" * 80, "\U0001f600" * 81)
def test_little_of_a_clients_value_is_repeated(name: str, other: str) -> None:
    if name == other:
        return
    with pytest.raises(MCPError) as caught:
        check_mirror("tools/call", name, VERSION, b"tools/call", encode_value(other).encode(), b"2026-07-28")
    frame = "Mcp-Name is , but params.name is "
    assert caught.value.message.startswith("Mcp-Name is ")
    assert len(caught.value.message) <= len(frame) + 2 * 80
    assert "\n" not in caught.value.message


# ---------------------------------------------------------------- x-mcp-header


def annotated(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def string(header: str) -> dict[str, Any]:
    return {"type": "string", "x-mcp-header": header}


SCHEMA = annotated(
    region=string("Region"),
    limit={"type": "integer", "x-mcp-header": "Limit"},
    dry={"type": "boolean", "x-mcp-header": "Dry-Run"},
    where={"type": "object", "properties": {"zone": string("Zone")}},
    free={"type": "string"},
)


def of(schema: dict[str, Any]) -> ParamHeaders:
    params = ParamHeaders.of(schema)
    assert params is not None
    return params


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {},
        annotated(a={"type": "string"}),
        annotated(a=True, b=False),  # type: ignore[arg-type]
        annotated(**{"x-mcp-header": {"type": "string"}}),  # a property that has this name
        annotated(
            a={"type": "object", "default": {"x-mcp-header": "A"}, "examples": [{"x-mcp-header": "A"}]}
        ),
        annotated(a={"enum": [{"x-mcp-header": "A"}], "const": {"x-mcp-header": "A"}}),
        {"type": "object", "properties": []},
    ],
)
def test_a_schema_without_annotations_has_no_headers(schema: dict[str, Any]) -> None:
    assert ParamHeaders.of(schema) is None


def test_the_names_of_the_headers() -> None:
    assert of(SCHEMA).names == {"mcp-param-region", "mcp-param-limit", "mcp-param-dry-run", "mcp-param-zone"}
    assert of(annotated(a=string("Method"))).names == {"mcp-param-method"}  # no clash with Mcp-Method
    assert of(annotated(a=string("!#$%&'*+-.^_`|~09AZaz"))).names == {"mcp-param-!#$%&'*+-.^_`|~09azaz"}
    assert of(annotated(**{"x-mcp-header": string("Self")})).names == {"mcp-param-self"}
    plain = {
        "type": "object",
        "additionalProperties": False,
        "required": ["a"],
        "$defs": {"X": {"type": "string"}},
    }
    assert of({**plain, **annotated(a={**string("A"), "minLength": 1})}).names == {"mcp-param-a"}


@pytest.mark.parametrize(
    "header", ["", " ", "My Region", "Region:", "Régión", "a\r\nb", "a/b", "a\n", "(a)", None, 7, ["A"], True]
)
def test_a_name_that_is_no_token_is_refused(header: Any) -> None:
    with pytest.raises(
        RegistrationError, match=r"^property 'region': x-mcp-header must be a header token[^\n]*$"
    ):
        ParamHeaders.of(annotated(region={"type": "string", "x-mcp-header": header}))


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "number"},
        {"type": "object"},
        {"type": "array"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"type": ["string"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"$ref": "#/$defs/X"},
        {"enum": ["a"]},
        {},
    ],
)
def test_a_type_that_no_header_carries_is_refused(kind: dict[str, Any]) -> None:
    with pytest.raises(
        RegistrationError, match=r"^property 'where.region': x-mcp-header needs a .type.[^\n]*$"
    ):
        ParamHeaders.of(
            annotated(where={"type": "object", "properties": {"region": {**kind, "x-mcp-header": "Region"}}})
        )


@pytest.mark.parametrize(("first", "second"), [("Region", "Region"), ("Region", "REGION"), ("x-a", "X-a")])
def test_names_that_differ_in_case_only_are_refused(first: str, second: str) -> None:
    with pytest.raises(RegistrationError, match=r"^property 'b.c': .* is taken by property 'a'[^\n]*$"):
        ParamHeaders.of(annotated(a=string(first), b={"type": "object", "properties": {"c": string(second)}}))


A = {"properties": {"deep": string("A")}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "x-mcp-header": "A"},
        {"type": "string", "x-mcp-header": "A"},
        annotated(a={"items": string("A")}),
        annotated(a={"items": [{}, string("A")]}),
        annotated(a={"prefixItems": [{}, string("A")]}),
        annotated(a={"items": A}),
        annotated(a={"contains": string("A")}),
        annotated(a={"additionalProperties": string("A")}),
        annotated(a={"patternProperties": {"^a": string("A")}}),
        annotated(a={"propertyNames": string("A")}),
        annotated(a={"unevaluatedItems": string("A")}),
        annotated(a={"unevaluatedProperties": string("A")}),
        annotated(a={"additionalItems": string("A")}),
        annotated(a={"contentSchema": string("A")}),
        annotated(a={"oneOf": [{}, string("A")]}),
        {"oneOf": [A]},
        {"anyOf": [A]},
        {"allOf": [{}, A]},
        {"not": A},
        {"if": A},
        {"then": A},
        {"else": A},
        {"$defs": {"X": string("A")}},
        {"$defs": {"X": A}},
        {"definitions": {"X": A}},
        {"dependentSchemas": {"x": A}},
        {"dependencies": {"x": A, "y": ["z"]}},
        {"$defs": {"properties": {"properties": {"a": string("A")}}}},
    ],
)
def test_an_annotation_that_no_client_finds_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(
        RegistrationError, match=r"^property '#[^\n]* reached from the root through .properties. alone$"
    ):
        ParamHeaders.of({"type": "object", **schema})


def test_a_refusal_names_the_tool_in_one_short_line() -> None:
    with pytest.raises(RegistrationError, match=r"^query\(\): property 'a'"):
        ParamHeaders.of(annotated(a=string("")), "query")
    name = "x\n" * 5_000
    for schema in (
        annotated(**{name: string("a b")}),
        annotated(a={"items": annotated(**{name: string("A")})}),
    ):
        with pytest.raises(RegistrationError) as caught:
            ParamHeaders.of(schema)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({}, {}),
        ({"free": "x"}, {}),
        ({"region": None, "limit": None, "dry": None, "where": None}, {}),
        ({"where": {}}, {}),
        ({"where": {"zone": None}}, {}),
        ({"where": {"zone": "a"}}, {"zone": b"a"}),
        ({"region": "us-west1"}, {"region": b"us-west1"}),
        ({"region": "us-west1"}, {"region": b" us-west1\t"}),
        ({"region": "us-west1"}, {"region": b"=?base64?dXMtd2VzdDE=?="}),
        ({"region": " us-west1"}, {"region": b"=?base64?IHVzLXdlc3Qx?="}),
        ({"region": "日本語"}, {"region": b"=?base64?5pel5pys6Kqe?="}),
        ({"region": "=?BASE64?x?="}, {"region": b"=?BASE64?x?="}),
        ({"region": ""}, {"region": b""}),
        ({"region": "42"}, {"region": b"42"}),
        ({"limit": 42}, {"limit": b"42"}),
        ({"limit": 42}, {"limit": b"42.0"}),
        ({"limit": 42}, {"limit": b"042.000"}),
        ({"limit": 42.0}, {"limit": b"42"}),
        ({"limit": 42.0}, {"limit": b"42.0"}),
        ({"limit": -7}, {"limit": b"-7.0"}),
        ({"limit": 0}, {"limit": b"-0"}),
        ({"limit": -0.0}, {"limit": b"0"}),
        ({"limit": 42}, {"limit": b"=?base64?NDI=?="}),
        ({"limit": INTEGER_MAX}, {"limit": b"9007199254740991"}),
        ({"dry": True}, {"dry-run": b"true"}),
        ({"dry": False}, {"dry-run": b"false"}),
        ({"region": "a", "limit": 1, "dry": True}, {"region": b"a", "limit": b"1", "dry-run": b"true"}),
        ({"region": "a"}, {"region": b"a", "other": b"\xff"}),  # not of this tool (X5)
        # of a type that the arguments are refused for, in words that help more
        ({"limit": "many"}, {"limit": b"many"}),
        ({"limit": 1.5}, {"limit": b"1.5"}),
        ({"region": 5}, {"region": b"5"}),
        ({"region": True}, {"region": b"true"}),
        ({"region": ["a"]}, {}),
        ({"where": "no object"}, {}),
    ],
)
def test_headers_that_say_what_the_arguments_say(arguments: dict[str, Any], values: dict[str, bytes]) -> None:
    of(SCHEMA).check(arguments, {f"mcp-param-{name}": value for name, value in values.items()})


@pytest.mark.parametrize(
    ("arguments", "values", "says"),
    [
        ({"region": "a"}, {}, "Mcp-Param-Region is missing; it must repeat the argument 'region'"),
        ({"region": ""}, {}, "Mcp-Param-Region is missing"),
        ({"limit": 0}, {}, "Mcp-Param-Limit is missing"),
        ({"dry": False}, {}, "Mcp-Param-Dry-Run is missing"),
        ({"where": {"zone": "a"}}, {}, "Mcp-Param-Zone is missing; it must repeat the argument 'where.zone'"),
        ({}, {"region": b"a"}, "Mcp-Param-Region is there, but the argument 'region' is absent"),
        ({"region": None}, {"region": b"a"}, "is absent"),
        ({"region": None}, {"region": b""}, "is absent"),
        ({"region": None}, {"region": b"null"}, "is absent"),
        ({"where": "a"}, {"zone": b"a"}, "is absent"),
        ({"zone": "a"}, {"zone": b"a"}, "is absent"),  # at the root, not where the schema has it
        ({"region": ["a"]}, {"region": b"a"}, "cannot stand in a header"),
        ({"region": "a"}, {"region": b"A"}, "Mcp-Param-Region differs from the argument 'region'"),
        ({"region": " a"}, {"region": b" a"}, "differs"),
        ({"region": "Hello"}, {"region": b"SGVsbG8="}, "differs"),
        ({"region": "Hello"}, {"region": b"=?BASE64?SGVsbG8=?="}, "differs"),
        ({"region": "Hello"}, {"region": b"=?base64?SGVsbG8=" }, "differs"),
        ({"region": "Hello"}, {"region": b"=?base64?SGVsbG8?="}, "Mcp-Param-Region has no canonical base64"),
        ({"region": "Hello"}, {"region": b"=?base64?SGVs!!!bG8=?="}, "has no canonical base64"),
        ({"region": "Hello"}, {"region": b"=?base64?gICA?="}, "no UTF-8"),
        ({"region": "é"}, {"region": "é".encode()}, "Mcp-Param-Region has a character"),
        ({"region": "é"}, {"region": "é".encode("latin-1")}, "Mcp-Param-Region has a character"),
        ({"region": "42"}, {"region": b"42.0"}, "differs"),  # a string is no number
        ({"limit": 42}, {"limit": b"43"}, "differs"),
        ({"limit": 42}, {"limit": b"-42"}, "differs"),
        ({"limit": 42}, {"limit": b"42.5"}, "differs"),
        ({"limit": 42}, {"limit": b"42."}, "differs"),
        ({"limit": 42}, {"limit": b"4.2e1"}, "differs"),
        ({"limit": 42}, {"limit": b"+42"}, "differs"),
        ({"limit": 42}, {"limit": b"0x2a"}, "differs"),
        ({"limit": 42}, {"limit": b"4_2"}, "differs"),
        ({"limit": 42}, {"limit": b""}, "differs"),
        ({"limit": 42}, {"limit": b"=?base64?2aTZog==?="}, "differs"),  # Arabic digits
        ({"limit": 1}, {"limit": b"true"}, "differs"),
        ({"limit": True}, {"limit": b"1"}, "differs"),
        ({"limit": "many"}, {}, "Mcp-Param-Limit is missing"),
        ({"limit": INTEGER_MAX + 1}, {"limit": b"9007199254740992"}, "beyond"),
        ({"limit": -INTEGER_MAX - 1}, {}, "beyond"),
        ({"limit": 1e300}, {"limit": b"1e300"}, "beyond"),
        ({"limit": 10**5000}, {"limit": b"1"}, "beyond"),
        ({"dry": True}, {"dry-run": b"True"}, "differs"),
        ({"dry": True}, {"dry-run": b"1"}, "differs"),
        ({"dry": True}, {"dry-run": b"false"}, "differs"),
        ({"region": "a", "limit": 2}, {"region": b"a", "limit": b"3"}, "Mcp-Param-Limit differs"),
    ],
)  # fmt: skip
def test_headers_that_say_something_else(
    arguments: dict[str, Any], values: dict[str, bytes], says: str
) -> None:
    with refusal(says):
        of(SCHEMA).check(arguments, {f"mcp-param-{name}": value for name, value in values.items()})


def test_no_argument_is_repeated_in_a_refusal() -> None:
    with pytest.raises(MCPError) as caught:
        of(SCHEMA).check({"region": "body-secret"}, {"mcp-param-region": b"head-secret"})
    assert "secret" not in caught.value.message


def test_a_number_of_many_digits_costs_nothing() -> None:
    params = of(SCHEMA)
    began = time.process_time()
    for value in (b"9" * 16_000, b"0" * 16_000 + b"x", b"1." + b"0" * 16_000 + b"x"):
        with refusal("differs"):
            params.check({"limit": 42}, {"mcp-param-limit": value})
    params.check({"limit": 42}, {"mcp-param-limit": b"0" * 16_000 + b"42"})
    assert time.process_time() - began < 1.0


def test_what_a_client_sends() -> None:
    params = of(SCHEMA)
    arguments = {"region": " a", "limit": 42.0, "dry": False, "where": {"zone": "é"}, "free": "x"}
    assert params.render(arguments) == {
        "Mcp-Param-Region": "=?base64?IGE=?=",
        "Mcp-Param-Limit": "42",
        "Mcp-Param-Dry-Run": "false",
        "Mcp-Param-Zone": "=?base64?w6k=?=",
    }
    assert params.render({"region": "", "limit": None, "where": None}) == {"Mcp-Param-Region": ""}
    assert params.render({"region": ["a"], "where": "b"}) == {}
    with pytest.raises(ValueError, match="argument 'limit' cannot be sent"):
        params.render({"limit": 2**53})


values = (
    st.none()
    | st.text(max_size=8)
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.booleans()
    | st.floats(-1e6, 1e6)
    | st.lists(st.text())
)


@given(
    st.fixed_dictionaries(
        {}, optional={"region": values, "limit": values, "dry": values, "where": values | st.fixed_dictionaries({"zone": values})}
    )
)  # fmt: skip
def test_what_a_client_sends_is_what_the_server_wants(arguments: dict[str, Any]) -> None:
    params = of(SCHEMA)
    headers = {name.lower(): value.encode("ascii") for name, value in params.render(arguments).items()}
    params.check(arguments, headers)
    for name in headers:  # and nothing less
        with refusal("is missing"):
            params.check(arguments, {other: value for other, value in headers.items() if other != name})
    for name in params.names - headers.keys():  # and nothing more
        with refusal("is there"):
            params.check(arguments, {**headers, name: b"a"})
