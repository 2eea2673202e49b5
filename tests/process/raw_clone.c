// SPDX-License-Identifier: MIT
// A child made by the bare system call, in a process whose threads allocate: no fork handler runs
// in it, and it allocates.
#include "expect.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>

enum { thread_count = 4, table_size = 256, children = 300 };
static void* _Atomic table[table_size];
static atomic_int stop;

static void swap_one(uint64_t* random) {
  size_t size = random_below(random, 40) ? random_below(random, 1000) + 1
                                         : random_below(random, 200 * KIB) + 1;
  char* block = malloc(size);
  block[0] = block[size - 1] = 1;
  free(atomic_exchange(&table[random_below(random, table_size)], block));
}

static void* allocate(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  while (!stop) swap_one(&random);
  return NULL;
}

int main(void) {
  must_end_within(50);
  pthread_t threads[thread_count];
  for (size_t i = 0; i < thread_count; i++) pthread_create(&threads[i], NULL, allocate, (void*)i);
  it("the child of a raw clone allocates and frees");
  for (size_t i = 0; i < children && !failures_; i++) {
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (!pid) {
      uint64_t random = i + 1;
      must_end_within(10);
      for (size_t j = 0; j < table_size; j++) free(atomic_exchange(&table[j], NULL));
      for (int j = 0; j < 2000; j++) swap_one(&random);
      _exit(0);
    }
    EXPECT(outcome(pid), ==, 0);
  }
  stop = 1;
  for (size_t i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
  return verdict();
}
