// SPDX-License-Identifier: MIT
#include "size_class.h"

#include "unit.h"

namespace ashlar::test {

TEST_SUITE_BEGIN("size_class");

TEST_CASE("every size is served by the smallest class that fits") {
  for (Bytes bytes = 0; bytes <= kMaxSlotBytes; bytes++) {
    const ClassIndex c = class_for(bytes);
    REQUIRE(c.v < kClassCount);
    REQUIRE(size_class(c).slot_bytes >= (bytes == 0 ? 1 : bytes));
    if (c.v > 0) REQUIRE(kSizeClasses[c.v - 1].slot_bytes < bytes);
  }
}

TEST_CASE("classes ascend in steps of the minimal alignment") {
  std::uint32_t last = 0;
  for (const SizeClass& c : kSizeClasses) {
    CHECK(c.slot_bytes > last);
    CHECK(c.slot_bytes % kMinAlignment == 0);
    last = c.slot_bytes;
  }
  CHECK(last == kMaxSlotBytes);
}

TEST_CASE("waste of a slot is below 11.2 % up to 1 KiB and 20 % above") {
  for (Bytes bytes = 128; bytes <= kMaxSlotBytes; bytes++) {
    const Bytes slot = size_class(class_for(bytes)).slot_bytes;
    const Bytes permille = (slot - bytes) * 1000 / slot;
    REQUIRE(permille <= (bytes <= kKiB ? 112 : 200));
  }
}

TEST_CASE("a slab is a power of two of units, holds eight slots or more and loses little") {
  for (const SizeClass& c : kSizeClasses) {
    CAPTURE(c.slot_bytes);
    CHECK(is_power_of_two(c.slab_bytes));
    CHECK(c.slab_bytes % kUnitBytes == 0);
    CHECK(c.slab_bytes <= kChunkBytes);
    CHECK(c.capacity >= 8);
    CHECK(c.capacity == c.slab_bytes / c.slot_bytes);
    CHECK(c.words == (c.capacity + 63) / 64);
    CHECK(c.words <= ChunkMeta::kLongWords);
    CHECK((c.slab_bytes - Bytes{c.capacity} * c.slot_bytes) * 100 <= c.slab_bytes * 11);
  }
}

TEST_CASE("slot_index and is_slot_start are exact at every byte of every slab") {
  for (const SizeClass& c : kSizeClasses) {
    std::uint32_t wrong = 0;
    std::uint32_t index = 0;
    std::uint32_t within = 0;
    for (std::uint32_t offset = 0; offset < c.slab_bytes; offset++) {
      wrong += slot_index(offset, c.magic) != index;
      wrong += is_slot_start(offset, c.magic) != (within == 0);
      wrong += is_slot_start(offset, short_magic(c)) != (within == 0);
      if (++within == c.slot_bytes) {
        within = 0;
        index++;
      }
    }
    CAPTURE(c.slot_bytes);
    CHECK(wrong == 0);
  }
}

TEST_CASE("a class for an alignment is the smallest whose every slot is so aligned") {
  for (Bytes alignment = 16; alignment <= kPageBytes; alignment *= 2) {
    for (Bytes bytes = 0; bytes <= kMaxSlotBytes; bytes += 1 + bytes / 64) {
      const ClassIndex c = class_for_aligned(bytes, alignment);
      REQUIRE(c.v < kClassCount);  // 32 KiB slots have every alignment up to a page
      REQUIRE(size_class(c).slot_bytes >= bytes);
      REQUIRE(size_class(c).slot_bytes % alignment == 0);
      for (std::uint32_t smaller = class_for(bytes).v; smaller < c.v; smaller++) {
        REQUIRE(kSizeClasses[smaller].slot_bytes % alignment != 0);
      }
    }
  }
  CHECK(class_for_aligned(kMaxSlotBytes + 1, 16).v == kClassCount);
}

TEST_SUITE_END();

}  // namespace ashlar::test
