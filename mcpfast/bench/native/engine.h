/* The load engine: a server driven as a plan says, every answer checked, every time measured.
 *
 * The way of a run: open the connections, go through each one's prologue, warm up, measure, take in what is still in
 * flight. Requests that may be sent go out in one write; writes never wait and reads are never put off, so a server that
 * fills its pipe cannot lock us up. In an open loop a request begins when the clock says so, not when the last answer
 * came, and its latency counts from that moment even if no connection was free: a server that stalls is not spared the
 * requests that would have come meanwhile.
 *
 * One thread runs it and needs nothing of Python; another one may look on (`engine_look`) and may `engine_stop` it. */
#pragma once
#include "answer.h"
#include "histogram.h"
#include "plan.h"
#include "slices.h"

typedef enum { PHASE_OPENING, PHASE_WARMUP, PHASE_MEASURING, PHASE_ENDING, PHASE_DONE } phase;

/* What happened to the steps of one kind in the measured time. */
typedef struct {
    uint64_t answered, errors, refused;
    histogram *latency;
} tally;

typedef struct {
    uint64_t answered, errors;
    histogram *latency;
} interval;

typedef struct {
    phase phase;
    double seconds; /* of the phase */
    uint64_t answered, errors, refused, in_flight, waiting, open;
    double p50_us, p99_us; /* of what was measured so far */
} glance;

typedef struct engine engine;

engine *engine_new(plan *p); /* keeps the pointer */
void engine_free(engine *e);
void engine_run(engine *e);
void engine_stop(engine *e); /* from any thread: what was measured until now is the result */
glance engine_look(const engine *e);

typedef struct {
    double seconds, handshake_s, server_cpu_s, own_cpu_s;
    uint64_t answered, refused, notifications, connections_made, reads, writes, answer_bytes;
    uint64_t verdicts[VERDICTS]; /* of the whole run, its warm-up too */
    const histogram *latency, *refusals, *lateness; /* lateness: how much after its time we sent what could be sent */
    const tally *tallies;
    const interval *intervals;
    double interval_s;
    double rate_p75_per_s;
    bool stalled, hopeless;
    const char *failure;     /* why it ended early; "" */
    const char *first_error; /* the first wrong answer, or as much as fits */
} outcome;

outcome engine_outcome(engine *e);
const memo *engine_memo(const engine *e, uint32_t step);
const char *engine_last_answer(const engine *e, size_t *len); /* of the last request, wrong or right */
