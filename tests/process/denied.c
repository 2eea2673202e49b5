// SPDX-License-Identifier: MIT
// A sandbox that refuses system calls: whatever but mmap fails with EPERM or ENOSYS, the allocator
// goes on. Each call alone, then all at once; refused to a running program, and, where ld.so does
// not need the call, to one that starts. And a sandbox that ends a program for a call: if it has
// one thread, only few calls do.
#include "expect.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { thread_count = 3, steps = 10000, table_size = 256 };

static const struct {
  const char* name;
  int number;
  int at_start;  // ld.so and libc start without it
  int needed;    // whoever forbids it is ended
} calls[] = {{"madvise", SYS_madvise, 1, 1},
             {"mremap", SYS_mremap, 1, 1},
             {"mprotect", SYS_mprotect, 0, 0},
             {"munmap", SYS_munmap, 1, 1},
             {"futex", SYS_futex, 0, 0},
             {"brk", SYS_brk, 0, 0},
             {"prctl", SYS_prctl, 1, 1},
             {"getrandom", SYS_getrandom, 1, 0},
             {"membarrier", SYS_membarrier, 1, 0},
             {"rseq", SYS_rseq, 1, 0},
             {"prlimit64", SYS_prlimit64, 1, 0},
             {"getrlimit", SYS_getrlimit, 1, 0},
             {"sysinfo", SYS_sysinfo, 1, 0},
             {"clock_gettime", SYS_clock_gettime, 1, 0},
             {"clock_nanosleep", SYS_clock_nanosleep, 1, 0},
             {"nanosleep", SYS_nanosleep, 1, 0},
             {"sched_yield", SYS_sched_yield, 1, 0},
             {"getcpu", SYS_getcpu, 1, 0},
             {"sched_getaffinity", SYS_sched_getaffinity, 1, 0},
             {"gettid", SYS_gettid, 1, 0},
             {"getpid", SYS_getpid, 1, 0},
             {"openat", SYS_openat, 0, 0},
             {"read", SYS_read, 0, 0},
             {"close", SYS_close, 0, 0},
             {"memfd_create", SYS_memfd_create, 1, 0},
             {"userfaultfd", SYS_userfaultfd, 1, 0},
             {"mincore", SYS_mincore, 1, 0},
             {"process_madvise", SYS_process_madvise, 1, 0},
             {"rt_sigprocmask", SYS_rt_sigprocmask, 0, 0},
             {"clone3", SYS_clone3, 0, 0},
             {"clone", SYS_clone, 0, 0}};
enum { call_count = sizeof calls / sizeof *calls };

// Answers the call with that action of a filter in all threads from now on; `which` == call_count
// means all calls.
static void refuse(int which, unsigned action) {
  struct sock_filter code[call_count + 3];
  unsigned short length = 0;
  code[length++] =
      (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  int const first = which == call_count ? 0 : which,
            last = which == call_count ? call_count - 1 : which;
  for (int i = first; i <= last; i++)
    code[length++] = (struct sock_filter)BPF_JUMP(
        BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].number, (unsigned char)(last - i + 1), 0);
  code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
  struct sock_fprog program = {length, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) _exit(77);
}

static void* _Atomic table[table_size];
static atomic_int ready, go, done;

static void must_have(const void* block) {
  EXPECT(block != NULL, ==, 1);
  if (!block) _exit(1);
}

// Sizes of all kinds, freed by any thread. No lock of the C library is used, as futex may be
// refused.
static void* work(void* seed) {
  uint64_t random = (uintptr_t)seed + 1;
  ready++;
  while (!go) sched_yield();
  for (int i = 0; i < steps; i++) {
    size_t size = random_below(&random, i % 50 ? 3000 : 400 * KIB) + 1;
    size_t* block = i % 3 ? malloc(size + 16) : calloc(1, size + 16);
    must_have(block);
    block[0] = block[1] = size;
    if (i % 5 == 0) block = realloc(block, size * 2 + 16);
    must_have(block);
    block[0] = size * 3;
    size_t* other = atomic_exchange(&table[random_below(&random, table_size)], block);
    if (other) EXPECT(other[0], ==, other[1] * 3);
    errno = 77;
    free(other);
    EXPECT(errno, ==, 77);
  }
  done++;
  while (seed) pause();  // a thread of the sandbox never ends: glibc itself could not
  return NULL;
}

static void large_blocks(void) {
  char* block = NULL;
  for (size_t size = 100 * KIB; size < 60 * MIB; size = size * 3 / 2) {
    block = realloc(block, size);
    must_have(block);
    EXPECT(size > 100 * KIB ? block[99] : 99, ==, 99);
    block[99] = 99, block[size - 1] = 1;
  }
  free(block);
}

static void run_refused(int which, unsigned action) {
  pthread_t thread;
  for (size_t i = 0; i < thread_count; i++) pthread_create(&thread, NULL, work, (void*)(i + 1));
  while (ready < thread_count) sched_yield();
  refuse(which, action);
  go = 1;
  large_blocks();
  while (done < thread_count) sched_yield();
}

typedef struct Case {
  int which;
  unsigned action;
} Case;

static void in_a_running_program(void* argument) {
  run_refused(((Case*)argument)->which, ((Case*)argument)->action);
}

static void in_a_program_that_starts(void* argument) {
  refuse(((Case*)argument)->which, ((Case*)argument)->action);
  execl("/proc/self/exe", "denied", "single", NULL);
  _exit(9);
}

static void in_a_program_of_one_thread(void* argument) {
  enum { count = 100000 };
  static void* blocks[count];
  free(malloc(1));
  refuse(((Case*)argument)->which, ((Case*)argument)->action);
  for (int i = 0; i < 3 * count; i++) {
    must_have(blocks[i % count] = malloc(64));
    if (i % count == count - 1)
      for (int j = 0; j < count; j++) free(blocks[j]);
  }
  large_blocks();
}

int main(int argc, char** argv) {
  (void)argv;
  if (argc > 1) {  // started inside the sandbox
    go = 1;
    work(NULL);
    large_blocks();
    _exit(failures_ != 0);
  }
  static const int errors[] = {EPERM, ENOSYS};
  for (int which = 0; which <= call_count; which++)
    for (int e = 0; e < 2; e++) {
      char text[100];
      Case refused = {which, SECCOMP_RET_ERRNO | (unsigned)errors[e]};
      const char* name = which == call_count ? "everything but mmap" : calls[which].name;
      it(text);
      snprintf(text, sizeof text, "a program goes on when %s fails with %s", name,
               e ? "ENOSYS" : "EPERM");
      int seen = in_child(in_a_running_program, &refused, 20);
      if (seen == 77) return skip("seccomp filters are not allowed here");
      EXPECT(seen, ==, 0);
      snprintf(text, sizeof text, "a program starts when %s fails with %s", name,
               e ? "ENOSYS" : "EPERM");
      if (which < call_count && calls[which].at_start)
        EXPECT(in_child(in_a_program_that_starts, &refused, 20), ==, 0);
      it("refused calls");
    }
  for (int which = 0; which < call_count; which++) {
    char text[100];
    Case ends = {which, SECCOMP_RET_KILL_PROCESS};
    it(text);
    snprintf(text, sizeof text, "a program that %s would end does not call it", calls[which].name);
    if (!calls[which].needed) EXPECT(in_child(in_a_program_of_one_thread, &ends, 20), ==, 0);
    it("calls that end a program");
  }
  return verdict();
}
