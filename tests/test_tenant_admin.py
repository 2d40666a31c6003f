"""The admin API of a server that serves, by HTTP as anybody may write it, and by `mcpfast tenant --url` in real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mcpfast.errors import RegistrationError
from mcpfast.tenancy.api_keys import key_id_of, new_key
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from mcpfast.transports.web import admin
from tests.admin_server import Asker, Registered, administered, server_of
from tests.test_asgi import uvicorn_serving
from tests.wire import run

DEADLINE_S = 60
SCOPE = "mcpfast:admin"


@pytest.fixture
def registered(tmp_path: Path) -> Registered:
    return Registered(tmp_path)


def asking(registered: Registered, scenario: Callable[[Asker], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with administered(registered, **options) as ask:
            await scenario(ask)

    run(main())


async def cli(ask: Asker | None, *arguments: str, who: str = "admin", **environment: str) -> Any:
    """`mcpfast tenant`: on the server, or where its arguments say."""
    held = {**os.environ, **environment}
    if ask is not None:
        arguments = (*arguments, "--url", ask.url)
        held |= {"MCPFAST_ADMIN_KEY": ask.keys[who]} if who else {}
    command = [sys.executable, "-m", "mcpfast", "tenant", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S, env=held
    )


# ---------------------------------------------------------------------------------------------- the API


def test_the_life_of_a_tenant(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        added = await ask("POST", "/tenants", {"id": "ann", "kind": "personal", "plan": "team"})
        since = added.json["token_generation"]
        assert 0 <= time.time() - since < 60, "tokens of who had this id before are not for ann"
        assert (added.status, added.json) == (
            201, {"id": "ann", "kind": "personal", "plan": "team", "revision": 1, "token_generation": since},
        )  # fmt: skip
        patch = {"quota": {"calls_per_s": 5}, "deny": ["admin_*"], "plan": None}
        changed = await ask("PATCH", "/tenants/ann", patch)
        told = {"id": "ann", "kind": "personal", "quota": {"calls_per_s": 5.0}, "deny": ["admin_*"]}
        told["token_generation"] = since
        assert (changed.status, changed.json) == (200, told | {"revision": 2})
        changed = await ask("PATCH", "/tenants/ann", {"quota": {"calls_burst": 9}, "deny": None})
        assert (
            changed.json["quota"] == {"calls_per_s": 5.0, "calls_burst": 9.0} and "deny" not in changed.json
        )
        assert (await ask("POST", "/tenants/ann/suspend")).json["state"] == "suspended"
        shown = (await ask("GET", "/tenants/ann")).json
        assert shown["revision"] == 4 and shown["keys"] == []
        assert shown["live"] == {
            "state": "suspended", "in_flight": 0, "admitted": 0, "refused": {}, "daily_units": 0.0, "monthly_units": 0.0,
            "scopes": [], "limits": {"calls_per_s": 5.0, "calls_burst": 9.0},
        }  # fmt: skip
        assert "state" not in (await ask("POST", "/tenants/ann/resume")).json
        assert [one["id"] for one in (await ask("GET", "/tenants")).json["tenants"]] == ["acme", "ann", "ops"]
        assert (await ask("DELETE", "/tenants/ann")).json["id"] == "ann"
        assert (await ask("GET", "/tenants/ann")).status == 404

    before = registered.file.read_text()
    asking(registered, scenario)
    assert registered.file.read_text().rstrip() == before.rstrip()
    changes = registered.records("change")
    assert [one["action"] for one in changes] == [
        f"tenant.{what}" for what in ("add", "set", "set", "suspend", "resume", "remove")
    ]
    assert {(one["user"], one["via"], one["tenant"]) for one in changes} == {("admin", "admin", "ops")}
    assert (changes[0]["before"], changes[-1]["after"], changes[3]["after"]["state"]) == (
        None,
        None,
        "suspended",
    )


def test_a_list_comes_in_pages(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        first = (await ask("GET", "/tenants?limit=1")).json
        assert ([one["id"] for one in first["tenants"]], first["after"]) == (["acme"], "acme")
        last = (await ask("GET", "/tenants?limit=1&after=acme")).json
        assert [one["id"] for one in last["tenants"]] == ["ops"] and "after" not in last
        wrong = await ask("GET", "/tenants?limti=1")
        assert (wrong.status, wrong.json) == (
            400,
            {"error": "limti: there is no such parameter; did you mean 'limit'?"},
        )
        for limit in ("0", "x", "-1", "²", "9" * 10):
            assert (await ask("GET", f"/tenants?limit={limit}")).status == 400

    asking(registered, scenario)


def test_a_key_opens_at_once_and_no_longer_when_it_is_revoked(registered: Registered) -> None:
    secrets: list[str] = []

    async def scenario(ask: Asker) -> None:
        made = await ask("POST", "/tenants/acme/keys", {"principal": "ci", "scopes": ["read"], "ttl_s": 60})
        key = made.json["api_key"]
        assert made.status == 201 and key_id_of(key) == made.json["id"]
        assert made.json["expires_s"] == made.json["created_s"] + 60 and "sha256" not in made.json
        assert made.headers["Cache-Control"] == "no-store"
        secrets.append(key.rpartition("_")[2])
        assert (await ask.call("echo", key=key, text="x")).status == 200
        shown = await ask("GET", "/tenants/acme")
        assert made.json["id"] in shown.body.decode() and secrets[0] not in shown.body.decode()
        by_key = await ask("DELETE", f"/keys/{key}")
        assert by_key.status == 400 and secrets[0] not in by_key.body.decode()
        revoked = await ask("DELETE", f"/keys/{made.json['id']}")
        assert (revoked.status, revoked.json["revoked"]) == (200, True)
        assert (await ask.call("echo", key=key, text="x")).status == 401
        assert (await ask("DELETE", f"/keys/{key}", who="clerk")).status == 403

    asking(registered, scenario)
    assert [one["action"] for one in registered.records("change")] == ["key.new", "key.revoke"]
    assert secrets[0] not in registered.log.read_text() + registered.file.read_text()


def test_what_is_live_is_shown(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        async def live() -> dict[str, Any]:
            told: dict[str, Any] = (await ask("GET", "/tenants/acme")).json["live"]
            return told

        await ask("PATCH", "/tenants/acme", {"quota": {"concurrent_calls_max": 1, "daily_units_max": 10}})
        waiting = asyncio.create_task(ask.call("wait"))
        await ask.started.wait()
        assert (await ask.call("echo", text="x")).status == 429
        told = await live()
        assert (told["state"], told["in_flight"], told["admitted"]) == ("active", 1, 1)
        assert told["refused"] == {"concurrent_calls_max": 1} and told["daily_units"] == 1.0
        assert told["limits"] == {"concurrent_calls_max": 1, "daily_units_max": 10.0}
        await ask("POST", "/tenants/acme/suspend")
        assert (await live())["state"] == "draining"
        assert (await ask.call("echo", text="x")).status == 403
        ask.go_on.set()
        assert (await waiting).status == 200
        async with asyncio.timeout(10):
            while (await live())["state"] != "suspended":
                await asyncio.sleep(0.02)
        await ask("POST", "/tenants/acme/resume")
        assert (await ask.call("echo", text="x")).status == 200

    asking(registered, scenario)


WRONG: dict[str, tuple[str, str, Any, int, str]] = {
    "unknown": ("GET", "/tenants/acne", None, 404, "there is no tenant 'acne'; did you mean 'acme'?"),
    "unknown, changed": ("PATCH", "/tenants/acne", {}, 404, "did you mean 'acme'?"),
    "unknown, removed": ("DELETE", "/tenants/acne", None, 404, "did you mean 'acme'?"),
    "unknown, a key": ("POST", "/tenants/acne/keys", {"principal": "p"}, 404, "did you mean 'acme'?"),
    "unknown key": ("DELETE", "/keys/none", None, 404, "there is no key 'none'"),
    "unknown path": ("GET", "/tenant", None, 404, "see /admin/tenants"),
    "nothing": ("GET", "", None, 404, "see /admin/tenants"),
    "a path too long": ("GET", "/tenants/acme/suspend/now", None, 404, "see /admin/tenants"),
    "method": ("PUT", "/tenants/acme", {}, 405, "GET, PATCH, DELETE, HEAD only"),
    "preflight": ("OPTIONS", "/tenants", None, 405, "GET, POST, HEAD only"),
    "there already": ("POST", "/tenants", {"id": "acme"}, 409, "there is a tenant 'acme' already"),
    "stale": ("PATCH", "/tenants/acme", {"revision": 7}, 409, "tenant 'acme' is at revision 0; this change was made from 7"),
    "no id": ("POST", "/tenants", {}, 400, "tenants: Object missing required field `id`"),
    "bad id": ("POST", "/tenants", {"id": "../acme"}, 400, "a tenant's id is of small letters"),
    "id of another type": ("POST", "/tenants", {"id": 1}, 400, "tenants.id: Expected `str`, got `int`"),
    "another id": ("PATCH", "/tenants/acme", {"id": "b"}, 400, "tenants.acme.id: the id is never another one"),
    "revision of a new one": ("POST", "/tenants", {"id": "b", "revision": 1}, 400, "tenants.b.revision: it is not set"),
    "bad plan": ("POST", "/tenants", {"id": "b", "plan": "taem"}, 400, "tenants.b.plan: there is no plan 'taem'; did you mean"),
    "bad name": ("PATCH", "/tenants/acme", {"quota": {"calls": 1}}, 400, "tenants.acme.quota.calls: there is no such name"),
    "bad value": ("PATCH", "/tenants/acme", {"weight": "2"}, 400, "tenants.acme.weight: Expected `float | null`, got `str`"),
    "bad number": ("PATCH", "/tenants/acme", {"quota": {"calls_per_s": -1}}, 400, "acme.quota.calls_per_s: 0 (no limit) or more"),
    "no principal": ("POST", "/tenants/acme/keys", {}, 400, "missing required field `principal`"),
    "nobody": ("POST", "/tenants/acme/keys", {"principal": ""}, 400, "principal: it is not empty"),
    "of a key": ("POST", "/tenants/acme/keys", {"principal": "p", "scope": ["x"]}, 400, "scope: there is no such name; did you"),
    "before it begins": ("POST", "/tenants/acme/keys", {"principal": "p", "ttl_s": -1}, 400, "ttl_s: 0 (until it is revoked)"),
    "no JSON": ("PATCH", "/tenants/acme", b"{", 400, "The body is one JSON object"),
    "a list": ("PATCH", "/tenants/acme", [], 400, "The body is one JSON object"),
    "deep": ("PATCH", "/tenants/acme", b'{"a":' * 100_000, 400, "The body is one JSON object"),
    "no body": ("POST", "/tenants", b"", 400, "The body is one JSON object"),
    "large": ("PATCH", "/tenants/acme", b" " * (admin.BODY_BYTES_MAX + 1), 413, "A body has at most 1,048,576 bytes"),
}  # fmt: skip


def test_what_cannot_be_done_has_a_status_and_a_reason(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        for name, (method, path, body, status, told) in WRONG.items():
            said = await ask(method, path, body)
            assert said.status == status and told in said.json["error"], (name, said)
        assert (await ask("PUT", "/tenants/acme", {})).headers["Allow"] == "GET, PATCH, DELETE, HEAD"
        said = await ask("PATCH", "/tenants/acme", {}, Content_Type="text/plain")
        assert (said.status, said.json) == (415, {"error": "A body has the Content-Type application/json"})
        largest = b"{" + b" " * (admin.BODY_BYTES_MAX - 2) + b"}"
        assert (await ask("PATCH", "/tenants/acme", largest)).status == 200
        head = await ask("HEAD", "/tenants")
        assert (head.status, head.body) == (200, b"")

    asking(registered, scenario)
    assert [one["action"] for one in registered.records("change")] == ["tenant.set"]


def test_only_who_has_the_scope_is_let_in(registered: Registered) -> None:
    before = registered.file.read_text()

    async def scenario(ask: Asker) -> None:
        for method, path in (
            ("GET", "/tenants"),
            ("DELETE", "/tenants/acme"),
            ("GET", "/nowhere"),
            ("PUT", "/tenants"),
        ):
            nobody = await ask(method, path, who="")
            assert (nobody.status, nobody.headers["WWW-Authenticate"]) == (
                401,
                'Bearer scope="mcpfast:admin"',
            )
            for who in ("clerk", "pretender", "caller"):
                said = await ask(method, path, who=who)
                assert (said.status, said.json) == (403, {"error": f"This needs the scope {SCOPE}"})
                challenge = said.headers["WWW-Authenticate"]
                assert challenge.startswith(f'Bearer error="insufficient_scope", scope="{SCOPE}"')
        bad = await ask("GET", "/tenants", who="", Authorization="Bearer mcpf_bad")
        assert (bad.status, bad.json) == (401, {"error": "The API key is not valid"})
        # What a browser would send for any page is no credential here; nor is any other header.
        assert (await ask("GET", "/tenants", who="", X_API_Key=ask.keys["admin"])).status == 401
        assert (await ask("GET", "/tenants", who="", Cookie=f"key={ask.keys['admin']}")).status == 401
        assert (await ask("GET", f"/tenants?access_token={ask.keys['admin']}", who="")).status == 401
        assert (await ask("GET", "/tenants", Origin="https://evil.example")).status == 403
        assert (await ask("GET", "/tenants", Host="evil.example")).status == 421
        assert (await ask("GET", "//t/ops/admin/tenants")).status == 200
        assert (await ask("GET", "//t/acme/admin/tenants")).status == 403
        assert (await ask("PATCH", "/tenants/ops", {"scopes": ["read"]})).status == 200
        assert (await ask("GET", "/tenants")).status == 403  # from now on

    asking(registered, scenario)
    assert registered.file.read_text().replace("revision = 1\n", "") != before
    denials = [one for one in registered.records("denial") if one["via"] == "admin"]
    told = {(one["user"], one.get("tenant"), one["action"], one["target"], one["reason"]) for one in denials}
    needs = f"This needs the scope {SCOPE}"
    assert ("clerk", "ops", "DELETE", "/admin/tenants/acme", needs) in told
    assert ("pretender", "acme", "DELETE", "/admin/tenants/acme", needs) in told
    assert (
        "",
        None,
        "DELETE",
        "/admin/tenants/acme",
        "This needs credentials in the Authorization header",
    ) in told
    assert ("", None, "call", "", "The API key is not valid") in told
    assert not any(key in registered.log.read_text() for key in registered.keys.values())


def test_it_is_off_until_it_is_switched_on(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        for path in ("/tenants", "", "/keys/x"):
            for who in ("admin", ""):
                said = await ask("GET", path, who=who)
                elsewhere = await ask("GET", "//adnim", who=who)
                assert (said.status, said.body) == (elsewhere.status, elsewhere.body) and said.status == 404
        said = await cli(ask, "list")
        assert said.returncode == 1 and "has no admin API (404): switch it on there" in said.stderr

    asking(registered, scenario, admin=False)


def test_changes_at_the_same_time_are_all_made(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        said = await asyncio.gather(
            *(ask("PATCH", "/tenants/acme", {"members": {f"p{n}": {"scopes": ["read"]}}}) for n in range(8))
        )
        assert [one.status for one in said] == [200] * 8
        shown = (await ask("GET", "/tenants/acme")).json
        assert len(shown["members"]) == 8 and shown["revision"] == 8

    asking(registered, scenario)


def test_too_many_changes_at_the_same_time_are_refused(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpfast.tenancy.administration.CHANGES_MAX", 1)

    async def scenario(ask: Asker) -> None:
        said = await asyncio.gather(*(ask("PATCH", "/tenants/acme", {"name": str(n)}) for n in range(5)))
        refused = [one for one in said if one.status == 503]
        assert len(refused) == 4 and all(one.headers["Retry-After"] == "1" for one in refused)

    asking(registered, scenario)
    assert len(registered.records("change")) == 1


def test_what_somebody_else_changed_is_seen_at_once(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        at = ("--registry", str(registered.file))
        assert (await cli(None, "set", "acme", "name=Acme", *at)).returncode == 0
        assert (await ask("GET", "/tenants/acme")).json["name"] == "Acme"
        assert (await cli(None, "set", "acme", "weight=2", *at)).returncode == 0
        changed = (await ask("PATCH", "/tenants/acme", {"weight": 3})).json
        assert (changed["name"], changed["weight"], changed["revision"]) == ("Acme", 3.0, 3)
        registered.file.write_text(
            registered.file.read_text().replace("[tenants.ops]", "[tenants.ops]\nweihgt = 1")
        )
        broken = await ask("PATCH", "/tenants/acme", {"weight": 4})
        assert broken.status == 500 and str(registered.file) not in broken.body.decode()
        assert (await ask("GET", "/tenants/acme")).json["weight"] == 3.0

    asking(registered, scenario, look_s=1e5)
    reloads = [one for one in registered.records("change") if one["action"] == "registry.reload"]
    assert {"changed": 1, "changed_ids": ["acme"]} in [one["after"] for one in reloads]
    assert {(one["user"], one["via"]) for one in reloads} == {("", "reload")}


def test_a_change_goes_on_when_its_client_is_gone(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        tenants = ask.server.tenancy
        stored, going = tenants.store.put, asyncio.Event()

        async def slow(*given: Any, **more: Any) -> Any:
            going.set()
            await asyncio.sleep(0.3)
            return await stored(*given, **more)

        tenants.store.put = slow
        asked = asyncio.create_task(ask("POST", "/tenants/acme/suspend"))
        await going.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    asking(registered, scenario)  # the server ends meanwhile
    assert 'state = "suspended"' in registered.file.read_text()
    assert [one["action"] for one in registered.records("change")] == ["tenant.suspend"]


def test_who_waits_too_long_is_told_so(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ANSWER_S", 0.05)

    async def scenario(ask: Asker) -> None:
        stored = ask.server.tenancy.store.put

        async def slow(*given: Any, **more: Any) -> Any:
            await asyncio.sleep(0.3)
            return await stored(*given, **more)

        ask.server.tenancy.store.put = slow
        late = await ask("POST", "/tenants/acme/suspend")
        assert (late.status, late.json, late.headers["Retry-After"]) == (503, {"error": admin.NOT_YET}, "5")

    asking(registered, scenario)
    assert [one["action"] for one in registered.records("change")] == ["tenant.suspend"]


def test_the_same_as_an_asgi_application(registered: Registered) -> None:
    async def scenario() -> None:
        made: list[Asker] = []
        server = server_of(registered, made)
        async with uvicorn_serving(server.asgi_app()) as port, aiohttp.ClientSession() as http:
            ask = Asker(http, f"http://127.0.0.1:{port}", registered.keys, server)
            assert (await ask("GET", "/tenants", who="clerk")).status == 403
            assert (await ask("PATCH", "/tenants/acme", {"name": "Acme"})).json["name"] == "Acme"
            assert (await ask("GET", "/tenants/acme")).json["live"]["in_flight"] == 0

    run(scenario())


def test_a_store_of_ones_own_needs_an_audit_log() -> None:
    with pytest.raises(RegistrationError, match="needs audit=FILE"):
        Tenancy(MemoryStore(), admin=True)
    assert Tenancy("tenants.toml", admin=True).audit == "tenants.toml.audit.jsonl"
    assert Tenancy(MemoryStore(), admin=True, audit="log").audit == "log"


# ---------------------------------------------------------------------------------------------- mcpfast tenant --url

STEPS = [
    ["add", "ann", "--kind", "personal", "--name", "Ann", "--set", "quota.calls_per_s=5"],
    ["set", "ann", "plan=team", 'deny=["admin_*"]', "quota.calls_burst=2", "--json"],
    ["suspend", "ann"],
    ["list"],
    ["list", "--json"],
    ["set", "ann", "deny=null", "quota=null"],
    ["resume", "ann", "--json"],
    ["remove", "ann"],
    ["show", "acne"],
    ["suspend", "acne"],
    ["remove", "acne"],
    ["key", "new", "acne", "--principal", "p"],
    ["key", "new", "acme", "--principal", "p", "--days", "-1"],
    ["key", "new", "acme", "--principal", "p", "--days", "0"],
    ["key", "revoke", "none"],
    ["key", "revoke", "mcpf_mistyped"],
    ["add", "eve", "--kind", "personal"],
    ["key", "new", "eve", "--principal", "p"],
    ["remove", "eve"],
    ["add", "acme"],
    ["add", "../acme"],
    ["add", "b", "--plan", "taem"],
    ["add", "b", "--set", "quota.calls=1"],
    ["set", "acme", "weight=x"],
    ["set", "acme", "id=b"],
    ["set", "acme", "weight"],
    ["set", "acme", "plan.x=b"],
]


# All steps in one process: starting one takes most of a second. Prints what each said, and its exit code.
IN_ONE_PROCESS = """
import contextlib, json, sys
from mcpfast.commands.tenant import main
with contextlib.redirect_stderr(sys.stdout):
    for step in json.loads(sys.argv[1]):
        print("---", step, main([*step, *sys.argv[2:]]))
"""


async def steps(*at: str, **environment: str) -> Any:
    command = [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(STEPS), *at]
    held = {**os.environ, **environment}
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE_S, env=held
    )


def test_the_command_line_says_the_same_of_a_file_and_of_a_server(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    served, file = Registered(there), here / "tenants.toml"
    file.write_bytes(served.file.read_bytes())

    async def scenario(ask: Asker) -> None:
        at_server, at_file = await asyncio.gather(
            steps("--url", ask.url, MCPFAST_ADMIN_KEY=ask.keys["admin"]), steps("--registry", str(file))
        )
        assert without_times(at_server.stdout).splitlines() == without_times(at_file.stdout).splitlines()
        assert at_server.stderr == at_file.stderr == ""
        assert at_server.stdout.startswith("added tenant ann\n") and at_server.stdout.count("\n--- ") == len(
            STEPS
        )
        assert without_times(served.file.read_text()) == without_times(file.read_text())

    asking(served, scenario)
    log = map(json.loads, Path(f"{file}.audit.jsonl").read_text().splitlines())
    told, said = (
        [(one["action"], one["target"], one["before"], one["after"]) for one in records]
        for records in (served.records("change"), log)
    )
    assert without_times(repr(told)) == without_times(repr(said))


def without_times(text: str) -> str:
    """The two may not have begun their tenants in the same second."""
    return re.sub(r"(token_generation\W+)\d+", r"\1NOW", text)


def test_the_command_line_shows_what_is_live_and_makes_keys(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        made = await cli(ask, "key", "new", "acme", "--principal", "ci", "--scope", "read", "--days", "1")
        key = made.stdout.strip()
        assert made.returncode == 0 and key_id_of(key) and "not shown again" in made.stderr
        assert (await ask.call("echo", key=key, text="x")).status == 200
        shown = await cli(ask, "show", "acme")
        rows = [line.split() for line in shown.stdout.splitlines()]
        assert ["live.admitted", "1"] in rows and ["live.limits.calls_burst", "5"] in rows
        assert key_id_of(key) in shown.stdout and key not in shown.stdout
        as_json = json.loads((await cli(ask, "show", "acme", "--json")).stdout)
        assert as_json["live"]["state"] == "active" and {one["principal"] for one in as_json["keys"]} >= {
            "ci"
        }
        revoked = await cli(ask, "key", "revoke", key)
        assert revoked.stdout == f"revoked key {key_id_of(key)} of ci\n"
        assert (await ask.call("echo", key=key, text="x")).status == 401
        named = await cli(ask, "list", "--key-env", "OURS", who="", OURS=ask.keys["admin"])
        assert named.returncode == 0 and "acme" in named.stdout

    asking(registered, scenario)


def test_all_pages_of_a_list_are_shown(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "PAGE_MAX", 1)

    async def scenario(ask: Asker) -> None:
        assert [one["id"] for one in json.loads((await cli(ask, "list", "--json")).stdout)] == ["acme", "ops"]

    asking(registered, scenario)


def test_the_command_line_says_why_a_server_does_not_do_it(registered: Registered) -> None:
    async def scenario(ask: Asker) -> None:
        async def told(code: int, text: str, *arguments: str, who: str = "admin", **environment: str) -> None:
            said = await cli(ask, *(arguments or ("list",)), who=who, **environment)
            assert (said.returncode, said.stdout) == (code, "") and text in said.stderr, said
            assert len(said.stderr.splitlines()) == 1
            assert not any(key in said.stderr for key in ask.keys.values())

        away = (*("--url", "http://127.0.0.1:9"), "list")
        refused = await cli(None, *away[2:], *away[:2], MCPFAST_ADMIN_KEY="x")
        assert refused.returncode == 1 and "Cannot connect to http://127.0.0.1:9/admin" in refused.stderr
        await told(1, "lets this key do nothing (403): This needs the scope mcpfast:admin", who="clerk")
        await told(
            1, "lets this key do nothing (401): The API key is not valid", who="", MCPFAST_ADMIN_KEY="mcpf_x"
        )
        await told(2, "MCPFAST_ADMIN_KEY, which is not set", who="", MCPFAST_ADMIN_KEY="")
        await told(2, "OURS, which is not set", "list", "--key-env", "OURS")
        await told(2, "--registry does not go with --url", "list", "--registry", "x")
        await told(2, "--audit does not go with --url", "list", "--audit", "x")
        at_file = await cli(None, "list", "--registry", "x", "--key-env", "OURS")
        assert at_file.returncode == 2 and "--key-env goes with --url" in at_file.stderr
        for url, text in (
            ("ftp://x", "write http://HOST:PORT"),
            ("http://me:secret@x", "the key comes from the environment"),
            ("http://x/?key=secret", "write http://HOST:PORT"),
        ):
            said = await cli(None, "list", "--url", url, MCPFAST_ADMIN_KEY="x")
            assert said.returncode == 2 and text in said.stderr and "secret" not in said.stderr
        mcp = await cli(None, "list", "--url", f"{ask.url}/mcp", MCPFAST_ADMIN_KEY=ask.keys["admin"])
        assert mcp.returncode == 1 and "give --url without the path of MCP" in mcp.stderr
        slash = await cli(None, "list", "--url", f"{ask.url}/admin/", MCPFAST_ADMIN_KEY=ask.keys["admin"])
        assert slash.returncode == 0, slash

    asking(registered, scenario)


def test_the_key_of_one_who_left_opens_nothing(registered: Registered) -> None:
    """Keys of an administrator end as any others do, while the server serves."""

    async def scenario(ask: Asker) -> None:
        other = new_key("ops", "b", scopes=frozenset({SCOPE}), now_s=1.8e9)
        assert (await ask("GET", "/tenants", who="", Authorization=f"Bearer {other.key}")).status == 401
        made = (await ask("POST", "/tenants/ops/keys", {"principal": "b", "scopes": [SCOPE]})).json
        key = {"who": "", "Authorization": f"Bearer {made['api_key']}"}
        assert (await ask("DELETE", f"/keys/{made['id']}", **key)).status == 200
        assert (await ask("GET", "/tenants", **key)).status == 401

    asking(registered, scenario)
    assert [(one["user"], one["action"]) for one in registered.records("change")] == [
        ("admin", "key.new"), ("b", "key.revoke"),
    ]  # fmt: skip
