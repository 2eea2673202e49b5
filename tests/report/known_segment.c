/* SPDX-License-Identifier: MIT */
/* A shared arena of known content:
 *
 *   known-segment NAME-OR-PATH FLAGS SIZE COUNT KEPT_OF_EVERY LARGE
 *
 * makes the arena, takes COUNT blocks of SIZE bytes and one of LARGE, keeps every KEPT_OF_EVERY-th,
 * says "ready", and waits. "visit": a child frees half of what is left, and ends without closing.
 * "close": closes the arena. "end of input": ends without closing it. */
#include <ashlar/shm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static ashlar_shm *arena;
static size_t count, every;
static void **blocks;

static void visit(void) {
  pid_t child = fork();
  if (child == 0) {
    for (size_t i = 0; i < count; i += 2 * every) ashlar_shm_free(arena, blocks[i]);
    if (ashlar_shm_malloc(arena, 16) == NULL) _exit(1); /* it takes a place, and keeps it */
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) exit(1);
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  const char *where = argv[1];
  unsigned flags = (unsigned)atoi(argv[2]);
  size_t size = (size_t)atol(argv[3]);
  count = (size_t)atol(argv[4]);
  every = (size_t)atol(argv[5]);
  const size_t room = (size_t)64 << 20;
  arena = strchr(where + 1, '/') != NULL ? ashlar_shm_create_file(where, room, flags)
                                         : ashlar_shm_create(where, room, flags);
  blocks = malloc((count + 1) * sizeof *blocks);
  if (arena == NULL || blocks == NULL) {
    perror(where);
    return 1;
  }
  for (size_t i = 0; i < count; i++) blocks[i] = ashlar_shm_malloc(arena, size);
  void *large = ashlar_shm_malloc(arena, (size_t)atol(argv[6]));
  if ((flags & ASHLAR_SHM_SCOPED) == 0) { /* a name would outlive what it names */
    ashlar_shm_root_set(arena, "large", ashlar_shm_offset(arena, large));
  }
  for (size_t i = 0; i < count; i++) {
    if (i % every != 0) ashlar_shm_free(arena, blocks[i]);
  }
  puts("ready");
  fflush(stdout);
  char line[32];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strcmp(line, "visit\n") == 0) visit();
    if (strcmp(line, "close\n") == 0) {
      ashlar_shm_close(arena);
      arena = NULL;
    }
    puts("done");
    fflush(stdout);
  }
  return 0;
}
