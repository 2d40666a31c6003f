/* The ceiling: how fast a pipe or a socket can possibly carry these messages.
 *
 * It does what no server can do without and nothing else: read whatever is there, find the lines, find each
 * line's id, answer a canned result under that id, and write all answers of one read at once. It does not look
 * at what is asked. What `make bench` reports of a real server is its rate divided by this program's, taken
 * in the same minutes on the same machine with the same load generator and answers of the same size.
 *
 *     ceiling [--result JSON]                     over stdin and stdout
 *     ceiling [--result JSON] --listen ADDRESS    over as many connections as come (epoll)
 *     ceiling --echo ...                          the answer carries the line's own "text" back (1 MiB lines) */
#define _GNU_SOURCE
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "native/net.h"

enum { READ_BYTES = 256 << 10, OUT_BYTES = 1 << 20 };

static const char *result = "{\"content\":[{\"type\":\"text\",\"text\":\"hello\"}],\"structuredContent\":{\"result\":\"hello\"}}";
static size_t result_len;
static bool echo;

static const char HEAD[] = "{\"jsonrpc\":\"2.0\",\"id\":";
static const char MID[] = ",\"result\":";
static const char ECHO_MID[] = ",\"result\":{\"content\":[{\"type\":\"text\",\"text\":";
static const char ECHO_TAIL[] = "}]}}\n";

typedef struct {
    int in, out;
    char *buf; /* what was read: [scanned, end) is not yet known to hold a line end */
    size_t cap, scanned, end;
    char *answers; /* what waits to be written: [sent, answers_end) */
    size_t answers_cap, sent, answers_end;
    bool blocked;
} channel;

/* Writes all that waits; false when the other side is full (a non-blocking socket) or gone. */
static bool flush(channel *c) {
    while (c->sent < c->answers_end) {
        ssize_t n = write(c->out, c->answers + c->sent, c->answers_end - c->sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        c->sent += (size_t)n;
    }
    c->sent = c->answers_end = 0;
    return true;
}

static void put(channel *c, const char *at, size_t len) {
    memcpy(c->answers + c->answers_end, at, len);
    c->answers_end += len;
}

static void make_room(channel *c, size_t len) {
    if (c->answers_end + len <= c->answers_cap) return;
    c->answers_cap = (c->answers_end + len) * 2;
    c->answers = need_memory(realloc(c->answers, c->answers_cap));
}

/* The raw id of a line; at NULL for a notification. Load generators write it where the first test looks. */
static const char *find_id(const char *line, size_t len, size_t *id_len) {
    const char *id = line + sizeof HEAD - 1, *end = line + len;
    if (len < sizeof HEAD || memcmp(line, HEAD, sizeof HEAD - 1) != 0) {
        id = memmem(line, len, "\"id\":", 5);
        if (id == NULL) return NULL;
        id += 5;
    }
    const char *p = id;
    while (p < end && *p != ',' && *p != '}') p++;
    *id_len = (size_t)(p - id);
    return id;
}

static void answer(channel *c, const char *line, size_t len) {
    size_t id_len;
    const char *id = find_id(line, len, &id_len);
    if (id == NULL) return;
    const char *text = echo ? memmem(id, len - (size_t)(id - line), "\"text\":", 7) : NULL;
    if (text == NULL) {
        make_room(c, result_len + id_len + 64);
        put(c, HEAD, sizeof HEAD - 1), put(c, id, id_len), put(c, MID, sizeof MID - 1);
        put(c, result, result_len), put(c, "}\n", 2);
        return;
    }
    text += 7; /* at the opening quote; the bench's own texts hold no escapes */
    const char *close = memchr(text + 1, '"', len - (size_t)(text + 1 - line));
    size_t text_len = close == NULL ? 0 : (size_t)(close + 1 - text);
    make_room(c, text_len + id_len + 128);
    put(c, HEAD, sizeof HEAD - 1), put(c, id, id_len), put(c, ECHO_MID, sizeof ECHO_MID - 1);
    put(c, text, text_len), put(c, ECHO_TAIL, sizeof ECHO_TAIL - 1);
}

/* One read, all its answers, one write. False at the end of the stream. */
static bool serve_once(channel *c) {
    if (c->cap - c->end < READ_BYTES) c->buf = need_memory(realloc(c->buf, c->cap = c->cap * 2 + READ_BYTES));
    ssize_t n = read(c->in, c->buf + c->end, c->cap - c->end);
    if (n < 0) return errno == EINTR || errno == EAGAIN;
    if (n == 0) return false;
    c->end += (size_t)n;
    char *start = c->buf, *end = c->buf + c->end, *newline, *from = c->buf + c->scanned;
    while ((newline = memchr(from, '\n', (size_t)(end - from))) != NULL) {
        answer(c, start, (size_t)(newline - start));
        start = from = newline + 1;
    }
    c->end = c->scanned = (size_t)(end - start);
    if (c->end > 0 && start > c->buf) memmove(c->buf, start, c->end);
    if (!flush(c)) {
        if (errno != EAGAIN) return false;
        c->blocked = true;
    }
    return true;
}

static void serve_connections(const char *where) {
    address a = parse_address(where);
    int door = socket(a.at.ss_family, SOCK_STREAM, 0), on = 1;
    if (a.at.ss_family == AF_UNIX) unlink(((struct sockaddr_un *)&a.at)->sun_path);
    else setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(door, (struct sockaddr *)&a.at, a.len) != 0 || listen(door, 1024) != 0)
        die(EXIT_NO_SERVER, "%s: %s", where, strerror(errno));
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, door, &event);
    for (;;) {
        int n = epoll_wait(poll, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            channel *c = ready[i].data.ptr;
            if (c == NULL) {
                int fd = accept4(door, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                send_at_once(fd, &a);
                c = need_memory(calloc(1, sizeof *c));
                c->in = c->out = fd;
                event = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            bool was_blocked = c->blocked, alive = true;
            if (was_blocked) {
                if (flush(c)) c->blocked = false;
                else alive = errno == EAGAIN;
            } else alive = serve_once(c);
            if (!alive) {
                close(c->in);
                free(c->buf), free(c->answers), free(c);
            } else if (c->blocked != was_blocked) { /* while the peer does not read, nothing more is read of it */
                event = (struct epoll_event){.events = c->blocked ? EPOLLOUT : EPOLLIN, .data.ptr = c};
                epoll_ctl(poll, EPOLL_CTL_MOD, c->in, &event);
            }
        }
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"result", required_argument, NULL, 'r'}, {"listen", required_argument, NULL, 'l'},
        {"echo", no_argument, NULL, 'e'},         {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *where = NULL;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') result = optarg;
        else if (option == 'l') where = optarg;
        else if (option == 'e') echo = true;
        else {
            puts("usage: ceiling [--result JSON] [--echo] [--listen tcp://HOST:PORT | unix:///PATH]\n"
                 "Answers every line that has an id with the canned result, as fast as the stream allows.");
            return option == 'h' ? 0 : EXIT_USAGE;
        }
    }
    result_len = strlen(result);
    lift_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    if (where != NULL) serve_connections(where);
    channel c = {.in = 0, .out = 1, .cap = READ_BYTES, .answers_cap = OUT_BYTES};
    c.buf = need_memory(malloc(c.cap));
    c.answers = need_memory(malloc(c.answers_cap));
    while (serve_once(&c)) {}
    return 0;
}
