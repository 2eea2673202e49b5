/* SPDX-License-Identifier: MIT
 *
 * A heap whose truth is known by construction.
 *
 *   known BYTES COUNT KEPT_OF_EVERY LARGE [command...]
 *
 * Allocates COUNT objects of BYTES and writes to each, frees all but every KEPT_OF_EVERYth, and
 * allocates one large object of LARGE bytes (0: none). Trims its magazines, says "ready" and then
 * obeys lines on its standard input: "free" frees the rest, "move" moves them to better places,
 * "churn" allocates and frees a little, "end" (or the end of input) ends it. Each is answered by
 * "done".
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* With what the library has for it; each round finds a new plan. */
static void move_all(char **objects, size_t count) {
  unsigned (*hint)(const void *) = (unsigned (*)(const void *))dlsym(RTLD_DEFAULT, "ashlar_frag_hint");
  void *(*move)(void *) = (void *(*)(void *))dlsym(RTLD_DEFAULT, "ashlar_frag_move");
  enum { kRounds = 12, kPauseUs = 110 * 1000 };
  for (int round = 0; round < kRounds && hint != NULL && move != NULL; round++) {
    for (size_t i = 0; i < count; i++) {
      char *const to = objects[i] == NULL || hint(objects[i]) == 0 ? NULL : move(objects[i]);
      if (to != NULL) objects[i] = to;
    }
    usleep(kPauseUs);
  }
  malloc_trim(0);
}

static void churn(void) {
  enum { kObjects = 5000 };
  static void *objects[kObjects];
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < kObjects; i++) objects[i] = malloc(48);
    for (int i = 0; i < kObjects; i++) free(objects[i]);
  }
}

int main(int argc, char **argv) {
  if (argc < 5) return 2;
  const size_t bytes = strtoul(argv[1], NULL, 10);
  const size_t count = strtoul(argv[2], NULL, 10);
  const size_t every = strtoul(argv[3], NULL, 10);
  const size_t large = strtoul(argv[4], NULL, 10);
  static char out[1024], in[1024];
  setvbuf(stdout, out, _IOLBF, sizeof out);
  setvbuf(stdin, in, _IOFBF, sizeof in);

  char **objects = malloc((count + 1) * sizeof *objects);
  for (size_t i = 0; i < count; i++) {
    objects[i] = malloc(bytes);
    memset(objects[i], 1, bytes);
  }
  for (size_t i = 0; i < count; i++) {
    if (i % every == 0) continue;
    free(objects[i]);
    objects[i] = NULL;
  }
  char *const one = large == 0 ? NULL : malloc(large);
  if (one != NULL) memset(one, 1, large);
  malloc_trim(0);
  puts("ready");

  char line[80];
  while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "end\n") != 0) {
    if (strcmp(line, "free\n") == 0) {
      for (size_t i = 0; i < count; i++) free(objects[i]);
      memset(objects, 0, count * sizeof *objects);
    } else if (strcmp(line, "move\n") == 0) {
      move_all(objects, count);
    } else if (strcmp(line, "churn\n") == 0) {
      churn();
    }
    puts("done");
  }
  free(one);
  return 0;
}
