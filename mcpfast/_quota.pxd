# cython: language_level=3
"""How much may be used, table of contents. Every clock is given: `now_s` runs evenly (monotonic), `epoch_s` is UTC.

    bucket_t, Bucket      so much a second, and so much at once
    budget_t, Budget      so many units a day and a month
    verdict_t, Verdict    whether a call may begin; if not, which limit of which level refused it, and when to come back
    Meter                 what one level may use, what it has used and refused: a tenant, a principal or a tool within it
    Admission             the levels that one call passes: all of them let it in, or none is charged
    Gate                  how many calls run in the process

A room below calls `Admission.enter` and `leave`, `Gate.enter` and `leave`: nothing there makes an object or can raise.
Looking changes nothing, so a refused call leaves no trace but its count, and the GIL makes each of them one step. Mostly a
glance tells that no limit refuses (`fits`), which is 120 instructions less than asking each of two meters' limits how long
it does. What does not fit so is judged by `look`, which also lets in what only seemed not to.
"""
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t


# ---------------------------------------------------------------------------------------------- so much a second

cdef struct bucket_t:
    double capacity
    double rate_per_s
    double level    # at `stamp_s`; below zero it is a debt
    double stamp_s


cdef inline double bucket_level(const bucket_t* bucket, double now_s) noexcept:
    cdef double level = bucket.level
    if now_s > bucket.stamp_s:
        level += (now_s - bucket.stamp_s) * bucket.rate_per_s
        if level > bucket.capacity:
            level = bucket.capacity
    return level


cdef double bucket_lack_s(const bucket_t* bucket, double n, double now_s) noexcept


cdef inline double bucket_wait_s(const bucket_t* bucket, double n, double now_s) noexcept:
    "Seconds until `n` are there: 0.0 now, infinity never."
    return 0.0 if bucket_level(bucket, now_s) >= n else bucket_lack_s(bucket, n, now_s)


cdef inline void bucket_debit(bucket_t* bucket, double n, double now_s) noexcept:
    bucket.level = bucket_level(bucket, now_s) - n
    if now_s > bucket.stamp_s:
        bucket.stamp_s = now_s


cdef class Bucket:
    cdef bucket_t bucket


# ---------------------------------------------------------------------------------------------- so much a day and a month

cdef enum:
    DAY_S = 86400


cdef struct budget_t:
    double daily_units_max  # infinity: no limit; both with a billionth on top, for sums of what is no binary fraction
    double monthly_units_max
    double day_units        # used since the day began
    double month_units
    double day_end_s
    double month_end_s


cdef void budget_turn(budget_t* budget, double epoch_s) noexcept


cdef inline void budget_at(budget_t* budget, double epoch_s) noexcept:
    "Begins a new day and month where they are over. A clock that falls back by less than a day begins nothing."
    if epoch_s >= budget.day_end_s or epoch_s < budget.day_end_s - 2 * DAY_S:
        budget_turn(budget, epoch_s)


cdef inline bint budget_fits(const budget_t* budget, double units, double epoch_s) noexcept:
    "Whether it is the day that was counted, and has these units left."
    return (
        budget.day_end_s - DAY_S <= epoch_s < budget.day_end_s and budget.day_units + units <= budget.daily_units_max
        and budget.month_units + units <= budget.monthly_units_max)


cdef inline double period_wait_s(double used, double units, double units_max, double end_s, double epoch_s) noexcept:
    if used + units <= units_max or units <= 0.0:
        return 0.0
    return end_s - epoch_s if units <= units_max else INFINITY


cdef inline void budget_debit(budget_t* budget, double units) noexcept:
    "After `budget_at`."
    budget.day_units += units
    budget.month_units += units


cdef void budget_return(budget_t* budget, double units, double epoch_s) noexcept


cdef class Budget:
    cdef budget_t budget


# ---------------------------------------------------------------------------------------------- whether a call may begin

cdef enum Limit:  # in the order of LIMITS, the names in tenancy.identity.Quota
    ADMITTED_BY_ALL
    CALLS_PER_S
    BYTES_PER_S
    DAILY_UNITS
    MONTHLY_UNITS
    CONCURRENT_CALLS
    REQUEST_BYTES
    RESPONSE_BYTES
    CALL_S
    METERED  # so many, with the first


cdef enum Level:
    TENANT
    PRINCIPAL
    TOOL


cdef struct verdict_t:
    double retry_after_s  # infinity: never, as it is
    int limit
    int level


cdef inline void worsen(verdict_t* verdict, double wait_s, int limit, int level) noexcept:
    "Of all limits that refuse, the one that does so longest is told: who comes back then finds all of them open."
    if wait_s > verdict.retry_after_s:
        verdict.retry_after_s, verdict.limit, verdict.level = wait_s, limit, level


cdef class Verdict:
    cdef readonly str limit
    cdef readonly str level
    cdef readonly double retry_after_s


cdef Verdict verdict_of(verdict_t verdict)


# ---------------------------------------------------------------------------------------------- one level

cdef enum Limited:  # what costs arithmetic only where there is such a limit
    LIMITED_CALLS = 1
    LIMITED_BYTES = 2
    LIMITED_UNITS = 4


cdef enum:
    PLACE_S = 1  # nobody knows when a place will be free again


cdef class Meter:
    cdef bucket_t calls
    cdef bucket_t bytes
    cdef budget_t budget
    cdef double request_bytes_max  # here and below, infinity: no limit
    cdef readonly double response_bytes_max
    cdef readonly double call_s_max
    cdef uint32_t limited
    cdef uint32_t concurrent_calls_max
    cdef readonly uint32_t in_flight
    cdef readonly uint64_t admitted
    cdef uint64_t refusals[METERED - 1]  # by Limit, from the first that can refuse

    cdef inline bint fits(self, double cost, double request_bytes, double now_s, double epoch_s) noexcept:
        "Whether a call passes every limit, at a glance. Takes nothing. A bucket without a limit has infinity."
        return (
            self.in_flight < self.concurrent_calls_max and request_bytes <= self.request_bytes_max
            and bucket_level(&self.calls, now_s) >= 1.0 and bucket_level(&self.bytes, now_s) >= request_bytes
            and (not self.limited & LIMITED_UNITS or budget_fits(&self.budget, cost, epoch_s)))

    cdef inline void look(self, verdict_t* verdict, int level, double cost, double request_bytes, double now_s,
                          double epoch_s) noexcept:
        "Worsens the verdict by each limit that refuses. Takes nothing."
        if self.in_flight >= self.concurrent_calls_max:
            worsen(verdict, PLACE_S, CONCURRENT_CALLS, level)
        if request_bytes > self.request_bytes_max:
            worsen(verdict, INFINITY, REQUEST_BYTES, level)
        if self.limited & LIMITED_CALLS:
            worsen(verdict, bucket_wait_s(&self.calls, 1.0, now_s), CALLS_PER_S, level)
        if self.limited & LIMITED_BYTES:
            worsen(verdict, bucket_wait_s(&self.bytes, request_bytes, now_s), BYTES_PER_S, level)
        if self.limited & LIMITED_UNITS:
            budget_at(&self.budget, epoch_s)
            worsen(verdict, period_wait_s(self.budget.month_units, cost, self.budget.monthly_units_max,
                                          self.budget.month_end_s, epoch_s), MONTHLY_UNITS, level)
            worsen(verdict, period_wait_s(self.budget.day_units, cost, self.budget.daily_units_max,
                                          self.budget.day_end_s, epoch_s), DAILY_UNITS, level)

    cdef inline void take(self, double cost, double request_bytes, double now_s) noexcept:
        "After `fits` or `look` at the same moment."
        self.in_flight += 1
        self.admitted += 1
        if self.limited & LIMITED_CALLS:
            bucket_debit(&self.calls, 1.0, now_s)
        if self.limited & LIMITED_BYTES:
            bucket_debit(&self.bytes, request_bytes, now_s)
        if self.limited & LIMITED_UNITS:
            budget_debit(&self.budget, cost)

    cdef inline void end(self, double response_bytes, double now_s) noexcept:
        if self.in_flight > 0:
            self.in_flight -= 1
        if self.limited & LIMITED_BYTES:
            bucket_debit(&self.bytes, response_bytes, now_s)


# ---------------------------------------------------------------------------------------------- all levels of one call

cdef class Admission:
    cdef readonly Meter tenant
    cdef readonly Meter principal  # or None, as the tool's
    cdef readonly Meter tool

    cdef list levels(self)
    cdef void count(self, verdict_t* verdict) noexcept
    cdef Verdict exceeded(self, int limit, list maxima, double value)

    cdef inline int enter(self, verdict_t* why, double cost, double request_bytes, double now_s, double epoch_s) noexcept:
        "ADMITTED_BY_ALL: the call is in, and ends by `leave`. Else what refuses it; `why` says more, and nothing was taken."
        if (
            self.tenant.fits(cost, request_bytes, now_s, epoch_s)
            and (self.principal is None or self.principal.fits(cost, request_bytes, now_s, epoch_s))
            and (self.tool is None or self.tool.fits(cost, request_bytes, now_s, epoch_s))
        ):
            self.take(cost, request_bytes, now_s)
            return ADMITTED_BY_ALL
        why[0] = self.judge(cost, request_bytes, now_s, epoch_s)
        return why.limit

    cdef inline void take(self, double cost, double request_bytes, double now_s) noexcept:
        self.tenant.take(cost, request_bytes, now_s)
        if self.principal is not None:
            self.principal.take(cost, request_bytes, now_s)
        if self.tool is not None:
            self.tool.take(cost, request_bytes, now_s)

    cdef verdict_t judge(self, double cost, double request_bytes, double now_s, double epoch_s) noexcept

    cdef inline void leave(self, double response_bytes, double now_s) noexcept:
        "A call that was let in is over. What its response was too much becomes a debt."
        self.tenant.end(response_bytes, now_s)
        if self.principal is not None:
            self.principal.end(response_bytes, now_s)
        if self.tool is not None:
            self.tool.end(response_bytes, now_s)


# ---------------------------------------------------------------------------------------------- all calls of the process

cdef class Gate:
    cdef readonly Py_ssize_t running
    cdef public Py_ssize_t waiting  # whoever lets them wait says how many
    cdef Py_ssize_t places

    cdef inline bint enter(self) noexcept:
        "Takes a place, if one is free and nobody waits for it."
        if self.running >= self.places or self.waiting > 0:
            return False
        self.running += 1
        return True

    cdef inline bint leave(self) noexcept:
        "Gives a place back. True: somebody waits for one."
        self.running -= 1
        return self.waiting > 0
