// SPDX-License-Identifier: MIT
// The doors to heaps of one's own, from C.
#include <ashlar/ashlar.h>
#include <malloc.h>
#include <sys/mman.h>

#include "expect.h"

static int refusals;
static int refuse(void* context, size_t bytes) {
  (void)bytes;
  refusals += context == &refusals;
  return 0;
}

int main(void) {
  it("objects of a heap are objects");
  ashlar_heap* heap = ashlar_heap_create(NULL);
  EXPECT(heap != NULL, ==, 1);
  char* p = ashlar_heap_malloc(heap, 100);
  EXPECT(ashlar_heap_usable_size(heap, p), >=, 100);
  EXPECT(malloc_usable_size(p), >=, 100);
  memset(p, 7, 100);
  p = ashlar_heap_realloc(heap, p, MIB);
  EXPECT(p[99], ==, 7);
  EXPECT((uintptr_t)ashlar_heap_memalign(heap, 3000, 10) % 4096, ==, 0);
  EXPECT(ashlar_heap_realloc(heap, ashlar_heap_realloc(heap, NULL, 10), 0) == NULL, ==, 1);
  ashlar_heap_free(heap, NULL);
  EXPECT(ashlar_heap_usable_size(heap, NULL), ==, 0);
  EXPECT(ashlar_heap_malloc(heap, 0) != NULL, ==, 1);

  it("realloc() may take an object out of its heap");
  ashlar_heap_stats stats;
  ashlar_heap_get_stats(heap, &stats);
  EXPECT(stats.objects, ==, 3);
  p = realloc(p, 2 * MIB);
  EXPECT(p[99], ==, 7);
  ashlar_heap_get_stats(heap, &stats);
  EXPECT(stats.objects, ==, 2);
  free(p);

  it("a destroyed heap's memory is given back, unasked");
  ashlar_stats before, after;
  ashlar_get_stats(&before);
  for (int i = 0; i < 100; i++) memset(ashlar_heap_malloc(heap, MIB), 1, MIB);
  for (int i = 0; i < 100000; i++) memset(ashlar_heap_malloc(heap, 100), 1, 100);
  ashlar_heap_destroy(heap);
  malloc_trim(0);
  ashlar_get_stats(&after);
  EXPECT(after.allocated, <=, before.allocated);
  EXPECT(after.resident, <=, before.resident + MIB);

  it("what cannot be is refused");
  errno = 0;
  ashlar_heap_policy policy = {.context = &refusals, .out_of_memory = refuse};
  heap = ashlar_heap_create(&policy);
  EXPECT(ashlar_heap_malloc(heap, SIZE_MAX) == NULL, ==, 1);
  EXPECT(errno, ==, ENOMEM);
  EXPECT(ashlar_heap_malloc(heap, SIZE_MAX / 4096) == NULL, ==, 1);
  EXPECT(ashlar_heap_memalign(heap, SIZE_MAX, 1) == NULL, ==, 1);
  EXPECT(errno, ==, EINVAL);
  EXPECT(ashlar_heap_malloc(heap, (size_t)1 << 40) == NULL, ==, 1);
  EXPECT(refusals, ==, 1);
  ashlar_heap_destroy(heap);

  it("a heap on memory of the caller's leaves it to him");
  size_t bytes = 8 * MIB;
  char* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  heap = ashlar_heap_create_in(memory, bytes);
  EXPECT(heap != NULL, ==, 1);
  p = ashlar_heap_malloc(heap, 1000);
  EXPECT(p >= memory && p < memory + bytes, ==, 1);
  ashlar_heap_destroy(heap);
  memset(memory, 1, bytes);
  munmap(memory, bytes);

  it("thousands of heaps are cheap");
  ashlar_get_stats(&before);
  static ashlar_heap* many[2000];
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 2000; i++) {
      many[i] = ashlar_heap_create(NULL);
      memset(ashlar_heap_malloc(many[i], 64), 1, 64);
    }
    for (int i = 0; i < 2000; i++) ashlar_heap_destroy(many[i]);
  }
  malloc_trim(0);
  ashlar_get_stats(&after);
  EXPECT(after.resident, <, before.resident + 2000 * 8 * KIB);
  return verdict();
}
