// SPDX-License-Identifier: MIT
// L0 · handle_entry: the words that handles to objects are made of.
//
//   handle   generation 32 │ index + 1 32            what programs keep; 0 is null
//   entry    generation │ state 2 │ position         one word for each object, in a table
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

namespace ashlar {

// What is not position or state is generation: few bits of the one are many of the other.
template <std::uint32_t PositionBits>
class HandleEntry {
 public:
  // `moving`: somebody copies it; where it was is still the truth.
  // `dropped`: freed, but its slot is not given back yet.
  enum State : std::uint8_t { kFree, kLive, kMoving, kDropped };
  static constexpr std::uint32_t kPositionBits = PositionBits;
  static constexpr std::uint32_t kStateBits = 2;
  // An entry whose generations are used up is never used again: no old handle can match it.
  static constexpr std::uint32_t kLastGeneration = (1u << (64 - PositionBits - kStateBits)) - 1;

  constexpr explicit HandleEntry(std::uint64_t word = 0) : word_(word) {}
  constexpr HandleEntry(State state, std::uint32_t generation, Bytes data_offset)
      : word_(data_offset / kMinAlignment | std::uint64_t{state} << PositionBits |
              std::uint64_t{generation} << (PositionBits + kStateBits)) {}

  constexpr State state() const {
    return static_cast<State>(word_ >> PositionBits & ((1u << kStateBits) - 1));
  }
  constexpr std::uint32_t generation() const {
    return static_cast<std::uint32_t>(word_ >> (PositionBits + kStateBits));
  }
  constexpr Bytes data_offset() const {
    return (word_ & ((std::uint64_t{1} << PositionBits) - 1)) * kMinAlignment;
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

struct Handle {
  std::uint32_t index;
  std::uint32_t generation;

  static constexpr Handle of(std::uint64_t word) {
    return {static_cast<std::uint32_t>(word) - 1, static_cast<std::uint32_t>(word >> 32)};
  }
  constexpr std::uint64_t word() const { return std::uint64_t{generation} << 32 | (index + 1); }
};

}  // namespace ashlar
