// SPDX-License-Identifier: MIT
// L4 · drain: when the slabs of a lane that shrinks are looked through for empty pages.
//
// What:    in a process of one thread nobody looks once it sleeps, so time is not enough: a program
//          may free most of its memory and then wait. Volume counts, too: a drain is a look at all
//          slabs after so much was given back.
// How:     how much, the last drain says: the less was given back for each empty page that it
//          found, the sooner comes the next, so that one is worth its cost whatever the sizes of
//          the objects are. Where half of the holes that drains made are soon needed again, they
//          were a mistake, and there are none for a while.
// Threads: the lane's owner.
// Not here: the look itself (Arena::purge_slabs), the clock (maintenance).
#pragma once

#include <cstdint>

#include "units.h"

namespace ashlar {

class Drain {
 public:
  // Of the lane.
  struct Account {
    Bytes used;      // by slots that are handed out
    Bytes refilled;  // holes that slots were taken from so far
    Bytes slabs;     // all that there are
  };

  // From every tick. `period_ms`: how soon memory counts as needed again. `ran_ms` tells for how
  // long this thread has run, and is asked when now_ms is another than before.
  void note(const Account& now, std::uint64_t now_ms, std::uint64_t period_ms,
            std::uint64_t (&ran_ms)());
  // What was filled just now and is given back is likely to be filled again. By the thread's own
  // time: on a busy machine, others take most of the clock's. (On another thread than before:
  // true.)
  bool has_settled() const { return ran_ms_ - grown_ran_ms_ >= kSettleMs; }
  bool is_due(std::uint64_t now_ms) const {
    return most_used_ - used_ > step_ && now_ms >= due_ms_ && has_settled();
  }

  void begin(const Account& now);
  bool runs() const { return runs_; }
  // A part of the look made holes of so many bytes; it was the last part.
  void note_holes(Bytes bytes) { holes_ += runs_ ? bytes : 0; }
  void end(const Account& now);

  // Now and then: mistakes before that are forgotten.
  void forget(const Account& now, std::uint64_t now_ms);

 private:
  static constexpr std::uint64_t kSettleMs = 20;

  Bytes used_ = 0;                  // at the last note
  Bytes most_used_ = 0;             // since the last drain began
  Bytes step_ = 0;                  // so much is given back until the next one
  Bytes given_ = 0;                 // until this one
  Bytes holes_ = 0;                 // made by this one so far
  Bytes recent_holes_ = 0;          // made by drains since forget()
  Bytes refilled_before_ = 0;       // at the last forget()
  std::uint64_t noted_ms_ = 0;      // the last note
  std::uint64_t ran_ms_ = 0;        // for how long the thread had run then
  std::uint64_t grown_ran_ms_ = 0;  // when `used` was last more than before
  std::uint64_t due_ms_ = 0;        // none before
  std::uint64_t pause_ms_ = 0;      // that was decided to be so long
  bool runs_ = false;
};

}  // namespace ashlar
