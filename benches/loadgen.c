/* The load generator: one tool of one MCP server, called as fast as it answers, every answer checked.
 *
 * The way of a run: open (spawn or connect), shake hands, warm up, measure, take in what is still in flight,
 * close and see that nothing comes twice, report. All requests that may be sent go out in one write; writes
 * never wait and reads are never put off, so a server that fills its pipe cannot lock us up. On a single
 * connection there is no poll: one write and one read a burst, which is as little as a client can cost.
 *
 *     benches/_build/loadgen --help */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "native/connection.h"

enum { HOPELESS_ERRORS = 1000 }; /* a server that answers mostly wrong is not driven on */

extern char **environ;

static shared run;
static connection *connections;
static int watch = -1; /* epoll, when there are several connections */
static volatile sig_atomic_t ticked;
static bool stalled, hopeless, ended;
static int64_t spawned_ns, shaken_ns, started_ns, measured_from_ns, measured_to_ns;
static uint64_t answered_before;
static double server_cpu_before, server_cpu_after, own_cpu_before, own_cpu_after;
static long server_rss_kb = -1;

/* ---- opening --------------------------------------------------------------------------------------- */

static void stay_on(int cpu) {
    if (cpu < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) die(EXIT_USAGE, "--cpus: processor %d: %s", cpu, strerror(errno));
}

static void spawn_server(void) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) die(EXIT_NO_SERVER, "pipe: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    stay_on(run.with.server_cpu); /* the child inherits it */
    int problem = posix_spawnp(&run.with.pid, run.with.command[0], &actions, NULL, run.with.command, environ);
    if (problem != 0) die(EXIT_NO_SERVER, "%s: %s", run.with.command[0], strerror(problem));
    close(to[0]), close(from[1]);
    fcntl(to[1], F_SETFL, O_NONBLOCK); /* our end only: a pipe's ends have flags of their own */
    connection_open(&connections[0], &run, 0, from[0], to[1]);
}

static void connect_all(void) {
    address a = parse_address(run.with.target);
    if (run.with.connections > 1) watch = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < run.with.connections; i++) {
        int fd = socket(a.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a.at, a.len) != 0)
            die(EXIT_NO_SERVER, "%s: %s", run.with.target, strerror(errno));
        send_at_once(fd, &a);
        connection_open(&connections[i], &run, i, fd, fd);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        if (watch >= 0) epoll_ctl(watch, EPOLL_CTL_ADD, fd, &event);
    }
}

static void tick(int signal) {
    (void)signal;
    ticked = 1;
}

/* A timer instead of a poll before each read: it wakes a read that waits for a server that says nothing. */
static void start_ticking(void) {
    struct sigaction action = {.sa_handler = tick};
    struct itimerval every = {{0, 20000}, {0, 20000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* initialize, or server/discover: answered before the first call goes out. */
static void shake_hands(connection *c) {
    const char *hello = run.with.modern ? DISCOVER : INITIALIZE;
    ssize_t n = write(c->out, hello, strlen(hello));
    int64_t begun = now_ns();
    char *newline = NULL;
    while (n >= 0 && newline == NULL) {
        n = read(c->in, c->buf + c->end, c->cap - c->end);
        if (n < 0 && errno == EINTR && now_ns() - begun < (int64_t)(run.with.timeout_s * 1e9)) n = 0;
        else if (n <= 0) break;
        newline = memchr(c->buf + c->end, '\n', (size_t)n);
        c->end += (size_t)n;
    }
    if (newline == NULL) die(EXIT_NO_SERVER, "the server did not answer %s", run.with.modern ? "server/discover" : "initialize");
    span answer = {c->buf, (size_t)(newline - c->buf)};
    if (json_member(answer, "result").at == NULL)
        die(EXIT_NO_SERVER, "the server refused the handshake: %.*s", (int)answer.len, answer.at);
    c->end = 0;
    if (!run.with.modern && write(c->out, INITIALIZED, sizeof INITIALIZED - 1) < 0) c->open = false;
}

/* ---- measuring ------------------------------------------------------------------------------------- */

static double cpu_seconds(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + (double)t.tv_nsec * 1e-9 : 0;
}

static double server_cpu(void) {
    clockid_t clock;
    if (run.with.pid <= 0 || clock_getcpuclockid(run.with.pid, &clock) != 0) return 0;
    return cpu_seconds(clock);
}

static void read_server_rss(void) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)run.with.pid);
    FILE *status = run.with.pid > 0 ? fopen(path, "r") : NULL;
    if (status == NULL) return;
    while (fgets(line, sizeof line, status) != NULL) sscanf(line, "VmRSS: %ld", &server_rss_kb);
    fclose(status);
}

static void begin_measure(int64_t now) {
    server_cpu_before = server_cpu(), own_cpu_before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    measured_from_ns = now, answered_before = run.answered;
    run.reads = run.writes = run.answer_bytes = 0;
    run.measuring = true;
    slices_begin(&run.by_slice, now);
}

static void end_measure(int64_t now) {
    run.measuring = false, ended = true, run.to_send = 0;
    measured_to_ns = now;
    server_cpu_after = server_cpu(), own_cpu_after = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    read_server_rss();
}

/* Begin and end of the measured part, looked at after each read. */
static void keep_time(int64_t now) {
    if (ended) return;
    hopeless = run.wrong_n > HOPELESS_ERRORS && run.wrong_n * 2 > run.answered;
    bool counted = run.with.calls > 0;
    if (!run.measuring) {
        bool warm = counted ? run.answered >= run.with.warmup_calls
                            : now - started_ns >= (int64_t)(run.with.warmup_s * 1e9);
        if (warm) begin_measure(now);
    } else if (counted ? run.to_send == 0 && run.in_flight == 0
                       : now - measured_from_ns >= (int64_t)(run.with.duration_s * 1e9)) end_measure(now);
    if (hopeless && !ended) end_measure(now);
}

static void heed(connection *c) {
    bool was_blocked = c->blocked;
    connection_flush(c, &run);
    if (watch < 0 || c->blocked == was_blocked) return;
    struct epoll_event event = {.events = EPOLLIN | (c->blocked ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(watch, EPOLL_CTL_MOD, c->in, &event);
}

static void take(connection *c) {
    bool read_some = connection_read(c, &run);
    if (!c->open) {
        uint32_t lost = run.with.window - c->idle_n; /* nobody will answer these */
        run.in_flight -= lost, run.wrong[MISSING] += lost;
        if (watch >= 0) epoll_ctl(watch, EPOLL_CTL_DEL, c->in, NULL);
    }
    if (!read_some) return;
    keep_time(run.last_answer_ns);
    if (!c->blocked) heed(c);
}

/* Waits for whatever comes first and deals with it; a tick of the timer at the latest. */
static void turn(void) {
    if (watch < 0) {
        connection *c = &connections[0];
        struct pollfd both[2] = {{.fd = c->in, .events = POLLIN}, {.fd = c->out, .events = POLLOUT}};
        if (!c->blocked) take(c);
        else if (poll(both, 2, 50) > 0) {
            if (both[1].revents != 0) heed(c);
            if (both[0].revents != 0) take(c);
        }
        return;
    }
    struct epoll_event ready[128];
    int n = epoll_wait(watch, ready, 128, 50);
    for (int i = 0; i < n; i++) {
        connection *c = ready[i].data.ptr;
        if (ready[i].events & EPOLLOUT) heed(c);
        if (ready[i].events & ~(uint32_t)EPOLLOUT) take(c);
    }
}

static uint32_t still_open(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < run.with.connections; i++) n += connections[i].open;
    return n;
}

static void drive(void) {
    started_ns = run.last_answer_ns = now_ns();
    run.to_send = run.with.calls > 0 ? run.with.calls + run.with.warmup_calls : UINT64_MAX;
    keep_time(started_ns);
    for (uint32_t i = 0; i < run.with.connections; i++) heed(&connections[i]);
    while (!ended || run.in_flight > 0) {
        turn();
        if (!ticked) continue;
        ticked = 0;
        int64_t now = now_ns();
        keep_time(now);
        stalled = now - run.last_answer_ns > (int64_t)(run.with.timeout_s * 1e9);
        if (stalled || still_open() == 0) break;
    }
    if (!ended) end_measure(run.last_answer_ns);
    run.wrong[MISSING] += run.in_flight;
}

/* ---- closing --------------------------------------------------------------------------------------- */

/* Ends the input, reads what still comes (nothing should), and gives the server's exit status. */
static int close_all(void) {
    for (uint32_t i = 0; i < run.with.connections; i++) {
        connection *c = &connections[i];
        if (run.with.command != NULL) close(c->out);
        else shutdown(c->out, SHUT_WR);
        c->blocked = false;
    }
    double patience_s = run.with.command != NULL && !stalled ? run.with.timeout_s : 0.5;
    int64_t until = now_ns() + (int64_t)(patience_s * 1e9);
    while (still_open() > 0 && now_ns() < until) turn();
    if (run.with.command == NULL) return 0;
    int status = 0;
    while (waitpid(run.with.pid, &status, WNOHANG) == 0) {
        if (now_ns() > until) {
            fprintf(stderr, "loadgen: the server was still there %.1f s after its input had ended: killed\n", patience_s);
            kill(run.with.pid, SIGKILL);
            until = INT64_MAX;
        }
        usleep(1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void print_sample(void) {
    const checker *check = &run.check;
    size_t len = check->before_len + 1 + check->behind_len;
    char *answer = need_memory(malloc(len + 1));
    snprintf(answer, len + 1, "%.*s0%.*s", (int)check->before_len, check->before, (int)check->behind_len, check->behind);
    printf(",\"sample\":%s", json_quoted(answer, len));
}

static void report_server(double calls, int exit_status) {
    if (run.with.pid <= 0) return;
    printf(",\"server\":{\"pid\":%d,\"cpu_us_per_request\":%.3f,\"rss_mb\":%.3f", (int)run.with.pid,
           (server_cpu_after - server_cpu_before) * 1e6 / calls, (double)server_rss_kb * 1024e-6);
    if (run.with.command != NULL) printf(",\"exit_status\":%d", exit_status);
    printf("}");
}

/* One line of JSON; gives the number of wrong answers. */
static uint64_t report(int exit_status) {
    const histogram *h = &run.latency;
    double seconds = (double)(measured_to_ns - measured_from_ns) * 1e-9, calls = h->count > 0 ? (double)h->count : 1;
    uint64_t errors = 0;
    double rate = seconds > 0 ? (double)h->count / seconds : 0;
    printf("{\"calls\":%llu,\"seconds\":%.6f,\"rate_per_s\":%.1f", (unsigned long long)h->count, seconds, rate);
    double clear = slices_quantile(&run.by_slice, 0.75);
    printf(",\"rate_p75_per_s\":%.1f,\"error_kinds\":{", clear > 0 ? clear : rate);
    for (int v = BAD_JSON; v < VERDICTS; v++) {
        if (run.wrong[v] == 0) continue;
        printf("%s\"%s\":%llu", errors > 0 ? "," : "", VERDICT_NAMES[v], (unsigned long long)run.wrong[v]);
        errors += run.wrong[v];
    }
    printf("},\"errors\":%llu,\"latency_us\":{\"mean\":%.3f", (unsigned long long)errors,
           (double)h->sum_ns * 1e-3 / calls);
    static const struct {
        const char *name;
        double share;
    } wanted[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        printf(",\"%s\":%.3f", wanted[i].name, histogram_quantile(h, wanted[i].share) * 1e-3);
    printf(",\"max\":%.3f},\"handshake_ms\":%.3f", (double)h->max_ns * 1e-3, (double)(shaken_ns - spawned_ns) * 1e-6);
    printf(",\"loadgen\":{\"cpu_us_per_call\":%.3f,\"reads_per_call\":%.4f,\"writes_per_call\":%.4f,\"bytes_per_answer\":%.1f}",
           (own_cpu_after - own_cpu_before) * 1e6 / calls, (double)run.reads / calls, (double)run.writes / calls,
           (double)run.answer_bytes / calls);
    report_server(calls, exit_status);
    if (run.with.sample && run.check.before != NULL) print_sample();
    printf("}\n");
    return errors;
}

static void prepare(void) {
    const options *with = &run.with;
    for (uint32_t i = 0; i < with->tools_n; i++) {
        run.tails[i] = request_tail(with->tools[i], with->arguments, with->modern, &run.tail_lens[i]);
        if (run.tail_lens[i] > run.tail_len_max) run.tail_len_max = run.tail_lens[i];
    }
    run.big = run.tail_len_max > BIG_TAIL_BYTES && with->tools_n == 1;
    run.check = (checker){.expect = with->expect, .expect_len = with->expect_len, .modern = with->modern};
    while (1ull << run.place_bits < with->window) run.place_bits++;
    run.turn = 1ull << run.place_bits;
    while (run.turn < (uint64_t)with->connections << run.place_bits) run.turn *= 2;
    connections = need_memory(calloc(with->connections, sizeof *connections));
}

int main(int argc, char **argv) {
    run.with = read_options(argc, argv);
    lift_descriptor_limit();
    prepare();
    start_ticking();
    spawned_ns = now_ns();
    if (run.with.command != NULL) spawn_server();
    else connect_all();
    stay_on(run.with.own_cpu);
    shake_hands(&connections[0]);
    shaken_ns = now_ns();
    for (uint32_t i = 1; i < run.with.connections; i++) shake_hands(&connections[i]);
    drive();
    bool gone = still_open() < run.with.connections;
    int exit_status = close_all();
    uint64_t errors = report(exit_status);
    if (hopeless) fprintf(stderr, "loadgen: most answers are wrong: given up\n");
    if (stalled) fprintf(stderr, "loadgen: nothing was answered for %g s: given up\n", run.with.timeout_s);
    else if (gone) fprintf(stderr, "loadgen: the server ended before the run did (exit status %d)\n", exit_status);
    return stalled || gone ? EXIT_NO_SERVER : errors > 0 ? EXIT_WRONG_ANSWERS : 0;
}
