"""Tenants and principals as they are described: in a TOML file, a store, or code. What lives and counts is made from these."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import msgspec

SHARED_MAX: Final = 1_024

# `gc=False`: nothing of these can be part of a cycle, and ten thousand of them made a full collection 9 to 18 ms long.
Kind = Literal["organization", "personal"]
State = Literal["active", "draining", "suspended"]


@lru_cache(SHARED_MAX)
def shared(scopes: frozenset[str]) -> frozenset[str]:
    """The first set that was equal to this one: ten thousand keys have a handful of them, at 216 bytes each."""
    return scopes


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """How much may be used; 0 means: no limit of ours. One for a tenant, a principal, or a tool."""

    calls_per_s: float = (
        0.0  # refilled so fast; every request is a call, those that open a session and ask for lists, too
    )
    calls_burst: float = 0.0  # and so many at once; 0: one second's
    bytes_per_s: float = 0.0  # of requests and responses
    bytes_burst: float = 0.0
    concurrent_calls_max: int = 0
    queued_calls_max: int = (
        32  # of a tenant, waiting for a place in a full process; 0: those that find none are refused
    )
    request_bytes_max: int = 0
    response_bytes_max: int = 0
    call_s_max: float = 0.0  # wall time of one call
    daily_units_max: float = 0.0  # in units of `cost`, by UTC
    monthly_units_max: float = 0.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What tenants of one plan have in common; a tenant's own words are stronger."""

    scopes: frozenset[str] = frozenset()
    quota: Quota = Quota()
    principal_quota: Quota = Quota()  # of each principal within its tenant
    tool_quotas: dict[str, Quota] = {}  # by the tool's name, within the tenant
    weight: float = 1.0  # its share when the process is full
    allow: tuple[str, ...] = ("*",)  # patterns of names of tools, prompts and URIs of resources (fnmatch)
    deny: tuple[str, ...] = ()  # stronger than `allow`


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A principal within an organization."""

    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()


class TenantRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One tenant as the registry has it. None in a field of the plan: as the plan says."""

    id: str
    kind: Kind = "organization"
    name: str = ""  # what persons read
    plan: str = ""  # the name of a Plan, or none
    state: State = "active"
    scopes: frozenset[str] | None = None  # granted; a principal never has more
    quota: Quota | None = None
    principal_quota: Quota | None = None
    tool_quotas: dict[str, Quota] | None = None
    weight: float | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None
    members: dict[str, Member] = {}  # by the principal's id; of a personal tenant: its one person
    revision: int = 0  # rises with every change; a stale one never wins
    token_generation: int = 0  # rises to revoke every token of this tenant that was verified before


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who is asking, within a tenant."""

    id: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    expires_s: float = 0.0  # of the credential, seconds since the epoch; 0: it does not
    issuer: str = ""  # who says so: a JWT's issuer, "api-key", "mtls", "peer", "environment"


ANONYMOUS = Principal("anonymous")  # everybody, where no tenants are served


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What a resolver found in a request: who it is, which tenant the credential is for, and what is meant by path or host.

    A credential that names no tenant (a person's token) leaves `tenant` empty: then the request must name one of which the
    principal is a member, or nothing, which means the personal tenant of the same id.
    """

    principal: Principal
    tenant: str = ""
