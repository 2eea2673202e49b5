// SPDX-License-Identifier: MIT
// What the programs share: small whole programs whose CPU time and peak memory are compared.
//
// What:    each is a fixed amount of work from fixed seeds, of about a second of CPU time, and
//          starts with require_expected_malloc(). None takes its own time: bench/launch does.
// Rule:    what is allocated is written, at least its first word and, where pages matter, a word
//          in each page, as programs do.
#pragma once

#include <array>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#include "../common.h"

namespace ashlar::bench {

inline constexpr std::size_t kPageBytes = 4 * kKiB;

// malloc, and its first word written.
inline void* take(std::size_t bytes) {
  void* const object = std::malloc(bytes);
  *static_cast<volatile std::uintptr_t*>(object) = bytes;
  return object;
}

// A word in every page of [from, to) behind `object`.
inline void touch_pages(void* object, std::size_t from, std::size_t to) {
  for (std::size_t at = from; at < to; at += kPageBytes) {
    *reinterpret_cast<volatile std::uintptr_t*>(static_cast<char*>(object) + at) = at;
  }
}

// Sizes that programs ask for: as many between 16 and 32 as between 16 K and 32 K. Drawn before
// they are used, so that no logarithm is measured.
class LogUniform {
 public:
  LogUniform(std::size_t least, std::size_t most, std::uint64_t seed) {
    Random random(seed);
    const double steps = std::log(static_cast<double>(most) / static_cast<double>(least));
    for (auto& bytes : sizes_) {
      const double at = static_cast<double>(random.next()) / 4294967296.0;
      bytes = static_cast<std::uint32_t>(static_cast<double>(least) * std::exp(steps * at));
    }
  }
  std::size_t operator[](std::size_t i) const { return sizes_[i % sizes_.size()]; }

 private:
  std::array<std::uint32_t, 8192> sizes_;
};

// Runs body(0) … body(count - 1), each in a thread of its own.
template <class Body>
void run_threads(std::size_t count, Body body) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; i++) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// The choice between two kinds of the same program; ends it with status 2 when there is none.
bool chosen(int argc, char** argv, std::string_view yes, std::string_view no);

}  // namespace ashlar::bench
