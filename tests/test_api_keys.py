"""API keys: what was made is known again, by its hash alone, and nothing else is."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.tenancy.api_keys import BAD_KEY, ApiKeys, NewKey, key_id_of, new_key
from mcpfast.tenancy.challenge import ProtectedResource
from mcpfast.tenancy.denied import Denied, InvalidToken, MalformedRequest
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.key_records import KeyRecord
from mcpfast.tenancy.resolvers import Chain, Evidence
from tests.identities import START_S, Clock, Tenants, bearer, headers, run


class Known:
    def __init__(self, *records: KeyRecord) -> None:
        self.records = {record.id: record for record in records}
        self.asked: list[str] = []

    def find_key(self, id: str) -> KeyRecord | None:
        self.asked.append(id)
        return self.records.get(id)


def made(**more: Any) -> NewKey:
    return new_key("acme", "robot", scopes=frozenset({"read"}), now_s=START_S, **more)


def refused(keys: ApiKeys, evidence: Evidence, words: str, kind: type[Denied] = InvalidToken) -> None:
    with pytest.raises(kind) as told:
        run(keys.resolve(evidence))
    assert told.value.message == words


def test_the_form_of_a_key_and_what_is_kept_of_it() -> None:
    key, record = made(ttl_s=60)
    assert re.fullmatch(r"mcpf_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", key)
    assert key_id_of(key) == record.id
    assert record == KeyRecord(
        id=record.id,
        sha256=sha256(key.encode()).hexdigest(),
        tenant="acme",
        principal="robot",
        scopes=frozenset({"read"}),
        created_s=START_S,
        expires_s=START_S + 60,
    )
    assert key.rpartition("_")[2] not in repr(made()) + repr(record)
    assert len({made().key for _ in range(100)}) == 100


def test_all_256_bits_are_in_the_key() -> None:
    for bytes_ in (bytes(32), b"\xff" * 32):
        key = new_key("t", "p", now_s=0, random=lambda size, of=bytes_: of[:size]).key  # type: ignore[misc]
        number = 0
        for letter in key[18:61]:
            number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(
                letter
            )
        assert number == int.from_bytes(bytes_, "big")


@pytest.mark.parametrize("place", ["bearer", "x-api-key", "environment"])
def test_a_key_is_known_in_each_of_its_places(place: str) -> None:
    key, record = made()
    evidence = {
        "bearer": bearer(key),
        "x-api-key": headers(x_api_key=key),
        "environment": Evidence(transport="stdio", environment={"MCPFAST_API_KEY": key}),
    }[place]
    claim = run(ApiKeys(Known(record), now=Clock()).resolve(evidence))
    assert claim == Claim(Principal("robot", frozenset({"read"}), issuer="api-key"), "acme")


def test_no_key_is_none_of_ours() -> None:
    keys = ApiKeys(Known(), now=Clock())
    assert run(keys.resolve(headers())) is None
    assert run(keys.resolve(bearer("ey.ey.xx"))) is None
    assert run(keys.resolve(headers("Basic YTpi"))) is None


def test_the_same_key_twice_is_one_and_two_keys_are_refused() -> None:
    (one, record), (other, _) = made(), made()
    keys = ApiKeys(Known(record), now=Clock())
    assert run(keys.resolve(headers(f"Bearer {one}", one))) is not None
    refused(keys, headers(f"Bearer {one}", other), "The request has two different API keys", MalformedRequest)


def test_a_good_key_does_not_make_another_credential_good() -> None:
    key, record = made()
    chain = Chain([ApiKeys(Known(record), now=Clock())], Tenants())
    for beside in (None, f"Bearer {key}", f"bearer  {key} "):
        assert run(chain.resolve(headers(beside, x_api_key=key))).tenant_id == "acme"
    for beside in ("Bearer garbage", "Basic YTpi", "Bearer a.b.c"):
        with pytest.raises(InvalidToken, match="of this kind are not accepted"):
            run(chain.resolve(headers(beside, x_api_key=key)))


def test_an_expiry_to_the_second() -> None:
    key, record = made(ttl_s=60)
    clock = Clock()
    keys = ApiKeys(Known(record), now=clock)
    clock.s = START_S + 59.999
    assert run(keys.resolve(bearer(key))).principal.expires_s == START_S + 60
    clock.s = START_S + 60
    refused(keys, bearer(key), "The API key has expired")


def test_a_revoked_key() -> None:
    key, record = made()
    refused(
        ApiKeys(Known(msgspec.structs.replace(record, revoked=True)), now=Clock()),
        bearer(key),
        "The API key has been revoked",
    )


def test_a_wrong_secret_and_an_unknown_id_get_the_same_answer() -> None:
    (key, record), (stranger, _) = made(), made()
    revoked = msgspec.structs.replace(record, revoked=True, sha256=sha256(b"another").hexdigest())
    for known in (Known(msgspec.structs.replace(record, sha256="0" * 64)), Known(revoked), Known()):
        refused(ApiKeys(known, now=Clock()), bearer(key), BAD_KEY)
        refused(ApiKeys(known, now=Clock()), bearer(stranger), BAD_KEY)


def test_a_mistyped_key_never_reaches_the_store() -> None:
    key, record = made()
    known = Known(record)
    for place in (5, 20, 45, len(key) - 1):
        typed = key[:place] + ("x" if key[place] != "x" else "y") + key[place + 1 :]
        refused(ApiKeys(known, now=Clock()), bearer(typed), BAD_KEY)
    assert known.asked == []


def test_what_http_says() -> None:
    resource = ProtectedResource("https://mcp.example/mcp", ["https://id.example"])
    with pytest.raises(InvalidToken) as told:
        run(ApiKeys(Known(), now=Clock()).resolve(headers(x_api_key="mcpf_x")))
    answer = resource.answer(told.value)
    assert answer.status == 401
    assert answer.headers[0][1].endswith(
        'error="invalid_token", error_description="The API key is not valid"'
    )


@given(st.text().map(lambda text: "mcpf_" + text))
def test_no_other_error_for_whatever_comes(text: str) -> None:
    assert key_id_of(text) is None
    for evidence in (headers(f"Bearer {text}"), headers(x_api_key=text)):
        with pytest.raises((InvalidToken, MalformedRequest)):
            run(ApiKeys(Known(), now=Clock()).resolve(evidence))
