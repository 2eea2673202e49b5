/* SPDX-License-Identifier: MIT
 *
 * libashlar_je.a in a program as Redis uses its jemalloc: je_ names, the C library's malloc beside
 * them, and active defragmentation past the caches.
 */
#include <jemalloc/jemalloc.h>
#include <malloc.h>

#include "expect.h"

enum { kObjects = 100000 };

static void* objects[kObjects];

static size_t stat_of(const char* name) {
  uint64_t epoch = 1;
  size_t value = 0, bytes = sizeof epoch;
  EXPECT(je_mallctl("epoch", &epoch, &bytes, &epoch, bytes), ==, 0);
  EXPECT(je_mallctl(name, &value, &bytes, NULL, 0), ==, 0);
  return value;
}

static double fragmentation(void) {
  return (double)stat_of("stats.active") / (double)stat_of("stats.allocated");
}

static void two_heaps(void) {
  it("the C library's malloc is still the program's");
  Dl_info info;
  EXPECT(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0, ==, 1);
  EXPECT(strstr(info.dli_fname, "libc.so") != NULL, ==, 1);
  const size_t before = stat_of("stats.allocated");
  void* const theirs = malloc(10 * MIB);
  EXPECT(stat_of("stats.allocated"), ==, before);
  void* const ours = je_malloc(10 * MIB);
  EXPECT(stat_of("stats.allocated"), ==, before + 10 * MIB);
  free(theirs);
  je_free(ours);
}

static void family(void) {
  it("the family does what malloc's does");
  char* p = je_calloc(10, 100);
  for (int i = 0; i < 1000; i++) EXPECT(p[i], ==, 0);
  EXPECT(je_malloc_usable_size(p), ==, je_nallocx(1000, 0));
  p = je_realloc(p, 5000);
  EXPECT(je_malloc_usable_size(p), >=, 5000);
  je_free(p);
  EXPECT(je_calloc(SIZE_MAX, 2) == NULL, ==, 1);
  EXPECT((uintptr_t)je_aligned_alloc(4096, 10) % 4096, ==, 0);
  EXPECT(je_aligned_alloc(3, 10) == NULL && errno == EINVAL, ==, 1);
  void* q = NULL;
  EXPECT(je_posix_memalign(&q, 64, 10), ==, 0);
  EXPECT((uintptr_t)q % 64, ==, 0);
  EXPECT(je_posix_memalign(&q, 3, 10), ==, EINVAL);
  je_sdallocx(q, 10, 0);
  EXPECT(je_malloc_usable_size(NULL), ==, 0);
  EXPECT(je_realloc(je_malloc(1), 0) == NULL, ==, 1);
}

static void past_the_cache(void) {
  it("without a cache, a freed slot is free at once, and alignment and zeroes are kept");
  for (size_t bytes = 1; bytes < 200000; bytes = bytes * 2 + 1) {
    for (int power = 0; power < 15; power += 7) {
      const int flags = MALLOCX_TCACHE_NONE | MALLOCX_LG_ALIGN(power) | MALLOCX_ZERO;
      char* const p = je_mallocx(bytes, flags);
      EXPECT((uintptr_t)p % ((size_t)1 << power), ==, 0);
      EXPECT(je_sallocx(p, flags), ==, je_nallocx(bytes, flags));
      EXPECT(p[0] | p[bytes / 2] | p[bytes - 1], ==, 0);
      memset(p, 1, bytes);
      char* const q = je_rallocx(p, 2 * bytes, flags);
      EXPECT(q[0] == 1 && q[bytes - 1] == 1 && q[2 * bytes - 1] == 0, ==, 1);
      je_dallocx(q, flags);
    }
  }
}

/* One object after the other, as Redis does it. */
static size_t go_round(void) {
  size_t moved = 0;
  for (size_t i = 0; i < kObjects; i++) {
    if (objects[i] == NULL || !je_get_defrag_hint(objects[i])) continue;
    const size_t bytes = je_malloc_usable_size(objects[i]);
    void* const to = je_mallocx(bytes, MALLOCX_TCACHE_NONE);
    EXPECT(to != objects[i], ==, 1);
    EXPECT(je_malloc_usable_size(to), ==, bytes);
    memcpy(to, objects[i], bytes);
    je_dallocx(objects[i], MALLOCX_TCACHE_NONE);
    objects[i] = to;
    moved++;
  }
  return moved;
}

static void defragmentation(void) {
  it("a program that defragments itself gets its memory back");
  uint64_t seed = 1;
  for (size_t i = 0; i < kObjects; i++) {
    objects[i] = je_malloc(16 + i % 500);
    fill(objects[i], 0, 16 + i % 500, i);
  }
  for (size_t i = 0; i < kObjects; i++) {
    if (random_below(&seed, 3) == 0) continue;
    je_free(objects[i]);
    objects[i] = NULL;
  }
  EXPECT(fragmentation() > 1.4, ==, 1);
  for (int i = 0; i < 20; i++) {
    go_round();
    usleep(110 * 1000);
  }
  EXPECT(fragmentation() < 1.2, ==, 1);
  EXPECT(go_round() < kObjects / 100, ==, 1); /* nothing is moved to and fro */
  for (size_t i = 0; i < kObjects; i++) {
    if (objects[i] != NULL) EXPECT(kept(objects[i], 16 + i % 500, i), ==, 16 + i % 500);
    je_free(objects[i]);
  }
}

int main(void) {
  two_heaps();
  family();
  past_the_cache();
  defragmentation();
  return verdict();
}
