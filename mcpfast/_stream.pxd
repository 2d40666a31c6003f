# cython: language_level=3
"""A channel over descriptors, table of contents."""
from mcpfast._spine cimport Channel


cdef class StreamChannel(Channel):
    cdef int read_fd, write_fd
    cdef bint is_socket, watchable, turning
    cdef int lose(self, int number) except -1
