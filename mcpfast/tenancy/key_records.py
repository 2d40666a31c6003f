"""An API key as the registry has it: what it opens, never the key itself."""

from __future__ import annotations

import msgspec

from mcpfast.tenancy.identity import shared


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """`id` stands in the key in the open and finds this record; `sha256` (hex) proves the rest of it."""

    id: str
    sha256: str
    tenant: str
    principal: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    created_s: float = 0.0  # seconds since the epoch
    expires_s: float = 0.0  # 0: it does not
    revoked: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "scopes", shared(self.scopes))
        msgspec.structs.force_setattr(self, "roles", shared(self.roles))
