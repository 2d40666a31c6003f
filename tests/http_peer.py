"""HTTP servers for `test_client_http.py`: the official SDK's in a process of its own, and one that a test writes. No tests here."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_client_fake import CAPABILITIES, META, MODERN
from tests.test_client_servers import OFFICIAL, PEERS

START_S = 30.0

# What the shared server gets on top, to be served over HTTP: `python server.py PORT '{"json_response": true}'`.
HTTP = """
import json, signal, socket
from typing import Annotated
from pydantic import Field
from mcp.server.streamable_http import EventMessage, EventStore

requests = []

class Store(EventStore):
    def __init__(self):
        self.events = []
    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events))
    async def replay_events_after(self, last_event_id, send):
        stream = self.events[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.events, 1):
            if of == stream and number > int(last_event_id) and message is not None:
                await send(EventMessage(message, str(number)))
        return stream

@server.tool()
async def polled(ctx: Context) -> str:
    await ctx.report_progress(1, 2)
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    await ctx.report_progress(2, 2)
    return "polled"

@server.tool()
async def measured(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    count: Annotated[int, Field(json_schema_extra={"x-mcp-header": "Count"})] = 1,
) -> str:
    return f"{region} {count}"

@server.tool()
def requests_seen() -> list[list[str]]:
    return requests

def recorded(app):
    async def record(scope, receive, send):
        if scope["type"] == "http":
            told = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
            requests.append([scope["method"], json.dumps(told)])
        await app(scope, receive, send)
    return record

if __name__ == "__main__":
    import uvicorn
    port, options = int(sys.argv[1]), json.loads(sys.argv[2])
    if options.pop("events", False):
        options.update(event_store=Store(), retry_interval=50)
    app = server.sse_app() if options.pop("sse", False) else server.streamable_http_app(**options)
    uvicorn.Server(uvicorn.Config(recorded(app), port=port, log_level="warning", timeout_graceful_shutdown=1)).run()
"""


class Peer:
    """The official server as a process, reached at `url`; `stop` and `start` keep the port."""

    def __init__(self, folder: Path, **options: Any) -> None:
        python = PEERS[0].python
        if python is None:
            pytest.skip("no official server here: set MCPFAST_PEER_PYTHON to a Python that has mcp 2.3.0")
        file = folder / "http_server.py"
        file.write_text(OFFICIAL.partition("if __name__")[0] + HTTP)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self._command = [python, str(file), str(self.port), json.dumps(options)]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        async with asyncio.timeout(START_S):
            while True:
                assert self._process.poll() is None, "the server did not start"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()


class Request:
    """One request as it came in."""

    def __init__(self, verb: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.verb = verb
        self.target = target
        self.headers = headers
        self.message: dict[str, Any] = json.loads(body) if body else {}

    @property
    def method(self) -> str | None:
        return self.message.get("method")


class Reply:
    """What a script says to one request."""

    def __init__(self, writer: asyncio.StreamWriter, request: Request) -> None:
        self.writer = writer
        self.request = request
        self.chunked = False

    def raw(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        """A whole answer."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def result(self, **result: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "id": self.request.message["id"], "result": result}).encode()

    def text(self, text: str) -> bytes:
        return self.result(content=[{"type": "text", "text": text}], resultType="complete")

    def error(self, code: int, message: str = "no", data: Any = None) -> bytes:
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        return json.dumps({"jsonrpc": "2.0", "id": self.request.message["id"], "error": error}).encode()

    def discovered(self, **headers: str) -> None:
        """Plays a modern server."""
        members = {"supportedVersions": [MODERN], "capabilities": CAPABILITIES, "ttlMs": 0}
        members |= {"cacheScope": "private", "resultType": "complete"}
        self.raw(
            200,
            self.result(**members, _meta={META + "serverInfo": {"name": "fake", "version": "2"}}),
            **headers,
        )

    def initialized(self, revision: str = "2025-11-25", **headers: str) -> None:
        """Plays a legacy server."""
        info = {"name": "fake", "version": "1"}
        body = self.result(protocolVersion=revision, capabilities=CAPABILITIES, serverInfo=info)
        self.raw(200, body, **headers)

    def stream(self, *events: bytes) -> None:
        """Begins an event stream if there is none, and says some of it; `end` ends it."""
        if not self.chunked:
            self.chunked = True
            self.writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
        for event in events:
            self.writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Ends the connection in the middle of whatever it was."""
        self.writer.close()


def event(data: bytes, id: str | None = None) -> bytes:
    return (f"id: {id}\n" if id is not None else "").encode() + b"data: " + data + b"\n\n"


Script = Callable[[Request, Reply], Awaitable[None]]


class FakeHttp:
    """An HTTP server whose every answer is the test's; `async with FakeHttp(script) as fake: ... fake.url`."""

    def __init__(self, script: Script, tls: Any = None) -> None:
        self.script = script
        self.tls = tls
        self.seen: list[Request] = []
        self.open = 0  # connections
        self.failed: list[BaseException] = []
        self.url = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> FakeHttp:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.failed:
            raise self.failed[0]

    def methods(self) -> list[str | None]:
        return [request.method or request.verb for request in self.seen]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            while request := await self._receive(reader):
                self.seen.append(request)
                await self.script(request, Reply(writer, request))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.failed.append(error)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        verb, target, _ = first.split(" ")
        return Request(verb, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def modern(request: Request, reply: Reply) -> None:
    if request.method == "server/discover":
        reply.discovered()
    else:
        reply.raw(200, reply.text("ok"))


def answering(*calls: Any, discover: Any = None) -> Any:
    """A modern server that answers tool calls with these functions of the reply, one after another."""
    left = [*calls]

    async def script(request: Request, reply: Reply) -> None:
        if request.method == "server/discover":
            reply.discovered()
        else:
            outcome = left.pop(0)(reply) if left else reply.raw(200, reply.text("ok"))
            if outcome is not None:
                await outcome

    return script


def legacy(*calls: Any, get: Any = None, session: str | None = "s-1") -> Any:
    """The same in the legacy era; `get` answers the GET requests, 405 without."""
    left = [*calls]

    async def script(request: Request, reply: Reply) -> None:
        if request.verb == "GET":
            outcome = None if get is None else get(request, reply)
            if outcome is not None:
                await outcome
            elif get is None:
                reply.raw(405)
        elif request.verb == "DELETE":
            reply.raw(200)
        elif request.method == "initialize":
            reply.initialized(**({} if session is None else {"Mcp_Session_Id": session}))
        elif "id" not in request.message:
            reply.raw(202)
        else:
            outcome = left.pop(0)(reply) if left else reply.raw(200, reply.text("ok"))
            if outcome is not None:
                await outcome

    return script
