"""The server's end of the door: it opens when somebody rings, lets one visitor in, and is gone when that one goes.

    SIGURG    ring     a socket listens, for OPEN_S at most; nobody comes: it closes
              admit    the kernel says who came: only the server's own user and root, one at a time
              serve    a question a line, an answer a line, each within a deadline
              close    the visitor goes, is silent for too long, or the server ends; what watched for him ends with him

It is the server's to close. Nothing in here raises into the server: what goes wrong is one line in its log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from mcpfast import __version__
from mcpfast.live import doorway
from mcpfast.live.messages import (
    Answer,
    Greeting,
    Look,
    Question,
    Refused,
    Take,
    Watch,
    Watching,
)
from mcpfast.protocol.messages import make_decoder

if TYPE_CHECKING:
    from mcpfast.live.lag import LagMeter
    from mcpfast.live.pauses import PauseWatch
    from mcpfast.live.stalls import StallWatch
    from mcpfast.live.state import State
    from mcpfast.server.host import Host

KNOCKS_MAX = 64  # strangers who are sent away before an open door closes: anybody on the machine can knock
logger = logging.getLogger("mcpfast")


class Door:
    """Of one `host`, which is served at `addresses`; `exchanges` gives those over HTTP. `ring` and `close` are the server's."""

    def __init__(
        self, host: Host, addresses: list[str], exchanges: Callable[[], Iterable[Any]] = lambda: ()
    ) -> None:
        self._host = host
        self._addresses = addresses
        self._exchanges = exchanges
        self._open: asyncio.Task[None] | None = None
        self._visit: asyncio.Task[None] | None = None
        self._visitor: _Visit | None = None

    def ring(self) -> None:
        """Opens, where it is not open already."""
        if self._open is None or self._open.done():
            self._open = self._host.loop.create_task(self._wait(), name="mcpfast-door")

    def close(self) -> None:
        for task in (self._open, self._visit):
            if task is not None:
                task.cancel()

    async def _wait(self) -> None:
        """For one visitor."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
                listening.setblocking(False)
                listening.bind(doorway.name_of(os.getpid()))
                listening.listen(1)
                async with asyncio.timeout(doorway.OPEN_S):
                    for _ in range(KNOCKS_MAX):
                        connection, _ = await self._host.loop.sock_accept(listening)
                        if self._admit(connection):
                            return
        except TimeoutError:
            pass
        except Exception as error:
            logger.warning("cannot open the door to look into this server: %s", error)

    def _admit(self, connection: socket.socket) -> bool:
        """Whether whoever knocked was somebody to wait for: let in, or told to come again."""
        connection.setblocking(False)
        who = doorway.other_end(connection)
        if not doorway.may_look(who.uid, os.geteuid()):
            _refuse(connection, "only the server's own user and root may look into it")
            return False
        if self._visit is not None and not self._visit.done():
            if self._visitor is not None and not self._visitor.gone:
                _refuse(connection, "somebody looks into this server already; one at a time")
                return True
            self._visit.cancel()  # its end was not read yet
        visitor = self._visitor = _Visit(self._host, connection, self._addresses, self._exchanges)
        self._visit = self._host.loop.create_task(visitor.serve(), name="mcpfast-visit")
        return True


def _refuse(connection: socket.socket, why: str) -> None:
    with connection:
        try:
            connection.send(msgspec.json.encode(Refused(why)) + b"\n")
        except OSError:
            pass  # gone, or it takes nothing


class _Visit:
    """One visitor, from the greeting to the end."""

    def __init__(
        self,
        host: Host,
        connection: socket.socket,
        addresses: list[str],
        exchanges: Callable[[], Iterable[Any]],
    ) -> None:
        self._host = host
        self._loop = host.loop
        self._connection = connection
        self._asked = bytearray()
        self._decode = make_decoder(Question).decode
        self._served = addresses, exchanges
        self._state: State | None = None
        self._meter: LagMeter | None = None
        self._watch: StallWatch | PauseWatch | None = None

    @property
    def gone(self) -> bool:
        """The visitor has left, whether that was read already or not."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def serve(self) -> None:
        try:
            await self._say(Greeting(doorway.PROTOCOL, __version__, sys.version.split()[0]))
            while (question := await self._question()) is not None:
                await self._say(await self._answer(question))
        except (OSError, TimeoutError):
            pass  # gone, or silent
        except Exception as error:
            logger.warning("a look into this server failed: %r", error)
        finally:
            self._connection.close()
            for watcher in (self._meter, self._watch):
                if watcher is not None:
                    watcher.close()
            self._state = self._meter = self._watch = None

    async def _question(self) -> Any:
        """The next one; None at the end, and for what is none."""
        async with asyncio.timeout(doorway.SILENCE_S):
            while b"\n" not in self._asked:
                read = await self._loop.sock_recv(self._connection, doorway.ASK_BYTES_MAX)
                self._asked += read
                if not read or len(self._asked) > doorway.ASK_BYTES_MAX:
                    return None
        line, _, rest = self._asked.partition(b"\n")
        self._asked = rest
        try:
            return self._decode(line)
        except msgspec.DecodeError as error:
            await self._say(Refused(f"not understood: {error}"))
            return None

    async def _say(self, answer: Answer) -> None:
        line = msgspec.json.encode(answer) + b"\n"
        if len(line) > doorway.ANSWER_BYTES_MAX:
            line = msgspec.json.encode(Refused("there is more to tell than is told at once")) + b"\n"
        async with asyncio.timeout(doorway.SEND_S):
            await self._loop.sock_sendall(self._connection, line)

    async def _answer(self, question: Question) -> Answer:
        if isinstance(question, Look):
            return await self._look(question.limit)
        if isinstance(question, Watch):
            return self._begin(question)
        assert isinstance(question, Take)
        return (
            self._watch.take() if self._watch is not None else Refused("nothing is watched: ask for it first")
        )

    async def _look(self, limit: int) -> Answer:
        if self._meter is None:
            from mcpfast.live.lag import LagMeter

            self._meter = LagMeter(self._loop)
        if self._state is None:
            from mcpfast.live.state import State

            self._state = State(self._host, *self._served)
        return await self._state.look(limit, self._meter.take())

    def _begin(self, asked: Watch) -> Answer:
        if self._watch is not None:
            return Refused("one thing is watched already")
        if asked.what == "gc":
            return self._begin_gc()
        from mcpfast.live.stalls import StallWatch

        watch = self._watch = StallWatch(self._loop, self._host.server, asked.threshold_s)
        return Watching(perf_counter(), watch.beat_s)

    def _begin_gc(self) -> Answer:
        import gc

        from mcpfast.live.pauses import PauseWatch

        self._watch = PauseWatch(self._host.server)
        first, second, third = gc.get_threshold()
        return Watching(
            perf_counter(),
            enabled=gc.isenabled(),
            thresholds=(first, second, third),
            frozen=gc.get_freeze_count(),
        )
