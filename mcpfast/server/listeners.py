"""Who listens for changes when tenants, their rights or the catalog change: found out anew, and cut off who may not any more.

A request is asked about each time it comes. A stream or subscription was asked about when it was opened, and may be open for
days, so it is asked about again whenever anything changed that the answer depends on, and when its credential is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mcpfast.tenancy.denied import Denied, Unavailable

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._spine import Channel
    from mcpfast.server.session import Session
    from mcpfast.server.tenants import Tenants

logger = logging.getLogger("mcpfast")
LOOK_S = 15.0  # a credential that is over, where nothing else changes, is noticed within this time
SLICE = 100  # looked at together: one that has to be waited for holds up no more than these
HELD_MAX = 256  # changes that wait, of one session, until it is known again who listens; more are not told
KINDS = ("tools", "prompts", "resources")


class Listeners:
    """Those of one host. `open` starts the task that looks after them, `close` ends it."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._held: dict[Session, list[Callable[[], None]]] = {}

    def open(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="mcpfast-listeners")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def changed(self) -> None:
        """What was found out about callers may not be so any more."""
        self._changed.set()

    def tell_changed(self, session: Session, kind: str) -> None:
        """That the list of a kind changed."""

        def told() -> None:
            if self._hears(session):
                session.list_changed(kind)

        self._tell(session, told)

    def tell_updated(self, session: Session, uri: str, tenant_id: str | None) -> None:
        """That a resource changed, where its caller may read it; of one tenant, where it is one's."""

        def told() -> None:
            if (
                self._hears(session, tenant_id)
                and session.caller
                and self._tenants.shows(session.caller, uri)
            ):
                session.resource_updated(uri)

        self._tell(session, told)

    def _tell(self, session: Session, told: Callable[[], None]) -> None:
        """At once; or, where it may not be so any more who listens, when that is known again."""
        if not self._is_doubtful(session):
            told()
            return
        held = self._held.setdefault(session, [])
        if len(held) < HELD_MAX:
            held.append(told)
        self._changed.set()

    def _hears(self, session: Session, tenant_id: str | None = None) -> bool:
        """Whether a session is told of changes: its tenant is served, and is the one that is meant, where one is."""
        caller = session.caller
        return (
            caller is not None
            and caller is not session.cut
            and time.monotonic() < caller.expires_s
            and self._tenants.callers.is_served(caller.tenant)
            and tenant_id in (None, caller.key[0])
        )

    # ---------------------------------------------------------------- after a change

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            doubtful = [session for session in self._tenants.host.sessions if self._is_doubtful(session)]
            for at in range(0, len(doubtful), SLICE):
                await asyncio.gather(*map(self._look_at, doubtful[at : at + SLICE]))
            self._tell_held()

    def _tell_held(self) -> None:
        held, self._held = self._held, {}
        for session in held.keys() & self._tenants.host.sessions:
            for told in held[session]:
                told()

    def _is_doubtful(self, session: Session) -> bool:
        caller = session.caller
        if caller is None or caller is session.cut or session.listening is None:
            return False
        return not self._tenants.is_good(caller)

    async def _look_at(self, session: Session) -> None:
        channel, before = session.listening, session.caller
        if channel is None or before is None:
            return
        caller = await self._found(session, channel, before)
        if session.listening is not channel or session.caller is not before:
            return  # nobody listens any more: what comes on this connection now may be another one's
        if caller is None:
            session.cut_off()
            return
        channel.caller = session.caller = caller
        if caller.view.key != before.view.key:
            for kind in KINDS:
                session.list_changed(kind)

    async def _found(self, session: Session, channel: Channel, before: Caller) -> Caller | None:
        """Whose it is now; None for nobody's who may listen. Where that cannot be told in time, what was known holds on."""
        try:
            found = await self._tenants.find(channel, session)
        except Unavailable:
            return before if time.monotonic() < before.expires_s else None
        except Denied:
            return None
        except Exception:  # any, of a resolver of the user's: it lets nobody in, and ends nothing here
            logger.exception("it could not be found out whether a client may listen on")
            return None
        return found if found.is_same(before) else None
