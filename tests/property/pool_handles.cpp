// SPDX-License-Identifier: MIT
// Objects with handles, locked, freed and made anew while passes move them: what a handle leads to
// is what was put there, and once that was freed, nothing.
#include "pool_handles.h"

#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <thread>

#include "../unit/quiet_heap.h"
#include "heap.h"
#include "property.h"

namespace ashlar::test {

namespace {

struct Object {
  Handle handle;
  Bytes bytes;
  std::uint64_t stamp;
};

// A pool that is there as long as this is.
struct Pool {
  MovablePool* const moves = PoolHandles::create();
  PoolHandles& handles = PoolHandles::of(moves->handle(), "test");
  ~Pool() { handles.destroy(); }

  Object make(Random& random, std::uint32_t most_bytes = 3000) {
    const Bytes bytes = std::max(random.up_to(most_bytes), 16u);
    const std::uint64_t word = handles.take(bytes);
    REQUIRE(word != 0);
    const Object object{Handle::of(word), bytes, random.next()};
    void* const p = handles.lock(object.handle);
    REQUIRE(p != nullptr);
    fill(p, bytes, object.stamp);
    REQUIRE(handles.unlock(object.handle));
    return object;
  }
  bool is_right(const Object& object) const {
    const void* const p = handles.lock(object.handle);
    return p != nullptr && is_filled(p, object.bytes, object.stamp) &&
           handles.usable_bytes(object.handle) >= object.bytes && handles.unlock(object.handle);
  }
  bool is_gone(const Object& object) const {
    return handles.lock(object.handle) == nullptr && handles.usable_bytes(object.handle) == 0 &&
           !handles.give(object.handle) && !handles.unlock(object.handle);
  }
  ashlar_moved compact(std::uint64_t budget_us = UINT64_MAX, Bytes budget_bytes = SIZE_MAX) const {
    ashlar_moved moved{};
    bool busy = false;
    moves->compact(budget_us, budget_bytes, moved, busy);
    return moved;
  }
};

// So that there is something to move.
std::vector<Object> make_sparse(Pool& pool, Random& random, std::uint32_t count) {
  std::vector<Object> objects;
  for (std::uint32_t i = 0; i < count; i++) objects.push_back(pool.make(random));
  std::vector<Object> kept;
  for (const Object& object : objects) {
    if (random.chance(20)) {
      kept.push_back(object);
    } else {
      REQUIRE(pool.handles.give(object.handle));
    }
  }
  return kept;
}

}  // namespace

TEST_CASE("a handle leads to its object wherever that is, and nowhere once it was freed") {
  for_seeds(3, [](Random& random) {
    Pool pool;
    struct Locked {
      Object object;
      void* p;
    };
    std::vector<Object> objects, gone;
    std::vector<Locked> locked;
    for (std::uint32_t i = 0; i < steps(60'000); i++) {
      const std::uint32_t what = random.below(100);
      if (objects.empty() || what < (i / 8000 % 2 == 0 ? 45u : 20u)) {
        trace.step("make, of %zu", objects.size());
        objects.push_back(pool.make(random, random.chance(1) ? 60'000 : 3000));
      } else if (what < 60) {
        gone.push_back(pick(objects, random));
        trace.step("free %u", gone.back().handle.index);
        REQUIRE(pool.handles.give(gone.back().handle));
      } else if (what < 75) {
        const Object& o = objects[random.below(objects.size())];
        trace.step("lock %u", o.handle.index);
        locked.push_back({o, pool.handles.lock(o.handle)});
        REQUIRE(locked.back().p != nullptr);
      } else if (what < 92 && !locked.empty()) {
        const Locked l = pick(locked, random);
        trace.step("unlock %u", l.object.handle.index);
        REQUIRE(is_filled(l.p, l.object.bytes, l.object.stamp));
        REQUIRE(pool.handles.unlock(l.object.handle));
      } else if (!gone.empty()) {
        REQUIRE(pool.handles.lock(gone[random.below(gone.size())].handle) == nullptr);
      }
      if (random.below(300) == 0) {
        trace.step("compact");
        pool.compact(random.chance(50) ? UINT64_MAX : random.up_to(500),
                     random.chance(50) ? SIZE_MAX : random.up_to(1'000'000));
        for (const Locked& l : locked) {
          REQUIRE(is_filled(l.p, l.object.bytes, l.object.stamp));
          if (void* const again = pool.handles.lock(l.object.handle)) {  // otherwise it was freed
            REQUIRE(again == l.p);
            REQUIRE(pool.handles.unlock(l.object.handle));
          }
        }
      }
      if (random.below(3000) == 0) {
        REQUIRE(sound(arena.check_invariants()) == "");
        for (const Object& o : objects) REQUIRE(pool.is_right(o));
      }
    }
    for (const Locked& l : locked) REQUIRE(pool.handles.unlock(l.object.handle));
    for (const Object& o : gone) REQUIRE(pool.is_gone(o));
  });
}

TEST_CASE("a pass makes the pool dense, but for what is locked") {
  Random random(1);
  Pool pool;
  const std::vector<Object> objects = make_sparse(pool, random, 40'000);
  std::vector<const void*> stay;
  for (std::size_t i = 0; i < objects.size(); i += 50) {
    stay.push_back(pool.handles.lock(objects[i].handle));
  }
  const ashlar_moved moved = pool.compact();
  CHECK(moved.objects > objects.size() / 3);
  CHECK(moved.freed > 2 * moved.bytes);
  for (std::size_t i = 0; i < stay.size(); i++) {
    CHECK(pool.handles.lock(objects[50 * i].handle) == stay[i]);
  }
  for (const Object& o : objects) REQUIRE(pool.is_right(o));
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_CASE("an object that is freed while it is locked stays until the last unlock") {
  Random random(1);
  Pool pool;
  const Object object = pool.make(random);
  void* const p = pool.handles.lock(object.handle);
  CHECK(pool.handles.lock(object.handle) == p);
  CHECK(pool.handles.give(object.handle));
  CHECK_FALSE(pool.handles.give(object.handle));
  CHECK(pool.handles.lock(object.handle) == nullptr);
  for (int i = 0; i < 100; i++) pool.make(random);
  CHECK(is_filled(p, object.bytes, object.stamp));
  CHECK(pool.handles.unlock(object.handle));
  CHECK(is_filled(p, object.bytes, object.stamp));
  CHECK(pool.handles.unlock(object.handle));
  CHECK(pool.is_gone(object));
}

TEST_CASE("an entry is used again until its generations are used up") {
  using Entry = HandleEntry<62 - 3>;  // three bits of generation
  Entry entry(Entry::kFree, 0, 0);
  for (std::uint32_t g = 0; g < 7; g++) {
    CHECK(entry.is_reusable());
    entry = Entry(Entry::kFree, g + 1, 0);
  }
  CHECK_FALSE(entry.is_reusable());
  Pool pool;
  const Handle first = Handle::of(pool.handles.take(100));
  CHECK(pool.handles.give(first));
  const Handle second = Handle::of(pool.handles.take(100));
  CHECK(second.index == first.index);
  CHECK(second.generation == first.generation + 1);
  CHECK_FALSE(pool.handles.unlock(second));
  for (const std::uint64_t nonsense : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 31,
                                       Handle{60, 0}.word(), Handle{64, 0}.word()}) {
    CHECK(pool.handles.lock(Handle::of(nonsense)) == nullptr);
    CHECK_FALSE(pool.handles.give(Handle::of(nonsense)));
  }
}

// The objects are large, so that a move takes its time.
TEST_CASE("what is written under a lock is not lost to a move") {
  constexpr std::uint32_t kCounters = 40;
  constexpr Bytes kBytes = 30'000;
  Pool pool;
  std::uint64_t moved = 0;
  for (std::uint32_t round = 0; round < steps(40); round++) {
    std::vector<Handle> counters, fillers;
    std::vector<std::atomic<std::uint64_t>> counted(kCounters);
    for (std::uint32_t i = 0; i < kCounters; i++) {
      counters.push_back(Handle::of(pool.handles.take(kBytes)));
      *static_cast<std::uint64_t*>(pool.handles.lock(counters[i])) = 0;
      REQUIRE(pool.handles.unlock(counters[i]));
      for (int n = 0; n < 7; n++) fillers.push_back(Handle::of(pool.handles.take(kBytes)));
    }
    for (const Handle h : fillers) REQUIRE(pool.handles.give(h));

    std::atomic<bool> ends = false;
    std::atomic<std::uint32_t> broken = 0, begun = 0;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 2; t++) {
      threads.emplace_back([&, t] {
        Random mine(t + 1);
        for (begun++; !ends;) {
          const std::uint32_t c = mine.below(kCounters);
          auto* const counter = static_cast<std::uint64_t*>(pool.handles.lock(counters[c]));
          std::atomic_ref(*counter)++;
          counted[c]++;
          broken += !pool.handles.unlock(counters[c]);
        }
        heap.end_this_thread();
      });
    }
    while (begun != threads.size()) std::this_thread::yield();
    for (int pass = 0; pass < 10; pass++) moved += pool.compact().objects;
    ends = true;
    for (std::thread& thread : threads) thread.join();
    REQUIRE(broken == 0);
    for (std::uint32_t i = 0; i < kCounters; i++) {
      REQUIRE(*static_cast<std::uint64_t*>(pool.handles.lock(counters[i])) == counted[i]);
      REQUIRE(pool.handles.unlock(counters[i]));
      REQUIRE(pool.handles.give(counters[i]));
    }
  }
  CHECK(moved > 0);
}

TEST_CASE("threads that make, lock and free never take one object for another while passes run") {
  Pool pool;
  std::vector<std::atomic<std::uint64_t>> places(2000);  // of handles, for all threads
  std::atomic<std::uint32_t> broken = 0, working = 3;
  const auto come_and_go = [&](Random& random, bool grows) {
    std::atomic<std::uint64_t>& place = places[random.below(places.size())];
    const auto give = [&](std::uint64_t word) {
      if (word != 0) broken += !pool.handles.give(Handle::of(word));
    };
    const std::uint32_t what = random.below(100);
    if (what < (grows ? 55u : 5u)) {  // its content follows from its handle
      const Handle h = Handle::of(pool.handles.take(std::max(random.up_to(2000), 16u)));
      fill(pool.handles.lock(h), 16, h.word());
      broken += !pool.handles.unlock(h);
      give(place.exchange(h.word()));
    } else if (what < 60) {
      give(place.exchange(0));
    } else if (const std::uint64_t word = place.load(); word != 0) {
      if (const void* const p = pool.handles.lock(Handle::of(word))) {
        broken += !is_filled(p, 16, word);
        broken += !pool.handles.unlock(Handle::of(word));
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; t++) {
    threads.emplace_back([&, t] {
      Random mine(t + 1);
      for (std::uint32_t i = 0; i < steps(100'000); i++) come_and_go(mine, i / 5000 % 2 == 0);
      heap.end_this_thread();
      working--;
    });
  }
  while (working != 0) pool.compact(UINT64_MAX, 100'000);  // how many move, the scheduler says
  for (std::thread& thread : threads) thread.join();
  CHECK(broken == 0);
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_CASE("a child that another thread forked in a pass has each object once") {
  Random random(1);
  Pool pool;
  const std::vector<Object> objects = make_sparse(pool, random, 20'000);
  ashlar_move moves[200];
  bool busy = false;
  const std::size_t n = pool.moves->begin(UINT64_MAX, SIZE_MAX, moves, 200, busy);
  REQUIRE(n == 200);
  int status = -1;
  std::thread([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      bool right = pool.handles.give(objects[0].handle);
      pool.compact();
      for (const Object& o : objects) right &= pool.is_right(o) == (&o != &objects[0]);
      ashlar_heap_stats stats;
      pool.moves->count(stats);
      right &= stats.objects == objects.size() - 1;
      right &= arena.check_invariants() == nullptr;
      ::_exit(right ? 0 : 1);
    }
    ::waitpid(child, &status, 0);
  }).join();
  CHECK(status == 0);
  ashlar_moved moved{};
  pool.moves->end(moves, n, moved);
}

TEST_CASE("a child that is forked at any time of a pass finds every object, and goes on") {
  Random random(1);
  Pool pool;
  std::vector<Object> objects = make_sparse(pool, random, 20'000);
  std::atomic<bool> ends = false;
  std::atomic<int> wrong = 0;
  std::thread passes([&] {
    Random mine(2);
    while (!ends) {
      pool.compact(100);
      std::vector<Object> sparse = make_sparse(pool, mine, 200);
      for (const Object& o : sparse) wrong += !pool.handles.give(o.handle);
    }
    heap.end_this_thread();
  });
  for (std::uint32_t i = 0; i < steps(100); i++) {
    const pid_t child = ::fork();
    if (child == 0) {
      bool right = true;
      if (random.chance(50)) pool.compact();
      for (const Object& o : objects) right &= pool.is_right(o);
      for (std::size_t n = 0; n < objects.size(); n += 3)
        right &= pool.handles.give(objects[n].handle);
      pool.compact();
      for (std::size_t n = 0; n < objects.size(); n++) {
        right &= n % 3 == 0 ? pool.is_gone(objects[n]) : pool.is_right(objects[n]);
      }
      ::_exit(right ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    wrong += status != 0;
    ::usleep(random.below(2000));
  }
  ends = true;
  passes.join();
  CHECK(wrong == 0);
  for (const Object& o : objects) REQUIRE(pool.is_right(o));
}

// Large objects, so that a pass spends its time copying. What a child could not move would move
// once it had been locked.
TEST_CASE("a child that is forked in the middle of a move can move that object, too") {
  int wrong = 0;
  for (std::uint32_t round = 0; round < steps(40); round++) {
    Random random(round + 1);
    Pool pool;
    std::vector<Handle> handles;
    for (int i = 0; i < 400; i++) {
      const Handle h = Handle::of(pool.handles.take(30'000));
      std::memset(pool.handles.lock(h), 1, 30'000);
      REQUIRE(pool.handles.unlock(h));
      handles.push_back(h);
    }
    for (std::size_t i = 0; i < handles.size(); i++) {
      if (i % 4 != 0) REQUIRE(pool.handles.give(handles[i]));
    }
    std::atomic<bool> begun = false;
    std::thread passes([&] {
      begun = true;
      pool.compact();
      heap.end_this_thread();
    });
    while (!begun) os::pause();
    for (std::uint32_t spin = random.below(5000); spin != 0; spin--) os::pause();
    const pid_t child = ::fork();
    if (child == 0) {
      // At _exit() TSan would miss a join of the thread, which is the parent's to do.
      while (pool.compact().objects != 0) continue;
      for (std::size_t i = 0; i < handles.size(); i += 4) {
        if (pool.handles.lock(handles[i]) == nullptr || !pool.handles.unlock(handles[i]))
          std::quick_exit(2);
      }
      std::quick_exit(pool.compact().objects == 0 ? 0 : 1);
    }
    passes.join();
    int status = -1;
    ::waitpid(child, &status, 0);
    wrong += status != 0;
  }
  CHECK(wrong == 0);
}

}  // namespace ashlar::test
