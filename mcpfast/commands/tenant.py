"""`mcpfast tenant`: the tenants of a registry and their API keys. A process that serves notices what is changed here."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from mcpfast import config
from mcpfast.arguments import Parser, Refusal
from mcpfast.commands import output
from mcpfast.tenancy.api_keys import PREFIX, key_id_of, new_key
from mcpfast.tenancy.audit import Actor, AuditLog, audit_log_of, without_secrets
from mcpfast.tenancy.decoding import ConfigurationError, below, decode
from mcpfast.tenancy.identity import State, TenantRecord
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.namespace import UnsafeName, check_tenant_id
from mcpfast.tenancy.stores import Content, Store, no_key, no_tenant, open_store

FAILED, WRONG_USAGE = 1, 2
DAY_S = 86_400.0
DESCRIPTION = (
    "List, add, change, suspend and remove the tenants of a registry, and make and revoke their API keys."
)
EPILOG = """\
examples:
  mcpfast tenant list --registry tenants.toml
  mcpfast tenant add acme --name "Acme Ltd." --plan team --config mcpfast.toml
  mcpfast tenant add ann --kind personal --set quota.calls_per_s=5 --set 'deny=["admin_*"]'
  mcpfast tenant set acme plan=large weight=2
  mcpfast tenant suspend acme                       its calls drain, and no new one is taken
  mcpfast tenant key new acme --principal ci --scope orders:read --days 90
  mcpfast tenant key revoke 4mYdV0aTq1Zk

The registry is --registry (a TOML file, or sqlite:///PATH), or the one of --config or MCPFAST_CONFIG. A process that serves it
notices within a second or so. Every change leaves a record in the audit log. Exit code 1: it cannot be done; 2: wrong options."""


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
    keys = commands.add_parser("key", help="make or revoke an API key").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    new = _command(keys, "new", "a new key, which is shown this once", _key_new)
    _with_id(new)
    new.add_argument("--principal", required=True, help="whose key it is")
    new.add_argument("--scope", action="append", default=[], help="may be given several times")
    new.add_argument("--role", action="append", default=[], help="may be given several times")
    new.add_argument(
        "--days", type=float, default=0.0, help="it is good that long (default: until it is revoked)"
    )
    _command(keys, "revoke", "end a key", _key_revoke).add_argument(
        "id", metavar="KEY_ID", help="or the key itself"
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
        with closing(opened(given)) as tenants:
            asyncio.run(given.action(tenants, given))
    except Refusal as error:
        output.complain(f"mcpfast tenant: {error}")
        return WRONG_USAGE
    except (ConfigurationError, UnsafeName) as error:
        output.complain(f"mcpfast tenant: {error}")
        return FAILED
    return 0


class Tenants(Protocol):
    """Where the commands do their work: a registry itself, or (later, with --url) a live server that is asked to. `before` is
    what the change was made from, None for what is new."""

    async def load(self) -> Content: ...
    async def put(self, action: str, record: TenantRecord, before: TenantRecord | None) -> TenantRecord: ...
    async def remove(self, before: TenantRecord) -> None: ...
    async def put_key(self, key: KeyRecord) -> None: ...
    async def revoke_key(self, before: KeyRecord) -> KeyRecord: ...
    def close(self) -> None: ...


def opened(given: argparse.Namespace) -> Tenants:
    """Raises Refusal where nobody says which registry is meant."""
    held = config.load(given.config, environ=os.environ)
    where = given.registry or held.registry
    if not where:
        raise Refusal(
            "which registry? --registry FILE.toml, --registry sqlite:///PATH, or the --config that names it"
        )
    log = given.audit or held.tenancy.audit or audit_log_of(where)
    return InRegistry(open_store(where), AuditLog(log, clock=time.time), Actor(_user(), "cli"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name
        return str(os.getuid())


class InRegistry:
    """The commands on a registry; what they change is written down."""

    def __init__(self, store: Store, log: AuditLog, actor: Actor) -> None:
        self._store = store
        self._log = log
        self._actor = actor

    async def load(self) -> Content:
        return await self._store.load()

    async def put(self, action: str, record: TenantRecord, before: TenantRecord | None) -> TenantRecord:
        self._log.open()
        stored = await self._store.put(record, new=before is None)
        self._record(f"tenant.{action}", record.id, before, stored)
        return stored

    async def remove(self, before: TenantRecord) -> None:
        self._log.open()
        await self._store.remove(before.id)
        self._record("tenant.remove", before.id, before, None)

    async def put_key(self, key: KeyRecord) -> None:
        self._log.open()
        await self._store.put_key(key)
        self._record("key.new", key.id, None, key)

    async def revoke_key(self, before: KeyRecord) -> KeyRecord:
        self._log.open()
        revoked = await self._store.revoke_key(before.id)
        self._record("key.revoke", before.id, before, revoked)
        return revoked

    def close(self) -> None:
        self._store.close()
        self._log.close()

    def _record(
        self, action: str, target: str, before: msgspec.Struct | None, after: msgspec.Struct | None
    ) -> None:
        self._log.changed(
            self._actor, action, target, *[None if one is None else _plain(one) for one in (before, after)]
        )


def _plain(record: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(record, order="deterministic")
    return plain


# ---------------------------------------------------------------------------------------------------- the commands


async def _list(tenants: Tenants, given: argparse.Namespace) -> None:
    records = sorted((await tenants.load()).tenants.values(), key=lambda record: record.id)
    if given.json:
        output.show_json([_plain(record) for record in records])
        return
    output.show_table(
        ("tenant", "kind", "plan", "state", "name"),
        [(one.id, one.kind, one.plan, one.state, one.name) for one in records],
    )


async def _show(tenants: Tenants, given: argparse.Namespace) -> None:
    content = await tenants.load()
    record = _tenant_in(content, given.id)
    keys = [without_secrets(_plain(key)) for key in content.keys.values() if key.tenant == given.id]
    if given.json:
        output.show_json({**_plain(record), "keys": keys})
        return
    output.show_table(("setting", "value"), list(_rows(_plain(record), "")))
    if keys:
        output.say("")
        output.show_table(
            ("key", "principal", "scopes", "expires", "state"),
            [_key_row(key) for key in content.keys.values() if key.tenant == given.id],
        )


def _rows(table: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
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
    check_tenant_id(given.id)
    said = {"kind": given.kind, "name": given.name, "plan": given.plan}
    record = _with(TenantRecord(given.id), {name: value for name, value in said.items() if value}, given.set)
    _say(given, f"added tenant {given.id}", await tenants.put("add", record, None))


async def _set(tenants: Tenants, given: argparse.Namespace) -> None:
    before = _tenant_in(await tenants.load(), given.id)
    _say(given, f"changed tenant {given.id}", await tenants.put("set", _with(before, {}, given.set), before))


def _with(record: TenantRecord, said: dict[str, Any], settings: Sequence[str]) -> TenantRecord:
    """The record with NAME=VALUE laid over it. Raises Refusal or ConfigurationError, which name the path."""
    table = _plain(record) | said
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or path.strip() in ("id", "revision"):
            raise Refusal(
                f"{setting!r}: write NAME=VALUE, as in quota.calls_per_s=5; id and revision are not set"
            )
        *above, last = path.strip().split(".")
        inner = table
        for name in above:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise Refusal(f"{setting!r}: {name} has nothing below it")
        inner[last] = _value(text)
    return decode(table, TenantRecord, below("tenants", record.id), strict=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _suspend(tenants: Tenants, given: argparse.Namespace) -> None:
    await _change_state(tenants, given, "suspend", "suspended")


async def _resume(tenants: Tenants, given: argparse.Namespace) -> None:
    await _change_state(tenants, given, "resume", "active")


async def _change_state(tenants: Tenants, given: argparse.Namespace, action: str, state: State) -> None:
    before = _tenant_in(await tenants.load(), given.id)
    stored = await tenants.put(action, msgspec.structs.replace(before, state=state), before)
    _say(given, f"tenant {given.id} is {state}", stored)


async def _remove(tenants: Tenants, given: argparse.Namespace) -> None:
    before = _tenant_in(await tenants.load(), given.id)
    await tenants.remove(before)
    _say(given, f"removed tenant {given.id}", before)


async def _key_new(tenants: Tenants, given: argparse.Namespace) -> None:
    made = new_key(
        given.id,
        given.principal,
        scopes=frozenset(given.scope),
        roles=frozenset(given.role),
        now_s=round(time.time()),
        ttl_s=given.days * DAY_S,
    )
    await tenants.put_key(made.record)
    if given.json:
        output.show_json({**without_secrets(_plain(made.record)), "api_key": made.key})
        return
    output.complain(f"key {made.record.id} of {given.principal} in {given.id}; it is not shown again:")
    output.say(made.key)


async def _key_revoke(tenants: Tenants, given: argparse.Namespace) -> None:
    key_id = key_id_of(given.id) or given.id
    if key_id.startswith(PREFIX):  # mistyped; it is not repeated
        raise Refusal(f"the id of a key are the letters between {PREFIX} and the next _")
    before = (await tenants.load()).keys.get(key_id)
    if before is None:
        raise no_key(key_id)
    _say(given, f"revoked key {key_id} of {before.principal}", await tenants.revoke_key(before))


def _tenant_in(content: Content, id: str) -> TenantRecord:
    if id not in content.tenants:
        raise no_tenant(id, content.tenants)
    return content.tenants[id]


def _say(given: argparse.Namespace, text: str, record: msgspec.Struct) -> None:
    if given.json:
        output.show_json(without_secrets(_plain(record)))
    else:
        output.say(text)
