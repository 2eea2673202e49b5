// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  void* block = victim(malloc(64));
  void* moved = realloc(block, 100000);
  free(block);
  free(moved);
}
