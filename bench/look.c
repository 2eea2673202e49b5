/* SPDX-License-Identifier: MIT */
/* look: a heap to be looked at by the tool, see look.py.
 *
 *   look MIB
 *
 * fills MIB of slabs with objects that are never touched, so that the heap is large and its
 * memory small; says "ready"; and for each number of milliseconds on its standard input replaces
 * random ones for so much CPU time and says how many.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { kBytes = 112, kBatch = 1000 };

/* CPU time: what other programs take of the machine is not the tool's. */
static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t random_word(void) { /* xorshift (Marsaglia 2003) */
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  const size_t count = ((size_t)atol(argv[1]) << 20) / kBytes;
  void **objects = malloc(count * sizeof *objects);
  if (objects == NULL || count == 0) return 1;
  for (size_t i = 0; i < count; i++) objects[i] = malloc(kBytes);
  puts("ready");
  fflush(stdout);
  long ms;
  while (scanf("%ld", &ms) == 1) {
    uint64_t done = 0;
    for (const uint64_t end = now_ms() + (uint64_t)ms; now_ms() < end; done += kBatch) {
      for (int i = 0; i < kBatch; i++) {
        void **object = &objects[random_word() % count];
        free(*object);
        *object = malloc(kBytes);
      }
    }
    printf("%llu\n", (unsigned long long)done);
    fflush(stdout);
  }
  return 0;
}
