# cython: language_level=3
"""The way of one message, table of contents.

    Wire      the prepared bytes of one revision
    Request   one request of a client that outlives the bytes it came in
    Engine    what the channels of one server on one loop share
    Channel   one connection: lines in, calls, answers out (_stream: over descriptors)
    Batch     the answers of a JSON-RPC batch, until the last is there
"""
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from mcpfast._caller cimport Caller, Pass
from mcpfast._calls cimport Carrier, Carriers, Source
from mcpfast._entry cimport Entry
from mcpfast._quota cimport Gate
from mcpfast._core cimport Block, Blocks, Inbox, Outbox, Shapes, Table, frame_t, span_t


cdef class Wire:
    cdef readonly str revision
    cdef readonly int index
    cdef readonly bint modern
    cdef readonly bytes version  # raw JSON of the revision, as `_meta` names it
    cdef bytes text_open, text_close, both_open, both_close
    cdef readonly bint structured


cdef class Request:
    cdef readonly Channel channel
    cdef readonly bytes id
    cdef readonly str method
    cdef readonly bytes params
    cdef readonly bytes progress_token
    cdef readonly bytes version
    cdef public Wire wire
    cdef public Entry entry
    cdef readonly object task
    cdef readonly object cancelled
    cdef readonly bint alive
    cdef readonly size_t bytes_in
    cdef public object state
    cdef public double started_s
    cdef public Caller caller  # whose it is, where tenants are served
    cdef readonly Pass entered  # where tenants are served: what it is held to, and gives back
    cdef object timer         # ends it when it took all the time that it may
    cdef readonly bint timed_out
    cdef Batch batch


cdef class Batch:
    cdef Channel channel
    cdef list parts
    cdef Py_ssize_t pending
    cdef bint sealed
    cdef int add(self, bytes part) except -1
    cdef int send_if_whole(self) except -1


cdef class Engine:
    cdef readonly object loop, upper
    cdef readonly Carriers carriers
    cdef readonly Blocks blocks
    cdef readonly Table tools
    cdef readonly tuple modern_wires
    cdef Table log_levels
    cdef object route, notice, response, malformed, batch, failed, refused, make_context, plain
    cdef public object observer
    cdef public bint closing
    cdef public object tenancy  # None: nobody is asked, and it costs one comparison
    cdef public Gate gate       # of all calls of the process, where that has a limit
    cdef public size_t generation  # what was found out about callers before is no longer so
    cdef public double epoch_ahead_s  # of time.monotonic
    cdef public double now_s          # where tenants are served: when the lines came that are read, or the call went on that ends
    cdef readonly int depth_max
    cdef readonly size_t frame_bytes_max, id_bytes_max, output_high_bytes, output_low_bytes, output_bytes_max, output_cork_bytes
    cdef readonly Py_ssize_t connection_calls_max
    cdef readonly size_t answered  # requests that got an answer, since the start
    cdef Entry routed
    cdef void* served_last  # the channel, only to be compared
    cdef list unflushed     # channels whose answers leave together
    cdef bint flushing
    cdef int flush_later(self, Channel channel) except -1
    cdef int flush_together(self) except -1
    cdef Shapes shapes
    cdef list shape_entries, shape_wires  # what each shape calls, and the wire where the message itself names it
    cdef size_t shapes_version
    cdef char* spare
    cdef size_t spare_size


cdef class Channel(Source):
    cdef readonly Engine engine
    cdef Inbox inbox
    cdef Outbox outbox
    cdef bint writing, corked, held, flushing
    cdef readonly bint reading
    cdef readonly bint closed, ended_input
    cdef public Wire wire  # negotiated by `initialize`; None before
    cdef public object session
    cdef public Caller caller  # whose requests these are, where tenants are served
    cdef Pass entered          # of the call that begins now, until there is a Request
    cdef object taken_future
    cdef public object owner  # the transport: told of `input_ended()`, `calls_ended()` and `lost(reason)`
    cdef dict in_flight
    cdef Batch batch
    cdef readonly size_t reads  # grows with every read: what the idle sweep looks at
    cdef Block submitted
    cdef int budget  # lines that may still be handled in this turn of the loop
    cdef const char* line  # the one that is handled
    cdef int message(self, Carrier carrier, frame_t* frame, size_t bytes_in) except -1
    cdef int learn(self, Entry entry, Wire wire, frame_t* frame, size_t bytes_in) except -1
    cdef int again(self, Carrier carrier, const char* line) except -1
    cdef Wire wire_of(self, frame_t* frame)
    cdef int call(self, Carrier carrier, Entry entry, Wire wire, frame_t* frame, size_t bytes_in) except -1
    cdef int enter(self, span_t id, Entry entry, size_t bytes_in) except -1
    cdef inline int depart(self, Pass entered, size_t bytes_out) except -1
    cdef int undo(self, size_t bytes_in) except -1
    cdef inline bint too_large(self, span_t id, Request request, str name, size_t mark) except -1
    cdef int leave(self, Carrier carrier) except -1
    cdef int run(self, Carrier carrier, Entry entry, Wire wire, Request request, PyObject* coroutine,
                 frame_t* frame, size_t bytes_in) except -1
    cdef int other(self, Carrier carrier, frame_t* frame, size_t bytes_in) except -1
    cdef int serve(self, Carrier carrier, Request request) except -1
    cdef int unusual(self, int kind, frame_t* frame, const char* at, size_t count) except -1
    cdef Request request_of(self, frame_t* frame, Entry entry, Wire wire, size_t bytes_in)
    cdef int register(self, Request request, object task) except -1
    cdef int stop_if_closed(self, Request request) except -1
    cdef int answer(self, span_t id, Request request, Entry entry, Wire wire, PyObject* value) except -1
    cdef int put_text(self, span_t id, Wire wire, const char* text, Py_ssize_t count, bint structured) except -1
    cdef inline int open_line(self, span_t id, size_t more) except -1
    cdef int put(self, bytes line) except -1
    cdef int received(self, size_t count) except -1
    cdef int take_in(self, const char* data, size_t total) except -1
    cdef size_t put_line_in(self, const char* message, size_t count) except 0
    cdef int put_line(self, span_t id, Request request, bytes tail) except -1
    cdef int fail(self, span_t id, Request request, Entry entry, Wire wire, object error) except -1
    cdef int over(self, Request request, size_t mark, str outcome) except -1
    cdef int pump(self) except -1
    cdef int flush_soon(self) except -1
    cdef int orphaned(self) except -1
    cdef int flush(self) except -1
    cdef int tell_taken(self) except -1
    cdef int drained(self) except -1
    cdef int stop_reading(self) except -1
