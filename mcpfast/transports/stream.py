"""One connection over descriptors: its life and its end. stdio and sockets differ only in where the descriptors come from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mcpfast._stream import StreamChannel
from mcpfast.server.session import Peer, Session

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from mcpfast.server.host import Host


class Stream:
    """Owns the descriptors and the Channel on them; closed once, and then `on_closed(stream)` is called.

    The end, in order: the client's last byte (EOF); what was received is answered if it is done within `grace_s`, the rest is
    cancelled; nothing half-written; descriptors closed. A connection that breaks skips the waiting. A drain is the same,
    begun by us.
    """

    __slots__ = ("_grace_s", "_host", "_on_closed", "_read_fd", "_timer", "_write_fd", "channel", "session")

    def __init__(
        self,
        host: Host,
        read_fd: int,
        write_fd: int,
        *,
        is_socket: bool,
        peer: Peer,
        grace_s: float,
        on_closed: Callable[[Stream], None],
        watchable: bool = True,
    ) -> None:
        self._host = host
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._grace_s = grace_s
        self._on_closed = on_closed
        self._timer: TimerHandle | None = None
        self.channel = StreamChannel(host.engine, read_fd, write_fd, is_socket, self, watchable)
        self.session = Session(host.server.limits, peer)
        self.session.channel = self.channel
        self.channel.session = self.session
        host.opened(self.session)

    # ---------------------------------------------------------------- told by the channel

    def input_ended(self) -> None:
        self._end_within(self._grace_s)

    def calls_ended(self) -> None:
        """Nothing is in flight any more and the end has begun: what is answered leaves, then it is over."""
        self.channel.flush_now()
        if self.channel.idle:
            self.close()

    def lost(self, reason: str) -> None:
        self.close(reason)

    # ---------------------------------------------------------------- ending

    def drain(self, deadline_s: float) -> None:
        """Begins the end from our side: reads nothing more."""
        self.channel.pause()
        self._end_within(deadline_s)

    def _end_within(self, seconds: float) -> None:
        if self.channel.closed:
            return
        self.session.end_listens()
        self.channel.flush_now()
        if self.channel.idle:
            self.close()
        elif self._timer is None:
            self._timer = self._host.loop.call_later(seconds, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        self.channel.cancel_calls("the connection is closing")
        self.channel.flush_now()
        self.close()

    def close(self, reason: str = "the connection is closed") -> None:
        """At once: calls in flight are cancelled, none of them is answered."""
        channel = self.channel
        if channel.closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        channel.close()
        channel.cancel_calls(reason)
        self._host.closed(self.session)
        os.close(self._read_fd)
        if self._write_fd != self._read_fd:
            os.close(self._write_fd)
        self._on_closed(self)
