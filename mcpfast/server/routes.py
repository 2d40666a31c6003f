"""Plain HTTP beside MCP: `@server.route("GET", "/health")`.

A handler takes the request, or nothing, and gives text, bytes, None (204), an HttpResponse, or anything else as JSON. `def` runs in
a worker thread, as with tools. When the client goes away the handler is cancelled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from mcpfast.errors import RegistrationError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class HttpRequest(NamedTuple):
    """A request to a plain route. Header names are lower case; of a repeated header or parameter the first counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    client: str | None  # HOST:PORT

    def json(self) -> Any:
        """The body as JSON. Raises msgspec.DecodeError."""
        return msgspec.json.decode(self.body)


class HttpResponse(NamedTuple):
    """An answer of a plain route in full."""

    body: bytes | str = b""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


class Route:
    """The handlers of one path, by method."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.handlers: dict[str, tuple[Callable[..., Any], bool]] = {}

    @property
    def allowed(self) -> str:
        """What the header Allow says."""
        return ", ".join([*self.handlers, *(["HEAD"] if "GET" in self.handlers else [])])

    def find(self, method: str) -> tuple[Callable[..., Any], bool] | None:
        """The handler and whether it takes the request. HEAD is a GET without its body."""
        return self.handlers.get("GET" if method == "HEAD" else method)


def add_route(routes: dict[str, Route], method: str, path: str, fn: Callable[..., Any]) -> None:
    """Raises RegistrationError for a method or a path that cannot be served, or is already."""
    if method not in METHODS:
        raise RegistrationError(f"{method!r} is no method of a route: use one of {', '.join(METHODS)}")
    if not path.startswith("/") or not path.isascii() or any(c in path for c in "?# {}"):
        raise RegistrationError(f"{path!r} is no path of a route: write it plainly, as in /health")
    parameters = [
        p
        for p in inspect.signature(fn).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    needed = [p for p in parameters if p.default is p.empty]
    if len(needed) > 1:
        raise RegistrationError(f"{fn.__name__}: a route takes the request, or nothing")
    route = routes.setdefault(path, Route(path))
    if method in route.handlers:
        raise RegistrationError(f"{method} {path} has a handler already")
    route.handlers[method] = (fn, bool(parameters))


def response_of(value: Any) -> HttpResponse:
    """What a handler gave, as a response. Raises TypeError for what is no JSON."""
    if isinstance(value, HttpResponse):
        return value
    if value is None:
        return HttpResponse(status=204)
    if isinstance(value, str):
        return HttpResponse(value)
    if isinstance(value, bytes):
        return HttpResponse(value, content_type="application/octet-stream")
    return HttpResponse(msgspec.json.encode(value), content_type="application/json")
