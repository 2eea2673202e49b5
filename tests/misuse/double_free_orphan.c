// SPDX-License-Identifier: MIT
// The block of a thread that has ended is freed twice by a thread that never owned it.
#include "crime.h"

static void* block;

static void* allocate(void* unused) {
  block = victim(malloc(64));
  return unused;
}

int main(void) {
  in_other_thread(allocate, NULL);
  free(block);
  free(block);
  churn(64);
}
