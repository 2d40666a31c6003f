"""How much may be used: every limit at its edge, all or nothing, and hypothesis against a plain model of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast._quota import ADMITTED, LEVELS, LIMITS, Admission, Bucket, Budget, Gate, Meter, Verdict
from mcpfast.tenancy.identity import Quota
from mcpfast.tenancy.meters import Meters

NOW_S = 1_000.0
DAY_S = 86_400.0


def epoch(*date: int) -> float:
    return datetime(*date, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


NOON = epoch(2026, 11, 29, 12)


def admit(meter: Meter, cost: float = 1.0, request_bytes: float = 0.0, now_s: float = NOW_S) -> Verdict:
    return Admission(meter).admit(cost, request_bytes, now_s, NOON)


def told(verdict: Verdict) -> tuple[str, str, float]:
    return verdict.limit, verdict.level, verdict.retry_after_s


# ---------------------------------------------------------------- buckets


def test_a_bucket_at_its_edge() -> None:
    bucket = Bucket(10, 4)
    assert [bucket.take(1, NOW_S) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1, NOW_S) == 0.25
    assert bucket.take(1, NOW_S + 0.249) == pytest.approx(0.001)
    assert bucket.take(1, NOW_S + 0.25) == 0.0
    assert bucket.level(NOW_S + 0.25) == 0.0


def test_a_bucket_is_never_fuller_than_full() -> None:
    bucket = Bucket(10, 4)
    assert bucket.level(1e9) == 10.0
    assert bucket.take(10, 1e9) == 0.0
    assert bucket.take(1, 1e9) > 0.0


def test_more_than_the_burst_is_never_there() -> None:
    bucket = Bucket(10, 4)
    assert bucket.take(10.001, NOW_S) == inf
    assert bucket.take(10, NOW_S) == 0.0


def test_a_bucket_without_a_rate_is_used_once() -> None:
    bucket = Bucket(2, 0)
    assert bucket.take(2, NOW_S) == 0.0
    assert bucket.take(1, NOW_S + 1e6) == inf


def test_a_debt_is_paid_first() -> None:
    bucket = Bucket(10, 4)
    bucket.debit(30, NOW_S)
    assert bucket.level(NOW_S) == -20.0
    assert bucket.take(0, NOW_S) == 5.0
    assert bucket.take(2, NOW_S) == 5.5
    assert bucket.take(2, NOW_S + 5.5) == 0.0


def test_a_clock_that_goes_backwards_is_harmless() -> None:
    bucket = Bucket(10, 4)
    assert bucket.take(10, NOW_S) == 0.0
    assert bucket.take(1, NOW_S - 500) == 500.25
    bucket.debit(1, NOW_S - 500)
    assert bucket.level(NOW_S - 500) == -1.0
    assert bucket.take(1, NOW_S) == 0.5  # nothing was refilled for the time that came twice


@pytest.mark.parametrize("made", [(0, 1), (-1, 1), (inf, 1), (1, -1), (1, inf), (float("nan"), 1)])
def test_what_cannot_be_a_bucket(made: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Bucket(*made)


@pytest.mark.parametrize("n", [-1, float("nan")])
def test_nothing_can_be_put_in(n: float) -> None:
    bucket, budget = Bucket(10, 4), Budget(10, 10)
    for act in (bucket.take, bucket.debit, budget.take, budget.debit):
        with pytest.raises(ValueError, match="from 0 on"):
            act(n, NOW_S)
    assert (bucket.capacity, bucket.rate_per_s, bucket.level(NOW_S)) == (10.0, 4.0, 10.0)


AMOUNTS = st.floats(0, 1e9)


@given(
    st.floats(1, 1e9),
    st.floats(1e-3, 1e9),
    st.floats(0, 1e8),
    st.lists(st.floats(0, 1), max_size=20),
    AMOUNTS,
)
def test_who_comes_back_when_told_is_let_in(
    capacity: float, rate_per_s: float, now_s: float, parts: list[float], debt: float
) -> None:
    """Any numbers, at any time of a clock: not later than told, and not much sooner."""
    bucket = Bucket(capacity, rate_per_s)
    bucket.debit(debt, now_s)
    for part in parts:
        n = part * capacity
        wait_s = bucket.take(n, now_s)
        if wait_s:
            if wait_s * rate_per_s > 1e-13 * (capacity + rate_per_s * now_s):  # else the clock is too coarse
                assert bucket.take(n, now_s + wait_s / 2) > 0.0
            now_s += wait_s
            assert bucket.take(n, now_s) == 0.0


EIGHTHS = st.integers(0, 400).map(lambda n: n / 8)  # sums and products of these are exact


@given(
    st.integers(1, 64),
    st.sampled_from([0.25, 1.0, 8.0, 64.0]),
    st.lists(
        st.tuples(st.sampled_from(["take", "debit"]), EIGHTHS, EIGHTHS.map(lambda n: n - 10)), max_size=40
    ),
)
def test_a_bucket_is_its_model(
    capacity: int, rate_per_s: float, acts: list[tuple[str, float, float]]
) -> None:
    bucket, model = Bucket(capacity, rate_per_s), BucketModel(Fraction(capacity), Fraction(rate_per_s))
    now_s = NOW_S
    for act, n, step_s in acts:
        now_s += step_s
        if act == "take":
            wait_s = model.wait_s(Fraction(n), Fraction(now_s))
            if not wait_s:
                model.debit(Fraction(n), Fraction(now_s))
            assert bucket.take(n, now_s) == wait_s
        else:
            bucket.debit(n, now_s)
            model.debit(Fraction(n), Fraction(now_s))
        assert bucket.level(now_s) == model.at(Fraction(now_s))


# ---------------------------------------------------------------- budgets


def test_a_budget_at_its_edge() -> None:
    budget = Budget(daily_units_max=10)
    assert budget.take(10, NOON) == 0.0
    assert budget.take(1, NOON) == 12 * 3600
    assert budget.take(0, NOON) == 0.0  # what costs nothing needs no budget
    assert budget.take(1, epoch(2026, 11, 29, 23, 59, 59) + 0.999) > 0.0
    assert budget.used(NOON) == (10.0, 10.0)
    assert budget.take(1, epoch(2026, 11, 30)) == 0.0
    assert budget.used(epoch(2026, 11, 30)) == (1.0, 11.0)


def test_a_month_at_its_edge() -> None:
    budget = Budget(daily_units_max=6, monthly_units_max=10)
    assert budget.take(6, NOON) == 0.0
    assert budget.take(6, NOON) == epoch(2026, 12, 1) - NOON  # tomorrow it would be the month that refuses
    assert budget.take(4, NOON) == 12 * 3600
    assert budget.take(4, epoch(2026, 11, 30)) == 0.0
    assert budget.take(1, epoch(2026, 11, 30)) == DAY_S
    assert budget.take(6, epoch(2026, 12, 1)) == 0.0


@pytest.mark.parametrize(
    ("at", "after"),
    [
        ((2026, 1, 31, 5), (2026, 2, 1)),
        ((2026, 2, 1), (2026, 3, 1)),
        ((2028, 2, 29, 23, 59, 59), (2028, 3, 1)),
        ((2100, 2, 28), (2100, 3, 1)),
        ((2026, 4, 30), (2026, 5, 1)),
        ((2026, 12, 31, 23), (2027, 1, 1)),
        ((1970, 1, 1), (1970, 2, 1)),
    ],
)
def test_months_end_when_they_do(at: tuple[int, ...], after: tuple[int, ...]) -> None:
    budget = Budget(monthly_units_max=1)
    assert budget.take(1, epoch(*at)) == 0.0
    assert budget.take(1, epoch(*at)) == epoch(*after) - epoch(*at)
    assert budget.take(1, epoch(*after) - 0.001) > 0.0
    assert budget.take(1, epoch(*after)) == 0.0


def test_more_than_a_whole_budget_is_never_there() -> None:
    assert Budget(daily_units_max=10).take(10.1, NOON) == inf
    assert Budget(monthly_units_max=10).take(10.1, NOON) == inf
    assert Budget().take(1e300, NOON) == 0.0


def test_sums_of_tenths_come_out_even() -> None:
    budget = Budget(daily_units_max=0.3)
    assert [budget.take(0.1, NOON) == 0.0 for _ in range(4)] == [True, True, True, False]


def test_a_budget_may_be_overdrawn() -> None:
    budget = Budget(daily_units_max=10)
    budget.debit(25, NOON)
    assert budget.used(NOON) == (25.0, 25.0)
    assert budget.take(1, NOON) == 12 * 3600
    assert budget.take(0, NOON) == 0.0
    assert budget.take(1, NOON + 12 * 3600) == 0.0


def test_a_calendar_that_goes_backwards_gives_nothing() -> None:
    budget, midnight = Budget(daily_units_max=10), epoch(2026, 11, 30)
    assert budget.take(10, midnight) == 0.0
    assert budget.take(1, midnight - 1) == DAY_S + 1  # a second back over midnight
    assert budget.take(1, midnight + 1) > 0.0
    # it was far off, and is right again: that day ends as days do
    assert budget.take(1, midnight - 40 * DAY_S) == DAY_S
    assert budget.take(1, midnight - 39 * DAY_S) == 0.0


@pytest.mark.parametrize("epoch_s", [-1.0, 1e12, inf, float("nan")])
def test_a_mad_calendar_does_no_harm(epoch_s: float) -> None:
    budget = Budget(daily_units_max=10)
    budget.take(10, epoch_s)
    assert budget.take(1, NOON) in (0.0, 12 * 3600)


@given(
    st.sampled_from([0.0, 4.0, 10.0]),
    st.sampled_from([0.0, 8.0, 30.0]),
    st.lists(
        st.tuples(EIGHTHS, st.sampled_from([0.0, 0.125, 7200.0, DAY_S, 9 * DAY_S, 31 * DAY_S])), max_size=40
    ),
)
def test_a_budget_is_its_model(daily: float, monthly: float, acts: list[tuple[float, float]]) -> None:
    budget, model, epoch_s = Budget(daily, monthly), BudgetModel(daily, monthly), NOON
    for units, step_s in acts:
        epoch_s += step_s
        wait_s = max(model.waits_s(units, epoch_s).values())
        if not wait_s:
            model.debit(units, epoch_s)
        assert budget.take(units, epoch_s) == wait_s
        if 0.0 < wait_s < inf:
            assert budget.used(epoch_s) == (model.day, model.month)


# ---------------------------------------------------------------- each limit of a level


def test_without_a_quota_everything_passes() -> None:
    for meter in (Meter(), Meter(Quota())):
        for _ in range(1000):
            assert admit(meter, 1e12, 1e15) is ADMITTED
        assert meter.in_flight == meter.admitted == 1000
        assert meter.used(NOON) == (0.0, 0.0)  # nobody asked to count
        assert meter.response_bytes_max == meter.call_s_max == inf


@pytest.mark.parametrize(
    ("quota", "passes", "then"),
    [
        (Quota(calls_per_s=2), 2, 0.5),
        (Quota(calls_per_s=2, calls_burst=5), 5, 0.5),
        (Quota(calls_per_s=1 / 64), 1, 64.0),  # slower than one a second: one at once all the same
        (Quota(calls_per_s=4, calls_burst=0.5), 1, 0.25),
    ],
)
def test_calls_a_second(quota: Quota, passes: int, then: float) -> None:
    meter = Meter(quota)
    assert all(admit(meter).admitted for _ in range(passes))
    assert told(admit(meter)) == ("calls_per_s", "tenant", then)
    assert not admit(meter, now_s=NOW_S + then * 0.999).admitted
    assert admit(meter, now_s=NOW_S + then).admitted
    assert meter.refused["calls_per_s"] == 2


def test_bytes_a_second_of_requests_and_responses() -> None:
    meter = Meter(Quota(bytes_per_s=100, bytes_burst=1000))
    admission = Admission(meter)
    assert admission.admit(1, 1000, NOW_S, NOON).admitted
    assert told(admission.admit(1, 1, NOW_S, NOON)) == ("bytes_per_s", "tenant", 0.01)
    admission.release(500, NOW_S)  # it is sent on credit
    assert told(admission.admit(1, 1, NOW_S, NOON)) == ("bytes_per_s", "tenant", 5.01)
    assert admission.admit(1, 1, NOW_S + 5.01, NOON).admitted
    assert told(admission.admit(1, 1001, NOW_S + 100, NOON)) == ("bytes_per_s", "tenant", inf)


def test_concurrent_calls() -> None:
    meter = Meter(Quota(concurrent_calls_max=2))
    assert admit(meter).admitted and admit(meter).admitted
    assert told(admit(meter)) == ("concurrent_calls_max", "tenant", 1.0)
    Admission(meter).release(0, NOW_S)
    assert admit(meter).admitted
    assert not admit(meter).admitted
    assert (meter.in_flight, meter.admitted, meter.refused["concurrent_calls_max"]) == (2, 3, 2)


def test_a_call_that_is_released_twice_makes_no_room() -> None:
    meter = Meter(Quota(concurrent_calls_max=1))
    for _ in range(3):
        Admission(meter).release(0, NOW_S)
    assert meter.in_flight == 0
    assert admit(meter).admitted
    assert not admit(meter).admitted


def test_the_size_of_a_request() -> None:
    meter = Meter(Quota(request_bytes_max=100))
    assert admit(meter, request_bytes=100).admitted
    assert told(admit(meter, request_bytes=101)) == ("request_bytes_max", "tenant", inf)


def test_the_size_of_a_response() -> None:
    admission = Admission(Meter(Quota(response_bytes_max=300)), None, Meter(Quota(response_bytes_max=100)))
    assert admission.response_bytes_max == 100
    assert admission.judge_response(100) is ADMITTED
    assert told(admission.judge_response(101)) == ("response_bytes_max", "tool", inf)
    assert admission.tool is not None and admission.tool.refused["response_bytes_max"] == 1
    assert admission.tenant.refused["response_bytes_max"] == 0
    assert Admission(Meter()).judge_response(1e18) is ADMITTED


def test_the_wall_time_of_a_call() -> None:
    tenant, principal = Meter(Quota(call_s_max=30)), Meter(Quota(call_s_max=2))
    admission = Admission(tenant, principal, Meter())
    assert admission.call_s_max == 2
    assert told(admission.timed_out()) == ("call_s_max", "principal", inf)
    assert (tenant.refused["call_s_max"], principal.refused["call_s_max"]) == (0, 1)
    assert Admission(Meter()).call_s_max == inf
    assert told(Admission(Meter()).timed_out()) == ("call_s_max", "tenant", inf)  # it was lifted meanwhile


def test_units_a_day_and_a_month() -> None:
    meter = Meter(Quota(daily_units_max=10, monthly_units_max=15))
    assert admit(meter, 10).admitted
    assert told(admit(meter, 1)) == ("daily_units_max", "tenant", 12 * 3600)
    assert told(admit(meter, 6)) == ("monthly_units_max", "tenant", 36 * 3600)
    assert told(admit(meter, 11)) == ("daily_units_max", "tenant", inf)
    assert meter.used(NOON) == (10.0, 10.0)
    assert (meter.refused["daily_units_max"], meter.refused["monthly_units_max"]) == (2, 1)


@pytest.mark.parametrize("name", Quota.__struct_fields__)
def test_no_limit_is_negative(name: str) -> None:
    if name == "queued_calls_max":  # fairness asks that one
        return
    with pytest.raises(ValueError, match=f"{name} must be a number from 0 on"):
        Meter(Quota(**{name: -1}))


def test_infinity_is_no_limit() -> None:
    meter = Meter(
        Quota(calls_per_s=inf, bytes_per_s=inf, daily_units_max=inf, monthly_units_max=inf, call_s_max=inf)
    )
    assert all(admit(meter, 1e300, 1e300).admitted for _ in range(10))


# ---------------------------------------------------------------- changes, restarts, rest


def test_a_new_quota_keeps_what_was_used() -> None:
    meter = Meter(Quota(calls_per_s=1, calls_burst=10, daily_units_max=10))
    for _ in range(8):
        admit(meter)
    meter.change(Quota(calls_per_s=1, calls_burst=100, daily_units_max=9))
    assert [admit(meter).admitted for _ in range(2)] == [True, False]
    assert admit(meter).limit == "daily_units_max"
    assert (meter.admitted, meter.in_flight) == (9, 9)
    meter.change(Quota())
    assert admit(meter).admitted
    meter.change(Quota(calls_per_s=1, calls_burst=3))  # a limit that was not there begins with a full bucket
    assert [admit(meter).admitted for _ in range(4)] == [True, True, True, False]


def test_a_refused_quota_changes_nothing() -> None:
    meter = Meter(Quota(concurrent_calls_max=1))
    with pytest.raises(ValueError, match="call_s_max"):
        meter.change(Quota(concurrent_calls_max=5, call_s_max=-1))
    assert [admit(meter).admitted for _ in range(2)] == [True, False]


def test_a_budget_outlives_its_process() -> None:
    before = Meter(Quota(daily_units_max=10, monthly_units_max=100))
    admit(before, 7)
    after = Meter(Quota(daily_units_max=10, monthly_units_max=100))
    after.restore(*before.used(NOON), NOON)
    assert [admit(after).admitted for _ in range(4)] == [True, True, True, False]


def test_a_meter_at_rest_may_be_forgotten() -> None:
    meter = Meter(Quota(calls_per_s=1, calls_burst=2, bytes_per_s=10, bytes_burst=100))
    admission = Admission(meter)
    assert meter.at_rest(NOW_S, NOON)
    admission.admit(1, 50, NOW_S, NOON)
    assert not meter.at_rest(NOW_S + 100, NOON)  # in flight
    admission.release(100, NOW_S)
    assert not meter.at_rest(NOW_S + 14.9, NOON)  # its bytes
    assert meter.at_rest(NOW_S + 15, NOON)
    spender = Meter(Quota(monthly_units_max=10))
    Admission(spender).admit(1, 0, NOW_S, NOON)
    Admission(spender).release(0, NOW_S)
    assert not spender.at_rest(NOW_S + 100, NOON)
    assert spender.at_rest(NOW_S + 100, epoch(2026, 12, 1))


@pytest.mark.plain_build
def test_what_an_idle_tenant_weighs() -> None:
    assert Meter.__basicsize__ <= 250
    assert Admission.__basicsize__ <= 64


# ---------------------------------------------------------------- all levels, or none


def levels(*quotas: Quota) -> tuple[Admission, list[Meter]]:
    meters = [Meter(quota) for quota in quotas]
    return Admission(*meters), meters


@pytest.mark.parametrize("strict", range(3))
@pytest.mark.parametrize(
    ("limit", "quota"),
    [
        ("calls_per_s", Quota(calls_per_s=1)),
        ("concurrent_calls_max", Quota(concurrent_calls_max=1)),
        ("daily_units_max", Quota(daily_units_max=1)),
        ("monthly_units_max", Quota(monthly_units_max=1)),
        ("bytes_per_s", Quota(bytes_per_s=10)),
        ("request_bytes_max", Quota(request_bytes_max=10)),
    ],
)
def test_a_level_that_refuses_costs_the_others_nothing(strict: int, limit: str, quota: Quota) -> None:
    wide = Quota(
        calls_per_s=64, bytes_per_s=1024, concurrent_calls_max=64, daily_units_max=64, monthly_units_max=64
    )
    admission, meters = levels(*[quota if level == strict else wide for level in range(3)])
    request_bytes = 10 + (limit == "request_bytes_max")
    admission.admit(1, 10, NOW_S, NOON)
    refused = [admission.admit(1, request_bytes, NOW_S, NOON) for _ in range(100)]
    assert {(verdict.limit, verdict.level) for verdict in refused} == {(limit, LEVELS[strict])}
    for level, meter in enumerate(meters):
        assert (meter.admitted, meter.in_flight) == (1, 1)
        assert sum(meter.refused.values()) == meter.refused[limit] == (100 if level == strict else 0)
        if level != strict:
            alone = Admission(meter)
            assert sum(alone.admit(1, 10, NOW_S, NOON).admitted for _ in range(100)) == 63


def test_the_longest_wait_is_told() -> None:
    admission, (tenant, principal, tool) = levels(
        Quota(calls_per_s=1), Quota(daily_units_max=1), Quota(calls_per_s=0.5)
    )
    assert admission.admit(1, 0, NOW_S, NOON).admitted
    assert told(admission.admit(1, 0, NOW_S, NOON)) == ("daily_units_max", "principal", 12 * 3600)
    assert told(admission.admit(0, 0, NOW_S, NOON)) == ("calls_per_s", "tool", 2.0)
    assert [sum(meter.refused.values()) for meter in (tenant, principal, tool)] == [0, 1, 1]


def test_what_never_began_is_given_back() -> None:
    quota = Quota(
        calls_per_s=2, bytes_per_s=100, concurrent_calls_max=1, daily_units_max=10, monthly_units_max=10
    )
    admission, meters = levels(quota, quota, Quota())
    for _ in range(10):
        assert admission.admit(10, 100, NOW_S, NOON).admitted
        admission.undo(10, 100, NOON)
    for meter in meters:
        assert (meter.admitted, meter.in_flight, meter.used(NOON)) == (0, 0, (0.0, 0.0))
        assert meter.at_rest(NOW_S, NOON)


def test_yesterdays_units_are_not_given_back() -> None:
    admission, (meter,) = levels(Quota(daily_units_max=10))
    evening, morning = epoch(2026, 11, 29, 23, 59, 59), epoch(2026, 11, 30)
    admission.admit(5, 0, NOW_S, evening)
    admission.admit(5, 0, NOW_S, morning)
    admission.undo(5, 0, evening)
    assert meter.used(morning) == (5.0, 10.0)


def test_what_is_known_only_afterwards_is_charged() -> None:
    admission, (tenant, principal) = levels(Quota(daily_units_max=10), Quota())
    admission.charge(12, NOON)
    assert tenant.used(NOON) == (12.0, 12.0)
    assert principal.used(NOON) == (0.0, 0.0)
    assert admission.admit(1, 0, NOW_S, NOON).limit == "daily_units_max"


@pytest.mark.parametrize(
    "act",
    [
        lambda admission: admission.admit(-1, 0, NOW_S, NOON),
        lambda admission: admission.admit(0, -1, NOW_S, NOON),
        lambda admission: admission.release(-1, NOW_S),
        lambda admission: admission.charge(-1, NOON),
    ],
)
def test_nothing_is_earned(act: Callable[[Admission], Any]) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        act(Admission(Meter()))


def test_measuring_lets_calls_in_and_out() -> None:
    admission, (meter,) = levels(Quota(calls_per_s=1, calls_burst=7))
    assert admission.repeat(10, 1, 0, 0, NOW_S, NOON) == 7
    assert (meter.admitted, meter.in_flight, meter.refused["calls_per_s"]) == (7, 0, 3)


# ---------------------------------------------------------------- a plain model


@dataclass
class BucketModel:
    capacity: Fraction
    rate_per_s: Fraction
    level: Fraction = Fraction(0)
    stamp_s: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        self.level = self.capacity

    def at(self, now_s: Fraction) -> Fraction:
        return min(self.capacity, self.level + max(now_s - self.stamp_s, Fraction(0)) * self.rate_per_s)

    def wait_s(self, n: Fraction, now_s: Fraction) -> float:
        lack = n - self.at(now_s)
        if lack <= 0:
            return 0.0
        if n > self.capacity:
            return inf
        return float(lack / self.rate_per_s + max(self.stamp_s - now_s, Fraction(0)))

    def debit(self, n: Fraction, now_s: Fraction) -> None:
        self.level, self.stamp_s = self.at(now_s) - n, max(now_s, self.stamp_s)


class BudgetModel:
    """A new day is a new date; time only goes forward."""

    def __init__(self, daily: float, monthly: float) -> None:
        self.daily, self.monthly = daily or inf, monthly or inf
        self.day = self.month = 0.0
        self.date = datetime.fromtimestamp(0, UTC)

    def turn(self, epoch_s: float) -> datetime:
        date = datetime.fromtimestamp(epoch_s, UTC)
        if date.date() != self.date.date():
            self.day = 0.0
        if (date.year, date.month) != (self.date.year, self.date.month):
            self.month = 0.0
        self.date = date
        return date

    def waits_s(self, units: float, epoch_s: float) -> dict[str, float]:
        today = self.turn(epoch_s).replace(hour=0, minute=0, second=0, microsecond=0)
        next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        waits = {"monthly_units_max": 0.0, "daily_units_max": 0.0}
        if self.month + units > self.monthly:
            waits["monthly_units_max"] = inf if units > self.monthly else next_month.timestamp() - epoch_s
        if self.day + units > self.daily:
            tomorrow = today + timedelta(days=1)
            waits["daily_units_max"] = inf if units > self.daily else tomorrow.timestamp() - epoch_s
        return waits if units else dict.fromkeys(waits, 0.0)

    def debit(self, units: float, epoch_s: float) -> None:
        self.turn(epoch_s)
        self.day += units
        self.month += units


@dataclass
class LevelModel:
    quota: Quota
    in_flight: int = 0
    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        quota = self.quota
        self.calls, self.bytes = (
            BucketModel(Fraction(max(burst or rate, 1.0)), Fraction(rate)) if rate else None
            for rate, burst in (
                (quota.calls_per_s, quota.calls_burst),
                (quota.bytes_per_s, quota.bytes_burst),
            )
        )
        self.budget = BudgetModel(quota.daily_units_max, quota.monthly_units_max)

    def waits_s(self, cost: float, request_bytes: int, now_s: float, epoch_s: float) -> dict[str, float]:
        """By limit, in the order in which equal ones are told."""
        quota, now = self.quota, Fraction(now_s)
        full = quota.concurrent_calls_max and self.in_flight >= quota.concurrent_calls_max
        large = quota.request_bytes_max and request_bytes > quota.request_bytes_max
        return {
            "concurrent_calls_max": 1.0 if full else 0.0,
            "request_bytes_max": inf if large else 0.0,
            "calls_per_s": self.calls.wait_s(Fraction(1), now) if self.calls else 0.0,
            "bytes_per_s": self.bytes.wait_s(Fraction(request_bytes), now) if self.bytes else 0.0,
            **self.budget.waits_s(cost, epoch_s),
        }

    def take(self, cost: float, request_bytes: int, now_s: float, epoch_s: float) -> None:
        self.in_flight += 1
        self.admitted += 1
        self.budget.debit(cost, epoch_s)
        if self.calls:
            self.calls.debit(Fraction(1), Fraction(now_s))
        self.pay(request_bytes, now_s)

    def pay(self, count: int, now_s: float) -> None:
        if self.bytes:
            self.bytes.debit(Fraction(count), Fraction(now_s))


class AdmissionModel:
    def __init__(self, quotas: list[Quota]) -> None:
        self.levels = dict(zip(LEVELS, [LevelModel(quota) for quota in quotas], strict=False))

    def admit(self, cost: float, request_bytes: int, now_s: float, epoch_s: float) -> tuple[str, str, float]:
        waits = {
            (name, limit): wait_s
            for name, level in self.levels.items()
            for limit, wait_s in level.waits_s(cost, request_bytes, now_s, epoch_s).items()
        }
        name, limit = max(waits, key=lambda which: waits[which])
        if waits[name, limit]:
            self.levels[name].refused[limit] += 1
            return limit, name, waits[name, limit]
        for level in self.levels.values():
            level.take(cost, request_bytes, now_s, epoch_s)
        return "", "process", 0.0

    def release(self, response_bytes: int, now_s: float) -> None:
        for level in self.levels.values():
            level.in_flight -= 1
            level.pay(response_bytes, now_s)


QUOTAS = st.builds(
    Quota,
    calls_per_s=st.sampled_from([0.0, 0.0, 0.25, 1.0, 4.0]),
    calls_burst=st.sampled_from([0.0, 2.0, 5.0]),
    bytes_per_s=st.sampled_from([0.0, 0.0, 16.0, 64.0]),
    bytes_burst=st.sampled_from([0.0, 100.0]),
    concurrent_calls_max=st.sampled_from([0, 0, 1, 3]),
    request_bytes_max=st.sampled_from([0, 0, 50]),
    daily_units_max=st.sampled_from([0.0, 0.0, 5.0, 20.0]),
    monthly_units_max=st.sampled_from([0.0, 0.0, 30.0]),
)
STEPS = st.tuples(
    st.sampled_from([0.0, 0.0, 0.125, 0.25, 1.0, 4.0, 3600.0, DAY_S, -0.5]),
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from([0.0, 0.5, 1.0, 6.0]), st.integers(0, 120)),
        st.tuples(st.just("release"), st.just(0.0), st.integers(0, 200)),
    ),
)


@given(st.lists(QUOTAS, min_size=1, max_size=3), st.lists(STEPS, max_size=60))
def test_an_admission_is_its_model(
    quotas: list[Quota], steps: list[tuple[float, tuple[str, float, int]]]
) -> None:
    """Every verdict, wait, level and counter. And whoever waits as told is let in, where nobody else comes."""
    admission, meters = levels(*quotas)
    model = AdmissionModel(quotas)
    now_s, epoch_s = 4096.0, epoch(2026, 1, 30)
    for step_s, (act, cost, count) in steps:
        now_s += step_s
        epoch_s += max(step_s, 0.0)
        if act == "admit":
            verdict = admission.admit(cost, count, now_s, epoch_s)
            assert told(verdict) == model.admit(cost, count, now_s, epoch_s)
        elif meters[0].in_flight:
            admission.release(count, now_s)
            model.release(count, now_s)
        for meter, level in zip(meters, model.levels.values(), strict=True):
            assert (meter.in_flight, meter.admitted) == (level.in_flight, level.admitted)
            assert +Counter(meter.refused) == level.refused
            if level.quota.daily_units_max or level.quota.monthly_units_max:
                level.budget.turn(epoch_s)
                assert meter.used(epoch_s) == (level.budget.day, level.budget.month)
    verdict = admission.admit(1.0, 10, now_s, epoch_s)
    if 0.0 < verdict.retry_after_s < inf and verdict.limit != "concurrent_calls_max":
        for _ in range(meters[0].in_flight):
            admission.release(0, now_s)
        wait_s = verdict.retry_after_s
        assert admission.admit(1.0, 10, now_s + wait_s, epoch_s + wait_s).admitted


# ---------------------------------------------------------------- verdicts and the gate


def test_a_verdict_says_what_it_is() -> None:
    assert ADMITTED.admitted and repr(ADMITTED) == "Verdict()"
    verdict = Verdict("calls_per_s", "tool", 1.5)
    assert not verdict.admitted and repr(verdict) == "Verdict('calls_per_s', 'tool', 1.5)"
    with pytest.raises(ValueError, match="no limit 'calls'"):
        Verdict("calls", "tool")
    with pytest.raises(ValueError, match="'nobody'"):
        Verdict("calls_per_s", "nobody")


def test_limits_have_the_names_of_quotas() -> None:
    rates = {"calls_burst", "bytes_burst"}
    assert set(LIMITS) - {"", "waiting_calls_max", "deadline"} == set(Quota.__struct_fields__) - rates


def test_a_gate_at_its_edge() -> None:
    gate = Gate(2)
    assert [gate.acquire() for _ in range(3)] == [True, True, False]
    assert gate.running == gate.limit == 2
    assert not gate.release()
    assert gate.acquire()


def test_nobody_overtakes_those_who_wait() -> None:
    gate = Gate(1)
    assert gate.wait()
    assert not gate.wait()
    assert gate.waiting == 1
    assert gate.release()  # somebody is to be told
    assert not gate.acquire()
    assert gate.take()
    assert not gate.take()
    gate.waiting -= 1
    assert not gate.release()
    assert gate.acquire()


def test_a_gate_may_have_no_limit_and_get_one() -> None:
    gate = Gate()
    assert gate.limit == 0
    assert all(gate.acquire() for _ in range(1000))
    gate.limit = 10
    assert gate.limit == 10 and not gate.acquire()
    with pytest.raises(ValueError, match="limit"):
        gate.limit = -1
    with pytest.raises(ValueError, match="limit"):
        Gate(-1)


# ---------------------------------------------------------------- the meters of a tenant

NARROW = Quota(calls_per_s=1)


def test_an_idle_tenant_has_one_meter() -> None:
    meters = Meters(NARROW)
    admission = meters.admission("ann", "echo")
    assert (admission.tenant, admission.principal, admission.tool) == (meters.tenant, None, None)
    assert meters.admission("bob", "add") is admission


def test_meters_of_principals_and_tools_are_made_when_needed() -> None:
    meters = Meters(Quota(), NARROW, {"report": NARROW, "echo": Quota()})
    ann, bob = meters.admission("ann", "report"), meters.admission("bob", "report")
    assert ann.principal is not bob.principal
    assert ann.tool is bob.tool is meters.of_tool("report")
    assert meters.admission("ann", "echo") is meters.admission("ann", "add")
    assert meters.admission("ann", "echo").principal is ann.principal is meters.of_principal("ann")
    assert meters.admission("ann", "echo").tool is None
    assert meters.admission("", "echo").principal is not None  # nobody in particular is somebody, too


def test_other_quotas_hold_for_the_same_meters() -> None:
    meters = Meters(Quota(), NARROW, {"report": NARROW, "mail": NARROW})
    before = meters.admission("ann", "report")
    assert before.admit(1, 0, NOW_S, NOON).admitted
    meters.change(Quota(), Quota(calls_per_s=2), {"report": Quota(calls_per_s=2)})
    after = meters.admission("ann", "report")
    assert (after.principal, after.tool) == (before.principal, before.tool)
    assert told(after.admit(1, 0, NOW_S, NOON)) == ("calls_per_s", "principal", 0.5)
    assert meters.of_tool("mail") is None
    meters.change(NARROW, Quota())
    assert meters.of_principal("ann") is None
    assert meters.admission("ann", "report").admit(1, 0, NOW_S, NOON).admitted
    assert told(meters.admission("bob", "mail").admit(1, 0, NOW_S, NOON)) == ("calls_per_s", "tenant", 1.0)


@pytest.mark.parametrize("of_principals", [Quota(), NARROW])
def test_what_an_admission_says_of_one_call_changes_with_its_quotas(of_principals: Quota) -> None:
    meters = Meters(Quota(response_bytes_max=7), of_principals)
    assert meters.admission("ann", "echo").response_bytes_max == 7
    meters.change(Quota(response_bytes_max=5), of_principals)
    assert meters.admission("ann", "echo").response_bytes_max == 5


def test_principals_at_rest_are_forgotten() -> None:
    meters = Meters(Quota(), NARROW)
    for name in ("ann", "bob"):
        assert meters.admission(name, "").admit(1, 0, NOW_S, NOON).admitted
    meters.admission("ann", "").release(0, NOW_S)
    assert meters.sweep(NOW_S, NOON) == 0
    ann, bob = meters.of_principal("ann"), meters.of_principal("bob")
    assert meters.sweep(NOW_S + 1, NOON) == 1
    assert meters.of_principal("bob") is bob
    assert meters.admission("ann", "").principal is not ann
