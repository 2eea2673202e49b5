// SPDX-License-Identifier: MIT
// The slot behind an object that was handed out: nobody ever got it from malloc.
#include "crime.h"

int main(void) {
  char* block = malloc(64);
  free(victim(block + 64));
  churn(64);
}
