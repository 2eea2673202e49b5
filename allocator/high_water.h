// SPDX-License-Identifier: MIT
// L4 · high_water: free pages go back before the heap holds more than it ever did.
//
// What:    a large block may fit nowhere but on pages that are not in memory, while free ones that
//          are lie where it does not fit. Touching it would lift the most memory that the process
//          ever held, for pages that nobody uses. So as many of these go back.
// How:     the mark is the most that used and dirty pages came to together. What lifts it is either
//          given back, or noted. Pages that go back may soon be needed again, and to fault one in
//          costs far more than to purge it: so there is a credit, which grows with time, slowly. A
//          program that comes back to the mark again and again gets its room.
// Threads: any; it is advice.
// Not here: which pages go back (Arena::purge_pages).
#pragma once

#include "sawtooth.h"

namespace ashlar {

class HighWater {
 public:
  using Pages = Sawtooth::Pages;

  // From every tick.
  void note(Pages now);
  // A large block was taken. How many dirty pages are to go back for it.
  PageCount due(Pages now, std::uint64_t now_ms);

 private:
  Owned<std::uint32_t> most_;     // any, like the others: used and dirty pages; advice
  Owned<std::uint32_t> credit_;   // pages that may go back
  Owned<std::uint64_t> seen_ms_;  // since when the credit has not grown; 0: there was none
};

}  // namespace ashlar
