// SPDX-License-Identifier: MIT
// latency: how long single calls of malloc and free take under a mixed load, to the slowest.
//
// What:    prints "malloc/p50 NS", p99, p99.9, max, and the same for free.
// How:     two threads replace objects of log-uniform sizes at random in a table, one in 256 of
//          them large; one in eight replacements falls into the other thread's half. Each call
//          is timed by the time stamp counter, calibrated at start against the clock; what an
//          empty measurement takes is subtracted. Nothing is written in the timed part, so page
//          faults are the program's, unless the allocator takes them.
// Noise:   the maximum is often the kernel's, who took the core away; compare it over many rounds.
#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <ctime>

#include "programs/program.h"

namespace {

using namespace ashlar::bench;

constexpr std::size_t kThreads = 2, kLiveEach = 10'000, kReplacements = 400'000;
constexpr std::size_t kWarmUp = 50'000;

std::uint64_t start_ticks() {
  _mm_lfence();
  const std::uint64_t now = __rdtsc();
  _mm_lfence();
  return now;
}
std::uint64_t end_ticks() {
  unsigned core;
  const std::uint64_t now = __rdtscp(&core);
  _mm_lfence();
  return now;
}

double now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

double calibrate_ns_per_tick() {
  constexpr double kLong = 50e6;
  const double start_ns = now_ns();
  const std::uint64_t start = start_ticks();
  double elapsed_ns = 0;
  while (elapsed_ns < kLong) elapsed_ns = now_ns() - start_ns;
  return elapsed_ns / static_cast<double>(end_ticks() - start);
}

using Ticks = std::vector<std::uint32_t>;

// The value that a share of `part` of all stays below; reorders.
std::uint32_t quantile(Ticks& ticks, double part) {
  const auto rank = static_cast<std::ptrdiff_t>(part * static_cast<double>(ticks.size() - 1));
  std::nth_element(ticks.begin(), ticks.begin() + rank, ticks.end());
  return ticks[static_cast<std::size_t>(rank)];
}

std::uint32_t measure_overhead() {
  Ticks ticks(10'000);
  for (auto& one : ticks) {
    const std::uint64_t start = start_ticks();
    one = static_cast<std::uint32_t>(end_ticks() - start);
  }
  return quantile(ticks, 0.5);
}

struct Samples {
  Ticks mallocs = Ticks(kReplacements), frees = Ticks(kReplacements);
};

void replace_objects(std::size_t thread, std::vector<std::atomic<void*>>& table, Samples& samples) {
  const LogUniform small(16, 16 * kKiB, thread), large(32 * kKiB, kMiB, thread);
  Random random(thread);
  for (std::size_t i = 0; i < kWarmUp + kReplacements; i++) {
    const std::uint32_t dice = random.next() >> 16;
    const std::size_t bytes = dice % 256 == 0 ? large[i] : small[i];
    const std::size_t half = dice / 256 % 8 == 0 ? 1 - thread : thread;
    std::atomic<void*>& slot = table[half * kLiveEach + random.below(kLiveEach)];

    const std::uint64_t malloc_start = start_ticks();
    void* const object = std::malloc(bytes);
    const std::uint64_t malloc_end = end_ticks();
    touch_pages(object, 0, bytes);
    void* const old = slot.exchange(object);
    const std::uint64_t free_start = start_ticks();
    std::free(old);
    const std::uint64_t free_end = end_ticks();

    if (i < kWarmUp) continue;
    samples.mallocs[i - kWarmUp] = static_cast<std::uint32_t>(malloc_end - malloc_start);
    samples.frees[i - kWarmUp] = static_cast<std::uint32_t>(free_end - free_start);
  }
}

void print(const char* function, Ticks& ticks, double ns_per_tick, std::uint32_t overhead) {
  constexpr std::pair<const char*, double> kParts[] = {
      {"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}};
  for (const auto& [name, part] : kParts) {
    const std::uint32_t value = quantile(ticks, part);
    const double net = value > overhead ? value - overhead : 0;
    std::printf("%s/%s %.1f\n", function, name, net * ns_per_tick);
  }
}

}  // namespace

int main() {
  require_expected_malloc();
  const double ns_per_tick = calibrate_ns_per_tick();
  const std::uint32_t overhead = measure_overhead();
  std::vector<std::atomic<void*>> table(kThreads * kLiveEach);
  std::array<Samples, kThreads> samples;
  run_threads(kThreads, [&](std::size_t i) { replace_objects(i, table, samples[i]); });

  Samples& all = samples[0];
  for (std::size_t i = 1; i < kThreads; i++) {
    all.mallocs.insert(all.mallocs.end(), samples[i].mallocs.begin(), samples[i].mallocs.end());
    all.frees.insert(all.frees.end(), samples[i].frees.begin(), samples[i].frees.end());
  }
  print("malloc", all.mallocs, ns_per_tick, overhead);
  print("free", all.frees, ns_per_tick, overhead);
}
