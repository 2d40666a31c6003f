"""What administrators do to tenants and their keys, wherever they ask from: `mcpfast tenant` on a registry, or the admin API.

Whatever changes goes through a Registry, so that its store and what it serves agree, and leaves a record in the audit log. A change
that has begun goes on to its end, even when whoever asked for it is gone: none happens that is not written down.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from mcpfast.tenancy.api_keys import NewKey, new_key
from mcpfast.tenancy.audit import Actor, AuditLog
from mcpfast.tenancy.decoding import ConfigurationError, below, decode, mistake
from mcpfast.tenancy.denied import Unavailable
from mcpfast.tenancy.identity import State, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.namespace import check_tenant_id
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.stores import Conflict, Unknown, check_record, next_revision, no_key, no_tenant
from mcpfast.tenancy.tenant import Tenant

T = TypeVar("T")
ADMIN_SCOPE: Final = "mcpfast:admin"
CHANGES_MAX = 16  # under way or waiting for their turn; above it they are refused
CLOSE_S = 5.0  # at the end, what is under way may take so long


class Failed(ConfigurationError):
    """Nothing is wrong with what was asked for: the store or the audit log does not work."""


class Known(NamedTuple):
    """One tenant, with its keys and, where it is served, what it is doing."""

    record: TenantRecord
    keys: tuple[KeyRecord, ...]
    live: Mapping[str, Any] = {}


class KeyWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key to be made."""

    principal: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    ttl_s: float = 0.0  # it is good that long; 0: until it is revoked


class Administration:
    """One registry, and all who change it from this process; their changes are made one after the other.

    `refresh` brings the registry to what the store has now; `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        registry: Registry,
        log: AuditLog,
        *,
        refresh: Callable[[], Awaitable[object]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.registry = registry
        self.log = log
        self.refresh = refresh
        self.now = now
        self.changing: frozenset[str] = (
            frozenset()
        )  # ids under way to the store: a reload that meets them is no news
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()

    def by(self, actor: Actor) -> Administrator:
        """What `actor` does is written down as his."""
        return Administrator(self, actor)

    async def change(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `work` gives, on the registry as the store has it now. Raises Unavailable where too much waits already."""
        if len(self._under_way) >= CHANGES_MAX:
            raise Unavailable("Too many changes at the same time", retry_after_s=1.0)
        task = asyncio.create_task(self._alone(work), name="mcpfast-administration")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._one_at_a_time:
            self.log.open()  # first: nothing is changed that cannot be written down
            await self.refresh()
            return await work()

    async def close(self) -> None:
        """Waits for what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSE_S)


class Administrator:
    """One who administers. Whatever is wrong with what is asked for is a ConfigurationError with its path, among them Unknown and
    Conflict, or an UnsafeName; Failed is all else that goes wrong."""

    def __init__(self, administration: Administration, actor: Actor) -> None:
        self._all = administration
        self._registry = administration.registry
        self._actor = actor

    async def tenants(self) -> list[TenantRecord]:
        """All of them, in the order of their ids."""
        await self._all.refresh()
        return sorted((one.record for one in self._registry.tenants()), key=lambda record: record.id)

    async def tenant(self, id: str) -> Known:
        """One of them. Raises Unknown."""
        await self._all.refresh()
        record, tenant = self._known(id), self._registry.tenant(id)
        keys = tuple(key for key in self._registry.known_keys() if key.tenant == id)
        return Known(record, keys, {} if tenant is None else live_of(tenant, self._all.now()))

    async def add(self, settings: Mapping[str, Any]) -> TenantRecord:
        """A new tenant with these settings, `id` among them. Raises Conflict where there is one of this id."""
        return await self._all.change(lambda: self._add(settings))

    async def change(self, id: str, settings: Mapping[str, Any]) -> TenantRecord:
        """Lays settings over those of a tenant, as a JSON merge patch (RFC 7396): None takes one away. Where `revision` is among
        them, only that one is changed: Conflict, if it is not the present one any more."""
        return await self._all.change(lambda: self._change(id, settings, "set"))

    async def suspend(self, id: str) -> TenantRecord:
        """Its calls drain, and no new one is taken."""
        return await self._all.change(lambda: self._change(id, _state("suspended"), "suspend"))

    async def resume(self, id: str) -> TenantRecord:
        """Its calls are taken again."""
        return await self._all.change(lambda: self._change(id, _state("active"), "resume"))

    async def remove(self, id: str) -> TenantRecord:
        """Forgets a tenant and its keys, and gives what it was; its calls drain."""
        return await self._all.change(lambda: self._remove(id))

    async def new_key(self, tenant: str, wanted: KeyWanted) -> NewKey:
        """A new key of a principal; nobody can show it again."""
        return await self._all.change(lambda: self._new_key(tenant, wanted))

    async def revoke_key(self, id: str) -> KeyRecord:
        """Ends a key, and gives what it is now. Raises Unknown."""
        return await self._all.change(lambda: self._revoke_key(id))

    # ---- one after the other ------------------------------------------------------------------------------

    async def _add(self, settings: Mapping[str, Any]) -> TenantRecord:
        id = settings.get("id")
        path = below("tenants", check_tenant_id(id)) if isinstance(id, str) else "tenants"
        if "revision" in settings:
            raise mistake(f"{path}.revision", "it is not set; it rises by itself")
        # What was given to another one of this id is not for this one.
        fresh = {"token_generation": int(self._all.now()), **settings}
        return await self._put("add", decode(fresh, TenantRecord, path), None)

    async def _change(self, id: str, settings: Mapping[str, Any], action: str) -> TenantRecord:
        before, path = self._known(id), below("tenants", id)
        if "id" in settings:
            raise mistake(f"{path}.id", "the id is never another one")
        after = decode(merged(plain(before), settings), TenantRecord, path)
        return await self._put(action, after, before)

    async def _put(self, action: str, record: TenantRecord, before: TenantRecord | None) -> TenantRecord:
        check_record(record, self._registry.plans())
        next_revision(record, self._registry.find(record.id), new=before is None)
        stored = (await self._stored(self._registry.put(record, new=before is None), record.id)).record
        await self._record(f"tenant.{action}", record.id, before, stored)
        return stored

    async def _remove(self, id: str) -> TenantRecord:
        before = self._known(id)
        keys = [key.id for key in self._registry.known_keys() if key.tenant == id]
        await self._stored(self._registry.remove(id), id, *keys)
        await self._record("tenant.remove", id, before, None)
        return before

    async def _new_key(self, tenant: str, wanted: KeyWanted) -> NewKey:
        record = self._known(tenant)
        if not wanted.principal:
            raise mistake("principal", "it is not empty")
        if record.kind == "personal" and wanted.principal != record.id:
            raise mistake(
                "principal", f"{record.id!r} is the tenant of one person: {record.id}, and nobody else"
            )
        if not 0 <= wanted.ttl_s < math.inf:
            raise mistake("ttl_s", "0 (until it is revoked) or more is wanted")
        made = new_key(
            tenant,
            wanted.principal,
            scopes=wanted.scopes,
            roles=wanted.roles,
            now_s=round(self._all.now()),
            ttl_s=wanted.ttl_s,
        )
        await self._stored(self._registry.put_key(made.record), made.record.id)
        await self._record("key.new", made.record.id, None, made.record)
        return made

    async def _revoke_key(self, id: str) -> KeyRecord:
        before = self._registry.find_key(id)
        if before is None:
            raise no_key(id)
        revoked = await self._stored(self._registry.revoke_key(id), id)
        await self._record("key.revoke", id, before, revoked)
        return revoked

    def _known(self, id: str) -> TenantRecord:
        record = self._registry.find(id)
        if record is None:
            raise no_tenant(id, [one.id for one in self._registry.tenants()])
        return record

    async def _stored(self, change: Coroutine[Any, Any, T], *ids: str) -> T:
        """Whatever a store refuses of what was checked before is its own trouble, unless another process was quicker."""
        self._all.changing = frozenset(ids)
        try:
            return await change
        except (Conflict, Unknown):
            raise
        except ConfigurationError as error:
            raise Failed(str(error)) from None
        finally:
            self._all.changing = frozenset()

    async def _record(
        self, action: str, target: str, before: msgspec.Struct | None, after: msgspec.Struct | None
    ) -> None:
        """In a thread: it is on the disk when this returns, and others are served meanwhile."""
        told = [None if one is None else plain(one) for one in (before, after)]
        try:
            await asyncio.to_thread(self._all.log.changed, self._actor, action, target, *told)
        except ConfigurationError as error:
            raise Failed(f"{error}; {action} of {target} has happened") from None


def _state(state: State) -> Mapping[str, Any]:
    return {"state": state}


def plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record as a table, without its defaults: the same names as in TOML."""
    table: dict[str, Any] = msgspec.to_builtins(record, order="deterministic")
    return table


def merged(table: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The table with a merge patch laid over it (RFC 7396)."""
    made = dict(table)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            under = made.get(name)
            made[name] = merged(under if isinstance(under, Mapping) else {}, value)
        else:
            made[name] = value
    return made


def live_of(tenant: Tenant, epoch_s: float) -> dict[str, Any]:
    """What a tenant is doing in this process, and what it has used of its limits. Units are counted only where a budget is."""
    meter = None if tenant.meter is None else tenant.meter.tenant
    day_units, month_units = (0.0, 0.0) if meter is None else meter.used(epoch_s)
    return {
        "state": tenant.state,
        "scopes": sorted(tenant.terms.scopes),
        "in_flight": tenant.in_flight,
        "admitted": 0 if meter is None else meter.admitted,
        "refused": {} if meter is None else {name: count for name, count in meter.refused.items() if count},
        "daily_units": day_units,
        "monthly_units": month_units,
        "limits": plain(tenant.terms.quota),
    }
