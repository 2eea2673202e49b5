// SPDX-License-Identifier: MIT
// Big blocks that grow by realloc, as arrays, logs and text do: four are appended to in turns, a
// few pages at a time, and asked to grow by a quarter when they are full; then all are freed, and
// that several times.
#include "program.h"

int main() {
  using namespace ashlar::bench;
  require_expected_malloc();
  constexpr std::size_t kRounds = 15, kBlocks = 4, kLeastBytes = 64 * kKiB;
  constexpr std::size_t kMostBytes = 24 * kMiB, kAppended = 16 * kKiB;
  struct Block {
    void* start = nullptr;
    std::size_t used = 0, room = 0;
  };
  for (std::size_t round = 0; round < kRounds; round++) {
    std::array<Block, kBlocks> blocks;
    while (blocks.back().used < kMostBytes) {
      for (Block& block : blocks) {
        const std::size_t used = block.used + kAppended;
        if (used > block.room) {
          block.room = block.room < kLeastBytes ? kLeastBytes : block.room + block.room / 4;
          block.start = std::realloc(block.start, block.room);
        }
        touch_pages(block.start, block.used, used);
        block.used = used;
      }
    }
    for (const Block& block : blocks) std::free(block.start);
  }
}
