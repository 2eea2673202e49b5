// SPDX-License-Identifier: MIT
// realloc keeps what was there, over every change of size that crosses a border inside the
// allocator.
//
//   realloc [SEED]     steps are random but repeatable; a failure names seed and step
#include "expect.h"

#include <malloc.h>

// Sizes on every scale: tiny classes, all classes, page runs, blocks worth an mremap.
static size_t any_size(uint64_t* random) {
  size_t dice = random_below(random, 1000);
  if (dice < 400) return 1 + random_below(random, 256);
  if (dice < 700) return 1 + random_below(random, 8 * KIB);
  if (dice < 900) return 1 + random_below(random, 80 * KIB);
  if (dice < 995) return 1 + random_below(random, 1 * MIB);
  return 1 + random_below(random, 6 * MIB);
}

static void random_walk(uint64_t seed) {
  enum { slots = 100, steps = 40000 };
  static unsigned char* blocks[slots];
  static size_t sizes[slots];
  uint64_t random = seed;
  char name[80];
  for (int step = 0; step < steps && !failures_; step++) {
    size_t slot = random_below(&random, slots), size = any_size(&random), old = sizes[slot];
    snprintf(name, sizeof name, "realloc keeps the contents (seed %lu, step %d)",
             (unsigned long)seed, step);
    it(name);
    if (random_below(&random, 20) == 0) {
      errno = 77;
      if (blocks[slot]) EXPECT(realloc(blocks[slot], 0), ==, 0);
      EXPECT(errno, ==, 77);
      blocks[slot] =
          random_below(&random, 2) ? memalign((size_t)64 << random_below(&random, 10), size) : NULL;
      fill(blocks[slot], 0, sizes[slot] = blocks[slot] ? size : 0, slot);
      continue;
    }
    unsigned char* moved = random_below(&random, 8) ? realloc(blocks[slot], size)
                                                    : reallocarray(blocks[slot], 1, size);
    EXPECT(moved != NULL, ==, 1);
    EXPECT((uintptr_t)moved % 16, ==, 0);
    size_t common = old < size ? old : size;
    EXPECT(kept(moved, common, slot), ==, common);
    fill(moved, common, size, slot);
    blocks[slot] = moved, sizes[slot] = size;
  }
  for (int slot = 0; slot < slots; slot++) {
    EXPECT(kept(blocks[slot], sizes[slot], slot), ==, sizes[slot]);
    free(blocks[slot]);
    blocks[slot] = NULL, sizes[slot] = 0;
  }
}

// A buffer that grows by `step` while a neighbour is allocated behind it each time, so that it
// cannot always grow in place.
static void growth(size_t step, size_t top, int with_neighbour) {
  it("a growing and shrinking buffer keeps its contents");
  char* block = NULL;
  size_t old = 0;
  for (size_t size = step; size <= top; old = size, size += step + size / 7) {
    void* neighbour = with_neighbour ? malloc(size) : NULL;
    block = realloc(block, size);
    EXPECT(kept(block, old < 70000 ? old : 70000, 5), ==, old < 70000 ? old : 70000);
    if (old) EXPECT(block[old - 1], ==, (char)pattern_(5, old - 1));
    fill(block, old, size, 5);
    free(neighbour);
  }
  for (size_t size = old; size > 1; size = size * 5 / 8) {
    block = realloc(block, size);
    EXPECT(kept(block, size, 5), ==, size);
  }
  free(block);
}

static void refusals(void) {
  it("a realloc that fails returns null with ENOMEM and keeps the block");
  for (size_t size = 1; size < 20 * MIB; size = size * 6 + 1) {
    char* block = malloc(size);
    fill(block, 0, size, 9);
    for (int i = 0; i < 4; i++) {
      static const size_t sizes[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, (size_t)1 << 62,
                                     ((size_t)1 << 48) + 64 * KIB};
      errno = 0;
      EXPECT(realloc(block, sizes[i]), ==, 0);
      EXPECT(errno, ==, ENOMEM);
      EXPECT(kept(block, size, 9), ==, size);
    }
    free(block);
  }
  it("realloc(p, 0) frees the block, so that a million of them cost nothing");
  long before = status_kib("VmRSS:");
  for (int i = 0; i < 1000000; i++) {
    char* block = malloc(i % 2 ? 100 : 3000);
    *block = 1;
    if (realloc(block, 0)) EXPECT(0, ==, 1);
  }
  for (int i = 0; i < 300; i++) {
    char* block = malloc(4 * MIB);
    memset(block, 1, 64 * KIB);
    if (realloc(block, 0)) EXPECT(0, ==, 1);
  }
  EXPECT(status_kib("VmRSS:") - before, <, 8192);
}

int main(int argc, char** argv) {
  uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
  random_walk(seed);
  random_walk(seed + 1);
  growth(1, 3000, 0);
  growth(16, 40000, 1);
  growth(4096, 24 * MIB, 0);
  growth(5000, 24 * MIB, 1);
  refusals();
  return verdict();
}
