/* One connection: what is in flight on it, what waits to be written, what was read and not yet understood.
 *
 * A call lives in one of `window` places. Its id is made of the number of its place, of its connection and of its turn
 * in that place, so that an answer finds its call by arithmetic, and an answer on the wrong connection is seen. */
#pragma once
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "answer.h"
#include "http.h"

enum { READ_BYTES = 64 << 10, BIG_STEP_BYTES = 16 << 10 };

/* Ten digits, always: so a request is as long whatever its id is, and Content-Length stays true. After 9e9 ids they
 * come around again; those that had them are long gone. */
static const uint64_t FIRST_ID = 1000000000ull, IDS = 9000000000ull;

typedef struct {
    uint64_t id, cancelled_id; /* of the call in it, and of the last one that we cancelled */
    int64_t since_ns;          /* when it began, or was meant to */
    uint32_t step;
    bool in_flight;
} call;

typedef enum { CLOSED, CONNECTING, OPEN } connection_state;

typedef struct {
    connection_state state;
    int in, out; /* the same descriptor when it is a socket */
    bool blocked, greeting, upgraded, paused, listed, touched; /* greeting: in its prologue, or waiting for its last answer */
    bool ended; /* scripted: it has gone through the body for the last time */
    uint64_t first_id;
    call *calls;
    uint32_t *idle; /* a ring of places without a call */
    uint32_t idle_at, idle_n, in_flight;
    uint32_t at;       /* how far it is in the prologue, and then in the body when it is scripted */
    uint32_t made;     /* requests since it was opened */
    int64_t opened_ns; /* when it was begun to be opened */
    char *session;     /* the header line of its session; "" without one */
    size_t session_len;
    char *out_buf; /* [sent, out_end) waits to be written, and then `tail_left` bytes before the end of `tail` */
    size_t out_cap, sent, out_end, tail_left;
    const char *tail_end;
    char *buf; /* read: [begin, end); [begin, scanned) is known to hold no whole message */
    size_t cap, begin, scanned, end, message_end;
    response response;
} connection;

static inline uint32_t bits_for(uint32_t n) {
    uint32_t bits = 0;
    while (1u << bits < n) bits++;
    return bits;
}

static inline void connection_prepare(connection *c, uint32_t index, uint32_t window) {
    *c = (connection){.in = -1, .out = -1, .cap = READ_BYTES, .out_cap = READ_BYTES / 16};
    c->first_id = (uint64_t)index << bits_for(window);
    c->calls = need_memory(calloc(window, sizeof *c->calls));
    c->idle = need_memory(calloc(window, sizeof *c->idle));
    c->out_buf = need_memory(malloc(c->out_cap));
    c->buf = need_memory(malloc(c->cap));
    c->session = need_memory(calloc(1, 1));
    for (uint32_t place = 0; place < window; place++) c->idle[place] = place, c->calls[place].id = c->first_id + place;
    c->idle_n = window;
}

static inline void connection_free(connection *c) {
    free(c->calls), free(c->idle), free(c->out_buf), free(c->buf), free(c->session);
}

/* As one that was never open; its places keep their turns, so that no id is used twice. */
static inline void connection_renew(connection *c) {
    c->blocked = c->upgraded = c->paused = false, c->greeting = true;
    c->at = c->made = 0;
    c->sent = c->out_end = c->tail_left = 0;
    c->begin = c->scanned = c->end = c->message_end = 0;
    c->session_len = 0;
    c->response = (response){0};
}

static inline void connection_keep_session(connection *c, const char *at, size_t len) {
    static const char NAME[] = "Mcp-Session-Id: ";
    c->session_len = sizeof NAME - 1 + len + 2;
    c->session = need_memory(realloc(c->session, c->session_len + 1));
    memcpy(c->session, NAME, sizeof NAME - 1);
    memcpy(c->session + sizeof NAME - 1, at, len);
    memcpy(c->session + sizeof NAME - 1 + len, "\r\n", 2);
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static inline char *connection_room(connection *c, size_t more) {
    if (c->sent == c->out_end) c->sent = c->out_end = 0;
    if (c->out_end + more > c->out_cap)
        c->out_buf = need_memory(realloc(c->out_buf, c->out_cap = (c->out_end + more) * 2));
    return c->out_buf + c->out_end;
}

/* `value` in ten digits, two at a time: this is a third of what a request costs to write. */
static inline void put_id(char *out, uint64_t value, const uint8_t *mask, size_t masked_at) {
    static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    for (size_t i = ID_DIGITS; i > 0; i -= 2, value /= 100) memcpy(out + i - 2, PAIRS + value % 100 * 2, 2);
    for (size_t i = 0; mask != NULL && i < ID_DIGITS; i++) out[i] = (char)(out[i] ^ mask[(masked_at + i) & 3]);
}

/* The bytes of a step behind what already waits. Those of a big one, behind its last hole, are written from where they
 * are; nothing may follow before they are gone. */
static inline void connection_put(connection *c, const step *s, uint64_t id) {
    size_t front = s->session_at >= 0 ? (size_t)s->session_at : 0, len = s->len;
    if (len > BIG_STEP_BYTES) len = s->ids_n > 0 ? s->id_at[s->ids_n - 1] + ID_DIGITS : front;
    char *out = connection_room(c, len + c->session_len), *start = out;
    size_t session_len = s->session_at >= 0 ? c->session_len : 0;
    memcpy(out, s->bytes, front), out += front;
    memcpy(out, c->session, session_len), out += session_len;
    memcpy(out, s->bytes + front, len - front), out += len - front;
    for (uint32_t i = 0; i < s->ids_n; i++) {
        bool masked = s->masked_from > 0;
        put_id(start + s->id_at[i] + session_len, id, masked ? s->mask : NULL, s->id_at[i] - s->masked_from);
    }
    c->out_end += (size_t)(out - start);
    c->tail_end = s->bytes + s->len, c->tail_left = s->len - len;
}

static inline bool connection_has_output(const connection *c) {
    return c->sent < c->out_end || c->tail_left > 0;
}

/* Writes what waits, until the other side is full (`blocked`); never waits. How many writes it took. */
static inline uint32_t connection_write(connection *c) {
    uint32_t writes = 0;
    c->blocked = false;
    while (connection_has_output(c)) {
        struct iovec parts[2] = {{c->out_buf + c->sent, c->out_end - c->sent},
                                 {(char *)c->tail_end - c->tail_left, c->tail_left}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = c->in == c->out ? sendmsg(c->out, &message, MSG_DONTWAIT | MSG_NOSIGNAL) : writev(c->out, parts, 2);
        writes++;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) c->blocked = true;
        if (n < 0) break; /* the server is gone: the end of its stream says the rest */
        size_t of_buffer = c->out_end - c->sent;
        if ((size_t)n < of_buffer) of_buffer = (size_t)n;
        c->sent += of_buffer;
        c->tail_left -= (size_t)n - of_buffer;
    }
    return writes;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* One read, never waiting: how much came, 0 at the end, -1 with errno otherwise. */
static inline ssize_t connection_read(connection *c) {
    if (c->begin == c->end) c->begin = c->scanned = c->end = c->message_end = 0;
    if (c->end == c->cap) {
        if (c->begin > c->cap / 2) { /* what was understood makes room */
            memmove(c->buf, c->buf + c->begin, c->end - c->begin);
            c->message_end = c->message_end > c->begin ? c->message_end - c->begin : 0;
            c->end -= c->begin, c->scanned -= c->begin, c->begin = 0;
        } else c->buf = need_memory(realloc(c->buf, c->cap *= 2));
    }
    ssize_t n = c->in == c->out ? recv(c->in, c->buf + c->end, c->cap - c->end, MSG_DONTWAIT)
                                : read(c->in, c->buf + c->end, c->cap - c->end);
    if (n > 0) c->end += (size_t)n;
    return n;
}
