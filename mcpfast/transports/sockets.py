"""TCP and Unix sockets: many clients, each a Stream over its own descriptor."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING

from mcpfast.errors import AddressError
from mcpfast.server.session import Peer
from mcpfast.transports.addresses import Address
from mcpfast.transports.stream import Stream

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from mcpfast.server.host import Host

logger = logging.getLogger("mcpfast")
BACKLOG = 1024
ACCEPTS_A_TURN = 64
ACCEPT_PAUSE_S = (
    0.1  # without a free descriptor: the connections in the backlog wait, and the loop does not spin
)


class Listener:
    """A listening socket and its connections. `address` is what it is bound to: the port that was given for port 0."""

    def __init__(self, host: Host, address: Address) -> None:
        self._host = host
        self._limits = host.server.limits
        self._streams: set[Stream] = set()
        self._accepting = False
        self._sweep: TimerHandle | None = None
        self._silent: dict[Stream, tuple[int, int]] = {}  # reads so far, sweeps without one
        self._socket = bind_unix(address) if address.kind == "unix" else bind_tcp(address)
        self._file = identity(address.socket) if address.kind == "unix" else None
        self.address = address
        if address.kind == "tcp":
            name = self._socket.getsockname()
            self.address = address._replace(port=name[1])
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self._accept_more()
        if self._limits.idle_s > 0:
            self._sweep_later()

    # ---------------------------------------------------------------- connections in

    def _accept_more(self) -> None:
        if self._socket.fileno() >= 0 and not self._accepting:
            self._accepting = True
            self._host.loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, name = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                logger.warning("cannot accept connections for now: %s", os.strerror(error.errno))
                self._accepting = False
                self._host.loop.remove_reader(self._socket.fileno())
                self._host.loop.call_later(ACCEPT_PAUSE_S, self._accept_more)
                return
            if len(self._host.sessions) >= self._limits.connections_max:
                self._host.dispatcher.log_refusal("refused a connection: limits.connections_max is reached")
                connection.close()
                continue
            self._open(connection, name)

    def _open(self, connection: socket.socket, name: object) -> None:
        if self.address.kind == "tcp":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host, port = name[:2] if isinstance(name, tuple) else ("", 0)
            peer = Peer("tcp", f"{host}:{port}")
        else:
            peer = Peer("unix", self.address.socket, peer_credentials(connection))
        fd = connection.detach()
        stream = Stream(
            self._host,
            fd,
            fd,
            is_socket=True,
            peer=peer,
            grace_s=self._limits.eof_grace_s,
            on_closed=self._streams.discard,
        )
        self._streams.add(stream)
        stream.channel.start_reading()

    # ---------------------------------------------------------------- idle ones

    def _sweep_later(self) -> None:
        self._sweep = self._host.loop.call_later(self._limits.idle_s / 2, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Closes what stayed silent, with nothing in flight, over two whole sweeps: after `idle_s` to one and a half of it."""
        silent = {}
        for stream in list(self._streams):
            channel = stream.channel
            reads, sweeps = self._silent.get(stream, (-1, 0))
            if not channel.idle or reads != channel.reads:
                silent[stream] = (channel.reads, 0)
            elif sweeps >= 1:
                stream.close("the connection was idle")
            else:
                silent[stream] = (reads, sweeps + 1)
        self._silent = silent
        self._sweep_later()

    # ---------------------------------------------------------------- the end

    def stop_listening(self) -> None:
        """No further connections; a Unix socket's file goes."""
        if self._socket.fileno() < 0:
            return
        if self._accepting:
            self._accepting = False
            self._host.loop.remove_reader(self._socket.fileno())
        if self._sweep is not None:
            self._sweep.cancel()
        if self._file is not None:
            remove_file(self.address.socket, self._file)
        self._socket.close()

    def drain(self, deadline_s: float) -> None:
        """Ends listening; each connection ends when its calls have, at `deadline_s` at the latest."""
        self.stop_listening()
        for stream in list(self._streams):
            stream.drain(deadline_s)

    def close(self) -> None:
        """At once."""
        self.stop_listening()
        for stream in list(self._streams):
            stream.close("the server is closing")

    @property
    def busy(self) -> bool:
        """Nothing is under way that no session tells of."""
        return False

    @property
    def connections(self) -> int:
        return len(self._streams)


def identity(path: str) -> tuple[int, int] | None:
    """Which file this is, or None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove_file(path: str, made: tuple[int, int] | None) -> None:
    """The file of a Unix socket goes with it: the one that was made, not one that replaced it."""
    if identity(path) == made:
        try:
            os.unlink(path)
        except OSError as error:
            logger.warning("cannot remove %s: %s", path, error.strerror)


def peer_credentials(connection: socket.socket) -> tuple[int, int, int] | None:
    """(pid, uid, gid) of the process at the other end of a Unix socket, told by the kernel; None where it does not tell."""
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, uid, gid


def bind_tcp(address: Address) -> socket.socket:
    """A bound socket. Raises AddressError."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, name = found[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(name)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from None
    return bound


def bind_unix(address: Address) -> socket.socket:
    """A Unix socket that only its owner may use (0600, from the first moment on); a stale file is replaced, a live one is not."""
    _remove_stale(address)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(bound.fileno(), 0o600)  # Linux makes the file with these rights: no moment without them
        bound.bind(address.socket)
        os.chmod(address.socket, 0o600)
    except OSError as error:
        bound.close()
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from None
    return bound


def _remove_stale(address: Address) -> None:
    try:
        kind = os.lstat(address.socket).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from None
    if not stat.S_ISSOCK(kind):
        raise AddressError(
            f"cannot listen on {address}: there is a file that is no socket; remove it or choose another path"
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(address.socket)
    except ConnectionRefusedError:  # nobody listens: a server that died left it
        os.unlink(address.socket)
        return
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {error.strerror or error}") from None
    finally:
        probe.close()
    raise AddressError(f"cannot listen on {address}: another server listens there already")
