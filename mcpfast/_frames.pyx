# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A channel of whole messages: each that comes is a line of the inbox, each line of the outbox leaves by itself."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

from mcpfast._core cimport Outbox
from mcpfast._spine cimport Channel, Engine


@cython.final
cdef class FrameChannel(Channel):
    """One connection. `write(message)` sends one, bytes without a newline behind; it may call `pause_writing` from inside.

    owner.hold_input()   owner.take_input()   beside what every channel asks of its owner
    """

    def __init__(self, Engine engine not None, owner, write):
        Channel.__init__(self, engine, owner)
        self.write, self.reading = write, True

    def message_in(self, bytes data not None):
        """One message in. Whether it is one is the spine's to say."""
        if self.closed or self.ended_input:
            return
        if memchr(PyBytes_AS_STRING(data), c"\n", PyBytes_GET_SIZE(data)) != NULL:
            data = self.engine.upper.one_line(data)
        if self.held:
            self.put_behind(data)
        else:
            self.received(self.put_line_in(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)))
        if not self.closed and self.reading and self.outbox.waiting() > self.engine.output_high_bytes:
            self.stop_reading()

    cdef int put_behind(self, bytes data) except -1:
        "The others have their turn, or the warm Tasks are being made: `resume` goes on with what is in the inbox."
        self.inbox.commit(self.put_line_in(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)))
        return 0

    cdef int stop_reading(self) except -1:
        if self.reading:
            self.reading = False
            self.owner.hold_input()
        return 0

    cdef int flush(self) except -1:
        "Every line there is, as long as they are taken."
        cdef Outbox outbox = self.outbox
        cdef const char* at
        cdef const char* end
        while outbox.sent < outbox.end and not self.closed and not self.writing:
            at = outbox.data + outbox.sent
            end = <const char*>memchr(at, c"\n", outbox.end - outbox.sent)
            message = at[:end - at]
            outbox.sent += end + 1 - at
            self.write(message)
        if self.closed or outbox.waiting():
            return 0
        return self.drained()

    def pause_writing(self):
        """The client takes nothing for now: what is answered waits."""
        self.writing = True

    def resume_writing(self):
        """The client takes answers again."""
        self.writing = False
        self.flush()
        if self.closed or self.writing:
            return
        self.tell_taken()
        if not self.reading and not self.ended_input and not self.engine.closing:
            self.reading = True
            self.owner.take_input()
        if not self.held:
            self.held = True
            self.engine.loop.call_soon(self.resume)
        if (self.ended_input or self.engine.closing) and not self.calls:
            self.owner.calls_ended()
