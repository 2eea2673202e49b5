// SPDX-License-Identifier: MIT
// argv[1] says how: what is moved is no object, in a slab that is to be emptied.
#include <ashlar/ashlar.h>
#include <ashlar/compact.h>

#include "crime.h"

int main(int argc, char** argv) {
  enum { count = 4000 };
  static char* objects[count];
  const int inside = argc > 1 && strcmp(argv[1], "inside") == 0;
  for (int i = 0; i < count; i++) objects[i] = malloc(256);
  for (int i = 0; i < count; i++) {
    if (i % 3 != 0) free(objects[i]);
  }
  for (int i = 0; i < count; i += 3) {
    if (ashlar_frag_hint(objects[i]) == 0) continue;
    if (inside) ashlar_frag_move(victim(objects[i] + 16));
    victim(objects[i]);
    free(objects[i]);
    malloc_trim(0);
    ashlar_frag_move(objects[i]);
  }
}
