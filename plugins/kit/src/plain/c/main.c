// Counts the lines, words and characters of standard input, in UTF-8. Nothing in it is made for one host.

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>

int main(void) {
  size_t lines = 0, words = 0, characters = 0;
  bool is_inside = false; // of a word
  int before = '\n';
  for (int c; (c = getchar()) != EOF; before = c) {
    characters += (c & 0xc0) != 0x80; // what follows the first byte of a character is none
    lines += before == '\n';
    words += !is_inside && !isspace(c);
    is_inside = !isspace(c);
  }
  if (characters == 0) {
    fputs("the text is empty\n", stderr);
    return 65;
  }
  int written = printf("{\"lines\":%zu,\"words\":%zu,\"characters\":%zu}\n", lines, words, characters);
  return written < 0 || fflush(stdout) != 0 ? 74 : 0;
}
