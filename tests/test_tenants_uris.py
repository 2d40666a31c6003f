"""Resource URIs, spelled otherwise: no spelling gets around a denied pattern, and none leads to another resource."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpfast import MCPServer
from mcpfast.tenancy.identity import TenantRecord
from tests.tenanted import LEGACY, Served, serving, tenancy
from tests.wire import MODERN, Wire, run

NOT_FOUND = -32002
REACHED: list[tuple[str, str]] = []


def make_server(**record: Any) -> MCPServer[Any]:
    """`REACHED` has what the handlers were given."""
    REACHED.clear()
    server: MCPServer[Any] = MCPServer("uris", version="1", tenancy=tenancy(TenantRecord("acme", **record)))

    @server.resource("files://{name}")
    async def one(name: str) -> str:
        REACHED.append(("one", name))
        return name

    @server.resource("disk://srv/{path*}")
    async def deep(path: str) -> str:
        REACHED.append(("deep", path))
        return path

    @server.resource("rows://{table}{?key,limit}")
    async def rows(table: str, key: str = "", limit: str = "") -> str:
        REACHED.append(("rows", f"{table} {key}"))
        return table

    @server.resource("note://secret")
    async def note() -> str:
        REACHED.append(("note", "secret"))
        return "the note"

    return server


async def read(wire: Wire, uri: str) -> bool:
    """Whether it was read. Anything but "not found" fails."""
    answer = await wire.ask("resources/read", {"uri": uri})
    if "result" in answer:
        assert answer["result"]["contents"][0]["uri"] == uri
        return True
    assert answer["error"]["code"] == NOT_FOUND and answer["error"]["message"].startswith(
        "Resource not found: "
    )
    assert answer["error"]["data"] == {"uri": uri}
    return False


SPELLINGS = [
    "files://secret", "FILES://secret", "Files://secret", "files://%73ecret", "files://%73%65%63%72%65%74", "files://secre%74",
    "files://SECRET", "files://%53ecret", "files://%53ECRET", "files://Secret", "files:///secret", "files://./secret",
    "files://x/../secret", "files://x/%2e%2e/secret", "files://x%2f..%2fsecret", "files://secret/", "files://secret%2f",
    "files://secret?", "files://secret#", "files://secret%00", "files://secret\0", "files://\0secret", "files:/secret",
    "files://secret\\", "files:\\\\secret", "files://%2573ecret", "files://secret%23x", " files://secret", "files://secret ",
    "files://secret\n", "files://secret%0a", "files://secret;v=1", "files://@secret", "files://secret:", "files://secret.",
]  # fmt: skip


@pytest.mark.parametrize("way", ["resources/read", "resources/subscribe", "completion/complete"])
def test_no_spelling_gets_around_what_is_denied(way: str) -> None:
    """However it is written: what is answered is "not found", or the handler is given something else than the denied name."""

    async def main() -> None:
        server = make_server(deny=("files://secret", "files://secret?*"))

        @server.completion
        def complete(ref: Any, argument: Any) -> list[str]:
            REACHED.append(("completed", unquote(ref.uri)))
            return []

        async with serving(server) as served:
            wire = await served.wire()
            for uri in SPELLINGS:
                if way == "completion/complete":
                    ref = {"type": "ref/resource", "uri": uri}
                    await wire.ask(way, {"ref": ref, "argument": {"name": "name", "value": ""}})
                else:
                    await wire.ask(way, {"uri": uri})
            assert ("one", "secret") not in REACHED
            assert ("completed", "files://secret") not in REACHED
            subscribed = next(iter(served.host.sessions)).subscriptions or set()
            assert "files://secret" not in {unquote(uri) for uri in subscribed}

    run(main())


def test_a_host_denied_in_small_letters_is_denied_however_it_is_written() -> None:
    """Hosts know no capitals (RFC 3986, 6.2.2.1): encoded ones are no way around that."""

    async def main() -> None:
        async with serving(make_server(deny=("files://secret",))) as served:
            wire = await served.wire()
            for uri in (
                "files://SECRET",
                "files://Secret",
                "files://%53ECRET",
                "files://%53ecret",
                "files://s%45cret",
            ):
                assert not await read(wire, uri)
            assert await read(wire, "files://other") and REACHED == [("one", "other")]

    run(main())


@pytest.mark.parametrize(
    ("deny", "uri"),
    [
        ("files://ab:c", "files://ab%3Ac"),
        ("files://ab:c", "files://ab%3ac"),
        ("files://ab%3Ac", "files://ab:c"),
        ("files://\u00e9t\u00e9", "files://%C3%A9t%C3%A9"),
        ("files://\u00e9t\u00e9", "files://%c3%a9t\u00e9"),
        ("files://%C3%A9t%C3%A9", "files://\u00e9t\u00e9"),
        ("files://a b", "files://a%20b"),
        ("files://a%20b", "files://a b"),
        ("files://a(b)", "files://a%28b%29"),
        ("rows://users", "rows://users?key=1"),
        ("rows://users", "rows://users?"),
        ("rows://users", "rows://users#x"),
        ("rows://users", "rows://users?unknown=1"),
        ("rows://users?key=boss", "rows://users?unknown=1&key=boss"),
        ("rows://users?key=boss&limit=1", "rows://users?limit=1&key=boss"),
        ("rows://users?key=boss", "rows://users?key=boss&key=other"),
        ("rows://users?key=boss", "rows://users?key=b%6Fss#x"),
    ],
)
def test_what_a_template_takes_for_the_same_is_denied_alike(deny: str, uri: str) -> None:
    """A template decodes what it reads, and passes over a fragment and parameters that it does not know."""

    async def main() -> None:
        async with serving(make_server(deny=(deny,))) as served:
            assert not await read(await served.wire(), uri)
            assert not REACHED
        async with serving(make_server()) as served:
            assert await read(await served.wire(), uri)  # it would have been read

    run(main())


@pytest.mark.parametrize(
    "path",
    ["public/../private/a", "public/%2e%2e/private/a", "public/..%2fprivate/a", "public%2f..%2f..%2fprivate", "public/./../private",
     "../srv/public/x",
     "public/%252e%252e/private/a", "public\\..\\private", "public/..", "public/x%00", "public/%2e%2e%5cprivate"],
)  # fmt: skip
def test_what_is_allowed_is_no_way_out_of_it(path: str) -> None:
    async def main() -> None:
        async with serving(make_server(allow=("disk://srv/public/*",))) as served:
            wire = await served.wire()
            assert not await read(wire, f"disk://srv/{path}") and not REACHED
            assert await read(wire, "disk://srv/public/a") and REACHED == [("deep", "public/a")]

    run(main())


# Letters that mean something to a URI, an encoding or a path, and escapes of some.
_pieces = st.sampled_from(
    [*"secrtSECRT/.%?#\\:\u00e9", "..", "%2e", "%2f", "%73", "%53", "%2573", "%00", "%C3%A9"]
)
_tails = st.lists(_pieces, max_size=12).map("".join) | st.sampled_from(
    ["secret", "%73ecret", "sec/../secret", "secre%74", "x/../secret", "secret?x", "secret/x"]
)


def test_whatever_is_written_never_reaches_what_is_denied() -> None:
    """The oracle is what the handlers are given: never the denied name, nor anything below it."""

    async def ask(served: Served, wire: Wire, tail: str) -> None:
        for scheme in ("files://", "FILES://", "disk://srv/", "disk://SRV/"):
            await read(wire, scheme + tail)
        for handler, value in REACHED:
            assert value.lower() != "secret" if handler == "one" else not value.startswith("secret")
        REACHED.clear()

    async def main() -> None:
        server = make_server(
            deny=("files://secret", "disk://srv/secret", "disk://srv/secret[/?#]*", "disk://srv/secre*")
        )
        async with serving(server) as served:
            wire = await served.wire()
            import asyncio

            loop = asyncio.get_running_loop()

            @settings(max_examples=150)
            @given(_tails)
            def look(tail: str) -> None:
                asyncio.run_coroutine_threadsafe(ask(served, wire, tail), loop).result(10)

            await asyncio.to_thread(look)

    run(main())


def test_a_fixed_resource_has_one_spelling() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            assert await read(wire, "note://secret")
            for uri in (
                "NOTE://secret",
                "note://SECRET",
                "note://%73ecret",
                "note://secret/",
                "note://secret#x",
                "note://x/../secret",
            ):
                assert not await read(wire, uri)
            assert REACHED == [("note", "secret")]

    run(main())


def test_long_uris_are_not_found() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire()
            assert await read(wire, "files://" + "x" * (4_096 - len("files://")))
            assert not await read(wire, "files://" + "x" * (4_097 - len("files://")))

    run(main())


def test_a_tools_own_reading_is_held_to_the_same() -> None:
    """A tool that reads what its caller names is no way around."""
    from mcpfast import Context

    async def main() -> None:
        server = make_server(deny=("files://secret",))

        @server.tool
        async def fetch(uri: str, ctx: Context) -> str:
            (found,) = await ctx.read_resource(uri)
            return found.text

        async with serving(server) as served:
            wire = await served.wire()
            for uri in ("files://secret", "files://%73ecret", "files://secret?x"):
                answer = await wire.ask("tools/call", {"name": "fetch", "arguments": {"uri": uri}})
                if "result" in answer and not answer["result"].get("isError"):
                    assert answer["result"]["content"][0]["text"] != "secret"
            assert ("one", "secret") not in REACHED

    run(main())


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
def test_the_code_is_that_of_the_revision(revision: str) -> None:
    async def main() -> None:
        async with serving(make_server(deny=("*",))) as served:
            wire = await served.wire(revision=revision)
            code = (await wire.error("resources/read", {"uri": "note://secret"}))["code"]
            assert code == (-32602 if revision == MODERN else -32002)

    run(main())


def test_the_tests_spell_what_they_say() -> None:
    assert quote("\u00e9", safe="") == "%C3%A9" and unquote("%53ecret") == "Secret"
