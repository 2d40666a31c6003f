# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Who a request is of, as the hot way asks it: does this still hold, and may this tool be called.

What is decided here was decided before, in Python (tenancy/service.py), and is remembered. Whatever changes in the registry or the
catalog raises the engine's generation, and nothing that was remembered holds any more.
"""

cimport cython


@cython.final
cdef class Pass:
    """What the calls of one tool by one caller are held to; `cost` is in units of the budgets."""

    def __init__(self, Admission admission not None, double cost):
        self.admission, self.cost = admission, cost
        self.response_bytes_max, self.call_s_max = admission.response_bytes_max, admission.call_s_max


@cython.final
cdef class Caller:
    """A principal within a tenant.

    `key` is (tenant id, principal id, the tenant's token_generation): what sessions, cursors and sealed states are bound to, so
    that what revokes its tokens ends these, too. `expires_s`, of the clock
    `time.monotonic`, is when the credential is over, and `generation` the engine's at which all of this was found.
    """

    def __init__(self, tenant, principal, view, tuple key not None, size_t generation, double expires_s):
        self.tenant, self.principal, self.view, self.key = tenant, principal, view, key
        self.generation, self.expires_s = generation, expires_s
        self.passes = {}

    def is_good(self, size_t generation, double now_s):
        """Whether what was found still holds."""
        return self.holds(generation, now_s)

    def is_same(self, Caller other):
        """Whether that is the same principal of the same tenant; one that was removed and came back is another."""
        return self.same_as(other)

    def allow(self, what, Pass granted not None):
        """From now on `what`, an Entry or the name of a method, needs no decision in Python."""
        self.passes[what] = granted
        self.last = NULL

    def granted(self, what):
        """The Pass for `what`, or None: it was not decided yet."""
        return self.passes.get(what)
