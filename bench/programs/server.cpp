// SPDX-License-Identifier: MIT
// A server whose threads hand their objects to each other (Larson and Krishnan, "Memory Allocation
// for Long-Running Server Applications", ISMM 1998): each thread replaces random objects of its
// table, then ends, and its successor goes on with the table and so frees what a thread of the
// past allocated. Twice as many threads as the least machine has cores.
#include "program.h"

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kChains = 4, kGenerations = 75, kReplacements = 200'000, kLive = 5000;
  constexpr std::size_t kLeastBytes = 8, kMostBytes = 1000;
  run_threads(kChains, [](std::size_t chain) {
    std::vector<void*> table(kLive);
    Random random(chain);
    for (std::size_t i = 0; i < kGenerations; i++) {
      std::thread([&] {
        for (std::size_t j = 0; j < kReplacements; j++) {
          void*& object = table[random.below(kLive)];
          std::free(object);
          object = take(random.between(kLeastBytes, kMostBytes));
        }
      }).join();
    }
    for (void* object : table) std::free(object);
  });
}
