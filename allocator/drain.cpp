// SPDX-License-Identifier: MIT
#include "drain.h"

#include <algorithm>

namespace ashlar {

namespace {

// A look that finds less than this for what it looks at comes too soon. (It costs 0.15 µs a slab;
// giving back a page costs several times that.)
constexpr Bytes kWorthPart = 128;
constexpr Bytes kLeastWorth = 64 * kKiB;
constexpr Bytes kLeastStep = 16 * kKiB;
// At the latest when so much of what is in use was given back.
constexpr Bytes kMostStepPart = 16;
constexpr Bytes kMostStepMore = kMiB;
constexpr std::uint64_t kMostPausePeriods = 16;

constexpr Bytes most_step(Bytes used) { return used / kMostStepPart + kMostStepMore; }
constexpr Bytes worth(Bytes slabs) { return slabs / kWorthPart + kLeastWorth; }

}  // namespace

void Drain::note(const Account& now, std::uint64_t now_ms, std::uint64_t period_ms,
                 std::uint64_t (&ran_ms)()) {
  if (now_ms != noted_ms_) {
    noted_ms_ = now_ms;
    ran_ms_ = ran_ms();
  }
  if (now.used > used_) grown_ran_ms_ = ran_ms_;
  used_ = now.used;
  most_used_ = std::max(most_used_, used_);
  step_ = step_ == 0 ? most_step(used_) : std::min(step_, most_step(used_));
  const Bytes refilled = now.refilled - refilled_before_;
  // A few pages, whose faults cost no more than a look does, are no reason.
  if (recent_holes_ != 0 && refilled > recent_holes_ / 2 && refilled > worth(now.slabs)) {
    pause_ms_ = std::min(std::max(2 * pause_ms_, period_ms), kMostPausePeriods * period_ms);
    due_ms_ = now_ms + pause_ms_;
    recent_holes_ = 0;
  }
}

void Drain::begin(const Account& now) {
  given_ = most_used_ - now.used;
  used_ = now.used;
  most_used_ = now.used;
  holes_ = 0;
  runs_ = true;
}

void Drain::end(const Account& now) {
  const Bytes enough = worth(now.slabs);
  const Bytes step = holes_ < enough / 2 ? 2 * given_ : given_ / (holes_ / enough + 1);
  step_ = std::clamp(step, kLeastStep, most_step(now.used));
  recent_holes_ += holes_;
  runs_ = false;
}

void Drain::forget(const Account& now, std::uint64_t now_ms) {
  recent_holes_ = 0;
  refilled_before_ = now.refilled;
  if (now_ms >= due_ms_) pause_ms_ /= 2;
}

}  // namespace ashlar
