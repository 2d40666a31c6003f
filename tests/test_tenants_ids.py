"""Tenant ids on every way in: the path of a URL, the environment, the file. What is no id is refused, and leads nowhere else."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mcpfast import Context, MCPServer
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.decoding import ConfigurationError
from mcpfast.tenancy.identity import TenantRecord
from mcpfast.tenancy.registry_toml import TomlStore
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests.tenanted import Served, codes, serving, text_of
from tests.test_namespace import BAD_IDS
from tests.test_sockets import serving as serving_at
from tests.wire import MODERN, Wire, run

LONGEST = "x" * 63
GOOD_IDS = ["a", "0", "acme", "acme-2", "a.b", "a_b", LONGEST]
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


def make_server(tenancy: Tenancy) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("ids", version="1", tenancy=tenancy)

    @server.tool
    async def whose(ctx: Context) -> str:
        return ctx.tenant.id

    return server


# ---------------------------------------------------------------- the path


def post(port: int, target: str, key: str) -> tuple[int, bytes]:
    """Status and body of a call at a target, which goes out as it stands."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "whose", "arguments": {}, "_meta": META},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection._validate_path = lambda url: None  # type: ignore[attr-defined]  # whatever a client may send
        connection.request(
            "POST",
            target,
            json.dumps(body),
            {
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                "Authorization": f"Bearer {key}",
                "MCP-Protocol-Version": MODERN,
                "Mcp-Method": "tools/call",
                "Mcp-Name": "whose",
            },
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def over_http(targets: list[tuple[str, str]], tenants: list[str]) -> list[tuple[int, bytes]]:
    """What is answered to a call at each target, with the key of a tenant."""
    keys = {id: new_key(id, "bob", now_s=time.time()) for id in tenants}
    store = MemoryStore(map(TenantRecord, tenants), keys=[key.record for key in keys.values()])

    async def main() -> list[tuple[int, bytes]]:
        async with serving_at(make_server(Tenancy(store)), "http://127.0.0.1:0") as (address,):
            assert address.port
            return [
                await asyncio.to_thread(post, address.port, target, keys[id].key) for target, id in targets
            ]

    return run(main())  # type: ignore[no-any-return]


def test_an_id_in_a_path_names_the_tenant_up_to_the_longest() -> None:
    found = over_http([(f"/t/{id}/mcp", id) for id in GOOD_IDS], GOOD_IDS)
    for id, (status, body) in zip(GOOD_IDS, found, strict=True):
        assert status == 200 and text_of(json.loads(body)) == id


def test_another_tenant_and_none_are_told_apart_by_nobody() -> None:
    paths = ["beta", "never", "x" * 62]
    found = over_http([(f"/t/{id}/mcp", "acme") for id in paths], ["acme", "beta"])
    assert [status for status, _ in found] == [403] * 3
    assert len({body for _, body in found}) == 1 and json.loads(found[0][1])["error"]["code"] == 4030


BAD_PATHS = [
    *(quote(id.encode(errors="surrogatepass"), safe="") for id in BAD_IDS.values() if 0 < len(id) < 1_000),
    "acme%00", "%61cme", "acm%65", "ACME", "acme%2e", "acme%2Fmcp", "..%2Facme", "%2e%2e/acme", "../t/acme", "./acme",
    "acme/", "acme//", "/acme", "acme;x=1", "acme%3Fa", "acme%23", "acme\\", "acme%5c", "beta/../acme", "beta%2f..%2facme",
]  # fmt: skip


def test_what_is_no_id_is_nowhere() -> None:
    """Nothing is decoded, shortened or put in order on the way: only the one spelling is the tenant's."""
    targets = [(f"/t/{path}/mcp", "acme") for path in BAD_PATHS]
    found = over_http([*targets, ("/t/acme/mcp", "acme")], ["acme", "beta"])
    for path, (status, body) in zip(BAD_PATHS, found, strict=False):
        assert status in (400, 403, 404), (path, status, body)
        assert b"result" not in body and b"acme" not in body, path
    assert found[-1][0] == 200


@pytest.mark.parametrize(
    "target",
    ["/t/acme", "/t/acme/", "/t/acme/mcp/", "/t/acme/other", "/T/acme/mcp", "/t/acme/MCP", "/t/mcp"],
)  # fmt: skip
def test_what_stands_around_an_id_is_as_it_is(target: str) -> None:
    ((status, body),) = over_http([(target, "acme")], ["acme"])
    assert status == 404 and b"result" not in body


# ---------------------------------------------------------------- the environment


def over_environment(monkeypatch: pytest.MonkeyPatch, tenant: str, *known: str) -> dict[str, Any]:
    """What a client in memory is told, which is the process itself."""
    from tests.wire import connected

    monkeypatch.setenv("MCPFAST_TENANT", tenant)
    server = make_server(Tenancy(MemoryStore(map(TenantRecord, known))))

    async def main() -> dict[str, Any]:
        async with connected(server, MODERN, open_session=False) as wire:
            wire.session = MODERN
            return await wire.ask("tools/call", {"name": "whose", "arguments": {}})

    return run(main())  # type: ignore[no-any-return]


@pytest.mark.parametrize("id", GOOD_IDS)
def test_an_id_in_the_environment(monkeypatch: pytest.MonkeyPatch, id: str) -> None:
    assert text_of(over_environment(monkeypatch, id, *GOOD_IDS)) == id


@pytest.mark.parametrize(
    "id", [id for id in BAD_IDS.values() if id and "\0" not in id and len(id) < 10_000 and "\ud800" not in id]
)
def test_what_is_no_id_in_the_environment_is_nobody(monkeypatch: pytest.MonkeyPatch, id: str) -> None:
    told = over_environment(monkeypatch, id, "acme", "a", "b")["error"]
    assert told["code"] == 4030 and id not in told["message"]


# ---------------------------------------------------------------- the registry


@pytest.mark.parametrize("id", GOOD_IDS)
def test_an_id_in_a_file(tmp_path: Path, id: str) -> None:
    (tmp_path / "t.toml").write_text(f"[tenants.{json.dumps(id)}]\n")
    assert list(run(TomlStore(tmp_path / "t.toml").load()).tenants) == [id]


@pytest.mark.parametrize("id", BAD_IDS.values(), ids=BAD_IDS)
def test_what_is_no_id_in_a_file_is_told_with_its_place(tmp_path: Path, id: str) -> None:
    if len(id) > 10_000 or "\ud800" in id:
        id = "y" * 64
    (tmp_path / "t.toml").write_text(f"[tenants.{json.dumps(id)}]\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"t\.toml"):
        run(TomlStore(tmp_path / "t.toml").load())


@pytest.mark.parametrize("id", BAD_IDS.values(), ids=BAD_IDS)
def test_what_is_no_id_is_put_into_no_registry(id: str) -> None:
    async def main() -> None:
        async with serving(make_server(Tenancy(MemoryStore([TenantRecord("acme")])))) as served:
            with pytest.raises(ConfigurationError):
                await served.registry.put(TenantRecord(id), new=True)
            assert [tenant.id for tenant in served.registry.tenants()] == ["acme"]

    run(main())


def test_a_claim_of_a_resolver_is_no_way_around() -> None:
    """A resolver passes on whatever a token says: what is no id finds no tenant."""
    from tests.tenanted import Named

    async def ask(served: Served, id: str) -> dict[str, Any]:
        wire: Wire = await served.wire(f"{id}/bob", MODERN)
        return await wire.ask("tools/call", {"name": "whose", "arguments": {}})

    async def main() -> None:
        tenancy = Tenancy(MemoryStore([TenantRecord("acme"), TenantRecord(LONGEST)]), resolvers=[Named()])
        async with serving(make_server(tenancy)) as served:
            for id in BAD_IDS.values():
                if "/" not in id and "\ud800" not in id and id:
                    assert codes([await ask(served, id)]) == [4030], id
            assert text_of(await ask(served, LONGEST)) == LONGEST

    run(main())
