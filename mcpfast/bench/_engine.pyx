# cython: language_level=3
"""The load engine (engine.c), for Python: a plan goes in, an outcome comes out."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import socket

from mcpfast.bench.plan import ID_HOLE


cdef extern from "<sys/socket.h>" nogil:
    ctypedef int socklen_t
    struct sockaddr_storage:
        unsigned short ss_family
    int AF_INET, AF_INET6, AF_UNIX

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        in6_addr sin6_addr
    unsigned short htons(unsigned short)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "native/engine.h" nogil:
    enum: HOLES_MAX, PIDS_MAX, REFUSALS_MAX, VERDICTS, RIGHT, REFUSED, CANCELLED, NOT_AN_ANSWER
    const char *const VERDICT_NAMES[]
    ctypedef enum wire: WIRE_LINES, WIRE_HTTP, WIRE_WEBSOCKET
    ctypedef enum step_kind: STEP_REQUEST, STEP_NOTICE, STEP_UPGRADE, STEP_PAUSE, STEP_RECONNECT
    ctypedef enum phase: PHASE_OPENING, PHASE_WARMUP, PHASE_MEASURING, PHASE_ENDING, PHASE_DONE
    ctypedef struct condition:
        const char *path
        const char *wanted
        int64_t length
    ctypedef struct expectation:
        bint refusal
        bint complete
        const char *text
        size_t text_len
        const condition *conditions
        uint32_t conditions_n
    ctypedef struct step:
        step_kind kind
        uint32_t tally
        bint counted, opens_session, ends_session
        int64_t wait_ns
        int32_t cancel_step
        const char *bytes
        size_t len
        int64_t session_at
        size_t id_at[4]
        uint32_t ids_n
        size_t masked_from
        uint8_t mask[4]
        expectation expect
    ctypedef struct plan:
        wire wire
        int in_ "in"
        int out
        sockaddr_storage at
        socklen_t at_len
        uint32_t connections, window, steps_n, prologue_n, body_n, stride, tallies_n
        step *steps
        uint32_t *prologue
        uint32_t *body
        bint scripted, lockstep, even
        double rate, ramp_s, warmup_s, duration_s, timeout_s
        uint64_t seed, warmup_calls, calls
        uint32_t connection_calls, intervals
        int cpu
        size_t answer_bytes_max
        int pids[64]
        uint32_t pids_n
        int64_t refusals[8]
        uint32_t refusals_n
    ctypedef struct histogram:
        uint64_t count, sum_ns, max_ns
    ctypedef struct tally:
        uint64_t answered, errors, refused
        histogram *latency
    ctypedef struct interval:
        uint64_t answered, errors
        histogram *latency
    ctypedef struct glance:
        phase phase
        double seconds, p50_us, p99_us
        uint64_t answered, errors, refused, in_flight, waiting, open
    ctypedef struct outcome:
        double seconds, handshake_s, server_cpu_s, own_cpu_s, interval_s, rate_p75_per_s
        uint64_t answered, refused, notifications, connections_made, reads, writes, answer_bytes
        uint64_t *verdicts
        const histogram *latency
        const histogram *refusals
        const histogram *lateness
        const tally *tallies
        const interval *intervals
        bint stalled, hopeless
        const char *failure
        const char *first_error
    ctypedef struct memo:
        char *before
        char *behind
        size_t before_len, behind_len
    ctypedef struct engine:
        pass
    engine *engine_new(plan *p)
    void engine_free(engine *e)
    void engine_run(engine *e)
    void engine_stop(engine *e)
    glance engine_look(const engine *e)
    outcome engine_outcome(engine *e)
    const memo *engine_memo(const engine *e, uint32_t step)
    const char *engine_last_answer(const engine *e, size_t *length)
    double histogram_quantile(const histogram *h, double q)


PHASES = ("opening", "warming up", "measuring", "ending", "done")
KINDS = {
    "request": STEP_REQUEST,
    "notice": STEP_NOTICE,
    "upgrade": STEP_UPGRADE,
    "pause": STEP_PAUSE,
    "reconnect": STEP_RECONNECT,
}
WIRES = {"lines": WIRE_LINES, "http": WIRE_HTTP, "websocket": WIRE_WEBSOCKET}
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
# Shares at which the whole distribution is told: from the fastest to one in a million.
SHARES = tuple(1 - 10 ** (-n / 10) for n in range(0, 61))


cdef dict times(const histogram *h):
    """A histogram in microseconds."""
    found = {name: histogram_quantile(h, share) / 1e3 for name, share in QUANTILES}
    found["mean"] = h.sum_ns / h.count / 1e3 if h.count else 0.0
    found["max"] = h.max_ns / 1e3
    return found


cdef class Engine:
    """One run of a `Plan`. `run` returns when it is over; other threads may `look` and `stop` meanwhile."""

    cdef plan plan
    cdef engine *engine
    cdef list kept  # what the plan points to
    cdef list blocks
    cdef list names  # of the kinds that are counted apart
    cdef object told

    def __cinit__(self, told):
        self.kept, self.blocks, self.told = [], [], told
        p = &self.plan
        p.wire = WIRES[told.wire]
        p.in_, p.out = told.pipe or (-1, -1)
        if told.pipe is None:
            self.connect_to(told.address)
        p.connections, p.window = told.connections, told.window
        if not told.connections or not told.window or not told.body:
            raise ValueError("a plan has at least one connection, one place on it and one step")
        p.scripted, p.lockstep, p.even = told.scripted, told.lockstep, told.even
        p.rate, p.ramp_s, p.warmup_s = told.rate, told.ramp_s, told.warmup_s
        p.duration_s, p.timeout_s = told.duration_s, told.timeout_s
        p.seed, p.calls, p.warmup_calls = told.seed, told.calls, told.warmup_calls
        p.connection_calls, p.intervals, p.cpu = told.connection_calls, told.intervals, told.processor
        p.answer_bytes_max = told.answer_bytes_max
        p.pids_n = min(len(told.pids), PIDS_MAX)
        for i in range(p.pids_n):
            p.pids[i] = told.pids[i]
        p.refusals_n = min(len(told.refusals), REFUSALS_MAX)
        for i in range(p.refusals_n):
            p.refusals[i] = told.refusals[i]
        p.steps = <step *>self.block(len(told.steps), sizeof(step))
        p.steps_n = len(told.steps)
        self.names = list(dict.fromkeys(one.name for one in told.steps))
        p.tallies_n, p.stride = len(self.names), told.stride or len(told.body)
        for i in range(p.steps_n):
            self.put_step(&p.steps[i], told.steps[i])
        p.prologue, p.prologue_n = self.indices(told.prologue), len(told.prologue)
        p.body, p.body_n = self.indices(told.body), len(told.body)
        self.engine = engine_new(p)

    def __dealloc__(self):
        if self.engine != NULL:
            engine_free(self.engine)
        for address in self.blocks:
            free(<void *><size_t>address)

    cdef void *block(self, size_t n, size_t size) except NULL:
        cdef void *made = calloc(n + 1, size)
        if made == NULL:
            raise MemoryError
        self.blocks.append(<size_t>made)
        return made

    cdef uint32_t *indices(self, wanted) except NULL:
        cdef uint32_t *made = <uint32_t *>self.block(len(wanted), sizeof(uint32_t))
        for i, index in enumerate(wanted):
            if not 0 <= index < self.plan.steps_n:
                raise ValueError(f"there is no step {index}")
            made[i] = index
        return made

    cdef const char *text(self, bytes data):
        self.kept.append(data)
        return data

    cdef put_step(self, step *s, told):
        cdef condition *conditions
        s.kind, s.counted, s.tally = KINDS[told.kind], told.counted, self.names.index(told.name)
        s.opens_session, s.ends_session, s.session_at = told.opens_session, told.ends_session, told.session_at
        s.wait_ns, s.cancel_step = int(told.wait_s * 1e9), told.cancel_step
        if told.cancel_step >= len(self.told.steps):
            raise ValueError(f"there is no step {told.cancel_step}")
        s.bytes, s.len = self.text(told.data), len(told.data)
        self.put_holes(s, told)
        expect = told.expect
        s.expect.refusal, s.expect.complete = expect.refusal, expect.complete
        if expect.text is not None:
            text = expect.text.encode()
            s.expect.text, s.expect.text_len = self.text(text), len(text)
        n = len(expect.members) + len(expect.lengths)
        conditions = <condition *>self.block(n, sizeof(condition))
        for i, (path, value) in enumerate([*expect.members.items(), *expect.lengths.items()]):
            conditions[i].path = self.text(path.encode())
            conditions[i].wanted = NULL if isinstance(value, int) else self.text(value.encode())
            conditions[i].length = value if isinstance(value, int) else -1
        s.expect.conditions, s.expect.conditions_n = conditions, n

    cdef put_holes(self, step *s, told):
        """Where ids belong: every place where the ten digits stand (masked, in a WebSocket frame)."""
        cdef bytes mask = told.mask
        s.masked_from = told.masked_from
        for i in range(4):
            s.mask[i] = mask[i]
        data = told.data
        if told.masked_from:
            payload = data[told.masked_from:]
            data = data[: told.masked_from] + bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
        at = data.find(ID_HOLE)
        while at >= 0:
            if s.ids_n == HOLES_MAX:
                raise ValueError(f"step {told.name!r} has more than {HOLES_MAX} ids")
            s.id_at[s.ids_n] = at
            s.ids_n += 1
            at = data.find(ID_HOLE, at + len(ID_HOLE))

    cdef connect_to(self, address):
        cdef sockaddr_un *un = <sockaddr_un *>&self.plan.at
        cdef sockaddr_in *v4 = <sockaddr_in *>&self.plan.at
        cdef sockaddr_in6 *v6 = <sockaddr_in6 *>&self.plan.at
        if isinstance(address, str):
            path = address.encode()
            if len(path) >= sizeof(un.sun_path):
                raise ValueError(f"{address}: the path is too long for a socket")
            un.sun_family = AF_UNIX
            memcpy(un.sun_path, <const char *>path, len(path))
            self.plan.at_len = sizeof(sockaddr_un)
            return
        host, port = address
        if ":" in host:
            packed = socket.inet_pton(socket.AF_INET6, host)
            v6.sin6_family, v6.sin6_port = AF_INET6, htons(port)
            memcpy(&v6.sin6_addr, <const char *>packed, 16)
            self.plan.at_len = sizeof(sockaddr_in6)
        else:
            packed = socket.inet_pton(socket.AF_INET, host)
            v4.sin_family, v4.sin_port = AF_INET, htons(port)
            memcpy(&v4.sin_addr, <const char *>packed, 4)
            self.plan.at_len = sizeof(sockaddr_in)

    def run(self):
        """Drives the server as the plan says. Holds no lock of Python meanwhile."""
        with nogil:
            engine_run(self.engine)

    def stop(self):
        """Ends the run early; what was measured until then is its outcome."""
        engine_stop(self.engine)

    def look(self):
        """What is going on, for those who watch."""
        cdef glance g = engine_look(self.engine)
        return {
            "phase": PHASES[g.phase],
            "seconds": g.seconds,
            "answered": g.answered,
            "errors": g.errors,
            "refused": g.refused,
            "in_flight": g.in_flight,
            "waiting": g.waiting,
            "open": g.open,
            "p50_us": g.p50_us,
            "p99_us": g.p99_us,
        }

    def outcome(self):
        """What was measured; times in microseconds where their name says so."""
        cdef outcome o = engine_outcome(self.engine)
        cdef const tally *s
        kinds = {}
        counted = {told.name for told in self.told.steps if told.counted}
        for i, name in enumerate(self.names):
            s = &o.tallies[i]
            if name in counted:
                kinds[name] = {
                    "requests": s.answered, "errors": s.errors, "refused": s.refused, "latency_us": times(s.latency)
                }
        return {
            "seconds": o.seconds,
            "handshake_ms": o.handshake_s * 1e3,
            "server_cpu_s": o.server_cpu_s,
            "own_cpu_s": o.own_cpu_s,
            "answered": o.answered,
            "refused": o.refused,
            "notifications": o.notifications,
            "connections_made": o.connections_made,
            "reads": o.reads,
            "writes": o.writes,
            "answer_bytes": o.answer_bytes,
            "verdicts": {VERDICT_NAMES[i].decode(): o.verdicts[i] for i in range(VERDICTS) if o.verdicts[i]},
            "errors": sum(o.verdicts[i] for i in range(NOT_AN_ANSWER + 1, VERDICTS)),
            "latency_us": times(o.latency),
            "requests": o.latency.count,
            "refused_latency_us": times(o.refusals),
            "lateness_us": times(o.lateness),
            "percentiles": [(share, histogram_quantile(o.latency, share) / 1e3) for share in SHARES],
            "kinds": kinds,
            "intervals": self.intervals(&o),
            "interval_s": o.interval_s,
            "rate_p75_per_s": o.rate_p75_per_s,
            "failure": o.failure.decode(errors="replace"),
            "first_error": o.first_error.decode(errors="replace"),
        }

    cdef list intervals(self, outcome *o):
        cdef const interval *one
        found = []
        for i in range(self.plan.intervals):
            one = &o.intervals[i]
            at_s = (i + 1) * o.interval_s
            if at_s > o.seconds + o.interval_s / 2:
                break
            found.append({
                "at_s": at_s,
                "rate_per_s": one.answered / o.interval_s,
                "errors": one.errors,
                "p50": histogram_quantile(one.latency, 0.5) / 1e3,
                "p99": histogram_quantile(one.latency, 0.99) / 1e3,
                "max": one.latency.max_ns / 1e3,
            })
        return found

    def sample(self, uint32_t step):
        """A right answer to a counted step, under some id; None while there was none."""
        if step >= self.plan.steps_n:
            raise IndexError(step)
        m = engine_memo(self.engine, step)
        if m.before == NULL:
            return None
        return (PyBytes_FromStringAndSize(m.before, m.before_len) + ID_HOLE
                + PyBytes_FromStringAndSize(m.behind, m.behind_len))

    def last_answer(self):
        """The last message that answered a step which is not counted, or was wrong."""
        cdef size_t length = 0
        cdef const char *data = engine_last_answer(self.engine, &length)
        return PyBytes_FromStringAndSize(data, length) if data != NULL else b""
