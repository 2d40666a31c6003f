/* What the compiled heart does to single bytes: one strict pass over a frame, and JSON strings out.
 *
 * The plan. A frame is one line, so it ends in '\n', and a raw '\n' cannot stand inside valid JSON on one line: it is the
 * sentinel of every loop here, and no loop needs a bound. SCAN_SLACK readable bytes lie behind the last '\n', so that a
 * 16-byte load may run over it. The scan is as strict as a parser (RFC 8259, UTF-8, paired surrogates, bounded depth):
 * what it passes, a parser passes. It keeps spans of what routing needs and never copies. Whatever it does not
 * understand at one look (an escaped member name, say) sets SCAN_ODD, and the slow way decides.
 * tests/test_scan.py and `make fuzz` hold it to msgspec.
 */
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && !defined(MCPFAST_PLAIN_SCAN)
#include <emmintrin.h>
#define SCAN_SSE2 1
#else
#define SCAN_SSE2 0
#endif

#define SCAN_SLACK 64
#define SCAN_LIKELY(x) __builtin_expect(!!(x), 1)
#define SCAN_UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef struct { const char *at; uint32_t len; } span_t; /* raw JSON, quotes included; at == NULL: absent */

typedef struct {
    span_t jsonrpc, id, method, params, result, error;   /* of the message */
    span_t name, arguments;                              /* of params */
    span_t version, capabilities, progress_token, log_level; /* of params._meta */
    uint32_t flags;
    uint32_t items;                                      /* of the outermost array, where the line is one */
    int depth_max;
} frame_t;

enum {
    SCAN_ODD = 1,         /* an escaped or repeated member name: let a real parser look */
    SCAN_META = 2,        /* params._meta is there and is an object */
    SCAN_META_BAD = 4,    /* params._meta is there and is none */
    SCAN_RETRY = 8,       /* params.inputResponses or params.requestState (2026-07-28) */
    SCAN_CLIENT_BAD = 16, /* _meta clientInfo is not an object */
    SCAN_DEEP = 32,       /* refused for its depth */
    SCAN_PARAMS_BAD = 64, /* params is there and is no object */
    SCAN_SHAPED = 128,    /* known by its shape (_shape.h): nothing but `id` and `arguments` is set */
};

enum { SCAN_OK = 0, SCAN_BAD = 1, SCAN_BLANK = 2, SCAN_ARRAY = 3, SCAN_SCALAR = 4 };

static inline const char *scan_space(const char *p) {
    while (SCAN_UNLIKELY(*p == ' ' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* One UTF-8 sequence of two to four bytes: behind it, or NULL (overlong, surrogate, above U+10FFFF, cut off). */
static const char *scan_utf8(const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    unsigned c = p[0];
#define CONT(i) ((p[i] & 0xC0) == 0x80)
    if (c >= 0xC2 && c <= 0xDF) return CONT(1) ? s + 2 : NULL;
    if (c >= 0xE0 && c <= 0xEF) {
        if (!CONT(1) || !CONT(2)) return NULL;
        if ((c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F)) return NULL;
        return s + 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (!CONT(1) || !CONT(2) || !CONT(3)) return NULL;
        if ((c == 0xF0 && p[1] < 0x90) || (c == 0xF4 && p[1] > 0x8F)) return NULL;
        return s + 4;
    }
#undef CONT
    return NULL;
}

static int scan_hex4(const char *p) { /* the value of four hex digits, or -1 */
    int v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)p[i], l = c | 32;
        if (c >= '0' && c <= '9') v = v * 16 + (c - '0');
        else if (l >= 'a' && l <= 'f') v = v * 16 + (l - 'a' + 10);
        else return -1;
    }
    return v;
}

/* At a backslash: behind the escape, or NULL. A surrogate must be one of a pair. */
static const char *scan_escape(const char *p) {
    switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 2;
    case 'u': {
        int high = scan_hex4(p + 2), low;
        if (high < 0) return NULL;
        if (high < 0xD800 || high > 0xDFFF) return p + 6;
        if (high > 0xDBFF || p[6] != '\\' || p[7] != 'u') return NULL;
        low = scan_hex4(p + 8);
        return low >= 0xDC00 && low <= 0xDFFF ? p + 12 : NULL;
    }
    }
    return NULL;
}

/* Behind the opening quote -> behind the closing one, or NULL. `*escaped` becomes 1 where a backslash stands. */
static inline __attribute__((always_inline)) const char *scan_string(const char *p, int *escaped) {
#if SCAN_SSE2
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
#endif
    for (;;) {
#if SCAN_SSE2
        /* bytes from 0x80 on are negative, so "below 0x20" finds control characters and non-ASCII at once */
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        unsigned hit = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash)), _mm_cmplt_epi8(x, space)));
        if (!hit) { p += 16; continue; }
        p += __builtin_ctz(hit);
#else
        while (*p != '"' && *p != '\\' && (signed char)*p >= 0x20) p++;
#endif
        if (SCAN_LIKELY(*p == '"')) return p + 1;
        if (*p == '\\') { *escaped = 1; p = scan_escape(p); }
        else if ((unsigned char)*p < 0x20) return NULL;
        else do p = scan_utf8(p); while (p && (*p & 0x80)); /* runs of non-ASCII text stay in this loop */
        if (!p) return NULL;
    }
}

static const char *scan_number(const char *p) {
#define DIGIT(c) ((c) >= '0' && (c) <= '9')
    if (*p == '-') p++;
    if (*p == '0') p++;
    else if (DIGIT(*p)) while (DIGIT(*p)) p++;
    else return NULL;
    if (*p == '.') { p++; if (!DIGIT(*p)) return NULL; while (DIGIT(*p)) p++; }
    if ((*p | 32) == 'e') {
        p++;
        if (*p == '+' || *p == '-') p++;
        if (!DIGIT(*p)) return NULL;
        while (DIGIT(*p)) p++;
    }
#undef DIGIT
    return p;
}

/* Any value at `p`: behind it, or NULL. */
static const char *scan_value(const char *p, int depth, frame_t *f) {
    int escaped = 0;
    switch (*p) {
    case '"':
        return scan_string(p + 1, &escaped);
    case '{':
        if (depth >= f->depth_max) { f->flags |= SCAN_DEEP; return NULL; }
        p = scan_space(p + 1);
        if (*p == '}') return p + 1;
        for (;;) {
            if (*p != '"' || !(p = scan_string(p + 1, &escaped))) return NULL;
            p = scan_space(p);
            if (*p != ':' || !(p = scan_value(scan_space(p + 1), depth + 1, f))) return NULL;
            p = scan_space(p);
            if (*p == '}') return p + 1;
            if (*p != ',') return NULL;
            p = scan_space(p + 1);
        }
    case '[':
        if (depth >= f->depth_max) { f->flags |= SCAN_DEEP; return NULL; }
        p = scan_space(p + 1);
        if (*p == ']') return p + 1;
        for (;;) {
            f->items += depth == 0;
            if (!(p = scan_value(p, depth + 1, f))) return NULL;
            p = scan_space(p);
            if (*p == ']') return p + 1;
            if (*p != ',') return NULL;
            p = scan_space(p + 1);
        }
    case 't': return memcmp(p, "true", 4) ? NULL : p + 4;
    case 'f': return memcmp(p, "false", 5) ? NULL : p + 5;
    case 'n': return memcmp(p, "null", 4) ? NULL : p + 4;
    default: return scan_number(p);
    }
}

#define SCAN_KEY(text) (key_len == sizeof(text) - 1 && !memcmp(key, text, sizeof(text) - 1))
#define SCAN_KEEP(field) do { if (f->field.at) f->flags |= SCAN_ODD; f->field.at = value; f->field.len = (uint32_t)(p - value); } while (0)

/* The members of the object at `p`, each handled by `...`, which must move `p` behind `value`. Then `p` is behind the object. */
#define SCAN_OBJECT(...) \
    p = scan_space(p + 1); \
    if (*p == '}') p++; \
    else for (;;) { \
        int escaped = 0; \
        if (*p != '"') return NULL; \
        const char *key = p + 1; \
        if (!(p = scan_string(key, &escaped))) return NULL; \
        size_t key_len = (size_t)(p - key) - 1; \
        if (SCAN_UNLIKELY(escaped)) f->flags |= SCAN_ODD; \
        p = scan_space(p); \
        if (*p != ':') return NULL; \
        p = scan_space(p + 1); \
        const char *value = p; \
        __VA_ARGS__ \
        p = scan_space(p); \
        if (*p == '}') { p++; break; } \
        if (*p != ',') return NULL; \
        p = scan_space(p + 1); \
    }

#define SCAN_SKIP(depth) \
    if (SCAN_LIKELY(*p == '"')) { int inner = 0; p = scan_string(p + 1, &inner); } \
    else p = scan_value(p, depth, f); \
    if (!p) return NULL;

static const char *scan_meta(const char *p, frame_t *f) {
    SCAN_OBJECT(
        SCAN_SKIP(3)
        if (SCAN_KEY("progressToken")) SCAN_KEEP(progress_token);
        else if (SCAN_KEY("io.modelcontextprotocol/protocolVersion")) SCAN_KEEP(version);
        else if (SCAN_KEY("io.modelcontextprotocol/clientCapabilities")) SCAN_KEEP(capabilities);
        else if (SCAN_KEY("io.modelcontextprotocol/logLevel")) SCAN_KEEP(log_level);
        else if (SCAN_KEY("io.modelcontextprotocol/clientInfo") && *value != '{') f->flags |= SCAN_CLIENT_BAD;
    )
    return p;
}

static const char *scan_params(const char *p, frame_t *f) {
    SCAN_OBJECT(
        if (SCAN_KEY("_meta") && *value == '{') {
            if (f->flags & (SCAN_META | SCAN_META_BAD)) f->flags |= SCAN_ODD;
            f->flags |= SCAN_META;
            if (!(p = scan_meta(p, f))) return NULL;
        } else {
            SCAN_SKIP(2)
            if (SCAN_KEY("name")) SCAN_KEEP(name);
            else if (SCAN_KEY("arguments")) SCAN_KEEP(arguments);
            else if (SCAN_KEY("inputResponses") || SCAN_KEY("requestState")) f->flags |= SCAN_RETRY;
            else if (SCAN_KEY("_meta")) f->flags |= SCAN_META_BAD;
        }
    )
    return p;
}

static const char *scan_message(const char *p, frame_t *f) {
    SCAN_OBJECT(
        if (SCAN_KEY("params")) {
            if (*value == '{') { if (!(p = scan_params(p, f))) return NULL; }
            else { SCAN_SKIP(1) f->flags |= SCAN_PARAMS_BAD; }
            SCAN_KEEP(params);
        } else {
            SCAN_SKIP(1)
            if (SCAN_KEY("id")) SCAN_KEEP(id);
            else if (SCAN_KEY("method")) SCAN_KEEP(method);
            else if (SCAN_KEY("jsonrpc")) SCAN_KEEP(jsonrpc);
            else if (SCAN_KEY("result")) SCAN_KEEP(result);
            else if (SCAN_KEY("error")) SCAN_KEEP(error);
        }
    )
    return p;
}

/* One line at `p`. SCAN_OK, SCAN_ARRAY, SCAN_SCALAR or SCAN_BLANK: `*end` is its '\n'. SCAN_BAD: not JSON, `f->id` may be known. */
static inline int scan_frame(const char *p, int depth_max, frame_t *f, const char **end) {
    int kind = SCAN_OK;
    memset(f, 0, sizeof *f);
    f->depth_max = depth_max;
    p = scan_space(p);
    if (SCAN_LIKELY(*p == '{')) p = scan_message(p, f);
    else if (*p == '\n') { *end = p; return SCAN_BLANK; }
    else { kind = *p == '[' ? SCAN_ARRAY : SCAN_SCALAR; p = scan_value(p, 0, f); }
    if (!p) return SCAN_BAD;
    p = scan_space(p);
    *end = p;
    return *p == '\n' ? kind : SCAN_BAD;
}

/* A request id or progress token: a string or an integer (schema RequestId, ProgressToken). */
static inline int scan_is_id(span_t s) {
    if (s.at[0] == '"') return 1;
    if (s.at[0] != '-' && (s.at[0] < '0' || s.at[0] > '9')) return 0;
    for (uint32_t i = 1; i < s.len; i++) if (s.at[i] < '0' || s.at[i] > '9') return 0;
    return 1;
}

#if SCAN_SSE2
/* The `n` < 16 bytes at `s`, and zeros, put together in registers: written to memory and read from there as one, they would
 * have to wait for each other (6 % of the time of a call with a short text). Nothing beyond `n` is read. */
static inline __m128i scan_load_short(const char *s, size_t n) {
    uint64_t low = 0, high = 0;
    uint32_t front, back;
    if (n >= 8) {
        memcpy(&low, s, 8);
        if (n > 8) { memcpy(&high, s + n - 8, 8); high >>= 8 * (16 - n); }
    } else if (n >= 4) {
        memcpy(&front, s, 4);
        memcpy(&back, s + n - 4, 4);
        low = front | (uint64_t)back << (8 * (n - 4));
    } else if (n) {
        low = (unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << (8 * (n / 2))
            | (uint64_t)(unsigned char)s[n - 1] << (8 * (n - 1));
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}
#endif

/* `n` bytes of UTF-8 as the inside of a JSON string into `d`, which has room for 6 * n + 16. Returns the bytes written. */
static inline size_t scan_write_string(char *d, const char *s, size_t n) {
    static const char hex[] = "0123456789abcdef";
    char *start = d;
#if SCAN_SSE2
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
#endif
    while (n) {
#if SCAN_SSE2
        size_t whole = n < 16 ? n : 16;
        __m128i x = n < 16 ? scan_load_short(s, n) : _mm_loadu_si128((const __m128i *)s);
        _mm_storeu_si128((__m128i *)d, x);
        unsigned hit = (unsigned)_mm_movemask_epi8(_mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash)), _mm_cmpeq_epi8(_mm_min_epu8(x, control), x)));
        hit &= (1u << whole) - 1;
        if (!hit) { s += whole; d += whole; n -= whole; continue; }
        size_t clean = (size_t)__builtin_ctz(hit);
        s += clean; d += clean; n -= clean;
#endif
        unsigned char c = (unsigned char)*s++;
        n--;
        if (SCAN_LIKELY(c >= 0x20 && c != '"' && c != '\\')) *d++ = (char)c;
        else if (c == '"' || c == '\\') { *d++ = '\\'; *d++ = (char)c; }
        else if (c == '\n') { *d++ = '\\'; *d++ = 'n'; }
        else { memcpy(d, "\\u00", 4); d[4] = hex[c >> 4]; d[5] = hex[c & 15]; d += 6; }
    }
    return (size_t)(d - start);
}
