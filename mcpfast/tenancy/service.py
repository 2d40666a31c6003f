"""The tenants of one server: what it is given (`Tenancy`), and what serves on one loop (`Callers`).

    evidence  --chain-->  Identity  --registry, views-->  Caller  --meters-->  Pass  --admission, gate-->  the call begins

A Caller and its passes are remembered for as long as nothing changes; then the engine's generation rises, and all of them are
found again, which costs microseconds for who calls and nothing for who does not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf
from typing import Protocol

from mcpfast._caller import Caller, Pass
from mcpfast._quota import Gate, Verdict
from mcpfast.limits import Limits
from mcpfast.tenancy.api_keys import ApiKeys
from mcpfast.tenancy.audit import Actor, AuditLog
from mcpfast.tenancy.denied import NOT_YOURS, Denied, Forbidden, InsufficientScope, InvalidToken
from mcpfast.tenancy.fairness import FairGate
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.local import Environment, MutualTls, PeerUsers
from mcpfast.tenancy.meters import Meters
from mcpfast.tenancy.registry import Changes, Registry
from mcpfast.tenancy.resolvers import Chain, Evidence, Identity, Resolver
from mcpfast.tenancy.stores import Store, open_store
from mcpfast.tenancy.tenant import Tenant
from mcpfast.tenancy.views import Decision, Requirement, Views

CALLERS_MAX = 10_000  # remembered; who was not heard of for longest is found again when he calls
SWEEP_S = 60.0  # meters of principals that say nothing any more are forgotten so often
DENIALS_PER_S = 20.0  # written to the audit log; above it they are counted, and the count is written
log = logging.getLogger("mcpfast.tenancy")


class Tenancy:
    """Tenants for a server: `MCPServer("shop", tenancy=Tenancy("tenants.toml", issuers=[Issuer(...)]))`.

    `registry` is a file of TOML, `sqlite:///PATH`, or a store of yours. Credentials are read in this order: `resolvers` of
    yours, JWTs of `issuers`, API keys of the registry, and over stdio the tenant that `tenant` (or `--tenant`) names, with
    `scopes`: whoever starts the process is trusted with it. `scopes_asked` are the few that a client without a token is told to
    ask for at first (RFC 9728).
    `audit` is the file of the audit log; empty: none is written here.
    """

    def __init__(
        self,
        registry: str | Store,
        *,
        issuers: Iterable[Issuer] = (),
        resolvers: Iterable[Resolver] = (),
        tenant: str = "",
        scopes: Collection[str] = (),
        scopes_asked: Collection[str] = (),
        look_s: float = 1.0,
        drain_s: float = 5.0,
        audit: str = "",
    ) -> None:
        self.registry = registry if isinstance(registry, str) else type(registry).__name__
        self.store = open_store(registry) if isinstance(registry, str) else registry
        self.issuers = tuple(issuers)
        self.resolvers = tuple(resolvers)
        self.tenant = tenant
        self.scopes = frozenset(scopes)
        self.scopes_asked = frozenset(scopes_asked)
        self.look_s = look_s
        self.drain_s = drain_s
        self.audit = audit

    def chain(self, registry: Registry, now: Callable[[], float]) -> Chain:
        """The resolvers in their order, over a registry that is read already."""
        resolvers = [*self.resolvers]
        if self.issuers:
            from mcpfast.tenancy.jwt import JwtBearer

            resolvers.append(JwtBearer(self.issuers, registry, now=now))
        return Chain([*resolvers, ApiKeys(registry, now=now), Environment(scopes=self.scopes)], registry)


class Served(Protocol):
    """What the host does for the tenants that it serves."""

    def cancel_of(self, tenant: Tenant) -> None:
        """Cancels every call of a tenant."""

    def callers_changed(self) -> None:
        """What was found out about callers is to be found out again."""


class Measures(Protocol):
    """The part of the compiled Engine that tenancy sets."""

    gate: Gate | None
    generation: int
    epoch_ahead_s: float
    now_s: float


class _CallsOfTenant:
    """`Tenant.calls`: its meter counts them, the host can end them."""

    __slots__ = ("_served", "_tenant")

    def __init__(self, tenant: Tenant, served: Served) -> None:
        self._tenant = tenant
        self._served = served

    @property
    def in_flight(self) -> int:
        meters: Meters = self._tenant.meter
        return meters.tenant.in_flight

    def cancel(self) -> None:
        self._served.cancel_of(self._tenant)


class Callers:
    """What one host asks of its tenants. Belongs to one loop; `open` before the first request, `close` after the last."""

    def __init__(
        self,
        tenancy: Tenancy,
        engine: Measures,
        served: Served,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.tenancy = tenancy
        self.registry = Registry(tenancy.store, clock=clock, drain_s=tenancy.drain_s)
        self.views = Views()
        self.fair: FairGate | None = None
        self._chain = tenancy.chain(self.registry, now)
        # A resolver of somebody's own may want to be in a Task from its first step on: `asyncio.timeout` and anyio do.
        self.needs_task = any(not isinstance(one, (MutualTls, PeerUsers)) for one in tenancy.resolvers)
        self._engine = engine
        self._served = served
        self._clock, self._now = clock, now
        self._known: OrderedDict[Identity, Caller] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []
        self._audit = AuditLog(tenancy.audit, clock=now) if tenancy.audit else None
        self._denials_from_s, self._denials = 0.0, 0
        if limits.running_calls_max:
            engine.gate = Gate(limits.running_calls_max)
            self.fair = FairGate(engine.gate, limits.waiting_calls_max, clock)

    async def open(self) -> None:
        """Reads the registry. Raises ConfigurationError: nobody is served from one that cannot be read."""
        self._engine.epoch_ahead_s = self._now() - self._clock()
        if self._audit is not None:
            self._audit.open()
        await self.registry.reload()
        self.registry.subscribe(self._registry_changed)
        self._tasks = [
            asyncio.create_task(self.registry.watch(self.tenancy.look_s), name="mcpfast-registry"),
            asyncio.create_task(self._sweep(), name="mcpfast-meters"),
        ]

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._audit is not None:
            self._audit.close()
        self.tenancy.store.close()

    def hand_over(self) -> None:
        """The engine's: a place is free, and somebody waits."""
        if self.fair is not None:
            self.fair.hand_over()

    # ---- who -----------------------------------------------------------------------------------------------

    async def find(self, evidence: Evidence) -> Caller:
        """Whose request it is. Raises Denied, which the audit log has then, too."""
        try:
            return self._caller(await self._chain.resolve(evidence))
        except Denied as denied:
            self._write_denial(evidence, denied)
            raise

    def _caller(self, identity: Identity) -> Caller:
        known = self._known.get(identity)
        if known is not None and known.is_good(self._engine.generation, self._clock()):
            self._known.move_to_end(identity)
            return known
        tenant = self.registry.tenant(identity.tenant_id)
        if tenant is None or tenant.state != "active":  # since it was asked for
            raise Forbidden(NOT_YOURS)
        principal, terms = identity.principal, tenant.terms
        view = self.views.of(tenant.kind, terms.allow, terms.deny, terms.scopes, principal.scopes)
        left_s = principal.expires_s - self._now() if principal.expires_s else inf
        if left_s <= 0:  # of a resolver that does not look
            raise InvalidToken("These credentials have expired")
        key = (tenant.id, principal.id)
        made = Caller(tenant, principal, view, key, self._engine.generation, self._clock() + left_s)
        self._known[identity] = made
        self._known.move_to_end(identity)
        if len(self._known) > CALLERS_MAX:
            self._known.popitem(last=False)
        return made

    def is_served(self, tenant: Tenant) -> bool:
        """Whether a tenant is the one of its id, and active."""
        return tenant.state == "active" and self.registry.tenant(tenant.id) is tenant

    # ---- what ----------------------------------------------------------------------------------------------

    def catalog_changed(self, requirements: Iterable[Requirement]) -> None:
        """Tells what is asked for by all that is on offer; decisions that were made before hold no more."""
        asked: set[str] = set()
        for requirement in requirements:
            asked |= requirement.scopes
        self.views.catalog_changed(asked)
        self._forget()

    @staticmethod
    def is_visible(decision: Decision) -> bool:
        """False: as if it were not there. Raises InsufficientScope where a token with more scopes would help."""
        if decision.verdict == "step-up":
            raise InsufficientScope(decision.missing)
        return decision.verdict == "visible"

    # ---- how much ------------------------------------------------------------------------------------------

    def granted(self, caller: Caller, what: object, name: str, cost: float) -> Pass:
        """The Pass for `what`, an Entry or a method, that the caller may use: made when first asked for. `name` is the
        tool's, where it has limits of its own."""
        known = caller.granted(what)
        if known is None:
            meters = self._meters(caller.tenant)
            known = Pass(meters.admission(caller.principal.id, name), cost)
            caller.allow(what, known)
        return known

    def enter(self, granted: Pass, request_bytes: int) -> Verdict:
        """ADMITTED, and the call is to be given back; or why it may not begin."""
        now_s = self._engine.now_s = self._clock()
        epoch_s = now_s + self._engine.epoch_ahead_s
        return granted.admission.admit(granted.cost, request_bytes, now_s, epoch_s)

    def _meters(self, tenant: Tenant) -> Meters:
        meters: Meters | None = tenant.meter
        terms = tenant.terms
        if meters is None:
            meters = tenant.meter = Meters(terms.quota, terms.principal_quota, terms.tool_quotas)
            meters.terms = terms
            tenant.calls = _CallsOfTenant(tenant, self._served)
        elif meters.terms is not terms:
            meters.change(terms.quota, terms.principal_quota, terms.tool_quotas)
            meters.terms = terms
        return meters

    # ---- changes -------------------------------------------------------------------------------------------

    def _registry_changed(self, changes: Changes) -> None:
        self._forget()

    def _forget(self) -> None:
        self._engine.generation += 1
        self._known.clear()
        self._served.callers_changed()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._engine.epoch_ahead_s = self._now() - self._clock()  # clocks are set now and then
            for number, tenant in enumerate(list(self._metered())):
                if tenant.meter.sweep(self._clock(), self._now()):
                    self._forget()  # passes hold admissions of meters that are gone
                if number % 100 == 99:
                    await asyncio.sleep(0)

    def _metered(self) -> Iterator[Tenant]:
        return (tenant for tenant in self.registry.tenants() if tenant.meter is not None)

    # ---- what is written down ------------------------------------------------------------------------------

    def _write_denial(self, evidence: Evidence, denied: Denied) -> None:
        """A few a second: who floods us with bad calls is told of by a count."""
        if self._audit is None:
            return
        now_s = self._clock()
        if now_s - self._denials_from_s >= 1.0:
            if self._denials > DENIALS_PER_S:
                more = self._denials - DENIALS_PER_S
                self._audit.denied(
                    Actor("", evidence.transport), "call", "", f"and {more:.0f} more in a second"
                )
            self._denials_from_s, self._denials = now_s, 0
        self._denials += 1
        if self._denials <= DENIALS_PER_S:
            target = evidence.path_tenant or evidence.host_tenant or evidence.option_tenant
            self._audit.denied(Actor("", evidence.transport), "call", target, denied.message)
