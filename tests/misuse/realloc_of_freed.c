// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  void* block = victim(malloc(64));
  free(block);
  free(realloc(block, 1000));
}
