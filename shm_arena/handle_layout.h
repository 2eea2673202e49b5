// SPDX-License-Identifier: MIT
// L3 · handle_layout: what handles to objects in shared memory are made of.
//
//   pin      index + 1                  a word of its lane: the object is locked
//   change   index + 1, two positions   a word of its lane: what it is about to do
//
// Handles and entries themselves are the heap's, too: see handle_entry.h.
#pragma once

#include <atomic>

#include "handle_entry.h"
#include "size_class.h"

namespace ashlar::shm {

using ashlar::Handle;
using HandleEntry = ashlar::HandleEntry<39>;  // 8 TiB
using HandleWord = std::atomic<HandleEntry>;
static_assert(HandleWord::is_always_lock_free && sizeof(HandleWord) == 8);

// A lane's part. Its memory comes when a thread first uses a handle; see Lane::pins_end.
struct alignas(2048) LaneHandles {
  static constexpr std::uint32_t kPins = 500;
  static constexpr std::uint32_t kFirstPins = 8;  // in one cache line with what is before them

  // A change under way, to be settled if the leaseholder dies: see handles.h.
  std::atomic<std::uint32_t> entry;        // leaseholder → recoverer; index + 1, 0: none
  std::atomic<std::uint32_t> depth;        // leaseholder; none of its pins is at or behind it
  std::atomic<std::uint64_t> slot[2];      // leaseholder → recoverer; data offset + 1, 0: none
  std::atomic<std::uint32_t> pins[kPins];  // leaseholder → all; index + 1, 0: none
  // Of the change: an entry that has kept the second slot so far. Meant like `entry`.
  std::atomic<std::uint32_t> keeper;  // leaseholder → recoverer
};

}  // namespace ashlar::shm
