// SPDX-License-Identifier: MIT
// Another thread frees, then the owner frees the same block.
#include "crime.h"

static void* free_it(void* block) {
  free(block);
  return NULL;
}

int main(void) {
  void* block = victim(malloc(64));
  in_other_thread(free_it, block);
  free(block);
  churn(64);
}
