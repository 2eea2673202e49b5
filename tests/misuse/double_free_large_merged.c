// SPDX-License-Identifier: MIT
// The pages of the freed block have been merged with their neighbours before it is freed again.
#include "crime.h"

int main(void) {
  void *before = malloc(1 << 20), *block = victim(malloc(1 << 20)), *after = malloc(1 << 20);
  free(block);
  free(before);
  free(after);
  free(block);
}
