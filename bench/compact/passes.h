// SPDX-License-Identifier: MIT
// passes: compacts a pool or an arena pass by pass, and says what that gave and how long it took.
#pragma once

#include <ashlar/ashlar.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sys/resource.h>
#include <vector>

namespace ashlar::bench {

// The i-th number on the command line, or `otherwise`.
inline std::size_t number_at(int i, int argc, char** argv, std::size_t otherwise) {
  return argc > i ? std::strtoul(argv[i], nullptr, 10) : otherwise;
}

inline double time_us(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}
inline double now_us() { return time_us(CLOCK_MONOTONIC); }

inline void print_times(const char* what, std::vector<double>& us) {
  if (us.empty()) us.push_back(0);
  std::sort(us.begin(), us.end());
  std::printf("%-28s median %.1f, p99 %.1f, p99.9 %.1f, longest %.0f (%zu)\n", what,
              us[us.size() / 2], us[us.size() * 99 / 100], us[us.size() * 999 / 1000], us.back(),
              us.size());
}

// How often this thread lost its core to another.
inline long preemptions() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

// Until a whole plan moves nothing. compact(moved) is one pass and returns whether there is more. A
// pass that loses its core takes long by the clock, and no longer of the processor's time; those
// that lost none are told apart, too.
template <class Density, class Compact>
void compact_and_print(Density&& density, Compact&& compact) {
  std::printf("density before               %.3f\n", density());
  ashlar_moved moved{};
  std::vector<double> clock, undisturbed, processor;
  for (std::uint64_t before = UINT64_MAX; moved.objects != before;) {
    before = moved.objects;
    for (bool more = true; more;) {
      const long lost = preemptions();
      const double begin = now_us(), processor_begin = time_us(CLOCK_THREAD_CPUTIME_ID);
      more = compact(moved);
      processor.push_back(time_us(CLOCK_THREAD_CPUTIME_ID) - processor_begin);
      clock.push_back(now_us() - begin);
      if (preemptions() == lost) undisturbed.push_back(clock.back());
    }
  }
  std::printf("density after                %.3f\n", density());
  std::printf("bytes moved per byte freed   %.3f\n",
              static_cast<double>(moved.bytes) / static_cast<double>(moved.freed));
  print_times("passes by the clock, µs", clock);
  print_times("  those that kept their core", undisturbed);
  print_times("  in processor time", processor);
}

inline void compact_and_print(ashlar_pool* pool, std::uint64_t budget_us) {
  const auto density = [pool] {
    ashlar_heap_stats stats;
    ashlar_pool_get_stats(pool, &stats);
    return static_cast<double>(stats.allocated) / static_cast<double>(stats.active);
  };
  compact_and_print(density, [=](ashlar_moved& moved) {
    return ashlar_pool_compact(pool, budget_us, SIZE_MAX, &moved) == 1;
  });
}

}  // namespace ashlar::bench
