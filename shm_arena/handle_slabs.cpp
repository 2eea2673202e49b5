// SPDX-License-Identifier: MIT
#include "handle_slabs.h"

#include <utility>

#include "lane_room.h"

namespace ashlar::shm {

HeldSlab::HeldSlab(ashlar_shm& arena, std::uint32_t lane, UnitIndex unit)
    : arena_(&arena), lane_(lane) {
  if (unit.v >= arena.pages.chunks() * kUnitsPerChunk) arena.pages.refresh();
  if (unit.v >= arena.pages.chunks() * kUnitsPerChunk) return;
  const UnitEntry seen{arena.entry(unit).load()};
  const ClassIndex c = seen.size_class();
  if (seen.tag() < kOpenTag || c.v >= kClassCount) return;
  const std::uint32_t units = size_class(c).slab_bytes / kUnitBytes;
  const UnitIndex first{static_cast<std::uint32_t>(align_down(unit.v, std::size_t{units}))};
  std::uint64_t open = UnitEntry(kOpenTag, c).word();
  if (!arena.entry(first).compare_exchange_strong(open, UnitEntry(tag_of_holder(lane), c).word())) {
    return;
  }
  slab_ = SlabRef::find(arena, first);
  if (!slab_.exists()) arena.entry(first).store(open);  // some peer's work, not ours
}

// It is held before it exists: until it does, its entries are without a block.
HeldSlab HeldSlab::make(View& view, ClassIndex c) {
  ashlar_shm& arena = *view.arena;
  const PageCount pages = pages_for(size_class(c).slab_bytes);
  const PageIndex first = claim_pages(view, pages, pages);
  if (first.v == kNone) return {};
  const SlabRef slab(arena, unit_of(first), c);
  slab.enter(tag_of_holder(view.lane));
  arena.pages.taken_by(first).store(static_cast<std::uint16_t>(view.lane + 1));
  arena.pages.commit(view.lane, first, pages, BlockKind::slab);
  arena.lane(view.lane).held_pages.fetch_add(pages.v);
  return {arena, view.lane, slab};
}

void HeldSlab::let_go() {
  if (slab_.exists()) slab_.set_owner(kOpenTag);
  slab_ = SlabRef::none();
}

std::uint32_t HeldSlab::free_slot() const {
  for (std::uint32_t w = 0; w < slab_.info().words; w++) {
    const std::uint64_t free = slab_.word(w).load() & slab_.slots_of_word(w);
    if (free != 0) return w * 64 + lowest_bit(free);
  }
  return slab_.info().capacity;
}

bool HeldSlab::is_empty() const {
  for (std::uint32_t w = 0; w < slab_.info().words; w++) {
    if ((~slab_.word(w).load() & slab_.slots_of_word(w)) != 0) return false;
  }
  return true;
}

bool HeldSlab::retire(bool keeps_chunk) {
  slab_.set_owner(tag_of_holder(lane_));
  const PageIndex first = first_page(slab_.first());
  const std::uint32_t taken_by = arena_->pages.taken_by(first).load() - 1u;
  if (!arena_->pages.begin_give(lane_, first, slab_.pages())) return false;
  slab_.leave();
  arena_->pages.end_give(lane_, first, slab_.pages(), keeps_chunk);
  if (taken_by < kLanes) arena_->lane(taken_by).release(slab_.pages().v);
  slab_ = SlabRef::none();
  return true;
}

namespace {

HeldSlab hold_if_room(View& view, UnitIndex unit, ClassIndex c, bool avoid_victims) {
  HeldSlab slab(*view.arena, view.lane, unit);
  const bool fits = slab && slab->size_class_index() == c && !(avoid_victims && is_victim(*slab)) &&
                    slab.free_slot() != slab->info().capacity;
  return fits ? std::move(slab) : HeldSlab();
}

// Once round the arena, from where this process last found room. `missed`: some could not be held.
HeldSlab find_room(View& view, ClassIndex c, bool avoid_victims, bool& missed) {
  ashlar_shm& arena = *view.arena;
  const std::uint32_t units = arena.pages.chunks() * kUnitsPerChunk;
  const std::uint32_t hint = arena.hints.slab[c.v].load();
  const std::uint32_t start = hint < units ? hint : 0;
  for (std::uint32_t i = 0; i < units; i++) {
    const UnitIndex unit{start + i < units ? start + i : start + i - units};
    const UnitEntry entry{arena.entry(unit).load()};
    if (entry.tag() < kOpenTag || entry.size_class() != c) continue;
    missed |= entry.tag() != kOpenTag;
    if (HeldSlab slab = hold_if_room(view, unit, c, avoid_victims)) return slab;
  }
  return {};
}

}  // namespace

HeldSlab hold_slab_with_room(View& view, ClassIndex c, Room where) {
  ashlar_shm& arena = *view.arena;
  State& state = arena.state();
  std::atomic<std::uint32_t>& hint = arena.hints.slab[c.v];
  const bool avoid_victims = state.pass_at.load() != 0;
  if (HeldSlab slab = hold_if_room(view, UnitIndex{hint.load()}, c, avoid_victims)) return slab;
  const std::uint64_t class_bit = std::uint64_t{1} << c.v;
  if ((state.handle_room.load() & class_bit) != 0) {
    state.handle_room.fetch_and(~class_bit);
    bool missed = false;
    HeldSlab slab = find_room(view, c, avoid_victims, missed);
    if (slab || missed) state.handle_room.fetch_or(class_bit);
    if (slab) hint.store(slab->first().v);
    if (slab) return slab;
  }
  if (where == Room::but_no_new_slab) return {};
  HeldSlab slab = HeldSlab::make(view, c);
  if (!slab) return slab;
  hint.store(slab->first().v);
  state.handle_room.fetch_or(class_bit);
  return slab;
}

void open_slabs_of(ashlar_shm& arena, std::uint32_t lane) {
  const std::uint64_t tag = tag_of_holder(lane);
  for (std::uint32_t u = arena.pages.chunks() * kUnitsPerChunk; u-- > 0;) {
    const UnitEntry entry{arena.entry(UnitIndex{u}).load()};
    if (entry.tag() != tag) continue;
    arena.entry(UnitIndex{u}).store(UnitEntry(kOpenTag, entry.size_class()).word());
  }
}

}  // namespace ashlar::shm
