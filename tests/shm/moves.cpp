// SPDX-License-Identifier: MIT
// Hints and moves in a shared arena: what a program moves becomes dense, and nothing of it is lost.
#include <atomic>
#include <cerrno>
#include <sched.h>
#include <thread>

#include "shm.h"

namespace ashlar::test {

namespace {

// Blocks that their program finds by number; each has a pattern that goes by its number.
class Blocks {
 public:
  explicit Blocks(ashlar_shm* arena) : arena_(arena) {}

  void add(Bytes bytes) {
    auto* const p = static_cast<std::byte*>(ashlar_shm_malloc(arena_, bytes));
    REQUIRE(p != nullptr);
    fill(p, bytes, all_.size());
    all_.push_back({p, bytes});
  }
  // As in make_gaps(): so many percent of them stay.
  void thin_out(Random& random, std::uint32_t percent) {
    for (Block& block : all_) {
      if (!random.chance(percent)) remove(block);
    }
  }
  void verify() const {
    for (std::size_t i = 0; i < all_.size(); i++) {
      if (all_[i].p != nullptr) REQUIRE(is_filled(all_[i].p, all_[i].bytes, i));
    }
  }
  // Once through all of them. Returns how many bytes moved.
  Bytes go_round() {
    Bytes moved = 0;
    for (Block& block : all_) {
      if (block.p == nullptr || ashlar_shm_frag_hint(arena_, block.p) == 0) continue;
      void* const to = ashlar_shm_frag_move(arena_, block.p);
      if (to == nullptr) continue;
      REQUIRE(ashlar_shm_frag_hint(arena_, to) == 0);  // nothing moves twice
      block.p = to;
      moved += ashlar_shm_usable_size(arena_, to);
    }
    return moved;
  }
  // Until nothing moves under a new plan.
  Bytes compact() {
    Bytes moved = 0;
    for (Bytes now = 1; now != 0; moved += now) {
      ::usleep(150'000);
      now = go_round();
    }
    return moved;
  }
  void remove_all() {
    for (Block& block : all_) remove(block);
  }

 private:
  struct Block {
    void* p;
    Bytes bytes;
  };
  void remove(Block& block) {
    ashlar_shm_free(arena_, block.p);
    block.p = nullptr;
  }

  ashlar_shm* arena_;
  std::vector<Block> all_;
};

double fragmentation(Shared& arena) {
  const ashlar_shm_stats s = arena.stats();
  return static_cast<double>(s.active) / static_cast<double>(s.allocated);
}

constexpr std::uint32_t kBlocks = 40'000;
constexpr std::uint32_t kMostBytes = 512;

}  // namespace

TEST_SUITE_BEGIN("moves");

TEST_CASE("a program that follows hints has a dense arena, and moves less than it frees") {
  Shared arena(anonymous(256 * kMiB));
  Random random(1);
  Blocks blocks(arena);
  for (std::uint32_t i = 0; i < 5 * kBlocks; i++) blocks.add(random.between(16, kMostBytes));
  blocks.thin_out(random, 50);
  const ashlar_shm_stats before = arena.stats();
  CHECK(fragmentation(arena) > 1.8);
  const Bytes moved = blocks.compact();
  const ashlar_shm_stats after = arena.stats();
  const auto freed = static_cast<double>(before.active - after.active);
  MESSAGE("active ÷ allocated: " << fragmentation(arena)
                                 << ", moved ÷ freed: " << static_cast<double>(moved) / freed
                                 << ", mapped: " << before.mapped / kMiB << " → "
                                 << after.mapped / kMiB << " MiB");
  CHECK(fragmentation(arena) < 1.1);  // 28 classes have a slab each that is half full
  CHECK(static_cast<double>(moved) < 1.5 * freed);
  blocks.verify();
  CHECK(arena.broken() == "");
  blocks.remove_all();
  CHECK(arena.blocks() == 0);
  CHECK(arena.stats().bad_frees == 0);
}

TEST_CASE("what processes left that are gone is moved together, too") {
  Shared arena(anonymous(64 * kMiB));
  struct Left {
    ashlar_off block[kBlocks / 4];
  };
  auto* const left = static_cast<Left*>(arena.take(4 * sizeof(Left)));
  for (std::uint64_t c = 0; c < 4; c++) {
    Child child([&] {
      Random random(c);
      for (ashlar_off& at : left[c].block) {
        void* const p = ashlar_shm_malloc(arena, 200);
        at = ashlar_shm_offset(arena, p);
        fill(p, 200, at);
      }
      for (ashlar_off& at : left[c].block) {
        if (random.chance(20)) continue;
        ashlar_shm_free(arena, ashlar_shm_pointer(arena, at));
        at = 0;
      }
      ::raise(SIGKILL);
    });
    CHECK(WTERMSIG(child.wait()) == SIGKILL);
  }
  CHECK(ashlar_shm_recover(arena) >= 0);
  CHECK(arena.stats().recoveries == 4);
  CHECK(fragmentation(arena) > 3);
  std::uint32_t moved = 0;
  for (int round = 0; round < 5; round++, ::usleep(150'000)) {
    for (std::uint32_t c = 0; c < 4; c++) {
      for (ashlar_off& at : left[c].block) {
        void* const p = ashlar_shm_pointer(arena, at);
        if (p == nullptr || ashlar_shm_frag_hint(arena, p) == 0) continue;
        const ashlar_off from = at;
        const ashlar_off to = ashlar_shm_frag_move_at(arena, &at);
        REQUIRE(at == (to == 0 ? from : to));
        REQUIRE(is_filled(ashlar_shm_pointer(arena, at), 200, from));
        fill(ashlar_shm_pointer(arena, at), 200, at);
        moved += to != 0;
      }
    }
  }
  CHECK(moved > 100);
  CHECK(fragmentation(arena) < 1.2);
  CHECK(arena.broken() == "");
}

TEST_CASE("while one process moves, another takes, gives and reads under the program's lock") {
  Shared arena(anonymous(64 * kMiB));
  struct Table {
    std::atomic<pid_t> lock;
    std::atomic<bool> stop;
    std::atomic<std::uint64_t> read;
    ashlar_off block[4000];
  };
  auto* const table = static_cast<Table*>(arena.take(sizeof(Table)));
  std::memset(static_cast<void*>(table), 0, sizeof *table);
  const auto locked = [](Table& t, auto&& act) {
    for (pid_t none = 0; !t.lock.compare_exchange_weak(none, ::getpid()); none = 0) ::sched_yield();
    act();
    t.lock.store(0);
  };
  constexpr Bytes kBytes = 256;
  const auto replace = [](ashlar_shm* a, ashlar_off& at, std::size_t i) {
    if (at != 0) ashlar_shm_free(a, ashlar_shm_pointer(a, at));
    void* const p = ashlar_shm_malloc(a, kBytes);
    if (p == nullptr) ::_exit(2);
    fill(p, kBytes, i);
    at = ashlar_shm_offset(a, p);
  };
  for (std::size_t i = 0; i < std::size(table->block); i++) replace(arena, table->block[i], i);
  Child other([&] {
    ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(arena), 0);
    Table& t = *static_cast<Table*>(ashlar_shm_pointer(own, ashlar_shm_offset(arena, table)));
    Random random(1);
    while (!t.stop.load()) {
      locked(t, [&] {
        const std::size_t i = random.below(std::size(t.block));
        const void* const p = ashlar_shm_pointer(own, t.block[i]);
        if (p != nullptr && !is_filled(p, kBytes, i)) ::_exit(3);
        if (random.chance(10)) replace(own, t.block[i], i);
        if (random.chance(10)) {
          ashlar_shm_free(own, ashlar_shm_pointer(own, t.block[i]));
          t.block[i] = 0;
        }
        t.read++;
      });
    }
  });
  std::uint64_t moved = 0;
  const std::uint32_t rounds = steps(40);
  for (std::uint32_t round = 0; round < rounds; round++) {
    ::usleep(10'000);
    locked(*table, [&] {
      for (std::size_t i = 0; i < std::size(table->block); i++) {
        void* const p = ashlar_shm_pointer(arena, table->block[i]);
        if (p == nullptr) {
          if (i % 4 == round % 4) replace(arena, table->block[i], i);
        } else if (ashlar_shm_frag_hint(arena, p) != 0) {
          moved += ashlar_shm_frag_move_at(arena, &table->block[i]) != 0;
        }
      }
    });
  }
  table->stop.store(true);
  CHECK(other.wait() == 0);
  for (std::size_t i = 0; i < std::size(table->block); i++) {
    const void* const p = ashlar_shm_pointer(arena, table->block[i]);
    if (p != nullptr) REQUIRE(is_filled(p, kBytes, i));
  }
  MESSAGE(moved << " moves beside " << table->read.load() << " reads");
  CHECK(moved > 0);
  CHECK(arena.stats().bad_frees == 0);
  CHECK(ashlar_shm_recover(arena) >= 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("threads take, give and move each its own") {
  Shared arena(anonymous(128 * kMiB));
  const auto work = [&](std::uint64_t seed) {
    Random random(seed);
    std::vector<std::pair<void*, Bytes>> mine;
    const std::uint32_t count = steps(100'000);
    for (std::uint32_t i = 0; i < count; i++) {
      if (mine.size() < 3000 && random.chance(i % 20'000 < 10'000 ? 70 : 30)) {
        const Bytes bytes = random.up_to(4000);
        mine.emplace_back(ashlar_shm_malloc(arena, bytes), bytes);
        if (mine.back().first == nullptr) std::abort();
        fill(mine.back().first, bytes, seed);
      } else if (!mine.empty()) {
        const std::size_t at = random.below(mine.size());
        auto& [p, bytes] = mine[at];
        if (void* const to = ashlar_shm_frag_move(arena, p)) p = to;
        if (!is_filled(p, bytes, seed)) std::abort();
        if (random.chance(50)) continue;
        ashlar_shm_free(arena, p);
        std::swap(mine[at], mine.back());
        mine.pop_back();
      }
      if (i % 1000 == 0 && !mine.empty()) ashlar_shm_frag_hint(arena, mine[0].first);
    }
    for (const auto& [p, bytes] : mine) {
      if (!is_filled(p, bytes, seed)) std::abort();
      ashlar_shm_free(arena, p);
    }
  };
  std::thread first(work, 1);
  std::thread second(work, 2);
  first.join();
  second.join();
  CHECK(arena.blocks() == 0);
  CHECK(arena.stats().bad_frees == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("what cannot be moved stays, and says why") {
  Shared arena(anonymous());
  Shared other(anonymous());
  Shared reader(ashlar_shm_open_fd(ashlar_shm_fd(arena), ASHLAR_SHM_READ_ONLY));
  // Two slabs of 16 slots, in which one block, and one and a half slabs are in use.
  std::vector<void*> blocks;
  for (int i = 0; i < 40; i++) blocks.push_back(arena.take(4000));
  for (int i = 1; i < 16; i++) ashlar_shm_free(arena, blocks[static_cast<std::size_t>(i)]);
  void* const lonely = blocks[0];
  std::memset(lonely, 7, 4000);
  REQUIRE(ashlar_shm_frag_hint(arena, lonely) > 200);

  errno = 0;
  CHECK(ashlar_shm_frag_hint(nullptr, lonely) == 0);
  CHECK(ashlar_shm_frag_hint(other, lonely) == 0);
  CHECK(ashlar_shm_frag_hint(arena, nullptr) == 0);
  CHECK(ashlar_shm_frag_hint(arena, &blocks) == 0);
  void* const there = ashlar_shm_pointer(reader, ashlar_shm_offset(arena, lonely));
  CHECK(ashlar_shm_frag_hint(reader, there) == 0);
  CHECK(errno == 0);
  CHECK(ashlar_shm_frag_move(arena, blocks[20]) == nullptr);  // not worth it
  CHECK(ashlar_shm_frag_move(arena, nullptr) == nullptr);
  CHECK(ashlar_shm_frag_move(other, lonely) == nullptr);
  CHECK(errno == 0);
  CHECK(ashlar_shm_frag_move(arena, static_cast<char*>(lonely) + 16) == nullptr);
  CHECK(errno == EINVAL);
  errno = 0;
  CHECK(ashlar_shm_frag_move(arena, blocks[1]) == nullptr);  // it was freed
  CHECK(errno == EINVAL);
  errno = 0;
  CHECK(ashlar_shm_frag_move(nullptr, lonely) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(ashlar_shm_frag_move(reader, there) == nullptr);
  CHECK(errno == EACCES);
  ashlar_off outside = 0;
  CHECK(ashlar_shm_frag_move_at(arena, &outside) == 0);
  CHECK(errno == EINVAL);
  errno = 0;
  auto* const slot = static_cast<ashlar_off*>(arena.take(8));
  for (const ashlar_off nothing : {ashlar_off{0}, ~ashlar_off{0}, ashlar_off{16}}) {
    *slot = nothing;
    CHECK(ashlar_shm_frag_move_at(arena, slot) == 0);
    CHECK(*slot == nothing);
  }
  CHECK(errno == 0);
  CHECK(arena.stats().bad_frees == 0);

  *slot = ashlar_shm_offset(arena, lonely);
  const ashlar_off to = ashlar_shm_frag_move_at(arena, slot);
  CHECK(to != 0);
  CHECK(*slot == to);
  CHECK(static_cast<char*>(ashlar_shm_pointer(arena, to))[3999] == 7);
  CHECK(ashlar_shm_usable_size(arena, lonely) == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("a child of fork has a plan of its own") {
  Shared arena(anonymous(64 * kMiB));
  Random random(1);
  Blocks blocks(arena);
  for (std::uint32_t i = 0; i < kBlocks / 4; i++) blocks.add(200);
  blocks.thin_out(random, 20);
  blocks.go_round();
  Child child([&] {
    Random other(2);
    Blocks own(arena);
    for (std::uint32_t i = 0; i < kBlocks / 4; i++) own.add(200);
    own.thin_out(other, 20);
    own.compact();
    own.verify();
  });
  CHECK(child.wait() == 0);
  blocks.compact();
  blocks.verify();
  CHECK(arena.broken() == "");
}

TEST_SUITE_END();

}  // namespace ashlar::test
