// SPDX-License-Identifier: MIT
// A program closes every file descriptor that it may have inherited, as daemons do, and goes on;
// and another starts with none.
#include "expect.h"

#include <pthread.h>

// What works without any descriptor; the number of what did not, as stderr is gone too.
static void* allocate(void* unused) {
  for (size_t size = 1; size < 20 * MIB; size = size * 3 / 2 + 1) {
    char* block = size % 2 ? malloc(size) : calloc(1, size);
    if (!block) _exit(2);
    block[size - 1] = 1;
    if (!(block = realloc(block, size * 2)) || block[size - 1] != 1) _exit(3);
    free(block);
  }
  return unused;
}

static void work(void) {
  allocate(NULL);
  pthread_t thread;
  if (pthread_create(&thread, NULL, allocate, NULL) || pthread_join(thread, NULL)) _exit(4);
  pid_t child = fork();
  if (!child) allocate(NULL), _exit(0);
  if (outcome(child)) _exit(5);
  if (open("/dev/null", O_RDONLY) != 0) _exit(6);  // somebody took a descriptor and kept it
  allocate(NULL);
}

static void close_all(void) {
  for (int fd = 0; fd < 1024; fd++) close(fd);
}

static void close_and_work(void* unused) {
  (void)unused;
  free(malloc(100));
  close_all();
  work();
}

static void close_and_exec(void* path) {
  close_all();
  execl(path, path, "work", NULL);
  _exit(7);
}

int main(int argc, char** argv) {
  if (argc > 1) {
    work();
    _exit(0);
  }
  static const char steps[] =
      "(2, 3: allocating failed; 4: a thread; 5: a child; 6: a descriptor was taken)";
  char text[200];
  snprintf(text, sizeof text, "a program without descriptors allocates and forks %s", steps);
  it(text);
  EXPECT(in_child(close_and_work, NULL, 20), ==, 0);
  snprintf(text, sizeof text, "a program that starts without descriptors allocates and forks %s",
           steps);
  EXPECT(in_child(close_and_exec, argv[0], 20), ==, 0);
  return verdict();
}
