"""Every place that a call takes is given back once, whatever way the call came, and however it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpfast import Context, Limits, MCPError, MCPServer, ToolError
from mcpfast.tenancy.identity import Quota, TenantRecord
from tests.asking import accept
from tests.tenanted import LEGACY, Served, codes, serving, tenancy, text_of, until
from tests.wire import MODERN, Wire, run

PLENTY = 1_000
COUNTING = Quota(  # every limit there is, and none of them met
    calls_per_s=1e6,
    bytes_per_s=1e9,
    concurrent_calls_max=PLENTY,
    queued_calls_max=PLENTY,
    response_bytes_max=50_000,
    call_s_max=30.0,
    daily_units_max=1e6,
)
SHORT = Quota(concurrent_calls_max=PLENTY, call_s_max=0.01)


async def in_turn(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def make_server(*, middleware: bool = False, **limits: Any) -> MCPServer[Any]:
    acme = TenantRecord(
        "acme",
        quota=COUNTING,
        principal_quota=COUNTING,
        tool_quotas=dict.fromkeys(("echo", "sleeps", "blocks", "asks", "own_task"), COUNTING)
        | {"late": SHORT},
        deny=("hidden",),
    )
    server: MCPServer[Any] = MCPServer(
        "places",
        version="1",
        tenancy=tenancy(acme),
        middleware=[in_turn] if middleware else [],
        limits=Limits(eof_grace_s=0.02, **limits),
    )
    server.opened = threading.Event()  # type: ignore[attr-defined]  # what `blocks` waits for

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def hidden() -> str:
        return "hidden"

    @server.tool(own_task=True)
    async def own_task(text: str, ctx: Context) -> str:
        await asyncio.sleep(0)
        return text

    @server.tool(inline=True)
    def inline(text: str) -> str:
        return text

    @server.tool
    def threaded(text: str) -> str:
        return text

    @server.tool
    def blocks() -> str:
        server.opened.wait(10)  # type: ignore[attr-defined]
        return "opened"

    @server.tool
    async def sleeps(ctx: Context) -> str:
        await asyncio.sleep(60)
        return "slept"

    @server.tool
    async def late() -> str:
        await asyncio.sleep(60)
        return "slept"

    @server.tool
    async def big() -> str:
        return "x" * 60_000

    @server.tool
    async def no_json() -> dict[str, Any]:
        return {"x": object()}

    @server.tool
    async def raises(kind: str) -> str:
        await asyncio.sleep(0)
        raise {"tool": ToolError("t"), "mcp": MCPError(-5, "m"), "other": ValueError("v")}[kind]

    @server.tool
    async def gives_up() -> str:
        raise asyncio.CancelledError

    @server.tool
    async def asks(ctx: Context) -> str:
        return (await ctx.elicit("Name?", str)).action

    @server.resource("note://{id}")
    async def note(id: str) -> str:
        return id

    @server.prompt
    async def prompt(name: str) -> str:
        return name

    return server


# ---------------------------------------------------------------- ways for a call to go and to end

Step = Callable[[Served, Wire], Awaitable[None]]
STEPS: dict[str, Step] = {}


def step(fn: Step) -> Step:
    STEPS[fn.__name__] = fn
    return fn


def call(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return wire.message("tools/call", {"name": tool, "arguments": arguments})


async def ask(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return await wire.ask("tools/call", {"name": tool, "arguments": arguments})


@step
async def results(served: Served, wire: Wire) -> None:
    sent = [
        call(wire, tool, text=tool) for tool in ("echo", "own_task", "inline", "threaded") for _ in range(2)
    ]
    wire.send(*sent)
    for one in sent:
        assert text_of(await wire.answer(one["id"])) == one["params"]["name"]


@step
async def errors(served: Served, wire: Wire) -> None:
    for kind in ("tool", "mcp", "other"):
        await ask(wire, "raises", kind=kind)
    await ask(wire, "no_json")
    assert (await ask(wire, "big"))["error"]["data"]["limit"] == "response_bytes_max"


@step
async def arguments_that_do_not_fit(served: Served, wire: Wire) -> None:
    for tool in ("echo", "own_task", "inline", "threaded"):
        for arguments in ({"text": 1}, {}, {"text": "a", "more": 1}):
            await ask(wire, tool, **arguments)


@step
async def what_is_not_there(served: Served, wire: Wire) -> None:
    assert codes([await ask(wire, tool) for tool in ("hidden", "never", "hidden")]) == [-32602] * 3
    await wire.error("resources/read", {"uri": "other://x"})
    await wire.error("prompts/get", {"name": "never"})
    await wire.error("prompts/get", {"name": "prompt", "arguments": {}})
    await wire.error("tools/list", {"cursor": "x"})


@step
async def other_requests(served: Served, wire: Wire) -> None:
    await wire.request("tools/list")
    await wire.request("resources/read", {"uri": "note://1"})
    await wire.request("prompts/get", {"name": "prompt", "arguments": {"name": "a"}})


@step
async def a_cancelled_call(served: Served, wire: Wire) -> None:
    for tool in ("sleeps", "blocks"):
        sent = call(wire, tool)
        wire.send(sent)
        wire.cancel(sent["id"])
        wire.cancel(sent["id"])
        wire.sent.pop((int, sent["id"]))


@step
async def a_call_that_ends_itself(served: Served, wire: Wire) -> None:
    assert "result" in await ask(wire, "gives_up")


@step
async def a_call_without_time(served: Served, wire: Wire) -> None:
    assert (await ask(wire, "late"))["error"]["data"]["limit"] == "call_s_max"


@step
async def an_id_twice(served: Served, wire: Wire) -> None:
    sent = call(wire, "sleeps")
    wire.send(sent)
    wire.send(sent)
    assert (await wire.answer(sent["id"]))["error"]["code"] == -32600
    wire.cancel(sent["id"])
    wire.sent.pop((int, sent["id"]))


@step
async def a_disconnect(served: Served, wire: Wire) -> None:
    """Of another connection of the same principal, with calls of all kinds in flight."""
    other = await served.wire(revision=wire.revision, elicitation={"form": {}})
    other.send(
        *(call(other, tool) for tool in ("sleeps", "blocks", "asks", "late", "sleeps")),
        *(call(other, tool, text="x") for tool in ("echo", "own_task", "threaded")),
    )
    await asyncio.sleep(0.002)
    served.close(other)


@step
async def questions(served: Served, wire: Wire) -> None:
    """One is answered; one is never, and its call is cancelled or gone."""
    sent = call(wire, "asks")
    wire.send(sent)
    if wire.revision == MODERN:
        answer = await wire.answer(sent["id"])
        assert answer["result"]["resultType"] == "input_required"
        retry = wire.message(
            "tools/call",
            {
                "name": "asks",
                "arguments": {},
                "requestState": answer["result"]["requestState"],
                "inputResponses": {"q1": accept(value="Ada")},
            },
        )
        wire.send(retry)
        assert text_of(await wire.answer(retry["id"])) == "accept"
        return
    if wire.revision == "2025-03-26":  # which has no such questions
        await wire.answer(sent["id"])
        return
    wire.reply(await wire.other("elicitation/create"), accept(value="Ada"))
    assert text_of(await wire.answer(sent["id"])) == "accept"
    sent = call(wire, "asks")
    wire.send(sent)
    await wire.other("elicitation/create")
    wire.cancel(sent["id"])
    wire.sent.pop((int, sent["id"]))


@step
async def a_batch(served: Served, wire: Wire) -> None:
    if wire.revision != "2025-03-26":
        return
    batch = [
        call(wire, "echo", text="a"),
        call(wire, "echo", text=1),
        call(wire, "hidden"),
        call(wire, "late"),
        call(wire, "own_task", text="b"),
        call(wire, "threaded", text="c"),
        call(wire, "inline", text="d"),
        call(wire, "big"),
        call(wire, "raises", kind="mcp"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    wire.send(batch)
    while True:
        message = await wire.receive()
        if isinstance(message, list):
            assert len(message) == 9
            return


@step
async def a_change_of_the_registry(served: Served, wire: Wire) -> None:
    await served.change(name="another name")


@step
async def a_listen_stream(served: Served, wire: Wire) -> None:
    if wire.revision == MODERN:
        sent = wire.message("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        wire.send(sent)
        await wire.other("notifications/subscriptions/acknowledged")
        wire.cancel(sent["id"])
        wire.sent.pop((int, sent["id"]))


# ---------------------------------------------------------------- after any mixture of them


def meters(served: Served) -> list[Any]:
    acme = served.registry.tenant("acme")
    assert acme is not None
    found = acme.meter
    return [found.tenant, *found._principal_meters().values(), *(found._tools or {}).values()]


def at_rest(served: Served, gate: bool) -> bool:
    if any(meter.in_flight for meter in meters(served)):
        return False
    return not gate or (
        served.gate.running == 0 and served.gate.waiting == 0 and len(served.tenants.callers.fair or ()) == 0
    )


async def mix(steps: list[str], revision: str, *, middleware: bool, warm: bool, places: int) -> None:
    server = make_server(middleware=middleware, running_calls_max=places, waiting_calls_max=10_000)
    async with serving(server, warm=warm) as served:
        wires = [
            await served.wire(who, revision, elicitation={"form": {}}) for who in ("acme/bob", "acme/ann")
        ]
        for wire in wires:
            await wire.ask("tools/list")

        async def client(wire: Wire) -> None:
            for name in steps:
                await STEPS[name](served, wire)

        async with asyncio.timeout(20):
            await asyncio.gather(*map(client, wires))
        server.opened.set()  # type: ignore[attr-defined]
        for wire in wires:
            if wire is not wires[0]:
                served.close(wire)  # the last ones may have something in flight
        await until(lambda: at_rest(served, bool(places)))
        assert all(meter.admitted for meter in meters(served)[:1])
        assert text_of(await ask(wires[0], "echo", text="still there")) == "still there"
        assert at_rest(served, bool(places))


@pytest.mark.parametrize("places", [0, 8])
@pytest.mark.parametrize("revision", ["2025-03-26", LEGACY, MODERN])
@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("warm", [True, False])
def test_nothing_is_in_flight_after_each_kind_of_end(
    warm: bool, middleware: bool, revision: str, places: int
) -> None:
    run(mix([*STEPS], revision, middleware=middleware, warm=warm, places=places))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8),
    st.sampled_from(["2025-03-26", LEGACY, MODERN]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 3, 50]),
)
def test_nothing_is_in_flight_after_any_mixture(
    steps: list[str], revision: str, middleware: bool, warm: bool, places: int
) -> None:
    run(mix(steps, revision, middleware=middleware, warm=warm, places=places))


@pytest.mark.parametrize("tool", ["sleeps", "blocks", "asks"])
@pytest.mark.parametrize("middleware", [False, True])
@pytest.mark.parametrize("end", ["cancelled", "disconnected"])
def test_the_last_place_is_free_again(end: str, middleware: bool, tool: str) -> None:
    """With one place only: who takes it and goes leaves it to the next one."""

    async def main() -> None:
        server = make_server(middleware=middleware)
        async with serving(server) as served:
            await served.change(quota=Quota(concurrent_calls_max=1), principal_quota=Quota(), tool_quotas={})
            staying = await served.wire()
            for _ in range(3):
                wire = await served.wire(elicitation={"form": {}})
                sent = call(wire, tool)
                wire.send(sent)
                await until(lambda: served.meter().in_flight == 1)
                assert codes([await ask(staying, "echo", text="")]) == [4291]
                if end == "cancelled":
                    wire.cancel(sent["id"])
                else:
                    served.close(wire)
                await until(lambda: served.meter().in_flight == 0)
                assert codes([await ask(staying, "echo", text="")]) == [None]
            server.opened.set()  # type: ignore[attr-defined]

    run(main())


def test_a_listen_stream_takes_no_place_and_has_no_end_in_time() -> None:
    async def main() -> None:
        async with serving(make_server(running_calls_max=1)) as served:
            wire = await served.wire(revision=MODERN)
            await served.change(quota=Quota(concurrent_calls_max=1, call_s_max=0.02))
            for _ in range(3):
                wire.send(wire.message("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
                await wire.other("notifications/subscriptions/acknowledged")
            await asyncio.sleep(0.05)
            assert codes([await ask(wire, "echo", text="")]) == [None]
            served.host.server.notify_list_changed("tools")
            for _ in range(3):
                await wire.other("notifications/tools/list_changed")
            assert served.meter().in_flight == 0 and served.gate.running == 0

    run(main())
