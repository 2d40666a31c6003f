/* What the load generator is told. */
#pragma once
#include <getopt.h>
#include <stdbool.h>

#include "net.h"
#include "request.h"

enum { TOOLS_MAX = 16 };

typedef struct {
    uint32_t connections, window;
    bool modern, lockstep, sample;
    const char *tools[TOOLS_MAX], *arguments, *expect, *target;
    uint32_t tools_n;
    size_t expect_len;
    double warmup_s, duration_s, timeout_s;
    uint64_t warmup_calls, calls; /* calls 0: for a time, not a count */
    pid_t pid;
    int own_cpu, server_cpu; /* -1: wherever the scheduler likes */
    char **command;
} options;

static const char HELP[] =
    "usage: loadgen [options] -- COMMAND ARGS...     a server of its own, over its stdin and stdout\n"
    "       loadgen [options] ADDRESS                tcp://HOST:PORT or unix:///PATH\n"
    "\n"
    "Calls one tool of an MCP server as fast as it answers, checks every answer, prints one line of JSON.\n"
    "\n"
    "  --connections N      connections at once, sockets only (1)\n"
    "  --window N           calls in flight on each connection (1)\n"
    "  --lockstep           send the next window only when the last one is answered: repeatable to the byte\n"
    "  --era REVISION       2025-06-18 (initialize first) or 2026-07-28 (envelope in each request) (2025-06-18)\n"
    "  --tool NAME          (echo); given several times, the calls go around\n"
    "  --text TEXT          arguments {\"text\": TEXT}, and TEXT is expected back (hello)\n"
    "  --payload-bytes N    the same with a text of N letters\n"
    "  --args JSON          any other arguments\n"
    "  --expect TEXT        what the first content block must say\n"
    "  --duration SECONDS   measure for this long (1), after\n"
    "  --warmup SECONDS     of calls that do not count (0.2)\n"
    "  --calls N            measure N calls instead, after\n"
    "  --warmup-calls N     that do not count (0)\n"
    "  --timeout SECONDS    give up when nothing was answered for so long (10)\n"
    "  --cpus OWN,SERVER    keep the load generator and a spawned server each on one processor\n"
    "  --pid PID            the server behind an address, to report its CPU time and memory\n"
    "  --sample             print the first right answer too, as \"sample\"\n"
    "\n"
    "Exit code 0: all right. 1: wrong answers, counted by kind in \"error_kinds\". 2: wrong options.\n"
    "3: no server, or it stopped answering.\n";

static inline double positive(const char *name, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0 || value < 0) die(EXIT_USAGE, "--%s %s: a number from 0 up is wanted", name, text);
    return value;
}

static inline void say_text(options *o, const char *text, size_t len) {
    char *quoted = json_quoted(text, len), *arguments;
    if (asprintf(&arguments, "{\"text\":%s}", quoted) < 0) abort();
    free(quoted);
    o->arguments = arguments, o->expect = text, o->expect_len = len;
}

static inline void say_letters(options *o, size_t len) {
    char *text = need_memory(malloc(len + 1));
    for (size_t i = 0; i < len; i++) text[i] = (char)('a' + i % 26);
    text[len] = 0;
    say_text(o, text, len);
}

static inline void set_era(options *o, const char *era) {
    o->modern = strcmp(era, "2026-07-28") == 0;
    if (!o->modern && strcmp(era, "2025-06-18") != 0) die(EXIT_USAGE, "--era %s: 2025-06-18 or 2026-07-28", era);
}

static inline void set_cpus(options *o, const char *pair) {
    if (sscanf(pair, "%d,%d", &o->own_cpu, &o->server_cpu) != 2) die(EXIT_USAGE, "--cpus %s: two numbers, as 0,1", pair);
}

static inline options read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"connections", 1, NULL, 'c'}, {"window", 1, NULL, 'w'},   {"lockstep", 0, NULL, 'l'},
        {"era", 1, NULL, 'e'},         {"tool", 1, NULL, 't'},     {"text", 1, NULL, 'x'},
        {"payload-bytes", 1, NULL, 'b'}, {"args", 1, NULL, 'a'},   {"expect", 1, NULL, 'E'},
        {"duration", 1, NULL, 'd'},    {"warmup", 1, NULL, 'u'},   {"calls", 1, NULL, 'n'},
        {"warmup-calls", 1, NULL, 'N'}, {"timeout", 1, NULL, 'T'}, {"pid", 1, NULL, 'p'},
        {"cpus", 1, NULL, 'C'},        {"sample", 0, NULL, 's'},  {"help", 0, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    options o = {.connections = 1, .window = 1, .tools = {"echo"}, .warmup_s = 0.2, .duration_s = 1, .timeout_s = 10,
                 .own_cpu = -1, .server_cpu = -1};
    say_text(&o, "hello", 5);
    int which, index;
    while ((which = getopt_long(argc, argv, "+", names, &index)) != -1) {
        const char *name = which == '?' ? "" : names[index].name;
        switch (which) {
        case 'c': o.connections = (uint32_t)positive(name, optarg); break;
        case 'w': o.window = (uint32_t)positive(name, optarg); break;
        case 'l': o.lockstep = true; break;
        case 'e': set_era(&o, optarg); break;
        case 't':
            if (o.tools_n == TOOLS_MAX) die(EXIT_USAGE, "--tool: %d of them at most", TOOLS_MAX);
            o.tools[o.tools_n++] = optarg;
            break;
        case 'x': say_text(&o, optarg, strlen(optarg)); break;
        case 'b': say_letters(&o, (size_t)positive(name, optarg)); break;
        case 'a': o.arguments = optarg, o.expect = NULL; break;
        case 'E': o.expect = optarg, o.expect_len = strlen(optarg); break;
        case 'd': o.duration_s = positive(name, optarg); break;
        case 'u': o.warmup_s = positive(name, optarg); break;
        case 'n': o.calls = (uint64_t)positive(name, optarg); break;
        case 'N': o.warmup_calls = (uint64_t)positive(name, optarg); break;
        case 'T': o.timeout_s = positive(name, optarg); break;
        case 'p': o.pid = (pid_t)positive(name, optarg); break;
        case 'C': set_cpus(&o, optarg); break;
        case 's': o.sample = true; break;
        case 'h': fputs(HELP, stdout); exit(0);
        default: die(EXIT_USAGE, "see --help");
        }
    }
    if (optind == argc) die(EXIT_USAGE, "which server? An address, or -- COMMAND ARGS... (see --help)");
    if (strstr(argv[optind], "://") != NULL) o.target = argv[optind];
    else o.command = argv + optind;
    if (o.tools_n == 0) o.tools_n = 1;
    if (o.connections == 0 || o.window == 0) die(EXIT_USAGE, "--connections and --window are at least 1");
    if (o.command != NULL && o.connections > 1) die(EXIT_USAGE, "a command has one stdin: no --connections");
    return o;
}
