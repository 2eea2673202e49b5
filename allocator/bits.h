// SPDX-License-Identifier: MIT
// L0 · bits: alignment, logarithms, masks; all constexpr, no state.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace ashlar {

// Not std::has_single_bit: that counts all bits, by a call where there is no instruction for it.
constexpr bool is_power_of_two(std::size_t n) { return n != 0 && (n & (n - 1)) == 0; }

// `alignment` is a power of two.
constexpr std::size_t align_down(std::size_t n, std::size_t alignment) {
  return n & ~(alignment - 1);
}
constexpr std::size_t align_up(std::size_t n, std::size_t alignment) {
  return align_down(n + alignment - 1, alignment);
}

constexpr std::size_t divide_up(std::size_t n, std::size_t divisor) {
  return (n + divisor - 1) / divisor;
}

// Bits [first, first + count) of a word; first + count <= 64, count may be 64.
constexpr std::uint64_t bit_range(unsigned first, unsigned count) {
  return count == 0 ? 0 : (~std::uint64_t{0} >> (64 - count)) << first;
}

// Position of the lowest set bit; the word is not zero.
constexpr unsigned lowest_bit(std::uint64_t word) {
  return static_cast<unsigned>(std::countr_zero(word));
}

// Calls visit(word index, mask) for the words that bits [first, first + count) touch.
template <class Visit>
constexpr void for_each_word(std::uint32_t first, std::uint32_t count, Visit&& visit) {
  while (count != 0) {
    const unsigned bit = first % 64;
    const unsigned take = count < 64 - bit ? count : 64 - bit;
    visit(first / 64, bit_range(bit, take));
    first += take;
    count -= take;
  }
}

}  // namespace ashlar
