// SPDX-License-Identifier: MIT
// Killed at every instruction that makes, frees, locks, unlocks or moves an object with a handle;
// see stepped.h. ashlar_shm_check() finds a slot that no handle names, and one that two do.
#include "stepped.h"

namespace ashlar::test {

namespace {

constexpr Bytes kObjectBytes = 8 * kKiB;  // eight a slab

// Objects that somebody else made, each with a pattern that goes by its number.
class Objects {
 public:
  Objects(Shared& arena, int count) {
    for (int i = 0; i < count; i++) add(arena);
  }
  ashlar_handle add(Shared& arena) {
    const ashlar_handle h = ashlar_shm_handle_alloc(arena, kObjectBytes);
    REQUIRE(h != 0);
    fill(ashlar_shm_handle_lock(arena, h), kObjectBytes, handles_.size());
    REQUIRE(ashlar_shm_handle_unlock(arena, h) == 0);
    handles_.push_back(h);
    return h;
  }
  void remove(Shared& arena, std::size_t i) {
    REQUIRE(ashlar_shm_handle_free(arena, handles_[i]) == 0);
    forget(i);
  }
  void forget(std::size_t i) { handles_[i] = 0; }
  void may_be_gone(std::size_t i) { unsure_ = i; }
  ashlar_handle operator[](std::size_t i) const { return handles_[i]; }

  // Each is what it was, whoever has stopped on the way.
  void verify(Shared& arena) const {
    for (std::size_t i = 0; i < handles_.size(); i++) {
      if (handles_[i] == 0) continue;
      const void* const p = ashlar_shm_handle_lock(arena, handles_[i]);
      if (p == nullptr && i == unsure_) continue;
      REQUIRE(p != nullptr);
      REQUIRE(is_filled(p, kObjectBytes, i));
      REQUIRE(ashlar_shm_handle_unlock(arena, handles_[i]) == 0);
    }
  }

  // All are whole, can be moved, and leave nothing when they are freed.
  void inspect(Shared& arena) const {
    verify(arena);
    // What is left of a pass, and a whole one. Not a byte of it may be missed.
    while (ashlar_shm_compact(arena, 0, 0, nullptr) == 0) {
    }
    ashlar_shm_compaction done;
    REQUIRE(ashlar_shm_compact(arena, 0, 0, &done) == 1);
    REQUIRE(done.locked == 0);
    verify(arena);
    const ashlar_shm_stats stats = arena.stats();
    REQUIRE(stats.handle_active - stats.handle_allocated < kUnitBytes);
    REQUIRE(arena.broken() == "");
  }

 private:
  std::vector<ashlar_handle> handles_;
  std::size_t unsure_ = ~std::size_t{0};
};

// The arena's first lane is the stage's, and its second the victim's.
struct HandleStage : Stage {
  explicit HandleStage(int count) : objects(arena, count) {}

  void kill(std::function<void(Shared&)> before, std::function<void(Shared&)> act, int least,
            int most) {
    const Bytes blocks = arena.blocks();
    kill_everywhere(
        arena, {.before = std::move(before),
                .act = std::move(act),
                .expected = {blocks + static_cast<Bytes>(static_cast<std::int64_t>(least)),
                             blocks + static_cast<Bytes>(static_cast<std::int64_t>(most)), held},
                .data_bytes = kChunkBytes / 2,
                .first = [this](Shared& a) { objects.verify(a); },
                .also = [this](Shared& a) { objects.inspect(a); }});
  }

  Objects objects;
};

}  // namespace

TEST_SUITE_BEGIN("stepped handles");

TEST_CASE("killed in a first alloc: a lane's pins, the table, a slab") {
  HandleStage stage(0);
  stage.kill([](Shared&) {}, [](Shared& a) { ashlar_shm_handle_alloc(a, kObjectBytes); }, 0, 1);
}

TEST_CASE("killed in an alloc that finds room, and in one that makes a slab") {
  for (const int count : {3, 8}) {
    HandleStage stage(count);
    stage.kill([&](Shared& a) { ashlar_shm_handle_lock(a, stage.objects[0]); },
               [](Shared& a) { ashlar_shm_handle_alloc(a, kObjectBytes); }, 0, 1);
  }
}

TEST_CASE("killed in a free: one of several, and the last of its slab") {
  for (const int count : {3, 9}) {
    HandleStage stage(count);
    const std::size_t last = static_cast<std::size_t>(count) - 1;
    stage.objects.may_be_gone(last);
    stage.kill(
        [&](Shared& a) { ashlar_shm_handle_lock(a, stage.objects[0]); },
        [&](Shared& a) { static_cast<void>(ashlar_shm_handle_free(a, stage.objects[last])); }, -1,
        0);
  }
}

TEST_CASE("killed while it locks, and while it unlocks") {
  HandleStage stage(3);
  stage.kill([&](Shared& a) { ashlar_shm_handle_lock(a, stage.objects[0]); },
             [&](Shared& a) {
               ashlar_shm_handle_lock(a, stage.objects[1]);
               ashlar_shm_handle_unlock(a, stage.objects[0]);
               ashlar_shm_handle_unlock(a, stage.objects[1]);
             },
             0, 0);
}

TEST_CASE("killed while it unlocks what was freed meanwhile") {
  HandleStage stage(3);
  stage.objects.may_be_gone(2);
  stage.kill(
      [&](Shared& a) {
        ashlar_shm_handle_lock(a, stage.objects[2]);
        REQUIRE(ashlar_shm_handle_free(a, stage.objects[2]) == 0);
      },
      [&](Shared& a) { ashlar_shm_handle_unlock(a, stage.objects[2]); }, -1, 0);
}

TEST_CASE("killed in a pass: every object is where its handle says, and nothing leaks") {
  HandleStage stage(24);
  for (std::size_t i = 0; i < 24; i++) {
    if (i % 8 > 1) stage.objects.remove(stage.arena, i);
  }
  stage.kill([&](Shared& a) { ashlar_shm_handle_lock(a, stage.objects[0]); },
             [](Shared& a) {
               if (ashlar_shm_compact(a, 0, 0, nullptr) != 1) std::abort();
             },
             0, 0);
}

TEST_CASE("killed in a pass, and another frees objects of it before it is recovered") {
  HandleStage stage(24);
  for (std::size_t i = 0; i < 24; i++) {
    if (i % 8 > 1) stage.objects.remove(stage.arena, i);
  }
  const ashlar_handle freed[] = {stage.objects[0], stage.objects[8], stage.objects[16]};
  const Bytes blocks = stage.arena.blocks();
  Objects left = stage.objects;
  for (const std::size_t i : {0, 8, 16}) left.forget(i);
  kill_everywhere(stage.arena, {.act = [](Shared& a) { ashlar_shm_compact(a, 0, 0, nullptr); },
                                .expected = {blocks - std::size(freed), blocks, stage.held},
                                .data_bytes = kChunkBytes / 2,
                                .first =
                                    [&](Shared& a) {
                                      for (const ashlar_handle h : freed) {
                                        REQUIRE(ashlar_shm_handle_free(a, h) == 0);
                                        REQUIRE(ashlar_shm_handle_lock(a, h) == nullptr);
                                      }
                                    },
                                .also = [&](Shared& a) { left.inspect(a); }});
}

TEST_SUITE_END();

}  // namespace ashlar::test
