// SPDX-License-Identifier: MIT
// Notices of a shared arena: what a handle's function is told of, by whom, and how often.
#include <cerrno>
#include <functional>

#include "shm.h"

namespace ashlar::test {

namespace {

// Listens to one handle.
class Ear {
 public:
  explicit Ear(ashlar_shm* arena, std::function<void(const ashlar_notice&)> act = {})
      : arena_(arena), act_(std::move(act)) {
    REQUIRE(ashlar_shm_set_notify(arena, hear, this) == 0);
  }
  ~Ear() { ashlar_shm_set_notify(arena_, nullptr, nullptr); }
  Ear(const Ear&) = delete;

  int count(ashlar_event event) const { return count_[event]; }
  const ashlar_notice& last(ashlar_event event) const { return last_[event]; }

 private:
  static void hear(void* ear, const ashlar_notice* notice) {
    Ear& self = *static_cast<Ear*>(ear);
    CHECK(notice->arena == self.arena_);
    CHECK(notice->pool == nullptr);
    self.count_[notice->event]++;
    self.last_[notice->event] = *notice;
    if (self.act_) self.act_(*notice);
  }

  ashlar_shm* arena_;
  std::function<void(const ashlar_notice&)> act_;
  int count_[4] = {};
  ashlar_notice last_[4] = {};
};

constexpr Bytes kBlock = 100 * kKiB;

std::vector<void*> fill_up_to(Shared& arena, std::uint32_t percent) {
  std::vector<void*> blocks;
  while (arena.stats().active * 100 < arena.stats().max_bytes * percent) {
    blocks.push_back(arena.take(kBlock));
  }
  return blocks;
}

std::vector<ashlar_handle> sparse_objects(ashlar_shm* arena) {
  std::vector<ashlar_handle> all, left;
  for (int i = 0; i < 5000; i++) all.push_back(ashlar_shm_handle_alloc(arena, 200));
  for (std::size_t i = 0; i < all.size(); i++) {
    REQUIRE(all[i] != 0);
    if (i % 10 == 0) left.push_back(all[i]);
    if (i % 10 != 0) REQUIRE(ashlar_shm_handle_free(arena, all[i]) == 0);
  }
  return left;
}

}  // namespace

TEST_SUITE_BEGIN("notices");

TEST_CASE("each part of a pass is told before and after, with what it did") {
  Shared arena(anonymous());
  Shared there(ashlar_shm_open_fd(ashlar_shm_fd(arena), 0));
  sparse_objects(arena);
  const Ear ear(arena);
  const Ear elsewhere(there);
  ashlar_moved moved{};
  REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, 1000, &moved) == 1);
  CHECK(ear.count(ASHLAR_PASS_BEGINS) == 1);
  CHECK(ear.count(ASHLAR_PASS_ENDED) == 1);
  CHECK(ear.last(ASHLAR_PASS_ENDED).moved.objects == moved.objects);
  CHECK(moved.objects > 0);
  ashlar_move moves[8];
  REQUIRE(ashlar_shm_pass_begin(arena, UINT64_MAX, SIZE_MAX, moves, 8) == 8);
  CHECK(ear.count(ASHLAR_PASS_BEGINS) == 2);
  CHECK(ear.count(ASHLAR_PASS_ENDED) == 1);
  REQUIRE(ashlar_shm_pass_end(arena, moves, 8, &moved) == 0);
  CHECK(ear.last(ASHLAR_PASS_ENDED).moved.skipped == 8);
  const std::uint64_t before = moved.objects;
  REQUIRE(ashlar_shm_quiescent(arena, UINT64_MAX, &moved) == 0);
  CHECK(ear.count(ASHLAR_PASS_BEGINS) == 3);
  CHECK(ear.count(ASHLAR_PASS_ENDED) == 3);
  CHECK(ear.last(ASHLAR_PASS_ENDED).moved.objects == moved.objects - before);
  CHECK(elsewhere.count(ASHLAR_PASS_BEGINS) == 0);
  CHECK(ashlar_shm_set_notify(arena, nullptr, nullptr) == 0);
  REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, &moved) == 0);
  CHECK(ear.count(ASHLAR_PASS_ENDED) == 3);
  CHECK(arena.broken() == "");
}

TEST_CASE("the function may take, give, lock, and compact when a pass has ended") {
  Shared arena(anonymous());
  std::vector<ashlar_handle> left = sparse_objects(arena);
  int busy = 0, nested = 0;
  const Ear ear(arena, [&](const ashlar_notice& notice) {
    ashlar_shm_free(arena, ashlar_shm_malloc(arena, 5000));
    REQUIRE(ashlar_shm_handle_lock(arena, left[0]) != nullptr);
    REQUIRE(ashlar_shm_handle_unlock(arena, left[0]) == 0);
    REQUIRE(ashlar_shm_handle_free(arena, left.back()) == 0);
    left.pop_back();
    if (notice.event == ASHLAR_PASS_BEGINS) {
      busy += ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) == -1 && errno == EBUSY;
    } else if (nested++ == 0) {
      REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) == 0);
    }
  });
  REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) == 0);
  CHECK(busy == 2);
  CHECK(nested == 2);
  CHECK(arena.blocks() == left.size());
  CHECK(arena.broken() == "");
}

TEST_CASE("an arena that is nearly full is told at once, and once when it is not any more") {
  for (const unsigned flags : {0u, unsigned{ASHLAR_SHM_FIXED_SIZE}}) {
    Shared arena(anonymous(16 * kMiB, flags));
    int inside = 0;
    const Ear ear(arena, [&](const ashlar_notice&) {
      if (void* const p = ashlar_shm_malloc(arena, kBlock)) ashlar_shm_free(arena, p);  // not told
      inside++;
    });
    std::vector<void*> blocks = fill_up_to(arena, 85);
    CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 0);
    const std::vector<void*> more = fill_up_to(arena, 92);
    CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 1);  // twice a second at most
    CHECK(inside == 1);
    const Bytes excess = ear.last(ASHLAR_MEMORY_SHORT).excess_bytes;
    CHECK(excess > 0);
    CHECK(excess <= kBlock + kPageBytes);
    ::usleep(600'000);
    blocks.push_back(arena.take(kBlock));
    CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 2);
    CHECK(ear.last(ASHLAR_MEMORY_SHORT).excess_bytes > excess);
    for (void* p : more) ashlar_shm_free(arena, p);
    REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
    CHECK(ear.count(ASHLAR_MEMORY_ENOUGH) == 0);  // not yet
    for (std::size_t i = 0; i < blocks.size() / 4; i++) ashlar_shm_free(arena, blocks[i]);
    REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
    REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
    CHECK(ear.count(ASHLAR_MEMORY_ENOUGH) == 1);
    CHECK(arena.broken() == "");
  }
}

TEST_CASE("slots, handles and publications tell as blocks do, and so does each call that fails") {
  for (const int way : {0, 1, 2}) {
    Shared arena(anonymous(4 * kMiB));
    auto* const slot = static_cast<ashlar_off*>(arena.take(8));
    const Ear ear(arena);
    const auto take = [&] {
      if (way == 0) return ashlar_shm_malloc(arena, 1000) != nullptr;
      if (way == 1) return ashlar_shm_handle_alloc(arena, 1000) != 0;
      return ashlar_shm_malloc_into(arena, 1000, slot) != 0;
    };
    while (take()) continue;
    CHECK(errno == ENOMEM);
    CHECK(ear.count(ASHLAR_MEMORY_SHORT) >= 2);  // above nine tenths; and when there was none
    CHECK(ear.last(ASHLAR_MEMORY_SHORT).excess_bytes > 0);
  }
}

TEST_CASE("a quota that is nearly used up is told, though the arena is empty") {
  Shared arena(anonymous(256 * kMiB));
  REQUIRE(ashlar_shm_set_quota(arena, 10 * kMiB) == 0);
  const Ear ear(arena);
  std::vector<void*> blocks;
  while (arena.stats().active < 8 * kMiB) blocks.push_back(arena.take(kBlock));
  CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 0);
  while (void* const p = ashlar_shm_malloc(arena, kBlock)) blocks.push_back(p);
  CHECK(errno == EDQUOT);
  CHECK(ear.count(ASHLAR_MEMORY_SHORT) >= 2);
  CHECK(ear.last(ASHLAR_MEMORY_SHORT).excess_bytes > 0);
  CHECK(ear.last(ASHLAR_MEMORY_SHORT).excess_bytes <= kMiB);
  for (void* p : blocks) ashlar_shm_free(arena, p);
  REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
  CHECK(ear.count(ASHLAR_MEMORY_ENOUGH) == 1);
}

TEST_CASE("what another process took is told when this one comes by, and its death is recovered") {
  Shared arena(anonymous(16 * kMiB));
  const Ear ear(arena);
  Child other([&] {
    Shared own(ashlar_shm_open_fd(ashlar_shm_fd(arena), ASHLAR_SHM_SCOPED));
    const Ear its(own);
    fill_up_to(own, 92);
    if (its.count(ASHLAR_MEMORY_SHORT) == 0) ::_exit(1);
    ::raise(SIGSTOP);
  });
  int status = 0;
  REQUIRE(::waitpid(other.pid(), &status, WUNTRACED) == other.pid());
  REQUIRE(WIFSTOPPED(status));
  CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 0);
  REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
  CHECK(ear.count(ASHLAR_MEMORY_SHORT) == 1);
  other.kill();
  REQUIRE(ashlar_shm_quiescent(arena, 100, nullptr) >= 0);
  CHECK(ear.count(ASHLAR_MEMORY_ENOUGH) == 1);
  CHECK(arena.stats().recoveries == 1);
  CHECK(arena.broken() == "");
}

TEST_CASE("quiet moments go on where the last one ended, and wait for nobody") {
  Shared arena(anonymous());
  sparse_objects(arena);
  int moments = 1;
  ashlar_moved moved{};
  while (ashlar_shm_quiescent(arena, 10, &moved) == 1) moments++;
  CHECK(moments > 2);
  CHECK(moved.objects > 100);
  const ashlar_shm_stats stats = arena.stats();
  CHECK(stats.handle_active - stats.handle_allocated < kUnitBytes);
  Child other([&] {
    ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(arena), 0);
    ashlar_move move;
    if (ashlar_shm_pass_begin(own, UINT64_MAX, SIZE_MAX, &move, 1) < 0) ::_exit(1);
    ::raise(SIGSTOP);
  });
  int status = 0;
  REQUIRE(::waitpid(other.pid(), &status, WUNTRACED) == other.pid());
  CHECK(ashlar_shm_quiescent(arena, 10, &moved) == 0);  // another's pass
}

TEST_CASE("what makes no sense is refused") {
  Shared arena(anonymous());
  Shared reader(ashlar_shm_open_fd(ashlar_shm_fd(arena), ASHLAR_SHM_READ_ONLY));
  const auto note = [](void*, const ashlar_notice*) {};
  errno = 0;
  CHECK(ashlar_shm_set_notify(nullptr, note, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(ashlar_shm_set_notify(reader, note, nullptr) == -1);
  CHECK(errno == EACCES);
  errno = 0;
  CHECK(ashlar_shm_quiescent(nullptr, 1, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(ashlar_shm_quiescent(reader, 1, nullptr) == -1);
  CHECK(errno == EACCES);
}

TEST_SUITE_END();

}  // namespace ashlar::test
