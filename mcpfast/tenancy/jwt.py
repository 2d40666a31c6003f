"""`Authorization: Bearer` with a JWT of an issuer that we believe (RFC 9068, RFC 8725; protocol notes, section 34).

A token is verified once, then known by its digest. What is known is forgotten after CACHED_S, or when the token expires, the issuer
changes its keys, or the tenant's tokens are revoked; then it is verified anew.

Revoking: `TenantRecord.token_generation` is the second (since the epoch) in which the tenant's tokens were last revoked. A token
that was not issued after it is refused, on every worker and after every restart; one that does not say when it was issued, too.

A verification takes 30 us (RS256) to 130 us (EdDSA), and cryptography holds the GIL in it: two threads verify no more a second than
one, and the way into a thread and back is 50 us on top. So the loop does it, one a turn (`_Turns`): between two of them everything
else that is ready runs, and however many bad tokens come, a call of somebody else waits for one verification at most. What costs
less (size, form, issuer, times, audience, key: 15 us) is looked at before, so that only a token with all of that right, but the
signature, gets there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mcpfast.errors import RegistrationError
from mcpfast.tenancy.denied import InvalidToken, Unavailable
from mcpfast.tenancy.identity import Claim
from mcpfast.tenancy.issuers import InvalidForNow, Issuer, accept, check_apart, claim_of
from mcpfast.tenancy.jwks import KeySet
from mcpfast.tenancy.resolvers import Evidence, Memberships, bearer_token, check_token_chars

if TYPE_CHECKING:
    from mcpfast.tenancy.fetch import Fetch
    from mcpfast.tenancy.signatures import SigningKey, Unverified

CACHED_S: Final = 60.0
REFUSED_S: Final = 5.0  # a token that was found bad is refused unread
ENTRIES_MAX: Final = 65_536  # about a kilobyte each; one too few, and clients in turns find none
REFUSED_ENTRIES_MAX: Final = 4_096
WAITING_MAX: Final = 256  # verifications; above it 503
NO_SIGNATURE = "The token's signature is not valid"


_Value = TypeVar("_Value")


class SecretKey:
    """The one key of an issuer with a shared secret; where a KeySet stands otherwise."""

    generation = 1

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    async def find(self, key_id: str | None) -> SigningKey | None:
        return self._key


class _Known(NamedTuple):
    claim: Claim
    home: str  # the tenant that can revoke it: the one that it is for, or the person's own
    tenants: frozenset[str] | None
    until_s: float
    keys: KeySet | SecretKey
    key_generation: int
    tenant_generation: int


class JwtBearer:
    """Resolver of JWTs. Takes every bearer token that has the form of one (three parts).

    `memberships` is asked for the tenant's `token_generation`, `now` gives seconds since the epoch, `fetch` gets a URL (over HTTPS,
    by aiohttp, when none is given). Raises RegistrationError for issuers that could be taken for each other or a secret that is too
    short, AddressError for a URL that must not be fetched from.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        memberships: Memberships,
        *,
        now: Callable[[], float],
        fetch: Fetch | None = None,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        issuers = tuple(issuers)
        check_apart(issuers)
        _load()
        self._issuers = {issuer.issuer: (issuer, _keys_of(issuer, fetch, now)) for issuer in issuers}
        self._memberships = memberships
        self._now = now
        self._entries_max = entries_max
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._turns = _Turns()

    async def resolve(self, evidence: Evidence) -> Claim | None:
        """The claim of a JWT, None without one. Raises InvalidToken, MalformedRequest, or Unavailable."""
        value = evidence.header("authorization")
        if value is None:
            return None
        # Of the whole header, so that one that is known is not even taken apart.
        digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None or not self._holds(known):
            token = bearer_token(evidence)
            if token is None or token.count(".") != 2:
                return None
            known = await self._verify(token, digest)
        else:
            try:
                self._known.move_to_end(digest)
            except KeyError:  # another thread has just let it go
                pass
        if known.tenants is not None:
            tenant = evidence.meant() or known.claim.tenant
            if tenant not in known.tenants:
                raise InvalidToken("The token is for another audience")
        return known.claim

    def _holds(self, known: _Known) -> bool:
        if self._now() >= known.until_s or known.key_generation != known.keys.generation:
            return False
        record = self._memberships.find(known.home)
        return known.tenant_generation == (0 if record is None else record.token_generation)

    # ---- what is not known yet

    async def _verify(self, token: str, digest: bytes) -> _Known:
        refused = self._refused.get(digest)
        if refused is not None and self._now() < refused[0]:
            raise InvalidToken(refused[1])
        try:
            return await self._read(token, digest)
        except InvalidForNow:
            raise
        except InvalidToken as bad:
            _remember(self._refused, digest, (self._now() + REFUSED_S, bad.message), REFUSED_ENTRIES_MAX)
            raise

    async def _read(self, token: str, digest: bytes) -> _Known:
        from mcpfast.tenancy.signatures import read, verify

        check_token_chars(token)
        unverified = read(token)
        if unverified is None:
            raise InvalidToken("The token cannot be read, or is of a kind that is not accepted here")
        found = self._issuers.get(_issuer_of(unverified))
        if found is None:
            raise InvalidToken("The token's issuer is not accepted here")
        issuer, keys = found
        accepted = accept(issuer, unverified.claims, self._now())
        key = await keys.find(unverified.key_id)
        if key is None or unverified.algorithm not in key.algorithms:
            raise InvalidForNow("The token is not signed with a key of its issuer")
        key_generation = keys.generation
        with self._turns.queue() as turn:
            async with turn:
                await asyncio.sleep(0)  # everything else that is ready comes first
                known = self._known.get(digest)
                if known is not None and self._holds(known):  # the same token came twice
                    return known
                if not verify(unverified, key):
                    raise InvalidToken(NO_SIGNATURE)
        # Only now: who can sign nothing is not told which tenants there are.
        claim = claim_of(issuer, unverified.claims, accepted.expires_s)
        home = claim.tenant or claim.principal.id
        generation = self._check_revoked(home, accepted.issued_s)
        until_s = min(accepted.expires_s, self._now() + CACHED_S)
        known = _Known(claim, home, accepted.tenants, until_s, keys, key_generation, generation)
        _remember(self._known, digest, known, self._entries_max)
        return known

    def _check_revoked(self, home: str, issued_s: float) -> int:
        record = self._memberships.find(home)
        generation = 0 if record is None else record.token_generation
        if generation and issued_s <= generation:
            raise InvalidToken("The token has been revoked")
        return generation


class _Queue:
    """Of one loop: whose turn it is to verify, and how many wait for theirs.

    No async generator: one that waits keeps its turn for good when the coroutine that waits for it is closed (before Python 3.13).
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0

    def __enter__(self) -> asyncio.Lock:
        if self.waiting >= WAITING_MAX:
            raise Unavailable("Too many new tokens at once", retry_after_s=1.0)
        self.waiting += 1
        return self.turn

    def __exit__(self, *error: object) -> None:
        self.waiting -= 1


class _Turns:
    """One verification in each turn of a loop, first come first served, and not too many waiting."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}

    def queue(self) -> _Queue:
        """Of the running loop. To enter it raises Unavailable where too many wait already."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            self._queues = {known: queue for known, queue in self._queues.items() if not known.is_closed()}
            queue = self._queues[loop] = _Queue()
        return queue


def _remember(entries: OrderedDict[bytes, _Value], digest: bytes, value: _Value, entries_max: int) -> None:
    entries[digest] = value
    entries.move_to_end(digest)
    if len(entries) > entries_max:
        entries.popitem(last=False)


def _issuer_of(token: Unverified) -> str:
    issuer = token.claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def _load() -> None:
    """joserfc takes 50 ms to import: now, and not when the first token comes."""
    try:
        import mcpfast.tenancy.signatures  # noqa: F401
    except ImportError:
        raise RegistrationError(
            "JWTs are verified with joserfc, which is not installed: pip install 'mcpfast[auth]'"
        ) from None


def _keys_of(issuer: Issuer, fetch: Fetch | None, now: Callable[[], float]) -> KeySet | SecretKey:
    if issuer.secret:
        from mcpfast.tenancy.signatures import secret_key

        return SecretKey(secret_key(issuer.secret))
    if fetch is None:
        from mcpfast.tenancy.fetch import HttpsFetch

        fetch = HttpsFetch()
    return KeySet(issuer.issuer, fetch, now=now, url=issuer.jwks_url)
