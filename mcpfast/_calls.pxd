# cython: language_level=3
"""How a call gets its Task, table of contents. The one room that knows asyncio's insides.

    Source    who has work: a connection with whole lines to handle
    Carrier   one Task and the call it carries; warm ones carry one call after the other
    Carriers  the warm ones of one loop, and whether warmth is possible here at all
"""
from cpython.object cimport PyObject


cdef extern from "Python.h":
    ctypedef struct PyGetSetDef:
        PyObject* (*get)(PyObject*, void*)
        void* closure
    ctypedef PyObject* (*richcmpfunc)(PyObject*, PyObject*, int)


cdef class Source:
    # Handles lines inside the carrier's Task. WAITS: its call suspended, `carrier.yielded` is what it waits for.
    cdef int drain(self, Carrier carrier) except -1
    # The call that `carrier` carried is over: `value` is what it returned, or NULL, and `error` what it raised.
    cdef int ended(self, Carrier carrier, PyObject* value, object error) except -1


cdef enum:
    DRAINED = 0
    WAITS = 1


cdef class Carrier:
    cdef Carriers home
    cdef readonly Source source
    cdef readonly object task
    cdef object context, parking, wake_up, forget_wake_up
    cdef object coroutine, yielded
    cdef public object request
    cdef Carrier below
    cdef int state
    cdef bint retired
    cdef object step(self)
    cdef object park(self)
    cdef Py_ssize_t references
    cdef bint clean(self) except -1
    cdef bint kept(self) noexcept
    cdef int finish(self, PyObject* value, object error) except -1
    cdef int carry(self, object coroutine, object yielded, object request) except -1


cdef class Carriers:
    cdef readonly object loop, base
    cdef readonly bint warm
    cdef object finished, task_type
    cdef Carrier top  # the parked ones, linked by `below`: a list costs 450 instructions a turn in reallocations
    cdef readonly size_t parked_count
    cdef PyGetSetDef* must_cancel
    cdef richcmpfunc compare_contexts
    cdef readonly size_t made, retired_count
    cdef readonly size_t parked_max
    cdef Carrier take(self)
    cdef int grow(self) except -1
    cdef int wake(self, Carrier carrier, Source source) except -1
    cdef object spawn(self, Source source, object coroutine, object request)
