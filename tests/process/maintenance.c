// SPDX-License-Identifier: MIT
// The thread that gives memory back: when there is one, and that a program does not notice it.
#include "expect.h"

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// Thread-local variables lie in the stacks of all threads, also of small ones.
static __thread char large_variable[120 * 1024];

static void allocate_a_lot(void) {
  void* blocks[200];
  for (int round = 0; round < 20; round++) {
    for (size_t i = 0; i < 200; i++) memset(blocks[i] = malloc(i * 100 + 1), 1, i * 100 + 1);
    for (size_t i = 0; i < 200; i++) free(blocks[i]);
  }
}

static void* allocate(void* unused) {
  large_variable[1] = 1;
  allocate_a_lot();
  return unused;
}

static void allocate_in_a_thread(void) {
  pthread_t thread;
  allocate_a_lot();
  EXPECT(pthread_create(&thread, NULL, allocate, NULL), ==, 0);
  pthread_join(thread, NULL);
}

// The threads of this process called "ashlar", and how many there are in all.
static int ours(int* all, char* last) {
  int found = 0;
  char path[300], name[32];
  DIR* tasks = opendir("/proc/self/task");
  *all = 0;
  for (struct dirent* task; tasks && (task = readdir(tasks));) {
    if (task->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE* file = fopen(path, "r");
    if (!file) continue;
    (*all)++;
    if (fgets(name, sizeof name, file) && !strcmp(name, "ashlar\n")) {
      found++;
      if (last) snprintf(last, 32, "%.20s", task->d_name);
    }
    fclose(file);
  }
  if (tasks) closedir(tasks);
  return found;
}

// Within two seconds.
static void expect_ours(int expected, int expected_all) {
  int all = 0, seen = 0;
  for (int i = 0; i < 200; i++) {
    seen = ours(&all, NULL);
    if (seen == expected && all == expected_all) break;
    usleep(10000);
  }
  EXPECT(seen, ==, expected);
  EXPECT(all, ==, expected_all);
}

static void expect_one_after_a_while(void* unused) {
  (void)unused;
  expect_ours(0, 1);
  allocate_a_lot();
  usleep(50000);
  expect_ours(0, 1);
  allocate_in_a_thread();
  expect_ours(1, 2);
}

static void takes_no_signals(void* unused) {
  (void)unused;
  char path[100], text[4096], task[32];
  int all = 0;
  allocate_in_a_thread();
  expect_ours(1, 2);
  if (ours(&all, task) != 1) return;
  snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
  int fd = open(path, O_RDONLY);
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  text[length > 0 ? length : 0] = 0;
  char* blocked = strstr(text, "SigBlk:");
  EXPECT(blocked != NULL, ==, 1);
  if (!blocked) return;
  unsigned long long const mask = strtoull(blocked + 7, NULL, 16);
  for (int signal = 1; signal <= 64; signal++) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33) continue;
    EXPECT(mask >> (signal - 1) & 1, ==, 1);
  }
}

static void forks(void* unused) {
  allocate_in_a_thread();
  expect_ours(1, 2);
  EXPECT(in_child(expect_one_after_a_while, unused, 20), ==, 0);
}

static void works_for_a_while(void* unused) {
  (void)unused;
  allocate_in_a_thread();
  usleep(1300000);
  expect_ours(1, 2);
}

static void leaves_with(void* code) {
  allocate_in_a_thread();
  (uintptr_t) code % 2 ? exit((int)(uintptr_t)code) : _exit((int)(uintptr_t)code);
}

static void* allocate_and_sleep(void* unused) {
  allocate_a_lot();
  usleep(700000);
  return unused;
}

// Runs in the last thread of the process.
static void leave_with_seven(void) {
  char name[16] = "";
  prctl(PR_GET_NAME, name);
  _exit(strcmp(name, "ashlar") ? 7 : 8);
}

static void ends_without_its_first_thread(void* first_too) {
  pthread_t thread;
  atexit(leave_with_seven);
  if (first_too) allocate_a_lot();
  pthread_create(&thread, NULL, allocate_and_sleep, NULL);
  pthread_create(&thread, NULL, allocate_and_sleep, NULL);
  usleep(200000);
  pthread_exit(NULL);
}

static void locks_itself_in(void* unused) {
  (void)unused;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  allocate_in_a_thread();
  expect_ours(1, 2);
  usleep(20000);  // the pass that it may be in
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  EXPECT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program), ==, 0);
  for (int i = 0; i < 15; i++) allocate_in_a_thread(), usleep(100000);
}

static int run_again(const char* self, const char* conf, const char* what) {
  pid_t child = fork();
  if (child) return outcome(child);
  setenv("ASHLAR_CONF", conf, 1);
  execl(self, self, what, (char*)NULL);
  _exit(99);
}

int main(int argc, char** argv) {
  must_end_within(50);
  large_variable[1] = 1;
  if (argc > 1) {
    int const always = !strcmp(argv[1], "always");
    it(always ? "background:always has the thread from the start"
              : "background:never and purge_ms:-1 have no thread");
    if (!always) allocate_in_a_thread();
    expect_ours(always, 1 + always);
    return verdict();
  }
  it("a thread starts with the second one that allocates, not before");
  EXPECT(in_child(expect_one_after_a_while, NULL, 20), ==, 0);
  it("it takes no signals");
  EXPECT(in_child(takes_no_signals, NULL, 20), ==, 0);
  it("a child of fork has none until it has two threads of its own");
  EXPECT(in_child(forks, NULL, 30), ==, 0);
  it("large thread-local variables leave it a stack");
  EXPECT(in_child(works_for_a_while, NULL, 20), ==, 0);
  it("the exit code is the program's");
  for (uintptr_t code = 40; code < 44; code++)
    EXPECT(in_child(leaves_with, (void*)code, 20), ==, code);
  it("a process ends with its last thread, also without its first, and exit handlers run there");
  EXPECT(in_child(ends_without_its_first_thread, NULL, 20), ==, 7);
  EXPECT(in_child(ends_without_its_first_thread, "too", 20), ==, 7);
  it("a program that locks itself in is not killed for what the thread asks of the kernel");
  EXPECT(in_child(locks_itself_in, NULL, 20), ==, 0);
  it("the options say whether there is a thread");
  EXPECT(run_again(argv[0], "background:never", "never"), ==, 0);
  EXPECT(run_again(argv[0], "purge_ms:-1", "never"), ==, 0);
  EXPECT(run_again(argv[0], "background:always", "always"), ==, 0);
  return verdict();
}
