"""Serving: addresses to transports, signals to an orderly end. One of the rooms that know everyone and read the environment."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mcpfast.errors import AddressError
from mcpfast.orders import (
    STDIO,
    Orders,
    as_configured,
    check_tenant_of_stdio,
    configure,
    ordered,
    warn_of_no_tenants,
)
from mcpfast.server.host import Host
from mcpfast.transports.addresses import WEB, Address

if TYPE_CHECKING:
    from mcpfast.live.door import Door
    from mcpfast.server.app import MCPServer
    from mcpfast.transports.sockets import Listener
    from mcpfast.transports.stdio import Diversion, Stdio
    from mcpfast.transports.web.asgi import AsgiApp
    from mcpfast.transports.web.listener import HttpListener
    from mcpfast.transports.web.settings import HttpSettings

EXIT_GRACE_S = 0.5  # after the main thread ended, threads that block may still hold the process this long


def run(
    server: MCPServer[Any],
    transport: str | Sequence[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    tenant: str = "",
    loop: str | None = None,
    ready: Callable[[list[Address]], None] | None = None,
    **options: Any,
) -> None:
    """Serves on a loop of its own until the end. `loop` is "uvloop", "asyncio", or "auto": uvloop where it is installed.

    `config`, `tenant` and `ready` as for `serve`; without `ready` stderr tells each address that is listened on, and what a
    client is to be configured with. `options` are those of HttpSettings; AddressError for `host` and `port`, TypeError for
    others. Ctrl-C at a terminal that is stdin raises SystemExit(130).
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("a loop is running already: write `await server.run_async(...)` here")
    with as_configured(server, config, tenant) as held:
        orders = ordered(server, held, transport, tenant, options)
        _run(server, orders, loop or held.loop, ready)


def _run(
    server: MCPServer[Any], orders: Orders, loop: str, ready: Callable[[list[Address]], None] | None
) -> None:
    if STDIO in orders.addresses:
        _check_standard_descriptors()
    alone = orders.addresses == [STDIO]
    by_hand = alone and os.isatty(0)
    if ready is None and (by_hand or not alone):
        ready = partial(_tell, server)
    ended_by = None
    runner = _new_loop(loop)
    asyncio.set_event_loop(runner)
    try:
        ended_by = runner.run_until_complete(_serve(server, orders, signals=True, ready=ready))
    except KeyboardInterrupt:  # before it served: in the lifespan
        if not by_hand:
            raise
        ended_by = signal.SIGINT
    finally:
        try:
            _cancel_all(runner)
            runner.run_until_complete(runner.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            runner.close()
            if STDIO in orders.addresses:
                _do_not_linger()
    if by_hand and ended_by == signal.SIGINT:
        raise SystemExit(128 + ended_by)


def _tell(server: MCPServer[Any], addresses: list[Address]) -> None:
    """To whoever started the server: where it listens, which port was given, what a client over HTTP is configured with, and
    whether it needs a key; over stdio alone, to a person, what it waits for.

    On stderr, since stdout may be the stream.
    """
    lines = [f"listening on {address}" for address in addresses]
    if addresses == [STDIO]:
        waits = "this server speaks MCP on stdin and stdout, and waits for a client (Ctrl-C stops it)"
        lines = [f"{waits}; to try it: mcpfast inspect -- {_command()}"]
    lines = [f"mcpfast: {line}\n" for line in lines]
    over_http = [address for address in addresses if address.kind in ("http", "https")]
    if over_http:
        lines.append(_client_configuration(server, over_http[0]))
    with contextlib.suppress(OSError, AttributeError):  # without a stderr that is read it serves, too
        sys.stderr.write("".join(lines))
        sys.stderr.flush()


def _client_configuration(server: MCPServer[Any], address: Address) -> str:
    """The JSON that clients take; an address that means all of them is asked for by a name, a key stands in a variable."""
    import json

    host = address.host if address.host not in ("0.0.0.0", "::") else socket.gethostname()
    entry: dict[str, Any] = {"type": "http", "url": str(address._replace(host=host))}
    told = "for a client's configuration"
    if server.tenancy is not None:
        entry["headers"] = {"Authorization": "Bearer ${MCPFAST_API_KEY}"}
        told += ", with a tenant's API key or a token"
    pasted = json.dumps({"mcpServers": {server.name: entry}}, indent=2, ensure_ascii=False)
    return f"mcpfast: {told}:\n{pasted}\n"


def _command() -> str:
    """What was typed to start this process; of the script `mcpfast` the name alone."""
    import shlex

    words = sys.orig_argv
    if os.path.basename("".join(words[1:2])) == "mcpfast":
        words = ["mcpfast", *words[2:]]
    return shlex.join(words)


async def serve(
    server: MCPServer[Any],
    transport: str | Sequence[str | Address] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    tenant: str = "",
    signals: bool = False,
    ready: Callable[[list[Address]], None] | None = None,
    **options: Any,
) -> int | None:
    """Serves inside the running loop until the client is gone (stdio alone) or the task is cancelled.

    `config` is the file of settings (None: the one that MCPFAST_CONFIG names, or none); what it and the environment say holds
    where neither code nor arguments say otherwise. `transport` None: where it says, or on stdio. `tenant` is whom stdio serves.
    `ready(addresses)` is called when every listener accepts, with the ports that were given for port 0. `signals` True: SIGTERM,
    SIGINT and SIGHUP begin a drain, a second one ends at once; where tenants are served, SIGHUP reads their registry anew.
    Returns the signal that ended it, None where none did. Raises AddressError where an address cannot be served, or for `host`
    and `port`, ConfigurationError for settings or tenants that cannot be used, TypeError or ValueError for other `options` than
    those of HttpSettings.
    """
    with as_configured(server, config, tenant) as held:
        orders = ordered(server, held, transport, tenant, options)
        return await _serve(server, orders, signals=signals, ready=ready)


async def _serve(
    server: MCPServer[Any],
    orders: Orders,
    *,
    signals: bool,
    ready: Callable[[list[Address]], None] | None,
) -> int | None:
    _take_state_keys(server)
    with _diversion(
        orders.addresses
    ) as diverted:  # before the lifespan, whose prints are no messages, either
        async with Host(server, warm=os.environ.get("MCPFAST_WARM_TASKS", "1") != "0") as host:
            if host.dispatcher.tenants is not None and STDIO in orders.addresses:
                check_tenant_of_stdio(host.dispatcher.tenants, orders.tenant)
            gc.freeze()  # what is loaded by now stays, tenants, too: the collector need not look at it again
            serving = Serving(host, orders.settings)
            try:
                await serving.open(orders.addresses, diverted)
                with _signals(serving) if signals else contextlib.nullcontext():
                    if ready is not None:
                        ready(serving.addresses)
                    if server.tenancy is None:
                        warn_of_no_tenants(server.catalog)
                    await serving.ended
                return serving.ended_by
            finally:
                serving.close()


@contextlib.contextmanager
def _diversion(addresses: Sequence[Address]) -> Iterator[Diversion | None]:
    """stdin and stdout taken over for the protocol, where stdio is served."""
    if all(address.kind != "stdio" for address in addresses):
        yield None
        return
    from mcpfast.transports.stdio import Diversion  # sockets or stdio: most processes need one of them

    diverted = Diversion()
    try:
        yield diverted
    finally:
        diverted.restore()


def asgi_app(server: MCPServer[Any], path: str, options: dict[str, Any]) -> AsgiApp:
    """`server.asgi_app(...)`. What is configured holds for the server from now on. Raises TypeError and ValueError for options
    that are not ours, or have no meaning there, and ConfigurationError."""
    from mcpfast.transports.web.asgi import AsgiApp
    from mcpfast.transports.web.settings import TLS, HttpSettings

    over_http = configure(server, options.pop("config", None)).http
    options = {**{name: value for name, value in over_http.items() if name not in TLS}, **options}
    settings = HttpSettings.taken_from(options)
    if options or any(getattr(settings, name) for name in TLS):
        raise TypeError(f"asgi_app has no option {', '.join(map(repr, options)) or ', '.join(TLS)}")
    if not path.startswith("/"):
        raise ValueError(f"the path of asgi_app begins with a slash: /{path}")
    _take_state_keys(server)
    return AsgiApp(server, path, settings)


def _take_state_keys(server: MCPServer[Any]) -> None:
    """The keys that the environment has, where the server was given none."""
    if server.state_keys is None and "MCPFAST_STATE_KEYS" in os.environ:
        from mcpfast.server.sealed import KeyRing

        server.state_keys = KeyRing.from_env("MCPFAST_STATE_KEYS")


class Serving:
    """What is open while a server serves; `ended` is done when nothing is left to serve."""

    def __init__(self, host: Host, settings: HttpSettings | None) -> None:
        self.host = host
        self._settings = settings
        self.ended: asyncio.Future[None] = host.loop.create_future()
        self.ended_by: int | None = None  # the signal that began the end
        self.addresses: list[Address] = []
        self._listeners: list[Listener | HttpListener] = []
        self._stdio: Stdio | None = None
        self._draining = False
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._door: Door | None = None

    async def open(self, addresses: Sequence[Address], diverted: Diversion | None) -> None:
        for address in addresses:
            if diverted is not None and address.kind == "stdio":
                from mcpfast.transports.stdio import Stdio

                self._stdio = Stdio(self.host, diverted, self._stdio_closed)
                self.addresses.append(address)
            elif self._settings is not None and address.kind in WEB:
                from mcpfast.transports.web.listener import HttpListener

                over_http = HttpListener(self.host, address, self._settings)
                self._listeners.append(over_http)
                await over_http.start()
                self.addresses.append(over_http.address)
            else:
                from mcpfast.transports.sockets import Listener

                listener = Listener(self.host, address)
                self._listeners.append(listener)
                self.addresses.append(listener.address)

    def _stdio_closed(self) -> None:
        """The host program is gone: with it goes its server, unless it listens elsewhere, too."""
        if not self._listeners or self._draining:
            self._check_ended()

    def drain(self, ended_by: int | None = None) -> None:
        """Begins an orderly end: nothing new is read, calls in flight may end within `limits.drain_s`. Again: ends at once."""
        if self._draining:
            self._end()
            return
        self._draining = True
        self.ended_by = ended_by
        self.host.engine.closing = True
        deadline_s = self.host.server.limits.drain_s
        for listener in self._listeners:
            listener.drain(deadline_s)
        if self._stdio is not None:
            self._stdio.stream.drain(deadline_s)
        self._check_ended()

    def _check_ended(self) -> None:
        if self.ended.done():
            return
        if not self.host.sessions and not any(listener.busy for listener in self._listeners):
            self._end()
        else:
            self.host.loop.call_later(0.01, self._check_ended)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def reload(self) -> None:
        """Somebody says that the registry of the tenants is another one. What cannot be used is told in the log, and what held
        before holds on. Said again meanwhile, it is read once more."""
        self._reload_again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = self.host.loop.create_task(self._reload(), name="mcpfast-reload")

    async def _reload(self) -> None:
        tenants = self.host.dispatcher.tenants
        while tenants is not None and self._reload_again:
            self._reload_again = False
            await tenants.callers.registry.look(asked=True)

    def ring(self) -> None:
        """Somebody wants to look into this server (`mcpfast top`, `mcpfast profile loop`); nothing of it is loaded before."""
        if self._door is None:
            from mcpfast.live.door import Door

            self._door = Door(self.host, [str(address) for address in self.addresses], self._exchanges)
        self._door.ring()

    def _exchanges(self) -> list[Any]:
        """Those over HTTP, of all addresses."""
        endpoints = [getattr(listener, "endpoint", None) for listener in self._listeners]
        return [exchange for endpoint in endpoints if endpoint is not None for exchange in endpoint.exchanges]

    def close(self) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
        if self._door is not None:
            self._door.close()
        for listener in self._listeners:
            listener.close()
        if self._stdio is not None:
            self._stdio.stream.close("the server is closing")


def _new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind not in ("auto", "uvloop", "asyncio"):
        raise ValueError(f"loop must be 'auto', 'uvloop' or 'asyncio', not {kind!r}")
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise AddressError(
                    "uvloop is not installed: pip install uvloop, or choose the loop asyncio"
                ) from None
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


@contextlib.contextmanager
def _signals(serving: Serving) -> Any:
    """SIGTERM, SIGINT and SIGHUP begin the drain, SIGURG opens the door; where tenants are served SIGHUP reads their registry
    anew. Only the main thread can be told of signals. Afterwards they mean what they meant before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Callable[[], None]] = {
        number: partial(serving.drain, number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    if serving.host.dispatcher.tenants is not None:
        handlers[signal.SIGHUP] = serving.reload
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means what it says
        handlers[signal.SIGHUP] = partial(serving.drain, signal.SIGHUP)
    # SIGURG, because a process that does not know it ignores it: whoever is rung by a wrong pid is not hurt.
    if sys.platform == "linux" and signal.getsignal(signal.SIGURG) is signal.SIG_DFL:
        handlers[signal.SIGURG] = serving.ring
    loop = serving.host.loop
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number, meant in before.items():
            loop.remove_signal_handler(number)
            if meant is not None:
                signal.signal(number, meant)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Tasks that handlers left behind; a deadline, since one may refuse to end."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))


def _check_standard_descriptors() -> None:
    """Before anything else opens a descriptor: on a closed 0 or 1 the loop's own would land."""
    for fd, name in ((0, "stdin"), (1, "stdout")):
        try:
            os.fstat(fd)
        except OSError:
            raise AddressError(f"stdio: {name} is closed") from None
    try:
        os.fstat(2)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _do_not_linger() -> None:
    """A stdio server whose host is gone must be gone, too, even while a handler blocks in a thread that Python would join.

    Our own worker threads are daemons; those of `asyncio.to_thread` are not. Only where such are left a daemon thread watches
    the main one, and when that has nothing left to do but join them, leaves after a grace.
    """
    left = [
        thread
        for thread in threading.enumerate()
        if not thread.daemon and thread is not threading.main_thread()
    ]
    if left:
        threading.Thread(target=_leave_at_exit, name="mcpfast-exit", daemon=True).start()


def _leave_at_exit() -> None:
    main = threading.main_thread().ident
    while True:
        time.sleep(EXIT_GRACE_S / 5)
        frame = sys._current_frames().get(main or 0)
        while frame is not None and frame.f_code is not threading._shutdown.__code__:  # type: ignore[attr-defined]
            frame = frame.f_back
        if frame is not None:  # the interpreter is ending and waits for threads
            time.sleep(EXIT_GRACE_S)
            sys.stderr.flush()
            os._exit(0)
