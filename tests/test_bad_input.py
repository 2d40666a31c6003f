"""Bad input: the exact code, the id where it can be read, the connection alive, nothing answered twice or lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpfast import Limits, MCPServer
from tests.wire import LEGACY, META, MODERN, REVISIONS, Wire, connected, loops, run


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("bad", version="1", **options)

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def slow(text: str) -> str:
        await asyncio.sleep(0.01)
        return text

    return server


async def raw(wire: Wire, line: bytes) -> Any:
    wire.send(line)
    return await wire.receive()


async def alive(wire: Wire) -> None:
    """The connection serves on, and nothing came that was not asked for."""
    assert (await wire.call("echo", {"text": "still here"}))["content"][0]["text"] == "still here"


def check(
    revision: str, line: bytes, code: int, id: Any = None, *, limits: Limits | None = None
) -> dict[str, Any]:
    """Sends one line; the answer must be an error with this code and id (None: no id, or null, as the revision has it)."""

    async def scenario() -> dict[str, Any]:
        async with connected(make_server(limits=limits or Limits()), revision) as wire:
            answer = await raw(wire, line)
            assert answer["error"]["code"] == code, answer
            assert answer.get("id") == id
            if id is None:
                assert ("id" in answer) == (revision in ("2024-11-05", "2025-03-26", "2025-06-18"))
            else:
                assert type(answer["id"]) is type(id)
            await alive(wire)
            return answer["error"]

    return run(scenario())


all_revisions = pytest.mark.parametrize("revision", REVISIONS)


@all_revisions
@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"not json",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"pi\xffng"}',
        b'{"jsonrpc":"2.0","id":1,"method":"pi\x00ng"}',
        b'\x00{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
    ],
)
def test_not_json(revision: str, line: bytes) -> None:
    check(revision, line, -32700)


@all_revisions
@pytest.mark.parametrize("id", ["null", "1.5", "1e3", "true", "{}", "[]"])
def test_ids_that_are_none(revision: str, id: str) -> None:
    check(revision, b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % id.encode(), -32600)


@all_revisions
@pytest.mark.parametrize(
    "id", [0, -1, 1, 2**31, 2**53 + 1, 10**300, "", "x", "1", 'é"\\\n\u20ac\U0001f600', "a" * 1000]
)
def test_ids_come_back_as_they_were(revision: str, id: Any) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for tool in ("echo", "slow"):
                message = wire.message("tools/call", {"name": tool, "arguments": {"text": "x"}}, id=id)
                answer = await raw(wire, json.dumps(message).encode())
                assert answer["id"] == id and type(answer["id"]) is type(id)
                assert answer["result"]["content"][0]["text"] == "x"

    run(scenario())


@all_revisions
def test_an_id_too_long(revision: str) -> None:
    check(revision, b'{"jsonrpc":"2.0","id":"%b","method":"ping"}' % (b"x" * 2000), -32600)


@all_revisions
@pytest.mark.parametrize(
    "line", [b"5", b'"text"', b"null", b"true", b"{}", b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","params":{}}']
)
def test_json_that_is_no_message(revision: str, line: bytes) -> None:
    check(revision, line, -32600)


@all_revisions
@pytest.mark.parametrize(
    "line",
    [
        b'{"id":9,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":9,"method":"ping"}',
        b'{"jsonrpc":2.0,"id":9,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":9,"method":5}',
        b'{"jsonrpc":"2.0","id":9,"method":null}',
        b'{"jsonrpc":"2.0","id":9}',
        b'{"jsonrpc":"2.0","id":9,"result":{},"error":{"code":1,"message":"x"}}',
    ],
)
def test_a_message_of_the_wrong_shape_keeps_its_id(revision: str, line: bytes) -> None:
    check(revision, line, -32600, 9)


@all_revisions
def test_nested_too_deeply(revision: str) -> None:
    deep = b"[" * 10_000 + b"]" * 10_000
    error = check(
        revision, b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"a":%b}}' % deep, -32600, 9
    )
    assert "256" in error["message"]


@all_revisions
@pytest.mark.parametrize("size", [1001, 5_000, 300_000])
def test_a_line_too_long(revision: str, size: int) -> None:
    limits = Limits(frame_bytes_max=1_000)
    line = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"%b"}}' % (b"x" * size)
    error = check(revision, line, -32600, None if size == 300_000 else 9, limits=limits)
    assert "1000" in error["message"]


@pytest.mark.plain_build
def test_200_megabytes_without_a_newline_cost_no_memory() -> None:
    async def scenario() -> None:
        async with connected(make_server(limits=Limits(frame_bytes_max=1 << 20)), "2025-11-25") as wire:
            before = resident_kb()
            for _ in range(200):
                wire.writer.write(b"x" * (1 << 20))
                await wire.writer.drain()
            wire.writer.write(b"\n")
            assert (await wire.receive(30))["error"]["code"] == -32600
            assert resident_kb() - before < 32_000
            await alive(wire)

    run(scenario())


def resident_kb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@all_revisions
def test_duplicate_and_escaped_member_names_mean_what_a_parser_says(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            message = wire.message("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id=77)
            line = json.dumps(message).encode()
            for respelled in (
                line.replace(b'"method"', b'"m\\u0065thod"'),
                line.replace(b'"name"', b'"n\\u0061me"'),
                line.replace(b'"id": 77', b'"id": 1, "id": 77'),
                line.replace(b'"name": "echo"', b'"name": "nope", "name": "echo"'),
            ):
                assert respelled != line
                answer = await raw(wire, respelled)
                assert answer["id"] == 77
                assert answer["result"]["content"][0]["text"] == "x"
            await alive(wire)

    run(scenario())


@pytest.mark.parametrize("revision", [r for r in REVISIONS if r != "2025-03-26"])
@pytest.mark.parametrize("batch", [b"[]", b"[1]", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]'])
def test_an_array_where_there_are_no_batches(revision: str, batch: bytes) -> None:
    check(revision, batch, -32600)


@all_revisions
def test_unknown_method(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            assert (await wire.error("no/such"))["code"] == -32601
            assert (await wire.error("toString"))["code"] == -32601
            await alive(wire)

    run(scenario())


@pytest.mark.parametrize("revision", LEGACY)
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "no/such", "resources/subscribe"])
def test_before_initialize(revision: str, method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision, open_session=False) as wire:
            wire.revision = "2025-11-25"
            assert (await wire.error(method, {"name": "echo"}))["code"] == -32600
            assert await wire.request("ping") == {}
            await wire.initialize()
            await alive(wire)
            assert (await wire.error("initialize", {}))["code"] == -32600

    run(scenario())


@all_revisions
def test_unknown_notifications_and_stray_responses_are_ignored(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            wire.send(
                {"jsonrpc": "2.0", "method": "notifications/unheard_of", "params": {"x": 1}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled"},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": None}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {"a": 1}}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "nobody's"}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": []},
                {"jsonrpc": "2.0", "id": 5, "result": {}},
                {"jsonrpc": "2.0", "id": "mcpfast-1", "error": {"code": 1, "message": "no"}},
                b"",
                b" \t \r",
            )
            await alive(wire)
            assert wire.others == []
            assert len(wire.answers) == 2

    run(scenario())


@all_revisions
@pytest.mark.parametrize("params", [[], "x", 5, None])
def test_params_that_are_no_object(revision: str, params: Any) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            wire.send({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params})
            assert (await wire.receive())["error"]["code"] in (-32600, -32602)
            await alive(wire)

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, -32602),
        ({"name": 5}, -32602),
        ({"name": "nope"}, -32602),
        ({"name": "echo", "arguments": []}, -32602),
        ({"name": "echo", "arguments": "x"}, -32602),
    ],
)
def test_calls_that_are_malformed(revision: str, params: dict[str, Any], code: int) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            assert (await wire.error("tools/call", params))["code"] == code
            await alive(wire)

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "arguments", [{}, {"text": 5}, {"text": None}, {"text": "x", "more": 1}, {"Text": "x"}]
)
def test_arguments_that_do_not_fit(revision: str, arguments: dict[str, Any]) -> None:
    """A protocol error until 2025-06-18, a result that the model reads from 2025-11-25 on."""

    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            answer = await wire.ask("tools/call", {"name": "echo", "arguments": arguments})
            if revision in ("2025-11-25", MODERN):
                assert answer["result"]["isError"] is True
                assert "echo" in answer["result"]["content"][0]["text"]
            else:
                assert answer["error"]["code"] == -32602
            await alive(wire)

    run(scenario())


@all_revisions
def test_numbers_out_of_range_are_refused_not_fatal(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for number in (b"1e999", b"9" * 4000):
                line = json.dumps(
                    wire.message("tools/call", {"name": "echo", "arguments": {"text": "N"}})
                ).encode()
                answer = await raw(wire, line.replace(b'"N"', number))
                assert "error" in answer or answer["result"]["isError"]
            await alive(wire)

    run(scenario())


@pytest.mark.parametrize("loop", loops())
@all_revisions
def test_a_message_split_at_every_byte(revision: str, loop: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            length = 400
            for cut in range(1, length, 7):
                message = wire.message(
                    "tools/call", {"name": "echo", "arguments": {"text": "é€"}}, id=1000 + cut
                )
                line = json.dumps(message).encode()
                length = len(line)
                wire.remember(message)
                wire.writer.write(line[:cut])
                await asyncio.sleep(0)
                wire.writer.write(line[cut:] + b"\r\n")
                answer = await wire.receive()
                assert answer["id"] == 1000 + cut and answer["result"]["content"][0]["text"] == "é€"

    run(scenario(), loop)


def test_an_id_in_flight_is_not_taken_twice() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25") as wire:
            first = wire.message("tools/call", {"name": "slow", "arguments": {"text": "1"}}, id="same")
            wire.send(first, first)
            one, two = await wire.receive(), await wire.receive()
            assert one["id"] == two["id"] == "same"
            assert one["error"]["code"] == -32600
            assert two["result"]["content"][0]["text"] == "1"
            await alive(wire)

    run(scenario())


# ---------------------------------------------------------------------------------------------------- the envelope


def modern(meta: Any) -> bytes:
    params = {"name": "echo", "arguments": {"text": "x"}}
    if meta is not ...:
        params["_meta"] = meta
    return json.dumps({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params}).encode()


VERSION, CAPABILITIES = META + "protocolVersion", META + "clientCapabilities"


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({VERSION: MODERN}, -32602),
        ({VERSION: MODERN, CAPABILITIES: None}, -32602),
        ({VERSION: MODERN, CAPABILITIES: []}, -32602),
        ({VERSION: 5, CAPABILITIES: {}}, -32602),
        ({VERSION: None, CAPABILITIES: {}}, -32602),
        ({VERSION: "v999.0.0", CAPABILITIES: {}}, -32022),
        ({VERSION: "2025-11-25", CAPABILITIES: {}}, -32022),
        ({VERSION: "v999.0.0"}, -32602),  # the envelope first, then the version
        ({VERSION: MODERN, CAPABILITIES: {}, "progressToken": 1.5}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, META + "logLevel": "loud"}, -32602),
        ({VERSION: MODERN, CAPABILITIES: {}, META + "clientInfo": "me"}, -32602),
    ],
)
def test_a_broken_envelope(meta: Any, code: int) -> None:
    error = check(MODERN, modern(meta), code, 9)
    if code == -32022:
        assert error["data"] == {"supported": [MODERN], "requested": meta[VERSION]}


@pytest.mark.parametrize("meta", [..., {}, {CAPABILITIES: {}}, {"progressToken": 1}])
def test_no_envelope_and_no_session(meta: Any) -> None:
    check(MODERN, modern(meta), -32600, 9)


@pytest.mark.parametrize("method", ["server/discover", "subscriptions/listen"])
def test_modern_methods_without_their_envelope(method: str) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 9, "method": method}).encode()
    assert "_meta" in check(MODERN, line, -32602, 9)["message"]


@pytest.mark.parametrize(
    "method",
    [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/result",
    ],
)
def test_methods_that_the_modern_era_does_not_have(method: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            assert (await wire.error(method, {"uri": "x://y", "level": "info"}))["code"] == -32601

    run(scenario())
