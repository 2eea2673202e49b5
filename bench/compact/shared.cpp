// SPDX-License-Identifier: MIT
// compact-shared: what compact-handles measures of passes, for objects in a shared arena.
//
// What:    fills an arena with MIB of objects of mixed sizes, frees a random part, and compacts it
// in
//          calls of BUDGET µs. Prints density (allocated ÷ active) before and after, bytes moved
//          for each byte freed, and how long the calls took, by the clock and of the processor.
// Usage:   compact-shared [MIB [PERCENT-KEPT [BUDGET]]]
#include <ashlar/shm.h>

#include "../common.h"
#include "passes.h"

int main(int argc, char** argv) {
  using namespace ashlar::bench;
  const std::size_t mib = number_at(1, argc, argv, 256);
  const std::size_t percent_kept = number_at(2, argc, argv, 10);
  const std::uint64_t budget_us = number_at(3, argc, argv, 200);
  Random random(1);
  ashlar_shm* const arena = ashlar_shm_create_anonymous(2 * mib * kMiB, 0);
  std::vector<ashlar_handle> objects;
  for (std::size_t bytes = 0; arena != nullptr && bytes < mib * kMiB;) {
    const std::size_t size = random.between(16, 512);
    objects.push_back(ashlar_shm_handle_alloc(arena, size));
    if (objects.back() == 0) break;
    bytes += size;
  }
  if (arena == nullptr || objects.back() == 0) {
    std::perror("compact-shared");
    return 1;
  }
  for (const ashlar_handle h : objects) {
    if (random.below(100) >= percent_kept) ashlar_shm_handle_free(arena, h);
  }
  const auto density = [arena] {
    ashlar_shm_stats stats;
    ashlar_shm_stat(arena, &stats);
    return static_cast<double>(stats.handle_allocated) / static_cast<double>(stats.handle_active);
  };
  compact_and_print(density, [=](ashlar_moved& moved) {
    return ashlar_shm_compact(arena, budget_us, SIZE_MAX, &moved) == 1;
  });
  ashlar_shm_close(arena);
}
