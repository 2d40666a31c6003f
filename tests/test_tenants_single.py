"""Who serves no tenants notices nothing: nothing of them is imported, nobody is asked, and the bytes are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpfast import CacheHint, Context, Limits, MCPServer
from tests.wire import MODERN, connected, run

SERVER = """
import sys
from mcpfast import Context, MCPServer

server = MCPServer("single", version="1")

@server.tool(cost=3)
async def echo(text: str) -> str:
    return text

@server.tool
async def context(ctx: Context) -> str:
    return ctx.request.method

@server.tool
def imported() -> list[str]:
    return sorted(name for name in sys.modules if name.startswith("mcpfast.tenancy") or name.endswith(
        ("server.tenants", "server.listeners", "web.identity")) or name.split(".")[0] in ("joserfc", "sqlite3", "tomllib"))

@server.resource("note://{id}")
async def note(id: str) -> str:
    return id

@server.prompt
async def prompt() -> str:
    return "p"

@server.completion
def complete(ref, argument):
    return [argument.value]

server.run(*TRANSPORT)
"""


def message(id: int, method: str, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}


REQUESTS = [
    message(1, "server/discover"),
    message(2, "tools/list"),
    message(3, "tools/call", name="echo", arguments={"text": "a"}),
    message(4, "tools/call", name="context", arguments={}),
    message(5, "resources/list"),
    message(6, "resources/templates/list"),
    message(7, "resources/read", uri="note://1"),
    message(8, "prompts/list"),
    message(9, "prompts/get", name="prompt"),
    message(
        10,
        "completion/complete",
        ref={"type": "ref/prompt", "name": "prompt"},
        argument={"name": "a", "value": "v"},
    ),
]
IMPORTED = message(99, "tools/call", name="imported", arguments={})


@pytest.mark.plain_build  # to count coverage imports more
def test_nothing_of_tenants_is_imported_over_stdio(tmp_path: Path) -> None:
    file = tmp_path / "server.py"
    file.write_text(SERVER.replace("*TRANSPORT", ""))
    lines = "".join(json.dumps(one) + "\n" for one in [*REQUESTS, IMPORTED])
    done = subprocess.run([sys.executable, str(file)], input=lines.encode(), capture_output=True, timeout=30)
    found = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert len(found) == len(REQUESTS) + 1 and all("result" in answer for answer in found.values())
    assert found[99]["result"]["structuredContent"] == {"result": []}


@pytest.mark.plain_build  # to count coverage imports more
def test_nothing_of_tenants_is_imported_over_http(tmp_path: Path) -> None:
    import http.client

    file = tmp_path / "server.py"
    file.write_text(SERVER.replace("*TRANSPORT", "'http://127.0.0.1:0'"))
    server = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(line for line in server.stderr if "listening on" in line).split()[-1]
        port = int(address.rsplit(":", 1)[1].split("/")[0])
        for one in [*REQUESTS, IMPORTED]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            name = one["params"].get("name") or one["params"].get("uri")
            headers = {
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": MODERN,
                "Mcp-Method": one["method"],
                **({"Mcp-Name": name} if name else {}),
            }
            connection.request("POST", "/mcp", json.dumps(one), headers)
            answer = json.loads(connection.getresponse().read())
            connection.close()
            assert "result" in answer, answer
        assert answer["result"]["structuredContent"] == {"result": []}
    finally:
        server.terminate()
        server.wait(10)
        assert server.stderr is not None
        server.stderr.close()


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("single", version="1", **options)

    @server.tool(scopes={"admin"}, kinds={"personal"}, cost=100)
    async def marked(text: str) -> str:
        return text

    @server.tool
    async def whose(ctx: Context) -> str:
        return f"{ctx.tenant.id} {ctx.principal.id} {ctx.namespace.encode_key('a/b')}"

    @server.resource("note://1", scopes={"admin"})
    async def note() -> str:
        return "a note"

    return server


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-11-25", MODERN])
def test_what_is_marked_for_tenants_is_everybodys_without_them(revision: str) -> None:
    async def main() -> None:
        async with connected(make_server(), revision) as wire:
            assert (await wire.call("marked", {"text": "a"}))["content"][0]["text"] == "a"
            assert [tool["name"] for tool in (await wire.request("tools/list"))["tools"]] == [
                "marked",
                "whose",
            ]
            assert (await wire.request("resources/read", {"uri": "note://1"}))["contents"][0][
                "text"
            ] == "a note"

    run(main())


def test_the_one_tenant_of_all() -> None:
    async def main() -> None:
        async with connected(make_server()) as wire:
            said = (await wire.call("whose"))["content"][0]["text"]
            assert said == "default anonymous t/default/k/a%2Fb"

    run(main())


def test_no_gate_no_caller_and_hints_as_they_are() -> None:
    async def main() -> None:
        server = make_server(
            limits=Limits(running_calls_max=1), cache_hints={"tools/list": CacheHint(7, "public")}
        )
        async with connected(server, MODERN) as wire:
            (host,) = server._serving
            assert host.dispatcher.tenants is None and host.engine.gate is None
            (session,) = host.sessions
            assert session.channel.caller is None
            result = await wire.request("tools/list")
            assert (result["ttlMs"], result["cacheScope"]) == (7, "public")

    run(main())


@pytest.mark.parametrize("options", ["", ', tenancy=Tenancy(MemoryStore([TenantRecord("acme")]))'])
def test_who_forgot_the_tenants_is_told(tmp_path: Path, options: str) -> None:
    """What is marked for tenants and served without any is open to everybody: that does not happen in silence."""
    imports = (
        "from mcpfast import MCPServer, Tenancy\nfrom mcpfast.tenancy import MemoryStore, TenantRecord\n"
    )
    marked = (
        "server.add_tool(lambda: 1, 'one', scopes={'admin'})\nserver.add_tool(lambda: 1, 'two', cost=3)\n"
    )
    file = tmp_path / "server.py"
    file.write_text(f"{imports}server = MCPServer('x'{options})\n{marked}server.run()\n")
    done = subprocess.run([sys.executable, str(file)], input="", capture_output=True, timeout=30, text=True)
    assert done.returncode == 0, done.stderr
    assert ("there are no tenants, and 1 of what is offered asks for" in done.stderr) is not bool(options)


def test_what_a_client_is_configured_with() -> None:
    from mcpfast.serve import _client_configuration
    from mcpfast.tenancy import MemoryStore, Tenancy
    from mcpfast.transports.addresses import parse

    def told(server: MCPServer[Any]) -> tuple[str, Any]:
        line, _, pasted = _client_configuration(server, parse("http://127.0.0.1:80")).partition("\n")
        return line, json.loads(pasted)["mcpServers"]["single"]

    line, entry = told(make_server())
    assert "key" not in line and entry.keys() == {"type", "url"}
    line, entry = told(make_server(tenancy=Tenancy(MemoryStore())))
    assert "API key" in line and entry["headers"] == {"Authorization": "Bearer ${MCPFAST_API_KEY}"}
