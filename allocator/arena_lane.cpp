// SPDX-License-Identifier: MIT
// A lane's slabs as a whole: its first state, and what is left of it when its owner is gone.
#include "arena.h"

namespace ashlar {

void Arena::init_lane(LaneSlabs& lane, std::uint64_t tag) {
  ASHLAR_ASSERT(tag != 0 && tag % kTagGrain == 0);
  lane.tag = tag;
  lane.index = page_of(&lane);
  lane.empty_inbox();
  forget_slabs(lane);
}

// Before the unit table says so, for who cleans up after us.
void Arena::note_unit(LaneSlabs& lane, UnitIndex unit) {
  if (unit.v < lane.first_unit) lane.first_unit = unit.v;
  if (unit.v >= lane.end_unit) lane.end_unit = unit.v + 1;
}

void Arena::forget_slabs(LaneSlabs& lane) {
  lane.first_unit = kNone;
  lane.end_unit = 0;
  lane.purge_cursor = 0;
  lane.used_bytes = 0;
  lane.refilled_bytes = 0;
  lane.slab_bytes = 0;
  lane.first_mosaic = kNone;
  lane.next_mosaic = kNone;
  lane.slabs_made = 0;
  lane.is_idle = false;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    lane.nonempty[c] = 0;
    lane.made_at_take[c] = 0;
    lane.aside[c] = kNone;
    for (std::uint32_t& head : lane.head[c]) head = kNone;
  }
}

// Of one unit, for then it is one store that makes it the other's, and nobody sees it half way.
bool Arena::adopt_slab(LaneSlabs& from, LaneSlabs& to, ClassIndex c) {
  if (size_class(c).slab_bytes != kUnitBytes) return false;
  heed_plan(from);
  const std::uint32_t fullest = fullest_slab(from, c);
  if (fullest == kNone) return false;
  const UnitIndex unit{fullest};
  const Slab slab = slab_at(unit, c);
  const Bytes used = Bytes{slab.descriptor().used} * size_class(c).slot_bytes;
  unlink(from, c, slab);
  from.slab_bytes = from.slab_bytes - kUnitBytes;
  from.used_bytes = from.used_bytes - used;
  note_unit(to, unit);
  slab.descriptor().owner.store(to.index.v);
  units_.set(unit, 1, UnitEntry{to.tag, c});
  to.slab_bytes = to.slab_bytes + kUnitBytes;
  to.used_bytes = to.used_bytes + used;
  place(to, c, slab);
  drain_slab(to, unit);  // what was announced to `from` a moment ago
  return true;
}

// A slab may have been caught while it was made or given up: some of its units have entries, and
// the block decides whether it is one. Nobody else looks at this lane's entries now.
void Arena::recover_lane(LaneSlabs& lane) {
  for (std::atomic<std::uint32_t>& inbox : lane.inbox) {
    // What others announce from now on waits there for whoever has the lane next.
    for (std::uint32_t u = inbox.exchange(kNone); u != kNone;) {
      const UnitIndex unit{u};
      SlabDescriptor& d = meta(chunk_of(unit)).slab[u % kUnitsPerChunk];
      u = d.next_pending.load();
      d.pending.exchange(0);
      pass_on(lane, unit);
    }
  }
  forget_slabs(lane);
  const std::uint32_t units = chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    const UnitIndex unit{u};
    const UnitEntry entry = units_[unit];
    if (entry.tag() != lane.tag) continue;
    note_unit(lane, unit);
    if (entry.is_large() || entry.is_free()) continue;
    if (entry.is_mosaic()) {
      recover_mosaic(lane, unit);
      continue;
    }
    const SizeClass& info = size_class(entry.size_class());
    if (is_first_unit(unit, entry) && buddy_.kind_at(first_page(unit)) == BlockKind::slab) {
      units_.set(unit, info.slab_bytes / kUnitBytes, entry);
      Slab slab = slab_at(unit, entry.size_class());
      slab.descriptor().owner.store(lane.index.v);
      slab.recount();
      slab.drain_remote();
      set_list(slab.descriptor(), entry.size_class(), LaneSlabs::kNoList);
      lane.slab_bytes = lane.slab_bytes + info.slab_bytes;
      lane.used_bytes = lane.used_bytes + Bytes{slab.descriptor().used} * info.slot_bytes;
      place(lane, entry.size_class(), slab);
      u += info.slab_bytes / kUnitBytes - 1;
    } else {
      units_.set(unit, 1, UnitEntry{});
    }
  }
}

void Arena::drain_slabs(LaneSlabs& lane) {
  for (std::uint32_t u = 0; u < chunks() * kUnitsPerChunk; u++) {
    if (units_[UnitIndex{u}].tag() == lane.tag) drain_slab(lane, UnitIndex{u});
  }
}

}  // namespace ashlar
