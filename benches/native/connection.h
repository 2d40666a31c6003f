/* One connection of the load generator: what is in flight on it, what waits to be written, what was read.
 *
 * A call lives in one of `window` places. Its id is the number of its place, of its connection and of its turn
 * in that place, so that an answer finds its call by arithmetic, no id is used twice in a run, and an answer on
 * the wrong connection is seen. */
#pragma once
#include <sys/uio.h>

#include "answer.h"
#include "histogram.h"
#include "net.h"
#include "options.h"
#include "slices.h"

enum { READ_BYTES = 256 << 10, BIG_TAIL_BYTES = 16 << 10 };

typedef struct {
    uint64_t id;
    int64_t sent_ns;
    bool in_flight;
} call;

typedef struct {
    int in, out; /* the same descriptor when it is a socket */
    uint64_t first_id;
    bool open, blocked;
    call *calls;
    uint32_t *idle; /* a ring of places without a call */
    uint32_t idle_at, idle_n;
    char *requests; /* rendered: [sent, requests_end) waits to be written */
    size_t sent, requests_end;
    size_t tail_left; /* of a big tail */
    char *buf;        /* read: lines start at 0, [scanned, end) holds no newline yet */
    size_t cap, scanned, end;
} connection;

/* What all connections share. */
typedef struct {
    options with;
    char *tails[TOOLS_MAX]; /* of a request, one for each tool */
    size_t tail_lens[TOOLS_MAX], tail_len_max;
    uint32_t next_tail;
    bool big; /* too big to be copied for each request: written from where it is, and only one tool */
    unsigned place_bits;
    uint64_t turn; /* added to a place's id for each new call in it; a power of two */
    checker check;
    uint64_t to_send, in_flight, answered, reads, writes, answer_bytes;
    uint64_t wrong[VERDICTS], wrong_n;
    bool measuring;
    int64_t last_answer_ns;
    histogram latency;
    slices by_slice;
} shared;

static inline void connection_open(connection *c, shared *s, uint32_t index, int in, int out) {
    *c = (connection){.in = in, .out = out, .open = true, .cap = READ_BYTES, .first_id = (uint64_t)index << s->place_bits};
    size_t one = sizeof REQUEST_HEAD + 20 + (s->big ? 0 : s->tail_len_max);
    c->calls = need_memory(calloc(s->with.window, sizeof *c->calls));
    c->idle = need_memory(calloc(s->with.window, sizeof *c->idle));
    c->requests = need_memory(malloc(one * s->with.window));
    c->buf = need_memory(malloc(c->cap));
    for (uint32_t place = 0; place < s->with.window; place++) {
        c->calls[place].id = c->first_id + place;
        c->idle[place] = place;
    }
    c->idle_n = s->with.window;
}

/* Renders as many requests as may be in flight; false when that is none. */
static inline bool connection_fill(connection *c, shared *s) {
    uint32_t n = c->idle_n, window = s->with.window;
    if (s->with.lockstep && n < window) return false;
    if (n > s->to_send) n = (uint32_t)s->to_send;
    if (n > 1 && s->big) n = 1;
    if (n == 0) return false;
    int64_t now = now_ns();
    char *out = c->requests;
    for (uint32_t i = 0; i < n; i++) {
        call *k = &c->calls[c->idle[c->idle_at]];
        if (++c->idle_at == window) c->idle_at = 0;
        k->id += s->turn, k->sent_ns = now, k->in_flight = true;
        memcpy(out, REQUEST_HEAD, sizeof REQUEST_HEAD - 1), out += sizeof REQUEST_HEAD - 1;
        out += put_id(out, k->id);
        uint32_t tail = s->next_tail;
        if (s->big) c->tail_left = s->tail_lens[tail];
        else memcpy(out, s->tails[tail], s->tail_lens[tail]), out += s->tail_lens[tail];
        if (++s->next_tail == s->with.tools_n) s->next_tail = 0;
    }
    c->idle_n -= n, s->to_send -= n, s->in_flight += n;
    c->sent = 0, c->requests_end = (size_t)(out - c->requests);
    return true;
}

/* Writes until nothing may be sent or the other side is full (`blocked`); never waits. */
static inline void connection_flush(connection *c, shared *s) {
    c->blocked = false;
    while (c->open && (c->sent < c->requests_end || c->tail_left > 0 || connection_fill(c, s))) {
        struct iovec parts[2] = {{c->requests + c->sent, c->requests_end - c->sent},
                                 {s->tails[0] + s->tail_lens[0] - c->tail_left, c->tail_left}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = c->in == c->out ? sendmsg(c->out, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                                    : writev(c->out, parts, c->tail_left > 0 ? 2 : 1);
        s->writes++;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            c->blocked = true;
            return;
        }
        if (n < 0) return; /* the server is gone: its end of stream says the rest */
        size_t of_requests = c->requests_end - c->sent;
        if ((size_t)n < of_requests) of_requests = (size_t)n;
        c->sent += of_requests;
        c->tail_left -= (size_t)n - of_requests;
    }
}

static inline verdict connection_settle(connection *c, shared *s, verdict v, uint64_t id, int64_t now) {
    uint64_t place = id & ((1ull << s->place_bits) - 1);
    if (v == NOT_AN_ANSWER || v == BAD_JSON || id == UINT64_MAX) return v;
    if (place >= s->with.window || (id & (s->turn - 1)) != c->first_id + place || id > c->calls[place].id || id < s->turn)
        return UNKNOWN_ID;
    call *k = &c->calls[place];
    if (k->id != id || !k->in_flight) return DUPLICATE;
    k->in_flight = false;
    uint32_t at = c->idle_at + c->idle_n++;
    c->idle[at >= s->with.window ? at - s->with.window : at] = (uint32_t)place;
    s->in_flight--, s->answered++;
    if (v == RIGHT && s->measuring) histogram_add(&s->latency, (uint64_t)(now - k->sent_ns));
    return v;
}

/* One read, and all answers in it. Waits when there is nothing to read; false on a signal or the stream's end. */
static inline bool connection_read(connection *c, shared *s) {
    if (c->end == c->cap) c->buf = need_memory(realloc(c->buf, c->cap *= 2));
    ssize_t n = read(c->in, c->buf + c->end, c->cap - c->end);
    if (n < 0 && errno == EINTR) return false;
    if (n <= 0) return c->open = false;
    s->reads++, s->answer_bytes += (uint64_t)n;
    int64_t now = s->last_answer_ns = now_ns();
    c->end += (size_t)n;
    uint64_t answered = s->answered;
    char *start = c->buf, *end = c->buf + c->end, *from = c->buf + c->scanned, *newline;
    while ((newline = memchr(from, '\n', (size_t)(end - from))) != NULL) {
        uint64_t id;
        verdict v = check_answer(&s->check, start, (size_t)(newline - start), &id);
        v = connection_settle(c, s, v, id, now);
        s->wrong[v]++;
        s->wrong_n += v > NOT_AN_ANSWER;
        start = from = newline + 1;
    }
    c->end = c->scanned = (size_t)(end - start);
    if (c->end > 0 && start > c->buf) memmove(c->buf, start, c->end);
    if (s->measuring && s->answered > answered) slices_add(&s->by_slice, s->answered - answered, now);
    return true;
}
