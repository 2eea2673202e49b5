// SPDX-License-Identifier: MIT
// After a fork, threads of the child lease what threads of the parent left behind, and free what
// those had allocated.
#include <pthread.h>

#include "expect.h"

enum { count = 200, bytes = 500 };
static char* objects[count];
static pthread_barrier_t allocated;

static void* allocate(void* unused) {
  for (int i = 0; i < count; i++) {
    objects[i] = malloc(bytes);
    memset(objects[i], i, bytes);
  }
  pthread_barrier_wait(&allocated);
  for (;;) pause();
  return unused;
}

// Enough calls of other sizes to be worth a lane; then the first of this size is a free.
static void* free_theirs(void* unused) {
  for (size_t size = 16; size <= 400; size += 16) free(malloc(size));
  for (int i = 0; i < count; i += 2) free(objects[i]);
  static char* mine[count];
  for (int i = 0; i < count; i++) {
    mine[i] = malloc(bytes);
    memset(mine[i], 0x55, bytes);
  }
  for (int i = 1; i < count; i += 2) {
    EXPECT(objects[i][0], ==, (char)i);
    EXPECT(objects[i][bytes - 1], ==, (char)i);
    free(objects[i]);
  }
  for (int i = 0; i < count; i++) free(mine[i]);
  return unused;
}

static int live_on(void) {
  must_end_within(20);
  pthread_t thread;
  EXPECT(pthread_create(&thread, NULL, free_theirs, NULL), ==, 0);
  pthread_join(thread, NULL);
  return verdict();
}

int main(void) {
  pthread_t thread;
  pthread_barrier_init(&allocated, NULL, 2);
  it("a thread of the child frees objects of a thread that is gone");
  EXPECT(pthread_create(&thread, NULL, allocate, NULL), ==, 0);
  pthread_barrier_wait(&allocated);
  pid_t child = fork();
  if (child == 0) _exit(live_on());
  EXPECT(outcome(child), ==, 0);
  return verdict();
}
