"""The ways in: clients that write and read bytes by hand, and hold every byte that comes to whose it may be.

A Door opens Clients. A Client is one person, speaking one era over one transport; all of them look the same from here on:

    ask      a request and its answer                 begin, wait   the same in two steps
    tell     what is not answered                     take          what came by itself
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.isolation.world import CANARY, CANARY_BYTES, MAY_BE_ANYBODY, PATIENCE_S, UIDS, Person, World

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"
CAPABILITIES: dict[str, Any] = {"elicitation": {}}
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
STREAM = 0  # among the ids of exchanges: the GET of a session
POOL = 2  # connections that all share, as behind a proxy


class Leak(AssertionError):
    """Somebody received what is another one's."""


class Reply(NamedTuple):
    """`status` is that of HTTP, 0 elsewhere; `answer` the message that answers, `notes` those that came before it."""

    status: int
    headers: dict[str, str]
    answer: dict[str, Any] | None
    notes: list[dict[str, Any]]

    @property
    def code(self) -> int | None:
        """The error's, None without one."""
        error = (self.answer or {}).get("error")
        return None if error is None else error["code"]

    @property
    def result(self) -> dict[str, Any]:
        assert self.answer is not None and "result" in self.answer, self
        result: dict[str, Any] = self.answer["result"]
        return result


class Refused(Exception):
    """The transport itself let the person not in."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class Client:
    """One person over one transport. `era` is a revision."""

    _ids = itertools.count(1)

    def __init__(self, world: World, person: Person, era: str) -> None:
        self.world = world
        self.person = person
        self.era = era
        self.notes: list[dict[str, Any]] = []
        self.uris: set[str] = set()  # subscribed to
        self._tail = b""

    # ---- what each transport does

    def begin(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> int:
        raise NotImplementedError

    def wait(self, id: int) -> Reply:
        raise NotImplementedError

    def tell(self, message: dict[str, Any]) -> Reply | None:
        raise NotImplementedError

    def pump(self, seconds: float) -> bool:
        """Reads what comes within that time, once; False where nothing did."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # ---- what all do

    def ask(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> Reply:
        return self.wait(self.begin(method, params, **meta))

    def answered(self, id: int) -> bool:
        """Whether the answer is here already."""
        raise NotImplementedError

    def note(self, method: str, id: int = 0) -> dict[str, Any]:
        """The next notification or question of this method, waited for and taken; of the request with this `id`, which waits."""
        late = time.monotonic() + PATIENCE_S
        while True:
            for at, message in enumerate(self.notes):
                if message["method"] == method:
                    return self.notes.pop(at)
            assert not id or not self.answered(id), f"{self.person.name} is told no {method}: {self.wait(id)}"
            assert time.monotonic() < late, f"{self.person.name} waits for {method}"
            self.pump(0.5)

    def take(self) -> list[dict[str, Any]]:
        """What came by itself so far."""
        while self.pump(0):
            pass
        taken, self.notes = self.notes, []
        return taken

    def heard(self, data: bytes) -> None:
        """Every byte passes here."""
        text = self._tail + data
        own = self.world.canaries.get(self.person.id, "").encode()
        for found in CANARY.findall(text):
            if found != own:
                owner = next(
                    (id for id, c in self.world.canaries.items() if c.encode() == found), "one who is gone"
                )
                raise Leak(f"{self.person.name} received {found.decode()} of {owner}: {text!r}")
        self._tail = text[1 - CANARY_BYTES :]

    def message(self, method: str, params: dict[str, Any] | None, meta: dict[str, Any]) -> dict[str, Any]:
        params = dict(params or {})
        if self.era == MODERN:
            meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": CAPABILITIES, **meta}
            meta[META + "logLevel"] = "debug"
        if method == "tools/call":
            meta = {**meta, "progressToken": "p"}
        if meta:
            params["_meta"] = meta
        return {"jsonrpc": "2.0", "id": next(Client._ids), "method": method, "params": params}


# ---------------------------------------------------------------------------------------------------- lines


class Duplex(Client):
    """One connection for everything: a message a line."""

    def __init__(self, world: World, person: Person, era: str, connection: socket.socket) -> None:
        super().__init__(world, person, era)
        self.connection = connection
        self._buffer = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._began: dict[int, int] = {}

    def open(self) -> Duplex:
        """Raises Refused."""
        if self.era == LEGACY:
            reply = self.ask("initialize", hello())
            if reply.code is not None:
                self.close()
                raise Refused(reply)
            self.tell({"method": "notifications/initialized"})
        return self

    def begin(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> int:
        message = self.message(method, params, meta)
        id: int = message["id"]
        self._began[id] = len(self.notes)
        self.write(json.dumps(message).encode())
        return id

    def wait(self, id: int) -> Reply:
        late = time.monotonic() + PATIENCE_S
        while id not in self._answers:
            assert time.monotonic() < late, f"{self.person.name} waits for an answer"
            self.pump(0.5)
        began = self._began.pop(id)
        notes, self.notes = self.notes[began:], self.notes[:began]
        return Reply(0, {}, self._answers.pop(id), notes)

    def answered(self, id: int) -> bool:
        return id in self._answers

    def tell(self, message: dict[str, Any]) -> Reply | None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode())
        return None

    def write(self, message: bytes) -> None:
        self.connection.sendall(message + b"\n")

    def pump(self, seconds: float) -> bool:
        if not select.select([self.connection], [], [], seconds)[0]:
            return False
        data = self.connection.recv(1 << 16)
        assert data, f"the server hung up on {self.person.name}"
        self.heard(data)
        self._buffer += data
        for line in self.split():
            message = json.loads(line)
            if "method" in message:
                self.notes.append(message)
            else:
                self._answers[message["id"]] = message
        return True

    def split(self) -> Iterator[bytes]:
        """The messages that are whole; what is left stays."""
        *lines, self._buffer = self._buffer.split(b"\n")
        yield from lines

    def close(self) -> None:
        self.connection.close()


# ---------------------------------------------------------------------------------------------------- HTTP


class Response:
    """One response, read as it comes. `events` are (id, message) of an event stream, or the one message of a body; `ids` are those
    of all events, also of those that say nothing."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self._data = b""
        self._body = b""

    def feed(self, data: bytes) -> None:
        self._data += data
        if not self.status:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split()[1])
            named = (line.partition(":") for line in lines)
            self.headers = {name.lower(): value.strip() for name, _, value in named}
            self._data = rest
        if self.headers.get("transfer-encoding") == "chunked":
            self._chunks()
        elif len(self._data) >= int(self.headers.get("content-length", "0")):
            self.done = True
            if self._data and self.headers.get("content-type") == "application/json":
                self.events.append(("", json.loads(self._data)))

    def _chunks(self) -> None:
        while not self.done:
            size, end, rest = self._data.partition(b"\r\n")
            if not end or len(rest) < int(size, 16) + 2:
                break
            piece, self._data = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            self._body += piece
            self.done = not piece
        *whole, self._body = self._body.split(b"\n\n")
        for event in whole:
            fields = dict(line.split(": ", 1) for line in event.decode().split("\n") if ": " in line)
            if "id" in fields:
                self.ids.append(fields["id"])
            if fields.get("data"):
                self.events.append((fields.get("id", ""), json.loads(fields["data"])))


class HttpWire:
    """One connection, which may be several persons', one after the other."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._heard: Callable[[bytes], None]
        self.response = Response()
        self.response.done = True

    def send(self, request: bytes, heard: Callable[[bytes], None]) -> Response:
        assert self.response.done, "the response before is not at its end"
        self.response, self._heard = Response(), heard
        if self._socket is None:
            self._socket = socket.create_connection(self.address, PATIENCE_S)
        self._socket.sendall(request)
        return self.response

    def pump(self, seconds: float) -> bool:
        if self._socket is None or not select.select([self._socket], [], [], seconds)[0]:
            return False
        data = self._socket.recv(1 << 16)
        if not data:
            self.close()
            self.response.done = True
            return False
        self._heard(data)
        self.response.feed(data)
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class HttpClient(Client):
    """Streamable HTTP: 2026-07-28 request by request, or a session. What is asked goes over connections that all share."""

    def __init__(self, world: World, person: Person, era: str, pool: list[HttpWire], path: str) -> None:
        super().__init__(world, person, era)
        self.pool = pool
        self.path = path
        self.session = ""
        self._open: dict[
            int, tuple[HttpWire, int]
        ] = {}  # exchanges of our own, and how many of its events were taken

    def open(self) -> HttpClient:
        """Raises Refused."""
        if self.era == LEGACY:
            reply = self.ask("initialize", hello())
            if reply.status != 200:
                raise Refused(reply)
            self.session = reply.headers["mcp-session-id"]
            self.tell({"method": "notifications/initialized"})
        return self

    # ---- requests

    def request(self, verb: str, message: dict[str, Any] | None = None, **headers: str) -> bytes:
        said = {"Host": "localhost", "Accept": "application/json, text/event-stream"}
        said |= self.world.credentials(self.person)
        body = b""
        if message is not None:
            body = json.dumps(message).encode()
            said |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        said["MCP-Protocol-Version"] = self.era
        if self.era == MODERN and message is not None and "method" in message:
            said["Mcp-Method"] = message["method"]
            named = message.get("params", {}).get(NAMED_BY.get(message["method"], ""))
            said |= {"Mcp-Name": named} if named else {}
        elif self.session:
            said["Mcp-Session-Id"] = self.session
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{verb} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def over_pool(self, request: bytes) -> Reply:
        """One exchange, over the connection whose turn it is."""
        wire = self.pool.pop(0)
        self.pool.append(wire)
        self._tail = b""
        response = wire.send(request, self.heard)
        late = time.monotonic() + PATIENCE_S
        while not response.done:
            assert time.monotonic() < late, f"{self.person.name} waits for a response"
            wire.pump(0.5)
        return self._reply(response)

    def _reply(self, response: Response) -> Reply:
        messages = [message for _, message in response.events]
        notes = [message for message in messages if "method" in message]
        answers = [message for message in messages if "method" not in message]
        return Reply(response.status, response.headers, answers[-1] if answers else None, notes)

    def ask(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> Reply:
        return self.over_pool(self.request("POST", self.message(method, params, meta)))

    def tell(self, message: dict[str, Any]) -> Reply | None:
        return self.over_pool(self.request("POST", {"jsonrpc": "2.0", **message}))

    def begin(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> int:
        message = self.message(method, params, meta)
        wire = HttpWire(self.world.web)
        wire.send(self.request("POST", message), self.heard)
        self._open[message["id"]] = wire, 0
        return int(message["id"])

    def wait(self, id: int) -> Reply:
        wire, _ = self._open[id]
        late = time.monotonic() + PATIENCE_S
        while not wire.response.done:
            assert time.monotonic() < late, f"{self.person.name} waits for an answer"
            wire.pump(0.5)
        self.drop(id)
        return self._reply(wire.response)

    def answered(self, id: int) -> bool:
        return self._open[id][0].response.done

    def event_ids(self, id: int) -> list[str]:
        """Of what came for a request so far."""
        return self._open[id][0].response.ids

    def drop(self, id: int) -> None:
        """Hangs up in the middle: in the modern era this cancels."""
        self._open.pop(id)[0].close()

    # ---- what comes by itself

    def open_stream(self, **headers: str) -> Reply:
        """The GET of a session, in the place of the one before; what comes on it is among the notes."""
        self.close_stream()
        wire = HttpWire(self.world.web)
        self._open[STREAM] = wire, 0
        response = wire.send(self.request("GET", None, **headers), self.heard)
        late = time.monotonic() + PATIENCE_S
        while not response.status or not (response.status == 200 or response.done):
            assert time.monotonic() < late, f"{self.person.name} waits for a stream"
            wire.pump(0.5)
        if response.status != 200:
            self.close_stream()
        return self._reply(response)

    @property
    def has_stream(self) -> bool:
        return STREAM in self._open

    def close_stream(self) -> None:
        if self.has_stream:
            self.drop(STREAM)

    def pump(self, seconds: float) -> bool:
        came = False
        for id, (wire, taken) in list(self._open.items()):
            came = wire.pump(seconds / len(self._open)) or came
            events = wire.response.events
            self.notes += [message for _, message in events[taken:] if "method" in message]
            self._open[id] = wire, len(events)
        return came

    def close(self) -> None:
        for wire, _ in self._open.values():
            wire.close()
        self._open.clear()


def hello() -> dict[str, Any]:
    return {
        "protocolVersion": LEGACY,
        "capabilities": CAPABILITIES,
        "clientInfo": {"name": "iso", "version": "1"},
    }


# ---------------------------------------------------------------------------------------------------- doors


class Door(NamedTuple):
    """A transport: what its clients can show, in which eras, and how one comes in: `open(world, person, era, pool, prefix)`."""

    name: str
    shows: frozenset[str]
    eras: tuple[str, ...]
    open: Callable[[World, Person, str, list[HttpWire], str], Client]
    prefixes: bool = False  # a path may name the tenant


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Another user for a moment: the kernel tells the other end of a Unix socket who connected."""
    if not MAY_BE_ANYBODY:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def through_unix(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    connection = socket.socket(socket.AF_UNIX)
    with as_user(UIDS[person.name]):
        connection.connect(world.socket)
    return Duplex(world, person, era, connection).open()


def through_tcp(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Duplex(world, person, era, socket.create_connection(world.tcp, PATIENCE_S)).open()


def through_stdio(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Duplex(world, person, era, world.connect_as_the_process()).open()


def through_http(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return HttpClient(world, person, era, pool, f"{prefix}/mcp").open()


ERAS = (LEGACY, MODERN)
IN_HEADERS = frozenset({"key", "token", "nothing", "garbage", "expired"})
DOORS = {
    door.name: door
    for door in (
        Door("http", IN_HEADERS, ERAS, through_http, prefixes=True),
        Door("unix", frozenset({"uid"}), ERAS, through_unix),
        Door("stdio", frozenset({"environment"}), ERAS, through_stdio),
        Door("tcp", frozenset({"nothing"}), ERAS, through_tcp),
    )
}
