// SPDX-License-Identifier: MIT
// L5 · handles: objects that may be moved while nobody has them locked.
//
// What:    a handle names an entry of one table, and the entry says where the object is. lock()
//          gives the address, and until unlock() the object stays there.
// How:     a lock is a pin: one word of the lane's own, stored before the entry is read. Who means
//          to move an object says so in its entry, and then looks at everybody's pins; so either
//          he sees the pin, or the pin's owner sees the entry. (Hazard pointers, Michael 2004.)
//          A lock that finds a move under way puts the entry back, and the move comes to nothing:
//          no lock ever waits, whoever is stopped.
//          An object that is freed while it is locked goes when the last pin does.
// Change:  whatever puts an object somewhere or takes it away holds the slabs concerned, and first
//          writes down the entry and the slots: a change.
// Death:   one rule settles every change. Of its slots, the one that the entry names is in use, the
//          other is free, and so is its keeper. Pins of a dead lane are cleared.
// Threads: any. Not for signal handlers. A thread unlocks what it locked itself.
#pragma once

#include "handle_slabs.h"

namespace ashlar::shm {

// An object of at most kMaxSlotBytes. 0 and errno.
std::uint64_t alloc_handle(ashlar_shm& arena, Bytes bytes);
// 0, or an errno value: ESTALE.
[[nodiscard]] int free_handle(ashlar_shm& arena, Handle handle);
// Null and errno: ESTALE, ENOLCK, and what a lane costs.
void* lock_handle(ashlar_shm& arena, Handle handle);
// False: this thread does not have it locked.
[[nodiscard]] bool unlock_handle(ashlar_shm& arena, Handle handle);
// The bytes of its object; 0: there is none.
Bytes bytes_of_handle(ashlar_shm& arena, Handle handle);

// --- for compaction -----------------------------------------------------------------------------

// The calling thread's view, with memory for handles. Null and errno.
View* view_for_handles(ashlar_shm& arena);
bool is_pinned(const ashlar_shm& arena, std::uint32_t index);
// Gives the slot of a dropped object back, unless somebody has it locked or holds its slab.
void reclaim(View& view, std::uint32_t index);

// Keeps a free slot of the class for an object that is about to move there, in no victim and no new
// slab: by an entry that is dropped, and pinned by this lane. So nobody gives the slot back while
// the lane lives, and anybody does once it does not. Returns that entry; kNone: there is no such
// slot, or no pin for it.
std::uint32_t keep_slot(View& view, ClassIndex c);
// Ends that; the slot is given back, unless the entry does not name it any more.
void end_keeping(View& view, std::uint32_t keeper);
// In a change, before the object is there: the keeper is a free entry.
void free_keeper(ashlar_shm& arena, std::uint32_t keeper, Bytes slot);

// What a lane is about to do to an entry, from begin to end written down in the segment.
class Change {
 public:
  // Data offsets of up to two slots, in slabs that the lane holds.
  static constexpr Bytes kNoSlot = ~Bytes{0};
  // `keeper`: an entry that has kept the second one.
  Change(const View& view, std::uint32_t index, Bytes slot, Bytes other = kNoSlot,
         std::uint32_t keeper = kNone);
  ~Change();
  Change(const Change&) = delete;

 private:
  LaneHandles& lane_;
};

// --- death --------------------------------------------------------------------------------------

// Settles what a lane whose thread is gone was doing, and clears its pins.
void settle_handles(ashlar_shm& arena, std::uint32_t lane);

}  // namespace ashlar::shm
