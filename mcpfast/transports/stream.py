"""One connection: its life and its end; and the one over descriptors. Transports differ only in where their bytes come from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from mcpfast._stream import StreamChannel
from mcpfast.server.session import Peer, Session

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from mcpfast._spine import Channel
    from mcpfast.server.host import Host


class Connection:
    """Owns a Channel whose life is that of its session; closed once, and then `_release(reason)` is called.

    The end, in order: the client's last byte (EOF); what was received is answered if it is done within `grace_s`, the rest is
    cancelled; nothing half-written; what is below is closed. A connection that breaks skips the waiting. A drain is the same,
    begun by us.
    """

    __slots__ = ("_grace_s", "_host", "_timer", "channel", "session")

    def __init__(self, host: Host, peer: Peer, grace_s: float) -> None:
        self._host = host
        self._grace_s = grace_s
        self._timer: TimerHandle | None = None
        self.channel = self._make_channel()
        self.session = Session(host.server.limits, peer)
        self.session.channel = self.channel
        self.channel.session = self.session
        host.opened(self.session)

    def _make_channel(self) -> Channel:
        raise NotImplementedError

    def _release(self, reason: str) -> None:
        raise NotImplementedError

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
        self._release(reason)


class Stream(Connection):
    """Over a descriptor to read and one to write, which may be the same: stdio, TCP, Unix sockets. It closes them."""

    __slots__ = ("_is_socket", "_on_closed", "_read_fd", "_watchable", "_write_fd")

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
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._is_socket = is_socket
        self._on_closed = on_closed
        self._watchable = watchable
        super().__init__(host, peer, grace_s)

    channel: StreamChannel

    def _make_channel(self) -> StreamChannel:
        return StreamChannel(
            self._host.engine, self._read_fd, self._write_fd, self._is_socket, self, self._watchable
        )

    def _release(self, reason: str) -> None:
        os.close(self._read_fd)
        if self._write_fd != self._read_fd:
            os.close(self._write_fd)
        self._on_closed(self)
