/* The rate, slice by slice of 2 ms.
 *
 * On a shared machine somebody else's process takes our processor, or the server's, for some milliseconds every few.
 * The mean rate then says how busy the machine was. The rate that a quarter of all slices reached says how fast the
 * server is: it is the same on a quiet machine and on one that is busy up to half of the time. */
#pragma once
#include "memory.h"

enum { SLICE_NS = 2000000 };

typedef struct {
    int64_t began_ns;
    uint64_t calls;
    double *rates;
    size_t n, cap;
} slices;

static inline void slices_begin(slices *s, int64_t now) {
    s->began_ns = now, s->calls = 0, s->n = 0;
}

/* `calls` were answered at `now`: a slice begins and ends with an answer, so even one long call is measured whole. */
static inline void slices_add(slices *s, uint64_t calls, int64_t now) {
    s->calls += calls;
    if (s->calls == 0 || now - s->began_ns < SLICE_NS) return;
    if (s->n == s->cap) s->rates = need_memory(realloc(s->rates, (s->cap = s->cap * 2 + 1024) * sizeof *s->rates));
    s->rates[s->n++] = (double)s->calls * 1e9 / (double)(now - s->began_ns);
    s->began_ns = now, s->calls = 0;
}

static inline int slices_order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The rate that a share of 1 - `q` of the slices reached; 0 when there is none. */
static inline double slices_quantile(slices *s, double q) {
    if (s->n == 0) return 0;
    qsort(s->rates, s->n, sizeof *s->rates, slices_order);
    return s->rates[(size_t)(q * (double)(s->n - 1))];
}

static inline void slices_free(slices *s) {
    free(s->rates);
}
