"""`mcpfast tenant`, as an administrator meets it: in real processes, on a file and on SQLite."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcpfast.tenancy.api_keys import key_id_of
from mcpfast.tenancy.audit import TEXT_MAX, Actor, AuditLog
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.stores import open_store

DEADLINE_S = 60
REGISTRY = """\
# ours
[plans.team]  # paid
scopes = ["read"]

[tenants.acme]
plan = "team"
"""
Said = subprocess.CompletedProcess[str]


@pytest.fixture
def where(tmp_path: Path) -> str:
    (tmp_path / "tenants.toml").write_text(REGISTRY)
    return str(tmp_path / "tenants.toml")


def tenant(*arguments: str, cwd: Path | None = None) -> Said:
    return subprocess.run(
        [sys.executable, "-m", "mcpfast", "tenant", *arguments],
        capture_output=True, text=True, timeout=DEADLINE_S, cwd=cwd,
    )  # fmt: skip


def done(*arguments: str) -> str:
    said = tenant(*arguments)
    assert (said.returncode, said.stderr) == (0, ""), said
    return said.stdout


def audited(where: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{where}.audit.jsonl").read_text().splitlines()]


def test_the_life_of_a_tenant(where: str) -> None:
    at = ("--registry", where)
    assert (
        done("add", "ann", "--kind", "personal", "--name", "Ann", "--set", "quota.calls_per_s=5", *at)
        == "added tenant ann\n"
    )
    assert done("set", "ann", "plan=team", 'deny=["admin_*"]', *at) == "changed tenant ann\n"
    assert done("suspend", "ann", *at) == "tenant ann is suspended\n"
    shown = json.loads(done("show", "ann", "--json", *at))
    assert 0 <= time.time() - shown.pop("token_generation") < 60, (
        "tokens of who had this id before are not for ann"
    )
    assert shown == {
        "id": "ann", "kind": "personal", "name": "Ann", "plan": "team", "state": "suspended", "quota": {"calls_per_s": 5.0},
        "deny": ["admin_*"], "revision": 3, "keys": [],
    }  # fmt: skip
    assert done("list", *at).splitlines() == [
        "tenant  kind          plan  state      name",
        "acme    organization  team  active",
        "ann     personal      team  suspended  Ann",
    ]
    assert [record["id"] for record in json.loads(done("list", "--json", *at))] == ["acme", "ann"]
    assert done("resume", "ann", *at) == "tenant ann is active\n"
    assert done("remove", "ann", *at) == "removed tenant ann\n"
    assert Path(where).read_text().rstrip() == REGISTRY.rstrip()
    records = audited(where)
    assert [record["action"] for record in records] == [
        f"tenant.{what}" for what in ("add", "set", "suspend", "resume", "remove")
    ]
    add, _, suspend, _, remove = records
    assert (
        add["before"] is None
        and add["after"]["name"] == "Ann"
        and add["target"] == "ann"
        and add["via"] == "cli"
    )
    assert (suspend["before"].get("state"), suspend["after"]["state"]) == (None, "suspended")
    assert remove["before"]["revision"] == 4 and remove["after"] is None
    assert all(record["user"] and record["at_s"] > 1.7e9 and record["kind"] == "change" for record in records)


def test_a_key_is_shown_once_and_kept_nowhere(where: str) -> None:
    at = ("--registry", where)
    said = tenant("key", "new", "acme", "--principal", "ci", "--scope", "read", "--days", "9", *at)
    key = said.stdout.strip()
    key_id = key_id_of(key)
    assert said.returncode == 0 and key_id and "not shown again" in said.stderr and key not in said.stderr
    secret = key.rpartition("_")[2]
    shown = done("show", "acme", *at) + done("show", "acme", "--json", *at) + done("list", "--json", *at)
    assert key_id in shown and "sha256" not in shown
    mistyped = tenant("key", "revoke", key[:-1], *at)
    assert mistyped.returncode == 2 and secret[:8] not in mistyped.stderr
    assert done("key", "revoke", key, *at) == f"revoked key {key_id} of ci\n"
    assert re.search(rf"{key_id}\s+ci\s+read\s+\d{{4}}-\d\d-\d\d\s+revoked", done("show", "acme", *at))
    everything = "".join(path.read_text() for path in Path(where).parent.iterdir())
    assert secret not in everything + shown and "sha256" not in Path(f"{where}.audit.jsonl").read_text()
    assert [record["action"] for record in audited(where)] == ["key.new", "key.revoke"]
    done("add", "ann", "--kind", "personal", *at)
    assert (
        "the tenant of one person: ann, and nobody else"
        in tenant("key", "new", "ann", "--principal", "ci", *at).stderr
    )
    of_no_use = tenant(
        "key", "new", "acme", "--principal", "ci", "--scope", "raed", "--scope", "read", *at
    ).stderr
    assert "has not been granted the scope 'raed'" in of_no_use and "did you mean 'read'?" in of_no_use
    assert "the scope 'read'" not in of_no_use
    as_json = json.loads(tenant("key", "new", "acme", "--principal", "ci", "--json", *at).stdout)
    assert key_id_of(as_json["api_key"]) == as_json["id"] and "sha256" not in as_json


def test_the_same_on_sqlite(tmp_path: Path) -> None:
    at = ("--registry", f"sqlite:///{tmp_path}/tenants.db")
    assert done("list", *at) == "tenant  kind  plan  state  name\n"
    done("add", "acme", *at)
    done("suspend", "acme", *at)
    key = tenant("key", "new", "acme", "--principal", "ci", *at).stdout.strip()
    assert json.loads(done("show", "acme", "--json", *at))["keys"][0]["id"] == key_id_of(key)
    done("remove", "acme", *at)
    assert json.loads(done("list", "--json", *at)) == []
    assert len(audited(f"{tmp_path}/tenants.db")) == 4


WRONG = {
    "no registry": (["list"], 2, "which registry?"),
    "no such kind of registry": (["list", "--registry", "http://x"], 1, "is no registry"),
    "no file": (["list", "--registry", "{dir}/none.toml"], 1, "no such file"),
    "unknown": (["show", "acne", "--registry", "{where}"], 1, "there is no tenant 'acne'; did you mean 'acme'?"),
    "unknown, to be suspended": (["suspend", "acne", "--registry", "{where}"], 1, "did you mean 'acme'?"),
    "unknown, to be removed": (["remove", "acne", "--registry", "{where}"], 1, "did you mean 'acme'?"),
    "key of nobody": (["key", "new", "acne", "--principal", "p", "--registry", "{where}"], 1, "there is no tenant 'acne'"),
    "no such key": (["key", "revoke", "k", "--registry", "{where}"], 1, "there is no key 'k'"),
    "there already": (["add", "acme", "--registry", "{where}"], 1, "there is a tenant 'acme' already"),
    "bad id": (["add", "../acme", "--registry", "{where}"], 1, "a tenant's id is of small letters"),
    "TOML in an id": (["add", "a]\n[tenants.b", "--registry", "{where}"], 1, "a tenant's id is of small letters"),
    "bad plan": (["add", "b", "--plan", "taem", "--registry", "{where}"], 1, "there is no plan 'taem'; did you mean 'team'?"),
    "bad name": (["add", "b", "--set", "quota.calls=1", "--registry", "{where}"], 1, "tenants.b.quota.calls: there is no such"),
    "bad value": (["set", "acme", "weight=x", "--registry", "{where}"], 1, "tenants.acme.weight: Expected `float"),
    "no value": (["set", "acme", "weight", "--registry", "{where}"], 2, "write NAME=VALUE"),
    "the id": (["set", "acme", "id=b", "--registry", "{where}"], 2, "id and revision are not set"),
    "below a text": (["set", "acme", "plan.x=b", "--registry", "{where}"], 1, "tenants.acme.plan: Expected `str`"),
    "below what is said": (["set", "acme", "plan=b", "plan.x=b", "--registry", "{where}"], 2, "plan has nothing below it"),
    "behind": (["list", "--registry", "{where}", "--", "x"], 2, "no use for what stands behind --"),
    "no such command": (["lst"], 2, "mcpfast tenant"),
    "no log": (["suspend", "acme", "--registry", "{where}", "--audit", "{dir}/none/log"], 1, "every change leaves a record"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_told_in_one_line(
    where: str, arguments: list[str], code: int, told: str
) -> None:
    given = [argument.format(where=where, dir=Path(where).parent) for argument in arguments]
    said = tenant(*given)
    assert (said.returncode, said.stdout) == (code, "") and told in said.stderr
    assert len(said.stderr.splitlines()) == 1 and Path(where).read_text() == REGISTRY
    assert not Path(f"{where}.audit.jsonl").exists() or not audited(where)


def test_the_settings_name_the_registry_and_the_log(tmp_path: Path, where: str) -> None:
    (tmp_path / "mcpfast.toml").write_text('[tenancy]\nregistry = "tenants.toml"\naudit = "log.jsonl"\n')
    (tmp_path / "elsewhere").mkdir()
    said = tenant("suspend", "acme", "--config", "../mcpfast.toml", cwd=tmp_path / "elsewhere")
    assert said.stdout == "tenant acme is suspended\n", said
    assert (tmp_path / "log.jsonl").exists()


def test_tenants_in_the_settings_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "mcpfast.toml"
    text = "[limits]\nidle_s = 5  # short\n\n[tenants.acme]\n"
    file.write_text(text)
    done("add", "ann", "--config", str(file))
    assert re.sub("= [0-9]{10}", "= NOW", file.read_text()) == (
        f"{text}\n[tenants.ann]\nrevision = 1\ntoken_generation = NOW\n"
    )


def test_administrators_at_the_same_time_lose_nothing(where: str) -> None:
    command = [sys.executable, "-m", "mcpfast", "tenant", "add"]
    started = [
        subprocess.Popen([*command, f"t{number}", "--registry", where], stdout=subprocess.DEVNULL)
        for number in range(6)
    ]
    assert [one.wait(DEADLINE_S) for one in started] == [0] * 6
    assert {record["target"] for record in audited(where)} == {f"t{number}" for number in range(6)}
    assert len(json.loads(done("list", "--json", "--registry", where))) == 7


@pytest.mark.parametrize("kind", ["toml", "sqlite"])
def test_a_process_that_serves_notices(tmp_path: Path, where: str, kind: str) -> None:
    at = where if kind == "toml" else f"sqlite:///{tmp_path}/tenants.db"

    async def main() -> None:
        store = open_store(at)
        held = Registry(store, clock=asyncio.get_running_loop().time)
        await held.reload()
        watching = asyncio.create_task(held.watch(0.05))
        changed = asyncio.Event()
        held.subscribe(lambda changes: changed.set())
        await asyncio.to_thread(done, "add", "ann", "--registry", at)
        await asyncio.wait_for(changed.wait(), DEADLINE_S)
        assert held.find("ann") is not None
        watching.cancel()
        close: Callable[[], None] = getattr(store, "close", lambda: None)
        close()

    asyncio.run(main())


def test_on_a_terminal_it_is_a_table(where: str) -> None:
    pytest.importorskip("rich")
    leader, follower = pty.openpty()
    try:
        command = [sys.executable, "-m", "mcpfast", "tenant", "list", "--registry", where]
        subprocess.run(command, stdout=follower, timeout=DEADLINE_S, check=True)
        shown = os.read(leader, 65_536).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert "acme" in shown and "\x1b[" in shown


# ---------------------------------------------------------------------------------------------- the audit log


def test_records_are_whole_lines_without_secrets(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log", clock=lambda: 12.3456)
    someone = Actor("ann", "http")
    log.changed(someone, "key.new", "k", None, {"sha256": "x", "a": {"Secret": 1, "b": [1, {"token": 2}]}})
    log.denied(someone, "tools/call", "other\nline", "x" * 10_000 + "\ud800")
    log.close()
    log.denied(someone, "tools/call", "\ud800", "again")
    log.close()
    first, second, third = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert first == {
        "at_s": 12.346, "kind": "change", "user": "ann", "via": "http", "action": "key.new", "target": "k",
        "before": None, "after": {"a": {"b": [1, {}]}},
    }  # fmt: skip
    assert (
        second["target"] == "other\nline" and len(second["reason"]) == TEXT_MAX + 3 and third["target"] == "?"
    )
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="every change leaves a record there"):
        AuditLog(tmp_path / "none" / "log", clock=lambda: 0.0).denied(Actor("a", "b"), "c", "d", "e")
