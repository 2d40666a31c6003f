"""What both ends of the door agree on before a word is said: where it is, who stands in it, how much is said at once."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

PROTOCOL = 1  # of what is said; another one is refused with a word
OPEN_S = 5.0  # an open door waits so long for a visitor
SILENCE_S = 60.0  # a visitor who says nothing for so long is sent away
SEND_S = 10.0  # and so is one who does not take an answer
ASK_BYTES_MAX = 4 << 10
ANSWER_BYTES_MAX = 16 << 20


class Person(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel knows it: its user cannot say otherwise."""

    pid: int
    uid: int
    gid: int


def name_of(pid: int) -> bytes:
    """The abstract socket of a process (unix(7)): no file is left behind, whatever becomes of it."""
    return b"\0mcpfast-live-%d" % pid


def other_end(connection: socket.socket) -> Person:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Person(*struct.unpack("3i", raw))


def may_look(uid: int, own: int) -> bool:
    """Who may look into a server: its own user, and root. An abstract socket has no rights that would say so."""
    return uid in (own, 0)
