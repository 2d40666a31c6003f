/* A histogram of times in nanoseconds, in the manner of HdrHistogram.
 *
 * Every power of two is cut into 128 equal steps, so a value is known to better than 0.8 % whatever its size;
 * 30 KB in all, and adding a value is a shift and an increment. */
#pragma once
#include <math.h>
#include <stdint.h>

enum {
    STEP_BITS = 7,
    STEPS = 1 << STEP_BITS,
    BUCKETS = (64 - STEP_BITS + 1) * STEPS,
};

typedef struct {
    uint64_t count, sum_ns, max_ns;
    uint32_t buckets[BUCKETS];
} histogram;

static inline unsigned histogram_bucket(uint64_t ns) {
    if (ns < STEPS) return (unsigned)ns; /* the first 128 nanoseconds are exact */
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return ((power - STEP_BITS + 1) << STEP_BITS) + ((ns >> (power - STEP_BITS)) & (STEPS - 1));
}

/* The middle of a bucket, the value reported for everything in it. */
static inline double histogram_value(unsigned bucket) {
    if (bucket < STEPS) return bucket;
    unsigned power = (bucket >> STEP_BITS) + STEP_BITS - 1;
    uint64_t width = 1ull << (power - STEP_BITS);
    return (double)(STEPS + (bucket & (STEPS - 1))) * (double)width + (double)width / 2;
}

static inline void histogram_add(histogram *h, uint64_t ns) {
    h->buckets[histogram_bucket(ns)]++;
    h->count++;
    h->sum_ns += ns;
    if (ns > h->max_ns) h->max_ns = ns;
}

/* The time that a share `q` (0 to 1) of all calls did not exceed. */
static inline double histogram_quantile(const histogram *h, double q) {
    if (h->count == 0) return 0;
    uint64_t wanted = (uint64_t)ceil(q * (double)h->count), seen = 0;
    if (wanted == 0) wanted = 1;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += h->buckets[bucket];
        if (seen < wanted) continue;
        double value = histogram_value(bucket);
        return value < (double)h->max_ns ? value : (double)h->max_ns;
    }
    return (double)h->max_ns;
}
