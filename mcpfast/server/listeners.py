"""Who listens for changes when tenants, their rights or the catalog change: found out anew, and cut off who may not any more.

A request is asked about each time it comes. A stream or subscription was asked about when it was opened, and may be open for
days, so it is asked about again whenever anything changed that the answer depends on, and when its credential is over.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from mcpfast.tenancy.denied import Denied, Unavailable

if TYPE_CHECKING:
    from mcpfast._caller import Caller
    from mcpfast._spine import Channel
    from mcpfast.server.session import Session
    from mcpfast.server.tenants import Tenants

LOOK_S = 15.0  # a credential that is over, where nothing else changes, is noticed within this time
SLICE = 100  # looked at without a pause: a few milliseconds
KINDS = ("tools", "prompts", "resources")


class Listeners:
    """Those of one host. `open` starts the task that looks after them, `close` ends it."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="mcpfast-listeners")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def changed(self) -> None:
        """What was found out about callers may not be so any more."""
        self._changed.set()

    def hears(self, session: Session, tenant_id: str | None = None) -> bool:
        """Whether a session is told of changes: its tenant is served, and is the one that is meant, where one is."""
        caller = session.caller
        return (
            caller is not None
            and time.monotonic() < caller.expires_s
            and self._tenants.callers.is_served(caller.tenant)
            and tenant_id in (None, caller.key[0])
        )

    def hears_of(self, session: Session, uri: str, tenant_id: str | None) -> bool:
        """The same of a resource, which its caller must be allowed to read."""
        caller = session.caller
        return self.hears(session, tenant_id) and caller is not None and self._tenants.shows(caller, uri)

    # ---------------------------------------------------------------- after a change

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            for number, session in enumerate(list(self._tenants.host.sessions)):
                await self._look_at(session)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)

    async def _look_at(self, session: Session) -> None:
        channel, before = session.listening, session.caller
        if channel is None or before is None or self._tenants.is_good(before):
            return
        caller = await self._found(session, channel, before)
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
            async with asyncio.timeout(self._tenants.server.limits.identify_s):
                found = await self._tenants.find(channel, session)
        except (TimeoutError, Unavailable):
            return before if time.monotonic() < before.expires_s else None
        except Denied:
            return None
        return found if found.is_same(before) else None
