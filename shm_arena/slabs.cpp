// SPDX-License-Identifier: MIT
#include "slabs.h"

namespace ashlar::shm {

SlabRef::SlabRef(const ashlar_shm& arena, UnitIndex first, ClassIndex c)
    : arena_(&arena), first_(first), class_(c), info_(&size_class(c)) {
  auto* const metadata = reinterpret_cast<std::byte*>(&arena.pages.meta(chunk_of(first)));
  free_ = reinterpret_cast<BitmapWord*>(metadata + bitmaps_of(*info_) +
                                        first.v % kUnitsPerChunk * bitmap_bytes(*info_));
}

SlabRef SlabRef::find(const ashlar_shm& arena, UnitIndex unit) {
  const UnitEntry entry{arena.entry(unit).load()};
  const ClassIndex c = entry.size_class();
  if (!entry.is_slab() || c.v >= kClassCount) return {};
  const SizeClass& info = size_class(c);
  const UnitIndex first{
      static_cast<std::uint32_t>(align_down(unit.v, std::size_t{info.slab_bytes / kUnitBytes}))};
  if (arena.pages.pages_of(first_page(first), BlockKind::slab) != pages_for(info.slab_bytes)) {
    return {};
  }
  return SlabRef(arena, first, c);
}

std::uint64_t SlabRef::tag() const { return UnitEntry{arena_->entry(first_).load()}.tag(); }

SlabDescriptor& SlabRef::descriptor() const {
  return arena_->pages.meta(chunk_of(first_)).core.slab[first_.v % kUnitsPerChunk];
}

std::uint32_t SlabRef::slot_at(Bytes data_offset) const {
  const auto offset = static_cast<std::uint32_t>(data_offset & (info_->slab_bytes - 1));
  const std::uint32_t slot = slot_index(offset, info_->magic);
  return is_slot_start(offset, info_->magic) && slot < info_->capacity ? slot : info_->capacity;
}

std::uint32_t SlabRef::free_slots() const {
  std::uint32_t n = 0;
  for (std::uint32_t w = 0; w < info_->words; w++) {
    n += static_cast<std::uint32_t>(std::popcount(word(w).load() & slots_of_word(w)));
  }
  return n;
}

std::uint32_t SlabRef::used_slots() const {
  std::uint32_t n = 0;
  for (std::uint32_t w = 0; w < info_->words; w++) {
    const std::uint64_t free = word(w).load() | remote_word(w).load();
    n += static_cast<std::uint32_t>(std::popcount(~free & slots_of_word(w)));
  }
  return n;
}

// Dekker's pattern with Lanes::drain_news: a slot's bit is set before the unit is marked, and the
// mark is cleared before bits are taken over; all sequentially consistent.
bool SlabRef::free_remotely(std::uint32_t slot) const {
  const std::uint64_t bit = std::uint64_t{1} << slot % 64;
  if (((word(slot / 64).load() | remote_word(slot / 64).fetch_or(bit)) & bit) != 0) return false;
  std::atomic<std::uint32_t>& freed = arena_->pages.meta(chunk_of(first_)).freed_units;
  const std::uint32_t unit = 1u << first_.v % kUnitsPerChunk;
  if ((freed.load() & unit) == 0) freed.fetch_or(unit);
  const std::uint32_t lane = lane_of_tag(tag());
  if (lane < kLanes && arena_->lane(lane).news.load() == 0) arena_->lane(lane).news.store(1);
  return true;
}

std::uint32_t SlabRef::drain(std::uint32_t at_cursor, std::uint64_t avail) const {
  std::uint32_t free_before = 0;
  for (std::uint32_t w = 0; w < info_->words; w++) {
    const std::uint64_t freed = remote_word(w).load();
    if (freed == 0) continue;
    const std::uint64_t twice = freed & (word(w).load() | (w == at_cursor ? avail : 0));
    free_before += static_cast<std::uint32_t>(std::popcount(twice));
    give_bits(w, freed & ~twice);
    remote_word(w).fetch_and(~freed);
  }
  return free_before;
}

void SlabRef::clear() const {
  for (std::uint32_t w = 0; w < info_->words; w++) {
    word(w).store(~std::uint64_t{0});
    remote_word(w).store(0);
  }
}

void SlabRef::enter(std::uint64_t tag) const {
  clear();
  descriptor().list = LaneSlabs::kNoList;
  set_owner(tag);
}

void SlabRef::leave() const {
  for (std::uint32_t u = 0; u < units(); u++) arena_->entry(UnitIndex{first_.v + u}).store(0);
}

void SlabRef::set_owner(std::uint64_t tag) const {
  const UnitEntry entry(tag, class_);
  for (std::uint32_t u = units(); u-- > 0;) {
    arena_->entry(UnitIndex{first_.v + u}).store(entry.word());
  }
}

}  // namespace ashlar::shm
