// SPDX-License-Identifier: MIT
#include "crime.h"

int main(void) {
  char* block = malloc(64);
  free(realloc(victim(block + 32), 1000));
}
