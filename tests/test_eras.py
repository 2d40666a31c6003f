"""Both eras on one connection: each request is what its own reserved key says (section 7)."""

from __future__ import annotations

import json

import pytest

from tests.test_listen import added, listen
from tests.test_modern import CAPABILITIES, REQUESTS, VERSION, make_server, with_meta
from tests.wire import MODERN, connected, run


def test_both_eras_on_one_connection() -> None:
    """Each request is what its own reserved key says, whatever came before (section 7)."""

    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-06-18", open_session=False) as wire:
            legacy = {"jsonrpc": "2.0", "method": "tools/call", "params": REQUESTS["tools/call"]}
            modern = with_meta("tools/call", {VERSION: MODERN, CAPABILITIES: {}})
            for round in range(2):  # before and after the session is made
                wire.send(
                    {**modern, "id": f"m{round}"},
                    {**legacy, "id": f"l{round}"},
                    {**modern, "id": f"n{round}"},
                )
                first, second = await wire.answer(f"m{round}"), await wire.answer(f"n{round}")
                assert first["result"] == second["result"]
                assert first["result"]["resultType"] == "complete"
                answer = await wire.answer(f"l{round}")
                if round == 0:
                    assert answer["error"]["code"] == -32600
                    await wire.initialize()
                else:
                    assert "resultType" not in answer["result"] and answer["result"]["structuredContent"] == {
                        "result": "x"
                    }
            wire.send({**legacy, "id": 500, "params": {"name": "slow", "arguments": {"text": "l"}}})
            wire.send(
                {
                    **modern,
                    "id": "500",
                    "params": {**modern["params"], "name": "slow", "arguments": {"text": "m"}},
                }
            )
            assert "resultType" not in (await wire.answer(500))["result"]
            assert (await wire.answer("500"))["result"]["resultType"] == "complete"

    run(scenario())


def test_discover_does_not_pin_the_connection() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25", open_session=False) as wire:
            for version in ("v999.0.0", MODERN):
                wire.send(with_meta("server/discover", {VERSION: version, CAPABILITIES: {}}))
                await wire.answer("e")
                wire.answers.clear()
            assert (await wire.initialize())["protocolVersion"] == "2025-11-25"
            assert (await wire.call("echo", {"text": "x"}))["content"]

    run(scenario())


def test_a_change_is_told_to_the_session_and_to_its_streams() -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-11-25") as wire:
            wire.revision = MODERN
            await listen(wire, "s", toolsListChanged=True, resourceSubscriptions=["x://fixed"])
            wire.revision = "2025-11-25"
            await wire.request("resources/subscribe", {"uri": "x://fixed"})
            server.add_tool(added)
            server.notify_resource_updated("x://fixed")
            await wire.settle()
            tagged = ["_meta" in one.get("params", {}) for one in wire.others]
            methods = [one["method"].removeprefix("notifications/") for one in wire.others]
            assert sorted(zip(methods, tagged, strict=True)) == [
                ("resources/updated", False),
                ("resources/updated", True),
                ("tools/list_changed", False),
                ("tools/list_changed", True),
            ]

    run(scenario())


@pytest.mark.parametrize("era", ["2025-11-25", MODERN])
def test_a_bare_cancellation_finds_the_request_of_either_era(era: str) -> None:
    async def scenario() -> None:
        server = make_server()
        async with connected(server, "2025-11-25") as wire:
            wire.revision = era
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="f"))
            if era == MODERN:
                await listen(wire, "s")
            await wire.settle()
            wire.revision = "2025-11-25"
            (session,) = server._serving[0].sessions
            assert session.channel.calls == (2 if era == MODERN else 1)
            wire.cancel("f")
            wire.notify(
                "notifications/cancelled", {"requestId": "s", "_meta": {VERSION: MODERN, CAPABILITIES: {}}}
            )
            await wire.settle()
            assert session.channel.calls == 0
            assert not {"f", "s"} & set(wire.answers)

    run(scenario())


def test_an_id_in_flight_is_one_for_both_eras() -> None:
    async def scenario() -> None:
        async with connected(make_server(), "2025-11-25") as wire:
            wire.send(wire.message("tools/call", {"name": "forever", "arguments": {"text": "x"}}, id="same"))
            wire.revision = MODERN
            wire.send(wire.message("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id="same"))
            line = json.loads(await wire.reader.readline())
            assert line["id"] == "same" and line["error"]["code"] == -32600
            wire.revision = "2025-11-25"
            wire.sent[str, "same"].pop()
            wire.cancel("same")

    run(scenario())


def test_ids_may_be_used_again_at_once() -> None:
    async def scenario() -> None:
        async with connected(make_server(), MODERN) as wire:
            for tool in ("echo", "slow") * 3:
                wire.answers.pop("id", None)
                sent = wire.message("tools/call", {"name": tool, "arguments": {"text": tool}}, id="id")
                wire.send(sent)
                assert (await wire.answer("id"))["result"]["structuredContent"] == {"result": tool}

    run(scenario())
