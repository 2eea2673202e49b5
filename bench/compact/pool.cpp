// SPDX-License-Identifier: MIT
// compact-pool: how dense a pool gets, and for how long each pass keeps the program.
//
// What:    fills a pool with MIB of objects of mixed sizes, frees a random part, and compacts it in
//          passes of BUDGET µs until a plan moves nothing. Prints density (allocated ÷ active)
//          before and after, bytes moved for each byte freed, and how long the passes took, by the
//          clock and of the processor.
// Usage:   compact-pool [MIB [PERCENT-KEPT [BUDGET]]]
#include <cstring>
#include <vector>

#include "../common.h"
#include "passes.h"

namespace {

using namespace ashlar::bench;

std::vector<void*> objects;

ashlar_verdict relocate(void*, void* from, void* to, std::size_t bytes, std::uint64_t tag) {
  std::memcpy(to, from, bytes);
  objects[tag] = to;
  return ASHLAR_COPIED;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = number_at(1, argc, argv, 256);
  const std::size_t percent_kept = number_at(2, argc, argv, 50);
  const std::uint64_t budget_us = number_at(3, argc, argv, 200);
  Random random(1);
  objects.reserve(mib * kMiB / 200);
  ashlar_pool* const pool = ashlar_pool_create(relocate, nullptr);
  for (std::size_t bytes = 0; bytes < mib * kMiB;) {
    const std::size_t size = random.between(16, 512);
    objects.push_back(std::memset(ashlar_pool_malloc(pool, size, objects.size()), 1, size));
    bytes += size;
  }
  for (void*& object : objects) {
    if (random.below(100) < percent_kept) continue;
    ashlar_pool_free(pool, object);
    object = nullptr;
  }
  compact_and_print(pool, budget_us);
}
