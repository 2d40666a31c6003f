"""`mcpfast tenant`: the tenants of a registry and their API keys, or with --url those of a server that serves.

A process that serves a registry notices what is changed here; a server that is asked by its admin API changes it itself."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from mcpfast import config
from mcpfast.arguments import Parser, Refusal
from mcpfast.commands import output
from mcpfast.errors import McpFastError
from mcpfast.tenancy.administration import Administration, KeyWanted, Known, plain
from mcpfast.tenancy.api_keys import PREFIX, NewKey, key_id_of
from mcpfast.tenancy.audit import Actor, AuditLog, audit_log_of, without_secrets
from mcpfast.tenancy.decoding import below, nearest
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.namespace import UnsafeName
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.stores import open_store

KEY_VARIABLE = "MCPFAST_ADMIN_KEY"
FAILED, WRONG_USAGE = 1, 2
DAY_S = 86_400.0
DESCRIPTION = "List, add, change, suspend and remove the tenants of a registry or a live server; make and revoke their API keys."
EPILOG = """\
examples:
  mcpfast tenant list --registry tenants.toml
  mcpfast tenant add acme --name "Acme Ltd." --plan team --config mcpfast.toml
  mcpfast tenant add ann --kind personal --set quota.calls_per_s=5 --set 'deny=["admin_*"]'
  mcpfast tenant set acme plan=large weight=2
  mcpfast tenant suspend acme                       its calls drain, and no new one is taken
  mcpfast tenant key new acme --principal ci --scope orders:read --days 90
  mcpfast tenant key revoke 4mYdV0aTq1Zk
  mcpfast tenant show acme --url http://127.0.0.1:8000          a live server: with its calls in flight and what it has used

The registry is --registry (a TOML file, or sqlite:///PATH), or the one of --config or MCPFAST_CONFIG. A process that serves it
notices within a second or so. Every change leaves a record in the audit log.

NAME=VALUE is laid over what is set: 'quota={"calls_per_s": 5}' changes that one limit, deny=null takes the setting away, and
then what the plan says holds.

With --url a server does it itself, by its admin API (/admin), and writes its own audit log. It must serve that, with [tenancy]
admin = true or Tenancy(admin=True). The key is the one in MCPFAST_ADMIN_KEY, or in the variable that --key-env names: an API key
or a token, with the scope mcpfast:admin, which its tenant must have been granted, too. To begin with:

  mcpfast tenant add ops --set 'scopes=["mcpfast:admin"]' --registry tenants.toml
  export MCPFAST_ADMIN_KEY=$(mcpfast tenant key new ops --principal me --scope mcpfast:admin --registry tenants.toml)

Exit code 1: it cannot be done; 2: wrong options."""


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="mcpfast tenant",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _command(commands, "list", "all tenants, their plans and states", _list, shows=True)
    _with_id(_command(commands, "show", "one tenant, with its keys", _show, shows=True))
    add = _command(commands, "add", "a new tenant", _add)
    _with_id(add)
    add.add_argument("--kind", choices=("organization", "personal"), default="organization")
    add.add_argument("--name", default="", help="what persons read")
    add.add_argument("--plan", default="", help="the name of a plan of the registry")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, as quota.calls_per_s=5; lists in JSON",
    )
    change = _command(commands, "set", "change settings of a tenant", _set)
    _with_id(change)
    change.add_argument(
        "set", nargs="+", metavar="NAME=VALUE", help="as plan=team or weight=2; lists in JSON"
    )
    _with_id(_command(commands, "suspend", "take no more calls of a tenant", _suspend))
    _with_id(_command(commands, "resume", "take its calls again", _resume))
    _with_id(_command(commands, "remove", "forget a tenant and its keys", _remove))
    keys = commands.add_parser("key", help="make or revoke an API key (show lists them)").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    new = _command(keys, "new", "a new key, which is shown this once", _key_new)
    _with_id(new)
    new.add_argument(
        "--principal", required=True, help="whose key it is; of a personal tenant: the tenant's id"
    )
    new.add_argument(
        "--scope",
        action="append",
        default=[],
        help="what it is good for, among what the tenant was granted (default: what asks for no scope); may be given several times",
    )
    new.add_argument("--role", action="append", default=[], help="may be given several times")
    new.add_argument("--days", type=float, help="it is good that long (default: until it is revoked)")
    _command(keys, "revoke", "end a key", _key_revoke).add_argument(
        "id", metavar="KEY_ID", help="as mcpfast tenant show lists it, or the key itself"
    )
    return made


Action = Callable[["Tenants", argparse.Namespace], Coroutine[Any, Any, None]]


def _command(commands: Any, name: str, help: str, action: Action, *, shows: bool = False) -> Any:
    made = commands.add_parser(name, help=help)
    made.add_argument("--config", metavar="FILE", help="the settings (default: what MCPFAST_CONFIG names)")
    made.add_argument("--registry", metavar="WHERE", help="a TOML file, or sqlite:///PATH")
    made.add_argument(
        "--audit", metavar="FILE", help="the audit log (default: as set, or beside the registry)"
    )
    made.add_argument(
        "--url", metavar="URL", help="a live server that serves its admin API, as http://127.0.0.1:8000"
    )
    made.add_argument(
        "--key-env",
        metavar="NAME",
        help=f"the environment variable that holds the key for --url (default: {KEY_VARIABLE})",
    )
    made.add_argument("--json", action="store_true", help="as JSON" if shows else "what was done, as JSON")
    made.set_defaults(action=action)
    return made


def _with_id(command: Any) -> None:
    command.add_argument("id", metavar="TENANT")


def main(arguments: Sequence[str], behind: Sequence[str] = ()) -> int:
    """The exit code. `behind` is what stood behind --, and there is no use for it."""
    given = parser().parse_args(arguments)
    try:
        if behind:
            raise Refusal("there is no use for what stands behind --")
        asyncio.run(_act(given))
    except Refusal as error:
        output.complain(f"mcpfast tenant: {error}")
        return WRONG_USAGE
    except (McpFastError, UnsafeName) as error:
        output.complain(f"mcpfast tenant: {getattr(error, 'message', error)}")
        return FAILED
    return 0


async def _act(given: argparse.Namespace) -> None:
    async with _on_server(given) if given.url else _in_registry(given) as tenants:
        await given.action(tenants, given)


class Tenants(Protocol):
    """Where the commands do their work: `tenancy.administration.Administrator`, or a live server that is asked to."""

    async def tenants(self) -> list[TenantRecord]: ...
    async def tenant(self, id: str) -> Known: ...
    async def add(self, settings: Mapping[str, Any]) -> TenantRecord: ...
    async def change(self, id: str, settings: Mapping[str, Any]) -> TenantRecord: ...
    async def suspend(self, id: str) -> TenantRecord: ...
    async def resume(self, id: str) -> TenantRecord: ...
    async def remove(self, id: str) -> TenantRecord: ...
    async def new_key(self, tenant: str, wanted: KeyWanted) -> NewKey: ...
    async def revoke_key(self, id: str) -> KeyRecord: ...


@asynccontextmanager
async def _in_registry(given: argparse.Namespace) -> AsyncIterator[Tenants]:
    """Raises Refusal where nobody says which registry is meant."""
    if given.key_env:
        raise Refusal("--key-env goes with --url")
    held = config.load(given.config, environ=os.environ)
    where = given.registry or held.registry
    if not where:
        raise Refusal(
            "which registry? --registry FILE.toml, --registry sqlite:///PATH, or the --config that names it"
        )
    registry = Registry(open_store(where), clock=time.monotonic)
    log = AuditLog(given.audit or held.tenancy.audit or audit_log_of(where), clock=time.time)

    makes_file = given.action is _add and _is_no_file_yet(where)

    async def refresh() -> None:
        if not makes_file:
            await registry.reload()

    administration = Administration(registry, log, refresh=refresh)
    try:
        yield administration.by(Actor(_user(), "cli"))
    finally:
        await administration.close()
        registry.store.close()
        log.close()


@asynccontextmanager
async def _on_server(given: argparse.Namespace) -> AsyncIterator[Tenants]:
    """Raises Refusal where something does not go with it, or there is no key."""
    for option in ("config", "registry", "audit"):
        if getattr(given, option):
            raise Refusal(f"--{option} does not go with --url: the server has its own")
    variable = given.key_env or KEY_VARIABLE
    key = os.environ.get(variable, "").strip()
    if not key:
        raise Refusal(f"--url needs a key in the environment variable {variable}, which is not set")
    from mcpfast.commands.live_tenants import LiveTenants  # only who asks a server needs HTTP

    yield LiveTenants(given.url, key)


def _is_no_file_yet(where: str) -> bool:
    return "://" not in where and not os.path.exists(where)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name
        return str(os.getuid())


# ---------------------------------------------------------------------------------------------------- the commands


async def _list(tenants: Tenants, given: argparse.Namespace) -> None:
    records = await tenants.tenants()
    if given.json:
        output.show_json([plain(record) for record in records])
        return
    output.show_table(
        ("tenant", "kind", "plan", "state", "name"),
        [(one.id, one.kind, one.plan, one.state, one.name) for one in records],
    )


async def _show(tenants: Tenants, given: argparse.Namespace) -> None:
    record, keys, live = await tenants.tenant(given.id)
    told = {**plain(record), **({"live": live} if live and given.url else {})}
    if given.json:
        output.show_json({**told, "keys": [without_secrets(plain(key)) for key in keys]})
        return
    output.show_table(("setting", "value"), list(_rows(told, "")))
    if keys:
        output.say("")
        output.show_table(("key", "principal", "scopes", "expires", "state"), [_key_row(key) for key in keys])


def _rows(table: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _rows(value, below(path, name))
        else:
            yield below(path, name), output.plain(value)


def _key_row(key: KeyRecord) -> tuple[str, ...]:
    expires = datetime.fromtimestamp(key.expires_s, UTC).date().isoformat() if key.expires_s else "never"
    state = "revoked" if key.revoked else "expired" if 0 < key.expires_s <= time.time() else "good"
    return key.id, key.principal, output.plain(key.scopes), expires, state


async def _add(tenants: Tenants, given: argparse.Namespace) -> None:
    said = {"id": given.id, "kind": given.kind, "name": given.name, "plan": given.plan}
    settings = _settings(given.set) | {name: value for name, value in said.items() if value}
    _say(given, f"added tenant {given.id}", await tenants.add(settings))


async def _set(tenants: Tenants, given: argparse.Namespace) -> None:
    _say(given, f"changed tenant {given.id}", await tenants.change(given.id, _settings(given.set)))


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE and NAME.NAME=VALUE as one table. Raises Refusal for what is neither."""
    table: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        *above, last = path.strip().split(".")
        if not equals or [*above, last][0] in ("id", "revision"):
            raise Refusal(
                f"{setting!r}: write NAME=VALUE, as in quota.calls_per_s=5; id and revision are not set"
            )
        inner = table
        for name in above:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise Refusal(f"{setting!r}: {name} has nothing below it")
        inner[last] = _value(text)
    return table


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _suspend(tenants: Tenants, given: argparse.Namespace) -> None:
    _say(given, f"tenant {given.id} is suspended", await tenants.suspend(given.id))


async def _resume(tenants: Tenants, given: argparse.Namespace) -> None:
    _say(given, f"tenant {given.id} is active", await tenants.resume(given.id))


async def _remove(tenants: Tenants, given: argparse.Namespace) -> None:
    _say(given, f"removed tenant {given.id}", await tenants.remove(given.id))


async def _key_new(tenants: Tenants, given: argparse.Namespace) -> None:
    if given.days is not None and not 0 < given.days < math.inf:
        raise Refusal("--days: more than 0 is wanted; without it a key is good until it is revoked")
    ttl_s = (given.days or 0.0) * DAY_S
    wanted = KeyWanted(given.principal, frozenset(given.scope), frozenset(given.role), ttl_s)
    made = await tenants.new_key(given.id, wanted)
    if given.json:
        output.show_json({**without_secrets(plain(made.record)), "api_key": made.key})
        return
    output.complain(f"key {made.record.id} of {given.principal} in {given.id}; it is not shown again:")
    output.say(made.key)
    granted = (await tenants.tenant(given.id)).live.get("scopes", given.scope)
    for scope in sorted(set(given.scope).difference(granted)):
        output.complain(
            f"mcpfast tenant: {given.id} has not been granted the scope {scope!r}, so the key is of no use for it; "
            f"{nearest(scope, granted)}"
        )


async def _key_revoke(tenants: Tenants, given: argparse.Namespace) -> None:
    key_id = key_id_of(given.id) or given.id
    if key_id.startswith(PREFIX):  # mistyped; it is not repeated
        raise Refusal(f"the id of a key are the letters between {PREFIX} and the next _")
    revoked = await tenants.revoke_key(key_id)
    _say(given, f"revoked key {key_id} of {revoked.principal}", revoked)


def _say(given: argparse.Namespace, text: str, record: TenantRecord | KeyRecord) -> None:
    if given.json:
        output.show_json(without_secrets(plain(record)))
    else:
        output.say(text)
