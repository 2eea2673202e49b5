// SPDX-License-Identifier: MIT
#include "mosaic.h"

#include <algorithm>

namespace ashlar {

void Mosaic::create(const Slab& slab) {
  std::uint64_t start[kGrainWords] = {};
  std::uint64_t used[kGrainWords] = {};
  const SizeClass& info = slab.size_class_info();
  const auto grains = static_cast<std::uint32_t>(info.slot_bytes / kGrainBytes);
  std::uint32_t objects = 0;
  for (std::uint32_t slot = 0; slot < info.capacity; slot++) {
    if (slab.is_free(slot)) continue;
    const std::uint32_t first = slot * grains;
    start[first / 64] |= std::uint64_t{1} << first % 64;
    for_each_word(first, grains, [&](std::uint32_t w, std::uint64_t mask) { used[w] |= mask; });
    objects++;
  }
  for (std::uint32_t w = 0; w < kGrainWords; w++) {
    start_[w].store(start[w], std::memory_order_relaxed);  // published with the unit entry
    free_[w].store(~used[w], std::memory_order_relaxed);   // published with the unit entry
  }
  descriptor_.objects.store(objects);
  descriptor_.gained.store(true, std::memory_order_relaxed);  // published with the unit entry
}

bool Mosaic::may_fit(ClassIndex c) {
  // relaxed: what was given a moment ago may be found the next time
  if (descriptor_.gained.load(std::memory_order_relaxed)) {
    descriptor_.gained.store(false);
    descriptor_.hint = kGrains;
  }
  return size_class(c).slot_bytes < descriptor_.hint * kGrainBytes;
}

std::uint32_t Mosaic::take(ClassIndex c, void** slots, std::uint32_t want) {
  const auto grains = static_cast<std::uint32_t>(size_class(c).slot_bytes / kGrainBytes);
  constexpr std::uint32_t kMostAlignment = kCacheLineBytes / kGrainBytes;
  const std::uint32_t natural = grains & -grains;
  const std::uint32_t alignment = natural < kMostAlignment ? natural : kMostAlignment;

  std::uint64_t start[kGrainWords] = {};
  std::uint64_t used[kGrainWords] = {};
  std::uint32_t count = 0;
  std::uint32_t at = 0;
  const auto next = [&](std::uint32_t from, bool gap) {
    for (std::uint32_t w = from / 64; w < kGrainWords; w++, from = w * 64) {
      const std::uint64_t gaps = free_[w].load(std::memory_order_acquire);  // pairs with: give
      const std::uint64_t bits = (gap ? gaps : ~gaps) & ~std::uint64_t{0} << from % 64;
      if (bits != 0) return w * 64 + lowest_bit(bits);
    }
    return kGrains;
  };
  while (count < want) {
    at = next(at, true);
    if (at == kGrains) break;
    const std::uint32_t end = next(at, false);
    at = static_cast<std::uint32_t>(align_up(at, alignment));
    for (; at + grains <= end && count < want; at += grains) {
      start[at / 64] |= std::uint64_t{1} << at % 64;
      for_each_word(at, grains, [&](std::uint32_t w, std::uint64_t mask) { used[w] |= mask; });
      slots[count++] = base_ + at * kGrainBytes;
    }
    if (at < end) at = end;
  }
  if (count < want) descriptor_.hint = grains;
  if (count == 0) return 0;

  descriptor_.objects.fetch_add(count);
  for (std::uint32_t w = 0; w < kGrainWords; w++) {
    if (used[w] == 0) continue;
    start_[w].fetch_or(start[w]);
    start_[w].fetch_and(start[w] | ~used[w]);  // of what began there before
  }
  for (std::uint32_t w = 0; w < kGrainWords; w++) {
    if (used[w] != 0) free_[w].fetch_and(~used[w]);
  }
  descriptor_.taken_from = true;
  descriptor_.holes = descriptor_.holes & empty_pages();
  return count;
}

Give Mosaic::give(const void* object, bool& last) {
  const std::uint32_t first = grain_of(object);
  last = false;
  if (bit(free_, first) || !bit(start_, first)) return Give::double_free;
  // From its end: what is not given yet is an object at any instant, a shorter one. With the first
  // word given and the last one not, an object that the owner puts there would seem to reach to the
  // end of this one.
  std::uint64_t old = 0;
  for (std::uint32_t end = end_of(first); end > first;) {
    const std::uint32_t begin = std::max(first, (end - 1) / 64 * 64);
    old = free_[begin / 64].fetch_or(bit_range(begin % 64, end - begin));
    end = begin;
  }
  if ((old >> first % 64 & 1) != 0) return Give::double_free;
  descriptor_.gained.store(true);
  last = descriptor_.objects.fetch_sub(1) == 1;
  return Give::done;
}

std::uint32_t Mosaic::end_of(std::uint32_t grain) const {
  grain++;
  for (std::uint32_t w = grain / 64; w < kGrainWords; w++, grain = w * 64) {
    // pairs with: take, which sets `start` before it clears `free`; so `free` is read first.
    const std::uint64_t gaps = free_[w].load(std::memory_order_acquire);
    const std::uint64_t ends = gaps | start_[w].load(std::memory_order_acquire);
    const std::uint64_t bits = ends & ~std::uint64_t{0} << grain % 64;
    if (bits != 0) return w * 64 + lowest_bit(bits);
  }
  return kGrains;
}

Bytes Mosaic::bytes_at(const void* p) const {
  const auto offset = static_cast<Bytes>(static_cast<const std::byte*>(p) - base_);
  const std::uint32_t grain = grain_of(p);
  if (offset % kGrainBytes != 0 || !bit(start_, grain) || bit(free_, grain)) return 0;
  return (end_of(grain) - grain) * kGrainBytes;
}

std::byte* Mosaic::begin_of(const void* p) const {
  for (std::uint32_t grain = grain_of(p); !bit(free_, grain); grain--) {
    if (bit(start_, grain)) return base_ + grain * kGrainBytes;
    if (grain == 0) break;
  }
  return nullptr;
}

Bytes Mosaic::gap_bytes() const {
  Bytes grains = 0;
  for (std::uint32_t w = 0; w < kGrainWords; w++) {
    grains +=
        static_cast<Bytes>(std::popcount(free_[w].load(std::memory_order_relaxed)));  // a hint
  }
  return grains * kGrainBytes;
}

std::uint64_t Mosaic::empty_pages() const {
  constexpr std::uint32_t kWordsPerPage = kPageBytes / kGrainBytes / 64;
  std::uint64_t empty = 0;
  for (std::uint32_t page = 0; page < kPagesPerUnit; page++) {
    bool all = true;
    for (std::uint32_t w = page * kWordsPerPage; w < (page + 1) * kWordsPerPage; w++) {
      all &= free_[w].load() == ~std::uint64_t{0};
    }
    if (all) empty |= std::uint64_t{1} << page;
  }
  return empty;
}

// An object that was about to be taken is in nobody's hands where its start is a gap still, and so
// are grains in use that follow a gap without beginning anything.
void Mosaic::recover() {
  std::uint32_t objects = 0;
  bool in_object = false;
  for (std::uint32_t grain = 0; grain < kGrains; grain++) {
    const bool gap = bit(free_, grain);
    in_object = !gap && (in_object || bit(start_, grain));
    if (!gap && !in_object) free_[grain / 64].fetch_or(std::uint64_t{1} << grain % 64);
  }
  for (std::uint32_t w = 0; w < kGrainWords; w++) {
    const std::uint64_t start = start_[w].load() & ~free_[w].load();
    objects += static_cast<std::uint32_t>(std::popcount(start));
  }
  descriptor_.objects.store(objects);
  descriptor_.gained.store(true);
  descriptor_.holes = descriptor_.holes & empty_pages();
}

const char* Mosaic::check_invariants() const {
  std::uint32_t objects = 0;
  bool in_object = false;
  for (std::uint32_t grain = 0; grain < kGrains; grain++) {
    const bool starts = bit(start_, grain);
    const bool gap = bit(free_, grain);
    if (!gap && !starts && !in_object) return "mosaic 1: a grain in use belongs to no object";
    in_object = !gap;
    objects += starts && !gap;
  }
  if (objects != descriptor_.objects.load()) return "mosaic 2: the count is wrong";
  if ((descriptor_.holes & ~empty_pages()) != 0) return "mosaic 3: a hole is in use";
  return nullptr;
}

}  // namespace ashlar
