// SPDX-License-Identifier: MIT
// Option thp, which ASHLAR_CONF sets and argv[1] repeats: huge pages for a heap that has grown,
// none for a small one, and none at all.
#include "expect.h"

static size_t huge_kib(void) {
  static char line[512];
  size_t sum = 0;
  FILE* file = fopen("/proc/self/smaps", "r");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file) != NULL) {
    unsigned long kib;
    if (sscanf(line, "AnonHugePages: %lu", &kib) == 1) sum += kib;
  }
  fclose(file);
  return sum;
}

static int kernel_has_them(void) {
  char text[64] = "";
  int file = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY);
  if (file < 0) return 0;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  return length > 0 && strstr(text, "[never]") == NULL;
}

// Somebody looks, several times in a second.
static void let_age(void) {
  for (int i = 0; i < 40; i++) {
    usleep(30 * 1000);
    free(malloc(2 * MIB));
  }
}

static size_t rss_kib(void) {
  unsigned long pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL) return 0;
  if (fscanf(file, "%*u %lu", &pages) != 1) pages = 0;
  fclose(file);
  return pages * 4;
}

#define BLOCK (2 * KIB)

static char* new_block(void) {
  char* block = malloc(BLOCK);
  return memset(block, 1, BLOCK);
}

int main(int argc, char** argv) {
  enum { count = 128 * KIB };
  static char* blocks[count];
  int never = argc > 1 && strcmp(argv[1], "never") == 0;
  if (!kernel_has_them()) return 77;  // skipped

  it("a small heap has no huge pages");
  memset(malloc(2 * MIB), 1, 2 * MIB);
  EXPECT(huge_kib(), ==, 0);

  it("a heap that has grown has them, unless told not to");
  for (int i = 0; i < count; i++) blocks[i] = new_block();
  size_t grown = huge_kib();
  if (never) {
    EXPECT(grown, ==, 0);
  } else {
    EXPECT(grown, >=, 64 * KIB);
  }

  it("a large block has none, but where the heap grew ahead, unless they are asked for");
  memset(malloc(128 * MIB), 1, 128 * MIB);
  if (argc > 1 && strcmp(argv[1], "always") == 0) {
    EXPECT(huge_kib(), >=, grown + 120 * KIB);
  } else {
    EXPECT(huge_kib(), <=, grown + 32 * KIB);
  }

  it("one that is being filled is not broken, however slowly");
  for (int i = 0; i < 40 * 32; i++) {
    if (i % 32 == 0) usleep(20 * 1000);
    new_block();
  }
  EXPECT(huge_kib(), >=, grown);

  it("what is free of them goes back, and the rest stays");
  size_t full = rss_kib();
  for (int i = 0; i < count; i++) {
    if (i / 64 % 8 == 0) free(blocks[i]);
  }
  let_age();
  EXPECT(rss_kib() + 31 * KIB, <=, full);
  EXPECT(rss_kib() + 40 * KIB, >=, full);
  return verdict();
}
