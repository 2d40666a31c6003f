"""What a principal may use: patterns, kinds, scopes, and that views are few."""

from __future__ import annotations

import pytest

from mcpfast.tenancy import views
from mcpfast.tenancy.identity import Kind
from mcpfast.tenancy.views import HIDDEN, NOTHING_ASKED, VISIBLE, Decision, Requirement, View, ViewKey, Views

READ, WRITE, ADMIN = "orders:read", "orders:write", "admin"


def view(
    *,
    allow: tuple[str, ...] = ("*",),
    deny: tuple[str, ...] = (),
    kind: Kind = "organization",
    scopes: frozenset[str] = frozenset(),
    grantable: frozenset[str] = frozenset(),
) -> View:
    return View(ViewKey(allow, deny, kind, scopes, grantable))


@pytest.mark.parametrize(
    ("allow", "deny", "name", "visible"),
    [
        (("*",), (), "echo", True),
        ((), (), "echo", False),
        (("orders_*",), (), "orders_list", True),
        (("orders_*",), (), "echo", False),
        (("orders_*", "echo"), (), "echo", True),
        (("*",), ("orders_*",), "orders_list", False),
        (("orders_list",), ("orders_*",), "orders_list", False),  # deny is stronger, however exact allow is
        (("Orders",), (), "orders", False),
        (("echo",), (), "echo_all", False),
        (("echo",), (), "an_echo", False),
        (("echo",), (), "echo\n", False),
        (("a?c",), (), "abc", True),
        (("a[bx]c",), (), "axc", True),
        (("*",), ("echo",), "echo\n", True),
        (("a.c",), (), "abc", False),
    ],
)
def test_patterns(allow: tuple[str, ...], deny: tuple[str, ...], name: str, visible: bool) -> None:
    assert view(allow=allow, deny=deny).decide(name) == (VISIBLE if visible else HIDDEN)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///secret/a", "FILE:///secret/a", "file:///%73ecret/a", "file:///public/../secret/a",
        "file:///public/%2e%2e/secret/a", "file:///public%2f..%2fsecret/a", "file:///secret%2fa", "file:///secret\\a",
        "file:///public/\0", "file:///" + "x" * 5_000,
    ],
)  # fmt: skip
def test_no_spelling_gets_around_a_denied_uri(uri: str) -> None:
    assert view(deny=("file:///secret/*",)).decide_uri(uri) is HIDDEN


def test_a_uri_that_is_not_denied() -> None:
    seen = view(allow=("file:///public/*", "note:*"), deny=("*.key",))
    assert seen.decide_uri("file:///public/a") is VISIBLE
    assert seen.decide_uri("FILE:///public/%61") is VISIBLE
    assert seen.decide_uri("note:a.key") is HIDDEN
    assert seen.decide_uri("file:///other") is HIDDEN
    assert not seen.decisions  # URIs have no end: none is remembered


def test_a_pattern_in_the_spelling_of_the_resource_denies_it() -> None:
    assert view(deny=("NOTE:*",)).decide_uri("NOTE:a") is HIDDEN


def test_a_uri_is_held_to_what_its_template_writes() -> None:
    seen = view(allow=("rows://*", "n\u00f6te:*"), deny=("rows://users?key=boss", "rows://a b"))
    assert seen.decide_uri("rows://users?x=1&key=boss") is VISIBLE  # nobody says that x means nothing
    assert seen.decide_uri("rows://users?x=1&key=boss", spelled="rows://users?key=boss") is HIDDEN
    assert seen.decide_uri("rows://a%20b") is HIDDEN and seen.decide_uri("rows://a%20bc") is VISIBLE
    assert seen.decide_uri("rows://a%20b?c#d") is HIDDEN
    assert seen.decide_uri("n%C3%B6te:a") is VISIBLE


def test_kinds() -> None:
    only = Requirement(kinds=frozenset({"organization"}))
    assert view().decide("a", only) is VISIBLE
    assert view(kind="personal").decide("a", only) is HIDDEN
    assert view(kind="personal").decide("b", Requirement()) is VISIBLE


def test_scopes_and_what_a_step_up_may_bring() -> None:
    asked = Requirement(frozenset({READ, WRITE}))
    both = frozenset({READ, WRITE})
    assert view(scopes=both, grantable=both).decide("a", asked) is VISIBLE
    reads = view(scopes=frozenset({READ}), grantable=both)
    assert reads.decide("a", asked) == Decision("step-up", frozenset({WRITE}))
    never = view(scopes=frozenset({READ}), grantable=frozenset({READ}))  # the tenant itself has no more
    assert never.decide("a", asked) is HIDDEN


def test_what_is_hidden_needs_no_scope() -> None:
    """Who may not even know of a tool is not told which scopes it asks for."""
    asked = Requirement(frozenset({WRITE}))
    assert view(deny=("*",), grantable=frozenset({WRITE})).decide("a", asked) is HIDDEN


def test_decisions_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "DECISIONS_MAX", 3)
    seen = view(deny=("c",))
    for name in "abcdefg":
        assert seen.decide(name) is (HIDDEN if name == "c" else VISIBLE)
        assert len(seen.decisions) <= 3 and seen.decisions[name, NOTHING_ASKED] is seen.decide(name)


def test_a_decision_is_of_what_was_asked_for() -> None:
    """A tool and a prompt of one name ask for different things; what one was told is not the other's."""
    seen = view(grantable=frozenset({ADMIN}))
    assert seen.decide("report") is VISIBLE
    assert seen.decide("report", Requirement(frozenset({ADMIN}))).verdict == "step-up"
    assert seen.decide("report", Requirement(kinds=frozenset({"personal"}))) is HIDDEN
    assert seen.decide("report") is VISIBLE


# ---------------------------------------------------------------------------------------------- shared


def catalog(*scopes: str, views_max: int = views.VIEWS_MAX) -> Views:
    made = Views(views_max)
    made.catalog_changed(frozenset(scopes))
    return made


def test_ten_thousand_tenants_have_few_views() -> None:
    shared = catalog(READ, WRITE)
    plans = [(frozenset({READ}), ()), (frozenset({READ, WRITE}), ("admin_*",))]
    for number in range(10_000):
        granted, deny = plans[number % 2]
        own = frozenset({f"person:{number}"})  # a scope that no offer asks for makes no view of its own
        shared.of("organization", ("*",), tuple(deny), granted | own, granted | own)
    assert len(shared) == 2


def test_equal_tenants_share_a_view_and_others_do_not() -> None:
    shared = catalog(READ, WRITE)
    both = frozenset({READ, WRITE})
    one = shared.of("organization", ("*",), (), both, frozenset({READ}))
    assert shared.of("organization", ("*",), (), both, frozenset({READ, "x"})) is one
    assert shared.of("personal", ("*",), (), both, frozenset({READ})) is not one
    assert shared.of("organization", ("*",), (), both, both) is not one
    assert shared.of("organization", ("*",), ("a",), both, frozenset({READ})) is not one
    assert shared.of("organization", ("*",), (), frozenset({READ}), frozenset({READ})) is not one


def test_a_principal_never_has_more_than_its_tenant() -> None:
    key = (
        catalog(READ, WRITE, ADMIN)
        .of("organization", ("*",), (), frozenset({READ}), frozenset({READ, ADMIN}))
        .key
    )
    assert key.scopes == key.grantable == frozenset({READ})


def test_keys_are_equal_and_hash_alike_across_views() -> None:
    one = ViewKey(("*",), (), "organization", frozenset({READ, WRITE}), frozenset())
    other = ViewKey(("*",), (), "organization", frozenset([WRITE, READ]), frozenset())
    assert one == other and hash(one) == hash(other) and {one: 1}[other] == 1


def test_the_view_not_used_for_longest_goes() -> None:
    shared = catalog(views_max=2)
    first = shared.of("organization", ("a",), (), frozenset(), frozenset())
    shared.of("organization", ("b",), (), frozenset(), frozenset())
    assert shared.of("organization", ("a",), (), frozenset(), frozenset()) is first
    shared.of("organization", ("c",), (), frozenset(), frozenset())
    assert len(shared) == 2
    assert shared.of("organization", ("a",), (), frozenset(), frozenset()) is first


def test_a_changed_catalog_makes_views_anew() -> None:
    shared = catalog(READ)
    before = shared.of("organization", ("*",), (), frozenset({READ, WRITE}), frozenset({WRITE}))
    generation = shared.generation
    shared.catalog_changed(frozenset({READ, WRITE}))
    after = shared.of("organization", ("*",), (), frozenset({READ, WRITE}), frozenset({WRITE}))
    assert (
        after is not before and after.key.scopes == frozenset({WRITE}) and shared.generation == generation + 1
    )


@pytest.mark.parametrize(
    "uri", ["file:///a/b", "file:////a/b", "file:///a//b", "file:///a///b?x=//", "file:///a//b#x"]
)
def test_doubled_slashes_hide_nothing_from_what_is_denied(uri: str) -> None:
    def verdict(*deny: str) -> str:
        view = catalog().of("organization", ("*",), deny, frozenset(), frozenset())
        return view.decide_uri(uri).verdict

    assert verdict("file:///a/b") == verdict("file:///a/*") == "hidden"
    assert verdict("file://a/b") == verdict("file:///a/c") == "visible"
