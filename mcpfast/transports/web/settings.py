"""What is said once for all HTTP addresses of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mcpfast.errors import AddressError

TENANT = "{tenant}"
TLS = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")
SESSION_MODES = ("stateful", "sealed", "off")


class HttpSettings(NamedTuple):
    """`session_mode`: where the sessions of the revisions up to 2025-11-25 live (2026-07-28 has none).

        stateful   in this process
        sealed     in the session id itself, encrypted under `state_keys`: any worker with these keys serves any request. What
                   needs memory holds within one process: replay of events, a log level, subscriptions, a DELETE that sticks,
                   the client's answer to a question
        off        there are none: no id is given, each message stands alone, no streams, no questions to the client

    `allowed_hosts`: names (with or without a port) under which the server may be asked. Empty: on a loopback address localhost,
    127.0.0.1 and [::1]; elsewhere any name. "*" allows every name.
    `allowed_origins`: origins of web pages that may ask although they come from elsewhere, as in "https://app.example.com"; their
    answers get the headers of CORS. "*" allows every page.
    `ssl_certfile`, `ssl_keyfile`: PEM files of an https:// address.
    `ssl_ca_certs`: a PEM file of the authorities that sign certificates of clients. Every client needs one then; where tenants are
    served, every client that has no other credential.
    `tenant_host`: host names that say which tenant is meant, as in "{tenant}.mcp.example.com": one label, so ids with a dot have no
    such name. They may be asked for whatever `allowed_hosts` says.
    `public_url`: scheme and host under which clients reach a server behind a proxy, as in "https://mcp.example.com"; what tokens
    are asked for names it. Without it the request's Host and whether it came over TLS here say so.
    """

    session_mode: str = "stateful"
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_ca_certs: str | None = None
    tenant_host: str | None = None
    public_url: str | None = None

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> HttpSettings:
        """Takes the options that are its own out of `options`. Raises ValueError or TypeError, in one line."""
        settings = cls(**{name: options.pop(name) for name in cls._fields if name in options})
        if settings.session_mode not in SESSION_MODES:
            raise ValueError(
                f"session_mode must be one of {', '.join(map(repr, SESSION_MODES))}, not {settings.session_mode!r}"
            )
        for name in ("allowed_hosts", "allowed_origins"):
            if isinstance(getattr(settings, name), str):
                raise TypeError(f"{name} takes a list of str, as in [{getattr(settings, name)!r}]")
        for origin in settings.allowed_origins:
            if origin not in ("*", "null") and "://" not in origin:
                raise ValueError(
                    f"allowed_origins: {origin!r} is no origin; write it with its scheme, as in https://{origin}"
                )
        pattern, public = settings.tenant_host, settings.public_url
        if pattern is not None and (pattern.count(TENANT) != 1 or not pattern.startswith(f"{TENANT}.")):
            raise ValueError(
                f'tenant_host begins with "{TENANT}.", as in "{TENANT}.mcp.example.com": {pattern!r}'
            )
        if public is not None and re.fullmatch(r"https?://[^/?#@\s]+", public) is None:
            raise ValueError(f"public_url is a scheme and a host, as in https://mcp.example.com: {public!r}")
        return settings

    def check(self, kinds: Mapping[str, Any] | set[str]) -> None:
        """Raises AddressError where the files for TLS do not go with the kinds of addresses."""
        if "https" in kinds and self.ssl_certfile is None:
            raise AddressError(
                "https:// needs a certificate: give ssl_certfile and ssl_keyfile (PEM), or serve http:// behind a proxy"
            )
        for name in TLS:
            if "https" not in kinds and getattr(self, name):
                raise AddressError(
                    f"{name} is given, and no address is https://: write https://HOST:PORT to use it"
                )
