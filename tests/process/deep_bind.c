// SPDX-License-Identifier: MIT
// A library loaded with RTLD_DEEPBIND, as PHP loads its extensions, and found by the program's own
// RUNPATH: there is one malloc for both.
#include "expect.h"

#include <malloc.h>

int main(void) {
  must_end_within(60);
  it("dlopen looks into the RUNPATH of its caller");
  void* library = dlopen("libdeep_bound.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!library) say(dlerror()), say("\n");
  EXPECT(library != NULL, ==, 1);
  if (!library) return verdict();
  void* (*take)(size_t) = (void* (*)(size_t))dlsym(library, "deep_bound_take");
  void (*give)(void*) = (void (*)(void*))dlsym(library, "deep_bound_give");

  it("one side frees what the other took");
  for (size_t size = 16; size < MIB; size *= 2) {
    void* theirs = take(size);
    EXPECT(malloc_usable_size(theirs), >=, size);
    fill(theirs, 0, size, 1);
    free(theirs);
    void* ours = malloc(size);
    fill(ours, 0, size, 2);
    give(ours);
  }
  return verdict();
}
