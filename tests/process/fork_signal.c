// SPDX-License-Identifier: MIT
// fork from a signal handler that may have interrupted malloc: the fork itself must come back. The
// child allocates only when the handler did not interrupt the allocator; otherwise it may, as with
// glibc, only leave.
#include "expect.h"

#include <signal.h>
#include <time.h>

enum { forks_wanted = 500 };
static volatile sig_atomic_t inside, forks, inside_forks, bad_outcome;

static void fork_here(int signal) {
  (void)signal;
  int const saved = errno, interrupted = inside;
  pid_t child = fork();
  if (!child) {
    must_end_within(20);
    if (!interrupted) free(realloc(malloc(100), 100000));
    _exit(0);
  }
  int const seen = child < 0 ? -1 : outcome(child);
  if (seen) bad_outcome = seen;
  forks++;
  inside_forks += interrupted;
  errno = saved;
}

int main(void) {
  must_end_within(50);
  struct sigaction action = {.sa_handler = fork_here, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct itimerspec every = {{0, 700000}, {0, 700000}};
  timer_t timer;
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  timer_settime(timer, 0, &every, NULL);
  it("fork in a signal handler that interrupted malloc comes back, and so does its child");
  uint64_t random = 1;
  void* blocks[200] = {0};
  while (forks < forks_wanted && !bad_outcome) {
    size_t slot = random_below(&random, 200),
           size = random_below(&random, random_below(&random, 30) ? 3000 : 300000) + 1;
    inside = 1;
    free(blocks[slot]);
    blocks[slot] = malloc(size);
    inside = 0;
  }
  timer_delete(timer);
  EXPECT(bad_outcome, ==, 0);
  it("most of the signals arrived inside the allocator");
  EXPECT(inside_forks, >, forks_wanted / 4);
  return verdict();
}
