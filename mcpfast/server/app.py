"""MCPServer: what users write a server with. Names and signatures are the official SDK's, with FastMCP's conveniences."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from mcpfast.errors import RegistrationError
from mcpfast.limits import Limits
from mcpfast.protocol.revisions import Revision
from mcpfast.server.answers import Answers, CacheHint
from mcpfast.server.catalog import Catalog, Offer
from mcpfast.server.context import Context, LifespanT
from mcpfast.server.registered import Handler, Prompt, Resource, Tool, Use, describe, plain
from mcpfast.server.signature import Signature

if TYPE_CHECKING:
    from mcpfast.executor.threads import ThreadPool
    from mcpfast.server.host import Host
    from mcpfast.server.once import OnceRecords
    from mcpfast.server.resources import ReadyResource
    from mcpfast.server.routes import Route
    from mcpfast.server.sealed import KeyRing, Sealer
    from mcpfast.tenancy.service import Tenancy
    from mcpfast.transports.web.asgi import AsgiApp

Fn = TypeVar("Fn", bound=Callable[..., Any])
Middleware = Callable[[Any, Callable[[Any], Any]], Any]


class MCPServer(Generic[LifespanT]):
    """An MCP server: tools, resources and prompts, served over any transport to clients of every revision.

        server = MCPServer("notes", version="1.0")

        @server.tool
        async def add(a: int, b: int) -> int:
            "Add two numbers."
            return a + b

        if __name__ == "__main__":
            server.run()

    `lifespan(server)` is an async context manager around the serving; what it yields is `ctx.lifespan_context`. `middleware`
    is a list of `async (request, call_next)`, the first outermost. `state_keys` seal what a 2026-07-28 client carries for a
    call between its rounds: give workers that share clients the same KeyRing. `tenancy` are the tenants that are served;
    without it there are none, and nobody is asked. `debug=True` shows tracebacks to the client;
    `log_level` is that of the server's own log, the logger "mcpfast". Raises TypeError for a value of the wrong type.
    """

    def __init__(
        self,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        instructions: str | None = None,
        website_url: str | None = None,
        icons: Sequence[Any] | None = None,
        version: str = "",
        *,
        lifespan: Callable[[MCPServer[LifespanT]], AbstractAsyncContextManager[LifespanT]] | None = None,
        middleware: Sequence[Middleware] = (),
        debug: bool = False,
        log_level: str | None = None,
        limits: Limits | None = None,
        cache_hints: Mapping[str, CacheHint] | None = None,
        state_keys: KeyRing | None = None,
        tenancy: Tenancy | None = None,
        tools: Sequence[Callable[..., Any]] = (),
    ) -> None:
        texts = {"name": name, "title": title, "description": description, "instructions": instructions}
        _check_options(
            {**texts, "website_url": website_url, "version": version},
            limits=limits,
            lifespan=lifespan,
            middleware=middleware,
            cache_hints=cache_hints,
            tenancy=tenancy,
            tools=tools,
        )
        self.name = name or "mcp-server"
        self.title = title
        self.version = version
        self.instructions = instructions
        self.lifespan = lifespan
        self.middleware: list[Middleware] = list(middleware)
        self.debug = debug
        if log_level is not None:
            logging.getLogger("mcpfast").setLevel(log_level)
        self.limits = limits or Limits()
        self.completer: Callable[..., Any] | None = None
        self.observer: Any = None
        self.state_keys = state_keys
        self.tenancy = tenancy
        info = describe(
            name=self.name,
            title=title,
            version=version or "0",
            description=description,
            websiteUrl=website_url,
            icons=icons,
        )
        self.answers = Answers(info, cache_hints or {})
        self.catalog = Catalog(self.notify_list_changed)
        self.routes: dict[str, Route] = {}
        self._serving: list[Host] = []
        self._lock = threading.Lock()
        self._threads: ThreadPool | None = None
        self._sealer: Sealer | None = None
        self._once: OnceRecords | None = None
        self._template_table: tuple[int, Any] = (-1, None)
        for fn in tools:
            self.add_tool(fn)

    # ---------------------------------------------------------------- tools

    def add_tool(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: Any = None,
        icons: Sequence[Any] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
        *,
        input_schema: dict[str, Any] | None = None,
        inline: bool = False,
        own_task: bool = False,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Tool:
        """Registers `fn` as a tool. Raises RegistrationError where it cannot be one.

        The input schema comes from its type hints, or is `input_schema` as it stands (JSON Schema 2020-12): then `fn` takes the
        validated arguments by name. `def` runs in a worker thread, with `inline=True` on the loop; `own_task=True` gives each
        call a new asyncio Task, for libraries that key state by the current one.

        Where tenants are served, a caller needs all of `scopes`, its tenant is one of `kinds` ("organization", "personal"; none:
        any), and a call costs it `cost` units of its budgets.
        """
        if input_schema is not None:
            signature: Any = Signature.raw(input_schema, fn, context_type=Context)
        else:
            signature = Signature.of(fn, context_type=Context, structured_output=structured_output)
        handler = Handler(fn, signature, self, inline=inline)
        members = {
            "title": title,
            "description": description,
            "annotations": annotations,
            "icons": icons,
            "meta": meta,
        }
        tool = Tool(
            handler,
            lambda: self.answers,
            members,
            name=self._tool_name(name or signature.name),
            fast=not self.middleware,
            own_task=own_task,
            use=Use(scopes, kinds, cost),
        )
        self.catalog.add_tool(tool, tool.entry, tool.describe)
        return tool

    @staticmethod
    def _tool_name(name: str) -> str:
        """1 to 128 of A-Z a-z 0-9 _ - . (specification, Tools: tool names)."""
        if 1 <= len(name) <= 128 and all(c.isascii() and (c.isalnum() or c in "_-.") for c in name):
            return name
        raise RegistrationError(
            f"{name!r} cannot name a tool: 1 to 128 of the letters A-Z a-z, digits, '_', '-', '.'; pass name=..."
        )

    def remove_tool(self, name: str) -> None:
        """Takes a tool away; clients that listen are told. Raises RegistrationError for an unknown name."""
        self.catalog.remove_tool(name)

    @overload
    def tool(self, name: Fn) -> Fn: ...
    @overload
    def tool(
        self,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: Any = None,
        icons: Sequence[Any] | None = None,
        meta: dict[str, Any] | None = None,
        structured_output: bool | None = None,
        *,
        input_schema: dict[str, Any] | None = None,
        inline: bool = False,
        own_task: bool = False,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Callable[[Fn], Fn]: ...
    def tool(self, name: Any = None, *args: Any, **options: Any) -> Any:
        """Decorator: registers a function as a tool, with or without parentheses. Options as for `add_tool`."""
        if callable(name):
            self.add_tool(name)
            return name

        def register(fn: Fn) -> Fn:
            self.add_tool(fn, name, *args, **options)
            return fn

        return register

    # ---------------------------------------------------------------- resources

    def add_resource(
        self,
        uri: str | ReadyResource,
        fn: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        icons: Sequence[Any] | None = None,
        annotations: Any = None,
        meta: dict[str, Any] | None = None,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Resource:
        """Registers `fn` as what is behind `uri`, or behind all URIs of an RFC 6570 template whose variables are its parameters.

        A `TextResource`, `FileResource` or their like in place of both brings its URI, its content and its description.
        `scopes`, `kinds` and `cost` are those of `add_tool`.
        """
        if not isinstance(uri, str):
            return self.add_resource(uri.uri, uri.read, **uri.members, scopes=scopes, kinds=kinds, cost=cost)
        if fn is None:
            raise RegistrationError(
                f"add_resource({uri!r}) needs the function behind the URI, or a resource object alone"
            )
        from mcpfast.server.uri_template import UriTemplate

        signature = Signature.of(fn, context_type=Context, structured_output=False)
        template = UriTemplate(uri) if "{" in uri else None
        if template is not None and not template.names:
            template = None
        members = {
            "name": name or signature.name,
            "title": title,
            "description": description,
            "icons": icons,
            "annotations": annotations,
            "meta": meta,
        }
        resource = Resource(
            uri, template, Handler(fn, signature, self), mime_type, members, Use(scopes, kinds, cost)
        )
        shelf = self.catalog.resources if template is None else self.catalog.templates
        shelf.add(Offer(uri, resource.describe, resource))
        return resource

    def remove_resource(self, uri: str) -> None:
        """Takes a resource or template away, by the URI it was registered with."""
        (self.catalog.resources if uri in self.catalog.resources else self.catalog.templates).remove(uri)

    def resource(
        self,
        uri: str,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        icons: Sequence[Any] | None = None,
        annotations: Any = None,
        meta: dict[str, Any] | None = None,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Callable[[Fn], Fn]:
        """Decorator: `@server.resource("config://app")`, `@server.resource("users://{id}/profile")`."""
        if callable(uri):
            raise TypeError('@resource needs the URI: @server.resource("scheme://path")')

        def register(fn: Fn) -> Fn:
            self.add_resource(
                uri,
                fn,
                name=name,
                title=title,
                description=description,
                mime_type=mime_type,
                icons=icons,
                annotations=annotations,
                meta=meta,
                scopes=scopes,
                kinds=kinds,
                cost=cost,
            )
            return fn

        return register

    def find_resource(self, uri: str) -> tuple[Resource | None, dict[str, str]]:
        """The resource behind a URI and the variables of its template; `(None, {})` where there is none."""
        fixed = self.catalog.resources.get(uri)
        if fixed is not None or not len(self.catalog.templates):
            return fixed, {}
        version = (
            self.catalog.templates.version
        )  # asked before the templates: another thread may add one meanwhile
        made_of, table = self._template_table
        if made_of != version:
            from mcpfast.server.uri_template import TemplateTable

            table = TemplateTable((r.template, r) for r in self.catalog.templates)
            self._template_table = version, table
        return cast("tuple[Resource | None, dict[str, str]]", table.find(uri) or (None, {}))

    # ---------------------------------------------------------------- prompts, completion

    def add_prompt(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        icons: Sequence[Any] | None = None,
        meta: dict[str, Any] | None = None,
        *,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Prompt:
        """Registers `fn` as a prompt: it gives a text, messages, or a mixture. `scopes`, `kinds`, `cost`: see `add_tool`."""
        signature = Signature.of(fn, context_type=Context, structured_output=False)
        members = {"title": title, "description": description, "icons": icons, "meta": meta}
        prompt = Prompt(
            name or signature.name, Handler(fn, signature, self), members, Use(scopes, kinds, cost)
        )
        self.catalog.prompts.add(Offer(prompt.name, prompt.describe, prompt))
        return prompt

    def remove_prompt(self, name: str) -> None:
        """Takes a prompt away. Raises RegistrationError for an unknown name."""
        self.catalog.prompts.remove(name)

    @overload
    def prompt(self, name: Fn) -> Fn: ...
    @overload
    def prompt(
        self,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        icons: Sequence[Any] | None = None,
        meta: dict[str, Any] | None = None,
        *,
        scopes: Collection[str] = (),
        kinds: Collection[str] = (),
        cost: float = 1.0,
    ) -> Callable[[Fn], Fn]: ...
    def prompt(self, name: Any = None, *args: Any, **options: Any) -> Any:
        """Decorator: registers a function as a prompt, with or without parentheses."""
        if callable(name):
            self.add_prompt(name)
            return name

        def register(fn: Fn) -> Fn:
            self.add_prompt(fn, name, *args, **options)
            return fn

        return register

    def completion(self, fn: Fn | None = None) -> Any:
        """Decorator: `fn(ref, argument, context)` completes the arguments of prompts and templates; one for a server."""

        def register(completer: Fn) -> Fn:
            self.completer = completer
            return completer

        return register if fn is None else register(fn)

    # ---------------------------------------------------------------- plain HTTP

    def route(self, method: str, path: str) -> Callable[[Fn], Fn]:
        """Decorator: a plain HTTP endpoint beside MCP, `@server.route("GET", "/health")`.

        The function takes an HttpRequest, or nothing, and gives text, bytes, None, an HttpResponse, or what is to be JSON. It
        stands behind the same checks of Host and Origin as MCP, and behind no others: where tenants are served nobody is asked for
        credentials here. Raises RegistrationError.
        """

        def register(fn: Fn) -> Fn:
            from mcpfast.server.routes import add_route

            add_route(self.routes, method, path, fn)
            return fn

        return register

    # ---------------------------------------------------------------- changes

    def notify_list_changed(self, kind: str) -> None:
        """Tells clients that "tools", "prompts" or "resources" changed; called by itself when something is added or removed.

        From any thread. Several changes of one turn of the loop are told once. Raises ValueError for another kind.
        """
        if kind not in ("tools", "prompts", "resources"):
            raise ValueError(f"what can change is 'tools', 'prompts' or 'resources', not {kind!r}")
        for host in self._serving:
            host.tell_changed(kind)

    def notify_resource_updated(self, uri: str, *, tenant: str | None = None) -> None:
        """Tells everyone who subscribed to exactly this URI and may read it. From any thread.

        Where what is behind it differs from tenant to tenant, name the `tenant` (`ctx.tenant.id`) for which it changed: the
        others are told nothing, not even that something happened.
        """
        for host in self._serving:
            host.tell_updated(uri, tenant)

    # ---------------------------------------------------------------- what the house asks

    def capabilities(self, revision: Revision) -> dict[str, Any]:
        """What is declared to a client of `revision`. Everything that can be added while serving is declared from the start."""
        declared: dict[str, Any] = {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": True},
            "logging": {},
        }
        if self.completer is not None and revision.audio:
            declared["completions"] = {}
        return declared

    def offers(self, capability: str | None) -> bool:
        """Whether methods of this capability are served."""
        return capability != "completions" or self.completer is not None

    def threaded(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """`fn` as a coroutine function that runs it in a worker thread."""

        async def in_thread(*args: Any, **named: Any) -> Any:
            # the connection that calls is the lane: those of many clients take turns for a thread
            lane = getattr(asyncio.current_task().get_coro(), "source", None)  # type: ignore[union-attr]
            return await (self._threads or self.threads()).run_in(lane, fn, *args, **named)

        in_thread.__wrapped__ = fn  # type: ignore[attr-defined]  # whose code it is, for who looks into a live server
        return in_thread

    @property
    def pool(self) -> ThreadPool | None:
        """The worker threads; None before the first call of a `def`."""
        return self._threads

    def threads(self) -> ThreadPool:
        with self._lock:
            if self._threads is None:
                from mcpfast.executor.threads import ThreadPool

                self._threads = ThreadPool(self.limits.threads_max)
            return self._threads

    def sealer(self) -> Sealer:
        with self._lock:
            if self._sealer is None:
                import time

                from mcpfast.server.sealed import KeyRing, Sealer

                self._sealer = Sealer(self.state_keys or KeyRing.generate(), server=self.name, now=time.time)
            return self._sealer

    def once_records(self) -> OnceRecords:
        with self._lock:
            if self._once is None:
                import time

                from mcpfast.server.once import OnceRecords

                self._once = OnceRecords(self.limits.once_records_max, time.monotonic)
            return self._once

    def serving(self, host: Host, on: bool) -> None:
        """A loop begins or ends to serve this server."""
        with self._lock:
            others = [h for h in self._serving if h is not host]
            self._serving = [*others, host] if on else others

    # ---------------------------------------------------------------- serving

    def run(
        self,
        transport: str | Sequence[str] | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """Serves until the client is gone (stdio) or a signal comes: on "stdio", "http://HOST:PORT", "https://HOST:PORT",
        "tcp://HOST:PORT", "unix:///PATH", "unix+http:///PATH", or on several.

        `config` is a file of settings (TOML; None: the one that MCPFAST_CONFIG names, or none). It says where to serve, the
        limits and the tenants, as far as neither the environment (MCPFAST_SECTION__NAME) nor the code says otherwise.
        `options`: `loop` ("auto", "uvloop" or "asyncio"), `tenant`, whom stdio serves, and over HTTP those of HttpSettings:
        `session_mode`, `allowed_hosts`, `allowed_origins`, `ssl_certfile`, `ssl_keyfile`, `ssl_ca_certs`, `tenant_host`,
        `public_url`. SIGTERM and SIGINT let calls in flight end, `limits.drain_s` at most; SIGHUP reads the tenants anew,
        where there are some. Raises AddressError for an address it cannot serve, ConfigurationError for settings and tenants
        that cannot be used.
        """
        from mcpfast import serve

        serve.run(self, transport, config=config, **options)

    async def run_async(
        self,
        transport: str | Sequence[str] | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """`run` inside a loop that runs already, which keeps its signals."""
        from mcpfast import serve

        await serve.serve(self, transport, config=config, **options)

    def asgi_app(self, path: str = "/mcp", **options: Any) -> AsgiApp:
        """An ASGI application with all that HTTP has, WebSocket included: for `uvicorn module:app`, or to be mounted.

        MCP is at `path` below the place where it is mounted. `options` are those of HttpSettings but for TLS, and `config` as for
        `run`: what is configured holds for the server from now on. A mounted application is not told of the end: hand
        `app.lifespan` to the one around it. Raises TypeError, ValueError, and ConfigurationError as `run` does.
        """
        from mcpfast import serve

        return serve.asgi_app(self, path, options)

    async def run_stdio_async(self) -> None:
        """The SDK's name for `run_async("stdio")`."""
        await self.run_async("stdio")


def _check_options(texts: dict[str, Any], **options: Any) -> None:
    """Raises TypeError, in one line, for an option of MCPServer that is of the wrong type."""
    limits, lifespan, hints = options["limits"], options["lifespan"], options["cache_hints"]
    middleware = options["middleware"]
    wanted = {name: "a str" for name, text in texts.items() if text is not None and not isinstance(text, str)}
    if limits is not None and not isinstance(limits, Limits):
        wanted["limits"] = "Limits(...)"
    if lifespan is not None and not callable(lifespan):
        wanted["lifespan"] = "a function of the server that gives an async context manager"
    if not isinstance(middleware, Sequence) or not all(map(callable, middleware)):
        wanted["middleware"] = "a list of `async (request, call_next)`"
    if hints is not None and not (
        isinstance(hints, Mapping) and all(isinstance(hint, CacheHint) for hint in hints.values())
    ):
        wanted["cache_hints"] = "a dict of CacheHint by method"
    if options["tenancy"] is not None and not _is_tenancy(options["tenancy"]):
        wanted["tenancy"] = 'Tenancy("tenants.toml")'
    if not isinstance(options["tools"], Sequence):
        wanted["tools"] = "a list of functions"
    for name, kind in wanted.items():
        raise TypeError(f"MCPServer({name}=...) takes {kind}, not {(texts | options)[name]!r}")


def _is_tenancy(value: object) -> bool:
    from mcpfast.tenancy.service import Tenancy  # who has one has loaded it

    return isinstance(value, Tenancy)


__all__ = ["MCPServer", "plain"]
