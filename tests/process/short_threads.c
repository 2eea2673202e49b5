// SPDX-License-Identifier: MIT
// 20,000 threads that live for a moment, and thousands whose blocks are freed by others after they
// are gone.
#include "expect.h"

#include <pthread.h>
#include <unistd.h>

enum { together = 4, short_lived = 20000, parents = 4000, children_each = 16 };

static void* live_shortly(void* seed) {
  uint64_t random = (uintptr_t)seed * 2 + 1;
  char* blocks[20];
  size_t sizes[20];
  for (size_t i = 0; i < 20; i++) {
    sizes[i] = random_below(&random, i % 7 ? 500 : 40000) + 1;
    fill(blocks[i] = malloc(sizes[i]), 0, sizes[i], i);
  }
  for (size_t i = 0; i < 20; i++) {
    EXPECT(kept(blocks[i], sizes[i], i), ==, sizes[i]);
    free(blocks[i]);
  }
  return NULL;
}

static void run(size_t count) {
  pthread_t threads[together];
  for (size_t i = 0; i < count; i += together) {
    for (size_t j = 0; j < together; j++)
      pthread_create(&threads[j], NULL, live_shortly, (void*)(i + j));
    for (size_t j = 0; j < together; j++) pthread_join(threads[j], NULL);
  }
}

static char* orphans[parents][children_each];

static size_t orphan_size(size_t parent, size_t child) {
  return 16 + (parent * 37 + child * 401) % 2000;
}

static void* leave_orphans(void* which) {
  size_t parent = (uintptr_t)which;
  for (size_t child = 0; child < children_each; child++) {
    size_t size = orphan_size(parent, child);
    fill(orphans[parent][child] = malloc(size), 0, size, parent + child);
  }
  return NULL;
}

// Frees every second orphan, from its own first one on.
static void* adopt(void* first) {
  for (size_t i = (uintptr_t)first; i < (size_t)parents * children_each; i += 2) {
    size_t parent = i / children_each, child = i % children_each, size = orphan_size(parent, child);
    EXPECT(kept(orphans[parent][child], size, parent + child), ==, size);
    free(orphans[parent][child]);
  }
  return NULL;
}

static void generation(void) {
  pthread_t threads[together];
  for (size_t i = 0; i < parents; i += together) {
    for (size_t j = 0; j < together; j++)
      pthread_create(&threads[j], NULL, leave_orphans, (void*)(i + j));
    for (size_t j = 0; j < together; j++) pthread_join(threads[j], NULL);
  }
  for (size_t j = 0; j < 2; j++) pthread_create(&threads[j], NULL, adopt, (void*)j);
  for (size_t j = 0; j < 2; j++) pthread_join(threads[j], NULL);
}

int main(void) {
  it("20,000 short-lived threads cost no more memory than the first 1,000, give or take 4 MiB");
  run(1000);
  long before = status_kib("VmRSS:");
  run(short_lived - 1000);
  // What the lanes keep at hand goes back when no thread comes for it.
  for (int i = 0; i < 50 && status_kib("VmRSS:") - before >= 4096; i++) usleep(100000);
  EXPECT(status_kib("VmRSS:") - before, <, 4096);

  it("blocks outlive their thread, whoever frees them, and their memory is used again");
  generation();
  long first = status_kib("VmHWM:");
  for (int i = 0; i < 3; i++) generation();
  EXPECT(status_kib("VmHWM:"), <, first * 5 / 4 + 4096);
  return verdict();
}
