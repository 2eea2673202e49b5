// SPDX-License-Identifier: MIT
// malloc long before main, in preinit and in a constructor with a low priority, and long after it.
#include "expect.h"

enum { count = 200 };
static void *from_preinit[count], *from_constructor[count];

static void take(void** blocks, uint64_t seed) {
  for (size_t i = 0; i < count; i++) {
    blocks[i] = i % 3 == 0 ? calloc(1, i * 50 + 1) : realloc(malloc(i + 1), i * 50 + 1);
    fill(blocks[i], 0, i * 50 + 1, seed + i);
  }
}

static void give_back(void** blocks, uint64_t seed) {
  for (size_t i = 0; i < count; i++) {
    EXPECT(kept(blocks[i], i * 50 + 1, seed + i), ==, i * 50 + 1);
    if (i % 2) blocks[i] = realloc(blocks[i], i * 70 + 100);
    EXPECT(kept(blocks[i], i * 50 + 1, seed + i), ==, i * 50 + 1);
    free(blocks[i]);
  }
}

static void preinit(void) { take(from_preinit, 2); }
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(void) = preinit;

__attribute__((constructor(101))) static void constructor(void) { take(from_constructor, 3); }

static void after_main(void) {
  void* blocks[count];
  take(blocks, 4);
  give_back(blocks, 4);
  if (failures_) _exit(1);
}
__attribute__((destructor(101))) static void last_destructor(void) { after_main(); }

int main(void) {
  it("blocks from preinit live");
  give_back(from_preinit, 2);
  it("blocks from an early constructor live");
  give_back(from_constructor, 3);
  it("blocks can be had in atexit handlers and in the last destructor");
  atexit(after_main);
  return verdict();
}
