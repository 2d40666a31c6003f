"""Tenants come, go, are suspended and come back while they are served; credentials end; and who starts a process is who calls."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Client, Context, MCPError, MCPServer
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.identity import Claim, Member, Principal, Quota, TenantRecord
from mcpfast.tenancy.local import PeerUsers
from mcpfast.tenancy.resolvers import Evidence
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests.tenanted import Named, codes, serving, tenancy, text_of, until
from tests.test_sockets import serving as serving_at
from tests.test_sockets import wire_to
from tests.wire import MODERN, Wire, run

NOT_YOURS = {
    "code": 4030,
    "message": "These credentials are not for the tenant that was asked for, or it does not exist",
}
SUSPENDED = {"code": 4030, "message": "This tenant is suspended; whoever runs this server can say why"}
DRAINING = {"code": 5030, "message": "This tenant takes no new calls", "data": {"retryAfterMs": 30_000}}
ENDED = {"code": 4030, "message": "This tenant is not served any more"}


async def in_turn(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def make_server(tenants: Tenancy | None = None, *, middleware: bool = False) -> MCPServer[Any]:
    if tenants is None:
        tenants = tenancy(TenantRecord("acme"), TenantRecord("beta"), drain_s=5.0, look_s=0.02)
    server: MCPServer[Any] = MCPServer(
        "life", version="1", tenancy=tenants, middleware=[in_turn] if middleware else []
    )
    server.ended = []  # type: ignore[attr-defined]

    @server.tool
    async def echo(text: str) -> str:
        return text

    @server.tool
    async def who(ctx: Context) -> str:
        return f"{ctx.tenant.id} {ctx.principal.id} {' '.join(sorted(ctx.principal.scopes))}".strip()

    @server.tool
    async def sleeps(seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            server.ended.append("cancelled")  # type: ignore[attr-defined]
            raise
        return "slept"

    @server.tool
    def blocks(seconds: float) -> str:
        time.sleep(seconds)
        return "blocked"

    return server


def call(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return wire.message("tools/call", {"name": tool, "arguments": arguments})


async def ask(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return await wire.ask("tools/call", {"name": tool, "arguments": arguments})


both_ways = pytest.mark.parametrize("middleware", [False, True])


# ---------------------------------------------------------------- while it serves


@both_ways
def test_suspended_and_back_again(middleware: bool) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire, other = await served.wire("acme/bob"), await served.wire("beta/ann")
            await served.change(quota=Quota(daily_units_max=10.0))
            for _ in range(3):
                assert text_of(await ask(wire, "echo", text="a")) == "a"
            for state, told in (("suspended", SUSPENDED), ("draining", DRAINING)):
                await served.change(state=state)
                for _ in range(2):
                    assert (await ask(wire, "echo", text="a"))["error"] == told
                assert await wire.error("tools/list") == told
                assert text_of(await ask(other, "echo", text="b")) == "b"
            await served.change(state="active")
            assert text_of(await ask(wire, "who")) == "acme bob"
            assert served.meter().used(time.time())[0] == 4.0  # what was used before is used

    run(main())


@both_ways
def test_removed_and_made_anew(middleware: bool) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire("acme/bob")
            assert text_of(await ask(wire, "echo", text="a")) == "a"
            await served.registry.remove("acme")
            for _ in range(2):
                assert (await ask(wire, "echo", text="a"))["error"] == NOT_YOURS
            await served.registry.put(TenantRecord("acme", deny=("echo",)), new=True)
            assert (await ask(wire, "echo", text="a"))["error"]["code"] == -32602
            assert text_of(await ask(wire, "who")) == "acme bob"

    run(main())


def test_a_tenant_that_comes_while_serving() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire("late/bob", MODERN)
            assert (await ask(wire, "echo", text="a"))["error"] == NOT_YOURS
            await served.registry.put(TenantRecord("late"), new=True)
            assert text_of(await ask(wire, "echo", text="a")) == "a"

    run(main())


@pytest.mark.parametrize("how", ["suspended", "removed"])
@pytest.mark.parametrize("tool", ["sleeps", "blocks"])
@both_ways
def test_calls_in_flight_may_end(how: str, tool: str, middleware: bool) -> None:
    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire("acme/bob")
            await ask(wire, "echo", text="")
            sent = call(wire, tool, seconds=0.1)
            wire.send(sent)
            tenant = served.registry.tenant("acme")
            assert tenant is not None
            await until(lambda: tenant.in_flight == 1)
            if how == "removed":
                await served.registry.remove("acme")
            else:
                await served.change(state="suspended")
            assert tenant.state == "draining"
            refused = (await ask(wire, "echo", text=""))["error"]
            assert refused == (NOT_YOURS if how == "removed" else SUSPENDED)
            assert tenant.in_flight == 1 and tenant.state == "draining"
            assert text_of(await wire.answer(sent["id"])) in ("slept", "blocked")
            await until(lambda: tenant.state == how)

    run(main())


@pytest.mark.parametrize("how", ["suspended", "removed"])
@both_ways
def test_at_the_deadline_they_are_cancelled_and_their_clients_told(how: str, middleware: bool) -> None:
    async def main() -> None:
        tenants = tenancy(TenantRecord("acme"), TenantRecord("beta"), drain_s=0.1, look_s=0.02)
        server = make_server(tenants, middleware=middleware)
        async with serving(server) as served:
            wire, other = await served.wire("acme/bob"), await served.wire("beta/ann")
            await ask(wire, "echo", text="")
            sent = [call(wire, "sleeps", seconds=60.0), call(wire, "sleeps", seconds=60.0)]
            wire.send(*sent)
            theirs = call(other, "sleeps", seconds=0.3)
            other.send(theirs)
            tenant = served.registry.tenant("acme")
            assert tenant is not None
            await until(lambda: tenant.in_flight == 2)
            begun = time.monotonic()
            if how == "removed":
                await served.registry.remove("acme")
            else:
                await served.change(state="suspended")
            for one in sent:
                assert (await wire.answer(one["id"]))["error"] == ENDED
            assert 0.09 < time.monotonic() - begun < 0.29
            assert server.ended == ["cancelled"] * 2  # type: ignore[attr-defined]
            assert tenant.in_flight == 0 and tenant.state == how
            assert text_of(await other.answer(theirs["id"])) == "slept"  # of a neighbour: nobody touched it

    run(main())


def test_over_http_they_are_told_too() -> None:
    """Of both eras, with the status that goes with it."""

    async def main() -> None:
        key = new_key("acme", "bob", now_s=time.time())
        store = MemoryStore([TenantRecord("acme")], keys=[key.record])
        server = make_server(Tenancy(store, drain_s=0.1, look_s=0.02))
        async with serving_at(server, "http://127.0.0.1:0") as (address,):
            url = f"http://127.0.0.1:{address.port}/mcp"
            clients = [
                Client(url, authorization=f"Bearer {key.key}", mode=mode) for mode in ("auto", "legacy")
            ]
            async with clients[0], clients[1]:
                running = [asyncio.create_task(one.call_tool("sleeps", {"seconds": 60.0})) for one in clients]
                callers = server._serving[0].dispatcher.tenants.callers  # type: ignore[union-attr]
                tenant = callers.registry.tenant("acme")
                assert tenant is not None
                await until(lambda: tenant.in_flight == 2)
                await callers.registry.remove("acme")
                for task in running:
                    with pytest.raises(MCPError) as told:
                        await asyncio.wait_for(task, 5)
                    assert (told.value.code, told.value.message) == (ENDED["code"], ENDED["message"])
                await until(lambda: tenant.in_flight == 0)

    run(main())


def test_a_resumed_tenant_is_not_cancelled_at_the_old_deadline() -> None:
    async def main() -> None:
        tenants = tenancy(TenantRecord("acme"), drain_s=0.1, look_s=0.02)
        async with serving(make_server(tenants)) as served:
            wire = await served.wire("acme/bob")
            sent = call(wire, "sleeps", seconds=0.3)
            wire.send(sent)
            await until(lambda: served.meter().in_flight == 1)
            await served.change(state="suspended")
            await asyncio.sleep(0.03)
            await served.change(state="active")
            assert text_of(await wire.answer(sent["id"])) == "slept"

    run(main())


def test_a_server_ends_while_a_tenant_drains() -> None:
    async def main() -> None:
        tenants = tenancy(TenantRecord("acme"), drain_s=60.0, look_s=0.02)
        async with serving(make_server(tenants)) as served:
            wire = await served.wire("acme/bob")
            wire.send(call(wire, "sleeps", seconds=60.0))
            await until(lambda: served.meter().in_flight == 1)
            await served.registry.remove("acme")
            begun = time.monotonic()
        assert time.monotonic() - begun < 2.0

    run(main())


# ---------------------------------------------------------------- a file that changes


def test_a_file_changes_while_it_serves_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"

    def write(text: str) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, file)

    async def main() -> None:
        write("[tenants.acme]\ndeny = ['echo']\n[tenants.beta]\n")
        server = make_server(Tenancy(str(file), resolvers=[Named()], look_s=0.02, drain_s=1.0))
        async with serving(server) as served:
            wire, other = await served.wire("acme/bob"), await served.wire("beta/ann")
            assert codes([await ask(wire, "echo", text="")]) == [-32602]
            write("[tenants.acme]\n[tenants.beta]\nstate = 'suspended'\n")
            await until(lambda: served.registry.generation == 2)
            assert codes([await ask(wire, "echo", text="")]) == [None]
            assert (await ask(other, "echo", text=""))["error"] == SUSPENDED
            for broken in (
                "[tenants.acme]\nquota = { calls_per_s = -1 }\n",
                "[tenants.Acme]\n",
                "[tenants",
                "x = 1",
            ):
                write(broken)
                await until(lambda: bool(served.registry.problem))
                assert codes([await ask(wire, "echo", text="")]) == [None]
                assert (await ask(other, "echo", text=""))["error"] == SUSPENDED
                served.registry.problem = ""
            write("[tenants.beta]\n")
            await until(lambda: served.registry.find("acme") is None)
            assert (await ask(wire, "echo", text=""))["error"] == NOT_YOURS
            assert codes([await ask(other, "echo", text="")]) == [None]

    run(main())


def test_a_registry_that_cannot_be_read_serves_nobody(tmp_path: Path) -> None:
    from mcpfast.tenancy.decoding import ConfigurationError

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="no such file"):
            async with serving(make_server(Tenancy(str(tmp_path / "none.toml")))):
                pass

    run(main())


def test_an_older_version_never_wins() -> None:
    async def main() -> None:
        tenants = tenancy(TenantRecord("acme"), look_s=0.01)
        async with serving(make_server(tenants)) as served:
            wire = await served.wire("acme/bob")
            await served.change(deny=("echo",))
            await served.registry.reload()
            store: Any = tenants.store
            store._version -= 1  # a replica that lags behind
            store._tenants = {"acme": TenantRecord("acme")}
            await asyncio.sleep(0.05)
            assert "older" in served.registry.problem
            assert codes([await ask(wire, "echo", text="")]) == [-32602]

    run(main())


# ---------------------------------------------------------------- credentials that end


@both_ways
def test_a_credential_ends_in_the_middle_of_a_connection(middleware: bool) -> None:
    async def main() -> None:
        server = make_server(middleware=middleware)
        assert server.tenancy is not None
        (named,) = server.tenancy.resolvers
        assert isinstance(named, Named)
        async with serving(server) as served:
            named.expires_s["bob"] = time.time() + 0.15
            wire, other = await served.wire("acme/bob"), await served.wire("acme/ann")
            for _ in range(3):
                assert text_of(await ask(wire, "echo", text="a")) == "a"
            assert named.asked <= 2  # it is remembered
            running = call(wire, "sleeps", seconds=0.3)
            wire.send(running)
            await asyncio.sleep(0.16)
            for _ in range(2):
                assert (await ask(wire, "echo", text="a"))["error"] == {
                    "code": 4010,
                    "message": "These credentials have expired",
                    "data": {"error": "invalid_token"},
                }
            assert text_of(await ask(other, "echo", text="b")) == "b"
            assert text_of(await wire.answer(running["id"])) == "slept"  # what began may end
            named.expires_s["bob"] = time.time() + 60  # a new one
            assert text_of(await ask(wire, "echo", text="a")) == "a"

    run(main())


def test_who_asks_is_found_once_and_again_after_a_change() -> None:
    async def main() -> None:
        server = make_server()
        assert server.tenancy is not None
        (named,) = server.tenancy.resolvers
        assert isinstance(named, Named)
        async with serving(server) as served:
            wire = await served.wire("acme/bob")
            for _ in range(10):
                await ask(wire, "echo", text="a")
                await ask(wire, "who")
                await wire.request("tools/list")
            assert named.asked == 1
            await served.change(name="x")
            await until(lambda: named.asked >= 1)
            for _ in range(5):
                await ask(wire, "echo", text="a")
            assert named.asked in (2, 3)  # by the request, and perhaps by who looks after those that listen

    run(main())


def test_a_resolver_that_fails_lets_nobody_in_and_one_that_hangs_neither() -> None:
    from mcpfast import Limits

    class Broken:
        def __init__(self) -> None:
            self.hangs = False

        async def resolve(self, evidence: Evidence) -> Claim | None:
            if self.hangs:
                await asyncio.sleep(60)
            raise RuntimeError("a secret of the resolver")

    async def main() -> None:
        broken = Broken()
        server: MCPServer[Any] = MCPServer(
            "broken",
            version="1",
            tenancy=tenancy(TenantRecord("acme"), resolvers=[broken]),
            limits=Limits(identify_s=0.05),
        )

        @server.tool
        async def echo(text: str) -> str:
            return text

        async with serving(server) as served:
            wire = await served.wire("acme/bob", MODERN)
            answer = await ask(wire, "echo", text="a")
            assert "a secret" not in json.dumps(answer)
            assert "error" in answer or answer["result"]["isError"]
            broken.hangs = True
            late = (await ask(wire, "echo", text="a"))["error"]
            assert (late["code"], late["data"]) == (5030, {"retryAfterMs": 1_000})

    run(main())


# ---------------------------------------------------------------- contexts of a person


def test_a_person_switches_contexts_and_nothing_is_mixed() -> None:
    """One token, three contexts, by the path of the request: calls of all three are mixed on the same connections."""

    class Token:
        async def resolve(self, evidence: Evidence) -> Claim | None:
            name = evidence.header("x-person")
            if name is None:
                return None
            return Claim(Principal(name, scopes=frozenset({"read", "write"}), issuer="token"))

    async def main() -> None:
        records = [
            TenantRecord(
                "acme",
                scopes=frozenset({"read", "write"}),
                members={"ann": Member(frozenset({"read"}))},
                quota=Quota(daily_units_max=100.0),
            ),
            TenantRecord(
                "beta",
                scopes=frozenset({"read", "write"}),
                members={"ann": Member(frozenset({"read", "write"}))},
                quota=Quota(daily_units_max=100.0),
                deny=("sleeps",),
            ),
            TenantRecord("gamma"),
            TenantRecord("ann", kind="personal", quota=Quota(daily_units_max=100.0)),
        ]
        server = make_server(Tenancy(MemoryStore(records), resolvers=[Token()]))
        expected = {"acme": "acme ann read", "beta": "beta ann read write", "ann": "ann ann read write"}
        async with serving_at(server, "http://127.0.0.1:0") as (address,):
            origin = f"http://127.0.0.1:{address.port}"
            paths = {"acme": "/t/acme/mcp", "beta": "/t/beta/mcp", "ann": "/mcp"}

            async def use(tenant: str, mode: str) -> None:
                async with Client(origin + paths[tenant], headers={"x-person": "ann"}, mode=mode) as client:
                    for _ in range(5):
                        assert (await client.call_tool("who")).data == expected[tenant]
                        listed = {tool.name for tool in (await client.list_tools()).tools}
                        assert ("sleeps" in listed) == (tenant != "beta")

            await asyncio.gather(*(use(tenant, mode) for tenant in paths for mode in ("auto", "legacy")))
            registry = server._serving[0].dispatcher.tenants.callers.registry  # type: ignore[union-attr]
            for tenant in paths:
                found = registry.tenant(tenant)
                assert found is not None and found.meter.tenant.used(time.time())[0] == 10.0
            for path in ("/t/gamma/mcp", "/t/never/mcp"):
                with pytest.raises(MCPError) as refused:
                    async with Client(origin + path, headers={"x-person": "ann"}, mode="legacy"):
                        pass
                assert refused.value.code == NOT_YOURS["code"]

    run(main())


# ---------------------------------------------------------------- the process, and who is behind a socket

STDIO = """
from mcpfast import Context, MCPServer
from mcpfast.tenancy.identity import TenantRecord, Quota
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore

store = MemoryStore([
    TenantRecord("acme", scopes=frozenset({"a", "b"}), deny=("hidden",), quota=Quota(calls_per_s=0.01, calls_burst=4)),
    TenantRecord("beta"), TenantRecord("ann", kind="personal"), TenantRecord("gone", state="suspended")])
server = MCPServer("stdio", version="1", tenancy=Tenancy(store, tenant=TENANT, scopes={"a"}))

@server.tool
async def who(ctx: Context) -> str:
    return f"{ctx.tenant.id} {ctx.principal.id} {sorted(ctx.principal.scopes)}"

@server.tool
async def hidden() -> str:
    return "hidden"

@server.tool(scopes={"b"})
async def scoped() -> str:
    return "scoped"

server.run()
"""


def over_stdio(
    tmp_path: Path, *messages: dict[str, Any], tenant: str = "", **environment: str
) -> dict[int, Any]:
    """What a server that was started so answers, by id."""
    file = tmp_path / "server.py"
    file.write_text(textwrap.dedent(STDIO).replace("TENANT", repr(tenant)))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCPFAST_")}
    kept = {name: os.environ[name] for name in ("MCPFAST_TREE", "MCPFAST_BUILD") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(file)],
        input="".join(json.dumps(message) + "\n" for message in messages).encode(),
        capture_output=True,
        timeout=30,
        env={**clean, **kept, **environment},
    )
    assert done.returncode == 0, done.stderr
    return {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}


def modern_call(id: int, tool: str) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}, "_meta": meta},
    }


CALLS = [modern_call(n, tool) for n, tool in enumerate(("who", "hidden", "scoped", "who"))]


@pytest.mark.parametrize(
    ("tenant", "environment", "says"),
    [
        ("", {"MCPFAST_TENANT": "acme"}, "acme acme ['a']"),
        ("", {"MCPFAST_TENANT": "acme", "MCPFAST_PRINCIPAL": "bob"}, "acme bob ['a']"),
        ("acme", {}, "acme acme ['a']"),
        ("acme", {"MCPFAST_TENANT": "beta", "MCPFAST_PRINCIPAL": "b\u00f6b"}, "acme b\u00f6b ['a']"),
        ("", {"MCPFAST_TENANT": "ann"}, "ann ann ['a']"),
    ],
)
def test_who_starts_the_process_names_the_tenant(
    tmp_path: Path, tenant: str, environment: dict[str, str], says: str
) -> None:
    found = over_stdio(tmp_path, *CALLS, tenant=tenant, **environment)
    assert text_of(found[0]) == text_of(found[3]) == says
    if says.startswith("acme"):
        assert found[1]["error"] == {"code": -32602, "message": "Unknown tool: hidden"}
        assert found[2]["error"]["code"] == 4030 and found[2]["error"]["data"]["scopes"] == ["b"]
    else:
        assert text_of(found[1]) == "hidden" and found[2]["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({}, 4010),
        ({"MCPFAST_TENANT": ""}, 4010),
        ({"MCPFAST_PRINCIPAL": "bob"}, 4010),
        ({"MCPFAST_TENANT": "gone"}, 4030),
        ({"MCPFAST_TENANT": "ann", "MCPFAST_PRINCIPAL": "bob"}, 4030),
    ],
)
def test_a_process_that_is_nobodys_serves_nobody(
    tmp_path: Path, environment: dict[str, str], code: int
) -> None:
    found = over_stdio(tmp_path, *CALLS, **environment)
    assert codes(found.values()) == [code] * 4


def test_a_quota_over_stdio(tmp_path: Path) -> None:
    found = over_stdio(tmp_path, *(modern_call(n, "who") for n in range(6)), MCPFAST_TENANT="acme")
    assert codes(found[n] for n in range(6)) == [None] * 4 + [4291] * 2


def test_who_is_behind_a_unix_socket(tmp_path: Path) -> None:
    async def main(users: dict[int, Claim], expected: Any) -> None:
        server = make_server(tenancy(TenantRecord("acme"), resolvers=[PeerUsers(users)]))
        async with serving_at(server, f"unix://{tmp_path}/s") as (address,):
            async with wire_to(address, open_session=False) as wire:
                wire.revision = wire.session = MODERN
                answers = [await ask(wire, "who") for _ in range(3)]
                assert [a.get("error") or text_of(a) for a in answers] == [expected] * 3

    uid = os.getuid()
    run(main({uid: Claim(Principal("me", frozenset({"x"})), "acme")}, "acme me x"))
    run(main({uid: Claim(Principal("me"), "never")}, NOT_YOURS))
    run(main({uid + 1: Claim(Principal("me"), "acme")}, {"code": 4010, "message": "This needs credentials"}))
