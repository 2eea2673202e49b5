// SPDX-License-Identifier: MIT
#include "arena.h"

namespace ashlar {

// Slots came back: another list may be right, and a slab that is all free goes back to the buddy.
inline void Arena::after_give(LaneSlabs& lane, ClassIndex c, const Slab& slab) {
  place(lane, c, slab);
  if (slab.is_empty()) [[unlikely]]
    retire_slab(lane, c, slab);
}

inline void Arena::note_given(LaneSlabs& lane, ClassIndex c, std::uint32_t slots) {
  lane.used_bytes = lane.used_bytes - Bytes{slots} * size_class(c).slot_bytes;
}

std::uint32_t Arena::take_slots(LaneSlabs& lane, ClassIndex c, void** slots, std::uint32_t want) {
  drain_some(lane, c);
  heed_plan(lane);
  lane.made_at_take[c.v] = lane.slabs_made;
  std::uint32_t taken = 0;
  while (taken < want) {
    const std::uint32_t fullest = fullest_slab(lane, c);
    if (fullest == kNone) {
      if (taken != 0) break;
      if (drain_some(lane, c) || drain_inbox(lane) || take_back(lane, c)) continue;
      if (const std::uint32_t gaps = take_gaps(lane, c, slots, want)) return gaps;
      if (take_back_mosaics(lane)) continue;
      if (!create_slab(lane, c)) break;
      continue;
    }
    taken += take_from(lane, c, UnitIndex{fullest}, slots + want - taken, want - taken);
  }
  if (taken < want) {
    for (std::uint32_t i = 0; i < taken; i++) slots[i] = slots[want - taken + i];
  }
  return taken;
}

// See Slab::take.
std::uint32_t Arena::take_from(LaneSlabs& lane, ClassIndex c, UnitIndex unit, void** end,
                               std::uint32_t want) {
  Slab slab = slab_at(unit, c);
  const std::uint64_t holes = slab.descriptor().holes;
  const std::uint32_t taken = slab.take(end, want);
  if (holes != 0) [[unlikely]] {
    const auto refilled = static_cast<Bytes>(std::popcount(holes & ~slab.descriptor().holes));
    lane.refilled_bytes = lane.refilled_bytes + refilled * kPageBytes;
  }
  lane.used_bytes = lane.used_bytes + Bytes{taken} * size_class(c).slot_bytes;
  place(lane, c, slab);
  return taken;
}

void Arena::give_slots(LaneSlabs& lane, ClassIndex c, void* const* slots, std::uint32_t count) {
  std::uint32_t given = 0;
  give_by_word(c, slots, count,
               [&](SlabDescriptor& d, BitmapWord* word, std::uint32_t w, std::uint64_t bits,
                   void* const* of_word, std::uint32_t n) {
                 const std::uint32_t left = d.used - n;
                 if (static_cast<std::int32_t>(left) < d.least_used) [[unlikely]]
                   return give_and_place(lane, c, w, bits, of_word, n);
                 if (set_free(d, *word, w, bits) == Give::double_free) return Give::double_free;
                 d.used = left;
                 given += n;
                 return Give::done;
               });
  note_given(lane, c, given);
}

// Where one comparison said that there is more to do than to set bits.
Give Arena::give_and_place(LaneSlabs& lane, ClassIndex c, std::uint32_t w, std::uint64_t bits,
                           void* const* slots, std::uint32_t count) {
  Slab slab = slab_at(slab_unit(*slots, size_class(c)), c);
  // The slab has become a mosaic since, or they come from its gaps.
  if (slab.descriptor().list == LaneSlabs::kMosaicList) return give_to_mosaic(slots, count);
  if (slab.give(w, bits) == Give::double_free) return Give::double_free;
  slab.descriptor().used = slab.descriptor().used - count;
  note_given(lane, c, count);
  after_give(lane, c, slab);
  return Give::done;
}

// Slots are sorted by class first (a counting sort), so that a bitmap word is written once for
// all its slots.
void Arena::give_remote(void* const* slots, std::uint32_t count) {
  constexpr std::uint32_t kBlock = 256;
  std::uint8_t class_of[kBlock];
  void* sorted[kBlock];
  while (count != 0) {
    const std::uint32_t n = count < kBlock ? count : kBlock;
    std::uint32_t end[kClassCount + 1] = {};  // the last: objects in mosaics
    for (std::uint32_t i = 0; i < n; i++) {
      const UnitEntry entry = entry_of(slots[i]);
      if (!entry.has_slots()) [[unlikely]]
        report_double_free(slots + i, 1);  // its slab was given up meanwhile
      class_of[i] = static_cast<std::uint8_t>(entry.size_class().v);
      end[class_of[i]]++;
    }
    std::uint32_t position = 0;
    for (std::uint32_t& e : end) {
      position += e;
      e = position - e;  // for now, where its slots begin
    }
    for (std::uint32_t i = 0; i < n; i++) sorted[end[class_of[i]]++] = slots[i];

    for (std::uint32_t c = 0, begin = 0; c < kClassCount; begin = end[c++]) {
      give_by_word(ClassIndex{c}, sorted + begin, end[c] - begin,
                   [&](SlabDescriptor&, BitmapWord*, std::uint32_t w, std::uint64_t bits,
                       void* const* of_word, std::uint32_t) {
                     const UnitIndex unit = slab_unit(*of_word, size_class(ClassIndex{c}));
                     if (slab_at(unit, ClassIndex{c}).give_remote(w, bits) == Give::double_free) {
                       return Give::double_free;
                     }
                     notify_owner(unit, ClassIndex{c});
                     return Give::done;
                   });
    }
    const std::uint32_t in_slabs = end[kClassCount - 1];
    if (give_to_mosaic(sorted + in_slabs, n - in_slabs) == Give::double_free) {
      report_double_free(sorted + in_slabs, n - in_slabs);
    }
    slots += n;
    count -= n;
  }
}

template <class GiveBits>
void Arena::give_by_word(ClassIndex c, void* const* slots, std::uint32_t count, GiveBits&& give) {
  const SizeClass& info = size_class(c);
  if (info.slab_bytes != kUnitBytes) {
    give_by_word_of<4 * kUnitBytes, true>(c, slots, count, give);
  } else if (info.words <= ChunkMeta::kShortWords) {
    give_by_word_of<kUnitBytes, true>(c, slots, count, give);
  } else {
    give_by_word_of<kUnitBytes, false>(c, slots, count, give);
  }
}

// The first slots, as far as they are of one slab, which is looked up once. Returns how many.
template <Bytes kSlabBytes, bool kShort, class GiveBits>
std::uint32_t Arena::give_run_of(ClassIndex c, void* const* slots, std::uint32_t count,
                                 GiveBits&& give) {
  const std::uint64_t magic = size_class(c).magic;
  const Bytes slab = align_down(data_offset(slots[0]), kSlabBytes);
  ChunkMeta& m = meta_[slab / kChunkBytes];
  const std::uint64_t u = slab / kUnitBytes % kUnitsPerChunk;
  BitmapWord* const words = kShort ? m.short_free[u] : m.long_free[u];
  std::uint32_t i = 0;
  for (Bytes offset; i < count && (offset = data_offset(slots[i]) - slab) < kSlabBytes;) {
    const std::uint32_t begin = i;
    std::uint32_t slot = slot_index(static_cast<std::uint32_t>(offset), magic);
    const std::uint32_t w = slot / 64;
    std::uint64_t bits = 0;
    std::uint64_t twice = 0;
    do {
      const std::uint64_t bit = std::uint64_t{1} << slot % 64;
      twice |= bits & bit;
      bits |= bit;
      if (++i == count || (offset = data_offset(slots[i]) - slab) >= kSlabBytes) break;
      slot = slot_index(static_cast<std::uint32_t>(offset), magic);
    } while (slot / 64 == w);
    if (twice != 0 || give(m.slab[u], words + w, w, bits, slots + begin, i - begin) ==
                          Give::double_free) [[unlikely]] {
      report_double_free(slots + begin, i - begin);
    }
  }
  return i;
}

// The loop that a free far from the caches spends its time in, in as few instructions as will do.
// Two passes over blocks that the first-level cache holds: the first finds descriptors and bitmap
// words and prefetches them, so that the second waits for none. Not where a block seems to be of
// one slab: objects that were taken in a row are often given in a row.
template <Bytes kSlabBytes, bool kShort, class GiveBits>
void Arena::give_by_word_of(ClassIndex c, void* const* slots, std::uint32_t count,
                            GiveBits&& give) {
  constexpr std::uint32_t kBlock = 64;
  constexpr Bytes kBitmaps =
      kShort ? offsetof(ChunkMeta, short_free) : offsetof(ChunkMeta, long_free);
  constexpr std::uint32_t kWords = kShort ? ChunkMeta::kShortWords : ChunkMeta::kLongWords;
  const std::uint64_t magic = size_class(c).magic;
  struct {
    SlabDescriptor* descriptor;
    BitmapWord* word;
    std::uint64_t bit;
  } at[kBlock];

  while (count != 0) {
    const std::uint32_t n = count < kBlock ? count : kBlock;
    const auto slab_of = [this](void* slot) { return align_down(data_offset(slot), kSlabBytes); };
    if (n == kBlock && slab_of(slots[0]) == slab_of(slots[n - 1])) {
      const std::uint32_t given = give_run_of<kSlabBytes, kShort>(c, slots, count, give);
      slots += given;
      count -= given;
      continue;
    }
    for (std::uint32_t i = 0; i < n; i++) {
      const Bytes offset = data_offset(slots[i]);
      const std::uint32_t slot = slot_index(static_cast<std::uint32_t>(offset % kSlabBytes), magic);
      const std::uint32_t u =
          static_cast<std::uint32_t>(align_down(offset, kSlabBytes) / kUnitBytes % kUnitsPerChunk);
      auto* const m = reinterpret_cast<std::byte*>(&meta_[offset / kChunkBytes]);
      at[i] = {reinterpret_cast<SlabDescriptor*>(m) + u,
               reinterpret_cast<BitmapWord*>(m + kBitmaps) + (u * kWords + slot / 64),
               std::uint64_t{1} << slot % 64};
      __builtin_prefetch(at[i].descriptor, 1);
      __builtin_prefetch(at[i].word, 1);
    }
    for (std::uint32_t i = 0; i < n;) {
      const std::uint32_t begin = i;
      BitmapWord* const word = at[i].word;
      std::uint64_t bits = at[i].bit;
      std::uint64_t twice = 0;
      for (i++; i < n && at[i].word == word; i++) {
        twice |= bits & at[i].bit;
        bits |= at[i].bit;
      }
      const auto w = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(word) /
                                                sizeof *word % kWords);
      if (twice != 0 || give(*at[begin].descriptor, word, w, bits, slots + begin, i - begin) ==
                            Give::double_free) [[unlikely]] {
        report_double_free(slots + begin, i - begin);
      }
    }
    slots += n;
    count -= n;
  }
}

// Dekker's pattern: the freeing thread sets bits, then looks at `pending`; the owner clears
// `pending`, then looks at the bits. All four are seq_cst, so one of them sees the other, and no
// bit stays behind without a notification. `c`: the slab's class, or kClassCount for a mosaic.
void Arena::notify_owner(UnitIndex unit, ClassIndex c) {
  SlabDescriptor& d = meta(chunk_of(unit)).slab[unit.v % kUnitsPerChunk];
  // After a fork, what was pending before is not: inboxes were emptied.
  const std::uint32_t now = epoch_;
  if (d.pending.load() == now || d.pending.exchange(now) == now) return;
  std::atomic<std::uint32_t>& inbox = lane_at(PageIndex{d.owner.load()}).inbox[c.v];
  std::uint32_t head = inbox.load(std::memory_order_relaxed);  // checked by the exchange
  do {
    d.next_pending.store(head, std::memory_order_relaxed);  // published by the exchange
    // pairs with: drain_inbox
  } while (!inbox.compare_exchange_weak(head, unit.v, std::memory_order_release));
}

bool Arena::drain_inbox(LaneSlabs& lane) {
  bool any = false;
  for (std::atomic<std::uint32_t>& inbox : lane.inbox) {
    if (inbox.load(std::memory_order_relaxed) == kNone) continue;        // or it comes next time
    std::uint32_t u = inbox.exchange(kNone, std::memory_order_acquire);  // pairs with: notify_owner
    while (u != kNone) {
      const UnitIndex unit{u};
      u = next_pending(unit).load(std::memory_order_relaxed);  // ours until `pending` is cleared
      any |= drain_announced(lane, unit);
    }
  }
  return any;
}

// A slab leaves alone here. Nobody but the caller takes one out, so that the one behind the first
// stays the same for as long as the first does.
bool Arena::drain_some(LaneSlabs& lane, ClassIndex c) {
  constexpr std::uint32_t kAtOnce = 2;
  std::atomic<std::uint32_t>& inbox = lane.inbox[c.v];
  std::uint32_t u = inbox.load(std::memory_order_acquire);  // pairs with: notify_owner
  const bool any = u != kNone;
  for (std::uint32_t i = 0; i < kAtOnce && u != kNone;) {
    const UnitIndex unit{u};
    const std::uint32_t next = next_pending(unit).load(std::memory_order_relaxed);  // as above
    // pairs with: notify_owner
    if (!inbox.compare_exchange_weak(u, next, std::memory_order_acquire)) continue;
    if (next != kNone) prefetch_drain(UnitIndex{next});
    drain_announced(lane, unit);
    u = next;
    i++;
  }
  return any;
}

// What others wrote of that slab, and who takes it over writes.
void Arena::prefetch_drain(UnitIndex unit) const {
  const UnitEntry entry = units_[unit];
  if (!entry.is_slab()) return;
  const Slab slab = slab_at(unit, entry.size_class());
  __builtin_prefetch(&slab.descriptor().pending, 1);
  __builtin_prefetch(slab.remote_words(), 1);
}

bool Arena::drain_announced(LaneSlabs& lane, UnitIndex unit) {
  meta(chunk_of(unit)).slab[unit.v % kUnitsPerChunk].pending.exchange(0);  // pairs: notify_owner
  if (units_[unit].tag() == lane.tag) return drain_slab(lane, unit);
  pass_on(lane, unit);
  return false;
}

// The slab that a notification meant is gone. If there is another lane's now, that lane relies on
// `pending` and waits for our word. But if its descriptor names us, a fork cut adopt_slab() off:
// our word would come back to us for ever, and whoever recovers the other lane looks at the bits.
void Arena::pass_on(const LaneSlabs& lane, UnitIndex unit) {
  const UnitEntry entry = units_[unit];
  if (entry.is_free() || entry.tag() == lane.tag || !is_first_unit(unit, entry)) return;
  std::atomic_thread_fence(std::memory_order_acquire);  // pairs with: UnitTable::set, after `owner`
  const SlabDescriptor& d = meta(chunk_of(unit)).slab[unit.v % kUnitsPerChunk];
  if (d.owner.load() != lane.index.v) notify_owner(unit, entry.size_class());
}

bool Arena::drain_slab(LaneSlabs& lane, UnitIndex unit) {
  const UnitEntry entry = units_[unit];
  if (!is_first_unit(unit, entry)) return false;
  if (entry.is_mosaic()) return drain_mosaic(lane, unit);
  const ClassIndex c = entry.size_class();
  Slab slab = slab_at(unit, c);
  const std::uint32_t drained = slab.drain_remote();
  if (drained == 0) return false;
  note_given(lane, c, drained);
  after_give(lane, c, slab);
  return true;
}

// Of slots of which one was given twice.
void Arena::report_double_free(void* const* slots, std::uint32_t count) const {
  const void* culprit = slots[0];
  for (std::uint32_t i = 0; i < count; i++) {
    bool twice = locate(slots[i]).kind != Place::Kind::slot;
    for (std::uint32_t j = 0; j < i; j++) twice |= slots[j] == slots[i];
    if (twice) culprit = slots[i];
  }
  if (entry_of(culprit).is_slab()) {
    const ClassIndex c = entry_of(culprit).size_class();
    const Slab slab = slab_at(slab_unit(culprit, size_class(c)), c);
    const auto offset =
        static_cast<std::uint32_t>(static_cast<const std::byte*>(culprit) - slab.base());
    slab.report_double_free(slot_index(offset, size_class(c).magic));
  }
  Text text;
  fatal(text.put("free(): double free of ").hex(reinterpret_cast<std::uintptr_t>(culprit)));
}

bool Arena::create_slab(LaneSlabs& lane, ClassIndex c) {
  const std::uint32_t units = size_class(c).slab_bytes / kUnitBytes;
  const PageCount pages{units * kPagesPerUnit};
  const Block block = buddy_.take(pages, pages, BlockKind::slab);
  if (!block) return false;
  const UnitIndex unit = unit_of(block.first);
  Slab slab = slab_at(unit, c);
  slab.create(c, lane.index.v);
  set_list(slab.descriptor(), c, LaneSlabs::kNoList);
  note_unit(lane, unit);
  units_.set(unit, units, UnitEntry{lane.tag, c});
  place(lane, c, slab);
  lane.slab_bytes = lane.slab_bytes + size_class(c).slab_bytes;
  lane.slabs_made++;
  return true;
}

void Arena::retire_slab(LaneSlabs& lane, ClassIndex c, const Slab& slab) {
  // The last slab with room stays, so that one object going to and fro does not cost a slab.
  const SlabDescriptor& d = slab.descriptor();
  const bool only = d.list != LaneSlabs::kAsideList && lane.nonempty[c.v] == 1u << d.list &&
                    d.next == kNone && d.prev == kNone;
  if (only) return;
  unlink(lane, c, slab);
  give_slab_block(lane, unit_of_slab(slab), slab.size_class_info().slab_bytes / kUnitBytes);
}

void Arena::give_slab_block(LaneSlabs& lane, UnitIndex first, std::uint32_t units) {
  lane.slab_bytes = lane.slab_bytes - units * kUnitBytes;
  units_.set(first, units, UnitEntry{});
  scores_.set(first, units, 0);
  const bool given = buddy_.give(first_page(first), BlockKind::slab, lane.contents());
  ASHLAR_ASSERT(given);
  static_cast<void>(given);
}

void Arena::move_to_list(LaneSlabs& lane, ClassIndex c, const Slab& slab, std::uint8_t list) {
  if (slab.descriptor().list == LaneSlabs::kAsideList) return;  // until it is taken back
  if (slab.descriptor().list != LaneSlabs::kNoList) unlink(lane, c, slab);
  if (list != LaneSlabs::kNoList) link(lane, c, slab, list);
}

void Arena::link(LaneSlabs& lane, ClassIndex c, const Slab& slab, std::uint8_t list) {
  const UnitIndex unit = unit_of_slab(slab);
  std::uint32_t& head = head_of(lane, c, list);
  SlabDescriptor& d = slab.descriptor();
  set_list(d, c, list);
  d.prev = kNone;
  d.next = head;
  if (head != kNone) slab_at(UnitIndex{head}, c).descriptor().prev = unit.v;
  head = unit.v;
  if (list < LaneSlabs::kLists) lane.nonempty[c.v] |= static_cast<std::uint8_t>(1u << list);
}

void Arena::unlink(LaneSlabs& lane, ClassIndex c, const Slab& slab) {
  SlabDescriptor& d = slab.descriptor();
  const std::uint8_t list = d.list;
  if (d.prev != kNone) {
    slab_at(UnitIndex{d.prev}, c).descriptor().next = d.next;
  } else {
    head_of(lane, c, list) = d.next;
    if (d.next == kNone && list < LaneSlabs::kLists) {
      lane.nonempty[c.v] &= static_cast<std::uint8_t>(~(1u << list));
    }
  }
  if (d.next != kNone) slab_at(UnitIndex{d.next}, c).descriptor().prev = d.prev;
  set_list(d, c, LaneSlabs::kNoList);
}

void Arena::set_list(SlabDescriptor& d, ClassIndex c, std::uint8_t list) {
  d.list = list;
  const bool until_empty = list == 0 || list == LaneSlabs::kAsideList;
  d.least_used = until_empty ? 1 : static_cast<std::int32_t>(least_used(size_class(c), list));
}

}  // namespace ashlar
