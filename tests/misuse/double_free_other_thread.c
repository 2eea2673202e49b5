// SPDX-License-Identifier: MIT
// The owner frees, then another thread frees the same block.
#include "crime.h"

static void* free_it(void* block) {
  free(block);
  return NULL;
}

int main(void) {
  void* block = victim(malloc(64));
  free(block);
  in_other_thread(free_it, block);
  churn(64);
}
