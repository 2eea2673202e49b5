// SPDX-License-Identifier: MIT
// hit-path: how many instructions a malloc and a free take when all is at hand.
//
// What:    prints "malloc/SIZE COUNT", and the same for free, new and (sized) delete: the median
//          over many pairs, of the instructions from the first of the function to its return.
//          Exact, the same every time, and needs no performance counters.
// How:     a child runs pairs and is single-stepped (ptrace) by its parent, which, being of the
//          same image, knows where the functions begin.
// Errors:  status 1 where ptrace is not allowed; 2 as require_expected_malloc().
#include <dlfcn.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "common.h"

namespace {

using namespace ashlar::bench;

constexpr int kWarmUps = 1000, kPairs = 101;

void run_pairs(std::size_t bytes, int count) {
  for (int i = 0; i < count; i++) {
    void* const object = std::malloc(bytes);
    *static_cast<volatile char*>(object) = 1;
    std::free(object);
    void* const other = ::operator new(bytes);
    *static_cast<volatile char*>(other) = 1;
    ::operator delete(other, bytes);
  }
}

[[noreturn]] void run_child(std::size_t bytes) {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
    std::perror("hit-path: ptrace");
    _exit(1);
  }
  run_pairs(bytes, kWarmUps);
  std::raise(SIGSTOP);
  run_pairs(bytes, kPairs);
  _exit(0);
}

// A function whose calls are counted.
class Counted {
 public:
  Counted(const char* name, const char* symbol)
      : name_(name), entry_(reinterpret_cast<std::uintptr_t>(dlsym(RTLD_DEFAULT, symbol))) {}

  // To be called before each step with the child's registers.
  void see(pid_t child, const user_regs_struct& registers) {
    if (!inside_ && registers.rip == entry_) {
      inside_ = true;
      steps_ = 0;
      stack_ = registers.rsp;
      return_to_ = static_cast<std::uintptr_t>(
          ptrace(PTRACE_PEEKDATA, child, reinterpret_cast<void*>(stack_), nullptr));
    } else if (inside_ && registers.rip == return_to_ && registers.rsp > stack_) {
      inside_ = false;
      counts_.push_back(steps_);
    }
    steps_++;
  }

  // False: no call was seen.
  bool print_median(const char* size) {
    if (counts_.empty()) return false;
    const auto middle = counts_.begin() + static_cast<std::ptrdiff_t>(counts_.size() / 2);
    std::nth_element(counts_.begin(), middle, counts_.end());
    std::printf("%s/%s %d\n", name_, size, *middle);
    return true;
  }

 private:
  const char* name_;
  std::uintptr_t entry_, return_to_ = 0, stack_ = 0;
  bool inside_ = false;
  int steps_ = 0;
  std::vector<int> counts_;
};

bool count_instructions(const char* size, std::size_t bytes) {
  const pid_t child = fork();
  if (child == 0) run_child(bytes);
  std::array functions = {Counted("malloc", "malloc"), Counted("free", "free"),
                          Counted("new", "_Znwm"), Counted("delete", "_ZdlPvm")};
  int status = 0;
  while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
    if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) break;
    user_regs_struct registers{};
    if (ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) break;
    for (Counted& function : functions) function.see(child, registers);
    if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
  }
  if (!WIFEXITED(status)) kill(child, SIGKILL);
  return std::all_of(functions.begin(), functions.end(),
                     [size](Counted& function) { return function.print_median(size); });
}

}  // namespace

int main() {
  require_expected_malloc();
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // the child is to inherit nothing unwritten
  const bool counted = count_instructions("64", 64) && count_instructions("4K", 4 * kKiB);
  if (!counted) std::fprintf(stderr, "hit-path: the steps of a child cannot be counted here\n");
  return counted ? 0 : 1;
}
