/* WebSocket frames of a server (RFC 6455, section 5), read where they lie. Ours are made in Python: bytes with a hole. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "json.h"

enum { WS_MORE = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

typedef struct {
    int kind;
    bool last;
    span data;
    size_t taken; /* the frame with its head */
} frame;

/* 1: a whole frame; 0: not yet; -1: nothing that a server may send. */
static inline int read_frame(const char *at, size_t len, frame *f) {
    const unsigned char *p = (const unsigned char *)at;
    if (len < 2) return 0;
    size_t size = p[1] & 0x7f, head = size == 126 ? 4 : size == 127 ? 10 : 2;
    if ((p[0] & 0x70) != 0 || (p[1] & 0x80) != 0) return -1;
    if (len < head) return 0;
    if (head > 2) {
        size = 0;
        for (size_t i = 2; i < head; i++) size = size << 8 | p[i];
    }
    if (size > 1ull << 40) return -1;
    if (len - head < size) return 0;
    *f = (frame){.kind = p[0] & 15, .last = p[0] >> 7, .data = {at + head, size}, .taken = head + size};
    return 1;
}

/* A pong for a ping, masked with zeros; its size. `out` has room for 6 bytes more than the ping's 125 at most. */
static inline size_t put_pong(char *out, span ping) {
    out[0] = (char)(0x80 | WS_PONG), out[1] = (char)(0x80 | ping.len);
    memset(out + 2, 0, 4);
    memcpy(out + 6, ping.at, ping.len);
    return ping.len + 6;
}
