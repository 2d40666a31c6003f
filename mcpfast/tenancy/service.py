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
from mcpfast.errors import RegistrationError
from mcpfast.limits import Limits
from mcpfast.tenancy.administration import Administration
from mcpfast.tenancy.api_keys import ApiKeys
from mcpfast.tenancy.audit import Actor, AuditLog, DenialOf, Denials, audit_log_of
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.denied import NOT_YOURS, Denied, Forbidden, InvalidToken, Unavailable
from mcpfast.tenancy.fairness import FairGate
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.local import Environment, MutualTls, PeerUsers
from mcpfast.tenancy.meters import Meters
from mcpfast.tenancy.registry import Changes, Registry
from mcpfast.tenancy.resolvers import Chain, Evidence, Identity, Resolver
from mcpfast.tenancy.stores import Store, open_store
from mcpfast.tenancy.tenant import Tenant
from mcpfast.tenancy.views import Requirement, Views

CALLERS_MAX = (
    65_536  # remembered, for a minute; who was not heard of for longest is found again when he calls
)
TOO_LATE = "It could not be found out in time who is asking"
SWEEP_S = 60.0  # meters of principals that say nothing any more are forgotten so often, and what was found out about callers
SWEEP_SLICE = 100  # tenants whose meters are looked at without a pause
RELOADED_IDS_MAX = 100  # of each sort, named in the record of a reload
log = logging.getLogger("mcpfast.tenancy")


class Tenancy:
    """Tenants for a server: `MCPServer("shop", tenancy=Tenancy("tenants.toml", issuers=[Issuer(...)]))`.

    `registry` is a file of TOML, `sqlite:///PATH`, or a store of yours. Credentials are read in this order: `resolvers` of
    yours, JWTs of `issuers`, API keys of the registry, and over stdio the tenant that `tenant` (or `--tenant`) names, with
    `scopes`: whoever starts the process is trusted with it. `scopes_asked` are the few that a client without a token is told to
    ask for at first (RFC 9728).
    `audit` is the file of the audit log; empty: none is written here. `admin` serves the admin API under /admin of every HTTP
    address, to whoever has the scope "mcpfast:admin"; its audit log is beside the registry where `audit` says nothing else.
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
        admin: bool = False,
    ) -> None:
        self.registry = registry if isinstance(registry, str) else type(registry).__name__
        if admin and not audit:
            if not isinstance(registry, str):
                raise RegistrationError(
                    "Tenancy(admin=True) over a store of yours needs audit=FILE: every change leaves a record there"
                )
            audit = audit_log_of(registry)
        self.store = open_store(registry) if isinstance(registry, str) else registry
        self.issuers = tuple(issuers)
        self.resolvers = tuple(resolvers)
        for one in self.resolvers:
            if isinstance(one, type):
                raise RegistrationError(f"resolvers are objects: {one.__name__}(...), not the class")
        self.tenant = tenant
        self.scopes = frozenset(scopes)
        self.scopes_asked = frozenset(scopes_asked)
        self.look_s = look_s
        self.drain_s = drain_s
        self.audit = audit
        self.admin = admin

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
        self._identify_s = limits.identify_s
        self._chain = tenancy.chain(self.registry, now)
        # A resolver of somebody's own may want to be in a Task from its first step on: `asyncio.timeout` and anyio do.
        self.needs_task = any(not isinstance(one, (MutualTls, PeerUsers)) for one in tenancy.resolvers)
        self._engine = engine
        self._served = served
        self._clock, self._now = clock, now
        self._known: OrderedDict[Identity, Caller] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []
        self._audit: AuditLog | None = None
        self._denials: Denials | None = None
        self.administration: Administration | None = None  # where the admin API is served
        if tenancy.audit:
            self._audit = AuditLog(tenancy.audit, clock=now)
            self._denials = Denials(self._audit, clock=clock, later=_later)
            self.registry.reloaded = self._write_reload
            if tenancy.admin:
                self.administration = Administration(
                    self.registry, self._audit, refresh=self.registry.look, now=now
                )
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
        if self.administration is not None:
            await self.administration.close()
        if self._denials is not None:
            self._denials.close()
        if self._audit is not None:
            self._audit.close()
        self.tenancy.store.close()

    def hand_over(self) -> None:
        """The engine's: a place is free, and somebody waits."""
        if self.fair is not None:
            self.fair.hand_over()

    # ---- who -----------------------------------------------------------------------------------------------

    async def find(self, evidence: Evidence, *, via: str = "") -> Caller:
        """Whose request it is. Raises Denied, which the audit log has then, too, with the transport or `via` as the way in."""
        try:
            return self._caller(await self._chain.resolve(evidence))
        except Denied as denied:
            target = evidence.path_tenant or evidence.host_tenant or evidence.option_tenant
            self._write_denial(
                "identity", Actor("", via or evidence.transport), "call", target, denied.message
            )
            raise

    async def find_in_time(self, evidence: Evidence, *, via: str = "") -> Caller:
        """The same, within `limits.identify_s`: raises Unavailable after that. To be awaited by a Task."""
        try:
            async with asyncio.timeout(self._identify_s):
                return await self.find(evidence, via=via)
        except TimeoutError:
            raise Unavailable(TOO_LATE, retry_after_s=1.0) from None

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
        key = (tenant.id, principal.id, tenant.record.token_generation)
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
            self._forget()  # who sends the same head for ever is asked about again: keys are withdrawn, and badges
            self._engine.epoch_ahead_s = self._now() - self._clock()  # clocks are set now and then
            metered = list(self._metered())
            for at in range(0, len(metered), SWEEP_SLICE):
                now_s, epoch_s = self._clock(), self._now()
                if sum(one.meter.sweep(now_s, epoch_s) for one in metered[at : at + SWEEP_SLICE]):
                    self._forget()  # passes hold admissions of meters that are gone
                await asyncio.sleep(0)

    def _metered(self) -> Iterator[Tenant]:
        return (tenant for tenant in self.registry.tenants() if tenant.meter is not None)

    # ---- what is written down ------------------------------------------------------------------------------

    def denied(
        self, of: DenialOf, caller: Caller | None, via: str, action: str, target: str, reason: str
    ) -> None:
        """Writes down that a caller was refused. Cheap: a few a second are written, the others counted."""
        tenant, principal = ("", "") if caller is None else caller.key[:2]
        self._write_denial(of, Actor(principal, via, tenant), action, target, reason)

    def _write_denial(self, of: DenialOf, actor: Actor, action: str, target: str, reason: str) -> None:
        if self._denials is not None:
            self._denials.write(of, actor, action, target, reason)

    async def _write_reload(self, changes: Changes) -> None:
        """What somebody else changed in the store, as this process saw it."""
        assert self._audit is not None
        ours = frozenset[str]() if self.administration is None else self.administration.changing
        told: dict[str, object] = {}
        for name, ids in changes._asdict().items():
            others = [id for id in ids if id not in ours]
            if others:
                told |= {name: len(others), f"{name}_ids": others[:RELOADED_IDS_MAX]}
        if not told:
            return
        actor = Actor("", "reload")
        try:
            await asyncio.to_thread(self._audit.changed, actor, "registry.reload", "", None, told)
        except ConfigurationError as error:
            log.error("a reload is not written down: %s", error)


def _later(delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, then)
