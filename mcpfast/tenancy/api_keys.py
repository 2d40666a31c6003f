"""API keys of our own making: 256 random bits, shown once, kept as their SHA-256.

    mcpf_<id: 12>_<secret: 43><checksum: 6>         letters and digits

The id finds the record, and may be shown and logged. The checksum (CRC-32 of all before it) is for scanners that look for leaked
secrets, and keeps mistyped keys away from the store. A fast hash is enough: what it hides was drawn from 2**256, so nobody can try
them all, and a slow one would let anybody keep us busy with keys that do not exist.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple, Protocol

from mcpfast.tenancy.denied import InvalidToken, MalformedRequest
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.resolvers import API_KEY, Evidence, bearer_token

PREFIX: Final = "mcpf_"
SECRET_BYTES: Final = 32
VARIABLE: Final = "MCPFAST_API_KEY"  # of the environment, for stdio
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(r"mcpf_([0-9A-Za-z]{12})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
_NOBODYS: Final = "0" * 64  # compared with where there is no such key, so that it takes the same time
BAD_KEY: Final = "The API key is not valid"


class KnownKeys(Protocol):
    """Where the records are: the registry. In memory, since every call asks."""

    def find_key(self, id: str) -> KeyRecord | None:
        """The record as it is now, or None."""
        ...


class NewKey(NamedTuple):
    """A key that was just made. `key` is shown to its owner once, and `record` is kept."""

    key: str
    record: KeyRecord

    def __repr__(self) -> str:
        return f"NewKey({self.record.id}; the key is not shown)"


def new_key(
    tenant: str,
    principal: str,
    *,
    scopes: frozenset[str] = frozenset(),
    roles: frozenset[str] = frozenset(),
    now_s: float,
    ttl_s: float = 0.0,
    random: Callable[[int], bytes] = os.urandom,
) -> NewKey:
    """A new key of a principal. `ttl_s`: it is good that long; 0: until it is revoked."""
    key_id = _base62(random(16), 12)
    front = f"{PREFIX}{key_id}_{_base62(random(SECRET_BYTES), 43)}"
    key = front + _checksum(front)
    record = KeyRecord(
        id=key_id,
        sha256=_digest(key),
        tenant=tenant,
        principal=principal,
        scopes=scopes,
        roles=roles,
        created_s=now_s,
        expires_s=now_s + ttl_s if ttl_s else 0.0,
    )
    return NewKey(key, record)


def key_id_of(key: str) -> str | None:
    """The id of a key; None for what is none, or mistyped."""
    match = _FORM.fullmatch(key)
    return match[1] if match and _checksum(key[:-6]) == match[2] else None


class ApiKeys:
    """Resolver of API keys: as bearer token, in `X-API-Key`, or over stdio in MCPFAST_API_KEY. `now`: seconds since the epoch."""

    def __init__(self, keys: KnownKeys, *, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim of the key, None without one. Raises InvalidToken, or MalformedRequest for two keys."""
        key = presented_key(evidence)
        return None if key is None else self._claim(key)

    def _claim(self, key: str) -> Claim:
        key_id = key_id_of(key)
        if key_id is None:
            raise InvalidToken(BAD_KEY)
        record = self._keys.find_key(key_id)
        if not compare_digest(_digest(key), _NOBODYS if record is None else record.sha256) or record is None:
            raise InvalidToken(BAD_KEY)
        # From here on it is the owner, who may know more.
        if record.revoked:
            raise InvalidToken("The API key has been revoked")
        if record.expires_s and self._now() >= record.expires_s:
            raise InvalidToken("The API key has expired")
        principal = Principal(record.principal, record.scopes, record.roles, record.expires_s, API_KEY)
        return Claim(principal, record.tenant)


def presented_key(evidence: Evidence) -> str | None:
    """The key in a request, not looked at; None without one. Raises MalformedRequest for two different ones."""
    token = bearer_token(evidence)
    found = {token} if token is not None and token.startswith(PREFIX) else set()
    for key in (evidence.header("x-api-key"), evidence.environment.get(VARIABLE)):
        if key is not None:
            found.add(key.strip())
    if len(found) > 1:
        raise MalformedRequest("The request has two different API keys")
    return found.pop() if found else None


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()).to_bytes(4, "big"), 6)


def _base62(data: bytes, length: int) -> str:
    """The last `length` digits: all of it, where they are enough."""
    number = int.from_bytes(data, "big")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
