"""What they may use, on a served server: scopes, kinds, patterns; hidden is as if it were not there, and lists show no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from mcpfast import CacheHint, Context, Limits, MCPServer
from mcpfast.tenancy.identity import Plan, Quota, TenantRecord
from tests.tenanted import LEGACY, Served, all_pages, codes, names, serving, tenancy, text_of, until
from tests.wire import MODERN, Wire, run

UNKNOWN = -32602
NOT_FOUND = {LEGACY: -32002, MODERN: -32602}
STEP_UP = 4030
WRITE = "orders:write"
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
OFFERS = {
    "tools/list": ("open", "write", "staff", "secret", "context"),
    "prompts/list": ("open", "write", "staff", "secret"),
    "resources/list": ("note://open", "note://write", "note://staff", "note://secret"),
    "resources/templates/list": ("open://x/{id}", "write://x/{id}", "staff://x/{id}", "secret://x/{id}"),
}
RECORDS = (
    TenantRecord("acme", scopes=frozenset({WRITE}), deny=("secret", "*://secret", "secret://*")),
    TenantRecord("nobody", deny=("*",)),
    TenantRecord("bob", kind="personal"),
    TenantRecord("few", allow=("open", "note://open", "open://*")),
)
# Who sees what: the first word of each offer.
SEEN = {
    "acme/bob": {"open", "staff", "context"},
    f"acme/bob/{WRITE}": {"open", "write", "staff", "context"},
    f"nobody/bob/{WRITE}": set(),
    "bob/bob": {"open", "secret", "context"},  # a person is no staff, and was granted nothing
    f"few/bob/{WRITE}": {"open"},
}
everybody = pytest.mark.parametrize("who", SEEN)
both_eras = pytest.mark.parametrize("revision", [LEGACY, MODERN])


async def in_turn(request: Any, call_next: Any) -> Any:
    return await call_next(request)


def make_server(*, middleware: bool = False, **options: Any) -> MCPServer[Any]:
    options.setdefault("tenancy", tenancy(*RECORDS))
    server: MCPServer[Any] = MCPServer(
        "permission", version="1", middleware=[in_turn] if middleware else [], **options
    )
    asks: dict[str, dict[str, Any]] = {
        "open": {},
        "write": {"scopes": {WRITE}},
        "staff": {"kinds": {"organization"}},
        "secret": {},
    }

    def told(word: str) -> Callable[..., Any]:
        async def tell() -> str:
            return word

        return tell

    def told_of(word: str) -> Callable[..., Any]:
        async def tell(id: str) -> str:
            return f"{word} {id}"

        return tell

    for word, use in asks.items():
        server.add_tool(told(word), word, **use)
        server.add_prompt(told(word), word, **use)
        server.add_resource(f"note://{word}", told(word), **use)
        server.add_resource(f"{word}://x/{{id}}", told_of(word), **use)

    @server.tool
    async def context(ctx: Context) -> str:
        await asyncio.sleep(0)
        return ctx.request.method

    @server.completion
    def complete(ref: Any, argument: Any) -> list[str]:
        return [argument.value + "!"]

    return server


def word_of(offer: str) -> str:
    scheme, _, rest = offer.partition("://")
    return rest if scheme == "note" else scheme


def test_the_offers_are_those_that_are_registered() -> None:
    server = make_server()
    shelves = (
        server.catalog.tools,
        server.catalog.prompts,
        server.catalog.resources,
        server.catalog.templates,
    )
    for method, shelf in zip(LISTS, shelves, strict=True):
        assert {key for key in OFFERS[method] if key in shelf} == set(OFFERS[method]) and len(shelf) == len(
            OFFERS[method]
        )


# ---------------------------------------------------------------- lists


@everybody
@both_eras
@pytest.mark.parametrize("page_items", [0, 1, 2])
def test_lists_show_what_may_be_used_and_nothing_else(who: str, revision: str, page_items: int) -> None:
    async def main() -> None:
        async with serving(make_server(limits=Limits(page_items=page_items))) as served:
            wire = await served.wire(who, revision)
            for method, offers in OFFERS.items():
                pages = await all_pages(wire, method)
                wanted = [offer for offer in offers if word_of(offer) in SEEN[who]]
                assert [name for page in pages for name in page] == wanted
                assert all(page or not wanted for page in pages), "no page is empty because of what is hidden"
                assert len(pages) == max(1, -(-len(wanted) // page_items) if page_items else 1)

    run(main())


def test_nothing_of_what_is_hidden_is_in_the_bytes_of_a_list() -> None:
    async def main() -> None:
        async with serving(make_server(limits=Limits(page_items=2))) as served:
            wire = await served.wire("acme/bob")
            for method in LISTS:
                await all_pages(wire, method)
            seen = b"".join(wire.lines)
            assert b"secret" not in seen and b"write" not in seen and b"staff" in seen

    run(main())


def test_a_list_is_not_anothers_because_it_was_made_first() -> None:
    """Prepared pages are shared by who sees the same, and by nobody else; whoever comes first."""

    async def main() -> None:
        async with serving(make_server()) as served:
            wires = {who: await served.wire(who) for who in SEEN}
            for _ in range(2):
                for who, wire in [*wires.items(), *reversed(wires.items())]:
                    tools = names(await wire.request("tools/list"))
                    assert set(tools) == SEEN[who] & set(OFFERS["tools/list"])

    run(main())


def test_who_sees_the_same_shares_the_prepared_bytes() -> None:
    async def main() -> None:
        records = [TenantRecord(f"t{number}", plan="p") for number in range(20)]
        server = make_server(tenancy=tenancy(*records, plans={"p": Plan(deny=("secret",))}))
        async with serving(server) as served:
            for record in records:
                await (await served.wire(f"{record.id}/x")).request("tools/list")
            assert len(server.catalog.tools._pages) == 1

    run(main())


@both_eras
@pytest.mark.parametrize("method", [*LISTS, "resources/read"])
def test_what_depends_on_who_asks_is_private_whatever_the_hint(method: str, revision: str) -> None:
    async def main(tenants: Any, who: str, scope: str) -> None:
        hints = {one: CacheHint(ttl_ms=5_000, scope="public") for one in (*LISTS, "resources/read")}
        server = make_server(tenancy=tenants, cache_hints=hints)
        async with serving(server) as served:
            wire = await served.wire(who, revision)
            for _ in range(2):
                params = {"uri": "note://open"} if method == "resources/read" else {}
                result = await wire.request(method, params)
                if revision == MODERN:
                    assert (result["cacheScope"], result["ttlMs"]) == (scope, 5_000)
                else:
                    assert "cacheScope" not in result

    run(main(tenancy(*RECORDS), "acme/bob", "private"))
    run(main(None, "acme/bob", "public"))


def test_what_revokes_tokens_ends_cursors_too() -> None:
    """Whoever gets an id that somebody else had before has another `token_generation`, and nothing of his."""

    async def main() -> None:
        server: MCPServer[Any] = MCPServer(
            "paged", version="1", limits=Limits(page_items=1), tenancy=tenancy(TenantRecord("acme"))
        )
        for number in range(3):
            server.add_tool(lambda: "x", f"tool{number}", description="one of three")
        async with serving(server) as served:
            wire = await served.wire("acme/bob")
            cursor = {"cursor": (await wire.request("tools/list"))["nextCursor"]}
            assert names(await wire.request("tools/list", cursor)) == ["tool1"]
            await served.change(token_generation=7)
            assert (await wire.error("tools/list", cursor))["code"] == -32602

    run(main())


@pytest.mark.parametrize("cursor", ["", "x", "dG9vbHM6OTk=", "cHJvbXB0czox", "dG9vbHM6MQ"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    async def main() -> None:
        async with serving(make_server(limits=Limits(page_items=1))) as served:
            wire = await served.wire("acme/bob")
            error = await wire.error("tools/list", {"cursor": cursor})
            assert error["code"] == UNKNOWN

    run(main())


# ---------------------------------------------------------------- calls

ASKED: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "tools/call": lambda word: ("tools/call", {"name": word, "arguments": {}}),
    "prompts/get": lambda word: ("prompts/get", {"name": word}),
    "resources/read": lambda word: ("resources/read", {"uri": f"note://{word}"}),
    "a template": lambda word: ("resources/read", {"uri": f"{word}://x/7"}),
    "resources/subscribe": lambda word: ("resources/subscribe", {"uri": f"note://{word}"}),
    "completion of a prompt": lambda word: (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": word}, "argument": {"name": "a", "value": "v"}},
    ),
    "completion of a template": lambda word: (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": f"{word}://x/{{id}}"},
            "argument": {"name": "id", "value": "v"},
        },
    ),
    "completion of a resource": lambda word: (
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": f"note://{word}"}, "argument": {"name": "id", "value": "v"}},
    ),
}


def code_of_unknown(way: str, revision: str) -> int:
    return NOT_FOUND[revision] if way in ("resources/read", "a template", "resources/subscribe") else UNKNOWN


async def attempt(wire: Wire, way: str, word: str) -> dict[str, Any]:
    method, params = ASKED[way](word)
    return await wire.ask(method, params)


@everybody
@both_eras
@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("middleware", [False, True])
def test_what_is_not_listed_is_unknown(who: str, revision: str, way: str, middleware: bool) -> None:
    """In the very words of what never was; only where a token with more scopes would help, that is said."""
    if way == "resources/subscribe" and revision == MODERN:
        revision = "2025-06-18"
        NOT_FOUND[revision] = -32002

    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire(who, revision)
            for _ in range(2):  # the second one finds what is remembered of the first
                never = await attempt(wire, way, "never")
                assert never["error"]["code"] == code_of_unknown(way, revision)
                for word in ("open", "write", "staff", "secret"):
                    answer = await attempt(wire, way, word)
                    if word in SEEN[who]:
                        assert "result" in answer, answer
                    elif word == "write" and who == "acme/bob":
                        assert answer["error"] == {
                            "code": STEP_UP,
                            "message": f"This needs the scope {WRITE}",
                            "data": {"error": "insufficient_scope", "scopes": [WRITE]},
                        }
                    else:
                        known = json.dumps(answer["error"])
                        assert known == json.dumps(never["error"]).replace("never", word)

    run(main())


def test_names_of_tools_and_prompts_are_two_things() -> None:
    """A prompt that everybody may get opens no tool of the same name, and a resource neither."""

    async def main() -> None:
        server: MCPServer[Any] = MCPServer(
            "names", version="1", tenancy=tenancy(TenantRecord("acme", scopes=frozenset({"admin"})))
        )

        async def tell() -> str:
            return "told"

        server.add_prompt(tell, "report")
        server.add_tool(tell, "report", scopes={"admin"})
        server.add_tool(tell, "other")
        server.add_prompt(tell, "other", scopes={"admin"})
        server.add_prompt(tell, "urn:x")
        server.add_resource("urn:x", tell, scopes={"admin"})
        async with serving(server) as served:
            for first in ("tools/list", "prompts/list", "resources/list"):
                await served.change()  # nothing is remembered
                wire = await served.wire("acme/bob")
                await wire.request(first)
                assert names(await wire.request("prompts/list")) == ["report", "urn:x"]
                assert names(await wire.request("tools/list")) == ["other"]
                assert names(await wire.request("resources/list")) == []
                assert (await wire.error("tools/call", {"name": "report"}))["code"] == STEP_UP
                assert (await wire.error("prompts/get", {"name": "other"}))["code"] == STEP_UP
                assert (await wire.error("resources/read", {"uri": "urn:x"}))["code"] == STEP_UP
                assert "result" in await wire.ask("prompts/get", {"name": "report"})

    run(main())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Open",
        "open ",
        " open",
        "open\0",
        "\u043epen",
        "op\u0435n",
        "*",
        "o*",
        "[o]pen",
        "ope\u006e\u0301",
    ],
)
def test_a_name_spelled_otherwise_is_another(name: str) -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire("few/bob")
            assert (await wire.error("tools/call", {"name": name, "arguments": {}}))["code"] == UNKNOWN

    run(main())


@pytest.mark.parametrize("name", [None, 1, [], {}, True])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire("acme/bob")
            for method, params in (
                ("tools/call", {"name": name, "arguments": {}}),
                ("prompts/get", {"name": name}),
                ("resources/read", {"uri": name}),
                ("completion/complete", {"ref": {"type": "ref/prompt", "name": name}, "argument": {}}),
            ):
                wire.send(json.dumps(wire.message(method, params)).encode())
                assert codes([await wire.receive()])[0] in (-32602, -32002)
            assert (await wire.ask("tools/call", {"name": "open"}))["result"]
            assert served.meter().in_flight == 0

    run(main())


def test_escaped_names_are_the_same_name() -> None:
    """Neither way of writing a denied name reaches it: escapes in JSON are read before anybody is asked."""

    async def main() -> None:
        async with serving(make_server()) as served:
            wire = await served.wire("acme/bob")
            await wire.call("open")
            for name in ("secret", "s\\u0065cret", "\\u0073ecret"):
                raw = f'{{"jsonrpc":"2.0","id":"{name}","method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}'
                wire.send(raw.encode())
                answer = await wire.receive()
                assert answer["error"] == {"code": UNKNOWN, "message": "Unknown tool: secret"}
            twice = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"open","name":"secret","arguments":{}}}'
            wire.send(twice)
            answer = await wire.receive()
            assert answer["error"] == {"code": UNKNOWN, "message": "Unknown tool: secret"}

    run(main())


# ---------------------------------------------------------------- what is told of changes


def test_a_listen_stream_hears_nothing_of_what_is_hidden() -> None:
    async def main() -> None:
        server = make_server()
        uris = ["note://open", "note://secret", "secret://x/1", "note://never", "open://x/1", "NOTE://secret"]
        async with serving(server) as served:
            wire = await served.wire("acme/bob", MODERN)
            wire.send(
                wire.message("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
            )
            told = await wire.other("notifications/subscriptions/acknowledged")
            assert told["params"]["notifications"] == {"resourceSubscriptions": ["note://open", "open://x/1"]}
            for uri in uris:
                server.notify_resource_updated(uri)
            await wire.settle()
            heard = [one["params"]["uri"] for one in wire.others if one["method"].endswith("updated")]
            assert heard == ["note://open", "open://x/1"]

    run(main())


@both_eras
def test_who_lost_a_resource_hears_no_more_of_it(revision: str) -> None:
    async def main() -> None:
        server = make_server()
        uris = ["note://open", "note://staff"]
        async with serving(server) as served:
            wire = await served.wire("acme/bob", revision)
            if revision == MODERN:
                wire.send(
                    wire.message("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
                )
                await wire.other("notifications/subscriptions/acknowledged")
            else:
                for uri in uris:
                    await wire.request("resources/subscribe", {"uri": uri})
            await served.change(deny=("note://staff",))
            for uri in reversed(uris):
                server.notify_resource_updated(uri)
            first = await wire.other(
                "notifications/resources/updated"
            )  # told when it is known again who listens
            await wire.settle()
            assert first["params"]["uri"] == "note://open"
            assert not [one for one in wire.others if one["method"].endswith("updated")]

    run(main())


def test_a_tenant_that_is_suspended_hears_nothing() -> None:
    async def main() -> None:
        server = make_server()
        async with serving(server) as served:
            wire = await served.wire("acme/bob")
            other = await served.wire("few/bob")
            for one in (wire, other):
                await one.request("resources/subscribe", {"uri": "note://open"})
            await served.change(state="suspended")
            server.notify_resource_updated("note://open")
            await asyncio.sleep(0.02)
            assert (await other.other("notifications/resources/updated"))["params"] == {"uri": "note://open"}
            await wire.ask("ping")
            assert not wire.others

    run(main())


# ---------------------------------------------------------------- while it serves


@pytest.mark.parametrize("middleware", [False, True])
def test_a_tool_comes_goes_and_asks_for_something_else(middleware: bool) -> None:
    async def main() -> None:
        server = make_server(middleware=middleware)
        async with serving(server) as served:
            wire = await served.wire("acme/bob")
            assert codes([await attempt(wire, "tools/call", "late")]) == [UNKNOWN]

            async def late() -> str:
                return "late"

            server.add_tool(late)
            for _ in range(3):
                assert text_of(await attempt(wire, "tools/call", "late")) == "late"
            assert "late" in names(await wire.request("tools/list"))
            server.remove_tool("late")
            server.add_tool(late, scopes={WRITE})
            for _ in range(3):
                assert codes([await attempt(wire, "tools/call", "late")]) == [STEP_UP]
            assert "late" not in names(await wire.request("tools/list"))
            writer = await served.wire(f"acme/bob/{WRITE}")
            for _ in range(3):
                assert text_of(await attempt(writer, "tools/call", "late")) == "late"
            server.remove_tool("late")
            for _ in range(3):
                assert codes([await attempt(writer, "tools/call", "late")]) == [UNKNOWN]
            server.add_tool(late, kinds={"personal"})
            for _ in range(3):
                assert codes([await attempt(writer, "tools/call", "late")]) == [UNKNOWN]

    run(main())


def test_a_scope_that_no_offer_asked_for_counts_once_one_does() -> None:
    async def main() -> None:
        server = make_server(tenancy=tenancy(TenantRecord("acme", scopes=frozenset({"new"}))))
        async with serving(server) as served:
            with_it, without = await served.wire("acme/bob/new"), await served.wire("acme/ann")
            for wire in (with_it, without):
                await wire.call("open")

            async def novel() -> str:
                return "new"

            server.add_tool(novel, scopes={"new"})
            assert text_of(await attempt(with_it, "tools/call", "novel")) == "new"
            assert codes([await attempt(without, "tools/call", "novel")]) == [STEP_UP]

    run(main())


async def _calls(wire: Wire) -> list[int | None]:
    return codes([await attempt(wire, "tools/call", word) for word in ("open", "write", "staff", "secret")])


@pytest.mark.parametrize("middleware", [False, True])
def test_the_registry_changes_what_may_be_used_at_once(middleware: bool) -> None:
    """The next call on a connection that is open already is held to what the registry says now."""

    async def main() -> None:
        async with serving(make_server(middleware=middleware)) as served:
            wire = await served.wire(f"acme/bob/{WRITE}")
            for _ in range(2):
                assert await _calls(wire) == [None, None, None, UNKNOWN]
            await served.change(scopes=frozenset())  # not the tenant's any more: nobody could step up to it
            assert await _calls(wire) == [None, UNKNOWN, None, UNKNOWN]
            await served.change(scopes=frozenset({WRITE}), deny=())
            assert await _calls(wire) == [None, None, None, None]
            await served.change(allow=("write",))
            assert await _calls(wire) == [UNKNOWN, None, UNKNOWN, UNKNOWN]
            assert names(await wire.request("tools/list")) == ["write"]

    run(main())


def test_a_plan_changes_for_all_its_tenants() -> None:
    async def main() -> None:
        store_plans = {"p": Plan(deny=("open",))}
        tenants = tenancy(TenantRecord("acme", plan="p"), TenantRecord("beta", plan="p"), plans=store_plans)
        async with serving(make_server(tenancy=tenants)) as served:
            wires = [await served.wire("acme/bob"), await served.wire("beta/ann")]
            assert [codes([await attempt(wire, "tools/call", "open")]) for wire in wires] == [[UNKNOWN]] * 2
            tenants.store._plans["p"] = Plan()  # type: ignore[attr-defined]  # as a file of plans is changed
            tenants.store._version += 1  # type: ignore[attr-defined]
            await served.registry.reload()
            assert [codes([await attempt(wire, "tools/call", "open")]) for wire in wires] == [[None]] * 2

    run(main())


def test_a_member_has_what_token_and_organization_both_say() -> None:
    """Scopes of a person within an organization: over a real chain, with a credential that names no tenant."""
    from mcpfast.tenancy.identity import Claim, Member, Principal
    from mcpfast.tenancy.resolvers import Evidence

    class Person:
        def __init__(self) -> None:
            self.scopes = frozenset({WRITE})

        async def resolve(self, evidence: Evidence) -> Claim | None:
            return Claim(Principal("bob", scopes=self.scopes, issuer="test"))

    async def main() -> None:
        acme = TenantRecord("acme", scopes=frozenset({WRITE}), members={"bob": Member(frozenset({WRITE}))})
        person = Person()
        tenants = tenancy(acme, TenantRecord("bob", kind="personal"), resolvers=[person])
        async with serving(make_server(tenancy=tenants)) as served:
            wire = await served.wire("whoever")  # nothing names a tenant: his own
            assert await _calls(wire) == [None, UNKNOWN, UNKNOWN, None]

    run(main())


def test_many_at_once_never_see_what_is_anothers() -> None:
    """Five callers of one host, their calls mixed: each answer is the one that its caller may have."""

    async def main() -> None:
        async with serving(make_server()) as served:
            wires = [(who, await served.wire(who)) for who in SEEN for _ in range(2)]

            async def client(who: str, wire: Wire) -> None:
                for _ in range(5):
                    for word in ("open", "secret", "staff", "write", "context"):
                        answer = await wire.ask("tools/call", {"name": word, "arguments": {}})
                        assert ("result" in answer) == (word in SEEN[who]), (who, word, answer)
                    assert set(names(await wire.request("tools/list"))) == SEEN[who] & set(
                        OFFERS["tools/list"]
                    )

            await asyncio.gather(*(client(*one) for one in wires))
            for tenant in served.registry.tenants():
                assert tenant.in_flight == 0

    run(main())


def test_who_is_not_known_is_told_so_on_every_request() -> None:
    async def main() -> None:
        async with serving(make_server()) as served:
            expected = {
                "code": 4030,
                "message": "These credentials are not for the tenant that was asked for, or it does not exist",
            }
            wire = await served.wire("ghost/bob", MODERN)
            for method, params in (
                ("server/discover", {}),
                ("tools/list", {}),
                ("tools/call", {"name": "open"}),
                ("tools/call", {"name": "never"}),
                ("resources/read", {"uri": "note://open"}),
                ("prompts/get", {"name": "open"}),
                ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
            ):
                assert await wire.error(method, params) == expected
            legacy = await served.wire("ghost/bob", LEGACY, open_session=False)
            opening = {
                "protocolVersion": LEGACY,
                "capabilities": {},
                "clientInfo": {"name": "w", "version": "1"},
            }
            assert await legacy.error("initialize", opening) == expected
            assert (await legacy.ask("ping"))["result"] == {}

    run(main())


def served_tool_calls(served: Served) -> int:
    return served.meter().admitted


def test_what_is_refused_reaches_no_handler_and_counts_as_a_call() -> None:
    async def main() -> None:
        reached = []
        server: MCPServer[Any] = MCPServer(
            "reached", version="1", tenancy=tenancy(TenantRecord("acme", deny=("hidden",)))
        )

        @server.tool
        async def hidden() -> str:
            reached.append("hidden")
            return "x"

        @server.tool(scopes={"admin"})
        async def scoped() -> str:
            reached.append("scoped")
            return "x"

        @server.tool
        async def shown() -> str:
            reached.append("shown")
            return "x"

        async with serving(server) as served:
            wire = await served.wire("acme/bob")
            await wire.call("shown")
            admitted = served_tool_calls(served)
            for name in ("hidden", "scoped", "never"):
                await wire.error("tools/call", {"name": name})
            assert reached == ["shown"] and served_tool_calls(served) == admitted + 3
            await served.change(quota=Quota(calls_per_s=0.01, calls_burst=2.0))
            told = [(await wire.error("tools/call", {"name": "hidden"}))["code"] for _ in range(3)]
            assert told == [-32602, -32602, 4291], "who guesses uses up what is his"
            await until(lambda: served.meter().in_flight == 0)

    run(main())


def test_prepared_pages_of_many_views_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    scopes = [f"s{number}" for number in range(6)]

    async def main() -> None:
        monkeypatch.setattr("mcpfast.server.catalog.PAGES_BYTES_MAX", 4_000)
        server: MCPServer[Any] = MCPServer(
            "many", version="1", tenancy=tenancy(TenantRecord("acme", scopes=frozenset(scopes)))
        )
        for scope in scopes:
            server.add_tool(lambda: "", name=scope, description="x" * 500, scopes={scope})
        async with serving(server) as served:
            for _ in range(2):
                for held in combinations(scopes, 3):
                    wire = await served.wire(f"acme/bob/{','.join(held)}")
                    assert names(await wire.request("tools/list")) == list(held)
                    pages = server.catalog.tools._pages.values()
                    assert sum(len(page.members) for page in pages) <= 4_000

    run(main())
