# cython: language_level=3
"""One HTTP exchange around the spine, table of contents.

    Head             one request: its line, headers, body
    Front            what the exchanges of one endpoint share
    Exchange         a request and its response
    RelayedExchange  one whose response another server writes
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


cdef enum Stage:
    IDLE = 0   # no exchange
    ANSWERING  # a message is handled or under way; nothing of the response has left
    STREAMING  # the head of an event stream has left


cdef class Head:
    cdef readonly bytes method
    cdef readonly bytes target
    cdef readonly list headers
    cdef readonly bytes body
    cdef public bytes extra          # headers that every response to it has: what CORS wants
    cdef readonly bint keep_alive
    cdef readonly bint chunks        # HTTP/1.1: a response of unknown length is sent in chunks
    cdef readonly bint doubled       # a header that must stand once stands twice
    cdef readonly bint admitted      # who asks may, and speaks JSON and event streams
    cdef public object caller        # where tenants are served: whose request it is, once that is known
    cdef public str tenant           # the tenant that its path means, or None
    cdef bint whole                  # the head is; the body may be on its way
    cdef list known
    cdef int add(self, bytes name, bytes value) except -1
    cdef bytes value(self, int which)


cdef class Front:
    cdef readonly Engine engine
    cdef readonly object upper
    cdef readonly bytes path
    cdef readonly set accepts, types, hosts, revisions, versions
    cdef readonly dict origins, sessions
    cdef readonly bint sessionless
    cdef readonly set plain_tools
    cdef size_t tools_version


cdef class Exchange(Channel):
    cdef readonly Front front
    cdef readonly Head head       # None between two exchanges
    cdef readonly double since_s  # of the last byte in, the last event or the last response
    cdef readonly bint modern     # the era of the exchange
    cdef public object own        # the session of modern requests on this connection, made with the first
    cdef object spare             # without sessions: that of the message before, or None
    cdef bytes spare_version      # and what its header said
    cdef public object recording  # keeps the events of this exchange for a client that comes back, or None
    cdef public bytes extra       # headers that go with the response, each with its end of line
    cdef public object tied       # whoever is to be told (`lost(reason)`) when the client goes, or None
    cdef public str root          # where the endpoint is mounted: what stands before its path for a client
    cdef public bint secure       # the client speaks TLS
    cdef public object shown      # what the connection itself shows of who is asking (`identity.Shown`), or None
    cdef public Head asked        # where it shows something: the head that `caller` was found for, with it
    cdef bytes body               # of a message that waits until it is known whose it is
    cdef bint refused_one         # a refusal of a tenant is on its way: its code says the status
    cdef int stage
    cdef public bint resumes      # this exchange repeats a stream
    cdef bint expects_answer, envelope_bad
    cdef int begin(self, Head head) except -1
    cdef int start(self, Head head) except -1
    cdef bint known_good(self, Head head) except -1
    cdef int taken(self, Head head) except -1
    cdef bint known_caller(self, Head head) except -1
    cdef int message_in(self, Head head, const char* at, size_t count) except -1
    cdef bint choose(self, int kind, frame_t* frame, Head head) except -1
    cdef object spared(self, int kind, frame_t* frame, bytes version)
    cdef bint mirrored(self, frame_t* frame, Head head) except -1
    cdef int status_of(self, const char* at, size_t count) except -1
    cdef int answer_now(self, const char* at, size_t count) except -1
    cdef int write_whole(self, int status, bytes kind, bytes extra, const char* at, size_t count) except -1
    cdef int write_start(self, bytes extra) except -1
    cdef int write_piece(self, bytes piece) except -1
    cdef int write_end(self) except -1
    cdef int next(self, Head head) except -1
    cdef int open_stream(self) except -1
    cdef int put_event(self, const char* at, size_t count) except -1
    cdef int finish(self) except -1
    cdef bint under_way(self)


cdef class RelayedExchange(Exchange):
    cdef readonly object outlet
