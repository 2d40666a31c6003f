"""Sealed values: what we sealed opens for the use it was sealed for, and nothing else does."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.server import sealed
from mcpfast.server.sealed import KeyRing, KeyRingError, Sealer, SealError, call_binding

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


class Clock:
    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.s


def sealer(*keys: tuple[str, bytes], server: str = "notes", clock: Clock | None = None) -> Sealer:
    return Sealer(KeyRing(keys or [("k1", OLD)]), server=server, now=clock or Clock())


def refused(who: Sealer, token: str, purpose: str = "requestState", binding: bytes = b"call") -> None:
    with pytest.raises(SealError) as told:
        who.open(token, purpose=purpose, binding=binding)
    assert str(told.value) == "the sealed value is invalid or expired"  # the same for every reason
    assert told.value.__cause__ is None and told.value.__suppress_context__ is (
        told.value.__context__ is not None
    )


def seal(who: Sealer, payload: bytes = b"payload", ttl_s: float = 60) -> str:
    return who.seal(payload, purpose="requestState", binding=b"call", ttl_s=ttl_s)


# ---------------------------------------------------------------- sealing and opening


@given(st.binary(max_size=2_000), st.text(min_size=1), st.binary(max_size=100), st.text())
def test_what_was_sealed_opens(payload: bytes, purpose: str, binding: bytes, server: str) -> None:
    who = sealer(server=server)
    token = who.seal(payload, purpose=purpose, binding=binding, ttl_s=1)
    assert who.open(token, purpose=purpose, binding=binding) == payload
    other_worker = sealer(server=server)
    assert other_worker.open(token, purpose=purpose, binding=binding) == payload


def test_the_form_of_a_token() -> None:
    token = seal(sealer())
    version, key_id, text = token.split(".")
    assert (version, key_id) == ("v1", "k1")
    assert len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) == 12 + 8 + len(b"payload") + 16
    assert "payload" not in token and token != seal(sealer())  # encrypted; a nonce of its own each time


def test_a_token_of_today_opens_tomorrow() -> None:
    """The format is a promise: a rolling update has workers of two versions. This token was made by the first one."""
    who = Sealer(KeyRing([("k1", OLD)]), server="notes", now=Clock(), random=bytes)
    kept = "v1.k1.AAAAAAAAAAAAAAAA" + KEPT
    assert who.seal(b"payload", purpose="requestState", binding=b"call", ttl_s=60) == kept
    assert who.open(kept, purpose="requestState", binding=b"call") == b"payload"


KEPT = "SmQpEbwfBvRv2yWfNa-y2O5sYM2FOGfok7ScRmKVWg"


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    token = seal(Sealer(KeyRing([("k1", OLD)]), server="notes", now=Clock(), random=bytes))
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(exclude_characters=token[at]))
    refused(sealer(), token[:at] + other + token[at + 1 :])


def test_any_flipped_bit_is_refused() -> None:
    who = sealer()
    head, text = seal(who).rsplit(".", 1)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        refused(who, f"{head}.{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}")


@given(st.text(max_size=200) | st.text(alphabet="v1.kAQ_-=", max_size=80))
def test_any_other_text_is_refused(text: str) -> None:
    refused(sealer(), text)


def test_cut_lengthened_or_written_otherwise() -> None:
    who = sealer()
    token = seal(who)
    for length in range(len(token)):
        refused(who, token[:length])
    head, text = token.rsplit(".", 1)
    for other in (
        token + "A",
        token + "=",
        token + "==",
        token + "\n",
        " " + token,
        token.replace("v1", "v2"),
        f"{head}.{text[:9]} {text[9:]}",  # what a lenient decoder would skip
        f"{head}.{text[:9]}\n{text[9:]}",
        f"{head}.{text}.",
        f"{head}..{text}",
    ):
        refused(who, other)


def test_stray_bits_at_the_end_are_refused() -> None:
    who = sealer()
    token = seal(who, b"payload!")  # 44 bytes: the last character has bits to spare
    assert len(token.rsplit(".", 1)[1]) % 4 != 0
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    opened = 0
    for last in alphabet:
        try:
            who.open(token[:-1] + last, purpose="requestState", binding=b"call")
            opened += 1
        except SealError:
            pass
    assert opened == 1


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("purpose", {"purpose": "cursor"}),
        ("binding", {"binding": b"another call"}),
        ("no binding", {"binding": b""}),
    ],
)
def test_another_use_is_refused(what: str, change: dict[str, Any]) -> None:
    who = sealer()
    refused(who, seal(who), **change)


def test_another_server_key_or_ring_is_refused() -> None:
    token = seal(sealer())
    refused(sealer(server="other"), token)
    refused(sealer(("k1", NEW)), token)  # the same id, another secret
    refused(sealer(("k2", OLD)), token)  # the same secret under another id
    refused(sealer(("k2", OLD)), token.replace("k1", "k2"))
    refused(Sealer(KeyRing.generate(), server="notes", now=Clock()), token)


def test_nothing_can_be_moved_between_fields() -> None:
    who = sealer(server="ab")
    token = who.seal(b"", purpose="p", binding=b"c", ttl_s=1)
    for server, purpose, binding in (
        ("a", "p", b"bc"),
        ("abc", "p", b""),
        ("b", "pa", b"c"),
        ("a", "pb", b"c"),
    ):
        refused(sealer(server=server), token, purpose, binding)


def test_it_expires() -> None:
    clock = Clock()
    who = sealer(clock=clock)
    token = seal(who, ttl_s=60)
    clock.s += 59.9
    assert who.open(token, purpose="requestState", binding=b"call") == b"payload"
    clock.s += 0.1
    refused(who, token)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf")])
def test_a_life_must_be_positive_and_end(ttl_s: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        seal(sealer(), ttl_s=ttl_s)


def test_too_long() -> None:
    who = sealer()
    most = (sealed.TOKEN_CHARS_MAX - len("v1.k1.")) * 3 // 4 - 36
    assert len(seal(who, bytes(most - 1))) <= sealed.TOKEN_CHARS_MAX
    with pytest.raises(ValueError, match="too many to be sealed"):
        seal(who, bytes(most + 3))
    refused(who, "v1.k1." + "A" * sealed.TOKEN_CHARS_MAX)


# ---------------------------------------------------------------- keys


def test_keys_are_changed_without_a_break() -> None:
    only_old = sealer(("old", OLD))
    both = sealer(("old", OLD), ("new", NEW))
    turned = sealer(("new", NEW), ("old", OLD))
    only_new = sealer(("new", NEW))
    for before, after in (
        (only_old, both),
        (both, only_old),
        (both, turned),
        (turned, both),
        (turned, only_new),
    ):
        assert after.open(seal(before), purpose="requestState", binding=b"call") == b"payload"
    refused(only_new, seal(both))


def test_each_purpose_has_a_key_of_its_own() -> None:
    ring = KeyRing([("k1", OLD), ("k2", NEW)])
    keys = {ring.derive(key_id, purpose) for key_id in ring.key_ids for purpose in ("requestState", "cursor")}
    assert len(keys) == 4 and OLD not in keys and NEW not in keys
    assert all(key is not None and len(key) == 32 for key in keys)
    assert ring.derive("k3", "cursor") is None


def test_secrets_are_not_shown() -> None:
    ring = KeyRing([("k2", NEW), ("k1", OLD)])
    assert repr(ring) == "KeyRing(k2, k1; secrets not shown)"
    assert ring.first_id == "k2" and ring.key_ids == ("k2", "k1")


def test_generated_keys_differ() -> None:
    one, other = KeyRing.generate(), KeyRing.generate()
    assert one.first_id != other.first_id and one.derive(one.first_id, "x") != other.derive(
        other.first_id, "x"
    )


def as_text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode()


@pytest.mark.parametrize("padding", ["", "="])
def test_from_the_environment(padding: str) -> None:
    text = ", ".join(
        f"{key_id}:{as_text(secret).rstrip('=')}{padding}" for key_id, secret in (("k2", NEW), ("k1", OLD))
    )
    ring = KeyRing.from_env(environ={"MCPFAST_STATE_KEYS": f" {text} "})
    assert ring.key_ids == ("k2", "k1")
    assert ring.derive("k1", "x") == KeyRing([("k1", OLD)]).derive("k1", "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "KEYS is not set"),
        ("  ", "KEYS is not set"),
        (as_text(OLD), 'KEYS: entry 1 is not "id:secret"'),
        (f"k1:{as_text(OLD)},", 'KEYS: entry 2 is not "id:secret"'),
        ("k1:", "the secret of key 'k1' is 0 bytes"),
        (f"k1:{as_text(OLD[:31])}", "the secret of key 'k1' is 31 bytes; 32 random bytes are needed"),
        (f"k1:{as_text(OLD)[:-3]}!!", "secret of entry 1 is not base64url"),
        (f"k1:{as_text(OLD)},k1:{as_text(NEW)}", "'k1' is used twice"),
        (f":{as_text(OLD)}", "id of key 1 must be"),
        (f"a.b:{as_text(OLD)}", "id of key 1 must be"),
        (f"{'k' * 33}:{as_text(OLD)}", "id of key 1 must be"),
    ],
)
def test_keys_that_cannot_be_used_are_told_without_them(text: str | None, told: str) -> None:
    with pytest.raises(KeyRingError) as error:
        KeyRing.from_env("KEYS", {} if text is None else {"KEYS": text})
    assert told in str(error.value)
    for secret in (OLD, NEW, OLD[:31]):
        assert as_text(secret)[:12] not in str(error.value)


def test_a_ring_in_code() -> None:
    with pytest.raises(KeyRingError, match="at least one key"):
        KeyRing([])
    with pytest.raises(KeyRingError, match="is a str; 32 random bytes"):
        KeyRing([("k1", "not bytes")])  # type: ignore[list-item]


def test_the_command_that_the_errors_tell_makes_a_key() -> None:
    code = sealed.NEW_SECRET.split("'")[1]
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert KeyRing.from_env("KEYS", {"KEYS": f"k1:{made}"}).first_id == "k1"


def test_importing_it_leaves_cryptography_alone() -> None:
    code = "import sys, mcpfast.server.sealed; print('cryptography' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


# ---------------------------------------------------------------- what a requestState is bound to


def bound(
    arguments: str | bytes, principal: str = "anonymous", method: str = "tools/call", name: str = "book"
) -> bytes:
    raw = arguments.encode() if isinstance(arguments, str) else arguments
    return call_binding(principal, method, name, raw)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ('{"a":1,"b":[true,null]}', ' { "b" : [ true , null ] ,\n"a":1 } '),
        ('{"a":"\u00e9\\n"}', '{"\\u0061":"\\u00e9\\u000A"}'),
        ('{"a":"\\ud83d\\ude00"}', '{"a":"\U0001f600"}'),
        ('{"a":1}', '{"a":1.0}'),
        ('{"a":1}', '{"a":10e-1}'),
        ('{"a":100}', '{"a":1E+2}'),
        ('{"a":0}', '{"a":-0.0e5}'),
        ('{"a":0.1}', '{"a":1e-1}'),
        ('{"a":12345678901234567890123}', '{"a":12345678901234567890123.000}'),
        ("{}", ""),
        ("{}", "null"),
        ('{"a":{"y":1,"x":2}}', '{"a":{"x":2,"y":1}}'),
    ],
)
def test_the_same_arguments_written_otherwise(one: str, same: str) -> None:
    assert bound(one) == bound(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1}', '{"a":2}'),
        ('{"a":1}', '{"a":-1}'),
        ('{"a":1}', '{"a":10}'),
        ('{"a":1}', '{"a":"1"}'),
        ('{"a":1}', '{"a":true}'),
        ('{"a":"1e0"}', '{"a":1}'),
        ('{"a":0}', '{"a":false}'),
        ('{"a":null}', "{}"),
        ('{"a":[]}', '{"a":{}}'),
        ('{"a":[1,2]}', '{"a":[2,1]}'),
        ('{"a":[[1],2]}', '{"a":[[1,2]]}'),
        ('{"a":["b"]}', '{"a":"b"}'),
        ('{"a":12345678901234567890123}', '{"a":12345678901234567890124}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"a":0.1}', '{"a":0.10000000000000000001}'),
        ('{"a":1e400}', '{"a":1e401}'),
        (f'{{"a":1e{"9" * 5000}}}', f'{{"a":1e{"9" * 5001}}}'),
        ('{"a":"\\ud800"}', '{"a":"\\ud801"}'),
        ('{"a":1,"b":2}', '{"a":2,"b":1}'),
    ],
)
def test_other_arguments(one: str, other: str) -> None:
    assert bound(one) != bound(other)


def test_each_field_counts_for_itself() -> None:
    calls = [
        bound("{}"),
        bound("{}", principal="alice"),
        bound("{}", method="prompts/get"),
        bound("{}", name="cancel"),
        bound("{}", principal="anonymoust", method="ools/call"),
        bound("{}", method="tools/callb", name="ook"),
    ]
    assert len(set(calls)) == len(calls) and {len(call) for call in calls} == {32}


@pytest.mark.parametrize("text", ["{", "{'a':1}", '{"a":NaN}', b"\xff", "[" * 100_000, '{"a":01}'])
def test_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        bound(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(one, dice)) for name, one in value.items()]
        dice.shuffle(items)
        return dict(items)
    return [shuffled(one, dice) for one in value] if isinstance(value, list) else value


def same_json(one: Any, other: Any) -> bool:
    """Equal, where True is not 1 and a number is a number."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


@given(st.dictionaries(st.text(), json_values, max_size=4), st.randoms(use_true_random=False), st.booleans())
def test_any_way_to_write_any_arguments(value: dict[str, Any], dice: random.Random, ascii_only: bool) -> None:
    again = json.dumps(shuffled(value, dice), ensure_ascii=ascii_only, indent=dice.choice([None, 1]))
    assert bound(json.dumps(value)) == bound(again)


@given(
    st.dictionaries(st.text(max_size=2), json_values, max_size=2),
    st.dictionaries(st.text(max_size=2), json_values, max_size=2),
)
def test_any_two_arguments_are_told_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    numbers_alike = json.loads(json.dumps(one), parse_int=float) == json.loads(
        json.dumps(other), parse_int=float
    )
    if same_json(one, other):
        assert bound(json.dumps(one)) == bound(json.dumps(other))
    elif not numbers_alike:
        assert bound(json.dumps(one)) != bound(json.dumps(other))


def test_randomness_is_the_systems_unless_told() -> None:
    assert Sealer(KeyRing.generate(), server="s", now=Clock())._random is os.urandom
