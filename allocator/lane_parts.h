// SPDX-License-Identifier: MIT
// L4 · lane_parts: what thread_cache.cpp, the owner's own paths, and lane_upkeep.cpp, what is done
// for a lane now and then, have in common. For nobody else.
#pragma once

#include "thread_cache.h"

namespace ashlar {

// After purge_stacks(): what lay at the tops lies there again, before anybody looks.
void restore_tops(Lane& lane);
// The same where the owner is in no hit path: nobody wants what lies above a top any more, and its
// page stays away.
void restore_stacks(Lane& lane);

// A slow path that changes stacks: a child that is forked meanwhile does not believe them.
class Busy : Entered {
 public:
  explicit Busy(Lane& lane) : Entered(lane, OwnerState::changing) {
    if (lane.is_bare) [[unlikely]]
      restore_stacks(lane);
  }
};

// Magazines without slots or stacks.
void init_magazines(Lane& lane);

// Gives slots of one class back to the lane's slabs.
void give_slots(Lane& lane, ClassIndex c, void* const* slots, std::uint32_t count);
// Everything in one magazine; the remote frees; the large block that was freed first.
void flush_magazine(Lane& lane, ClassIndex c);
void flush_remote(Lane& lane);
void flush_oldest_large(Lane& lane);

}  // namespace ashlar
