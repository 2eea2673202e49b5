// SPDX-License-Identifier: MIT
// The numbers of the heap, asked for by a signal handler in the middle of malloc and free.
#include <sys/time.h>
#include <time.h>

#include "ashlar/ashlar.h"
#include "expect.h"

static int (*get_stats)(ashlar_stats*);
static int (*report_json)(int);
static int null_fd;
static volatile int asked;

static void ask(int signal) {
  (void)signal;
  ashlar_stats stats;
  EXPECT(get_stats(&stats), ==, 0);
  EXPECT(stats.allocated, >, 0);
  EXPECT(stats.allocated, <=, stats.active);
  EXPECT(stats.active, <=, stats.mapped);
  EXPECT(stats.resident, <=, stats.mapped + stats.metadata);
  if (asked % 8 == 0) EXPECT(report_json(null_fd), ==, 0);
  asked = asked + 1;
}

int main(void) {
  must_end_within(50);
  get_stats = (int (*)(ashlar_stats*))dlsym(RTLD_DEFAULT, "ashlar_get_stats");
  report_json = (int (*)(int))dlsym(RTLD_DEFAULT, "ashlar_report_json");
  if (get_stats == NULL || report_json == NULL) return skip("not on Ashlar");
  null_fd = open("/dev/null", O_WRONLY);

  it("a signal handler gets numbers that fit together");
  struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
  sigaction(SIGVTALRM, &action, NULL);
  const struct itimerval every = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_VIRTUAL, &every, NULL);
  void* kept[1000] = {0};
  uint64_t state = 1;
  for (long round = 0; asked < 200; round++) {
    const size_t i = random_below(&state, 1000);
    free(kept[i]);
    kept[i] = malloc(random_below(&state, round % 50 == 0 ? 200000 : 2000));
  }
  setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);

  it("a descriptor that cannot be written to is an error");
  EXPECT(report_json(-1), ==, -1);
  EXPECT(errno, ==, EBADF);
  return verdict();
}
