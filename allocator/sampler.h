// SPDX-License-Identifier: MIT
// L4 · sampler: where a random part of the live objects was allocated.
//
// What:    with sample_kib set, objects are sampled so that one falls on so many KiB on average, or
//          on more where that takes too long (sample_pace; a Poisson process over the bytes
//          allocated: an object of s bytes is in the sample with probability 1 − exp(−s / mean)). A
//          record keeps registers and the top of the stack, to be unwound by a reader outside; it
//          goes when the object is freed.
// How:     nothing on the hit paths, and nothing for objects that are not in the sample. A lane
//          knows how many bytes it hands out before its next sample. A magazine's slots are handed
//          out in order, so whoever fills a stack takes it from that distance, or makes the stack
//          no longer than the distance, or puts a null word there: the sampled malloc is a slow
//          one. What then is not handed out after all need not be added again: the process has no
//          memory, so what is left of a distance is as good as a new one, as long as it is not the
//          distance that decides.
//
//          A sampled object lies on pages of its own. The unit table knows no slab there, so its
//          free, too, is a slow one, and no other free has to ask; that of its own thread leaves
//          the hit path where many a free does (UnitEntry::bare). The slot where it would have
//          lain stays taken in its place, so that slabs look as they would without samples.
//
//            slab:   … │ object │ slot kept │ object │ …
//                                     ▲
//            table:  index: object's address → record page │ the object's pages
//
//          Large objects have a slow free anyway. They stay where they are.
// Threads: any; in signal handlers too. No locks: an index cell is claimed and cleared by single
//          atomic steps. What does not fit is counted as lost.
#pragma once

#include <atomic>

#include "arena.h"
#include "options.h"

namespace ashlar {

struct SampleRecord {
  static constexpr Bytes kStackBytes = kPageBytes - 13 * sizeof(std::uint64_t);

  void* place;                // the slot that is kept for the object; a large one itself
  std::uint64_t bytes;        // of the slot, or of the pages
  std::uint64_t requested;    // bytes asked for when it was handed out
  std::uint64_t mean_bytes;   // one sample fell on so many bytes when it was drawn
  os::Registers registers;    // what a reader begins to unwind with
  std::uint64_t stack_bytes;  // of `stack`, which begins at rsp
  std::byte stack[kStackBytes];
};
static_assert(sizeof(SampleRecord) == kPageBytes);

struct SampleTable {
  static constexpr std::uint32_t kSamples = 32768;  // so many have room
  // Twice as many: an address that finds its cells taken is lost, and as its pages are the next to
  // be taken, so are the samples after it.
  static constexpr std::uint32_t kCells = 2 * kSamples;
  static constexpr std::uint32_t kFilterCells = 65536;
  static constexpr std::uint64_t kClaimed = 1;  // an address: being written

  struct Cell {
    std::atomic<std::uint64_t> address;  // atomic: any → any; of the object, 0: none
    SampleRecord* record;                // who claimed the cell → who finds the address
  };

  std::atomic<std::uint64_t> taken;  // atomic: any → reports; samples in all
  std::atomic<std::uint64_t> lost;   // atomic: any → reports; of these, not kept for want of room
  // atomic: any → any; samples of which the address has that hash
  alignas(kPageBytes) std::atomic<std::uint8_t> filter[kFilterCells];
  Cell cell[kCells];
};

class Sampler {
 public:
  constexpr Sampler() = default;

  static bool is_on() { return options.sample_kib != 0; }

  // Bytes from anywhere to the next sample, if one falls on so many KiB.
  Bytes draw(std::uint32_t mean_kib);
  // The object that is about to be handed out in that slot is sampled, as was drawn with that mean.
  // Returns where it lies: not in the slot, unless there is no room for a record.
  [[gnu::noinline]] void* note_slot(void* slot, Bytes slot_bytes, Bytes requested,
                                    std::uint32_t mean_kib);
  // The same of a large object, which stays.
  [[gnu::noinline]] void note_large(void* p, Bytes bytes, Bytes requested, std::uint32_t mean_kib);
  // The object at p is freed. Returns the slot that was kept for it, which is to be freed now;
  // null: it is not sampled.
  void* take_back(const void* p);
  void forget_large(const void* p);
  // Of the slot of a sampled object; 0: no such object lies at p.
  Bytes slot_bytes_of(const void* p) const;

  // For the root.
  const std::atomic<SampleTable*>& table() const { return table_; }

 private:
  SampleTable* make_table();
  SampleTable::Cell* find(const void* p) const;
  bool remove(SampleTable::Cell& cell, const void* p);

  std::atomic<SampleTable*> table_ = nullptr;  // atomic: who takes the first sample → all
  std::atomic<std::uint64_t> random_ = 0;      // atomic: any → any
};

extern constinit Sampler sampler;

}  // namespace ashlar
