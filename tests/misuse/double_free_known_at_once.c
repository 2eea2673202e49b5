// SPDX-License-Identifier: MIT
// free a, free b, free a: told by the third call, with check:exact, whoever makes which.
#include "crime.h"

static void* give(void* object) {
  free(object);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  void *a = victim(malloc(64)), *b = malloc(64);
  int other_first = strcmp(argv[1], "both threads") == 0;
  int other_last = strcmp(argv[1], "other thread") == 0;
  if (other_first)
    in_other_thread(give, a);
  else
    free(a);
  free(b);
  if (other_last)
    in_other_thread(give, a);
  else
    free(a);
  return 0;
}
