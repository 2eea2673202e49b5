// SPDX-License-Identifier: MIT
#include "slab.h"

#include "unit.h"

namespace ashlar::test {

namespace {

// A slab whose slots are addresses and no memory.
struct Stone {
  explicit Stone(std::uint32_t class_index)
      : c{class_index},
        info(size_class(c)),
        free(info.words),
        remote(info.words),
        slab(descriptor, free.data(), remote.data(), reinterpret_cast<std::byte*>(kChunkBytes), c) {
    slab.create(c, 7);
  }
  std::vector<void*> take(std::uint32_t want) {
    std::vector<void*> slots(want);
    const std::uint32_t taken = slab.take(slots.data() + want, want);
    slots.erase(slots.begin(), slots.end() - taken);
    return slots;
  }
  std::uint32_t slot_of(const void* p) const {
    const auto offset = static_cast<std::uint32_t>(static_cast<const std::byte*>(p) - slab.base());
    return offset / info.slot_bytes;
  }
  Give give(std::uint32_t slot) {
    const Give result = slab.give(slot / 64, std::uint64_t{1} << slot % 64);
    if (result == Give::done) descriptor.used = descriptor.used - 1;
    return result;
  }
  Give give_remote(std::uint32_t slot) {
    return slab.give_remote(slot / 64, std::uint64_t{1} << slot % 64);
  }
  std::string broken() const { return sound(slab.check_invariants()); }

  ClassIndex c;
  const SizeClass& info;
  SlabDescriptor descriptor{};
  std::vector<BitmapWord> free;
  std::vector<BitmapWord> remote;
  Slab slab;
};

}  // namespace

TEST_SUITE_BEGIN("slab");

TEST_CASE("a new slab of every class hands out each slot once, the lowest last") {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Stone stone(c);
    CAPTURE(stone.info.slot_bytes);
    CHECK(stone.slab.is_empty());
    CHECK(stone.descriptor.owner == 7);
    CHECK(stone.descriptor.size_class == c);
    const auto slots = stone.take(stone.info.capacity + 10);
    REQUIRE(slots.size() == stone.info.capacity);
    for (std::uint32_t i = 0; i < slots.size(); i++) {
      const Bytes offset = Bytes{stone.info.capacity - 1 - i} * stone.info.slot_bytes;
      REQUIRE(slots[i] == stone.slab.base() + offset);
    }
    CHECK(stone.slab.is_full());
    CHECK(stone.broken() == "");
    CHECK(stone.take(1).empty());
  }
}

TEST_CASE("slots come in any portions, ascending") {
  for (std::uint32_t portion : {1u, 3u, 63u, 64u, 65u, 200u}) {
    Stone stone(0);
    std::uint32_t next = 0;
    while (!stone.slab.is_full()) {
      const auto slots = stone.take(portion);
      for (auto slot = slots.rbegin(); slot != slots.rend(); ++slot) {
        REQUIRE(stone.slot_of(*slot) == next++);
      }
      REQUIRE(stone.broken() == "");
    }
    CHECK(next == stone.info.capacity);
  }
}

TEST_CASE("a slot given back is the next one taken") {
  Stone stone(5);
  stone.take(stone.info.capacity);
  for (std::uint32_t slot : {stone.info.capacity - 1, 100u, 0u}) {
    CHECK(stone.give(slot) == Give::done);
    CHECK(stone.slab.is_free(slot));
    CHECK(stone.broken() == "");
    CHECK(stone.slot_of(stone.take(5).at(0)) == slot);
    CHECK(!stone.slab.is_free(slot));
  }
}

TEST_CASE("a slot given back twice is a double free and changes nothing") {
  Stone stone(5);
  stone.take(10);
  CHECK(stone.give(3) == Give::done);
  CHECK(stone.give(3) == Give::double_free);
  CHECK(stone.give(10) == Give::double_free);  // never taken
  CHECK(stone.slab.give(0, 0b11000) == Give::double_free);
  CHECK(!stone.slab.is_free(4));
  CHECK(stone.descriptor.used == 9);
  CHECK(stone.broken() == "");
}

TEST_CASE("a bit that stands for no slot cannot be given") {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Stone stone(c);
    stone.take(stone.info.capacity);
    for (std::uint32_t bit = stone.info.capacity; bit < stone.info.words * 64; bit++) {
      REQUIRE(stone.give(bit) == Give::double_free);
      REQUIRE(stone.give_remote(bit) == Give::double_free);
    }
  }
}

TEST_CASE("what others free is taken over when the owner drains") {
  Stone stone(0);
  stone.take(stone.info.capacity);
  CHECK(stone.give_remote(5) == Give::done);
  CHECK(stone.slab.give_remote(50, 0xf0f0) == Give::done);
  CHECK(stone.slab.is_full());
  CHECK(!stone.slab.is_free(5));
  CHECK(stone.broken() == "");
  CHECK(stone.slab.drain_remote() == 9);
  CHECK(stone.descriptor.used == stone.info.capacity - 9);
  CHECK(stone.slab.is_free(5));
  CHECK(stone.broken() == "");
  CHECK(stone.slab.drain_remote() == 0);
  CHECK(stone.take(20).size() == 9);
}

TEST_CASE("a slot freed by two is a double free, whoever comes first") {
  Stone stone(0);
  stone.take(100);
  CHECK(stone.give_remote(5) == Give::done);
  CHECK(stone.give_remote(5) == Give::double_free);
  CHECK(stone.slab.drain_remote() == 1);
  CHECK(stone.give_remote(5) == Give::double_free);
  CHECK(stone.give(6) == Give::done);
  CHECK(stone.give_remote(6) == Give::double_free);
}

TEST_CASE("a count and a hint that were lost are found again") {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Stone stone(c);
    stone.take(stone.info.capacity * 3 / 4);
    stone.give(1);
    const std::uint32_t used = stone.descriptor.used;
    stone.descriptor.used = 9999;
    stone.descriptor.hint = 9999;
    stone.slab.recount();
    CHECK(stone.descriptor.used == used);
    CHECK(stone.broken() == "");
    CHECK(stone.slot_of(stone.take(1).at(0)) == 1);
  }
}

TEST_CASE("a page of a slab of any class is empty when no slot in it is taken") {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Stone stone(c);
    CAPTURE(stone.info.slot_bytes);
    const auto empty_pages = [&] {
      std::uint64_t empty = 0;
      for (std::uint32_t slot = stone.info.capacity; slot-- > 0;) {
        const std::uint32_t first = slot * stone.info.slot_bytes / kPageBytes;
        const std::uint32_t last = ((slot + 1) * stone.info.slot_bytes - 1) / kPageBytes;
        empty |= bit_range(first, last - first + 1);
      }
      for (std::uint32_t slot = 0; slot < stone.info.capacity; slot++) {
        if (stone.slab.is_free(slot)) continue;
        const std::uint32_t first = slot * stone.info.slot_bytes / kPageBytes;
        const std::uint32_t last = ((slot + 1) * stone.info.slot_bytes - 1) / kPageBytes;
        empty &= ~bit_range(first, last - first + 1);
      }
      return empty;
    };
    REQUIRE(stone.slab.empty_pages() == empty_pages());
    stone.take(stone.info.capacity);
    REQUIRE(stone.slab.empty_pages() == 0);
    // In an order that skips to and fro, all slots come back.
    for (std::uint32_t i = 0, slot = 0; i < stone.info.capacity; i++) {
      slot = (slot + 0x9e35) % stone.info.capacity;
      while (stone.slab.is_free(slot)) slot = (slot + 1) % stone.info.capacity;
      stone.give(slot);
      REQUIRE(stone.slab.empty_pages() == empty_pages());
    }
    // And are taken again in portions, out of holes.
    stone.descriptor.holes = stone.slab.empty_pages();
    while (!stone.slab.is_full()) {
      stone.take(1 + stone.info.capacity / 7);
      REQUIRE(stone.slab.empty_pages() == empty_pages());
      REQUIRE(stone.descriptor.holes == stone.slab.empty_pages());
    }
  }
}

TEST_CASE("check_invariants finds what is broken") {
  Stone stone(16);  // slots that do not fill their last word
  REQUIRE(stone.info.capacity % 64 != 0);
  stone.take(100);
  const auto broken_by = [&](auto& word, auto value) {
    const auto before = static_cast<decltype(value)>(word);
    word = value;
    const std::string found = stone.broken().substr(0, 6);
    word = before;
    CHECK(stone.broken() == "");
    return found;
  };
  CHECK(broken_by(stone.descriptor.used, 99u) == "slab 1");
  CHECK(broken_by(stone.free[stone.info.words - 1], std::uint64_t{0}) == "slab 1");
  CHECK(broken_by(stone.remote[2], std::uint64_t{1}) == "slab 2");
  CHECK(broken_by(stone.descriptor.hint, 2u) == "slab 3");
  CHECK(broken_by(stone.descriptor.holes, std::uint64_t{1}) == "slab 4");
}

TEST_SUITE_END();

}  // namespace ashlar::test
