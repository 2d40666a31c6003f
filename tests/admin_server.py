"""A server with tenants and an admin API on a loopback socket, and who asks it. No tests here."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from mcpfast import Limits, MCPServer
from mcpfast.server.host import Host
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.service import Tenancy
from mcpfast.transports.addresses import parse
from mcpfast.transports.web.listener import HttpListener
from mcpfast.transports.web.settings import HttpSettings
from tests.test_http import BASE, ENVELOPE

REGISTRY = """\
# ours
[plans.team]  # paid
scopes = ["read"]
[plans.team.quota]
calls_per_s = 1000
calls_burst = 5

[tenants.acme]
plan = "team"

[tenants.ops]
scopes = ["mcpfast:admin", "read"]
"""
PRINCIPALS = {  # name: tenant, scopes of the key
    "admin": ("ops", {"mcpfast:admin"}),
    "clerk": ("ops", {"read"}),
    "pretender": ("acme", {"mcpfast:admin", "read"}),  # its tenant was never granted the scope
    "caller": ("acme", {"read"}),
}


class Said(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Registered:
    """A registry in a file, and the keys of PRINCIPALS."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tenants.toml"
        self.keys: dict[str, str] = {}
        text = REGISTRY
        for name, (tenant, scopes) in PRINCIPALS.items():
            made = new_key(tenant, name, scopes=frozenset(scopes), now_s=1.8e9)
            self.keys[name] = made.key
            table = msgspec.to_builtins(made.record)
            text += f"\n[keys.{table.pop('id')}]\n"
            text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        self.file.write_text(text)

    @property
    def log(self) -> Path:
        return Path(f"{self.file}.audit.jsonl")

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [one for one in map(json.loads, lines) if kind in ("", one["kind"])]


class Asker:
    """Who asks one server."""

    def __init__(self, http: aiohttp.ClientSession, url: str, keys: Mapping[str, str], server: Any) -> None:
        self.http, self.url, self.keys, self.server = http, url, keys, server
        self.started, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(
        self, method: str, path: str, body: Any = None, who: str = "admin", **headers: str
    ) -> Said:
        """One request to the admin API, below /admin."""
        sent = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if body is not None and "Content-Type" not in sent:
            sent["Content-Type"] = "application/json"
        return await self.raw(method, path[1:] if path.startswith("//") else f"/admin{path}", data, sent)

    async def raw(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Said:
        skipped = () if "Content-Type" in headers else ("Content-Type",)
        async with self.http.request(
            method,
            self.url + path,
            data=data and io.BytesIO(data),
            headers=headers,
            skip_auto_headers=skipped,
        ) as got:
            return Said(got.status, got.headers, await got.read())

    async def call(self, tool: str, who: str = "caller", key: str = "", **arguments: Any) -> Said:
        """tools/call of 2026-07-28."""
        params = {"name": tool, "arguments": arguments, "_meta": ENVELOPE}
        return await self.ask("tools/call", params, who, key, Mcp_Name=tool)

    async def ask(
        self, method: str, params: dict[str, Any], who: str = "caller", key: str = "", **headers: str
    ) -> Said:
        sent = {name: value for name, value in BASE.items() if name != "Host"}
        sent |= {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if key or who:
            sent["Authorization"] = f"Bearer {key or self.keys[who]}"
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": ENVELOPE, **params}}
        return await self.raw("POST", "/mcp", json.dumps(message).encode(), sent)


def server_of(registered: Registered, asker: list[Asker], **options: Any) -> MCPServer[Any]:
    options = {"admin": True, "look_s": 0.1, "drain_s": 20.0, "audit": str(registered.log)} | options
    server = MCPServer("shop", tenancy=Tenancy(str(registered.file), **options), limits=Limits())

    @server.tool
    def echo(text: str) -> str:
        return text

    @server.tool(scopes={"write"})
    def order(text: str) -> str:
        return text

    @server.tool(kinds={"personal"})
    def diary() -> str:
        return "mine"

    @server.tool
    async def wait() -> str:
        asker[0].started.set()
        await asker[0].go_on.wait()
        return "waited"

    return server


@asynccontextmanager
async def administered(registered: Registered, **options: Any) -> AsyncIterator[Asker]:
    """A server of our own, on a port of its own."""
    made: list[Asker] = []
    server = server_of(registered, made, **options)
    async with Host(server) as host, aiohttp.ClientSession() as http:
        listener = HttpListener(host, parse("http://127.0.0.1:0"), HttpSettings())
        await listener.start()
        try:
            url = f"http://127.0.0.1:{listener.address.port}"
            made.append(Asker(http, url, registered.keys, server))
            yield made[0]
        finally:
            listener.close()
