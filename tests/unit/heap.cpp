// SPDX-License-Identifier: MIT
// The process's heap and its magazines, with one thread at a time.
#include "heap.h"
#include "maintenance.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "options.h"
#include "quiet_heap.h"
#include "slots.h"
#include "stats.h"

namespace ashlar::test {

namespace {

constexpr ClassIndex kSmall = class_for(64);

HeapStats stats() {
  HeapStats s;
  collect_stats(s);
  return s;
}

void* take_large(Bytes bytes, Bytes alignment = kPageBytes) {
  bool zero = false;
  return heap.take_large(bytes, alignment, zero);
}

Bytes large_bytes(void* p) { return bytes_of(arena.buddy().pages_at(arena.page_of(p))); }

std::string words(std::string_view before, const void* p, std::string_view after) {
  return std::string(Text()
                         .put("ashlar: ")
                         .put(before)
                         .hex(reinterpret_cast<std::uintptr_t>(p))
                         .put(after)
                         .put('\n')
                         .view());
}

}  // namespace

TEST_SUITE_BEGIN("heap");

TEST_CASE("the first thread has a lane from its first slot on") {
  CHECK(this_lane() == nullptr);
  void* const p = take_slot(kSmall);
  CHECK(this_lane() != nullptr);
  CHECK(arena.entry_of(p).tag() == reinterpret_cast<std::uintptr_t>(this_lane()));
  give_slot(p);
  give_slot(nullptr);
  CHECK(broken() == "");
}

TEST_CASE("slots of every class are distinct, keep their contents, and come back") {
  std::vector<std::pair<std::byte*, std::uint32_t>> held;
  std::set<void*> distinct;
  for (int round = 0; round < 3; round++) {
    for (std::uint32_t c = 0; c < kClassCount; c++) {
      for (int i = 0; i < 40; i++) {
        auto* const p = static_cast<std::byte*>(take_slot(ClassIndex{c}));
        REQUIRE(p != nullptr);
        REQUIRE(distinct.insert(p).second);
        std::memset(p, static_cast<int>(held.size() % 251), kSizeClasses[c].slot_bytes);
        held.emplace_back(p, c);
      }
    }
    CHECK(broken() == "");
  }
  for (std::size_t i = 0; i < held.size(); i++) {
    const auto [p, c] = held[i];
    const std::byte wanted{static_cast<unsigned char>(i % 251)};
    REQUIRE(
        std::all_of(p, p + kSizeClasses[c].slot_bytes, [&](std::byte b) { return b == wanted; }));
    give_slot(p);
  }
  CHECK(broken() == "");
}

TEST_CASE("magazines never leave the lane's pages, however many classes are busy") {
  const auto before = options;
  options.magazine_kib = 1 << 20;
  options.purge_ms = -1;  // a drain would empty them
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    for (std::size_t count = 16; count <= 2048; count *= 2) give(take(ClassIndex{c}, count));
  }
  options = before;
  auto* const end = reinterpret_cast<std::byte*>(this_lane()) + bytes_of(kLanePages);
  CHECK(reinterpret_cast<std::byte*>(this_lane()->stack_room) <= end);
  for (const Magazine& m : this_lane()->magazine) {
    CHECK(reinterpret_cast<std::byte*>(m.take_base + m.capacity) <= end);
    CHECK(reinterpret_cast<std::byte*>(m.give_base + m.capacity) <= end);
  }
}

TEST_CASE("what magazines hold stays near magazine_kib") {
  const auto before = options;
  options.magazine_kib = 64;
  for (std::uint32_t c = 0; c < kClassCount; c++) give(take(ClassIndex{c}, 300));
  for (int i = 0; i < 10; i++) give(take(kSmall, 5000));
  CHECK(stats().magazines <= 64 * kKiB + 256 * kKiB);  // looked at now and then only
  options = before;
  CHECK(broken() == "");
}

TEST_CASE("trim gives back what magazines hold and all free pages") {
  give(take(kSmall, 1000));
  give_slot(take_slot(class_for(kMaxSlotBytes)));
  maintenance.trim();
  const HeapStats s = stats();
  CHECK(s.allocated == 0);
  CHECK(s.magazines == 0);
  CHECK(s.dirty == 0);
  CHECK(broken() == "");
  CHECK(!maintenance.trim());
}

TEST_CASE("a slot freed twice in a row ends the program") {
  void* const p = take_slot(kSmall);
  const Death death = death_of([&] {
    give_slot(p);
    give_slot(p);
  });
  CHECK(death.signal == SIGABRT);
  CHECK(death.last_words == words("free(): double free of ", p, " (class 64)"));
  give_slot(p);
}

TEST_CASE("a slot freed twice is found at the latest when magazines are flushed") {
  const auto slots = take(kSmall, 5);
  const Death death = death_of([&] {
    give_slot(slots[1]);
    give_slot(slots[2]);
    give_slot(slots[1]);
    maintenance.trim();
  });
  CHECK(death.signal == SIGABRT);
  CHECK(death.last_words == words("free(): double free of ", slots[1], " (class 64)"));
  give(slots);
}

TEST_CASE("what was never allocated is refused with its reason") {
  auto* const p = static_cast<std::byte*>(take_slot(kSmall));
  auto* const large = static_cast<std::byte*>(take_large(100 * kPageBytes));
  int here = 0;
  const auto last_words = [](void* q) {
    const Death death = death_of([&] { give_slot(q, "realloc"); });
    CHECK(death.signal == SIGABRT);
    return death.last_words;
  };
  CHECK(last_words(p + 16) ==
        words("realloc(): pointer ", p + 16, " is inside an object (class 64)"));
  CHECK(last_words(&here) == words("realloc(): invalid pointer ", &here, ""));
  CHECK(last_words(large + kPageBytes) ==
        words("realloc(): pointer ", large + kPageBytes, " is inside an object (large)"));
  CHECK(last_words(this_lane()) == words("realloc(): invalid pointer ", this_lane(), ""));
  REQUIRE(heap.give_large(large));
  CHECK(last_words(large).find("double free of ") != std::string::npos);
  give_slot(p);
}

TEST_CASE("large objects take exactly their pages, aligned as asked") {
  for (Bytes alignment = kPageBytes; alignment <= 8 * kMiB; alignment *= 2) {
    for (Bytes bytes : {Bytes{1}, kPageBytes + 1, 40 * kKiB, kChunkBytes, 3 * kChunkBytes + 7}) {
      void* const p = take_large(bytes, alignment);
      REQUIRE(p != nullptr);
      CHECK(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
      CHECK(large_bytes(p) == align_up(bytes, kPageBytes));
      CHECK(heap.give_large(p));
    }
  }
  CHECK(broken() == "");
}

TEST_CASE("what cannot be had is null and ENOMEM") {
  for (Bytes bytes : {kMostBlockBytes + 1, Bytes{1} << 44, Bytes{PTRDIFF_MAX}, ~Bytes{0}}) {
    errno = 0;
    CHECK(take_large(bytes) == nullptr);
    CHECK(errno == ENOMEM);
  }
  CHECK(take_large(1, Bytes{1} << 62) == nullptr);
}

TEST_CASE("a large object that is said to be zero is zero") {
  for (int round = 0; round < 20; round++) {
    // Small ones, and some that are too large to be kept at hand.
    const Bytes bytes = static_cast<Bytes>(round % 7 + 9) * (round % 3 == 0 ? kMiB : kPageBytes);
    bool zero = false;
    auto* const p = static_cast<std::byte*>(heap.take_large(bytes, kPageBytes, zero));
    if (zero) CHECK(std::all_of(p, p + bytes, [](std::byte b) { return b == std::byte{0}; }));
    std::memset(p, 1, bytes);
    CHECK(heap.give_large(p));
    if (round % 5 == 4) {
      maintenance.trim();
      void* const purged = heap.take_large(bytes, kPageBytes, zero);
      CHECK(zero);
      CHECK(heap.give_large(purged));
    }
  }
}

TEST_CASE("a large object is resized in place while there is room, and moved when there is none") {
  auto* p = static_cast<std::byte*>(take_large(100 * kPageBytes));
  std::memset(p, 1, 100 * kPageBytes);
  CHECK(heap.resize_large(p, 100 * kPageBytes, 50 * kPageBytes) == p);
  CHECK(large_bytes(p) == 50 * kPageBytes);
  CHECK(heap.resize_large(p, 50 * kPageBytes, 90 * kPageBytes) == p);
  void* const wall = take_large(kPageBytes);
  std::memset(p, 2, 90 * kPageBytes);
  auto* const moved =
      static_cast<std::byte*>(heap.resize_large(p, 90 * kPageBytes, 3000 * kPageBytes));
  if (moved != nullptr) {
    if (wall == p + 90 * kPageBytes) CHECK(moved != p);
    CHECK(
        std::all_of(moved, moved + 90 * kPageBytes, [](std::byte b) { return b == std::byte{2}; }));
    std::memset(moved, 3, 3000 * kPageBytes);
    p = moved;
  }
  CHECK(heap.give_large(p));
  CHECK(heap.give_large(wall));
  CHECK(broken() == "");
}

TEST_CASE(
    "large objects that grow in turns are moved seldom, keep their contents and their pages") {
  constexpr Bytes kLeast = 2 * kMiB, kMost = 40 * kMiB, kStep = 256 * kKiB;
  const auto purge_ms = options.purge_ms;
  options.purge_ms = -1;
  std::byte* objects[2];
  for (std::byte*& p : objects) p = static_cast<std::byte*>(take_large(kLeast));
  std::uint32_t moves = 0;
  for (Bytes bytes = kLeast; bytes < kMost; bytes += kStep) {
    for (std::byte*& p : objects) {
      p[bytes - 1] = std::byte{7};
      auto* const grown = static_cast<std::byte*>(heap.resize_large(p, bytes, bytes + kStep));
      REQUIRE(grown != nullptr);
      moves += grown != p ? 1 : 0;
      p = grown;
    }
  }
  CHECK(moves <= 12);  // of 304: when the size has doubled
  for (std::byte* p : objects) {
    for (Bytes at = kLeast; at < kMost; at += kStep) REQUIRE(p[at - 1] == std::byte{7});
    const Bytes resident = os::resident_bytes(p, kMost);
    CHECK(heap.give_large(p));
    CHECK(os::resident_bytes(p, kMost) == resident);
  }
  options.purge_ms = purge_ms;
  CHECK(broken() == "");
}

TEST_CASE("what moved pages leave is a mapping of one piece again after a trim") {
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    const auto begin = reinterpret_cast<std::uintptr_t>(arena.data());
    int count = 0;
    for (std::string line; std::getline(maps, line);) {
      count += std::stoull(line, nullptr, 16) - begin < arena.data_bytes() ? 1 : 0;
    }
    return count;
  };
  maintenance.trim();
  const int before = mappings();
  std::byte* objects[20];
  for (std::byte*& p : objects) p = static_cast<std::byte*>(take_large(3 * kMiB));
  for (std::byte*& p : objects) {
    std::memset(p, 5, 3 * kMiB);
    auto* const moved = static_cast<std::byte*>(heap.resize_large(p, 3 * kMiB, 6 * kMiB));
    REQUIRE(moved != nullptr);
    p = moved;
  }
  CHECK(mappings() > before + 10);
  for (std::byte* p : objects) {
    CHECK(std::all_of(p, p + 3 * kMiB, [](std::byte b) { return b == std::byte{5}; }));
    CHECK(heap.give_large(p));
  }
  maintenance.trim();
  CHECK(mappings() <= before + 2);
  CHECK(broken() == "");
}

TEST_CASE("a large object is not resized to more than there can be") {
  void* const p = take_large(64 * kPageBytes);
  for (Bytes bytes : {kMostBlockBytes + 1, Bytes{1} << 43, Bytes{1} << 44,
                      (Bytes{1} << 44) + 16 * kPageBytes, Bytes{PTRDIFF_MAX}}) {
    CAPTURE(bytes);
    CHECK(heap.resize_large(p, 64 * kPageBytes, bytes) == nullptr);
    REQUIRE(large_bytes(p) == 64 * kPageBytes);
  }
  CHECK(heap.give_large(p));
  CHECK(broken() == "");
}

TEST_CASE("a thread works without a lane until it has earned one, and again at its end") {
  std::vector<void*> slots;
  bool late = false;
  std::thread([&] {
    slots.push_back(take_slot(kSmall));
    CHECK(this_lane() == nullptr);
    for (int i = 0; i < 100; i++) slots.push_back(take_slot(kSmall));
    CHECK(this_lane() != nullptr);
    heap.end_this_thread();
    for (int i = 0; i < 100; i++) slots.push_back(take_slot(kSmall));
    CHECK(this_lane() == nullptr);
    give_slot(slots.back());
    slots.pop_back();
    late = true;
  }).join();
  CHECK(late);
  CHECK(std::set<void*>(slots.begin(), slots.end()).size() == slots.size());
  CHECK(std::find(slots.begin(), slots.end(), nullptr) == slots.end());
  give(slots);
  CHECK(broken() == "");
}

TEST_CASE("a thread that allocates seldom has no lane, however long") {
  std::vector<void*> slots = take(kSmall, 1);  // the first lane is this thread's
  std::thread([&] {
    for (int i = 0; i < 40; i++) {
      slots.push_back(take_slot(kSmall));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(this_lane() == nullptr);
  }).join();
  give(slots);
  CHECK(broken() == "");
}

TEST_CASE("what threads without a lane left behind comes back with a trim") {
  maintenance.trim();
  const Bytes before = stats().allocated;
  std::vector<void*> slots;
  for (int i = 0; i < 50; i++) {
    std::thread([&] {
      for (int n = 0; n < 5; n++) slots.push_back(take_slot(class_for(4096)));
      CHECK(this_lane() == nullptr);
    }).join();
  }
  CHECK(stats().allocated >= before + 250 * 4096);
  give(slots);
  maintenance.trim();
  CHECK(stats().allocated == before);
}

TEST_CASE("a lane is leased again after its thread is gone") {
  const auto lane_of_thread = [] {
    Lane* lane = nullptr;
    std::thread([&] {
      give(take(kSmall, 100));
      lane = this_lane();
      heap.end_this_thread();
    }).join();
    return lane;
  };
  Lane* const first = lane_of_thread();
  REQUIRE(first != nullptr);
  CHECK(lane_of_thread() == first);
  CHECK(lane_of_thread() == first);
}

TEST_CASE("with a lane for each processor, a thread that finds none waits longer for a new one") {
  // Two, as the heap of this program was not told of more. No thread has one but this.
  std::vector<void*> slots = take(kSmall, 1);
  std::thread([&] {
    give(take(kSmall, 100));
    CHECK(this_lane() != nullptr);
    std::thread([&] {
      for (int i = 0; i < 500; i++) slots.push_back(take_slot(kSmall));
      CHECK(this_lane() == nullptr);
      for (int i = 0; i < 100'000 && this_lane() == nullptr; i++) {
        slots.push_back(take_slot(kSmall));
      }
      CHECK(this_lane() != nullptr);
      heap.end_this_thread();
    }).join();
    heap.end_this_thread();
  }).join();
  give(slots);
  CHECK(broken() == "");
}

TEST_CASE("free pages are purged when purge_ms is over, and kept when it is -1") {
  constexpr Bytes kManyBytes = 16 * kMiB;  // too much to be kept at hand
  const auto before = options;
  const auto dirty_after_a_while = [](std::int64_t purge_ms) {
    options.purge_ms = purge_ms;
    void* const p = take_large(kManyBytes);
    std::memset(p, 1, kManyBytes);
    CHECK(heap.give_large(p));
    for (int i = 0; i < 20; i++) {
      ::usleep(10'000);
      maintenance.tick(nullptr);
    }
    return stats().dirty;
  };
  options.purge_ms = 100;
  maintenance.trim();
  ::usleep(1'000'000);  // longer than the half period that may be under way
  maintenance.tick(nullptr);
  CHECK(dirty_after_a_while(100) == 0);
  CHECK(dirty_after_a_while(-1) >= kManyBytes);
  CHECK(dirty_after_a_while(0) == 0);
  options = before;
}

TEST_CASE("statistics add up") {
  maintenance.trim();
  const HeapStats before = stats();
  const auto slots = take(kSmall, 1000);
  void* const large = take_large(100 * kPageBytes);
  HeapStats s = stats();
  CHECK(s.classes[kSmall.v].used == before.classes[kSmall.v].used + 1000);
  CHECK(s.large_blocks == before.large_blocks + 1);
  CHECK(s.large == before.large + 100 * kPageBytes);
  CHECK(s.allocated == before.allocated + 1000 * 64 + 100 * kPageBytes);
  CHECK(s.active >= s.allocated + s.magazines);
  CHECK(s.mapped >= s.active + s.free);
  CHECK(s.resident <= s.mapped + s.metadata);
  CHECK(s.dirty <= s.free);
  for (const ClassStats& c : s.classes) CHECK(c.slots >= c.used + c.cached);
  give(slots);
  CHECK(heap.give_large(large));
  s = stats();
  CHECK(s.classes[kSmall.v].used == before.classes[kSmall.v].used);
  CHECK(s.classes[kSmall.v].cached > 0);
  CHECK(s.magazines >= s.classes[kSmall.v].cached * 64);
  CHECK(s.allocated == before.allocated);
}

TEST_CASE("slabs of threads that have ended are used before new ones") {
  constexpr std::size_t kSlots = 10'000;
  constexpr ClassIndex kClass = class_for(704);
  std::vector<void*> left;
  for (int i = 0; i < 3; i++) {  // one at a time, so that one lane has what all of them leave
    std::thread([&] {
      const std::vector<void*> slots = take(kClass, kSlots);
      std::vector<void*> others;
      for (std::size_t n = 0; n < kSlots; n++) (n % 2 == 0 ? left : others).push_back(slots[n]);
      give(others);
      heap.end_this_thread();
    }).join();
  }
  for (void* slot : left) std::memset(slot, 0x5a, 704);
  const std::uint64_t slabs = stats().classes[kClass.v].slabs;
  std::vector<void*> mine = take(kClass, kSlots / 2);
  CHECK(stats().classes[kClass.v].slabs <= slabs + 1);
  for (void* slot : mine) std::memset(slot, 0xa5, 704);
  for (void* slot : left) REQUIRE(*static_cast<unsigned char*>(slot) == 0x5a);
  CHECK(broken() == "");

  // A thread that has the lane now frees what lies in slabs that are this thread's.
  std::thread([&] {
    give(take(kClass, 100));
    give(left);
    heap.end_this_thread();
  }).join();
  give(mine);
  CHECK(broken() == "");
  maintenance.trim();
  CHECK(stats().classes[kClass.v].used == 0);
}

TEST_SUITE_END();

// The last one: here the thread of our own runs for a moment, and is not started again.
TEST_CASE("a thread that ends leaves little at hand for the next one") {
  maintenance.trim();
  const Bytes before = stats().magazines;
  options.background = kBackgroundAlways;
  maintenance.start_thread();
  REQUIRE(maintenance.thread_runs());
  std::thread([&] {
    for (Bytes bytes = 128; bytes <= 1024; bytes += 128) give(take(class_for(bytes), 1000));
    CHECK(stats().magazines > before + 512 * kKiB);
    heap.end_this_thread();
  }).join();
  CHECK(stats().magazines <= before + 256 * kKiB);
  maintenance.stop_thread();
}

}  // namespace ashlar::test
