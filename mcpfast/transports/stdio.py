"""stdio: one client, the process's own stdin and stdout.

The descriptors are opened anew through /proc/self/fd with O_NONBLOCK, because that flag belongs to the open file, which the
parent and other processes share: set on the shared one it breaks them. Where that does not work:

    a socket             it cannot be opened anew, and need not: every recv and send says MSG_DONTWAIT itself
    a file               it never blocks; opened anew it would begin at its start, and forget that it appends
    a file, /dev/null    epoll refuses them, and they never block: read a piece each turn of the loop
    no /proc (macOS)     O_NONBLOCK is set on the shared file and taken back at the end

While it serves, fd 0 is /dev/null and fd 1 is stderr, for Python and for subprocesses: a stray `print` cannot break the stream.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcpfast.errors import AddressError
from mcpfast.server.session import Peer
from mcpfast.transports.stream import Stream

if TYPE_CHECKING:
    from mcpfast.server.host import Host


class Diversion:
    """stdin and stdout taken over: `read_fd` and `write_fd` are ours, 0 and 1 lead elsewhere until `restore`.

    Raises AddressError where one of them is closed, or stdio is served by this process already.
    """

    _taken = False

    def __init__(self) -> None:
        if Diversion._taken:
            raise AddressError("stdio: this process serves it already")
        self._undo: list[Callable[[], None]] = []
        self.read_fd, self.watchable = self._take_over(0, os.O_RDONLY)
        self.write_fd, _ = self._take_over(1, os.O_WRONLY)
        read_socket, write_socket = _is(stat.S_ISSOCK, self.read_fd), _is(stat.S_ISSOCK, self.write_fd)
        self.is_socket = read_socket and write_socket
        if read_socket != write_socket:
            # one flag serves both ways of a Channel; a pipe in one direction needs plain read and write
            self._set_blocking(self.read_fd if read_socket else self.write_fd, False)
        self._divert()
        self.adopted = False  # whoever serves on the descriptors closes them, too
        Diversion._taken = True
        self._undo.append(_give_back)

    def _take_over(self, fd: int, mode: int) -> tuple[int, bool]:
        """A descriptor of our own for stdin or stdout that does not block, and whether a loop can watch it."""
        try:
            kind = os.fstat(fd).st_mode
        except OSError:
            raise AddressError(f"stdio: {'stdin' if fd == 0 else 'stdout'} is closed") from None
        if stat.S_ISSOCK(kind):
            return os.dup(fd), True
        if stat.S_ISREG(kind):
            return os.dup(fd), False
        try:
            own = os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            own = os.dup(fd)
            self._set_blocking(own, False)
        return own, _watchable(own)

    def _set_blocking(self, fd: int, blocking: bool) -> None:
        before = os.get_blocking(fd)
        os.set_blocking(fd, blocking)
        shared = os.dup(fd)  # ours may be closed by the time it is taken back

        def back() -> None:
            os.set_blocking(shared, before)
            os.close(shared)

        self._undo.append(back)

    def _divert(self) -> None:
        """fd 0 reads nothing, fd 1 writes to stderr, until the end."""
        if sys.stdout is not None:
            sys.stdout.flush()
        kept_in, kept_out = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        try:
            os.dup2(2, 1)
        except OSError:  # no stderr: nowhere to write to
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)
        for kept, fd in ((kept_in, 0), (kept_out, 1)):
            self._undo.append(lambda kept=kept, fd=fd: _put_back(kept, fd))  # type: ignore[misc]

    def restore(self) -> None:
        """Gives stdin and stdout back as they were."""
        if sys.stdout is not None:
            try:
                sys.stdout.flush()  # what was printed meanwhile goes to stderr, not to the client
            except OSError:
                pass
        if not self.adopted:
            os.close(self.read_fd)
            os.close(self.write_fd)
        while self._undo:
            self._undo.pop()()


class Stdio:
    """The client at stdin and stdout. `on_closed()` is called when it is gone."""

    def __init__(self, host: Host, diverted: Diversion, on_closed: Callable[[], None]) -> None:
        self._host = host
        self._on_closed = on_closed
        self._watched = -1
        diverted.adopted = True
        self.stream = Stream(
            host,
            diverted.read_fd,
            diverted.write_fd,
            is_socket=diverted.is_socket,
            peer=Peer("stdio"),
            grace_s=host.server.limits.eof_grace_s,
            watchable=diverted.watchable,
            on_closed=self._closed,
        )
        self.stream.channel.start_reading()
        if _is(stat.S_ISFIFO, diverted.write_fd):
            # The writing end of a pipe becomes "readable" when its reader is gone: noticed at once, not at the next answer.
            self._watched = os.dup(diverted.write_fd)
            host.loop.add_reader(self._watched, self._check_reader)

    def _check_reader(self) -> None:
        poll = select.poll()
        poll.register(self._watched, 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            self.stream.lost("stdout was closed by its reader")

    def _closed(self, stream: Stream) -> None:
        if self._watched >= 0:
            self._host.loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1
        self._on_closed()


def _is(kind: Callable[[int], bool], fd: int) -> bool:
    return kind(os.fstat(fd).st_mode)


def _watchable(fd: int) -> bool:
    """Whether a loop can watch it: epoll refuses regular files and some devices, /dev/null among them."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    if not hasattr(select, "epoll"):
        return True
    poll: Any = select.epoll()
    try:
        poll.register(fd, 0)
    except OSError:
        return False
    finally:
        poll.close()
    return True


def _give_back() -> None:
    Diversion._taken = False


def _put_back(kept: int, fd: int) -> None:
    os.dup2(kept, fd)
    os.close(kept)
