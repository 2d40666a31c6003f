"""JSON Web Tokens: who presents a bad one is told so, with the exact status and header, and slows nobody down."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import urlsafe_b64encode
from hmac import digest
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mcpfast.errors import AddressError, RegistrationError
from mcpfast.tenancy import jwt as module
from mcpfast.tenancy import signatures
from mcpfast.tenancy.challenge import ProtectedResource
from mcpfast.tenancy.denied import Denied, InvalidToken, MalformedRequest, Unavailable
from mcpfast.tenancy.fetch import Fetched
from mcpfast.tenancy.identity import Claim, Principal
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.jwks import read_keys
from mcpfast.tenancy.jwt import CACHED_S, JwtBearer
from mcpfast.tenancy.resolvers import BEARER_CHARS_MAX, Chain, Evidence
from tests.identities import (
    ISSUER,
    KEYS,
    RESOURCE,
    START_S,
    STRANGER,
    Clock,
    Site,
    Tenants,
    bearer,
    claims,
    forge,
    headers,
    jwks,
    run,
    secret_key,
    serving,
    sign,
)

SECRET = bytes(range(32))
WHERE = 'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp"'
UNREADABLE = "The token cannot be read, or is of a kind that is not accepted here"
UNKNOWN_KEY = "The token is not signed with a key of its issuer"
BAD_SIGNATURE = "The token's signature is not valid"


def issuer(**more: Any) -> Issuer:
    usual = {
        "issuer": ISSUER,
        "audiences": (RESOURCE,),
        "jwks_url": ISSUER + "/keys",
        "tenant_claim": "org",
        "tenants": ("acme", "glob*"),
    }
    return Issuer(**{name: value for name, value in {**usual, **more}.items() if value is not None})


class House:
    """A resolver with all that it stands on."""

    def __init__(self, *issuers: Issuer, entries_max: int = 10_000) -> None:
        self.site, self.clock, self.tenants = Site(), Clock(), Tenants()
        self.resolver = JwtBearer(
            issuers or (issuer(),),
            self.tenants,
            now=self.clock,
            fetch=self.site,
            entries_max=entries_max,
        )

    async def ask(self, token: str, **more: Any) -> Claim:
        claim = await self.resolver.resolve(bearer(token, **more))
        assert claim is not None
        return claim

    async def refuses(self, token: str, words: str, kind: type[Denied] = InvalidToken, **more: Any) -> None:
        with pytest.raises(Denied) as told:
            await self.ask(token, **more)
        assert isinstance(told.value, kind), told.value
        assert told.value.message == words

    def accepted(self, token: str, **more: Any) -> Claim:
        claim = run(self.ask(token, **more))
        assert isinstance(claim, Claim)
        return claim

    def refused(self, token: str, words: str, kind: type[Denied] = InvalidToken, **more: Any) -> None:
        run(self.refuses(token, words, kind, **more))


# ---------------------------------------------------------------- good ones


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_token_of_each_kind_of_key(algorithm: str) -> None:
    principal = Principal("alice", frozenset({"read", "write"}), expires_s=START_S + 3_630, issuer=ISSUER)
    assert House().accepted(sign(algorithm=algorithm)) == Claim(principal, "acme")


def test_a_shared_secret_is_for_its_issuer_alone() -> None:
    house = House(issuer(jwks_url=None, secret=SECRET))
    assert house.accepted(sign(algorithm="HS256", key=secret_key(SECRET))).tenant == "acme"
    house.refused(sign(algorithm="HS256", key=secret_key(SECRET[::-1])), BAD_SIGNATURE)
    house.refused(sign(), UNKNOWN_KEY)
    house.refused(sign(algorithm="HS512", key=secret_key(SECRET)), UNKNOWN_KEY)
    assert house.site.fetched == []


def test_what_is_no_jwt_is_somebody_elses() -> None:
    house = House()
    for evidence in (headers(), headers("Basic YTpi"), bearer("mcpf_a_b"), bearer("opaque"), Evidence()):
        assert run(house.resolver.resolve(evidence)) is None


@pytest.mark.parametrize(
    ("said", "scopes"),
    [
        ({"scope": "a  b"}, {"a", "b"}),
        ({"scope": None, "scp": ["a", "b", 5]}, {"a", "b"}),
        ({"scope": None, "scp": "a b"}, {"a", "b"}),
        ({"scope": "a", "scp": "b"}, {"a"}),
        ({"scope": {"a": 1}}, set()),
        ({"scope": None}, set()),
    ],
)
def test_scopes_however_an_issuer_writes_them(said: dict[str, Any], scopes: set[str]) -> None:
    assert House().accepted(sign(claims(**said))).principal.scopes == scopes


def test_claims_are_found_where_the_configuration_says() -> None:
    house = House(
        issuer(
            tenant_claim=("https://id.example/org", "id"),
            subject_claim="oid",
            subject_prefix="corp:",
            scopes_claim="permissions",
            roles_claim=("realm_access", "roles"),
        )
    )
    token = sign(
        claims(
            oid="u1",
            permissions=["p"],
            realm_access={"roles": ["r"]},
            **{"https://id.example/org": {"id": "globex"}},
        )
    )
    principal = Principal("corp:u1", frozenset({"p"}), frozenset({"r"}), START_S + 3_630, ISSUER)
    assert house.accepted(token) == Claim(principal, "globex")
    house.refused(
        sign(claims(oid="u1", **{"https://id.example/org": "globex"})),
        "The token is not for a tenant that its issuer may speak for",
    )


def test_the_type_of_a_token() -> None:
    for kind in ("JWT", "at+jwt", "application/at+JWT", None):
        House().accepted(sign(typ=kind))
    for kind in ("dpop+jwt", "logout+jwt", "JWE", 5):
        House().refused(forge({"alg": "ES256", "kid": "ec", "typ": kind}, claims()), UNREADABLE)


# ---------------------------------------------------------------- bad ones

PUBLIC_PEM = KEYS["RS256"].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
CONFUSED = forge({"alg": "HS256", "kid": "rsa"}, claims(), b"x" * 32)

BAD = [
    ("expired", sign(claims(exp=START_S - 31)), "The token has expired"),
    ("no end", sign(claims(exp=None)), "The token does not say when it expires"),
    ("not yet", sign(claims(nbf=START_S + 31)), "The token is not valid yet"),
    ("from the future", sign(claims(iat=START_S + 31)), "The token is not valid yet"),
    ("endless", sign(claims(exp=1e300)), "The token's exp is no time"),
    (
        "huge",
        sign(json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1' + "0" * 400).encode()),
        "The token's exp is no time",
    ),
    ("text as time", sign(claims(exp="tomorrow")), "The token's exp is no time"),
    ("true as time", sign(claims(exp=True)), "The token's exp is no time"),
    ("negative", sign(claims(nbf=-1)), "The token's nbf is no time"),
    ("another audience", sign(claims(aud="https://other.example/mcp")), "The token is for another audience"),
    (
        "audience that begins like ours",
        sign(claims(aud=RESOURCE + "/x")),
        "The token is for another audience",
    ),
    ("no audience", sign(claims(aud=None)), "The token is for another audience"),
    (
        "audiences of numbers",
        sign(claims(aud=[1, None, {}])),
        "The token is for another audience",
    ),
    ("another issuer", sign(claims(iss="https://evil.example")), "The token's issuer is not accepted here"),
    ("an issuer with a slash", sign(claims(iss=ISSUER + "/")), "The token's issuer is not accepted here"),
    ("no issuer", sign(claims(iss=None)), "The token's issuer is not accepted here"),
    ("issuers", sign(claims(iss=[ISSUER])), "The token's issuer is not accepted here"),
    ("no subject", sign(claims(sub=None)), "The token does not say who it is for"),
    ("a number as subject", sign(claims(sub=5)), "The token does not say who it is for"),
    ("a subject of two lines", sign(claims(sub="a\nb")), "The token does not say who it is for"),
    ("a long subject", sign(claims(sub="a" * 256)), "The token does not say who it is for"),
    (
        "another tenant",
        sign(claims(org="other")),
        "The token is not for a tenant that its issuer may speak for",
    ),
    ("no tenant", sign(claims(org=None)), "The token is not for a tenant that its issuer may speak for"),
    ("a stranger's key", sign(key=STRANGER), BAD_SIGNATURE),
    ("another key's id", sign(algorithm="RS256", kid="ec"), UNKNOWN_KEY),
    ("an unknown key", sign(kid="who"), UNKNOWN_KEY),
    ("no key id among three keys", sign(kid=None), UNKNOWN_KEY),
    ("alg none", forge({"alg": "none"}, claims()), UNKNOWN_KEY),
    ("alg none with a key id", forge({"alg": "none", "kid": "ec"}, claims()), UNKNOWN_KEY),
    ("alg nOnE", forge({"alg": "nOnE", "kid": "ec"}, claims()), UNKNOWN_KEY),
    ("HS without a secret", CONFUSED, UNKNOWN_KEY),
    ("RS512 with an RS256 key", sign(algorithm="RS512", key=KEYS["RS256"]), UNKNOWN_KEY),
    ("no signature", forge({"alg": "ES256", "kid": "ec"}, claims()), BAD_SIGNATURE),
    ("crit", sign(crit=["exp"], exp=1), UNREADABLE),
    ("b64", sign(b64=True), UNREADABLE),
    ("jku", sign(jku="https://evil.example/keys"), UNREADABLE),
    ("x5u", sign(x5u="https://evil.example/cert"), UNREADABLE),
    ("jwk", sign(key=STRANGER, jwk=STRANGER.as_dict(private=False)), UNREADABLE),
    ("x5c", sign(x5c=["AAAA"]), UNREADABLE),
    ("alg of no text", forge({"alg": ["ES256"], "kid": "ec"}, claims()), UNREADABLE),
    ("kid of no text", forge({"alg": "ES256", "kid": {"a": 1}}, claims()), UNREADABLE),
    ("no alg", forge({"kid": "ec"}, claims()), UNREADABLE),
    ("a list as header", forge(["alg"], claims()), UNREADABLE),
    ("a text as header", forge("alg", claims()), UNREADABLE),
    ("a list as claims", sign(b"[]"), UNREADABLE),
    ("no JSON", sign(b"{"), UNREADABLE),
    ("no UTF-8", sign(b'{"a": "\xff"}'), UNREADABLE),
    ("deep", sign(b'{"a":' + b"[" * 4_000), UNREADABLE),
    ("deep header", forge(b'{"alg":' + b"[" * 1_000, claims()), UNREADABLE),
    ("empty", "..", UNREADABLE),
    ("padded", sign() + "=", BAD_SIGNATURE),
    ("a long header", sign(more="x" * 2_048), UNREADABLE),
]


@pytest.mark.parametrize(("token", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_every_bad_token_is_a_401_that_says_why(token: str, words: str) -> None:
    house = House()
    chain = Chain([house.resolver], house.tenants)
    resource = ProtectedResource(RESOURCE, [ISSUER])
    for _ in range(2):  # the second time it is known to be bad
        with pytest.raises(InvalidToken) as told:
            run(chain.resolve(bearer(token)))
        assert told.value.message == words
        assert resource.answer(told.value) == (
            401,
            (
                (
                    "WWW-Authenticate",
                    f'Bearer {WHERE}, error="invalid_token", error_description="{told.value.message}"',
                ),
            ),
        )
    assert len(house.site.fetched) <= 1
    assert set(house.site.fetched) <= {ISSUER + "/keys"}  # nothing that a token names is ever fetched


def test_hs256_with_the_public_key_as_its_secret() -> None:
    """The classic confusion, for each form of the public key that an attacker may try."""
    der = KEYS["RS256"].public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    modulus = KEYS["RS256"].as_dict(private=False)["n"].encode()
    for secret in (PUBLIC_PEM, PUBLIC_PEM.strip(), der, modulus, jwks()):
        front = forge({"alg": "HS256", "kid": "rsa", "typ": "JWT"}, claims()).rpartition(".")[0]
        mac = urlsafe_b64encode(digest(secret, front.encode(), "sha256")).rstrip(b"=").decode()
        House().refused(f"{front}.{mac}", UNKNOWN_KEY)


def test_a_signature_by_another_algorithm_than_the_keys_does_not_hold() -> None:
    """Even where nobody has looked at the header before."""
    key = read_keys(jwks())["rsa"]
    for token in (
        sign(algorithm="RS512", key=KEYS["RS256"]),
        sign(algorithm="PS256", key=KEYS["RS256"]),
        forge({"alg": "none"}, claims()),
        CONFUSED,
    ):
        unverified = signatures.read(token)
        assert unverified is not None
        assert not signatures.verify(unverified, key)


def test_a_signature_with_one_bit_changed() -> None:
    front, _, signature = sign().rpartition(".")
    for place in range(0, len(signature), 7):
        other = "A" if signature[place] != "A" else "B"
        House().refused(f"{front}.{signature[:place]}{other}{signature[place + 1 :]}", BAD_SIGNATURE)


def test_an_authorization_that_is_no_token_is_a_400() -> None:
    house = House()
    for value in ("Bearer", "bearer ", "Bearer    "):
        with pytest.raises(MalformedRequest) as told:
            run(house.resolver.resolve(headers(value)))
        assert told.value.message == "Authorization: Bearer has no token"
    two = f"Bearer {sign()}, Bearer {sign()}"
    for value in (two, "Bearer a.b.c d", 'Bearer a."b".c', "Bearer ä.b.c", "Bearer \ud800.b.c"):
        with pytest.raises((MalformedRequest, InvalidToken)):
            run(Chain([house.resolver], house.tenants).resolve(headers(value)))


def test_a_token_of_the_longest_length_and_one_above() -> None:
    token = sign(claims(more="x" * 100))
    longest = sign(claims(more="x" * (100 + (BEARER_CHARS_MAX - len(token)) * 3 // 4 - 4)))
    assert BEARER_CHARS_MAX - 8 < len(longest) <= BEARER_CHARS_MAX
    House().accepted(longest)
    House().refused("a.b." + "c" * (BEARER_CHARS_MAX - 3), "The token is too long")


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize(
    ("said", "ahead_s", "good"),
    [
        ({"exp": START_S}, 29.999, True),
        ({"exp": START_S}, 30, False),
        ({"nbf": START_S + 30}, 0, True),
        ({"nbf": START_S + 30.001}, 0, False),
        ({"nbf": START_S + 30.001}, 0.001, True),
        ({"iat": START_S + 30}, 0, True),
        ({"iat": START_S + 31}, 0, False),
        ({"iat": None}, 0, True),
    ],
)
def test_clocks_may_differ_by_the_leeway(said: dict[str, Any], ahead_s: float, good: bool) -> None:
    house = House()
    house.clock.s += ahead_s
    if good:
        house.accepted(sign(claims(**said)))
    else:
        words = "The token has expired" if "exp" in said else "The token is not valid yet"
        house.refused(sign(claims(**said)), words)


def test_no_leeway_is_none() -> None:
    house = House(issuer(leeway_s=0.0))
    house.refused(sign(claims(exp=START_S)), "The token has expired")
    house.accepted(sign(claims(exp=START_S + 1)))


def test_a_token_that_comes_too_early_is_good_when_its_time_comes() -> None:
    async def story() -> None:
        house, token = House(), sign(claims(nbf=START_S + 31))
        await house.refuses(token, "The token is not valid yet")
        house.clock.s += 1
        await house.ask(token)

    run(story())


# ---------------------------------------------------------------- what is remembered


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each signature that is looked at."""
    looked: list[str] = []
    verify = signatures.verify

    def counting(token: Any, key: Any) -> bool:
        looked.append(key.id)
        return verify(token, key)

    monkeypatch.setattr(signatures, "verify", counting)
    return looked


def test_a_token_is_verified_once_a_minute(verified: list[str]) -> None:
    async def story() -> None:
        house, token = House(), sign()
        first = await house.ask(token)
        assert await house.ask(token) is first
        house.clock.s += CACHED_S - 0.001
        assert await house.ask(token) is first
        assert len(verified) == 1
        house.clock.s += 0.001
        assert await house.ask(token) == first
        assert len(verified) == 2

    run(story())


def test_what_is_remembered_does_not_outlive_the_token(verified: list[str]) -> None:
    async def story() -> None:
        house, token = House(), sign(claims(exp=START_S))
        await house.ask(token)
        house.clock.s += 29.999
        await house.ask(token)
        house.clock.s += 0.001
        await house.refuses(token, "The token has expired")
        assert len(verified) == 1

    run(story())


def test_the_same_new_token_at_once_is_verified_once(verified: list[str]) -> None:
    async def story() -> None:
        house, token = House(), sign()
        told = await asyncio.gather(*(house.ask(token) for _ in range(50)))
        assert all(claim is told[0] for claim in told)
        assert (len(verified), len(house.site.fetched)) == (1, 1)

    run(story())


def test_a_bad_token_is_refused_unread_for_a_moment(verified: list[str]) -> None:
    async def story() -> None:
        house, token = House(), sign(key=STRANGER)
        for _ in range(100):
            await house.refuses(token, BAD_SIGNATURE)
        assert len(verified) == 1
        house.clock.s += 5
        await house.refuses(token, BAD_SIGNATURE)
        assert len(verified) == 2

    run(story())


def test_no_more_is_remembered_than_allowed_and_the_unused_goes_first(verified: list[str]) -> None:
    async def story() -> None:
        house = House(entries_max=2)
        tokens = [sign(claims(jti=str(number))) for number in range(3)]
        await house.ask(tokens[0])
        await house.ask(tokens[1])
        await house.ask(tokens[0])
        await house.ask(tokens[2])
        assert len(verified) == 3
        await house.ask(tokens[0])
        assert len(verified) == 3
        await house.ask(tokens[1])
        assert len(verified) == 4

    run(story())


def test_bad_tokens_push_no_good_one_out(verified: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFUSED_ENTRIES_MAX", 2)

    async def story() -> None:
        house, token = House(entries_max=1), sign()
        await house.ask(token)
        for number in range(5):
            await house.refuses(sign(claims(jti=str(number)), key=STRANGER), BAD_SIGNATURE)
        assert len(house.resolver._refused) == 2
        await house.ask(token)
        assert len(verified) == 6

    run(story())


def test_a_key_that_is_taken_back_takes_its_tokens_along() -> None:
    async def story() -> None:
        house, token = House(), sign()
        await house.ask(token)
        house.site.answer = Fetched(200, {}, jwks(KEYS["RS256"]))
        house.clock.s += 30
        await house.ask(token)  # nobody has looked at the keys again yet
        await house.refuses(sign(kid="new"), UNKNOWN_KEY)  # now somebody has
        await house.refuses(token, UNKNOWN_KEY)

    run(story())


def test_revoking_a_tenants_tokens_is_at_once_and_for_good() -> None:
    async def story() -> None:
        house, token, other = House(), sign(), sign(claims(org="globex"))
        await house.ask(token)
        await house.ask(other)
        revoked = msgspec.structs.replace(house.tenants.records["acme"], token_generation=int(START_S))
        house.tenants.records["acme"] = revoked
        await house.refuses(token, "The token has been revoked")
        await house.refuses(sign(claims(iat=START_S)), "The token has been revoked")
        await house.refuses(sign(claims(iat=None)), "The token has been revoked")
        await house.ask(other)
        house.clock.s += 6
        await house.refuses(token, "The token has been revoked")
        await house.ask(sign(claims(iat=START_S + 1)))
        fresh = House()  # another worker, or this one after a restart
        fresh.tenants.records["acme"] = revoked
        await fresh.refuses(token, "The token has been revoked")

    run(story())


@pytest.mark.parametrize("org", ["acme", "globex", "globetrotter", "initech", "no-such", None, 5])
def test_who_can_sign_nothing_is_not_told_which_tenants_there_are(org: object) -> None:
    house = House(issuer(required={"team": ("red",)}))
    for name in ("acme", "globex"):
        record = msgspec.structs.replace(house.tenants.records[name], token_generation=int(START_S))
        house.tenants.records[name] = record
    house.refused(forge({"alg": "ES256", "kid": "ec"}, claims(org=org), b"0" * 64), BAD_SIGNATURE)


def test_a_persons_tokens_are_revoked_with_their_own_tenant() -> None:
    house = House(issuer(tenant_claim=None, tenants=None, persons=True))
    assert house.accepted(sign()).tenant == ""
    alice = msgspec.structs.replace(house.tenants.records["alice"], token_generation=int(START_S))
    house.tenants.records["alice"] = alice
    house.refused(sign(), "The token has been revoked")


# ---------------------------------------------------------------- issuers that are up, down, floods


def test_the_keys_of_a_real_issuer_are_found_and_fetched() -> None:
    async def story() -> None:
        asked: list[str] = []

        async def handler(request: web.Request) -> web.Response:
            asked.append(request.path)
            if request.path == "/keys":
                return web.Response(body=jwks())
            return web.json_response({"issuer": origin, "jwks_uri": f"{origin}/keys"})

        runner, origin = await serving(handler)
        try:
            resolver = JwtBearer([issuer(issuer=origin, jwks_url=None)], Tenants(), now=lambda: START_S)
            for algorithm in KEYS:
                claim = await resolver.resolve(bearer(sign(claims(iss=origin), algorithm=algorithm)))
                assert claim is not None and claim.principal.issuer == origin
        finally:
            await runner.cleanup()
        assert asked == ["/.well-known/oauth-authorization-server", "/keys"]

    run(story())


def test_without_joserfc_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("mcpfast.tenancy.signatures")
    monkeypatch.setitem(sys.modules, "mcpfast.tenancy.signatures", None)
    with pytest.raises(RegistrationError, match=r"mcpfast\[auth\]"):
        House()


def test_an_issuer_that_is_down_is_a_503_that_says_when_to_come_back() -> None:
    house = House()
    house.site.down = True
    with pytest.raises(Unavailable) as told:
        run(house.ask(sign()))
    answer = ProtectedResource(RESOURCE, [ISSUER]).answer(told.value)
    assert answer == (503, (("Retry-After", "30"),))
    assert told.value.data == {"retryAfterMs": 30_000}


def test_an_issuer_that_is_down_hinders_no_other_and_no_known_token() -> None:
    async def story() -> None:
        other = issuer(
            issuer="https://other.example", jwks_url="https://other.example/keys", subject_prefix="o:"
        )
        house = House(issuer(subject_prefix="i:"), other)
        known = sign()
        await house.ask(known)
        house.site.gate = asyncio.Event()
        stuck = asyncio.create_task(house.ask(sign(claims(iss="https://other.example"))))
        await asyncio.sleep(0)
        await house.ask(known)
        await house.ask(sign(claims(jti="new")))  # of the issuer that is up
        assert not stuck.done()
        house.site.gate.set()
        assert (await stuck).principal.id == "o:alice"

    run(story())


def test_a_flood_of_bad_tokens_delays_another_call_by_one_verification(verified: list[str]) -> None:
    async def story() -> None:
        house, known = House(), sign()
        await house.ask(known)
        flood = [sign(claims(jti=str(number)), key=STRANGER) for number in range(100)]
        tasks = [asyncio.create_task(house.refuses(token, BAD_SIGNATURE)) for token in flood]
        before = len(verified)
        for turns in range(1, 50):
            await asyncio.sleep(0)
            await house.ask(known)
            assert len(verified) - before <= turns
        await asyncio.gather(*tasks)
        assert len(verified) == 101

    run(story())


def test_more_new_tokens_than_can_wait_are_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)

    async def story() -> None:
        house = House()
        await house.ask(sign())
        tokens = [sign(claims(jti=str(number))) for number in range(5)]
        told = await asyncio.gather(*map(house.ask, tokens), return_exceptions=True)
        busy = [error for error in told if isinstance(error, Unavailable)]
        assert len(busy) == 2
        assert (busy[0].message, busy[0].retry_after_s) == ("Too many new tokens at once", 1.0)
        for token in tokens:
            await house.ask(token)

    run(story())


def test_a_resolver_serves_several_loops_one_after_another() -> None:
    house, token = House(), sign()
    for _ in range(3):
        house.accepted(token)
        run(_two_at_once(house))


async def _two_at_once(house: House) -> None:
    house.clock.s += 61
    await asyncio.gather(house.ask(sign()), house.ask(sign(claims(jti="2"))))


# ---------------------------------------------------------------- whose tenant


def test_an_audience_of_a_tenants_own_holds_for_it_alone() -> None:
    house = House(
        issuer(
            audiences=("https://mcp.example/t/{tenant}/mcp",), tenant_claim=None, tenants=None, persons=True
        )
    )
    token = sign(claims(aud=["https://x.example", "HTTPS://MCP.example/t/acme/mcp/"]))
    for _ in range(2):
        assert house.accepted(token, path_tenant="acme").tenant == ""
        house.refused(token, "The token is for another audience", path_tenant="globex")
        house.refused(token, "The token is for another audience")
    for aud in (
        "https://mcp.example/t//mcp",
        "https://mcp.example/t/a/b/mcp",
        "https://mcpxexample/t/acme/mcp",
    ):
        house.refused(sign(claims(aud=aud)), "The token is for another audience", path_tenant="acme")
    bound = House(issuer(audiences=("https://mcp.example/t/{tenant}/mcp",)))
    bound.accepted(sign(claims(aud="https://mcp.example/t/acme/mcp")))
    bound.refused(sign(claims(aud="https://mcp.example/t/globex/mcp")), "The token is for another audience")


def test_claims_that_must_be_there() -> None:
    house = House(issuer(required={"azp": ("app", "web")}))
    house.accepted(sign(claims(azp="web")))
    house.accepted(sign(claims(azp=["x", "app"])))
    for azp in ("other", None, 5):
        house.refused(sign(claims(azp=azp)), "The token lacks the claim azp as it is required here")


def test_an_issuer_of_one_tenant_speaks_for_no_other() -> None:
    house = House(issuer(tenant="acme", tenant_claim=None, tenants=None))
    assert house.accepted(sign(claims(org="globex"))).tenant == "acme"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"audiences": ()}, "audiences"),
        ({"tenants": None}, "tenants"),
        ({"tenant_claim": None}, "tenant_claim"),
        ({"tenant_claim": None, "tenants": None}, "speaks for nobody"),
        ({"tenant": "acme"}, "excludes"),
        ({"secret": SECRET}, "exclude each other"),
        ({"secret": b"short", "jwks_url": None}, "32 bytes"),
        ({"leeway_s": 301.0}, "leeway_s"),
        ({"leeway_s": float("nan")}, "leeway_s"),
    ],
)
def test_a_configuration_that_leaves_a_door_open_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(RegistrationError, match=words) as told:
        House(issuer(**wrong))
    assert "short" not in str(told.value)


def test_issuers_that_could_mean_the_same_person_need_prefixes() -> None:
    one, two = issuer(), issuer(issuer="https://b.example")
    with pytest.raises(RegistrationError, match="subject_prefix"):
        House(one, two)
    with pytest.raises(RegistrationError, match="subject_prefix"):
        House(issuer(subject_prefix="a"), issuer(issuer="https://b.example", subject_prefix="ab"))
    with pytest.raises(RegistrationError, match="twice"):
        House(one, one)
    House(issuer(subject_prefix="a:"), issuer(issuer="https://b.example", subject_prefix="b:"))
    alone = {"tenant_claim": None, "tenants": None}
    House(issuer(tenant="acme", **alone), issuer(issuer="https://b.example", tenant="globex", **alone))


def test_an_issuer_as_a_configuration_file_has_it() -> None:
    written = {
        "issuer": ISSUER,
        "audiences": [RESOURCE],
        "tenant_claim": ["org", "id"],
        "tenants": ["acme"],
        "required": {"azp": ["app"]},
    }
    read = msgspec.convert(written, Issuer)
    assert (read.tenant_claim, read.required) == (("org", "id"), {"azp": ("app",)})
    with pytest.raises(msgspec.ValidationError, match="speaks for nobody"):
        msgspec.convert({"issuer": ISSUER, "audiences": [RESOURCE]}, Issuer)


def test_an_issuer_shows_no_secret() -> None:
    assert repr(issuer(jwks_url=None, secret=SECRET)) == f"Issuer('{ISSUER}', secret not shown)"
    with pytest.raises(AddressError):
        House(issuer(jwks_url="http://id.example/keys"))


# ---------------------------------------------------------------- whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"])
CLAIMS = st.sampled_from(list(claims()))


def survives(token: str) -> None:
    house = House()
    with pytest.raises(Denied):
        run(Chain([house.resolver], house.tenants).resolve(headers(f"Bearer {token}")))


@given(st.text())
def test_any_text_is_refused_in_our_own_words(text: str) -> None:
    survives(text)
    survives(f"{text}.{text}.{text}")


@given(st.dictionaries(NAMES, JSON), st.dictionaries(CLAIMS, JSON), st.binary(max_size=70))
def test_any_header_and_claims_are_refused_in_our_own_words(
    header: dict[str, Any], payload: dict[str, Any], signature: bytes
) -> None:
    survives(forge({"alg": "ES256", "kid": "ec", **header}, claims(**payload), signature))


@given(st.dictionaries(CLAIMS, JSON))
def test_any_signed_claims_are_accepted_or_refused_in_our_own_words(payload: dict[str, Any]) -> None:
    house = House()
    try:
        run(house.ask(sign({**claims(), **payload})))
    except Denied:
        pass


@given(st.integers(0, 10_000), st.characters())
def test_no_changed_letter_of_a_good_token_is_accepted(place: int, letter: str) -> None:
    token = sign()
    place %= len(token)
    if token[place] != letter:
        survives(token[:place] + letter + token[place + 1 :])
