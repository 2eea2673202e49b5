// SPDX-License-Identifier: MIT
// free a, free b, free a: both wait in a magazine. Found at the latest when they leave it.
#include "crime.h"

int main(void) {
  static void* others[20000];
  for (int i = 0; i < 20000; i++) others[i] = malloc(64);
  void *a = victim(malloc(64)), *b = malloc(64);
  free(a);
  free(b);
  free(a);
  for (int i = 0; i < 20000; i++) free(others[i]);
}
