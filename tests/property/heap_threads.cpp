// SPDX-License-Identifier: MIT
// The heap, its magazines and lanes with many threads: they come and go, hand objects to each
// other, and some only free. When all are gone, everything must be whole and free.
#include <cstring>
#include <mutex>
#include <thread>

#include "../unit/quiet_heap.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "property.h"
#include "stats.h"

namespace ashlar::test {

namespace {

// Passes come one after the other.
[[maybe_unused]] const auto purge_soon = options.purge_ms = 1;

std::atomic<std::uint32_t> wrong;
void expect(bool right) {
  if (!right) wrong++;
}

using Object = Stamped;

Object take(Random& r, std::uint32_t large_percent) {
  Object object{nullptr, 0, r.next()};
  if (r.chance(large_percent)) {
    bool zero = false;
    object.bytes = r.between(kMaxSlotBytes + 1, 3 * kMiB);
    const Bytes alignment = r.chance(80) ? kPageBytes : kPageBytes << r.below(8);
    object.p = heap.take_large(object.bytes, alignment, zero);
    expect(reinterpret_cast<std::uintptr_t>(object.p) % alignment == 0);
  } else {
    object.bytes = r.up_to(r.chance(90) ? 1024 : kMaxSlotBytes);
    object.p = take_slot(class_for(object.bytes));
  }
  expect(object.p != nullptr);
  if (object.p != nullptr) fill(object.p, object.bytes, object.stamp);
  return object;
}

void give(const Object& object) {
  expect(is_filled(object.p, object.bytes, object.stamp));
  give_slot(object.p);
}

// Where threads leave objects for others to find.
class Market {
 public:
  void put(const Object& object) {
    const std::lock_guard guard(mutex_);
    objects_.push_back(object);
  }
  bool take(Object& object, Random& r) {
    const std::lock_guard guard(mutex_);
    if (objects_.empty()) return false;
    object = pick(objects_, r);
    return true;
  }

 private:
  std::mutex mutex_;
  std::vector<Object> objects_;
};

struct Pattern {
  const char* name;
  std::uint32_t threads;      // at a time
  std::uint32_t generations;  // of them, one after the other
  std::uint32_t steps;        // of each thread
  std::uint32_t large_percent;
  std::uint32_t market_percent;  // objects left for others
  std::uint32_t only_free;       // of the threads
  bool trimmed;                  // one more thread freezes and empties lanes all the time
};

void live(const Pattern& pattern, Market& market, std::uint32_t t, Random& r) {
  std::vector<Object> held;
  Object object{};
  for (std::uint32_t step = 0; step < steps(pattern.steps); step++) {
    if (t < pattern.only_free || r.chance(50)) {
      if (r.chance(pattern.market_percent) || held.empty()) {
        if (market.take(object, r)) give(object);
      } else {
        give(pick(held, r));
      }
    } else {
      object = take(r, pattern.large_percent);
      if (r.chance(pattern.market_percent)) {
        market.put(object);
      } else {
        held.push_back(object);
      }
    }
  }
  // A thread's last objects: some are left behind.
  for (const Object& o : held) r.chance(50) ? give(o) : market.put(o);
}

void run(const Pattern& pattern, Random& random) {
  Market market;
  wrong = 0;
  for (std::uint32_t generation = 0; generation < pattern.generations; generation++) {
    std::vector<std::thread> threads;
    std::atomic<std::uint32_t> to_come = pattern.threads;
    for (std::uint32_t t = 0; t < pattern.threads; t++) {
      threads.emplace_back([&market, &pattern, &to_come, t, seed = random.next()] {
        Random r(seed);
        to_come--;
        while (to_come != 0) std::this_thread::yield();
        live(pattern, market, t, r);
      });
    }
    std::atomic<bool> at_work = true;
    std::thread trimmer([&] {
      do {
        if (pattern.trimmed || generation % 4 == 0) maintenance.trim();
      } while (pattern.trimmed && at_work);
    });
    for (std::thread& thread : threads) thread.join();
    at_work = false;
    trimmer.join();
    REQUIRE(wrong == 0);
  }
  for (Object object; market.take(object, random);) give(object);
  REQUIRE(wrong == 0);
  maintenance.stop_thread();
  REQUIRE(broken() == "");
  maintenance.after_fork_in_child();  // it may start again, with the next lane
}

constexpr Pattern kPatterns[] = {
    {"each to its own", 4, 2, 240'000, 1, 0, 0, false},
    {"everything goes to others", 4, 2, 240'000, 1, 100, 0, false},
    {"short threads", 4, 600, 200, 2, 30, 0, false},
    {"threads too short for a lane", 4, 600, 10, 0, 50, 0, false},
    {"one produces, three only free", 4, 2, 240'000, 0, 100, 3, false},
    {"large objects", 3, 2, 20'000, 60, 30, 0, false},
    {"each to its own, lanes frozen by turns", 3, 2, 240'000, 1, 0, 0, true},
    {"everything goes to others, lanes frozen by turns", 3, 2, 120'000, 1, 100, 1, true},
    {"short threads, lanes frozen by turns", 3, 200, 200, 2, 30, 0, true},
};

}  // namespace

TEST_SUITE_BEGIN("heap threads");

TEST_CASE("objects keep their contents whichever thread frees them, and all memory comes back") {
  static const bool started = (heap.start(), true);
  REQUIRE(started);
  for (const Pattern& pattern : kPatterns) {
    CAPTURE(std::string(pattern.name));
    for_seeds(2, [&](Random& random) { run(pattern, random); });
  }

  // Nothing is held, so nothing may be left but empty slabs.
  maintenance.trim();
  HeapStats s;
  collect_stats(s);
  CHECK(s.large_blocks == 0);
  CHECK(s.magazines == 0);
  CHECK(s.dirty == 0);
  arena.for_each_slab([](const Slab& slab, std::uint64_t) { CHECK(slab.is_empty()); });
  CHECK(s.allocated == 0);
  CHECK(s.lanes <= 8);  // leased again and again
}

TEST_SUITE_END();

}  // namespace ashlar::test
