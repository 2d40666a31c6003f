# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How much may be used: rates, budgets, places. Arithmetic on given clocks; knows no loop, no protocol, no configuration.

Buckets count in units and seconds, not in times of arrival (GCRA), so that whole numbers stay exact: at the limit a call passes,
one above is refused, and at the moment that was told it passes.
"""

cimport cython
from libc.math cimport INFINITY, fabs, floor
from libc.stdint cimport UINT32_MAX
from libc.time cimport gmtime_r, time_t, tm

cdef extern from "time.h":
    time_t timegm(tm*)

cdef extern from "Python.h":
    enum:
        PY_SSIZE_T_MAX

# "" is: admitted. The first ones are fields of tenancy.identity.Quota; the last two are the process's own.
LIMITS = (
    "", "calls_per_s", "bytes_per_s", "daily_units_max", "monthly_units_max", "concurrent_calls_max", "request_bytes_max",
    "response_bytes_max", "call_s_max", "queued_calls_max", "waiting_calls_max", "deadline",
)
LEVELS = ("tenant", "principal", "tool", "process")


cdef double not_negative(str name, double value) except -1:
    if not value >= 0.0:
        raise ValueError(f"{name} must be a number from 0 on, not {value}")
    return value


# ---------------------------------------------------------------------------------------------- so much a second

cdef double bucket_lack_s(const bucket_t* bucket, double n, double now_s) noexcept:
    cdef double lack = n - bucket_level(bucket, now_s)
    cdef double behind_s = bucket.stamp_s - now_s  # of a clock that fell back: nothing comes in until it has caught up
    if n > bucket.capacity:
        return INFINITY
    # Who was told to wait comes back at a rounded moment: some last digits of the clock and of the level do not count.
    if lack <= 2e-15 * (bucket.capacity + bucket.rate_per_s * fabs(now_s)):
        return 0.0
    if bucket.rate_per_s <= 0.0:
        return INFINITY
    return lack / bucket.rate_per_s + (behind_s if behind_s > 0.0 else 0.0)


cdef void bucket_return(bucket_t* bucket, double n) noexcept:
    bucket.level = min(bucket.level + n, bucket.capacity)


cdef bint bucket_set(bucket_t* bucket, double rate_per_s, double burst, bint limited) noexcept:
    "Whether there is a limit. What was used stays used; a bucket that is new is full, one without a limit has infinity."
    if not 0.0 < rate_per_s < INFINITY:
        bucket.rate_per_s, bucket.capacity, bucket.level = 0.0, INFINITY, INFINITY
        return False
    bucket.rate_per_s = rate_per_s
    bucket.capacity = burst if burst > 0.0 else rate_per_s
    if bucket.capacity < 1.0:  # one every minute must be possible
        bucket.capacity = 1.0
    if not limited or bucket.level > bucket.capacity:
        bucket.level = bucket.capacity
    return True


@cython.final
cdef class Bucket:
    """A token bucket: full at first with `capacity`, refilled by `rate_per_s`. A clock that goes backwards refills nothing."""

    def __init__(self, double capacity, double rate_per_s):
        if not 0.0 < capacity < INFINITY or not 0.0 <= rate_per_s < INFINITY:
            raise ValueError(f"a bucket of {capacity}, refilled by {rate_per_s} per second, cannot be")
        self.bucket.capacity = self.bucket.level = capacity
        self.bucket.rate_per_s = rate_per_s

    @property
    def capacity(self):
        return self.bucket.capacity

    @property
    def rate_per_s(self):
        return self.bucket.rate_per_s

    def level(self, double now_s):
        """How much is there; below zero, how much is owed."""
        return bucket_level(&self.bucket, now_s)

    def take(self, double n, double now_s):
        """Takes `n` and gives 0.0; or takes nothing and gives the seconds after which they are there, infinity for never."""
        cdef double wait_s = bucket_wait_s(&self.bucket, not_negative("n", n), now_s)
        if wait_s == 0.0:
            bucket_debit(&self.bucket, n, now_s)
        return wait_s

    def debit(self, double n, double now_s):
        """Takes `n` whether they are there or not: for what is known only afterwards. The level may go below zero."""
        bucket_debit(&self.bucket, not_negative("n", n), now_s)


# ---------------------------------------------------------------------------------------------- so much a day and a month

cdef void budget_turn(budget_t* budget, double epoch_s) noexcept:
    "The day and the month of `epoch_s` become the current ones; what was used is forgotten where an old one is over."
    cdef time_t second
    cdef tm date
    if not 0.0 <= epoch_s < 253402300800.0:  # from the year 10000 on
        return
    second = <time_t>epoch_s
    gmtime_r(&second, &date)
    date.tm_mon += 1
    date.tm_mday = 1
    date.tm_hour = date.tm_min = date.tm_sec = 0
    if epoch_s >= budget.day_end_s:
        budget.day_units = 0.0
    if epoch_s >= budget.month_end_s:
        budget.month_units = 0.0
    budget.day_end_s = (floor(epoch_s / DAY_S) + 1.0) * DAY_S
    budget.month_end_s = <double>timegm(&date)


cdef void budget_return(budget_t* budget, double units, double epoch_s) noexcept:
    "Gives back what was taken at `epoch_s`, if it still is the same day."
    if epoch_s >= budget.day_end_s - DAY_S:
        budget.day_units = max(0.0, budget.day_units - units)
        budget.month_units = max(0.0, budget.month_units - units)


cdef bint budget_set(budget_t* budget, double daily_units_max, double monthly_units_max) noexcept:
    "Whether there is a limit; 0 is none. What was used stays used."
    budget.daily_units_max = daily_units_max * (1 + 1e-9) if daily_units_max > 0.0 else INFINITY
    budget.monthly_units_max = monthly_units_max * (1 + 1e-9) if monthly_units_max > 0.0 else INFINITY
    return budget.daily_units_max < INFINITY or budget.monthly_units_max < INFINITY


@cython.final
cdef class Budget:
    """So many units a day and a month, by UTC; 0 is no limit. It begins anew exactly when the day or the month does."""

    def __init__(self, double daily_units_max=0.0, double monthly_units_max=0.0):
        budget_set(&self.budget, not_negative("daily_units_max", daily_units_max),
                   not_negative("monthly_units_max", monthly_units_max))

    def take(self, double units, double epoch_s):
        """Takes `units` and gives 0.0; or nothing, and gives the seconds to the day or month that has them, infinity for never."""
        cdef double day_s, month_s
        not_negative("units", units)
        budget_at(&self.budget, epoch_s)
        day_s = period_wait_s(
            self.budget.day_units, units, self.budget.daily_units_max, self.budget.day_end_s, epoch_s)
        month_s = period_wait_s(
            self.budget.month_units, units, self.budget.monthly_units_max, self.budget.month_end_s, epoch_s)
        if day_s == 0.0 and month_s == 0.0:
            budget_debit(&self.budget, units)
        return max(day_s, month_s)

    def debit(self, double units, double epoch_s):
        """Takes `units` whether they are there or not."""
        not_negative("units", units)
        budget_at(&self.budget, epoch_s)
        budget_debit(&self.budget, units)

    def used(self, double epoch_s):
        """Units used so far, `(this day, this month)`."""
        budget_at(&self.budget, epoch_s)
        return self.budget.day_units, self.budget.month_units


# ---------------------------------------------------------------------------------------------- whether a call may begin

@cython.final
cdef class Verdict:
    """Whether a call may begin. If not: `limit`, one of LIMITS, at `level`, one of LEVELS, refused it, for `retry_after_s`.

    Infinity there says that the same call will never be let in.
    """

    def __init__(self, str limit not None="", str level not None="process", double retry_after_s=0.0):
        if limit not in LIMITS or level not in LEVELS:
            raise ValueError(f"there is no limit {limit!r} of a {level!r}")
        self.limit, self.level, self.retry_after_s = limit, level, retry_after_s

    @property
    def admitted(self):
        return not self.limit

    def __repr__(self):
        if not self.limit:
            return "Verdict()"
        return f"Verdict({self.limit!r}, {self.level!r}, {self.retry_after_s})"


ADMITTED = Verdict()
cdef Verdict admitted = ADMITTED


cdef Verdict verdict_of(verdict_t verdict):
    if verdict.limit == ADMITTED_BY_ALL:
        return admitted
    return Verdict(LIMITS[verdict.limit], LEVELS[verdict.level], verdict.retry_after_s)


# ---------------------------------------------------------------------------------------------- one level

@cython.final
cdef class Meter:
    """What one level may use by its `quota` (None: all it likes), what it has used, and how often it was refused.

    `in_flight` counts calls that were let in and are not over, also those that wait for a place in the process. It needs
    248 bytes, whatever it limits.
    """

    def __init__(self, quota=None):
        self.request_bytes_max = self.response_bytes_max = self.call_s_max = INFINITY
        self.concurrent_calls_max = UINT32_MAX
        bucket_set(&self.calls, 0.0, 0.0, False)
        bucket_set(&self.bytes, 0.0, 0.0, False)
        budget_set(&self.budget, 0.0, 0.0)
        if quota is not None:
            self.change(quota)

    def change(self, quota not None):
        """From now on `quota`, a tenancy.identity.Quota, holds; what was used stays used. ValueError for what is negative."""
        cdef dict given = {
            name: not_negative(name, getattr(quota, name))
            for name in ("calls_per_s", "calls_burst", "bytes_per_s", "bytes_burst", "concurrent_calls_max", "request_bytes_max",
                         "response_bytes_max", "call_s_max", "daily_units_max", "monthly_units_max")
        }
        cdef uint32_t limited = 0
        if bucket_set(&self.calls, given["calls_per_s"], given["calls_burst"], self.limited & LIMITED_CALLS):
            limited |= LIMITED_CALLS
        if bucket_set(&self.bytes, given["bytes_per_s"], given["bytes_burst"], self.limited & LIMITED_BYTES):
            limited |= LIMITED_BYTES
        if budget_set(&self.budget, given["daily_units_max"], given["monthly_units_max"]):
            limited |= LIMITED_UNITS
        self.limited = limited
        self.concurrent_calls_max = <uint32_t>min(given["concurrent_calls_max"] or UINT32_MAX, UINT32_MAX)
        self.request_bytes_max = given["request_bytes_max"] or INFINITY
        self.response_bytes_max = given["response_bytes_max"] or INFINITY
        self.call_s_max = given["call_s_max"] or INFINITY

    @property
    def refused(self):
        """How many calls each limit refused, by its name."""
        return {LIMITS[limit]: self.refusals[limit - 1] for limit in range(1, METERED)}

    def used(self, double epoch_s):
        """Units used so far, `(this day, this month)`; counted only where a budget limits them."""
        budget_at(&self.budget, epoch_s)
        return self.budget.day_units, self.budget.month_units

    def restore(self, double day_units, double month_units, double epoch_s):
        """What `used` said before, in another process or life, is used already."""
        budget_at(&self.budget, epoch_s)
        self.budget.day_units, self.budget.month_units = day_units, month_units

    def at_rest(self, double now_s, double epoch_s):
        """Whether a new Meter in its place would let in the same calls: nothing in flight, buckets full, budget untouched."""
        budget_at(&self.budget, epoch_s)
        return (
            self.in_flight == 0
            and not (self.limited & LIMITED_CALLS and bucket_level(&self.calls, now_s) < self.calls.capacity)
            and not (self.limited & LIMITED_BYTES and bucket_level(&self.bytes, now_s) < self.bytes.capacity)
            and not (self.limited & LIMITED_UNITS and self.budget.month_units > 0.0)
        )


# ---------------------------------------------------------------------------------------------- all levels of one call

@cython.final
cdef class Admission:
    """The levels that a call passes: its tenant, and, where they have limits of their own, its principal and its tool.

    One Admission serves all calls that pass the same levels.
    """

    def __init__(self, Meter tenant not None, Meter principal=None, Meter tool=None):
        self.tenant, self.principal, self.tool = tenant, principal, tool

    cdef list levels(self):
        return [meter for meter in (self.tenant, self.principal, self.tool) if meter is not None]

    cdef verdict_t judge(self, double cost, double request_bytes, double now_s, double epoch_s) noexcept:
        "What `enter` does where a glance does not tell."
        cdef verdict_t verdict
        verdict.retry_after_s, verdict.limit, verdict.level = 0.0, ADMITTED_BY_ALL, TENANT
        self.tenant.look(&verdict, TENANT, cost, request_bytes, now_s, epoch_s)
        if self.principal is not None:
            self.principal.look(&verdict, PRINCIPAL, cost, request_bytes, now_s, epoch_s)
        if self.tool is not None:
            self.tool.look(&verdict, TOOL, cost, request_bytes, now_s, epoch_s)
        if verdict.limit != ADMITTED_BY_ALL:
            self.count(&verdict)
        else:
            self.take(cost, request_bytes, now_s)
        return verdict

    cdef void count(self, verdict_t* verdict) noexcept:
        cdef Meter meter = self.tenant
        if verdict.level == PRINCIPAL:
            meter = self.principal
        elif verdict.level == TOOL:
            meter = self.tool
        meter.refusals[verdict.limit - 1] += 1

    def admit(self, double cost, double request_bytes, double now_s, double epoch_s):
        """ADMITTED, and the call is in flight until `release`; or what refused it, and nothing was taken from any level.

        `cost` in units of the budgets, `request_bytes` as they came. Where several limits refuse, the Verdict tells of the one
        that does so longest.
        """
        not_negative("cost", cost)
        not_negative("request_bytes", request_bytes)
        cdef verdict_t why
        if self.enter(&why, cost, request_bytes, now_s, epoch_s) == ADMITTED_BY_ALL:
            return admitted
        return verdict_of(why)

    def release(self, double response_bytes, double now_s):
        """The call is over, once for each that was admitted; its response is paid for now, on credit where need be."""
        self.leave(not_negative("response_bytes", response_bytes), now_s)

    def undo(self, double cost, double request_bytes, double epoch_s):
        """Instead of `release`: the call, admitted at `epoch_s`, never began. What it took is given back.

        Units that were taken before midnight are not: their day is over.
        """
        cdef Meter meter
        for meter in self.levels():
            meter.end(0.0, 0.0)
            if meter.admitted > 0:
                meter.admitted -= 1
            bucket_return(&meter.calls, 1.0)
            bucket_return(&meter.bytes, request_bytes)
            budget_return(&meter.budget, cost, epoch_s)

    def charge(self, double units, double epoch_s):
        """Units beyond `cost`, known only afterwards (tokens, pages), on credit where need be."""
        cdef Meter meter
        not_negative("units", units)
        for meter in self.levels():
            if meter.limited & LIMITED_UNITS:
                budget_at(&meter.budget, epoch_s)
                budget_debit(&meter.budget, units)

    @property
    def response_bytes_max(self):
        """The least that a level allows a response; infinity where none says."""
        return min([meter.response_bytes_max for meter in self.levels()])

    @property
    def call_s_max(self):
        """The least wall time that a level allows a call; infinity where none says."""
        return min([meter.call_s_max for meter in self.levels()])

    def judge_response(self, double response_bytes):
        """ADMITTED, or which level has no room for a response so large; counted there. The call is still to be released."""
        return self.exceeded(RESPONSE_BYTES, [meter.response_bytes_max for meter in self.levels()], response_bytes)

    def timed_out(self):
        """Which level's `call_s_max` ended a call that took all of it, the tenant's where it was lifted meanwhile; counted there.
        The call is still to be released."""
        return self.exceeded(CALL_S, [meter.call_s_max for meter in self.levels()], INFINITY)

    cdef Verdict exceeded(self, int limit, list maxima, double value):
        "The strictest level refuses what is more than it allows; of time, what was too much already."
        cdef verdict_t verdict
        cdef double least = min(maxima)
        verdict.retry_after_s, verdict.limit, verdict.level = INFINITY, ADMITTED_BY_ALL, TENANT
        if value > least or limit == CALL_S:
            strictest = self.levels()[maxima.index(least)]
            verdict.limit = limit
            verdict.level = TOOL if strictest is self.tool else PRINCIPAL if strictest is self.principal else TENANT
            self.count(&verdict)
        return verdict_of(verdict)

    def repeat(self, Py_ssize_t calls, double cost, double request_bytes, double response_bytes, double now_s, double epoch_s):
        """For measuring: lets so many calls in and out, a microsecond apart, the compiled way. How many were let in."""
        cdef Py_ssize_t let_in = 0
        cdef verdict_t why
        for _ in range(calls):
            if self.enter(&why, cost, request_bytes, now_s, epoch_s) == ADMITTED_BY_ALL:
                let_in += 1
                self.leave(response_bytes, now_s)
            now_s += 1e-6
        return let_in


# ---------------------------------------------------------------------------------------------- all calls of the process

@cython.final
cdef class Gate:
    """How many calls run in the process, `limit` at most (0: no limit). While nobody waits, a call passes by one comparison.

    Each method is one step under the GIL, so the loops of several threads may share a gate.
    """

    def __init__(self, Py_ssize_t limit=0):
        self.limit = limit

    @property
    def limit(self):
        return self.places if self.places < PY_SSIZE_T_MAX else 0

    @limit.setter
    def limit(self, Py_ssize_t limit):
        if limit < 0:
            raise ValueError(f"limit must be a number from 0 on, not {limit}")
        self.places = limit or PY_SSIZE_T_MAX

    def acquire(self):
        """Takes a place, if one is free and nobody waits for it."""
        return self.enter()

    def release(self):
        """Gives a place back. True: somebody waits for one."""
        return self.leave()

    def wait(self):
        """`acquire`; or one more waits. No place can become free unnoticed in between."""
        if self.enter():
            return True
        self.waiting += 1
        return False

    def take(self):
        """Takes a place, if one is free, for one of those that wait."""
        if self.running >= self.places:
            return False
        self.running += 1
        return True
