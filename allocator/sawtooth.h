// SPDX-License-Identifier: MIT
// L4 · sawtooth: free pages that are kept because the program is about to need them again.
//
// What:    a program that fills a buffer, empties it and fills it again would fault its pages in
//          each time. From the second tooth on, its troughs are kept in memory.
// How:     from when pages were last given back, it watches how much the pages in use rose after a
//          low: so much was needed again. When free pages become too many, and the fall since the
//          high is not deeper than that, apart from a little, they will be needed again, too, and
//          are kept, and half as many more. A deeper fall is the program growing small: nothing is
//          kept.
// Threads: note, kept: any, and then they are advice. The others: one at a time.
// Not here: how many free pages are too many (maintenance).
#pragma once

#include <cstdint>

#include "owned.h"
#include "units.h"

namespace ashlar {

class Sawtooth {
 public:
  // Of the whole arena.
  struct Pages {
    std::uint32_t used;
    std::uint32_t dirty;  // free, and in memory
  };

  // From every tick.
  void note(Pages now);
  // There are too many dirty pages; says how many may be. What was `period_ms` ago is forgotten.
  void judge(Pages now, std::uint64_t now_ms, std::uint64_t period_ms);
  // Pages were given back: what was seen before is no measure for what comes.
  void begin(Pages now);
  // Now and then.
  void forget() { kept_ = kept_ / 2; }

  Bytes kept() const { return kept_; }

 private:
  Owned<std::uint32_t> least_dirty_;  // any, like the next three: since begin(); advice
  Owned<std::uint32_t> most_used_;
  Owned<std::uint32_t> least_used_;
  Owned<std::uint32_t> regained_;  // the most that `used` was above its least before
  Owned<Bytes> kept_;              // who judges → any
  std::uint64_t judged_ms_ = 0;    // who judges
};

}  // namespace ashlar
