# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The way of one message, from top to bottom:

    on_readable   bytes are read into a block                              (_stream: system call 1)
    pump          whole lines are handled, inside a warm Task              (_calls)
    drain         one line after the other: scan_frame, once, strictly     (_scan.h)
    message       who: which era, which revision;  may it;  look up
    call          arguments (msgspec, from the block), handler, first step
    answer        the result behind prepared bytes, into the outbox
    flush         everything of this batch in one write                    (_stream: system call 2)

What is not a plain `tools/call` leaves at `message` for `other`: the same stations, decided in Python (the `upper` room, see
server/dispatch.py). Every doubt goes there too, so that each refusal has one author.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.time cimport monotonic
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport INFINITY
from libc.stdlib cimport free
from libc.string cimport memchr, memcpy

from mcpfast._calls cimport DRAINED, WAITS
from mcpfast._quota cimport ADMITTED_BY_ALL, verdict_of, verdict_t
from mcpfast._entry cimport ARGUMENTS_MAX, KIND_BODY, KIND_TEXT
from mcpfast._core cimport (
    SCAN_ARRAY, SCAN_BAD, SCAN_BLANK, SCAN_DEEP, SCAN_META, SCAN_ODD, SCAN_OK, SCAN_SCALAR, Block,
    SCAN_SHAPED, SHAPES, raise_pending, same, scan_frame, scan_is_id, scan_write_string, span_bytes,
)

cdef extern from "Python.h":
    int PyIter_Send(PyObject*, PyObject*, PyObject**)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    void Py_DECREF(PyObject*)
    void Py_INCREF(PyObject*)
    PyObject* Py_None

cdef enum:
    OTHERWISE = 2            # beside DRAINED and WAITS: not known by its shape, or not decided here
    ENTERED = 3              # the call may begin
    LINES_A_TURN = 1_000     # lines of one connection that are handled before the loop looks after the others
    TEXT_CHUNK = 1 << 14     # text is escaped in pieces of this size, so that room is asked for what is really there
    SPARE_MAX = 4 << 20      # output memory of this size is kept for the next channel
    DEPTH_MAX = 1_000        # the scan goes down by recursion, in C: whatever a limit says, the stack must hold
    FLUSH_TOGETHER = 16      # each write may wake a client: 100 clients on a processor are served at 1.4 times the rate
    DIRTY_MAX = 3            # a tool that left its Task unclean this often gets Tasks of its own

cdef size_t FRAME_MAX = 0xFFFFFFFF  # a span's length has 32 bits

cdef bytes PREFIX = b'{"jsonrpc":"2.0","id":'
cdef bytes RESULT = b',"result":'
cdef bytes END = b"}\n"
cdef bytes VERSION_2 = b'"2.0"'
cdef bytes TOOLS_CALL = b'"tools/call"'


cdef inline span_t span_of(bytes text) noexcept:
    cdef span_t span
    span.at, span.len = PyBytes_AS_STRING(text), <uint32_t>PyBytes_GET_SIZE(text)
    return span


@cython.final
cdef class Wire:
    """The prepared bytes of one revision: what stands before, between and behind the two copies of a text result."""

    def __init__(self, str revision, int index, bint modern, bint structured, bytes text_open, bytes text_close,
                 bytes both_open, bytes both_close):
        self.revision, self.index, self.modern, self.structured = revision, index, modern, structured
        self.version = b'"' + revision.encode() + b'"'
        self.text_open, self.text_close = text_open, text_close
        self.both_open, self.both_close = both_open, both_close


@cython.final
@cython.freelist(64)
cdef class Request:
    """One request of a client that outlives the bytes it came in.

    `id`, `progress_token` and `version` (as `_meta` names it) are raw JSON, `params` the raw JSON object; None for absent.
    `cancelled` is None or the reason, and then
    nothing is answered any more; `alive` ends with the answer. `state` is the upper room's. `started_s` is of the clock
    `time.monotonic`.
    """

    def cancel(self, reason):
        """Cancels the Task behind it; False when it is over. From now on the client is sent nothing for it."""
        if not self.alive or self.cancelled is not None:
            return False
        self.cancelled = reason or "cancelled"
        if self.task is not None:
            self.task.cancel()
        return True

    def enter(self, Pass granted not None):
        """It may begin, and what was taken for it is given back at its end. Its time, where that has a limit, begins."""
        self.entered = granted
        if self.timer is None and granted.call_s_max < INFINITY:  # counted from when it came: it may have waited for a place
            self.timer = self.channel.engine.loop.call_later(
                max(0.0, granted.call_s_max - (monotonic() - self.started_s)), self.time_is_up)

    def time_is_up(self):
        """It took all the time that it may: the refusal is told when its handler has ended."""
        if self.alive and self.cancelled is None and self.task is not None:
            self.timed_out = True
            self.task.cancel()


@cython.final
cdef class Batch:
    """The answers of one JSON-RPC batch (2025-03-26): they leave as one array when the last is there."""

    def __init__(self, Channel channel not None):
        self.channel = channel
        self.parts = []

    cdef int add(self, bytes part) except -1:
        self.parts.append(part)
        return 0

    def seal(self):
        """No further message belongs to it."""
        self.sealed = True
        self.send_if_whole()

    cdef int send_if_whole(self) except -1:
        if self.sealed and self.pending == 0 and self.parts:
            self.channel.put(b"[" + b",".join(self.parts) + b"]\n")
            self.parts.clear()
        return 0


@cython.final
cdef class Engine:
    """What the channels of one server on one loop share. `upper` decides what is not hot; its methods are bound once.

    upper.route(request) -> bytes | coroutine             upper.failed(request, entry, wire, error) -> bytes | None
    upper.notice(channel, method, params)                 upper.refused(entry, wire, error) -> bytes
    upper.response(channel, id, result, error)            upper.malformed(channel, why, id, line) -> bytes | None
    upper.batch(channel, raw, items)                      upper.make_context(request) -> object
    upper.plain(line) -> bytes | None                     upper.text(raw) -> str
    upper.over_quota(channel, verdict, name) -> bytes     tenancy.hand_over()
    """

    def __init__(self, loop, upper, Carriers carriers not None, Table tools not None, tuple modern_wires not None,
                 Table log_levels not None, limits):
        self.loop, self.upper, self.carriers, self.tools = loop, upper, carriers, tools
        self.modern_wires, self.log_levels = modern_wires, log_levels
        self.blocks = Blocks()
        self.unflushed = []
        self.shapes = Shapes()
        self.shape_entries, self.shape_wires = [None] * SHAPES, [None] * SHAPES
        self.route, self.notice, self.response = upper.route, upper.notice, upper.response
        self.malformed, self.batch, self.failed = upper.malformed, upper.batch, upper.failed
        self.refused, self.make_context, self.plain = upper.refused, upper.make_context, upper.plain
        self.depth_max = min(limits.depth_max, DEPTH_MAX)
        self.frame_bytes_max, self.id_bytes_max = min(limits.frame_bytes_max, FRAME_MAX), limits.id_bytes_max
        self.output_high_bytes, self.output_low_bytes = limits.output_high_bytes, limits.output_low_bytes
        self.output_bytes_max, self.output_cork_bytes = limits.output_bytes_max, limits.output_cork_bytes
        self.connection_calls_max = limits.connection_calls_max
        self.routed = Entry("", None, None, None, (), kind=KIND_BODY)

    cdef int flush_later(self, Channel channel) except -1:
        "Where connections take turns their answers leave together, now and at the end of the loop's turn at the latest."
        self.unflushed.append(channel)
        if len(self.unflushed) >= FLUSH_TOGETHER:
            self.flush_together()
        elif not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.end_of_turn)
        return 0

    def end_of_turn(self):
        """The loop's callback: what still waits leaves."""
        self.flushing = False
        self.flush_together()

    cdef int flush_together(self) except -1:
        cdef Channel channel
        waiting, self.unflushed = self.unflushed, []
        for channel in waiting:
            channel.flush()
        return 0

    def __dealloc__(self):
        free(self.spare)


cdef class Channel(Source):
    """One connection: lines in, calls, answers out. Where the bytes come from and go to is its subclass's (`_stream`)."""

    def __init__(self, Engine engine not None, owner):
        self.engine, self.owner = engine, owner
        self.inbox = Inbox(engine.blocks, engine.frame_bytes_max)
        self.outbox = Outbox()

    # ------------------------------------------------------------------------------------------ bytes in

    cdef int received(self, size_t count) except -1:
        cdef int state = self.inbox.commit(count)
        self.reads += 1
        if state:
            self.pump()
        return 0

    def feed(self, data):
        """Bytes that somebody else read (a thread, where a descriptor cannot be watched)."""
        cdef const unsigned char[::1] bytes_in = data
        if bytes_in.shape[0]:
            self.take_in(<const char*>&bytes_in[0], bytes_in.shape[0])

    cdef int take_in(self, const char* data, size_t total) except -1:
        cdef char* at = NULL
        cdef size_t done = 0, room
        while done < total and not self.closed:
            room = min(self.inbox.room(&at), total - done)
            memcpy(at, data + done, room)
            done += room
            self.received(room)
        return 0

    cdef size_t put_line_in(self, const char* message, size_t count) except 0:
        "A message without newline as a line into the inbox; gives how many bytes of it, the newline too, are to be `received`."
        cdef char* at = NULL
        if count == 0:
            message, count = "-", 1  # no message at all is no JSON
        if self.inbox.room(&at) > count:
            memcpy(at, message, count)
            at[count] = c"\n"
            return count + 1
        self.take_in(message, count)
        self.inbox.room(&at)
        at[0] = c"\n"
        return 1

    cdef int stop_reading(self) except -1:
        raise NotImplementedError

    def pause(self):
        """Nothing more is read; what is in flight goes on."""
        self.stop_reading()

    def end_input(self):
        """The peer sends nothing more. A last line that lacks its newline counts as whole: `printf` writes such."""
        if self.ended_input or self.closed:
            return
        self.stop_reading()
        if self.inbox.end > self.inbox.ready:
            self.feed(b"\n")
        self.ended_input = True
        self.owner.input_ended()

    # ------------------------------------------------------------------------------------------ lines

    cdef int pump(self) except -1:
        "Every whole line there is, as long as the client takes the answers."
        cdef Engine engine = self.engine
        cdef Carriers carriers = engine.carriers
        cdef Carrier carrier
        cdef size_t before
        self.corked = True
        self.budget = LINES_A_TURN
        if engine.tenancy is not None:
            engine.now_s = monotonic()  # once for all lines: 100 instructions less a call
        try:
            while self.inbox.start < self.inbox.ready and not self.closed:
                if self.budget <= 0:  # the others' turn
                    self.held = True
                    engine.loop.call_soon(self.resume)
                    break
                if self.outbox.waiting() > engine.output_high_bytes:
                    self.flush()
                    if self.closed or self.outbox.waiting() > engine.output_high_bytes:
                        break  # on_writable goes on
                if not carriers.warm:
                    self.drain(None)
                    continue
                carrier = carriers.take()
                if carrier is None:
                    carriers.grow()
                    self.held = True
                    engine.loop.call_soon(self.resume)
                    break
                before = self.inbox.start
                carriers.wake(carrier, self)
                if self.inbox.start == before and self.outbox.waiting() <= engine.output_high_bytes:
                    raise RuntimeError("a warm Task did not take the line it was woken for")
            if self.inbox.skipping and self.inbox.end > self.inbox.ready:
                self.unusual(SCAN_BAD, NULL, self.inbox.block.data + self.inbox.ready, self.inbox.end - self.inbox.ready)
                self.inbox.refuse()
            self.inbox.settle()
        finally:
            self.corked = False
        if engine.served_last == <void*>self or not self.reading or engine.closing or self.outbox.waiting() == 0:
            return self.flush()
        engine.served_last = <void*>self
        return engine.flush_later(self)

    def resume(self):
        """After new warm Tasks were made, or the client took answers again."""
        self.held = False
        if not self.closed:
            self.pump()
            if (self.ended_input or self.engine.closing) and not self.calls:
                self.owner.calls_ended()

    cdef int drain(self, Carrier carrier) except -1:
        cdef Engine engine = self.engine
        cdef Inbox inbox = self.inbox
        cdef frame_t frame
        cdef const char* at
        cdef const char* end = NULL
        cdef int kind
        cdef size_t count
        while inbox.start < inbox.ready and not self.closed and self.budget > 0:
            self.budget -= 1
            if self.outbox.waiting() >= engine.output_cork_bytes:
                if not self.writing:
                    self.flush()  # the client may begin while we go on: 64 calls in flight are answered at 1.4 times the rate
                if self.closed or self.outbox.waiting() > engine.output_high_bytes:
                    return DRAINED
            at = self.line = inbox.block.data + inbox.start
            if engine.shapes.any and carrier is not None:
                kind = self.again(carrier, at)
                if kind == WAITS:
                    return WAITS
                if kind == DRAINED:
                    if carrier.retired:
                        return DRAINED
                    continue
            kind = scan_frame(at, engine.depth_max, &frame, &end)
            if kind == SCAN_BAD:
                end = <const char*>memchr(at, c"\n", inbox.ready - inbox.start)
            count = end - at
            inbox.start += count + 1
            if kind == SCAN_OK and count <= engine.frame_bytes_max and not frame.flags & SCAN_ODD:
                if self.message(carrier, &frame, count) == WAITS:
                    return WAITS
            elif kind != SCAN_BLANK:
                self.unusual(kind, &frame, at, count)
                self.leave(carrier)  # the calls of a batch began here
            if carrier is not None and carrier.retired:
                return DRAINED
        return DRAINED

    # ------------------------------------------------------------------------------------------ one message

    @cython.final
    cdef int again(self, Carrier carrier, const char* line) except -1:
        "The same call again but for its id and arguments, known by its shape; OTHERWISE where it is not."
        cdef Engine engine = self.engine
        cdef Entry entry
        cdef Wire wire
        cdef Inbox inbox = self.inbox
        cdef frame_t frame
        cdef const char* end = NULL
        cdef int outcome, known
        if engine.shapes_version != engine.tools.version:
            engine.shapes.forget()
            return OTHERWISE
        known = engine.shapes.find(line, inbox.block.data + inbox.ready, &frame, &end)
        if (known < 0 or <size_t>(end - line) > engine.frame_bytes_max or frame.id.len > engine.id_bytes_max
                or engine.observer is not None):
            return OTHERWISE
        entry = <Entry>engine.shape_entries[known]
        wire = <Wire>engine.shape_wires[known]
        if wire is None:
            wire = self.wire
        if wire is None or not entry.fast:
            return OTHERWISE
        if self.in_flight and (len(self.in_flight) >= engine.connection_calls_max or span_bytes(frame.id) in self.in_flight):
            return OTHERWISE
        frame.flags = SCAN_SHAPED
        inbox.start += end + 1 - line
        outcome = self.call(carrier, entry, wire, &frame, end - line)
        if outcome == OTHERWISE:
            inbox.start -= end + 1 - line
        return outcome

    @cython.final
    cdef int message(self, Carrier carrier, frame_t* frame, size_t bytes_in) except -1:
        cdef Engine engine = self.engine
        cdef PyObject* found
        cdef Entry entry
        cdef Wire wire
        cdef int outcome
        if (same(frame.method, TOOLS_CALL) and frame.id.at != NULL and (frame.flags | SCAN_META) == SCAN_META
                and frame.name.at != NULL and frame.name.at[0] == c'"' and same(frame.jsonrpc, VERSION_2)
                and scan_is_id(frame.id) and frame.id.len <= engine.id_bytes_max
                and (frame.arguments.at == NULL or frame.arguments.at[0] == c"{")):
            wire = self.wire_of(frame)
            if wire is not None:
                found = engine.tools.find(frame.name.at + 1, frame.name.len - 2)
                if found != NULL:
                    entry = <Entry>found
                    # an inline handler needs a Task to run in: where there is no warm one, the other way makes it
                    if entry.fast and (carrier is not None or not entry.inline) and (
                            not self.in_flight or (len(self.in_flight) < engine.connection_calls_max
                                                   and span_bytes(frame.id) not in self.in_flight)):
                        if entry.scalars and self.submitted is None:
                            self.learn(entry, wire, frame, bytes_in)
                        outcome = self.call(carrier, entry, wire, frame, bytes_in)
                        if outcome != OTHERWISE:
                            return outcome
        return self.other(carrier, frame, bytes_in)

    @cython.final
    cdef Wire wire_of(self, frame_t* frame):
        "The revision that this request speaks, where that is plain; None sends it the other way."
        cdef Wire wire = self.wire
        if frame.version.at != NULL:
            if frame.capabilities.at == NULL or frame.capabilities.at[0] != c"{":
                return None
            if (frame.log_level.at != NULL
                    and self.engine.log_levels.find(frame.log_level.at, frame.log_level.len) == NULL):
                return None
            for wire in self.engine.modern_wires:
                if same(frame.version, wire.version):
                    break
            else:
                return None
        if frame.progress_token.at != NULL and not scan_is_id(frame.progress_token):
            return None
        return wire

    @cython.final
    cdef int learn(self, Entry entry, Wire wire, frame_t* frame, size_t bytes_in) except -1:
        cdef Engine engine = self.engine
        cdef int known = engine.shapes.learn(self.line, self.line + bytes_in, frame)
        engine.shapes_version = engine.tools.version
        engine.shape_entries[known] = entry
        engine.shape_wires[known] = None if frame.version.at == NULL else wire
        return 0

    @cython.final
    cdef int call(self, Carrier carrier, Entry entry, Wire wire, frame_t* frame, size_t bytes_in) except -1:
        """Arguments and handler. Whatever a handler raises ends in `fail`, never here. OTHERWISE: arguments that a shaped line
        has do not fit, or whether this caller may call is not decided; nothing has happened yet."""
        cdef PyObject* argv[ARGUMENTS_MAX + 1]  # one for whom we call, one for a Context, and the arguments
        cdef PyObject* result
        cdef Request request = None
        cdef int outcome
        if self.engine.tenancy is not None:
            outcome = self.enter(frame.id, entry, bytes_in)
            if outcome != ENTERED:
                return outcome
        if entry.context_at >= 0 or self.engine.observer is not None or carrier is None or entry.own_task:
            request = self.request_of(frame, entry, wire, bytes_in)
        try:
            entry.read(self.inbox.block if self.submitted is None else self.submitted, frame.arguments, &argv[1])
        except Exception as error:
            if frame.flags & SCAN_SHAPED:
                self.undo(bytes_in)
                return OTHERWISE
            self.put_line(frame.id, request, self.engine.refused(entry, wire, error))
            return self.leave(carrier)  # a type of the user's may have its own idea of decoding
        try:
            result = entry.invoke(argv, self.engine.make_context, request)
        except BaseException as error:
            self.fail(frame.id, request, entry, wire, error)
            return self.leave(carrier)
        if entry.inline:
            value = <object>result
            Py_DECREF(result)
            self.answer(frame.id, request, entry, wire, <PyObject*>value)
            return self.leave(carrier)
        return self.run(carrier, entry, wire, request, result, frame, bytes_in)

    # ------------------------------------------------------------------------------------------ how much its tenant may

    @cython.final
    cdef int enter(self, span_t id, Entry entry, size_t bytes_in) except -1:
        """ENTERED: the call may begin, and is given back when it is over. DRAINED: it is refused, and answered. OTHERWISE: the
        caller is not known any more, may not call this, was not asked about it yet, or has to wait for a place."""
        cdef Engine engine = self.engine
        cdef Caller caller = self.caller
        cdef Pass granted
        cdef verdict_t why
        cdef double now_s = engine.now_s
        if caller is None or not caller.holds(engine.generation, now_s):
            return OTHERWISE
        granted = caller.pass_for(entry)
        if granted is None:
            return OTHERWISE
        if engine.gate is not None and not engine.gate.enter():
            return OTHERWISE
        if granted.admission.enter(&why, granted.cost, bytes_in, now_s, now_s + engine.epoch_ahead_s) != ADMITTED_BY_ALL:
            if engine.gate is not None:
                engine.gate.leave()  # nobody waits for it: then it would not have been free
            self.put_line(id, None, engine.upper.over_quota(self, verdict_of(why), entry.name))
            return DRAINED
        self.entered = granted
        return ENTERED

    @cython.final
    cdef inline int depart(self, Pass entered, size_t bytes_out) except -1:
        "A call that had entered is over."
        cdef Engine engine = self.engine
        entered.admission.leave(bytes_out, engine.now_s)
        if engine.gate is not None and engine.gate.leave():
            engine.tenancy.hand_over()
        return 0

    @cython.final
    cdef int undo(self, size_t bytes_in) except -1:
        "A call that had entered never began."
        cdef Pass entered = self.entered
        cdef Engine engine = self.engine
        if entered is None:
            return 0
        self.entered = None
        entered.admission.undo(entered.cost, bytes_in, engine.now_s + engine.epoch_ahead_s)
        if engine.gate is not None:
            engine.gate.leave()
            engine.tenancy.hand_over()
        return 0

    @cython.final
    cdef inline bint too_large(self, span_t id, Request request, str name, size_t mark) except -1:
        "Whether the answer that stands from `mark` on is larger than its caller may get; then the refusal stands there."
        cdef Pass entered = self.entered if request is None else request.entered
        cdef size_t bytes_out = self.outbox.waiting() - mark - 1  # without the newline, as a request is measured
        if entered is None or bytes_out <= entered.response_bytes_max:
            return False
        verdict = entered.admission.judge_response(bytes_out)
        if verdict.admitted:  # since it began it may have more
            return False
        self.outbox.end = self.outbox.sent + mark
        self.put_line(id, request, self.engine.upper.over_quota(self, verdict, name))
        return True

    @cython.final
    cdef int leave(self, Carrier carrier) except -1:
        "The user's code ran in this Task and is done: what it left behind is nobody else's."
        if carrier is not None and not carrier.clean():
            carrier.retired = True
        return DRAINED

    @cython.final
    cdef int run(self, Carrier carrier, Entry entry, Wire wire, Request request, PyObject* coroutine,
                 frame_t* frame, size_t bytes_in) except -1:
        """The handler's first step, inside the carrier's Task; or a Task of its own, where it wants or needs one. `frame` is
        what a Request is made from when one is needed."""
        cdef PyObject* result = NULL
        cdef int outcome
        owned = <object>coroutine
        Py_DECREF(coroutine)
        if carrier is None or entry.own_task:
            self.register(request, None)  # before: an eager task factory may end it inside `spawn`
            task = self.engine.carriers.spawn(self, owned, request)
            if request.alive:
                request.task = task
                self.stop_if_closed(request)
            return DRAINED
        outcome = PyIter_Send(coroutine, Py_None, &result)
        if outcome == 1:
            waits_for = <object>result
            Py_DECREF(result)
            if request is None:
                request = self.request_of(frame, entry, wire, bytes_in)
            self.register(request, carrier.task)
            carrier.carry(owned, waits_for, request)
            self.stop_if_closed(request)
            return WAITS
        if outcome < 0:
            try:
                raise_pending()
            except BaseException as error:
                self.fail(frame.id, request, entry if request is None else request.entry, wire, error)
        else:
            value = <object>result
            Py_DECREF(result)
            self.answer(frame.id, request, entry if request is None else request.entry, wire, <PyObject*>value)
        if not carrier.clean():
            carrier.retired = True
            entry.dirty += 1
            if entry.dirty >= DIRTY_MAX:
                entry.own_task = True
        return DRAINED

    cdef int ended(self, Carrier carrier, PyObject* value, object error) except -1:
        "A call that waited, or had a Task of its own, is over."
        cdef Request request = <Request>carrier.request
        if request.entered is not None:
            self.engine.now_s = monotonic()
        del self.in_flight[request.id]
        if value != NULL:
            self.answer(span_of(request.id), request, request.entry, request.wire, value)
        else:
            self.fail(span_of(request.id), request, request.entry, request.wire, error)
        if not self.in_flight and (self.ended_input or self.engine.closing):
            self.owner.calls_ended()
        elif request.entry is not self.engine.routed and not carrier.retired and carrier.home is not None and not carrier.clean():
            request.entry.dirty += 1
            if request.entry.dirty >= DIRTY_MAX:
                request.entry.own_task = True
        return 0

    # ------------------------------------------------------------------------------------------ what is not hot

    cdef int other(self, Carrier carrier, frame_t* frame, size_t bytes_in) except -1:
        cdef Engine engine = self.engine
        cdef Request request
        if frame.method.at == NULL:
            if frame.id.at != NULL and (frame.result.at != NULL) != (frame.error.at != NULL):
                engine.response(self, span_bytes(frame.id), span_bytes(frame.result), span_bytes(frame.error))
            else:
                self.unusual(SCAN_SCALAR, frame, NULL, 0)
            return DRAINED
        if not same(frame.jsonrpc, VERSION_2) or frame.method.at[0] != c'"':
            return self.unusual(SCAN_SCALAR, frame, NULL, 0)
        if frame.id.at == NULL:
            if frame.params.at == NULL or frame.params.at[0] == c"{":
                engine.notice(self, engine.upper.text(span_bytes(frame.method)), span_bytes(frame.params))
            return DRAINED
        if not scan_is_id(frame.id) or frame.id.len > engine.id_bytes_max:
            frame.id.at = NULL
            return self.unusual(SCAN_SCALAR, frame, NULL, 0)
        request = self.request_of(frame, engine.routed, self.wire, bytes_in)
        return self.serve(carrier, request)

    cdef int serve(self, Carrier carrier, Request request) except -1:
        """A request that `upper` decides: bytes are its result, a coroutine gives what `request.entry` makes a result of: bytes
        again, or, where `upper` put a tool there, the handler's value."""
        cdef PyObject* raw
        cdef frame_t frame
        frame.id = span_of(request.id)
        try:
            outcome = self.engine.route(request)
        except BaseException as error:
            return self.fail(span_of(request.id), request, request.entry, request.wire, error)
        if isinstance(outcome, bytes):
            return self.answer(span_of(request.id), request, self.engine.routed, request.wire, <PyObject*>outcome)
        raw = <PyObject*>outcome
        Py_INCREF(raw)
        return self.run(carrier, request.entry, request.wire, request, raw, &frame, 0)

    cdef int unusual(self, int kind, frame_t* frame, const char* at, size_t count) except -1:
        "No message as it should be: `upper` says what to answer, if anything. `frame` is NULL for a line not yet whole."
        cdef bytes id = None, line
        cdef bint too_long = frame == NULL or count > self.engine.frame_bytes_max
        if frame != NULL and frame.id.at != NULL and scan_is_id(frame.id) and frame.id.len <= self.engine.id_bytes_max:
            id = span_bytes(frame.id)
        if kind == SCAN_ARRAY and not too_long and self.batch is None:
            self.engine.batch(self, PyBytes_FromStringAndSize(at, count), frame.items)
            return 0
        if kind == SCAN_OK and not too_long:  # odd: a full parser writes it anew, plainly
            line = self.engine.plain(PyBytes_FromStringAndSize(at, count))
            if line is not None:
                self.submit(line, self.batch)
                return 0
        if too_long:
            why = "long"
        elif kind == SCAN_BAD:
            why = "deep" if frame.flags & SCAN_DEEP else "json"
        else:
            why = "shape"
        line = self.engine.malformed(self, why, id, PyBytes_FromStringAndSize(at, min(count, <size_t>4096)) if at != NULL else b"")
        if line is not None:
            if self.batch is not None:
                self.batch.add(line.rstrip(b"\n"))
            else:
                self.put(line)
        return 0

    def submit(self, bytes line not None, Batch batch):
        """One message as if it had come by itself; its answer goes to `batch`, or out. A call has a Task of its own."""
        cdef frame_t frame
        cdef const char* end = NULL
        cdef Batch outer_batch = self.batch
        cdef Block outer = self.submitted, block = Block(len(line) + 1)
        cdef int kind
        cdef const char* outer_line = self.line
        memcpy(block.data, PyBytes_AS_STRING(line), len(line))
        block.data[len(line)] = c"\n"
        kind = scan_frame(block.data, self.engine.depth_max, &frame, &end)
        self.batch, self.submitted, self.line = batch, block, block.data
        try:
            if kind == SCAN_OK and (outer is not None or not frame.flags & SCAN_ODD):
                self.message(None, &frame, len(line))
            elif kind != SCAN_BLANK:
                self.unusual(kind, &frame, block.data, len(line))
        finally:
            self.batch, self.submitted, self.line = outer_batch, outer, outer_line

    cdef Request request_of(self, frame_t* frame, Entry entry, Wire wire, size_t bytes_in):
        cdef Request request = Request.__new__(Request)
        cdef const char* end = NULL
        if frame.flags & SCAN_SHAPED:  # now all of the line is wanted
            scan_frame(self.line, self.engine.depth_max, frame, &end)
        request.channel = self
        request.id = span_bytes(frame.id)
        request.params = span_bytes(frame.params)
        request.method = "tools/call" if entry is not self.engine.routed else self.engine.upper.text(span_bytes(frame.method))
        request.progress_token = span_bytes(frame.progress_token)
        request.version = span_bytes(frame.version)
        request.entry, request.wire, request.bytes_in, request.alive = entry, wire, bytes_in, True
        request.batch = self.batch
        if self.batch is not None:
            self.batch.pending += 1
        request.caller = self.caller
        request.entered, self.entered = self.entered, None
        request.started_s = monotonic()  # for everyone: how old a call is can be asked at any time (`mcpfast top`)
        if self.engine.observer is not None:
            self.engine.observer.request_started(request)
        return request

    cdef int register(self, Request request, object task) except -1:
        "From now on a cancellation finds it by its id."
        request.task = task
        if self.in_flight is None:
            self.in_flight = {}
        self.in_flight[request.id] = request
        if request.entered is not None:
            request.enter(request.entered)
        return 0

    cdef int stop_if_closed(self, Request request) except -1:
        "A call whose first step closed the connection came too late for `cancel_calls`."
        if self.closed:
            request.cancel("the connection is closed")
        return 0

    def find(self, bytes id):
        """The request in flight with this id (raw JSON), or None."""
        return None if self.in_flight is None else self.in_flight.get(id)

    def requests(self):
        """The requests in flight, oldest first."""
        return [] if self.in_flight is None else list(self.in_flight.values())

    def new_batch(self):
        """For the messages of one JSON-RPC batch; `seal` it behind the last."""
        return Batch(self)

    @property
    def calls(self):
        """Calls in flight."""
        return 0 if self.in_flight is None else len(self.in_flight)

    def cancel_calls(self, reason):
        """Cancels every call in flight; none of them is answered."""
        for request in self.requests():
            request.cancel(reason)

    # ------------------------------------------------------------------------------------------ answers

    @cython.final
    cdef int answer(self, span_t id, Request request, Entry entry, Wire wire, PyObject* value) except -1:
        cdef size_t mark = <size_t>-1  # no byte of the answer is written yet
        cdef Py_ssize_t count = 0
        cdef const char* text
        cdef Pass entered
        if request is not None and request.cancelled is not None:
            return self.over(request, self.outbox.waiting(), "cancelled")
        try:
            if entry.kind >= KIND_TEXT and PyUnicode_CheckExact(<object>value):
                text = PyUnicode_AsUTF8AndSize(<object>value, &count)
                mark = self.outbox.waiting()
                self.put_text(id, wire, text, count, wire.structured and entry.kind == KIND_TEXT)
            else:
                body = <object>value if entry.kind == KIND_BODY else entry.encode(<object>value, wire)
                mark = self.outbox.waiting()  # what encodes is the user's, and may have sent something, or closed the channel
                self.open_line(id, PyBytes_GET_SIZE(body) + 16)
                self.outbox.put(PyBytes_AS_STRING(RESULT), PyBytes_GET_SIZE(RESULT))
                self.outbox.put(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
                self.outbox.put(PyBytes_AS_STRING(END), 2)
        except BaseException as error:
            if self.outbox.waiting() > mark:
                self.outbox.end = self.outbox.sent + mark  # half an answer, for want of memory
            return self.fail(id, request, entry, wire, error)
        if self.engine.tenancy is not None and self.too_large(id, request, entry.name, mark):
            return 0
        if request is None and self.batch is None:  # nobody counts but the engine, and the tenant
            self.engine.answered += 1
            entered = self.entered
            if entered is not None:
                self.entered = None
                self.depart(entered, self.outbox.waiting() - mark)
            return self.flush_soon()
        return self.over(request, mark, "ok")

    cdef inline int open_line(self, span_t id, size_t more) except -1:
        "The front of an answer."
        if self.outbox.data == NULL and self.engine.spare != NULL:
            self.outbox.data, self.outbox.size = self.engine.spare, self.engine.spare_size
            self.engine.spare = NULL
        self.outbox.need(PyBytes_GET_SIZE(PREFIX) + id.len + more)
        self.outbox.put(PyBytes_AS_STRING(PREFIX), PyBytes_GET_SIZE(PREFIX))
        self.outbox.put(id.at, id.len)
        return 0

    @cython.final
    cdef int put_text(self, span_t id, Wire wire, const char* text, Py_ssize_t count, bint structured) except -1:
        "A str result: as a text block and, `structured`, once more as structured content."
        cdef Outbox outbox = self.outbox
        cdef bytes opening = wire.text_open
        cdef bytes closing = wire.both_close if structured else wire.text_close
        cdef size_t first, escaped
        cdef Py_ssize_t done = 0, piece
        self.open_line(id, PyBytes_GET_SIZE(opening))
        outbox.put(PyBytes_AS_STRING(opening), PyBytes_GET_SIZE(opening))
        first = outbox.waiting()
        while done < count:
            piece = min(count - done, TEXT_CHUNK)
            outbox.need(6 * piece + 16)
            outbox.end += scan_write_string(outbox.data + outbox.end, text + done, piece)
            done += piece
        escaped = outbox.waiting() - first
        if structured:
            opening = wire.both_open
            outbox.need(escaped + PyBytes_GET_SIZE(opening) + PyBytes_GET_SIZE(closing))
            outbox.put(PyBytes_AS_STRING(opening), PyBytes_GET_SIZE(opening))
            outbox.put(outbox.data + outbox.sent + first, escaped)
        else:
            outbox.need(PyBytes_GET_SIZE(closing))
        outbox.put(PyBytes_AS_STRING(closing), PyBytes_GET_SIZE(closing))
        return 0

    @cython.final
    cdef int put_line(self, span_t id, Request request, bytes tail) except -1:
        cdef size_t mark = self.outbox.waiting()
        self.open_line(id, PyBytes_GET_SIZE(tail))
        self.outbox.put(PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
        return self.over(request, mark, "error")

    @cython.final
    cdef int fail(self, span_t id, Request request, Entry entry, Wire wire, object error) except -1:
        "A handler raised. `upper` makes the rest of the line, or None where nothing may be answered."
        cdef bytes tail
        if request is not None and request.timed_out and request.cancelled is None:
            tail = self.engine.upper.over_quota(self, request.entered.admission.timed_out(), entry.name)
        else:
            tail = self.engine.failed(request, entry, wire, error)
        cdef size_t mark = self.outbox.waiting()  # not before: a log handler may have sent something
        if tail is not None and not (request is not None and request.cancelled is not None):
            self.open_line(id, PyBytes_GET_SIZE(tail))
            self.outbox.put(PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
            if self.engine.tenancy is not None and self.too_large(id, request, entry.name, mark):
                return 0
        if request is not None and request.cancelled is not None:
            return self.over(request, mark, "cancelled")
        return self.over(request, mark, getattr(error, "mcp_outcome", "error"))

    @cython.final
    cdef int over(self, Request request, size_t mark, str outcome) except -1:
        "The answer stands in the outbox from `mark` on (counted from `sent`); a batch takes it out again and keeps it."
        cdef Batch batch = self.batch if request is None else request.batch
        cdef size_t bytes_out = self.outbox.waiting() - mark
        cdef Pass entered = self.entered if request is None else request.entered
        self.engine.answered += bytes_out != 0
        if entered is not None:
            if request is None:
                self.entered = None
            else:
                request.entered = None
                if request.timer is not None:
                    request.timer.cancel()
                    request.timer = None
            self.depart(entered, bytes_out)
        if request is not None:
            if request.alive and self.engine.observer is not None:
                self.engine.observer.request_ended(request, outcome, monotonic() - request.started_s, bytes_out)
            request.alive = False
        if batch is not None:
            if bytes_out:
                batch.add(PyBytes_FromStringAndSize(self.outbox.data + self.outbox.sent + mark, bytes_out - 1))
                self.outbox.end = self.outbox.sent + mark
            if request is not None:
                batch.pending -= 1
                batch.send_if_whole()
        return self.flush_soon()

    # ------------------------------------------------------------------------------------------ bytes out

    cdef int put(self, bytes line) except -1:
        self.outbox.need(PyBytes_GET_SIZE(line))
        self.outbox.put(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))
        return self.flush_soon()

    def send(self, bytes line not None):
        """One message of the server (newline included) behind what already waits."""
        if not self.closed:
            self.put(line)

    def evidence(self):
        """What the request that is under way shows of who is asking (`tenancy.resolvers.Evidence`); None: the connection does."""

    def refuses(self, error):
        """A request is about to be refused with this error: a transport that says more than the error does, says it then."""

    def reply(self, bytes line not None):
        """One answer (newline included) that no request of its own stands behind: to a batch, or to what is no message."""
        if not self.closed:
            self.put(line)

    @property
    def waiting_bytes(self):
        """Output that the client has not taken yet."""
        return self.outbox.waiting()

    @cython.final
    cdef int flush_soon(self) except -1:
        if self.corked or self.flushing:
            return 0
        if self.closed:
            return self.orphaned()
        if not self.writing:
            self.flushing = True
            self.engine.loop.call_soon(self.flush_now)
        elif self.outbox.waiting() > self.engine.output_bytes_max:
            self.owner.lost("the client takes nothing")  # reading less does not help against what is pushed
        return 0

    cdef int orphaned(self) except -1:
        "An answer that nobody waits for any more."
        return self.outbox.release()

    def close_stream(self):
        """Ends the client's stream of events in the middle of a call, so that it comes back for the rest; nothing where there is
        none, or where nobody could come back to it."""

    def flush_now(self):
        self.flushing = False
        self.flush()

    cdef int flush(self) except -1:
        raise NotImplementedError

    def taken(self):
        """A future that is done when the client has taken what waits, down to `output_low_bytes`, or is gone. Shield it."""
        if self.taken_future is None or self.taken_future.done():
            self.taken_future = self.engine.loop.create_future()
        future = self.taken_future
        if self.closed:
            self.tell_taken()
        return future

    cdef int tell_taken(self) except -1:
        if self.taken_future is not None:
            if not self.taken_future.done():
                self.taken_future.set_result(None)
            self.taken_future = None
        return 0

    cdef int drained(self) except -1:
        "Nothing waits any more: a channel at rest keeps no memory, and one buffer is kept for whoever writes next."
        cdef Outbox outbox = self.outbox
        cdef Engine engine = self.engine
        if outbox.data != NULL:
            if engine.spare == NULL and outbox.size <= SPARE_MAX:
                engine.spare, engine.spare_size = outbox.data, outbox.size
                outbox.data = NULL
            outbox.release()
        return self.tell_taken()

    # ------------------------------------------------------------------------------------------ the end

    @property
    def idle(self):
        """Nothing is in flight, nothing waits to be handled or taken."""
        return not self.calls and self.outbox.waiting() == 0 and self.inbox.start >= self.inbox.ready

    def close(self):
        """Nothing is read or written any more; calls in flight are the owner's to cancel."""
        self.closed = True
        self.outbox.release()
        self.tell_taken()
