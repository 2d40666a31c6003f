"""What the registry asks of whoever keeps tenants and API keys: a file, a database, a service. Tenancy owns these interfaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from mcpfast.tenancy.decoding import ConfigurationError, below, decode, mistake, nearest
from mcpfast.tenancy.identity import Plan, Quota, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.namespace import UnsafeName, check_tenant_id

T = TypeVar("T")


class Conflict(ConfigurationError):
    """A record was changed by somebody else since it was read. Read it again, and decide again."""


class Unknown(ConfigurationError):
    """There is no tenant or key of this id."""


class Content(NamedTuple):
    """All that a store holds at one moment. `version` rises with every change; 0 where the store cannot tell (a file)."""

    plans: Mapping[str, Plan] = {}
    tenants: Mapping[str, TenantRecord] = {}
    keys: Mapping[str, KeyRecord] = {}
    version: int = 0


class TenantStore(Protocol):
    """Tenants and their plans. No method holds up the event loop for longer than a few milliseconds."""

    async def load(self) -> Content:
        """Everything there is. Raises ConfigurationError for what cannot be read."""

    async def changed(self) -> bool:
        """Whether a `load` may give something else than the last one, even if that one failed. Cheap: asked every second."""

    async def put(self, record: TenantRecord, *, new: bool = False) -> TenantRecord:
        """Changes a tenant, or adds one that is `new`; gives what is stored, its revision one higher.

        Raises Conflict where the stored revision is not that of `record`, so a stale one never wins, and where a new one is there
        already; ConfigurationError for a record that cannot be used.
        """

    async def remove(self, id: str) -> None:
        """Forgets a tenant, and with it its keys. Raises Unknown."""

    def close(self) -> None:
        """Gives back what is held open. Whatever is asked later opens it again."""


class KeyStore(Protocol):
    """API keys, found by what stands in them in the open."""

    async def find_key(self, id: str) -> KeyRecord | None: ...

    async def put_key(self, key: KeyRecord) -> None:
        """Adds a key. Raises Conflict where there is one of this id, ConfigurationError where there is no such tenant."""

    async def revoke_key(self, id: str) -> KeyRecord:
        """Marks a key as revoked, for good, and gives it as it is now. Raises Unknown."""


class Store(TenantStore, KeyStore, Protocol):
    """Both in one place, as the stores of this house have them."""


def open_store(where: str) -> Store:
    """The store of a registry: a file of TOML, or ``sqlite:///PATH`` (so ``sqlite:////srv/tenants.db`` from the root).

    Raises ConfigurationError for another kind. Nothing is read or made before it is asked for.
    """
    scheme, separator, path = where.partition("://")
    if not separator:
        from mcpfast.tenancy.registry_toml import TomlStore

        return TomlStore(where)
    if scheme == "sqlite" and path.startswith("/") and path != "/":
        from mcpfast.tenancy.registry_sqlite import SqliteStore

        return SqliteStore(path[1:])
    raise ConfigurationError(f"{scheme}://... is no registry: give a TOML file, or sqlite:///PATH")


# ---------------------------------------------------------------------------------------------------- what must hold


def check(content: Content) -> None:
    """Raises ConfigurationError, with the path of the first thing that cannot be used."""
    for name, plan in content.plans.items():
        check_plan(plan, below("plans", name))
    for record in content.tenants.values():
        check_record(record, content.plans)
    for key in content.keys.values():
        check_key(key, content.tenants)


def check_record(record: TenantRecord, plans: Mapping[str, Plan]) -> None:
    """Raises ConfigurationError where a tenant cannot be used as it is written."""
    path = below("tenants", record.id)
    try:
        check_tenant_id(record.id)
    except UnsafeName as error:
        raise mistake(path, str(error)) from None
    if record.plan and record.plan not in plans:
        raise mistake(f"{path}.plan", f"there is no plan {record.plan!r}; {nearest(record.plan, plans)}")
    if record.kind == "personal" and len(record.members) > 1:
        raise mistake(f"{path}.members", f"a personal tenant has one person, not {len(record.members)}")
    if record.weight is not None:
        _check_weight(record.weight, path)
    _check_quotas(record.quota, record.principal_quota, record.tool_quotas or {}, path)


def check_plan(plan: Plan, path: str) -> None:
    """Raises ConfigurationError where a plan cannot be used as it is written."""
    _check_weight(plan.weight, path)
    _check_quotas(plan.quota, plan.principal_quota, plan.tool_quotas, path)


def check_key(key: KeyRecord, tenants: Iterable[str]) -> None:
    """Raises ConfigurationError where a key opens nothing."""
    path = below("keys", key.id)
    if key.tenant not in tenants:
        raise mistake(f"{path}.tenant", f"there is no tenant {key.tenant!r}; {nearest(key.tenant, tenants)}")
    if len(key.sha256) != 64 or not set(key.sha256) <= set("0123456789abcdef"):
        raise mistake(f"{path}.sha256", "64 digits 0-9a-f are wanted")


def _check_weight(weight: float, path: str) -> None:
    if not 0 < weight < math.inf:
        raise mistake(f"{path}.weight", "more than 0 is wanted")


def _check_quotas(
    quota: Quota | None, principal_quota: Quota | None, tool_quotas: Mapping[str, Quota], path: str
) -> None:
    named = [("quota", quota), ("principal_quota", principal_quota)]
    named += [(below("tool_quotas", tool), one) for tool, one in tool_quotas.items()]
    for name, one in named:
        if one is None:
            continue
        for field in one.__struct_fields__:
            if not 0 <= getattr(one, field) < math.inf:
                raise mistake(f"{path}.{name}.{field}", "0 (no limit) or more is wanted")


# ---------------------------------------------------------------------------------------------------- from code


class MemoryStore:
    """Tenants that code gives, kept in this process."""

    def __init__(
        self,
        tenants: Iterable[TenantRecord] = (),
        plans: Mapping[str, Plan] | None = None,
        keys: Iterable[KeyRecord] = (),
    ) -> None:
        # As if they were read: what is a set or a list becomes a frozenset or a tuple, and a wrong type is told.
        self._plans = {
            name: _as_read(plan, Plan, below("plans", name)) for name, plan in (plans or {}).items()
        }
        self._tenants = {one.id: _as_read(one, TenantRecord, below("tenants", one.id)) for one in tenants}
        self._keys = {one.id: _as_read(one, KeyRecord, below("keys", one.id)) for one in keys}
        self._version = 1
        self._loaded = 0
        check(Content(self._plans, self._tenants, self._keys))

    def close(self) -> None:
        pass

    async def load(self) -> Content:
        self._loaded = self._version
        return Content(dict(self._plans), dict(self._tenants), dict(self._keys), self._version)

    async def changed(self) -> bool:
        return self._loaded != self._version

    async def put(self, record: TenantRecord, *, new: bool = False) -> TenantRecord:
        check_record(record, self._plans)
        stored = next_revision(record, self._tenants.get(record.id), new)
        self._tenants[record.id] = stored
        self._version += 1
        return stored

    async def remove(self, id: str) -> None:
        if id not in self._tenants:
            raise no_tenant(id, self._tenants)
        del self._tenants[id]
        self._keys = {key.id: key for key in self._keys.values() if key.tenant != id}
        self._version += 1

    async def find_key(self, id: str) -> KeyRecord | None:
        return self._keys.get(id)

    async def put_key(self, key: KeyRecord) -> None:
        check_key(key, self._tenants)
        if key.id in self._keys:
            raise Conflict(f"there is a key {key.id!r} already")
        self._keys[key.id] = key
        self._version += 1

    async def revoke_key(self, id: str) -> KeyRecord:
        if id not in self._keys:
            raise no_key(id)
        self._keys[id] = revoked = msgspec.structs.replace(self._keys[id], revoked=True)
        self._version += 1
        return revoked


def _as_read(record: msgspec.Struct, kind: type[T], path: str) -> T:
    return decode(msgspec.to_builtins(record), kind, path)


def next_revision(record: TenantRecord, stored: TenantRecord | None, new: bool) -> TenantRecord:
    """The record as it is stored over `stored`. Raises Conflict where it was not made from that."""
    if new:
        if stored is not None:
            raise Conflict(f"there is a tenant {record.id!r} already")
        return msgspec.structs.replace(record, revision=1)
    if stored is None:
        raise Conflict(f"tenant {record.id!r} was removed")
    if record.revision != stored.revision:
        raise Conflict(
            f"tenant {record.id!r} is at revision {stored.revision}; this change was made from {record.revision}"
        )
    return msgspec.structs.replace(record, revision=stored.revision + 1)


def no_tenant(id: str, tenants: Iterable[str]) -> Unknown:
    return Unknown(f"there is no tenant {id!r}; {nearest(id, tenants)}")


def no_key(id: str) -> Unknown:
    return Unknown(f"there is no key {id!r}")
