"""Who is asking, what they may use, how much of it, and in which order: tenants and principals as objects.

    from mcpfast.tenancy import Claim, Evidence, InvalidToken, Issuer, Principal, Tenancy

Here are the names for who serves tenants from code or writes a resolver. They are imported when first used: whoever imports one
room of tenancy gets that room alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_HOME = {
    "Claim": "identity",
    "Denied": "denied",
    "Evidence": "resolvers",
    "Forbidden": "denied",
    "InvalidToken": "denied",
    "Issuer": "issuers",
    "KeyRecord": "key_records",
    "Member": "identity",
    "MemoryStore": "stores",
    "MutualTls": "local",
    "PeerUsers": "local",
    "Plan": "identity",
    "Principal": "identity",
    "Quota": "identity",
    "Resolver": "resolvers",
    "SqliteStore": "registry_sqlite",
    "Store": "stores",
    "Tenancy": "service",
    "Tenant": "tenant",
    "TenantRecord": "identity",
    "Unauthenticated": "denied",
    "Unavailable": "denied",
    "new_key": "api_keys",
}

if TYPE_CHECKING:
    from mcpfast.tenancy.api_keys import new_key
    from mcpfast.tenancy.denied import Denied, Forbidden, InvalidToken, Unauthenticated, Unavailable
    from mcpfast.tenancy.identity import Claim, Member, Plan, Principal, Quota, TenantRecord
    from mcpfast.tenancy.issuers import Issuer
    from mcpfast.tenancy.key_records import KeyRecord
    from mcpfast.tenancy.local import MutualTls, PeerUsers
    from mcpfast.tenancy.registry_sqlite import SqliteStore
    from mcpfast.tenancy.resolvers import Evidence, Resolver
    from mcpfast.tenancy.service import Tenancy
    from mcpfast.tenancy.stores import MemoryStore, Store
    from mcpfast.tenancy.tenant import Tenant

__all__ = [
    "Claim",
    "Denied",
    "Evidence",
    "Forbidden",
    "InvalidToken",
    "Issuer",
    "KeyRecord",
    "Member",
    "MemoryStore",
    "MutualTls",
    "PeerUsers",
    "Plan",
    "Principal",
    "Quota",
    "Resolver",
    "SqliteStore",
    "Store",
    "Tenancy",
    "Tenant",
    "TenantRecord",
    "Unauthenticated",
    "Unavailable",
    "new_key",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mcpfast.tenancy' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"mcpfast.tenancy.{home}"), name)  # found once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
