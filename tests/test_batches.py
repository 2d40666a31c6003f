"""JSON-RPC batches, which 2025-03-26 alone has: order, waiting, bad elements, cancellation (section 3.1)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpfast import Limits
from tests.test_legacy import ABLE, make_server, question, text_of
from tests.wire import LEGACY, META, MODERN, Wire, connected, run

BATCHES = "2025-03-26"


def batch(wire: Wire, *messages: Any) -> None:
    wire.send(list(messages))


def tool(wire: Wire, name: str, id: Any = None, **arguments: Any) -> dict[str, Any]:
    return wire.message("tools/call", {"name": name, "arguments": arguments}, id=id)


def notification(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


@pytest.mark.parametrize("warm", [True, False])
def test_a_batch_is_answered_by_one_batch(warm: bool) -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES, warm=warm) as wire:
            batch(
                wire,
                wire.message("ping", id="p"),
                notification("notifications/unheard_of"),
                tool(wire, "echo", "e", text="é"),
                tool(wire, "slow", "s", text="late"),
                wire.message("tools/list", id="l"),
                tool(wire, "nope", "n"),
                tool(wire, "echo", "bad", text=5),
                wire.message("no/such", id="m"),
                {"jsonrpc": "2.0", "id": "r", "result": {}},  # a response to nothing: ignored
                wire.message("resources/read", {"uri": "x://fixed"}, id="x"),
            )
            answers = await wire.receive()
            assert isinstance(answers, list)
            by_id = {one["id"]: one for one in answers}
            assert len(by_id) == len(answers) == 8 and set(by_id) == {
                "p",
                "e",
                "s",
                "l",
                "n",
                "bad",
                "m",
                "x",
            }
            assert by_id["p"]["result"] == {} and text_of(by_id["e"]) == "é" and text_of(by_id["s"]) == "late"
            assert len(by_id["l"]["result"]["tools"]) == 8
            assert [by_id[id]["error"]["code"] for id in ("n", "bad", "m")] == [-32602, -32602, -32601]
            assert by_id["x"]["result"]["contents"][0]["text"] == "x"
            await wire.settle()

    run(scenario())


@pytest.mark.parametrize("count", [1, 2, 64, 400])
@pytest.mark.parametrize("name", ["echo", "slow"])
def test_batches_of_every_size(count: int, name: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            batch(wire, *[tool(wire, name, n, text=f"t{n}") for n in range(1000, 1000 + count)])
            answers = await wire.receive()
            assert {one["id"]: text_of(one) for one in answers} == {
                n: f"t{n}" for n in range(1000, 1000 + count)
            }

    run(scenario())


def test_a_batch_of_notifications_and_responses_is_not_answered() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES, capabilities=ABLE) as wire:
            call = tool(wire, "roots")
            wire.send(call)
            asked = await question(wire)
            batch(
                wire,
                notification("notifications/unheard_of"),
                notification("notifications/roots/list_changed"),
            )
            wire.send([{"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": [{"uri": "file:///x"}]}}])
            assert text_of(await wire.answer(call["id"])) == "file:///x"
            await wire.settle()
            assert wire.others == [] and not any(line.startswith(b"[") for line in wire.lines)

    run(scenario())


def test_what_belongs_to_no_batch_does_not_wait_for_it() -> None:
    """A batch that waits holds up neither other messages nor other batches."""

    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            batch(wire, tool(wire, "slow", "s1", text="x", ms=60), tool(wire, "echo", "e1", text="x"))
            wire.send(tool(wire, "echo", "e2", text="y"))
            batch(wire, tool(wire, "echo", "e3", text="z"))
            got = [await wire.receive() for _ in range(3)]
            assert got[0]["id"] == "e2"
            assert [one["id"] for one in got[1]] == ["e3"]
            assert sorted(one["id"] for one in got[2]) == ["e1", "s1"]

    run(scenario())


def test_progress_and_logs_come_before_the_batch_of_their_call() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            first = wire.message("tools/call", {"name": "progress"}, id="a", progressToken="t")
            batch(wire, first, wire.message("tools/call", {"name": "logs"}, id="b"))
            messages = []
            while not messages or not isinstance(messages[-1], list):
                messages.append(await wire.receive())
            assert [one["method"] for one in messages[:-1]].count("notifications/progress") == 1
            assert len(messages) == 12 and {one["id"] for one in messages[-1]} == {"a", "b"}

    run(scenario())


@pytest.mark.parametrize(
    ("line", "errors", "answers"),
    [
        (b"[]", None, 0),
        (b"[1]", 1, 0),
        (b"[1,2,3]", 3, 0),
        (b'[null,"x",true,[],{}]', 5, 0),
        (b'[{"jsonrpc":"2.0","id":"p","method":"ping"},1]', 1, 1),
        (b'[[{"jsonrpc":"2.0","id":"p","method":"ping"}]]', 1, 0),
        (b'[{"jsonrpc":"2.0","id":null,"method":"ping"}]', 1, 0),
        (b'[{"jsonrpc":"1.0","method":"ping"}]', 1, 0),
        (b' [ {"jsonrpc":"2.0", "id":"p","method":"ping"} , 5 ] ', 1, 1),
    ],
)
def test_bad_elements(line: bytes, errors: int | None, answers: int) -> None:
    """One -32600 for each, id null; an empty batch is one bad message."""

    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            wire.send(line)
            got = await wire.receive()
            if errors is None:
                assert got["error"]["code"] == -32600 and got["id"] is None
            else:
                bad = [one for one in got if "error" in one]
                assert len(bad) == errors and len(got) == errors + answers
                assert all(one["error"]["code"] == -32600 and one["id"] is None for one in bad)
                assert [one["id"] for one in got if "result" in one] == ["p"] * answers
            await wire.settle()

    run(scenario())


def test_a_bad_element_with_an_id_keeps_it() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            wire.send(b'[{"jsonrpc":"2.0","id":"odd","method":5},{"id":"none","method":"ping"}]')
            got = await wire.receive()
            assert [(one["id"], one["error"]["code"]) for one in got] == [("odd", -32600), ("none", -32600)]

    run(scenario())


@pytest.mark.parametrize(
    "line", [b"[", b"[{]", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}', b"[1,]", b"[1] [2]"]
)
def test_a_batch_that_is_not_json(line: bytes) -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            wire.send(line)
            got = await wire.receive()
            assert got["error"]["code"] == -32700 and got["id"] is None
            await wire.settle()

    run(scenario())


def test_a_batch_too_large() -> None:
    async def scenario() -> None:
        async with connected(make_server(limits=Limits(batch_messages_max=3)), BATCHES) as wire:
            pings = [b'{"jsonrpc":"2.0","id":"%d","method":"ping"}' % n for n in range(4)]
            wire.send(b"[" + b",".join(pings) + b"]")
            error = await wire.receive()
            assert (
                error["error"]["code"] == -32600 and "3" in error["error"]["message"] and error["id"] is None
            )
            wire.send(b"[" + b",".join(pings[:3]) + b"]")
            assert len(await wire.receive()) == 3

    run(scenario())


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("where", ["inside", "after"])
def test_cancelling_in_a_batch(warm: bool, where: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES, warm=warm) as wire:
            cancel = notification("notifications/cancelled", requestId="f")
            calls = [tool(wire, "forever", "f", text="x"), tool(wire, "slow", "s", text="y")]
            if where == "inside":
                batch(wire, *calls, cancel)
            else:
                batch(wire, *calls)
                wire.send(cancel)
            answers = await wire.receive()
            assert [one["id"] for one in answers] == ["s"]
            batch(wire, tool(wire, "forever", "g", text="x"))
            await wire.settle()
            wire.cancel("g")
            await wire.settle()
            assert "g" not in wire.answers  # a batch without an answer is not sent
            wire.sent.clear()

    run(scenario())


def test_the_same_id_twice_in_a_batch() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            batch(wire, tool(wire, "slow", "same", text="1"), tool(wire, "slow", "same", text="2"))
            answers = await wire.receive()
            assert [one["id"] for one in answers] == ["same", "same"]
            (refused,) = [one for one in answers if "error" in one]
            assert refused["error"]["code"] == -32600
            assert [text_of(one) for one in answers if "result" in one] == ["1"]

    run(scenario())


def test_calls_of_a_batch_may_ask() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES, capabilities=ABLE) as wire:
            batch(wire, tool(wire, "roots", "a"), tool(wire, "echo", "b", text="x"), tool(wire, "roots", "c"))
            for n in range(2):
                wire.reply(await question(wire), {"roots": [{"uri": f"file:///{n}"}]})
            got = {one["id"]: text_of(one) for one in await wire.receive()}
            assert got == {"a": "file:///0", "b": "x", "c": "file:///1"}

    run(scenario())


def test_a_batch_cut_into_pieces_and_several_in_one_write() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            line = (
                json.dumps(
                    [tool(wire, "echo", "a", text="é"), wire.message("ping", id="b")], ensure_ascii=False
                ).encode()
                + b"\n"
            )
            for cut in range(1, len(line), 11):
                wire.writer.write(line[:cut])
                await asyncio.sleep(0)
                wire.writer.write(line[cut:])
                assert sorted(one["id"] for one in await wire.receive()) == ["a", "b"]
            wire.writer.write(line * 20)
            for _ in range(20):
                assert len(await wire.receive()) == 2

    run(scenario())


def test_respelled_members_in_a_batch() -> None:
    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            wire.send(
                b'[{"jsonrpc":"2.0","\\u0069d":"p","id":"q","method":"ping"},{"jsonrpc":"2.0","id":"r","m\\u0065thod":"ping"}]'
            )
            assert [one["id"] for one in await wire.receive()] == ["q", "r"]

    run(scenario())


@pytest.mark.parametrize("revision", [r for r in LEGACY if r != BATCHES])
def test_no_other_revision_has_batches(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for line in (
                b"[]",
                b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
                b'[{"jsonrpc":"2.0","method":"x"}]',
            ):
                wire.send(line)
                got = await wire.receive()
                assert got["error"]["code"] == -32600 and got.get("id") is None
            await wire.settle()

    run(scenario())


def test_no_batch_before_a_session() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=False) as wire:
            wire.send(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]')
            assert (await wire.receive())["error"]["code"] == -32600

    run(scenario())


def test_a_modern_request_inside_a_batch() -> None:
    """The modern era has no batches: an array that holds its key is refused, element by element or as a whole."""

    async def scenario() -> None:
        async with connected(make_server(), BATCHES) as wire:
            envelope = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}
            wire.send(
                json.dumps(
                    [
                        {"jsonrpc": "2.0", "id": "m", "method": "tools/list", "params": {"_meta": envelope}},
                        {"jsonrpc": "2.0", "id": "p", "method": "ping"},
                    ]
                ).encode()
            )
            line = json.loads(await wire.reader.readline())
            codes = [
                one["error"]["code"] for one in (line if isinstance(line, list) else [line]) if "error" in one
            ]
            assert codes == [-32600]
            await wire.settle()

    run(scenario())
