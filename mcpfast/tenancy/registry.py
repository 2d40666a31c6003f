"""The tenants of a process: found by id at once, and kept as a store has them while serving goes on.

A reload is prepared beside what holds, in slices of about a millisecond, and then takes its place in one step. It takes it whole or
not at all: what cannot be read, what is older than what holds, and what was read before a change that was made meanwhile never
wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.identity import Plan, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.stores import Content, Store, check_record
from mcpfast.tenancy.tenant import SharedTerms, Tenant, Terms

SLICE_RECORDS = 100  # compared without a pause: half a millisecond
DRAIN_LOOK_S = 0.05
log = logging.getLogger("mcpfast.tenancy")


class Changes(NamedTuple):
    """What a reload or a change brought, as ids. `changed` has the tenants whose plan changed, too; `keys` has all that are
    new, gone or other than before."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class _Change(NamedTuple):
    """`before` is kept so long that a commit has nothing to free."""

    tenant: Tenant
    before: TenantRecord
    record: TenantRecord
    terms: Terms


class _Prepared(NamedTuple):
    """What a reload will make hold."""

    tenants: dict[str, Tenant]
    changed: list[_Change]
    changes: Changes


class Registry:
    """The tenants of one store. `clock` gives seconds that never go back; `drain_s` is what calls of a removed or suspended
    tenant are given to end. Belongs to one event loop."""

    def __init__(self, store: Store, *, clock: Callable[[], float], drain_s: float = 5.0) -> None:
        self.store = store
        self.generation = 0  # rises with every change
        self.problem = ""  # why the last reload was refused
        self.reloaded: Callable[[Changes], Awaitable[None]] | None = (
            None  # told what a reload but the first brought
        )
        self._clock = clock
        self._drain_s = drain_s
        self._tenants: dict[str, Tenant] = {}
        self._plans: Mapping[str, Plan] = {}
        self._keys: Mapping[str, KeyRecord] = {}
        self._version = 0
        self._draining: set[Tenant] = set()
        self._reloading = asyncio.Lock()
        self._subscribers: list[Callable[[Changes], None]] = []

    def __len__(self) -> int:
        return len(self._tenants)

    def find(self, tenant_id: str) -> TenantRecord | None:
        """What is known of the tenant of this id; None for one that is unknown or was removed."""
        tenant = self._tenants.get(tenant_id)
        return None if tenant is None else tenant.record

    def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant itself, in whatever state; None as `find` says it."""
        return self._tenants.get(tenant_id)

    def find_key(self, id: str) -> KeyRecord | None:
        return self._keys.get(id)

    def tenants(self) -> Iterable[Tenant]:
        return self._tenants.values()

    def known_keys(self) -> Iterable[KeyRecord]:
        return self._keys.values()

    def plans(self) -> Mapping[str, Plan]:
        return self._plans

    def subscribe(self, told: Callable[[Changes], None]) -> Callable[[], None]:
        """`told(changes)` is called after every change, in the loop. The result ends it."""
        self._subscribers.append(told)
        return lambda: self._subscribers.remove(told)

    # ---- as the store has them ---------------------------------------------------------------------------

    async def reload(self) -> Changes:
        """Makes hold what the store has. Raises ConfigurationError for what cannot be used; then everything is as before."""
        async with self._reloading:
            while True:
                begun = self.generation
                content = await self.store.load()
                if content.version < self._version:
                    raise ConfigurationError(
                        f"the store gave version {content.version}, older than {self._version}, which holds"
                    )
                prepared = await self._prepare(content)
                if self.generation == begun:  # else something changed while this was read: read it again
                    break
            self.problem, first = "", self.generation == 0
            keys = list(self._keys.values())
            self._commit(content, prepared)
            if self.reloaded is not None and any(prepared.changes) and not first:
                await self.reloaded(prepared.changes)
            await _let_go(prepared.changed)
            await _let_go(keys)
            return prepared.changes

    async def look(self, *, asked: bool = False) -> None:
        """Reloads where the store says that something changed, or where somebody `asked`. What is wrong with it stands in
        `problem` and in the log, for who asked each time."""
        try:
            if asked or await self.store.changed():
                await self.reload()
        except Exception as error:  # of a store of the user's any: who keeps looking must not end of it
            if asked or self.problem != str(error):
                theirs = isinstance(error, ConfigurationError)
                log.error("tenants stay as they are: %s", error, exc_info=None if theirs else error)
            self.problem = str(error)

    async def watch(
        self, interval_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> NoReturn:
        """Keeps looking, and ends drains, until it is cancelled."""
        looked_s = self._clock()
        while True:
            await sleep(min(interval_s, DRAIN_LOOK_S) if self._draining else interval_s)
            self.step()
            if self._clock() - looked_s >= interval_s:
                looked_s = self._clock()
                await self.look()

    # ---- changes made here -------------------------------------------------------------------------------

    async def put(self, record: TenantRecord, *, new: bool = False) -> Tenant:
        """Changes or adds a tenant in the store and here. Raises as `TenantStore.put` does."""
        stored = await self.store.put(record, new=new)
        known = self._tenants.get(record.id)
        if known is not None and known.record.revision >= stored.revision:  # a reload was quicker
            return known
        terms = SharedTerms(self._plans).of(stored)
        made = Tenant(stored, terms) if known is None else known
        if known is not None:
            self._apply(known, stored, terms)
        self._tenants = {**self._tenants, stored.id: made}
        ids = (stored.id,)
        self._tell(Changes(added=ids) if known is None else Changes(changed=ids))
        return made

    async def remove(self, id: str) -> None:
        """Removes a tenant from the store and here; its calls in flight are drained. Raises Unknown."""
        await self.store.remove(id)
        tenant = self._tenants.get(id)
        if tenant is None:  # a reload was quicker
            return
        self._tenants = {other: one for other, one in self._tenants.items() if other != id}
        gone = tuple(key.id for key in self._keys.values() if key.tenant == id)
        self._keys = {name: key for name, key in self._keys.items() if key.tenant != id}
        self._drain(tenant)
        self._tell(Changes(removed=(id,), keys=gone))

    async def put_key(self, key: KeyRecord) -> None:
        """Adds an API key in the store and here. Raises as `KeyStore.put_key` does."""
        await self.store.put_key(key)
        self._key_changed(key)

    async def revoke_key(self, id: str) -> KeyRecord:
        """Revokes an API key in the store and here. Raises Unknown."""
        revoked = await self.store.revoke_key(id)
        self._key_changed(revoked)
        return revoked

    def _key_changed(self, key: KeyRecord) -> None:
        self._keys = {**self._keys, key.id: key}
        self._tell(Changes(keys=(key.id,)))

    def step(self) -> bool:
        """Ends the drains that can end; whether there are any left."""
        now_s = self._clock()
        self._draining = {tenant for tenant in self._draining if tenant.step(now_s) == "draining"}
        return bool(self._draining)

    # ---- a reload, step by step --------------------------------------------------------------------------

    async def _prepare(self, content: Content) -> _Prepared:
        """What would change, found without changing anything."""
        shared = SharedTerms(content.plans)
        same_plans = {name for name, plan in content.plans.items() if self._plans.get(name) == plan} | {""}
        tenants: dict[str, Tenant] = {}
        changed: list[_Change] = []
        added: list[str] = []
        ids: list[str] = []  # of the changed ones
        for number, record in enumerate(content.tenants.values()):
            known = self._tenants.get(record.id)
            if known is None:
                check_record(record, content.plans)
                known = Tenant(record, shared.of(record))
                added.append(record.id)
            elif known.record != record or record.plan not in same_plans:
                check_record(record, content.plans)
                changed.append(_Change(known, known.record, record, shared.of(record)))
                ids.append(record.id)
            tenants[record.id] = known
            if number % SLICE_RECORDS == SLICE_RECORDS - 1:
                await asyncio.sleep(0)
        changes = Changes(
            tuple(added),
            tuple(ids),
            tuple(self._tenants.keys() - tenants.keys()),
            tuple(await self._other_keys(content.keys)),
        )
        await asyncio.sleep(0)
        return _Prepared(tenants, changed, changes)

    async def _other_keys(self, keys: Mapping[str, KeyRecord]) -> list[str]:
        other = []
        for number, id in enumerate([*self._keys, *(keys.keys() - self._keys.keys())]):
            if self._keys.get(id) != keys.get(id):
                other.append(id)
            if number % SLICE_RECORDS == SLICE_RECORDS - 1:
                await asyncio.sleep(0)
        return other

    def _commit(self, content: Content, prepared: _Prepared) -> None:
        """All of it in one step of the loop: nobody sees the half of a reload."""
        for tenant, before, record, terms in prepared.changed:
            if record.state == before.state == "active":
                tenant.record, tenant.terms = record, terms
            else:
                self._apply(tenant, record, terms)
        for id in prepared.changes.removed:
            self._drain(self._tenants[id])
        self._tenants, self._plans, self._keys = prepared.tenants, content.plans, content.keys
        self._version = content.version
        if any(prepared.changes) or self.generation == 0:
            self._tell(prepared.changes)

    def _apply(self, tenant: Tenant, record: TenantRecord, terms: Terms) -> None:
        tenant.apply(record, terms, self._clock(), self._drain_s)
        if tenant.state == "draining":
            self._draining.add(tenant)

    def _drain(self, tenant: Tenant) -> None:
        tenant.drain(self._clock(), self._drain_s, "removed")
        if tenant.state == "draining":
            self._draining.add(tenant)

    def _tell(self, changes: Changes) -> None:
        self.generation += 1
        for told in list(self._subscribers):
            try:
                told(changes)
            except Exception:  # what holds, holds; the others are told all the same
                log.exception("a subscriber of the registry failed")


async def _let_go(records: list[Any]) -> None:
    """Ten thousand records are not freed at once, either."""
    while records:
        await asyncio.sleep(0)
        del records[-SLICE_RECORDS:]
