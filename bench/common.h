// SPDX-License-Identifier: MIT
// What all programs of bench/ share: who serves malloc, units, random numbers.
//
// None of them links an allocator: LD_PRELOAD chooses one (bench/compare).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ashlar::bench {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;

// Ends the program with status 2 unless malloc comes from a file with $ASHLAR_BENCH_EXPECT in its
// name. A preload that the loader could not use is only a warning to it; to us, a wrong result.
void require_expected_malloc();

// Numbers that look random and are the same in every run. Knuth's MMIX generator: one
// multiplication and one add, off the critical path.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  // Uniform in [0, count).
  std::size_t below(std::size_t count) { return (std::uint64_t{next()} * count) >> 32; }
  // Uniform in [least, most].
  std::size_t between(std::size_t least, std::size_t most) {
    return least + below(most - least + 1);
  }

 private:
  std::uint64_t state_;
};

}  // namespace ashlar::bench
