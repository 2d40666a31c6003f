# cython: language_level=3
"""A tool as the hot way needs it, table of contents.

    scalar_t, scalars_read   arguments that are plain scalars, read at one look (_scalars.h)
    Entry                    its arguments from JSON, and the call of its function
"""
from cpython.object cimport PyObject

from mcpfast._core cimport Block, span_t

cdef extern from "_scalars.h":
    ctypedef struct scalar_t:
        const char* name
        size_t name_len
        int kind
        PyObject* missing
    enum:
        SCALAR_STRING
        SCALAR_INTEGER
        SCALAR_BOOLEAN
    int scalars_read(const char* at, const char* end, const scalar_t*, int count, PyObject** values) noexcept


cdef enum:
    ARGUMENTS_MAX = 64  # parameters of a handler that the hot way passes; tools with more take the other


cdef enum Kind:
    KIND_BODY = 0    # the handler gives the result's JSON
    KIND_ENCODE = 1  # encode(value, wire) gives the result's JSON
    KIND_TEXT = 2    # a str is text and structured content; what else is returned goes by `encode`
    KIND_ALONE = 3   # a str is text alone; the rest the same


cdef class Entry:
    cdef readonly str name
    cdef readonly object owner
    cdef object fn, decode, encode
    cdef tuple fields, keywords, members
    cdef readonly int context_at
    cdef readonly int kind
    cdef public bint fast
    cdef public bint own_task
    cdef readonly bint scalars
    cdef bint inline
    cdef int dirty
    cdef int count           # arguments, without a Context
    cdef size_t positional   # arguments in front of the keywords, with it
    cdef object decoded_type
    cdef Py_ssize_t* offsets
    cdef scalar_t* plain     # NULL: not all of them are plain scalars
    cdef int read(self, Block block, span_t arguments, PyObject** values) except -1
    cdef int decode_into(self, Block block, span_t arguments, PyObject** values) except -1
    cdef PyObject* invoke(self, PyObject** argv, object make_context, object request) except NULL
