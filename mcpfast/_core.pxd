# cython: language_level=3
"""The compiled heart, table of contents: bytes and tables, nothing that has opinions.

    frame_t, scan_frame ...   one strict pass over one line (_scan.h)
    shape_t, shape_match ...  the same line again but for its id and arguments (_shape.h)
    Block                     memory that frames are read into, and the window msgspec decodes from
    Inbox                     bytes of one connection, cut into lines
    Outbox                    answers of one connection, corked: joined until somebody flushes
    Shapes                    the last calls, to be known again at one look
    Table                     raw names to objects, at the same cost for 10 and 10,000
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from "_scan.h" nogil:
    ctypedef struct span_t:
        const char* at
        uint32_t len
    ctypedef struct frame_t:
        span_t jsonrpc, id, method, params, result, error
        span_t name, arguments
        span_t version, capabilities, progress_token, log_level
        uint32_t flags, items
    enum:
        SCAN_SLACK
        SCAN_SSE2
        SCAN_ODD
        SCAN_META
        SCAN_META_BAD
        SCAN_RETRY
        SCAN_CLIENT_BAD
        SCAN_DEEP
        SCAN_PARAMS_BAD
        SCAN_SHAPED
        SCAN_OK
        SCAN_BAD
        SCAN_BLANK
        SCAN_ARRAY
        SCAN_SCALAR
    int scan_frame(const char*, int depth_max, frame_t*, const char** end) noexcept
    int scan_is_id(span_t) noexcept
    size_t scan_write_string(char*, const char*, size_t) noexcept

cdef extern from "_shape.h" nogil:
    ctypedef struct shape_t:
        uint32_t front
    void shape_learn(shape_t*, const char* line, const char* end, const frame_t*) noexcept
    int shape_match(const shape_t*, const char* line, const char* limit, frame_t*, const char** end) noexcept


cdef bytes span_bytes(span_t span)


cdef inline bint same(span_t span, bytes text) noexcept:
    return span.len == <size_t>PyBytes_GET_SIZE(text) and memcmp(span.at, PyBytes_AS_STRING(text), span.len) == 0


cdef inline int raise_pending() except -1:
    "The error that a C call left set, as an exception."
    return -1


cdef class Block:
    cdef char* data
    cdef readonly size_t size
    cdef const char* window_at
    cdef Py_ssize_t window_len


cdef class Blocks:
    cdef list spare
    cdef Block long_spare
    cdef readonly size_t size
    cdef Block take(self)
    cdef Block take_long(self, size_t at_least)
    cdef int give(self, Block block) except -1


cdef class Inbox:
    cdef Blocks blocks
    cdef Block block
    cdef size_t start, ready, end
    cdef readonly size_t frame_bytes_max
    cdef readonly bint skipping
    cdef size_t room(self, char** at) except 0
    cdef int commit(self, size_t count) except -1
    cdef int refuse(self) except -1
    cdef int settle(self) except -1


cdef class Outbox:
    cdef char* data
    cdef size_t sent, end, size

    cdef int grow(self, size_t count) except -1
    cdef int release(self) except -1

    cdef inline int need(self, size_t count) except -1:
        if self.end + count > self.size:
            return self.grow(count)
        return 0

    cdef inline void put(self, const char* at, size_t count) noexcept:
        "After `need`."
        memcpy(self.data + self.end, at, count)
        self.end += count

    cdef inline size_t waiting(self) noexcept:
        return self.end - self.sent


cdef enum:
    SHAPES = 8


cdef class Shapes:
    cdef shape_t shapes[SHAPES]
    cdef int last, oldest
    cdef bint any
    cdef int find(self, const char* line, const char* limit, frame_t* frame, const char** end) noexcept
    cdef int learn(self, const char* line, const char* end, frame_t* frame) noexcept
    cdef void forget(self) noexcept


cdef struct entry_t:
    const char* key
    uint32_t key_len
    uint32_t hash
    PyObject* value


cdef class Table:
    cdef readonly size_t version  # grows with every change
    cdef entry_t* entries
    cdef uint32_t mask
    cdef dict owned
    cdef int insert(self, bytes key, object value) except -1
    cdef PyObject* find(self, const char* key, uint32_t key_len) noexcept
