// SPDX-License-Identifier: MIT
// Pools whose objects move while the program goes on: what is reached by tag is always what was
// put there, whatever callbacks do.
#include "movable_pools.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

#include "../unit/quiet_heap.h"
#include "heap.h"
#include "notices.h"
#include "property.h"

namespace ashlar::test {

namespace {

struct Object {
  void* p = nullptr;
  Bytes bytes = 0;
  std::uint64_t stamp = 0;
  std::uint32_t pins = 0;
};

// Objects by tag, and a pool that moves them.
struct Table {
  explicit Table(std::uint64_t seed) : random(seed), objects(4000) {}
  ~Table() { pool->destroy(); }
  Table(const Table&) = delete;

  void put(std::uint64_t tag) {
    Object& o = objects[tag];
    o.bytes = std::max(random.up_to(random.chance(2) ? 60'000 : 4'000), 16u);
    o.stamp = random.next();
    o.p = pool->take(o.bytes, tag);
    REQUIRE(o.p != nullptr);
    fill(o.p, o.bytes, o.stamp);
  }
  void drop(std::uint64_t tag) {
    Object& o = objects[tag];
    REQUIRE(is_right(tag));
    pool->give(o.p, "free");
    o = {};
  }
  bool is_right(std::uint64_t tag) const {
    const Object& o = objects[tag];
    return o.p == nullptr || (is_filled(o.p, o.bytes, o.stamp) && pool->tag(o.p, "tag") == tag &&
                              pool->usable_bytes(o.p, "size") >= o.bytes);
  }
  ashlar_verdict relocate(void* from, void* to, std::size_t bytes, std::uint64_t tag);

  static ashlar_verdict call(void* table, void* from, void* to, std::size_t bytes,
                             std::uint64_t tag) {
    return static_cast<Table*>(table)->relocate(from, to, bytes, tag);
  }
  MovablePool* pool = MovablePool::create(call, this);
  Random random;
  std::vector<Object> objects;
  bool forks = true;
  std::uint32_t broken = 0;
};

// Copies, mostly; and all that a callback may do.
ashlar_verdict Table::relocate(void* from, void* to, std::size_t bytes, std::uint64_t tag) {
  Object& o = objects[tag];
  broken += o.p != from || o.pins != 0 || !is_right(tag);
  const std::uint32_t what = random.below(100);
  if (what < 10) return ASHLAR_SKIP;
  if (what < 15) {
    o = {};
    return ASHLAR_FREED;
  }
  if (what < 20) {  // freed behind the pass's back
    pool->give(from, "free");
    o = {};
    return random.chance(50) ? ASHLAR_SKIP : ASHLAR_COPIED;
  }
  std::memcpy(to, from, bytes);
  o.p = to;
  if (what < 30) {
    const std::uint64_t other = random.below(objects.size());
    if (other != tag && objects[other].p != nullptr && objects[other].pins == 0) drop(other);
  } else if (what < 40) {
    const std::uint64_t other = random.below(objects.size());
    if (objects[other].p == nullptr) put(other);
  } else if (what < 45) {
    broken += !pool->pin(to, "pin");
    pool->unpin(to, "unpin");
  } else if (what < 50) {
    broken += pool->pin(from, "pin");  // it is on its way
  } else if (what == 50 && forks) {
    const pid_t child = ::fork();
    if (child == 0) {
      // Another thread than the pass's, as far as the pool can tell: what moves is put right.
      bool right = true;
      std::thread([&] {
        forks = false;
        for (std::uint64_t t = 0; t < objects.size(); t++) right &= t == tag || is_right(t);
      }).join();
      ::_exit(right ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    broken += status != 0;
  } else if (what < 53) {
    pool->give(to, "free");  // copied, and freed at its new place before the pass ends
    o = {};
  }
  return ASHLAR_COPIED;
}

}  // namespace

TEST_CASE("what a tag leads to is what was put there, whatever passes and callbacks do") {
  for_seeds(3, [](Random& random) {
    Table table(random.next());
    for (std::uint32_t i = 0; i < steps(40'000); i++) {
      const std::uint64_t tag = random.below(table.objects.size());
      Object& o = table.objects[tag];
      if (o.p == nullptr) {
        trace.step("put %zu", static_cast<std::size_t>(tag));
        if (random.chance(i / 8000 % 2 == 0 ? 90 : 20)) table.put(tag);
      } else if (o.pins != 0 && random.chance(50)) {
        trace.step("unpin %p", o.p);
        table.pool->unpin(o.p, "unpin");
        o.pins--;
      } else if (random.chance(3)) {
        trace.step("pin %p", o.p);
        REQUIRE(table.pool->pin(o.p, "pin"));
        o.pins++;
      } else if (o.pins == 0 && random.chance(60)) {
        trace.step("drop %p", o.p);
        table.drop(tag);
      }
      if (random.below(300) == 0) {
        trace.step("compact");
        ashlar_moved moved{};
        bool busy = false;
        table.pool->compact(random.chance(50) ? UINT64_MAX : random.up_to(500),
                            random.chance(50) ? SIZE_MAX : random.up_to(1'000'000), moved, busy);
        REQUIRE(!busy);
      }
      if (random.below(2000) == 0) {
        REQUIRE(sound(arena.check_invariants()) == "");
        for (std::uint64_t t = 0; t < table.objects.size(); t++) REQUIRE(table.is_right(t));
      }
    }
    REQUIRE(table.broken == 0);
  });
}

TEST_CASE("a pass by hand does what it was told, entry by entry") {
  for_seeds(3, [](Random& random) {
    Table table(random.next());
    for (std::uint64_t t = 0; t < table.objects.size(); t++) table.put(t);
    for (std::uint64_t t = 0; t < table.objects.size(); t++) {
      if (random.chance(70)) table.drop(t);
    }
    for (int pass = 0; pass < 50; pass++) {
      ashlar_move moves[100];
      bool busy = false;
      const std::size_t n = table.pool->begin(UINT64_MAX, SIZE_MAX, moves, 100, busy);
      REQUIRE(!busy);
      ashlar_move none[1];
      table.pool->begin(UINT64_MAX, SIZE_MAX, none, 1, busy);
      REQUIRE(busy);
      for (std::size_t i = 0; i < n; i++) {
        ashlar_move& m = moves[i];
        Object& o = table.objects[m.tag];
        REQUIRE(o.p == m.from);
        REQUIRE(m.verdict == ASHLAR_SKIP);
        REQUIRE(m.bytes >= o.bytes);
        m.verdict = static_cast<ashlar_verdict>(random.below(3));
        if (m.verdict == ASHLAR_FREED) o = {};
        if (m.verdict != ASHLAR_COPIED) continue;
        std::memcpy(m.to, m.from, m.bytes);
        o.p = m.to;
      }
      ashlar_moved moved{};
      table.pool->end(moves, n, moved);
      REQUIRE(sound(arena.check_invariants()) == "");
      for (std::uint64_t t = 0; t < table.objects.size(); t++) REQUIRE(table.is_right(t));
    }
  });
}

TEST_CASE("several threads use and compact one pool") {
  struct Shared {
    std::mutex mutex;  // over the table, not over the pool
    std::vector<Object> objects = std::vector<Object>(2000);
    MovablePool* pool = nullptr;
  } shared;
  const auto relocate = [](void* context, void* from, void* to, std::size_t bytes,
                           std::uint64_t tag) {
    auto& s = *static_cast<Shared*>(context);
    const std::lock_guard lock(s.mutex);
    if (s.objects[tag].p != from) return ASHLAR_SKIP;  // freed meanwhile
    std::memcpy(to, from, bytes);
    s.objects[tag].p = to;
    return ASHLAR_COPIED;
  };
  shared.pool = MovablePool::create(relocate, &shared);
  std::atomic<int> broken = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      Random random(t + 1);
      for (std::uint32_t i = 0; i < steps(20'000); i++) {
        const std::uint64_t tag = random.below(shared.objects.size());
        {
          const std::lock_guard lock(shared.mutex);
          Object& o = shared.objects[tag];
          if (o.p == nullptr) {
            o.bytes = std::max(random.up_to(2000), 16u);
            o.stamp = random.next();
            o.p = shared.pool->take(o.bytes, tag);
            fill(o.p, o.bytes, o.stamp);
          } else {
            broken += !is_filled(o.p, o.bytes, o.stamp);
            if (random.chance(60)) {
              shared.pool->give(o.p, "free");
              o = {};
            } else if (shared.pool->pin(o.p, "pin")) {
              shared.pool->unpin(o.p, "unpin");
            }
          }
        }
        if (random.below(100) == 0) {
          ashlar_moved moved{};
          bool busy = false;
          shared.pool->compact(200, SIZE_MAX, moved, busy);
        }
      }
      heap.end_this_thread();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(broken == 0);
  for (const Object& o : shared.objects) {
    if (o.p != nullptr) CHECK(is_filled(o.p, o.bytes, o.stamp));
  }
  CHECK(sound(arena.check_invariants()) == "");
  shared.pool->destroy();
}

TEST_CASE("who wants notices is told before and after each pass what it does") {
  struct Told {
    Table& table;
    std::uint32_t begun = 0, ended = 0, wrong = 0;
    ashlar_moved moved = {};

    void note(const ashlar_notice& notice) {
      wrong += notice.pool != table.pool->handle();
      // What a program may do here.
      const std::uint64_t tag = table.random.below(table.objects.size());
      const bool is_there = table.objects[tag].p != nullptr;
      if (is_there) {
        table.drop(tag);
      } else {
        table.put(tag);
      }
      ashlar_moved none{};
      bool busy = false;
      if (notice.event == ASHLAR_PASS_BEGINS) {
        wrong += begun++ != ended;
        table.pool->compact(1000, SIZE_MAX, none, busy);
        wrong += !busy;
      } else {
        wrong += notice.event != ASHLAR_PASS_ENDED || begun != ++ended;
        moved.objects += notice.moved.objects;
        moved.bytes += notice.moved.bytes;
      }
    }
  };
  for_seeds(3, [](Random& random) {
    Table table(random.next());
    table.forks = false;
    Told told{table};
    notices.set([](void* t, const ashlar_notice* n) { static_cast<Told*>(t)->note(*n); }, &told);
    ashlar_moved moved{};
    for (std::uint32_t pass = 1; pass <= steps(200); pass++) {
      trace.step("pass %u", pass);
      for (std::uint64_t t = 0; t < table.objects.size(); t++) {
        Object& o = table.objects[t];
        if (o.p == nullptr && random.chance(5)) table.put(t);
        if (o.p != nullptr && random.chance(5)) table.drop(t);
      }
      bool busy = false;
      if (random.chance(50)) {
        table.pool->compact(random.up_to(500), SIZE_MAX, moved, busy);
      } else {
        ashlar_move moves[20];
        const std::size_t n = table.pool->begin(UINT64_MAX, SIZE_MAX, moves, 20, busy);
        table.pool->end(moves, n, moved);
      }
      REQUIRE(told.begun == pass);
      REQUIRE(told.ended == pass);
    }
    notices.set(nullptr, nullptr);
    REQUIRE(told.wrong == 0);
    REQUIRE(table.broken == 0);
    REQUIRE(told.moved.objects == moved.objects);
    REQUIRE(told.moved.bytes == moved.bytes);
    REQUIRE(moved.objects > 0);
    for (std::uint64_t t = 0; t < table.objects.size(); t++) REQUIRE(table.is_right(t));
  });
}

TEST_CASE("what a callback frees is not offered any more in the same pass") {
  struct Chain {
    MovablePool* pool = nullptr;
    std::vector<void*> objects;
    std::uint32_t offered_freed = 0;
  } chain;
  // Frees what was put beside it, which mostly is to leave next.
  const auto relocate = [](void* context, void* from, void* to, std::size_t bytes,
                           std::uint64_t tag) {
    auto& [pool, objects, offered_freed] = *static_cast<Chain*>(context);
    offered_freed += objects[tag] != from;
    std::memcpy(to, from, bytes);
    objects[tag] = to;
    for (std::uint64_t next = tag + 1; next < objects.size() && next < tag + 20; next++) {
      if (objects[next] == nullptr) continue;
      pool->give(objects[next], "free");
      objects[next] = nullptr;
      break;
    }
    return ASHLAR_COPIED;
  };
  chain.pool = MovablePool::create(relocate, &chain);
  for (std::uint64_t tag = 0; tag < 4000; tag++) {
    chain.objects.push_back(chain.pool->take(400, tag));
    REQUIRE(chain.objects[tag] != nullptr);
  }
  for (std::uint64_t tag = 0; tag < 4000; tag++) {
    if (tag % 10 == 0) continue;
    chain.pool->give(chain.objects[tag], "free");
    chain.objects[tag] = nullptr;
  }
  ashlar_moved moved{};
  bool busy = false;
  while (chain.pool->compact(1'000'000, SIZE_MAX, moved, busy)) continue;
  CHECK(moved.objects > 50);
  CHECK(chain.offered_freed == 0);
  chain.pool->destroy();
}

TEST_CASE("a quiet moment is for all pools, in turn") {
  Random random(1);
  constexpr std::size_t kTables = 5;
  std::unique_ptr<Table> tables[kTables];
  const auto thin_out = [&] {
    for (auto& table : tables) {
      for (std::uint64_t t = 0; t < table->objects.size(); t++) {
        if (table->objects[t].p == nullptr) table->put(t);
      }
      for (std::uint64_t t = 0; t < table->objects.size(); t++) {
        if (random.chance(80)) table->drop(t);
      }
    }
  };
  for (auto& table : tables) {
    table = std::make_unique<Table>(random.next());
    table->forks = false;
    movable_pools.add(*table->pool);
  }
  MovablePool* const by_hand = MovablePool::create(nullptr, nullptr);  // has no function
  movable_pools.add(*by_hand);
  std::uint32_t told[kTables] = {};
  const auto note = [&](const ashlar_notice& notice) {
    if (notice.event != ASHLAR_PASS_BEGINS) return;
    for (std::size_t i = 0; i < kTables; i++) {
      told[i] += notice.pool == tables[i]->pool->handle();
    }
  };
  notices.set([](void* n, const ashlar_notice* it) { (*static_cast<decltype(note)*>(n))(*it); },
              const_cast<void*>(static_cast<const void*>(&note)));
  thin_out();
  ashlar_moved moved{};
  CHECK(movable_pools.compact(0, moved));
  CHECK(moved.objects == 0);
  while (movable_pools.compact(1'000'000, moved)) continue;
  CHECK(moved.objects > 100);
  for (const std::uint32_t count : told) CHECK(count >= 1);

  // However short the moments are, each comes to its turn.
  thin_out();
  std::memset(told, 0, sizeof told);
  for (int i = 0; i < 100'000 && std::count(told, told + kTables, 0u) != 0; i++) {
    movable_pools.compact(50, moved);
  }
  for (const std::uint32_t count : told) CHECK(count >= 1);
  notices.set(nullptr, nullptr);
  movable_pools.remove(*tables[2]->pool);
  tables[2].reset();
  movable_pools.compact(1'000'000, moved);
  for (auto& table : tables) {
    if (table == nullptr) continue;
    for (std::uint64_t t = 0; t < table->objects.size(); t++) REQUIRE(table->is_right(t));
    CHECK(table->broken == 0);
    movable_pools.remove(*table->pool);
  }
  movable_pools.remove(*by_hand);
  movable_pools.remove(*by_hand);  // it is not there any more
  by_hand->destroy();
}

TEST_CASE("a child that another thread forked in the middle of a pass puts it right") {
  Table table(1);
  for (std::uint64_t t = 0; t < 4000; t++) table.put(t);
  for (std::uint64_t t = 0; t < 4000; t++) {
    if (t % 3 != 0) table.drop(t);
  }
  ashlar_move moves[100];
  bool busy = false;
  const std::size_t n = table.pool->begin(UINT64_MAX, SIZE_MAX, moves, 100, busy);
  REQUIRE(n > 10);
  for (std::size_t i = 0; i < n; i += 2) {  // these have arrived
    std::memcpy(moves[i].to, moves[i].from, moves[i].bytes);
    table.objects[moves[i].tag].p = moves[i].to;
    moves[i].verdict = ASHLAR_COPIED;
  }
  int status = -1;
  std::thread([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      bool right = true;
      const auto look = [&] {
        for (std::uint64_t t = 0; t < 4000; t++) right &= table.is_right(t);
      };
      look();
      right &= table.pool->pin(moves[0].to, "pin") && table.pool->pin(moves[1].from, "pin");
      table.pool->unpin(moves[0].to, "unpin");
      table.pool->unpin(moves[1].from, "unpin");
      for (std::uint64_t t = 0; t < 4000; t += 6) table.drop(t);
      ashlar_moved moved{};
      table.forks = false;
      for (int i = 0; i < 100; i++) table.pool->compact(UINT64_MAX, SIZE_MAX, moved, busy);
      right &= moved.objects > 0 && table.broken == 0;
      look();
      right &= arena.check_invariants() == nullptr;
      ::_exit(right ? 0 : 1);
    }
    ::waitpid(child, &status, 0);
  }).join();
  CHECK(status == 0);
  ashlar_moved moved{};
  table.pool->end(moves, n, moved);
  CHECK(moved.objects == (n + 1) / 2);
  CHECK(moved.skipped == n / 2);
  for (std::uint64_t t = 0; t < 4000; t++) CHECK(table.is_right(t));
}

}  // namespace ashlar::test
