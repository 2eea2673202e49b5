// SPDX-License-Identifier: MIT
// L2 · mosaic: a sparse slab that was re-cut, so that its gaps serve every size class.
//
// What:    a slab of one unit, read at a grain of 16 bytes. Objects of any class lie side by side;
//          how long one is, the bits say.
// How:     two bitmaps of their own, one bit a grain:
//
//            free    0000 1111 0000 0011 …   1 = in no object
//            start   1010 0000 1000 0000 …   1 = an object began here last; where `free` is 0, it
//            object  aabb ···· cccc cc·· …   is there still, to the next start or the next gap
//
//          Any thread gives, by setting `free` from the object's end to its first bit, which
//          decides between two that give the same object. The owner takes: it sets `start`, then
//          clears `free`. Starts go only when other objects cover them. So at any instant an object
//          ends where what follows it begins or is a gap, whatever happens there.
// Invariants (check_invariants() tests these by number, in a quiet arena):
//   1  a grain in use begins an object or follows one in use
//   2  `objects` counts the starts in use
//   3  a hole is an empty page
// Threads: take, create: the owner. give, bytes_at: any.
// Position: holds no addresses.
// Source:  what boundary tags give (Knuth, TAOCP 1, 2.5), with the tags as bits beside the memory.
#pragma once

#include "slab.h"

namespace ashlar {

inline constexpr Bytes kGrainBytes = kMinAlignment;
inline constexpr std::uint32_t kGrains = kUnitBytes / kGrainBytes;
inline constexpr std::uint32_t kGrainWords = kGrains / 64;

// A view of one mosaic; cheap to make, holds nothing.
class Mosaic {
 public:
  Mosaic(SlabDescriptor& descriptor, BitmapWord* free, BitmapWord* start, std::byte* base)
      : descriptor_(descriptor), free_(free), start_(start), base_(base) {}

  SlabDescriptor& descriptor() const { return descriptor_; }
  std::byte* base() const { return base_; }
  bool is_empty() const { return descriptor_.objects.load() == 0; }

  // Reads the slab's bits into ours. The slab's own stay as they are.
  void create(const Slab& slab);

  // False: no gap of that size was left when it was searched last, and nothing was given since.
  bool may_fit(ClassIndex c);

  // Takes up to `want` gaps of a class's size and writes them upwards from `slots`. They are
  // aligned as its slots are, up to a cache line. Returns how many.
  std::uint32_t take(ClassIndex c, void** slots, std::uint32_t want);

  // Of two threads that give the same object, one is told. `last`: the mosaic is empty now.
  Give give(const void* object, bool& last);

  // The bytes of the object that begins at p; 0: none does.
  Bytes bytes_at(const void* p) const;
  // Where the object begins that p points into; null: p points into a gap.
  std::byte* begin_of(const void* p) const;

  // In all gaps together.
  Bytes gap_bytes() const;
  // Pages that are all gap, bit per page.
  std::uint64_t empty_pages() const;
  // After its owner was interrupted at any instruction and is gone.
  void recover();

  // Calls visit(object, bytes). What it sees while others work is a hint.
  template <class Visit>
  void for_each_object(Visit&& visit) const {
    for (std::uint32_t w = 0; w < kGrainWords; w++) {
      std::uint64_t starts = start_[w].load(std::memory_order_relaxed) &
                             ~free_[w].load(std::memory_order_relaxed);  // a hint
      for (; starts != 0; starts &= starts - 1) {
        const std::uint32_t grain = w * 64 + lowest_bit(starts);
        visit(base_ + grain * kGrainBytes, (end_of(grain) - grain) * kGrainBytes);
      }
    }
  }

  const char* check_invariants() const;

 private:
  std::uint32_t grain_of(const void* p) const {
    return static_cast<std::uint32_t>((static_cast<const std::byte*>(p) - base_) /
                                      static_cast<std::ptrdiff_t>(kGrainBytes));
  }
  static bool bit(const BitmapWord* bitmap, std::uint32_t grain) {
    // pairs with: give, take. An object's own bits change only by who holds it.
    return (bitmap[grain / 64].load(std::memory_order_acquire) >> grain % 64 & 1) != 0;
  }
  std::uint32_t end_of(std::uint32_t grain) const;

  SlabDescriptor& descriptor_;
  BitmapWord* free_;   // kGrainWords words; atomic: any → any
  BitmapWord* start_;  // kGrainWords words; atomic: any → any
  std::byte* base_;
};

}  // namespace ashlar
