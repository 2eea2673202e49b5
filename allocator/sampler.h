// SPDX-License-Identifier: MIT
// L4 · sampler: where a random part of the live objects was allocated.
//
// What:    with sample_kib set, objects are sampled so that one falls on so many KiB on average
//          (a Poisson process over the bytes allocated: an object of s bytes is in the sample with
//          probability 1 − exp(−s / mean)). A record keeps registers and the top of the stack, to
//          be unwound by a reader outside; it goes when the object is freed.
// How:     nothing on the hit paths. A magazine's slots are handed out in order, so whoever fills
//          a stack draws how many of them come before the next sample, and makes the stack no
//          longer than that: the sampled malloc is a slow one. A freed slot passes a slow path
//          before it is handed out again, and is looked up there: first in a filter, which nearly
//          always says no.
//
//            table:  header │ filter: a count per hash │ index: address or 0 │ records, a page each
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

  std::uint64_t bytes;  // of the slot, or of the pages
  // What a reader begins to unwind from.
  std::uint64_t rip, rsp, rbp, rbx, r12, r13, r14, r15;
  std::uint64_t stack_bytes;  // of `stack`, which begins at rsp
  std::uint64_t reserved[2];
  std::byte stack[kStackBytes];
};
static_assert(sizeof(SampleRecord) == kPageBytes);

struct SampleTable {
  static constexpr std::uint32_t kRecords = 16384;
  static constexpr std::uint32_t kFilterCells = 65536;
  static constexpr std::uint64_t kClaimed = 1;  // in the index: being written

  std::uint64_t mean_bytes;          // const
  std::atomic<std::uint64_t> taken;  // atomic: any → reports; samples in all
  std::atomic<std::uint64_t> lost;   // atomic: any → reports; of these, not kept for want of room
  std::atomic<std::uint64_t> live;   // atomic: any → any; records in use
  alignas(kPageBytes) std::atomic<std::uint8_t> filter[kFilterCells];  // atomic: any → any
  std::atomic<std::uint64_t> address[kRecords];                        // atomic: any → any
  SampleRecord record[kRecords];  // who claimed the address → reports
};

class Sampler {
 public:
  constexpr Sampler() = default;

  static bool is_on() { return options.sample_kib != 0; }

  // Objects of that size that come before the next one to be sampled.
  std::uint64_t draw(Bytes bytes);
  // Keeps a record of the object that is being handed out. Returns p.
  [[gnu::noinline]] void* note(void* p, Bytes bytes);
  // The object was copied from one place to the other, and so is its record.
  void follow(const void* from, const void* to);
  // They were freed.
  void forget(void* const* slots, std::uint32_t count);

  // For the root.
  const std::atomic<SampleTable*>& table() const { return table_; }

 private:
  SampleTable* make_table();
  static void forget_one(SampleTable& table, const void* p);

  std::atomic<SampleTable*> table_ = nullptr;  // atomic: who takes the first sample → all
  std::atomic<std::uint64_t> random_ = 0;      // atomic: any → any
};

extern constinit Sampler sampler;

}  // namespace ashlar
