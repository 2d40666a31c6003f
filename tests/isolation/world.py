"""Who there is, what is on offer, and who may use what of it: a server with tenants on every transport, and an oracle beside it.

What a handler tells is a canary: a text that belongs to one principal of one tenant, for as long as that tenant is there. It
finds it by what the server says of who calls, as a handler would find a customer's data.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from mcpfast import Context, Limits, MCPServer
from mcpfast.server.host import Host
from mcpfast.server.session import Peer
from mcpfast.tenancy.api_keys import new_key
from mcpfast.tenancy.identity import Claim, Member, Principal, Quota, TenantRecord
from mcpfast.tenancy.issuers import Issuer
from mcpfast.tenancy.local import PeerUsers
from mcpfast.tenancy.registry import Registry
from mcpfast.tenancy.service import Tenancy
from mcpfast.tenancy.stores import MemoryStore
from mcpfast.transports.addresses import Address, parse
from mcpfast.transports.sockets import Listener
from mcpfast.transports.stream import Stream
from mcpfast.transports.web.listener import HttpListener
from mcpfast.transports.web.settings import HttpSettings
from tests.identities import secret_key, sign

CANARY = re.compile(rb"canary-\d{6}")
CANARY_BYTES = 13
PAGE_ITEMS = 3
SPENDS = 2  # calls of `spend` that a tenant has; nobody lives to see them refilled
DRAIN_S = 0.2
SECRET = b"thirty-two bytes of a test's own"
ISSUER, AUDIENCE = "https://id.example", "https://mcp.example/mcp"
PATIENCE_S = 10.0

# ---------------------------------------------------------------------------------------------------- who there is

SPENDING = {"spend": Quota(calls_per_s=0.0001, calls_burst=SPENDS)}
READ, WRITE = frozenset({"read"}), frozenset({"write"})
BOTH = READ | WRITE
MEMBERS = {"alice": Member(scopes=READ)}

TENANTS = {
    record.id: record
    for record in (
        TenantRecord(
            "acme", scopes=BOTH, deny=("vault.*", "box://hidden*"), members=MEMBERS, tool_quotas=SPENDING
        ),
        TenantRecord(
            "twin", scopes=BOTH, deny=("vault.*", "box://hidden*"), tool_quotas=SPENDING
        ),  # of the same views
        TenantRecord("globex", scopes=READ, deny=("report", "box://orders"), tool_quotas=SPENDING),
        TenantRecord("alice", kind="personal", scopes=BOTH, tool_quotas=SPENDING),
    )
}


class Person(NamedTuple):
    """Somebody with one credential. Two of them may be one principal; two of one name are two, where their tenants differ.

    `shows`: "key", "token", "uid", "environment"; or nothing that is good: "nothing", "garbage", "expired".
    """

    name: str
    tenant: str
    principal: str
    scopes: frozenset[str]  # of the credential
    shows: str
    names_tenant: bool = True  # the credential does; else the path has to

    @property
    def id(self) -> tuple[str, str]:
        return self.tenant, self.principal


PEOPLE = {
    person.name: person
    for person in (
        Person("ann", "acme", "ann", BOTH, "key"),
        Person("ann by token", "acme", "ann", READ, "token"),
        Person("bob", "acme", "bob", frozenset(), "key"),
        Person("alice at acme", "acme", "alice", READ, "token", names_tenant=False),
        Person("ula", "acme", "ula", READ, "uid"),
        Person("the process", "acme", "acme", READ, "environment"),
        Person("twin's ann", "twin", "ann", BOTH, "key"),
        Person("tom", "twin", "tom", frozenset(), "token"),
        Person("uli", "twin", "uli", frozenset(), "uid"),
        Person("eve", "globex", "eve", BOTH, "key"),
        Person("gus", "globex", "gus", frozenset(), "token"),
        Person("alice at home", "alice", "alice", BOTH, "token", names_tenant=False),
        Person("nobody", "", "", frozenset(), "nothing"),
        Person("a forger", "", "", frozenset(), "garbage"),
        Person("a latecomer", "", "", frozenset(), "expired"),
    )
}
UIDS = {"ula": 4001, "uli": 4002}  # where this process may be anybody; else one of them is this user
MAY_BE_ANYBODY = hasattr(os, "geteuid") and os.geteuid() == 0

# ---------------------------------------------------------------------------------------------------- what is on offer


class Offer(NamedTuple):
    kind: str  # "tools", "prompts", "resources", "resourceTemplates"
    name: str  # or URI
    scopes: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


ORGANIZATION, PERSONAL = frozenset({"organization"}), frozenset({"personal"})
OFFERS = (
    Offer("tools", "whoami"),
    Offer("tools", "plus", WRITE),
    Offer("tools", "company", kinds=ORGANIZATION),
    Offer("tools", "read_orders", READ),
    Offer("tools", "vault.open"),
    Offer("tools", "write_orders", BOTH),
    Offer("tools", "diary", kinds=PERSONAL),
    Offer("tools", "report", WRITE),  # there is a prompt of this name, which asks for nothing
    Offer("tools", "ask"),
    Offer("tools", "linger"),
    Offer("tools", "spend"),
    Offer("tools", "seasonal"),  # comes and goes, and is not always the same
    Offer("prompts", "report"),
    Offer("prompts", "brief", READ),
    Offer("prompts", "whoami", kinds=PERSONAL),
    Offer("prompts", "plain"),
    Offer("resources", "box://mine"),
    Offer("resources", "box://orders", WRITE),
    Offer("resources", "box://hidden"),
    Offer("resources", "urn:orders", READ),
    Offer("resources", "box://diary", kinds=PERSONAL),
    Offer("resourceTemplates", "notes://{name}"),
    Offer("resourceTemplates", "ledger://{name}", WRITE),
)
TELLING = tuple(
    o.name for o in OFFERS if o.kind == "tools" and o.name not in ("plus", "ask", "linger", "spend")
)
URIS = ("box://mine", "box://orders", "box://hidden", "urn:orders", "box://diary", "notes://1", "ledger://1")


class Known(NamedTuple):
    """What the oracle says of somebody who is let in."""

    id: tuple[str, str]
    record: TenantRecord
    scopes: frozenset[str]


def may(who: Known, offer: Offer, uri: str = "") -> frozenset[str] | None:
    """The scopes that are missing, none where it may be used; None where it is hidden. `uri` is one of a template."""
    name, record = uri or offer.name, who.record
    if any(fnmatchcase(name, pattern) for pattern in record.deny or ()):
        return None
    if offer.kinds and record.kind not in offer.kinds:
        return None
    granted = record.scopes or frozenset()
    missing = offer.scopes - (who.scopes & granted)
    return missing if missing <= granted else None


def offer_of(uri: str) -> Offer:
    """What a URI of URIS is one of."""
    scheme = uri.partition(":")[0]
    return next(o for o in OFFERS if o.name == uri or o.name == f"{scheme}://{{name}}")


# ---------------------------------------------------------------------------------------------------- the server


def who_calls(ctx: Context) -> tuple[str, str]:
    """What the server says of who calls."""
    return ctx.tenant.id, ctx.principal.id


class World:
    """The server in a thread of its own, and what its handlers know. `start`, then `stop`."""

    def __init__(self) -> None:
        self.records = dict(TENANTS)
        self.canaries: dict[tuple[str, str], str] = {}
        self.keys: dict[str, str] = {}  # by person
        self.lingering: dict[str, asyncio.Event] = {}
        self.season: Offer = next(offer for offer in OFFERS if offer.name == "seasonal")
        self._numbers = itertools.count(1)
        self._tokens: dict[str, str] = {}
        for tenant in TENANTS:
            self.renew_canaries(tenant)
        made = {p.name: self._new_key(p) for p in PEOPLE.values() if p.shows == "key"}
        self.keys = {name: key.key for name, key in made.items()}
        self.store = MemoryStore(TENANTS.values(), keys=[key.record for key in made.values()])
        self.server = self._make_server()
        self.loop = uvloop.new_event_loop()
        self._folder = tempfile.TemporaryDirectory()
        os.chmod(self._folder.name, 0o755)
        self.socket = str(Path(self._folder.name) / "s")
        self.web_socket = str(Path(self._folder.name) / "w")
        self.web: tuple[str, int] = ("", 0)
        self.tcp: tuple[str, int] = ("", 0)
        self.streams: set[Stream] = set()
        self.host: Host
        self._thread = threading.Thread(target=self._run, name="isolation-server", daemon=True)
        self._up: Future[None] = Future()
        self._down: asyncio.Event

    # ---- canaries and credentials

    def renew_canaries(self, tenant: str) -> None:
        """New ones for all who belong to a tenant, as those of another one that has its id."""
        for id in dict.fromkeys(person.id for person in PEOPLE.values() if person.tenant == tenant):
            self.canaries[id] = f"canary-{next(self._numbers):06d}"

    def _new_key(self, person: Person) -> Any:
        return new_key(person.tenant, person.principal, scopes=person.scopes, now_s=time.time())

    async def give_key(self, person: Person) -> None:
        made = self._new_key(person)
        await self.registry.put_key(made.record)
        self.keys[person.name] = made.key

    def token(self, person: Person) -> str:
        known = self._tokens.get(person.name)
        if known is None:
            now = int(time.time())
            said = {"iss": ISSUER, "aud": AUDIENCE, "sub": person.principal or "ann", "iat": now - 5_000}
            said |= {
                "scope": " ".join(sorted(person.scopes)),
                "exp": now + (-1_000 if person.shows == "expired" else 3_000),
            }
            if person.names_tenant:
                said["org"] = person.tenant or "acme"
            known = self._tokens[person.name] = sign(
                said, algorithm="HS256", key=secret_key(SECRET), kid=None
            )
        return known

    def credentials(self, person: Person) -> dict[str, str]:
        """As headers."""
        match person.shows:
            case "key" if len(person.name) % 2:
                return {"X-API-Key": self.keys[person.name]}
            case "key":
                return {"Authorization": f"Bearer {self.keys[person.name]}"}
            case "token" | "expired":
                return {"Authorization": f"Bearer {self.token(person)}"}
            case "garbage":
                return {"Authorization": f"Bearer {self.keys['ann'][:-7]}AAAAAAA"}
            case _:
                return {}

    # ---- the handlers

    def _make_server(self) -> MCPServer[Any]:
        users = {
            uid: Claim(Principal(name, PEOPLE[name].scopes), PEOPLE[name].tenant)
            for name, uid in UIDS.items()
        }
        if not MAY_BE_ANYBODY:
            users = {os.geteuid(): users[UIDS["ula"]]}
        issuer = Issuer(
            issuer=ISSUER,
            audiences=(AUDIENCE,),
            secret=SECRET,
            tenant_claim="org",
            tenants=("*",),
            persons=True,
        )
        tenancy = Tenancy(
            self.store,
            issuers=[issuer],
            resolvers=[PeerUsers(users)],
            tenant="acme",
            scopes=READ,
            look_s=0.05,
            drain_s=DRAIN_S,
        )
        server: MCPServer[Any] = MCPServer("isolation", tenancy=tenancy, limits=Limits(page_items=PAGE_ITEMS))
        for offer in OFFERS:
            self._add(server, offer)

        @server.completion
        async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
            return [f"completed-{getattr(ref, 'name', None) or getattr(ref, 'uri', '')}"]

        return server

    def _add(self, server: MCPServer[Any], offer: Offer) -> None:
        asks: dict[str, Any] = {"scopes": offer.scopes, "kinds": offer.kinds}
        handler = getattr(self, f"_{offer.name}", self._tell)
        if offer.kind == "tools":
            server.add_tool(handler, offer.name, **asks)
        elif offer.kind == "prompts":
            server.add_prompt(self._prompt, offer.name, **asks)
        elif offer.kind == "resources":
            server.add_resource(offer.name, self._box, name=offer.name, **asks)
        else:
            server.add_resource(offer.name, self._note, name=offer.name, **asks)

    async def _tell(self, ctx: Context) -> str:
        """The canary of who calls, on every way that a call has to its client."""
        said = self.canaries[who_calls(ctx)]
        await ctx.report_progress(1, message=said)
        await ctx.info(said)
        await asyncio.sleep(0)
        return said

    async def _plus(self, a: int, b: int) -> int:
        return a + b

    async def _ask(self, ctx: Context, topic: str) -> str:
        said = self.canaries[who_calls(ctx)]
        await ctx.report_progress(1, message=said)
        answer = await ctx.elicit(topic)
        return f"{said} {answer.action}"

    async def _linger(self, ctx: Context, tag: str) -> str:
        """Until it is let go, or cancelled."""
        said = self.canaries[who_calls(ctx)]
        let_go = self.lingering[tag] = asyncio.Event()
        try:
            await ctx.report_progress(1, message=said)
            await let_go.wait()
        finally:
            del self.lingering[tag]
        return said

    async def _prompt(self, ctx: Context) -> str:
        return self.canaries[who_calls(ctx)]

    async def _box(self, ctx: Context) -> str:
        return self.canaries[who_calls(ctx)]

    async def _note(self, ctx: Context, name: str) -> str:
        return f"{self.canaries[who_calls(ctx)]} {name}"

    # ---- what is on offer now

    def offers(self, kind: str) -> list[Offer]:
        """In order of registration: what changed came last."""
        found = [offer for offer in OFFERS if offer.kind == kind and offer.name != "seasonal"]
        return [*found, self.season] if kind == "tools" and self.season.kind == "tools" else found

    def change_season(self, offer: Offer | None) -> None:
        """Another `seasonal` tool in the place of the one that is there, or none."""
        if self.season.kind == "tools":
            self.server.remove_tool("seasonal")
        if offer is not None:
            self._add(self.server, offer)
        self.season = offer or Offer("gone", "seasonal")

    # ---- life

    @property
    def registry(self) -> Registry:
        tenants = self.host.dispatcher.tenants
        assert tenants is not None
        return tenants.callers.registry

    def start(self) -> World:
        self._thread.start()
        self._up.result(PATIENCE_S)
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._down.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server did not end"
        self._folder.cleanup()

    def do(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs it on the server's loop."""
        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(PATIENCE_S)

    def let_go(self, tag: str) -> None:
        self.loop.call_soon_threadsafe(self.lingering[tag].set)

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits for what the server does in its own time."""
        late = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < late, "it never happened"
            time.sleep(0.001)

    def settle(self) -> None:
        """What the loop was told to do soon is done, and who listens was asked about again."""
        tenants = self.host.dispatcher.tenants
        assert tenants is not None

        async def turns() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            while tenants.listeners._changed.is_set():
                await asyncio.sleep(0)
            await asyncio.sleep(0)

        self.do(turns)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self._up.done():
                self._up.set_exception(error)
            raise
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        self._down = asyncio.Event()
        async with Host(self.server) as self.host:
            web = HttpListener(self.host, parse("http://127.0.0.1:0"), HttpSettings())
            await web.start()
            tcp = Listener(self.host, parse("tcp://127.0.0.1:0"))
            unix = Listener(self.host, Address("unix", socket=self.socket))
            near = HttpListener(self.host, parse(f"unix+http://{self.web_socket}"), HttpSettings())
            await near.start()
            for path in (self.socket, self.web_socket):
                os.chmod(path, 0o666)  # other users are let in here
            self.web = (web.address.host, web.address.port)
            self.tcp = (tcp.address.host, tcp.address.port)
            self._up.set_result(None)
            try:
                await self._down.wait()
            finally:
                for listener in (web, tcp, unix, near):
                    listener.close()
                for stream in list(self.streams):
                    stream.close()
                await asyncio.sleep(0)

    def connect_as_the_process(self) -> socket.socket:
        """stdio: what a process that started us has at the other end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        async def serve() -> None:
            fd = ours.detach()
            stream = Stream(
                self.host,
                fd,
                fd,
                is_socket=True,
                peer=Peer("stdio"),
                grace_s=1.0,
                on_closed=self.streams.discard,
            )
            self.streams.add(stream)
            stream.channel.start_reading()

        self.do(serve)
        return theirs
