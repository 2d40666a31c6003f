"""README.md is run: every Python block, as it stands there, and then called as a reader would. JSON blocks are read."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpfast import Client, MCPServer
from mcpfast.config import load
from mcpfast.tenancy.service import Tenancy
from tests.wire import run

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
pytestmark = pytest.mark.skipif(
    not README.exists(), reason="an installed package is under test, without its README"
)


def blocks(language: str) -> list[str]:
    text = README.read_text() if README.exists() else ""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """Where a block is run: a module, since annotations are looked up in one."""
    made = types.ModuleType("readme_block")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def answers(context: Any, params: Any) -> Any:
    """The user of the examples."""
    fields = params.requested_schema["properties"]
    return {"people": 4} if "people" in fields else {"value": "Ada"}


# ---------------------------------------------------------------- what a reader would try, by the name of the server


async def notes(client: Client) -> None:
    assert (await client.call_tool("add", {"a": 1, "b": 2})).data == 3
    note = await client.read_resource("notes://milk")
    assert note.contents[0].text == "What milk says, read by memory"  # type: ignore[union-attr]
    prompt = await client.get_prompt("review", {"code": "x = 1"})
    assert prompt.messages[0].content.text.endswith("x = 1")  # type: ignore[union-attr]


async def shop(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    find = tools["find"]
    assert find.description == "What there is to buy."
    assert find.input_schema["properties"]["kind"]["description"] == "beans, or ground already"
    assert find.input_schema["properties"]["euros_max"]["exclusiveMinimum"] == 0
    assert find.output_schema is not None
    found = await client.call_tool("find", {"kind": "beans"})
    assert found.data == [{"name": "Santos", "euros": 9.5}]
    for wrong in ({"kind": "tea"}, {"kind": "beans", "euros_max": 0}, {"kind": "beans", "no": 1}, {}):
        assert (await client.call_tool("find", wrong)).is_error
    assert (await client.call_tool("photo", {"name": "Santos"})).content[0].type == "image"
    assert (await client.call_tool("photo", {"name": "Geisha"})).text == "there is no photo of Geisha"
    assert (await client.call_tool("round_up", {"euros": 1.2})).data == 2
    assert (await client.call_tool("by_sku", {"sku": "ABC"})).data == {"sku": "ABC"}
    assert (await client.call_tool("by_sku", {"sku": "abc"})).is_error
    assert tools["photo"].title == "Photo"
    steps: list[Any] = []

    async def on_progress(*step: Any) -> None:
        steps.append(step)

    assert (await client.call_tool("roast", {"minutes": 2}, progress_callback=on_progress)).data == "done"
    assert steps == [(1, 2, "roasting"), (2, 2, "roasting")]


async def tables(client: Client) -> None:
    assert (await client.call_tool("book", {"day": "Friday"})).data == "Friday: 4 people, for Ada"


async def library(client: Client) -> None:
    found = await client.read_resource("library:///emma?page=3")
    assert found.contents[0].text.endswith("(page 3)")  # type: ignore[union-attr]
    with pytest.raises(Exception, match="not found"):
        await client.read_resource("library:///missing")
    roles = [message.role for message in (await client.get_prompt("discuss", {"title": "emma"})).messages]
    assert roles == ["user", "assistant"]
    reference = {"type": "ref/prompt", "name": "discuss"}
    found_values = await client.complete(reference, {"name": "title", "value": "em"})
    assert found_values.completion.values == ["emma"]


async def watched(client: Client) -> None:
    assert (await client.call_tool("answer")).data == 42


async def web(client: Client) -> None:
    assert (await client.call_tool("add", {"a": 1, "b": 2})).data == 3


async def calculator(client: Client) -> None:
    assert (await client.call_tool("add", {"a": 1, "b": 2})).data == 3


async def orders(client: Client) -> None:
    assert (await client.call_tool("orders")).text == "nothing"
    said = (await client.call_tool("order", {"item": "a desk"})).text
    assert said == "a desk, for default, asked for by anonymous"
    assert (await client.call_tool("orders")).text == "a desk"


async def staff(client: Client) -> None:
    assert (await client.call_tool("whoami")).text == "amy of Acme Ltd."


async def web_routes(app: Any) -> None:
    transport = httpx.ASGITransport(app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        assert (await browser.get("/health")).json() == {"ok": True}
        assert (await browser.post("/hook", content=b"abc")).text.startswith("3 bytes from ")


TRIED: dict[str, Callable[[Client], Awaitable[None]]] = {
    "notes": notes,
    "shop": shop,
    "tables": tables,
    "library": library,
    "watched": watched,
    "web": web,
    "calculator": calculator,
    "orders": orders,
    "staff": staff,
}
SHOWN = {"staff": {"x-badge": "4711"}}  # by the client of a server with tenants


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks(
    number: int, mode: str, module: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(blocks("python")[number], f"README.md, block {number}", "exec"), vars(module))
    server: MCPServer[Any] = module.server

    async def scenario() -> None:
        headers = SHOWN.get(server.name)
        async with Client(server, mode=mode, headers=headers, elicitation_callback=answers) as client:
            assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
            await TRIED[server.name](client)

    run(scenario())
    if server.name == "tables":
        assert module.held == ["Friday"], "held once, however often the handler ran"
    if server.name == "web":
        run(web_routes(module.app))
    if server.name == "watched":
        assert "tools/call answered" in capsys.readouterr().out
        assert module.Counter.calls >= 1
    if server.name == "staff":
        run(module.test_badge())


def test_the_tenants_of_the_page(
    module: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have to do with the orders of the block beside them."""
    file = tmp_path / "mcpfast.toml"
    file.write_text(next(block for block in blocks("toml") if block.startswith("# mcpfast.toml")))
    settings = load(file, environ={})
    assert settings.server.listen == ("http://127.0.0.1:8000",)
    block = next(block for block in blocks("python") if block.startswith("# app.py"))
    exec(compile(block, "README.md", "exec"), vars(module))
    server: MCPServer[Any] = module.server
    server.tenancy = Tenancy(settings.registry, scopes={"orders:write"})

    async def scenario(tenant: str) -> list[str]:
        monkeypatch.setenv("MCPFAST_TENANT", tenant)
        async with Client(server) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            said = await client.call_tool("order", {"item": "a desk"}) if "order" in tools else None
            assert said is None or said.text == "a desk, for Acme Ltd., asked for by acme"
            assert (await client.call_tool("orders")).text == ("a desk" if said else "nothing")
            return tools

    assert run(scenario("acme")) == ["orders", "order"]
    assert run(scenario("ann")) == ["orders"]


def test_every_example_is_tried() -> None:
    names = re.findall(r'^server = MCPServer\(\s*"(\w+)"', README.read_text(), re.M)
    assert names == list(TRIED)
    assert len(names) == len(blocks("python"))


def test_json_blocks() -> None:
    found = [json.loads(block) for block in blocks("json")]
    assert len(found) >= 2
    for host in found:
        for entry in host["mcpServers"].values():
            assert entry["command"].startswith("/"), "hosts want absolute paths"


def test_words_and_files_it_names_are_there() -> None:
    text = README.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for word in set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.M)):
        assert re.search(rf"^{''.join(word)}:", makefile, re.M), f"make {word}"
    for name in re.findall(r"\]\((\w+\.md)\)", text):
        assert (ROOT / name).is_file(), name
