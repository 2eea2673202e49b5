// SPDX-License-Identifier: MIT
// property.h: random steps that can be repeated, and an account of the last ones on failure.
//
// Seeds are fixed. ASHLAR_SEED=N runs with another one, ASHLAR_STEPS=N with another length:
//
//   ASHLAR_SEED=$RANDOM ASHLAR_STEPS=10000000 build/debug/tests/property/property-buddy
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "../unit/unit.h"

namespace ashlar::test {

inline std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

// How many steps: fewer where each costs many times as much.
inline std::uint32_t steps(std::uint32_t wanted) {
  return static_cast<std::uint32_t>(number_from("ASHLAR_STEPS", kSanitized ? wanted / 4 : wanted));
}

// splitmix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9e37'79b9'7f4a'7c15;
    x = (x ^ x >> 30) * 0xbf58'476d'1ce4'e5b9;
    x = (x ^ x >> 27) * 0x94d0'49bb'1331'11eb;
    return x ^ x >> 31;
  }
  std::uint32_t below(std::uint64_t n) { return static_cast<std::uint32_t>(next() % n); }
  std::uint32_t between(std::uint32_t least, std::uint32_t most) {
    return least + below(std::uint64_t{most} - least + 1);
  }
  bool chance(std::uint32_t percent) { return below(100) < percent; }
  // Small numbers as often as large ones: each number of digits is as likely as any other.
  std::uint32_t up_to(std::uint32_t most) {
    const std::uint32_t n = 1u << below(static_cast<std::uint64_t>(std::bit_width(most)));
    return std::min(most, n + below(n));
  }

 private:
  std::uint64_t state_;
};

// The last steps of the running test case. Its report prints them when anything fails.
class Trace {
 public:
  void begin(std::uint64_t seed) {
    seed_ = seed;
    count_ = 0;
    shown_ = false;
  }
  [[gnu::format(printf, 2, 3)]] void step(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(lines_[count_++ % kLines], kWidth, format, arguments);
    va_end(arguments);
  }
  void show() {
    if (shown_ || seed_ == 0) return;
    shown_ = true;
    std::fprintf(stderr, "ASHLAR_SEED=%#llx, step %zu; the last steps:\n",
                 static_cast<unsigned long long>(seed_), count_);
    for (std::size_t i = count_ < kLines ? 0 : count_ - kLines; i < count_; i++) {
      std::fprintf(stderr, "  %zu  %s\n", i + 1, lines_[i % kLines]);
    }
  }

 private:
  static constexpr std::size_t kLines = 40;
  static constexpr std::size_t kWidth = 120;
  std::uint64_t seed_ = 0;
  std::size_t count_ = 0;
  bool shown_ = false;
  char lines_[kLines][kWidth];
};
inline Trace trace;

// Runs act(Random&) once for each of `seeds` seeds.
template <class Act>
void for_seeds(std::uint64_t seeds, Act&& act) {
  const std::uint64_t chosen = number_from("ASHLAR_SEED", 0);
  for (std::uint64_t seed = chosen != 0 ? chosen : 1; seed <= (chosen != 0 ? chosen : seeds);
       seed++) {
    trace.begin(seed);
    Random random(seed);
    act(random);
  }
}

// A pattern that an object carries from when it is taken to when it is given back: its ends and a
// few words between, so that any overlap shows.
inline void fill(void* object, Bytes bytes, std::uint64_t stamp) {
  auto* const words = static_cast<std::uint64_t*>(object);
  const Bytes count = bytes / sizeof stamp;
  for (Bytes i = 0; i < count; i += i + 1 < count ? std::min(i / 2 + 1, count - 1 - i) : 1) {
    words[i] = stamp + i;
  }
}
inline bool is_filled(const void* object, Bytes bytes, std::uint64_t stamp) {
  const auto* const words = static_cast<const std::uint64_t*>(object);
  const Bytes count = bytes / sizeof stamp;
  for (Bytes i = 0; i < count; i += i + 1 < count ? std::min(i / 2 + 1, count - 1 - i) : 1) {
    if (words[i] != stamp + i) return false;
  }
  return true;
}

// An object, and the stamp of what it was filled with.
struct Stamped {
  void* p;
  Bytes bytes;
  std::uint64_t stamp;
};

// Removes and returns a random element.
template <class T>
T pick(std::vector<T>& from, Random& random) {
  const std::size_t i = random.below(from.size());
  const T picked = from[i];
  from[i] = from.back();
  from.pop_back();
  return picked;
}

}  // namespace ashlar::test
