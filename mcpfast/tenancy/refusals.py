"""Refusals in words: what a Verdict of `_quota` or `fairness` says to a client, as a JSON-RPC error and as an HTTP answer.

They tell callers which kind of limit of their own they met: not its number, and nothing of other tenants, nor that there are any.
"""

from __future__ import annotations

from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcpfast.errors import OVERLOADED, QUOTA_EXCEEDED, MCPError

if TYPE_CHECKING:
    from mcpfast._quota import Verdict

STATUS: Final = {QUOTA_EXCEEDED: 429, OVERLOADED: 503}  # RFC 6585, RFC 9110

OF_THE_PROCESS: Final = ("queued_calls_max", "waiting_calls_max", "deadline")

WHO = {"tenant": "your account", "principal": "you", "tool": "this tool", "process": "the server"}
SAID = {
    "calls_per_s": "Too many calls in a short time for {who}",
    "bytes_per_s": "Too much data in a short time for {who}",
    "daily_units_max": "Today's budget for {who} is used up",
    "monthly_units_max": "This month's budget for {who} is used up",
    "concurrent_calls_max": "Too many calls at the same time for {who}",
    "request_bytes_max": "The request is too large for {who}",
    "response_bytes_max": "The response is too large for {who}",
    "call_s_max": "The call took longer than is allowed for {who}",
    "queued_calls_max": "The server is busy",
    "waiting_calls_max": "The server is busy",
    "deadline": "The server was busy until the deadline of this call",
}
SAID_FOR_GOOD = {  # otherwise, where it will be refused whenever it comes
    "bytes_per_s": "The request is too large for {who}",
    "daily_units_max": "This call costs more than the whole budget of a day for {who}",
    "monthly_units_max": "This call costs more than the whole budget of a month for {who}",
}


class Refusal(NamedTuple):
    """An answer to a call that may not begin (or go on).

    `code`, `message` and `data` are those of the JSON-RPC error. `data` says `limit` and `level`, as the Verdict does, and
    `retryAfterMs`, rounded up, unless trying again is of no use. Over HTTP: `status`, and `retry_after_s` for the header
    Retry-After, whole seconds rounded up, or None for none.
    """

    code: int
    message: str
    data: dict[str, Any]
    status: int
    retry_after_s: int | None

    def error(self) -> MCPError:
        """What to raise for it."""
        return MCPError(self.code, self.message, self.data)


def refusal(verdict: Verdict) -> Refusal:
    """The words for a Verdict. ValueError for one that refuses nothing."""
    if verdict.admitted:
        raise ValueError("an admitted call has no refusal")
    code = OVERLOADED if verdict.limit in OF_THE_PROCESS else QUOTA_EXCEEDED
    who = WHO[verdict.level]
    data: dict[str, Any] = {"limit": verdict.limit, "level": verdict.level}
    if not isfinite(verdict.retry_after_s):
        said = SAID_FOR_GOOD.get(verdict.limit, SAID[verdict.limit])
        return Refusal(code, said.format(who=who), data, STATUS[code], None)
    data["retryAfterMs"] = max(ceil(verdict.retry_after_s * 1000), 1)
    seconds = max(ceil(verdict.retry_after_s), 1)
    message = f"{SAID[verdict.limit].format(who=who)}; try again in {duration(seconds)}"
    return Refusal(code, message, data, STATUS[code], seconds)


def duration(seconds: int) -> str:
    """`seconds`, at least 1, as a person says it: one unit, rounded up."""
    if seconds == 1:
        return "1 second"
    for unit, length, until in (("seconds", 1, 90), ("minutes", 60, 90), ("hours", 3_600, 36)):
        if ceil(seconds / length) <= until:
            return f"{ceil(seconds / length)} {unit}"
    return f"{ceil(seconds / 86_400)} days"
