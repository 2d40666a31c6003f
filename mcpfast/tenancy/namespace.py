"""What a tenant may be called, and where its keys live: nothing a key says can lead out of its tenant's prefix.

A tenant's id stands in URL paths, host names, headers, file names, metric labels and keys of stores. So its alphabet is what all of
these take as it is: small ASCII letters, digits, and ``. _ -`` between them, 63 at most (the label of a host name). No capitals,
since host names and some file systems do not tell them apart; nothing outside ASCII, since two ids that look the same, or that
Unicode calls the same, must not be two tenants. Any text may be the tenant's *name*.

Keys are data, and bytes of one key are never another's: they are not normalized, and encoded so that

- every encoded key begins with the prefix of its tenant, and holds no ``/`` behind it but those of a path;
- two different (tenant, key) never become one, and the key can be read back;
- the result is of ASCII letters, digits and ``/ . _ - %`` only, and 1,024 bytes at most, which every store takes.

A store that does not tell capitals from small letters needs an encoding of its own on top.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from mcpfast.errors import McpFastError

TENANT_ID_MAX = 63
ENCODED_BYTES_MAX = 1_024  # S3's longest key, and DynamoDB's longest sort key
URI_BYTES_MAX = 4_096
_TENANT_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_AS_IT_IS = [chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256)]
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986, 2.3
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_HOST = re.compile("//[^/?#]*")
_DECODINGS_MAX = 8  # of "%2525..2F"; who nests deeper means no good


class UnsafeName(McpFastError, ValueError):
    """A tenant id, key, path or URI that is refused before any store sees it. The text does not repeat it."""


def check_tenant_id(id: str) -> str:
    """`id`, where it may be a tenant's. Raises UnsafeName, which says what is wrong with it."""
    if not id:
        raise UnsafeName("a tenant's id is not empty")
    if len(id) > TENANT_ID_MAX:
        raise UnsafeName(f"a tenant's id has at most {TENANT_ID_MAX} letters, not {len(id):,}")
    if _TENANT_ID.fullmatch(id) is None:
        raise UnsafeName(
            "a tenant's id is of small letters a-z, digits, and . _ - between them: it begins and ends with a letter or digit"
        )
    if ".." in id:
        raise UnsafeName("a tenant's id has no two dots in a row")
    return id


class Namespace(NamedTuple):
    """The keys of one tenant. `tenant` is an id that `check_tenant_id` let pass."""

    tenant: str

    @property
    def prefix(self) -> str:
        """What all encoded keys and paths of this tenant begin with, and those of no other."""
        return f"t/{self.tenant}/"

    def encode_key(self, key: str) -> str:
        """Any text but the empty one, as one name under the prefix. Raises UnsafeName for what no store should see."""
        return self._whole(f"k/{_segment(_bytes_of(key))}")

    def encode_path(self, path: str) -> str:
        """Names with ``/`` between them, under the prefix. Raises UnsafeName for what some store could read as a step aside:
        empty names, ``.`` and ``..``, backslashes, and all of these percent-encoded, however often."""
        return self._whole("p/" + "/".join(map(_segment, checked_path(path).encode().split(b"/"))))

    def decode(self, encoded: str) -> str:
        """The key or path that was encoded. Raises UnsafeName for what this tenant never encoded."""
        kind, text = encoded[len(self.prefix) :][:2], encoded[len(self.prefix) + 2 :]
        try:
            key = unquote(text, errors="strict")
            if encoded == (self.encode_key(key) if kind == "k/" else self.encode_path(key)):
                return key
        except (UnsafeName, UnicodeDecodeError):
            pass
        raise UnsafeName("not a key of this tenant")

    def _whole(self, encoded: str) -> str:
        whole = self.prefix + encoded
        if len(whole) > ENCODED_BYTES_MAX:
            raise UnsafeName(f"a key has at most {ENCODED_BYTES_MAX:,} bytes, encoded and with its tenant")
        return whole


def checked_path(path: str) -> str:
    """`path`, where it leads nowhere but down. Raises UnsafeName."""
    for text in _decodings(path):
        if "\\" in text:
            raise UnsafeName("a path has no backslash")
        if text.count("/") != path.count("/"):
            raise UnsafeName("a path has no encoded slash")
        for segment in text.split("/"):
            if segment in ("", ".", ".."):
                raise UnsafeName("a path has no empty name, no '.' and no '..'")
    return path


def canonical_uri(uri: str) -> str:
    """The one spelling of a URI (RFC 3986, 6.2.2) by which it is held against patterns: scheme and host small, nothing encoded
    that need not be. Raises UnsafeName for ``..`` segments, encoded slashes, NUL and the like, which another spelling of
    the same place could hide behind.
    """
    if len(uri) > URI_BYTES_MAX:
        raise UnsafeName(f"a URI has at most {URI_BYTES_MAX:,} bytes")
    slashes = uri.count("/")
    for text in _decodings(uri):
        if "\\" in text:
            raise UnsafeName("a URI has no backslash")
        if text.count("/") != slashes:
            raise UnsafeName("a URI has no encoded slash")
        if any(segment in (".", "..") for segment in re.split("[/?#]", text)):
            raise UnsafeName("a URI has no '.' and no '..' between its slashes")
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return _plain_escapes(uri)
    host = _HOST.match(rest)
    if host is not None:  # capitals that are encoded are capitals, too
        rest = _plain_escapes(host[0]).lower() + rest[host.end() :]
    return f"{scheme.lower()}:{_plain_escapes(rest)}"


def _decodings(text: str) -> list[str]:
    """The text, and what it becomes when it is percent-decoded once, twice, and so on, until nothing changes any more."""
    _bytes_of(text)
    found = [text]
    while "%" in text:
        text = unquote(text, errors="replace")
        if text == found[-1]:
            break
        if "\0" in text:
            raise UnsafeName("a NUL, encoded")
        found.append(text)
        if len(found) > _DECODINGS_MAX:
            raise UnsafeName("percent-encoded over and over")
    return found


def _plain_escapes(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        letter = chr(int(found[1], 16))
        return letter if letter in _UNRESERVED else found[0].upper()

    return _ESCAPE.sub(plain, text)


def _bytes_of(key: str) -> bytes:
    """The key's UTF-8. Raises UnsafeName where it is empty, too long, has a NUL, or half a surrogate pair."""
    if not key:
        raise UnsafeName("a key is not empty")
    if len(key) > URI_BYTES_MAX:
        raise UnsafeName(f"a key has at most {ENCODED_BYTES_MAX:,} bytes, encoded and with its tenant")
    if "\0" in key:
        raise UnsafeName("a key has no NUL")
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise UnsafeName("a key is Unicode text, without halves of surrogate pairs") from None


def _segment(name: bytes) -> str:
    """One name, without anything that means something to a path: a name of dots alone has its first one encoded."""
    encoded = "".join(map(_AS_IT_IS.__getitem__, name))
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded
