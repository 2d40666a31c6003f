"""The model: what everybody may see, and what must happen to whoever tries to see more.

One step is one thing that somebody does, honest or not, on some transport, or a change of the registry or the catalog. The
machine says beforehand what it must come to. Whatever comes back goes through `Client.heard`, where a canary of somebody else
ends the run; and after each step everything that came by itself is taken, and must have been due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpfast.tenancy.identity import TenantRecord
from tests.isolation.doors import (
    DOORS,
    LEGACY,
    META,
    MODERN,
    POOL,
    Client,
    HttpClient,
    HttpWire,
    HungUp,
    Old,
    Refused,
    Reply,
    WebSocket,
    over_web,
    written,
)
from tests.isolation.world import (
    BOTH,
    MAY_BE_ANYBODY,
    ORGANIZATION,
    PEOPLE,
    READ,
    SPENDS,
    TELLING,
    TENANTS,
    UIDS,
    URIS,
    Known,
    Offer,
    Person,
    World,
    may,
    offer_of,
)

INVALID_PARAMS, NOT_FOUND = -32602, -32002
UNAUTHENTICATED, FORBIDDEN, UNAVAILABLE, OVER_QUOTA = 4010, 4030, 5030, 4291
Codes = frozenset[int]


class Way(NamedTuple):
    """Who comes in, where, in which era; `prefixed`: by the path of the tenant."""

    person: str
    door: str
    era: str
    prefixed: bool


def ways() -> list[Way]:
    found = []
    for door in DOORS.values():
        for person in PEOPLE.values():
            if person.shows not in door.shows or (door.name == "tcp" and person.name != "nobody"):
                continue
            if person.shows == "uid" and not MAY_BE_ANYBODY and person.name != next(iter(UIDS)):
                continue
            for era in door.eras:
                prefixes = [False] if person.names_tenant or person.tenant == person.principal else []
                if door.prefixes and person.tenant:
                    prefixes.append(True)
                found += [Way(person.name, door.name, era, prefixed) for prefixed in prefixes]
    return found


WAYS = ways()
OVER_HTTP = [way for way in WAYS if way.door == "http"]
IN_SESSIONS = [way for way in WAYS if way.door in ("http", "unix+http") and way.era == LEGACY]
LISTS = {
    "tools": "tools/list",
    "prompts": "prompts/list",
    "resources": "resources/list",
    "resourceTemplates": "resources/templates/list",
}
SEASONS: list[Offer | None] = [
    None,
    Offer("tools", "seasonal"),
    Offer("tools", "seasonal", BOTH),
    Offer("tools", "seasonal", READ, ORGANIZATION),
]
# What may be changed in a tenant while it is served.
TERMS: list[dict[str, Any]] = [
    {"scopes": BOTH},
    {"scopes": READ},
    {"scopes": frozenset()},
    {"deny": ()},
    {"deny": ("vault.*", "box://*", "report")},
    {"deny": ("*orders*", "whoami", "notes:*")},
]


class Call(NamedTuple):
    """One that waits, for a tag or for an answer."""

    way: Way
    client: Client
    id: int
    what: str


class Stolen(NamedTuple):
    """Something that was given to one person, in one life of its tenant."""

    owner: tuple[str, str]
    life: int
    what: str
    more: str = ""


class Isolation(RuleBasedStateMachine):
    """Several tenants and their people, on one server, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World().start()
        self.pool = [HttpWire(over_web(self.world)) for _ in range(POOL)]
        self.clients: dict[Way, Client] = {}
        self.lives = dict.fromkeys(TENANTS, 1)
        self.gone: set[str] = set()  # tenants
        self.revoked: set[str] = set()  # persons whose key is
        self.spent = dict.fromkeys(TENANTS, 0)
        self.numbers = itertools.count(1)
        self.ghosts: list[Client] = []  # clients of tenants that are no more
        self.lingering: list[Call] = []
        self.questions: list[Call] = []
        self.listens: dict[Client, list[frozenset[str]]] = {}
        self.cursors: list[Stolen] = []
        self.states: list[Stolen] = []
        self.sessions: list[Stolen] = []
        self.events: list[Stolen] = []

    def teardown(self) -> None:
        for client in [*self.clients.values(), *self.ghosts]:
            client.close()
        for wire in self.pool:
            wire.close()
        self.world.stop()

    # ---------------------------------------------------------------- what must be

    def known(self, person: Person) -> Known | Codes:
        """Who that is to the server now; or with what it refuses."""
        if person.shows in ("nothing", "garbage", "expired"):
            return frozenset({UNAUTHENTICATED})
        if person.shows == "key" and (person.name in self.revoked or person.tenant in self.gone):
            return frozenset({UNAUTHENTICATED})
        if person.tenant in self.gone:
            return frozenset({FORBIDDEN})
        record = self.world.records[person.tenant]
        if record.state != "active":
            return frozenset({FORBIDDEN, UNAVAILABLE})
        return Known(person.id, record, person.scopes)

    def canary(self, person: Person) -> str:
        return self.world.canaries[person.id]

    def client(self, way: Way) -> Client | None:
        """Opened when first needed; None for who is not let in, as it must be."""
        client = self.clients.get(way)
        if client is not None:
            return client
        person = PEOPLE[way.person]
        prefix = f"/t/{person.tenant}" if way.prefixed else ""
        try:
            client = DOORS[way.door].open(self.world, person, way.era, self.pool, prefix)
        except Refused as refused:
            self.let_in(person, refused.reply)
            return None
        self.clients[way] = client
        if isinstance(client, HttpClient) and client.session:
            assert isinstance(self.known(person), Known), f"{person.name} was let in"
            self.sessions.append(self.stolen(person, client.session))
        if isinstance(client, Old):
            self.sessions.append(self.stolen(person, client.stream.endpoint, "of 2024-11-05"))
        return client

    def let_in(self, person: Person, reply: Reply) -> Known | None:
        """Who it is, where the person is to be let in; else the refusal must be the right one."""
        known = self.known(person)
        if isinstance(known, Known):
            assert reply.code not in (UNAUTHENTICATED, UNAVAILABLE), (person.name, reply)
            return known
        assert reply.code in known, (person.name, known, reply)
        assert reply.status in (0, reply.code // 10), reply
        return None

    def ask(
        self, way: Way, method: str, params: dict[str, Any] | None = None, **meta: Any
    ) -> tuple[Known, Reply] | None:
        """The answer to who is let in, None for others."""
        client = self.client(way)
        if client is None:
            return None
        reply = client.ask(method, params, **meta)
        known = self.let_in(client.person, reply)
        return None if known is None else (known, reply)

    def judged(self, known: Known, offer: Offer | None, reply: Reply, hidden: int, uri: str = "") -> bool:
        """Whether it was done; refused, it is refused as it must be."""
        missing = None if offer is None else may(known, offer, uri)
        if missing is None:
            assert reply.code == hidden, (known, offer, reply)
        elif missing:
            assert reply.code == FORBIDDEN and reply.status in (0, 403), (known, offer, reply)
            assert reply.answer is not None
            assert reply.answer["error"]["data"]["scopes"] == sorted(missing)
        else:
            assert reply.code is None, (known, offer, reply)
        return missing == frozenset()

    def stolen(self, person: Person, what: str, more: str = "") -> Stolen:
        return Stolen(person.id, self.lives[person.tenant], what, more)

    def is_theirs(self, person: Person, stolen: Stolen) -> bool:
        return person.id == stolen.owner and self.lives[person.tenant] == stolen.life

    # ---------------------------------------------------------------- honest work

    @initialize(ways=st.lists(st.sampled_from(WAYS), max_size=8), uri=st.sampled_from(URIS))
    def settle_in(self, ways: list[Way], uri: str) -> None:
        """So that there is something to steal."""
        for number, way in enumerate(ways):
            if number % 3 == 0:
                self.subscribe(way, uri)
            elif number % 3 == 1:
                self.list_offers(way, "tools")
            elif way.era == MODERN:
                self.get_state(way)
            else:
                self.linger(way)

    @rule(way=st.sampled_from(WAYS), name=st.sampled_from((*TELLING, "plus", "no such tool")))
    def call(self, way: Way, name: str) -> None:
        asked = self.ask(
            way, "tools/call", {"name": name, "arguments": {"a": 2, "b": 3} if name == "plus" else {}}
        )
        if asked is None:
            return
        known, reply = asked
        offer = next((one for one in self.world.offers("tools") if one.name == name), None)
        if not self.judged(known, offer, reply, INVALID_PARAMS):
            return
        text = reply.result["content"][0]["text"]
        if name == "plus":
            assert text == "5"
            return
        said = self.canary(PEOPLE[way.person])
        assert text == said
        told = [(n["method"], n["params"].get("message", n["params"].get("data"))) for n in reply.notes]
        assert ("notifications/progress", said) in told and ("notifications/message", said) in told, reply

    @rule(way=st.sampled_from(WAYS), kind=st.sampled_from(list(LISTS)))
    def list_offers(self, way: Way, kind: str) -> None:
        found: list[str] = []
        cursor = None
        while True:
            asked = self.ask(way, LISTS[kind], {} if cursor is None else {"cursor": cursor})
            if asked is None:
                return
            known, reply = asked
            found += [self.named(kind, one) for one in reply.result[kind]]
            if way.era == MODERN:
                assert reply.result["cacheScope"] == "private"
            cursor = reply.result.get("nextCursor")
            if cursor is None:
                break
            self.cursors.append(self.stolen(PEOPLE[way.person], cursor, kind))
        assert found == self.visible(known, kind)

    @staticmethod
    def named(kind: str, one: dict[str, Any]) -> str:
        return str(one[{"resources": "uri", "resourceTemplates": "uriTemplate"}.get(kind, "name")])

    def visible(self, known: Known, kind: str) -> list[str]:
        return [offer.name for offer in self.world.offers(kind) if may(known, offer) == frozenset()]

    @rule(way=st.sampled_from(WAYS), uri=st.sampled_from(URIS))
    def read(self, way: Way, uri: str) -> None:
        asked = self.ask(way, "resources/read", {"uri": uri})
        if asked is None:
            return
        known, reply = asked
        hidden = INVALID_PARAMS if way.era == MODERN else NOT_FOUND
        if self.judged(known, offer_of(uri), reply, hidden, uri):
            assert reply.result["contents"][0]["text"].startswith(self.canary(PEOPLE[way.person]))

    @rule(
        way=st.sampled_from(WAYS),
        name=st.sampled_from(("report", "brief", "whoami", "plain")),
        completes=st.booleans(),
    )
    def prompt(self, way: Way, name: str, completes: bool) -> None:
        if completes:
            ref = {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "x", "value": ""}}
            asked = self.ask(way, "completion/complete", ref)
        else:
            asked = self.ask(way, "prompts/get", {"name": name})
        if asked is None:
            return
        known, reply = asked
        offer = next(one for one in self.world.offers("prompts") if one.name == name)
        if self.judged(known, offer, reply, INVALID_PARAMS):
            said = f"completed-{name}" if completes else self.canary(PEOPLE[way.person])
            assert said in str(reply.result)

    @rule(way=st.sampled_from(WAYS), times=st.integers(1, SPENDS + 1))
    def spend(self, way: Way, times: int) -> None:
        """A budget that is used up is its tenant's alone."""
        for _ in range(times):
            asked = self.ask(way, "tools/call", {"name": "spend", "arguments": {}})
            if asked is None:
                return
            tenant, reply = PEOPLE[way.person].tenant, asked[1]
            if self.spent[tenant] < SPENDS:
                self.spent[tenant] += 1
                assert self.canary(PEOPLE[way.person]) in str(reply.result)
                continue
            assert reply.code == OVER_QUOTA and reply.status in (0, 429), reply
            assert reply.answer is not None and reply.answer["error"]["data"]["retryAfterMs"] > 0
            assert (reply.status == 429) == ("retry-after" in reply.headers), reply

    # ---------------------------------------------------------------- calls that wait

    @rule(way=st.sampled_from(WAYS))
    def linger(self, way: Way) -> None:
        client = self.client(way)
        if client is None:
            return
        tag = f"tag-{next(self.numbers)}"
        id = client.begin("tools/call", {"name": "linger", "arguments": {"tag": tag}})
        if not isinstance(self.known(client.person), Known):
            self.let_in(client.person, client.wait(id))
            return
        assert client.note("notifications/progress", id)["params"]["message"] == self.canary(client.person)
        self.lingering.append(Call(way, client, id, tag))
        if isinstance(client, HttpClient):
            self.events += [self.stolen(client.person, each, client.session) for each in client.event_ids(id)]

    @precondition(lambda self: self.lingering)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        call = self.one_of(data, self.lingering)
        self.lingering.remove(call)
        self.world.let_go(call.what)
        assert call.client.wait(call.id).result["content"][0]["text"] == self.canary(call.client.person)

    @precondition(lambda self: self.lingering)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = self.one_of(data, self.lingering)
        if not isinstance(self.known(call.client.person), Known):
            return  # whose key was revoked is not heard any more
        self.lingering.remove(call)
        if isinstance(call.client, HttpClient) and call.way.era == MODERN:
            call.client.drop(call.id)  # that is how one cancels there
        else:
            call.client.tell(cancelled(call.id))
        self.world.until(lambda: call.what not in self.world.lingering)

    @precondition(lambda self: self.lingering)
    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def cancel_anothers(self, data: st.DataObject, way: Way) -> None:
        """By its id, which is no secret: nothing happens to it."""
        call = self.one_of(data, self.lingering)
        thief = self.client(way)
        if thief is None or thief is call.client:
            return
        thief.tell(cancelled(call.id))
        anothers = getattr(call.client, "session", "") if thief.person.id != call.client.person.id else ""
        if anothers and isinstance(thief, HttpClient):
            request = thief.request("POST", cancelled(call.id), Mcp_Session_Id=anothers)
            there_is_none = 202 if way.era == MODERN else 404
            assert thief.over_pool(request).status in (there_is_none, 401, 403, 503)
        self.world.settle()
        assert call.what in self.world.lingering, (
            f"{thief.person.name} cancelled a call of {call.client.person.name}"
        )

    # ---------------------------------------------------------------- questions, and what is sealed

    @rule(way=st.sampled_from([way for way in WAYS if way.era == LEGACY]))
    def be_asked(self, way: Way) -> None:
        client = self.client(way)
        if client is None or any(one.client is client for one in self.questions):
            return
        id = client.begin("tools/call", {"name": "ask", "arguments": {"topic": "sure?"}})
        if not isinstance(self.known(client.person), Known):
            self.let_in(client.person, client.wait(id))
            return
        assert client.note("notifications/progress", id)["params"]["message"] == self.canary(client.person)
        question = client.note("elicitation/create", id)
        self.questions.append(Call(way, client, id, question["id"]))

    @precondition(lambda self: self.questions)
    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def answer_anothers(self, data: st.DataObject, way: Way) -> None:
        """Somebody else says yes; then the one who was asked says no, and that counts."""
        call = self.one_of(data, self.questions)
        if not isinstance(self.known(call.client.person), Known):
            return
        thief = self.client(way)
        if thief is not None and not any(one.client is thief for one in self.questions):
            thief.tell({"id": call.what, "result": {"action": "accept", "content": {}}})
            self.world.settle()
        self.questions.remove(call)
        call.client.tell({"id": call.what, "result": {"action": "decline"}})
        text = call.client.wait(call.id).result["content"][0]["text"]
        assert text == f"{self.canary(call.client.person)} decline"

    @rule(way=st.sampled_from([way for way in WAYS if way.era == MODERN]))
    def get_state(self, way: Way) -> None:
        topic = f"topic-{next(self.numbers)}"
        asked = self.ask(way, "tools/call", {"name": "ask", "arguments": {"topic": topic}})
        if asked is not None:
            state = asked[1].result["requestState"]
            self.states.append(self.stolen(PEOPLE[way.person], state, topic))

    @precondition(lambda self: self.states)
    @rule(
        data=st.data(),
        way=st.sampled_from([way for way in WAYS if way.era == MODERN]),
        other_call=st.booleans(),
    )
    def use_state(self, data: st.DataObject, way: Way, other_call: bool) -> None:
        """Good for who got it, in the same call."""
        stolen, person = self.one_of(data, self.states), PEOPLE[way.person]
        if person.id == stolen.owner and not self.is_theirs(person, stolen):
            return  # sealed for the same principal of the same tenant: it opens, and has nothing of anybody
        topic = "another" if other_call else stolen.more
        answers = {"q1": {"action": "accept", "content": {}}}
        params = {
            "name": "ask",
            "arguments": {"topic": topic},
            "requestState": stolen.what,
            "inputResponses": answers,
        }
        asked = self.ask(way, "tools/call", params)
        if asked is None:
            return
        reply = asked[1]
        if self.is_theirs(person, stolen) and not other_call:
            assert reply.result["content"][0]["text"] == f"{self.canary(person)} accept"
        else:
            assert reply.code == INVALID_PARAMS, reply

    @precondition(lambda self: self.cursors)
    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def use_cursor(self, data: st.DataObject, way: Way) -> None:
        stolen, person = self.one_of(data, self.cursors), PEOPLE[way.person]
        asked = self.ask(way, LISTS[stolen.more], {"cursor": stolen.what})
        if asked is None:
            return
        known, reply = asked
        if person.id == stolen.owner:  # what it shows is the view's all the same
            if reply.code is None:
                found = [self.named(stolen.more, one) for one in reply.result[stolen.more]]
                assert set(found) <= set(self.visible(known, stolen.more))
        else:
            assert reply.code == INVALID_PARAMS, reply

    # ---------------------------------------------------------------- sessions and their streams

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), way=st.sampled_from(IN_SESSIONS), verb=st.sampled_from(("POST", "GET", "DELETE")))
    def use_session(self, data: st.DataObject, way: Way, verb: str) -> None:
        """For everybody but its owner a session does not exist."""
        stolen, person = self.one_of(data, self.sessions), PEOPLE[way.person]
        if not self.is_theirs(person, stolen):
            self.steal_session(way, stolen, verb)

    def steal_session(self, way: Way, stolen: Stolen, verb: str) -> None:
        client = self.client(way._replace(era=MODERN))
        assert isinstance(client, HttpClient)
        client.era = LEGACY  # for one request: without a session of its own
        message = (
            client.message("tools/call", {"name": "whoami", "arguments": {}}, {}) if verb == "POST" else None
        )
        if stolen.more and message is not None:
            where = client.path.removesuffix("/mcp") + stolen.what[stolen.what.index("/messages") :]
            request = written(verb, where, self.world.credentials(client.person), message)
        else:
            request = client.request(verb, message, Mcp_Session_Id=stolen.what)
        client.era = MODERN
        reply = client.over_pool(request)
        if isinstance(self.known(client.person), Known):
            assert reply.status == 404, (way.person, stolen, verb, reply)
        else:
            assert reply.status in (401, 403, 503), reply

    @precondition(lambda self: self.events)
    @rule(data=st.data(), way=st.sampled_from(IN_SESSIONS))
    def use_event(self, data: st.DataObject, way: Way) -> None:
        """The rest of a stream is for the session that it is of."""
        stolen, client = self.one_of(data, self.events), self.client(way)
        if not isinstance(client, HttpClient) or client.has_stream:
            return
        known = self.known(client.person)
        reply = client.open_stream(Last_Event_ID=stolen.what)
        if not isinstance(known, Known):
            assert reply.status in (401, 403, 503), reply
        elif client.session == stolen.more:
            assert reply.status == 200, reply
            client.close_stream()
        else:
            assert reply.status == 400, reply

    # ---------------------------------------------------------------- subscriptions

    @rule(way=st.sampled_from(WAYS), uri=st.sampled_from(URIS))
    def subscribe(self, way: Way, uri: str) -> None:
        client = self.client(way)
        if client is None:
            return
        known = self.known(client.person)
        if way.era == MODERN:
            self.listen(client, known)
            return
        if isinstance(client, HttpClient) and not client.has_stream and isinstance(known, Known):
            assert client.open_stream().status == 200
        asked = self.ask(way, "resources/subscribe", {"uri": uri})
        if asked is not None and self.judged(asked[0], offer_of(uri), asked[1], NOT_FOUND, uri):
            client.uris.add(uri)

    def listen(self, client: Client, known: Known | Codes) -> None:
        if len(self.listens.get(client, ())) >= 2:
            return
        id = client.begin("subscriptions/listen", {"notifications": {"resourceSubscriptions": list(URIS)}})
        if not isinstance(known, Known):
            self.let_in(client.person, client.wait(id))
            return
        told = client.note("notifications/subscriptions/acknowledged", id)["params"]
        accepted = set(told["notifications"].get("resourceSubscriptions", ()))
        assert accepted == {uri for uri in URIS if may(known, offer_of(uri), uri) == frozenset()}
        assert told["_meta"][META + "subscriptionId"] == id
        self.listens.setdefault(client, []).append(frozenset(accepted))

    @rule(uri=st.sampled_from(URIS), tenants=st.permutations([None, *TENANTS]))
    def update(self, uri: str, tenants: list[str | None]) -> None:
        """Told to those who subscribed and may read it, of the tenant for which it changed."""
        for tenant in tenants:
            self.world.server.notify_resource_updated(uri, tenant=tenant)
            self.world.settle()
            for client in self.clients.values():
                for _ in range(self.due(client, uri, tenant)):
                    assert client.note("notifications/resources/updated")["params"]["uri"] == uri
            self.look_around()

    def due(self, client: Client, uri: str, tenant: str | None) -> int:
        """How often a client is to be told."""
        known = self.known(client.person)
        if not isinstance(known, Known) or tenant not in (None, client.person.tenant):
            return 0
        if may(known, offer_of(uri), uri) != frozenset():
            return 0
        return (uri in client.uris) + sum(uri in one for one in self.listens.get(client, ()))

    # ---------------------------------------------------------------- the registry, while it is served

    @rule(tenant=st.sampled_from(list(TENANTS)))
    def suspend_or_resume(self, tenant: str) -> None:
        if tenant in self.gone:
            return
        record = self.world.records[tenant]
        suspended = record.state == "active"
        if suspended:
            self.leave(lambda client: client.person.tenant == tenant)
        self.put(msgspec.structs.replace(record, state="suspended" if suspended else "active"))

    @rule(tenant=st.sampled_from(list(TENANTS)), at_once=st.booleans())
    def remove_or_add(self, tenant: str, at_once: bool) -> None:
        """Whoever comes under the id of one that went is another, and has nothing of it. `at_once`: comes while it is drained."""
        if tenant in self.gone:
            self.add(tenant)
            return
        self.remove(tenant)
        if at_once:
            self.add(tenant)

    def remove(self, tenant: str) -> None:
        for client in self.clients.values():
            if client.person.tenant == tenant:  # what it has open stays open
                client.was = self.canary(client.person)
                self.ghosts.append(client)
        self.leave(lambda client: bool(client.was))
        self.gone.add(tenant)
        self.world.do(lambda: self.world.registry.remove(tenant))
        self.world.settle()

    def add(self, tenant: str) -> None:
        self.gone.discard(tenant)
        self.lives[tenant] += 1
        self.spent[tenant] = 0
        self.world.renew_canaries(tenant)
        self.put(TENANTS[tenant], new=True)
        for person in PEOPLE.values():
            if person.tenant == tenant and person.shows == "key":
                self.give_key(person)
        self.inherit_nothing(tenant)

    def inherit_nothing(self, tenant: str) -> None:
        """The sessions of the one who had the id before are nobody's, least of all those of who has it now."""
        for stolen in self.sessions:
            heir = next((way for way in IN_SESSIONS if PEOPLE[way.person].id == stolen.owner), None)
            if stolen.owner[0] == tenant and heir is not None:
                self.steal_session(heir, stolen, "POST")

    @rule(tenant=st.sampled_from(list(TENANTS)), terms=st.sampled_from(TERMS))
    def change_terms(self, tenant: str, terms: dict[str, Any]) -> None:
        if tenant not in self.gone:
            self.put(msgspec.structs.replace(self.world.records[tenant], **terms))

    @rule(person=st.sampled_from([person for person in PEOPLE.values() if person.shows == "key"]))
    def revoke_or_renew(self, person: Person) -> None:
        if person.tenant in self.gone:
            return
        if person.name in self.revoked:
            self.give_key(person)
            return
        key = self.world.keys[person.name]
        self.world.do(lambda: self.world.registry.revoke_key(key.split("_")[1]))
        self.revoked.add(person.name)
        self.world.settle()
        for client in self.clients.values():
            if client.person is person:
                client.uris.clear()
                self.listens.pop(client, None)

    @rule(offer=st.sampled_from(SEASONS))
    def change_season(self, offer: Offer | None) -> None:
        self.world.change_season(offer)
        self.world.settle()

    def put(self, record: TenantRecord, *, new: bool = False) -> None:
        put = self.world.do(lambda: self.world.registry.put(record, new=new))
        self.world.records[record.id] = put.record
        self.world.settle()

    def give_key(self, person: Person) -> None:
        self.world.do(lambda: self.world.give_key(person))
        self.revoked.discard(person.name)
        # A WebSocket stands by what it was opened with.
        self.leave(lambda client: client.person is person and isinstance(client, WebSocket))

    def leave(self, leaves: Callable[[Client], bool]) -> None:
        """These hang up."""
        for way, client in list(self.clients.items()):
            if leaves(client):
                del self.clients[way]
                self.listens.pop(client, None)
                if not client.was:
                    client.close()
        left = list(self.clients.values())
        self.lingering = [call for call in self.lingering if call.client in left]
        self.questions = [call for call in self.questions if call.client in left]

    # ---------------------------------------------------------------- paths

    @rule(way=st.sampled_from(OVER_HTTP), tenants=st.permutations([*TENANTS, "nowhere"]))
    def other_path(self, way: Way, tenants: list[str]) -> None:
        """A path of a tenant that the credential is not for; it cannot be told from that of one that is not there."""
        person = PEOPLE[way.person]
        if not person.names_tenant or person.shows in ("nothing", "garbage", "expired"):
            return
        client = HttpClient(self.world, person, MODERN, self.pool, "")
        codes = frozenset({FORBIDDEN})
        known = self.known(person)
        if not isinstance(known, Known) and UNAUTHENTICATED in known:
            codes = known
        said = set()
        for tenant in tenants:
            if tenant == person.tenant:
                continue
            client.path = f"/t/{tenant}/mcp"
            reply = client.ask("tools/call", {"name": "whoami", "arguments": {}})
            assert reply.code in codes and reply.status == reply.code // 10, (person.name, tenant, reply)
            assert reply.answer is not None
            said.add(str(reply.answer["error"]))
        assert len(said) == 1, said

    # ---------------------------------------------------------------- after every step

    @invariant()
    def look_around(self) -> None:
        """What came by itself is nobody's else, and was due."""
        for client in self.clients.values():
            for note in client.take():
                assert note["method"].endswith("/list_changed") or note["method"] in (
                    "notifications/progress",
                    "notifications/message",
                ), (client.person.name, note)
        for ghost in list(self.ghosts):
            try:
                ghost.take()
            except HungUp:
                self.ghosts.remove(ghost)
                ghost.close()

    @staticmethod
    def one_of(data: st.DataObject, those: list[Any]) -> Any:
        return those[data.draw(st.integers(0, len(those) - 1))]


def cancelled(id: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
