"""One server on one loop: what its connections share, who is connected, and the named points where telemetry plugs in."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mcpfast._calls import Carriers
from mcpfast._core import Table
from mcpfast._spine import Engine
from mcpfast.protocol import messages
from mcpfast.protocol.revisions import LOG_LEVELS, MODERN
from mcpfast.server.dispatch import Dispatcher

if TYPE_CHECKING:
    from mcpfast._spine import Request
    from mcpfast.server.app import MCPServer
    from mcpfast.server.session import Session


class Observer(Protocol):
    """The hook points of a server: `server.observer = MyObserver()`. Nothing plugged in costs nothing.

    Called on the loop, in the way of the message: be quick, do not wait, do not raise. A request has `.method`, `.entry.name`
    (of a tool), `.bytes_in`, `.wire.revision`, `.channel.session`; `outcome` is "ok", "error", "cancelled" or "input_required".
    """

    def session_opened(self, session: Session) -> None: ...
    def session_closed(self, session: Session) -> None: ...
    def request_started(self, request: Request) -> None: ...
    def request_ended(self, request: Request, outcome: str, duration_s: float, bytes_out: int) -> None: ...


class Host:
    """Use as `async with Host(server) as host`, on the loop that will serve; the server's lifespan is entered with it.

    `warm` False gives each call a new asyncio Task (see `_calls`): slower, and the same for every handler.
    """

    def __init__(self, server: MCPServer[Any], *, warm: bool = True, debug: bool = False) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(server, self.loop, debug=debug or server.debug)
        self.sessions: set[Session] = set()
        self._told: set[str] = set()
        self._ending: set[asyncio.Task[Any]] = set()  # calls that were cancelled with their connection
        self._lifespan: Any = None
        self._warm = warm
        self.engine: (
            Engine  # made when the lifespan is entered: handlers see the context variables that it set
        )

    def _make_engine(self) -> Engine:
        server = self.server
        carriers = Carriers(self.loop, asyncio.Future, asyncio.Task, contextvars.copy_context(), self._warm)
        levels = Table()
        for level in LOG_LEVELS:
            levels[messages.encode(level)] = level
        wires = server.answers.wires
        modern_wires = tuple(wires[revision.number] for revision in reversed(MODERN))
        engine = Engine(
            self.loop, self.dispatcher, carriers, server.catalog.table, modern_wires, levels, server.limits
        )
        engine.observer = server.observer
        return engine

    async def __aenter__(self) -> Host:
        if self.server.lifespan is not None:
            self._lifespan = self.server.lifespan(self.server)
            if not hasattr(self._lifespan, "__aenter__"):
                raise TypeError(
                    "lifespan must give an async context manager: put @asynccontextmanager above the function"
                )
            self.dispatcher.lifespan_context = await self._lifespan.__aenter__()
        self.engine = self._make_engine()
        if self.server.middleware:  # it may have come after the tools
            for tool in self.server.catalog.tools:
                tool.entry.fast = False
        await asyncio.sleep(0)  # the warm Tasks park
        self.engine.carriers.check()
        if self.server.tenancy is not None:
            try:
                await self._open_tenants()
            except (
                BaseException
            ):  # a registry that cannot be read, say: what the lifespan opened is given back
                await self.__aexit__(*sys.exc_info())
                raise
        self.server.serving(self, True)
        return self

    async def _open_tenants(self) -> None:
        from mcpfast.server.tenants import Tenants  # nobody without tenants needs it

        self.dispatcher.tenants = Tenants(self)
        await self.dispatcher.tenants.open()

    async def __aexit__(self, *error: Any) -> None:
        self.server.serving(self, False)
        if self.dispatcher.tenants is not None:
            await self.dispatcher.tenants.close()
        left = {*self.engine.carriers.close(), *self._ending}
        if left:  # handlers may still clean up with what the lifespan gave them
            await asyncio.wait(left, timeout=1.0)
        if self._lifespan is not None:
            await self._lifespan.__aexit__(*error)

    # ---------------------------------------------------------------- sessions

    def opened(self, session: Session) -> None:
        self.sessions.add(session)
        if self.engine.observer is not None:
            self.engine.observer.session_opened(session)

    def closed(self, session: Session) -> None:
        self.sessions.discard(session)
        for request in session.channel.requests():
            if request.task is not None:
                self._ending.add(request.task)
                request.task.add_done_callback(self._ending.discard)
        session.closed()
        if self.engine.observer is not None:
            self.engine.observer.session_closed(session)

    # ---------------------------------------------------------------- changes, from any thread

    def tell_changed(self, kind: str) -> None:
        """A list changed; told once for all changes of one turn of the loop."""
        if kind not in self._told:
            self._told.add(kind)
            self._soon(self._tell_changed, kind)

    def _tell_changed(self, kind: str) -> None:
        self._told.discard(kind)
        tenants = self.dispatcher.tenants
        for session in list(self.sessions):
            if tenants is None:
                session.list_changed(kind)
            else:
                tenants.listeners.tell_changed(session, kind)

    def tell_updated(self, uri: str, tenant: str | None) -> None:
        """A resource changed; of `tenant` alone, where one is named."""
        self._soon(self._tell_updated, uri, tenant)

    def _tell_updated(self, uri: str, tenant: str | None) -> None:
        tenants = self.dispatcher.tenants
        for session in list(self.sessions):
            if tenants is None:
                session.resource_updated(uri)
            elif session.subscribes(uri):
                tenants.listeners.tell_updated(session, uri, tenant)

    def _soon(self, tell: Callable[..., None], what: str, *more: object) -> None:
        try:
            self.loop.call_soon_threadsafe(tell, what, *more)
        except RuntimeError:  # the loop closed meanwhile: nobody is there to be told
            self._told.discard(what)
