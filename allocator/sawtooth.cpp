// SPDX-License-Identifier: MIT
#include "sawtooth.h"

#include <algorithm>

namespace ashlar {

namespace {

// Of what was freed, the program may have shrunk by so much without the rest being given up.
constexpr std::uint32_t kShrunkPart = 4;

// Others note meanwhile.
constexpr std::uint32_t excess(std::uint32_t a, std::uint32_t b) { return a > b ? a - b : 0; }

}  // namespace

void Sawtooth::note(Pages now) {
  if (now.dirty < least_dirty_) least_dirty_ = now.dirty;
  if (now.used > most_used_) most_used_ = now.used;
  if (now.used < least_used_) {
    least_used_ = now.used;
  } else if (now.used - least_used_ > regained_) {
    regained_ = now.used - least_used_;
  }
}

void Sawtooth::judge(Pages now, std::uint64_t now_ms, std::uint64_t period_ms) {
  note(now);
  const bool recent = now_ms - judged_ms_ < period_ms;
  const std::uint32_t regained = regained_;
  const std::uint32_t freed = excess(now.dirty, least_dirty_);
  const std::uint32_t deeper = excess(excess(most_used_, now.used), regained);
  const bool again = recent && deeper < freed / kShrunkPart;
  judged_ms_ = now_ms;
  kept_ = again ? bytes_of(PageCount{std::min(freed, regained) / 2 * 3}) : 0;
}

void Sawtooth::begin(Pages now) {
  least_dirty_ = now.dirty;
  most_used_ = now.used;
  least_used_ = now.used;
  regained_ = 0;
}

}  // namespace ashlar
