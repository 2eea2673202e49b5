// SPDX-License-Identifier: MIT
// A library that takes and gives memory, to be loaded with RTLD_DEEPBIND.
#include <stdlib.h>

void* deep_bound_take(size_t bytes) { return malloc(bytes); }
void deep_bound_give(void* block) { free(block); }
