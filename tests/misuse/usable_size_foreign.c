// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  _Alignas(16) char here[64] = "on the stack";
  return malloc_usable_size(victim(here)) == 64;
}
