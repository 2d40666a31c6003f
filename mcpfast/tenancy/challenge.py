"""How a refusal is told: status and headers over HTTP (protocol notes, section 34), a JSON-RPC error everywhere.

A `Denied` is its JSON-RPC error already. What HTTP says besides depends on the resource that was asked for: its metadata
(RFC 9728) is where a client learns which authorization server gives tokens for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec

from mcpfast.errors import RegistrationError
from mcpfast.tenancy.denied import Denied, InsufficientScope

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
# What a challenge must not ask for (AU7): whether a client gets a refresh token is between it and its user.
NEVER_ASKED: Final = frozenset({"offline_access"})
_PORTS: Final = {"https": ":443", "http": ":80"}


class HttpAnswer(NamedTuple):
    """Status and headers; the body is the JSON-RPC error, where the request had an id."""

    status: int
    headers: tuple[tuple[str, str], ...]


class ProtectedResource:
    """One endpoint that wants tokens: with a path for each tenant, one for each.

    `url` is what clients ask for (`aud` of their tokens), `authorization_servers` the issuers of these, at least one, `scopes` the
    few that a client should ask for at first. `root` is the path of `url` at which the endpoint is mounted in a larger site: it is
    asked for nothing above, so the metadata stand below. Raises RegistrationError for what cannot be said in a header.
    """

    def __init__(
        self,
        url: str,
        authorization_servers: Iterable[str],
        scopes: Iterable[str] = (),
        *,
        root: str = "",
    ) -> None:
        self.url = canonical_resource(url)
        self.authorization_servers = tuple(authorization_servers)
        self.scopes = _askable(scopes)
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.netloc or not _is_plain(self.url):
            raise RegistrationError(f"A protected resource has an http(s):// URL of plain ASCII, not {url!r}")
        if not self.authorization_servers:
            raise RegistrationError(f"The protected resource {url} needs an authorization server")
        self.metadata_path = WELL_KNOWN + parts.path.removeprefix(root)
        where = root + self.metadata_path
        self.metadata_url = urlunsplit((parts.scheme, parts.netloc, where, parts.query, ""))

    def metadata(self) -> bytes:
        """The document at `metadata_path`: for everybody, and cacheable (AU2)."""
        document: dict[str, object] = {
            "resource": self.url,
            "authorization_servers": self.authorization_servers,
            "bearer_methods_supported": ["header"],
        }
        if self.scopes:
            document["scopes_supported"] = self.scopes
        return msgspec.json.encode(document)

    def answer(self, refusal: Denied) -> HttpAnswer:
        """What HTTP says of a refusal: 401 (AU1), 403 (AU5), 400 (AU6), or 503 with the time to come back."""
        return answer(refusal, _quoted("resource_metadata", self.metadata_url), self.scopes)


def answer(refusal: Denied, where: str = "", scopes: tuple[str, ...] = ()) -> HttpAnswer:
    """The same where no authorization server is known: `where` says that of the metadata, `scopes` what a first token needs."""
    headers: list[tuple[str, str]] = []
    challenge = _challenge(refusal, where, scopes)
    if challenge:
        headers.append(("WWW-Authenticate", challenge))
    if refusal.retry_after_s > 0:
        headers.append(("Retry-After", str(math.ceil(refusal.retry_after_s))))
    return HttpAnswer(refusal.status, tuple(headers))


def _challenge(refusal: Denied, where: str, scopes: tuple[str, ...]) -> str:
    """No other token would help who is forbidden or comes too early, so they get none."""
    error = _quoted("error", refusal.error_code) if refusal.error_code else ""
    description = _quoted("error_description", refusal.message) if refusal.error_code else ""
    if isinstance(refusal, InsufficientScope):
        scope = _quoted("scope", " ".join(_askable(refusal.scopes)))
        return _bearer(error, scope, where, description)
    if refusal.status == 401:
        asked = " ".join(_askable(refusal.scopes) or scopes)
        return _bearer(where, _quoted("scope", asked) if asked else "", error, description)
    return _bearer(error, description) if refusal.status == 400 else ""


def canonical_resource(url: str) -> str:
    """A resource's URL as it is compared (RFC 8707; AU2, AU8): scheme and host in lower case, no default port, no slash at the end.

    What is no URL stays as it is.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    scheme, host = scheme.lower(), host.lower()
    return f"{scheme}://{host.removesuffix(_PORTS.get(scheme, ''))}{slash}{path}".rstrip("/")


def _bearer(*parameters: str) -> str:
    return f"Bearer {', '.join(filter(None, parameters))}".strip()


def _quoted(name: str, value: str) -> str:
    """A parameter. Of the value only what RFC 6750, section 3, allows: no quote, backslash, control or line end gets through."""
    return f'{name}="{"".join(letter if _is_plain(letter) else "?" for letter in value)}"'


def _is_plain(text: str) -> bool:
    return all(" " <= letter <= "~" and letter not in '"\\' for letter in text)


def _askable(scopes: Iterable[str]) -> tuple[str, ...]:
    """In order, each once: those that a scope parameter can have (RFC 6749, section 3.3) and may ask for."""
    fit = {scope for scope in scopes if scope and " " not in scope and _is_plain(scope)}
    return tuple(sorted(fit - NEVER_ASKED))
