"""A tenant that lives in this process: what the registry says of it now, and what it is doing.

                 drain, suspend                  nothing in flight, or the deadline
    active  ------------------------>  draining  ---------------------------------->  suspended | removed
       ^                                  |                                               |
       +----------- resume ---------------+---------------- resume (suspended only) ------+

A tenant that drains takes nothing new; what is in flight may end, and is cancelled at the deadline. Nobody watches its calls
end: `step(now_s)` looks, called now and then while it drains, so a call costs nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import cache
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from mcpfast.tenancy.identity import Kind, Plan, Quota, TenantRecord
from mcpfast.tenancy.namespace import Namespace

T = TypeVar("T")
Life = Literal["active", "draining", "suspended", "removed"]


class Terms(msgspec.Struct, frozen=True, gc=False):
    """A plan with the tenant's own words over it. Shared by all tenants for which they are the same."""

    scopes: frozenset[str]
    quota: Quota
    principal_quota: Quota
    tool_quotas: dict[str, Quota]
    weight: float
    allow: tuple[str, ...]
    deny: tuple[str, ...]


class Calls(Protocol):
    """The calls of a tenant that are in flight, as whoever admits them keeps them."""

    @property
    def in_flight(self) -> int: ...

    def cancel(self) -> None:
        """Cancels all of them; they may take a while to end."""


class Tenant:
    """What a request holds a reference to. One object for as long as the tenant is known here, whatever reloads change.

    `meter` and `calls` belong to who counts and who admits: both are None until the tenant's first call.
    """

    __slots__ = ("_deadline_s", "_tasks", "_then", "calls", "meter", "record", "state", "terms")

    def __init__(self, record: TenantRecord, terms: Terms) -> None:
        self.record = record
        self.terms = terms
        self.state: Life = "active"
        self.meter: Any = None
        self.calls: Calls | None = None
        self._tasks: set[asyncio.Task[Any]] | None = None
        self._then: Literal["suspended", "removed"] = "suspended"
        self._deadline_s = 0.0
        if record.state != "active":
            self.state = "suspended"  # nothing of it was ever in flight here

    def __repr__(self) -> str:
        return f"Tenant({self.id!r}, {self.state})"

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def kind(self) -> Kind:
        return self.record.kind

    @property
    def name(self) -> str:
        return self.record.name or self.record.id

    @property
    def label(self) -> str:
        """What telemetry calls it: its id, never what persons wrote."""
        return self.record.id

    @property
    def namespace(self) -> Namespace:
        return Namespace(self.record.id)

    @property
    def in_flight(self) -> int:
        """Calls, and tasks that `create_task` began."""
        return len(self._tasks or ()) + (0 if self.calls is None else self.calls.in_flight)

    def create_task(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Begins work of this tenant that outlives the call: a drain waits for it, and cancels it at its deadline. Raises
        RuntimeError when the tenant takes nothing new."""
        if self.state != "active":
            work.close()
            raise RuntimeError(f"the tenant {self.id} is {self.state} and takes no new work")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks = self._tasks or set()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Ends what is in flight; it may take a while to end."""
        if self.calls is not None:
            self.calls.cancel()
        for task in list(self._tasks or ()):
            task.cancel()

    def apply(self, record: TenantRecord, terms: Terms, now_s: float, drain_s: float) -> None:
        """What the registry says from now on; a record that is no longer active begins a drain of `drain_s`."""
        self.record, self.terms = record, terms
        if record.state == "active":
            self.resume()
        else:
            self.drain(now_s, drain_s, "suspended")

    def drain(self, now_s: float, drain_s: float, then: Literal["suspended", "removed"]) -> None:
        """Takes nothing new from now on. Again: the earlier deadline holds, and removed is stronger than suspended."""
        if then == "removed":
            self._then = then
            if self.state == "suspended":
                self.state = then
        if self.state == "active":
            self.state, self._then, self._deadline_s = "draining", then, now_s + drain_s
        elif self.state == "draining":
            self._deadline_s = min(self._deadline_s, now_s + drain_s)
        self.step(now_s)

    def resume(self) -> None:
        """Active again, unless it was removed: who comes back under the same id is a new Tenant."""
        if self.state == "suspended" or (self.state == "draining" and self._then == "suspended"):
            self.state = "active"

    def step(self, now_s: float) -> Life:
        """Ends the drain when nothing is in flight; at the deadline cancels what is, and ends it all the same."""
        if self.state == "draining":
            late = now_s >= self._deadline_s
            if late and self.in_flight:
                self.cancel()
            if late or not self.in_flight:
                self.state = self._then
        return self.state


class SharedTerms:
    """Makes the terms of records, one object for all tenants that have nothing but their plan's."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans
        self._plain: dict[str, Terms] = {}

    def of(self, record: TenantRecord) -> Terms:
        """What holds for a tenant: its own words where it has some, else its plan's. Raises KeyError for an unknown plan."""
        own = [getattr(record, name) for name in Terms.__struct_fields__]
        if all(said is None for said in own):
            terms = self._plain.get(record.plan)
            if terms is None:
                terms = self._plain[record.plan] = Terms(*self._words(record.plan))
            return terms
        pairs = zip(own, self._words(record.plan), strict=True)
        return Terms(*[of_plan if said is None else said for said, of_plan in pairs])

    def _words(self, plan: str) -> list[Any]:
        words = self._plans[plan] if plan else Plan()
        return [getattr(words, name) for name in Terms.__struct_fields__]


@cache
def the_only() -> Tenant:
    """Whose every request is, where no tenants are served."""
    record = TenantRecord("default")
    return Tenant(record, SharedTerms({}).of(record))
