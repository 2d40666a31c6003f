"""Refusals in words: every limit at every level has some, they say when to come back, and they tell of nobody else."""

from __future__ import annotations

import re
from math import inf

import msgspec
import pytest

from mcpfast import errors
from mcpfast._quota import ADMITTED, LEVELS, LIMITS, Admission, Meter, Verdict
from mcpfast.tenancy.identity import Quota
from mcpfast.tenancy.refusals import Refusal, duration, refusal


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (
            Verdict("calls_per_s", "tenant", 0.2501),
            Refusal(
                4291,
                "Too many calls in a short time for your account; try again in 1 second",
                {"limit": "calls_per_s", "level": "tenant", "retryAfterMs": 251},
                429,
                1,
            ),
        ),
        (
            Verdict("daily_units_max", "principal", 12_000.0),
            Refusal(
                4291,
                "Today's budget for you is used up; try again in 4 hours",
                {"limit": "daily_units_max", "level": "principal", "retryAfterMs": 12_000_000},
                429,
                12_000,
            ),
        ),
        (
            Verdict("daily_units_max", "tool", inf),
            Refusal(
                4291,
                "This call costs more than the whole budget of a day for this tool",
                {"limit": "daily_units_max", "level": "tool"},
                429,
                None,
            ),
        ),
        (
            Verdict("request_bytes_max", "tool", inf),
            Refusal(
                4291,
                "The request is too large for this tool",
                {"limit": "request_bytes_max", "level": "tool"},
                429,
                None,
            ),
        ),
        (
            Verdict("waiting_calls_max", "process", 1.0001),
            Refusal(
                5030,
                "The server is busy; try again in 2 seconds",
                {"limit": "waiting_calls_max", "level": "process", "retryAfterMs": 1001},
                503,
                2,
            ),
        ),
        (
            Verdict("queued_calls_max", "tenant", 1e-9),
            Refusal(
                5030,
                "The server is busy; try again in 1 second",
                {"limit": "queued_calls_max", "level": "tenant", "retryAfterMs": 1},
                503,
                1,
            ),
        ),
    ],
)
def test_what_is_said(verdict: Verdict, said: Refusal) -> None:
    assert refusal(verdict) == said


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", LIMITS[1:])
@pytest.mark.parametrize("retry_after_s", [0.0, 0.3, 5.0, inf])
def test_every_verdict_has_words(limit: str, level: str, retry_after_s: float) -> None:
    said = refusal(Verdict(limit, level, retry_after_s))
    sentence, *when = said.message.split("; try again in ")
    assert re.fullmatch(r"[A-Z][a-z' ]+", sentence)  # no numbers, no names
    assert (len(when) == 1) == (retry_after_s < inf) == ("retryAfterMs" in said.data)
    assert (said.code, said.status) in ((errors.QUOTA_EXCEEDED, 429), (errors.OVERLOADED, 503))
    assert (said.retry_after_s is None) == (retry_after_s == inf)
    assert msgspec.json.decode(msgspec.json.encode(said.data)) == said.data  # infinity is no JSON


def test_codes_are_outside_of_what_json_rpc_reserves() -> None:
    for code in (errors.TOO_MANY_CALLS, errors.QUOTA_EXCEEDED, errors.OVERLOADED):
        assert not -32768 <= code <= -32000


def test_a_refusal_is_raised_as_an_error() -> None:
    error = refusal(Verdict("calls_per_s", "tool", 2.0)).error()
    assert isinstance(error, errors.MCPError)
    assert (error.code, error.data["retryAfterMs"]) == (4291, 2000)
    assert error.message.endswith("try again in 2 seconds")


def test_an_admitted_call_has_no_refusal() -> None:
    with pytest.raises(ValueError, match="admitted"):
        refusal(ADMITTED)


def test_who_waits_as_told_in_milliseconds_is_let_in() -> None:
    admission = Admission(Meter(Quota(calls_per_s=3)))
    for _ in range(3):
        admission.admit(1, 0, 1e6, 0)
    said = refusal(admission.admit(1, 0, 1e6, 0))
    assert said.data["retryAfterMs"] == 334
    assert admission.admit(1, 0, 1e6 + 0.334, 0).admitted


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 second"),
        (2, "2 seconds"),
        (90, "90 seconds"),
        (91, "2 minutes"),
        (120, "2 minutes"),
        (121, "3 minutes"),
        (5_400, "90 minutes"),
        (5_401, "2 hours"),
        (129_600, "36 hours"),
        (129_601, "2 days"),
        (2_592_000, "30 days"),
    ],
)
def test_time_as_a_person_says_it(seconds: int, said: str) -> None:
    assert duration(seconds) == said
