// Counts the words of a text: one chunk for each line as it is counted, the totals as the result.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gen/plugin.h"
#include "json.h"

static const char manifest[] = {
#embed "manifest.toml"
};

void exports_wharf_plugin_manifest_describe(plugin_string_t *ret) { plugin_string_dup_n(ret, manifest, sizeof manifest); }

// What is printed becomes the attempt's log, line by line; a library's buffers are not emptied when a call returns.
__attribute__((constructor)) static void print_lines_at_once(void) { setvbuf(stdout, NULL, _IOLBF, BUFSIZ); }

// Formatted text in memory of its own, which the bindings free when the host has read it.
static plugin_string_t text_of(const char *format, ...) {
  char *text;
  va_list args;
  va_start(args, format);
  int len = vasprintf(&text, format, args);
  va_end(args);
  if (len < 0) abort();
  return (plugin_string_t){(uint8_t *)text, (size_t)len};
}

static plugin_list_u8_t bytes_of(plugin_string_t text) { return (plugin_list_u8_t){text.ptr, text.len}; }

static bool discard(wharf_plugin_types_failure_t *failure, plugin_string_t why) {
  *failure = (wharf_plugin_types_failure_t){.tag = WHARF_PLUGIN_TYPES_FAILURE_DISCARD, .val.discard = why};
  return false;
}

static bool parse(plugin_list_u8_t payload, struct span *text, wharf_plugin_types_failure_t *failure) {
  struct span document = {payload.ptr, payload.len}, value;
  const char *wrong = json_member(document, "text", &value);
  if (!wrong && !json_text(value, text)) wrong = "it has no text";
  return !wrong || discard(failure, text_of("the payload is not {\"text\": \"...\"}: %s", wrong));
}

// The code point at `at`, whose bytes are known to be UTF-8, and where the next one begins.
static const uint8_t *code_point(const uint8_t *at, const uint8_t *end, uint32_t *code) {
  int more = *at < 0x80 ? 0 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : 3;
  *code = more == 0 ? *at : *at & (0x3f >> more);
  for (at++; more > 0 && at < end; more--) *code = *code << 6 | (*at++ & 0x3f);
  return at;
}

// Unicode's White_Space.
static bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static size_t count_words(const uint8_t *at, const uint8_t *end) {
  size_t words = 0;
  for (bool inside = false; at < end;) {
    uint32_t code;
    at = code_point(at, end, &code);
    words += !inside && !is_space(code);
    inside = !is_space(code);
  }
  return words;
}

static void pause_for(uint64_t ms) {
  struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
  if (ms > 0) nanosleep(&time, NULL);
}

static bool count(struct span text, uint64_t pause_ms, plugin_list_u8_t *ret, wharf_plugin_types_failure_t *failure) {
  const uint8_t *end = text.at + text.len;
  size_t lines = 0, line = 0, words = 0, characters = 0;
  for (const uint8_t *at = text.at; at < end; at++) {
    characters += (*at & 0xc0) != 0x80;
    lines += *at == '\n' || at + 1 == end;
  }
  for (const uint8_t *at = text.at; at < end;) {
    if (wharf_plugin_attempt_cancelled()) return discard(failure, text_of("cancelled after line %zu of %zu", line, lines));
    const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    size_t found = count_words(at, stop);
    line++;
    words += found;
    at = stop + 1;

    plugin_string_t sent = text_of("{\"line\":%zu,\"words\":%zu}\n", line, found), refused;
    plugin_list_u8_t chunk = bytes_of(sent);
    bool taken = wharf_plugin_attempt_emit(&chunk, &refused);
    free(sent.ptr);
    if (!taken) return discard(failure, refused);
    plugin_string_t note = text_of("line %zu of %zu", line, lines);
    wharf_plugin_attempt_progress((float)line / (float)lines, &note);
    free(note.ptr);
    pause_for(pause_ms);
  }
  *ret = bytes_of(text_of("{\"lines\":%zu,\"words\":%zu,\"characters\":%zu}\n", lines, words, characters));
  return true;
}

// Fails as the order asks: to see what the host makes of it.
static bool fail(struct span how, wharf_plugin_types_failure_t *failure) {
  fprintf(stderr, "failing on request: %.*s\n", (int)how.len, how.at);
  plugin_string_t why = text_of("asked to fail");
  if (how.len == 5 && !memcmp(how.at, "retry", 5)) {
    *failure = (wharf_plugin_types_failure_t){.tag = WHARF_PLUGIN_TYPES_FAILURE_RETRY, .val.retry = why};
  } else if (how.len == 11 && !memcmp(how.at, "retry-after", 11)) {
    *failure = (wharf_plugin_types_failure_t){.tag = WHARF_PLUGIN_TYPES_FAILURE_RETRY_AFTER, .val.retry_after = {why, 1000}};
  } else if (how.len == 7 && !memcmp(how.at, "discard", 7)) {
    discard(failure, why);
  } else {
    fputs("asked to panic\n", stderr);
    abort();
  }
  return false;
}

// `count` is the only task that the manifest declares: the host sends no other.
bool exports_wharf_plugin_handler_handle(exports_wharf_plugin_handler_job_t *job, plugin_list_u8_t *ret,
                                         exports_wharf_plugin_handler_failure_t *err) {
  struct span payload = {job->payload.ptr, job->payload.len}, text, member, how;
  if (!parse(job->payload, &text, err)) return false;
  json_member(payload, "fail", &member);
  if (json_text(member, &how)) return fail(how, err);
  json_member(payload, "pause-ms", &member);
  return count(text, json_number(member, 0), ret, err);
}

bool exports_wharf_plugin_subscriber_receive(exports_wharf_plugin_subscriber_message_t *message, plugin_list_u8_t *ret,
                                             exports_wharf_plugin_subscriber_failure_t *err) {
  struct span text;
  if (!parse(message->payload, &text, err)) return false;
  size_t words = count_words(text.at, text.at + text.len);
  *ret = bytes_of(text_of("{\"words\":%zu,\"language\":\"c\"}\n", words));
  return true;
}
