"""Whose tokens are believed, for what, and how their claims are read. Pure: time comes in, nothing is fetched or remembered."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

import msgspec

from mcpfast.errors import RegistrationError
from mcpfast.tenancy.challenge import canonical_resource
from mcpfast.tenancy.denied import InvalidToken
from mcpfast.tenancy.identity import Claim, Principal

TIME_S_MAX: Final = float(1 << 53)  # above it seconds are not told apart
SUBJECT_CHARS_MAX: Final = 255  # OpenID Connect Core, section 2
TENANT_HOLE: Final = "{tenant}"
SECRET_BYTES_MIN: Final = 32  # RFC 7518, section 3.2: at least as long as the hash

ClaimPath = str | tuple[str, ...]  # the name of a claim, or the names that lead to it through objects


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An issuer whose tokens are believed, and what it may say. Raises RegistrationError where that is not said in full.

    An issuer speaks for one tenant (`tenant`), for those that `tenant_claim` names as far as `tenants` allows, for persons who
    belong to none (`persons`; they act in their own tenant or in organizations of which they are members), or for the last two.
    """

    issuer: str  # `iss`, letter for letter
    # `aud` must be one of these; "https://host/t/{tenant}/mcp" stands for each tenant's own.
    audiences: tuple[str, ...]
    jwks_url: str = ""  # or as the issuer's metadata says
    secret: bytes = b""  # or HS256 with this; 32 bytes at least (settings: the text itself, or base64:...)
    tenant: str = ""
    tenant_claim: ClaimPath = ()
    tenants: tuple[str, ...] = ()  # patterns (fnmatch) of what `tenant_claim` may name; ("*",) for all
    persons: bool = False
    subject_claim: ClaimPath = "sub"
    subject_prefix: str = ""  # of the principal's id, so that two issuers never mean the same one
    scopes_claim: ClaimPath = ()  # or `scope`, or `scp`
    roles_claim: ClaimPath = ()
    # Claims that must be there, and be (or hold) one of these values.
    required: dict[str, tuple[str, ...]] = {}
    leeway_s: float = 30.0  # by so much clocks may differ

    def __post_init__(self) -> None:
        if not self.issuer or not self.audiences:
            raise RegistrationError(
                "An issuer needs `issuer` and `audiences`: a token for another server must be refused"
            )
        if self.secret and self.jwks_url:
            raise RegistrationError(f"The issuer {self.issuer}: `secret` and `jwks_url` exclude each other")
        if 0 < len(self.secret) < SECRET_BYTES_MIN:
            raise RegistrationError(
                f"The issuer {self.issuer}: a shared secret has at least {SECRET_BYTES_MIN} bytes, not {len(self.secret)}"
            )
        if self.tenant and (self.tenant_claim or self.persons):
            raise RegistrationError(
                f"The issuer {self.issuer}: `tenant` excludes `tenant_claim` and `persons`"
            )
        if not (self.tenant or self.tenant_claim or self.persons):
            raise RegistrationError(
                f"The issuer {self.issuer} speaks for nobody: give `tenant`, `tenant_claim` or `persons`"
            )
        if bool(self.tenant_claim) != bool(self.tenants):
            raise RegistrationError(
                f'The issuer {self.issuer}: `tenant_claim` goes with `tenants`, the ones it may name; ("*",) for all'
            )
        if not 0 <= self.leeway_s <= 300:
            raise RegistrationError(f"The issuer {self.issuer}: leeway_s is between 0 and 300")

    def __repr__(self) -> str:
        return f"Issuer({self.issuer!r}{', secret not shown' if self.secret else ''})"


class InvalidForNow(InvalidToken):
    """A reason that may pass by itself, so the token is looked at again when it comes again."""


class Accepted(NamedTuple):
    """When and for what a token is good, where its signature holds."""

    tenants: frozenset[str] | None  # those whose resource the audience is; None: all of them
    issued_s: float  # 0: it does not say
    expires_s: float  # with the leeway


def check_apart(issuers: Iterable[Issuer]) -> None:
    """Raises RegistrationError where two issuers are one, or could speak of the same principal of the same tenant."""
    seen: list[Issuer] = []
    for issuer in issuers:
        for other in seen:
            if issuer.issuer == other.issuer:
                raise RegistrationError(f"The issuer {issuer.issuer} is given twice")
            if _may_meet(issuer, other) and _prefixes(issuer.subject_prefix, other.subject_prefix):
                raise RegistrationError(
                    f"The issuers {other.issuer} and {issuer.issuer} speak for the same tenants: give each a `subject_prefix`, "
                    "and none that begins with the other"
                )
        seen.append(issuer)


def _prefixes(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _may_meet(one: Issuer, other: Issuer) -> bool:
    """Persons may belong to every tenant, and patterns are not compared with each other."""
    if one.tenant and other.tenant:
        return one.tenant == other.tenant
    return True


def accept(issuer: Issuer, claims: dict[str, Any], now: float) -> Accepted:
    """What anybody may be told of claims whose signature was not looked at. Raises InvalidToken: expired, not yet valid, or for
    another audience."""
    expires_s, issued_s = _check_times(claims, now, issuer.leeway_s)
    return Accepted(_audience(issuer, claims), issued_s, expires_s)


def claim_of(issuer: Issuer, claims: dict[str, Any], expires_s: float) -> Claim:
    """Who it is, of claims whose signature holds: what is refused here tells of tenants. Raises InvalidToken for what is not as the
    issuer must say it."""
    for name, values in issuer.required.items():
        if not _strings(claims.get(name)) & {*values}:
            raise InvalidToken(f"The token lacks the claim {name} as it is required here")
    principal = Principal(
        id=issuer.subject_prefix + _subject(issuer, claims),
        scopes=_scopes(issuer, claims),
        roles=frozenset(_strings(_at(claims, issuer.roles_claim))) if issuer.roles_claim else frozenset(),
        expires_s=expires_s,
        issuer=issuer.issuer,
    )
    return Claim(principal, _tenant(issuer, claims))


def _check_times(claims: dict[str, Any], now: float, leeway_s: float) -> tuple[float, float]:
    """`exp` with the leeway, and `iat`. All of RFC 7519, sections 4.1.4 to 4.1.6, `exp` required."""
    expires_s = _seconds(claims, "exp")
    if expires_s is None:
        raise InvalidToken("The token does not say when it expires")
    if now >= expires_s + leeway_s:
        raise InvalidToken("The token has expired")
    issued_s = _seconds(claims, "iat") or 0.0
    if now < max(_seconds(claims, "nbf") or 0.0, issued_s) - leeway_s:
        raise InvalidForNow("The token is not valid yet")
    return expires_s + leeway_s, issued_s


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"The token's {name} is no time")
    if not 0 <= value <= TIME_S_MAX or not math.isfinite(value):
        raise InvalidToken(f"The token's {name} is no time")
    return float(value)


def _audience(issuer: Issuer, claims: dict[str, Any]) -> frozenset[str] | None:
    """The tenants whose own resource the token is for; None where it is for the server as a whole."""
    named = {canonical_resource(audience) for audience in _strings(claims.get("aud"))}
    tenants: set[str] = set()
    for audience in map(canonical_resource, issuer.audiences):
        if TENANT_HOLE not in audience:
            if audience in named:
                return None
            continue
        front, _, back = audience.partition(TENANT_HOLE)
        pattern = re.compile(re.escape(front) + "([^/]+)" + re.escape(back))
        tenants.update(match[1] for match in map(pattern.fullmatch, named) if match)
    if not tenants:
        raise InvalidToken("The token is for another audience")
    return frozenset(tenants)


def _subject(issuer: Issuer, claims: dict[str, Any]) -> str:
    subject = _at(claims, issuer.subject_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARS_MAX or not subject.isprintable():
        raise InvalidToken("The token does not say who it is for")
    return subject


def _tenant(issuer: Issuer, claims: dict[str, Any]) -> str:
    if issuer.tenant:
        return issuer.tenant
    named = _at(claims, issuer.tenant_claim) if issuer.tenant_claim else None
    if named is None and issuer.persons:
        return ""
    if not isinstance(named, str) or not any(fnmatchcase(named, pattern) for pattern in issuer.tenants):
        raise InvalidToken("The token is not for a tenant that its issuer may speak for")
    return named


def _scopes(issuer: Issuer, claims: dict[str, Any]) -> frozenset[str]:
    """RFC 8693, section 4.2: one string with spaces between; some issuers write an array, or call it `scp`."""
    if issuer.scopes_claim:
        said = _at(claims, issuer.scopes_claim)
    else:
        said = claims.get("scope", claims.get("scp"))
    if isinstance(said, str):
        return frozenset(said.split())
    return frozenset(_strings(said))


def _at(claims: dict[str, Any], path: ClaimPath) -> Any:
    found: Any = claims
    for name in (path,) if isinstance(path, str) else path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _strings(value: Any) -> set[str]:
    """A string, or the strings of an array: of nothing else."""
    if isinstance(value, str):
        return {value}
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()
