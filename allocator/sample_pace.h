// SPDX-License-Identifier: MIT
// L4 · sample_pace: how far it is to a lane's next sample, and how dense its samples may be.
//
// What:    one sample falls on so many KiB of what the lane hands out, on average: the mean, which
//          is sample_kib while samples take no more than sample_percent of the time. Where they
//          come faster the mean doubles, and doubles again; where they need not it is halved.
// How:     a sample costs its price, and the lane earns sample_percent of its thread's time. What
//          is owed is looked at now and then: too much, the mean doubles; nothing, it is halved.
//          What is not spent is not saved, so a burst is not paid for with the sleep before it.
//
//          The mean depends on what was, never on what a distance drawn says of what will be, and
//          who draws ahead keeps the mean that it drew with. So an object is in the sample with a
//          probability that was settled before, which its record tells, and sums that weigh each
//          sample with its own mean are right on average (Horvitz and Thompson 1952).
// Threads: the lane's owner.
#pragma once

#include "options.h"
#include "sampler.h"

namespace ashlar {

class SamplePace {
 public:
  using Clock = std::uint64_t();  // microseconds

  // What a sample is taken to cost. Where they are dense it is a quarter of that; where they are as
  // rare as they are to be, the processor's caches hold nothing of what they need.
  static constexpr std::uint64_t kPriceNs = 3000;
  // So much may be owed before the mean doubles: short bursts are sampled as densely as asked for.
  static constexpr std::uint64_t kMostOwedNs = 64 * kPriceNs;
  // The mean is at most sample_kib shifted so far.
  static constexpr std::uint8_t kMostDoublings = 10;

  constexpr SamplePace() = default;

  // Draws how far it is to the next sample. Before the first question.
  void start() { distance_ = sampler.draw(mean_kib()); }
  std::uint32_t mean_kib() const { return mean_kib(doublings_); }
  static std::uint32_t mean_kib(std::uint32_t doublings) {
    return static_cast<std::uint32_t>(options.sample_kib) << doublings;
  }
  // Of sample_kib, to the mean.
  std::uint8_t doublings() const { return doublings_; }
  // So many bytes are handed out before the next sample. False: no, it is among them.
  bool passes(Bytes bytes) {
    if (bytes > distance_) [[unlikely]]
      return false;
    distance_ -= bytes;
    return true;
  }
  // Of `slots` slots that are handed out one after the other, how many come before one that is
  // sampled; `slots`: none is.
  std::uint32_t slots_before(Bytes slot_bytes, std::uint32_t slots) {
    if (passes(slots * slot_bytes)) return slots;
    const auto before = static_cast<std::uint32_t>(distance_ / slot_bytes);
    start();
    return before;
  }
  // The mean if one object of that size is sampled; 0: it is not.
  std::uint32_t mean_if_due(Bytes bytes) { return slots_before(bytes, 1) == 0 ? mean_kib() : 0; }
  // A sample is handed out. May change the mean, for what is not yet drawn.
  void pay(Clock& ran_us = os::thread_ran_us);

 private:
  void settle(std::uint64_t ran_us);
  // The mean is changed; half of what may be owed is between here and the next change.
  void change(std::uint8_t doublings);

  Bytes distance_ = 0;            // to hand out before the next sample
  std::uint64_t owed_ns_ = 0;     // for samples, but for what was earned since the last look
  std::uint64_t seen_us_ = 0;     // the thread's time at the last look
  std::uint32_t since_look_ = 0;  // what was handed out, in sample_kib
  std::uint8_t doublings_ = 0;
};

}  // namespace ashlar
