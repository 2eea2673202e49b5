// SPDX-License-Identifier: MIT
// Objects of very different sizes, replaced at random in a table by one thread: every second one
// is below 128 bytes, one in eight above 6 KiB. What a cache or an index does.
#include "program.h"

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kLive = 20'000, kReplacements = 25'000'000;
  constexpr std::size_t kLeastBytes = 8, kMostBytes = 20 * kKiB;
  const LogUniform sizes(kLeastBytes, kMostBytes, 1);
  std::vector<void*> table(kLive);
  Random random(2);
  for (std::size_t i = 0; i < kReplacements; i++) {
    void*& object = table[random.below(kLive)];
    std::free(object);
    object = take(sizes[i]);
  }
  for (void* object : table) std::free(object);
}
