/* The shape of a message: a client that calls one tool again and again sends the same bytes but for the id and the arguments.
 *
 * A shape is a plain tools/call of a scalar tool that was scanned in full, cut at those two places (`Shapes` in _core keeps the
 * last few). A line that has the same bytes around the cuts has the same members: its id and arguments stand where they are.
 * That the arguments are one JSON value is left to msgspec, which decodes them strictly into scalars anyway; where it refuses,
 * the line is scanned in full and the answer is made from that. So a shape can save work (630 instructions of 4,700; 1,100 with
 * the envelope of 2026-07-28) but never change an answer: tests/test_fast_slow.py holds both ways together.
 */
#pragma once
#include "_scan.h"

enum { SHAPE_BYTES = 1024, SHAPE_ID_DIGITS = 18 };

typedef struct {
    uint32_t front, middle, back; /* lengths of what stands before, between and behind the two; front == 0: nothing learnt */
    int id_first;
    char bytes[SHAPE_BYTES];
} shape_t;

static inline size_t shape_digits(const char *p) { /* the digits of a plain number at `p`: no sign, no leading zero */
    size_t n = 0;
    while (p[n] >= '0' && p[n] <= '9' && n <= SHAPE_ID_DIGITS) n++;
    return n > SHAPE_ID_DIGITS || (n > 1 && *p == '0') ? 0 : n;
}

/* Learns the line from `line` to its newline at `end`, which was scanned as `f`. */
static inline void shape_learn(shape_t *s, const char *line, const char *end, const frame_t *f) {
    span_t one = f->id, two = f->arguments;
    s->front = 0;
    if (!two.at || shape_digits(one.at) != one.len) return;
    s->id_first = one.at < two.at;
    if (!s->id_first) { one = f->arguments; two = f->id; }
    size_t front = (size_t)(one.at - line), middle = (size_t)(two.at - one.at) - one.len;
    size_t back = (size_t)(end - two.at) - two.len;
    if (front + middle + back > SHAPE_BYTES) return;
    memcpy(s->bytes, line, front);
    memcpy(s->bytes + front, one.at + one.len, middle);
    memcpy(s->bytes + front + middle, two.at + two.len, back);
    s->middle = (uint32_t)middle;
    s->back = (uint32_t)back;
    s->front = (uint32_t)front;
}

/* Whether the line at `line` has this shape; `limit` is behind the last newline there is. Then `f->id`, `f->arguments`, `*end`. */
static inline int shape_match(const shape_t *s, const char *line, const char *limit, frame_t *f, const char **end) {
    const char *second = s->bytes + s->front, *third = second + s->middle, *arguments, *behind, *newline;
    /* the shortest such line; what is compared may run over `limit` by the digits of an id: SCAN_SLACK is more */
    if ((size_t)(limit - line) < (size_t)s->front + s->middle + s->back + sizeof "1{}") return 0;
    if (memcmp(line, s->bytes, s->front)) return 0;
    if (s->id_first) {
        f->id.at = line + s->front;
        f->id.len = (uint32_t)shape_digits(f->id.at);
        arguments = f->id.at + f->id.len;
        if (!f->id.len || memcmp(arguments, second, s->middle)) return 0;
        arguments += s->middle;
    } else arguments = line + s->front;
    if (arguments >= limit || *arguments != '{' || !(newline = memchr(arguments, '\n', (size_t)(limit - arguments)))) return 0;
    if ((size_t)(newline - arguments) < s->back + 2u) return 0;
    behind = newline - s->back;
    if (memcmp(behind, third, s->back)) return 0;
    if (!s->id_first) { /* backwards: the digits in front of the end, and what stands before them */
        const char *digits = behind;
        while (digits > arguments && digits[-1] >= '0' && digits[-1] <= '9') digits--;
        f->id.at = digits;
        f->id.len = (uint32_t)(behind - digits);
        if (!f->id.len || shape_digits(digits) != f->id.len || (size_t)(digits - arguments) < s->middle + 2u) return 0;
        behind = digits - s->middle;
        if (memcmp(behind, second, s->middle)) return 0;
    }
    f->arguments.at = arguments;
    f->arguments.len = (uint32_t)(behind - arguments);
    *end = newline;
    return 1;
}
