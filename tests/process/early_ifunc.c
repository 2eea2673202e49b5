// SPDX-License-Identifier: MIT
// malloc in an IFUNC resolver: it runs while ld.so still relocates. No library is initialised, and
// thread-local memory, all zeroes yet, will be set to its first values only afterwards.
#include "expect.h"

enum { count = 200 };
static void* blocks[count];

static int the_answer(void) { return 42; }

__attribute__((used)) static int (*resolve(void))(void) {
  if (!blocks[0])
    for (size_t i = 0; i < count; i++) fill(blocks[i] = malloc(i * 50 + 1), 0, i * 50 + 1, i);
  free(malloc(100));
  return the_answer;
}
int answer(void) __attribute__((ifunc("resolve")));

int main(void) {
  it("blocks from an IFUNC resolver live, and can be freed");
  EXPECT(answer(), ==, 42);
  for (size_t i = 0; i < count; i++) {
    EXPECT(kept(blocks[i], i * 50 + 1, i), ==, i * 50 + 1);
    if (i % 2) blocks[i] = realloc(blocks[i], i * 70 + 100);
    EXPECT(kept(blocks[i], i * 50 + 1, i), ==, i * 50 + 1);
    free(blocks[i]);
  }
  return verdict();
}
