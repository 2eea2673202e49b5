// SPDX-License-Identifier: MIT
// launch FD COMMAND [ARGS...]: runs a command and writes to FD what it and its children took:
//
//   USER_US SYSTEM_US PEAK_KIB
//
// Its exit status is the command's; a signal's number and 128 when one ended it.
//
// A child's peak memory starts with that of the process that started it, which the kernel does
// not forget at exec. So this program is linked statically and is as small as one can be. Being
// static, it also ignores the LD_PRELOAD that its child is to have.
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char** environ;

static long long microseconds(struct timeval time) {
  return time.tv_sec * 1000000ll + time.tv_usec;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: launch FD COMMAND [ARGS...]\n");
    return 2;
  }
  const int fd = atoi(argv[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addclose(&actions, fd);
  pid_t child;
  const int error = posix_spawnp(&child, argv[2], &actions, NULL, argv + 2, environ);
  if (error != 0) {
    fprintf(stderr, "launch: %s: %s\n", argv[2], strerror(error));
    return 2;
  }
  int status;
  struct rusage usage;
  while (wait4(child, &status, 0, &usage) < 0) {
    if (errno != EINTR) return 2;
  }
  dprintf(fd, "%lld %lld %ld\n", microseconds(usage.ru_utime), microseconds(usage.ru_stime),
          usage.ru_maxrss);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
