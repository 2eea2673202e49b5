// SPDX-License-Identifier: MIT
#include "crime.h"

#include <dlfcn.h>

int main(void) {
  void (*free_)(void*, size_t, size_t) =
      (void (*)(void*, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
  void* block = victim(aligned_alloc(64, 64));
  free_(block, 64, 64);
  free_(block, 64, 64);
}
