// SPDX-License-Identifier: MIT
// Threads that free and never allocate: with 45 MiB live at any time, memory must not grow beyond
// half as much again.
#include "expect.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { ring_size = 180000, blocks_total = 3000000, batch = 20000 };  // 180,000 × 262 bytes = 45 MiB
#define LIVE (45 * MIB)

static char* ring[ring_size];
static atomic_size_t produced, freed;

static size_t size_of(size_t i) { return 8 + i * 7919 % 509; }

static void produce(size_t until) {
  for (size_t i = produced; i < until; i++) {
    while (i - atomic_load(&freed) >= ring_size) sched_yield();
    fill(ring[i % ring_size] = malloc(size_of(i)), 0, size_of(i) > 32 ? 32 : size_of(i), i);
    atomic_store(&produced, i + 1);
  }
}

// Frees the oldest blocks until `until` are gone in all.
static void* consume(void* until) {
  for (size_t i = freed; i < (uintptr_t)until; i++) {
    while (atomic_load(&produced) <= i) sched_yield();
    EXPECT(kept(ring[i % ring_size], size_of(i) > 32 ? 32 : size_of(i), i), ==,
           size_of(i) > 32 ? 32 : size_of(i));
    free(ring[i % ring_size]);
    atomic_store(&freed, i + 1);
  }
  return NULL;
}

int main(void) {
  pthread_t consumer;
  it("one thread allocates and another frees: 45 MiB live never take more than 68 MiB");
  produce(ring_size);
  pthread_create(&consumer, NULL, consume, (void*)(uintptr_t)(blocks_total / 2));
  produce(blocks_total / 2 + ring_size);
  pthread_join(consumer, NULL);
  EXPECT(status_kib("VmHWM:"), <=, LIVE / KIB * 3 / 2);

  it("a new thread for every 20,000 frees: 45 MiB live never take more than 68 MiB");
  for (size_t i = blocks_total / 2; i < blocks_total; i += batch) {
    pthread_create(&consumer, NULL, consume, (void*)(i + batch));
    produce(i + batch + ring_size);
    pthread_join(consumer, NULL);
  }
  EXPECT(status_kib("VmHWM:"), <=, LIVE / KIB * 3 / 2);
  return verdict();
}
