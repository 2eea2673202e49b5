// SPDX-License-Identifier: MIT
// A slab of every class beside a model: what each slot is.
#include "slab.h"

#include "property.h"

namespace ashlar::test {

namespace {

enum class Slot : std::uint8_t { free, held, freed_by_others };

void run(ClassIndex c, Random& random) {
  const SizeClass& info = size_class(c);
  SlabDescriptor descriptor{};
  std::vector<BitmapWord> free(info.words);
  std::vector<BitmapWord> remote(info.words);
  auto* const base = reinterpret_cast<std::byte*>(kChunkBytes);
  Slab slab(descriptor, free.data(), remote.data(), base, c);
  slab.create(c, 1);
  std::vector<Slot> model(info.capacity, Slot::free);
  const auto count = [&](Slot what) {
    return static_cast<std::uint32_t>(std::count(model.begin(), model.end(), what));
  };
  // Some slots of one word that are held.
  const auto some_held = [&](std::uint32_t w) {
    std::uint64_t bits = 0;
    for (std::uint32_t slot = w * 64; slot < std::min(info.capacity, w * 64 + 64); slot++) {
      if (model[slot] == Slot::held && random.chance(50)) bits |= std::uint64_t{1} << slot % 64;
    }
    return bits;
  };

  for (std::uint32_t step = 0; step < steps(1600); step++) {
    const std::uint32_t w = random.below(info.words);
    const std::uint32_t what = random.below(100);
    if (what < 40) {
      const std::uint32_t want = random.up_to(info.capacity + 10);
      trace.step("class %u: take %u", c.v, want);
      std::vector<void*> slots(want);
      const std::uint32_t taken = slab.take(slots.data() + want, want);
      REQUIRE(taken == std::min(want, count(Slot::free)));
      for (std::uint32_t i = 0, slot = 0; i < taken; i++) {  // the lowest ones, ascending
        while (model[slot] != Slot::free) slot++;
        REQUIRE(slots[want - 1 - i] == base + Bytes{slot} * info.slot_bytes);
        model[slot] = Slot::held;
      }
    } else if (what < 70) {
      const std::uint64_t bits = some_held(w);
      trace.step("class %u: give %u %#llx", c.v, w, static_cast<unsigned long long>(bits));
      REQUIRE(slab.give(w, bits) == Give::done);
      descriptor.used = descriptor.used - static_cast<std::uint32_t>(std::popcount(bits));
      for (std::uint64_t b = bits; b != 0; b &= b - 1) model[w * 64 + lowest_bit(b)] = Slot::free;
      if (bits != 0) REQUIRE(slab.give(w, bits) == Give::double_free);
    } else if (what < 90) {
      const std::uint64_t bits = some_held(w);
      trace.step("class %u: others give %u %#llx", c.v, w, static_cast<unsigned long long>(bits));
      REQUIRE(slab.give_remote(w, bits) == Give::done);
      for (std::uint64_t b = bits; b != 0; b &= b - 1) {
        model[w * 64 + lowest_bit(b)] = Slot::freed_by_others;
      }
      if (bits != 0) REQUIRE(slab.give_remote(w, bits) == Give::double_free);
    } else if (what < 97) {
      trace.step("class %u: drain", c.v);
      REQUIRE(slab.drain_remote() == count(Slot::freed_by_others));
      std::replace(model.begin(), model.end(), Slot::freed_by_others, Slot::free);
    } else if (what < 99) {
      trace.step("class %u: empty pages become holes", c.v);
      descriptor.holes = slab.empty_pages();
      for (std::uint32_t slot = 0; slot < info.capacity; slot++) {
        const auto first = static_cast<unsigned>(slot * info.slot_bytes / kPageBytes);
        const auto end = static_cast<unsigned>(divide_up((slot + 1) * info.slot_bytes, kPageBytes));
        const bool in_hole = (descriptor.holes & bit_range(first, end - first)) != 0;
        REQUIRE((!in_hole || model[slot] == Slot::free));
      }
    } else {
      trace.step("class %u: recount", c.v);
      descriptor.used = random.below(5000);
      descriptor.hint = random.below(100);
      slab.recount();
    }
    REQUIRE(sound(slab.check_invariants()) == "");
    REQUIRE(descriptor.used == info.capacity - count(Slot::free));
    REQUIRE(slab.is_full() == (count(Slot::free) == 0));
    REQUIRE(slab.is_empty() == (count(Slot::free) == info.capacity));
  }
  for (std::uint32_t slot = 0; slot < info.capacity; slot++) {
    REQUIRE(slab.is_free(slot) == (model[slot] == Slot::free));
  }
}

}  // namespace

TEST_SUITE_BEGIN("slab");

TEST_CASE("any sequence of takes, gives, remote gives and drains agrees with the model") {
  for_seeds(6, [](Random& random) {
    for (std::uint32_t c = 0; c < kClassCount; c++) run(ClassIndex{c}, random);
  });
}

TEST_SUITE_END();

}  // namespace ashlar::test
