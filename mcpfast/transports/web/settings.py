"""What is said once for all HTTP addresses of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mcpfast.errors import AddressError

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
    """

    session_mode: str = "stateful"
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

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
        return settings

    def check(self, kinds: Mapping[str, Any] | set[str]) -> None:
        """Raises AddressError where the files for TLS do not go with the kinds of addresses."""
        if "https" in kinds and self.ssl_certfile is None:
            raise AddressError(
                "https:// needs a certificate: give ssl_certfile and ssl_keyfile (PEM), or serve http:// behind a proxy"
            )
        if "https" not in kinds and (self.ssl_certfile or self.ssl_keyfile):
            raise AddressError(
                "ssl_certfile is given, and no address is https://: write https://HOST:PORT to use it"
            )
