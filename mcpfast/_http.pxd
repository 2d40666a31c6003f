# cython: language_level=3
"""HTTP/1.1 on a connection, table of contents.

    KnownHead       a head that may come again
    Port            what the connections of one listener share
    HttpConnection  one connection, and the exchanges on it one after the other
"""
from mcpfast._exchange cimport Exchange, Front, Head


cdef enum:
    SEEN_HEADS = 4_096  # places for hashes of heads that came once; a power of two


cdef class KnownHead:
    cdef bytes raw
    cdef Head head
    cdef size_t length_at, digits
    cdef size_t matches(self, const char* at, size_t size, size_t* length) noexcept


cdef class Port:
    cdef readonly Front front
    cdef readonly object owner
    cdef readonly size_t head_bytes_max, headers_max
    cdef object make_parser
    cdef dict known               # heads without the digits of their length to KnownHead
    cdef Py_hash_t seen[SEEN_HEADS]  # of heads that came once
    cdef bint is_new(self, bytes head) except -1
    cdef bytes date, ok_front
    cdef double date_s
    cdef bytes date_line(self)


cdef class HttpConnection(Exchange):
    cdef readonly Port port
    cdef readonly object transport
    cdef object parser
    cdef Head coming              # the request that comes
    cdef double begun_s           # since then
    cdef list parts, queue
    cdef size_t body_bytes, head_bytes  # of the request that comes; of its head what the parser has told
    cdef size_t head_waits  # and, while it is not whole, what came of it
    cdef int fd                   # to write to without the loop, or -1
    cdef public bint welcome      # False: one connection too many
    cdef bint refused
    cdef bint between             # the last byte that came was the last of a request
    cdef int completed            # requests that became whole in one piece of input
    cdef Head last                # the request that became whole last
    cdef Head upgrading           # asks for another protocol
    cdef KnownHead known          # of the last request that came in one piece
    cdef int remember(self, bytes data) except -1
    cdef bint repeated(self, bytes data) except -1
    cdef int write(self, bytes data) except -1
