// SPDX-License-Identifier: MIT
// expect.h: a test is a sentence; an expectation that fails says what was expected and what was
// seen.
//
//   it("free keeps errno");
//   EXPECT(errno, ==, 77);
//   return verdict();
//
// A failure prints   doors.c:41: free keeps errno: expected errno == 77, seen 12
// Nothing here allocates, so it may be used anywhere: in handlers, destructors and children of
// fork.
#ifndef ASHLAR_TESTS_EXPECT_H
#define ASHLAR_TESTS_EXPECT_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)

static const char* sentence_ = "it starts";
static int failures_;       // atomic: any thread
static long expectations_;  // atomic: any thread

static inline void it(const char* sentence) { sentence_ = sentence; }

static inline void say(const char* line) {
  if (write(STDERR_FILENO, line, strlen(line)) < 0) return;
}

static inline void failed_(const char* file, int line, const char* expected, long long seen,
                           long long wanted) {
  char text[512];
  const char* slash = strrchr(file, '/');
  if (__atomic_add_fetch(&failures_, 1, __ATOMIC_RELAXED) > 20) return;
  snprintf(text, sizeof text, "%s:%d: %s: expected %s (%lld), seen %lld (%#llx)\n",
           slash ? slash + 1 : file, line, sentence_, expected, wanted, seen,
           (unsigned long long)seen);
  say(text);
}

// `seen op expected`, both as long long: integers and pointers.
#define EXPECT(seen, op, expected)                                              \
  do {                                                                          \
    long long const seen_ = (long long)(seen), wanted_ = (long long)(expected); \
    __atomic_add_fetch(&expectations_, 1, __ATOMIC_RELAXED);                    \
    if (!(seen_ op wanted_))                                                    \
      failed_(__FILE__, __LINE__, #seen " " #op " " #expected, seen_, wanted_); \
  } while (0)

// Every library named in LD_PRELOAD must really be here: ld.so only warns about one that it cannot
// load, and the test would then judge the C library's malloc.
static inline int is_preloaded(void) { return getenv("LD_PRELOAD") && *getenv("LD_PRELOAD"); }

static inline void expect_preloads_(void) {
  char list[4096], *rest = NULL;
  it("every library in LD_PRELOAD is loaded");
  snprintf(list, sizeof list, "%s", is_preloaded() ? getenv("LD_PRELOAD") : "");
  for (char* path = strtok_r(list, ": ", &rest); path; path = strtok_r(NULL, ": ", &rest)) {
    void* library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) say(path), say(" is not loaded\n");
    EXPECT(library != NULL, ==, 1);
  }
}

static inline int verdict(void) {
  char text[128];
  expect_preloads_();
  snprintf(text, sizeof text, "%ld expectations, %d failed%s\n", expectations_, failures_,
           is_preloaded() ? "" : " (nothing preloaded)");
  say(text);
  return failures_ != 0;
}

static inline int skip(const char* why) {
  say("SKIP: "), say(why), say("\n");
  return 77;
}

// A process that hangs says so and leaves with 124. Each child of fork needs its own call: alarms
// are not inherited.
enum { HUNG = 124 };

static inline void hung_(int signal) {
  (void)signal;
  say(sentence_), say(": did not end in time\n");
  _exit(HUNG);
}

static inline void must_end_within(unsigned seconds) {
  signal(SIGALRM, hung_);
  alarm(seconds);
}

// Waits for a child: its exit code, or 1000 + the signal that ended it.
static inline int outcome(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// Runs `body` in a forked child that has `seconds` to end; 0 when all that it expected was met.
static inline int in_child(void (*body)(void*), void* argument, unsigned seconds) {
  pid_t child = fork();
  if (child < 0) return -1;
  if (child > 0) return outcome(child);
  must_end_within(seconds);
  failures_ = 0;
  body(argument);
  _exit(failures_ != 0);
}

// A field of /proc/self/status in KiB, such as "VmRSS:" or "VmHWM:".
static inline long status_kib(const char* field) {
  char text[8192];
  int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (length < 0) return -1;
  text[length] = 0;
  const char* found = strstr(text, field);
  return found ? atol(found + strlen(field)) : -1;
}

// xorshift64*: the same sequence for the same seed, wherever it runs.
static inline uint64_t random_next(uint64_t* state) {
  *state ^= *state >> 12, *state ^= *state << 25, *state ^= *state >> 27;
  return *state * 0x2545F4914F6CDD1DULL;
}

static inline size_t random_below(uint64_t* state, size_t bound) {
  return (size_t)(random_next(state) >> 16) % bound;
}

// A pattern that depends on the seed and on the place, and how many bytes of it are still there.
static inline unsigned char pattern_(uint64_t seed, size_t i) {
  return (unsigned char)(seed * 167 + i * 13 + (i >> 8) + 1);
}

static inline void fill(void* block, size_t from, size_t to, uint64_t seed) {
  for (size_t i = from; i < to; i++) ((unsigned char*)block)[i] = pattern_(seed, i);
}

static inline size_t kept(const void* block, size_t size, uint64_t seed) {
  size_t i = 0;
  while (i < size && ((const unsigned char*)block)[i] == pattern_(seed, i)) i++;
  return i;
}

#endif
