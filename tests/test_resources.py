"""Resources and templates: what is listed, what is read, what is missing (section 14)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from mcpfast import Context, Image, MCPError, MCPServer, RegistrationError, ResourceNotFound
from mcpfast.protocol.types import BlobResourceContents, TextResourceContents
from tests.wire import MODERN, REVISIONS, connected, run

all_revisions = pytest.mark.parametrize("revision", REVISIONS)
PNG = b"\x89PNG\r\n\x1a\n"


def make_server(**options: Any) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("resources", version="1", **options)

    @server.resource("data://text")
    async def text() -> str:
        "A text."
        return "é\n"

    @server.resource(
        "data://json", mime_type="application/json", title="J", annotations={"priority": 0.5}, meta={"a": 1}
    )
    def in_thread() -> dict[str, Any]:
        return {"a": [1, None]}

    @server.resource("data://blob", name="binary", mime_type="image/png")
    async def blob() -> bytes:
        return PNG

    @server.resource("data://image")
    async def image() -> Image:
        return Image(data=PNG)

    @server.resource("data://several")
    async def several() -> list[Any]:
        return [
            TextResourceContents(uri="data://several/1", text="one", mime_type="text/plain", meta={"n": 1}),
            BlobResourceContents(uri="data://several/2", blob=base64.b64encode(b"two").decode()),
        ]

    @server.resource("users://{id}/profile", mime_type="text/plain")
    async def profile(id: int, ctx: Context) -> str:
        return f"user {id + 1} of {ctx.request.method}"

    @server.resource("users://7/profile")
    async def seven() -> str:
        return "the seventh"

    @server.resource("notes://{folder}/{name}")
    async def note(name: str, folder: str) -> str:
        if name == "gone":
            raise ResourceNotFound(f"notes://{folder}/{name}")
        if name == "secret":
            raise MCPError(-4711, "not for you", {"folder": folder})
        return f"{folder}: {name}"

    @server.tool
    async def reader(uri: str, ctx: Context) -> str:
        contents = await ctx.read_resource(uri)
        return f"{len(contents)} {contents[0]['text'] if isinstance(contents[0], dict) else contents[0].text}"

    return server


@all_revisions
def test_the_lists(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            resources = (await wire.request("resources/list"))["resources"]
            assert [one["uri"] for one in resources] == [
                "data://text",
                "data://json",
                "data://blob",
                "data://image",
                "data://several",
                "users://7/profile",
            ]
            text, data, blob = resources[:3]
            assert text == {"uri": "data://text", "name": "text", "description": "A text."}
            expected = {
                "uri": "data://json",
                "name": "in_thread",
                "mimeType": "application/json",
                "annotations": {"priority": 0.5},
            }
            if revision >= "2025-06-18":
                expected |= {"title": "J", "_meta": {"a": 1}}
            assert data == expected
            assert blob["name"] == "binary"
            templates = (await wire.request("resources/templates/list"))["resourceTemplates"]
            assert templates == [
                {"uriTemplate": "users://{id}/profile", "name": "profile", "mimeType": "text/plain"},
                {"uriTemplate": "notes://{folder}/{name}", "name": "note"},
            ]

    run(scenario())


@all_revisions
@pytest.mark.parametrize("warm", [True, False])
def test_what_is_read(revision: str, warm: bool) -> None:
    blob = base64.b64encode(PNG).decode()
    cases: list[tuple[str, list[dict[str, Any]]]] = [
        ("data://text", [{"uri": "data://text", "text": "é\n"}]),
        ("data://json", [{"uri": "data://json", "mimeType": "application/json", "text": '{"a":[1,null]}'}]),
        ("data://blob", [{"uri": "data://blob", "mimeType": "image/png", "blob": blob}]),
        ("data://image", [{"uri": "data://image", "mimeType": "image/png", "blob": blob}]),
        (
            "users://41/profile",
            [{"uri": "users://41/profile", "mimeType": "text/plain", "text": "user 42 of resources/read"}],
        ),
        (
            "users://7/profile",
            [{"uri": "users://7/profile", "text": "the seventh"}],
        ),  # a fixed one comes first
        ("notes://a%20b/c", [{"uri": "notes://a%20b/c", "text": "a b: c"}]),
    ]

    async def scenario() -> None:
        async with connected(make_server(), revision, warm=warm) as wire:
            for uri, contents in cases:
                got = (await wire.request("resources/read", {"uri": uri}))["contents"]
                for one in got:
                    one.pop("mimeType", None) if "mimeType" not in contents[0] else None
                assert got == contents
            one, two = (await wire.request("resources/read", {"uri": "data://several"}))["contents"]
            assert one.pop("_meta", None) == ({"n": 1} if revision >= "2025-06-18" else None)
            assert one == {"uri": "data://several/1", "mimeType": "text/plain", "text": "one"}
            assert two["uri"] == "data://several/2" and base64.b64decode(two["blob"]) == b"two"

    run(scenario())


@all_revisions
@pytest.mark.parametrize(
    "uri",
    [
        "data://nothing",
        "",
        "x",
        "users://",
        "users://1/profile/more",
        "notes://a/gone",
        "DATA://text",
        "é://",
        "{",
        "a" * 9000,
    ],
)
def test_what_is_missing(revision: str, uri: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            error = await wire.error("resources/read", {"uri": uri})
            assert error["code"] == (-32602 if revision == MODERN else -32002)
            assert error["data"] == {"uri": uri}
            assert (await wire.request("resources/read", {"uri": "data://text"}))["contents"]

    run(scenario())


@all_revisions
def test_what_is_refused(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            for params in ({}, {"uri": 5}, {"uri": None}, {"uri": ["data://text"]}, {"url": "data://text"}):
                assert (await wire.error("resources/read", params))["code"] == -32602
            error = await wire.error("resources/read", {"uri": "users://forty-two/profile"})
            assert error["code"] == -32602 and error["data"] == {"uri": "users://forty-two/profile"}
            error = await wire.error("resources/read", {"uri": "notes://mine/secret"})
            assert error == {"code": -4711, "message": "not for you", "data": {"folder": "mine"}}

    run(scenario())


@all_revisions
def test_a_tool_reads_the_servers_own_resources(revision: str) -> None:
    async def scenario() -> None:
        async with connected(make_server(), revision) as wire:
            assert (await wire.call("reader", {"uri": "data://text"}))["content"][0]["text"] == "1 é\n"
            assert (await wire.call("reader", {"uri": "notes://a/b"}))["content"][0]["text"] == "1 a: b"
            error = await wire.error("tools/call", {"name": "reader", "arguments": {"uri": "data://nothing"}})
            assert error["code"] == (-32602 if revision == MODERN else -32002)
            assert error["data"] == {"uri": "data://nothing"}

    run(scenario())


@all_revisions
def test_resources_come_and_go(revision: str) -> None:
    async def fixed() -> str:
        return "fixed"

    async def any_of(x: str) -> str:
        return f"any {x}"

    async def scenario() -> None:
        server = make_server()
        async with connected(server, revision) as wire:
            read = {"uri": "new://thing"}
            code = -32602 if revision == MODERN else -32002
            assert (await wire.error("resources/read", read))["code"] == code
            server.add_resource("new://{x}", any_of)
            assert (await wire.request("resources/read", read))["contents"][0]["text"] == "any thing"
            server.add_resource("new://thing", fixed)
            assert (await wire.request("resources/read", read))["contents"][0]["text"] == "fixed"
            assert len((await wire.request("resources/list"))["resources"]) == 7
            server.remove_resource("new://thing")
            assert (await wire.request("resources/read", read))["contents"][0]["text"] == "any thing"
            server.remove_resource("new://{x}")
            assert (await wire.error("resources/read", read))["code"] == code
            with pytest.raises(RegistrationError):
                server.remove_resource("new://{x}")

    run(scenario())


def test_registrations_that_cannot_be_served() -> None:
    server = make_server()

    async def one(x: str) -> str:
        return x

    async def two(x: str, y: str) -> str:
        return x

    for uri, fn in (("a://{y}", one), ("a://b", one), ("a://{x}", two), ("data://text/{x}", two)):
        with pytest.raises(RegistrationError):
            server.add_resource(uri, fn)
    with pytest.raises(RegistrationError):
        server.resource("data://text")(make_nullary())
    with pytest.raises(TypeError, match="URI"):
        server.resource(make_nullary())  # type: ignore[arg-type]


def make_nullary() -> Any:
    async def nullary() -> str:
        return "x"

    return nullary


@all_revisions
def test_a_uri_cannot_lead_out_of_its_folder(revision: str, tmp_path: Path) -> None:
    """A simple variable takes one segment: what is encoded in it stays text, and the handler sees it as it is."""
    server: MCPServer[Any] = MCPServer("files")
    seen: list[str] = []

    @server.resource("file:///{name}")
    async def file(name: str) -> str:
        seen.append(name)
        return "ok"

    async def scenario() -> None:
        async with connected(server, revision) as wire:
            for uri in ("file:///../etc/passwd", "file:///a/../../etc/passwd", "file:////etc/passwd"):
                assert "error" in await wire.ask("resources/read", {"uri": uri}), uri
            assert seen == []

    run(scenario())
