// SPDX-License-Identifier: MIT
// free a, free b, free a, and then the magazine is used up: a is handed out to two owners. Found
// when they free it.
#include "crime.h"

int main(void) {
  void *a = victim(malloc(64)), *b = malloc(64);
  free(a);
  free(b);
  free(a);
  churn(64);
}
