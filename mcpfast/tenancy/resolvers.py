"""Who is asking: from what a request shows (`Evidence`) over what a resolver makes of it (`Claim`) to an `Identity`.

Credentials say who it is. Path, host name and `--tenant` only say which tenant is meant. Where they disagree, where two
credentials disagree, and where one is present and bad, the request is refused, whatever else it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl

import msgspec

from mcpfast.tenancy.denied import (
    NOT_YOURS,
    Forbidden,
    InvalidToken,
    MalformedRequest,
    Unauthenticated,
    Unavailable,
)
from mcpfast.tenancy.identity import Claim, Member, Principal, TenantRecord

DRAINED_S: Final = 30.0  # who meets a draining tenant may ask again after
# Names under which credentials are put into a URL, where they end up in logs, histories and Referer headers.
QUERY_SECRETS: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "authorization", "jwt", "token", "x-api-key"}
)
# Resolvers whose evidence comes with the connection or the process, and not with the request.
AMBIENT: Final = frozenset({"environment", "mtls", "peer"})
API_KEY: Final = "api-key"  # the issuer of those who have one of our keys
_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


class Peer(NamedTuple):
    """The process at the other end of a Unix socket, by the kernel's word."""

    pid: int
    uid: int
    gid: int


def no_header(name: str) -> str | None:
    """The headers of a transport that has none."""
    return None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that one request shows of who is asking. Made by the transport; says nothing of itself.

    `header(name)` gives the value of a header (name in lower case), None where it is absent; a header that came more than once
    has its values joined by ", " (RFC 9110, section 5.3), so that two credentials are never read as one.
    """

    transport: str = ""  # "stdio", "unix", "tcp", "http", "websocket"
    header: Callable[[str], str | None] = no_header
    query: str = ""  # of the URL, raw
    path_tenant: str = ""  # of /t/{tenant}/mcp, decoded
    host_tenant: str = ""  # of the host name
    option_tenant: str = ""  # of `--tenant` or MCPFAST_TENANT
    peer: Peer | None = None
    tls_names: tuple[str, ...] = ()  # of a verified client certificate, as `local.tls_names` reads them
    environment: Mapping[str, str] = _NO_ENVIRONMENT  # of the process; stdio only

    def meant(self) -> str:
        """The tenant that path, host name or option name; "" where none does. Raises Forbidden where two disagree."""
        meant = self.path_tenant or self.host_tenant or self.option_tenant
        if (self.host_tenant and self.host_tenant != meant) or (
            self.option_tenant and self.option_tenant != meant
        ):
            raise Forbidden(NOT_YOURS)
        return meant

    def __repr__(self) -> str:
        return f"Evidence({self.transport or 'no transport'}; credentials not shown)"


class Resolver(Protocol):
    """Reads one kind of credential. To write one is to write this method:

        class StaffBadge:
            async def resolve(self, evidence: Evidence) -> Claim | None:
                badge = evidence.header("x-badge")
                if badge is None:
                    return None  # no credential of mine; the next resolver may know one
                name = await badges.owner_of(badge)
                if name is None:
                    raise InvalidToken("The badge is not known")  # present and bad: final
                return Claim(Principal(name, scopes=frozenset({"read"}), issuer="badge"), tenant="staff")

    It decides who it is and nothing else: whether the tenant exists, is active and has this member, the chain asks. The answer is
    remembered for the same credential until the registry changes or `Principal.expires_s`: what may be withdrawn elsewhere sets it.
    """

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim, or None for "I see no credential of mine". Raises a Denied for one that is bad."""
        ...


class Memberships(Protocol):
    """Where tenants are found: the registry. In memory, since every call asks."""

    def find(self, tenant_id: str) -> TenantRecord | None:
        """The tenant as it is now, or None."""
        ...


class Identity(NamedTuple):
    """The answer: this principal, in this tenant."""

    tenant_id: str
    principal: Principal


class Chain:
    """Resolvers in order, and the rules that no resolver can bend. Keeps no state: resolvers remember what is dear to them.

    The principal of an answer has the scopes of its credential (in an organization of which it is a member: those that the
    organization gave it, too). What the tenant itself was granted is the tenant's to say.
    """

    __slots__ = ("_memberships", "_resolvers")

    def __init__(self, resolvers: Iterable[Resolver], memberships: Memberships) -> None:
        self._resolvers = tuple(resolvers)
        self._memberships = memberships

    async def resolve(self, evidence: Evidence) -> Identity:
        """Who is asking. Raises a Denied."""
        if evidence.query:
            _check_query(evidence.query)
        meant = evidence.meant()
        claim: Claim | None = None
        for resolver in self._resolvers:
            found = await resolver.resolve(evidence)
            if found is None:
                continue
            _check_claim(found, resolver)
            if claim is None:
                claim = found
            elif (claim.principal.id, claim.tenant) != (found.principal.id, found.tenant):
                raise InvalidToken("The request has two credentials of different principals or tenants")
        if _is_beside_authorization(claim, evidence):
            _check_nothing_unread(evidence)
        if claim is None:
            raise Unauthenticated("This needs credentials")
        return self._judge(claim, meant)

    def _judge(self, claim: Claim, meant: str) -> Identity:
        tenant_id = claim.tenant or meant or claim.principal.id
        record = self._memberships.find(tenant_id)
        if record is None or (meant and meant != tenant_id):
            raise Forbidden(NOT_YOURS)
        principal = _principal_in(record, claim)
        if record.state == "suspended":
            raise Forbidden("This tenant is suspended; whoever runs this server can say why")
        if record.state == "draining":
            raise Unavailable("This tenant takes no new calls", retry_after_s=DRAINED_S)
        return Identity(tenant_id, principal)


def _check_claim(found: Any, resolver: Resolver) -> None:
    """Raises TypeError for what a resolver of somebody's own gave instead of a claim: it is not taken for anybody."""
    who = f"{type(resolver).__name__}.resolve"
    if not isinstance(found, Claim):
        raise TypeError(
            f"{who} gave a {type(found).__name__}: a Claim(Principal(...), tenant) or None is wanted"
        )
    principal: Any = found.principal
    if not isinstance(principal.id, str) or not principal.id:
        raise TypeError(f"{who} gave a Principal without an id")
    if not (isinstance(principal.scopes, frozenset) and isinstance(principal.roles, frozenset)):
        raise TypeError(f"{who} gave a Principal whose scopes or roles are no frozenset({...})")


def _principal_in(record: TenantRecord, claim: Claim) -> Principal:
    """Raises Forbidden for who does not belong to the tenant."""
    principal = claim.principal
    if record.kind == "personal":
        # Even a credential that names the tenant: an issuer speaks for organizations, not for other people.
        if principal.id != record.id:
            raise Forbidden(NOT_YOURS)
        return principal
    if claim.tenant:
        return principal
    member = record.members.get(principal.id)
    if member is None:
        raise Forbidden(NOT_YOURS)
    return _as_member(principal, member)


def _as_member(principal: Principal, member: Member) -> Principal:
    """A person within an organization: no more than the credential says, nor than the organization gave. Roles are its alone."""
    return msgspec.structs.replace(principal, scopes=principal.scopes & member.scopes, roles=member.roles)


def _is_beside_authorization(claim: Claim | None, evidence: Evidence) -> bool:
    """Whether a claim is none that an Authorization made."""
    if claim is None or claim.principal.issuer in AMBIENT:
        return True
    key = evidence.header("x-api-key") if claim.principal.issuer == API_KEY else None
    return key is not None and key != bearer_token(evidence)


def _check_nothing_unread(evidence: Evidence) -> None:
    """An Authorization that nobody could read is a bad one, and not made good by another header, or how the client is connected."""
    if evidence.header("authorization") is not None:
        check_token_chars(bearer_token(evidence) or "")
        raise InvalidToken("Credentials of this kind are not accepted here")


def _check_query(query: str) -> None:
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name.lower() in QUERY_SECRETS:
            raise MalformedRequest(
                "Credentials belong in the Authorization header, never in a URL; take these for known to others"
            )


# ---------------------------------------------------------------- what several resolvers need

BEARER_CHARS_MAX: Final = 8 << 10
_BEARER: Final = "bearer "


def bearer_token(evidence: Evidence) -> str | None:
    """The token of `Authorization: Bearer`, None where there is no such header or it has another scheme.

    Raises MalformedRequest for an empty one, InvalidToken for one of more than BEARER_CHARS_MAX characters. The characters are
    not looked at: whoever reads the token does that, where it does not know it already.
    """
    value = evidence.header("authorization")
    if value is None:
        return None
    if value[:7].lower() != _BEARER:
        if value.strip().lower() == "bearer":
            raise MalformedRequest("Authorization: Bearer has no token")
        return None
    token = value[7:].strip(" ")
    if not token:
        raise MalformedRequest("Authorization: Bearer has no token")
    if len(token) > BEARER_CHARS_MAX:
        raise InvalidToken("The token is too long")
    return token


_TOKEN_CHARS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")


def check_token_chars(token: str) -> None:
    """Raises MalformedRequest for what is no b64token (RFC 6750, section 2.1): two tokens in one header, say."""
    if not _TOKEN_CHARS.issuperset(token):
        raise MalformedRequest("Authorization: Bearer has characters that no token has")
