/* What is to happen later: a heap, the nearest moment first. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "memory.h"

typedef enum { TIMER_RESUME, TIMER_CANCEL, TIMER_OPEN } timer_kind;

typedef struct {
    int64_t at_ns;
    uint64_t id;
    uint32_t connection;
    timer_kind kind;
} timer;

typedef struct {
    timer *heap;
    size_t n, cap;
} timers;

static inline int64_t timers_next(const timers *t) {
    return t->n > 0 ? t->heap[0].at_ns : INT64_MAX;
}

static inline void timers_add(timers *t, int64_t at_ns, timer_kind kind, uint32_t connection, uint64_t id) {
    if (t->n == t->cap) t->heap = need_memory(realloc(t->heap, (t->cap = t->cap * 2 + 64) * sizeof *t->heap));
    size_t i = t->n++;
    for (; i > 0 && t->heap[(i - 1) / 2].at_ns > at_ns; i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = (timer){.at_ns = at_ns, .id = id, .connection = connection, .kind = kind};
}

/* The nearest one, if its moment has come. */
static inline bool timers_take(timers *t, int64_t now, timer *taken) {
    if (t->n == 0 || t->heap[0].at_ns > now) return false;
    *taken = t->heap[0];
    timer last = t->heap[--t->n];
    size_t i = 0;
    for (size_t child = 1; child < t->n; child = 2 * i + 1) {
        if (child + 1 < t->n && t->heap[child + 1].at_ns < t->heap[child].at_ns) child++;
        if (t->heap[child].at_ns >= last.at_ns) break;
        t->heap[i] = t->heap[child], i = child;
    }
    t->heap[i] = last;
    return true;
}

static inline void timers_free(timers *t) {
    free(t->heap);
}
