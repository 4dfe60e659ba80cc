#include "json.h"

#include <stdlib.h>
#include <string.h>

// Deeper documents are refused: each level is a call.
#define DEPTH_MAX 100

struct reader {
  const uint8_t *at, *end;
};

static bool next_is(struct reader *r, uint8_t wanted) {
  while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at) r->at++;
  return r->at < r->end && *r->at == wanted;
}

static bool take(struct reader *r, uint8_t wanted) {
  if (!next_is(r, wanted)) return false;
  r->at++;
  return true;
}

static bool take_string(struct reader *r) {
  if (!take(r, '"')) return false;
  for (; r->at < r->end && *r->at != '"'; r->at++) {
    if (*r->at < 0x20) return false;
    if (*r->at == '\\' && ++r->at == r->end) return false;
  }
  return r->at < r->end && r->at++;
}

static bool take_word(struct reader *r) {
  const uint8_t *start = r->at;
  while (r->at < r->end && (strchr("+-.", *r->at) || (*r->at | 32) - 'a' < 26u || *r->at - '0' < 10u) && *r->at) r->at++;
  size_t len = (size_t)(r->at - start);
  if (len == 0) return false;
  if (*start == '-' || *start - '0' < 10u) return true;
  return (len == 4 && (!memcmp(start, "true", 4) || !memcmp(start, "null", 4))) || (len == 5 && !memcmp(start, "false", 5));
}

static bool take_value(struct reader *r, int depth) {
  if (depth > DEPTH_MAX) return false;
  if (next_is(r, '"')) return take_string(r);
  if (take(r, '[')) {
    if (take(r, ']')) return true;
    do {
      if (!take_value(r, depth + 1)) return false;
    } while (take(r, ','));
    return take(r, ']');
  }
  if (take(r, '{')) {
    if (take(r, '}')) return true;
    do {
      if (!next_is(r, '"') || !take_string(r) || !take(r, ':') || !take_value(r, depth + 1)) return false;
    } while (take(r, ','));
    return take(r, '}');
  }
  return take_word(r);
}

const char *json_member(struct span document, const char *name, struct span *value) {
  struct reader r = {document.at, document.at + document.len};
  *value = (struct span){0};
  if (!take(&r, '{')) return "it is not an object";
  if (!next_is(&r, '}')) {
    do {
      if (!next_is(&r, '"')) return "a name is missing";
      const uint8_t *key = r.at + 1;
      if (!take_string(&r)) return "a name does not end";
      size_t len = (size_t)(r.at - 1 - key);
      if (!take(&r, ':')) return "a colon is missing";
      next_is(&r, 0);
      const uint8_t *start = r.at;
      if (!take_value(&r, 0)) return "a value is not JSON";
      if (len == strlen(name) && !memcmp(key, name, len)) *value = (struct span){start, (size_t)(r.at - start)};
    } while (take(&r, ','));
  }
  if (!take(&r, '}')) return "it does not end with a brace";
  next_is(&r, 0);
  return r.at == r.end ? NULL : "something follows it";
}

static bool hex4(const uint8_t *at, const uint8_t *end, uint32_t *code) {
  if (end - at < 4) return false;
  *code = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t c = at[i] | 32;
    if (at[i] - '0' < 10u) *code = *code << 4 | (at[i] - '0');
    else if (c - 'a' < 6u) *code = *code << 4 | (uint32_t)(c - 'a' + 10);
    else return false;
  }
  return true;
}

static uint8_t *put_utf8(uint8_t *to, uint32_t code) {
  if (code < 0x80) {
    *to++ = (uint8_t)code;
  } else if (code < 0x800) {
    *to++ = (uint8_t)(0xc0 | code >> 6);
    *to++ = (uint8_t)(0x80 | (code & 63));
  } else {
    if (code < 0x10000) {
      *to++ = (uint8_t)(0xe0 | code >> 12);
    } else {
      *to++ = (uint8_t)(0xf0 | code >> 18);
      *to++ = (uint8_t)(0x80 | (code >> 12 & 63));
    }
    *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
    *to++ = (uint8_t)(0x80 | (code & 63));
  }
  return to;
}

bool json_text(struct span value, struct span *text) {
  if (value.len < 2 || value.at[0] != '"') return false;
  const uint8_t *at = value.at + 1, *end = value.at + value.len - 1;
  // Each escape is longer than what it stands for.
  uint8_t *start = malloc(value.len), *to = start;
  if (!start) abort();
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *known = at[1] ? strchr(names, at[1]) : NULL;
    uint32_t code, low;
    if (known) {
      *to++ = (uint8_t)meanings[known - names];
      at += 2;
    } else if (at[1] == 'u' && hex4(at + 2, end, &code)) {
      at += 6;
      if (code >> 10 == 0x36 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' && hex4(at + 2, end, &low) && low >> 10 == 0x37) {
        code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
        at += 6;
      }
      to = put_utf8(to, code >> 11 == 0x1b ? 0xfffd : code); // half of a pair stands for nothing
    } else {
      free(start);
      return false;
    }
  }
  *text = (struct span){start, (size_t)(to - start)};
  return true;
}

uint64_t json_number(struct span value, uint64_t otherwise) {
  uint64_t number = 0;
  if (value.len == 0 || value.len > 18) return otherwise;
  for (size_t i = 0; i < value.len; i++) {
    if (value.at[i] - '0' >= 10u) return otherwise;
    number = number * 10 + (value.at[i] - '0');
  }
  return number;
}
