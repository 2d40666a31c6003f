/* What the engine is told: where the server is, what is sent to it and when, and what must come back.
 *
 * A plan is data. Which messages there are, what an era asks of them and how a transport frames them was decided in
 * Python; here they are bytes with holes for an id and a session. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum { ID_DIGITS = 10, HOLES_MAX = 4, PIDS_MAX = 64, REFUSALS_MAX = 8 };

typedef enum { WIRE_LINES, WIRE_HTTP, WIRE_WEBSOCKET } wire;

typedef enum {
    STEP_REQUEST,   /* is answered under its id */
    STEP_NOTICE,    /* is not; over HTTP it is answered with a status */
    STEP_UPGRADE,   /* from HTTP to WebSocket */
    STEP_PAUSE,     /* nothing is sent for wait_ns */
    STEP_RECONNECT, /* the connection is closed and another one opened */
} step_kind;

/* What the text of a result must hold, when it is itself JSON: a member (`path`, names with dots between) that is
 * `wanted`, byte for byte; or, with `length`, an array of so many elements. */
typedef struct {
    const char *path, *wanted;
    int64_t length; /* -1: not asked */
} condition;

typedef struct {
    bool refusal;     /* an error is as good as a result */
    bool complete;    /* resultType must be "complete" (2026-07-28) */
    const char *text; /* what the first content block says; NULL: anything */
    size_t text_len;
    const condition *conditions;
    uint32_t conditions_n;
} expectation;

typedef struct {
    step_kind kind;
    uint32_t tally;                   /* where it is counted: several steps may be of one kind */
    bool counted;                     /* part of the figures */
    bool opens_session, ends_session; /* HTTP: the answer names the session of all that follows, or ends it */
    int64_t wait_ns;                  /* of a pause; of a request: cancelled after so long, 0 never */
    int32_t cancel_step;              /* the notice that cancels it; -1: its connection is closed */
    const char *bytes;
    size_t len;
    int64_t session_at; /* where the session's header belongs; -1: nowhere */
    size_t id_at[HOLES_MAX];
    uint32_t ids_n;
    size_t masked_from; /* WebSocket: where the masked part begins; the id is masked as it is put in */
    uint8_t mask[4];
    expectation expect;
} step;

typedef struct {
    wire wire;
    int in, out; /* the ends of a pipe; -1: sockets are connected to `at` */
    struct sockaddr_storage at;
    socklen_t at_len;
    uint32_t connections, window;
    step *steps;
    uint32_t steps_n;
    uint32_t *prologue, *body; /* steps by their index: once on each new connection; then around and around */
    uint32_t prologue_n, body_n;
    bool scripted; /* each connection goes through the body by itself, a step after the other; else they share it */
    uint32_t stride; /* and begins so many steps behind the connection before it */
    uint32_t tallies_n;
    bool lockstep; /* the next window is sent when the last one is answered whole: repeatable to the byte */
    double rate;   /* requests a second, begun when the clock says so; 0: when an answer has come */
    bool even;     /* at even distances, not at random ones */
    uint64_t seed;
    double ramp_s, warmup_s, duration_s, timeout_s;
    uint64_t warmup_calls, calls; /* calls > 0: for a number of them, not for a time */
    uint32_t connection_calls;    /* a connection makes so many, then another one is opened; 0: no end */
    uint32_t intervals;           /* the measured time is cut into so many */
    int cpu;                      /* the processor to stay on; -1: any */
    size_t answer_bytes_max;
    pid_t pids[PIDS_MAX]; /* of the server, where it is local: their CPU time is looked at */
    uint32_t pids_n;
    int64_t refusals[REFUSALS_MAX]; /* codes of JSON-RPC errors that mean: too much at once */
    uint32_t refusals_n;
} plan;
