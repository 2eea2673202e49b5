// SPDX-License-Identifier: MIT
#include "crime.h"

static void* free_inside(void* block) {
  free(victim((char*)block + 16));
  return NULL;
}

int main(void) { in_other_thread(free_inside, malloc(64)); }
