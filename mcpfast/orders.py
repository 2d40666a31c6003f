"""What a server is told: where to serve, with which settings, on behalf of whom; by its configuration, the command line and code.

Part of every start, so nothing is loaded here that is not needed: `configured` only where somebody configured something.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mcpfast.errors import AddressError, McpFastError
from mcpfast.transports.addresses import FORMS, WEB, Address, parse

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer
    from mcpfast.server.catalog import Catalog
    from mcpfast.server.tenants import Tenants
    from mcpfast.transports.web.settings import HttpSettings

STDIO = Address("stdio")
TENANT_VARIABLE = "MCPFAST_TENANT"  # whom stdio serves, as `server.tenants` reads it
log = logging.getLogger("mcpfast.tenancy")


class Held(NamedTuple):
    """Where and how to serve, unless the command line or the call of `run` says it."""

    listen: Sequence[str] = ("stdio",)
    loop: str = "auto"
    http: Mapping[str, Any] = {}  # what somebody set of HttpSettings


class Orders(NamedTuple):
    """Where it is served, and the tenant of stdio, where there are tenants and one is named."""

    addresses: list[Address]
    settings: HttpSettings | None
    tenant: str


@contextlib.contextmanager
def as_configured(server: MCPServer[Any], file: str | os.PathLike[str] | None, tenant: str) -> Iterator[Held]:
    """The server as it is configured, and afterwards as it was. Where nobody configured anything, nothing is loaded for it."""
    before = server.limits, server.state_keys, server.tenancy
    try:
        yield configure(server, file, tenant)
    finally:
        server.limits, server.state_keys, server.tenancy = before


def configure(server: MCPServer[Any], file: str | os.PathLike[str] | None, tenant: str = "") -> Held:
    """The same for good. Raises ConfigurationError."""
    if not (file or tenant or any(map(_is_setting, os.environ))):
        return Held()
    from mcpfast import configured

    return Held(*configured.configure(server, file, tenant))


def _is_setting(variable: str) -> bool:
    """As `config` reads the environment."""
    return variable == "MCPFAST_CONFIG" or (variable.startswith("MCPFAST_") and "__" in variable)


def ordered(
    server: MCPServer[Any],
    held: Held,
    transport: str | Sequence[str | Address] | None,
    tenant: str,
    options: dict[str, Any],
) -> Orders:
    """What was said over what is configured. Raises AddressError and ConfigurationError; TypeError and ValueError for `options`
    that are not ours."""
    addresses = _addresses(held.listen if transport is None else transport, options)
    settings = _settings(addresses, held.http, options)
    if STDIO not in addresses:
        if tenant:
            raise _refused(
                f"--tenant {tenant}: it is for stdio; over other transports each request says whose it is"
            )
        return Orders(addresses, settings, "")
    variable = os.environ.get(TENANT_VARIABLE, "")
    if server.tenancy is not None:
        return Orders(addresses, settings, server.tenancy.tenant or variable)
    if variable:
        raise _refused(
            f"{TENANT_VARIABLE}={variable}: this server has no tenants, and would serve anybody; give it their registry "
            "(--config, MCPFAST_CONFIG or MCPServer(tenancy=...)), or take the variable away"
        )
    return Orders(addresses, settings, "")


def _refused(text: str) -> McpFastError:
    from mcpfast.tenancy.decoding import ConfigurationError

    return ConfigurationError(text)


def _addresses(transport: str | Sequence[str | Address], options: dict[str, Any]) -> list[Address]:
    """The addresses. Raises AddressError for what cannot be served, before anything is opened."""
    if "host" in options or "port" in options:
        kind = "tcp" if transport == "tcp" else "http"
        meant = Address(kind, options.get("host") or "127.0.0.1", options.get("port") or 8000)
        raise AddressError(f'host and port are part of the address: write "{meant}"; there are {FORMS}')
    texts = [transport] if isinstance(transport, str) else list(transport)
    addresses = [text if isinstance(text, Address) else parse(text) for text in texts]
    if not addresses:
        raise AddressError("nothing to serve on: give at least one address")
    if sum(address.kind == "stdio" for address in addresses) > 1:
        raise AddressError("stdio can be served once only")
    return addresses


def _settings(
    addresses: list[Address], held: Mapping[str, Any], options: dict[str, Any]
) -> HttpSettings | None:
    """What is set for addresses over HTTP. Raises AddressError, TypeError and ValueError for `options` that are not ours, or do
    not go with the addresses; what is configured may be meant for others."""
    kinds = {address.kind for address in addresses}
    if not options and kinds.isdisjoint(WEB):  # a server over stdio pays for none of it
        return None
    from mcpfast.transports.web.settings import TLS, HttpSettings

    meant = {name: value for name, value in held.items() if "https" in kinds or name not in TLS}
    options = {**meant, **options}
    settings = HttpSettings.taken_from(options)
    if options:
        raise TypeError(f"there is no option {' or '.join(map(repr, options))} for serving")
    settings.check(kinds)
    return settings


def check_tenant_of_stdio(tenants: Tenants, named: str) -> None:
    """Whoever starts the process learns at once what is wrong. Raises ConfigurationError for a tenant that nobody knows."""
    from mcpfast.tenancy.api_keys import VARIABLE
    from mcpfast.tenancy.stores import Unknown, no_tenant

    callers = tenants.callers
    if named and callers.registry.tenant(named) is None:
        unknown = no_tenant(named, [known.id for known in callers.registry.tenants()])
        raise Unknown(f"whom stdio is to serve (--tenant, {TENANT_VARIABLE}, tenancy.tenant): {unknown}")
    if not (named or os.environ.get(VARIABLE) or callers.tenancy.resolvers):
        log.warning(
            "nobody is let in over stdio: name a tenant (--tenant, %s), or set %s", TENANT_VARIABLE, VARIABLE
        )


def warn_of_no_tenants(catalog: Catalog) -> None:
    """A server that was meant for tenants serves everybody where their settings were forgotten; that is told."""
    shelves = (catalog.tools, catalog.prompts, catalog.resources, catalog.templates)
    meant = sum(one.use.requirement is not None for shelf in shelves for one in shelf)
    if meant:
        log.warning(
            "there are no tenants, and %d of what is offered asks for scopes or kinds of them: now everybody may use it. "
            "Tenants come from --config, MCPFAST_CONFIG or MCPServer(tenancy=...)",
            meant,
        )
