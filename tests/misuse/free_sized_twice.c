// SPDX-License-Identifier: MIT
#include "crime.h"

#include <dlfcn.h>

int main(void) {
  void (*free_sized_)(void*, size_t) = (void (*)(void*, size_t))dlsym(RTLD_DEFAULT, "free_sized");
  void* block = victim(malloc(64));
  free_sized_(block, 64);
  free_sized_(block, 64);
}
