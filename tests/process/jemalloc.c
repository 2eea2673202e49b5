/* SPDX-License-Identifier: MIT
 *
 * jemalloc's own interface, as a program sees it that was built for jemalloc.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "expect.h"

int mallctl(const char*, void*, size_t*, void*, size_t);
int mallctlnametomib(const char*, size_t*, size_t*);
int mallctlbymib(const size_t*, size_t, void*, size_t*, void*, size_t);
void malloc_stats_print(void (*)(void*, const char*), void*, const char*);
void* mallocx(size_t, int);
void* rallocx(void*, size_t, int);
size_t xallocx(void*, size_t, size_t, int);
size_t sallocx(const void*, int);
void dallocx(void*, int);
void sdallocx(void*, size_t, int);
size_t nallocx(size_t, int);

enum { kZero = 0x40, kAlign64 = 6, kAlign64K = 16 };

static size_t stat_of(const char* name) {
  size_t value = 0, bytes = sizeof value;
  EXPECT(mallctl(name, &value, &bytes, NULL, 0), ==, 0);
  EXPECT(bytes, ==, sizeof value);
  return value;
}

static uint64_t next_epoch(void) {
  uint64_t epoch = 1;
  size_t bytes = sizeof epoch;
  EXPECT(mallctl("epoch", &epoch, &bytes, &epoch, bytes), ==, 0);
  return epoch;
}

static void statistics(void) {
  it("statistics are those of the last epoch, and what is told to act does");
  const uint64_t first = next_epoch();
  const size_t before = stat_of("stats.allocated");
  char* const p = malloc(5 << 20);
  EXPECT(p, !=, NULL);
  for (int i = 0; i < 5 << 20; i += 4096) p[i] = 1;
  EXPECT(stat_of("stats.allocated"), ==, before); /* of the last epoch */
  EXPECT(next_epoch(), ==, first + 1);
  EXPECT(stat_of("stats.allocated"), ==, before + (5 << 20));
  EXPECT(stat_of("stats.active"), >=, stat_of("stats.allocated"));
  EXPECT(stat_of("stats.mapped"), >=, stat_of("stats.active"));
  EXPECT(stat_of("stats.resident"), >=, 5 << 20);
  EXPECT(stat_of("stats.metadata"), >, 0);
  EXPECT(stat_of("stats.arenas.0.pactive") * 4096, ==, stat_of("stats.active"));
  EXPECT(stat_of("stats.arenas.4096.large.allocated"), >=, 5 << 20);
  free(p);
  unsigned arenas = 0;
  size_t bytes = sizeof arenas;
  EXPECT((mallctl("arenas.narenas", &arenas, &bytes, NULL, 0) == 0 && arenas == 1), ==, 1);
  next_epoch();
  EXPECT(mallctl("arena.0.purge", NULL, NULL, NULL, 0), ==, 0);
  EXPECT(mallctl("arena.1.purge", NULL, NULL, NULL, 0), ==, 0); /* as many as there are: all */
  EXPECT(mallctl("arena.4096.decay", NULL, NULL, NULL, 0), ==, 0);
  next_epoch();
  EXPECT(stat_of("stats.arenas.0.pdirty"), ==, 0);
}

static void classes(void) {
  it("size classes have the sizes and objects that there are");
  unsigned bins = 0;
  size_t bytes = sizeof bins;
  EXPECT((mallctl("arenas.nbins", &bins, &bytes, NULL, 0) == 0 && bins > 30), ==, 1);
  size_t mib[4], length = 4;
  EXPECT((mallctlnametomib("arenas.bin.0.size", mib, &length) == 0 && length == 4), ==, 1);
  size_t last = 0;
  for (unsigned i = 0; i < bins; i++) {
    size_t size = 0;
    bytes = sizeof size;
    mib[2] = i;
    EXPECT(mallctlbymib(mib, length, &size, &bytes, NULL, 0), ==, 0);
    EXPECT(size, >, last);
    last = size;
  }
  mib[2] = bins;
  EXPECT(mallctlbymib(mib, length, &last, &bytes, NULL, 0), ==, ENOENT);

  /* 10,000 objects of 100 bytes are 10,000 in the class of 112 */
  static void* objects[10000];
  for (int i = 0; i < 10000; i++) objects[i] = malloc(100);
  next_epoch();
  EXPECT(stat_of("arenas.bin.6.size"), ==, 112);
  const size_t live = stat_of("stats.arenas.0.bins.6.curregs");
  EXPECT((live >= 10000 && live < 10100), ==, 1);
  for (int i = 0; i < 10000; i++) free(objects[i]);
}

static void errors(void) {
  it("what is not there, not to be written, or of another type is an error");
  size_t value = 0, bytes = sizeof value;
  EXPECT(mallctl("nonsense", &value, &bytes, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("stats", &value, &bytes, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("stats.allocated.more", &value, &bytes, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("", &value, &bytes, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("arena.2.purge", NULL, NULL, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("arenas.bin.x.size", &value, &bytes, NULL, 0), ==, ENOENT);
  EXPECT(mallctl("stats.allocated", NULL, NULL, &value, sizeof value), ==, EPERM);
  EXPECT(mallctl("opt.dirty_decay_ms", NULL, NULL, &value, sizeof value), ==, EPERM);
  unsigned small = 0;
  bytes = sizeof small;
  EXPECT(mallctl("stats.allocated", &small, &bytes, NULL, 0), ==, EINVAL);
  EXPECT(bytes, ==, sizeof small);
  bool background = true;
  bytes = sizeof background;
  EXPECT((mallctl("background_thread", &background, &bytes, NULL, 0) == 0 && !background), ==, 1);
  const char* version = NULL;
  bytes = sizeof version;
  EXPECT((mallctl("version", &version, &bytes, NULL, 0) == 0 && strstr(version, "ashlar")), ==, 1);
  ssize_t decay = 0;
  bytes = sizeof decay;
  EXPECT((mallctl("opt.dirty_decay_ms", &decay, &bytes, NULL, 0) == 0 && decay == 1000), ==, 1);
}

static void family(void) {
  it("mallocx and its like align, zero, grow and say the size");
  for (size_t bytes = 1; bytes < 200000; bytes = bytes * 3 / 2 + 1) {
    for (int flags = 0; flags < 3; flags++) {
      const int with = flags == 0 ? 0 : flags == 1 ? kZero | kAlign64 : kZero | kAlign64K;
      unsigned char* const p = mallocx(bytes, with);
      EXPECT(p, !=, NULL);
      EXPECT(sallocx(p, with), ==, nallocx(bytes, with));
      EXPECT(sallocx(p, with), >=, bytes);
      if (flags == 1) EXPECT((uintptr_t)p % 64, ==, 0);
      if (flags == 2) EXPECT((uintptr_t)p % 65536, ==, 0);
      for (size_t i = 0; with != 0 && i < sallocx(p, 0); i++) EXPECT(p[i], ==, 0);
      memset(p, 7, bytes);
      unsigned char* const q = rallocx(p, bytes * 2, with);
      EXPECT((q != NULL && sallocx(q, with) >= bytes * 2), ==, 1);
      for (size_t i = 0; i < bytes; i++) EXPECT(q[i], ==, 7);
      for (size_t i = nallocx(bytes, with); with != 0 && i < bytes * 2; i++) EXPECT(q[i], ==, 0);
      if (flags == 0) {
        dallocx(q, with);
      } else {
        sdallocx(q, bytes * 2, with);
      }
    }
  }
  EXPECT(nallocx(SIZE_MAX, 0), ==, 0);
  EXPECT(mallocx(PTRDIFF_MAX, 0), ==, NULL);

  char* const p = mallocx(1 << 20, 0);
  const size_t now = xallocx(p, 2 << 20, 0, kZero);
  EXPECT((now == 1 << 20 || now == 2 << 20), ==, 1);
  EXPECT(sallocx(p, 0), ==, now);
  if (now == 2 << 20) EXPECT(p[(2 << 20) - 1], ==, 0);
  EXPECT(xallocx(p, 512 << 10, 0, 0), ==, 512 << 10);
  EXPECT(xallocx(p, SIZE_MAX / 2, SIZE_MAX / 4, 0), ==, 512 << 10);
  dallocx(p, 0);
  char* const small = mallocx(100, 0);
  EXPECT(xallocx(small, 5000, 0, 0), ==, 112);
  dallocx(small, 0);
}

static size_t printed;
static void count(void* context, const char* text) {
  EXPECT(context, ==, &printed);
  printed += strlen(text);
}

static void prints(void) {
  it("malloc_stats_print writes through the function it is given");
  malloc_stats_print(count, &printed, NULL);
  EXPECT(printed, >, 500);
  printed = 0;
  malloc_stats_print(count, &printed, "Jmdablxeh");
  EXPECT(printed, >, 100);
}

int main(void) {
  statistics();
  classes();
  errors();
  family();
  prints();
  return verdict();
}
