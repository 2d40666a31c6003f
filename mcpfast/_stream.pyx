# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A channel over descriptors: two system calls around the spine, and what happens when the other side is slow.

Descriptors do not block: one that is opened for us has O_NONBLOCK; a socket is asked not to, call by call, because its flags
may be shared with another process. The loop is told of a descriptor, never of a transport: the callback is this object's own
method (a Python wrapper costs 700 instructions), and a connection at rest has no buffer.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno

from mcpfast._core cimport Outbox
from mcpfast._spine cimport Channel, Engine

cdef extern from "unistd.h" nogil:
    ssize_t read(int, void*, size_t)
    ssize_t write(int, const void*, size_t)

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL


@cython.final
cdef class StreamChannel(Channel):
    """One connection over a descriptor to read and one to write, which may be the same."""

    def __init__(self, Engine engine not None, int read_fd, int write_fd, bint is_socket, owner, bint watchable=True):
        Channel.__init__(self, engine, owner)
        self.read_fd, self.write_fd, self.is_socket, self.watchable = read_fd, write_fd, is_socket, watchable

    # ------------------------------------------------------------------------------------------ in

    def on_readable(self):
        """The loop's callback: reads once, handles every whole line, writes once."""
        cdef char* at = NULL
        cdef size_t room
        cdef ssize_t count
        cdef int number
        if self.held or self.closed:
            return
        room = self.inbox.room(&at)
        count = recv(self.read_fd, at, room, MSG_DONTWAIT) if self.is_socket else read(self.read_fd, at, room)
        if count <= 0:
            number = errno if count < 0 else 0
            self.inbox.settle()
            if count == 0:
                self.end_input()
            elif number != EAGAIN and number != EINTR:
                self.lose(number)
            return
        self.received(count)

    def start_reading(self):
        """From now on input is read as it comes; a file, which no loop can watch, piece by piece at each turn."""
        self.reading = True
        if self.watchable:
            self.engine.loop.add_reader(self.read_fd, self.on_readable)
        elif not self.turning:
            self.turning = True
            self.engine.loop.call_soon(self.read_piece)

    def read_piece(self):
        """The next piece of a file."""
        if self.reading:
            self.on_readable()
        self.turning = self.reading and not self.closed
        if self.turning:
            self.engine.loop.call_soon(self.read_piece)

    cdef int stop_reading(self) except -1:
        if self.reading:
            self.reading = False
            if self.watchable:
                self.engine.loop.remove_reader(self.read_fd)
        return 0

    # ------------------------------------------------------------------------------------------ out

    cdef int flush(self) except -1:
        "One write for all that waits. What a full pipe does not take waits for on_writable."
        cdef Outbox outbox = self.outbox
        cdef Engine engine = self.engine
        cdef ssize_t count
        while outbox.sent < outbox.end and not self.closed:
            if self.is_socket:
                count = send(self.write_fd, outbox.data + outbox.sent, outbox.waiting(), MSG_DONTWAIT | MSG_NOSIGNAL)
            else:
                count = write(self.write_fd, outbox.data + outbox.sent, outbox.waiting())
            if count >= 0:
                outbox.sent += count
            elif errno == EAGAIN:
                if not self.writing:
                    self.writing = True
                    engine.loop.add_writer(self.write_fd, self.on_writable)
                if outbox.waiting() > engine.output_low_bytes:
                    self.stop_reading()
                return 0
            elif errno != EINTR:
                self.lose(errno)
                return 0
        return self.drained()

    def on_writable(self):
        """The loop's callback: the client takes answers again."""
        self.flush()
        if self.closed:
            return
        if self.outbox.waiting() == 0 and self.writing:
            self.writing = False
            self.engine.loop.remove_writer(self.write_fd)
        if self.outbox.waiting() <= self.engine.output_low_bytes:
            self.tell_taken()
        if self.outbox.waiting() <= self.engine.output_low_bytes and not self.reading:
            if not self.ended_input and not self.engine.closing:
                self.start_reading()
            if not self.held:
                self.held = True
                self.engine.loop.call_soon(self.resume)  # not inside this callback: the loop's turn is fair
        if self.outbox.waiting() == 0 and (self.ended_input or self.engine.closing) and not self.calls:
            self.owner.calls_ended()

    # ------------------------------------------------------------------------------------------ the end

    cdef int lose(self, int number) except -1:
        "The connection broke."
        self.owner.lost(f"connection lost (errno {number})")

    def close(self):
        """Takes the descriptors from the loop; closing them is the owner's."""
        if self.closed:
            return
        self.stop_reading()
        if self.writing:
            self.writing = False
            self.engine.loop.remove_writer(self.write_fd)
        Channel.close(self)
