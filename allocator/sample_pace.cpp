// SPDX-License-Identifier: MIT
#include "sample_pace.h"

#include <algorithm>

namespace ashlar {

namespace {

// The clock is a system call. It is asked when so many times sample_kib were handed out, and for
// each sample where the mean is more.
constexpr std::uint32_t kBetweenLooks = 16;

}  // namespace

void SamplePace::pay(Clock& ran_us) {
  if (options.sample_percent == 0) return;
  owed_ns_ += kPriceNs;
  since_look_ += 1u << doublings_;
  if (since_look_ < kBetweenLooks) return;
  since_look_ = 0;
  settle(ran_us());
}

void SamplePace::settle(std::uint64_t ran_us) {
  // Another thread may have had the lane: then one look is wrong.
  const std::uint64_t passed_us = ran_us < seen_us_ ? ran_us : ran_us - seen_us_;
  seen_us_ = ran_us;
  const std::uint64_t earned_ns =
      passed_us * 1000 / 100 * static_cast<std::uint64_t>(options.sample_percent);
  owed_ns_ = owed_ns_ > earned_ns ? owed_ns_ - earned_ns : 0;
  if (owed_ns_ >= kMostOwedNs) {
    change(std::min<std::uint8_t>(doublings_ + 1, kMostDoublings));
  } else if (owed_ns_ == 0 && doublings_ > 0) {
    change(doublings_ - 1);
  }
}

void SamplePace::change(std::uint8_t doublings) {
  doublings_ = doublings;
  owed_ns_ = kMostOwedNs / 2;
  start();  // what was left of the distance was of the old mean
}

}  // namespace ashlar
