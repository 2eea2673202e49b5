// SPDX-License-Identifier: MIT
// compact-pool: how dense a pool gets, and for how long each pass keeps the program.
//
// What:    fills a pool with MIB of objects of mixed sizes, frees a random part, and compacts it in
//          passes of BUDGET µs until a plan moves nothing. Prints density (allocated ÷ active)
//          before and after, bytes moved for each byte freed, and the median, p99 and longest of
//          the passes' times.
// Usage:   compact-pool [MIB [PERCENT-KEPT [BUDGET]]]
#include <ashlar/ashlar.h>
#include <ashlar/compact.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../common.h"

namespace {

using namespace ashlar::bench;
using Clock = std::chrono::steady_clock;

std::vector<void*> objects;

ashlar_verdict relocate(void*, void* from, void* to, std::size_t bytes, std::uint64_t tag) {
  std::memcpy(to, from, bytes);
  objects[tag] = to;
  return ASHLAR_COPIED;
}

double density(std::size_t allocated, double active_elsewhere) {
  ashlar_stats stats;
  ashlar_get_stats(&stats);
  return static_cast<double>(allocated) / (static_cast<double>(stats.active) - active_elsewhere);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, std::size_t otherwise) {
    return argc > i ? std::strtoul(argv[i], nullptr, 10) : otherwise;
  };
  const std::size_t mib = argument(1, 256), percent_kept = argument(2, 50);
  const std::uint64_t budget_us = argument(3, 200);
  Random random(1);
  objects.reserve(mib * kMiB / 200);
  ashlar_stats empty;
  ashlar_get_stats(&empty);

  ashlar_pool* const pool = ashlar_pool_create(relocate, nullptr);
  for (std::size_t bytes = 0; bytes < mib * kMiB;) {
    const std::size_t size = random.between(16, 512);
    objects.push_back(std::memset(ashlar_pool_malloc(pool, size, objects.size()), 1, size));
    bytes += size;
  }
  std::size_t allocated = 0;
  for (void*& object : objects) {
    if (random.below(100) >= percent_kept) {
      ashlar_pool_free(pool, object);
      object = nullptr;
    } else {
      allocated += ashlar_pool_usable_size(pool, object) + 16;
    }
  }
  const auto elsewhere = static_cast<double>(empty.active);
  std::printf("density before               %.3f\n", density(allocated, elsewhere));
  ashlar_moved moved{};
  std::vector<double> us;
  for (std::uint64_t before = UINT64_MAX; moved.objects != before;) {  // a whole plan each time
    before = moved.objects;
    for (int more = 1; more == 1;) {
      const auto begin = Clock::now();
      more = ashlar_pool_compact(pool, budget_us, SIZE_MAX, &moved);
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    }
  }
  std::sort(us.begin(), us.end());
  std::printf("density after                %.3f\n", density(allocated, elsewhere));
  std::printf("bytes moved per byte freed   %.3f\n",
              static_cast<double>(moved.bytes) / static_cast<double>(moved.freed));
  std::printf("passes %zu, µs: median %.0f, p99 %.0f, longest %.0f\n", us.size(), us[us.size() / 2],
              us[us.size() * 99 / 100], us.back());
}
