// SPDX-License-Identifier: MIT
// Buddy and arena with many threads at once. Objects carry a pattern from when they are taken to
// when they are given back, by whomever; when all is quiet, everything must be whole and free.
#include <mutex>
#include <thread>
#include <utility>

#include "arena.h"
#include "property.h"

namespace ashlar::test {

namespace {

constexpr std::uint32_t kThreads = 4;

// Checks of doctest cost a lock; threads count what is wrong instead.
std::atomic<std::uint32_t> wrong;
void expect(bool right) {
  if (!right) wrong++;
}

template <class Act>
void in_threads(std::uint32_t count, std::uint64_t seed, Act&& act) {
  wrong = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < count; t++) {
    threads.emplace_back([&, t] {
      Random random(seed * 1000 + t);
      act(t, random);
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(wrong == 0);
}

// Who holds each page; none may have two holders.
class Holders {
 public:
  explicit Holders(std::uint32_t pages) : holder_(pages) {}
  void take(std::uint32_t first, std::uint32_t count, std::uint32_t who) {
    for (std::uint32_t i = first; i < first + count; i++) expect(holder_[i].exchange(who) == 0);
  }
  void give(std::uint32_t first, std::uint32_t count, std::uint32_t who) {
    for (std::uint32_t i = first; i < first + count; i++) expect(holder_[i].exchange(0) == who);
  }

 private:
  std::vector<std::atomic<std::uint32_t>> holder_;
};

void share_pages(std::uint32_t chunks, std::uint32_t most_pages, std::uint32_t purgers,
                 Random& random) {
  BuddyGround pages(chunks);
  Holders holders(chunks * kPagesPerChunk);
  in_threads(kThreads + purgers, random.next(), [&](std::uint32_t t, Random& r) {
    const std::uint32_t me = t + 1;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> held;  // first, pages
    for (std::uint32_t step = 0; step < steps(160'000); step++) {
      if (t >= kThreads) {
        pages.buddy.age_chunk(ChunkIndex{r.below(chunks)}, r.chance(30),
                              [&](PageIndex first, PageCount count) {
                                holders.take(first.v, count.v, me);
                                holders.give(first.v, count.v, me);
                                return true;
                              });
      } else if (held.empty() || r.chance(45)) {
        const bool unit = r.chance(30);
        const std::uint32_t count = unit ? kPagesPerUnit : r.up_to(most_pages);
        const std::uint32_t first = pages.take(count, unit ? kPagesPerUnit : 1);
        if (first == kNone) continue;
        holders.take(first, count, me);
        held.emplace_back(first, count);
      } else if (r.chance(20)) {
        auto& [first, count] = held[r.below(held.size())];
        const std::uint32_t resized = r.between(1, count + 8);
        bool zero = false;
        if (resized < count) holders.give(first + resized, count - resized, me);
        const bool done = pages.buddy.resize(PageIndex{first}, PageCount{resized}, zero);
        expect(done || resized > count);
        if (done && resized > count) holders.take(first + count, resized - count, me);
        if (done) count = resized;
      } else {
        const auto [first, count] = pick(held, r);
        holders.give(first, count, me);
        expect(pages.give(first));
      }
    }
    for (const auto& [first, count] : held) {
      holders.give(first, count, me);
      expect(pages.give(first));
    }
  });
  REQUIRE(sound(pages.buddy.check_invariants()) == "");
  REQUIRE(pages.free_pages() == std::uint64_t{chunks} * kPagesPerChunk);
  REQUIRE(pages.take(kPagesPerChunk) != kNone);
}

struct Object {
  void* p;
  std::uint64_t stamp;
  std::uint32_t lane;
  ClassIndex c;
};

// Objects on their way to another thread.
class Mailbox {
 public:
  void put(const Object& object) {
    const std::lock_guard guard(mutex_);
    objects_.push_back(object);
  }
  std::vector<Object> take_all() {
    const std::lock_guard guard(mutex_);
    return std::exchange(objects_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Object> objects_;
};

struct Pattern {
  const char* name;
  std::uint32_t lanes;         // threads with a lane
  std::uint32_t only_free;     // threads without
  std::uint32_t keep_percent;  // objects that stay with their thread
  std::uint32_t classes;
};

void share_objects(const Pattern& pattern, Random& random) {
  constexpr std::uint32_t kChunks = 64;
  const Ground ground(Arena::region_bytes(kChunks));
  Arena arena;
  REQUIRE(arena.create(ground.region()) == os::Commit::done);
  std::vector<LaneSlabs*> lanes;
  for (std::uint32_t i = 0; i < pattern.lanes; i++) lanes.push_back(&add_lane(arena, i + 1));
  const std::uint32_t threads = pattern.lanes + pattern.only_free;
  std::vector<Mailbox> mailboxes(threads);

  const auto check = [](const Object& o) {
    expect(is_filled(o.p, size_class(o.c).slot_bytes, o.stamp));
  };
  // Frees what has come by mail: one's own directly, the others' at once, and mixed.
  const auto give = [&](std::uint32_t t, const std::vector<Object>& objects) {
    std::vector<void*> remote;
    for (const Object& o : objects) {
      check(o);
      if (o.lane == t) {
        arena.give_slots(*lanes[t], o.c, &o.p, 1);
      } else {
        remote.push_back(o.p);
      }
    }
    arena.give_remote(remote.data(), static_cast<std::uint32_t>(remote.size()));
  };

  std::atomic<std::uint32_t> at_work = pattern.lanes;
  in_threads(threads, random.next(), [&](std::uint32_t t, Random& r) {
    if (t >= pattern.lanes) {
      while (at_work != 0) {
        give(t, mailboxes[t].take_all());
        std::this_thread::yield();
      }
      return;
    }
    std::vector<Object> held;
    for (std::uint32_t step = 0; step < steps(32'000); step++) {
      const ClassIndex c{r.chance(80) ? r.below(pattern.classes) : r.below(kClassCount)};
      void* slots[64];
      const std::uint32_t want = r.up_to(held.size() > 5000 ? 4 : 64);
      const std::uint32_t seen = arena.chunks();
      const std::uint32_t taken = arena.take_slots(*lanes[t], c, slots, want);
      if (taken == 0 && !arena.grow(seen, PageCount{64}, 4 * kUnitBytes)) {
        expect(arena.chunks() == kChunks);  // full: who frees is behind
        std::this_thread::yield();
      }
      for (std::uint32_t i = 0; i < taken; i++) {
        const Object object{slots[i], r.next(), t, c};
        fill(object.p, size_class(c).slot_bytes, object.stamp);
        if (r.chance(pattern.keep_percent)) {
          held.push_back(object);
        } else {
          mailboxes[r.below(threads)].put(object);
        }
      }
      give(t, mailboxes[t].take_all());
      for (std::uint32_t n = r.below(64); n != 0 && !held.empty(); n--) {
        const Object object = pick(held, r);
        check(object);
        arena.give_slots(*lanes[t], object.c, &object.p, 1);
      }
      if (r.chance(5)) arena.purge(r.chance(20) ? Arena::Purge::at_once : Arena::Purge::aged);
    }
    give(t, held);
    at_work--;
  });

  for (std::uint32_t t = 0; t < threads; t++) give(kNone, mailboxes[t].take_all());
  REQUIRE(wrong == 0);
  REQUIRE(sound(arena.check_invariants()) == "");
  for (LaneSlabs* lane : lanes) arena.drain_inbox(*lane);
  REQUIRE(sound(arena.check_invariants()) == "");
  arena.for_each_slab([](const Slab& slab, std::uint64_t) { REQUIRE(slab.is_empty()); });
}

}  // namespace

TEST_SUITE_BEGIN("threads");

TEST_CASE("a lock lets one thread in at a time") {
  Lock lock;
  std::uint32_t plain = 0;
  const std::uint32_t rounds = steps(200'000);
  in_threads(kThreads, 1, [&](std::uint32_t, Random&) {
    for (std::uint32_t i = 0; i < rounds; i++) {
      lock.lock();
      plain++;
      lock.unlock();
    }
  });
  CHECK(plain == kThreads * rounds);
}

TEST_CASE("a copy of the process takes over a lock that its holder left behind, once") {
  Lock lock;
  Lock other;
  std::atomic<std::uint32_t> marker = 1;
  Lock::watch(&marker);
  lock.lock();
  marker = 0;  // as the kernel does in a child
  lock.lock();
  CHECK(marker == 1);
  lock.unlock();
  other.lock();
  other.unlock();
  Lock::watch(nullptr);
}

TEST_CASE("no page has two holders, whatever threads take, give, resize and purge") {
  for_seeds(2, [](Random& random) {
    share_pages(1, 40, 1, random);
    share_pages(4, 200, 1, random);
    share_pages(3, 2 * kPagesPerChunk, 1, random);
  });
}

TEST_CASE("two purges at once leave no page marked wrongly") {
  for_seeds(4, [](Random& random) { share_pages(1, 20, 2, random); });
}

TEST_CASE("objects that are freed by any thread come back to their lane") {
  constexpr Pattern kPatterns[] = {
      {"each to its own", 4, 0, 100, 2},
      {"everything goes to others", 4, 0, 0, 2},
      {"half and half, many classes", 3, 0, 50, 20},
      {"producers and threads that only free", 2, 2, 0, 1},
  };
  for (const Pattern& pattern : kPatterns) {
    CAPTURE(std::string(pattern.name));
    for_seeds(2, [&](Random& random) { share_objects(pattern, random); });
  }
}

TEST_SUITE_END();

}  // namespace ashlar::test
