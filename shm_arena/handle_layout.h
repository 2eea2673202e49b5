// SPDX-License-Identifier: MIT
// L3 · handle_layout: the words that handles to objects are made of.
//
//   handle   generation 32 │ index + 1 32            what programs keep; 0 is null
//   entry    generation 23 │ state 2 │ position 39   one word for each object, in a table
//   pin      index + 1                               a word of its lane: the object is locked
//   change   index + 1, two positions                a word of its lane: what it is about to do
//
//            alloc          move
//     free ────────▶ live ◀──────▶ moving     lock: moving → live, so that the move comes to
//     nothing
//      ▲               │ free ◀──────┘
//      └── dropped ◀───┘                      until nobody has it locked
//
// Position: independent; positions are offsets from the arena's first data page, over 16.
#pragma once

#include <atomic>

#include "size_class.h"

namespace ashlar::shm {

class HandleEntry {
 public:
  // `moving`: somebody copies it; where it was is still the truth.
  // `dropped`: freed, but its slot is not given back yet.
  enum State : std::uint8_t { kFree, kLive, kMoving, kDropped };
  static constexpr std::uint32_t kPositionBits = 39;
  static constexpr std::uint32_t kStateBits = 2;
  // An entry whose generations are used up is never used again: no old handle can match it.
  static constexpr std::uint32_t kLastGeneration = (1u << (64 - kPositionBits - kStateBits)) - 1;

  constexpr explicit HandleEntry(std::uint64_t word = 0) : word_(word) {}
  constexpr HandleEntry(State state, std::uint32_t generation, Bytes data_offset)
      : word_(data_offset / kMinAlignment | std::uint64_t{state} << kPositionBits |
              std::uint64_t{generation} << (kPositionBits + kStateBits)) {}

  constexpr State state() const {
    return static_cast<State>(word_ >> kPositionBits & ((1u << kStateBits) - 1));
  }
  constexpr std::uint32_t generation() const {
    return static_cast<std::uint32_t>(word_ >> (kPositionBits + kStateBits));
  }
  constexpr Bytes data_offset() const {
    return (word_ & ((std::uint64_t{1} << kPositionBits) - 1)) * kMinAlignment;
  }
  constexpr bool is_usable() const { return state() == kLive || state() == kMoving; }
  constexpr bool is_reusable() const { return state() == kFree && generation() != kLastGeneration; }
  // Whether the object is there.
  constexpr bool names(Bytes offset) const { return state() != kFree && data_offset() == offset; }
  constexpr HandleEntry with(State state) const { return {state, generation(), data_offset()}; }
  friend constexpr bool operator==(HandleEntry, HandleEntry) = default;

 private:
  std::uint64_t word_;
};
using HandleWord = std::atomic<HandleEntry>;
static_assert(HandleWord::is_always_lock_free && sizeof(HandleWord) == 8);

struct Handle {
  std::uint32_t index;
  std::uint32_t generation;

  static constexpr Handle of(std::uint64_t word) {
    return {static_cast<std::uint32_t>(word) - 1, static_cast<std::uint32_t>(word >> 32)};
  }
  constexpr std::uint64_t word() const { return std::uint64_t{generation} << 32 | (index + 1); }
};

// A lane's part. Its memory comes when a thread first uses a handle; see Lane::pins_end.
struct alignas(2048) LaneHandles {
  static constexpr std::uint32_t kPins = 500;
  static constexpr std::uint32_t kFirstPins = 8;  // in one cache line with what is before them

  // A change under way, to be settled if the leaseholder dies: see handles.h.
  std::atomic<std::uint32_t> entry;        // leaseholder → recoverer; index + 1, 0: none
  std::atomic<std::uint32_t> depth;        // leaseholder; none of its pins is at or behind it
  std::atomic<std::uint64_t> slot[2];      // leaseholder → recoverer; data offset + 1, 0: none
  std::atomic<std::uint32_t> pins[kPins];  // leaseholder → all; index + 1, 0: none
};

}  // namespace ashlar::shm
