// SPDX-License-Identifier: MIT
// 10,000 threads alive at once, each with a few small blocks, fit in 150 MB of resident memory.
#include "expect.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

enum { thread_count = 10000 };
static const size_t sizes[] = {16, 32, 48, 80, 112, 160, 256, 384, 640, 1024};
enum { size_count = sizeof sizes / sizeof *sizes };

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;  // held until everyone has been counted
static atomic_int waiting;

static void* live(void* unused) {
  char* blocks[size_count];
  for (size_t i = 0; i < size_count; i++) memset(blocks[i] = malloc(sizes[i]), 1, sizes[i]);
  atomic_fetch_add(&waiting, 1);
  pthread_mutex_lock(&gate);
  pthread_mutex_unlock(&gate);
  for (size_t i = 0; i < size_count; i++) free(blocks[i]);
  return unused;
}

int main(void) {
  static pthread_t threads[thread_count];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
  pthread_mutex_lock(&gate);
  int started = 0;
  while (started < thread_count && !pthread_create(&threads[started], &attributes, live, NULL))
    started++;
  while (atomic_load(&waiting) < started) usleep(1000);
  long resident = status_kib("VmRSS:");
  pthread_mutex_unlock(&gate);
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  if (started < thread_count)
    return skip("this machine does not let a process have 10,000 threads");
  it("10,000 live threads with ten small blocks each fit in 150 MB");
  EXPECT(resident * 1024, <=, 150000000);
  return verdict();
}
