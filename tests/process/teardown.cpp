// SPDX-License-Identifier: MIT
// Threads that allocate and free while they are torn down: in thread_local destructors, and in the
// destructors of pthread keys, round after round, when the allocator's own state of the thread may
// be gone already.
#include "expect.h"

#include <pthread.h>

#include <limits.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

std::atomic<int> rounds, destroyed;
pthread_key_t keys[4];
thread_local int round[4];

// Holds heap contents, and makes and drops more of it when it dies.
struct Hoard {
  std::vector<std::string> lines;
  std::map<int, std::string> index;

  Hoard() {
    for (int i = 0; i < 50; i++) lines.emplace_back(40 + i * 17, 'a'), index[i] = lines.back();
  }
  ~Hoard() {
    for (int i = 0; i < 50; i++) EXPECT(index[i] == lines[i], ==, 1);
    std::vector<std::string> others(lines.rbegin(), lines.rend());
    others.resize(300, std::string(100, 'b'));
    lines.clear();
    EXPECT(others[0].size(), ==, 40 + 49 * 17);
    ++destroyed;
  }
};

thread_local Hoard hoard;

// Frees what it finds, allocates anew and sets the key again, so that it is called in every round
// there is.
void next_round(void* block, size_t which) {
  size_t const size = 100 + which * 1000;
  EXPECT(kept(block, size, which), ==, size);
  free(block);
  void* again = malloc(size);
  fill(again, 0, size, which);
  void* large = calloc(1, 100000);
  free(large);
  ++rounds;
  if (++round[which] < PTHREAD_DESTRUCTOR_ITERATIONS)
    pthread_setspecific(keys[which], again);
  else
    free(again);
}

template <size_t Which>
void destructor(void* block) {
  next_round(block, Which);
}

void live_and_die() {
  EXPECT(hoard.lines.size(), ==, 50);
  for (size_t which = 0; which < 4; which++) {
    void* block = malloc(100 + which * 1000);
    fill(block, 0, 100 + which * 1000, which);
    pthread_setspecific(keys[which], block);
  }
}

struct AtExit {
  ~AtExit() {
    std::thread([] { live_and_die(); }).join();
    if (failures_) _exit(1);
  }
} at_exit;

}  // namespace

int main() {
  pthread_key_create(&keys[0], destructor<0>);
  pthread_key_create(&keys[1], destructor<1>);
  pthread_key_create(&keys[2], destructor<2>);
  pthread_key_create(&keys[3], destructor<3>);
  it("blocks live and die in thread_local and key destructors");
  auto run = [](int threads) {
    for (int i = 0; i < threads; i += 2) {
      std::thread a(live_and_die), b(live_and_die);
      a.join(), b.join();
    }
  };
  run(400);
  EXPECT(destroyed, ==, 400);
  EXPECT(rounds, ==, 400 * 4 * PTHREAD_DESTRUCTOR_ITERATIONS);
  it("threads that allocate after their teardown leave nothing behind: 4,000 of them cost less "
     "than 4 MiB");
  long const before = status_kib("VmRSS:");
  run(4000);
  EXPECT(status_kib("VmRSS:") - before, <, 4096);
  it("the main thread can end before the others");
  live_and_die();
  return verdict();
}
