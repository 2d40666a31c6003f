"""The keys of an issuer: how often they are fetched, how long they are believed, and what is done while they cannot be had."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc.jwk import ECKey, OctKey, RSAKey

from mcpfast.errors import AddressError
from mcpfast.tenancy import jwks as module
from mcpfast.tenancy.denied import Unavailable
from mcpfast.tenancy.fetch import DOCUMENT_BYTES_MAX, Fetched, HttpsFetch
from mcpfast.tenancy.jwks import FETCH_S, KeySet, life_of, metadata_urls, read_keys
from mcpfast.tenancy.signatures import SigningKey
from tests.identities import ISSUER, KEYS, Clock, Site, jwks, run, serving

URL = "https://id.example/keys"


def keys_of(site: Site, clock: Clock, url: str = URL) -> KeySet:
    return KeySet(ISSUER, site, now=clock, url=url)


async def found(keys: KeySet, key_id: str | None = "ec") -> bool:
    return await keys.find(key_id) is not None


async def settled(keys: KeySet) -> None:
    while keys._task is not None:
        await asyncio.sleep(0)


# ---------------------------------------------------------------- when they are fetched


def test_keys_are_fetched_once_and_used_until_their_life_is_over() -> None:
    async def story() -> None:
        site, clock = Site(**{"cache-control": "public, max-age=1000"}), Clock()
        keys = keys_of(site, clock)
        assert await found(keys) and await found(keys, "rsa")
        clock.s += 749
        assert await found(keys)
        assert len(site.fetched) == 1
        clock.s += 1  # three quarters: a fetch beside the call, which does not wait
        site.gate = asyncio.Event()
        assert await found(keys)
        await asyncio.sleep(0)
        assert len(site.fetched) == 2
        assert await found(keys)
        site.gate.set()
        await settled(keys)
        clock.s += 740
        assert await found(keys)
        assert len(site.fetched) == 2

    run(story())


def test_keys_that_are_too_old_are_waited_for() -> None:
    async def story() -> None:
        site, clock = Site(**{"cache-control": "max-age=300"}), Clock()
        keys = keys_of(site, clock)
        assert await found(keys)
        clock.s += 300
        site.answer = Fetched(200, {}, jwks(KEYS["RS256"]))
        assert not await found(keys)  # the key was taken back while nobody asked
        assert keys.generation == 2
        assert await found(keys, "rsa")

    run(story())


@pytest.mark.parametrize(
    ("control", "life_s"),
    [
        ("max-age=1", 300.0),
        ("max-age=301", 301.0),
        ("public,max-age=86400", 86_400.0),
        ("max-age=86401", 86_400.0),
        ("max-age=999999999999", 86_400.0),
        ("no-store", 300.0),
        ("max-age=9000, no-cache", 300.0),
        ("s-maxage=9000", 3_600.0),
        ("max-age=-5", 3_600.0),
        ("max-age=soon", 3_600.0),
        ("", 3_600.0),
        ('MAX-AGE = "600"', 600.0),
    ],
)
def test_the_life_that_an_issuer_may_give(control: str, life_s: float) -> None:
    assert life_of({"cache-control": control}) == life_s
    assert life_of({}) == 3_600.0


def test_everybody_waits_for_the_same_fetch_and_nobody_takes_others_along() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        site.gate = asyncio.Event()
        keys = keys_of(site, clock)
        waiting = [asyncio.create_task(found(keys)) for _ in range(100)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        site.gate.set()
        assert await asyncio.gather(*waiting[1:]) == [True] * 99
        assert waiting[0].cancelled()
        assert len(site.fetched) == 1

    run(story())


def test_a_clock_that_jumps_begins_no_second_fetch_beside_the_first() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        site.gate = asyncio.Event()
        keys = keys_of(site, clock)
        first = asyncio.create_task(found(keys))
        await asyncio.sleep(0)
        clock.s += 3_600
        second = asyncio.create_task(found(keys))
        await asyncio.sleep(0)
        site.gate.set()
        assert await first and await second
        assert len(site.fetched) == 1

    run(story())


def test_a_flood_of_unknown_key_ids_is_one_fetch() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        keys = keys_of(site, clock)
        assert await found(keys)
        clock.s += 30
        flood = [found(keys, f"unknown-{number}") for number in range(1_000)]
        assert not any(await asyncio.gather(*flood))
        assert len(site.fetched) == 2
        clock.s += 29.9
        site.answer = Fetched(200, {}, jwks(ECKey.generate_key("P-256", {"kid": "new"})))
        assert not await found(keys, "new")
        assert len(site.fetched) == 2
        clock.s += 0.1
        assert await found(keys, "new")
        assert len(site.fetched) == 3
        assert keys.generation == 2

    run(story())


def test_the_same_keys_again_are_the_same_generation() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        keys = keys_of(site, clock)
        assert await found(keys)
        clock.s += 3_600
        assert await found(keys)
        assert (len(site.fetched), keys.generation) == (2, 1)

    run(story())


def test_loops_in_several_threads_share_one_fetch() -> None:
    begun, go = threading.Event(), threading.Event()
    fetched: list[str] = []

    async def slow(url: str) -> Fetched:
        fetched.append(url)
        begun.set()
        await asyncio.to_thread(go.wait, 10)
        return Fetched(200, {}, jwks())

    keys = KeySet(ISSUER, slow, now=Clock(), url=URL)
    told: list[bool] = []
    first = threading.Thread(target=lambda: told.append(run(found(keys))))
    second = threading.Thread(target=lambda: told.append(run(found(keys))))
    first.start()
    assert begun.wait(10)
    second.start()
    go.set()
    first.join(10)
    second.join(10)
    assert (told, len(fetched)) == ([True, True], 1)


# ---------------------------------------------------------------- when they cannot be had


async def unavailable(keys: KeySet, retry_after_s: float, key_id: str = "ec") -> None:
    with pytest.raises(Unavailable) as told:
        await keys.find(key_id)
    assert told.value.status == 503
    assert told.value.message == "The keys of the token's issuer cannot be had"
    assert told.value.retry_after_s == retry_after_s


def test_an_issuer_that_was_never_reached() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        site.down = True
        keys = keys_of(site, clock)
        await unavailable(keys, 30)
        clock.s += 20
        await unavailable(keys, 10)  # at once, without another fetch
        clock.s += 9.5
        await unavailable(keys, 1)
        assert len(site.fetched) == 1
        clock.s += 0.5
        site.down = False
        assert await found(keys)

    run(story())


def test_old_keys_serve_while_the_issuer_is_down_and_not_for_ever() -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        keys = keys_of(site, clock)
        assert await found(keys)
        site.down = True
        clock.s += 3_600
        assert await found(keys) and await found(keys)
        assert len(site.fetched) == 2
        await unavailable(keys, 30, "perhaps-a-new-one")  # not "no such key": nobody knows
        clock.s += 86_399
        assert await found(keys)
        clock.s += 1
        await unavailable(keys, 29)
        site.down = False
        clock.s += 29
        assert await found(keys)

    run(story())


@pytest.mark.parametrize(
    "answer",
    [
        Fetched(500, {}, jwks()),
        Fetched(302, {"location": "https://evil.example/keys"}, b""),
        Fetched(200, {}, b"<html>"),
        Fetched(200, {}, b'{"keys": {}}'),
        Fetched(200, {}, b'{"keys": []}'),
        Fetched(200, {}, b'{"keys": [' + b"[" * 5_000),
        Fetched(200, {}, b'{"keys": []' + b" " * DOCUMENT_BYTES_MAX + b"}"),
    ],
)
def test_what_is_no_key_set_changes_nothing(answer: Fetched) -> None:
    async def story() -> None:
        site, clock = Site(), Clock()
        good = site.answer
        site.answer = answer
        keys = keys_of(site, clock)
        await unavailable(keys, 30)
        site.answer = good
        clock.s += 30
        assert await found(keys)
        site.answer = answer
        clock.s += 3_600
        assert await found(keys)
        assert site.fetched == [URL] * 3  # and no redirect was followed

    run(story())


def test_an_issuer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.01)

    async def story() -> None:
        site = Site()
        site.gate = asyncio.Event()
        await unavailable(keys_of(site, Clock()), 30)

    run(story())
    assert FETCH_S <= 10


# ---------------------------------------------------------------- which keys are used


def test_only_keys_that_verify_signatures_are_taken() -> None:
    ec = KEYS["ES256"].as_dict(private=False)
    numbers = generate_private_key(65_537, 1_024).public_key().public_numbers()
    modulus = urlsafe_b64encode(numbers.n.to_bytes(128, "big")).rstrip(b"=").decode()
    weak = {"kty": "RSA", "kid": "weak", "n": modulus, "e": "AQAB"}
    private = RSAKey.generate_key(2048, {"kid": "leaked"})
    secret = OctKey.generate_key(256, {"kid": "secret"})
    odd: list[dict[str, Any]] = [
        weak,
        {**weak, "kid": "huge", "n": "u" * 3_000},
        {**ec, "kid": "encrypts", "use": "enc"},
        {**ec, "kid": "signs", "key_ops": ["sign"]},
        {**ec, "kid": "ops", "key_ops": "verify"},
        {**ec, "kid": "other-alg", "alg": "ES384"},
        {**ec, "kid": "hmac", "alg": "HS256"},
        {**ec, "kid": "none", "alg": "none"},
        {**ec, "kid": "no-alg", "alg": []},
        {**ec, "kid": "off-curve", "y": ec["x"]},
        {**ec, "kid": "no-y", "y": None},
        {**ec, "kid": 5},
        {**ec, "kid": "curve", "crv": "P-257"},
        {"kty": "AKP", "kid": "quantum"},
        {"kty": ["RSA"], "kid": "list"},
        {},
        secret.as_dict(private=True),
        private.as_dict(private=True),
        {**ec, "d": "AAAA", "kid": "ec"},
        ec,
    ]
    keys = read_keys(json.dumps({"keys": odd}).encode())
    assert {name: sorted(key.algorithms) for name, key in keys.items()} == {
        "leaked": ["RS256"],
        "ec": ["ES256"],
    }
    assert not any(key.key.is_private for key in keys.values())  # what an issuer leaks, we do not keep


def test_the_algorithm_is_the_keys() -> None:
    rsa = KEYS["RS256"].as_dict(private=False)
    said = {"a": "PS256", "b": "RS512", "c": "ES256", "d": "HS256"}
    sets = [{**rsa, "kid": kid, "alg": alg} for kid, alg in said.items()]
    keys = read_keys(json.dumps({"keys": sets}).encode())
    assert {kid: sorted(key.algorithms) for kid, key in keys.items()} == {"a": ["PS256"], "b": ["RS512"]}


def test_a_token_without_key_id_has_the_only_key_or_none() -> None:
    async def story() -> None:
        assert await found(keys_of(Site(jwks(KEYS["ES256"])), Clock()), None)
        assert not await found(keys_of(Site(), Clock()), None)

    run(story())


def test_no_more_than_a_hundred_keys_and_the_first_of_two_with_one_id() -> None:
    ec = KEYS["ES256"].as_dict(private=False)
    many = [{**ec, "kid": str(number)} for number in range(101)]
    assert len(read_keys(json.dumps({"keys": many}).encode())) == 100
    twice = json.dumps({"keys": [ec, {**KEYS["RS256"].as_dict(private=False), "kid": "ec"}]})
    assert read_keys(twice.encode())["ec"].algorithms == frozenset({"ES256"})


def test_a_key_shows_no_more_than_its_name() -> None:
    key = read_keys(jwks())["ec"]
    assert isinstance(key, SigningKey)
    assert repr(key) == "SigningKey('ec', ES256)"


# ---------------------------------------------------------------- where they are


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "ftp://id.example",
        "https://",
        "https://u:p@id.example/",
        "https://a/#b",
        "file:///etc/x",
    ],
)
def test_a_url_that_is_not_fetched_from(url: str) -> None:
    with pytest.raises(AddressError) as told:
        keys_of(Site(), Clock(), url)
    assert "jwks_url must be" in str(told.value)
    with pytest.raises(AddressError):
        KeySet(url, Site(), now=Clock())


def test_metadata_is_where_the_two_standards_put_it() -> None:
    assert metadata_urls("https://id.example/realms/a/") == (
        "https://id.example/.well-known/oauth-authorization-server/realms/a",
        "https://id.example/realms/a/.well-known/openid-configuration",
    )
    assert (
        metadata_urls("https://id.example")[0] == "https://id.example/.well-known/oauth-authorization-server"
    )


def discovering(metadata: object) -> tuple[KeySet, list[str]]:
    fetched: list[str] = []

    async def site(url: str) -> Fetched:
        fetched.append(url)
        if url.endswith("openid-configuration"):
            return Fetched(200, {}, json.dumps(metadata).encode())
        return Fetched(200, {}, jwks()) if url == URL else Fetched(404, {}, b"")

    return KeySet(ISSUER, site, now=Clock()), fetched


def test_an_issuer_says_where_its_keys_are() -> None:
    keys, fetched = discovering({"issuer": ISSUER, "jwks_uri": URL, "more": 1})
    assert run(found(keys))
    assert fetched == [*metadata_urls(ISSUER), URL]


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example", "jwks_uri": URL},
        {"issuer": ISSUER + "/", "jwks_uri": URL},
        {"issuer": ISSUER, "jwks_uri": "http://localhost/keys"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/keys"},
        {"issuer": ISSUER},
        [],
    ],
)
def test_metadata_of_another_issuer_or_that_points_inside_is_not_believed(metadata: object) -> None:
    keys, fetched = discovering(metadata)
    run(unavailable(keys, 30))
    assert len(fetched) == 2


def test_an_issuer_without_metadata() -> None:
    site = Site()
    site.answer = Fetched(404, {}, b"")
    run(unavailable(KeySet(ISSUER, site, now=Clock()), 30))
    assert site.fetched == [*metadata_urls(ISSUER)]


# ---------------------------------------------------------------- over a real connection


def test_without_aiohttp_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(AddressError, match=r"mcpfast\[auth\]"):
        HttpsFetch()


def test_keys_come_over_http_and_redirects_and_floods_of_bytes_do_not() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name == "keys":
            assert request.headers["Accept"] == "application/json"
            assert request.headers["Accept-Encoding"] == "identity"
            return web.Response(body=jwks(), headers={"Cache-Control": "max-age=600"})
        if name == "moved":
            raise web.HTTPFound("/keys")
        endless = web.StreamResponse()
        await endless.prepare(request)
        try:
            while True:
                await endless.write(b" " * 65_536)
        except ConnectionError:
            return endless

    async def story() -> None:
        runner, origin = await serving(handler)
        try:
            assert await found(
                KeySet("https://id.example", HttpsFetch(), now=time.time, url=origin + "/keys")
            )
            fetched = await HttpsFetch()(origin + "/keys")
            assert life_of(fetched.headers) == 600
            assert (await HttpsFetch()(origin + "/moved")).status == 302
            with pytest.raises(ValueError, match="bytes"):
                await HttpsFetch()(origin + "/endless")
        finally:
            await runner.cleanup()
        with pytest.raises(OSError):
            await HttpsFetch()(origin + "/keys")

    run(story())
