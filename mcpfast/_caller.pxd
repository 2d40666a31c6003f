# cython: language_level=3
"""Who a request is of, and what that lets it do, table of contents.

    Pass      what the calls of one tool (or of another method) by one caller are held to
    Caller    a principal within a tenant, as the requests of a connection, or of a remembered head, refer to it
"""
from cpython.object cimport PyObject

from mcpfast._quota cimport Admission


cdef class Pass:
    cdef readonly Admission admission
    cdef readonly double cost
    cdef readonly double response_bytes_max  # here and below, infinity: no limit
    cdef readonly double call_s_max


cdef class Caller:
    cdef readonly object tenant, principal, view
    cdef readonly tuple key
    cdef readonly size_t generation
    cdef readonly double expires_s
    cdef dict passes
    cdef PyObject* last       # what was asked for last; `passes` holds it
    cdef Pass last_pass

    cdef inline Pass pass_for(self, what):
        "The Pass for an Entry or a method, or None. Mostly it is the last one: 110 instructions less than a look into the dict."
        if self.last is not <PyObject*>what:
            self.last_pass = self.passes.get(what)
            self.last = <PyObject*>what if self.last_pass is not None else NULL
        return self.last_pass

    cdef inline bint same_as(self, Caller other) except -1:
        "The same principal of the same tenant; one that was removed and came back under its id is another."
        return other is not None and self.tenant is other.tenant and self.key == other.key

    cdef inline bint holds(self, size_t generation, double now_s) noexcept:
        return self.generation == generation and now_s < self.expires_s
