// As much of JSON as an order needs: the members of one object.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
  const uint8_t *at;
  size_t len;
};

// Finds a member of the object that `document` is; the last one of that name. Returns what is wrong with the document,
// or NULL; `value` is empty where there is no such member.
const char *json_member(struct span document, const char *name, struct span *value);

// The bytes of a JSON string in UTF-8, in memory of its own. False where the value is no string.
bool json_text(struct span value, struct span *text);

// The value of a whole number that is not negative, or `otherwise`.
uint64_t json_number(struct span value, uint64_t otherwise);
