// SPDX-License-Identifier: MIT
// Two threads, neither of them the owner, free the same block.
#include "crime.h"

static void* free_it(void* block) {
  free(block);
  return NULL;
}

int main(void) {
  void* block = victim(malloc(64));
  in_other_thread(free_it, block);
  in_other_thread(free_it, block);
  churn(64);
}
