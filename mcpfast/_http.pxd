# cython: language_level=3
"""HTTP around the spine, table of contents.

    Head         one request: its line, headers, body
    Front        what the HTTP connections of one listener share
    HttpChannel  one connection, and the one exchange that is under way on it
"""
from mcpfast._core cimport frame_t
from mcpfast._spine cimport Channel, Engine


cdef enum Known:  # headers that are looked at in every request
    HOST = 0
    ORIGIN
    CONTENT_TYPE
    ACCEPT
    PROTOCOL_VERSION
    MCP_METHOD
    MCP_NAME
    SESSION_ID
    CONTENT_LENGTH
    EXPECT
    KNOWN_COUNT


cdef class Head:
    cdef readonly bytes method
    cdef readonly bytes target
    cdef readonly list headers
    cdef readonly bytes body
    cdef readonly bint keep_alive
    cdef readonly bint chunks        # HTTP/1.1: a response of unknown length is sent in chunks
    cdef readonly bint doubled       # a header that must stand once stands twice
    cdef bint whole                  # the head is; the body may be on its way
    cdef list known
    cdef bytes value(self, int which)


cdef class Front:
    cdef readonly Engine engine
    cdef readonly object upper
    cdef readonly bytes path
    cdef readonly size_t head_bytes_max, headers_max
    cdef readonly set accepts, types, hosts, origins, revisions
    cdef readonly set plain_tools
    cdef size_t tools_version
    cdef object make_parser
    cdef bytes date
    cdef double date_s
    cdef bytes date_line(self)


cdef enum Stage:
    IDLE = 0   # no exchange
    ANSWERING  # a message is handled or under way; nothing of the response has left
    STREAMING  # the head of an event stream has left


cdef class HttpChannel(Channel):
    cdef readonly Front front
    cdef readonly object transport
    cdef readonly Head head       # of the exchange
    cdef readonly double since_s  # of the last byte in, the last event or the last response
    cdef double begun_s           # of the request that comes
    cdef readonly bint modern     # the era of the exchange
    cdef public object own        # the session of modern requests on this connection, made with the first
    cdef public object recording  # keeps the events of this exchange for a client that comes back, or None
    cdef public bytes extra       # headers that go with the response, each with its end of line
    cdef object parser
    cdef Head coming
    cdef list parts, queue
    cdef size_t body_bytes, head_bytes
    cdef int stage
    cdef public bint resumes  # this exchange repeats a stream
    cdef public bint welcome  # False: one connection too many
    cdef bint refused, expects_answer, envelope_bad
    cdef int begin(self, Head head) except -1
    cdef int message_in(self, Head head) except -1
    cdef size_t put_line_in(self, bytes body) except 0
    cdef bint choose(self, int kind, frame_t* frame, Head head) except -1
    cdef bint mirrored(self, frame_t* frame, Head head) except -1
    cdef int status_of(self, const char* at, size_t count) except -1
    cdef int finish_json(self) except -1
    cdef int open_stream(self) except -1
    cdef int put_event(self, const char* at, size_t count) except -1
    cdef int finish(self) except -1
    cdef bint under_way(self)
