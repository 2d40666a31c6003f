"""Who is asking without a token: a client certificate, the user behind a Unix socket, the process that started us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcpfast.tenancy.denied import InvalidToken
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.resolvers import Evidence

PRINCIPAL_VARIABLE: Final = "MCPFAST_PRINCIPAL"
OF_THE_PROCESS: Final = frozenset({"stdio", "memory"})  # transports whose other end has started us
# RFC 4514, section 3, and the mail address that certificates of old have in their subject.
_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "emailAddress",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_ESCAPED: Final = frozenset('"+,;<>\\=')


class MutualTls:
    """Resolver of client certificates. `names` maps what `tls_names` gives to who that is.

    TLS has verified the certificate; whom nobody here knows is refused all the same, since an authority signs for many.
    """

    def __init__(self, names: Mapping[str, Claim]) -> None:
        self._names = {name: _said_by(claim, "mtls") for name, claim in names.items()}

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim, None without a certificate. Raises InvalidToken for one that is not known, or known as two."""
        if not evidence.tls_names:
            return None
        claims = {name: self._names[name] for name in evidence.tls_names if name in self._names}
        if not claims:
            raise InvalidToken("The client certificate is not known here")
        first, *others = claims.values()
        if any(other != first for other in others):
            raise InvalidToken("The client certificate has the names of two principals")
        return first


def tls_names(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names of a certificate as `ssl.SSLSocket.getpeercert()` gives it: "CN=alice,O=Acme", "DNS:...", "URI:spiffe://..."."""
    if not certificate:
        return ()
    parts = [part for relative in reversed(certificate.get("subject", ())) for part in relative]
    subject = ",".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in parts)
    others = (f"{kind}:{value}" for kind, value in certificate.get("subjectAltName", ()))
    return (*((subject,) if subject else ()), *others)


def _escaped(value: str) -> str:
    """RFC 4514, section 2.4: so that no value can say it is the next attribute."""
    text = "".join(f"\\{letter}" if letter in _ESCAPED else letter for letter in value)
    text = text.replace("\0", "\\00")
    if text[:1] in ("#", " "):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(value) > 1 else text


class PeerUsers:
    """Resolver of Unix sockets: `users` maps user ids, `groups` primary group ids; a user is stronger.

    The members of a group are principals of their own: "ops/1001" where the claim says "ops". Who is in neither map has no
    credential of this kind, and may have another: every peer has a uid, it is not something one presents.
    """

    def __init__(self, users: Mapping[int, Claim], groups: Mapping[int, Claim] | None = None) -> None:
        self._users = {uid: _said_by(claim, "peer") for uid, claim in users.items()}
        self._groups = {gid: _said_by(claim, "peer") for gid, claim in (groups or {}).items()}

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim, or None."""
        peer = evidence.peer
        if peer is None:
            return None
        claim = self._users.get(peer.uid)
        if claim is not None:
            return claim
        claim = self._groups.get(peer.gid)
        if claim is None:
            return None
        member = msgspec.structs.replace(claim.principal, id=f"{claim.principal.id}/{peer.uid}")
        return Claim(member, claim.tenant)


class Environment:
    """Resolver of stdio, where whoever started the process decides: `--tenant` or MCPFAST_TENANT is the tenant. So it is for a
    client in memory, which is in the same process.

    The principal is MCPFAST_PRINCIPAL, or has the tenant's id. It has `scopes` and `roles`.
    """

    def __init__(self, *, scopes: frozenset[str] = frozenset(), roles: frozenset[str] = frozenset()) -> None:
        self._scopes = scopes
        self._roles = roles

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim, None on another transport or where no tenant is named."""
        tenant = evidence.option_tenant
        if evidence.transport not in OF_THE_PROCESS or not tenant:
            return None
        name = evidence.environment.get(PRINCIPAL_VARIABLE) or tenant
        return Claim(Principal(name, self._scopes, self._roles, issuer="environment"), tenant)


def _said_by(claim: Claim, issuer: str) -> Claim:
    return Claim(msgspec.structs.replace(claim.principal, issuer=issuer), claim.tenant)
