# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""HTTP around the spine: one request is an exchange on its connection, and its body a line of a Channel.

    data_received   bytes, cut into requests by httptools' parser
    begin           who may ask, and for what: only a plain POST goes on here, the rest is `upper`'s (transports/http.py)
    message_in      the body into the inbox; its era, its session, its mirrored headers
    pump            the way of every message (_spine)
    flush           the answer, as JSON; or as the last event of a stream, once something was sent before it

One exchange at a time: what a client sends behind it (pipelining) waits in `queue`, and so answers leave in order.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, memcpy

from mcpfast._core cimport (
    SCAN_ARRAY, SCAN_ODD, SCAN_OK, frame_t, same, scan_frame, scan_is_id, span_bytes, span_t,
)
from mcpfast._spine cimport Channel, Engine, Request

from email.utils import formatdate

cdef enum:
    QUEUE_MAX = 16  # requests that a client sends before the answers of those before them

cdef dict KNOWN_HEADERS = {
    b"host": HOST, b"origin": ORIGIN, b"content-type": CONTENT_TYPE, b"accept": ACCEPT,
    b"mcp-protocol-version": PROTOCOL_VERSION, b"mcp-method": MCP_METHOD, b"mcp-name": MCP_NAME,
    b"mcp-session-id": SESSION_ID, b"content-length": CONTENT_LENGTH, b"expect": EXPECT,
}
cdef dict STATUS = {
    200: b"200 OK", 202: b"202 Accepted", 204: b"204 No Content", 400: b"400 Bad Request", 401: b"401 Unauthorized",
    403: b"403 Forbidden", 404: b"404 Not Found", 405: b"405 Method Not Allowed", 406: b"406 Not Acceptable",
    408: b"408 Request Timeout", 409: b"409 Conflict", 411: b"411 Length Required", 413: b"413 Content Too Large",
    415: b"415 Unsupported Media Type", 417: b"417 Expectation Failed", 421: b"421 Misdirected Request",
    429: b"429 Too Many Requests", 431: b"431 Request Header Fields Too Large", 500: b"500 Internal Server Error",
    503: b"503 Service Unavailable",
}
# With every response: no type is guessed from the bytes, no answer is kept by what stands between.
cdef bytes ALWAYS = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
cdef bytes JSON_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n" + ALWAYS
cdef bytes JSON_OK = JSON_HEAD % b"200 OK"
cdef bytes STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Content-Type-Options: nosniff\r\n"
    b"Cache-Control: no-cache, no-store\r\nX-Accel-Buffering: no\r\n"
)
cdef bytes CLOSE = b"Connection: close\r\n"
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes POST = b"POST"
cdef bytes INITIALIZE = b'"initialize"'
cdef bytes ERROR_CODE = b',"error":{"code":'
cdef bytes ID_FRONT = b'{"jsonrpc":"2.0","id":'
cdef bytes EVENT_FRONT = b"event: message\ndata: "


cdef inline bint quoted(span_t span, bytes text) noexcept:
    "Whether the JSON string is `text`, written plainly."
    return (span.len == <size_t>PyBytes_GET_SIZE(text) + 2
            and memcmp(span.at + 1, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) == 0)


@cython.final
@cython.freelist(16)
cdef class Head:
    """One request: method and target as they came, headers with lower-case names, and the body when it is whole."""

    cdef bytes value(self, int which):
        return self.known[which]

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
    """What the HTTP connections of one listener share.

    `path` is the endpoint's; `accepts`, `types` and `hosts` are the raw header values that were looked at and found good,
    `origins` those with the Host they are good for (`upper.admit` adds to them). `revisions` are the modern ones, as the header
    names them; `plain_tools` the raw JSON names of tools that were looked at and have no arguments that headers mirror.

    upper.admit(channel, head) -> bool               upper.other(channel, head)
    upper.session_for(channel, head, opening) -> Session | None
    upper.modern_session(channel) -> Session         upper.one_line(body) -> bytes | None
    upper.mirror_error(channel, head, id, method, name, version) -> bytes
    upper.params_differ(head, name, method, arguments, id) -> bytes | None
    upper.broken_envelope(id) -> bytes               upper.gone(channel)
    upper.upgrade(channel, head) -> None
    """

    def __init__(self, Engine engine not None, upper, bytes path not None, make_parser, set revisions, limits):
        self.engine, self.upper, self.path, self.make_parser = engine, upper, path, make_parser
        self.accepts, self.types, self.hosts, self.origins = set(), set(), set(), set()
        self.revisions, self.plain_tools, self.tools_version = revisions, set(), engine.tools.version
        self.head_bytes_max, self.headers_max = limits.head_bytes_max, limits.headers_max
        self.date_s = -1

    cdef bytes date_line(self):
        cdef double now = self.engine.loop.time()
        if not self.date_s <= now < self.date_s + 1:
            self.date_s = now
            self.date = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
        return self.date


cdef class HttpChannel(Channel):
    """One HTTP connection: an asyncio.Protocol for the loop, a Channel for the spine."""

    def __init__(self, Front front not None):
        Channel.__init__(self, front.engine, front.upper)
        self.front = front
        self.queue, self.parts, self.welcome = [], [], True

    # ------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport):
        """The loop's callback."""
        self.transport = transport
        if not self.welcome:
            transport.abort()
        self.parser = self.front.make_parser(self)
        self.since_s = self.engine.loop.time()

    def data_received(self, bytes data not None):
        """The loop's callback: bytes in."""
        if self.refused or self.closed:
            return
        self.since_s = self.engine.loop.time()
        try:
            self.parser.feed_data(data)
        except BaseException as error:
            if type(error).__name__ == "HttpParserUpgrade":
                self.front.upper.upgrade(self, self.coming)
            elif not self.refused:
                self.refuse(400, b"Bad request: this is not HTTP as it should be\n")
            return
        if self.coming is not None and not self.coming.whole:
            self.head_bytes += len(data)
            if self.head_bytes > self.front.head_bytes_max:
                self.refuse(431, b"The request's headers are too large\n")

    def eof_received(self):
        """The loop's callback: the client sends nothing more, and a client that is gone looks the same."""
        return False

    def connection_lost(self, error):
        """The loop's callback."""
        Channel.close(self)
        self.parser = self.coming = None
        self.queue.clear()
        if self.modern:
            self.cancel_calls("the client disconnected")
        self.front.upper.gone(self)
        self.own = None
        if self.modern or not self.calls:  # no cycle is left behind
            self.session = self.recording = None

    def pause_writing(self):
        """The loop's callback: the client takes nothing for now."""

    def resume_writing(self):
        """The loop's callback."""
        self.tell_taken()

    # ------------------------------------------------------------------------------------------ httptools

    def on_message_begin(self):
        """The parser's callback."""
        self.coming = Head.__new__(Head)
        self.coming.headers, self.coming.known = [], [None] * KNOWN_COUNT
        self.head_bytes = self.body_bytes = 0
        self.begun_s = self.since_s
        self.parts.clear()

    def on_url(self, bytes target not None):
        """The parser's callback."""
        self.coming.target = target if self.coming.target is None else self.coming.target + target

    def on_header(self, bytes name not None, bytes value not None):
        """The parser's callback."""
        cdef Head head = self.coming
        if len(head.headers) >= <Py_ssize_t>self.front.headers_max:
            self.refuse(431, b"The request has too many headers\n")
            return
        name = name.lower()
        head.headers.append((name, value))
        known = KNOWN_HEADERS.get(name)
        if known is not None:
            head.doubled = head.doubled or head.known[<int>known] is not None
            head.known[<int>known] = value.strip(b" \t")

    def on_headers_complete(self):
        """The parser's callback: what can be refused before the body is."""
        cdef Head head = self.coming
        cdef bytes length
        if self.refused:
            return
        head.whole = True
        head.method = self.parser.get_method()
        head.keep_alive = self.parser.should_keep_alive()
        head.chunks = self.parser.get_http_version() != "1.0"
        length = head.value(CONTENT_LENGTH)
        if length is not None and (len(length) > 18 or int(length) > self.engine.frame_bytes_max):
            self.refuse(413, b"The request's body is larger than this server takes\n")
        elif head.value(EXPECT) is not None:
            if head.value(EXPECT).lower() != b"100-continue":
                self.refuse(417, b"The only expectation known is 100-continue\n")
            elif self.stage == IDLE:
                self.transport.write(CONTINUE)

    def on_body(self, bytes data not None):
        """The parser's callback."""
        if self.refused:
            return
        self.body_bytes += len(data)
        if self.body_bytes > self.engine.frame_bytes_max:
            self.refuse(413, b"The request's body is larger than this server takes\n")
            return
        self.parts.append(data)

    def on_message_complete(self):
        """The parser's callback: a whole request."""
        cdef Head head = self.coming
        if self.refused:
            return
        head.body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self.coming = None
        if self.stage == IDLE:
            self.begin(head)
            return
        self.queue.append(head)
        if len(self.queue) >= QUEUE_MAX:
            self.refuse(429, b"Too many requests in one pipeline\n")
        elif self.transport is not None:
            self.transport.pause_reading()

    # ------------------------------------------------------------------------------------------ one exchange

    cdef int begin(self, Head head) except -1:
        cdef Front front = self.front
        self.head, self.stage, self.extra = head, ANSWERING, None
        self.expects_answer = self.modern = self.envelope_bad = self.resumes = False
        try:
            if head.target != front.path or head.method != POST or head.doubled:
                front.upper.other(self, head)
            elif ((head.value(CONTENT_TYPE) in front.types and head.value(ACCEPT) in front.accepts
                   and head.value(HOST) in front.hosts
                   and (head.value(ORIGIN) is None or (head.value(ORIGIN), head.value(HOST)) in front.origins))
                  or front.upper.admit(self, head)):
                self.message_in(head)
        except BaseException as error:
            front.upper.broke(self, error)
        return 0

    cdef int message_in(self, Head head) except -1:
        "The body as a line of the channel."
        cdef bytes body = head.body
        cdef frame_t frame
        cdef const char* end = NULL
        cdef size_t last
        cdef int kind
        if memchr(PyBytes_AS_STRING(body), c"\n", PyBytes_GET_SIZE(body)) != NULL:
            body = self.front.upper.one_line(body)
        last = self.put_line_in(body)
        kind = scan_frame(self.inbox.block.data + self.inbox.start, self.engine.depth_max, &frame, &end)
        if kind == SCAN_OK and frame.flags & SCAN_ODD:  # decided from here, so it must be plain here already
            self.inbox.start = self.inbox.ready = self.inbox.end = 0
            body = self.engine.upper.plain(body)
            last = self.put_line_in(body if body is not None else b"-")
            kind = scan_frame(self.inbox.block.data + self.inbox.start, self.engine.depth_max, &frame, &end)
        if self.choose(kind, &frame, head):
            self.received(last)
        else:  # answered already: the line is let go
            self.inbox.start = self.inbox.ready = self.inbox.end = 0
            self.inbox.settle()
        return 0

    cdef size_t put_line_in(self, bytes body) except 0:
        "The body as a line in the inbox; gives how many bytes of it, its newline the last, are still to be committed."
        cdef char* at = NULL
        cdef size_t count = PyBytes_GET_SIZE(body)
        if count == 0:
            body, count = b"-", 1  # no message at all is no JSON
        if self.inbox.room(&at) > count:
            memcpy(at, PyBytes_AS_STRING(body), count)
            at[count] = c"\n"
            return count + 1
        self.feed(body)
        self.inbox.room(&at)
        at[0] = c"\n"
        return 1

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
            session = front.upper.session_for(
                self, head, kind == SCAN_OK and same(frame.method, INITIALIZE), kind == SCAN_OK or kind == SCAN_ARRAY)
            if session is None:
                return False
        self.session = session
        return True

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
                self.finish_json()
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
        if memcmp(code, b"-32700", 6) == 0 or memcmp(code, b"-32600", 6) == 0:
            return 400
        if not self.modern:
            return 200
        if memcmp(code, b"-32601", 6) == 0:
            return 404
        if memcmp(code, b"-3202", 5) == 0 or (self.envelope_bad and memcmp(code, b"-32602", 6) == 0):
            return 400
        return 200

    cdef int finish_json(self) except -1:
        cdef const char* at = self.outbox.data + self.outbox.sent
        cdef size_t count = self.outbox.waiting() - 1  # without its newline
        cdef int status = self.status_of(at, count)
        cdef bytes head = JSON_OK if status == 200 else JSON_HEAD % STATUS[status]
        cdef bytes date = self.front.date_line(), extra, response
        cdef char length[64]
        cdef int digits
        cdef char* to
        if self.session is not self.own:
            self.front.upper.answered(self, status)
        extra = self.extra if self.extra is not None else b""
        if not self.head.keep_alive:
            extra += CLOSE
        digits = snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", count)
        response = PyBytes_FromStringAndSize(
            NULL, PyBytes_GET_SIZE(head) + PyBytes_GET_SIZE(date) + PyBytes_GET_SIZE(extra) + digits + count)
        to = PyBytes_AS_STRING(response)
        memcpy(to, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
        to += PyBytes_GET_SIZE(head)
        memcpy(to, PyBytes_AS_STRING(date), PyBytes_GET_SIZE(date))
        to += PyBytes_GET_SIZE(date)
        memcpy(to, PyBytes_AS_STRING(extra), PyBytes_GET_SIZE(extra))
        to += PyBytes_GET_SIZE(extra)
        memcpy(to, length, digits)
        memcpy(to + digits, at, count)
        self.outbox.sent = self.outbox.end
        self.transport.write(response)
        return self.finish()

    def respond(self, int status, bytes body=b"", bytes kind=b"text/plain; charset=utf-8", bytes extra=b""):
        """A whole response, and the end of the exchange. `extra` are headers, each with its end of line."""
        cdef Head head = self.head
        cdef bytes closing = b"" if head is None or (head.keep_alive and not self.refused) else CLOSE
        cdef bytes length = b"" if status == 204 else b"Content-Length: %d\r\n" % len(body)
        if self.closed:
            return
        self.transport.write(b"HTTP/1.1 %s\r\n%s%s%s%s%s%s%s\r\n%s" % (
            STATUS[status], b"Content-Type: %s\r\n" % kind if body else b"", ALWAYS, self.front.date_line(),
            self.extra or b"", extra, closing, length, b"" if head is not None and head.method == b"HEAD" else body))
        self.finish()

    def reply_with(self, int status, bytes line not None, bytes extra=b""):
        """A JSON-RPC message as the whole response."""
        self.respond(status, line.rstrip(b"\n"), b"application/json", extra)

    def refuse(self, int status, bytes why):
        """What cannot be trusted any further: answered, and the connection closes."""
        self.refused = True
        if self.closed:
            return
        if self.stage != IDLE:  # behind an exchange that is under way nothing can be said in order
            self.transport.close()
            return
        self.head = None
        self.transport.write(b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\n%s%s%sContent-Length: %d\r\n\r\n%s" % (
            STATUS[status], ALWAYS, self.front.date_line(), CLOSE, len(why), why))
        self.transport.close()

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
        if self.transport.get_write_buffer_size() > self.engine.output_bytes_max:
            self.transport.abort()  # the client takes nothing

    cdef int open_stream(self) except -1:
        cdef bytes extra = self.extra if self.extra is not None else b""
        if not self.head.chunks or not self.head.keep_alive:
            extra += CLOSE
        if self.head.chunks:
            extra += b"Transfer-Encoding: chunked\r\n"
        self.stage = STREAMING
        self.transport.write(STREAM_HEAD + self.front.date_line() + extra + b"\r\n")
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

    def close_stream(self):
        """Ends the client's stream of events in the middle of a call; what comes after is kept till it asks for it."""
        if self.closed or self.modern or self.stage == IDLE:
            return
        if self.stage == ANSWERING:
            self.open_stream()
        if self.recording is None:
            return
        if self.head.chunks:
            self.transport.write(b"0\r\n\r\n")
        self.transport.close()
        Channel.close(self)

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

    def put_raw(self, bytes text not None):
        """A piece of an event stream as it stands: an event with an id, a comment, `retry:`."""
        if not self.closed and self.stage == STREAMING:
            self.since_s = self.engine.loop.time()
            self.transport.write(b"%x\r\n%s\r\n" % (len(text), text) if self.head.chunks else text)

    def end_stream(self):
        """The stream is whole."""
        if self.closed or self.stage != STREAMING:
            return
        if self.head.chunks:
            self.transport.write(b"0\r\n\r\n")
        else:
            self.head.keep_alive = False
        self.finish()

    cdef int finish(self) except -1:
        "The exchange is over: the next one, or the end of the connection."
        cdef Head head = self.head
        if self.recording is not None:
            self.recording.end()
            self.recording = None
        self.stage, self.head, self.extra = IDLE, None, None
        self.since_s = self.engine.loop.time()
        if self.session is not self.own:
            self.front.upper.left(self)
        self.session = None
        if self.refused or (head is not None and not head.keep_alive) or self.engine.closing:
            self.transport.close()
        elif self.queue:
            self.engine.loop.call_soon(self.next_exchange)
        return 0

    def next_exchange(self):
        """The loop's callback: the request that waited behind the last one."""
        if self.closed or self.stage != IDLE or not self.queue:
            return
        head = self.queue.pop(0)
        if not self.queue:
            self.transport.resume_reading()
        self.begin(head)

    @property
    def waiting_bytes(self):
        """Output that the client has not taken yet."""
        return 0 if self.closed else self.transport.get_write_buffer_size()

    @property
    def busy(self):
        """An exchange is under way."""
        return self.stage != IDLE

    @property
    def streaming(self):
        """The response is an event stream that is not at its end."""
        return self.stage == STREAMING and not self.closed

    def late(self, double now_s, double head_s, double body_s):
        """Whether a request that has begun to come should be whole by now."""
        return self.coming is not None and now_s - self.begun_s > (body_s if self.coming.whole else head_s)

    def take(self, Head head not None):
        """A message that `upper` found to be one after all."""
        self.message_in(head)

    def own_call(self, bytes id):
        """The request in flight on this connection with this id, or None."""
        return Channel.find(self, id)

    def find(self, bytes id):
        """The request in flight with this id, in all of the session, or None."""
        return Channel.find(self, id) if self.modern or self.session is None else self.session.find(id)
