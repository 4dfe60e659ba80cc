// An ordinary program: writes its standard input in capitals. Nothing here knows Wharf. Its arguments make it do what the tests of
// programs need.

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// Keeps the compiler from leaving memory out that nobody reads.
static char *volatile kept;

static void allocate(void) {
  // A little less than a power of two, to which some allocators round.
  char *more = malloc(65000);
  if (more == NULL) abort();
  memset(more, 1, 65000);
  kept = more;
}

static int capitals(void) {
  char buffer[65536];
  size_t all = 0, read;
  while ((read = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
    for (size_t at = 0; at < read; at++) buffer[at] = (char)toupper((unsigned char)buffer[at]);
    if (fwrite(buffer, 1, read, stdout) != read) return 74;
    all += read;
  }
  fprintf(stderr, "%zu bytes\n", all);
  return fflush(stdout) == 0 ? 0 : 74;
}

static int print_file(const char *path) {
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    printf("%s\n", strerror(errno));
    return 0;
  }
  for (int c; (c = getc(file)) != EOF;) putchar(c);
  return 0;
}

static int write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  return file == NULL || fputs(text, file) < 0 || fclose(file) != 0 ? 74 : 0;
}

int main(int count, char **args) {
  const char *what = count > 1 ? args[1] : "";
  const char *value = count > 2 ? args[2] : "";
  if (strcmp(what, "--status") == 0) exit(atoi(value));
  if (strcmp(what, "--return") == 0) return atoi(value);
  if (strcmp(what, "--abort") == 0) {
    fputs("about to abort\n", stderr);
    abort();
  }
  if (strcmp(what, "--args") == 0) {
    for (int at = 0; at < count; at++) printf("%s\n", args[at]);
    return 0;
  }
  if (strcmp(what, "--env") == 0) return printf("%s\n", getenv(value) ? getenv(value) : "none") < 0;
  if (strcmp(what, "--read") == 0) return print_file(value);
  if (strcmp(what, "--write") == 0 && count > 3) return write_file(value, args[3]);
  if (strcmp(what, "--sleep") == 0) {
    struct timespec time = {.tv_sec = atoi(value) / 1000, .tv_nsec = atoi(value) % 1000 * 1000000L};
    return nanosleep(&time, NULL);
  }
  if (strcmp(what, "--shutdown") == 0) return shutdown(1, SHUT_WR) == 0 ? 1 : printf("%s\n", strerror(errno)) < 0;
  if (strcmp(what, "--spin") == 0)
    for (volatile unsigned long turns = 0;; turns++) continue;
  if (strcmp(what, "--hold") == 0) {
    for (int parts = atoi(value) * 16; parts > 0; parts--) allocate();
    what = "--flood";
  }
  if (strcmp(what, "--flood") == 0)
    for (char line[4096];;) {
      memset(line, 'x', sizeof line);
      line[sizeof line - 1] = '\n';
      if (write(1, line, sizeof line) < 0) return 74;
    }
  if (strcmp(what, "--hoard") == 0)
    for (;;) allocate();
  return capitals();
}
