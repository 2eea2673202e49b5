// SPDX-License-Identifier: MIT
#include "compact.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "heap.h"
#include "maintenance.h"
#include "program_heap.h"
#include "quiet_heap.h"

namespace ashlar::test {

namespace {

constexpr ClassIndex kSmall = class_for(1024);  // 64 slots a slab
const std::uint32_t kSlots = size_class(kSmall).capacity;

using Slots = std::vector<void*>;

// Slabs of an arena of their own that hold so many objects each, in the order of their addresses.
struct Slabs {
  explicit Slabs(const std::vector<std::uint32_t>& used)
      : ground(2), lane(add_lane(ground.arena, 1)) {
    for (std::uint32_t n : used) {
      Slots slots = ground.take(lane, kSmall, kSlots);
      std::sort(slots.begin(), slots.end());
      objects.push_back(Slots(slots.begin(), slots.begin() + n));
      surplus.push_back(Slots(slots.begin() + n, slots.end()));
    }
    for (const Slots& slots : surplus) ground.give(lane, kSmall, slots);
  }
  // The scores that a ranking gives them.
  std::vector<unsigned> scores(bool takes_moved = true) {
    ranking.begin();
    ground.arena.for_each_slab(
        [&](const Slab& slab, std::uint64_t) { ranking.count(fill_of(slab), takes_moved); });
    ranking.choose();
    std::vector<unsigned> all;
    ground.arena.for_each_slab(
        [&](const Slab& slab, std::uint64_t) { all.push_back(ranking.score(fill_of(slab))); });
    return all;
  }
  void put_scores(const std::vector<unsigned>& scores) {
    table.resize(UnitScores::bytes_for(64));
    auto& t = *reinterpret_cast<UnitScores::Table*>(table.data());
    ground.arena.scores().use(t, 64);
    std::size_t i = 0;
    ground.arena.for_each_slab([&](const Slab& slab, std::uint64_t) {
      ground.arena.scores().set(ground.arena.unit_of_slab(slab), 1,
                                static_cast<std::uint8_t>(scores[i++]));
    });
    ground.arena.scores().announce_plan();
  }
  bool is_in(const void* p, std::size_t slab) const {
    return unit_of(ground.arena.page_of(p)) == unit_of(ground.arena.page_of(objects[slab][0]));
  }
  std::string broken() const { return sound(ground.arena.check_invariants()); }

  ArenaGround ground;
  LaneSlabs& lane;
  std::vector<Slots> objects, surplus;
  Ranking ranking;
  std::vector<std::byte> table;
};

std::string death_words(const Death& death) {
  CHECK(death.signal == SIGABRT);
  return death.last_words;
}

}  // namespace

TEST_SUITE_BEGIN("compact");

TEST_CASE("so many slabs are emptied that their objects fit into the others, the emptiest first") {
  // 10 of the first fit into the last, and not the 40 of the second on top.
  CHECK(Slabs({10, 40, 50}).scores() == std::vector<unsigned>{216, 0, 0});
  CHECK(Slabs({32, 32, 32, 32}).scores() == std::vector<unsigned>{0, 0, 128, 128});
  CHECK(Slabs({1, 2, 3, 60}).scores() == std::vector<unsigned>{252, 0, 244, 0});
}

TEST_CASE("nothing is emptied where there is no room") {
  CHECK(Slabs({40, 40}).scores() == std::vector<unsigned>{0, 0});
  CHECK(Slabs({64, 64, 10}).scores() == std::vector<unsigned>{0, 0, 0});
  CHECK(Slabs({32, 32, 32}).scores(false) == std::vector<unsigned>{0, 0, 0});
}

TEST_CASE("nothing is taken from a slab that is to be emptied while others have room") {
  Slabs slabs({40, 20, 10});
  slabs.put_scores({1, 0, 0});
  for (int i = 0; i < 54 + 44; i++) {
    void* const p = slabs.ground.arena.take_dense(slabs.lane, kSmall);
    REQUIRE(p != nullptr);
    CHECK(!slabs.is_in(p, 0));
  }
  CHECK(slabs.broken() == "");
  CHECK(slabs.ground.arena.take_dense(slabs.lane, kSmall) == nullptr);
  // It is taken back before a new one is made.
  const Slots last = slabs.ground.take(slabs.lane, kSmall, 1);
  CHECK(slabs.is_in(last.at(0), 0));
  CHECK(slabs.ground.arena.score_of(last[0]) == 0);
  CHECK(slabs.ground.slabs() == 3);
  CHECK(slabs.broken() == "");
}

TEST_CASE("a slab that was set aside goes back when it is empty, or when a new plan spares it") {
  Slabs slabs({40, 20, 10});
  slabs.put_scores({1, 2, 0});
  REQUIRE(slabs.ground.arena.take_dense(slabs.lane, kSmall) != nullptr);
  slabs.ground.give(slabs.lane, kSmall, slabs.objects[1]);
  CHECK(slabs.ground.slabs() == 2);
  slabs.put_scores({0, 0});
  CHECK(slabs.is_in(slabs.ground.arena.take_dense(slabs.lane, kSmall), 0));
  CHECK(slabs.broken() == "");
}

TEST_CASE("a moved object has its contents, and its old slot is not handed out at once") {
  std::vector<void*> objects;
  for (std::uint64_t i = 0; i < 20'000; i++) {
    auto* const p = static_cast<std::uint64_t*>(take_slot(class_for(200)));
    REQUIRE(p != nullptr);
    p[0] = p[24] = i;
    objects.push_back(p);
  }
  for (std::size_t i = 0; i < objects.size(); i++) {
    if (i % 4 == 0) continue;
    give_slot(objects[i]);
    objects[i] = nullptr;
  }
  std::size_t moved = 0;
  for (int plan = 0; plan < 2; plan++) {
    compactor.make_plan();
    for (std::size_t i = 0; i < objects.size(); i++) {
      if (objects[i] == nullptr || arena.score_of(objects[i]) == 0) continue;
      auto* const to = static_cast<std::uint64_t*>(compactor.move(objects[i]));
      if (to == nullptr) continue;
      CHECK(arena.score_of(to) == 0);
      CHECK((to[0] == i && to[24] == i));
      void* const other = take_slot(class_for(200));
      CHECK(other != objects[i]);
      give_slot(other);
      objects[i] = to;
      moved++;
    }
  }
  CHECK(moved > 3000);
  std::uint32_t slabs = 0;
  arena.for_each_slab([&](const Slab& slab, std::uint64_t) {
    slabs += slab.size_class_info().slot_bytes == size_class(class_for(200)).slot_bytes;
  });
  // A magazine holds a slab's worth, and is filled anew after each plan.
  CHECK(slabs <= 5000 / size_class(class_for(200)).capacity + 5);
  for (void* p : objects) give_slot(p);
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_CASE("what is not ours or cannot move has no hint and stays") {
  int on_stack = 0;
  bool zero = false;
  ProgramHeap* const own = program_heaps.create({});
  compactor.make_plan();
  for (void* p : {static_cast<void*>(nullptr), static_cast<void*>(&on_stack),
                  reinterpret_cast<void*>(~std::uintptr_t{0}), heap.take_large(100'000, 16, zero),
                  own->take(100, 16)}) {
    CHECK(compactor.hint(p) == 0);
    CHECK(compactor.move(p) == nullptr);
  }
}

TEST_CASE("what free() would not take is told, where slabs are to be emptied") {
  std::vector<void*> objects;
  for (int i = 0; i < 2000; i++) objects.push_back(take_slot(class_for(400)));
  for (int i = 0; i < 2000; i++) {
    if (i % 3 != 0) give_slot(objects[static_cast<std::size_t>(i)]);
  }
  compactor.make_plan();
  for (std::size_t i = 0;; i += 3) {
    REQUIRE(i < objects.size());
    if (arena.score_of(objects[i]) == 0) continue;
    auto* const p = static_cast<std::byte*>(objects[i]);
    CHECK(death_words(death_of([&] { compactor.move(p + 16); })).find("is inside an object") !=
          std::string::npos);
    compactor.give(p, "free");
    if (arena.score_of(p) == 0) continue;  // that was its slab's last
    CHECK(death_words(death_of([&] { compactor.move(p); })).find("double free") !=
          std::string::npos);
    break;
  }
}

TEST_CASE("objects of a thread that has ended find room in its slabs") {
  std::vector<void*> objects;
  std::thread([&] {
    for (int i = 0; i < 5000; i++) objects.push_back(take_slot(class_for(600)));
    heap.end_this_thread();
  }).join();
  for (std::size_t i = 0; i < objects.size(); i++) {
    if (i % 4 != 0) give_slot(std::exchange(objects[i], nullptr));
  }
  maintenance.trim();
  compactor.make_plan();
  std::size_t moved = 0;
  for (void* p : objects) {
    if (p == nullptr || compactor.hint(p) == 0) continue;
    const std::uint64_t tag = arena.entry_of(p).tag();
    void* const to = compactor.move(p);
    if (to == nullptr) continue;
    moved += arena.entry_of(to).tag() == tag;
  }
  CHECK(moved > 800);
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_SUITE_END();

}  // namespace ashlar::test
