/* SPDX-License-Identifier: MIT
 *
 * Heaps whose truth is known by construction.
 *
 * Fills three heaps, and writes what each holds, objects and bytes, to the file of the first
 * argument, a line each; a fourth stays empty. Objects of its own lie beside them. Says "ready", and
 * ends with its input.
 */
#include <ashlar/ashlar.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAPS = 4 };

static void fill(ashlar_heap *heap, size_t bytes, int count) {
  for (int i = 0; i < count; i++) memset(ashlar_heap_malloc(heap, bytes), 1, bytes);
}

int main(int argc, char **argv) {
  FILE *const truth = argc == 2 ? fopen(argv[1], "w") : NULL;
  if (truth == NULL) return 2;
  ashlar_heap *heaps[HEAPS];
  for (int i = 0; i < HEAPS; i++) heaps[i] = ashlar_heap_create(NULL);
  fill(heaps[0], 100, 50000);
  fill(heaps[1], 3000, 1000);
  fill(heaps[1], 1 << 20, 3);
  fill(heaps[2], 5000000, 1);
  for (int i = 0; i < 5000; i++) memset(malloc(100), 1, 100);
  void *const late = ashlar_heap_malloc(heaps[1], 2 << 20);
  ashlar_heap_free(heaps[1], late);
  for (int i = 0; i < HEAPS; i++) {
    ashlar_heap_stats held;
    ashlar_heap_get_stats(heaps[i], &held);
    fprintf(truth, "%llu %llu %llu\n", (unsigned long long)held.objects,
            (unsigned long long)held.allocated, (unsigned long long)held.active);
  }
  fclose(truth);
  puts("ready");
  fflush(stdout);
  getchar();
  return 0;
}
