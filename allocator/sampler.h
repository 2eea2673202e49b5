// SPDX-License-Identifier: MIT
// L4 · sampler: where a random part of the live objects was allocated.
//
// What:    with sample_kib set, objects are sampled so that one falls on so many KiB on average
//          (a Poisson process over the bytes allocated: an object of s bytes is in the sample with
//          probability 1 − exp(−s / mean)). A record keeps registers and the top of the stack, to
//          be unwound by a reader outside; it goes when the object is freed.
// How:     nothing on the hit paths. A lane knows how many bytes it hands out before its next
//          sample. A magazine's slots are handed out in order, so whoever fills a stack takes it
//          from that distance, or makes the stack no longer than the distance: the sampled malloc
//          is a slow one. What then is not handed out after all need not be added again: the
//          process has no memory, so what is left of a distance is as good as a new one. A freed
//          slot passes a slow path before it is handed out again, and is looked up there. Three
//          questions come before that, and nearly always one of them is answered with no: whether
//          any sample of the class lives; one in that unit; one whose address has the same hash.
//
//            table:  header │ counts by class, unit, hash │ index: address or 0 │ records, a page
//            each
//
// Threads: any; in signal handlers too. No locks: an index word is claimed and cleared by single
//          atomic steps. What does not fit is counted as lost.
#pragma once

#include <atomic>

#include "arena.h"
#include "options.h"

namespace ashlar {

struct SampleRecord {
  static constexpr Bytes kStackBytes = kPageBytes - 12 * sizeof(std::uint64_t);

  std::uint64_t bytes;        // of the slot, or of the pages
  std::uint64_t requested;    // bytes asked for when it was handed out
  os::Registers registers;    // what a reader begins to unwind with
  std::uint64_t stack_bytes;  // of `stack`, which begins at rsp
  std::uint64_t reserved;
  std::byte stack[kStackBytes];
};
static_assert(sizeof(SampleRecord) == kPageBytes);

struct SampleTable {
  static constexpr std::uint32_t kRecords = 16384;
  static constexpr std::uint32_t kUnitCells = 4096;  // units so far apart share one
  static constexpr std::uint32_t kFilterCells = 65536;
  static constexpr std::uint64_t kClaimed = 1;  // in the index: being written

  std::uint64_t mean_bytes;          // const
  std::atomic<std::uint64_t> taken;  // atomic: any → reports; samples in all
  std::atomic<std::uint64_t> lost;   // atomic: any → reports; of these, not kept for want of room
  // atomic: any → any; records in use, by size class. Large objects come last.
  std::atomic<std::uint32_t> live[kClassCount + 1];
  std::atomic<std::uint16_t> in_unit[kUnitCells];                      // atomic: any → any
  alignas(kPageBytes) std::atomic<std::uint8_t> filter[kFilterCells];  // atomic: any → any
  std::atomic<std::uint64_t> address[kRecords];                        // atomic: any → any
  SampleRecord record[kRecords];  // who claimed the address → reports
};

class Sampler {
 public:
  constexpr Sampler() = default;

  static bool is_on() { return options.sample_kib != 0; }

  // Bytes from anywhere to the next sample.
  Bytes draw();
  // Of `slots` slots that are handed out one after the other, how many come before one that is
  // sampled; `slots`: none is. `distance` is the caller's, to the next sample.
  std::uint32_t slots_before(Bytes& distance, Bytes slot_bytes, std::uint32_t slots) {
    const Bytes all = slots * slot_bytes;
    if (all <= distance) [[likely]] {
      distance -= all;
      return slots;
    }
    const auto before = static_cast<std::uint32_t>(distance / slot_bytes);
    distance = draw();
    return before;
  }
  // Whether one object of that size is sampled.
  bool is_due(Bytes& distance, Bytes bytes) { return slots_before(distance, bytes, 1) == 0; }
  // Keeps a record of the object that is being handed out. Returns p.
  [[gnu::noinline]] void* note(void* p, Bytes bytes, Bytes requested);
  // The object was copied from one place to the other, and so is its record.
  void follow(const void* from, const void* to);
  // They were freed: slots of that class, large objects (kClassCount), or slots of any class.
  void forget(void* const* slots, std::uint32_t count, ClassIndex c);
  void forget(void* const* slots, std::uint32_t count);

  // For the root.
  const std::atomic<SampleTable*>& table() const { return table_; }

 private:
  SampleTable* make_table();
  static void forget_some(SampleTable& table, void* const* slots, std::uint32_t count);
  static void forget_one(SampleTable& table, const void* p);

  std::atomic<SampleTable*> table_ = nullptr;  // atomic: who takes the first sample → all
  std::atomic<std::uint64_t> random_ = 0;      // atomic: any → any
};

extern constinit Sampler sampler;

}  // namespace ashlar
