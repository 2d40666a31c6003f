"""One GET of a small JSON document: how keys and metadata of an issuer come here. aiohttp does the HTTP, as for our client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from mcpfast.errors import AddressError

DOCUMENT_BYTES_MAX: Final = 256 << 10  # hundred keys of 4,096 bits are 80 KiB
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Fetched(NamedTuple):
    """What came: names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# May raise whatever it likes: the caller takes all of it for "not now".
Fetch = Callable[[str], Awaitable[Fetched]]


def check_url(url: str, *, what: str) -> str:
    """`url`, where it may be fetched from: https, or http on loopback. Raises AddressError."""
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname in LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise AddressError(f"{what} must be an https:// URL (http:// on loopback only), not {url!r}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise AddressError(f"{what} must be a URL without user, password and fragment")
    return url


class HttpsFetch:
    """Fetches over HTTP: no redirect is followed, no cookie kept, no proxy asked, and nothing stays open.

    Raises AddressError without aiohttp.
    """

    def __init__(self) -> None:
        try:
            import aiohttp
        except ImportError:
            raise AddressError(
                "The keys of an issuer are fetched with aiohttp, which is not installed: pip install 'mcpfast[auth]'"
            ) from None
        self._aiohttp = aiohttp

    async def __call__(self, url: str) -> Fetched:
        """Raises ValueError for more than DOCUMENT_BYTES_MAX. Whoever calls bounds the time."""
        # Nothing compressed: what is small on the way could be anything here.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        jar = self._aiohttp.DummyCookieJar()
        async with self._aiohttp.ClientSession(cookie_jar=jar, auto_decompress=False) as session:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 14):
                    body += chunk
                    if len(body) > DOCUMENT_BYTES_MAX:
                        raise ValueError(f"the document has more than {DOCUMENT_BYTES_MAX:,} bytes")
                names = {name.lower(): value for name, value in response.headers.items()}
                return Fetched(response.status, names, bytes(body))
