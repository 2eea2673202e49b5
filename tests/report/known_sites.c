/* SPDX-License-Identifier: MIT
 *
 * Three call sites whose survivors are known, for samples of live objects.
 *
 *   known_sites
 *
 * dense() keeps all it allocates; sparse() keeps one of ten; gone() keeps none; large() keeps
 * large objects. Each slab is one site's, as each has a size of its own. Says "ready".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITE __attribute__((noinline, noclone))

static void *filled(size_t bytes) {
  char *const p = malloc(bytes);
  memset(p, 1, bytes);
  return p;
}

SITE void dense(void **kept, size_t count) {
  for (size_t i = 0; i < count; i++) kept[i] = filled(500);
}

SITE void sparse(void **kept, size_t count) {
  for (size_t i = 0; i < count; i++) kept[i] = filled(200);
  for (size_t i = 0; i < count; i++) {
    if (i % 10 != 0) free(kept[i]);
  }
}

SITE void gone(void **kept, size_t count) {
  for (size_t i = 0; i < count; i++) kept[i] = filled(1000);
  for (size_t i = 0; i < count; i++) free(kept[i]);
}

SITE void large(void **kept, size_t count) {
  for (size_t i = 0; i < count; i++) kept[i] = filled(300000);
}

int main(void) {
  static char out[1024], in[1024];
  setvbuf(stdout, out, _IOLBF, sizeof out);
  setvbuf(stdin, in, _IOFBF, sizeof in);
  enum { kObjects = 300000 };
  static void *kept[4][kObjects];
  for (int round = 0; round < 3; round++) gone(kept[0], 20000);
  dense(kept[1], 60000);
  sparse(kept[2], kObjects);
  large(kept[3], 100);
  puts("ready");
  while (getchar() != EOF) {
  }
  return 0;
}
