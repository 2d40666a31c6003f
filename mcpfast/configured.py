"""A server as its configuration says, where its code does not say otherwise. Loaded only where somebody wrote a configuration."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

from mcpfast.config import DEFAULT, MASK, OTHER_NAMES, Configuration, TenancySection, load
from mcpfast.errors import RegistrationError
from mcpfast.limits import Limits
from mcpfast.tenancy.audit import audit_log_of
from mcpfast.tenancy.decoding import ConfigurationError, mistake
from mcpfast.tenancy.issuers import check_apart
from mcpfast.tenancy.service import Tenancy

if TYPE_CHECKING:
    from mcpfast.server.app import MCPServer


def configure(
    server: MCPServer[Any], file: str | os.PathLike[str] | None, tenant: str = ""
) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    """Gives the server the limits, keys and tenants of `file` (None: the one of MCPFAST_CONFIG, or none), the environment and
    the command line (`tenant`, whom stdio serves). Gives the addresses, the loop, and what is set of HttpSettings.

    Raises ConfigurationError and KeyRingError.
    """
    if tenant:
        _check_agreed(server.tenancy, tenant)
    arguments = {"tenancy": {"tenant": tenant}} if tenant else {}
    held = load(file, environ=os.environ, arguments=arguments, code=said_by(server))
    tenancy = tenancy_of(held, server.tenancy)
    if held.server.state_keys and server.state_keys is None:
        from mcpfast.server.sealed import KeyRing

        name = f"{held.source('server.state_keys')}: server.state_keys"
        server.state_keys = KeyRing.from_env(name, {name: held.server.state_keys})
    server.limits, server.tenancy = held.limits, tenancy
    http = {
        name: value for name, value in held.http._asdict().items() if held.source(f"http.{name}") != DEFAULT
    }
    return held.server.listen, held.server.loop, http


def said_by(server: MCPServer[Any]) -> dict[str, dict[str, Any]]:
    """What the code of a server says, as `load` takes it: that is, what is no default."""
    limits = server.limits._asdict().items()
    said: dict[str, dict[str, Any]] = {
        "limits": {name: value for name, value in limits if value != Limits._field_defaults[name]}
    }
    if server.state_keys is not None:
        said["server"] = {"state_keys": MASK}
    if server.tenancy is not None:
        said["tenancy"] = _said_of_tenants(server.tenancy)
    return said


def _said_of_tenants(tenancy: Tenancy) -> dict[str, Any]:
    defaults = TenancySection()
    names = [name for name in TenancySection.__struct_fields__ if name != "issuers"]
    said = {name: getattr(tenancy, name) for name in names}
    said = {name: value for name, value in said.items() if value != getattr(defaults, name)}
    if tenancy.issuers:
        said["issuers"] = {issuer.issuer: issuer for issuer in tenancy.issuers}
    return said


def tenancy_of(held: Configuration, of_code: Tenancy | None) -> Tenancy | None:
    """The tenants that a configuration means; of those in the code the store and the resolvers stay.

    Raises ConfigurationError where there is no registry and yet something is said of tenants: a server that was meant for some
    must not serve everybody.
    """
    said = held.tenancy
    if of_code is None and not held.registry:
        _check_nothing_said(held)
        return None
    made = Tenancy(held.registry) if of_code is None else copy.copy(of_code)
    made.issuers = tuple(said.issuers.values())
    try:
        check_apart(made.issuers)
    except RegistrationError as error:
        raise mistake("tenancy.issuers", str(error)) from None
    made.tenant, made.scopes, made.scopes_asked = said.tenant, said.scopes, said.scopes_asked
    made.look_s, made.drain_s, made.admin = said.look_s, said.drain_s, said.admin
    made.audit = said.audit or (audit_log_of(held.registry) if of_code is None else "")
    return made


def _check_agreed(of_code: Tenancy | None, tenant: str) -> None:
    if of_code is not None and of_code.tenant not in ("", tenant):
        raise ConfigurationError(
            f"--tenant {tenant}: the code says {of_code.tenant!r}, which is stronger: take one of the two away"
        )


def _check_nothing_said(held: Configuration) -> None:
    text = "there are no tenants here: write [tenants] into the settings, or tenancy.registry, where they are"
    for path, source in held.sources.items():
        if path.startswith("tenancy.") and source not in OTHER_NAMES:  # MCPFAST_TENANT is meant for stdio
            raise ConfigurationError(f"{source}: {mistake(path, text)}")
