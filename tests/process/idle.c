// SPDX-License-Identifier: MIT
// Threads that free most of what they have and then sleep: without another call, empty pages go
// back, and what the sleepers keep at hand does too.
#include "expect.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

enum { thread_count = 4, rounds = 3, blocks_a_thread = 60000, kept_one_in = 50 };
enum { phases = 8, phase_ms = 150, large_blocks = 16 };
enum { page = 4096, patience_ms = 10000 };

static pthread_barrier_t barrier;
static struct block {
  char* at;
  size_t size;
} blocks[thread_count][blocks_a_thread];

static long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static size_t any_size(uint64_t* random) {
  return random_below(random, 200) ? random_below(random, 1000) + 1
                                   : random_below(random, 100 * KIB) + 1;
}

static void replace(struct block* block, size_t size) {
  free(block->at);
  block->size = size;
  block->at = malloc(block->size);
  memset(block->at, 1, block->size);
}

static void* live(void* number) {
  struct block* mine = blocks[(uintptr_t)number];
  uint64_t random = (uintptr_t)number + 1;
  for (int round = 0; round < rounds; round++) {
    for (size_t i = 0; i < blocks_a_thread; i++) replace(&mine[i], any_size(&random));
    for (size_t i = 0; i < blocks_a_thread; i++)
      if (random_below(&random, kept_one_in)) free(mine[i].at), mine[i].size = 0;
    pthread_barrier_wait(&barrier);  // now it sleeps, while main looks
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < blocks_a_thread; i++)
      if (!mine[i].size) mine[i].at = NULL;
  }
  return NULL;
}

// Of the pages that held a block, per mille of those that hold none now and are in memory.
static long empty_and_resident(const char* begin, const char* end) {
  size_t pages = (size_t)(end - begin) / page, empty = 0, resident = 0;
  unsigned char* const seen =
      mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  enum { held_one = 1, holds_one = 2 };
  for (size_t t = 0; t < thread_count; t++) {
    for (size_t i = 0; i < blocks_a_thread; i++) {
      struct block* block = &blocks[t][i];
      size_t first = (size_t)(block->at - begin) / page,
             last = (size_t)(block->at + (block->size ? block->size - 1 : 0) - begin) / page;
      for (size_t p = first; p <= last; p++) seen[p] |= block->size ? holds_one : held_one;
    }
  }
  for (size_t p = 0; p < pages; p++) {
    unsigned char present = 0;
    if (seen[p] != held_one) continue;
    empty++;
    resident += mincore((void*)(begin + p * page), page, &present) == 0 && (present & 1);
  }
  munmap(seen, pages);
  EXPECT(empty, >, 1000);
  return (long)(resident * 1000 / empty);
}

// Work that leaves nothing to give back, and then all at once a lot.
static void* churn_and_free(void* milliseconds) {
  enum { batch = 3000 };
  void *some[batch], *large[large_blocks];
  for (size_t i = 0; i < large_blocks; i++) memset(large[i] = malloc(5 * MIB / 2), 1, 5 * MIB / 2);
  for (long end = now_ms() + (intptr_t)milliseconds; now_ms() < end; usleep(2000)) {
    for (size_t i = 0; i < batch; i++) some[i] = malloc(64);
    for (size_t i = 0; i < batch; i++) free(some[i]);
  }
  for (size_t i = 0; i < large_blocks; i++) free(large[i]);
  return pause(), NULL;
}

static void frees_in_a_phase(void* milliseconds) {
  pthread_t thread;
  pthread_create(&thread, NULL, churn_and_free, milliseconds);
  usleep((useconds_t)(intptr_t)milliseconds * 1000 + 300000);
  for (int i = 0; i < patience_ms / 100 && status_kib("VmRSS:") > 10000; i++) usleep(100000);
  EXPECT(status_kib("VmRSS:"), <=, 10000);
}

static void free_in_all_phases(void) {
  pid_t children[phases];
  for (int i = 0; i < phases; i++) {
    children[i] = fork();
    if (!children[i]) _exit(in_child(frees_in_a_phase, (void*)(intptr_t)(2000 + i * phase_ms), 30));
  }
  for (int i = 0; i < phases; i++) EXPECT(outcome(children[i]), ==, 0);
}

// So seldom that the thread gets no lane; our own thread fell asleep in between.
static void* free_now_and_then(void* unused) {
  enum { count = 800 };
  static void* objects[count];
  for (int i = 0; i < count; i++, usleep(500)) memset(objects[i] = malloc(30000), 1, 30000);
  usleep(2500000);
  for (int i = 0; i < count; i++, usleep(500)) free(objects[i]);
  return pause(), unused;
}

static void frees_now_and_then(void* unused) {
  pthread_t thread;
  free(malloc(1));
  pthread_create(&thread, NULL, free_now_and_then, unused);
  for (int i = 0; i < patience_ms / 100 && status_kib("VmRSS:") < 20000; i++) usleep(100000);
  EXPECT(status_kib("VmRSS:"), >=, 20000);
  for (int i = 0; i < patience_ms / 100 && status_kib("VmRSS:") > 10000; i++) usleep(100000);
  EXPECT(status_kib("VmRSS:"), <=, 10000);
}

int main(void) {
  must_end_within(150);
  it("what a thread without a lane frees goes back");
  EXPECT(in_child(frees_now_and_then, NULL, 30), ==, 0);
  it("what is freed in any phase of anybody's period goes back");
  free_in_all_phases();
  pthread_t threads[thread_count];
  pthread_barrier_init(&barrier, NULL, thread_count + 1);
  for (size_t t = 0; t < thread_count; t++) pthread_create(&threads[t], NULL, live, (void*)t);
  for (int round = 0; round < rounds; round++) {
    pthread_barrier_wait(&barrier);
    const char *begin = (char*)UINTPTR_MAX, *end = NULL;
    for (size_t t = 0; t < thread_count; t++) {
      for (size_t i = 0; i < blocks_a_thread; i++) {
        const struct block* block = &blocks[t][i];
        if (block->at < begin) begin = block->at;
        if (block->at + block->size > end) end = block->at + block->size + 1;
      }
    }
    begin = (char*)((uintptr_t)begin / page * page);
    end = (char*)(((uintptr_t)end + page - 1) / page * page);
    long const start = now_ms();
    long left = 1000;
    while (left > 50 && now_ms() < start + patience_ms)
      usleep(100000), left = empty_and_resident(begin, end);
    it("of the pages without a block, 95 % leave memory within ten seconds");
    EXPECT(left, <=, 50);
    it("a thread that sleeps keeps 64 KiB at hand at most");
    size_t at_hand = 0;
    while ((at_hand = mallinfo2().fsmblks) > thread_count * 64 * KIB &&
           now_ms() < start + patience_ms)
      usleep(100000);
    EXPECT(at_hand, <=, thread_count * 64 * KIB);
    pthread_barrier_wait(&barrier);
  }
  for (size_t t = 0; t < thread_count; t++) pthread_join(threads[t], NULL);
  return verdict();
}
