// SPDX-License-Identifier: MIT
// free_inside_object SIZE OFFSET: a pointer to somewhere behind the beginning of an object.
#include "crime.h"

int main(int argc, char** argv) {
  if (argc < 3) return 1;
  char* block = malloc(strtoull(argv[1], NULL, 0));
  free(victim(block + strtoull(argv[2], NULL, 0)));
}
