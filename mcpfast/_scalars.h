/* An arguments object of plain scalars as Python objects, read at one look.
 *
 * Most tools take strings, whole numbers and booleans. Reading those here saves a call its msgspec decoder and the Struct that
 * only carries the values from there to the handler: 850 of 3,430 instructions. Whatever is not plain (an escape, a member that
 * is unknown, missing or there twice, a number with a sign or 19 digits, another type) gives 0, nothing has happened, and
 * msgspec decodes the object and has the last word. So this can save work but never change an answer:
 * tests/test_scalars.py holds it to msgspec.
 */
#pragma once
#include <Python.h>
#include "_scan.h"

enum { SCALAR_STRING = 1, SCALAR_INTEGER = 2, SCALAR_BOOLEAN = 3, SCALAR_DIGITS = 18 };

typedef struct {
    const char *name; /* raw JSON, with its quotes */
    size_t name_len;
    int kind;
    PyObject *missing; /* what it is where it is not there; NULL: it must be */
} scalar_t;

/* Each reads what stands at `*at` and moves it behind; NULL, and no error set, where that is not plain. */

static inline PyObject *scalar_string(const char **at) {
    const char *first = *at + 1, *p = first;
    unsigned high = 0;
    if (**at != '"') return NULL;
#if SCAN_SSE2
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    for (;; p += 16) { /* the newline behind every line is a control character: no loop runs over it */
        __m128i x = _mm_loadu_si128((const __m128i *)p);
        unsigned above = (unsigned)_mm_movemask_epi8(x), hit = (unsigned)_mm_movemask_epi8(_mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash)), _mm_cmpeq_epi8(_mm_min_epu8(x, control), x)));
        if (!hit) { high |= above; continue; }
        high |= above & ((hit & -hit) - 1);
        p += __builtin_ctz(hit);
        break;
    }
#else
    for (; (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\'; p++) high |= (unsigned char)*p & 0x80;
#endif
    if (*p != '"') return NULL;
    *at = p + 1;
    PyObject *text = high ? PyUnicode_DecodeUTF8(first, p - first, NULL) : PyUnicode_New(p - first, 127);
    if (!text) PyErr_Clear();
    else if (!high) memcpy(PyUnicode_1BYTE_DATA(text), first, (size_t)(p - first));
    return text;
}

static inline PyObject *scalar_integer(const char **at) {
    const char *p = *at;
    long long value = 0;
    while (*p >= '0' && *p <= '9' && p - *at <= SCALAR_DIGITS) value = 10 * value + (*p++ - '0');
    if (p == *at || p - *at > SCALAR_DIGITS || (**at == '0' && p - *at > 1)) return NULL;
    *at = p;
    PyObject *number = PyLong_FromLongLong(value);
    if (!number) PyErr_Clear();
    return number;
}

static inline PyObject *scalar_boolean(const char **at) {
    int yes = **at == 't';
    size_t n = yes ? 4 : 5;
    if (memcmp(*at, yes ? "true" : "false", n)) return NULL; /* may run over the newline: SCAN_SLACK is more */
    *at += n;
    return Py_NewRef(yes ? Py_True : Py_False);
}

static inline PyObject *scalar_value(const char **at, int kind) {
    if (kind == SCALAR_STRING) return scalar_string(at);
    if (kind == SCALAR_INTEGER) return scalar_integer(at);
    return scalar_boolean(at);
}

/* The member whose name stands at `at`: most clients send them in the order in which they are declared. -1: none. */
static inline int scalars_find(const char *at, const char *end, const scalar_t *members, int count, int next) {
    for (int k = 0; k < count; k++) {
        int i = next + k < count ? next + k : next + k - count;
        if ((size_t)(end - at) > members[i].name_len && !memcmp(at, members[i].name, members[i].name_len)) return i;
    }
    return -1;
}

static inline void scalars_drop(PyObject **values, int count) {
    for (int i = 0; i < count; i++) Py_CLEAR(values[i]);
}

/* The object from `at` to `end`, which a newline and SCAN_SLACK follow, as one new reference a member; 0: not plain. */
static inline int scalars_read(const char *at, const char *end, const scalar_t *members, int count, PyObject **values) {
    int next = 0;
    if (*at++ != '{') return 0;
    for (int i = 0; i < count; i++) values[i] = NULL;
    at = scan_space(at);
    if (*at == '}') at++;
    else for (;;) {
        int i = scalars_find(at, end, members, count, next);
        if (i < 0 || values[i]) goto not_plain;
        at = scan_space(at + members[i].name_len);
        if (*at++ != ':') goto not_plain;
        at = scan_space(at);
        if (!(values[i] = scalar_value(&at, members[i].kind))) goto not_plain;
        next = i + 1;
        at = scan_space(at);
        if (*at == '}') { at++; break; }
        if (*at++ != ',') goto not_plain;
        at = scan_space(at);
    }
    if (at != end) goto not_plain;
    for (int i = 0; i < count; i++) {
        if (values[i]) continue;
        if (!members[i].missing) goto not_plain;
        values[i] = Py_NewRef(members[i].missing);
    }
    return 1;
not_plain:
    scalars_drop(values, count);
    return 0;
}
