"""Tenants: two organizations and a person share one server; each has its own tools, its own budget, its own data.

python examples/tenants.py                                        what each of them sees and may, over real HTTP
mcpfast run examples/tenants.py --config examples/tenants.toml    the server
mcpfast run examples/tenants.py --config examples/tenants.toml --listen stdio --tenant ann
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from mcpfast import Client, Context, MCPError, McpFastError, MCPServer

server = MCPServer("orders", version="1.0")
stored: dict[str, list[str]] = {}  # whatever store it is: each tenant's keys are below its own prefix
COST = {"orders": 1, "order": 2, "report": 25, "wish": 1}  # units of the budgets


@server.tool(cost=COST["orders"])
async def orders(ctx: Context) -> list[str]:
    "What was ordered."
    return stored.get(ctx.namespace.encode_key("orders"), [])


@server.tool(scopes={"orders:write"}, cost=COST["order"])
async def order(item: str, ctx: Context) -> str:
    "Order something."
    stored.setdefault(ctx.namespace.encode_key("orders"), []).append(item)
    return f"{item}, for {ctx.tenant.name}"


@server.tool(scopes={"reports:read"}, kinds={"organization"}, cost=COST["report"])
async def report(ctx: Context) -> str:
    "All that an accountant asks for."
    return f"{len(await orders(ctx))} ordered, as {ctx.principal.id} may see"


@server.tool(kinds={"personal"}, cost=COST["wish"])
async def wish(item: str) -> str:
    "Persons may wish."
    return f"{item}, one day"


# ---------------------------------------------------------------------------------------------- the story

HERE = Path(__file__)
MCPFAST = (sys.executable, "-m", "mcpfast")
DEADLINE_S = 60.0  # all of it; it takes a few seconds
CALLS_MAX = 50  # somebody who calls that often was refused before
SESSION = "2025-11-25"  # the last revision with sessions


def title(text: str) -> None:
    print(f"\n\x1b[1;32m{text}\x1b[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def step(what: str, came_of_it: str) -> None:
    print(f"  {what:<24} {came_of_it}", flush=True)


async def mcpfast(*arguments: str | Path) -> str:
    """What the command says."""
    done = await asyncio.create_subprocess_exec(*MCPFAST, *arguments, stdout=-1, stderr=-1)
    out, err = await done.communicate()
    if done.returncode != 0:
        raise McpFastError(err.decode().strip())
    return out.decode().strip()


@contextlib.asynccontextmanager
async def serving(registry: Path) -> AsyncIterator[str]:
    """The server of this file on a free port; gives its address."""
    listen = ("--config", registry, "--listen", "http://127.0.0.1:0")
    looks = {"MCPFAST_TENANCY__LOOK_S": "0.1"}  # stronger than the file: changes are noticed sooner
    process = await asyncio.create_subprocess_exec(
        *MCPFAST, "run", HERE, *listen, stderr=-1, env={**os.environ, **looks}
    )
    assert process.stderr is not None
    try:
        told = (await process.stderr.readline()).decode()
        if "listening on " not in told:
            raise McpFastError(told + (await process.stderr.read()).decode())
        yield told.partition("listening on ")[2].strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


def told(error: MCPError) -> str:
    """A refusal as a program reads it, too."""
    wait_ms = (error.data or {}).get("retryAfterMs")
    return f"{error.message}  (error {error.code}{f', retryAfterMs {wait_ms}' if wait_ms else ''})"


async def refusal_of(client: Client, tool: str, **arguments: str) -> tuple[int, MCPError]:
    """Calls until it is refused: how often it was not, and the refusal."""
    for number in range(CALLS_MAX):
        try:
            await client.call_tool(tool, arguments)
        except MCPError as error:
            return number, error
    raise McpFastError(f"{tool} was never refused")


async def sees(client: Client) -> None:
    tools = [f"{tool.name} {COST[tool.name]}" for tool in (await client.list_tools()).tools]
    step("sees, at units a call", ", ".join(tools))


async def acme(client: Client) -> None:
    await sees(client)
    step("order", (await client.call_tool("order", {"item": "a desk"})).text)
    number, error = await refusal_of(client, "report")
    step(f"report, {number} times", "at 25 of 100 units a day")
    step("once more", told(error))


async def northwind(client: Client) -> None:
    await sees(client)
    step("orders", f"{(await client.call_tool('orders')).data}, whatever others ordered")
    _, error = await refusal_of(client, "report")
    step("report", f"{told(error)}: to others it is not there")
    number, error = await refusal_of(client, "order", item="a boat")
    step(f"order, {number} times", "at 2 of 10 units a day")
    step("once more", told(error))


async def ann(client: Client) -> None:
    await sees(client)
    number, error = await refusal_of(client, "wish", item="a boat")
    await asyncio.sleep(error.data["retryAfterMs"] / 1000)
    wished = (await client.call_tool("wish", {"item": "a boat"})).text
    step(f"wish, {number} times", "as quickly as one can")
    step("once more", told(error))
    step("half a second later", wished)


def post(url: str, key: str, method: str, session: str = "", params: object = None) -> tuple[int, str, str]:
    """Status, session id and body: here what a thief would send, so no client of ours does it."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    headers["Authorization"] = f"Bearer {key}"
    if session:
        headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": SESSION}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, json.dumps(message).encode(), headers), timeout=10
        ) as answer:
            return answer.status, answer.headers.get("Mcp-Session-Id", ""), answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, "", json.loads(refused.read())["error"]["message"]


async def theft(url: str, keys: dict[str, str]) -> None:
    hello = {"protocolVersion": SESSION, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    _, session, _ = await asyncio.to_thread(post, url, keys["acme"], "initialize", "", hello)
    for who in ("acme", "northwind"):
        status, _, body = await asyncio.to_thread(post, url, keys[who], "ping", session)
        step(f"{who}, with its key", f"HTTP {status}" + (f": {body}" if status != 200 else ""))
    try:
        async with Client(url, timeout_s=10) as client:
            await client.list_tools()
    except MCPError as error:
        step("nobody, without a key", told(error))


async def suspension(url: str, keys: dict[str, str], registry: Path) -> None:
    async with Client(url, authorization=f"Bearer {keys['northwind']}", timeout_s=10) as suspended:
        said = await mcpfast("tenant", "suspend", "northwind", "--registry", registry)
        step("mcpfast tenant suspend", said)
        while True:
            try:
                await suspended.list_tools()
            except MCPError as error:
                step("northwind", told(error))
                break
            await asyncio.sleep(0.05)
    async with Client(url, authorization=f"Bearer {keys['acme']}", timeout_s=10) as client:
        step("acme", f"{len((await client.list_tools()).tools)} tools, as before")


PERSONS = {
    "acme": (
        "Acme Ltd., an organization with the plan business",
        "amy",
        ("orders:write", "reports:read"),
        acme,
    ),
    "northwind": ("Northwind Traders, with the plan starter", "ned", ("orders:write",), northwind),
    "ann": ("Ann, a person with the plan free", "ann", (), ann),
}


async def story(registry: Path) -> None:
    """`registry` is a copy: keys that are made are nobody's but ours."""
    keys = {}
    for id, (_, who, scopes, _) in PERSONS.items():
        asked = [word for scope in scopes for word in ("--scope", scope)]
        keys[id] = await mcpfast(
            "tenant", "key", "new", id, "--principal", who, *asked, "--registry", registry
        )
    async with serving(registry) as url:
        print(f"One process serves three tenants at {url}", flush=True)
        for id, (who, _, _, act) in PERSONS.items():
            title(who)
            async with Client(url, authorization=f"Bearer {keys[id]}", timeout_s=10) as client:
                await act(client)
        title("A session of Acme's, stolen")
        await theft(url, keys)
        title("Northwind is suspended while all of them are served")
        await suspension(url, keys, registry)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mcpfast-") as folder:
        registry = Path(shutil.copy(HERE.with_suffix(".toml"), folder))
        try:
            asyncio.run(asyncio.wait_for(story(registry), DEADLINE_S))
        except (TimeoutError, McpFastError) as error:
            print(f"tenants: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
