// SPDX-License-Identifier: MIT
// L4 · lane lists: the slabs of one lane that have room, by eighths of fullness.
//
// What:    enters a slab where its fullness demands and takes it out again; a slab that is all free
//          goes back to the buddy, unless it is the only one of its class. One that is to be
//          emptied (plan.h) counts as the sparsest, so that it is taken from last.
// How:     heads and tails are in the view, private to the process; links are in the slabs'
//          descriptors. First in, first out: a slab gathers room until its turn comes. It is not
//          filed anew while it does; who picks it looks whether it still belongs there.
// Trust:   links are followed only to slabs of this lane and class. If they are not what we made
//          them, the lists are made anew from the unit table.
// Threads: the view's.
#pragma once

#include "lanes.h"

namespace ashlar::shm {

inline Lane& lane_of(const View& view) { return view.arena->lane(view.lane); }
inline UnitIndex unit_at(const View& view, const std::byte* slab) {
  return {static_cast<std::uint32_t>(view.arena->data_offset(slab) / kUnitBytes)};
}

// The slab of class c that starts there, if it is the view's. Without a look at the block word:
// entries with our tag are ours to make.
SlabRef own_slab(const View& view, std::uint32_t unit, ClassIndex c);

// Finds all slabs of the lane, takes over what others freed in them, and files them.
void make_lists(View& view);
// False: the links are not what we made them.
[[nodiscard]] bool unlink(View& view, const SlabRef& slab);
// Puts a slab that is in no list where its fullness demands. One that is all free goes back to
// the buddy, unless it is the only one.
void file(View& view, const SlabRef& slab);
// Takes the slab out of its list and files it anew.
void refile(View& view, const SlabRef& slab);
// Gives a slab in no list back to the buddy, or, while its chunk is held, keeps it for later.
void retire(View& view, const SlabRef& slab);

template <class Visit>
void for_each_own_slab(const View& view, Visit&& visit) {
  const std::uint32_t units = view.arena->pages.chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    if (UnitEntry{view.arena->entry(UnitIndex{u}).load()}.tag() != view.tag) continue;
    const SlabRef slab = SlabRef::find(*view.arena, UnitIndex{u});
    if (!slab.exists()) continue;
    u = slab.first().v + slab.units() - 1;
    visit(slab);
  }
}

}  // namespace ashlar::shm
