// SPDX-License-Identifier: MIT
// Threads that come and go, eight at a time, each for a few hundred objects.
//
//   exit    each frees its objects and ends
//   leak    each ends and leaves them; the main thread frees what the dead have left behind
#include "program.h"

int main(int argc, char** argv) {
  using namespace ashlar::bench;
  require_expected_malloc();
  const bool leaks = chosen(argc, argv, "leak", "exit");
  constexpr std::size_t kWaves = 1250, kThreads = 8, kObjects = 200;
  constexpr std::size_t kLeastBytes = 16, kMostBytes = 600;
  std::vector<std::array<void*, kObjects>> left(kThreads);
  for (std::size_t wave = 0; wave < kWaves; wave++) {
    run_threads(kThreads, [&](std::size_t thread) {
      Random random(wave * kThreads + thread);
      for (void*& object : left[thread]) object = take(random.between(kLeastBytes, kMostBytes));
      if (leaks) return;
      for (void* object : left[thread]) std::free(object);
    });
    if (!leaks) continue;
    for (const auto& objects : left) {
      for (void* object : objects) std::free(object);
    }
  }
}
