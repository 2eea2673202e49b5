// SPDX-License-Identifier: MIT
// Under a limit on the address space, or on data, a program starts, can use nine tenths of the
// limit, is refused with ENOMEM beyond it, and goes on after it has freed some.
#include "expect.h"

#include <sys/resource.h>

enum { block_size = 64 * 1024 };

typedef struct Block {
  struct Block* next;
} Block;

static size_t used;

static Block* take_all(Block* list) {
  for (;;) {
    errno = 0;
    Block* block = malloc(block_size);
    if (!block) break;
    block->next = list;
    list = block;
    used += block_size;
  }
  EXPECT(errno, ==, ENOMEM);
  return list;
}

static Block* free_every_second(Block* list) {
  for (Block* block = list; block && block->next; block = block->next) {
    Block* second = block->next;
    block->next = second->next;
    free(second);
    used -= block_size;
  }
  return list;
}

// Every other way to ask must be refused in the same way.
static void all_are_refused(size_t size) {
  void* untouched = NULL;
  char* small = malloc(1);  // may be null, too
  errno = 0;
  EXPECT(calloc(1, size), ==, 0);
  EXPECT(errno, ==, ENOMEM);
  errno = 0;
  EXPECT(realloc(small, size), ==, 0);
  EXPECT(errno, ==, ENOMEM);
  errno = 0;
  EXPECT(aligned_alloc(4096, size), ==, 0);
  EXPECT(errno, ==, ENOMEM);
  EXPECT(posix_memalign(&untouched, 4096, size), ==, ENOMEM);
  EXPECT(untouched, ==, 0);
  free(small);
}

static void live_within(size_t limit) {
  it("nine tenths of the limit are usable in blocks of 64 KiB, then ENOMEM");
  Block* list = take_all(NULL);
  EXPECT(used, >=, limit / 10 * 9);
  size_t const most = used;
  it("every function is refused with ENOMEM when memory has run out");
  all_are_refused(limit / 4);
  it("after every second block was freed, nine tenths of them can be had again");
  list = free_every_second(list);
  EXPECT(used, <=, most / 2 + block_size);
  list = take_all(list);
  EXPECT(used, >=, most / 10 * 9);
  it("when all are freed, one block of a quarter of the limit can be had");
  while (list) {
    Block* next = list->next;
    free(list);
    list = next;
  }
  void* quarter = malloc(limit / 4);
  EXPECT(quarter != NULL, ==, 1);
  free(quarter);
  it("blocks of half and of seven tenths of the limit take turns");
  for (int i = 0; i < 40; i++) {
    char* large = malloc(limit / 10 * (i % 2 ? 7 : 5));
    EXPECT(large != NULL, ==, 1);
    if (!large) return;
    large[0] = large[limit / 10 * 5 - 1] = 1;
    free(large);
  }
}

static int run_limited(const char* kind, size_t limit) {
  char text[32];
  snprintf(text, sizeof text, "%zu", limit);
  pid_t child = fork();
  if (child) return outcome(child);
  must_end_within(60);
  struct rlimit both = {limit, limit};
  setrlimit(*kind == 'd' ? RLIMIT_DATA : RLIMIT_AS, &both);
  execl("/proc/self/exe", kind, text, NULL);
  _exit(9);
}

int main(int argc, char** argv) {
  if (argc > 1) {
    live_within(strtoull(argv[1], NULL, 0));
    return verdict();
  }
  static const size_t limits[] = {64 * 1024 * 1024, 128 * 1024 * 1024, 512 * 1024 * 1024,
                                  4096ull * 1024 * 1024};
  for (size_t i = 0; i < 4; i++) {
    char text[80];
    it(text);
    snprintf(text, sizeof text, "it lives within an address space of %zu MiB", limits[i] / MIB);
    EXPECT(run_limited("address space", limits[i]), ==, 0);
    snprintf(text, sizeof text, "it lives within %zu MiB of data", limits[i] / MIB);
    EXPECT(run_limited("data", limits[i]), ==, 0);
    it("limits");
  }
  return verdict();
}
