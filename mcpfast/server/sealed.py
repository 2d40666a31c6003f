"""Small things that the client keeps for us: sealed, so that it can neither read nor change them.

Used for `requestState` (2026-07-28, multi round-trip requests, section 27) and for cursors (section 19). A token is

    v1.<key id>.<base64url without padding of: nonce (12) | ciphertext | tag (16)>

AES-256-GCM under a key that HKDF-SHA256 derives for one purpose. The plaintext is the expiry (8 bytes, milliseconds since
the epoch) and the payload. The associated data are version, key id, purpose, server and binding, each with its length before
it, so nothing can be moved from one field, key, server or purpose to another.

Workers with the same key ring open each other's tokens. To change a key without a break, each step rolled out everywhere
before the next: `old` -> `old,new` -> `new,old` -> `new`, the last once the longest life of a token is over. Nonces are random:
change a key before it has sealed 2**32 tokens.

cryptography takes 30 ms to import, so only a call that seals or opens pays for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mcpfast.errors import McpFastError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION: Final = "v1"
SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
EXPIRY_BYTES: Final = 8
KEY_ID_CHARS_MAX: Final = 32
KEY_ID_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
TOKEN_CHARS_MAX: Final = 1 << 20
NEW_SECRET: Final = "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"


class SealError(McpFastError):
    """A token that is not ours, not for this use, or too old. Says no more on purpose: who tampers learns nothing."""

    def __init__(self) -> None:
        super().__init__("the sealed value is invalid or expired")


class KeyRingError(McpFastError, ValueError):
    """Keys that cannot be used. The message names the entry and what to do, never a secret."""


class KeyRing:
    """Secrets of 32 random bytes with their ids: the first one seals, each of them opens."""

    __slots__ = ("_secrets", "first_id")

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """Raises KeyRingError for no key at all, an id that is malformed or used twice, a secret that is not 32 bytes long."""
        self._secrets: dict[str, bytes] = {}
        for number, (key_id, secret) in enumerate(keys, 1):
            _check_key_id(key_id, number)
            if key_id in self._secrets:
                raise KeyRingError(f"the key id {key_id!r} is used twice; give each key an id of its own")
            _check_secret(key_id, secret)
            self._secrets[key_id] = secret
        if not self._secrets:
            raise KeyRingError("a key ring needs at least one key; KeyRing.generate() makes one")
        self.first_id = next(iter(self._secrets))

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = os.urandom) -> KeyRing:
        """One new key, known to this process alone: what it seals, no other worker opens."""
        return cls([(f"p{random(4).hex()}", random(SECRET_BYTES))])

    @classmethod
    def from_env(cls, name: str = "MCPFAST_STATE_KEYS", environ: Mapping[str, str] = os.environ) -> KeyRing:
        """The keys in an environment variable: "k2:SECRET,k1:SECRET", each secret 32 bytes in base64url, padded or not.

        Raises KeyRingError where the variable is missing or malformed.
        """
        text = environ.get(name, "")
        if not text.strip():
            raise KeyRingError(f'{name} is not set; it holds "id:secret", the secret made by {NEW_SECRET}')
        try:
            return cls(_read_key(entry, number) for number, entry in enumerate(text.split(","), 1))
        except KeyRingError as error:
            raise KeyRingError(f"{name}: {error}") from None

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids, the one that seals first."""
        return tuple(self._secrets)

    def derive(self, key_id: str, purpose: str) -> bytes | None:
        """The 32 byte key of one purpose, None for an unknown id. Who has it has neither the secret nor any other purpose's."""
        secret = self._secrets.get(key_id)
        if secret is None:
            return None
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = b"mcpfast " + VERSION.encode() + b" seal: " + purpose.encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._secrets)}; secrets not shown)"


def _check_key_id(key_id: object, number: int) -> None:
    if (
        not isinstance(key_id, str)
        or not 0 < len(key_id) <= KEY_ID_CHARS_MAX
        or set(key_id) - KEY_ID_ALPHABET
    ):
        # The id itself is not shown: where somebody confused the two, it is the secret.
        raise KeyRingError(
            f"the id of key {number} must be 1 to {KEY_ID_CHARS_MAX} letters, digits, '-' or '_'"
        )


def _check_secret(key_id: str, secret: object) -> None:
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        found = f"{len(secret)} bytes" if isinstance(secret, bytes) else f"a {type(secret).__name__}"
        raise KeyRingError(
            f"the secret of key {key_id!r} is {found}; {SECRET_BYTES} random bytes are needed, made by {NEW_SECRET}"
        )


def _read_key(entry: str, number: int) -> tuple[str, bytes]:
    key_id, colon, text = entry.strip().partition(":")
    if not colon:
        raise KeyRingError(f'entry {number} is not "id:secret"')
    secret = _decode_base64url(text.strip().rstrip("="))
    if secret is None:
        raise KeyRingError(f"the secret of entry {number} is not base64url; make one by {NEW_SECRET}")
    return key_id.strip(), secret


class Sealer:
    """Seals and opens the tokens of one server. Safe to share between threads.

    `server` names the server: workers that share keys and name open each other's tokens. `now` gives seconds since the epoch,
    `random(n)` n random bytes.
    """

    __slots__ = ("_ciphers", "_now", "_random", "_ring", "_server")

    def __init__(
        self,
        ring: KeyRing,
        *,
        server: str,
        now: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._ring = ring
        self._server = server
        self._now = now
        self._random = random
        self._ciphers: dict[tuple[str, str], AESGCM] = {}

    def seal(self, payload: bytes, *, purpose: str, binding: bytes, ttl_s: float) -> str:
        """A token that opens for `ttl_s` seconds, for the same purpose and binding only.

        Raises ValueError for a payload whose token would be longer than TOKEN_CHARS_MAX, or a ttl that is not above 0.
        """
        if not 0 < ttl_s < float("inf"):
            raise ValueError(f"ttl_s must be a positive number of seconds, not {ttl_s!r}")
        key_id = self._ring.first_id
        size = (
            len(VERSION)
            + len(key_id)
            + 2
            + (NONCE_BYTES + EXPIRY_BYTES + len(payload) + TAG_BYTES) * 4 // 3
            + 1
        )
        if size > TOKEN_CHARS_MAX:
            raise ValueError(
                f"{len(payload)} bytes are too many to be sealed: a token has at most {TOKEN_CHARS_MAX} characters; "
                "keep what is large elsewhere and seal its name"
            )
        cipher = self._cipher(key_id, purpose)
        assert cipher is not None
        nonce = self._random(NONCE_BYTES)
        expires_ms = int((self._now() + ttl_s) * 1000)
        plain = expires_ms.to_bytes(EXPIRY_BYTES, "big") + payload
        sealed = cipher.encrypt(nonce, plain, self._associated(key_id, purpose, binding))
        return f"{VERSION}.{key_id}.{_encode_base64url(nonce + sealed)}"

    def open(self, token: str, *, purpose: str, binding: bytes) -> bytes:
        """The payload of a token. Raises SealError, the same one for every reason."""
        plain = self._decrypt(token, purpose, binding)
        if plain is None or int(self._now() * 1000) >= int.from_bytes(plain[:EXPIRY_BYTES], "big"):
            raise SealError
        return plain[EXPIRY_BYTES:]

    def _decrypt(self, token: str, purpose: str, binding: bytes) -> bytes | None:
        if len(token) > TOKEN_CHARS_MAX or token.count(".") != 2:
            return None
        version, key_id, text = token.split(".")
        if version != VERSION:
            return None
        sealed = _decode_base64url(text)
        if sealed is None or len(sealed) < NONCE_BYTES + EXPIRY_BYTES + TAG_BYTES:
            return None
        cipher = self._cipher(key_id, purpose)
        if cipher is None:
            return None
        from cryptography.exceptions import InvalidTag

        associated = self._associated(key_id, purpose, binding)
        try:
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
        except InvalidTag:
            return None

    def _cipher(self, key_id: str, purpose: str) -> AESGCM | None:
        cipher = self._ciphers.get((key_id, purpose))
        if cipher is None:
            key = self._ring.derive(key_id, purpose)
            if key is None:
                return None
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher = self._ciphers[key_id, purpose] = AESGCM(key)  # as many as keys times purposes, both ours
        return cipher

    def _associated(self, key_id: str, purpose: str, binding: bytes) -> bytes:
        fields = (VERSION.encode(), key_id.encode(), purpose.encode(), _utf8(self._server), binding)
        return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def _encode_base64url(data: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode_base64url(text: str) -> bytes | None:
    """The bytes, or None for what is not the one canonical text of any bytes: no padding, no stray bits, no other characters."""
    from base64 import urlsafe_b64decode

    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if _encode_base64url(data) == text else None


# ---------------------------------------------------------------- what a requestState is bound to


def call_binding(principal: str, method: str, name: str, arguments: bytes) -> bytes:
    """32 bytes that stand for one call of one principal: `name` is the tool, prompt or URI, `arguments` its JSON text.

    A client may write the JSON of its retry anew, so it is the value that counts: order of members, white space, escapes and
    the way a number is written (1, 1.0, 10e-1) make no difference. Numbers are compared exactly, however large or fine. Absent
    (b""), null and {} are the same. Raises ValueError for what is no JSON text.
    """
    from hashlib import blake2b

    digest = blake2b(digest_size=32, person=b"mcpfast call v1")
    for field in (_utf8(principal), _utf8(method), _utf8(name), _canonical(arguments)):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()


class _Number:
    """A JSON number by its exact value, so that no other one looks the same."""

    __slots__ = ("text",)

    def __init__(self, literal: str) -> None:
        mantissa, _, exponent = literal.lower().partition("e")
        sign = "-" if mantissa.startswith("-") else ""
        whole, _, fraction = mantissa.lstrip("-").partition(".")
        digits = (whole + fraction).lstrip("0")
        significant = digits.rstrip("0")
        try:
            power = int(exponent or "0") - len(fraction) + len(digits) - len(significant)
        except ValueError:  # an exponent of thousands of digits
            self.text = literal
        else:
            self.text = f"{sign}{significant}e{power}" if significant else "0"


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is no JSON number")


def _canonical(text: bytes) -> bytes:
    """A JSON value as bytes, the same for the same value and different for any other."""
    if text.strip() in (b"", b"null"):
        text = b"{}"
    import json  # the one parser here that hands over numbers as they are written

    try:
        value = json.loads(
            text.decode(), parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
        )
        parts: list[bytes] = []
        _write(value, parts)
    except RecursionError:
        raise ValueError("the arguments are nested too deeply") from None
    return b"".join(parts)


def _write(value: Any, parts: list[bytes]) -> None:
    """Each value begins with its kind and its length, so no two values give the same bytes."""
    if isinstance(value, str):
        _write_text(b"s", value, parts)
    elif isinstance(value, _Number):
        _write_text(b"#", value.text, parts)
    elif isinstance(value, dict):
        parts.append(b"{%d:" % len(value))
        for name in sorted(value):
            _write_text(b"s", name, parts)
            _write(value[name], parts)
    elif isinstance(value, list):
        parts.append(b"[%d:" % len(value))
        for item in value:
            _write(item, parts)
    else:
        parts.append({None: b"n", True: b"t", False: b"f"}[value])


def _write_text(kind: bytes, text: str, parts: list[bytes]) -> None:
    data = _utf8(text)
    parts.append(b"%b%d:%b" % (kind, len(data), data))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
