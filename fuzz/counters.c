/* Carries branch counters and comparisons from gcc to libFuzzer, so that fuzzing needs no second compiler.
 *
 * gcc calls __sanitizer_cov_trace_pc at every branch; libFuzzer no longer listens to that, it watches arrays of 8-bit
 * counters. So: one array for each compiled room, and a branch finds its counter by its address. libFuzzer wants a table
 * of addresses as long as the array; nothing here reads it, so it stays zero.
 *
 * gcc's AddressSanitizer has functions of the same names that do nothing, and stands first in the process. So these ones
 * are this room's own (hidden), and ask libFuzzer by its handle: run.py names its file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNTERS (1 << 16)
/* optimised, so that it jumps: libFuzzer takes who called it for the place of the comparison */
#define QUIET __attribute__((visibility("hidden"), no_sanitize_coverage, no_sanitize("address", "undefined"), optimize("O2")))
#define PASS_ON(name, type) \
    static void (*to_##name)(type, type); \
    QUIET void __sanitizer_cov_trace_##name(type a, type b); \
    void __sanitizer_cov_trace_##name(type a, type b) { to_##name(a, b); }

static uint8_t counters[COUNTERS];
static uintptr_t addresses[2 * COUNTERS];

PASS_ON(cmp1, uint8_t)
PASS_ON(cmp2, uint16_t)
PASS_ON(cmp4, uint32_t)
PASS_ON(cmp8, uint64_t)
PASS_ON(const_cmp1, uint8_t)
PASS_ON(const_cmp2, uint16_t)
PASS_ON(const_cmp4, uint32_t)
PASS_ON(const_cmp8, uint64_t)

static void (*to_switch)(uint64_t, uint64_t *);
QUIET void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases);
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) { to_switch(value, cases); }

/* libFuzzer has no use for floating-point numbers */
QUIET void __sanitizer_cov_trace_cmpf(float a, float b);
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a; (void)b; }
QUIET void __sanitizer_cov_trace_cmpd(double a, double b);
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a; (void)b; }

QUIET void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void) {
    uintptr_t here = (uintptr_t)__builtin_return_address(0) - (uintptr_t)counters; /* the same in every run */
    uint8_t *counter = &counters[(here >> 2) % COUNTERS];
    *counter += *counter < 255;
}

__attribute__((constructor)) QUIET static void meet_libfuzzer(void) {
    const char *path = getenv("MCPFAST_LIBFUZZER");
    void *libfuzzer = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!libfuzzer) {
        fprintf(stderr, "this is the fuzz build: only fuzz/run.py can use it\n");
        exit(2);
    }
#define FIND(name) *(void **)&to_##name = dlsym(libfuzzer, "__sanitizer_cov_trace_" #name);
    FIND(cmp1) FIND(cmp2) FIND(cmp4) FIND(cmp8) FIND(const_cmp1) FIND(const_cmp2) FIND(const_cmp4) FIND(const_cmp8) FIND(switch)
    ((void (*)(void *, void *))dlsym(libfuzzer, "__sanitizer_cov_8bit_counters_init"))(counters, counters + COUNTERS);
    ((void (*)(void *, void *))dlsym(libfuzzer, "__sanitizer_cov_pcs_init"))(addresses, addresses + 2 * COUNTERS);
}
