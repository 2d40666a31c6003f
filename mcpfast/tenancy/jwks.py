"""The keys of an issuer: fetched when they are needed, kept while they are good, and never fetched often.

One rule bounds the fetches: a new one begins RETRY_S after the last at the earliest, whatever asks for it (keys that are too old, a
key id that nobody knows, an issuer that is down). All who need it wait for the same one.

    age of the keys     what a call does
    < 3/4 of its life   uses them
    < its life          uses them; a fetch goes on beside it
    over                waits for a fetch, FETCH_S at most; where it fails, uses them for STALE_S more
    none at all         the same; where it fails, Unavailable (503)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from mcpfast.tenancy.denied import Unavailable
from mcpfast.tenancy.fetch import DOCUMENT_BYTES_MAX, Fetch, Fetched, check_url

if TYPE_CHECKING:
    from mcpfast.tenancy.signatures import SigningKey

RETRY_S: Final = 30.0
FETCH_S: Final = (
    8.0  # the metadata and the keys together; less than `Limits.identify_s`, so that callers are told why
)
LIFE_S: Final = 3_600.0  # where the issuer does not say (Cache-Control: max-age),
LIFE_MIN_S: Final = 300.0  # and what it says is held to
LIFE_MAX_S: Final = 86_400.0
STALE_S: Final = 86_400.0
KEYS_MAX: Final = 100
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,12})")
_FRESH_EACH_TIME: Final = re.compile(r"(?:^|[,\s])(?:no-store|no-cache)(?:$|[,\s])")
_log = logging.getLogger("mcpfast.tenancy")
_T = TypeVar("_T")


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Metadata(msgspec.Struct):
    issuer: str
    jwks_uri: str


class KeySet:
    """The keys of one issuer. May be shared by several loops.

    `url` is where they are; empty: where the issuer's metadata (RFC 8414, or OpenID Connect Discovery) says. `now` gives seconds
    since any fixed moment. Raises AddressError for a URL that may not be fetched from.
    """

    def __init__(self, issuer: str, fetch: Fetch, *, now: Callable[[], float], url: str = "") -> None:
        self.generation = 0  # rises whenever the keys are others than before
        self._issuer = issuer
        check_url(url or issuer, what="jwks_url" if url else "An issuer without jwks_url")
        self._url = url
        self._fetch = fetch
        self._now = now
        self._keys: dict[str, SigningKey] = {}
        self._tried_s = float("-inf")
        self._early_s = self._over_s = float("-inf")
        self._failing = False
        self._flight: concurrent.futures.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> SigningKey | None:
        """The key of this id, or the only key where a token names none; None where the issuer has no such key.

        Raises Unavailable where the issuer cannot be asked.
        """
        now = self._now()
        if now >= self._over_s:
            await self._refresh(now)
            if self._now() >= self._over_s + STALE_S:
                raise self._unavailable()
        elif now >= self._early_s:
            self._begin(now)
        key = self._pick(key_id)
        if key is None:
            await self._refresh(now)
            key = self._pick(key_id)
        if key is None and self._failing:  # it may well be a new key
            raise self._unavailable()
        return key

    def _pick(self, key_id: str | None) -> SigningKey | None:
        if key_id is not None:
            return self._keys.get(key_id)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _unavailable(self) -> Unavailable:
        again_s = max(1.0, self._tried_s + RETRY_S - self._now())
        return Unavailable("The keys of the token's issuer cannot be had", retry_after_s=again_s)

    # ---- fetching

    async def _refresh(self, now: float) -> None:
        """Waits for the fetch that is under way, or for a new one if one may begin. How it went, `self` knows."""
        flight = self._begin(now)
        if flight is not None:
            # A caller that goes away takes nobody along: the flight has a Task of its own. It is a future of `concurrent`
            # because callers may be on other loops than that Task.
            await asyncio.shield(asyncio.wrap_future(flight))

    def _begin(self, now: float) -> concurrent.futures.Future[None] | None:
        if self._flight is None and now - self._tried_s >= RETRY_S:
            self._tried_s = now
            self._flight = concurrent.futures.Future()
            self._task = asyncio.create_task(self._fly(self._flight), name="mcpfast keys of an issuer")
        return self._flight

    async def _fly(self, flight: concurrent.futures.Future[None]) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                fetched = await self._fetch_keys()
            self._take(fetched)
            self._failing = False
        except Exception as error:  # of the network, of whoever fetches, of what came: all mean "not now"
            self._failing = True
            _log.warning("The keys of %s cannot be had: %s: %s", self._issuer, type(error).__name__, error)
        finally:
            self._flight = self._task = None
            flight.set_result(None)

    async def _fetch_keys(self) -> Fetched:
        url = self._url or await self._discover()
        fetched = await self._fetch(url)
        if fetched.status != 200:
            raise ValueError(f"{url} answered with HTTP {fetched.status}")
        return fetched

    async def _discover(self) -> str:
        """Where the issuer says its keys are."""
        status = 0
        for url in metadata_urls(self._issuer):
            fetched = await self._fetch(url)
            if fetched.status == 200:
                metadata = _decode(fetched.body, _Metadata)
                if metadata.issuer != self._issuer:  # RFC 8414, section 3.3
                    raise ValueError(f"{url} is the metadata of another issuer")
                return self._checked(metadata.jwks_uri)
            status = fetched.status
        raise ValueError(f"no metadata found, the last answer was HTTP {status}")

    def _checked(self, jwks_uri: str) -> str:
        """http:// is for an issuer that is itself on loopback: no other may point us there."""
        check_url(jwks_uri, what="jwks_uri")
        if self._issuer.startswith("https:") and not jwks_uri.startswith("https:"):
            raise ValueError("jwks_uri is not https")
        return jwks_uri

    def _take(self, fetched: Fetched) -> None:
        keys = read_keys(fetched.body)
        if not keys:
            raise ValueError("no key in it can verify a signature")
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
        now, life_s = self._now(), life_of(fetched.headers)
        self._early_s, self._over_s = now + life_s * 0.75, now + life_s


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where RFC 8414 (section 3.1) and OpenID Connect Discovery put an issuer's metadata."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    inserted = f"/.well-known/oauth-authorization-server{path}"
    appended = f"{path}/.well-known/openid-configuration"
    return (
        urlunsplit((parts.scheme, parts.netloc, inserted, "", "")),
        urlunsplit((parts.scheme, parts.netloc, appended, "", "")),
    )


def life_of(headers: Mapping[str, str]) -> float:
    """How long, in seconds, the document is good: Cache-Control, held between LIFE_MIN_S and LIFE_MAX_S."""
    control = headers.get("cache-control", "").lower()
    if _FRESH_EACH_TIME.search(control):
        return LIFE_MIN_S
    age = _MAX_AGE.search(control)
    return LIFE_S if age is None else min(max(float(age[1]), LIFE_MIN_S), LIFE_MAX_S)


def read_keys(body: bytes) -> dict[str, SigningKey]:
    """The keys of a JWK Set (RFC 7517) that we use, by their ids; of two with one id, the first.

    Raises ValueError for another document.
    """
    from mcpfast.tenancy.signatures import read_key

    keys: dict[str, SigningKey] = {}
    for jwk in _decode(body, _Document).keys[:KEYS_MAX]:
        key = read_key(jwk)
        if key is not None:
            keys.setdefault(key.id, key)
    return keys


def _decode(body: bytes, type: type[_T]) -> _T:
    if len(body) > DOCUMENT_BYTES_MAX:
        raise ValueError(f"the document has more than {DOCUMENT_BYTES_MAX:,} bytes")
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("the document is not what it should be") from None
