// SPDX-License-Identifier: MIT
// Slabs that a plan wants emptied: their owner sets them aside, so that nothing is taken from them
// while objects move out. When nothing else has room, it takes one back rather than a new slab.
#include "arena.h"

namespace ashlar {

namespace {

// Of so many slabs that are set aside, the fullest is taken back.
constexpr std::uint32_t kSlabsToCompare = 8;

}  // namespace

void* Arena::take_dense(LaneSlabs& lane, ClassIndex c) {
  drain_inbox(lane);
  heed_plan(lane);
  const std::uint32_t unit = fullest_slab(lane, c);
  if (unit == kNone) return nullptr;
  void* slot = nullptr;
  take_from(lane, c, UnitIndex{unit}, &slot + 1, 1);
  return slot;
}

void* Arena::take_dense_or_new(LaneSlabs& lane, ClassIndex c) {
  if (void* const slot = take_dense(lane, c)) return slot;
  return create_slab(lane, c) ? take_dense(lane, c) : nullptr;
}

// Under a new plan, some of the slabs that were set aside are to stay.
void Arena::heed_plan_slow(LaneSlabs& lane) {
  lane.plan = scores_.plan();
  for (std::uint32_t i = 0; i < kClassCount; i++) {
    const ClassIndex c{i};
    for (std::uint32_t unit = lane.aside[i]; unit != kNone;) {
      const Slab slab = slab_at(UnitIndex{unit}, c);
      const bool stays = scores_[UnitIndex{unit}] == 0;
      unit = slab.descriptor().next;
      if (stays) take_back_slab(lane, c, slab);
    }
  }
}

// False: none was set aside.
bool Arena::take_back(LaneSlabs& lane, ClassIndex c) {
  std::uint32_t fullest = lane.aside[c.v];
  if (fullest == kNone) return false;
  const auto used = [&](std::uint32_t unit) -> std::uint32_t {
    return slab_at(UnitIndex{unit}, c).descriptor().used;
  };
  std::uint32_t unit = fullest;
  for (std::uint32_t seen = 0; unit != kNone && seen < kSlabsToCompare; seen++) {
    if (used(unit) > used(fullest)) fullest = unit;
    unit = slab_at(UnitIndex{unit}, c).descriptor().next;
  }
  take_back_slab(lane, c, slab_at(UnitIndex{fullest}, c));
  return true;
}

void Arena::take_back_slab(LaneSlabs& lane, ClassIndex c, const Slab& slab) {
  scores_.set(unit_of_slab(slab), slab.size_class_info().slab_bytes / kUnitBytes, 0);
  unlink(lane, c, slab);
  place(lane, c, slab);
}

}  // namespace ashlar
