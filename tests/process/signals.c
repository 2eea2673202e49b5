// SPDX-License-Identifier: MIT
// A storm of signals on small alternate stacks, 5,000 a second for each thread, while the threads
// allocate; then a storm of cancellations. Nothing hangs, nothing is lost.
#include "expect.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

enum { thread_count = 4, storm_seconds = 2, cancelled_threads = 2000, cleanup_blocks = 8 };

static atomic_long signals_seen;
static atomic_int stop, cleaned_up;
static _Thread_local volatile char on_signal_stack;

static void count_signal(int signal) {
  volatile char stack[4096];  // some work, on the alternate stack
  stack[0] = (char)signal, on_signal_stack = stack[0];
  signals_seen++;
}

static timer_t storm_on_this_thread(void) {
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  struct itimerspec every = {{0, 200000}, {0, 200000}};
  timer_t timer;
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  timer_settime(timer, 0, &every, NULL);
  return timer;
}

static void* allocate_in_the_storm(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  char* blocks[100] = {0};
  size_t sizes[100] = {0};
  stack_t stack = {.ss_sp = malloc(16 * KIB), .ss_size = 16 * KIB}, none = {.ss_flags = SS_DISABLE};
  sigaltstack(&stack, NULL);
  timer_t timer = storm_on_this_thread();
  while (!stop) {
    size_t slot = random_below(&random, 100), old = sizes[slot];
    size_t size = random_below(&random, random_below(&random, 50) ? 1500 : 200 * KIB) + 1,
           common = old < size ? old : size;
    blocks[slot] = realloc(blocks[slot], size);
    EXPECT(kept(blocks[slot], common, slot), ==, common);
    fill(blocks[slot], common, sizes[slot] = size, slot);
    if (random_below(&random, 4) == 0) free(blocks[slot]), blocks[slot] = NULL, sizes[slot] = 0;
  }
  timer_delete(timer);
  sigaltstack(&none, NULL);
  free(stack.ss_sp);
  for (int i = 0; i < 100; i++) free(blocks[i]);
  return NULL;
}

static void clean_up(void* blocks) {
  for (int i = 0; i < cleanup_blocks; i++) free(((void**)blocks)[i]);
  cleaned_up++;
}

// Cancelled wherever it passes a cancellation point: malloc and free must not be one, or the
// cleanup would free twice.
static void* allocate_until_cancelled(void* seed) {
  static _Thread_local uint64_t random;
  random = (uintptr_t)seed + 1;
  void* blocks[cleanup_blocks] = {0};
  pthread_cleanup_push(clean_up, blocks);
  for (;;) {
    for (int i = 0; i < 100; i++) {
      size_t slot = random_below(&random, cleanup_blocks),
             size = random_below(&random, i ? 3000 : 500 * KIB) + 1;
      free(blocks[slot]);
      blocks[slot] = malloc(size);
      memset(blocks[slot], 1, size);
    }
    pthread_testcancel();
  }
  pthread_cleanup_pop(0);
  return NULL;
}

int main(void) {
  must_end_within(60);
  pthread_t threads[thread_count];
  struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  it("blocks keep their contents in a storm of signals");
  for (size_t i = 0; i < thread_count; i++)
    pthread_create(&threads[i], NULL, allocate_in_the_storm, (void*)i);
  sleep(storm_seconds);
  stop = 1;
  for (size_t i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
  EXPECT(signals_seen, >, 1000);

  it("cancelled threads clean up, and what they held is used again");
  long before = 0;
  for (size_t i = 0; i < cancelled_threads; i += 2) {
    pthread_t pair[2];
    void* result[2];
    for (size_t j = 0; j < 2; j++)
      pthread_create(&pair[j], NULL, allocate_until_cancelled, (void*)(i + j));
    if (i % 8) usleep(100);
    for (size_t j = 0; j < 2; j++) pthread_cancel(pair[j]);
    for (size_t j = 0; j < 2; j++) {
      pthread_join(pair[j], &result[j]);
      EXPECT(result[j], ==, PTHREAD_CANCELED);
    }
    if (i == cancelled_threads / 4) before = status_kib("VmRSS:");
  }
  EXPECT(status_kib("VmRSS:") - before, <, 8192);
  it("every cancelled thread that had started ran its cleanup");
  EXPECT(cleaned_up, >, cancelled_threads / 4);
  return verdict();
}
