// SPDX-License-Identifier: MIT
// L4 · compact: what a program that can move its objects should move, and where to.
//
// What:    hints for addresses; a move of one object; slots taken and given past the magazines, so
//          that a slot that was just freed does not come back at once.
// How:     a plan is a snapshot: every slab of a thread's lane is ranked (ranking), and what is to
//          be emptied has a score in the arena's table. A hint is a look-up there. Owners of slabs
//          with a score set them aside. A plan is made by whoever asks for hints and finds the last
//          one old, which it is after a tenth of a second or a hundred times what it cost. Since
//          moves make full slabs fuller and empty ones emptier, the next plan goes on with it.
// Where:   a move goes to slabs of the caller's lane and of lanes that have no thread; another
//          thread's slabs cannot be taken from. A plan counts on the room of the thread that makes
//          it: one thread that moves at a time gets the most out of it.
// Stays:   large blocks, sampled objects, and those of heaps that the program makes: score 0.
// Threads: any. Not for signal handlers.
// Source:  the question is jemalloc's (experimental.utilization); the plan is ours.
#pragma once

#include <atomic>

#include "lock.h"
#include "ranking.h"
#include "thread_cache.h"

namespace ashlar {

inline SlabFill fill_of(const Slab& slab) {
  return {ClassIndex{slab.descriptor().size_class}, slab.descriptor().used};
}

class Compactor {
 public:
  constexpr Compactor() = default;

  // How much is won by moving what lies at p, which may be any address. A caller who asks for one
  // after the other looks for a new plan now and then.
  std::uint8_t hint(const void* p) {
    if (t_asked_++ % kHintsPerLook == 0) [[unlikely]]
      renew_plan();
    return arena.score_of(p);
  }
  // Makes a plan if the last one is old.
  void renew_plan();
  void make_plan();
  // The same for the slabs of one heap of the program's alone; under that heap's lock.
  void make_plan_of(LaneSlabs& slabs);

  // Moves an object and frees its old place. Null: it stays, as it should, or there is no room.
  // Aborts as free() does where a slab is to be emptied, and no object starts at p.
  void* move(void* p);

  // Past the magazines; fullest slabs first. Null and errno when memory is out.
  void* take(ClassIndex c, Bytes requested);
  // The same; aborts as free() does.
  void give(void* p, const char* caller);

  void after_fork_in_child() { planning_.reset(); }

 private:
  static constexpr std::uint32_t kHintsPerLook = 64;

  static void* take_dense(ClassIndex c);
  static void* take_dense_or_new(ClassIndex c);
  bool has_table();
  template <class ForEachSlab, class TakesMoved>
  void rank(ForEachSlab&& for_each_slab, TakesMoved&& takes_moved);
  void mark_lanes_that_take();

  static constinit thread_local std::uint32_t t_asked_ __attribute__((tls_model("initial-exec")));

  std::atomic<std::uint64_t> due_ms_ = 0;  // atomic: who plans → all; the plan is old then
  Lock planning_;
  Ranking ranking_;  // lock: planning_
};

extern constinit Compactor compactor;

}  // namespace ashlar
