// SPDX-License-Identifier: MIT
// fork in a process where eight threads allocate, two of them through stdio, and where fork
// handlers of the program allocate too: every child can allocate, and can free blocks that belong
// to threads it does not have.
//
//   fork_threads [FORKS]
#include "expect.h"

#include <pthread.h>
#include <stdatomic.h>

enum { thread_count = 8, table_size = 512, seconds_a_child = 20 };

static void* _Atomic table[table_size];  // whoever swaps a block out owns it
static atomic_int stop;
static void* held_over_fork;

static void before_fork(void) { held_over_fork = malloc(300); }
static void after_fork(void) {
  free(held_over_fork);
  free(malloc(300));
}

static size_t any_size(uint64_t* random) {
  return random_below(random, 30) ? random_below(random, 2000) + 1
                                  : random_below(random, 300 * KIB) + 1;
}

static void swap_one(uint64_t* random) {
  size_t size = any_size(random);
  char* block = random_below(random, 2) ? malloc(size) : realloc(malloc(50), size);
  block[0] = block[size - 1] = 1;
  free(atomic_exchange(&table[random_below(random, table_size)], block));
}

static void* allocate(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  while (!stop) {
    for (int i = 0; i < 200; i++) swap_one(&random);
    usleep(50);  // leave a processor to the thread that forks
  }
  return NULL;
}

static void* use_stdio(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  while (!stop) {
    FILE* stream = fopen("/dev/null", "w");
    fprintf(stream, "%s %d\n", "some text for nobody", 42);
    fflush(NULL);
    fclose(stream);
    swap_one(&random);
    usleep(50);
  }
  return NULL;
}

static void* nothing(void* unused) { return malloc(100), unused; }

static void child(size_t number) {
  uint64_t random = number + 1;
  for (size_t i = 0; i < table_size; i++) free(atomic_exchange(&table[i], NULL));
  for (int i = 0; i < 1000; i++) swap_one(&random);
  if (number % 8 == 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
  }
  if (number % 16 == 0) {  // and a grandchild
    pid_t grandchild = fork();
    if (!grandchild) swap_one(&random), _exit(0);
    if (outcome(grandchild)) _exit(3);
  }
}

int main(int argc, char** argv) {
  must_end_within(100);
  size_t forks = argc > 1 ? strtoul(argv[1], NULL, 0) : 500;
  pthread_t threads[thread_count];
  pthread_atfork(before_fork, after_fork, after_fork);
  for (size_t i = 0; i < thread_count; i++)
    pthread_create(&threads[i], NULL, i % 4 ? allocate : use_stdio, (void*)i);
  it("a child of a process with eight allocating threads allocates, frees and exits");
  for (size_t i = 0; i < forks && !failures_; i++) {
    pid_t pid = fork();
    if (!pid) {
      must_end_within(seconds_a_child);
      child(i);
      if (i % 2) _exit(0);
      exit(0);
    }
    EXPECT(outcome(pid), ==, 0);
  }
  stop = 1;
  for (size_t i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
  for (size_t i = 0; i < table_size; i++) free(table[i]);
  return verdict();
}
