/* Is this message the right answer to one of our calls?
 *
 * The first right answer to a step is read as JSON, member by member, and remembered as the bytes before its id and
 * the bytes behind it. A message with the same bytes is right too, whatever its id: two memcmp for each answer, every
 * byte looked at. One that differs is read as JSON again, so a server may write its answers as it likes. */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "memory.h"
#include "plan.h"

typedef enum {
    RIGHT,
    REFUSED,       /* too much at once, the server says */
    CANCELLED,     /* we had cancelled it */
    NOT_AN_ANSWER, /* a notification or a request of the server's own */
    BAD_JSON,
    BAD_HTTP,
    BAD_STATUS,
    BAD_FRAME,
    ERROR_ANSWER, /* a JSON-RPC error */
    TOOL_ERROR,   /* a result with isError */
    BAD_RESULT,   /* no result object, or not complete */
    WRONG_TEXT,
    UNKNOWN_ID,
    DUPLICATE,
    TOO_LONG,
    LOST,    /* its connection ended first */
    MISSING, /* it never came */
    VERDICTS,
} verdict;

static const char *const VERDICT_NAMES[VERDICTS] = {
    "right",     "refused",      "cancelled",  "not_an_answer", "bad_json",   "bad_http",   "bad_status", "bad_frame",
    "error_answer", "tool_error", "bad_result", "wrong_text",   "unknown_id", "duplicate", "too_long",  "lost",
    "missing",
};

static inline bool is_error(verdict v) {
    return v > NOT_AN_ANSWER;
}

typedef struct {
    char *before, *behind; /* of the id in a right answer; NULL: none was seen yet */
    size_t before_len, behind_len;
} memo;

/* Digits only, at most 18 of them; how many there were, 0 when that is no id of ours. */
static inline size_t read_id(const char *at, size_t len, uint64_t *id) {
    uint64_t value = 0;
    size_t n = 0;
    while (n < len && at[n] >= '0' && at[n] <= '9') value = value * 10 + (uint64_t)(at[n++] - '0');
    *id = value;
    return n <= 18 ? n : 0;
}

static inline void memo_take(memo *m, span message, span id) {
    free(m->before), free(m->behind);
    m->before_len = (size_t)(id.at - message.at), m->behind_len = message.len - m->before_len - id.len;
    m->before = need_memory(malloc(m->before_len + 1)), m->behind = need_memory(malloc(m->behind_len + 1));
    memcpy(m->before, message.at, m->before_len);
    memcpy(m->behind, id.at + id.len, m->behind_len);
}

/* The id, when the message begins as a right answer did. */
static inline bool memo_begins(const memo *m, span message, uint64_t *id, span *behind) {
    if (m->before == NULL || message.len <= m->before_len || memcmp(message.at, m->before, m->before_len) != 0)
        return false;
    const char *digits = message.at + m->before_len;
    size_t n = read_id(digits, message.len - m->before_len, id);
    *behind = (span){digits + n, message.len - m->before_len - n};
    return n > 0;
}

static inline bool memo_ends(const memo *m, span behind) {
    return m->behind != NULL && behind.len == m->behind_len && memcmp(behind.at, m->behind, behind.len) == 0;
}

/* ---- what must be in it ------------------------------------------------------------------------------ */

static inline span follow(span value, const char *path) {
    char name[128];
    while (*path != 0 && value.at != NULL) {
        size_t n = strcspn(path, ".");
        if (n >= sizeof name) return (span){NULL, 0};
        memcpy(name, path, n), name[n] = 0;
        value = json_member(value, name);
        path += n + (path[n] == '.');
    }
    return value;
}

static inline bool condition_holds(const condition *wanted, span text) {
    span found = follow(text, wanted->path);
    if (found.at == NULL) return false;
    if (wanted->length >= 0) return json_count(found) == wanted->length;
    return span_is(found, wanted->wanted);
}

/* The text is itself JSON: it is read without its escapes. */
static inline bool conditions_hold(const expectation *e, span text) {
    if (e->conditions_n == 0) return true;
    if (text.at == NULL || text.len < 2 || *text.at != '"') return false;
    char *plain = need_memory(malloc(text.len));
    span value = {plain, json_unescaped(text, plain)};
    bool hold = true;
    for (uint32_t i = 0; hold && i < e->conditions_n; i++) hold = condition_holds(&e->conditions[i], value);
    free(plain);
    return hold;
}

static inline verdict judge_result(const expectation *e, span result) {
    if (result.at == NULL || *result.at != '{') return BAD_RESULT;
    if (e->complete && !span_is(json_member(result, "resultType"), "\"complete\"")) return BAD_RESULT;
    if (span_is(json_member(result, "isError"), "true")) return TOOL_ERROR;
    if (e->text == NULL && e->conditions_n == 0) return RIGHT;
    span text = json_member(json_first(json_member(result, "content")), "text");
    if (e->text != NULL && !json_string_says(text, e->text, e->text_len)) return WRONG_TEXT;
    return conditions_hold(e, text) ? RIGHT : WRONG_TEXT;
}

static inline verdict judge_error(const plan *p, span error) {
    span code = json_member(error, "code");
    long long number = code.at == NULL ? 0 : strtoll(code.at, NULL, 10);
    for (uint32_t i = 0; i < p->refusals_n; i++)
        if (number == p->refusals[i]) return REFUSED;
    return ERROR_ANSWER;
}

/* What a message is, before it is known whose: sets its id, and what was found in it. RIGHT here means: a result. */
static inline verdict read_message(span message, uint64_t *id, span *id_span, span *result, span *error) {
    const char *end = message.at + message.len, *behind = json_value_end(message.at, end, 0);
    *id = UINT64_MAX;
    if (behind == NULL || json_blank(behind, end) != end || *message.at != '{') return BAD_JSON;
    *id_span = json_member(message, "id");
    *result = json_member(message, "result"), *error = json_member(message, "error");
    if (json_member(message, "method").at != NULL) return NOT_AN_ANSWER;
    if (id_span->at == NULL || read_id(id_span->at, id_span->len, id) != id_span->len) {
        *id = UINT64_MAX;
        return error->at != NULL ? ERROR_ANSWER : UNKNOWN_ID;
    }
    if (!span_is(json_member(message, "jsonrpc"), "\"2.0\"")) return BAD_RESULT;
    return error->at != NULL ? ERROR_ANSWER : RIGHT;
}
