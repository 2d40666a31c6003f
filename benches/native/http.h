/* Reading HTTP/1.1 responses and WebSocket frames where they lie: as much as three well-known servers write. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

typedef struct {
    int status;
    size_t head_len; /* the empty line included */
    size_t body_len;
    bool sized, chunked, events;
} response;

static inline span header(const char *head, size_t len, const char *name) {
    size_t name_len = strlen(name);
    for (const char *p = head, *end = head + len; p < end; p++) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        if (line_end == NULL) break;
        if ((size_t)(line_end - p) > name_len && p[name_len] == ':' && strncasecmp(p, name, name_len) == 0) {
            const char *value = json_blank(p + name_len + 1, line_end), *value_end = line_end;
            while (value_end > value && (value_end[-1] == '\r' || value_end[-1] == ' ')) value_end--;
            return (span){value, (size_t)(value_end - value)};
        }
        p = line_end;
    }
    return (span){NULL, 0};
}

static inline bool begins(span s, const char *text) {
    return s.at != NULL && s.len >= strlen(text) && strncasecmp(s.at, text, strlen(text)) == 0;
}

/* False while the head is not whole; a status of 0 is no HTTP. */
static inline bool read_head(const char *at, size_t len, response *r) {
    *r = (response){0};
    const char *end = memmem(at, len, "\r\n\r\n", 4);
    if (end == NULL) return false;
    r->head_len = (size_t)(end + 4 - at);
    if (strncmp(at, "HTTP/1.1 ", 9) == 0) r->status = atoi(at + 9);
    span length = header(at, r->head_len, "Content-Length");
    r->sized = length.at != NULL;
    r->body_len = r->sized ? strtoul(length.at, NULL, 10) : 0;
    r->chunked = begins(header(at, r->head_len, "Transfer-Encoding"), "chunked");
    r->events = begins(header(at, r->head_len, "Content-Type"), "text/event-stream");
    return true;
}

/* The piece of a chunked body at `at`; 1 whole, 0 not yet, -1 broken. `*taken` is the chunk with its frame. */
static inline int read_chunk(const char *at, size_t len, span *data, size_t *taken) {
    const char *line_end = memchr(at, '\n', len);
    if (line_end == NULL) return len > 32 ? -1 : 0;
    char *digits_end;
    size_t size = strtoul(at, &digits_end, 16);
    if (digits_end == at || (*digits_end != '\r' && *digits_end != ';')) return -1;
    size_t front = (size_t)(line_end + 1 - at);
    if (len < front + size + 2) return 0;
    if (memcmp(at + front + size, "\r\n", 2) != 0) return -1;
    *data = (span){at + front, size};
    *taken = front + size + 2;
    return 1;
}

enum { WS_TEXT = 1, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10, WS_HEAD_MAX = 14 };

/* A text frame as a client sends it, masked; gives its size. `out` has room for WS_HEAD_MAX more than the text. */
static inline size_t put_frame(unsigned char *out, const char *text, size_t len) {
    static const unsigned char KEY[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t n = 0;
    out[n++] = 0x80 | WS_TEXT;
    if (len < 126) out[n++] = (unsigned char)(0x80 | len);
    else out[n++] = 0x80 | 126, out[n++] = (unsigned char)(len >> 8), out[n++] = (unsigned char)len;
    memcpy(out + n, KEY, 4), n += 4;
    for (size_t i = 0; i < len; i++) out[n + i] = (unsigned char)text[i] ^ KEY[i & 3];
    return n + len;
}

/* A frame of a server, not masked; 1 whole, 0 not yet, -1 nothing that a server may send in one piece. */
static inline int read_frame(const char *at, size_t len, int *kind, span *data, size_t *taken) {
    const unsigned char *p = (const unsigned char *)at;
    if (len < 2) return 0;
    size_t size = p[1] & 0x7f, front = size == 126 ? 4 : size == 127 ? 10 : 2;
    if ((p[0] & 0xf0) != 0x80 || (p[1] & 0x80) != 0) return -1;
    if (len < front) return 0;
    if (front > 2) {
        size = 0;
        for (size_t i = 2; i < front; i++) size = size << 8 | p[i];
    }
    if (size > 1u << 30) return -1;
    if (len < front + size) return 0;
    *kind = p[0] & 15, *data = (span){at + front, size}, *taken = front + size;
    return 1;
}
