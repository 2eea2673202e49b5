// SPDX-License-Identifier: MIT
// When an arena re-cuts sparse slabs, and how their gaps are found.
#include "arena.h"

namespace ashlar {

namespace {

// Slabs that are less than so many eighths full are worth it: what lives there is freed more slowly
// afterwards.
constexpr std::uint8_t kSparseEighths = 6;
// A class is cold when it took nothing while its lane made so many new slabs, and a part of those
// that the lane has. So a program with little memory, or a steady one, has no mosaics.
constexpr std::uint32_t kColdSlabs = 8;
constexpr std::uint32_t kColdPart = 64;
// Mosaics that one refill asks, searches, and makes.
constexpr std::uint32_t kAskedPerCall = 512;
constexpr std::uint32_t kSearchedPerCall = 16;
constexpr std::uint32_t kNewPerCall = 2;
// Slabs of one list that are looked at.
constexpr std::uint32_t kSlabsPerList = 8;
// Larger slots find few gaps.
constexpr Bytes kMostGapBytes = kPageBytes;

}  // namespace

std::uint32_t Arena::take_gaps(LaneSlabs& lane, ClassIndex c, void** slots, std::uint32_t want) {
  if (!lane.has_mosaics || size_class(c).slot_bytes > kMostGapBytes) return 0;
  std::uint32_t taken = 0;
  std::uint32_t searched = 0;
  for (std::uint32_t asked = 0; asked < kAskedPerCall && searched < kSearchedPerCall; asked++) {
    if (lane.next_mosaic == kNone) lane.next_mosaic = lane.first_mosaic;
    if (lane.next_mosaic == kNone) break;
    Mosaic mosaic = mosaic_at(UnitIndex{lane.next_mosaic});
    if (scores_[UnitIndex{lane.next_mosaic}] == 0 && mosaic.may_fit(c)) {
      taken += mosaic.take(c, slots + taken, want - taken);
      searched++;
      if (taken == want) break;
    }
    lane.next_mosaic = mosaic.descriptor().next;
  }
  for (std::uint32_t made = 0; made < kNewPerCall && taken == 0 && make_mosaic(lane); made++) {
    taken = mosaic_at(UnitIndex{lane.first_mosaic}).take(c, slots, want);
  }
  return taken;
}

// Mosaics that were to be emptied serve again. False: there was none.
bool Arena::take_back_mosaics(LaneSlabs& lane) {
  bool any = false;
  for (std::uint32_t unit = lane.first_mosaic; unit != kNone;) {
    any |= scores_[UnitIndex{unit}] != 0;
    scores_.set(UnitIndex{unit}, 1, 0);
    unit = mosaic_at(UnitIndex{unit}).descriptor().next;
  }
  return any;
}

// Re-cuts one of the sparsest slabs of a class that is cold. False: there is none.
bool Arena::make_mosaic(LaneSlabs& lane) {
  const auto slabs = static_cast<std::uint32_t>(lane.used_bytes / kUnitBytes);
  const auto made_since = [&](std::uint32_t c) { return lane.slabs_made - lane.made_at_take[c]; };
  // Of classes that are used in turns, each waits until the others have made a slab.
  std::uint32_t in_turn = 0;
  for (std::uint32_t c = 0; c < kClassCount; c++) in_turn += made_since(c) < kClassCount;
  const std::uint32_t cold = kColdSlabs + slabs / kColdPart + in_turn;
  for (std::uint8_t list = 0; list < kSparseEighths; list++) {
    for (std::uint32_t i = 0; i < kClassCount; i++) {
      const ClassIndex c{i};
      if (size_class(c).slab_bytes != kUnitBytes) continue;
      if (made_since(i) < cold) continue;
      // Or an old plan, which nobody follows any more, would keep its slabs from this.
      if (list == 0) take_back(lane, c);
      if ((lane.nonempty[i] >> list & 1) == 0) continue;
      const std::uint32_t unit = find_drained(lane, c, list);
      if (unit == kNone) continue;
      recut(lane, c, UnitIndex{unit});
      return true;
    }
  }
  return false;
}

// The first slabs of a list may have few objects because they are new; they are left to their
// class.
std::uint32_t Arena::find_drained(const LaneSlabs& lane, ClassIndex c, std::uint8_t list) const {
  std::uint32_t unit = lane.head[c.v][list];
  for (std::uint32_t seen = 0; unit != kNone && seen < kSlabsPerList; seen++) {
    const SlabDescriptor& d = slab_at(UnitIndex{unit}, c).descriptor();
    if (d.was_full && d.used != 0) return unit;
    unit = d.next;
  }
  return kNone;
}

void Arena::recut(LaneSlabs& lane, ClassIndex c, UnitIndex unit) {
  const Slab slab = slab_at(unit, c);
  unlink(lane, c, slab);
  lane.used_bytes = lane.used_bytes - Bytes{slab.descriptor().used} * size_class(c).slot_bytes;
  mosaic_at(unit).create(slab);
  link_mosaic(lane, unit);
  scores_.set(unit, 1, 0);
  units_.set(unit, 1, UnitEntry::mosaic(lane.tag));
}

void Arena::link_mosaic(LaneSlabs& lane, UnitIndex unit) {
  SlabDescriptor& d = mosaic_at(unit).descriptor();
  d.list = LaneSlabs::kMosaicList;
  d.least_used = INT32_MAX;  // nothing is given to a mosaic as to a slab
  d.prev = kNone;
  d.next = lane.first_mosaic;
  if (d.next != kNone) mosaic_at(UnitIndex{d.next}).descriptor().prev = unit.v;
  lane.first_mosaic = unit.v;
}

// Any thread. The owner hears of a mosaic that is empty.
Give Arena::give_to_mosaic(void* object) {
  const UnitIndex unit = unit_of(page_of(object));
  bool last = false;
  const Give given = mosaic_at(unit).give(object, last);
  if (last) notify_owner(unit, ClassIndex{kClassCount});
  return given;
}

Give Arena::give_to_mosaic(void* const* objects, std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; i++) {
    if (give_to_mosaic(objects[i]) == Give::double_free) return Give::double_free;
  }
  return Give::done;
}

// Slots whose bits were set by threads that had seen a slab here still.
bool Arena::drain_mosaic(LaneSlabs& lane, UnitIndex unit) {
  Mosaic mosaic = mosaic_at(unit);
  const ClassIndex before{mosaic.descriptor().size_class};
  bool any = slab_at(unit, before).for_each_remote([&](void* slot) {
    bool last = false;
    if (mosaic.give(slot, last) == Give::double_free) report_double_free(&slot, 1);
  });
  if (mosaic.is_empty()) {
    retire_mosaic(lane, unit);
    any = true;
  }
  return any;
}

void Arena::retire_mosaic(LaneSlabs& lane, UnitIndex unit) {
  const SlabDescriptor& d = mosaic_at(unit).descriptor();
  if (lane.next_mosaic == unit.v) lane.next_mosaic = d.next;
  if (d.prev != kNone) {
    mosaic_at(UnitIndex{d.prev}).descriptor().next = d.next;
  } else {
    lane.first_mosaic = d.next;
  }
  if (d.next != kNone) mosaic_at(UnitIndex{d.next}).descriptor().prev = d.prev;
  give_slab_block(lane, unit, 1);
}

// See recover_lane().
void Arena::recover_mosaic(LaneSlabs& lane, UnitIndex unit) {
  if (buddy_.kind_at(first_page(unit)) != BlockKind::slab) return units_.set(unit, 1, UnitEntry{});
  mosaic_at(unit).recover();
  lane.slab_bytes = lane.slab_bytes + kUnitBytes;
  link_mosaic(lane, unit);
  drain_mosaic(lane, unit);
}

}  // namespace ashlar
