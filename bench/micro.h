// SPDX-License-Identifier: MIT
// What the rows of ashlar-bench share: the allocator under test, sizes, orders, clocks.
//
// What:    a row is one small program that allocates and frees; it reports nanoseconds per
//          operation. The binary links no allocator: LD_PRELOAD chooses one (bench/compare).
// Rule:    every object is written once, its first word, right after it is allocated, as programs
//          do. Without that an allocator would be praised for pages that nobody ever touched.
// Clocks:  rows of one thread count the CPU time of the whole process: the work of the kernel and
//          of an allocator's own threads is in, that of other programs is not. Rows of two threads
//          count wall time: there, waiting is part of the price.
// Random:  sizes and orders are drawn before the clock starts, from fixed seeds.
#pragma once

#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common.h"

namespace ashlar::bench {

// The functions under test. Called through pointers, which costs what a call into a shared library
// costs, so that the same rows can run with functions that do nothing: the loop column.
struct Heap {
  void* (*malloc)(std::size_t);
  void (*free)(void*);
  void* (*calloc)(std::size_t, std::size_t);
  void* (*realloc)(void*, std::size_t);
  int (*posix_memalign)(void**, std::size_t, std::size_t);
};
extern Heap heap;  // set once in main, before any row runs

inline void* touch(void* object) {
  *static_cast<std::uintptr_t*>(object) = 1;
  benchmark::DoNotOptimize(std::as_const(object));  // the mutable overload goes through memory
  return object;
}
inline void* take(std::size_t bytes) { return touch(heap.malloc(bytes)); }

// Sizes, by the number of the allocation: all the same, or uniform in [least, most].
struct Fixed {
  std::size_t bytes;
  std::size_t operator[](std::size_t) const { return bytes; }
};
class Mixed {
 public:
  Mixed(std::size_t least, std::size_t most) {
    std::minstd_rand random(1);
    for (auto& bytes : sizes_) {
      bytes = static_cast<std::uint16_t>(least + random() % (most - least + 1));
    }
  }
  std::size_t operator[](std::size_t i) const { return sizes_[i % sizes_.size()]; }

 private:
  // Long enough to be beyond branch predictors, small enough to stay in the first-level cache.
  std::array<std::uint16_t, 4096> sizes_;
};

enum class Order { lifo, fifo, random };
std::vector<std::uint32_t> make_order(Order order, std::size_t count);

// A batch: allocate objects.size() objects, then free them in the given order. Returns `next`, the
// number of the allocation to come.
template <class Sizes>
std::size_t run_batch(std::vector<void*>& objects, const std::vector<std::uint32_t>& order,
                      const Sizes& sizes, std::size_t next) {
  for (void*& object : objects) object = take(sizes[next++]);
  for (const std::uint32_t i : order) heap.free(objects[i]);
  return next;
}

// Frees an object of the table at random and puts a new one into its place, `count` times. The
// next slot is fetched ahead: waiting for the table would be the bench's time, not the allocator's.
template <class Sizes>
void replace_at_random(std::vector<void*>& table, Random& random, const Sizes& sizes,
                       std::size_t count) {
  std::size_t slot = random.below(table.size());
  for (std::size_t i = 0; i < count; i++) {
    const std::size_t following = random.below(table.size());
    __builtin_prefetch(&table[following], 1);
    heap.free(table[slot]);
    table[slot] = take(sizes[i]);
    slot = following;
  }
}

template <class Sizes>
void fill(std::vector<void*>& table, const Sizes& sizes) {
  for (std::size_t i = 0; i < table.size(); i++) table[i] = take(sizes[i]);
}
inline void free_all(const std::vector<void*>& table) {
  for (void* object : table) heap.free(object);
}

class Stopwatch {
 public:
  explicit Stopwatch(clockid_t clock) : clock_(clock), start_s_(now_s()) {}
  double elapsed_s() const { return now_s() - start_s_; }

 private:
  double now_s() const {
    timespec now{};
    clock_gettime(clock_, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }
  clockid_t clock_;
  double start_s_;
};
inline constexpr clockid_t kCpuTime = CLOCK_PROCESS_CPUTIME_ID;
inline constexpr clockid_t kWallTime = CLOCK_MONOTONIC;

// The one number of a row, seconds per operation; call it when the loop is over.
inline void report(benchmark::State& state, std::size_t operations_per_iteration) {
  using Counter = benchmark::Counter;
  const double operations =
      static_cast<double>(state.iterations()) * static_cast<double>(operations_per_iteration);
  state.counters["per_op"] =
      Counter(operations, static_cast<Counter::Flags>(Counter::kIsRate | Counter::kInvert));
}

// A quick row: as many iterations as fill a tenth of a second.
template <class Row>
void add_row(const std::string& name, Row row) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(row))->MeasureProcessCPUTime()->MinTime(0.1);
}
// A row with much to prepare: it reads its own Stopwatch and runs a fixed number of times.
template <class Row>
void add_timed_row(const std::string& name, int iterations, Row row) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(row))
      ->UseManualTime()
      ->Iterations(iterations);
}

void add_small_rows();
void add_large_rows();
void add_thread_rows();

}  // namespace ashlar::bench
