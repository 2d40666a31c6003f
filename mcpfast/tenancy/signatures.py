"""Tokens and keys as joserfc knows them: the only room that imports it, imported when JWTs are configured.

The algorithm is a property of the key. What a token's header says must be that, and decides nothing: so `none`, and an HMAC made
with somebody's public key, have no key that they fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key, OctKey, import_key
from joserfc.jws import CompactSignature, JWSRegistry, extract_compact, validate_compact

from mcpfast.tenancy.issuers import SECRET_BYTES_MIN

RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 8_192  # the time of a verification grows with the square
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),  # the same algorithm, before and since RFC 9864
}
_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
# A token that brings its own key, or says where to fetch it, has nothing to say. `crit` and `b64` change how it is to be read.
_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c"})
_TYPES: Final = frozenset({"jwt", "at+jwt"})  # RFC 9068; a logout token or a proof is of another type
_BROKEN: Final = (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class SigningKey(NamedTuple):
    """A key that verifies, and the algorithms that it may be used with."""

    id: str
    algorithms: frozenset[str]
    key: Key

    def __repr__(self) -> str:
        return f"SigningKey({self.id!r}, {'/'.join(sorted(self.algorithms))})"


class Unverified(NamedTuple):
    """A token that was read, and is not to be believed before `verify` says so."""

    compact: CompactSignature
    algorithm: str
    key_id: str | None
    claims: dict[str, Any]


class _Registry(JWSRegistry):
    """The algorithms of one key. joserfc's own warns at each use of the name EdDSA, which is what issuers still write."""

    max_header_length = 2_048
    max_signature_length = RSA_BITS_MAX // 6 + 1

    def get_alg(self, name: str) -> Any:
        if self.allowed is None or name not in self.allowed:
            raise UnsupportedAlgorithmError("Another algorithm than the key's")
        return self.algorithms[name]


_reading = _Registry(strict_check_header=False)
_registries: dict[frozenset[str], _Registry] = {}  # as many as there are algorithms, or two that are one


def read(token: str) -> Unverified | None:
    """The parts of a signed JWT in its compact form; None for what is none, or has a header that we refuse."""
    try:
        compact = extract_compact(token.encode(), registry=_reading)
        claims = msgspec.json.decode(compact.payload, type=dict[str, Any])
    except _BROKEN:
        return None
    header: object = compact.protected
    if not isinstance(header, dict) or not _REFUSED_HEADERS.isdisjoint(header):
        return None
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None) or not isinstance(kind, str):
        return None
    if kind.lower().removeprefix("application/") not in _TYPES:
        return None
    return Unverified(compact, algorithm, key_id, claims)


def verify(token: Unverified, key: SigningKey) -> bool:
    """Whether the signature is the key's, by an algorithm of the key."""
    registry = _registries.get(key.algorithms)
    if registry is None:
        registry = _registries[key.algorithms] = _Registry(
            algorithms=key.algorithms, strict_check_header=False
        )
    try:
        return validate_compact(token.compact, key.key, registry=registry)
    except _BROKEN:
        return False


def read_key(jwk: Mapping[str, Any]) -> SigningKey | None:
    """A public key of a JWK Set; None for one that we do not use: another use, unknown, weak, symmetric, broken."""
    kind = jwk.get("kty")
    members = _PUBLIC_MEMBERS.get(kind) if isinstance(kind, str) else None
    if members is None or jwk.get("use", "sig") != "sig" or not _verifies(jwk):
        return None
    try:
        algorithms = _algorithms_of(jwk)
        if not algorithms or (kind == "RSA" and not RSA_BITS_MIN <= _bits_of(jwk["n"]) <= RSA_BITS_MAX):
            return None
        # Only what is public: an issuer that publishes its private key by mistake does not hand it to us.
        key = import_key({name: jwk[name] for name in ("kty", *members)})
    except _BROKEN:
        return None
    key_id = jwk.get("kid", "")
    return SigningKey(key_id, algorithms, key) if isinstance(key_id, str) else None


def secret_key(secret: bytes) -> SigningKey:
    """The key of HS256. Raises ValueError for fewer than SECRET_BYTES_MIN bytes."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"a shared secret has at least {SECRET_BYTES_MIN} bytes, not {len(secret)}")
    return SigningKey("", frozenset({"HS256"}), OctKey.import_key(secret))


def _verifies(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """By the type of the key; an RSA key may say which of its kind, RS256 otherwise."""
    said = jwk.get("alg")
    if jwk["kty"] == "RSA":
        return frozenset({"RS256"}) if said is None else _RSA & {said}
    possible = _CURVES.get(jwk["crv"], frozenset())
    return possible if said is None or said in possible else frozenset()


def _bits_of(modulus: str) -> int:
    from base64 import urlsafe_b64decode

    return int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big").bit_length()
