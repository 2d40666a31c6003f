/* Reading the HTTP/1.1 responses of any server, in place: sized, chunked, or as long as the connection lasts. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

typedef enum { BODY_SIZED, BODY_CHUNKED, BODY_TO_END } body_kind;

/* Where the reading of one response stands: head [0, head_len), body [head_len, body_end), not looked at [raw, ...). */
typedef struct {
    bool begun; /* its head was read */
    int status;
    body_kind kind;
    bool events, last; /* an event stream; the server closes the connection behind it */
    size_t head_len, size, body_end, raw;
    size_t session_at, session_len; /* its Mcp-Session-Id: a place, since the buffer may move before the body is whole */
} response;

static inline span header(span head, const char *name) {
    size_t name_len = strlen(name);
    for (const char *p = head.at, *end = head.at + head.len; p < end; p++) {
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

static inline bool without_body(int status) {
    return status < 200 || status == 204 || status == 304;
}

/* 1: the head is whole and read; 0: not yet; -1: no HTTP. */
static inline int read_head(const char *at, size_t len, response *r) {
    static const char VERSION[] = "HTTP/1.";
    if (memcmp(at, VERSION, len < 7 ? len : 7) != 0) return -1;
    const char *end = memmem(at, len, "\r\n\r\n", 4);
    if (end == NULL) return len > 64 << 10 ? -1 : 0;
    span head = {at, (size_t)(end + 2 - at)}, length = header(head, "Content-Length"), session = header(head, "Mcp-Session-Id");
    bool chunked = begins(header(head, "Transfer-Encoding"), "chunked");
    *r = (response){
        .begun = true,
        .status = atoi(at + 9),
        .kind = chunked ? BODY_CHUNKED : BODY_SIZED,
        .events = begins(header(head, "Content-Type"), "text/event-stream"),
        .last = begins(header(head, "Connection"), "close") || at[7] == '0',
        .head_len = head.len + 2,
        .size = length.at != NULL ? strtoul(length.at, NULL, 10) : 0,
        .session_at = session.at != NULL ? (size_t)(session.at - at) : 0,
        .session_len = session.len,
    };
    if (!chunked && length.at == NULL && !without_body(r->status)) r->kind = BODY_TO_END, r->last = true;
    r->body_end = r->raw = r->head_len;
    return r->status >= 100 ? 1 : -1;
}

/* The body goes on at `raw`: a chunk's data is moved to where the one before it ended. 1: whole; 0: not yet; -1: broken. */
static inline int read_body(char *buf, size_t end, response *r) {
    if (r->kind == BODY_SIZED) {
        if (end - r->head_len < r->size) return 0;
        r->raw = r->body_end = r->head_len + r->size;
        return 1;
    }
    if (r->kind == BODY_TO_END) {
        r->raw = r->body_end = end;
        return 0;
    }
    for (;;) {
        char *line = buf + r->raw, *line_end = memchr(line, '\n', end - r->raw), *digits_end;
        if (line_end == NULL) return end - r->raw > 256 ? -1 : 0;
        size_t size = strtoul(line, &digits_end, 16), front = (size_t)(line_end + 1 - line);
        if (digits_end == line || (*digits_end != '\r' && *digits_end != ';') || size > 1ull << 40) return -1;
        if (end - r->raw < front + size + 2) return 0;
        if (memcmp(line + front + size, "\r\n", 2) != 0) return -1; /* no server here sends trailers */
        memmove(buf + r->body_end, line + front, size);
        r->body_end += size, r->raw += front + size + 2;
        if (size == 0) return 1;
    }
}

/* The next event of a stream of them at `*at`: its data, several lines of it joined in place. False when there is none. */
static inline bool next_event(char **at, char *end, span *data) {
    char *p = *at, *out = NULL, *start = NULL;
    while (p < end) {
        char *line_end = memchr(p, '\n', (size_t)(end - p));
        if (line_end == NULL) line_end = end;
        size_t n = (size_t)(line_end - p);
        if (n > 0 && p[n - 1] == '\r') n--;
        if (n == 0) { /* an empty line ends an event */
            p = line_end + (line_end < end);
            if (start == NULL) continue;
            *data = (span){start, (size_t)(out - start)}, *at = p;
            return true;
        }
        if (n >= 5 && memcmp(p, "data:", 5) == 0) {
            size_t skip = n > 5 && p[5] == ' ' ? 6 : 5;
            if (start == NULL) out = start = p + skip;
            else *out++ = '\n';
            memmove(out, p + skip, n - skip);
            out += n - skip;
        }
        p = line_end + (line_end < end);
    }
    *at = end;
    if (start == NULL) return false;
    *data = (span){start, (size_t)(out - start)};
    return true;
}
