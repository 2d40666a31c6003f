# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""HTTP/1.1 on a connection: bytes are cut into requests by httptools' parser, responses are written.

One exchange at a time: what a client sends behind it (pipelining) waits in `queue`, and so answers leave in order.

A client on a kept connection sends the same head again and again, byte for byte but for its Content-Length. Heads that were found
good are remembered with what was made of them when they come again, the last one by its connection, some by the listener; and a
request with such a head in front goes past the parser and the checks of its headers: they would say the same. (A call took 2.4
times the CPU of a bare protocol that answers a constant, and takes 1.4 times as much: `http_cpu` of `make bench`.)
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy

from mcpfast._exchange cimport CONTENT_LENGTH, EXPECT, IDLE, Exchange, Front, Head

from email.utils import formatdate

cdef extern from "string.h" nogil:
    void* memmem(const void*, size_t, const void*, size_t)

cdef extern from "sys/socket.h" nogil:
    ssize_t send(int, const void*, size_t, int)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL

cdef enum:
    QUEUE_MAX = 16     # requests that a client sends before the answers of those before them
    DIGITS_MAX = 10    # of a Content-Length that is read here; the parser has longer ones
    KNOWN_MAX = 1_024  # heads that a listener remembers
    KNOWN_BYTES_MAX = 2_048  # of such a head

cdef double LINGER_S = 1.0

cdef dict STATUS = {
    200: b"200 OK", 201: b"201 Created", 202: b"202 Accepted", 204: b"204 No Content",
    400: b"400 Bad Request", 401: b"401 Unauthorized",
    403: b"403 Forbidden", 404: b"404 Not Found", 405: b"405 Method Not Allowed", 406: b"406 Not Acceptable",
    408: b"408 Request Timeout", 409: b"409 Conflict", 411: b"411 Length Required", 413: b"413 Content Too Large",
    415: b"415 Unsupported Media Type", 417: b"417 Expectation Failed", 421: b"421 Misdirected Request",
    426: b"426 Upgrade Required", 429: b"429 Too Many Requests", 431: b"431 Request Header Fields Too Large",
    500: b"500 Internal Server Error", 503: b"503 Service Unavailable",
}
# With every response: no type is guessed from the bytes, no answer is kept by what stands between.
cdef bytes ALWAYS = b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
cdef bytes JSON = b"application/json"
cdef bytes JSON_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + ALWAYS
cdef bytes STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Content-Type-Options: nosniff\r\n"
    b"Cache-Control: no-cache, no-store\r\nX-Accel-Buffering: no\r\n"
)
cdef bytes HEAD_TOO_LARGE = b"The request's headers are too large\n"
cdef bytes CLOSE = b"Connection: close\r\n"
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef bytes status_line(int status):
    return STATUS.get(status) or b"%d Status" % status


@cython.final
cdef class KnownHead:
    """A head that was found good: its bytes, where the digits of its Content-Length stand in them, and what was made of it."""

    cdef size_t matches(self, const char* at, size_t size, size_t* length) noexcept:
        "How long the head is that `at` begins with, if it is this one but for its `length`; else 0."
        cdef const char* raw = PyBytes_AS_STRING(self.raw)
        cdef size_t i = self.length_at, rest = PyBytes_GET_SIZE(self.raw) - self.length_at - self.digits
        if size <= i or memcmp(at, raw, i) != 0:
            return 0
        length[0] = 0
        while i < size and i < self.length_at + DIGITS_MAX and c"0" <= at[i] <= c"9":
            length[0] = 10 * length[0] + (at[i] - c"0")
            i += 1
        if i == self.length_at or size - i < rest or memcmp(at + i, raw + self.length_at + self.digits, rest) != 0:
            return 0
        return i + rest


cdef size_t find_length(const char* at, size_t size, size_t* length_at) noexcept:
    "How long the head is, 0 if it is not whole; and where the digits of its first Content-Length stand, spelled as clients do."
    cdef const char* end = <const char*>memmem(at, size, "\r\n\r\n", 4)
    cdef const char* found
    if end == NULL:
        return 0
    found = <const char*>memmem(at, end - at, "\r\nContent-Length: ", 18)
    if found == NULL:
        found = <const char*>memmem(at, end - at, "\r\ncontent-length: ", 18)
    if found == NULL:
        return 0
    length_at[0] = found + 18 - at
    return end + 4 - at


@cython.final
cdef class Port:
    """What the connections of one listener share. `make_parser(protocol)` gives httptools' parser.

    owner.made(connection)   owner.gone(connection)   owner.upgrade(connection, head, rest)
    """

    def __init__(self, Front front not None, owner, make_parser, limits):
        self.front, self.owner, self.make_parser = front, owner, make_parser
        self.head_bytes_max, self.headers_max = limits.head_bytes_max, limits.headers_max
        self.known, self.date_s = {}, -1

    cdef bint is_new(self, bytes head) except -1:
        """Whether a head comes for the first time, as far as a hash in a place of its own tells. Of ten thousand clients that come
        in turns no head would be found again, and keeping each for a while is a tenth of the work and most of the garbage."""
        cdef Py_hash_t seen = hash(head)
        cdef size_t place = <size_t>seen & (SEEN_HEADS - 1)
        if self.seen[place] == seen:
            return False
        self.seen[place] = seen
        return True

    cdef bytes date_line(self):
        cdef double now = self.front.engine.loop.time()
        if not self.date_s <= now < self.date_s + 1:
            self.date_s = now
            self.date = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
            self.ok_front = JSON_OK + self.date
        return self.date


@cython.final
cdef class HttpConnection(Exchange):
    """One connection: an asyncio.Protocol for the loop."""

    def __init__(self, Port port not None):
        Exchange.__init__(self, port.front)
        self.port, self.fd = port, -1
        self.queue, self.parts, self.welcome, self.between = [], [], True, True

    # ------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport):
        """The loop's callback."""
        self.transport = transport
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.port.owner.made(self)
        if not self.welcome:
            transport.abort()
            return
        self.parser = self.port.make_parser(self)
        if not self.secure:
            self.fd = transport.get_extra_info("socket").fileno()

    def data_received(self, bytes data not None):
        """The loop's callback: bytes in."""
        cdef bint fresh = self.between
        if self.refused or self.closed:
            return
        self.since_s = self.engine.loop.time()
        if fresh and self.stage == IDLE and not self.queue and self.repeated(data):
            return
        self.completed = 0
        try:
            self.parser.feed_data(data)
        except BaseException as error:
            if type(error).__name__ == "HttpParserUpgrade" and not self.refused:
                self.upgrade(data[error.args[0]:])
            elif not self.refused:
                self.refuse(400, b"Bad request: this is not HTTP as it should be\n")
            return
        if self.coming is not None and not self.coming.whole:
            self.head_waits += len(data)
            if self.head_waits > self.port.head_bytes_max:
                self.refuse(431, HEAD_TOO_LARGE)
        elif fresh and self.completed == 1 and self.between and not self.closed:
            self.remember(data)

    def upgrade(self, bytes rest):
        """A request asks for another protocol, and `rest` came behind its head. What is not WebSocket may be overlooked (RFC 9110,
        section 7.8; the HTTP client of Java asks for h2c in every first request): it is parsed anew, without the question."""
        cdef Head head = self.upgrading
        self.upgrading = None
        if head.method == b"CONNECT":
            self.refuse(400, b"This is no proxy\n")
        elif head.method != b"GET" or not wants_websocket(head):
            self.parser, self.between = self.port.make_parser(self), True
            self.data_received(without_upgrade(head) + rest)
        elif self.stage != IDLE or self.queue:
            self.refuse(400, b"An upgrade cannot be asked for behind requests that wait\n")
        else:
            head.keep_alive = False
            self.start(head)
            self.port.owner.upgrade(self, head, rest)

    def detach(self):
        """The connection is somebody else's from now on; gives its transport."""
        transport = self.transport
        self.connection_lost(None)
        return transport

    def eof_received(self):
        """The loop's callback: the client sends nothing more, and a client that is gone looks the same."""
        return False

    def connection_lost(self, error):
        """The loop's callback."""
        self.parser = self.coming = self.last = self.known = None
        self.queue.clear()
        self.fd = -1
        self.lost()
        self.port.owner.gone(self)

    def pause_writing(self):
        """The loop's callback: the client takes nothing for now."""

    def resume_writing(self):
        """The loop's callback."""
        self.tell_taken()

    # ------------------------------------------------------------------------------------------ the same head again

    cdef int remember(self, bytes data) except -1:
        "`data` was one whole request: its head, if another may be like it."
        cdef Head head = self.last
        cdef const char* at = PyBytes_AS_STRING(data)
        cdef size_t count, length_at = 0
        cdef KnownHead known
        cdef bytes key
        self.known = self.last = None
        if head is None or not head.admitted or not head.keep_alive or head.value(EXPECT) is not None:
            return 0
        if self.engine.tenancy is not None and head.caller is None and self.shown is None and self.body is None:
            return 0  # it was refused: a flood of bad credentials drives nobody else's head out
        count = find_length(at, PyBytes_GET_SIZE(data), &length_at)
        if (count == 0 or count > KNOWN_BYTES_MAX or count + PyBytes_GET_SIZE(head.body) != <size_t>PyBytes_GET_SIZE(data)
                or head.value(CONTENT_LENGTH) is None or not data.startswith(head.value(CONTENT_LENGTH), length_at)):
            return 0
        key = data[:length_at] + data[length_at + PyBytes_GET_SIZE(head.value(CONTENT_LENGTH)):count]
        if self.port.is_new(key):
            return 0
        known = KnownHead.__new__(KnownHead)
        known.raw, known.head = data[:count], head
        known.length_at, known.digits = length_at, PyBytes_GET_SIZE(head.value(CONTENT_LENGTH))
        head.body = b""
        if len(self.port.known) >= KNOWN_MAX:
            self.port.known.clear()
        self.port.known[key] = self.known = known
        return 0

    cdef bint repeated(self, bytes data) except -1:
        "A whole request whose head is a known one but for its length; False: it is the parser's."
        cdef const char* at = PyBytes_AS_STRING(data)
        cdef size_t size = PyBytes_GET_SIZE(data), length = 0, body = 0, count, length_at = 0, digits = 0
        cdef KnownHead known = self.known
        if known is not None:
            body = known.matches(at, size, &length)
        if body == 0 and self.port.known:  # another one of this listener: the client calls something else, or is a proxy
            count = find_length(at, size, &length_at)
            if count == 0 or count > KNOWN_BYTES_MAX:
                return False
            while c"0" <= at[length_at + digits] <= c"9":
                digits += 1
            known = self.port.known.get(at[:length_at] + at[length_at + digits:count])
            if known is None:
                return False
            body = known.matches(at, size, &length)
            self.known = known
        if body == 0 or size - body != length or length > self.engine.frame_bytes_max:
            return False
        if self.engine.tenancy is not None and not self.known_caller(known.head):
            return False
        self.start(known.head)
        try:
            self.message_in(known.head, at + body, length)
        except BaseException as error:
            self.front.upper.broke(self, error)
        return True

    # ------------------------------------------------------------------------------------------ httptools

    def on_message_begin(self):
        """The parser's callback."""
        self.coming = Head.__new__(Head)
        self.head_bytes = self.head_waits = self.body_bytes = 0
        self.between = False
        self.begun_s = self.since_s
        self.parts.clear()

    def on_url(self, bytes target not None):
        """The parser's callback."""
        self.coming.target = target if self.coming.target is None else self.coming.target + target
        self.head_bytes += len(target)

    def on_header(self, bytes name not None, bytes value not None):
        """The parser's callback."""
        self.head_bytes += len(name) + len(value) + 4
        if self.head_bytes > self.port.head_bytes_max:
            self.refuse(431, HEAD_TOO_LARGE)
        elif len(self.coming.headers) >= <Py_ssize_t>self.port.headers_max:
            self.refuse(431, b"The request has too many headers\n")
        else:
            self.coming.add(name, value)

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
        self.completed += 1
        self.between = True
        if self.parser.should_upgrade():
            self.upgrading = head
        elif self.stage == IDLE:
            self.last = head
            self.begin(head)
        else:
            self.queue.append(head)
            if len(self.queue) >= QUEUE_MAX:
                self.refuse(429, b"Too many requests in one pipeline\n")
            elif self.transport is not None:
                self.transport.pause_reading()

    # ------------------------------------------------------------------------------------------ out

    cdef int write(self, bytes data) except -1:
        """To the socket at once, where nothing waits and nothing is to be encrypted: the loop would do it at the end of its
        turn, and take 1.1 us for it."""
        cdef ssize_t count
        if self.fd >= 0 and self.transport.get_write_buffer_size() == 0:
            count = send(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL)
            if count == PyBytes_GET_SIZE(data):
                return 0
            if count > 0:
                data = data[count:]
        self.transport.write(data)  # what is wrong with the connection the loop finds, too
        return 0

    cdef int write_whole(self, int status, bytes kind, bytes extra, const char* at, size_t count) except -1:
        cdef Port port = self.port
        cdef bytes date = port.date_line(), front, response
        cdef char length[64]
        cdef int digits = 0
        cdef char* to
        if status == 200 and kind == JSON:
            front = port.ok_front
        else:
            front = b"HTTP/1.1 %s\r\n%s%s%s" % (
                status_line(status), b"Content-Type: %s\r\n" % kind if count else b"", ALWAYS, date)
        if self.refused or not self.head.keep_alive:
            extra += CLOSE
        if status != 204:
            digits = snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", count)
        else:
            extra += b"\r\n"
        if self.head.method == b"HEAD":
            count = 0
        response = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(front) + PyBytes_GET_SIZE(extra) + digits + count)
        to = PyBytes_AS_STRING(response)
        memcpy(to, PyBytes_AS_STRING(front), PyBytes_GET_SIZE(front))
        to += PyBytes_GET_SIZE(front)
        memcpy(to, PyBytes_AS_STRING(extra), PyBytes_GET_SIZE(extra))
        to += PyBytes_GET_SIZE(extra)
        memcpy(to, length, digits)
        memcpy(to + digits, at, count)
        return self.write(response)

    def refuse(self, int status, bytes why):
        """What cannot be trusted any further: answered, and the connection closes."""
        self.refused = True
        if self.closed:
            return
        if self.stage == IDLE:  # behind an exchange that is under way nothing can be said in order
            self.transport.write(
                b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\n%s%s%sContent-Length: %d\r\n\r\n%s" % (
                    status_line(status), ALWAYS, self.port.date_line(), CLOSE, len(why), why))
            if self.transport.can_write_eof():
                # what the client still sends is thrown away for a while: closing on it would reset the connection, and the
                # client never read what was wrong
                self.fd = -1
                self.transport.write_eof()
                self.engine.loop.call_later(LINGER_S, self.abort)
                return
        self.hang_up()

    cdef int write_start(self, bytes extra) except -1:
        if not self.head.chunks or not self.head.keep_alive:
            extra += CLOSE
        if self.head.chunks:
            extra += b"Transfer-Encoding: chunked\r\n"
        return self.write(STREAM_HEAD + self.port.date_line() + extra + b"\r\n")

    cdef int write_piece(self, bytes piece) except -1:
        return self.write(b"%x\r\n%s\r\n" % (len(piece), piece) if self.head.chunks else piece)

    cdef int write_end(self) except -1:
        if self.head.chunks:
            return self.write(b"0\r\n\r\n")
        self.head.keep_alive = False
        return 0

    cdef int next(self, Head head) except -1:
        "The next exchange, or the end of the connection."
        if self.refused or not head.keep_alive or self.engine.closing:
            self.hang_up()
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

    def hang_up(self):
        """Closes the connection when what was written has left."""
        self.fd = -1
        self.transport.close()

    def abort(self):
        """Closes the connection at once."""
        self.fd = -1
        if self.transport is not None:
            self.transport.abort()

    def peer_address(self):
        """HOST:PORT of the client, or None."""
        name = self.transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else None

    @property
    def waiting_bytes(self):
        """Output that the client has not taken yet."""
        return 0 if self.closed else self.transport.get_write_buffer_size()

    def late(self, double now_s, double head_s, double body_s):
        """Whether a request that has begun to come should be whole by now."""
        return self.coming is not None and now_s - self.begun_s > (body_s if self.coming.whole else head_s)


cdef bytes without_upgrade(Head head):
    "The head of a request that asks for no other protocol."
    lines = [head.method + b" " + head.target + (b" HTTP/1.1" if head.chunks else b" HTTP/1.0")]
    for name, value in head.headers:
        if name == b"connection":
            value = b", ".join([item.strip() for item in value.split(b",") if item.strip().lower() != b"upgrade"])
        if name != b"upgrade":
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


cdef bint wants_websocket(Head head):
    upgrade = head.header(b"upgrade")
    return upgrade is not None and b"websocket" in [item.strip().lower() for item in upgrade.split(b",")]
