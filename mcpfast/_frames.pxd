# cython: language_level=3
"""Connections of whole messages, table of contents.

    FrameChannel   a message in, a message out: WebSocket frames, events of the transport of 2024
"""
from mcpfast._spine cimport Channel


cdef class FrameChannel(Channel):
    cdef object write
    cdef int put_behind(self, bytes data) except -1
