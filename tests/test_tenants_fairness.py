"""A full process, served: who waits, in which order, for how long, and that nothing of it stays when they are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcpfast import Context, Limits, MCPServer
from mcpfast.tenancy.identity import Quota, TenantRecord
from tests.tenanted import LEGACY, Served, codes, serving, tenancy, text_of, until
from tests.wire import MODERN, Wire, run

BUSY = 5030
QUEUES = Quota(queued_calls_max=100)
both_ways = pytest.mark.parametrize("middleware", [False, True])


async def in_turn(request: Any, call_next: Any) -> Any:
    return await call_next(request)


class Full:
    """A server whose `hold` calls run until they are let go, one by one, in the order in which they began."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.began: list[str] = []
        self.most = 0  # at the same time
        self.tasks: list[Any] = []
        self._running: list[asyncio.Future[None]] = []

    def add_tools(self, server: MCPServer[Any]) -> None:
        @server.tool
        async def hold(name: str) -> str:
            self.began.append(name)
            done = asyncio.get_running_loop().create_future()
            self._running.append(done)
            self.most = max(self.most, len(self._running))
            try:
                await done
            finally:
                if done in self._running:
                    self._running.remove(done)
            return name

        @server.tool
        async def echo(text: str) -> str:
            self.began.append(text)
            return text

        @server.tool(own_task=True)
        async def own_task(text: str, ctx: Context) -> str:
            self.tasks.append(asyncio.current_task())
            return text

        @server.resource("note://1")
        async def note() -> str:
            return "a note"

        @server.prompt
        async def prompt() -> str:
            return "a prompt"

    @property
    def running(self) -> int:
        return len(self._running)

    def let_go(self, count: int = 1) -> None:
        for done in self._running[:count]:
            self._running.remove(done)
            done.set_result(None)

    async def let_all_go(self) -> None:
        """Until nobody holds and nobody waits."""
        fair = self.served.tenants.callers.fair
        assert fair is not None
        while self._running or len(fair) or self.served.gate.running:
            self.let_go(self.running)
            await asyncio.sleep(0.001)

    @property
    def waiting(self) -> int:
        fair = self.served.tenants.callers.fair
        assert fair is not None
        return len(fair)

    def at_rest(self) -> bool:
        gate = self.served.gate
        in_flight = sum(tenant.in_flight for tenant in self.served.registry.tenants())
        return (gate.running, gate.waiting, self.waiting, in_flight) == (0, 0, 0, 0)


@asynccontextmanager
async def full(
    *records: TenantRecord, places: int = 1, waiting: int = 100, middleware: bool = False, **limits: Any
) -> AsyncIterator[Full]:
    """Left with every place free, and nobody waiting."""
    records = records or (TenantRecord("acme", quota=QUEUES), TenantRecord("beta", quota=QUEUES))
    server: MCPServer[Any] = MCPServer(
        "full",
        version="1",
        tenancy=tenancy(*records, drain_s=0.05, look_s=0.02),
        middleware=[in_turn] if middleware else [],
        limits=Limits(running_calls_max=places, waiting_calls_max=waiting, eof_grace_s=0.02, **limits),
    )
    async with serving(server) as served:
        made = Full(served)
        made.add_tools(server)
        yield made
        await made.let_all_go()
        await until(made.at_rest)


def hold(wire: Wire, name: str) -> dict[str, Any]:
    return wire.message("tools/call", {"name": "hold", "arguments": {"name": name}})


def check_busy(answer: dict[str, Any], limit: str, level: str) -> None:
    error = answer["error"]
    assert error["code"] == BUSY
    assert error["message"].startswith("The server ") and "try again in" in error["message"]
    assert error["data"].keys() == {"limit", "level", "retryAfterMs"}
    assert (error["data"]["limit"], error["data"]["level"]) == (limit, level)
    assert 100 <= error["data"]["retryAfterMs"] <= 60_000


# ---------------------------------------------------------------- who waits


@both_ways
def test_at_the_limit_a_call_runs_and_one_above_waits_its_turn(middleware: bool) -> None:
    async def main() -> None:
        async with full(places=2, middleware=middleware) as place:
            wire = await place.served.wire()
            sent = [hold(wire, str(n)) for n in range(5)]
            wire.send(*sent)
            await until(lambda: place.running == 2 and place.waiting == 3)
            assert place.served.meter().in_flight == 2  # who waits has taken nothing yet
            for n in range(5):
                place.let_go()
                assert text_of(await wire.answer(sent[n]["id"])) == str(n)
            assert place.began == list("01234") and place.most == 2

    run(main())


@both_ways
def test_who_may_not_wait_is_told_to_come_back(middleware: bool) -> None:
    async def main() -> None:
        nobody_waits = TenantRecord("acme", quota=Quota(queued_calls_max=0))
        async with full(nobody_waits, middleware=middleware) as place:
            wire = await place.served.wire()
            sent = hold(wire, "a")
            wire.send(sent)
            await until(lambda: place.running == 1)
            for _ in range(2):
                check_busy(await wire.ask(*_call("echo", text="")), "queued_calls_max", "tenant")
            place.let_go()
            await wire.answer(sent["id"])
            assert text_of(await wire.ask(*_call("echo", text="now"))) == "now"

    run(main())


def _call(tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": tool, "arguments": arguments}


def test_so_many_of_a_tenant_wait() -> None:
    async def main() -> None:
        async with full(TenantRecord("acme", quota=Quota(queued_calls_max=2))) as place:
            wire = await place.served.wire()
            sent = [hold(wire, str(n)) for n in range(4)]
            wire.send(*sent)
            check_busy(await wire.answer(sent[3]["id"]), "queued_calls_max", "tenant")
            assert place.waiting == 2
            place.let_go()
            await wire.answer(sent[0]["id"])
            again = hold(wire, "again")
            wire.send(again)
            await until(lambda: place.waiting == 2)
            await place.let_all_go()
            assert codes([await wire.answer(one["id"]) for one in (*sent[1:3], again)]) == [None] * 3

    run(main())


def test_the_queue_is_bounded_and_leaves_room_for_who_comes_new() -> None:
    async def main() -> None:
        async with full(waiting=4) as place:
            greedy, other = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            sent = [hold(greedy, str(n)) for n in range(4)]
            greedy.send(*sent)  # one runs, two wait; of four places it leaves as many free as it has
            check_busy(await greedy.answer(sent[3]["id"]), "waiting_calls_max", "process")
            theirs = hold(other, "new")
            other.send(theirs)
            await until(lambda: place.waiting == 3)
            await place.let_all_go()
            assert text_of(await other.answer(theirs["id"])) == "new"

    run(main())


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
def test_every_request_waits_not_only_calls(revision: str) -> None:
    async def main() -> None:
        async with full() as place:
            wire = await place.served.wire(revision=revision)
            blocker = hold(wire, "a")
            wire.send(blocker)
            await until(lambda: place.running == 1)
            sent = [
                wire.message("tools/list"),
                wire.message("resources/read", {"uri": "note://1"}),
                wire.message("prompts/get", {"name": "prompt"}),
                wire.message(*_call("echo", text="x")),
            ]
            wire.send(*sent)
            await until(lambda: place.waiting == 4)
            if revision == LEGACY:
                assert (await wire.ask("ping"))["result"] == {}  # which nobody has to wait for
            place.let_go()
            assert codes([await wire.answer(one["id"]) for one in sent]) == [None] * 4

    run(main())


def test_a_tool_with_a_task_of_its_own_has_one_after_waiting_too() -> None:
    async def main() -> None:
        async with full() as place:
            wire = await place.served.wire()
            for _ in range(4):
                blocker = hold(wire, "a")
                queued = wire.message(*_call("own_task", text="x"))
                wire.send(blocker, queued)
                await until(lambda: place.waiting == 1)
                place.let_go()
                assert text_of(await wire.answer(queued["id"])) == "x"
            assert len(set(map(id, place.tasks))) == 4

    run(main())


# ---------------------------------------------------------------- in which order


async def _order(place: Full, sent: dict[str, int]) -> str:
    """The order in which calls of tenants begin, that many of each having been sent at once."""
    first = await place.served.wire("acme/first")
    blocker = hold(first, "-")
    first.send(blocker)
    await until(lambda: place.running == 1)
    for tenant, count in sent.items():
        wire = await place.served.wire(f"{tenant}/x", MODERN)
        before = place.waiting
        wire.send(*(hold(wire, tenant[0]) for _ in range(count)))
        await until(lambda: place.waiting == before + count)  # noqa: B023
    for n in range(sum(sent.values()) + 1):
        await until(lambda: len(place.began) == n + 1)  # noqa: B023
        place.let_go()
    await until(lambda: place.running == 0)
    return "".join(place.began[1:])


@both_ways
def test_tenants_take_turns_whoever_came_first(middleware: bool) -> None:
    async def main() -> None:
        async with full(middleware=middleware) as place:
            assert await _order(place, {"acme": 6, "beta": 6}) in ("ab" * 6, "ba" * 6)

    run(main())


def test_a_tenant_of_more_weight_has_more_turns() -> None:
    async def main() -> None:
        heavy = TenantRecord("heavy", quota=QUEUES, weight=3.0)
        async with full(
            TenantRecord("acme", quota=QUEUES), heavy, TenantRecord("beta", quota=QUEUES)
        ) as place:
            order = await _order(place, {"beta": 8, "heavy": 24})
            for turns in range(4, 33, 4):
                assert abs(order[:turns].count("h") - 3 * turns / 4) <= 1, order

    run(main())


def test_who_was_quiet_is_next_however_many_wait() -> None:
    async def main() -> None:
        async with full() as place:
            greedy, quiet = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            sent = [hold(greedy, "g") for _ in range(40)]
            greedy.send(*sent)
            await until(lambda: place.waiting == 39)
            for _ in range(5):
                place.let_go()
                await until(lambda: place.running == 1)
            mine = hold(quiet, "q")
            quiet.send(mine)
            await until(lambda: place.waiting == 35)
            began = len(place.began)
            while "q" not in place.began:
                place.let_go()
                await asyncio.sleep(0.001)
            assert place.began.index("q") - began <= 1

    run(main())


# ---------------------------------------------------------------- for how long


def test_who_waits_longer_than_a_call_may_take_is_told_so() -> None:
    async def main() -> None:
        async with full(
            TenantRecord("acme", quota=QUEUES),
            TenantRecord("beta", quota=Quota(queued_calls_max=9, call_s_max=0.05)),
        ) as place:
            holder, wire = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            holder.send(hold(holder, "a"))
            await until(lambda: place.running == 1)
            begun = time.monotonic()
            answers = [wire.message(*_call("echo", text="late")) for _ in range(3)]
            wire.send(*answers)
            for one in answers:
                check_busy(await wire.answer(one["id"]), "deadline", "process")
            assert 0.045 <= time.monotonic() - begun < 0.5
            assert place.waiting == 0 and "late" not in place.began

    run(main())


# ---------------------------------------------------------------- who goes while waiting


@both_ways
@pytest.mark.parametrize("end", ["cancelled", "disconnected"])
def test_who_goes_while_waiting_leaves_nothing(end: str, middleware: bool) -> None:
    async def main() -> None:
        async with full(middleware=middleware) as place:
            staying, going = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            blocker = hold(staying, "a")
            staying.send(blocker)
            await until(lambda: place.running == 1)
            gone = [hold(going, "gone") for _ in range(3)]
            going.send(*gone)
            await until(lambda: place.waiting == 3)
            mine = hold(staying, "mine")
            staying.send(mine)
            await until(lambda: place.waiting == 4)
            if end == "cancelled":
                for one in gone:
                    going.cancel(one["id"])
            else:
                place.served.close(going)
            await until(lambda: place.waiting == 1)
            place.let_go()
            await until(lambda: place.running == 1)
            place.let_go()
            assert text_of(await staying.answer(mine["id"])) == "mine"
            assert "gone" not in place.began
            assert place.served.gate.running == 0 and place.served.gate.waiting == 0

    run(main())


@pytest.mark.parametrize("end", ["cancelled", "disconnected"])
def test_a_place_that_was_on_its_way_goes_on(end: str) -> None:
    """In one turn of the loop the place becomes free for one that is cancelled in the same turn."""

    async def main() -> None:
        async with full() as place:
            staying, going = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            for _ in range(10):
                blocker, gone, mine = hold(staying, "a"), hold(going, "gone"), hold(staying, "mine")
                staying.send(blocker)
                await until(lambda: place.running == 1)
                going.send(gone)
                await until(lambda: place.waiting == 1)
                staying.send(mine)
                await until(lambda: place.waiting == 2)
                place.let_go()
                if end == "cancelled":
                    going.cancel(gone["id"])
                else:
                    place.served.close(going)
                    going = await place.served.wire("beta/ann", MODERN)
                await place.let_all_go()
                assert text_of(await staying.answer(mine["id"])) == "mine"
                await until(place.at_rest)

    run(main())


CHANGES: dict[str, tuple[dict[str, Any] | None, int]] = {
    "removed": (None, 4030),
    "suspended": ({"state": "suspended"}, 4030),
    "denied": ({"deny": ("hold", "echo")}, -32602),
}


@both_ways
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_while_a_call_waits_holds_for_it(change: str, middleware: bool) -> None:
    """It was let in before; when its turn comes it is asked again, and no handler is reached."""
    changes, code = CHANGES[change]

    async def main() -> None:
        async with full(middleware=middleware) as place:
            holder, wire = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            holder.send(hold(holder, "a"))
            await until(lambda: place.running == 1)
            sent = [hold(wire, "late"), wire.message(*_call("echo", text="late"))]
            wire.send(*sent)
            await until(lambda: place.waiting == 2)
            if changes is None:
                await place.served.registry.remove("beta")
            else:
                await place.served.change("beta", **changes)
            await asyncio.sleep(0.01)
            place.let_go()
            assert codes([await wire.answer(one["id"]) for one in sent]) == [code, code]
            assert "late" not in place.began
            await until(place.at_rest)

    run(main())


def test_a_credential_that_ends_while_its_call_waits() -> None:
    async def main() -> None:
        async with full() as place:
            holder = await place.served.wire("acme/bob")
            (named,) = place.served.tenants.callers.tenancy.resolvers
            named.expires_s["ann"] = time.time() + 0.1  # type: ignore[attr-defined]
            wire = await place.served.wire("beta/ann")
            holder.send(hold(holder, "a"))
            await until(lambda: place.running == 1)
            sent = hold(wire, "late")
            wire.send(sent)
            await until(lambda: place.waiting == 1)
            await asyncio.sleep(0.12)
            place.let_go()
            assert codes([await wire.answer(sent["id"])]) == [4010]
            assert "late" not in place.began
            await until(place.at_rest)

    run(main())


# ---------------------------------------------------------------- with quotas beside


def test_what_is_refused_or_never_began_on_the_quick_way_leaves_its_place() -> None:
    async def main() -> None:
        async with full(TenantRecord("acme"), places=5) as place:
            wire = await place.served.wire()
            for text in (
                "a",
                "b",
                "c",
                4,
            ):  # the last one as quickly as those before, until its argument is read
                answer = await wire.ask(*_call("echo", text=text))
            assert answer["result"]["isError"] is True
            assert place.at_rest()
            await place.served.change(quota=Quota(calls_per_s=0.01, calls_burst=3.0))
            answers = [await wire.ask(*_call("echo", text="x")) for _ in range(5)]
            assert codes(answers) == [None, None, None, 4291, 4291]
            assert place.at_rest()

    run(main())


def test_a_quota_that_refuses_after_waiting_gives_the_place_on() -> None:
    async def main() -> None:
        async with full() as place:
            holder, wire = await place.served.wire("acme/bob"), await place.served.wire("beta/ann")
            await place.served.change(
                "beta",
                quota=Quota(queued_calls_max=10, concurrent_calls_max=1, calls_per_s=0.01, calls_burst=1.0),
            )
            holder.send(hold(holder, "a"))
            await until(lambda: place.running == 1)
            sent = [wire.message(*_call("echo", text="x")) for _ in range(4)]
            wire.send(*sent)
            await until(lambda: place.waiting == 4)
            place.let_go()
            answers = [await wire.answer(one["id"]) for one in sent]
            assert codes(answers) == [None, 4291, 4291, 4291]
            await until(place.at_rest)

    run(main())


@both_ways
def test_never_more_at_once_than_there_are_places(middleware: bool) -> None:
    async def main() -> None:
        async with full(places=3, middleware=middleware) as place:
            wires = [await place.served.wire(who) for who in ("acme/bob", "beta/ann", "acme/cid")]

            async def client(wire: Wire) -> None:
                for n in range(15):
                    sent = hold(wire, "x") if n % 3 else wire.message(*_call("echo", text="e"))
                    wire.send(sent)
                    if n % 5 == 4:
                        await asyncio.sleep(0)
                        wire.cancel(sent["id"])
                        wire.sent.pop((int, sent["id"]), None)
                    elif n % 3 == 0:
                        await wire.answer(sent["id"])

            async def letting_go() -> None:
                while True:
                    place.let_go()
                    assert place.served.gate.running <= 3
                    await asyncio.sleep(0.001)

            task = asyncio.create_task(letting_go())
            await asyncio.gather(*map(client, wires))
            await until(place.at_rest)
            task.cancel()
            assert 1 <= place.most <= 3

    run(main())


def test_a_server_without_a_limit_has_no_gate() -> None:
    server: MCPServer[Any] = MCPServer("none", tenancy=tenancy(TenantRecord("acme")))

    async def plain() -> None:
        async with serving(server) as served:
            assert served.host.engine.gate is None and served.tenants.callers.fair is None

    run(plain())
