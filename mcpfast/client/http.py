"""Streamable HTTP: every message of ours is a POST; what comes back is JSON or an event stream (sections 9, 10).

    modern    the answer comes on the POST's own body, with the notifications that belong to it; whoever waits
              no longer closes it, and that cancels the call
    legacy    the same in a session that the server made (Mcp-Session-Id), with its requests among the
              answers, and a stream of its own (GET) for the rest; a stream that breaks goes on after its last
              event; a session that the server has forgotten (404) is made anew, and the call sent again

Requests go side by side. Notifications go one after another, and before the requests that follow them: the
order that a byte stream has by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from mcpfast.client.endpoint import REFUSAL_BYTES_MAX, Endpoint, body_of
from mcpfast.client.lines import too_long
from mcpfast.client.mirror import Mirror, named_headers
from mcpfast.client.session import Call, HttpError, RequestTimeout, Session
from mcpfast.client.sse import EventParser
from mcpfast.client.transport import HttpServer, Link, Transport
from mcpfast.errors import INTERNAL_ERROR, AddressError, ConnectionClosed, MCPError
from mcpfast.protocol.messages import META_PREFIX

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from mcpfast.protocol.revisions import Revision
    from mcpfast.protocol.types import Tool

SAY_S = 30.0  # a notification or an answer of ours is accepted, and a stream opened, within this time
LINGER_S = 1.0  # after the answer its stream should end; then the connection can be used again
FLUSH_S = 1.0  # at the end, what was said may take this long to be sent,
GOODBYE_S = 2.0  # and the session this long to be ended
RESUME_S = 1.0  # before a broken stream is taken up again, unless the server says how long; doubles each time
RESUME_MAX_S = 30.0
RESUMES_MAX = 4  # that fail, one after another, before a call is given up
VERSION_HEADER_SINCE = "2025-06-18"

JSON, EVENTS = "application/json", "text/event-stream"
POST_HEADERS = {"Accept": f"{JSON}, {EVENTS}", "Content-Type": JSON}


class HttpTransport(Transport):
    """The way to one URL. Raises AddressError for one that cannot be used."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._endpoint = Endpoint(server)

    async def link(self, session: Session) -> Link:
        self._endpoint.open()
        return HttpLink(self._endpoint, session, self._server.first_byte_s)

    async def close(self) -> None:
        await self._endpoint.close()


class HttpLink:
    """The exchanges of one session with one endpoint."""

    def __init__(self, endpoint: Endpoint, session: Session, first_byte_s: float | None) -> None:
        self._endpoint = endpoint
        self._session = session
        self._first_byte_s = first_byte_s
        self._revision: Revision | None = None
        self._mirror = Mirror()
        self._exchanges: dict[int, asyncio.Task[None]] = {}  # by the id of the call
        self._tasks: set[asyncio.Task[None]] = set()  # all that runs
        self._said: asyncio.Task[None] | None = None  # the last notification: what follows waits for it
        self._session_id: str | None = None
        self._lost: str | None = None  # the session id that is being replaced, or was
        self._renewal: asyncio.Task[None] | None = None

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"mcpfast client {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        try:
            await _wait_for(self._said, FLUSH_S)
        finally:
            running = [*self._tasks]
            for task in running:
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        try:
            if self._session_id is not None:
                async with asyncio.timeout(GOODBYE_S):
                    async with self._endpoint.request("DELETE", self._headers(), first_byte_s=None):
                        pass
        except Exception:  # also of whoever gives the authorization
            pass  # the server will forget the session by itself
        finally:
            await self._endpoint.close()

    def end(self) -> None:
        pass  # `close` is the only end

    def agree(self, revision: Revision) -> None:
        self._revision = revision

    def learn(self, tools: list[Tool]) -> list[Tool]:
        return self._mirror.learn(tools)

    @property
    def _legacy(self) -> bool:
        return self._revision is not None and not self._revision.modern

    # ---- out

    async def ready(self) -> None:
        pass

    def send(self, data: bytes, method: str | None, call: Call | None) -> None:
        if call is not None:
            exchange = self._start(self._exchange(data, call, self._said), call.method)
            self._exchanges[call.id] = exchange
            exchange.add_done_callback(lambda _: self._exchanges.pop(call.id, None))
        elif method is not None:
            self._said = self._start(self._say(data, method, self._said), method)
            if method == "notifications/initialized" and self._session_id is not None:
                self._start(self._standalone(self._said, self._session_id), "GET stream")
        else:
            self._start(self._say(data, None, None), "answer")

    def abandon(self, call: Call, notice: bytes | None) -> None:
        exchange = self._exchanges.pop(call.id, None)
        if exchange is not None:
            exchange.cancel()
        if notice is not None and self._legacy:
            self.send(notice, "notifications/cancelled", None)

    def _headers(self, call: Call | None = None, method: str | None = None) -> dict[str, str]:
        """What the protocol wants in every request, and what it mirrors of this one."""
        revision = self._revision
        if revision is None:
            if call is None or call.method != "server/discover":
                return {}
            assert call.params is not None
            version = call.params["_meta"][META_PREFIX + "protocolVersion"]
            return {"MCP-Protocol-Version": version, **named_headers(call.method, call.params)}
        headers: dict[str, str] = {}
        if revision.modern:
            headers["MCP-Protocol-Version"] = revision.version
            if call is not None:
                headers |= named_headers(call.method, call.params)
                headers |= self._mirror.headers(call.method, call.params)
            elif method is not None:
                headers |= named_headers(method, None)
        elif call is None or call.method != "initialize":
            if revision.version >= VERSION_HEADER_SINCE:
                headers["MCP-Protocol-Version"] = revision.version
            if self._session_id is not None:
                headers["Mcp-Session-Id"] = self._session_id
        return headers

    async def _say(self, data: bytes, method: str | None, after: asyncio.Task[None] | None) -> None:
        """A notification, or an answer to a request of the server: accepted, and nothing more."""
        await _wait_for(after)
        headers = POST_HEADERS | self._headers(method=method)
        try:
            async with asyncio.timeout(SAY_S):
                async with self._endpoint.request("POST", headers, data, first_byte_s=None) as response:
                    body = await body_of(response, REFUSAL_BYTES_MAX)
                    if response.status >= 300:
                        raise self._endpoint.refusal(response, method or "an answer", body or b"")
        except TimeoutError:
            self._session.on_garbage(RequestTimeout(f"{method or 'An answer'} was not accepted in time"))
        except Exception as error:  # nobody waits for it, but somebody may want to know
            self._session.on_garbage(error)

    async def _exchange(self, data: bytes, call: Call, after: asyncio.Task[None] | None) -> None:
        """One call, from its request to its answer. However it goes, nobody waits after it."""
        try:
            await _wait_for(after)
            if not await self._post(data, call):
                await self._post(data, call, again=True)
            if not call.future.done():
                text = f"{self._endpoint.shown} ended its answer to {call.method} too early"
                call.fail(ConnectionClosed(text))
        except AddressError as error:
            # Before anything is agreed on, the address is the likely mistake; later the server is gone.
            call.fail(error if self._revision is None else ConnectionClosed(str(error)))
        except Exception as error:  # ours to tell, or of whoever gives the authorization
            call.fail(error)

    async def _post(self, data: bytes, call: Call, again: bool = False) -> bool:
        """False: the session was lost, and there is a new one now; nothing was executed."""
        used = self._session_id if call.method != "initialize" else None
        headers = POST_HEADERS | self._headers(call)
        listens = call.method == "subscriptions/listen"
        first_byte_s = SAY_S if listens else None if call.bounded else self._first_byte_s
        parser = EventParser(self._session.limits.frame_bytes_max)
        try:
            async with self._endpoint.request("POST", headers, data, first_byte_s=first_byte_s) as response:
                lost = response.status == 404 and used is not None and self._legacy
                if not lost or again:
                    await self._answer(response, call, parser)
        except ConnectionClosed:
            if not (self._legacy and parser.last_event_id):
                raise
            lost = False
        if lost and not again:
            assert used is not None
            await self._renew(used)
            return False
        if not call.future.done() and self._legacy and parser.last_event_id:
            await self._resume(call, parser)
        return True

    # ---- in

    async def _answer(self, response: ClientResponse, call: Call, parser: EventParser) -> None:
        """The answer to a POST, whatever form it has."""
        kind = response.content_type
        if response.status == 200 and kind == EVENTS:
            if call.method == "initialize":
                self._begin(response)
            await self._events(response, parser, call)
            return
        bytes_max = self._session.limits.frame_bytes_max if response.status < 300 else REFUSAL_BYTES_MAX
        body = await body_of(response, bytes_max)
        if body is None and response.status < 300:
            call.fail(MCPError(INTERNAL_ERROR, too_long(bytes_max)))
        elif body and kind == JSON and (response.status < 300 or b'"jsonrpc"' in body):
            if call.method == "initialize" and response.status == 200:
                self._begin(response)
            self._session.take(body, call)
        if call.future.done():
            return
        if response.status >= 300:
            call.fail(self._endpoint.refusal(response, call.method, body or b""))
        else:
            what = f"{self._endpoint.shown} answered {call.method} with HTTP {response.status} and "
            what += f"{kind}, which is no answer" if body else "nothing"
            call.fail(HttpError(response.status, what))

    def _begin(self, response: ClientResponse) -> None:
        """The session that `initialize` was answered with, if it has one."""
        given = response.headers.get("Mcp-Session-Id")
        self._session_id = None
        if given is not None and given.isascii() and given.isprintable() and " " not in given:
            self._session_id = given
            self._endpoint.confide("session", given)

    async def _events(self, response: ClientResponse, parser: EventParser, call: Call | None) -> None:
        """Takes what an event stream tells until its end, or, after the answer to `call`, not much longer."""
        session, content = self._session, response.content
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as deadline:
                while chunk := await content.readany():
                    for event in parser.feed(chunk):
                        if event.data is None:
                            error = MCPError(INTERNAL_ERROR, too_long(session.limits.frame_bytes_max))
                            session.on_garbage(error) if call is None else call.fail(error)
                        elif event.data and event.type == "message":  # without data: only an id to go on from
                            session.take(event.data, call)
                    if call is not None and call.future.done() and deadline.when() is None:
                        deadline.reschedule(loop.time() + LINGER_S)
        except TimeoutError:
            pass

    async def _resume(self, call: Call, parser: EventParser) -> None:
        """Takes up the broken stream of a call after its last event, as often as it breaks."""
        failures = 0
        while not call.future.done():
            await asyncio.sleep(_pause_s(parser, failures))
            parser = EventParser(self._session.limits.frame_bytes_max, parser.last_event_id, parser.retry_ms)
            try:
                async with self._stream(parser) as response:
                    if response.status == 200 and response.content_type == EVENTS:
                        failures = 0
                        await self._events(response, parser, call)
                        continue
                    body = await body_of(response, REFUSAL_BYTES_MAX)
                    error: Exception = self._endpoint.refusal(
                        response, "the resumption of a stream", body or b""
                    )
                    if response.status < 500 and response.status not in (408, 409, 425, 429):
                        raise error
            except (ConnectionClosed, AddressError, RequestTimeout) as broken:
                error = broken
            failures += 1
            if failures >= RESUMES_MAX:
                raise ConnectionClosed(
                    f"The answer to {call.method} broke and could not be taken up: {error}"
                )

    def _stream(self, parser: EventParser) -> Any:
        headers = {"Accept": EVENTS, **self._headers()}
        if parser.last_event_id:
            headers["Last-Event-ID"] = parser.last_event_id
        return self._endpoint.request("GET", headers, first_byte_s=SAY_S)

    async def _standalone(self, after: asyncio.Task[None], used: str) -> None:
        """The stream of what belongs to no call, for as long as the session lasts; a server need not have one."""
        await _wait_for(after)
        parser = EventParser(self._session.limits.frame_bytes_max)
        opened, failures = False, 0
        while self._session_id == used and (opened or failures < RESUMES_MAX):
            status = 0
            try:
                async with self._stream(parser) as response:
                    status = response.status
                    if status == 200 and response.content_type == EVENTS:
                        opened = True
                        before = parser.last_event_id
                        await self._events(response, parser, None)
                        failures = 0 if parser.last_event_id != before else failures
            except Exception:  # also of whoever gives the authorization; calls tell it
                pass
            if status == 404 and opened:
                await self._try_renewing(used)
                return
            if 400 <= status < 500 and status not in (408, 409, 425, 429):
                return
            failures += 1
            await asyncio.sleep(_pause_s(parser, failures - 1))
            parser = EventParser(self._session.limits.frame_bytes_max, parser.last_event_id, parser.retry_ms)

    # ---- a session that was lost

    async def _renew(self, used: str) -> None:
        """Waits until there is a session in place of `used`. Raises what kept it from being made."""
        if used == self._session_id and self._renewal is None:
            self._lost = used
            self._renewal = self._start(self._session.on_lost(), "new session")
            self._renewal.add_done_callback(self._renewed)
        elif used != self._lost:
            raise ConnectionClosed("The server forgot the session, and then the new one, too")
        if self._renewal is not None:
            await asyncio.shield(self._renewal)

    def _renewed(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # looked at, even if nobody waits for it

    async def _try_renewing(self, used: str) -> None:
        try:
            await self._renew(used)
        except Exception as error:
            self._session.on_garbage(error)


async def _wait_for(task: asyncio.Task[None] | None, timeout_s: float | None = None) -> None:
    if task is not None and not task.done():
        await asyncio.wait([task], timeout=timeout_s)


def _pause_s(parser: EventParser, failures: int) -> float:
    said_s = RESUME_S if parser.retry_ms is None else parser.retry_ms / 1000
    return min(max(said_s, 0.01) * 2.0**failures, max(said_s, RESUME_MAX_S))
