"""A server that a test writes line by line, for what no real server does: faults, odd orders, silence.

No tests here.

Everything that the client sends is held to the schema of the revision agreed on.
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import jsonschema_rs

from mcpfast.client import Client
from mcpfast.client.transport import Reader, Transport, Writer

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
SPEC = Path(__file__).parent / "spec"
CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {"subscribe": True}, "prompts": {}, "logging": {}}


@functools.cache
def validator(revision: str, name: str) -> Any:
    whole = json.loads((SPEC / revision / "schema.json").read_text())
    where = "$defs" if "$defs" in whole else "definitions"
    return jsonschema_rs.validator_for(
        {"$schema": whole["$schema"], where: whole[where], "$ref": f"#/{where}/{name}"}
    )


def hold(revision: str, message: dict[str, Any]) -> None:
    """Fails where a message of the client is not what the schema of `revision` says."""
    assert message["jsonrpc"] == "2.0"
    if "method" in message:
        # ClientNotification of 2026-07-28 wants the envelope-free shape of `cancelled` only, and has no
        # others (Q8).
        kind = "ClientRequest" if "id" in message else "ClientNotification"
        validator(revision, kind).validate(message)
    elif "result" in message:
        validator(revision, "ClientResult").validate(message["result"])
    else:
        assert isinstance(message["error"]["code"], int)
        assert isinstance(message["error"]["message"], str)


class Fake:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.revision: str | None = None
        self.seen: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        """The next message of the client; an empty one at the end."""
        line = await self.reader.readline()
        if not line:
            return {}
        message: dict[str, Any] = json.loads(line)
        if self.revision is not None:
            hold(self.revision, message)
        self.seen.append(message)
        return message

    def send(self, *messages: Any) -> None:
        """Messages, or bytes as they are, in one write."""
        self.writer.write(
            b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)
        )

    def answer(self, request: dict[str, Any], result: dict[str, Any] | None = None, **members: Any) -> None:
        known = {"resultType": "complete"} if self.revision == MODERN else {}
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": known | (result or {}) | members})

    def text(self, request: dict[str, Any], text: str) -> None:
        """Answers a tool call with this text."""
        self.answer(request, content=[{"type": "text", "text": text}])

    def refuse(self, request: dict[str, Any], code: int, message: str = "no", data: Any = None) -> None:
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error})

    def tell(self, method: str, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, id: Any, method: str, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    async def initialized(self, revision: str = "2025-11-25", **result: Any) -> dict[str, Any]:
        """Plays a legacy server until the session is open; the client's params of `initialize`."""
        request = await self.receive()
        if request["method"] == "server/discover":
            self.refuse(request, -32601)
            request = await self.receive()
        assert request["method"] == "initialize"
        info = {"name": "fake", "version": "1"}
        self.answer(
            request,
            {"protocolVersion": revision, "capabilities": CAPABILITIES, "serverInfo": info} | result,
        )
        self.revision = revision
        assert (await self.receive())["method"] == "notifications/initialized"
        params: dict[str, Any] = request["params"]
        return params

    async def discovered(self, *versions: str) -> dict[str, Any]:
        """Plays a modern server until it was discovered; the client's `_meta`."""
        request = await self.receive()
        assert request["method"] == "server/discover"
        self.answer(
            request,
            supportedVersions=list(versions or (MODERN,)),
            capabilities=CAPABILITIES,
            ttlMs=0,
            cacheScope="private",
            _meta={META + "serverInfo": {"name": "fake", "version": "2"}},
            resultType="complete",
        )
        self.revision = MODERN
        meta: dict[str, Any] = request["params"]["_meta"]
        return meta

    def close(self) -> None:
        self.writer.close()


Script = Callable[[Fake], Awaitable[None]]


class FakeTransport(Transport):
    """Each time it is opened the next script plays the server; what fails in a script fails the test."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.opened = 0
        self._open: tuple[asyncio.StreamWriter, Fake, asyncio.Task[None]] | None = None

    async def open(self) -> tuple[Reader, Writer]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        fake = Fake(*await asyncio.open_unix_connection(sock=theirs, limit=1 << 24))
        script = self.scripts[self.opened]
        self.opened += 1

        async def play() -> None:
            await script(fake)

        self._open = writer, fake, asyncio.create_task(play(), name="script")
        return reader, writer

    async def played(self) -> None:
        """Waits until the script is through."""
        assert self._open is not None
        await asyncio.wait([self._open[2]])

    async def close(self) -> None:
        if self._open is None:
            return
        (writer, fake, task), self._open = self._open, None
        writer.close()
        _, late = await asyncio.wait([task], timeout=2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        fake.writer.transport.abort()
        writer.transport.abort()
        await asyncio.sleep(0)
        assert not late, f"the script waits for something that did not come; it has seen {fake.seen}"
        task.result()


def fake_client(*scripts: Script, **options: Any) -> Client:
    return Client(FakeTransport(*scripts), **{"timeout_s": 5.0} | options)


async def played(client: Client) -> None:
    """Waits, inside `async with`, until the script of this client is through."""
    assert isinstance(client._transport, FakeTransport)
    await client._transport.played()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a test; no task may be left at its end."""

    async def held() -> None:
        async with asyncio.timeout(15):
            await coroutine
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(held())
