/* The bytes of a tools/call, prepared once: what stands before the id and what stands behind it. */
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char REQUEST_HEAD[] = "{\"jsonrpc\":\"2.0\",\"id\":";

#define CLIENT_INFO "{\"name\":\"mcpfast-loadgen\",\"version\":\"1\"}"

static const char MODERN_META[] = ",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                                  "\"io.modelcontextprotocol/clientInfo\":" CLIENT_INFO ","
                                  "\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{}}}";

static const char INITIALIZE[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":"
                                 "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"elicitation\":{}},"
                                 "\"clientInfo\":" CLIENT_INFO "}}\n";
static const char INITIALIZED[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";
static const char DISCOVER[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"server/discover\",\"params\":{"
                               "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                               "\"io.modelcontextprotocol/clientInfo\":" CLIENT_INFO ","
                               "\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{}}}}}\n";

/* All that follows the id, newline included. */
static inline char *request_tail(const char *tool, const char *arguments, int modern, size_t *len) {
    char *tail = NULL;
    int n = asprintf(&tail, ",\"method\":\"tools/call\",\"params\":{\"name\":\"%s\",\"arguments\":%s%s}}\n", tool,
                     arguments, modern ? MODERN_META : "");
    if (n < 0) abort();
    *len = (size_t)n;
    return tail;
}

/* `value` in decimal digits; how many. Two at a time: this is a third of what a request costs to write. */
static inline size_t put_id(char *out, uint64_t value) {
    static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char digits[20], *p = digits + sizeof digits;
    for (; value >= 100; value /= 100) memcpy(p -= 2, PAIRS + value % 100 * 2, 2);
    if (value >= 10) memcpy(p -= 2, PAIRS + value * 2, 2);
    else *--p = (char)('0' + value);
    size_t n = (size_t)(digits + sizeof digits - p);
    memcpy(out, p, n);
    return n;
}

/* `text` as a JSON string with quotes; UTF-8 is kept as it is. */
static inline char *json_quoted(const char *text, size_t len) {
    char *out = malloc(len * 6 + 3), *p = out;
    if (out == NULL) abort();
    *p++ = '"';
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') *p++ = '\\', *p++ = (char)c;
        else if (c < 0x20) p += sprintf(p, "\\u%04x", c);
        else *p++ = (char)c;
    }
    *p++ = '"', *p = 0;
    return out;
}
