/* Reading JSON text in place: just enough to find the members of an answer. Nothing is allocated.
 *
 * Only the first answer of a run, and any that differs from it, goes through here (see answer.h),
 * so this favours being plain over being quick. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct {
    const char *at;
    size_t len;
} span;

static inline bool span_is(span s, const char *text) {
    return s.at != NULL && s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static inline const char *json_blank(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) p++;
    return p;
}

/* Behind the closing quote of the string whose opening quote is at `p`, or NULL. */
static inline const char *json_string_end(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '"') return p + 1;
        if (*p == '\\') p++;
        else if ((unsigned char)*p < 0x20) return NULL;
    }
    return NULL;
}

/* Behind the value at `p`, or NULL when there is none. */
static inline const char *json_value_end(const char *p, const char *end, int depth) {
    if (p >= end || depth > 200) return NULL;
    if (*p == '"') return json_string_end(p, end);
    if (*p == '{' || *p == '[') {
        bool object = *p == '{';
        char close = object ? '}' : ']';
        p = json_blank(p + 1, end);
        if (p < end && *p == close) return p + 1;
        while (p < end) {
            if (object) {
                if (*p != '"' || (p = json_string_end(p, end)) == NULL) return NULL;
                p = json_blank(p, end);
                if (p >= end || *p != ':') return NULL;
                p = json_blank(p + 1, end);
            }
            if ((p = json_value_end(p, end, depth + 1)) == NULL) return NULL;
            p = json_blank(p, end);
            if (p < end && *p == close) return p + 1;
            if (p >= end || *p != ',') return NULL;
            p = json_blank(p + 1, end);
        }
        return NULL;
    }
    const char *start = p;
    while (p < end && strchr("+-.0123456789Eaeflnrstu", *p) != NULL) p++;
    return p > start ? p : NULL;
}

/* The value of member `key` of the object, or a span with `at` NULL. */
static inline span json_member(span object, const char *key) {
    span none = {NULL, 0};
    const char *p = object.at, *end = object.at + object.len;
    if (p == NULL || object.len < 2 || *p != '{') return none;
    p = json_blank(p + 1, end);
    while (p < end && *p == '"') {
        const char *name = p + 1;
        if ((p = json_string_end(p, end)) == NULL) return none;
        span found = {name, (size_t)(p - 1 - name)};
        p = json_blank(p, end);
        if (p >= end || *p != ':') return none;
        const char *value = json_blank(p + 1, end);
        if ((p = json_value_end(value, end, 0)) == NULL) return none;
        if (span_is(found, key)) return (span){value, (size_t)(p - value)};
        p = json_blank(p, end);
        if (p < end && *p == ',') p = json_blank(p + 1, end);
    }
    return none;
}

/* The first element of an array, or a span with `at` NULL. */
static inline span json_first(span array) {
    span none = {NULL, 0};
    if (array.at == NULL || array.len < 2 || *array.at != '[') return none;
    const char *end = array.at + array.len, *value = json_blank(array.at + 1, end);
    const char *behind = json_value_end(value, end, 0);
    return behind == NULL ? none : (span){value, (size_t)(behind - value)};
}

static inline unsigned json_hex4(const char *p) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

static inline size_t json_put_utf8(char *out, unsigned code) {
    if (code < 0x80) return out[0] = (char)code, 1;
    if (code < 0x800) return out[0] = (char)(0xC0 | code >> 6), out[1] = (char)(0x80 | (code & 63)), 2;
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12), out[1] = (char)(0x80 | ((code >> 6) & 63));
        return out[2] = (char)(0x80 | (code & 63)), 3;
    }
    out[0] = (char)(0xF0 | code >> 18), out[1] = (char)(0x80 | ((code >> 12) & 63));
    return out[2] = (char)(0x80 | ((code >> 6) & 63)), out[3] = (char)(0x80 | (code & 63)), 4;
}

/* How many elements an array has; -1: it is none. */
static inline long json_count(span array) {
    if (array.at == NULL || array.len < 2 || *array.at != '[') return -1;
    const char *end = array.at + array.len, *p = json_blank(array.at + 1, end);
    long n = 0;
    while (p < end && *p != ']') {
        if ((p = json_value_end(p, end, 0)) == NULL) return -1;
        n++;
        p = json_blank(p, end);
        if (p < end && *p == ',') p = json_blank(p + 1, end);
    }
    return n;
}

/* One character of a string at `*p`, without its escape, into `piece`; how many bytes, 0 when it is broken. */
static inline size_t json_character(const char **at, const char *end, char piece[4]) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *p = *at;
    piece[0] = *p;
    if (*p++ != '\\') return *at = p, 1;
    if (p >= end) return 0;
    const char *letter = memchr(letters, *p, sizeof letters - 1);
    if (letter != NULL) return piece[0] = meanings[letter - letters], *at = p + 1, 1;
    if (*p != 'u' || end - p <= 4) return 0;
    unsigned code = json_hex4(p + 1);
    p += 5;
    if (code >= 0xD800 && code < 0xDC00 && end - p > 5 && p[0] == '\\' && p[1] == 'u') {
        code = 0x10000 + ((code - 0xD800) << 10) + (json_hex4(p + 2) - 0xDC00);
        p += 6;
    }
    return *at = p, json_put_utf8(piece, code);
}

/* Does the JSON string (quotes included) say `text`, however it is escaped? */
static inline bool json_string_says(span string, const char *text, size_t len) {
    if (string.at == NULL || string.len < 2 || *string.at != '"') return false;
    const char *p = string.at + 1, *end = string.at + string.len - 1, *text_end = text + len;
    while (p < end) {
        char piece[4];
        size_t n = json_character(&p, end, piece);
        if (n == 0 || (size_t)(text_end - text) < n || memcmp(text, piece, n) != 0) return false;
        text += n;
    }
    return text == text_end;
}

/* What the JSON string (quotes included) says, into `out`, which has room for as many bytes; how many they are. */
static inline size_t json_unescaped(span string, char *out) {
    const char *p = string.at + 1, *end = string.at + string.len - 1;
    char *start = out;
    while (p < end) {
        size_t n = json_character(&p, end, out);
        if (n == 0) break;
        out += n;
    }
    return (size_t)(out - start);
}
