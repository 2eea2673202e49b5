// SPDX-License-Identifier: MIT
// L4 · slabs: a slab of a shared arena, found and checked through the unit table.
//
// What:    everything that is done to a slab's bits. A slab exists while its first page has a block
//          word of kind `slab` and the entries of its units name its class and its owner's lane.
// How:     entries are made before the block word and cleared after it, while the lane holds the
//          chunk. So entries without a block are what a death left behind, and are cleared.
// Death:   each bit changes by one store. A slot freed by another lane is set in `free` before it
//          is cleared in `remote`: whoever repeats that does no harm.
// Threads: the owner, or its recoverer; free_remotely(): any.
// Trust:   SlabRef::find() believes nothing that it has not compared with the block word.
#pragma once

#include "handle.h"

namespace ashlar::shm {

constexpr std::uint64_t tag_of_lane(std::uint32_t lane) { return (lane + 1) * kTagGrain; }
// The lane that a tag names, or kLanes and more: none.
constexpr std::uint32_t lane_of_tag(std::uint64_t tag) {
  const std::uint64_t lane = tag / kTagGrain - 1;
  return lane < kLanes ? static_cast<std::uint32_t>(lane) : kLanes;
}

// Slabs of objects with handles belong to no lane; a lane holds one while it changes its bits.
inline constexpr std::uint64_t kOpenTag = tag_of_lane(kLanes);
constexpr std::uint64_t tag_of_holder(std::uint32_t lane) { return tag_of_lane(kLanes + 1 + lane); }
// The lane that holds it, or kLanes: none does.
constexpr std::uint32_t holder_of_tag(std::uint64_t tag) {
  return tag > kOpenTag ? lane_of_tag(tag - kOpenTag) : kLanes;
}

// Where the bitmaps of a class lie in a chunk's metadata.
constexpr bool is_short(const SizeClass& c) { return c.words <= ChunkMeta::kShortWords; }
constexpr Bytes bitmaps_of(const SizeClass& c) {
  return is_short(c) ? offsetof(ChunkMeta, short_free) : offsetof(ChunkMeta, long_free);
}
constexpr Bytes bitmap_bytes(const SizeClass& c) {
  return (is_short(c) ? ChunkMeta::kShortWords : ChunkMeta::kLongWords) * sizeof(BitmapWord);
}
constexpr Bytes remote_distance(const SizeClass& c) {
  return is_short(c) ? ChunkMeta::kShortDistance : ChunkMeta::kLongDistance;  // in words
}

class SlabRef {
 public:
  SlabRef(const ashlar_shm& arena, UnitIndex first, ClassIndex c);

  // The slab that has the unit, if that is the case; see exists().
  static SlabRef find(const ashlar_shm& arena, UnitIndex unit);
  // The same for an offset of the arena's data, which may be anything.
  static SlabRef find_at(const ashlar_shm& arena, Bytes data_offset) {
    const UnitIndex unit{static_cast<std::uint32_t>(data_offset / kUnitBytes)};
    return arena.contains(data_offset) ? find(arena, unit) : none();
  }
  static SlabRef none() { return {}; }
  bool exists() const { return info_ != nullptr; }

  UnitIndex first() const { return first_; }
  ClassIndex size_class_index() const { return class_; }
  const SizeClass& info() const { return *info_; }
  std::uint32_t units() const { return info_->slab_bytes / kUnitBytes; }
  PageCount pages() const { return pages_for(info_->slab_bytes); }
  std::uint64_t tag() const;
  bool is_for_handles() const { return tag() >= kOpenTag; }
  SlabDescriptor& descriptor() const;
  std::byte* base() const { return arena_->data + Bytes{first_.v} * kUnitBytes; }

  BitmapWord& word(std::uint32_t w) const { return free_[w]; }
  BitmapWord& remote_word(std::uint32_t w) const { return free_[w + remote_distance(*info_)]; }
  // Bits of that word that stand for slots.
  std::uint64_t slots_of_word(std::uint32_t w) const {
    return bit_range(0, w + 1 < info_->words ? 64 : info_->capacity - w * 64);
  }
  // The slot that starts at this offset of the arena's data, or capacity: none does.
  std::uint32_t slot_at(Bytes data_offset) const;

  std::uint32_t free_slots() const;  // at rest, without those that others freed
  std::uint32_t used_slots() const;  // those that nobody freed; some may be at a cursor
  bool is_free(std::uint32_t slot) const { return (word(slot / 64).load() >> slot % 64 & 1) != 0; }
  void take(std::uint32_t slot) const {
    BitmapWord& of_slot = word(slot / 64);
    of_slot.store(of_slot.load() & ~(std::uint64_t{1} << slot % 64), std::memory_order_release);
  }
  void give(std::uint32_t slot) const { give_bits(slot / 64, std::uint64_t{1} << slot % 64); }
  // Frees a slot of another's slab. False: it is free already.
  [[nodiscard]] bool free_remotely(std::uint32_t slot) const;
  // Gives slots of a word back, which may be at rest already.
  void give_bits(std::uint32_t w, std::uint64_t bits) const {
    // release: what follows in drain() must not be seen before
    word(w).store(word(w).load() | (bits & slots_of_word(w)), std::memory_order_release);
  }
  // Takes over what others freed; returns how many were free before, also by being in `avail`, the
  // slots of word `at_cursor` that are about to be taken.
  std::uint32_t drain(std::uint32_t at_cursor = kNone, std::uint64_t avail = 0) const;
  // All slots are free, whoever had them.
  void clear() const;

  // Before the block word is stored, and after it was cleared.
  void enter(std::uint64_t tag) const;
  void leave() const;
  // The slab is another lane's from now on. Its first unit comes last: that is the one that counts.
  void set_owner(std::uint64_t tag) const;

 private:
  SlabRef() = default;

  const ashlar_shm* arena_ = nullptr;
  UnitIndex first_{kNone};
  ClassIndex class_{kClassCount};
  const SizeClass* info_ = nullptr;
  BitmapWord* free_ = nullptr;
};

// Calls visit(slab) for each slab that begins in [from, to) and whose first unit's tag is
// wanted(tag), by address. Returns where to go on.
template <class Wanted, class Visit>
UnitIndex for_each_slab(const ashlar_shm& arena, Wanted&& wanted, Visit&& visit, UnitIndex from,
                        UnitIndex to) {
  std::uint32_t u = from.v;
  while (u < to.v) {
    const bool may_be = wanted(UnitEntry{arena.entry(UnitIndex{u}).load()}.tag());
    const SlabRef slab = may_be ? SlabRef::find(arena, UnitIndex{u}) : SlabRef::none();
    const bool whole = slab.exists() && slab.first().v == u;
    if (whole) visit(slab);
    u += whole ? slab.units() : 1;
  }
  return {u};
}
inline UnitIndex end_of_units(const ashlar_shm& arena) {
  return {arena.pages.chunks() * kUnitsPerChunk};
}

}  // namespace ashlar::shm
