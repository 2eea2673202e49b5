// SPDX-License-Identifier: MIT
// compact-shared: what compact-handles and compact-hints measure, in a shared arena.
//
// What:    fills an arena with MIB of objects with handles, of mixed sizes, frees a random part,
// and
//          compacts it in calls of BUDGET µs. Prints density (allocated ÷ active) before and after,
//          bytes moved for each byte freed, and how long the calls took, by the clock and of the
//          processor. Then the same with blocks that follow hints: active ÷ allocated, bytes moved
//          for each byte freed, ns for each hint in a batch.
// Usage:   compact-shared [MIB [PERCENT-KEPT [BUDGET]]]
#include <ashlar/shm.h>

#include <chrono>
#include <thread>

#include "../common.h"
#include "passes.h"

namespace {

using namespace ashlar::bench;

struct Load {
  std::size_t mib;
  std::size_t percent_kept;
};

ashlar_shm* arena;

double ratio(std::size_t a, std::size_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

ashlar_shm_stats stats_now() {
  ashlar_shm_stats stats;
  ashlar_shm_stat(arena, &stats);
  return stats;
}

// What make(bytes) made and give() did not take.
template <class Thing, class Make, class Give>
std::vector<Thing> make_gaps(const Load& load, Make&& make, Give&& give) {
  Random random(1);
  std::vector<Thing> made, kept;
  for (std::size_t bytes = 0; bytes < load.mib * kMiB;) {
    const std::size_t size = random.between(16, 512);
    made.push_back(make(size));
    if (made.back() == Thing{}) {
      std::perror("compact-shared");
      std::exit(1);
    }
    bytes += size;
  }
  for (const Thing& thing : made) {
    if (random.below(100) < load.percent_kept) {
      kept.push_back(thing);
    } else {
      give(thing);
    }
  }
  return kept;
}

void passes(const Load& load, std::uint64_t budget_us) {
  const auto objects = make_gaps<ashlar_handle>(
      load, [](std::size_t bytes) { return ashlar_shm_handle_alloc(arena, bytes); },
      [](ashlar_handle h) { ashlar_shm_handle_free(arena, h); });
  const auto density = [] {
    const ashlar_shm_stats stats = stats_now();
    return ratio(stats.handle_allocated, stats.handle_active);
  };
  compact_and_print(density, [=](ashlar_moved& moved) {
    return ashlar_shm_compact(arena, budget_us, SIZE_MAX, &moved) == 1;
  });
  for (const ashlar_handle h : objects) ashlar_shm_handle_free(arena, h);
}

// Goes round until a whole round, with a new plan, moves nothing.
void hints(const Load& load) {
  std::vector<void*> blocks = make_gaps<void*>(
      load, [](std::size_t bytes) { return ashlar_shm_malloc(arena, bytes); },
      [](void* p) { ashlar_shm_free(arena, p); });
  const ashlar_shm_stats before = stats_now();
  std::vector<std::uint8_t> scores(blocks.size());
  std::vector<double> ns;
  std::size_t moved = 0;
  for (std::size_t in_round = 1; in_round != 0; moved += in_round) {
    in_round = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(150));  // for a new plan
    ashlar_shm_frag_hint_batch(arena, blocks.data(), 1, scores.data());
    const double begin = now_us();
    ashlar_shm_frag_hint_batch(arena, blocks.data(), blocks.size(), scores.data());
    ns.push_back((now_us() - begin) * 1e3 / static_cast<double>(blocks.size()));
    for (std::size_t i = 0; i < blocks.size(); i++) {
      if (scores[i] == 0) continue;
      if (void* const to = ashlar_shm_frag_move(arena, blocks[i])) {
        blocks[i] = to;
        in_round += ashlar_shm_usable_size(arena, to);
      }
    }
  }
  const ashlar_shm_stats after = stats_now();
  std::printf("active ÷ allocated, hints    %.3f, %.3f\n", ratio(before.active, before.allocated),
              ratio(after.active, after.allocated));
  std::printf("bytes moved per byte freed   %.3f\n", ratio(moved, before.active - after.active));
  std::sort(ns.begin(), ns.end());
  std::printf("ns per hint                  %.2f\n", ns[ns.size() / 2]);
}

}  // namespace

int main(int argc, char** argv) {
  const Load load{number_at(1, argc, argv, 256), number_at(2, argc, argv, 10)};
  arena = ashlar_shm_create_anonymous(2 * load.mib * kMiB, 0);
  if (arena == nullptr) {
    std::perror("compact-shared");
    return 1;
  }
  passes(load, number_at(3, argc, argv, 200));
  hints(load);
  ashlar_shm_close(arena);
}
