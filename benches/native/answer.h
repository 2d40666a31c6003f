/* Is this line the right answer to one of our calls?
 *
 * The first right answer is read as JSON, member by member, and remembered as the bytes before its id and the
 * bytes behind it. A line with the same bytes is right too, whatever its id: two memcmp for each answer, every
 * byte looked at. A line that differs is read as JSON again, so a server may write its answers as it likes. */
#pragma once
#include <stdint.h>
#include <stdlib.h>

#include "json.h"

typedef enum {
    RIGHT,
    NOT_AN_ANSWER, /* a notification or a request of the server's own */
    BAD_JSON,
    ERROR_ANSWER, /* a JSON-RPC error */
    TOOL_ERROR,   /* a result with isError */
    BAD_RESULT,   /* no result object, or not complete */
    WRONG_TEXT,
    UNKNOWN_ID,
    DUPLICATE,
    MISSING,
    VERDICTS,
} verdict;

static const char *const VERDICT_NAMES[VERDICTS] = {
    "right",      "not_an_answer", "bad_json",  "error_answer", "tool_error",
    "bad_result", "wrong_text",    "unknown_id", "duplicate",   "missing",
};

typedef struct {
    const char *expect; /* the text of the first content block; NULL: any */
    size_t expect_len;
    bool modern;
    char *before, *behind; /* of the id in a right answer */
    size_t before_len, behind_len;
} checker;

/* Digits only, at most 18 of them; how many there were, 0 when that is no id of ours. */
static inline size_t read_id(const char *at, size_t len, uint64_t *id) {
    uint64_t value = 0;
    size_t n = 0;
    while (n < len && at[n] >= '0' && at[n] <= '9') value = value * 10 + (uint64_t)(at[n++] - '0');
    *id = value;
    return n <= 18 ? n : 0;
}

static inline char *copy_of(const char *at, size_t len) {
    char *copy = malloc(len + 1);
    if (copy == NULL) abort();
    return memcpy(copy, at, len);
}

static inline verdict read_answer(checker *c, span line, uint64_t *id) {
    const char *end = line.at + line.len, *behind = json_value_end(line.at, end, 0);
    if (behind == NULL || json_blank(behind, end) != end || *line.at != '{') return BAD_JSON;
    span id_span = json_member(line, "id"), result = json_member(line, "result");
    if (json_member(line, "method").at != NULL) return NOT_AN_ANSWER;
    if (id_span.at == NULL || read_id(id_span.at, id_span.len, id) != id_span.len) return UNKNOWN_ID;
    if (json_member(line, "error").at != NULL) return ERROR_ANSWER;
    if (!span_is(json_member(line, "jsonrpc"), "\"2.0\"")) return BAD_RESULT;
    if (result.at == NULL || *result.at != '{') return BAD_RESULT;
    if (c->modern && !span_is(json_member(result, "resultType"), "\"complete\"")) return BAD_RESULT;
    if (span_is(json_member(result, "isError"), "true")) return TOOL_ERROR;
    span text = json_member(json_first(json_member(result, "content")), "text");
    if (c->expect != NULL && !json_string_says(text, c->expect, c->expect_len)) return WRONG_TEXT;
    free(c->before), free(c->behind);
    c->before_len = (size_t)(id_span.at - line.at);
    c->before = copy_of(line.at, c->before_len);
    c->behind_len = line.len - c->before_len - id_span.len;
    c->behind = copy_of(id_span.at + id_span.len, c->behind_len);
    return RIGHT;
}

/* `line` without its newline. Sets *id to the id it answers, UINT64_MAX where none could be read. */
static inline verdict check_answer(checker *c, const char *line, size_t len, uint64_t *id) {
    *id = UINT64_MAX;
    if (c->before != NULL && len > c->before_len + c->behind_len && memcmp(line, c->before, c->before_len) == 0) {
        uint64_t found;
        size_t digits = read_id(line + c->before_len, len - c->before_len, &found);
        size_t rest = c->before_len + digits;
        if (digits > 0 && len - rest == c->behind_len && memcmp(line + rest, c->behind, c->behind_len) == 0)
            return *id = found, RIGHT;
    }
    return read_answer(c, (span){line, len}, id);
}
