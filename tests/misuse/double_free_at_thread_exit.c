// SPDX-License-Identifier: MIT
// free a, free b, free a in a thread that ends: its magazines are emptied then.
#include "crime.h"

static void* commit(void* unused) {
  void *a = victim(malloc(64)), *b = malloc(64);
  free(a);
  free(b);
  free(a);
  return unused;
}

int main(void) { in_other_thread(commit, NULL); }
