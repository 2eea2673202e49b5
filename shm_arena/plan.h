// SPDX-License-Identifier: MIT
// L4 · plan: which slabs of blocks are to be emptied, as this process sees it.
//
// What:    a score for each unit, from the heap's own ranking; 0 for what is to stay.
// How:     a plan is a snapshot that one of this process's threads makes. It ranks the slabs of all
//          lanes, and counts on the room of its own lane alone, to which it adds the slabs of lanes
//          that nobody leases. The table is private: who moves needs no one's consent, and a peer
//          cannot spoil it. Lanes of this process take from slabs with a score last; those of
//          others know nothing of them.
// Death:   nothing of a plan is in the arena.
// Fork:    a child goes on with a copy of the table, until its own next plan.
// Threads: any. Two plans at once are as good as one.
#pragma once

#include <atomic>

#include "unit_scores.h"

struct ashlar_shm;

namespace ashlar::shm {

class Plan {
 public:
  // Of the unit at that distance from the arena's data, which may be anything.
  std::uint8_t score_at(Bytes data_offset) const { return scores_.at_offset(data_offset); }
  std::uint8_t operator[](UnitIndex unit) const { return scores_[unit]; }
  // A slab that is made, or taken from after all, stays.
  void keep(UnitIndex first, std::uint32_t units) { scores_.set(first, units, 0); }

  // Makes a new one if the last is old. Keeps errno.
  void renew(ashlar_shm& arena);
  void close();

 private:
  bool has_table(const ashlar_shm& arena);
  void make(ashlar_shm& arena);

  // atomic: this process's threads; the plan is old then. Whoever makes one puts it off before.
  std::atomic<std::uint64_t> due_ms_ = 0;
  std::atomic<UnitScores::Table*> table_ = nullptr;  // atomic: who plans first → all
  UnitScores scores_;
};

}  // namespace ashlar::shm
