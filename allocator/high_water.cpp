// SPDX-License-Identifier: MIT
#include "high_water.h"

#include <algorithm>

namespace ashlar {

namespace {

// Where a page fault takes 2.5 µs, those of pages that went back for nothing are one part in a
// hundred of the time.
constexpr std::uint64_t kPagesPerMs = 4;
// With less it is not worth a look at the chunks; and runs of pages go back as a whole.
constexpr std::uint64_t kLeastCredit = kPagesPerChunk;
// About a millisecond's work.
constexpr std::uint64_t kMostCredit = pages_for(8 * kMiB).v;

}  // namespace

void HighWater::note(Pages now) {
  const std::uint32_t held = now.used + now.dirty;
  if (held > most_) most_ = held;
}

PageCount HighWater::due(Pages now, std::uint64_t now_ms) {
  const std::uint64_t seen_ms = seen_ms_;  // another thread's may be later
  const std::uint64_t passed_ms = seen_ms == 0 || now_ms < seen_ms ? 0 : now_ms - seen_ms;
  seen_ms_ = std::max(seen_ms, now_ms);
  const std::uint64_t credit = std::min(credit_ + passed_ms * kPagesPerMs, kMostCredit);
  const std::uint32_t held = now.used + now.dirty;
  const std::uint32_t excess = held > most_ ? std::min(held - most_, now.dirty) : 0;
  const auto due = static_cast<std::uint32_t>(
      credit < kLeastCredit ? 0 : std::min<std::uint64_t>(excess, credit));
  credit_ = static_cast<std::uint32_t>(credit) - due;
  note({now.used, now.dirty - due});
  return {due};
}

}  // namespace ashlar
