// SPDX-License-Identifier: MIT
#include "crime.h"

#include <sys/mman.h>

int main(void) {
  char* pages = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  free(victim(pages + 16));
}
