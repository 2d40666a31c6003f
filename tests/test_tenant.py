"""A tenant that lives: its terms, its drain, its weight in memory."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec
import pytest

from mcpfast.tenancy.identity import Plan, Quota, TenantRecord
from mcpfast.tenancy.tenant import SharedTerms, Tenant

TEAM = Plan(scopes=frozenset({"read"}), quota=Quota(calls_per_s=5), weight=2.0, deny=("admin_*",))
BYTES_MAX = 1_500
ACME = TenantRecord("acme")


class Calls:
    """Those in flight, and whether somebody cancelled them."""

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def tenant(in_flight: int = 0, record: TenantRecord = ACME) -> tuple[Tenant, Calls]:
    made = Tenant(record, SharedTerms({}).of(record))
    made.calls = calls = Calls(in_flight)
    return made, calls


# ---------------------------------------------------------------------------------------------- terms


def test_tenants_of_one_plan_share_their_terms() -> None:
    terms = SharedTerms({"team": TEAM})
    one, other = terms.of(TenantRecord("a", plan="team")), terms.of(TenantRecord("b", plan="team"))
    assert one is other
    assert (one.scopes, one.quota, one.weight, one.deny) == (TEAM.scopes, TEAM.quota, 2.0, ("admin_*",))


def test_a_tenants_own_words_are_stronger_than_its_plans() -> None:
    record = TenantRecord("a", plan="team", quota=Quota(calls_per_s=9), deny=(), weight=0.5)
    own = SharedTerms({"team": TEAM}).of(record)
    assert (own.scopes, own.quota.calls_per_s, own.deny, own.weight) == (TEAM.scopes, 9, (), 0.5)


def test_without_a_plan_nothing_is_limited_and_nothing_granted() -> None:
    terms = SharedTerms({}).of(TenantRecord("a"))
    assert terms.quota == Quota() and terms.scopes == frozenset() and terms.allow == ("*",)


def test_what_a_tenant_says_of_itself() -> None:
    made, _ = tenant(record=TenantRecord("acme", name="Acme Ltd.", kind="personal"))
    assert (made.id, made.kind, made.name, made.label) == ("acme", "personal", "Acme Ltd.", "acme")
    assert made.namespace.encode_key("a") == "t/acme/k/a"
    assert tenant()[0].name == "acme"


# ---------------------------------------------------------------------------------------------- draining


def test_without_calls_a_drain_ends_at_once() -> None:
    made, calls = tenant()
    made.drain(10.0, 5.0, "suspended")
    assert made.state == "suspended" and not calls.cancelled


def test_a_tenant_that_never_had_a_call_drains_at_once() -> None:
    made, _ = tenant()
    made.calls = None
    made.drain(10.0, 5.0, "removed")
    assert made.state == "removed"


def test_calls_in_flight_may_end() -> None:
    made, calls = tenant(in_flight=2)
    made.drain(10.0, 5.0, "suspended")
    assert made.step(14.9) == "draining"
    calls.in_flight = 0
    assert made.step(14.95) == "suspended" and not calls.cancelled


def test_at_the_deadline_they_are_cancelled_once() -> None:
    made, calls = tenant(in_flight=2)
    made.drain(10.0, 5.0, "removed")
    assert made.step(14.999) == "draining" and not calls.cancelled
    assert made.step(15.0) == "removed" and calls.cancelled == 1
    assert made.step(99.0) == "removed" and calls.cancelled == 1


def test_the_earlier_deadline_holds_and_removed_is_stronger() -> None:
    made, calls = tenant(in_flight=1)
    made.drain(10.0, 5.0, "suspended")
    made.drain(11.0, 60.0, "removed")
    assert made.step(15.0) == "removed" and calls.cancelled == 1
    made, calls = tenant(in_flight=1)
    made.drain(10.0, 60.0, "removed")
    made.drain(11.0, 1.0, "suspended")
    assert made.step(12.0) == "removed"


@pytest.mark.parametrize("in_flight", [0, 1])
def test_a_suspended_tenant_can_be_active_again(in_flight: int) -> None:
    made, calls = tenant(in_flight)
    made.drain(10.0, 5.0, "suspended")
    made.resume()
    assert made.state == "active" and made.step(99.0) == "active" and not calls.cancelled


def test_what_was_removed_stays_removed() -> None:
    made, calls = tenant(in_flight=1)
    made.drain(10.0, 5.0, "removed")
    made.resume()
    assert made.state == "draining"
    calls.in_flight = 0
    made.step(11.0)
    made.resume()
    assert made.state == "removed"


def test_a_suspended_tenant_can_be_removed() -> None:
    made, _ = tenant()
    made.drain(10.0, 5.0, "suspended")
    made.drain(11.0, 5.0, "removed")
    assert made.state == "removed"


@pytest.mark.parametrize("state", ["suspended", "draining"])
def test_one_that_is_loaded_suspended_takes_nothing(state: str) -> None:
    record = msgspec.convert({"id": "acme", "state": state}, TenantRecord)
    assert tenant(record=record)[0].state == "suspended"


def test_the_registry_suspends_and_resumes() -> None:
    made, calls = tenant(in_flight=1)
    terms = made.terms
    made.apply(TenantRecord("acme", state="suspended"), terms, 10.0, 5.0)
    assert made.state == "draining"
    made.apply(TenantRecord("acme", state="suspended", name="again"), terms, 12.0, 5.0)
    assert made.step(15.0) == "suspended" and calls.cancelled == 1
    made.apply(TenantRecord("acme"), terms, 20.0, 5.0)
    assert made.state == "active"


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.plain_build
def test_an_idle_tenant_is_small() -> None:
    """With its record, its name and its place among ten thousand; the terms are its plan's."""
    terms = SharedTerms({"team": TEAM})
    count = 10_000
    encoded = [
        msgspec.msgpack.encode(TenantRecord(f"org-{number:05}", name=f"Organization {number}", plan="team"))
        for number in range(count)
    ]
    decode = msgspec.msgpack.Decoder(TenantRecord).decode
    gc.collect()
    tracemalloc.start()
    try:
        tenants = {}
        for line in encoded:
            record = decode(line)
            tenants[record.id] = Tenant(record, terms.of(record))
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert each <= BYTES_MAX, f"{each:.0f} bytes"
