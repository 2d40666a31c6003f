"""Tenant ids and keys: what is let pass, and that nothing a key says leads out of its tenant's prefix."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.tenancy.namespace import (
    ENCODED_BYTES_MAX,
    URI_BYTES_MAX,
    Namespace,
    UnsafeName,
    canonical_uri,
    check_tenant_id,
    checked_path,
)

ids = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda made: ".." not in made
)
# Short, and of letters that mean something to a path, a URI or an encoding, so that collisions would be found.
keys = st.one_of(
    st.text(alphabet="a./%2FEe\\~ké\u0301\U0001f600", min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=80),
)


# ---------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize("id", ["a", "0", "acme", "acme-2", "a.b", "a_b", "x" * 63, "a-.-b"])
def test_an_id_is_let_pass(id: str) -> None:
    assert check_tenant_id(id) == id


BAD_IDS = {
    "empty": "",
    "too long": "x" * 64,
    "far too long": "x" * 1_000_000,
    "a capital": "Acme",
    "a dot in front": ".acme",
    "a dot behind": "acme.",
    "a hyphen in front": "-acme",
    "a way up": "..",
    "two dots": "a..b",
    "a slash": "a/b",
    "a backslash": "a\\b",
    "a percent": "a%2fb",
    "a blank": "a b",
    "an end of line": "acme\n",
    "a NUL": "acme\0",
    "a Cyrillic letter": "\u0430cme",
    "a full-width letter": "\uff41cme",
    "a combining accent": "acme\u0301",
    "a composed letter": "acm\u00e9",
    "an Arabic digit": "acme\u0661",
    "a right-to-left mark": "ac\u202eme",
    "a zero-width joiner": "ac\u200dme",
    "half a surrogate pair": "acme\ud800",
    "SQL": "a'; drop table tenants; --",
    "a header": "a\r\nx: y",
    "a wildcard": "*",
    "a TOML key": 'a"]\n[tenants.b',
}


@pytest.mark.parametrize("id", BAD_IDS.values(), ids=BAD_IDS)
def test_an_id_is_refused_with_a_reason(id: str) -> None:
    with pytest.raises(UnsafeName, match=r"^a tenant's id ") as refused:
        check_tenant_id(id)
    assert len(str(refused.value)) < 200


@given(st.text())
def test_what_passes_is_safe_everywhere(id: str) -> None:
    try:
        check_tenant_id(id)
    except UnsafeName:
        return
    assert re.fullmatch("[a-z0-9._-]{1,63}", id) and id not in (".", "..") and id == id.casefold()


# ---------------------------------------------------------------------------------------------- keys


@given(ids, ids, keys, keys)
def test_no_two_keys_collide(one: str, other: str, key: str, other_key: str) -> None:
    same = (one, key) == (other, other_key)
    assert (Namespace(one).encode_key(key) == Namespace(other).encode_key(other_key)) == same


@given(ids, keys)
def test_a_key_stays_below_its_prefix_and_comes_back(id: str, key: str) -> None:
    space = Namespace(id)
    encoded = space.encode_key(key)
    assert encoded.startswith(f"t/{id}/k/")
    name = encoded.removeprefix(f"t/{id}/k/")
    assert re.fullmatch("[A-Za-z0-9._%-]+", name) and not name.startswith(".")
    assert space.decode(encoded) == key


@given(ids, st.lists(keys, min_size=1, max_size=4).map("/".join))
def test_a_path_is_refused_or_stays_below_its_prefix_and_comes_back(id: str, path: str) -> None:
    space = Namespace(id)
    try:
        encoded = space.encode_path(path)
    except UnsafeName:
        return
    assert encoded.startswith(f"t/{id}/p/") and space.decode(encoded) == path
    names = encoded.split("/")
    assert not {"", ".", ".."} & set(names) and len(names) == 3 + path.count("/") + 1
    assert encoded != space.encode_key(path)


@given(ids, ids, keys)
def test_no_prefix_begins_another(one: str, other: str, key: str) -> None:
    if one != other:
        assert not Namespace(one).encode_key(key).startswith(Namespace(other).prefix)
        with pytest.raises(UnsafeName):
            Namespace(other).decode(Namespace(one).encode_key(key))


@given(ids, st.text())
def test_what_was_never_encoded_is_not_decoded(id: str, text: str) -> None:
    space = Namespace(id)
    for encoded in (text, f"{space.prefix}{text}", f"{space.prefix}k/{text}", f"{space.prefix}p/{text}"):
        try:
            key = space.decode(encoded)
        except UnsafeName:
            continue
        is_key = encoded.startswith(f"{space.prefix}k/")
        assert encoded == (space.encode_key(key) if is_key else space.encode_path(key))


BAD_KEYS = {
    "empty": "",
    "a NUL": "a\0b",
    "half a surrogate pair": "a\udfff",
    "overlong": "x" * ENCODED_BYTES_MAX,
    "overlong when encoded": "\U0001f600" * 90,
    "far too long": "x" * 10_000_000,
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_is_refused(key: str) -> None:
    with pytest.raises(UnsafeName):
        Namespace("acme").encode_key(key)
    with pytest.raises(UnsafeName):
        Namespace("acme").encode_path(key)


def test_the_longest_key_passes() -> None:
    space = Namespace("acme")
    most = ENCODED_BYTES_MAX - len("t/acme/k/")
    assert len(space.encode_key("x" * most)) == ENCODED_BYTES_MAX
    with pytest.raises(UnsafeName, match="at most 1,024 bytes"):
        space.encode_key("x" * (most + 1))


def test_keys_are_not_normalized() -> None:
    space = Namespace("acme")
    assert space.encode_key("\u00e9") != space.encode_key("e\u0301")
    assert space.encode_key("a") != space.encode_key("A")


# ---------------------------------------------------------------------------------------------- paths and URIs

STEPS_ASIDE = [
    "..", ".", "../b", "a/../b", "a/..", "./a", "a/./b", "%2e%2e/b", "a/%2E./b", "a/.%2e", "%252e%252e/b",
    "a%2fb", "a%2Fb", "a%5cb", "a\\b", "a%252fb", "a%25252fb", "a%00b", "a%2500b", "a\0b",
    "%25" * 20 + "2f",
]  # fmt: skip


@pytest.mark.parametrize("path", [*STEPS_ASIDE, "/a", "a/", "a//b", "//", "/"])
def test_a_path_that_may_lead_aside_is_refused(path: str) -> None:
    with pytest.raises(UnsafeName):
        checked_path(path)


@pytest.mark.parametrize("path", ["a", "a/b/c", "...", "a..b", "..a", "100%", "a%20b", "é/ü", "%", "%zz"])
def test_a_plain_path_passes(path: str) -> None:
    assert checked_path(path) == path
    assert Namespace("acme").decode(Namespace("acme").encode_path(path)) == path


@pytest.mark.parametrize("path", STEPS_ASIDE)
def test_a_uri_that_may_lead_aside_is_refused(path: str) -> None:
    with pytest.raises(UnsafeName):
        canonical_uri(f"file:///srv/{path}")


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("file:///srv/a", "file:///srv/a"),
        ("FILE:///srv/A", "file:///srv/A"),
        ("https://EXAMPLE.com/A?b=C#D", "https://example.com/A?b=C#D"),
        ("file:///%73rv/%61", "file:///srv/a"),
        ("https://EX%41MPLE.com?A=B", "https://example.com?A=B"),
        ("https://%C3%A9.COM/%c3", "https://%C3%A9.com/%C3"),
        ("file:///a%20b", "file:///a%20b"),
        ("file:///a%c3%a9", "file:///a%C3%A9"),
        ("note:%7Eann", "note:~ann"),
        ("config", "config"),
    ],
)
def test_a_uri_has_one_spelling(uri: str, canonical: str) -> None:
    assert canonical_uri(uri) == canonical == canonical_uri(canonical)


def test_a_uri_has_a_length() -> None:
    assert canonical_uri("x:" + "y" * (URI_BYTES_MAX - 2))
    with pytest.raises(UnsafeName, match="at most 4,096 bytes"):
        canonical_uri("x:" + "y" * (URI_BYTES_MAX - 1))


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(UnsafeName) as refused:
        Namespace("acme").encode_key("\0<secret>")
    assert "secret" not in str(refused.value)
