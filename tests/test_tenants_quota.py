"""How much they may use, on a served server: at the limit a call passes, one above is told why, and when to come back."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPServer, ToolError
from mcpfast.tenancy.identity import Quota, TenantRecord
from tests.asking import accept
from tests.tenanted import LEGACY, Served, codes, serving, tenancy, text_of, until
from tests.wire import MODERN, Wire, run

REFUSED = 4291
EARLY_S = (
    0.003  # timers of uvloop count in milliseconds from the begin of a turn, and may be early by as much
)
WHO = {"tenant": "your account", "principal": "you", "tool": "this tool"}
WAYS = {  # how a call goes: hot, with a Request, in a Task of its own, in a thread, and all the slow ways
    "hot": "echo",
    "with a context": "context",
    "in its own Task": "own_task",
    "in a thread": "threaded",
    "inline": "inline",
    "suspending": "suspends",
}
levels = pytest.mark.parametrize("level", WHO)
all_ways = pytest.mark.parametrize("way", [*WAYS, "middleware"])


async def in_turn(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def make_server(*, middleware: bool = False, **options: Any) -> MCPServer[Any]:
    options.setdefault("tenancy", tenancy(TenantRecord("acme"), TenantRecord("beta")))
    server: MCPServer[Any] = MCPServer(
        "quota", version="1", middleware=[in_turn] if middleware else [], **options
    )

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def context(text: str, ctx: Context) -> str:
        return text

    @server.tool(own_task=True)
    async def own_task(text: str) -> str:
        return text

    @server.tool
    def threaded(text: str) -> str:
        return text

    @server.tool(inline=True)
    def inline(text: str) -> str:
        return text

    @server.tool
    async def suspends(text: str) -> str:
        await asyncio.sleep(0)
        return text

    @server.tool
    async def sleeps(text: str = "", seconds: float = 60.0) -> str:
        await asyncio.sleep(seconds)
        return text

    @server.tool
    def blocks(seconds: float) -> str:
        time.sleep(seconds)
        return "blocked"

    @server.tool
    async def asks(ctx: Context) -> str:
        answer = await ctx.elicit("Name?", str)
        return answer.action

    @server.tool
    async def big(size: int) -> str:
        return "x" * size

    @server.tool
    async def structured(size: int) -> dict[str, str]:
        return {"x": "x" * size}

    @server.tool
    async def fails(size: int) -> str:
        raise ToolError("x" * size)

    @server.tool(cost=5)
    async def dear(text: str = "") -> str:
        return text

    @server.tool(cost=0.1)
    async def cheap() -> str:
        return ""

    @server.tool(cost=0)
    async def free() -> str:
        return ""

    @server.resource("note://{size}", cost=3)
    async def note(size: int) -> str:
        return "x" * size

    @server.prompt(cost=2)
    async def prompt() -> str:
        return "p"

    return server


def at(level: str, tool: str, **quota: Any) -> dict[str, Any]:
    """The change of a record that puts a quota on a level."""
    one = Quota(**quota)
    nothing: dict[str, Any] = {"quota": Quota(), "principal_quota": Quota(), "tool_quotas": {}}
    if level == "tool":
        return {**nothing, "tool_quotas": {tool: one}}
    return {**nothing, {"tenant": "quota", "principal": "principal_quota"}[level]: one}


def call(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return wire.message("tools/call", {"name": tool, "arguments": arguments})


async def calls(wire: Wire, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Sent in one write; their answers in order."""
    wire.send(*messages)
    return [await wire.answer(message["id"]) for message in messages]


def check_refusal(answer: dict[str, Any], limit: str, level: str, said: str, *, retry: bool) -> float:
    """Holds a refusal to what it promises; gives the seconds to wait."""
    error = answer["error"]
    assert error["code"] == REFUSED
    assert error["data"].keys() == {"limit", "level"} | ({"retryAfterMs"} if retry else set())
    assert (error["data"]["limit"], error["data"]["level"]) == (limit, level)
    assert error["message"].startswith(f"{said} {WHO[level]}"), error
    if not retry:
        return 0.0
    assert re.search(r"; try again in \d+ (seconds?|minutes|hours|days)$", error["message"]), error
    wait_ms = error["data"]["retryAfterMs"]
    assert isinstance(wait_ms, int) and wait_ms >= 1
    return float(wait_ms) / 1000


# ---------------------------------------------------------------- calls a second


@all_ways
@levels
def test_calls_a_second(way: str, level: str) -> None:
    tool = WAYS.get(way, "echo")

    async def main() -> None:
        async with serving(make_server(middleware=way == "middleware")) as served:
            wire = await served.wire()
            await wire.call(tool, {"text": "warm"})
            await served.change(**at(level, tool, calls_per_s=10.0, calls_burst=3.0))
            answers = await calls(wire, *(call(wire, tool, text=str(n)) for n in range(4)))
            assert codes(answers) == [None, None, None, REFUSED]
            wait_s = check_refusal(
                answers[3], "calls_per_s", level, "Too many calls in a short time for", retry=True
            )
            assert wait_s < 0.15  # and what lines that come together are behind the clock
            await asyncio.sleep(wait_s + EARLY_S)
            assert text_of((await calls(wire, call(wire, tool, text="again")))[0]) == "again"
            assert served.meter().in_flight == 0

    run(main())


def test_an_early_comer_is_refused_and_the_bucket_refills_by_its_rate() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await wire.call("echo", {"text": ""})
            await served.change(**at("tenant", "echo", calls_per_s=8.0, calls_burst=2.0))
            begun = time.monotonic()
            passed = 0
            while time.monotonic() - begun < 0.5:
                passed += codes(await calls(wire, call(wire, "echo", text="")))[0] is None
            assert 5 <= passed <= 7  # two at once, and one every eighth of a second

    run(main())


@levels
def test_whose_calls_are_counted_together(level: str) -> None:
    """The tenant's of all its people and tools, a principal's of his own, a tool's of all within the tenant."""

    async def main() -> None:
        async with serving(make_server()) as served:
            bob, ann, other = [await served.wire(who) for who in ("acme/bob", "acme/ann", "beta/bob")]
            for wire in (bob, ann, other):
                await wire.call("echo", {"text": ""})
            for id in ("acme", "beta"):
                await served.change(id, **at(level, "echo", calls_per_s=0.01, calls_burst=2.0))
            assert codes(await calls(bob, *(call(bob, "echo", text="") for _ in range(3)))) == [
                None,
                None,
                REFUSED,
            ]
            of_ann = codes(await calls(ann, call(ann, "echo", text="")))
            assert of_ann == ([None] if level == "principal" else [REFUSED])
            of_another_tool = codes(await calls(bob, call(bob, "context", text="")))
            assert of_another_tool == ([None] if level == "tool" else [REFUSED])
            assert codes(await calls(other, call(other, "echo", text=""))) == [None]

    run(main())


def test_two_connections_of_one_principal_count_together() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wires = [await served.wire() for _ in range(3)]
            await served.change(**at("principal", "", calls_per_s=0.01, calls_burst=2.0))
            answers = [
                await wire.ask("tools/call", {"name": "echo", "arguments": {"text": ""}}) for wire in wires
            ]
            assert codes(answers) == [None, None, REFUSED]

    run(main())


def test_a_refusal_takes_nothing_from_other_levels() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(
                quota=Quota(calls_per_s=0.01, calls_burst=3.0),
                tool_quotas={"echo": Quota(calls_per_s=0.01, calls_burst=1.0)},
            )
            answers = await calls(wire, *(call(wire, "echo", text="") for _ in range(5)))
            assert codes(answers) == [None] + 4 * [REFUSED]
            assert {answer["error"]["data"]["level"] for answer in answers[1:]} == {"tool"}
            answers = await calls(wire, *(call(wire, "context", text="") for _ in range(3)))
            assert codes(answers) == [None, None, REFUSED]
            assert served.meter().refused["calls_per_s"] == 1

    run(main())


def test_lists_and_other_requests_count_as_calls_and_cost_no_units() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=3.0, daily_units_max=0.5))
            for method in ("tools/list", "resources/list", "prompts/list"):
                await wire.request(method)
            error = await wire.error("tools/list")
            assert (error["code"], error["data"]["limit"]) == (REFUSED, "calls_per_s")
            assert (await wire.ask("ping"))["result"] == {}

    run(main())


# ---------------------------------------------------------------- at the same time


@pytest.mark.parametrize("middleware", [False, True])
@levels
def test_concurrent_calls(level: str, middleware: bool) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire()
            await served.change(**at(level, "sleeps", concurrent_calls_max=2))
            first, second = call(wire, "sleeps", text="a", seconds=0.05), call(wire, "sleeps")
            wire.send(first, second)
            (refused,) = await calls(wire, call(wire, "sleeps"))
            said = "Too many calls at the same time for"
            assert check_refusal(refused, "concurrent_calls_max", level, said, retry=True) == 1.0
            assert text_of(await wire.answer(first["id"])) == "a"
            assert text_of((await calls(wire, call(wire, "sleeps", text="b", seconds=0)))[0]) == "b"
            wire.cancel(second["id"])
            del wire.sent[(int, second["id"])]
            await until(lambda: served.meter().in_flight == 0)

    run(main())


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("middleware", [False, True])
@levels
def test_request_bytes(level: str, middleware: bool) -> None:
    """The bytes of the message as it came, without the end of its line."""

    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire()
            await served.change(**at(level, "echo", request_bytes_max=300))
            for way in range(2):  # the second time by what is remembered
                message = call(wire, "echo", text="")
                room = 300 - len(json.dumps(message))
                message["params"]["arguments"]["text"] = "x" * room
                assert codes(await calls(wire, message)) == [None], way
                message = call(wire, "echo", text="x" * (room + 1))
                (refused,) = await calls(wire, message)
                check_refusal(
                    refused, "request_bytes_max", level, "The request is too large for", retry=False
                )
            assert served.meter().in_flight == 0

    run(main())


RESPONSES: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "text": lambda size: ("tools/call", {"name": "big", "arguments": {"size": size}}),
    "structured": lambda size: ("tools/call", {"name": "structured", "arguments": {"size": size}}),
    "resource": lambda size: ("resources/read", {"uri": f"note://{size:04}"}),
}


@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
@pytest.mark.parametrize("what", RESPONSES)
def test_response_bytes(what: str, revision: str, middleware: bool) -> None:
    """The bytes of the message, without the end of its line; what is larger is not sent, and the client is told so."""

    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire(revision=revision)
            method, params = RESPONSES[what](1_000)
            for _ in range(2):
                await wire.request(method, params)
                size = len(wire.lines[-1].rstrip(b"\n"))
                await served.change(quota=Quota(response_bytes_max=size))
                await wire.request(method, params)
                await served.change(quota=Quota(response_bytes_max=size - 1))
                answer = await wire.ask(method, params)
                check_refusal(
                    answer, "response_bytes_max", "tenant", "The response is too large for", retry=False
                )
                assert len(wire.lines[-1]) < 400
                assert served.meter().in_flight == 0
                await served.change(quota=Quota())

    run(main())


@levels
def test_response_bytes_at_each_level(level: str) -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(**at(level, "big", response_bytes_max=2_000))
            answers = await calls(wire, call(wire, "big", size=100), call(wire, "big", size=3_000))
            assert codes(answers) == [None, REFUSED]
            assert answers[1]["error"]["data"] == {"limit": "response_bytes_max", "level": level}

    run(main())


@pytest.mark.parametrize("way", [*WAYS, "middleware"])
def test_a_large_response_is_not_sent_whatever_way_it_came(way: str) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=way == "middleware")) as served:
            wire = await served.wire()
            tool = WAYS.get(way, "echo")
            await served.change(quota=Quota(response_bytes_max=1_000))
            answers = await calls(wire, call(wire, tool, text="x" * 2_000), call(wire, tool, text="ok"))
            assert codes(answers) == [REFUSED, None] and text_of(answers[1]) == "ok"
            assert served.meter().in_flight == 0

    run(main())


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
def test_an_error_may_be_no_larger_than_a_result(revision: str) -> None:
    async def main() -> None:
        server = make_server()

        @server.tool
        async def complains(size: int) -> str:
            raise ToolError("x" * size)

        async with serving(server) as served:
            wire = await served.wire(revision=revision)
            await served.change(quota=Quota(response_bytes_max=1_000))
            answers = await calls(wire, call(wire, "complains", size=5_000), call(wire, "complains", size=10))
            assert codes(answers) == [REFUSED, None] and answers[1]["result"]["isError"] is True
            assert served.meter().in_flight == 0

    run(main())


def test_a_batch_has_the_refusal_in_the_place_of_the_answer() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire(revision="2025-03-26")
            await served.change(quota=Quota(response_bytes_max=1_000, calls_per_s=0.01, calls_burst=3.0))
            batch = [call(wire, "big", size=size) for size in (10, 5_000, 20, 30)]
            wire.send(batch)
            answers = {one["id"]: one for one in await wire.receive()}
            assert codes(answers[one["id"]] for one in batch) == [None, REFUSED, None, REFUSED]
            limits = [answers[batch[n]["id"]]["error"]["data"]["limit"] for n in (1, 3)]
            assert limits == ["response_bytes_max", "calls_per_s"]
            assert served.meter().in_flight == 0

    run(main())


@levels
def test_bytes_a_second(level: str) -> None:
    """Requests and responses are both paid for; what a response was too much, the next call waits for."""

    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await wire.call("big", {"size": 1})
            await served.change(**at(level, "big", bytes_per_s=20_000.0, bytes_burst=4_000.0))
            answers = await calls(wire, call(wire, "big", size=3_000), call(wire, "big", size=1))
            assert codes(answers) == [None, REFUSED]
            wait_s = check_refusal(
                answers[1], "bytes_per_s", level, "Too much data in a short time for", retry=True
            )
            assert 0.01 < wait_s < 0.3
            await asyncio.sleep(wait_s + EARLY_S)
            assert codes(await calls(wire, call(wire, "big", size=1))) == [None]
            (never,) = await calls(
                wire, {**call(wire, "echo" if level != "tool" else "big", size=1, text="x" * 5_000)}
            )
            check_refusal(never, "bytes_per_s", level, "The request is too large for", retry=False)

    run(main())


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("middleware", [False, True])
@levels
@pytest.mark.parametrize("tool", ["sleeps", "blocks"])
def test_the_time_of_a_call(tool: str, level: str, middleware: bool) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire()
            await served.change(**at(level, tool, call_s_max=0.05))
            for _ in range(2):
                begun = time.monotonic()
                (late,) = await calls(wire, call(wire, tool, seconds=0.3 if tool == "blocks" else 60.0))
                assert 0.045 < time.monotonic() - begun < 0.28
                check_refusal(
                    late, "call_s_max", level, "The call took longer than is allowed for", retry=False
                )
                assert codes(await calls(wire, call(wire, tool, seconds=0.0))) == [None]
                assert served.meter().in_flight == 0
            assert served.meter().refused["call_s_max"] == (2 if level == "tenant" else 0)

    run(main())


def test_the_time_of_a_call_that_asks() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire(elicitation={"form": {}})
            await served.change(quota=Quota(call_s_max=0.05, concurrent_calls_max=1))
            (late,) = await calls(wire, call(wire, "asks"))
            assert late["error"]["data"]["limit"] == "call_s_max"
            assert served.meter().in_flight == 0
            sent = call(wire, "asks")
            wire.send(sent)
            wire.others.clear()
            question = await wire.other("elicitation/create")
            wire.reply(question, accept(value="Ada"))
            assert text_of(await wire.answer(sent["id"])) == "accept"

    run(main())


def test_a_call_that_hides_its_cancellation_is_answered_and_gives_its_place_back() -> None:
    async def main() -> None:
        server = make_server()

        @server.tool
        async def stubborn() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "all the same"
            return ""

        async with serving(server) as served:
            wire = await served.wire()
            await served.change(quota=Quota(call_s_max=0.03, concurrent_calls_max=1))
            for _ in range(3):
                await calls(wire, call(wire, "stubborn"))
                assert served.meter().in_flight == 0

    run(main())


@pytest.mark.parametrize("running_calls_max", [0, 2])
def test_limits_that_are_lifted_while_a_call_runs(running_calls_max: int) -> None:
    async def main() -> None:
        limits = Limits(running_calls_max=running_calls_max)
        async with serving(make_server(limits=limits)) as served:
            wire = await served.wire()
            await served.change(quota=Quota(call_s_max=0.05))
            slow = call(wire, "sleeps")
            wire.send(slow)
            await until(lambda: served.meter().in_flight == 1)
            await served.change(quota=Quota(response_bytes_max=1_000))
            other = await served.wire()
            await calls(other, call(other, "echo", text="x"))  # from here on they hold
            late = await wire.answer(slow["id"])
            check_refusal(
                late, "call_s_max", "tenant", "The call took longer than is allowed for", retry=False
            )
            large = call(wire, "sleeps", text="x" * 2_000, seconds=0.05)
            wire.send(large)
            await until(lambda: served.meter().in_flight == 1)
            await served.change(quota=Quota(response_bytes_max=9_000))
            await calls(other, call(other, "echo", text="x"))  # from here on they hold
            assert text_of(await wire.answer(large["id"])) == "x" * 2_000
            assert served.meter().in_flight == 0
            assert running_calls_max == 0 or served.gate.running == 0

    run(main())


# ---------------------------------------------------------------- budgets


def set_utc(served: Served, *moment: int) -> None:
    """From now on the engine's clock says this moment of UTC."""
    epoch_s = datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    served.host.engine.epoch_ahead_s = epoch_s - time.monotonic()


@levels
def test_a_budget_of_a_day_begins_anew_at_midnight_utc(level: str) -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(**at(level, "dear", daily_units_max=12.0))
            set_utc(served, 2027, 3, 4, 22, 0, 0)
            for _ in range(2):
                assert codes(await calls(wire, call(wire, "dear"))) == [None]
            (refused,) = await calls(wire, call(wire, "dear"))  # 2 units are left, it costs 5
            wait_s = check_refusal(refused, "daily_units_max", level, "Today's budget for", retry=True)
            assert refused["error"]["message"].endswith(" is used up; try again in 2 hours")
            assert 7_190 < wait_s <= 7_200
            set_utc(served, 2027, 3, 4, 23, 59, 58)
            assert codes(await calls(wire, call(wire, "dear"))) == [REFUSED]
            set_utc(served, 2027, 3, 5, 0, 0, 0)
            assert codes(await calls(wire, *(call(wire, "dear") for _ in range(3)))) == [None, None, REFUSED]

    run(main())


def test_a_budget_of_a_month_outlasts_the_day() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=10.0, monthly_units_max=15.0))
            set_utc(served, 2028, 2, 28, 12, 0, 0)
            assert codes(await calls(wire, *(call(wire, "dear") for _ in range(3)))) == [None, None, REFUSED]
            set_utc(served, 2028, 2, 29, 0, 0, 1)  # there is one
            answers = await calls(wire, *(call(wire, "dear") for _ in range(2)))
            assert codes(answers) == [None, REFUSED]
            assert answers[1]["error"]["data"]["limit"] == "monthly_units_max"
            assert 86_300_000 < answers[1]["error"]["data"]["retryAfterMs"] <= 86_400_000
            set_utc(served, 2028, 3, 1, 0, 0, 0)
            assert codes(await calls(wire, call(wire, "dear"))) == [None]

    run(main())


def test_every_kind_of_request_pays_its_cost() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=100.0))
            set_utc(served, 2027, 3, 4, 12, 0, 0)
            paid = 0.0
            for method, params, cost in [
                ("tools/call", {"name": "dear"}, 5.0),
                ("tools/call", {"name": "echo", "arguments": {"text": ""}}, 1.0),
                ("tools/call", {"name": "cheap"}, 0.1),
                ("tools/call", {"name": "free"}, 0.0),
                ("resources/read", {"uri": "note://7"}, 3.0),
                ("prompts/get", {"name": "prompt"}, 2.0),
                ("tools/list", {}, 0.0),
            ] * 2:
                await wire.request(method, params)
                paid += cost
                used = served.meter().used(datetime(2027, 3, 4, 13, tzinfo=UTC).timestamp())
                assert used == pytest.approx((paid, paid))

    run(main())


def test_what_costs_nothing_passes_when_the_budget_is_used_up() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=5.0))
            answers = await calls(
                wire, call(wire, "dear"), call(wire, "cheap"), call(wire, "free"), call(wire, "free")
            )
            assert codes(answers) == [None, REFUSED, None, None]
            await wire.request("tools/list")

    run(main())


def test_ten_tenths_are_one() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=1.0))
            answers = await calls(wire, *(call(wire, "cheap") for _ in range(11)))
            assert codes(answers) == 10 * [None] + [REFUSED]

    run(main())


def test_what_costs_more_than_the_budget_is_refused_for_good() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=4.0))
            (never,) = await calls(wire, call(wire, "dear"))
            said = "This call costs more than the whole budget of a day for"
            check_refusal(never, "daily_units_max", "tenant", said, retry=False)

    run(main())


# ---------------------------------------------------------------- what is counted, and what changes


@pytest.mark.parametrize("middleware", [False, True])
def test_arguments_that_do_not_fit_are_a_call_that_is_over(middleware: bool) -> None:
    """To look at them is work, too: they count as a call and cost what it costs, by whatever way; nothing stays in flight."""

    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire()
            await served.change(quota=Quota(daily_units_max=100.0))
            before = served.meter().admitted
            for tool in ("echo", "context", "own_task", "threaded", "inline"):
                for _ in range(3):
                    (answer,) = await calls(wire, call(wire, tool, text=1))
                    assert answer["result"]["isError"]
                    assert codes(await calls(wire, call(wire, tool, text="fits"))) == [None]
            assert served.meter().in_flight == 0
            assert served.meter().admitted - before == 30
            assert served.meter().used(time.time())[0] == pytest.approx(30.0)

    run(main())


def test_limits_change_while_serving_and_what_was_used_stays_used() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=10.0, daily_units_max=100.0))
            await calls(wire, *(call(wire, "echo", text="") for _ in range(5)))
            await served.change(name="other words")  # nothing of the limits
            assert served.meter().used(time.time())[0] == 5.0
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=10.0, daily_units_max=6.0))
            answers = await calls(wire, call(wire, "echo", text=""), call(wire, "echo", text=""))
            assert codes(answers) == [None, REFUSED]
            assert answers[1]["error"]["data"]["limit"] == "daily_units_max"
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=10.0))
            answers = await calls(wire, *(call(wire, "echo", text="") for _ in range(5)))
            assert codes(answers) == 4 * [None] + [REFUSED]  # ten at once, and six of them were used
            await served.change(quota=Quota())
            assert codes(await calls(wire, call(wire, "echo", text=""))) == [None]

    run(main())


@levels
def test_calls_in_flight_are_counted_across_a_change(level: str) -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(**at(level, "sleeps", concurrent_calls_max=2))
            running = [call(wire, "sleeps", seconds=0.15) for _ in range(2)]
            wire.send(*running)
            await until(lambda: served.meter().in_flight == 2)
            await served.change(**at(level, "sleeps", concurrent_calls_max=1))
            assert codes(await calls(wire, call(wire, "sleeps", seconds=0))) == [REFUSED]
            await served.change(**at(level, "sleeps", concurrent_calls_max=3))
            assert codes(await calls(wire, call(wire, "sleeps", seconds=0))) == [None]
            for one in running:
                await wire.answer(one["id"])
            assert served.meter().in_flight == 0
            await served.change(**at(level, "sleeps", concurrent_calls_max=1))
            assert codes(await calls(wire, call(wire, "sleeps", seconds=0))) == [None]

    run(main())


def test_a_refusal_says_nothing_of_others() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=1.0))
            await calls(wire, call(wire, "echo", text=""))
            (refused,) = await calls(wire, call(wire, "echo", text=""))
            told = json.dumps(refused)
            for secret in ("acme", "beta", "bob", "0.01", "burst", "tenants"):
                assert secret not in told.lower()

    run(main())
