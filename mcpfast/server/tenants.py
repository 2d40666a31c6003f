"""The station of a request where its tenant is asked: whose is it, may it, how much, and is there a place.

What is decided here the compiled way remembers (a Pass in its Caller), so a plain tools/call comes by once.

    begin   -> _found (whose?) -> _granted (may it?) -> _queued (a place?) -> _enter (how much?) -> the handler
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mcpfast.errors import MCPError
from mcpfast.protocol import messages
from mcpfast.server.dispatch import (
    Outcome,
    unknown_prompt,
    unknown_reference,
    unknown_resource,
    unknown_tool,
    value_of,
)
from mcpfast.server.listeners import Listeners
from mcpfast.server.registered import ASKS_NOTHING, Prompt, Resource, Tool, Use
from mcpfast.tenancy.denied import Denied, Forbidden, InsufficientScope
from mcpfast.tenancy.local import OF_THE_PROCESS
from mcpfast.tenancy.refusals import refusal
from mcpfast.tenancy.resolvers import Evidence, Peer
from mcpfast.tenancy.service import Callers
from mcpfast.tenancy.views import HIDDEN, NOTHING_ASKED, Decision, Requirement, View

if TYPE_CHECKING:
    from mcpfast._caller import Caller, Pass
    from mcpfast._quota import Verdict
    from mcpfast._spine import Channel, Request
    from mcpfast.server.app import MCPServer
    from mcpfast.server.host import Host
    from mcpfast.server.sealed import Sealer
    from mcpfast.server.session import Session
    from mcpfast.tenancy.audit import DenialOf
    from mcpfast.tenancy.tenant import Tenant

TENANT_VARIABLE = "MCPFAST_TENANT"


class Tenants:
    """The tenants of one host. Made when the host is entered."""

    def __init__(self, host: Host) -> None:
        server = host.server
        assert server.tenancy is not None
        self.host = host
        self.server = server
        self.catalog = server.catalog
        self.engine = host.engine
        self.callers = Callers(server.tenancy, host.engine, self, server.limits)
        self.listeners = Listeners(self)
        self._catalog_seen: tuple[int, ...] = ()
        # Asked to end what is under way of a tenant, beside the calls of sessions: the endpoints of HTTP.
        self.calls_beside: list[Callable[[], Iterable[Request]]] = []  # in flight, and of no session

    async def open(self) -> None:
        await self.callers.open()
        self._look_at_catalog()
        self.engine.tenancy = self.callers
        self.listeners.open()

    async def close(self) -> None:
        await self.listeners.close()
        await self.callers.close()

    def cancel_of(self, tenant: Tenant) -> None:
        sources = [*(session.calls for session in self.host.sessions), *self.calls_beside]
        for request in {request for calls in sources for request in calls()}:
            if request.caller is not None and request.caller.tenant is tenant and request.task is not None:
                request.task.cancel()  # not the request: its client waits for an answer, and gets `why_cancelled`

    def why_cancelled(self, request: Request) -> Denied | None:
        """What the client of a call is told that was cancelled with all of its tenant; None for any other."""
        if request.caller is None or self.callers.is_served(request.caller.tenant):
            return None
        return self._denied(request.channel, Forbidden(ENDED))

    def callers_changed(self) -> None:
        self.listeners.changed()

    # ---------------------------------------------------------------- one request

    def begin(self, request: Request, handle: Callable[[], Outcome]) -> Outcome:
        """What `handle` gives, when its tenant lets it begin. Raises MCPError where not."""
        self._look_at_catalog()
        caller = request.caller
        if caller is None or not self.is_good(caller):
            return self._found(request, handle)
        return self._begin(request, caller, handle)

    def is_good(self, caller: Caller) -> bool:
        """Whether what was found out about a caller still holds."""
        return caller.is_good(self.engine.generation, time.monotonic())

    async def find(self, channel: Channel, session: Session) -> Caller:
        """Whose a connection or an exchange is. Raises Denied."""
        return await self.callers.find_in_time(
            channel.evidence() or evidence_of(session, self.callers.tenancy.tenant)
        )

    async def _found(self, request: Request, handle: Callable[[], Outcome]) -> Any:
        """The same for a connection whose caller is not known, or not any more."""
        caller = await self._identify(request)
        return await value_of(request, self._begin(request, caller, handle))

    async def _identify(self, request: Request) -> Caller:
        """Whose a request is, found anew."""
        channel = request.channel
        try:
            request.caller = channel.caller = await self.find(channel, channel.session)
        except Denied as denied:
            raise self._denied(channel, denied) from None
        return request.caller

    @staticmethod
    def _denied(channel: Channel, denied: Denied) -> Denied:
        """A refusal, of which the transport is told what goes beside it."""
        channel.refuses(denied)
        return denied

    def _begin(self, request: Request, caller: Caller, handle: Callable[[], Outcome]) -> Outcome:
        try:
            granted = self._granted(request, caller)
        except MCPError:
            self._enter_briefly(request, self.callers.granted(caller, GUESS, "", 0.0))  # it counts as a call
            raise
        gate = self.engine.gate
        if request.method == LISTEN:
            self._enter_briefly(request, granted)
            return handle()
        if gate is not None and not gate.acquire():
            return self._queued(request, caller, granted, handle)
        self._enter(request, granted)
        return handle()

    async def _queued(
        self, request: Request, caller: Caller, granted: Pass, handle: Callable[[], Outcome]
    ) -> Any:
        """The same when all places are taken: it waits for its turn."""
        fair, terms = self.callers.fair, caller.tenant.terms
        assert fair is not None
        verdict = await fair.enter(
            caller.tenant.id,
            weight=terms.weight,
            queued_calls_max=terms.quota.queued_calls_max,
            deadline_s=time.monotonic() + min(granted.call_s_max, self.server.limits.waiting_s),
        )
        if not verdict.admitted:
            raise self._over_quota(request, verdict)
        if not self.is_good(caller):  # what was true when it came need not be any more
            try:
                granted = self._granted(request, await self._identify(request))
            except BaseException:
                fair.leave()
                raise
        self._enter(request, granted)
        return await value_of(request, handle())

    def _enter(self, request: Request, granted: Pass) -> None:
        """Takes from the quotas, with a place in hand. From here on whatever ends the request gives all of it back."""
        verdict = self.callers.enter(granted, request.bytes_in)
        if not verdict.admitted:
            if self.callers.fair is not None:
                self.callers.fair.leave()
            raise self._over_quota(request, verdict)
        request.enter(granted)

    def _enter_briefly(self, request: Request, granted: Pass) -> None:
        """What counts as a call, and takes no place of one: a refusal; a stream, which is open for as long as its client likes."""
        verdict = self.callers.enter(granted, request.bytes_in)
        if not verdict.admitted:
            raise self._over_quota(request, verdict)
        granted.admission.release(0, time.monotonic())

    def refusal(self, channel: Channel, verdict: Verdict, method: str, target: str) -> MCPError:
        """The error for a Verdict that refuses."""
        error = refusal(verdict).error()
        channel.refuses(error)
        self._write_denial("quota", channel, method, target, f"{verdict.limit} of the {verdict.level}")
        return error

    def _over_quota(self, request: Request, verdict: Verdict) -> MCPError:
        asked = self._asked(request)
        return self.refusal(request.channel, verdict, request.method, asked.name or asked.uri or "")

    def _write_denial(self, of: DenialOf, channel: Channel, method: str, target: str, reason: str) -> None:
        via = channel.session.peer.transport
        self.callers.denied(of, channel.caller, via, method, target, reason)

    # ---------------------------------------------------------------- may it

    def view_of(self, request: Request) -> ShownTo:
        """What a list shows to whose request this is."""
        assert request.caller is not None, "a list is made for a caller"
        return ShownTo(request.caller, self.server)

    def shows(self, caller: Caller, uri: str) -> bool:
        """Whether a caller may read a resource."""
        try:
            return self.use_of(uri, caller.view) is not None
        except Denied:
            return False

    def may_read(self, request: Request, uri: str) -> bool:
        """Whether a resource is there for whose request this is, also when a handler of ours reads it for him. Raises
        InsufficientScope."""
        return request.caller is not None and self.use_of(uri, request.caller.view) is not None

    def readable(self, request: Request, uris: frozenset[str]) -> frozenset[str]:
        """Those that are. What is hidden and what is nowhere are told apart by nobody."""
        caller = request.caller
        return frozenset(uri for uri in uris if caller is not None and self.shows(caller, uri))

    def _granted(self, request: Request, caller: Caller) -> Pass:
        """The Pass for what a request asks for. Raises InsufficientScope, or what an unknown name is told."""
        try:
            what, name, use = self._target(request, caller.view)
        except Denied as denied:
            raise self._denied(request.channel, denied) from None
        return self.callers.granted(caller, what, name, use.cost)

    def _target(self, request: Request, view: View) -> tuple[object, str, Use]:
        """What is asked for: the key of its Pass, the name of its meter, and what it takes."""
        method = request.method
        if method == "tools/call":
            name = self._asked(request).name or ""
            tool: Tool | None = self.catalog.tools.get(name)
            if tool is None or not self._may(request, name, view.decide(name, _requirement(tool.use))):
                raise unknown_tool(name)
            return tool.entry, name, tool.use
        if method == "prompts/get":
            name = self._asked(request).name or ""
            prompt = self.catalog.prompts.get(name)
            if prompt is None or not self._may(request, name, view.decide(name, _requirement(prompt.use))):
                raise unknown_prompt(name)
            return ("prompts/get", name), "", prompt.use
        if method in ("resources/read", "resources/subscribe"):
            uri = self._asked(request).uri or ""
            resource, decision = self._resource(uri, view)
            if resource is None or not self._may(request, uri, decision):
                raise unknown_resource(uri)
            return ("resources/read", resource.use.cost), "", resource.use
        if method == "completion/complete":
            self._check_completed(request, view)
            return method, "", ASKS_NOTHING
        return method, "", NO_UNITS

    def use_of(self, uri: str, view: View) -> Use | None:
        """What reading a URI takes; None where nothing is behind it for this view. Raises InsufficientScope."""
        resource, decision = self._resource(uri, view)
        return resource.use if resource is not None and _visible(decision) else None

    def _resource(self, uri: str, view: View) -> tuple[Resource | None, Decision]:
        """What is behind a URI, and whether this view has it: in the client's spelling, and as its template reads it."""
        resource, variables = self.server.find_resource(uri)
        if resource is None:
            return None, HIDDEN
        spelled = None if resource.template is None else resource.template.expand(variables)
        return resource, view.decide_uri(uri, _requirement(resource.use), spelled=spelled)

    def _check_completed(self, request: Request, view: View) -> None:
        """What a completion is for must be there for whoever asks; of what is nowhere the handler of the method tells."""
        ref = messages.decode(messages.CompleteParams, request.params).ref
        prompt: Prompt | None = self.catalog.prompts.get(ref.name or "") if ref.type == "ref/prompt" else None
        if prompt is not None and not self._may(
            request, prompt.name, view.decide(prompt.name, _requirement(prompt.use))
        ):
            raise unknown_reference(ref)
        if ref.type == "ref/resource" and ref.uri is not None:
            template: Resource | None = self.catalog.templates.get(ref.uri)
            if template is None:
                template, decision = self._resource(ref.uri, view)
            else:
                decision = view.decide_uri(ref.uri, _requirement(template.use))
            if template is None or not self._may(request, ref.uri, decision):
                raise unknown_reference(ref)

    @staticmethod
    def _asked(request: Request) -> messages.Target:
        asked: messages.Target = messages.decode(messages.Target, request.params)
        return asked

    def _may(self, request: Request, target: str, decision: Decision) -> bool:
        """As `_visible`, for what is asked for by name: what is denied is written down."""
        try:
            visible = _visible(decision)
        except InsufficientScope as denied:
            self._write_denial("permission", request.channel, request.method, target, denied.message)
            raise
        if not visible:
            self._write_denial("permission", request.channel, request.method, target, CALLED_UNKNOWN)
        return visible

    def _look_at_catalog(self) -> None:
        """Views are told of what is asked for whenever something came or went."""
        catalog = self.catalog
        shelves = (catalog.tools, catalog.prompts, catalog.resources, catalog.templates)
        seen = tuple(shelf.version for shelf in shelves)
        if seen != self._catalog_seen:
            self._catalog_seen = seen
            self.callers.catalog_changed(_requirement(one.use) for shelf in shelves for one in shelf)


class ShownTo:
    """What a caller is shown of a list; its cursors are of use to nobody else, and for as long as a sealed state is."""

    __slots__ = ("_caller", "_server", "_view", "key")

    def __init__(self, caller: Caller, server: MCPServer[Any]) -> None:
        self._caller = caller
        self._server = server
        self._view: View = caller.view
        self.key = self._view.key

    def seal(self, place: str) -> str:
        """A cursor that names a place."""
        ttl_s = self._server.limits.sealed_state_s
        sealer: Sealer = self._server.sealer()
        return sealer.seal(place.encode(), purpose=CURSOR, binding=self._binding(), ttl_s=ttl_s)

    def open(self, cursor: str) -> str:
        """The place that a cursor of this caller's names. Raises ValueError for any other."""
        from mcpfast.server.sealed import SealError

        try:
            return self._server.sealer().open(cursor, purpose=CURSOR, binding=self._binding()).decode()
        except SealError as error:
            raise ValueError("not a cursor of this caller") from error

    def _binding(self) -> bytes:
        return messages.encode(self._caller.key)

    def shows(self, key: str, owner: Any) -> bool:
        """Whether an offer is listed; one that a step up would open is not."""
        decide = self._view.decide_uri if isinstance(owner, Resource) else self._view.decide
        return decide(key, _requirement(owner.use)).verdict == "visible"


NO_UNITS = Use(cost=0.0)
LISTEN = "subscriptions/listen"
GUESS = "a refusal"  # the key of the Pass for what is hidden or nowhere
CURSOR = "cursor"  # what sealed cursors are sealed for
ENDED = "This tenant is not served any more"
CALLED_UNKNOWN = "It is not for this tenant, and was called unknown"


def _visible(decision: Decision) -> bool:
    """False: as if it were not there. Raises InsufficientScope where a token with more scopes would help."""
    if decision.verdict == "step-up":
        raise InsufficientScope(decision.missing)
    return decision.verdict == "visible"


def _requirement(use: Use) -> Requirement:
    return use.requirement or NOTHING_ASKED


def evidence_of(session: Session, tenant: str) -> Evidence:
    """What a connection shows: over stdio the process that started us, over a Unix socket what the kernel says, and what its
    first request showed where that was one of HTTP."""
    peer = session.peer
    if peer.evidence is not None:
        return peer.evidence
    if peer.transport in OF_THE_PROCESS:
        named = tenant or os.environ.get(TENANT_VARIABLE, "")
        return Evidence(transport=peer.transport, environment=os.environ, option_tenant=named)
    credentials = None if peer.credentials is None else Peer(*peer.credentials)
    return Evidence(transport=peer.transport, peer=credentials)
