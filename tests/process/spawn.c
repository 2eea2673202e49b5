// SPDX-License-Identifier: MIT
// vfork and posix_spawn from a process whose threads allocate: the child borrows the parent's
// memory and must leave no trace.
#include "expect.h"

#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>

enum { thread_count = 4, children = 150 };
static atomic_int stop;

static void* allocate(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  void* blocks[64] = {0};
  while (!stop) {
    size_t slot = random_below(&random, 64);
    free(blocks[slot]);
    memset(blocks[slot] = malloc(slot * 100 + 1), 1, slot * 100 + 1);
  }
  for (int i = 0; i < 64; i++) free(blocks[i]);
  return NULL;
}

int main(void) {
  must_end_within(50);
  pthread_t threads[thread_count];
  for (size_t i = 0; i < thread_count; i++) pthread_create(&threads[i], NULL, allocate, (void*)i);
  char* const command[] = {"sh", "-c", "exit 7", NULL};
  for (int i = 0; i < children && !failures_; i++) {
    pid_t pid;
    it("posix_spawn starts a program, and the parent goes on allocating");
    EXPECT(posix_spawn(&pid, "/bin/sh", NULL, NULL, command, environ), ==, 0);
    free(malloc((size_t)i * 100));
    EXPECT(outcome(pid), ==, 7);
    it("a child of vfork execs, and the parent goes on allocating");
    pid = vfork();
    if (!pid) execv("/bin/sh", command), _exit(9);
    free(malloc((size_t)i * 1000));
    EXPECT(outcome(pid), ==, 7);
    it("system() and popen() work");
    if (i % 10 == 0) {
      EXPECT(WEXITSTATUS(system("exit 5")), ==, 5);
      FILE* pipe = popen("echo spoken", "r");
      char line[20] = "";
      EXPECT(pipe && fgets(line, sizeof line, pipe) && !strcmp(line, "spoken\n"), ==, 1);
      EXPECT(WEXITSTATUS(pclose(pipe)), ==, 0);
    }
  }
  stop = 1;
  for (size_t i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
  return verdict();
}
