// SPDX-License-Identifier: MIT
// L4 · handle_slabs: slabs of objects with handles, which belong to nobody.
//
// What:    a lane holds such a slab for the moment in which it changes its bits. Nobody waits: who
//          finds one held goes to another, or leaves the work to a later call. For quotas, a slab
//          counts for the lane that made it.
// How:     the entry of a slab's first unit says `open`, or who holds it; one exchange changes it.
//          Being open is all there is to know of a slab, so the exchange cannot be fooled by what
//          happened in between.
// Death:   a slab stays held until recovery has settled the change that its holder was making. So
//          nobody else can have touched the bits, and the change may be settled twice.
// Threads: any, each for a lane that is its own.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

class HeldSlab {
 public:
  HeldSlab() = default;
  // Holds the slab that has the unit; none, if it is not an open one.
  HeldSlab(ashlar_shm& arena, std::uint32_t lane, UnitIndex unit);
  // Makes one. None and errno: no memory.
  static HeldSlab make(View& view, ClassIndex c);
  HeldSlab(HeldSlab&& other) noexcept
      : arena_(other.arena_), lane_(other.lane_), slab_(other.slab_) {
    other.slab_ = SlabRef::none();
  }
  HeldSlab& operator=(HeldSlab&&) = delete;
  ~HeldSlab() { let_go(); }

  explicit operator bool() const { return slab_.exists(); }
  std::uint32_t lane() const { return lane_; }
  const SlabRef* operator->() const { return &slab_; }
  const SlabRef& operator*() const { return slab_; }
  // Its lowest free slot, or capacity: there is none.
  std::uint32_t free_slot() const;
  Bytes offset_of(std::uint32_t slot) const {
    return Bytes{slab_.first().v} * kUnitBytes + Bytes{slot} * slab_.info().slot_bytes;
  }
  bool is_empty() const;
  // Gives its pages back; all slots are free. False: their chunk is held, try again later.
  // `keeps_chunk`: as for Pages::end_give().
  bool retire(bool keeps_chunk = false);

 private:
  HeldSlab(ashlar_shm& arena, std::uint32_t lane, const SlabRef& slab)
      : arena_(&arena), lane_(lane), slab_(slab) {}
  void let_go();

  ashlar_shm* arena_ = nullptr;
  std::uint32_t lane_ = 0;
  SlabRef slab_ = SlabRef::none();
};

// Calls visit(slab) for each slab of objects with handles that begins in [from, to), by address.
// Returns where to go on.
template <class Visit>
UnitIndex for_each_handle_slab(const ashlar_shm& arena, Visit&& visit, UnitIndex from,
                               UnitIndex to) {
  return for_each_slab(
      arena, [](std::uint64_t tag) { return tag >= kOpenTag; }, visit, from, to);
}

// A pass marks the slabs that it means to empty; see compaction.h. A hint.
inline void mark_victim(const SlabRef& slab, bool victim) {
  slab.descriptor().list = victim ? std::uint8_t{0} : LaneSlabs::kNoList;
}
inline bool is_victim(const SlabRef& slab) { return slab.descriptor().list == 0; }

enum class Room : std::uint8_t { anywhere, but_no_new_slab };
// A slab of the class with a free slot, and not one that is being emptied. None and errno.
HeldSlab hold_slab_with_room(View& view, ClassIndex c, Room where);

// Opens the slabs that a dead lane held.
void open_slabs_of(ashlar_shm& arena, std::uint32_t lane);

}  // namespace ashlar::shm
