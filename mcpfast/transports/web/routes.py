"""A request to a plain route: its handler in a Task that ends with the client."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from mcpfast.server.routes import HttpRequest, HttpResponse, Route, response_of

if TYPE_CHECKING:
    from mcpfast._exchange import Exchange, Head
    from mcpfast.transports.web.endpoint import Endpoint

logger = logging.getLogger("mcpfast")


def serve_route(endpoint: Endpoint, exchange: Exchange, head: Head, route: Route, query: str) -> None:
    """Begins the handler, or answers 405."""
    method = head.method.decode("latin-1")
    found = route.find(method)
    if found is None:
        exchange.respond(405, b"Not served here\n", extra=f"Allow: {route.allowed}\r\n".encode())
        return
    handler, takes_request = found
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(head.headers)}
    asked = HttpRequest(
        method, route.path, dict(reversed(parse_qsl(query))), headers, head.body, exchange.peer_address()
    )
    exchange.tied = RouteCall(endpoint, exchange, handler, (asked,) if takes_request else ())


class RouteCall:
    """One call of a handler."""

    def __init__(
        self, endpoint: Endpoint, exchange: Exchange, handler: Any, arguments: tuple[Any, ...]
    ) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._task = endpoint.host.loop.create_task(self._run(handler, arguments))

    async def _run(self, handler: Any, arguments: tuple[Any, ...]) -> None:
        exchange = self._exchange
        try:
            if not inspect.iscoroutinefunction(handler):
                handler = self._endpoint.host.server.threaded(handler)
            response = response_of(await handler(*arguments))
            _respond(exchange, response)
        except asyncio.CancelledError:
            exchange.abort()
            raise
        except Exception:
            logger.exception("the route %s failed", arguments[0].path if arguments else handler)
            exchange.respond(500, b"Internal error; the server's log has the details\n")
        finally:
            exchange.tied = None

    def lost(self, reason: str) -> None:
        """The client is gone."""
        self._task.cancel(reason)


def _respond(exchange: Exchange, response: HttpResponse) -> None:
    body = response.body.encode() if isinstance(response.body, str) else response.body
    lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    if lines.count("\n") != len(response.headers) or lines.count("\r") != len(response.headers):
        raise ValueError("a header of a response stands on one line")
    exchange.respond(response.status, body, response.content_type.encode("latin-1"), lines.encode("latin-1"))
