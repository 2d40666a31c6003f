/* Memory and the clock. */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A load generator that has no memory left has nothing to say about a server. */
static inline void *need_memory(void *block) {
    if (block != NULL) return block;
    fputs("mcpfast bench: out of memory\n", stderr);
    abort();
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static inline int64_t ns(double seconds) {
    return (int64_t)(seconds * 1e9);
}
