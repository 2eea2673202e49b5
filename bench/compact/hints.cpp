// SPDX-License-Identifier: MIT
// compact-hints: a program that owns all its pointers follows the hints.
//
// What:    fills MIB of objects of mixed sizes, frees a random part, and goes through the rest with
//          hints and moves until a whole round moves nothing. Prints, a line each: fragmentation
//          (active ÷ allocated) before and after, bytes moved for each byte freed, rounds, ns per
//          hint in a batch (with and without a new plan), ns per move, and how long calls took.
// Usage:   compact-hints [MIB [PERCENT-KEPT]]
// Errors:  status 1 where an object lost its contents.
#include <ashlar/ashlar.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "../common.h"

namespace {

using namespace ashlar::bench;

constexpr std::size_t kBatch = 256;
// Between rounds, as a program has other things to do. The next one finds a new plan.
constexpr std::chrono::milliseconds kPause(150);

using Clock = std::chrono::steady_clock;
double ns_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

struct Heap {
  double allocated, active;
};
Heap heap_now() {
  ashlar_stats stats;
  ashlar_get_stats(&stats);
  return {static_cast<double>(stats.allocated), static_cast<double>(stats.active)};
}
double fragmentation() {
  const Heap heap = heap_now();
  return heap.active / heap.allocated;
}

double percentile(std::vector<double>& values, double part) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::size_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

std::vector<void*> make_gaps(std::size_t mib, std::size_t percent_kept) {
  Random random(1);
  std::vector<void*> objects;
  for (std::size_t bytes = 0; bytes < mib * kMiB;) {
    const std::size_t size = random.between(16, 512);
    void* const p = std::malloc(size);
    if (p == nullptr) std::exit(1);
    std::memset(p, 0, size);
    std::memcpy(p, &p, sizeof p);
    objects.push_back(p);
    bytes += size;
  }
  std::vector<void*> kept;
  for (void* p : objects) {
    if (random.below(100) < percent_kept) {
      kept.push_back(p);
    } else {
      std::free(p);
    }
  }
  return kept;
}

struct Round {
  std::size_t moved = 0;                 // bytes
  std::vector<double> hint_ns, move_ns;  // of batches; of moves
};

void go_round(std::vector<void*>& objects, Round& round) {
  std::uint8_t scores[kBatch];
  for (std::size_t first = 0; first < objects.size(); first += kBatch) {
    const std::size_t count = std::min(kBatch, objects.size() - first);
    auto begin = Clock::now();
    ashlar_frag_hint_batch(objects.data() + first, count, scores);
    round.hint_ns.push_back(ns_since(begin));
    for (std::size_t i = 0; i < count; i++) {
      if (scores[i] == 0) continue;
      void*& object = objects[first + i];
      begin = Clock::now();
      void* const moved = ashlar_frag_move(object);
      round.move_ns.push_back(ns_since(begin));
      if (moved == nullptr) continue;
      void* stamp = nullptr;
      std::memcpy(&stamp, moved, sizeof stamp);
      if (stamp != object) {
        std::puts("an object lost its contents");
        std::exit(1);
      }
      std::memcpy(moved, &moved, sizeof moved);
      object = moved;
      round.moved += malloc_usable_size(moved);
    }
  }
}

// Of many batches, one after the other, so that plans are renewed as they would be.
double ns_per_hint(const std::vector<void*>& objects) {
  std::uint8_t scores[kBatch];
  std::size_t hints = 0;
  const auto begin = Clock::now();
  do {
    for (std::size_t first = 0; first + kBatch <= objects.size(); first += kBatch) {
      ashlar_frag_hint_batch(objects.data() + first, kBatch, scores);
      hints += kBatch;
    }
  } while (ns_since(begin) < 1e9);
  return ns_since(begin) / static_cast<double>(hints);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 256;
  const std::size_t percent_kept = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 50;
  std::vector<void*> objects = make_gaps(mib, percent_kept);

  const Heap before = heap_now();
  std::printf("fragmentation before          %.3f\n", before.active / before.allocated);
  std::printf("ns per hint, random addresses %.2f\n", ns_per_hint(objects));
  Round all;
  std::size_t rounds = 0, moved = 0;
  do {
    moved = all.moved;
    go_round(objects, all);
    rounds++;
    std::this_thread::sleep_for(kPause);
  } while (all.moved != moved && rounds < 100);
  const Heap after = heap_now();
  std::printf("fragmentation after           %.3f\n", fragmentation());
  std::printf("bytes moved per byte freed    %.3f\n",
              static_cast<double>(all.moved) / (before.active - after.active));
  std::printf("rounds                        %zu\n", rounds);
  std::printf("µs per call of %zu hints: median %.2f, p99 %.2f, longest %.2f\n", kBatch,
              percentile(all.hint_ns, 0.5) / 1e3, percentile(all.hint_ns, 0.99) / 1e3,
              percentile(all.hint_ns, 1) / 1e3);
  std::printf("ns per move: median %.0f, p99 %.0f, longest %.0f\n", percentile(all.move_ns, 0.5),
              percentile(all.move_ns, 0.99), percentile(all.move_ns, 1));
}
