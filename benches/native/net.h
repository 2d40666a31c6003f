/* Addresses as users write them, `tcp://HOST:PORT` and `unix:///PATH`, for both programs of the bench. */
#pragma once
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_WRONG_ANSWERS = 1, EXIT_USAGE = 2, EXIT_NO_SERVER = 3 };

__attribute__((noreturn, format(printf, 2, 3))) static inline void die(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(code);
}

static inline void *need_memory(void *block) {
    if (block == NULL) die(EXIT_NO_SERVER, "out of memory");
    return block;
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

typedef struct {
    struct sockaddr_storage at;
    socklen_t len;
} address;

static inline address parse_address(const char *text) {
    address a = {0};
    if (strncmp(text, "unix://", 7) == 0) {
        struct sockaddr_un *un = (struct sockaddr_un *)&a.at;
        if (strlen(text + 7) >= sizeof un->sun_path) die(EXIT_USAGE, "%s: the path is too long for a socket", text);
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path, text + 7);
        a.len = sizeof *un;
        return a;
    }
    const char *colon = strrchr(text, ':');
    if (strncmp(text, "tcp://", 6) != 0 || colon < text + 6)
        die(EXIT_USAGE, "%s: an address is tcp://HOST:PORT or unix:///PATH", text);
    char host[256];
    snprintf(host, sizeof host, "%.*s", (int)(colon - text - 6), text + 6);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int problem = getaddrinfo(host, colon + 1, &hints, &found);
    if (problem != 0) die(EXIT_USAGE, "%s: %s", text, gai_strerror(problem));
    memcpy(&a.at, found->ai_addr, found->ai_addrlen);
    a.len = found->ai_addrlen;
    freeaddrinfo(found);
    return a;
}

static inline void send_at_once(int fd, const address *a) {
    int on = 1;
    if (a->at.ss_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Thousands of connections need thousands of descriptors: take all the machine gives. */
static inline void lift_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
