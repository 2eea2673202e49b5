// SPDX-License-Identifier: MIT
// Large blocks, replaced at random in a small table and written page by page, as image and array
// programs do. An allocator that gives each of them back to the kernel pays for every page again.
#include "program.h"

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kLive = 24, kReplacements = 50'000;
  constexpr std::size_t kLeastBytes = 64 * kKiB, kMostBytes = 4 * kMiB;
  const LogUniform sizes(kLeastBytes, kMostBytes, 1);
  std::vector<void*> table(kLive);
  Random random(2);
  for (std::size_t i = 0; i < kReplacements; i++) {
    void*& block = table[random.below(kLive)];
    std::free(block);
    block = std::malloc(sizes[i]);
    touch_pages(block, 0, sizes[i]);
  }
  for (void* block : table) std::free(block);
}
