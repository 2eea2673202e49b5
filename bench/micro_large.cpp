// SPDX-License-Identifier: MIT
// Rows whose memory is far larger than the caches: a free that touches its object pays for it here.
#include "micro.h"

namespace ashlar::bench {

namespace {

constexpr std::size_t kMillion = 1'000'000;

enum class Timed { whole, first, alloc, free, free_read };

// A million objects, allocated, then freed in a random order. One operation: an object allocated,
// freed, or both. `first` is the very first time, with the page faults that it takes; in all others
// the heap has held as much before. With free_read the program reads the object just before the
// free, as a destructor would.
template <class Sizes>
void working_set(const std::string& name, Timed timed, Sizes sizes) {
  add_timed_row("million/" + name, timed == Timed::first ? 1 : 3, [=](benchmark::State& state) {
    std::vector<void*> objects(kMillion), shuffled(kMillion);
    const auto order = make_order(Order::random, kMillion);
    if (timed != Timed::first) {
      fill(objects, sizes);
      free_all(objects);
    }
    for (auto _ : state) {
      const Stopwatch alloc_watch(kCpuTime);
      fill(objects, sizes);
      const double alloc_s = alloc_watch.elapsed_s();

      // Shuffled here and freed front to back, so that the table itself is read at full speed.
      for (std::size_t i = 0; i < kMillion; i++) shuffled[i] = objects[order[i]];

      const Stopwatch free_watch(kCpuTime);
      if (timed == Timed::free_read) {
        std::uintptr_t sum = 0;
        for (void* object : shuffled) {
          sum += *static_cast<std::uintptr_t*>(object);
          heap.free(object);
        }
        benchmark::DoNotOptimize(sum);
      } else {
        free_all(shuffled);
      }
      const double free_s = free_watch.elapsed_s();

      switch (timed) {
        case Timed::whole: state.SetIterationTime(alloc_s + free_s); break;
        case Timed::first:
        case Timed::alloc: state.SetIterationTime(alloc_s); break;
        case Timed::free:
        case Timed::free_read: state.SetIterationTime(free_s); break;
      }
    }
    report(state, kMillion);
  });
}

// A table of `live` objects. One operation: one of them, at random, is freed and replaced.
template <class Sizes>
void replace(const std::string& name, std::size_t live, Sizes sizes) {
  add_timed_row("replace_" + name, 3, [=](benchmark::State& state) {
    std::vector<void*> table(live);
    Random random(3);
    fill(table, sizes);
    replace_at_random(table, random, sizes, live);  // from the order of arrival to a used heap
    for (auto _ : state) {
      const Stopwatch watch(kCpuTime);
      replace_at_random(table, random, sizes, kMillion);
      state.SetIterationTime(watch.elapsed_s());
    }
    free_all(table);
    report(state, kMillion);
  });
}

}  // namespace

void add_large_rows() {
  working_set("64", Timed::whole, Fixed{64});
  working_set("64/first", Timed::first, Fixed{64});
  working_set("64/alloc", Timed::alloc, Fixed{64});
  working_set("64/free", Timed::free, Fixed{64});
  working_set("64/free_read", Timed::free_read, Fixed{64});
  working_set("16-512", Timed::whole, Mixed(16, 512));
  replace("100K/16-512", 100'000, Mixed(16, 512));
  replace("1M/16-512", kMillion, Mixed(16, 512));
}

}  // namespace ashlar::bench
