// SPDX-License-Identifier: MIT
// Large blocks grow by moving pages, and each moved block costs mappings, of which a process has
// 65,530 by default.
#include "expect.h"

enum { count = 4000 };

static int mappings(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  int lines = 0;
  for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
  fclose(maps);
  return lines;
}

int main(void) {
  static char* blocks[count];
  int const before = mappings();
  for (int i = 0; i < count; i++) {
    blocks[i] = malloc(300 * KIB);
    blocks[i][0] = blocks[i][300 * KIB - 1] = (char)i;
  }
  it("blocks that were grown keep what they held");
  for (int i = 0; i < count; i++) {
    blocks[i] = realloc(blocks[i], 600 * KIB);
    EXPECT(blocks[i][0], ==, (char)i);
    EXPECT(blocks[i][300 * KIB - 1], ==, (char)i);
  }
  it("four thousand grown blocks cost at most a thousand pairs of mappings");
  EXPECT(mappings() - before, <=, 2 * 1000 + 100);
  for (int i = 0; i < count; i++) free(blocks[i]);
  it("freed, they cost none");
  EXPECT(mappings() - before, <=, 100);
  return verdict();
}
