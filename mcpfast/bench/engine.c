/* The engine's heart: what is sent when, what came back, and the times between. native/engine.h says what it promises. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "native/connection.h"
#include "native/engine.h"
#include "native/timers.h"
#include "native/websocket.h"

enum { HOPELESS_ERRORS = 1000, WAITING_MAX = 1 << 20, EVENTS = 128, TURN_MS = 20, FIRST_ERROR_BYTES = 1024 };

struct engine {
    const plan *plan;
    connection *connections;
    memo *memos; /* of each step */
    tally *tallies; /* of each kind of step */
    interval *intervals;
    histogram *latency, *refusals, *lateness;
    slices by_slice;
    timers timers;
    int watch;
    atomic_bool stop;
    phase phase;
    bool stalled, hopeless, sending;
    uint64_t to_send, in_flight, answered, wrong, refused, notifications, connections_made, open_n, ready_n;
    uint64_t verdicts[VERDICTS], reads, writes, answer_bytes, measured_answers;
    uint32_t next_step, next_memo;
    uint64_t seed, turn;
    uint32_t place_bits;
    int64_t began_ns, ready_ns, phase_ns, from_ns, to_ns, last_answer_ns, due_ns, interval_ns;
    int64_t *waiting; /* open loop: requests whose time has come, and that no connection was free for: a ring */
    size_t waiting_at, waiting_n;
    uint32_t *free_ring; /* connections with room for another call, the one that waits longest first */
    size_t free_at, free_n;
    uint32_t *touched; /* connections with something new to write: a ring */
    size_t touched_at, touched_n;
    double server_cpu_s, own_cpu_s;
    char *last_answer;
    size_t last_answer_len, last_answer_cap;
    char failure[256], first_error[FIRST_ERROR_BYTES];
};

/* ---- what went wrong --------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void fail(engine *e, const char *format, ...) {
    if (e->failure[0] != 0) return;
    va_list args;
    va_start(args, format);
    vsnprintf(e->failure, sizeof e->failure, format, args);
    va_end(args);
}

static void note(engine *e, verdict v, span what) {
    e->verdicts[v]++;
    if (!is_error(v)) return;
    e->wrong++;
    if (e->phase == PHASE_MEASURING && e->intervals != NULL) {
        int64_t i = (now_ns() - e->from_ns) / e->interval_ns;
        if (i < (int64_t)e->plan->intervals) e->intervals[i].errors++;
    }
    if (e->first_error[0] != 0) return;
    int shown = what.len > FIRST_ERROR_BYTES / 2 ? FIRST_ERROR_BYTES / 2 : (int)what.len;
    snprintf(e->first_error, sizeof e->first_error, "%s: %.*s", VERDICT_NAMES[v], shown, what.at == NULL ? "" : what.at);
}

/* ---- phases ------------------------------------------------------------------------------------------ */

static double clock_s(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + (double)t.tv_nsec * 1e-9 : 0;
}

static double server_cpu_s(const engine *e) {
    double sum = 0;
    clockid_t clock;
    for (uint32_t i = 0; i < e->plan->pids_n; i++)
        if (clock_getcpuclockid(e->plan->pids[i], &clock) == 0) sum += clock_s(clock);
    return sum;
}

static void enter(engine *e, phase to, int64_t now) {
    e->phase = to, e->phase_ns = now;
}

static void begin_measuring(engine *e, int64_t now) {
    enter(e, PHASE_MEASURING, now);
    e->from_ns = now;
    e->server_cpu_s = server_cpu_s(e), e->own_cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID);
    e->reads = e->writes = e->answer_bytes = 0;
    slices_begin(&e->by_slice, now);
}

static void end_measuring(engine *e, int64_t now) {
    if (e->phase < PHASE_MEASURING) begin_measuring(e, now);
    enter(e, PHASE_ENDING, now);
    e->to_ns = now, e->sending = false;
    e->server_cpu_s = server_cpu_s(e) - e->server_cpu_s;
    e->own_cpu_s = clock_s(CLOCK_THREAD_CPUTIME_ID) - e->own_cpu_s;
}

static void keep_time(engine *e, int64_t now) {
    const plan *p = e->plan;
    if (e->phase == PHASE_OPENING || e->phase >= PHASE_ENDING) return;
    e->hopeless = e->wrong > HOPELESS_ERRORS && e->wrong * 2 > e->answered;
    if (e->phase == PHASE_WARMUP) {
        bool warm = p->calls > 0 ? e->answered >= p->warmup_calls : now - e->phase_ns >= ns(p->warmup_s + p->ramp_s);
        if (warm) begin_measuring(e, now);
    } else if (p->calls > 0 ? e->to_send == 0 && e->in_flight == 0 : now - e->from_ns >= ns(p->duration_s))
        end_measuring(e, now);
    if (e->phase < PHASE_ENDING && (e->hopeless || atomic_load_explicit(&e->stop, memory_order_relaxed)))
        end_measuring(e, now);
}

/* ---- sending ----------------------------------------------------------------------------------------- */

static void touch(engine *e, connection *c) {
    if (c->touched) return;
    c->touched = true;
    e->touched[(e->touched_at + e->touched_n++) % e->plan->connections] = (uint32_t)(c - e->connections);
}

static bool is_ready(const connection *c) {
    return c->state == OPEN && !c->greeting;
}

/* In an open loop: it has room for a call, and says so. */
static void offer(engine *e, connection *c) {
    if (e->plan->rate <= 0 || e->plan->scripted || c->listed || c->idle_n == 0 || !is_ready(c) || c->tail_left > 0) return;
    c->listed = true;
    e->free_ring[(e->free_at + e->free_n++) % e->plan->connections] = (uint32_t)(c - e->connections);
}

static bool has_answer(const plan *p, const step *s) {
    return s->kind == STEP_REQUEST || s->kind == STEP_UPGRADE || (s->kind == STEP_NOTICE && p->wire == WIRE_HTTP);
}

/* One step's bytes go into the connection's buffer. `since_ns` is when it began. */
static void send_step(engine *e, connection *c, uint32_t index, int64_t since_ns) {
    const step *s = &e->plan->steps[index];
    uint64_t id = 0;
    if (has_answer(e->plan, s)) {
        uint32_t place = c->idle[c->idle_at];
        c->idle_at = c->idle_at + 1 == e->plan->window ? 0 : c->idle_at + 1;
        c->idle_n--;
        call *k = &c->calls[place];
        k->id = (k->id + e->turn) % IDS;
        k->since_ns = since_ns, k->step = index, k->in_flight = true;
        id = k->id;
        if (e->in_flight++ == 0) e->last_answer_ns = since_ns;
        c->in_flight++;
        if (s->wait_ns > 0) timers_add(&e->timers, since_ns + s->wait_ns, TIMER_CANCEL, (uint32_t)(c - e->connections), id);
    }
    c->made += s->kind == STEP_REQUEST;
    connection_put(c, s, FIRST_ID + id);
    touch(e, c);
}

static void reopen(engine *e, connection *c);

/* Steps that are no bytes; true when the connection is not to go on now. */
static bool act(engine *e, connection *c, const step *s, int64_t now) {
    if (s->kind == STEP_RECONNECT) return reopen(e, c), true;
    if (s->kind != STEP_PAUSE) return false;
    c->paused = true;
    timers_add(&e->timers, now + s->wait_ns, TIMER_RESUME, (uint32_t)(c - e->connections), 0);
    return true;
}

/* The prologue, and a script: a step when the one before it is done. */
static void go_on(engine *e, connection *c, int64_t now) {
    const plan *p = e->plan;
    while (c->state == OPEN && c->in_flight == 0 && !c->paused && !c->ended && c->tail_left == 0) {
        bool before = c->at < p->prologue_n;
        if (!before && c->greeting) c->greeting = false, c->made = 0;
        if (!before && (!p->scripted || e->phase == PHASE_OPENING)) return;
        if (!before && !e->sending && (c->at - p->prologue_n) % p->stride == 0) {
            c->ended = true;
            return;
        }
        uint32_t index = before ? p->prologue[c->at] : p->body[c->at - p->prologue_n];
        if (++c->at == p->prologue_n && p->scripted) c->at += (uint32_t)(c - e->connections) * p->stride % p->body_n;
        if (c->at == p->prologue_n + p->body_n) c->at = p->prologue_n;
        const step *s = &p->steps[index];
        if (s->ends_session && c->session_len == 0) continue; /* there is none */
        if (!act(e, c, s, now)) send_step(e, c, index, now);
    }
}

static uint32_t take_turn(engine *e) {
    uint32_t index = e->plan->body[e->next_step];
    e->next_step = e->next_step + 1 == e->plan->body_n ? 0 : e->next_step + 1;
    return index;
}

/* As many calls of the closed loop as may be in flight. */
static void fill(engine *e, connection *c, int64_t now) {
    const plan *p = e->plan;
    if (p->lockstep && c->in_flight > 0) return;
    while (c->idle_n > 0 && e->to_send > 0 && c->tail_left == 0) {
        if (p->connection_calls > 0 && c->made >= p->connection_calls) {
            if (c->in_flight == 0) reopen(e, c);
            return;
        }
        e->to_send--;
        send_step(e, c, take_turn(e), now);
    }
}

/* Whatever this connection may send now. */
static void advance(engine *e, connection *c, int64_t now) {
    if (c->state != OPEN) return;
    go_on(e, c, now);
    if (!is_ready(c) || e->phase == PHASE_OPENING || e->plan->scripted) return;
    if (e->plan->rate > 0) offer(e, c);
    else if (e->sending) fill(e, c, now);
}

static double next_random(engine *e) {
    uint64_t x = e->seed; /* xorshift64 */
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    e->seed = x;
    return (double)(x >> 11) * 0x1p-53;
}

static int64_t next_gap_ns(engine *e) {
    const plan *p = e->plan;
    double rate = p->rate, ramped = (double)(e->due_ns - e->ready_ns) * 1e-9;
    if (ramped < p->ramp_s) rate *= (ramped + 0.05 * p->ramp_s) / (1.05 * p->ramp_s);
    double gap_s = p->even ? 1 / rate : -log(1 - next_random(e)) / rate;
    return (int64_t)(gap_s * 1e9);
}

/* Open loop: requests whose time has come begin, or wait for a connection with room. */
static void begin_due(engine *e, int64_t now) {
    const plan *p = e->plan;
    for (; e->sending && e->due_ns <= now; e->due_ns += next_gap_ns(e)) {
        if (e->to_send == 0) break;
        if (e->waiting_n == WAITING_MAX) {
            fail(e, "the server is so far behind the rate of %g a second that a million requests wait", p->rate);
            break;
        }
        e->to_send--;
        e->waiting[(e->waiting_at + e->waiting_n++) % WAITING_MAX] = e->due_ns;
    }
    while (e->waiting_n > 0 && e->free_n > 0) {
        connection *c = &e->connections[e->free_ring[e->free_at]];
        e->free_at = (e->free_at + 1) % p->connections, e->free_n--;
        c->listed = false;
        if (!is_ready(c) || c->idle_n == 0) continue;
        if (p->connection_calls > 0 && c->made >= p->connection_calls) {
            if (c->in_flight == 0) reopen(e, c);
            continue;
        }
        int64_t since = e->waiting[e->waiting_at];
        e->waiting_at = (e->waiting_at + 1) % WAITING_MAX, e->waiting_n--;
        send_step(e, c, take_turn(e), since);
        if (e->phase == PHASE_MEASURING) histogram_add(e->lateness, (uint64_t)(now > since ? now - since : 0));
        offer(e, c);
    }
}

static void watch_for(engine *e, connection *c, bool output) {
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = c};
    if (c->in == c->out) epoll_ctl(e->watch, EPOLL_CTL_MOD, c->in, &event);
    else if (output) { /* a pipe's other end */
        event.events = EPOLLOUT;
        epoll_ctl(e->watch, EPOLL_CTL_ADD, c->out, &event);
    } else epoll_ctl(e->watch, EPOLL_CTL_DEL, c->out, NULL);
}

static void flush(engine *e, connection *c, int64_t now) {
    if (c->state != OPEN) return;
    bool was_blocked = c->blocked, was_big = c->tail_left > 0;
    e->writes += connection_write(c);
    if (c->blocked != was_blocked) watch_for(e, c, c->blocked);
    if (was_big && !connection_has_output(c)) advance(e, c, now); /* another one may follow */
}

static void flush_touched(engine *e, int64_t now) {
    while (e->touched_n > 0) {
        connection *c = &e->connections[e->touched[e->touched_at]];
        e->touched_at = (e->touched_at + 1) % e->plan->connections, e->touched_n--;
        c->touched = false;
        flush(e, c, now);
    }
}

/* ---- opening and closing ----------------------------------------------------------------------------- */

static void open_connection(engine *e, connection *c) {
    const plan *p = e->plan;
    connection_renew(c);
    c->opened_ns = now_ns();
    if (p->in >= 0) c->in = p->in, c->out = p->out;
    else {
        c->in = c->out = socket(p->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (c->in < 0) return fail(e, "no more connections can be opened: %s", strerror(errno));
        int on = 1;
        if (p->at.ss_family != AF_UNIX) setsockopt(c->in, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(c->in, (const struct sockaddr *)&p->at, p->at_len) != 0 && errno != EINPROGRESS) {
            bool later = errno == EAGAIN; /* a Unix socket whose backlog is full */
            if (!later) fail(e, "the server takes no connection: %s", strerror(errno));
            else timers_add(&e->timers, c->opened_ns + 2000000, TIMER_OPEN, (uint32_t)(c - e->connections), 0);
            close(c->in), c->in = c->out = -1;
            return;
        }
    }
    struct epoll_event event = {.events = EPOLLIN | (p->in < 0 ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(e->watch, EPOLL_CTL_ADD, c->in, &event) != 0) return fail(e, "epoll: %s", strerror(errno));
    c->state = p->in >= 0 ? OPEN : CONNECTING;
    e->open_n++, e->connections_made++;
    if (c->state == OPEN) advance(e, c, c->opened_ns);
}

static void connected(engine *e, connection *c, int64_t now) {
    int problem = 0;
    socklen_t len = sizeof problem;
    getsockopt(c->in, SOL_SOCKET, SO_ERROR, &problem, &len);
    if (problem != 0) return fail(e, "the server takes no connection: %s", strerror(problem));
    c->state = OPEN;
    watch_for(e, c, false);
    advance(e, c, now);
}

static void give_back(engine *e, connection *c, call *k) {
    k->in_flight = false;
    uint32_t at = c->idle_at + c->idle_n++, window = e->plan->window;
    c->idle[at >= window ? at - window : at] = (uint32_t)(k - c->calls);
    c->in_flight--, e->in_flight--;
}

/* The connection ends; its calls, if any are in flight, end as `v`. */
static void close_connection(engine *e, connection *c, verdict v) {
    if (c->state == CLOSED) return;
    for (uint32_t i = 0; c->in_flight > 0 && i < e->plan->window; i++) {
        call *k = &c->calls[i];
        if (!k->in_flight) continue;
        note(e, v, (span){NULL, 0});
        if (is_error(v)) e->tallies[e->plan->steps[k->step].tally].errors++;
        give_back(e, c, k);
    }
    if (c->in == c->out) close(c->in); /* a pipe is whose who made it */
    else epoll_ctl(e->watch, EPOLL_CTL_DEL, c->in, NULL);
    c->state = CLOSED, c->in = c->out = -1;
    e->open_n--;
}

static void reopen(engine *e, connection *c) {
    close_connection(e, c, LOST);
    if (e->plan->in < 0 && e->failure[0] == 0) open_connection(e, c);
}

/* The other side has ended the connection. */
static void ended(engine *e, connection *c, bool expected) {
    close_connection(e, c, LOST);
    if (e->plan->in >= 0) return fail(e, "the server ended before the run did");
    if (e->phase == PHASE_OPENING && !expected) return fail(e, "the server closed a connection instead of answering");
    if (e->sending || e->phase < PHASE_MEASURING) open_connection(e, c);
}

/* ---- answers ----------------------------------------------------------------------------------------- */

static call *call_of(engine *e, connection *c, uint64_t id, verdict *v) {
    uint64_t place = (id - FIRST_ID) & ((1ull << e->place_bits) - 1);
    *v = UNKNOWN_ID;
    if (id < FIRST_ID || id >= FIRST_ID + IDS || place >= e->plan->window) return NULL;
    call *k = &c->calls[place];
    id -= FIRST_ID;
    if (k->id == id && k->in_flight) return k;
    if (id != 0 && k->cancelled_id == id) *v = CANCELLED;
    else if ((id & (e->turn - 1)) == c->first_id + place && id <= k->id && id >= e->turn) *v = DUPLICATE;
    return NULL;
}

static void keep_answer(engine *e, span message) {
    if (message.len > e->last_answer_cap) e->last_answer = need_memory(realloc(e->last_answer, e->last_answer_cap = message.len * 2));
    memcpy(e->last_answer, message.at, message.len);
    e->last_answer_len = message.len;
}

/* A call of ours was answered, rightly or not. */
static void settle(engine *e, connection *c, call *k, verdict v, span message, int64_t now) {
    const step *s = &e->plan->steps[k->step];
    tally *t = &e->tallies[e->plan->steps[k->step].tally];
    bool since_measured = e->from_ns > 0 && k->since_ns >= e->from_ns;
    uint64_t took = now > k->since_ns ? (uint64_t)(now - k->since_ns) : 0;
    give_back(e, c, k);
    note(e, v, message);
    e->last_answer_ns = now;
    if (is_error(v)) {
        t->errors++;
        if (e->phase == PHASE_OPENING) fail(e, "the server refuses what comes first (%.200s)", e->first_error);
        return;
    }
    if (!s->counted) return;
    e->answered += v == RIGHT, e->refused += v == REFUSED;
    if (v == REFUSED && since_measured) t->refused++, histogram_add(e->refusals, took);
    if (v != RIGHT) return;
    if (e->phase == PHASE_MEASURING) {
        slices_add(&e->by_slice, 1, now);
        e->measured_answers++;
    }
    if (!since_measured && (e->plan->rate > 0 || e->phase != PHASE_MEASURING)) return;
    if (e->plan->rate <= 0 && e->phase != PHASE_MEASURING) return; /* a closed loop's last answers are no longer its pace */
    t->answered++;
    histogram_add(t->latency, took), histogram_add(e->latency, took);
    int64_t i = ((e->plan->rate > 0 ? k->since_ns : now) - e->from_ns) / e->interval_ns;
    if (i < 0 || i >= (int64_t)e->plan->intervals) return;
    e->intervals[i].answered++;
    histogram_add(e->intervals[i].latency, took);
}

/* What a server wants of us: a ping is answered, anything else refused, so that it does not wait. */
static void reply(engine *e, connection *c, span message) {
    span method = json_member(message, "method"), id = json_member(message, "id");
    e->notifications++;
    if (id.at == NULL || e->plan->wire != WIRE_LINES || c->tail_left > 0) return;
    bool ping = span_is(method, "\"ping\"");
    const char *rest = ping ? ",\"result\":{}}\n" : ",\"error\":{\"code\":-32601,\"message\":\"a load generator can do nothing\"}}\n";
    static const char HEAD[] = "{\"jsonrpc\":\"2.0\",\"id\":";
    size_t len = sizeof HEAD - 1 + id.len + strlen(rest);
    char *out = connection_room(c, len);
    memcpy(out, HEAD, sizeof HEAD - 1);
    memcpy(out + sizeof HEAD - 1, id.at, id.len);
    memcpy(out + sizeof HEAD - 1 + id.len, rest, strlen(rest));
    c->out_end += len;
    touch(e, c);
}

/* A message, read as JSON: the way of the first answer, and of every one that differs from it. */
static void take_message_slowly(engine *e, connection *c, span message, int64_t now) {
    uint64_t id;
    span id_span, result = {NULL, 0}, error = {NULL, 0};
    verdict v = read_message(message, &id, &id_span, &result, &error), why;
    if (v == NOT_AN_ANSWER) {
        note(e, v, message);
        return reply(e, c, message);
    }
    call *k = id == UINT64_MAX ? NULL : call_of(e, c, id, &why);
    if (k == NULL) return note(e, id == UINT64_MAX ? v : why, message);
    const step *s = &e->plan->steps[k->step];
    if (v == ERROR_ANSWER) v = s->expect.refusal ? RIGHT : judge_error(e->plan, error);
    else if (v == RIGHT) v = judge_result(&s->expect, result);
    if (v == RIGHT) memo_take(&e->memos[k->step], message, id_span);
    keep_answer(e, message);
    settle(e, c, k, v, message, now);
}

static void take_message(engine *e, connection *c, span message, int64_t now) {
    uint64_t id;
    span behind;
    for (uint32_t i = 0; i < e->plan->steps_n; i++) {
        uint32_t m = e->next_memo + i < e->plan->steps_n ? e->next_memo + i : e->next_memo + i - e->plan->steps_n;
        if (!memo_begins(&e->memos[m], message, &id, &behind)) continue;
        verdict v;
        call *k = call_of(e, c, id, &v);
        if (k == NULL || !memo_ends(&e->memos[k->step], behind)) break;
        e->next_memo = m;
        return settle(e, c, k, RIGHT, message, now);
    }
    take_message_slowly(e, c, message, now);
}

/* ---- what was read, by transport --------------------------------------------------------------------- */

/* Nothing that comes on this connection can be understood any more. */
static void give_up(engine *e, connection *c, verdict v) {
    span what = {c->buf + c->begin, c->end - c->begin};
    note(e, v, what);
    ended(e, c, true);
}

static void take_lines(engine *e, connection *c, int64_t now) {
    char *newline;
    while ((newline = memchr(c->buf + c->scanned, '\n', c->end - c->scanned)) != NULL) {
        span line = {c->buf + c->begin, (size_t)(newline - c->buf) - c->begin};
        c->begin = c->scanned = (size_t)(newline + 1 - c->buf);
        if (line.len > 0 && !(line.len == 1 && *line.at == '\r')) take_message(e, c, line, now);
    }
    c->scanned = c->end;
}

static call *only_call(connection *c, uint32_t window) {
    for (uint32_t i = 0; i < window; i++)
        if (c->calls[i].in_flight) return &c->calls[i];
    return NULL;
}

static bool take_events(engine *e, connection *c, call *k, span body, int64_t now) {
    char *at = (char *)body.at, *end = at + body.len;
    span data;
    while (next_event(&at, end, &data))
        if (data.len > 0) take_message(e, c, data, now);
    return !k->in_flight;
}

/* A whole response has come. */
static void take_response(engine *e, connection *c, int64_t now) {
    response r = c->response;
    char *start = c->buf + c->begin;
    span body = {start + r.head_len, r.body_end - r.head_len}, all = {start, r.body_end};
    call *k = only_call(c, e->plan->window);
    c->begin = c->scanned = c->begin + r.raw;
    c->response.begun = false;
    if (k == NULL) return note(e, DUPLICATE, all);
    const step *s = &e->plan->steps[k->step];
    bool good = r.status >= 200 && r.status < 300;
    if (s->opens_session && good && r.session_at > 0) connection_keep_session(c, start + r.session_at, r.session_len);
    if (s->ends_session) c->session_len = 0, good = good || r.status == 405;
    if (s->kind == STEP_UPGRADE) {
        c->upgraded = r.status == 101;
        settle(e, c, k, c->upgraded ? RIGHT : BAD_STATUS, all, now);
        if (!c->upgraded) fail(e, "the server takes no WebSocket here: status %d", r.status);
    } else if (r.status == 429 || r.status == 503) settle(e, c, k, REFUSED, all, now);
    else if (s->kind == STEP_NOTICE) settle(e, c, k, good ? RIGHT : BAD_STATUS, all, now);
    else if (r.events && good) {
        if (!take_events(e, c, k, body, now)) settle(e, c, k, MISSING, all, now);
    } else if (body.len > 0 && *json_blank(body.at, body.at + body.len) == '{') {
        take_message(e, c, body, now);
        if (k->in_flight) settle(e, c, k, good ? MISSING : BAD_STATUS, all, now);
    } else settle(e, c, k, BAD_STATUS, all, now);
    if (r.last && c->state == OPEN) ended(e, c, true);
}

static void take_http(engine *e, connection *c, int64_t now) {
    while (c->state == OPEN && !c->upgraded && c->end > c->begin) {
        char *start = c->buf + c->begin;
        size_t len = c->end - c->begin;
        int whole = c->response.begun ? 1 : read_head(start, len, &c->response);
        if (whole > 0) whole = read_body(start, len, &c->response);
        if (whole < 0) return give_up(e, c, BAD_HTTP);
        if (whole == 0) return;
        if (c->response.status < 200 && c->response.status != 101) { /* 100 Continue, 103 Early Hints */
            c->begin += c->response.head_len, c->response.begun = false;
            continue;
        }
        take_response(e, c, now);
    }
}

static void pong(engine *e, connection *c, span ping) {
    if (ping.len > 125 || c->tail_left > 0) return;
    c->out_end += put_pong(connection_room(c, ping.len + 6), ping);
    touch(e, c);
}

/* Fragments are moved together: [begin, message_end) is what came of a message so far. */
static void take_frames(engine *e, connection *c, int64_t now) {
    frame f;
    int whole = 0;
    if (c->message_end < c->begin) c->message_end = c->begin;
    while (c->state == OPEN && (whole = read_frame(c->buf + c->scanned, c->end - c->scanned, &f)) == 1) {
        c->scanned += f.taken;
        if (f.kind == WS_CLOSE) return ended(e, c, c->in_flight == 0);
        if (f.kind == WS_PING) pong(e, c, f.data);
        if (f.kind > WS_BINARY) continue;
        bool one = f.kind == WS_TEXT && f.last;
        if (!one) memmove(c->buf + c->message_end, f.data.at, f.data.len), c->message_end += f.data.len;
        if (!f.last) continue;
        span message = one ? f.data : (span){c->buf + c->begin, c->message_end - c->begin};
        take_message(e, c, message, now);
        c->begin = c->message_end = c->scanned;
    }
    if (whole < 0) give_up(e, c, BAD_FRAME);
}

static void take(engine *e, connection *c, int64_t now) {
    ssize_t n = connection_read(c);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        response *r = &c->response;
        bool whole = r->begun && r->kind == BODY_TO_END && c->end > c->begin;
        if (whole) return take_response(e, c, now);
        return ended(e, c, c->in_flight == 0);
    }
    e->reads++, e->answer_bytes += (uint64_t)n;
    if (e->plan->wire == WIRE_LINES) take_lines(e, c, now);
    else {
        if (!c->upgraded) take_http(e, c, now);
        if (c->upgraded) take_frames(e, c, now);
    }
    if (c->end - c->begin > e->plan->answer_bytes_max && c->state == OPEN) give_up(e, c, TOO_LONG);
    if (c->state == OPEN) advance(e, c, now);
}

/* ---- the loop ---------------------------------------------------------------------------------------- */

/* A call has waited long enough for its plan: it is cancelled, by a message or by leaving. */
static void cancel(engine *e, connection *c, uint64_t id, int64_t now) {
    for (uint32_t i = 0; i < e->plan->window; i++) {
        call *k = &c->calls[i];
        if (!k->in_flight || k->id != id) continue;
        int32_t notice = e->plan->steps[k->step].cancel_step;
        if (notice < 0) {
            close_connection(e, c, CANCELLED);
            return open_connection(e, c);
        }
        if (c->tail_left > 0) return timers_add(&e->timers, now + 1000000, TIMER_CANCEL, (uint32_t)(c - e->connections), id);
        k->cancelled_id = id;
        connection_put(c, &e->plan->steps[notice], FIRST_ID + id);
        settle(e, c, k, CANCELLED, (span){NULL, 0}, now);
        touch(e, c);
        return advance(e, c, now);
    }
}

static void heed_timers(engine *e, int64_t now) {
    timer t;
    while (timers_take(&e->timers, now, &t)) {
        connection *c = &e->connections[t.connection];
        if (t.kind == TIMER_CANCEL) cancel(e, c, t.id, now);
        else if (t.kind == TIMER_OPEN && c->state == CLOSED) open_connection(e, c);
        else if (t.kind == TIMER_RESUME && c->state == OPEN) {
            c->paused = false;
            advance(e, c, now);
        }
    }
}

/* All connections are through their prologue: now it begins. */
static void begin(engine *e, int64_t now) {
    e->ready_ns = e->due_ns = e->last_answer_ns = now;
    e->sending = true;
    enter(e, PHASE_WARMUP, now);
    keep_time(e, now);
    for (uint32_t i = 0; i < e->plan->connections; i++) advance(e, &e->connections[i], now);
}

static bool all_ready(const engine *e) {
    if (e->plan->ramp_s > 0) return is_ready(&e->connections[0]);
    for (uint32_t i = 0; i < e->plan->connections; i++)
        if (!is_ready(&e->connections[i])) return false;
    return true;
}

static int timeout_ms(engine *e, int64_t now) {
    int64_t next = timers_next(&e->timers);
    bool open_loop = e->plan->rate > 0 && e->sending && e->phase != PHASE_OPENING;
    if (open_loop && e->due_ns < next) next = e->due_ns;
    if (next == INT64_MAX) return TURN_MS;
    int64_t ms = (next - now) / 1000000;
    if (open_loop && ms <= 1) return 0; /* so close to its time we do not sleep: a late wake-up would be ours, not the server's */
    if (open_loop) ms--;
    return ms < 0 ? 0 : ms < TURN_MS ? (int)ms + !open_loop : TURN_MS;
}

static void turn(engine *e) {
    struct epoll_event ready[EVENTS];
    int n = epoll_wait(e->watch, ready, EVENTS, timeout_ms(e, now_ns()));
    int64_t now = now_ns();
    for (int i = 0; i < n; i++) {
        connection *c = ready[i].data.ptr;
        if (c->state == CONNECTING) connected(e, c, now);
        else if (c->state == OPEN) {
            if (ready[i].events & EPOLLOUT) touch(e, c);
            if (ready[i].events & ~(uint32_t)EPOLLOUT) take(e, c, now);
        }
        if (i + 1 < n) now = now_ns();
    }
    keep_time(e, now);
    heed_timers(e, now);
    if (e->phase == PHASE_OPENING && all_ready(e)) begin(e, now);
    if (e->plan->rate > 0 && e->phase != PHASE_OPENING) begin_due(e, now);
    flush_touched(e, now);
}

static void stay_on(int cpu) {
    if (cpu < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static bool over(engine *e, int64_t now) {
    if (e->failure[0] != 0) return true;
    bool idle = e->in_flight == 0 && e->waiting_n == 0 && (e->phase == PHASE_ENDING || e->open_n > 0);
    if (e->phase == PHASE_OPENING && atomic_load(&e->stop)) return true;
    if (e->phase == PHASE_ENDING && (idle || e->hopeless)) return true;
    if (e->phase != PHASE_OPENING && e->in_flight == 0 && e->waiting_n == 0) return false;
    int64_t since = e->last_answer_ns > e->began_ns ? e->last_answer_ns : e->began_ns;
    e->stalled = now - since > ns(e->plan->timeout_s);
    if (e->phase == PHASE_ENDING && now - e->phase_ns > ns(e->plan->timeout_s)) e->stalled = true;
    return e->stalled;
}

void engine_run(engine *e) {
    const plan *p = e->plan;
    stay_on(p->cpu);
    e->began_ns = e->last_answer_ns = now_ns();
    for (uint32_t i = 0; i < p->connections && e->failure[0] == 0; i++) {
        if (p->ramp_s > 0 && p->rate <= 0 && i > 0)
            timers_add(&e->timers, e->began_ns + ns(p->ramp_s * i / p->connections), TIMER_OPEN, i, 0);
        else open_connection(e, &e->connections[i]);
    }
    flush_touched(e, e->began_ns);
    while (!over(e, now_ns())) turn(e);
    if (e->phase != PHASE_OPENING && e->phase < PHASE_ENDING) end_measuring(e, now_ns());
    if (e->stalled && e->phase == PHASE_OPENING) fail(e, "the server did not answer within %g s", p->timeout_s);
    else if (e->stalled) fail(e, "nothing was answered for %g s", p->timeout_s);
    for (uint64_t left = e->in_flight + e->waiting_n; left > 0 && e->phase != PHASE_OPENING; left--) note(e, MISSING, (span){NULL, 0});
    enter(e, PHASE_DONE, now_ns());
}

void engine_stop(engine *e) {
    atomic_store(&e->stop, true);
}

/* ---- making one, and what it gives ------------------------------------------------------------------- */

engine *engine_new(plan *p) {
    engine *e = need_memory(calloc(1, sizeof *e));
    e->plan = p;
    e->watch = epoll_create1(EPOLL_CLOEXEC);
    e->place_bits = bits_for(p->window);
    e->turn = 1ull << (e->place_bits + bits_for(p->connections));
    e->seed = p->seed * 0x9e3779b97f4a7c15u; /* small ones begin slowly */
    if (e->seed == 0) e->seed = 0x9e3779b97f4a7c15u;
    e->to_send = p->calls > 0 ? p->calls + p->warmup_calls : UINT64_MAX;
    e->interval_ns = p->intervals > 0 ? ns(p->duration_s) / p->intervals + 1 : INT64_MAX;
    e->connections = need_memory(calloc(p->connections, sizeof *e->connections));
    for (uint32_t i = 0; i < p->connections; i++) connection_prepare(&e->connections[i], i, p->window);
    e->memos = need_memory(calloc(p->steps_n, sizeof *e->memos));
    e->tallies = need_memory(calloc(p->tallies_n, sizeof *e->tallies));
    for (uint32_t i = 0; i < p->tallies_n; i++) e->tallies[i].latency = need_memory(calloc(1, sizeof(histogram)));
    e->intervals = need_memory(calloc(p->intervals + 1, sizeof *e->intervals));
    for (uint32_t i = 0; i < p->intervals; i++) e->intervals[i].latency = need_memory(calloc(1, sizeof(histogram)));
    e->latency = need_memory(calloc(1, sizeof(histogram)));
    e->refusals = need_memory(calloc(1, sizeof(histogram)));
    e->lateness = need_memory(calloc(1, sizeof(histogram)));
    e->free_ring = need_memory(calloc(p->connections, sizeof *e->free_ring));
    e->touched = need_memory(calloc(p->connections + 1, sizeof *e->touched));
    if (p->rate > 0) e->waiting = need_memory(calloc(WAITING_MAX, sizeof *e->waiting));
    return e;
}

void engine_free(engine *e) {
    const plan *p = e->plan;
    for (uint32_t i = 0; i < p->connections; i++) {
        close_connection(e, &e->connections[i], CANCELLED);
        connection_free(&e->connections[i]);
    }
    for (uint32_t i = 0; i < p->steps_n; i++) free(e->memos[i].before), free(e->memos[i].behind);
    for (uint32_t i = 0; i < p->tallies_n; i++) free(e->tallies[i].latency);
    for (uint32_t i = 0; i < p->intervals; i++) free(e->intervals[i].latency);
    if (e->watch >= 0) close(e->watch);
    timers_free(&e->timers), slices_free(&e->by_slice);
    free(e->connections), free(e->memos), free(e->tallies), free(e->intervals);
    free(e->latency), free(e->refusals), free(e->lateness);
    free(e->free_ring), free(e->touched), free(e->waiting), free(e->last_answer);
    free(e);
}

glance engine_look(const engine *e) {
    return (glance){
        .phase = e->phase,
        .seconds = (double)(now_ns() - e->phase_ns) * 1e-9,
        .answered = e->answered,
        .errors = e->wrong,
        .refused = e->refused,
        .in_flight = e->in_flight,
        .waiting = e->waiting_n,
        .open = e->open_n,
        .p50_us = histogram_quantile(e->latency, 0.5) * 1e-3,
        .p99_us = histogram_quantile(e->latency, 0.99) * 1e-3,
    };
}

outcome engine_outcome(engine *e) {
    outcome o = {
        .seconds = (double)(e->to_ns - e->from_ns) * 1e-9,
        .handshake_s = e->ready_ns > 0 ? (double)(e->ready_ns - e->began_ns) * 1e-9 : 0,
        .server_cpu_s = e->server_cpu_s,
        .own_cpu_s = e->own_cpu_s,
        .answered = e->measured_answers,
        .refused = e->refused,
        .notifications = e->notifications,
        .connections_made = e->connections_made,
        .reads = e->reads,
        .writes = e->writes,
        .answer_bytes = e->answer_bytes,
        .latency = e->latency,
        .refusals = e->refusals,
        .lateness = e->lateness,
        .tallies = e->tallies,
        .intervals = e->intervals,
        .interval_s = (double)e->interval_ns * 1e-9,
        .rate_p75_per_s = slices_quantile(&e->by_slice, 0.75),
        .stalled = e->stalled,
        .hopeless = e->hopeless,
        .failure = e->failure,
        .first_error = e->first_error,
    };
    memcpy(o.verdicts, e->verdicts, sizeof o.verdicts);
    return o;
}

const memo *engine_memo(const engine *e, uint32_t step) {
    return &e->memos[step];
}

const char *engine_last_answer(const engine *e, size_t *len) {
    return *len = e->last_answer_len, e->last_answer;
}
