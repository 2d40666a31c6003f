/* The load that wrk cannot make: an open loop over HTTP, calls over WebSocket, a stream of events.
 * Every answer is checked.
 *
 *     benches/_build/httpload --help
 *
 * open  Requests begin when a clock says so, not when the last answer came, at random moments as those of many
 *       clients that know nothing of each other; with the same seed, at the same moments for each server. A latency
 *       counts from the moment it was meant to begin: a server that stalls is not spared the requests that would have
 *       come meanwhile. We never sleep, so that no wake-up of ours is counted as the server's.
 * ws    Each connection sends its next message when its last one is answered, under a new id.
 * sse   One connection; each request is answered with a stream, whose events are counted and whose end is awaited. */
#define _GNU_SOURCE
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "native/histogram.h"
#include "native/http.h"
#include "native/net.h"
#include "native/slices.h"

enum { BUFFER_BYTES = 256 << 10, WAITING_MAX = 1 << 20, HOPELESS_ERRORS = 1000 };

static const char HELP[] =
    "usage: httpload [options] open|ws|sse FILE tcp://HOST:PORT\n"
    "\n"
    "FILE is what is sent, again and again: a whole HTTP request (open, sse), or the upgrade and, behind its empty\n"
    "line, the message of each frame (ws), in which the digits 1000000000 are the id and are counted up.\n"
    "\n"
    "  --connections N      (32; sse has one)\n"
    "  --rate N             requests a second (open)\n"
    "  --seed N             of the moments they begin at (1)\n"
    "  --events N           progress notifications of one stream (sse)\n"
    "  --expect TEXT        what stands in every answer (\"text\":\"hello\")\n"
    "  --duration SECONDS   measure for this long (1), after\n"
    "  --warmup SECONDS     that do not count (0.2)\n"
    "  --timeout SECONDS    give up when nothing was answered for so long (10)\n"
    "  --cpu N              stay on this processor\n"
    "\n"
    "Prints one line of JSON. Exit code 0: all right. 1: wrong answers. 2: wrong options.\n"
    "3: no server, or it stopped answering.\n";

typedef struct {
    int fd;
    bool open, busy;
    int64_t since_ns; /* when the request that is under way was meant to begin */
    uint64_t id;
    char *buf;
    size_t end;
} connection;

static struct {
    const char *mode, *expect, *target;
    char *sent;
    size_t sent_len;
    uint32_t connections;
    uint64_t seed, events;
    double rate, duration_s, warmup_s, timeout_s;
} with = {.expect = "\"text\":\"hello\"", .connections = 32, .seed = 0x9e3779b97f4a7c15u, .duration_s = 1, .warmup_s = 0.2, .timeout_s = 10};

static connection *connections;
static int watch;
static histogram latency, own_delay;
static slices by_slice;
static uint64_t answered, wrong, lost;
static int64_t measured_from_ns, measured_to_ns, last_answer_ns;
static char first_wrong[400];

static void went_wrong(const char *what, const char *at, size_t len) {
    if (wrong++ == 0) snprintf(first_wrong, sizeof first_wrong, "%s: %.*s", what, (int)(len > 300 ? 300 : len), at);
}

static void lose(connection *c) {
    c->open = false;
    lost += c->busy;
    epoll_ctl(watch, EPOLL_CTL_DEL, c->fd, NULL);
}

/* `count` answers came. */
static void tally(int64_t now, uint64_t count) {
    last_answer_ns = now;
    if (now < measured_from_ns) slices_begin(&by_slice, now);
    if (now < measured_from_ns || now > measured_to_ns) return;
    answered += count;
    slices_add(&by_slice, count, now);
}

/* An answer came to what began while we measured, however late. */
static void settle(connection *c, int64_t now) {
    if (c->since_ns >= measured_from_ns) histogram_add(&latency, (uint64_t)(now - c->since_ns));
    tally(now, 1);
}

/* Requests are small and connections empty: a write that does not take all is a server that reads nothing. */
static void say(connection *c, const void *at, size_t len) {
    if (send(c->fd, at, len, MSG_NOSIGNAL) != (ssize_t)len) lose(c);
}

/* ---- HTTP, open loop ------------------------------------------------------------------------------- */

static int64_t *waiting; /* requests that should have begun and found no idle connection: a ring */
static size_t waiting_at, waiting_n;
static uint32_t *idle; /* the same of connections: the one that is idle for longest is used */
static size_t idle_at, idle_n;

static double next_random(void) {
    uint64_t x = with.seed; /* xorshift64 */
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    with.seed = x;
    return (double)(x >> 11) * 0x1p-53;
}

static int64_t next_gap_ns(void) {
    return (int64_t)(-log(1 - next_random()) / with.rate * 1e9);
}

static void go_idle(connection *c) {
    c->busy = false;
    idle[(idle_at + idle_n++) % with.connections] = (uint32_t)(c - connections);
}

static void begin_due(int64_t now) {
    while (waiting_n > 0 && idle_n > 0) {
        connection *c = &connections[idle[idle_at]];
        idle_at = (idle_at + 1) % with.connections, idle_n--;
        if (!c->open) continue;
        c->since_ns = waiting[waiting_at], c->busy = true;
        waiting_at = (waiting_at + 1) % WAITING_MAX, waiting_n--;
        say(c, with.sent, with.sent_len);
        if (c->since_ns >= measured_from_ns) histogram_add(&own_delay, (uint64_t)(now - c->since_ns));
    }
}

static void take_response(connection *c, int64_t now) {
    response r;
    if (!read_head(c->buf, c->end, &r)) return;
    if (r.sized && c->end < r.head_len + r.body_len) return;
    if (r.status != 200 || !r.sized || c->end != r.head_len + r.body_len || !c->busy)
        went_wrong("no whole answer with status 200", c->buf, c->end);
    else if (memmem(c->buf + r.head_len, r.body_len, with.expect, strlen(with.expect)) == NULL)
        went_wrong("not the answer", c->buf + r.head_len, r.body_len);
    else settle(c, now);
    c->end = 0;
    if (c->busy) go_idle(c);
}

/* ---- WebSocket ------------------------------------------------------------------------------------- */

static char *message; /* of a frame; its id is counted up in place */
static size_t message_len;
static char *id_at;

static void say_frame(connection *c, int64_t now) {
    char digits[24];
    unsigned char frame[message_len + WS_HEAD_MAX];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)++c->id);
    memcpy(id_at, digits, 10);
    c->since_ns = now, c->busy = true;
    say(c, frame, put_frame(frame, message, message_len));
}

static void take_frames(connection *c, int64_t now) {
    int kind, whole;
    span data;
    size_t taken, used = 0;
    char digits[24];
    while ((whole = read_frame(c->buf + used, c->end - used, &kind, &data, &taken)) == 1) {
        used += taken;
        if (kind == WS_PING || kind == WS_PONG) continue;
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)c->id);
        if (kind == WS_CLOSE) return lose(c);
        if (kind != WS_TEXT || memmem(data.at, data.len, with.expect, strlen(with.expect)) == NULL ||
            memmem(data.at, data.len, digits, 10) == NULL)
            went_wrong("not the answer", data.at, data.len);
        else settle(c, now);
        if (now < measured_to_ns) say_frame(c, now);
        else c->busy = false;
    }
    if (whole < 0) {
        went_wrong("no frame of a server", c->buf + used, c->end - used);
        return lose(c);
    }
    memmove(c->buf, c->buf + used, c->end - used);
    c->end -= used;
}

static void upgrade(connection *c) {
    response r;
    say(c, with.sent, with.sent_len - message_len);
    while (!read_head(c->buf, c->end, &r)) {
        ssize_t n = recv(c->fd, c->buf + c->end, BUFFER_BYTES - c->end, 0);
        if (n <= 0) die(EXIT_NO_SERVER, "the server did not answer the upgrade");
        c->end += (size_t)n;
    }
    if (r.status != 101 || c->end != r.head_len)
        die(EXIT_NO_SERVER, "the server refused the upgrade: %.*s", (int)(c->end > 200 ? 200 : c->end), c->buf);
    c->end = 0;
}

/* ---- events ---------------------------------------------------------------------------------------- */

static bool in_body, result_seen;
static uint64_t events_seen;

static void take_event(span event) {
    if (memmem(event.at, event.len, "\"notifications/progress\"", 24) != NULL) events_seen++;
    else if (memmem(event.at, event.len, with.expect, strlen(with.expect)) != NULL) result_seen = true;
    else went_wrong("neither progress nor the answer", event.at, event.len);
}

static void take_events(connection *c, int64_t now) {
    size_t used = 0, taken;
    if (!in_body) {
        response r;
        if (!read_head(c->buf, c->end, &r)) return;
        if (r.status != 200 || !r.chunked || !r.events) {
            went_wrong("no event stream", c->buf, c->end);
            return lose(c);
        }
        in_body = true, used = r.head_len;
    }
    span data;
    int whole;
    while ((whole = read_chunk(c->buf + used, c->end - used, &data, &taken)) == 1) {
        used += taken;
        while (data.len > 0) { /* a chunk holds whole events: all that is driven here writes them so */
            const char *blank = memmem(data.at, data.len, "\n\n", 2);
            if (blank == NULL) {
                went_wrong("an event in pieces", data.at, data.len);
                break;
            }
            span event = {data.at, (size_t)(blank - data.at)};
            if (*event.at != ':') take_event(event); /* and no comment */
            data.len -= event.len + 2, data.at = blank + 2;
        }
        if (data.len > 0 || taken > 5) continue;
        if (events_seen != with.events || !result_seen) went_wrong("the stream is not whole", c->buf, 0);
        in_body = result_seen = false;
        c->busy = false;
    }
    if (whole < 0) {
        went_wrong("no chunk", c->buf + used, c->end - used);
        return lose(c);
    }
    memmove(c->buf, c->buf + used, c->end - used);
    c->end -= used;
    last_answer_ns = now;
    if (c->busy) return;
    tally(now, events_seen); /* a stream at a time: what came in one read tells more of us than of the server */
    events_seen = 0;
    if (now < measured_to_ns) c->busy = true, c->since_ns = now, say(c, with.sent, with.sent_len);
}

/* ---- all of them ----------------------------------------------------------------------------------- */

static void take(connection *c) {
    ssize_t n = recv(c->fd, c->buf + c->end, BUFFER_BYTES - c->end, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return lose(c);
    c->end += (size_t)n;
    int64_t now = now_ns();
    if (*with.mode == 'o') take_response(c, now);
    else if (*with.mode == 'w') take_frames(c, now);
    else take_events(c, now);
}

static bool anything_under_way(void) {
    for (uint32_t i = 0; i < with.connections; i++)
        if (connections[i].open && connections[i].busy) return true;
    return waiting_n > 0;
}

static bool anything_open(void) {
    for (uint32_t i = 0; i < with.connections; i++)
        if (connections[i].open) return true;
    return false;
}

/* Gives false when the server stopped answering. */
static bool drive(void) {
    bool open_loop = *with.mode == 'o';
    int64_t now = now_ns(), due = now, patience = (int64_t)(with.timeout_s * 1e9);
    measured_from_ns = now + (int64_t)(with.warmup_s * 1e9);
    measured_to_ns = measured_from_ns + (int64_t)(with.duration_s * 1e9);
    last_answer_ns = now;
    slices_begin(&by_slice, measured_from_ns);
    for (uint32_t i = 0; i < with.connections; i++) {
        if (open_loop) go_idle(&connections[i]);
        else if (*with.mode == 'w') say_frame(&connections[i], now);
        else connections[i].busy = true, connections[i].since_ns = now, say(&connections[i], with.sent, with.sent_len);
    }
    struct epoll_event ready[128];
    while (now < measured_to_ns || anything_under_way()) {
        for (; open_loop && due <= now && due < measured_to_ns && waiting_n < WAITING_MAX; due += next_gap_ns())
            waiting[(waiting_at + waiting_n++) % WAITING_MAX] = due;
        if (open_loop) begin_due(now);
        int n = epoll_wait(watch, ready, 128, open_loop ? 0 : 50);
        for (int i = 0; i < n; i++) take(ready[i].data.ptr);
        now = now_ns();
        if (now - last_answer_ns > patience || !anything_open() || wrong > HOPELESS_ERRORS) return false;
    }
    return true;
}

static void connect_all(void) {
    address a = parse_address(with.target);
    watch = epoll_create1(EPOLL_CLOEXEC);
    connections = need_memory(calloc(with.connections, sizeof *connections));
    waiting = need_memory(calloc(WAITING_MAX, sizeof *waiting));
    idle = need_memory(calloc(with.connections, sizeof *idle));
    for (uint32_t i = 0; i < with.connections; i++) {
        connection *c = &connections[i];
        c->fd = socket(a.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a.at, a.len) != 0)
            die(EXIT_NO_SERVER, "%s: %s", with.target, strerror(errno));
        send_at_once(c->fd, &a);
        c->open = true, c->id = 1000000000;
        c->buf = need_memory(malloc(BUFFER_BYTES + 1));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(watch, EPOLL_CTL_ADD, c->fd, &event);
        if (*with.mode == 'w') upgrade(c);
    }
}

static void read_sent(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) die(EXIT_USAGE, "%s: %s", path, strerror(errno));
    with.sent = need_memory(calloc(1, BUFFER_BYTES));
    with.sent_len = fread(with.sent, 1, BUFFER_BYTES - 1, file);
    fclose(file);
    if (*with.mode != 'w') return;
    char *blank = strstr(with.sent, "\r\n\r\n");
    message = blank == NULL ? with.sent : blank + 4;
    message_len = with.sent_len - (size_t)(message - with.sent);
    id_at = strstr(message, "1000000000");
    if (blank == NULL || id_at == NULL || message_len > 60000)
        die(EXIT_USAGE, "%s: an upgrade and a message with the id 1000000000 are wanted", path);
}

static double number(const char *name, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0 || value < 0) die(EXIT_USAGE, "--%s %s: a number from 0 up is wanted", name, text);
    return value;
}

static void stay_on(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) die(EXIT_USAGE, "--cpu %d: %s", cpu, strerror(errno));
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"connections", 1, NULL, 'c'}, {"rate", 1, NULL, 'r'},    {"seed", 1, NULL, 's'},    {"events", 1, NULL, 'n'},
        {"expect", 1, NULL, 'E'},      {"duration", 1, NULL, 'd'}, {"warmup", 1, NULL, 'u'}, {"timeout", 1, NULL, 'T'},
        {"cpu", 1, NULL, 'C'},         {"help", 0, NULL, 'h'},     {NULL, 0, NULL, 0},
    };
    int which, index;
    while ((which = getopt_long(argc, argv, "+", names, &index)) != -1) {
        const char *name = which == '?' ? "" : names[index].name;
        switch (which) {
        case 'c': with.connections = (uint32_t)number(name, optarg); break;
        case 'r': with.rate = number(name, optarg); break;
        case 's': with.seed = (uint64_t)number(name, optarg) * 0x9e3779b97f4a7c15u; break; /* small ones begin slowly */
        case 'n': with.events = (uint64_t)number(name, optarg); break;
        case 'E': with.expect = optarg; break;
        case 'd': with.duration_s = number(name, optarg); break;
        case 'u': with.warmup_s = number(name, optarg); break;
        case 'T': with.timeout_s = number(name, optarg); break;
        case 'C': stay_on((int)number(name, optarg)); break;
        case 'h': fputs(HELP, stdout); exit(0);
        default: die(EXIT_USAGE, "see --help");
        }
    }
    if (argc - optind != 3) die(EXIT_USAGE, "what, which file, which server? (see --help)");
    with.mode = argv[optind], with.target = argv[optind + 2];
    if (strcmp(with.mode, "open") != 0 && strcmp(with.mode, "ws") != 0 && strcmp(with.mode, "sse") != 0)
        die(EXIT_USAGE, "%s: open, ws or sse", with.mode);
    if (*with.mode == 'o' && with.rate <= 0) die(EXIT_USAGE, "open: --rate is wanted");
    if (*with.mode == 's') with.connections = 1;
    if (with.connections == 0 || with.seed == 0) die(EXIT_USAGE, "--connections and --seed are at least 1");
    read_sent(argv[optind + 1]);
}

static void report(void) {
    const histogram *h = &latency;
    double seconds = (double)(measured_to_ns - measured_from_ns) * 1e-9, rate = (double)answered / seconds;
    double clear = slices_quantile(&by_slice, 0.75);
    printf("{\"calls\":%llu,\"seconds\":%.6f,\"rate_per_s\":%.1f,\"rate_p75_per_s\":%.1f,\"latency_us\":{\"mean\":%.3f",
           (unsigned long long)answered, seconds, rate, clear > 0 ? clear : rate,
           h->count > 0 ? (double)h->sum_ns * 1e-3 / (double)h->count : 0);
    printf(",\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}", histogram_quantile(h, 0.5) * 1e-3,
           histogram_quantile(h, 0.9) * 1e-3, histogram_quantile(h, 0.99) * 1e-3, histogram_quantile(h, 0.999) * 1e-3,
           (double)h->max_ns * 1e-3);
    printf(",\"handshake_ms\":0,\"loadgen\":{\"delay_us_p99\":%.3f},\"errors\":%llu,\"error_kinds\":{",
           histogram_quantile(&own_delay, 0.99) * 1e-3, (unsigned long long)(wrong + lost));
    printf("\"wrong\":%llu,\"lost\":%llu}}\n", (unsigned long long)wrong, (unsigned long long)lost);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    lift_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    connect_all();
    bool whole = drive();
    report();
    if (wrong > 0) fprintf(stderr, "httpload: %s\n", first_wrong);
    if (!whole || lost > 0) fprintf(stderr, "httpload: the server closed connections or stopped answering\n");
    return wrong > 0 ? EXIT_WRONG_ANSWERS : !whole || lost > 0 ? EXIT_NO_SERVER : 0;
}
