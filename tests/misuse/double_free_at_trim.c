// SPDX-License-Identifier: MIT
// free a, free b, free a, and then malloc_trim empties the magazines.
#include "crime.h"

int main(void) {
  void *a = victim(malloc(64)), *b = malloc(64);
  free(a);
  free(b);
  free(a);
  malloc_trim(0);
}
