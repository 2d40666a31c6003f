# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How a call gets its Task.

A handler must see one and the same real Task from its first line to its last: `asyncio.timeout`, task groups, anyio's
cancel scopes and so httpx depend on it. A new Task for each call costs 15,300 to 17,500 instructions, three times the rest
of a call, and most calls end without ever waiting. So Tasks are kept warm:

    a Carrier is the coroutine of a Task of its own; with nothing to do it waits for a future that nobody resolves ("parked");
    a batch of lines is handled *inside* that Task's step, one call after the other (Source.drain): no further Task, no loop;
    when a handler suspends, the future it waits for is handed to the Task, as any coroutine does. From now on the Task
    belongs to that call, and the next parked Carrier goes on with the batch;
    when that call ends, the Carrier parks again.

A parked Task is woken by the callback that it hung on its parking future itself: taken off, and called with a future that
is finished. That callback is the one private detail (of asyncio's C accelerator); `Carriers` tries it once for each loop, and
where anything looks different every call gets a Task of its own, which is all that differs. The suite runs both ways.

Calls that share a Task must not share state. After each call the Task's context is compared with the one it began with
(45 instructions while untouched) and the Task is asked for a left-over cancellation; a Carrier that is not clean retires.
"""

cimport cython
from cpython.object cimport Py_EQ, PyObject

from mcpfast._core cimport raise_pending

cdef extern from "Python.h":
    int PyIter_Send(PyObject*, PyObject*, PyObject**)
    PyObject* PyObject_GetAttr(PyObject*, PyObject*)
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    void PyErr_Clear()
    Py_ssize_t Py_REFCNT(object)
    void Py_DECREF(PyObject*)
    PyObject* Py_None
    PyObject* Py_False
    PyObject* Py_True

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        richcmpfunc tp_richcompare
    PyTypeObject PyGetSetDescr_Type
    PyTypeObject* Py_TYPE(object)
    ctypedef struct PyGetSetDescrObject:
        PyGetSetDef* d_getset

cdef enum:
    COLD = 0      # the Task has not made its first step
    PARKED = 1
    DRAINING = 2  # handles lines of `source`
    CARRYING = 3  # belongs to one call, which waits or is about to start


cdef inline object take_reference(PyObject* owned):
    "The object, and the reference that came with it."
    cdef object it = <object>owned
    Py_DECREF(owned)
    return it


cdef object NOTHING = object()  # step() has no more to yield: the coroutine ends
cdef str MUST_CANCEL = "_must_cancel"


cdef class Source:
    cdef int drain(self, Carrier carrier) except -1:
        raise NotImplementedError

    cdef int ended(self, Carrier carrier, PyObject* value, object error) except -1:
        raise NotImplementedError


@cython.final
@cython.freelist(64)
cdef class Carrier:
    """One Task and the call it carries: the Task's own coroutine, which steps the handler's."""

    # ---- the coroutine protocol, as asyncio's Task uses it

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        step = self.step()
        if step is NOTHING:
            raise StopIteration
        return step

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        if self.coroutine is None:  # somebody cancelled a Task that carries nothing
            self.retired = True
            self.source = None
            raise error
        try:
            return self.coroutine.throw(error)
        except StopIteration as stop:
            result = stop.value
            self.finish(<PyObject*>result, None)
        except BaseException as raised:
            self.finish(NULL, raised)
        step = self.park()
        if step is NOTHING:
            raise StopIteration
        return step

    def close(self):
        if self.coroutine is not None:
            self.coroutine.close()

    # ---- what debuggers, inspect and anyio ask of a coroutine

    @property
    def cr_await(self):
        return None if self.coroutine is None else self.coroutine.cr_await

    @property
    def cr_code(self):
        return None if self.coroutine is None else self.coroutine.cr_code

    @property
    def cr_frame(self):
        return None if self.coroutine is None else self.coroutine.cr_frame

    @property
    def cr_running(self):
        return self.state == DRAINING or (self.coroutine is not None and self.coroutine.cr_running)

    @property
    def cr_suspended(self):
        return self.state == PARKED or (self.coroutine is not None and self.coroutine.cr_suspended)

    @property
    def __name__(self):
        return "mcp_call" if self.coroutine is None else self.coroutine.__name__

    @property
    def __qualname__(self):
        return "mcp_call" if self.coroutine is None else self.coroutine.__qualname__

    # ---- steps

    cdef object step(self):
        cdef PyObject* result = NULL
        cdef int outcome
        if self.state == DRAINING:
            self.references = Py_REFCNT(self.task)
            if self.source.drain(self) == WAITS:
                yielded, self.yielded = self.yielded, None
                return yielded
            self.source = None
        elif self.state == CARRYING:
            if self.yielded is not None:  # carried here after its first step was made elsewhere
                yielded, self.yielded = self.yielded, None
                return yielded
            outcome = PyIter_Send(<PyObject*>self.coroutine, Py_None, &result)
            if outcome == 1:
                return take_reference(result)
            if outcome < 0:
                try:
                    raise_pending()
                except BaseException as raised:
                    self.finish(NULL, raised)
            else:
                value = take_reference(result)
                self.finish(<PyObject*>value, None)
        return self.park()

    cdef int carry(self, object coroutine, object yielded, object request) except -1:
        "From now on this Task belongs to one call, which waits for `yielded`."
        self.coroutine, self.yielded, self.request = coroutine, yielded, request
        self.state = CARRYING
        return 0

    cdef int finish(self, PyObject* value, object error) except -1:
        cdef Source source = self.source
        self.coroutine = None
        try:
            source.ended(self, value, error)
        finally:
            self.request = None
            self.source = None
        return 0

    cdef bint clean(self) except -1:
        "Nothing of the last call is left in this Task: no context variable, no cancellation on its way."
        cdef Carriers home = self.home
        cdef PyObject* flag
        cdef PyObject* same
        if home.must_cancel != NULL:
            flag = home.must_cancel.get(<PyObject*>self.task, home.must_cancel.closure)
        else:
            flag = PyObject_GetAttr(<PyObject*>self.task, <PyObject*>MUST_CANCEL)
        pending = take_reference(flag)
        same = home.compare_contexts(<PyObject*>self.context, <PyObject*>home.base, Py_EQ)
        if same == NULL:  # a value that cannot be compared (an array, say) is another one
            PyErr_Clear()
            return False
        Py_DECREF(same)
        return <PyObject*>pending == Py_False and same == Py_True and not self.kept()

    cdef bint kept(self) noexcept:
        """Somebody holds on to the Task after the call that it carried: what they do to it later must not hit another one.

        Told by the references, so only of calls that never waited: those of a Task that the loop has resumed vary.
        """
        return self.state == DRAINING and Py_REFCNT(self.task) > self.references

    cdef object park(self):
        cdef Carriers home = self.home
        if home is None:  # a Task of one call only
            self.task = None
            return NOTHING
        if self.state == CARRYING and self.task.cancelling():
            self.retired = True
        if not self.retired and self.state == CARRYING and not self.clean():  # what was drained was looked at call by call
            self.retired = True
        if self.retired or not home.warm or home.parked_count >= home.parked_max:
            home.retired_count += 1
            self.task = self.parking = self.wake_up = self.forget_wake_up = None  # no cycle is left behind
            return NOTHING
        self.parking._asyncio_future_blocking = True
        self.state = PARKED
        self.below, home.top = home.top, self
        home.parked_count += 1
        return self.parking


@cython.final
cdef class Carriers:
    """The warm Carriers of one loop.

    `warm` is False where every call gets a Task of its own: no C Task, a task factory, an asyncio that looks different, or
    because it was asked for (`warm=False`; environment MCPFAST_WARM_TASKS=0, read by the room that assembles).
    """

    def __init__(self, loop, future_type, task_type, base_context, bint warm=True, size_t parked_max=256):
        self.loop = loop
        self.base = base_context
        self.compare_contexts = Py_TYPE(base_context).tp_richcompare  # 50 instructions less than by way of `==`
        self.task_type = task_type
        self.parked_max = parked_max
        self.finished = loop.create_future()
        self.finished.set_result(None)
        descriptor = task_type.__dict__.get(MUST_CANCEL)
        if Py_TYPE(descriptor) == &PyGetSetDescr_Type:  # asked directly: 100 instructions less than as an attribute
            self.must_cancel = (<PyGetSetDescrObject*>descriptor).d_getset
        self.warm = (
            warm
            and loop.get_task_factory() is None
            and task_type.__module__ == "_asyncio"
            and type(self.finished).__module__ == "_asyncio"
            and hasattr(task_type, "_must_cancel")
        )
        if self.warm:
            self.grow()

    def check(self):
        """True once a parked Task has shown that it can be woken by hand; to be asked outside of any Task's step.

        Before the first Tasks are parked it says False; then it tries one, once, and settles `warm`.
        """
        cdef Carrier carrier
        carrier = self.top
        if not self.warm or carrier is None:
            return False
        try:
            callbacks = carrier.parking._callbacks
            wake_up = callbacks[0][0]
            works = len(callbacks) == 1 and callable(wake_up) and getattr(wake_up, "__self__", None) is carrier.task
        except (AttributeError, IndexError, TypeError):
            works = False
        self.warm = works
        return works

    cdef int grow(self) except -1:
        "More warm Tasks: they can carry after the loop's next turn."
        cdef Carrier carrier
        for _ in range(max(4, min(64, self.made))):
            carrier = Carrier.__new__(Carrier)
            carrier.home = self
            carrier.parking = self.loop.create_future()
            carrier.context = self.base.copy()
            carrier.task = self.task_type(carrier, loop=self.loop, name="mcp_call", context=carrier.context)
            self.made += 1
        return 0

    cdef Carrier take(self):
        cdef Carrier carrier
        while self.top is not None:
            carrier = self.top
            self.top, carrier.below = carrier.below, None
            self.parked_count -= 1
            if carrier.wake_up is None:  # first time: the Task has hung its callback by now
                callbacks = carrier.parking._callbacks
                if not callbacks:  # cancelled from outside before it ever carried
                    self.retired_count += 1
                    continue
                carrier.wake_up = callbacks[0][0]
                carrier.forget_wake_up = carrier.parking.remove_done_callback
            if carrier.forget_wake_up(carrier.wake_up):
                return carrier
            self.retired_count += 1  # cancelled from outside while it was parked
        return None

    cdef int wake(self, Carrier carrier, Source source) except -1:
        "One step of a parked Task, now: drains `source`. Never inside another Task's step."
        carrier.source = source
        carrier.state = DRAINING
        PyContext_Enter(carrier.context)
        try:
            carrier.wake_up(self.finished)
        finally:
            PyContext_Exit(carrier.context)
        return 0

    cdef object spawn(self, Source source, object coroutine, object request):
        "A Task of its own for one call, which begins at the loop's next turn."
        cdef Carrier carrier = Carrier.__new__(Carrier)
        carrier.source = source
        carrier.coroutine = coroutine
        carrier.request = request
        carrier.state = CARRYING
        carrier.context = self.base.copy()
        if self.loop.get_task_factory() is None:
            carrier.task = self.task_type(carrier, loop=self.loop, name="mcp_call", context=carrier.context)
        else:
            carrier.task = carrier.context.run(self.loop.create_task, carrier)
        return carrier.task

    def counts(self):
        """`(made, parked, retired)`: Tasks ever made warm, waiting now, and given up."""
        return self.made, self.parked_count, self.retired_count

    def close(self):
        """Ends the parked Tasks; gives them, so that somebody waits for them."""
        cdef Carrier carrier = self.top
        self.warm = False
        tasks = []
        while carrier is not None:
            tasks.append(carrier.task)
            carrier.task.cancel()
            carrier = carrier.below
        self.top = None
        self.parked_count = 0
        return tasks
