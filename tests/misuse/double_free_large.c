// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  void* block = victim(malloc(1 << 20));
  free(block);
  free(block);
}
