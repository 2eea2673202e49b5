// SPDX-License-Identifier: MIT
// Sizes that shift: survivors of one size leave gaps that other sizes fill. Alone, a mosaic is held
// against a map of its grains; in a heap, threads free each other's objects while slabs are re-cut.
#include <map>
#include <thread>

#include "../unit/quiet_heap.h"
#include "heap.h"
#include "maintenance.h"
#include "mosaic.h"
#include "property.h"
#include "stats.h"

namespace ashlar::test {

namespace {

using Object = Stamped;

Object make(Bytes bytes, Random& random) {
  const Object object{take_slot(class_for(bytes)), bytes, random.next()};
  if (object.p != nullptr) fill(object.p, object.bytes, object.stamp);
  return object;
}

// Whether all was as it had been written.
bool give_all(const std::vector<Object>& objects) {
  bool right = true;
  for (const Object& object : objects) {
    right &= is_filled(object.p, object.bytes, object.stamp);
    give_slot(object.p);
  }
  return right;
}

// A mosaic by itself, in memory of the test's own.
struct MosaicGround {
  MosaicGround() : mosaic(descriptor, free.data(), start.data(), memory.data()) {
    for (auto& word : slab_free) word.store(~std::uint64_t{0});
  }
  // As if it had been a slab of that class, with slots in use as chosen.
  void create(ClassIndex c, Random& random) {
    Slab slab(descriptor, slab_free.data(), slab_remote.data(), memory.data(), c);
    slab.create(c, 0);
    std::vector<void*> slots(size_class(c).capacity);
    slab.take(slots.data() + slots.size(), size_class(c).capacity);
    for (void* slot : slots) {
      const auto at = static_cast<std::byte*>(slot) - memory.data();
      const auto i = slot_index(static_cast<std::uint32_t>(at), size_class(c).magic);
      if (random.chance(80)) {
        REQUIRE(slab.give(i / 64, std::uint64_t{1} << i % 64) == Give::done);
        continue;
      }
      objects[slot] = size_class(c).slot_bytes;
    }
    mosaic.create(slab);
  }

  std::vector<std::byte> memory = std::vector<std::byte>(kUnitBytes);
  std::vector<BitmapWord> free = std::vector<BitmapWord>(kGrainWords);
  std::vector<BitmapWord> start = std::vector<BitmapWord>(kGrainWords);
  std::vector<BitmapWord> slab_free = std::vector<BitmapWord>(kGrainWords);
  std::vector<BitmapWord> slab_remote = std::vector<BitmapWord>(kGrainWords);
  SlabDescriptor descriptor{};
  Mosaic mosaic;
  std::map<void*, Bytes> objects;  // what is in it
};

}  // namespace

TEST_CASE("a mosaic knows its objects, their sizes and its gaps") {
  for_seeds(4, [](Random& random) {
    const ClassIndex before = class_for(random.up_to(kPageBytes));
    MosaicGround ground;
    ground.create(before, random);
    for (std::uint32_t step = 0; step < steps(3000); step++) {
      if (!ground.objects.empty() && random.chance(50)) {
        const auto object = std::next(ground.objects.begin(), random.below(ground.objects.size()));
        trace.step("give %p, %zu bytes", object->first, object->second);
        bool last = false;
        REQUIRE(ground.mosaic.bytes_at(object->first) == object->second);
        REQUIRE(ground.mosaic.give(object->first, last) == Give::done);
        REQUIRE(ground.mosaic.give(object->first, last) == Give::double_free);
        ground.objects.erase(object);
        REQUIRE(ground.mosaic.is_empty() == ground.objects.empty());
      } else {
        const ClassIndex c = class_for(random.up_to(kPageBytes));
        void* slots[8];
        const std::uint32_t want = random.between(1, 8);
        trace.step("take %u of %u bytes", want, size_class(c).slot_bytes);
        const std::uint32_t taken =
            ground.mosaic.may_fit(c) ? ground.mosaic.take(c, slots, want) : 0;
        for (std::uint32_t i = 0; i < taken; i++) {
          const Bytes bytes = size_class(c).slot_bytes;
          auto* const at = static_cast<std::byte*>(slots[i]);
          const auto next = ground.objects.lower_bound(at);
          REQUIRE((next == ground.objects.end() || at + bytes <= next->first));
          if (next != ground.objects.begin()) {
            const auto previous = std::prev(next);
            REQUIRE(static_cast<std::byte*>(previous->first) + previous->second <= at);
          }
          REQUIRE(at + bytes <= ground.memory.data() + kUnitBytes);
          ground.objects[at] = bytes;
        }
      }
      const char* const what = ground.mosaic.check_invariants();
      REQUIRE(std::string(what != nullptr ? what : "") == "");
      std::size_t seen = 0;
      ground.mosaic.for_each_object([&](std::byte* at, Bytes bytes) {
        seen++;
        REQUIRE(ground.objects.at(at) == bytes);
      });
      REQUIRE(seen == ground.objects.size());
    }
  });
}

// More threads than cores, so that some are stopped between two words of what they give.
TEST_CASE("an object that is half given is no part of the next one") {
  constexpr std::uint32_t kGivers = 4, kCells = 16, kTakes = 500'000;
  Random random(1);
  MosaicGround ground;
  ground.create(class_for(kPageBytes), random);
  std::atomic<void*> cells[kCells] = {};  // what is to be given, by whoever comes first
  std::atomic<std::uint32_t> wrong = 0;
  std::atomic<bool> done = false;
  Bytes bytes_of[kGrains] = {};
  const auto in_place = [&](void* object) -> Bytes& {
    return bytes_of[(static_cast<std::byte*>(object) - ground.memory.data()) / kGrainBytes];
  };
  const auto give = [&](void* object) {
    bool last = false;
    if (ground.mosaic.bytes_at(object) != in_place(object)) wrong++;
    if (ground.mosaic.give(object, last) != Give::done) wrong++;
  };
  for (const auto& [object, bytes] : ground.objects) {
    in_place(object) = bytes;
    give(object);
  }
  std::vector<std::thread> givers;
  for (std::uint32_t t = 0; t < kGivers; t++) {
    givers.emplace_back([&] {
      for (std::uint32_t i = 0; !done; i++) {
        if (void* const object = cells[i % kCells].exchange(nullptr)) give(object);
      }
    });
  }
  for (std::uint32_t i = 0; i < steps(kTakes) && wrong == 0; i++) {
    const ClassIndex c = class_for(random.up_to(kPageBytes));
    void* taken[8];
    for (std::uint32_t n = ground.mosaic.take(c, taken, 8); n-- > 0;) {
      in_place(taken[n]) = size_class(c).slot_bytes;
      if (void* const older = cells[random.below(kCells)].exchange(taken[n])) give(older);
    }
  }
  done = true;
  for (std::thread& giver : givers) giver.join();
  for (auto& cell : cells) {
    if (void* const object = cell.exchange(nullptr)) give(object);
  }
  REQUIRE(wrong == 0);
  CHECK(ground.mosaic.is_empty());
  CHECK(ground.mosaic.check_invariants() == nullptr);
}

TEST_CASE("survivors keep their contents while other sizes fill the gaps, whoever frees them") {
  for_seeds(2, [](Random& random) {
    std::vector<Object> survivors;
    std::uint32_t most_mosaics = 0;
    for (const Bytes bytes : {32u, 48u, 64u, 96u, 128u, 192u, 256u, 384u, 1000u, 16u}) {
      trace.step("%zu bytes", bytes);
      std::vector<Object> round;
      for (Bytes sum = 0; sum < steps(6 * kMiB); sum += bytes) {
        round.push_back(make(bytes, random));
        REQUIRE(round.back().p != nullptr);
      }
      // A twentieth stays; of the others, two threads free half each. Some older ones go, too.
      std::vector<Object> ours, theirs;
      for (const Object& object : round) {
        if (random.chance(5)) {
          survivors.push_back(object);
        } else {
          (random.chance(50) ? ours : theirs).push_back(object);
        }
      }
      for (std::size_t i = survivors.size() / 10; i-- > 0;)
        theirs.push_back(pick(survivors, random));
      bool right = false;
      std::thread other([&] {
        right = give_all(theirs);
        heap.end_this_thread();
      });
      REQUIRE(give_all(ours));
      other.join();
      REQUIRE(right);
      if (random.chance(30)) maintenance.trim();
      REQUIRE(broken() == "");
      HeapStats stats;
      collect_stats(stats);
      most_mosaics = std::max(most_mosaics, stats.mosaics);
      for (const Object& object : survivors) {
        REQUIRE(is_filled(object.p, object.bytes, object.stamp));
      }
    }
    CHECK(most_mosaics > 10);
    REQUIRE(give_all(survivors));
    maintenance.trim();
    HeapStats stats;
    collect_stats(stats);
    CHECK(stats.mosaics == 0);
    CHECK(stats.allocated == 0);
    REQUIRE(broken() == "");
  });
}

}  // namespace ashlar::test
