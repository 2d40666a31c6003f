"""What a server is set to, and who said so: one file, above it the environment, above that arguments and code.

The file (`--config FILE`, or MCPFAST_CONFIG) is TOML with the sections ``[server]``, ``[limits]``, ``[http]`` and ``[tenancy]``;
``[plans]``, ``[tenants]`` and ``[keys]`` may stand in the same file, which then is the registry. None is looked for in the
working directory: a host may start a server in a directory of somebody else's.

In the environment a setting is ``MCPFAST_SECTION__NAME``, with two underscores between the names of its path:

    MCPFAST_LIMITS__FRAME_BYTES_MAX=1048576
    MCPFAST_SERVER__LISTEN=stdio,http://127.0.0.1:8000       a list: commas between, or JSON
    MCPFAST_TENANCY__ISSUERS__LOGIN__SECRET=...              what has no place in a file: the text itself, or base64:...
    MCPFAST_STATE_KEYS=...                                   the same as MCPFAST_SERVER__STATE_KEYS
    MCPFAST_TENANT=acme                                      the same as MCPFAST_TENANCY__TENANT
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

import msgspec

from mcpfast.errors import AddressError
from mcpfast.limits import Limits
from mcpfast.tenancy.decoding import (
    ConfigurationError,
    below,
    decode,
    fields_of,
    line_of,
    mistake,
    nearest,
    read_toml,
)
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.toml_file import SECTIONS as OF_THE_REGISTRY
from mcpfast.transports.addresses import parse
from mcpfast.transports.web.settings import HttpSettings

PREFIX = "MCPFAST_"
BETWEEN = "__"
OTHER_NAMES = {"MCPFAST_STATE_KEYS": "server.state_keys", "MCPFAST_TENANT": "tenancy.tenant"}
FILES = (
    ("tenancy", "registry"),
    ("tenancy", "audit"),
    ("http", "ssl_certfile"),
    ("http", "ssl_keyfile"),
    ("http", "ssl_ca_certs"),
)
DEFAULT = "default"
CODE = "code"
MASK = "********"
BASE64 = "base64:"  # before a secret that is not text


class ServerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[server]"""

    listen: tuple[str, ...] = ("stdio",)  # addresses, as `mcpfast run --listen` takes them
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    state_keys: str = ""  # "id:secret,...", see `KeyRing.from_env`


class TenancySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tenancy]"""

    registry: str = ""  # a TOML file, or sqlite:///PATH; empty: the file of settings, if it has [tenants]
    audit: str = ""  # the audit log; empty: beside the registry
    look_s: float = 1.0  # so often it is asked whether the registry changed
    drain_s: float = 5.0  # what calls of a removed or suspended tenant are given to end
    admin: bool = False  # serve the admin API under /admin of every HTTP address
    tenant: str = ""  # over stdio, where nobody shows a credential
    scopes: frozenset[str] = frozenset()  # what whoever started the process has then
    scopes_asked: frozenset[str] = frozenset()  # what a client without a token is told to ask for at first
    issuers: dict[str, Issuer] = {}  # of tokens, by a name of your choice


def _section(name: str, of: Any) -> type[msgspec.Struct]:
    """A section with the fields and defaults of a NamedTuple."""
    fields = [(field, kind, of._field_defaults[field]) for field, kind in get_type_hints(of).items()]
    return msgspec.defstruct(name, fields, frozen=True, forbid_unknown_fields=True, module=__name__)


LimitsSection = _section("LimitsSection", Limits)
HttpSection = _section("HttpSection", HttpSettings)
KINDS: dict[str, Any] = {
    "server": ServerSection,
    "limits": LimitsSection,
    "http": HttpSection,
    "tenancy": TenancySection,
}
Sections = msgspec.defstruct(
    "Sections",
    [(name, kind, kind()) for name, kind in KINDS.items()],
    frozen=True,
    forbid_unknown_fields=True,
)


class Configuration(NamedTuple):
    """What holds. `sources` says who set what, by its path; what it does not name is a default."""

    server: ServerSection
    limits: Limits
    http: HttpSettings
    tenancy: TenancySection
    registry: str  # what `open_store` takes; empty: no tenants
    sources: Mapping[str, str]
    file: Path | None

    def settings(self) -> Iterator[tuple[str, Any, str]]:
        """Path, value and source of every setting; what is secret is masked."""
        for section, kind in KINDS.items():
            held = getattr(self, section)
            for name in kind.__struct_fields__:
                yield from self._settings(f"{section}.{name}", getattr(held, name))

    def _settings(self, path: str, value: Any) -> Iterator[tuple[str, Any, str]]:
        if isinstance(value, msgspec.Struct):
            value = {name: getattr(value, name) for name in value.__struct_fields__}
        if isinstance(value, dict) and value:
            for name, member in value.items():
                yield from self._settings(below(path, name), member)
        else:
            yield path, masked(path, value), self.source(path)

    def source(self, path: str) -> str:
        """Who set what stands at a path."""
        return _said_by(path, self.sources) or DEFAULT


class Layer(NamedTuple):
    """Some settings, and who says so; the stronger ones come later."""

    values: Mapping[str, Any]
    source: Callable[[str], str]  # by path


def load(
    file: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str],
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    code: Mapping[str, Mapping[str, Any]] | None = None,
) -> Configuration:
    """What holds. `file` None: the one that MCPFAST_CONFIG names, or none. `arguments` and `code` have sections with those names
    that were said.

    Raises ConfigurationError, which says where the mistake is (file and line, variable) and what to write.
    """
    named = file or environ.get(f"{PREFIX}CONFIG") or None
    path = None if named is None else Path(named)
    layers = [
        _from_environment(environ),
        Layer(arguments or {}, lambda path: "command line"),
        Layer(code or {}, lambda path: CODE),
    ]
    has_tenants = False
    if path is not None:
        text, values = read_toml(path)
        has_tenants = bool([values.pop(name) for name in OF_THE_REGISTRY if name in values])
        layers.insert(0, _from_file(path, text, values))
    merged, sources = _merged(layers)
    try:
        return _made(merged, sources, path, has_tenants=has_tenants)
    except ConfigurationError as error:
        where = _said_by(error.path, sources) or named
        raise ConfigurationError(f"{where}: {error}" if where else str(error)) from None


def _made(
    merged: Mapping[str, Any], sources: Mapping[str, str], file: Path | None, *, has_tenants: bool
) -> Configuration:
    for name in sorted(merged.keys() - KINDS.keys()):
        if name in OF_THE_REGISTRY:  # of the environment: in a file they are not looked at here
            raise mistake(name, f"[{name}] stands in a file, or in what tenancy.registry names")
        raise mistake(name, f"there is no such section; {nearest(name, (*KINDS, *OF_THE_REGISTRY))}")
    _read_secrets(merged)
    sections: Any = decode(merged, Sections, strict=False)
    limits = Limits(**msgspec.structs.asdict(sections.limits))
    for name, value in limits._asdict().items():
        if value < 0:
            raise mistake(f"limits.{name}", f"{value} is less than 0")
    for name in ("look_s", "drain_s"):
        if not 0 <= getattr(sections.tenancy, name) < 1e6:
            raise mistake(f"tenancy.{name}", "0 or more seconds are wanted")
    for address in sections.server.listen:
        try:
            parse(address)
        except AddressError as error:
            raise mistake("server.listen", str(error)) from None
    try:
        http = HttpSettings.taken_from(msgspec.structs.asdict(sections.http))
    except (TypeError, ValueError) as error:
        raise mistake(f"http.{str(error).partition(' ')[0].rstrip(':')}", str(error)) from None
    registry = sections.tenancy.registry
    if sources.get("tenancy.registry") == CODE:  # stronger than what stands in the file
        has_tenants = False
    if has_tenants and registry:
        raise mistake(
            "tenancy.registry",
            "[plans], [tenants] and [keys] stand in the file of settings already: all of them here, or all there",
        )
    if has_tenants:
        registry = str(file)
    return Configuration(sections.server, limits, http, sections.tenancy, registry, sources, file)


def _read_secrets(merged: Mapping[str, Any]) -> None:
    """Secrets of issuers: the text as it stands, which is how issuers give them, or bytes as "base64:...".

    Raises ConfigurationError, which does not repeat it.
    """
    tenancy = merged.get("tenancy")
    issuers = tenancy.get("issuers") if isinstance(tenancy, dict) else None
    for name, issuer in issuers.items() if isinstance(issuers, dict) else ():
        secret = issuer.get("secret") if isinstance(issuer, dict) else None
        if not isinstance(secret, str):
            continue
        encoded = secret.removeprefix(BASE64)
        try:
            issuer["secret"] = secret.encode() if encoded == secret else b64decode(encoded, validate=True)
        except ValueError:
            raise mistake(
                f"{below('tenancy.issuers', name)}.secret", f"after {BASE64} base64 is wanted"
            ) from None


# ---------------------------------------------------------------------------------------------------- layers


def _from_file(file: Path, text: str, values: dict[str, Any]) -> Layer:
    """Files that it names are named from the directory that it is in."""
    for section, name in FILES:
        said = values.get(section, {}).get(name) if isinstance(values.get(section), dict) else None
        if isinstance(said, str) and said and "://" not in said:
            values[section][name] = str(file.parent / said)

    def source(path: str) -> str:
        line = line_of(text, path)
        return f"{file}:{line}" if line else str(file)

    return Layer(values, source)


def _from_environment(environ: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for variable in sorted(environ):
        names = variable.removeprefix(PREFIX).lower().split(BETWEEN)
        if variable in OTHER_NAMES:
            names = OTHER_NAMES[variable].split(".")
        elif not variable.startswith(PREFIX) or len(names) < 2:
            continue
        inner: Any = values
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"{variable}: what it belongs to is set by a variable of its own")
        inner[names[-1]] = _value_of(environ[variable], _kind_of(names))
        sources[".".join(names)] = variable
    return Layer(values, lambda path: _said_by(path, sources))


def _kind_of(names: list[str]) -> Any:
    """The type of the setting at a path; None where there is none."""
    kind: Any = Sections
    for name in names:
        kind = (fields_of(kind) or {}).get(name) if get_origin(kind) is not dict else kind.__args__[1]
    return kind


def _value_of(text: str, kind: Any) -> Any:
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text  # told as a wrong type, with the name of the variable
    if get_origin(kind) in (tuple, list, frozenset, Sequence):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _merged(layers: list[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """All layers in one, and who said what of it. Tables are merged member by member, all else is replaced."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def lay(over: dict[str, Any], values: Mapping[str, Any], path: str, source: Callable[[str], str]) -> None:
        for name, value in values.items():
            place = below(path, name)
            if isinstance(value, Mapping):
                held = over.get(name)
                over[name] = dict(held) if isinstance(held, dict) else {}
                lay(over[name], value, place, source)
            else:
                over[name] = value
                sources[place] = source(place)

    for layer in layers:
        lay(merged, layer.values, "", layer.source)
    return merged, sources


def _said_by(path: str, sources: Mapping[str, str]) -> str:
    """Who set what stands at a path: it, something that it is in, or something in it."""
    above = path
    while above:
        if above in sources:
            return sources[above]
        above = above.rpartition(".")[0]
    return next((source for place, source in sources.items() if path and place.startswith(f"{path}.")), "")


# ---------------------------------------------------------------------------------------------------- secrets


def masked(path: str, value: Any) -> Any:
    """The value as it may be shown: no key, no secret, no password in a URL."""
    name = path.rpartition(".")[2]
    if name in ("state_keys", "secret"):
        return MASK if value else ""
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{MASK}@{rest.rpartition('@')[2]}"
    return value
