"""The ways in: clients that write and read bytes by hand, and hold every byte that comes to whose it may be.

A Door opens Clients. A Client is one person, speaking one era over one transport; all of them look the same from here on:

    ask      a request and its answer                 begin, wait   the same in two steps
    tell     what is not answered                     take          what came by itself
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import socket
import struct
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


class HungUp(AssertionError):
    """The server ended a connection."""


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
        self.was = ""  # the canary of who has it open no more as far as the server is concerned: its tenant was removed
        self._tail = b""

    # ---- what each transport does

    def open(self) -> None:
        """Raises Refused."""
        raise NotImplementedError

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

    def opened(self) -> Client:
        """Itself, in use. Raises Refused."""
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

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
        own = (self.was or self.world.canaries.get(self.person.id, "")).encode()
        for found in CANARY.findall(text):
            if found != own:
                owner = next(
                    (id for id, c in self.world.canaries.items() if c.encode() == found), "one who is gone"
                )
                raise Leak(f"{self.person.name} received {found.decode()} of {owner}: {text!r}")
        self._tail = text[1 - CANARY_BYTES :]

    def forget_tail(self) -> None:
        """What comes next is another one's, of a connection that all share."""
        self._tail = b""

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

    def open(self) -> None:
        if self.era == LEGACY:
            reply = self.ask("initialize", hello())
            if reply.code is not None:
                raise Refused(reply)
            self.tell({"method": "notifications/initialized"})

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
        if not data:
            raise HungUp(f"the server hung up on {self.person.name}")
        self.heard(data)
        self._buffer += data
        for line in self.split():
            message = json.loads(line)
            if "method" in message:
                self.notes.append(message)
            else:
                self._answers[message["id"]] = message
        return True

    def first_response(self) -> Response:
        """Where the connection begins with HTTP: the head, and of a refusal all of it. What comes behind it stays."""
        response = Response()
        late = time.monotonic() + PATIENCE_S
        while not response.status or (response.status >= 400 and not response.done):
            assert time.monotonic() < late, f"{self.person.name} waits for a response"
            data = self.connection.recv(1 << 16)
            self.heard(data)
            response.feed(data)
        if response.status == 101:
            self._buffer = response.rest
        return response

    def split(self) -> Iterator[bytes]:
        """The messages that are whole; what is left stays."""
        *lines, self._buffer = self._buffer.split(b"\n")
        yield from lines

    def close(self) -> None:
        self.connection.close()


# ---------------------------------------------------------------------------------------------------- HTTP


class Response:
    """One response, read as it comes.

    `events` are (id, message) of an event stream, or the one message of a body; `ids` those of all events, also of those that say
    nothing; `endpoint` is where the stream of 2024-11-05 says that messages go.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.endpoint = ""
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

    @property
    def rest(self) -> bytes:
        """What came behind the head and is no body."""
        return self._data

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
            if fields.get("event") == "endpoint":
                self.endpoint = fields["data"]
            elif fields.get("data"):
                self.events.append((fields.get("id", ""), json.loads(fields["data"])))


def written(verb: str, target: str, headers: dict[str, str], message: dict[str, Any] | None = None) -> bytes:
    """A request as it goes over the wire."""
    said = {"Host": "localhost", "Accept": "application/json, text/event-stream", **headers}
    body = b""
    if message is not None:
        body = json.dumps(message).encode()
        said |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{verb} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class HttpWire:
    """One connection, which may be several persons', one after the other. `connect` opens it, when it is first needed."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.connect = connect
        self._socket: socket.socket | None = None
        self._heard: Callable[[bytes], None]
        self.response = Response()
        self.response.done = True

    def send(self, request: bytes, heard: Callable[[bytes], None]) -> Response:
        assert self.response.done, "the response before is not at its end"
        self.response, self._heard = Response(), heard
        if self._socket is None:
            self._socket = self.connect()
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


def over(pool: list[HttpWire], request: bytes, client: Client) -> Reply:
    """One exchange, over the connection whose turn it is. A stream that opens has no end, and is not waited for."""
    wire = pool.pop(0)
    pool.append(wire)
    client.forget_tail()
    response = wire.send(request, client.heard)
    late = time.monotonic() + PATIENCE_S
    while not response.done and not (response.status == 200 and request.startswith(b"GET")):
        assert time.monotonic() < late, f"{client.person.name} waits for a response"
        wire.pump(0.5)
    return reply_of(response)


def reply_of(response: Response) -> Reply:
    messages = [message for _, message in response.events]
    notes = [message for message in messages if "method" in message]
    answers = [message for message in messages if "method" not in message]
    return Reply(response.status, response.headers, answers[-1] if answers else None, notes)


class HttpClient(Client):
    """Streamable HTTP: 2026-07-28 request by request, or a session. What is asked goes over connections that all share."""

    def __init__(
        self,
        world: World,
        person: Person,
        era: str,
        pool: list[HttpWire],
        path: str,
        *,
        owns_pool: bool = False,
    ) -> None:
        super().__init__(world, person, era)
        self.pool = pool
        self._owned = pool if owns_pool else []
        self.path = path
        self.session = ""
        self._open: dict[
            int, tuple[HttpWire, int]
        ] = {}  # exchanges of our own, and how many of its events were taken

    def open(self) -> None:
        if self.era == LEGACY:
            reply = self.ask("initialize", hello())
            if reply.status != 200:
                raise Refused(reply)
            self.session = reply.headers["mcp-session-id"]
            self.tell({"method": "notifications/initialized"})

    # ---- requests

    def request(self, verb: str, message: dict[str, Any] | None = None, **headers: str) -> bytes:
        said = {**self.world.credentials(self.person), "MCP-Protocol-Version": self.era}
        if self.era == MODERN and message is not None and "method" in message:
            said["Mcp-Method"] = message["method"]
            named = message.get("params", {}).get(NAMED_BY.get(message["method"], ""))
            said |= {"Mcp-Name": named} if named else {}
        elif self.session:
            said["Mcp-Session-Id"] = self.session
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        return written(verb, self.path, said, message)

    def over_pool(self, request: bytes) -> Reply:
        return over(self.pool, request, self)

    def ask(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> Reply:
        return self.over_pool(self.request("POST", self.message(method, params, meta)))

    def tell(self, message: dict[str, Any]) -> Reply | None:
        return self.over_pool(self.request("POST", {"jsonrpc": "2.0", **message}))

    def begin(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> int:
        message = self.message(method, params, meta)
        wire = HttpWire(self.pool[0].connect)
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
        return reply_of(wire.response)

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
        wire = HttpWire(self.pool[0].connect)
        self._open[STREAM] = wire, 0
        response = wire.send(self.request("GET", None, **headers), self.heard)
        late = time.monotonic() + PATIENCE_S
        while not response.status or not (response.status == 200 or response.done):
            assert time.monotonic() < late, f"{self.person.name} waits for a stream"
            wire.pump(0.5)
        if response.status != 200:
            self.close_stream()
        return reply_of(response)

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
        for wire in [*self._owned, *(wire for wire, _ in self._open.values())]:
            wire.close()
        self._open.clear()


# ---------------------------------------------------------------------------------------------------- WebSocket, 2024-11-05


class WebSocket(Duplex):
    """A message a frame."""

    def __init__(
        self, world: World, person: Person, era: str, connection: socket.socket, prefix: str
    ) -> None:
        super().__init__(world, person, era, connection)
        self.path = f"{prefix}/mcp"

    def open(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        asks = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        asks |= {
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Protocol": "mcp",
            **self.world.credentials(self.person),
        }
        self.connection.sendall(written("GET", self.path, asks))
        response = self.first_response()
        if response.status != 101:
            raise Refused(reply_of(response))
        super().open()

    def write(self, message: bytes) -> None:
        """A masked frame of text."""
        size = len(message)
        head = b"\x81" + (bytes((128 | size,)) if size < 126 else struct.pack("!BH", 128 | 126, size))
        self.connection.sendall(head + bytes(4) + message)  # the mask of zeroes is one, too

    def split(self) -> Iterator[bytes]:
        while len(self._buffer) >= 2:
            first, size = self._buffer[0], self._buffer[1]
            at = 2
            if size == 126:
                at, size = 4, int.from_bytes(self._buffer[2:4], "big")
            if len(self._buffer) < at + size:
                return
            message, self._buffer = self._buffer[at : at + size], self._buffer[at + size :]
            assert first == 0x81, (first, message)
            yield message


class Old(Duplex):
    """A stream that is got, and messages that are posted beside it, over connections that all share."""

    def __init__(
        self,
        world: World,
        person: Person,
        era: str,
        connection: socket.socket,
        pool: list[HttpWire],
        prefix: str,
    ) -> None:
        super().__init__(world, person, era, connection)
        self.pool = pool
        self.path = f"{prefix}/sse"
        self.stream = Response()
        self._taken = 0

    def open(self) -> None:
        self.connection.sendall(written("GET", self.path, self.world.credentials(self.person)))
        self.stream = self.first_response()
        if self.stream.status != 200:
            raise Refused(reply_of(self.stream))
        late = time.monotonic() + PATIENCE_S
        while not self.stream.endpoint:
            assert time.monotonic() < late, f"{self.person.name} waits for the endpoint"
            self.pump(0.5)
        super().open()

    def write(self, message: bytes) -> None:
        """Who is not let in is told at once."""
        request = written(
            "POST", self.stream.endpoint, self.world.credentials(self.person), json.loads(message)
        )
        reply = over(self.pool, request, self)
        assert reply.status == 202 or reply.answer is not None, reply
        if reply.answer is not None and "id" in reply.answer:
            self._answers[reply.answer["id"]] = reply.answer

    def split(self) -> Iterator[bytes]:
        """What is in the buffer are bytes of the stream."""
        self.stream.feed(self._buffer)
        self._buffer = b""
        events, self._taken = self.stream.events[self._taken :], len(self.stream.events)
        for _, message in events:
            yield json.dumps(message).encode()


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


def as_person(world: World, person: Person, path: str) -> Callable[[], socket.socket]:
    """Connects to a Unix socket as the user that the person is."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        with as_user(UIDS[person.name]):
            connection.connect(path)
        return connection

    return connect


def over_web(world: World) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(world.web, PATIENCE_S)


def through_unix(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Duplex(world, person, era, as_person(world, person, world.socket)()).opened()


def through_tcp(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Duplex(world, person, era, socket.create_connection(world.tcp, PATIENCE_S)).opened()


def through_stdio(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Duplex(world, person, era, world.connect_as_the_process()).opened()


def through_http(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return HttpClient(world, person, era, pool, f"{prefix}/mcp").opened()


def through_unix_http(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    """Here the connection says who it is, and the heads of all are the same."""
    own = [HttpWire(as_person(world, person, world.web_socket))]
    return HttpClient(world, person, era, own, f"{prefix}/mcp", owns_pool=True).opened()


def through_websocket(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return WebSocket(world, person, era, over_web(world)(), prefix).opened()


def through_sse(world: World, person: Person, era: str, pool: list[HttpWire], prefix: str) -> Client:
    return Old(world, person, era, over_web(world)(), pool, prefix).opened()


ERAS = (LEGACY, MODERN)
IN_HEADERS = frozenset({"key", "token", "nothing", "garbage", "expired"})
DOORS = {
    door.name: door
    for door in (
        Door("http", IN_HEADERS, ERAS, through_http, prefixes=True),
        Door("websocket", IN_HEADERS, ERAS, through_websocket, prefixes=True),
        Door("sse", IN_HEADERS, ERAS, through_sse, prefixes=True),
        Door("unix", frozenset({"uid"}), ERAS, through_unix),
        Door("unix+http", frozenset({"uid"}), ERAS, through_unix_http),
        Door("stdio", frozenset({"environment"}), ERAS, through_stdio),
        Door("tcp", frozenset({"nothing"}), ERAS, through_tcp),
    )
}
