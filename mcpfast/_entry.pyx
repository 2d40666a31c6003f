# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A tool as the hot way needs it: its arguments from JSON to objects, and the call of its function.

Plain scalars are read here (_scalars.h). Everything else msgspec decodes from the block, without a copy, into a Struct whose
slots are read where they are.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject

from mcpfast._core cimport SCAN_SLACK, raise_pending

cdef extern from "Python.h":
    PyObject* PyObject_Vectorcall(PyObject*, PyObject**, size_t, PyObject*)
    void Py_DECREF(PyObject*)
    void Py_INCREF(PyObject*)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET

cdef extern from *:
    """
    #include <structmember.h>
    """
    ctypedef struct PyTypeObject:
        pass
    PyTypeObject PyMemberDescr_Type
    PyTypeObject* Py_TYPE(object)
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member
    enum:
        OBJECT_MEMBER "T_OBJECT_EX"


BODY, ENCODE, TEXT, ALONE = KIND_BODY, KIND_ENCODE, KIND_TEXT, KIND_ALONE  # for the rooms above

cdef bytes NO_ARGUMENTS = b"{}"
cdef dict SCALAR_KINDS = {str: SCALAR_STRING, int: SCALAR_INTEGER, bool: SCALAR_BOOLEAN}


@cython.final
cdef class Entry:
    """A tool as the hot way needs it.

    `decode(buffer)` gives a `decoded_type`, a Struct with the attributes `fields`, which are what `fn` is called with, in this
    order; the last ones under the names `keywords`. `context_at` is where among them a Context goes, or -1. `kind` says how a
    value becomes a result. `fast` False sends every call of it the other way; `inline` says that `fn` is no coroutine
    function. `scalars` says that the arguments are an object of strings, numbers and booleans, every byte of which `decode`
    checks; `members` has `(name as raw JSON, type)` for each field, or `(name, type, default)`, where all of them are str,
    int or bool.
    """

    def __init__(self, str name, owner, fn, decode, tuple fields, tuple keywords=(), int context_at=-1, int kind=KIND_ENCODE,
                 encode=None, bint fast=True, bint own_task=False, bint inline=False, bint scalars=False, decoded_type=None,
                 tuple members=None):
        self.name, self.owner, self.fn, self.decode, self.encode = name, owner, fn, decode, encode
        self.fields, self.keywords = fields, keywords or None
        self.context_at, self.kind, self.own_task, self.inline = context_at, kind, own_task, inline
        self.count = len(fields)
        self.positional = self.count + (context_at >= 0) - len(keywords)
        self.fast = fast and self.count < ARGUMENTS_MAX and self.find_offsets(decoded_type)
        self.scalars = scalars and context_at < 0 and not own_task
        if members is not None:
            self.learn_members(members)

    def find_offsets(self, decoded_type):
        """Where a Struct keeps each argument: reading it there is 90 instructions less than asking for an attribute."""
        cdef Py_ssize_t i
        if decoded_type is None:
            return False
        self.offsets = <Py_ssize_t*>PyMem_Calloc(max(1, self.count), sizeof(Py_ssize_t))
        if self.offsets == NULL:
            raise MemoryError
        for i, name in enumerate(self.fields):
            member = decoded_type.__dict__.get(name)
            if Py_TYPE(member) != &PyMemberDescr_Type or (<PyMemberDescrObject*>member).d_member.type != OBJECT_MEMBER:
                return False
            self.offsets[i] = (<PyMemberDescrObject*>member).d_member.offset
        self.decoded_type = decoded_type
        return True

    def learn_members(self, tuple members):
        """The scalars that `read` knows; the names and defaults live as long as `members`."""
        cdef scalar_t* plain = <scalar_t*>PyMem_Calloc(max(1, self.count), sizeof(scalar_t))
        cdef Py_ssize_t i
        if plain == NULL:
            raise MemoryError
        self.members, self.plain = members, plain
        for i, member in enumerate(members):
            name = <bytes?>member[0]
            plain[i].name, plain[i].name_len = PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
            plain[i].kind = SCALAR_KINDS[member[1]]
            plain[i].missing = <PyObject*>(<tuple>member)[2] if len(member) == 3 else NULL

    def __dealloc__(self):
        PyMem_Free(self.offsets)
        PyMem_Free(self.plain)

    cdef int read(self, Block block, span_t arguments, PyObject** values) except -1:
        "One new reference for each field. Raises what `decode` raises."
        if self.plain != NULL and arguments.at != NULL and scalars_read(
                arguments.at, arguments.at + arguments.len, self.plain, self.count, values):
            return 0
        return self.decode_into(block, arguments, values)

    def scalars_of(self, bytes arguments not None):
        """What `read` makes of an arguments object without msgspec, a tuple; None where msgspec must decide. For tests."""
        cdef PyObject* values[ARGUMENTS_MAX]
        cdef bytes padded = arguments + b"\n" + b"\0" * SCAN_SLACK
        cdef const char* at = padded
        if self.plain == NULL or not scalars_read(at, at + len(arguments), self.plain, self.count, values):
            return None
        found = tuple([<object>values[i] for i in range(self.count)])
        for i in range(self.count):
            Py_DECREF(values[i])
        return found

    cdef int decode_into(self, Block block, span_t arguments, PyObject** values) except -1:
        cdef PyObject* argv[2]
        cdef PyObject* result
        cdef Py_ssize_t i
        block.window_at = arguments.at if arguments.at != NULL else PyBytes_AS_STRING(NO_ARGUMENTS)
        block.window_len = arguments.len if arguments.at != NULL else 2
        argv[1] = <PyObject*>block
        result = PyObject_Vectorcall(<PyObject*>self.decode, &argv[1], 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if result == NULL:
            raise_pending()
        decoded = <object>result
        Py_DECREF(result)
        if type(decoded) is not self.decoded_type:
            raise TypeError(f"{self.name}: the decoder gave {type(decoded)}")
        for i in range(self.count):
            values[i] = (<PyObject**>(<char*><PyObject*>decoded + self.offsets[i]))[0]
            Py_INCREF(values[i])
        return 0

    cdef PyObject* invoke(self, PyObject** argv, object make_context, object request) except NULL:
        """What `fn` gives, a new reference. The arguments stand in `argv` from 1 on and are let go of; a Context goes to its
        place among them, and room for it is behind."""
        cdef PyObject* result
        cdef int i, count = self.count
        if self.context_at >= 0:
            try:
                context = make_context(request)
            except BaseException:
                for i in range(1, count + 1):
                    Py_DECREF(argv[i])
                raise
            for i in range(count, self.context_at, -1):
                argv[i + 1] = argv[i]
            argv[self.context_at + 1] = <PyObject*>context
            Py_INCREF(<PyObject*>context)
            count += 1
        result = PyObject_Vectorcall(<PyObject*>self.fn, &argv[1], self.positional | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     <PyObject*>self.keywords if self.keywords is not None else NULL)
        for i in range(1, count + 1):
            Py_DECREF(argv[i])
        return result
