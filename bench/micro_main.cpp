// SPDX-License-Identifier: MIT
// ashlar-bench: makes sure that the right allocator is under test, registers the rows, runs.
//
//   ASHLAR_BENCH_EXPECT=NAME   an error unless malloc comes from a file with NAME in its name
//   ASHLAR_BENCH_LOOP=1        functions that do nothing: what the rows themselves cost
//
// Arguments are Google Benchmark's.
#include <cstdlib>

#include "micro.h"

namespace ashlar::bench {
namespace {

// One place to write to for each thread, and one for growing: rows write no further than that.
alignas(64) thread_local char scratch[64];
alignas(64) char large_scratch[64 * kMiB];

// A call that does nothing, but is one.
constexpr Heap kLoop{
    [](std::size_t) -> void* { return scratch; },
    [](void*) {},
    [](std::size_t, std::size_t) -> void* { return scratch; },
    [](void*, std::size_t) -> void* { return large_scratch; },
    [](void** object, std::size_t, std::size_t) {
      *object = scratch;
      return 0;
    },
};

}  // namespace
}  // namespace ashlar::bench

int main(int argc, char** argv) {
  using namespace ashlar::bench;
  require_expected_malloc();
  if (std::getenv("ASHLAR_BENCH_LOOP") != nullptr) heap = kLoop;
  add_small_rows();
  add_large_rows();
  add_thread_rows();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
