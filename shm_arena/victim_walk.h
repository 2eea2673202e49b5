// SPDX-License-Identifier: MIT
// L5 · victim walk: one lane's turn at a pass over all objects with handles.
//
// What:    claims the arena's one pass, chooses victims when none are, and visits the objects that
//          lie in a victim, within a budget. The next walk, by whomever, goes on from there.
//          2 MiB go back to the kernel in 0.4 ms; so memory goes in pieces, with looks at the
//          clock.
// Death:   the pass is in the arena: its place, the marks of its victims, and whose turn it is.
// Threads: the one that claimed it.
#pragma once

#include <ashlar/passes.h>

#include "handles.h"

namespace ashlar::shm {

// Gives the pages of a slab back if it is empty; returns their bytes, or 0. A chunk that is all
// free then goes, too, but its memory in pieces, by walks.
Bytes retire_victim(ashlar_shm& arena, HeldSlab& slab);

class VictimWalk {
 public:
  VictimWalk(View& view, Deadline deadline, Bytes budget_bytes)
      : arena_(*view.arena), view_(view), deadline_(deadline), bytes_left_(budget_bytes) {}

  // Makes it this lane's turn, and tells the program. 0, or EBUSY.
  [[nodiscard]] static int claim(View& view);
  // `done` by this turn, which is told, and added to `moved`.
  static void let_go(View& view, const ashlar_moved& done, ashlar_moved& moved);

  // Where no pass is under way, goes on choosing victims for one until that deadline, and begins it
  // once they are chosen. 0, or ENOMEM.
  [[nodiscard]] int begin(Deadline deadline, Bytes& freed);
  // Calls visit(index, entry, slab) for one object after the other until it says stop or the budget
  // is spent. True: there is more to do.
  enum class Next : std::uint8_t { go_on, stop };
  template <class Visit>
  bool run(Visit&& visit);
  void spend(Bytes bytes) { bytes_left_ -= bytes < bytes_left_ ? bytes : bytes_left_; }

 private:
  static constexpr std::uint64_t kMoveUs = 2;
  static constexpr std::uint64_t kPieceUs = 30;  // of memory: Pages::drop_piece()

  bool is_spent(std::uint64_t step_us = kMoveUs) const {
    return bytes_left_ == 0 || deadline_.is_over(step_us);
  }
  // False: the budget is spent before all memory of chunks that leave is gone.
  bool drop_leaving_chunk();
  bool end();

  ashlar_shm& arena_;
  View& view_;
  Deadline deadline_;
  Bytes bytes_left_;
  bool has_begun_ = false;  // did something: the first step is done with the smallest budget
};

template <class Visit>
bool VictimWalk::run(Visit&& visit) {
  constexpr std::uint32_t kLook = 64;  // entries between two looks at the clock
  std::atomic<std::uint32_t>& at = arena_.state().pass_at;
  const std::uint32_t end_index = arena_.state().handles_end.load();
  if (at.load() == 0 || !drop_leaving_chunk()) return true;
  for (std::uint32_t index = at.load() - 1; index < end_index; index++) {
    const HandleEntry entry = arena_.handle_word(index)->load();
    if (entry.state() == HandleEntry::kDropped) reclaim(view_, index);
    const SlabRef slab =
        entry.is_usable() ? SlabRef::find_at(arena_, entry.data_offset()) : SlabRef::none();
    const bool leaves = slab.exists() && slab.is_for_handles() && is_victim(slab);
    const bool stops = leaves && visit(index, entry, slab) == Next::stop;
    at.store(index + 2);  // whatever the budget is, the next call goes on behind it
    has_begun_ |= leaves;
    if (stops || (leaves && !drop_leaving_chunk())) return true;
    if ((leaves || index % kLook == 0) && is_spent()) return true;
  }
  return !end();
}

}  // namespace ashlar::shm
