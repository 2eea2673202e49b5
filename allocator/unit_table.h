// SPDX-License-Identifier: MIT
// L1 · unit_table: address → owner and size class, one word per 64 KiB unit.
//
// What:    an entry is 0 where no slab is, or an owner's tag and what is there:
//
//            offset of a class's magazine    a slab of that class
//            the next one: mosaic            a mosaic
//            … bare                          no slab, see UnitEntry::bare
//            … large                         the first unit of a large block of a program's heap
//
//          In a heap the tag is the lane's address, so that free(p) needs one load and one XOR:
//          entry ^ own lane is below 4096 exactly when the slab is ours, and then it is the offset
//          of the magazine to push to. A program's heap has a bit in its tag that no address has.
//          In shared memory tags are numbers.
// Threads: written by the slab's owner when it creates or releases a slab; read by all.
#pragma once

#include <atomic>

#include "size_class.h"

namespace ashlar {

// Tags are non-zero multiples of this.
inline constexpr std::uint64_t kTagGrain = 4096;
inline constexpr std::uint64_t kMagazineBytes = 64;
// In the tag of a program's heap (program_heap).
inline constexpr std::uint64_t kProgramHeapTag = std::uint64_t{1} << 62;

class UnitEntry {
 public:
  constexpr UnitEntry() = default;
  constexpr explicit UnitEntry(std::uint64_t word) : word_(word) {}
  constexpr UnitEntry(std::uint64_t tag, ClassIndex c) : word_(tag | c.v * kMagazineBytes) {}
  static constexpr UnitEntry mosaic(std::uint64_t tag) { return {tag, kMosaic}; }
  // No slab is there. What the lane's own thread frees there leaves the hit path where a full
  // magazine does, not by a branch of its own (decision 23).
  static constexpr UnitEntry bare(std::uint64_t tag) { return {tag, kBare}; }
  static constexpr UnitEntry large(std::uint64_t tag) { return {tag, kLarge}; }

  constexpr std::uint64_t word() const { return word_; }
  constexpr bool is_free() const { return word_ == 0 || size_class().v == kBare.v; }
  constexpr bool is_mosaic() const { return size_class().v == kMosaic.v; }
  constexpr bool is_large() const { return size_class().v == kLarge.v; }
  constexpr bool is_slab() const { return !is_free() && size_class().v < kClassCount; }
  constexpr bool has_slots() const { return !is_free() && size_class().v <= kMosaic.v; }
  constexpr bool is_of_program_heap() const { return (word_ & kProgramHeapTag) != 0; }
  // Of a bare entry, too.
  constexpr std::uint64_t tag() const { return word_ & ~(kTagGrain - 1); }
  // Of a slab.
  constexpr ClassIndex size_class() const {
    return {static_cast<std::uint32_t>(word_ % kTagGrain / kMagazineBytes)};
  }

 private:
  // In the place of a class.
  static constexpr ClassIndex kMosaic{kClassCount};
  static constexpr ClassIndex kBare{kClassCount + 1};
  static constexpr ClassIndex kLarge{kClassCount + 2};

  std::uint64_t word_ = 0;
};

class UnitTable {
 public:
  constexpr UnitTable() = default;
  constexpr explicit UnitTable(std::atomic<std::uint64_t>* entries) : entries_(entries) {}

  // relaxed: whoever frees or resizes an object got its address from the thread that allocated
  // it, and that hand-over orders the entry too. Any other pointer is a bug that we report.
  UnitEntry operator[](UnitIndex unit) const { return at_offset(unit.v * kUnitBytes); }
  UnitEntry at_offset(Bytes offset) const {
    return UnitEntry{entries_[offset / kUnitBytes].load(std::memory_order_relaxed)};
  }
  void set(UnitIndex first, std::uint32_t units, UnitEntry entry) {
    for (std::uint32_t i = 0; i < units; i++) {
      // pairs with: the program's own hand-over of the object
      entries_[first.v + i].store(entry.word(), std::memory_order_release);
    }
  }
  // Where no slab is. Without effect if there is something else by now.
  void set_bare(UnitIndex unit, std::uint64_t tag) {
    std::uint64_t word = (*this)[unit].word();
    if (!UnitEntry{word}.is_free()) return;
    entries_[unit.v].compare_exchange_strong(word, UnitEntry::bare(tag).word());
  }
  // Of several threads that remove the same entry, one succeeds.
  [[nodiscard]] bool remove(UnitIndex unit, UnitEntry entry) {
    std::uint64_t word = entry.word();
    return entries_[unit.v].compare_exchange_strong(word, 0);
  }

 private:
  std::atomic<std::uint64_t>* entries_ = nullptr;  // const
};

}  // namespace ashlar
