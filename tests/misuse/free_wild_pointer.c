// SPDX-License-Identifier: MIT
// free_wild_pointer ADDRESS
#include "crime.h"

int main(int argc, char** argv) {
  free(malloc(64));
  if (argc > 1) free(victim((void*)(uintptr_t)strtoull(argv[1], NULL, 0)));
}
