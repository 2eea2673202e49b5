// SPDX-License-Identifier: MIT
// L0 · size_class: which slot size serves a request, and how big the slab of that class is.
//
// What:   16-byte steps to 128 bytes (8 classes), 8 classes per doubling to 1 KiB (worst waste
//         11 % of the slot), 4 per doubling to 32 KiB (20 %). Larger requests are page runs.
// How:    one constexpr table, built at compile time; code, documentation and reports read it.
// Where:  slots start at the slab's first byte and a slab is aligned to its own size, so a slot
//         size that is a multiple of a power of two up to a page gives that alignment for free.
#pragma once

#include <array>

#include "bits.h"
#include "units.h"

namespace ashlar {

struct SizeClass {
  std::uint32_t slot_bytes;
  std::uint32_t slab_bytes;  // power of two, multiple of a unit
  std::uint32_t capacity;    // slots in a slab
  std::uint32_t words;       // 64-bit words in a slab's bitmap
  std::uint64_t magic;       // floor(2^64 / slot_bytes) + 1, see slot_index()
  std::uint32_t eighths;     // see fullness()
};

// Eighths of a slab's slots that are in use, rounded down; 8 when all are.
constexpr std::uint32_t fullness(const SizeClass& c, std::uint32_t used) {
  return used * c.eighths >> 20;
}

// The fewest used slots of that fullness.
constexpr std::uint32_t least_used(const SizeClass& c, std::uint32_t fullness) {
  return static_cast<std::uint32_t>(divide_up(fullness << 20, c.eighths));
}

inline constexpr std::uint32_t kClassCount = 52;
inline constexpr Bytes kMaxSlotBytes = 32 * kKiB;
inline constexpr Bytes kMinAlignment = 16;

namespace detail {

constexpr std::array<SizeClass, kClassCount> make_size_classes() {
  std::array<SizeClass, kClassCount> classes{};
  std::uint32_t size = 0;
  for (SizeClass& c : classes) {
    const std::uint32_t doubling = std::bit_floor(size);
    size += size < 128 ? 16 : size < 1024 ? doubling / 8 : doubling / 4;
    c.slot_bytes = size;
    // A slab holds at least eight slots, so that its unused tail stays small.
    c.slab_bytes = size <= 8 * kKiB ? kUnitBytes : 4 * kUnitBytes;
    c.capacity = c.slab_bytes / size;
    c.words = static_cast<std::uint32_t>(divide_up(c.capacity, 64));
    c.magic = ~std::uint64_t{0} / size + 1;
    c.eighths = static_cast<std::uint32_t>(divide_up(8 << 20, c.capacity));
  }
  return classes;
}

}  // namespace detail

inline constexpr std::array<SizeClass, kClassCount> kSizeClasses = detail::make_size_classes();
static_assert(kSizeClasses.back().slot_bytes == kMaxSlotBytes);
static_assert([] {
  for (const SizeClass& c : kSizeClasses) {
    if (fullness(c, c.capacity) != 8 || fullness(c, c.capacity - 1) != 7) return false;
  }
  return true;
}());

constexpr const SizeClass& size_class(ClassIndex c) { return kSizeClasses[c.v]; }

namespace detail {

// Sixteenths of a request → class.
constexpr std::array<std::uint8_t, kMaxSlotBytes / 16 + 1> make_class_of_size() {
  std::array<std::uint8_t, kMaxSlotBytes / 16 + 1> table{};
  std::uint8_t c = 0;
  for (std::size_t i = 0; i < table.size(); i++) {
    while (kSizeClasses[c].slot_bytes < i * 16) c++;
    table[i] = c;
  }
  return table;
}

}  // namespace detail

inline constexpr auto kClassOfSize = detail::make_class_of_size();

// The class for a request of at most kMaxSlotBytes; 0 bytes are served as 1.
constexpr ClassIndex class_for(Bytes bytes) { return {kClassOfSize[(bytes + 15) / 16]}; }

// The request of which the class has such slots. Between two doublings a size is either a multiple
// of the step from class to class, and has a class of its own, or all classes there are so aligned.
constexpr Bytes bytes_for_aligned(Bytes bytes, Bytes alignment) {
  return bytes == 0 ? alignment : align_up(bytes, alignment);
}

// The smallest class that serves `bytes` at `alignment` (a power of two of at most a page), or
// kClassCount when only whole pages do.
constexpr ClassIndex class_for_aligned(Bytes bytes, Bytes alignment) {
  if (bytes > kMaxSlotBytes) return {kClassCount};
  const Bytes rounded = bytes_for_aligned(bytes, alignment);
  return rounded <= kMaxSlotBytes ? class_for(rounded) : ClassIndex{kClassCount};
}

// Division by a slot size without a divide: for offset < 2^32 the high word of
// offset * magic is offset / slot_bytes, and the low word is below magic exactly when nothing
// remains. (Lemire, Kaser, Kurz: "Faster Remainder by Direct Computation", 2019.)
constexpr std::uint32_t slot_index(std::uint32_t offset, std::uint64_t magic) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint32_t>((Wide{magic} * offset) >> 64);
}
constexpr bool is_slot_start(std::uint32_t offset, std::uint64_t magic) {
  return offset * magic < magic;
}

// The same in 32 bits, which is enough for any byte of a slab.
constexpr std::uint32_t short_magic(const SizeClass& c) {
  return ~std::uint32_t{0} / c.slot_bytes + 1;
}
constexpr bool is_slot_start(std::uint32_t offset, std::uint32_t magic) {
  return offset * magic < magic;
}

}  // namespace ashlar
