# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One HTTP exchange around the spine: a request's body is a line of a Channel, its answer the response.

    begin        who may ask, and for what: only a plain POST goes on here, the rest is `upper`'s (transports/web/endpoint.py)
    message_in   the body into the inbox; its era, its session, its mirrored headers
    pump         the way of every message (_spine)
    flush        the answer, as JSON; or as the last event of a stream, once something was sent before it

How a response is written is the subclass's: HTTP/1.1 (_http), or somebody else's server (RelayedExchange, for ASGI).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.time cimport monotonic
from libc.string cimport memchr, memcmp

from mcpfast._caller cimport Caller
from mcpfast._core cimport (
    SCAN_ARRAY, SCAN_ODD, SCAN_OK, frame_t, same, scan_frame, scan_is_id, span_bytes, span_t,
)
from mcpfast._spine cimport Channel, Engine, Request

cdef dict KNOWN_HEADERS = {
    b"host": HOST, b"origin": ORIGIN, b"content-type": CONTENT_TYPE, b"accept": ACCEPT,
    b"mcp-protocol-version": PROTOCOL_VERSION, b"mcp-method": MCP_METHOD, b"mcp-name": MCP_NAME,
    b"mcp-session-id": SESSION_ID, b"content-length": CONTENT_LENGTH, b"expect": EXPECT,
}
cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef bytes POST = b"POST"
cdef bytes INITIALIZE = b'"initialize"'
cdef bytes ERROR_CODE = b',"error":{"code":'
cdef bytes ID_FRONT = b'{"jsonrpc":"2.0","id":'
cdef bytes EVENT_FRONT = b"event: message\ndata: "
cdef bytes JSON = b"application/json"
cdef bytes PLAIN = b"text/plain; charset=utf-8"


cdef inline bint quoted(span_t span, bytes text) noexcept:
    "Whether the JSON string is `text`, written plainly."
    return (span.len == <size_t>PyBytes_GET_SIZE(text) + 2
            and memcmp(span.at + 1, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) == 0)


@cython.final
@cython.freelist(16)
cdef class Head:
    """One request: method and target as they came, headers with lower-case names, and the body when it is whole."""

    def __cinit__(self):
        self.headers, self.known = [], [None] * KNOWN_COUNT
        self.keep_alive = self.chunks = True

    @staticmethod
    def made(bytes method not None, bytes target not None, headers, bytes body not None):
        """A request that somebody else's server parsed; `headers` are pairs of bytes."""
        cdef Head head = Head.__new__(Head)
        head.method, head.target, head.body = method, target, body
        for name, value in headers:
            head.add(name, value)
        return head

    cdef int add(self, bytes name, bytes value) except -1:
        "One more header."
        name = name.lower()
        self.headers.append((name, value))
        known = KNOWN_HEADERS.get(name)
        if known is not None:
            self.doubled = self.doubled or self.known[<int>known] is not None
            self.known[<int>known] = value.strip(b" \t")
        return 0

    cdef bytes value(self, int which):
        return <bytes>self.known[which]

    def header(self, bytes name not None):
        """The first value of a header (lower-case name), or None."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    @property
    def protocol_version(self):
        return self.known[PROTOCOL_VERSION]

    @property
    def session_id(self):
        return self.known[SESSION_ID]


@cython.final
cdef class Front:
    """What the exchanges of one endpoint share.

    `path` is the endpoint's; `accepts`, `types` and `hosts` are the raw header values that were looked at and found good,
    `origins` those with the Host they are good for, and the headers that answers to them have (`upper.admit` adds to them).
    `revisions` are the modern ones, as the header names them, `versions` all of them; `sessions` the legacy ones by their ids,
    where that is all there is to know, or None; `sessionless`: there are none; `plain_tools` the raw JSON names of tools that
    were looked at and have no arguments that headers mirror.

    upper.admit(exchange, head) -> bool              upper.other(exchange, head)
    upper.session_for(exchange, head, opening, readable) -> Session | None
    upper.modern_session(exchange) -> Session        upper.answered(exchange)
    upper.mirror_error(head, id, method, params, version) -> bytes | None
    upper.params_differ(head, name, method, arguments, id) -> bytes | None
    upper.broken_envelope(id) -> bytes               upper.broke(exchange, error)
    upper.record(exchange) -> Recording | None       upper.left(exchange)
    upper.refuses(exchange, error)                   upper.evidence(exchange) -> Evidence
    upper.gone(exchange)                             upper.identify(exchange, head, go_on)
    """

    def __init__(self, Engine engine not None, upper, bytes path not None, set revisions, set versions, dict sessions,
                 bint sessionless):
        self.versions, self.sessions, self.sessionless = versions, sessions, sessionless
        self.engine, self.upper, self.path = engine, upper, path
        self.accepts, self.types, self.hosts, self.origins = set(), set(), set(), {}
        self.revisions, self.plain_tools, self.tools_version = revisions, set(), engine.tools.version


cdef class Exchange(Channel):
    """A request and its response, or one after the other of them: a Channel for the spine."""

    def __init__(self, Front front not None):
        Channel.__init__(self, front.engine, front.upper)
        self.front, self.root = front, ""
        self.since_s = self.engine.loop.time()

    # ------------------------------------------------------------------------------------------ in

    cdef int begin(self, Head head) except -1:
        "The exchange begins with a whole request."
        cdef Front front = self.front
        self.start(head)
        try:
            if head.target != front.path or head.method != POST or head.doubled:
                front.upper.other(self, head)
            elif self.known_good(head) or front.upper.admit(self, head):
                self.taken(head)
        except BaseException as error:
            front.upper.broke(self, error)
        return 0

    cdef int taken(self, Head head) except -1:
        "A message whose head is good; where tenants are served, whose it is comes first."
        head.admitted = True
        if self.engine.tenancy is None or self.known_caller(head):
            return self.message_in(head, PyBytes_AS_STRING(head.body), PyBytes_GET_SIZE(head.body))
        self.body = head.body  # that of the head is let go when the head is remembered
        self.front.upper.identify(self, head, self.go_on)
        return 0

    def go_on(self):
        """The caller is known now."""
        cdef bytes body = self.body
        self.body = None
        if not self.closed and self.stage == ANSWERING and body is not None:
            self.message_in(self.head, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))

    cdef bint known_caller(self, Head head) except -1:
        "Whether this head came before, and what was found out about it still holds: for all connections, unless they differ."
        cdef Caller caller = head.caller
        if self.shown is not None:
            caller = self.caller if self.asked is head else None
        if caller is None or not caller.holds(self.engine.generation, monotonic()):
            return False
        self.caller = caller
        return True

    cdef int start(self, Head head) except -1:
        self.head, self.stage, self.extra = head, ANSWERING, head.extra
        self.expects_answer = self.modern = self.envelope_bad = self.resumes = self.refused_one = False
        return 0

    cdef bint known_good(self, Head head) except -1:
        "Whether the values of all headers that decide who may ask were looked at before."
        cdef Front front = self.front
        if not (head.value(CONTENT_TYPE) in front.types and head.value(ACCEPT) in front.accepts
                and head.value(HOST) in front.hosts):
            return False
        if head.value(ORIGIN) is not None:
            extra = front.origins.get((head.value(ORIGIN), head.value(HOST)))
            if extra is None:
                return False
            head.extra = self.extra = extra
        return True

    cdef int message_in(self, Head head, const char* at, size_t count) except -1:
        "The body as a line of the channel."
        cdef frame_t frame
        cdef const char* end = NULL
        cdef bytes body
        cdef size_t last
        cdef int kind
        if memchr(at, c"\n", count) != NULL:
            body = self.engine.upper.one_line(at[:count])
            at, count = PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body)
        last = self.put_line_in(at, count)
        kind = scan_frame(self.inbox.block.data + self.inbox.start, self.engine.depth_max, &frame, &end)
        if kind == SCAN_OK and frame.flags & SCAN_ODD:  # decided from here, so it must be plain here already
            self.inbox.start = self.inbox.ready = self.inbox.end = 0
            body = self.engine.plain(at[:count])
            if body is None:
                body = b"-"
            last = self.put_line_in(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
            kind = scan_frame(self.inbox.block.data + self.inbox.start, self.engine.depth_max, &frame, &end)
        if self.choose(kind, &frame, head):
            self.received(last)
        else:  # answered already: the line is let go
            self.inbox.start = self.inbox.ready = self.inbox.end = 0
            self.inbox.settle()
        return 0

    cdef bint choose(self, int kind, frame_t* frame, Head head) except -1:
        "Which era and session the message is of (section 7.1); False: refused, and answered."
        cdef Front front = self.front
        cdef bytes version = head.value(PROTOCOL_VERSION)
        cdef bytes id = None
        cdef bint request
        session = None
        if kind == SCAN_OK and frame.id.at != NULL and scan_is_id(frame.id):
            id = span_bytes(frame.id)
        request = kind == SCAN_OK and frame.method.at != NULL and frame.id.at != NULL
        self.expects_answer = request or kind != SCAN_OK
        if kind == SCAN_OK and frame.version.at != NULL:
            self.modern = True
            self.envelope_bad = frame.capabilities.at == NULL or frame.capabilities.at[0] != c"{"
            if not request:
                self.respond(202 if frame.method.at != NULL else 400)
                return False
            if id is not None and not self.envelope_bad and not self.mirrored(frame, head):
                return False
            session = front.upper.modern_session(self)
            self.wire = None
        elif kind == SCAN_OK and version is not None and version in front.revisions:
            self.modern = True
            if not request:
                self.respond(202 if frame.method.at != NULL else 400)
                return False
            if id is not None:
                self.reply_with(400, front.upper.broken_envelope(id))
                return False
            session = front.upper.modern_session(self)
        else:
            if front.sessions is not None and (version is None or version in front.versions) and kind in (SCAN_OK, SCAN_ARRAY):
                session = front.sessions.get(head.value(SESSION_ID))
                if session is not None and self.caller is not None and not self.caller.same_as(session.caller):
                    session = None  # somebody else's: `session_for` says what is said of one that is not there
            elif self.spare is not None:
                session = self.spared(kind, frame, version)
            if session is not None:  # what `session_for` would do; a call over HTTP is 0.9 us quicker for it
                session.exchanges.add(self)
                session.used_s, self.wire = self.since_s, session.wire
            else:
                session = front.upper.session_for(
                    self, head, kind == SCAN_OK and same(frame.method, INITIALIZE), kind == SCAN_OK or kind == SCAN_ARRAY)
            if session is None:
                return False
            if self.caller is not None:
                session.caller = self.caller  # the same one, with what holds for him now
        self.session = session
        return True

    cdef object spared(self, int kind, frame_t* frame, bytes version):
        """Without sessions each message has one of its own. A new one is 4 us of 13; that of the message before is as good, if
        it was of this revision, nothing was left in it and nobody kept it."""
        session, self.spare = self.spare, None
        if self.caller is not None and not self.caller.same_as(session.caller):
            return None
        if kind == SCAN_OK and version == self.spare_version and not same(frame.method, INITIALIZE) and Py_REFCNT(session) == 1:
            return session
        return None

    cdef bint mirrored(self, frame_t* frame, Head head) except -1:
        "Whether the headers say what the body says (section 10, N3); else that is answered."
        cdef bytes version = head.value(PROTOCOL_VERSION), method = head.value(MCP_METHOD), name = head.value(MCP_NAME)
        cdef bytes line
        if (version is None or method is None or not quoted(frame.version, version) or not quoted(frame.method, method)
                or name is None or frame.name.at == NULL or not quoted(frame.name, name)):
            line = self.front.upper.mirror_error(
                head, span_bytes(frame.id), span_bytes(frame.method), span_bytes(frame.params), span_bytes(frame.version))
            if line is not None:
                self.reply_with(400, line)
                return False
        if self.front.tools_version != self.engine.tools.version:
            self.front.plain_tools.clear()
            self.front.tools_version = self.engine.tools.version
        if frame.name.at != NULL and span_bytes(frame.name) not in self.front.plain_tools:
            line = self.front.upper.params_differ(
                head, span_bytes(frame.name), span_bytes(frame.method), span_bytes(frame.arguments), span_bytes(frame.id))
            if line is not None:
                self.reply_with(400, line)
                return False
        return True

    # ------------------------------------------------------------------------------------------ out

    cdef int write_whole(self, int status, bytes kind, bytes extra, const char* at, size_t count) except -1:
        "A whole response; `kind` is the type of its content, `extra` headers, each with its end of line."
        raise NotImplementedError

    cdef int write_start(self, bytes extra) except -1:
        "The head of an event stream."
        raise NotImplementedError

    cdef int write_piece(self, bytes piece) except -1:
        "A piece of the stream."
        raise NotImplementedError

    cdef int write_end(self) except -1:
        "The end of the stream."
        raise NotImplementedError

    cdef int next(self, Head head) except -1:
        "The exchange with this head is over."
        raise NotImplementedError

    def hang_up(self):
        """Closes what the client is at the other end of, when what was written has left."""
        raise NotImplementedError

    def abort(self):
        """Closes it at once."""
        raise NotImplementedError

    def peer_address(self):
        """HOST:PORT of the client, or None."""
        raise NotImplementedError

    cdef bint under_way(self):
        return self.held or self.calls > 0 or self.inbox.start < self.inbox.ready

    cdef int flush(self) except -1:
        "The answer, when it is there; an exchange that needs none, or gets none, ends without."
        if self.closed:
            return self.orphaned()
        if self.stage == IDLE:
            return self.outbox.release()
        if self.outbox.waiting():
            if self.stage == STREAMING:
                self.put_event(self.outbox.data + self.outbox.sent, self.outbox.waiting() - 1)
                self.outbox.sent = self.outbox.end
                self.end_stream()
            else:
                self.answer_now(self.outbox.data + self.outbox.sent, self.outbox.waiting() - 1)
            return self.drained()
        if self.under_way() or self.corked:
            return 0
        if self.stage == STREAMING:
            self.end_stream()
        elif self.expects_answer:  # it was cancelled: nothing is said, not even an error
            self.open_stream()
            self.end_stream()
        else:
            self.respond(202)
        return 0

    cdef int answer_now(self, const char* at, size_t count) except -1:
        "The answer as JSON."
        cdef int status = self.status_of(at, count)
        if self.session is not self.own and self.session.id is None and not self.front.sessionless:
            self.front.upper.answered(self)
        self.write_whole(status, JSON, self.extra if self.extra is not None else b"", at, count)
        self.outbox.sent = self.outbox.end
        return self.finish()

    cdef int stop_reading(self) except -1:
        return 0

    cdef int stop_if_closed(self, Request request) except -1:
        "A legacy call goes on without its client."
        if self.modern:
            Channel.stop_if_closed(self, request)
        return 0

    cdef int status_of(self, const char* at, size_t count) except -1:
        "What HTTP says beside a JSON-RPC answer (section 10; legacy: 200, unless it was no message)."
        cdef const char* code
        cdef size_t i = PyBytes_GET_SIZE(ID_FRONT)
        cdef bint escaped = False
        if count > i and memcmp(at, PyBytes_AS_STRING(ID_FRONT), i) == 0:
            if at[i] == c'"':
                i += 1
                while i < count and (at[i] != c'"' or escaped):
                    escaped = at[i] == c"\\" and not escaped
                    i += 1
                i += 1
            else:
                while i < count and at[i] != c",":
                    i += 1
        else:
            i = 16  # no id: the error stands behind "jsonrpc":"2.0"
        if count <= i + PyBytes_GET_SIZE(ERROR_CODE) or memcmp(at + i, PyBytes_AS_STRING(ERROR_CODE), PyBytes_GET_SIZE(ERROR_CODE)):
            return 200
        code = at + i + PyBytes_GET_SIZE(ERROR_CODE)
        if self.refused_one and (code[0] == c"4" or code[0] == c"5") and code[4] == c",":
            return (code[0] - c"0") * 100 + (code[1] - c"0") * 10 + code[2] - c"0"  # 4291 and its like: see errors.py
        if memcmp(code, b"-32700", 6) == 0 or memcmp(code, b"-32600", 6) == 0:
            return 400
        if not self.modern:
            return 200
        if memcmp(code, b"-32601", 6) == 0:
            return 404
        if memcmp(code, b"-3202", 5) == 0 or (self.envelope_bad and memcmp(code, b"-32602", 6) == 0):
            return 400
        return 200

    def evidence(self):
        return None if self.head is None else self.front.upper.evidence(self)

    def refuses(self, error):
        """Retry-After, or a challenge, goes with the response."""
        if self.stage == ANSWERING:
            self.refused_one = True
            self.front.upper.refuses(self, error)

    def respond(self, int status, bytes body=b"", bytes kind=PLAIN, bytes extra=b""):
        """A whole response, and the end of the exchange. `extra` are headers, each with its end of line."""
        if self.closed or self.stage != ANSWERING:
            return
        if self.extra is not None:
            extra = self.extra + extra
        self.write_whole(status, kind, extra, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
        self.finish()

    def reply_with(self, int status, bytes line not None, bytes extra=b""):
        """A JSON-RPC message as the whole response."""
        self.respond(status, line.rstrip(b"\n"), JSON, extra)

    # ------------------------------------------------------------------------------------------ events

    def send(self, bytes line not None):
        """One message of the server that belongs to this exchange: from now on the response is a stream."""
        if self.closed:
            if self.recording is not None:
                self.recording.add(line[:len(line) - 1])
            return
        if self.stage == IDLE:
            return
        if self.stage == ANSWERING:
            self.open_stream()
        self.put_event(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line) - 1)
        if self.waiting_bytes > self.engine.output_bytes_max:
            self.abort()  # the client takes nothing

    cdef int open_stream(self) except -1:
        self.stage = STREAMING
        self.write_start(self.extra if self.extra is not None else b"")
        if not self.modern:
            self.recording = self.front.upper.record(self)
        return 0

    def start_stream(self):
        """Answers with an event stream that stays open until `end_stream`."""
        self.open_stream()

    cdef int put_event(self, const char* at, size_t count) except -1:
        if self.recording is not None:
            self.put_raw(self.recording.add(at[:count]))
        else:
            self.put_raw(EVENT_FRONT + at[:count] + b"\n\n")
        return 0

    def put_raw(self, bytes text not None):
        """A piece of an event stream as it stands: an event with an id, a comment, `retry:`."""
        if not self.closed and self.stage == STREAMING:
            self.since_s = self.engine.loop.time()
            self.write_piece(text)

    def close_stream(self):
        """Ends the client's stream of events in the middle of a call; what comes after is kept till it asks for it."""
        if self.closed or self.modern or self.stage == IDLE:
            return
        if self.stage == ANSWERING:
            self.open_stream()
        if self.recording is None:
            return
        self.write_end()
        self.hang_up()
        Channel.close(self)

    def end_stream(self):
        """The stream is whole."""
        if not self.closed and self.stage == STREAMING:
            self.write_end()
            self.finish()

    # ------------------------------------------------------------------------------------------ the end

    cdef int finish(self) except -1:
        "The exchange is over."
        cdef Head head = self.head
        cdef bint streamed = self.stage == STREAMING
        if self.recording is not None:
            self.recording.end()
            self.recording = None
        self.stage, self.head, self.extra, self.body = IDLE, None, None, None
        self.since_s = self.engine.loop.time()
        if self.session is not None and self.session is not self.own:
            if streamed:
                self.front.upper.left(self)
            else:
                self.session.exchanges.discard(self)
                if self.front.sessionless and self.session.as_made:
                    self.spare, self.spare_version = self.session, head.value(PROTOCOL_VERSION)
        self.session = None
        return self.next(head)

    def lost(self):
        """The client is gone: a modern call ends with it, a legacy one goes on."""
        if not self.closed:
            Channel.close(self)
        if self.modern:
            self.cancel_calls("the client disconnected")
        self.front.upper.gone(self)
        self.own = self.spare = None
        if self.modern or not self.calls:  # no cycle is left behind
            self.session = self.recording = None

    cdef int orphaned(self) except -1:
        "A legacy call whose client went: its answer is kept where its events are."
        cdef Py_ssize_t count = self.outbox.waiting() - 1
        if self.modern or self.session is None:
            return self.outbox.release()
        if count > 0 and self.recording is not None:
            self.recording.add(self.outbox.data[self.outbox.sent:self.outbox.sent + count])
        self.outbox.release()
        if not self.calls:
            if self.recording is not None:
                self.recording.end()
            self.front.upper.left(self)
            self.session = self.recording = None
        return 0

    # ------------------------------------------------------------------------------------------ what upper asks

    @property
    def busy(self):
        """An exchange is under way."""
        return self.stage != IDLE

    @property
    def streaming(self):
        """The response is an event stream that is not at its end."""
        return self.stage == STREAMING and not self.closed

    def take(self, Head head not None):
        """A message that `upper` found to be one after all."""
        self.taken(head)

    def own_call(self, bytes id):
        """The request in flight in this exchange with this id, or None."""
        return Channel.find(self, id)

    def find(self, bytes id):
        """The request in flight with this id, in all of the session, or None."""
        return Channel.find(self, id) if self.modern or self.session is None else self.session.find(id)


@cython.final
cdef class RelayedExchange(Exchange):
    """An exchange whose response another server writes. One exchange, one object.

    outlet.start(status, kind, extra, length)   outlet.piece(bytes)   outlet.end()   outlet.abort()
    outlet.waiting_bytes                        outlet.peer_address
    """

    def __init__(self, Front front not None, outlet):
        Exchange.__init__(self, front)
        self.outlet = outlet

    def expect(self, Head head not None):
        """Begins with a request that is no message: an upgrade. Whoever asks says what becomes of it."""
        self.start(head)

    def perform(self, Head head not None):
        """Begins, from a callback of the loop; what is said goes to the outlet, now and later."""
        if not self.closed:
            self.begin(head)

    cdef int write_whole(self, int status, bytes kind, bytes extra, const char* at, size_t count) except -1:
        self.outlet.start(status, kind if count else None, extra, count)
        if count:
            self.outlet.piece(at[:count])
        self.outlet.end()
        return 0

    cdef int write_start(self, bytes extra) except -1:
        self.outlet.start(200, None, extra, None)
        return 0

    cdef int write_piece(self, bytes piece) except -1:
        self.outlet.piece(piece)
        return 0

    cdef int write_end(self) except -1:
        self.outlet.end()
        return 0

    cdef int next(self, Head head) except -1:
        return 0

    def hang_up(self):
        self.outlet.end()

    def abort(self):
        self.outlet.abort()

    def peer_address(self):
        return self.outlet.peer_address

    def taken_all(self):
        """The other server took what waited."""
        self.tell_taken()

    @property
    def waiting_bytes(self):
        """Output that the client has not taken yet."""
        return 0 if self.closed else self.outlet.waiting_bytes
