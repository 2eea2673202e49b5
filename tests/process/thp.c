// SPDX-License-Identifier: MIT
// Option thp, which ASHLAR_CONF sets and argv[1] repeats: huge pages for a heap that has grown,
// none for a small one, and none at all.
#include <sys/resource.h>

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

int main(int argc, char** argv) {
  enum { count = 4096 };
  static char* blocks[count];
  int always = argc > 1 && strcmp(argv[1], "always") == 0;
  if (!kernel_has_them()) return 77;  // skipped

  it("a small heap has no huge pages");
  memset(malloc(2 * MIB), 1, 2 * MIB);
  EXPECT(huge_kib(), ==, 0);

  it("a heap that has grown has them only if told so");
  for (int i = 0; i < count; i++) {
    blocks[i] = malloc(64 * KIB);
    memset(blocks[i], 1, 64 * KIB);
  }
  size_t grown = huge_kib();
  if (always) {
    EXPECT(grown, >=, 64 * KIB);
  } else {
    EXPECT(grown, ==, 0);
  }

  it("one of which little was freed is not broken");
  for (int i = 0; i < count; i += 8) free(blocks[i]);
  let_age();
  EXPECT(huge_kib() + 8 * KIB, >=, grown);

  it("one of which most was freed goes back");
  for (int i = 0; i < count; i++) {
    if (i % 8 != 0 && i % 32 != 1) free(blocks[i]);
  }
  let_age();
  EXPECT(huge_kib(), <=, grown / 4);

  it("memory that was unmapped while it was short has them as before");
  for (int i = 0; i < count; i++) {
    if (i % 32 == 1) free(blocks[i]);
  }
  struct rlimit before, tight;
  getrlimit(RLIMIT_AS, &before);
  tight = before;
  tight.rlim_cur = (rlim_t)status_kib("VmSize:") * KIB;
  setrlimit(RLIMIT_AS, &tight);
  EXPECT(malloc(1024 * MIB), ==, NULL);
  setrlimit(RLIMIT_AS, &before);
  EXPECT((rlim_t)status_kib("VmSize:") * KIB + 128 * MIB, <, tight.rlim_cur);
  for (int i = 0; i < count; i++) {
    blocks[i] = malloc(64 * KIB);
    memset(blocks[i], 1, 64 * KIB);
  }
  if (always) {
    EXPECT(huge_kib(), >=, 64 * KIB);
  } else {
    EXPECT(huge_kib(), ==, 0);
  }
  return verdict();
}
