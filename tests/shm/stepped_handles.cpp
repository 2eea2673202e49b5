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
    // What is left of a pass, one that meets what was kept for moves, and a whole one. Not a byte
    // of that may be missed.
    for (int passes = 0; passes < 2; passes++) {
      REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) == 0);
    }
    ashlar_moved done{};
    REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, &done) == 0);
    REQUIRE(done.skipped == 0);
    verify(arena);
    const ashlar_shm_stats stats = arena.stats();
    REQUIRE(stats.handle_active - stats.handle_allocated < kUnitBytes);
    REQUIRE(stats.handle_allocated <= (live() + 1) * kObjectBytes);  // one that was being made
    REQUIRE(arena.broken() == "");
  }

 private:
  Bytes live() const {
    return handles_.size() -
           static_cast<Bytes>(std::count(handles_.begin(), handles_.end(), ashlar_handle{0}));
  }

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
               if (ashlar_shm_compact(a, UINT64_MAX, SIZE_MAX, nullptr) != 0) std::abort();
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
  kill_everywhere(stage.arena,
                  {.act = [](Shared& a) { ashlar_shm_compact(a, UINT64_MAX, SIZE_MAX, nullptr); },
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

// Verdicts of all kinds. One object may be freed; what was kept for moves goes with the passes
// of inspect().
TEST_CASE("killed in a pass by hand: every object is where its handle says, and nothing leaks") {
  HandleStage stage(24);
  for (std::size_t i = 0; i < 24; i++) {
    if (i % 8 > 1) stage.objects.remove(stage.arena, i);
  }
  stage.objects.may_be_gone(9);
  const ashlar_handle to_be_freed = stage.objects[9];
  constexpr int kMoves = 4;
  const auto pass = [&](Shared& a) {
    ashlar_move moves[kMoves];
    const ptrdiff_t n = ashlar_shm_pass_begin(a, UINT64_MAX, SIZE_MAX, moves, kMoves);
    if (n != kMoves) std::abort();
    for (ashlar_move& m : moves) {
      std::memcpy(m.to, m.from, m.bytes);
      m.verdict = m.tag == to_be_freed ? ASHLAR_FREED : ASHLAR_COPIED;
    }
    if (moves[0].verdict == ASHLAR_FREED || moves[3].verdict != ASHLAR_FREED) std::abort();
    moves[0].verdict = ASHLAR_SKIP;
    if (ashlar_shm_pass_end(a, moves, kMoves, nullptr) != 0) std::abort();
  };
  stage.kill([](Shared&) {}, pass, -1, kMoves);
}

TEST_CASE("killed in a pass by hand, and others free and lock its objects before it is recovered") {
  HandleStage stage(24);
  for (std::size_t i = 0; i < 24; i++) {
    if (i % 8 > 1) stage.objects.remove(stage.arena, i);
  }
  const Bytes blocks = stage.arena.blocks();
  const ashlar_handle freed[] = {stage.objects[8], stage.objects[16]};
  Objects left = stage.objects;
  for (const std::size_t i : {8, 16}) left.forget(i);
  constexpr int kMoves = 4;
  const auto pass = [](Shared& a) {
    ashlar_move moves[kMoves];
    const ptrdiff_t n = ashlar_shm_pass_begin(a, UINT64_MAX, SIZE_MAX, moves, kMoves);
    for (int i = 0; i < n; i++) {
      std::memcpy(moves[i].to, moves[i].from, moves[i].bytes);
      moves[i].verdict = ASHLAR_COPIED;
    }
    ashlar_shm_pass_end(a, moves, static_cast<std::size_t>(n), nullptr);
  };
  kill_everywhere(stage.arena,
                  {.act = pass,
                   .expected = {blocks - std::size(freed), blocks + kMoves, stage.held},
                   .data_bytes = kChunkBytes / 2,
                   .first =
                       [&](Shared& a) {
                         for (const ashlar_handle h : freed) {
                           REQUIRE(ashlar_shm_handle_free(a, h) == 0);
                         }
                         left.verify(a);
                       },
                   .also = [&](Shared& a) { left.inspect(a); }});
}

TEST_SUITE_END();

}  // namespace ashlar::test
