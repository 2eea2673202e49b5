// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  char* block = malloc(64);
  return malloc_usable_size(victim(block + 16)) == 64;
}
