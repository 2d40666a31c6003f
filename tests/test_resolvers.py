"""Who is asking: the rules of the chain, which no resolver can bend, and the resolvers that need no token."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mcpfast.errors import RegistrationError
from mcpfast.tenancy.denied import (
    NOT_YOURS,
    Denied,
    Forbidden,
    InvalidToken,
    MalformedRequest,
    Unauthenticated,
    Unavailable,
)
from mcpfast.tenancy.identity import Claim, Principal, TenantRecord
from mcpfast.tenancy.local import Environment, MutualTls, PeerUsers, tls_names
from mcpfast.tenancy.resolvers import Chain, Evidence, Identity, Peer, Resolver
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from tests.identities import Tenants, headers, run

READ, WRITE = frozenset({"read"}), frozenset({"read", "write"})
ALICE = Principal("alice", WRITE, frozenset({"admin"}), issuer="badge")


class Badge:
    """A resolver as users write them: of one header."""

    def __init__(self, name: str, claim: Claim | Denied) -> None:
        self.name = name
        self.claim = claim

    async def resolve(self, evidence: Evidence) -> Claim | None:
        if evidence.header(self.name) is None:
            return None
        if isinstance(self.claim, Denied):
            raise self.claim
        return self.claim


PERSON = Badge("x-person", Claim(ALICE))
WORKER = Badge("x-worker", Claim(ALICE, "acme"))
BROKEN = Badge("x-broken", InvalidToken("The badge is not known"))


def ask(
    *resolvers: Resolver, shows: tuple[str, ...] = (), tenants: Tenants | None = None, **evidence: object
) -> Identity:
    shown = dict.fromkeys(shows, "1")
    seen = Evidence(**{"transport": "http", "header": shown.get, **evidence})  # type: ignore[arg-type]
    identity = run(Chain(resolvers, tenants or Tenants()).resolve(seen))
    assert isinstance(identity, Identity)
    return identity


def denied(
    kind: type[Denied],
    words: str,
    *resolvers: Resolver,
    shows: tuple[str, ...] = (),
    tenants: Tenants | None = None,
    **evidence: object,
) -> Denied:
    with pytest.raises(Denied) as told:
        ask(*resolvers, shows=shows, tenants=tenants, **evidence)
    assert type(told.value) is kind
    assert told.value.message == words
    return told.value


# ---------------------------------------------------------------- the chain


def test_nobody_said_who_is_asking() -> None:
    error = denied(Unauthenticated, "This needs credentials", PERSON, WORKER, path_tenant="acme")
    assert (error.status, error.code) == (401, 4010)
    denied(Unauthenticated, "This needs credentials")


def test_a_credential_for_a_tenant() -> None:
    assert ask(WORKER, shows=("x-worker",)) == Identity("acme", ALICE)
    assert (
        ask(PERSON, WORKER, shows=("x-worker",), path_tenant="acme", host_tenant="acme").tenant_id == "acme"
    )


def test_a_bad_credential_is_final_whatever_stands_beside_it() -> None:
    for chain in ((BROKEN, WORKER), (WORKER, BROKEN)):
        denied(InvalidToken, "The badge is not known", *chain, shows=("x-worker", "x-broken"))


def test_two_credentials_must_be_of_one_principal_and_tenant() -> None:
    words = "The request has two credentials of different principals or tenants"
    denied(InvalidToken, words, WORKER, PERSON, shows=("x-worker", "x-person"))
    other = Badge("x-other", Claim(Principal("bob", issuer="badge"), "acme"))
    denied(InvalidToken, words, WORKER, other, shows=("x-worker", "x-other"))
    weaker = Badge("x-weaker", Claim(Principal("alice", issuer="badge"), "acme"))
    assert ask(weaker, WORKER, shows=("x-worker", "x-weaker")).principal.scopes == frozenset()


@pytest.mark.parametrize(
    "meant",
    [
        {"path_tenant": "acme", "host_tenant": "globex"},
        {"path_tenant": "acme", "option_tenant": "globex"},
        {"host_tenant": "acme", "option_tenant": "globex"},
    ],
)
def test_path_and_host_that_disagree(meant: dict[str, str]) -> None:
    denied(Forbidden, NOT_YOURS, WORKER, shows=("x-worker",), **meant)


def test_no_answer_tells_whether_a_tenant_exists() -> None:
    """Another one's, none at all, one of which one is no member, and somebody's own: the same to the letter."""
    tenants = Tenants()
    tenants.records["bob"] = TenantRecord("bob", kind="personal")
    tenants.records["closed"] = TenantRecord("closed", state="suspended")
    answers = set()
    for badge, shown in ((WORKER, "x-worker"), (PERSON, "x-person")):
        for meant in ("globex", "nobody", "bob", "closed", "ACME", "acme/", "../acme"):
            error = denied(Forbidden, NOT_YOURS, badge, shows=(shown,), path_tenant=meant, tenants=tenants)
            answers.add((error.status, error.code, error.message, str(error.data), error.retry_after_s))
    gone = Badge("x-gone", Claim(ALICE, "gone"))
    error = denied(Forbidden, NOT_YOURS, gone, shows=("x-gone",), tenants=tenants)
    answers.add((error.status, error.code, error.message, str(error.data), error.retry_after_s))
    assert len(answers) == 1


def test_a_person_acts_in_a_tenant_of_their_own_or_where_they_are_a_member() -> None:
    assert ask(PERSON, shows=("x-person",)) == Identity("alice", ALICE)
    assert ask(PERSON, shows=("x-person",), path_tenant="alice") == Identity("alice", ALICE)
    tenant_id, principal = ask(PERSON, shows=("x-person",), path_tenant="acme")
    assert tenant_id == "acme"
    assert principal.scopes == READ  # no more than the organization gave
    assert principal.roles == frozenset({"buyer"})  # an admin elsewhere is none here
    weak = Badge("x-weak", Claim(Principal("alice", frozenset({"mail"}))))
    assert ask(weak, shows=("x-weak",), path_tenant="acme").principal.scopes == frozenset()


def test_who_is_called_like_an_organization_is_not_it() -> None:
    squatter = Badge("x-squatter", Claim(Principal("globex", issuer="badge")))
    denied(Forbidden, NOT_YOURS, squatter, shows=("x-squatter",))


def test_a_credential_that_names_somebodys_own_tenant_must_be_theirs() -> None:
    thief = Badge("x-thief", Claim(Principal("mallory", issuer="badge"), "alice"))
    denied(Forbidden, NOT_YOURS, thief, shows=("x-thief",))
    owner = Badge("x-owner", Claim(ALICE, "alice"))
    assert ask(owner, shows=("x-owner",)) == Identity("alice", ALICE)


def test_a_tenant_that_is_suspended_or_draining() -> None:
    tenants = Tenants()
    tenants.records["acme"] = msgspec.structs.replace(tenants.records["acme"], state="suspended")
    words = "This tenant is suspended; whoever runs this server can say why"
    assert denied(Forbidden, words, WORKER, shows=("x-worker",), tenants=tenants).status == 403
    tenants.records["acme"] = msgspec.structs.replace(tenants.records["acme"], state="draining")
    error = denied(
        Unavailable, "This tenant takes no new calls", WORKER, shows=("x-worker",), tenants=tenants
    )
    assert (error.status, error.data) == (503, {"retryAfterMs": 30_000})


@pytest.mark.parametrize(
    "query", ["access_token=x", "a=1&ACCESS_TOKEN=", "%61ccess_token=x", "api_key=1", "token=x;a=b"]
)
def test_a_credential_in_the_url_is_refused_beside_a_good_one(query: str) -> None:
    words = "Credentials belong in the Authorization header, never in a URL; take these for known to others"
    assert denied(MalformedRequest, words, WORKER, shows=("x-worker",), query=query).status == 400


def test_another_query_is_nobodys_business() -> None:
    assert ask(WORKER, shows=("x-worker",), query="page=2&tokens=5").tenant_id == "acme"


def test_an_authorization_that_nobody_reads_is_not_made_good_by_the_connection() -> None:
    words = "Credentials of this kind are not accepted here"
    peers = PeerUsers({1000: Claim(ALICE, "acme")})
    denied(InvalidToken, words, peers, shows=("authorization",), peer=Peer(1, 1000, 1000))
    denied(InvalidToken, words, peers, shows=("authorization",))
    assert ask(WORKER, shows=("x-worker", "authorization")).tenant_id == "acme"


def test_evidence_shows_no_credential_of_itself() -> None:
    evidence = headers("Bearer s3cret", query="token=s3cret", environment={"MCPFAST_API_KEY": "s3cret"})
    assert repr(evidence) == "Evidence(http; credentials not shown)"


# ---------------------------------------------------------------- client certificates

CERTIFICATE = {
    "subject": ((("countryName", "DE"),), (("organizationName", "Acme, Inc."),), (("commonName", "alice"),)),
    "subjectAltName": (("DNS", "alice.example"), ("URI", "spiffe://acme/alice")),
}
SUBJECT = "CN=alice,O=Acme\\, Inc.,C=DE"


def test_the_names_of_a_certificate() -> None:
    assert tls_names(CERTIFICATE) == (SUBJECT, "DNS:alice.example", "URI:spiffe://acme/alice")
    assert tls_names(None) == tls_names({}) == ()


def test_no_value_in_a_subject_can_pass_for_two() -> None:
    forged = {"subject": ((("commonName", "x,O=Acme+CN=alice"),), (("organizationName", " #a "),))}
    assert tls_names(forged) == ("O=\\ #a\\ ,CN=x\\,O\\=Acme\\+CN\\=alice",)


def test_a_client_certificate_says_who_it_is() -> None:
    certificates = MutualTls({"URI:spiffe://acme/alice": Claim(ALICE, "acme")})
    tenant_id, principal = ask(certificates, tls_names=tls_names(CERTIFICATE))
    assert (tenant_id, principal.id, principal.issuer) == ("acme", "alice", "mtls")


def test_a_certificate_that_nobody_knows_or_that_two_are_is_refused() -> None:
    names = tls_names(CERTIFICATE)
    denied(
        InvalidToken,
        "The client certificate is not known here",
        MutualTls({}),
        WORKER,
        shows=("x-worker",),
        tls_names=names,
    )
    two = MutualTls({names[0]: Claim(ALICE, "acme"), names[1]: Claim(Principal("bob"), "acme")})
    denied(InvalidToken, "The client certificate has the names of two principals", two, tls_names=names)
    one = MutualTls({names[0]: Claim(ALICE, "acme"), names[1]: Claim(ALICE, "acme")})
    assert ask(one, tls_names=names).tenant_id == "acme"
    denied(Unauthenticated, "This needs credentials", one)


# ---------------------------------------------------------------- Unix sockets, stdio


def test_the_user_or_group_at_the_other_end() -> None:
    peers = PeerUsers({1000: Claim(ALICE, "acme")}, {20: Claim(Principal("ops", READ), "globex")})
    assert ask(peers, peer=Peer(7, 1000, 20)).tenant_id == "acme"
    tenant_id, principal = ask(peers, peer=Peer(7, 1001, 20))
    assert (tenant_id, principal.id, principal.scopes, principal.issuer) == (
        "globex",
        "ops/1001",
        READ,
        "peer",
    )
    denied(Unauthenticated, "This needs credentials", peers, peer=Peer(7, 0, 0))  # not even root
    assert ask(peers, WORKER, shows=("x-worker",), peer=Peer(7, 1002, 1)).tenant_id == "acme"


def test_the_environment_is_believed_over_stdio_only() -> None:
    stdio = Environment(scopes=READ)
    tenant_id, principal = ask(stdio, transport="stdio", option_tenant="acme")
    assert (tenant_id, principal) == ("acme", Principal("acme", READ, issuer="environment"))
    named = ask(stdio, transport="stdio", option_tenant="acme", environment={"MCPFAST_PRINCIPAL": "alice"})
    assert named.principal.id == "alice"
    assert ask(stdio, transport="stdio", option_tenant="alice").tenant_id == "alice"
    denied(Unauthenticated, "This needs credentials", stdio, option_tenant="acme")
    denied(Unauthenticated, "This needs credentials", stdio, transport="stdio")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (("alice", "acme"), "Badge.resolve gave a tuple: a Claim"),
        (ALICE, "gave a Principal: a Claim"),
        (Claim(Principal(""), "acme"), "without an id"),
        (Claim(Principal(None), "acme"), "without an id"),  # type: ignore[arg-type]
        (Claim(Principal("alice", scopes={"read"}), "acme"), "no frozenset"),  # type: ignore[arg-type]
        (Claim(Principal("alice", roles=["boss"]), "acme"), "no frozenset"),  # type: ignore[arg-type]
    ],
)
def test_a_resolver_that_gives_no_claim_lets_nobody_in(found: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        ask(Badge("x-odd", found), shows=("x-odd",))


def test_a_class_is_no_resolver() -> None:
    with pytest.raises(RegistrationError, match=r"Badge\(...\), not the class"):
        Tenancy(MemoryStore(), resolvers=[Badge])  # type: ignore[list-item]
