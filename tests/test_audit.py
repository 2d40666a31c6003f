"""What is written down of calls that were refused: each way of being refused, and a flood of each."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpfast.tenancy.audit import COUNTED_TENANTS_MAX, DENIALS_PER_S, Actor, AuditLog, DenialOf, Denials
from tests.admin_server import Asker, Registered, administered
from tests.wire import run


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


class Clock:
    """A clock that is set, and what is to happen at its times."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now_s

    def later(self, delay_s: float, then: Callable[[], None]) -> Any:
        timer = (self.now_s + delay_s, then)
        self.timers.append(timer)
        return _Cancel(lambda: self.timers.remove(timer))

    def go_to(self, now_s: float) -> None:
        for timer in sorted(self.timers, key=lambda one: one[0]):
            if timer[0] <= now_s:
                self.timers.remove(timer)
                self.now_s = timer[0]
                timer[1]()
        self.now_s = now_s


class _Cancel:
    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel


class Written:
    """Denials into a file, on a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.file = Clock(), folder / "log"
        self.log = AuditLog(self.file, clock=self.clock)
        self.denials = Denials(self.log, clock=self.clock, later=self.clock.later)

    def refuse(self, count: int, tenant: str = "acme", of: DenialOf = "quota") -> None:
        for _ in range(count):
            self.denials.write(
                of, Actor("ci", "http", tenant), "tools/call", "echo", "calls_per_s of the tenant"
            )

    def records(self) -> list[Any]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [one["count"] if one["kind"] == "denials" else "one" for one in map(json.loads, lines)]

    def last(self) -> Any:
        return json.loads(self.file.read_text().splitlines()[-1])


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_a_few_a_second_are_written_and_the_rest_counted_when_the_second_is_over(written: Written) -> None:
    written.refuse(DENIALS_PER_S)
    assert written.records() == ["one"] * DENIALS_PER_S and not written.clock.timers
    written.refuse(480)
    assert written.records() == ["one"] * DENIALS_PER_S
    written.clock.go_to(100.999)
    assert len(written.records()) == DENIALS_PER_S
    written.clock.go_to(101.0)  # nobody is refused any more
    assert written.records() == ["one"] * DENIALS_PER_S + [480]
    assert written.last() == {
        "at_s": 101.0, "kind": "denials", "of": "quota", "count": 480, "tenants": [{"tenant": "acme", "count": 480}],
    }  # fmt: skip
    assert not written.clock.timers
    written.clock.go_to(500.0)
    assert len(written.records()) == DENIALS_PER_S + 1


def test_a_flood_that_goes_on_is_written_and_counted_second_by_second(written: Written) -> None:
    for second in range(5):
        written.clock.go_to(100.0 + second)
        written.refuse(DENIALS_PER_S + 1 + second)
    written.clock.go_to(105.0)
    one = ["one"] * DENIALS_PER_S
    assert written.records() == [*one, 1, *one, 2, *one, 3, *one, 4, *one, 5]


def test_who_is_refused_now_and_then_is_written_each_time(written: Written) -> None:
    for second in range(100):
        written.clock.go_to(100.0 + 0.6 * second)
        written.refuse(DENIALS_PER_S // 2)
    assert written.records() == ["one"] * (DENIALS_PER_S // 2 * 100)


def test_a_late_count_has_all_of_it(written: Written) -> None:
    written.refuse(DENIALS_PER_S + 1)
    written.clock.now_s = 107.0  # the loop was busy
    written.refuse(5)
    written.clock.go_to(107.0)
    assert written.records() == ["one"] * DENIALS_PER_S + [6]


def test_one_kind_hides_no_other(written: Written) -> None:
    written.refuse(10_000)
    written.refuse(1, of="permission")
    written.refuse(1, "", of="identity")
    assert written.records() == ["one"] * (DENIALS_PER_S + 2)


def test_counts_are_by_tenant_and_of_bounded_size(written: Written) -> None:
    written.refuse(DENIALS_PER_S)
    for number in range(10 * COUNTED_TENANTS_MAX):
        written.refuse(2, f"t{number}")
    written.clock.go_to(101.0)
    tenants = {one["tenant"]: one["count"] for one in written.last()["tenants"]}
    assert len(tenants) == COUNTED_TENANTS_MAX + 1 and tenants["t0"] == 2
    assert sum(tenants.values()) == written.last()["count"] == 20 * COUNTED_TENANTS_MAX


def test_what_was_counted_is_written_at_the_end(written: Written) -> None:
    written.refuse(DENIALS_PER_S + 7)
    written.refuse(DENIALS_PER_S + 3, of="permission")
    written.denials.close()
    assert sorted(one for one in written.records() if one != "one") == [3, 7] and not written.clock.timers


def test_a_log_that_cannot_be_written_hinders_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = Written(tmp_path / "none")
    with caplog.at_level(logging.ERROR, "mcpfast.tenancy"):
        written.refuse(500)
        written.clock.go_to(101.0)
    assert len(caplog.records) == 1 and "denials are not written down" in caplog.text
    (tmp_path / "none").mkdir()
    written.refuse(1)
    assert written.records() == ["one"]


# ---------------------------------------------------------------------------------------------- by a server


def denied(registered: Registered, scenario: Callable[[Asker], Any], **options: Any) -> list[dict[str, Any]]:
    """The denials that a server wrote down, without their times."""

    async def main() -> None:
        async with administered(registered, admin=False, **options) as ask:
            await scenario(ask)

    run(main())
    records = registered.records()
    for record in records:
        assert record.pop("at_s") > 1.7e9
    return [record for record in records if record["kind"] != "change"]


def denial(reason: str, action: str, target: str, **more: str) -> dict[str, Any]:
    who = {"user": "caller", "via": "http", "tenant": "acme"} | more
    return {"kind": "denial", **who, "action": action, "target": target, "reason": reason}


HIDDEN = "It is not for this tenant, and was called unknown"


def test_what_is_not_permitted_is_written_and_what_is_nowhere_is_not(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        await ask("GET", "/tenants")  # served by nobody: no denial
        hidden, nowhere = await ask.call("diary"), await ask.call("dairy")
        assert hidden.body.replace(b"diary", b"dairy") == nowhere.body
        await ask.call("echo", text="x")

    assert denied(registered, scenario) == [denial(HIDDEN, "tools/call", "diary")]


def test_a_step_up_is_written(registered: Registered) -> None:
    text = registered.file.read_text()
    registered.file.write_text(text.replace('plan = "team"', 'plan = "team"\nscopes = ["read", "write"]'))

    async def scenario(ask: Asker) -> None:
        assert (await ask.call("order", text="x")).status == 403

    assert denied(registered, scenario) == [denial("This needs the scope write", "tools/call", "order")]


def test_who_is_nobody_is_written(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        assert (await ask.call("echo", who="", text="x")).status == 401
        assert (await ask.call("echo", key="mcpf_bad", text="x")).status == 401

    nobody = {"kind": "denial", "user": "", "via": "http", "action": "call", "target": ""}
    assert denied(registered, scenario) == [
        {**nobody, "reason": "This needs credentials"},
        {**nobody, "reason": "The API key is not valid"},
    ]


def test_what_goes_over_a_quota_is_written_also_on_the_quick_way(registered: Registered) -> None:
    text = registered.file.read_text()
    registered.file.write_text(text.replace("calls_per_s = 1000", "calls_per_s = 0.001"))

    async def scenario(ask: Asker) -> None:
        statuses = [(await ask.call("echo", text="x")).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert (await ask.ask("tools/list", {})).status == 429

    over = "calls_per_s of the tenant"
    first, second, third = denied(registered, scenario)
    assert first == second == denial(over, "tools/call", first["target"])
    assert third == denial(over, "tools/list", "")


def test_a_flood_over_a_quota_writes_little_and_counts_all(registered: Registered) -> None:
    text = registered.file.read_text()
    registered.file.write_text(text.replace("calls_per_s = 1000", "calls_per_s = 0.001"))
    flood = 600

    async def scenario(ask: Asker) -> None:
        for _ in range(flood // 50):
            said = await asyncio.gather(*(ask.call("echo", text="x") for _ in range(50)))
            assert said[-1].status == 429
        assert (
            await ask.call("echo", who="", text="x")
        ).status == 401  # what else is tried is not hidden by it
        seen = len(registered.records("denials"))
        async with asyncio.timeout(10):  # nobody calls any more, and still
            while len(registered.records("denials")) == seen:
                await asyncio.sleep(0.05)

    records = denied(registered, scenario)
    one_by_one = [one for one in records if one["kind"] == "denial" and "calls_per_s" in one["reason"]]
    counts = [one for one in records if one["kind"] == "denials"]
    assert sum(one["count"] for one in counts) + len(one_by_one) == flood - 5
    assert all(one["of"] == "quota" and one["tenants"][0]["tenant"] == "acme" for one in counts)
    assert len(one_by_one) <= DENIALS_PER_S * (len(counts) + 1) and len(counts) < 30
    assert "This needs credentials" in [one.get("reason") for one in records]
