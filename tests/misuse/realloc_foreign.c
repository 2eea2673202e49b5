// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  _Alignas(16) char here[64] = "on the stack";
  free(realloc(victim(here), 1000));
}
