// SPDX-License-Identifier: MIT
#include "arena.h"

#include <algorithm>
#include <cstring>
#include <set>

#include <sys/resource.h>

#include "unit.h"

namespace ashlar::test {

namespace {

constexpr ClassIndex kSmall = class_for(1024);     // 64 slots a slab
constexpr ClassIndex kBig = class_for(32 * kKiB);  // 8 slots in four units
const std::uint32_t kSmallSlots = size_class(kSmall).capacity;

using Slots = std::vector<void*>;

// As a take opens one slab at most, so many takes.
Slots take_slabs(ArenaGround& g, LaneSlabs& lane, ClassIndex c, std::uint32_t count) {
  Slots slots;
  for (; count != 0; count--) {
    const Slots more = g.take(lane, c, size_class(c).capacity);
    slots.insert(slots.end(), more.begin(), more.end());
  }
  return slots;
}

std::string broken(const ArenaGround& g) { return sound(g.arena.check_invariants()); }

// What notify_owner leaves in an inbox when the slab that it meant is gone.
void notify_late(const ArenaGround& g, LaneSlabs& lane, SlabDescriptor& descriptor, void* slot) {
  descriptor.pending = 1;
  std::atomic<std::uint32_t>& inbox = lane.inbox[kSmall.v];
  descriptor.next_pending = inbox.load();
  inbox = static_cast<std::uint32_t>((static_cast<std::byte*>(slot) - g.arena.data()) / kUnitBytes);
}

SlabDescriptor& descriptor_of(const ArenaGround& g, const void* slot) {
  SlabDescriptor* found = nullptr;
  g.arena.for_each_slab([&](const Slab& slab, std::uint64_t) {
    const auto* p = static_cast<const std::byte*>(slot);
    if (p >= slab.base() && p < slab.base() + slab.size_class_info().slab_bytes) {
      found = &slab.descriptor();
    }
  });
  REQUIRE(found != nullptr);
  return *found;
}

}  // namespace

TEST_SUITE_BEGIN("arena");

TEST_CASE("the smallest region for n chunks holds n chunks and not one more") {
  for (std::uint32_t chunks : {1u, 2u, 15u, 16u, 17u, 100u}) {
    const Ground ground(Arena::region_bytes(chunks));
    Arena arena;
    REQUIRE(arena.create(ground.region()) == os::Commit::done);
    CHECK(arena.chunks() == 1);
    while (grow(arena)) {
    }
    CHECK(arena.chunks() == chunks);
    CHECK(arena.data() + arena.data_bytes() == ground.base() + ground.bytes());
    CHECK(reinterpret_cast<std::uintptr_t>(arena.data()) % kChunkBytes == 0);
  }
}

TEST_CASE("a region too small for one chunk is refused") {
  const Ground ground(Arena::region_bytes(1));
  os::Region region = ground.region();
  region.bytes -= kPageBytes;
  Arena arena;
  CHECK(arena.create(region) == os::Commit::no_memory);
}

TEST_CASE("slots of every class are distinct, aligned, and located") {
  ArenaGround g(16);
  LaneSlabs& lane = add_lane(g.arena, 1);
  std::set<void*> all;
  for (std::uint32_t i = 0; i < kClassCount; i++) {
    const ClassIndex c{i};
    const SizeClass& info = size_class(c);
    CAPTURE(info.slot_bytes);
    const Slots slots = g.take(lane, c, 10);
    REQUIRE(slots.size() <= 10);
    REQUIRE(!slots.empty());
    for (void* slot : slots) {
      CHECK(all.insert(slot).second);
      std::memset(slot, static_cast<int>(i), info.slot_bytes);
      const Place place = g.arena.locate(static_cast<std::byte*>(slot) + info.slot_bytes - 1);
      CHECK(place.kind == Place::Kind::slot);
      CHECK(place.begin == slot);
      CHECK(place.bytes == info.slot_bytes);
      CHECK(place.size_class == c);
      CHECK(g.arena.entry_of(slot).tag() == lane.tag);
      CHECK(g.arena.entry_of(slot).size_class() == c);
      const Bytes grain = Bytes{1} << std::countr_zero(info.slot_bytes);
      const Bytes alignment = grain < kPageBytes ? grain : kPageBytes;
      CHECK(reinterpret_cast<std::uintptr_t>(slot) % alignment == 0);
    }
  }
  CHECK(broken(g) == "");
}

TEST_CASE("the fullest slab serves first") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  Slots first = g.take(lane, kSmall, kSmallSlots);
  Slots second = g.take(lane, kSmall, kSmallSlots);
  CHECK(g.slabs() == 2);
  // One slab at a quarter, one at three quarters.
  g.give(lane, kSmall, Slots(first.begin(), first.begin() + kSmallSlots * 3 / 4));
  g.give(lane, kSmall, Slots(second.begin(), second.begin() + kSmallSlots / 4));
  const Slots next = g.take(lane, kSmall, 1);
  CHECK(std::find(second.begin(), second.end(), next.at(0)) != second.end());
  CHECK(broken(g) == "");
}

TEST_CASE("one take empties all slabs before it opens a new one") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots a = g.take(lane, kSmall, kSmallSlots);
  const Slots b = g.take(lane, kSmall, kSmallSlots);
  g.give(lane, kSmall, {a[3], b[5], a[9]});
  Slots again = g.take(lane, kSmall, 50);
  Slots expected{a[3], b[5], a[9]};
  std::sort(again.begin(), again.end());
  std::sort(expected.begin(), expected.end());
  CHECK(again == expected);
  CHECK(g.take(lane, kSmall, 50).size() == 50);
  CHECK(g.slabs() == 3);
}

TEST_CASE("a slab that falls empty goes back, but for the last one") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const auto free_pages = [&] { return g.arena.buddy().count().free_pages; };
  const std::uint64_t before = free_pages();
  const Slots a = g.take(lane, kSmall, kSmallSlots);
  const Slots b = g.take(lane, kSmall, kSmallSlots);
  CHECK(free_pages() == before - 2 * kPagesPerUnit);
  g.give(lane, kSmall, a);
  CHECK(g.slabs() == 2);
  g.give(lane, kSmall, b);
  CHECK(g.slabs() == 1);
  CHECK(free_pages() == before - kPagesPerUnit);
  CHECK(!g.arena.entry_of(b[0]).is_slab());
  CHECK(broken(g) == "");
  CHECK(g.take(lane, kSmall, 1).size() == 1);
  CHECK(g.slabs() == 1);
}

TEST_CASE("slots of many slabs and in any order are given back at once") {
  ArenaGround g(4);
  LaneSlabs& lane = add_lane(g.arena, 1);
  Slots all;
  for (int i = 0; i < 5; i++) {
    const Slots more = g.take(lane, kSmall, kSmallSlots);
    all.insert(all.end(), more.begin(), more.end());
  }
  Slots shuffled;
  for (std::size_t i = 0; i < all.size(); i++) shuffled.push_back(all[i * 77 % all.size()]);
  g.give(lane, kSmall, shuffled);
  CHECK(g.slabs() == 1);
  CHECK(broken(g) == "");
}

TEST_CASE("neighbours in many slabs are given back at once, whoever stands between them") {
  for (const ClassIndex c : {kSmall, class_for(16), kBig}) {
    CAPTURE(size_class(c).slot_bytes);
    ArenaGround g(8);
    LaneSlabs& lane = add_lane(g.arena, 1);
    Slots slots = take_slabs(g, lane, c, 3);
    for (std::size_t i = 70; i + 40 < slots.size(); i += 50) std::swap(slots[i], slots[i + 40]);
    std::swap(slots.front(), slots.back());
    g.give(lane, c, slots);
    CHECK(g.slabs() == 1);
    CHECK(broken(g) == "");
    std::set<void*> again;
    for (void* slot : take_slabs(g, lane, c, 3)) again.insert(slot);
    CHECK(again.size() == slots.size());
  }
}

TEST_CASE("a double free of one's own slot ends the program with its address") {
  ArenaGround g(1);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = g.take(lane, kSmall, 8);
  g.give(lane, kSmall, {slots[2]});
  const auto dies_of = [&](void* culprit, auto&& act) {
    const Death death = death_of(act);
    CHECK(death.signal == SIGABRT);
    std::string line(Text()
                         .put("ashlar: free(): double free of ")
                         .hex(reinterpret_cast<std::uintptr_t>(culprit))
                         .put(" (class 1024)\n")
                         .view());
    CHECK(death.last_words == line);
  };
  dies_of(slots[2], [&] { g.give(lane, kSmall, {slots[1], slots[2], slots[3]}); });
  dies_of(slots[4], [&] { g.give(lane, kSmall, {slots[4], slots[5], slots[4]}); });
  dies_of(slots[2], [&] { g.give_remote({slots[2]}); });
  dies_of(slots[4], [&] { g.give_remote({slots[4], slots[5], slots[4]}); });
  g.give_remote({slots[6]});
  dies_of(slots[6], [&] { g.give_remote({slots[6]}); });

  // Among many neighbours, which are looked at in another way.
  Slots many = take_slabs(g, lane, kSmall, 3);
  void* const culprit = many[80];
  many.insert(many.begin() + 83, culprit);
  dies_of(culprit, [&] { g.give(lane, kSmall, many); });
  dies_of(culprit, [&] { g.give_remote(many); });
  many.erase(many.begin() + 83);
  dies_of(slots[2], [&] {
    many[40] = slots[2];
    g.give(lane, kSmall, many);
  });
}

TEST_CASE("the owner of a slot that somebody else freed too reports it") {
  ArenaGround g(1);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = g.take(lane, kSmall, 8);
  g.give_remote({slots[1]});
  g.arena.drain_inbox(lane);
  CHECK(death_of([&] { g.give(lane, kSmall, {slots[1]}); }).signal == SIGABRT);
}

TEST_CASE("a slot that somebody frees when its slab is gone was freed twice") {
  ArenaGround g(1);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = take_slabs(g, lane, kSmall, 2);
  g.give(lane, kSmall, slots);
  const auto gone = std::ranges::find_if(
      slots, [&](const void* slot) { return g.arena.entry_of(slot).is_free(); });
  REQUIRE(gone != slots.end());
  const std::string words(Text()
                              .put("ashlar: free(): double free of ")
                              .hex(reinterpret_cast<std::uintptr_t>(*gone))
                              .put('\n')
                              .view());
  for (const bool is_bare : {false, true}) {
    CAPTURE(is_bare);
    if (is_bare) g.arena.set_bare(*gone, lane);
    CHECK(death_of([&] { g.give_remote({*gone}); }).last_words == words);
  }
}

TEST_CASE("what others free comes back through the inbox, any classes and owners at once") {
  ArenaGround g(4);
  LaneSlabs& a = add_lane(g.arena, 1);
  LaneSlabs& b = add_lane(g.arena, 2);
  const Slots of_a = g.take(a, kSmall, 3);
  const Slots big_of_a = g.take(a, kBig, 3);
  const Slots of_b = g.take(b, kSmall, 3);
  CHECK(!g.arena.drain_inbox(a));
  g.give_remote({of_a[0], of_b[0], big_of_a[1], of_a[2], of_b[1]});
  CHECK(broken(g) == "");
  CHECK(descriptor_of(g, of_a[0]).used == 3);
  CHECK(g.arena.drain_inbox(a));
  CHECK(!g.arena.drain_inbox(a));
  CHECK(descriptor_of(g, of_a[0]).used == 1);
  CHECK(descriptor_of(g, big_of_a[0]).used == 2);
  CHECK(descriptor_of(g, of_b[0]).used == 3);
  CHECK(g.arena.drain_inbox(b));
  CHECK(descriptor_of(g, of_b[0]).used == 1);
  CHECK(broken(g) == "");
}

TEST_CASE("a lane that takes slots takes over first what others freed") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = g.take(lane, kSmall, kSmallSlots);
  g.give_remote(slots);
  CHECK(g.take(lane, kSmall, 10).size() == 10);
  CHECK(g.slabs() == 1);
}

TEST_CASE("a lane makes no new slab before it has looked at all that others freed") {
  ArenaGround g(4);
  LaneSlabs& lane = add_lane(g.arena, 1);
  constexpr std::size_t kSlabs = 20;
  std::vector<Slots> slabs;
  for (std::size_t i = 0; i < kSlabs; i++) slabs.push_back(g.take(lane, kSmall, kSmallSlots));
  const Slots big = g.take(lane, kBig, size_class(kBig).capacity);
  g.give_remote({big[0]});
  for (const Slots& slots : slabs) g.give_remote({slots[0]});
  g.give_remote(Slots(slabs[0].begin() + 1, slabs[0].end()));
  const std::uint32_t before = g.slabs();
  // A few at a time, and of the class alone.
  const auto is_pending = [&](void* slot) { return descriptor_of(g, slot).pending != 0; };
  CHECK(g.take(lane, kSmall, 1).size() == 1);
  CHECK(g.take(lane, kBig, 1) == Slots{big[0]});
  CHECK(is_pending(slabs[0][0]));
  CHECK(g.slabs() == before);
  // Another slab of the class is needed; one that others emptied goes back first.
  CHECK(g.take(lane, kBig, 1).size() == 1);
  CHECK(!g.arena.entry_of(slabs[0][0]).is_slab());
  CHECK(g.slabs() == before);
  CHECK(broken(g) == "");
}

TEST_CASE("slabs that others emptied go back") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  Slots all = g.take(lane, kSmall, kSmallSlots);
  const Slots b = g.take(lane, kSmall, kSmallSlots);
  all.insert(all.end(), b.begin(), b.end());
  g.give_remote(all);
  CHECK(g.arena.drain_inbox(lane));
  CHECK(g.slabs() == 1);
  CHECK(broken(g) == "");
}

TEST_CASE("a notification that comes when its slab is gone does no harm") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots a = g.take(lane, kSmall, kSmallSlots);
  const Slots b = g.take(lane, kSmall, kSmallSlots);
  SlabDescriptor& descriptor = descriptor_of(g, b[0]);
  g.give(lane, kSmall, a);
  g.give(lane, kSmall, b);
  REQUIRE(!g.arena.entry_of(b[0]).is_slab());
  notify_late(g, lane, descriptor, b.back());
  g.arena.drain_inbox(lane);
  CHECK(descriptor.pending == 0);
  CHECK(!g.arena.drain_inbox(lane));
  CHECK(broken(g) == "");
}

// A full slab of lane b, in a unit that was a slab of lane a before and waits in a's inbox.
struct LateNotification {
  ArenaGround g{2};
  LaneSlabs& a = add_lane(g.arena, 1);
  LaneSlabs& b = add_lane(g.arena, 2);
  Slots of_b;
  SlabDescriptor* descriptor = nullptr;

  LateNotification() {
    const Slots first = g.take(a, kSmall, kSmallSlots);
    const Slots second = g.take(a, kSmall, kSmallSlots);
    descriptor = &descriptor_of(g, second[0]);
    g.give(a, kSmall, first);
    g.give(a, kSmall, second);
    of_b = g.take(b, kSmall, kSmallSlots);
    REQUIRE(&descriptor_of(g, of_b[0]) == descriptor);
    notify_late(g, a, *descriptor, of_b.back());
  }
};

TEST_CASE("a notification that comes when the slab is another lane's is passed on") {
  LateNotification late;
  auto& [g, a, b, of_b, descriptor] = late;
  g.give_remote(of_b);  // finds `pending` set, and rests assured
  g.arena.drain_inbox(a);
  CHECK(g.arena.drain_inbox(b));
  CHECK(descriptor->used == 0);
  CHECK(!g.arena.drain_inbox(a));
}

TEST_CASE("a notification of a slab that a fork caught between two lanes ends with them") {
  LateNotification late;
  auto& [g, a, b, of_b, descriptor] = late;
  g.give_remote(of_b);
  descriptor->owner = a.index.v;  // as far as adopt_slab() had come; the entry is still b's
  int drains = 0;
  while (drains < 10 && g.arena.drain_some(a, kSmall)) drains++;
  CHECK(drains == 1);
  g.arena.recover_lane(b);
  CHECK(descriptor->used == 0);
  CHECK(broken(g) == "");
}

TEST_CASE("a notification that comes when its unit is inside another lane's slab is dropped") {
  ArenaGround g(2);
  LaneSlabs& a = add_lane(g.arena, 1);
  LaneSlabs& b = add_lane(g.arena, 2);
  Slots slots;  // four units in a row, the lanes' own pages are in the first
  for (int i = 0; i < 12; i++) {
    const Slots more = g.take(a, kSmall, kSmallSlots);
    slots.insert(slots.end(), more.begin(), more.end());
  }
  void* const inside = g.arena.data() + 5 * kUnitBytes;
  REQUIRE(std::find(slots.begin(), slots.end(), inside) != slots.end());
  SlabDescriptor& descriptor = descriptor_of(g, inside);
  g.give(a, kSmall, slots);
  const Slots big = g.take(b, kBig, 8);
  REQUIRE(big.back() == g.arena.data() + 4 * kUnitBytes);
  notify_late(g, a, descriptor, inside);
  int drains = 0;
  while (drains < 10 && g.arena.drain_inbox(a)) drains++;
  CHECK(drains <= 1);
}

TEST_CASE("blocks of pages keep their alignment, up to several chunks") {
  ArenaGround g(16);
  bool zero = false;
  for (Bytes alignment = 1; alignment <= 8 * kMiB; alignment *= 2) {
    void* const p = g.arena.take_pages(PageCount{3}, alignment, BlockKind::large, zero);
    REQUIRE(p != nullptr);
    CAPTURE(alignment);
    CHECK(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
    CHECK(g.arena.contains(p));
  }
  CHECK(g.arena.take_pages(PageCount{1}, Bytes{1} << 50, BlockKind::large, zero) == nullptr);
  CHECK(broken(g) == "");
}

TEST_CASE("a full region grows no further, and everything else goes on") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  CHECK(!grow(g.arena));
  Slots all;
  for (;;) {
    const Slots more = g.take(lane, kSmall, 100);
    if (more.empty()) break;
    all.insert(all.end(), more.begin(), more.end());
  }
  CHECK(all.size() == (2 * kUnitsPerChunk - 1) * kSmallSlots);
  CHECK(g.take(lane, kBig, 1).empty());
  CHECK(broken(g) == "");
  g.give(lane, kSmall, all);
  CHECK(broken(g) == "");
  CHECK(g.take(lane, kBig, 1).size() == 1);
}

TEST_CASE("growing makes room for the block that was asked for") {
  for (Bytes alignment : {kPageBytes, kChunkBytes, 2 * kChunkBytes, 8 * kChunkBytes}) {
    for (std::uint32_t pages : {1u, 512u, 513u, 2000u}) {
      const Ground ground(Arena::region_bytes(40));
      Arena arena;
      REQUIRE(arena.create(ground.region()) == os::Commit::done);
      bool zero = false;
      REQUIRE(arena.take_pages(PageCount{512}, kPageBytes, BlockKind::large, zero) != nullptr);
      REQUIRE(arena.take_pages(PageCount{pages}, alignment, BlockKind::large, zero) == nullptr);
      REQUIRE(grow(arena, pages, alignment));
      CHECK(arena.take_pages(PageCount{pages}, alignment, BlockKind::large, zero) != nullptr);
      CHECK(zero);
      CHECK(sound(arena.check_invariants()) == "");
    }
  }
}

TEST_CASE("who comes late to grow finds that it is done") {
  const Ground ground(Arena::region_bytes(4));
  Arena arena;
  REQUIRE(arena.create(ground.region()) == os::Commit::done);
  const std::uint32_t seen = arena.chunks();
  REQUIRE(grow(arena));
  CHECK(arena.grow(seen, PageCount{1}, kPageBytes));
  CHECK(arena.chunks() == 2);
}

TEST_CASE("a chunk whose addresses are taken is left out") {
  Ground ground(Arena::region_bytes(4));
  os::Region window = ground.region();
  window.backing = os::Region::Backing::window;
  Bytes data = 0;
  {
    Arena probe;
    REQUIRE(probe.create(ground.region()) == os::Commit::done);
    data = static_cast<Bytes>(probe.data() - ground.base());
  }
  // Only the second chunk is somebody's.
  REQUIRE(::munmap(ground.base(), data + kChunkBytes) == 0);
  REQUIRE(::munmap(ground.base() + data + 2 * kChunkBytes, 2 * kChunkBytes) == 0);
  std::byte* const foreign = ground.base() + data + kChunkBytes;
  std::memset(foreign, 0x5a, kChunkBytes);
  Arena arena;
  REQUIRE(arena.create(window) == os::Commit::done);
  REQUIRE(grow(arena));
  CHECK(arena.chunks() == 3);
  CHECK(sound(arena.check_invariants()) == "");
  bool zero = false;
  CHECK(arena.take_pages(PageCount{512}, kPageBytes, BlockKind::large, zero) == arena.data());
  CHECK(arena.take_pages(PageCount{512}, kPageBytes, BlockKind::large, zero) ==
        arena.data() + 2 * kChunkBytes);
  CHECK(arena.take_pages(PageCount{1}, kPageBytes, BlockKind::large, zero) == nullptr);
  CHECK(!arena.give_pages(foreign, BlockKind::large));
  CHECK(arena.locate(foreign).kind == Place::Kind::internal);
  arena.purge(Arena::Purge::at_once);
  CHECK(foreign[kChunkBytes - 1] == std::byte{0x5a});
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_CASE("an arena that could not be made for want of memory can be made elsewhere later") {
  if (kSanitized) return;  // their shadow leaves no limit to set
  const Death death = death_of([] {
    rlimit limit{};
    ::getrlimit(RLIMIT_AS, &limit);
    std::size_t pages_now = 0;
    if (std::FILE* const statm = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(statm, "%zu", &pages_now) != 1) ::_exit(1);
      std::fclose(statm);
    }
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = pages_now * kPageBytes + kMiB;  // metadata, but no chunk
    ::setrlimit(RLIMIT_AS, &limit);
    Arena arena;
    if (arena.create(os::reserve_region(kGiB, 0)) == os::Commit::done) ::_exit(2);
    arena.forget();
    limit.rlim_cur = before;
    ::setrlimit(RLIMIT_AS, &limit);
    if (arena.create(os::reserve_region(kGiB, 1)) != os::Commit::done) ::_exit(3);
    if (arena.check_invariants() != nullptr) ::_exit(4);
    ::_exit(7);
  });
  CHECK(death.signal == 0);
  CHECK(death.status == 7);
}

TEST_CASE("locate tells what an address is") {
  ArenaGround g(4);
  LaneSlabs& lane = add_lane(g.arena, 1);
  bool zero = false;
  auto* const large = static_cast<std::byte*>(
      g.arena.take_pages(PageCount{700}, kPageBytes, BlockKind::large, zero));
  const Slots slots = g.take(lane, kSmall, 2);
  int here = 0;
  CHECK(g.arena.locate(&here).kind == Place::Kind::foreign);
  CHECK(g.arena.locate(g.arena.data() - 1).kind == Place::Kind::foreign);
  CHECK(g.arena.locate(g.arena.data() + g.arena.data_bytes()).kind == Place::Kind::foreign);
  CHECK(g.arena.locate(&lane).kind == Place::Kind::internal);
  const Place place = g.arena.locate(large + 700 * kPageBytes - 1);
  CHECK(place.kind == Place::Kind::large);
  CHECK(place.begin == large);
  CHECK(place.bytes == 700 * kPageBytes);
  CHECK(g.arena.locate(large + 700 * kPageBytes).kind == Place::Kind::free);
  CHECK(g.arena.locate(slots[0]).kind == Place::Kind::slot);
  g.give(lane, kSmall, {slots[0]});
  CHECK(g.arena.locate(slots[0]).kind == Place::Kind::free);
  // The tail of a slab that is no slot.
  const ClassIndex uneven = class_for(20 * kKiB);
  const Slots tail = g.take(lane, uneven, 1);
  auto* const slab = static_cast<std::byte*>(tail[0]);
  CHECK(g.arena.locate(slab + 4 * kUnitBytes - 1).kind == Place::Kind::free);
}

TEST_CASE("freed pages are purged on demand, read as zero then, and are said to be") {
  ArenaGround g(1);
  bool zero = false;
  const PageCount pages{100};
  auto* const p =
      static_cast<std::byte*>(g.arena.take_pages(pages, kPageBytes, BlockKind::large, zero));
  CHECK(zero);
  std::memset(p, 1, bytes_of(pages));
  REQUIRE(g.arena.give_pages(p, BlockKind::large));
  REQUIRE(g.arena.take_pages(pages, kPageBytes, BlockKind::large, zero) == p);
  CHECK(!zero);
  REQUIRE(g.arena.give_pages(p, BlockKind::large));
  CHECK(g.arena.purge(Arena::Purge::aged) == 0);
  CHECK(g.arena.purge(Arena::Purge::aged) == bytes_of(pages));
  CHECK(g.arena.purge(Arena::Purge::at_once) == 0);
  REQUIRE(g.arena.take_pages(pages, kPageBytes, BlockKind::large, zero) == p);
  CHECK(zero);
  CHECK(p[0] == std::byte{0});
  CHECK(p[bytes_of(pages) - 1] == std::byte{0});
}

TEST_CASE("so many free pages are purged as are wanted, in runs, but none of a free chunk") {
  ArenaGround g(1);
  bool zero = false;
  const PageCount pages{100};
  const auto take = [&] { return g.arena.take_pages(pages, kPageBytes, BlockKind::large, zero); };
  void* const first = take();
  void* const between = take();
  void* const last = take();
  REQUIRE(between != nullptr);
  REQUIRE(last != nullptr);
  CHECK(g.arena.purge_pages({1}) == 0);
  REQUIRE(g.arena.give_pages(first, BlockKind::large));
  REQUIRE(g.arena.give_pages(last, BlockKind::large));
  CHECK(g.arena.purge_pages({1}) == bytes_of(pages));
  CHECK(g.arena.purge_pages({1000}) == bytes_of(pages));
  CHECK(g.arena.purge_pages({1000}) == 0);
  REQUIRE(g.arena.give_pages(between, BlockKind::large));
  CHECK(g.arena.purge_pages({1000}) == 0);
  CHECK(g.arena.purge(Arena::Purge::at_once) == bytes_of(pages));
}

TEST_CASE("where free pages lie in short runs, fewer are purged than are wanted") {
  ArenaGround g(1);
  bool zero = false;
  std::vector<void*> single(64);
  for (void*& p : single) p = g.arena.take_pages({1}, kPageBytes, BlockKind::large, zero);
  for (std::size_t i = 0; i < single.size(); i += 2) {
    REQUIRE(g.arena.give_pages(single[i], BlockKind::large));
  }
  CHECK(g.arena.purge_pages({64}) == 4 * kPageBytes);  // a run counts as sixteen pages
  CHECK(g.arena.purge_pages({64}) == 4 * kPageBytes);
  CHECK(g.arena.purge(Arena::Purge::at_once) == 24 * kPageBytes);
}

TEST_CASE("empty pages inside slabs are purged, and what lives beside them is not touched") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = g.take(lane, kSmall, kSmallSlots);  // four a page, the highest first
  for (void* slot : slots) std::memset(slot, 0x5a, 1024);
  Slots given;
  for (std::size_t i = 0; i < slots.size(); i++) {
    if (i / 4 % 2 == 0 || i % 4 == 0) given.push_back(slots[i]);
  }
  g.give(lane, kSmall, given);
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::aged) == 0);  // slots were taken from it just now
  const Bytes half = kPagesPerUnit / 2 * kPageBytes;
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::aged) == half);
  CHECK(descriptor_of(g, slots[0]).holes == 0xaaaa);
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::at_once) == 0);
  for (std::size_t i = 0; i < slots.size(); i++) {
    const bool purged = i / 4 % 2 == 0;
    CHECK(*static_cast<unsigned char*>(slots[i]) == (purged ? 0 : 0x5a));
  }
  CHECK(broken(g) == "");
}

TEST_CASE("slots are taken out of holes, which are none then, and the lane counts them") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = g.take(lane, kSmall, kSmallSlots);
  g.give(lane, kSmall, slots);
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::soon) == kUnitBytes);
  const Slots again = g.take(lane, kSmall, 5);  // one page and a quarter
  CHECK(descriptor_of(g, again[0]).holes == 0xfffc);
  CHECK(lane.refilled_bytes == 2 * kPageBytes);
  CHECK(broken(g) == "");
  g.give(lane, kSmall, again);
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::aged) == 0);  // warm
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::aged) == 2 * kPageBytes);
}

TEST_CASE("what others freed is no hole before its owner knows, and full slabs are passed over") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots slots = take_slabs(g, lane, kSmall, 2);
  g.give_remote(Slots(slots.begin(), slots.begin() + kSmallSlots));
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::at_once) == 0);
  CHECK(g.arena.drain_inbox(lane));
  CHECK(g.arena.purge_slabs(lane, Arena::Purge::at_once) == kUnitBytes);
  CHECK(broken(g) == "");
}

TEST_CASE("a lane's slabs are purged in parts, and only its own") {
  constexpr std::uint32_t kSlabs = 80;
  ArenaGround g(4);
  LaneSlabs& lane = add_lane(g.arena, 1);
  LaneSlabs& other = add_lane(g.arena, 2);
  const Slots slots = take_slabs(g, lane, kSmall, kSlabs);
  const Slots of_other = g.take(other, kSmall, 1);
  Slots given;  // every other page: 8 runs a slab
  for (void* slot : slots) {
    if (reinterpret_cast<std::uintptr_t>(slot) / kPageBytes % 2 == 0) given.push_back(slot);
  }
  g.give(lane, kSmall, given);
  Bytes bytes = 0;
  int parts = 0;
  do {
    bytes += g.arena.purge_slabs(lane, Arena::Purge::soon);
    parts++;
  } while (lane.purge_cursor != 0);
  CHECK(parts > 1);
  CHECK(bytes == kSlabs * kUnitBytes / 2);
  CHECK(descriptor_of(g, of_other[0]).holes == 0);
  CHECK(g.arena.purge_slabs(other, Arena::Purge::at_once) == kUnitBytes - kPageBytes);
}

TEST_CASE("a pass that goes on inside a slab that was made meanwhile leaves that slab alone") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  g.give(lane, kSmall, take_slabs(g, lane, kSmall, 20));  // their bitmaps stay behind
  const Slots big = g.take(lane, kBig, 8);
  for (void* slot : big) std::memset(slot, 0x5a, 32 * kKiB);
  const auto first = static_cast<std::uint32_t>(
      (static_cast<std::byte*>(big.back()) - g.arena.data()) / kUnitBytes);
  for (std::uint32_t inner = 1; inner < 4; inner++) {
    lane.purge_cursor = first + inner;
    g.arena.purge_slabs(lane, Arena::Purge::soon);
    for (void* slot : big) {
      const auto* const bytes = static_cast<unsigned char*>(slot);
      REQUIRE(std::all_of(bytes, bytes + 32 * kKiB, [](unsigned char b) { return b == 0x5a; }));
    }
  }
  CHECK(broken(g) == "");
}

TEST_CASE("give_pages refuses what is not the first byte of a block of that kind") {
  ArenaGround g(1);
  bool zero = false;
  auto* const p =
      static_cast<std::byte*>(g.arena.take_pages(PageCount{4}, kPageBytes, BlockKind::large, zero));
  CHECK(!g.arena.give_pages(p + 8, BlockKind::large));
  CHECK(!g.arena.give_pages(p + kPageBytes, BlockKind::large));
  CHECK(!g.arena.give_pages(p, BlockKind::internal));
  CHECK(g.arena.give_pages(p, BlockKind::large));
  CHECK(!g.arena.give_pages(p, BlockKind::large));
}

TEST_CASE("a second view sees the same arena at another address") {
  const Bytes bytes = Arena::region_bytes(2);
  const int fd = ::memfd_create("arena", 0);
  REQUIRE(::ftruncate(fd, static_cast<off_t>(bytes)) == 0);
  const Ground here(bytes, fd);
  const Ground there(bytes, fd);
  Arena a;
  REQUIRE(a.create(here.region()) == os::Commit::done);
  Arena b;
  b.attach(there.region());
  CHECK(b.chunks() == 1);
  REQUIRE(grow(a));
  CHECK(b.chunks() == 2);
  CHECK(!b.contains(b.data() + kChunkBytes));
  b.refresh();
  CHECK(b.contains(b.data() + kChunkBytes));
  LaneSlabs& lane = add_lane(a, 1);
  void* slot = nullptr;
  REQUIRE(a.take_slots(lane, kSmall, &slot, 1) == 1);
  auto* const seen = static_cast<std::byte*>(slot) - a.data() + b.data();
  CHECK(b.locate(seen).kind == Place::Kind::slot);
  b.give_slots(b.lane_at(lane.index), kSmall, reinterpret_cast<void* const*>(&seen), 1);
  CHECK(a.locate(slot).kind == Place::Kind::free);
  CHECK(sound(b.check_invariants()) == "");
  ::close(fd);
}

TEST_CASE("a lane whose lists are rubble is put in order again") {
  ArenaGround g(4);
  LaneSlabs& lane = add_lane(g.arena, 1);
  LaneSlabs& other = add_lane(g.arena, 2);
  const Slots kept = g.take(lane, kSmall, kSmallSlots + 10);
  Slots big = g.take(lane, kBig, 8);
  const Slots of_other = g.take(other, kSmall, 5);
  g.give_remote({kept[3], big[2]});
  lane.empty_inbox();  // as a fork leaves it, see Heap::after_fork_in_child
  g.arena.after_fork_in_child();
  std::memset(lane.nonempty, 0xff, sizeof lane.nonempty);
  std::memset(lane.head, 0x77, sizeof lane.head);
  g.arena.for_each_slab([&](const Slab& slab, std::uint64_t tag) {
    if (tag != lane.tag) return;
    slab.descriptor().next = 3;
    slab.descriptor().prev = 99;
    slab.descriptor().hint = 7;
    slab.descriptor().used = 4711;
    slab.descriptor().list = 5;
  });
  g.arena.recover_lane(lane);
  CHECK(broken(g) == "");
  CHECK(g.arena.locate(kept[3]).kind == Place::Kind::free);
  CHECK(g.arena.locate(kept[4]).kind == Place::Kind::slot);
  CHECK(descriptor_of(g, of_other[0]).used == 5);
  // Nothing that is held is handed out again.
  std::set<void*> held(kept.begin(), kept.end());
  held.erase(kept[3]);
  for (void* slot : g.take(lane, kSmall, 200)) CHECK(held.insert(slot).second);
  // Others can reach it as before.
  g.give_remote({kept[4]});
  CHECK(g.arena.drain_inbox(lane));
  CHECK(g.arena.locate(kept[4]).kind == Place::Kind::free);
}

TEST_CASE("what a dead lane's inbox held for another lane is not lost") {
  LateNotification late;
  auto& [g, a, b, of_b, descriptor] = late;
  g.arena.recover_lane(a);
  g.give_remote(of_b);
  g.arena.drain_inbox(a);
  CHECK(g.arena.drain_inbox(b));
  CHECK(descriptor->used == 0);
}

TEST_CASE("check_invariants finds what is broken") {
  ArenaGround g(2);
  LaneSlabs& lane = add_lane(g.arena, 1);
  const Slots a = g.take(lane, kSmall, kSmallSlots);
  const Slots b = g.take(lane, kSmall, 10);
  g.give(lane, kSmall, {a[0]});
  SlabDescriptor& d = descriptor_of(g, b[0]);
  const auto broken_by = [&](auto& word, auto value) {
    const auto before = static_cast<decltype(value)>(word);
    word = value;
    const std::string found = broken(g).substr(0, 7);
    word = before;
    CHECK(broken(g) == "");
    return found;
  };
  CHECK(broken_by(d.size_class, std::uint8_t{3}) == "arena 1");
  CHECK(broken_by(lane.tag, 2 * kTagGrain) == "arena 1");
  CHECK(broken_by(d.list, std::uint8_t{4}).substr(0, 5) == "arena");
  CHECK(broken_by(lane.nonempty[kSmall.v], std::uint8_t{0}) == "arena 2");
  CHECK(broken_by(lane.head[kSmall.v][1], kNone) == "arena 3");
}

TEST_SUITE_END();

}  // namespace ashlar::test
