// SPDX-License-Identifier: MIT
// Passes by hand over objects with handles in a shared arena: whatever the verdicts are, whoever
// uses the objects meanwhile, and wherever the process dies, each object is whole and at one place.
#include <atomic>
#include <cerrno>
#include <thread>

#include "shm.h"

namespace ashlar::test {

namespace {

constexpr Bytes kBytes = 96;
constexpr std::size_t kMoves = 64;

// In the arena, so that every process finds them: object i is filled with i, wherever it is.
struct Objects {
  static constexpr std::size_t kCount = 4000;
  std::atomic<ashlar_handle> handle[kCount];
  std::atomic<std::uint64_t> done;
  std::atomic<bool> stop;

  void make(ashlar_shm* arena, std::size_t i) {
    const ashlar_handle h = ashlar_shm_handle_alloc(arena, kBytes);
    if (h == 0) ::_exit(10);
    fill(ashlar_shm_handle_lock(arena, h), kBytes, i);
    ashlar_shm_handle_unlock(arena, h);
    handle[i].store(h);
  }
  bool is_whole(ashlar_shm* arena, std::size_t i) {
    void* const p = ashlar_shm_handle_lock(arena, handle[i].load());
    const bool whole = p != nullptr && is_filled(p, kBytes, i);
    return p != nullptr && ashlar_shm_handle_unlock(arena, handle[i].load()) == 0 && whole;
  }
  void free(ashlar_shm* arena, std::size_t i) {
    if (ashlar_shm_handle_free(arena, handle[i].exchange(0)) != 0) ::_exit(11);
  }
};

// An arena in which one object in `step` is left.
class Stage {
 public:
  explicit Stage(std::size_t step) : arena(anonymous(64 * kMiB)), objects(make_table()) {
    for (std::size_t i = 0; i < Objects::kCount; i++) objects.make(arena, i);
    for (std::size_t i = 0; i < Objects::kCount; i++) {
      if (i % step != 0) objects.free(arena, i);
    }
  }
  Objects& of(ashlar_shm* other) {
    return *static_cast<Objects*>(ashlar_shm_pointer(other, ashlar_shm_offset(arena, &objects)));
  }
  // All that are left are whole; nothing else is in use.
  void verify() {
    std::size_t left = 0;
    for (std::size_t i = 0; i < Objects::kCount; i++) {
      if (objects.handle[i].load() == 0) continue;
      REQUIRE(objects.is_whole(arena, i));
      left++;
    }
    // What was kept for moves that nobody ended goes with the next who come by.
    for (int pass = 0; pass < 2; pass++) {
      while (ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) == 1) {
      }
    }
    REQUIRE(arena.blocks() == left + 1);
    REQUIRE(arena.broken() == "");
  }

  Shared arena;
  Objects& objects;

 private:
  Objects& make_table() {
    void* const table = arena.take(sizeof(Objects));
    std::memset(table, 0, sizeof(Objects));
    return *static_cast<Objects*>(table);
  }
};

struct Moves {
  ashlar_move move[kMoves];
  std::size_t count = 0;

  bool begin(ashlar_shm* arena, std::uint64_t us = UINT64_MAX, Bytes bytes = SIZE_MAX) {
    const ptrdiff_t n = ashlar_shm_pass_begin(arena, us, bytes, move, kMoves);
    count = n < 0 ? 0 : static_cast<std::size_t>(n);
    return n >= 0;
  }
  void copy(ashlar_verdict verdict = ASHLAR_COPIED) {
    for (std::size_t i = 0; i < count; i++) {
      std::memcpy(move[i].to, move[i].from, move[i].bytes);
      move[i].verdict = verdict;
    }
  }
  bool end(ashlar_shm* arena, ashlar_moved* moved = nullptr) {
    return ashlar_shm_pass_end(arena, move, count, moved) == 0;
  }
};

bool fails_with(int error, std::intptr_t result) {
  const bool failed = result == -1 && errno == error;
  errno = 0;
  return failed;
}

}  // namespace

TEST_SUITE_BEGIN("passes");

TEST_CASE("by hand, pass by pass, an arena becomes dense") {
  Stage stage(10);
  const Bytes active = stage.arena.stats().handle_active;
  ashlar_moved moved{};
  std::uint64_t proposed = 0;
  for (Moves pass; pass.begin(stage.arena); pass = {}) {
    proposed += pass.count;
    for (std::size_t i = 0; i < pass.count; i++) {
      CHECK(pass.move[i].verdict == ASHLAR_SKIP);
      CHECK(ashlar_shm_handle_size(stage.arena, pass.move[i].tag) == pass.move[i].bytes);
    }
    pass.copy();
    REQUIRE(pass.end(stage.arena, &moved));
    if (pass.count == 0) break;
  }
  const ashlar_shm_stats after = stage.arena.stats();
  CHECK(moved.objects == proposed);
  CHECK(moved.objects > 100);
  CHECK(moved.bytes == moved.objects * kBytes);
  CHECK(moved.skipped == 0);
  CHECK(moved.freed == active - after.handle_active);
  CHECK(after.handle_active == kUnitBytes);
  stage.verify();
}

TEST_CASE("each verdict does what it says") {
  Stage stage(4);
  Moves pass;
  REQUIRE(pass.begin(stage.arena));
  REQUIRE(pass.count > 30);
  pass.copy();
  std::set<ashlar_handle> freed;
  for (std::size_t i = 0; i < pass.count; i++) {
    pass.move[i].verdict = static_cast<ashlar_verdict>(i % 3);
    if (i % 3 == ASHLAR_FREED) freed.insert(pass.move[i].tag);
  }
  ashlar_moved moved{};
  REQUIRE(pass.end(stage.arena, &moved));
  for (std::size_t i = 0; i < pass.count; i++) {
    const ashlar_move& m = pass.move[i];
    void* const p = ashlar_shm_handle_lock(stage.arena, m.tag);
    CHECK(p == (i % 3 == ASHLAR_SKIP ? m.from : i % 3 == ASHLAR_COPIED ? m.to : nullptr));
    if (p != nullptr) CHECK(ashlar_shm_handle_unlock(stage.arena, m.tag) == 0);
  }
  CHECK(moved.objects == (pass.count + 1) / 3);
  CHECK(moved.skipped == (pass.count + 2) / 3);
  for (auto& h : stage.objects.handle) {
    if (freed.count(h.load()) != 0) h.store(0);
  }
  stage.verify();
}

TEST_CASE("what others lock or free while it moves stays, or is gone") {
  Stage stage(4);
  Moves pass;
  REQUIRE(pass.begin(stage.arena));
  REQUIRE(pass.count > 10);
  const ashlar_move locked = pass.move[0], freed = pass.move[1], written = pass.move[2];
  const ashlar_move freed_twice = pass.move[3];
  pass.copy();
  Child other([&] {
    ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(stage.arena), 0);
    if (ashlar_shm_handle_free(own, freed.tag) != 0) ::_exit(1);
    if (ashlar_shm_handle_free(own, freed_twice.tag) != 0) ::_exit(2);
    void* const p = ashlar_shm_handle_lock(own, written.tag);
    std::memset(p, 7, kBytes);
    if (ashlar_shm_handle_unlock(own, written.tag) != 0) ::_exit(3);
  });
  CHECK(other.wait() == 0);
  CHECK(ashlar_shm_handle_lock(stage.arena, locked.tag) == locked.from);
  pass.move[3].verdict = ASHLAR_FREED;
  ashlar_moved moved{};
  REQUIRE(pass.end(stage.arena, &moved));
  CHECK(moved.objects == pass.count - 4);
  CHECK(moved.skipped == 2);
  CHECK(ashlar_shm_handle_unlock(stage.arena, locked.tag) == 0);
  auto* const p = static_cast<char*>(ashlar_shm_handle_lock(stage.arena, written.tag));
  CHECK(p == written.from);
  CHECK(p[kBytes - 1] == 7);
  CHECK(ashlar_shm_handle_unlock(stage.arena, written.tag) == 0);
  for (std::size_t i = 0; i < Objects::kCount; i++) {
    const ashlar_handle h = stage.objects.handle[i].load();
    if (h == freed.tag || h == freed_twice.tag) stage.objects.handle[i].store(0);
    if (h == written.tag) {
      fill(ashlar_shm_handle_lock(stage.arena, h), kBytes, i);
      ashlar_shm_handle_unlock(stage.arena, h);
    }
  }
  stage.verify();
}

TEST_CASE("an object that is locked is not proposed") {
  Stage stage(4);
  for (std::size_t i = 0; i < 1600; i += 4) {
    REQUIRE(ashlar_shm_handle_lock(stage.arena, stage.objects.handle[i].load()) != nullptr);
  }
  std::set<ashlar_handle> locked;
  for (std::size_t i = 0; i < 1600; i += 4) locked.insert(stage.objects.handle[i].load());
  for (int round = 0; round < 20; round++) {
    Moves pass;
    REQUIRE(pass.begin(stage.arena));
    for (std::size_t i = 0; i < pass.count; i++) CHECK(locked.count(pass.move[i].tag) == 0);
    pass.copy(ASHLAR_SKIP);
    REQUIRE(pass.end(stage.arena));
  }
  for (const ashlar_handle h : locked) CHECK(ashlar_shm_handle_unlock(stage.arena, h) == 0);
  stage.verify();
}

TEST_CASE("budgets: bytes, moves, and microseconds that are over") {
  Stage stage(4);
  Moves pass;
  REQUIRE(pass.begin(stage.arena, UINT64_MAX, 10 * kBytes));
  CHECK(pass.count == 10);
  CHECK(ashlar_shm_pass_should_stop(stage.arena) == 0);
  REQUIRE(pass.end(stage.arena));
  REQUIRE(pass.begin(stage.arena, 0));
  CHECK(pass.count <= 1);
  CHECK(ashlar_shm_pass_should_stop(stage.arena) != 0);
  REQUIRE(pass.end(stage.arena));
  std::vector<ashlar_move> many(Objects::kCount);
  const ptrdiff_t n = ashlar_shm_pass_begin(stage.arena, UINT64_MAX, SIZE_MAX, many.data(), 1000);
  CHECK(n == 128);
  REQUIRE(ashlar_shm_pass_end(stage.arena, many.data(), 128, nullptr) == 0);
  CHECK(ashlar_shm_pass_begin(stage.arena, UINT64_MAX, SIZE_MAX, nullptr, 0) == 0);
  CHECK(ashlar_shm_pass_end(stage.arena, nullptr, 0, nullptr) == 0);
  stage.verify();
}

TEST_CASE("what makes no sense is refused, and changes nothing") {
  Stage stage(4);
  Shared other(anonymous());
  Shared reader(ashlar_shm_open_fd(ashlar_shm_fd(stage.arena), ASHLAR_SHM_READ_ONLY));
  Moves pass;
  ashlar_moved moved{};
  errno = 0;
  const auto begin = [&](ashlar_shm* arena, ashlar_move* moves) {
    return ashlar_shm_pass_begin(arena, UINT64_MAX, SIZE_MAX, moves, kMoves);
  };
  CHECK(fails_with(EINVAL, begin(nullptr, pass.move)));
  CHECK(fails_with(EINVAL, begin(stage.arena, nullptr)));
  CHECK(fails_with(EACCES, begin(reader, pass.move)));
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(nullptr, pass.move, 0, &moved)));
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, 0, &moved)));  // no begin
  CHECK(fails_with(EACCES, ashlar_shm_pass_end(reader, pass.move, 0, &moved)));
  CHECK(fails_with(EINVAL, ashlar_shm_compact(nullptr, 1, 1, &moved)));
  CHECK(fails_with(EACCES, ashlar_shm_compact(reader, 1, 1, &moved)));
  CHECK(ashlar_shm_pass_should_stop(nullptr) != 0);
  CHECK(ashlar_shm_pass_should_stop(stage.arena) != 0);

  REQUIRE(pass.begin(stage.arena));
  REQUIRE(pass.count > 2);
  CHECK(fails_with(EBUSY, begin(stage.arena, pass.move + 1)));  // twice
  CHECK(fails_with(EBUSY, ashlar_shm_compact(stage.arena, 1, 1, &moved)));
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, pass.count - 1, &moved)));
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, nullptr, pass.count, &moved)));
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(other, pass.move, pass.count, &moved)));
  std::thread([&] {
    CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, pass.count, &moved)));
    CHECK(ashlar_shm_pass_should_stop(stage.arena) != 0);
    CHECK(fails_with(EBUSY, begin(stage.arena, pass.move)));
  }).join();
  std::swap(pass.move[0].tag, pass.move[1].tag);
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, pass.count, &moved)));
  std::swap(pass.move[0].tag, pass.move[1].tag);
  CHECK(moved.objects + moved.skipped + moved.freed == 0);
  // Places that were changed are as good as any.
  pass.copy();
  pass.move[0].from = pass.move[1].to = &pass;
  REQUIRE(pass.end(stage.arena, &moved));
  CHECK(moved.objects == pass.count);
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, pass.count, &moved)));
  stage.verify();
}

TEST_CASE("a process dies between begin and end: others go on with its pass") {
  Stage stage(10);
  for (int deaths = 0; deaths < 5; deaths++) {
    Child child([&] {
      ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(stage.arena), 0);
      Moves pass;
      if (!pass.begin(own, UINT64_MAX, 20 * kBytes)) ::_exit(1);
      pass.copy();
      ::raise(SIGKILL);
    });
    CHECK(WTERMSIG(child.wait()) == SIGKILL);
    // Nobody has asked for recovery: the next one finds out.
    Moves pass;
    REQUIRE(pass.begin(stage.arena, UINT64_MAX, 20 * kBytes));
    pass.copy();
    REQUIRE(pass.end(stage.arena));
  }
  stage.verify();
  CHECK(stage.arena.stats().handle_active == kUnitBytes);
}

TEST_CASE("one who is stopped between begin and end keeps nobody from anything but passes") {
  Stage stage(4);
  Child child([&] {
    ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(stage.arena), 0);
    Moves pass;
    if (!pass.begin(own)) ::_exit(1);
    ::raise(SIGSTOP);
    pass.copy();
    if (!pass.end(own)) ::_exit(2);
  });
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  CHECK(fails_with(EBUSY, ashlar_shm_compact(stage.arena, UINT64_MAX, SIZE_MAX, nullptr)));
  for (std::size_t i = 0; i < Objects::kCount; i += 8) {
    REQUIRE(stage.objects.is_whole(stage.arena, i));
    stage.objects.free(stage.arena, i);
    stage.objects.make(stage.arena, i);
  }
  child.send(SIGCONT);
  CHECK(child.wait() == 0);
  stage.verify();
}

TEST_CASE("a thread that ends takes its pass with it, and a child of fork has none") {
  Stage stage(4);
  Moves pass;
  std::thread([&] { REQUIRE(pass.begin(stage.arena)); }).join();
  pass.copy();
  CHECK(fails_with(EINVAL, ashlar_shm_pass_end(stage.arena, pass.move, pass.count, nullptr)));
  REQUIRE(pass.begin(stage.arena));
  pass.copy();
  Child child([&] {
    if (pass.end(stage.arena) || errno != EINVAL) ::_exit(1);
    Moves own;
    if (own.begin(stage.arena) || errno != EBUSY) ::_exit(2);
    if (pass.end(stage.arena)) ::_exit(3);
  });
  CHECK(child.wait() == 0);
  REQUIRE(pass.end(stage.arena));
  stage.verify();
}

// Both do everything; of each object one of them is the owner, who may free and make it.
TEST_CASE("two processes make random passes, with verdicts of all kinds, and use what they move") {
  for_seeds(2, [](Random& seeds) {
    Stage stage(1);
    const std::uint32_t count = steps(100'000);
    const auto live = [&](std::size_t part, std::uint64_t seed) {
      Shared own(ashlar_shm_open_fd(ashlar_shm_fd(stage.arena), 0));
      Objects& objects = stage.of(own);
      Random random(seed);
      for (std::uint32_t step = 0; step < count; step++) {
        const std::size_t i = random.below(Objects::kCount / 2) * 2 + part;
        const bool sparse = step / 2000 % 2 == 0;
        if (objects.handle[i].load() == 0) {
          if (random.chance(sparse ? 20 : 80)) objects.make(own, i);
        } else if (!objects.is_whole(own, i)) {
          ::_exit(1);
        } else if (random.chance(sparse ? 80 : 20)) {
          objects.free(own, i);
        }
        if (!random.chance(3)) continue;
        Moves pass;
        if (!pass.begin(own, UINT64_MAX, random.up_to(kMoves) * kBytes)) {
          if (errno != EBUSY) ::_exit(2);
          continue;
        }
        pass.copy();
        for (std::size_t m = 0; m < pass.count; m++) {
          ashlar_move& move = pass.move[m];
          move.verdict = static_cast<ashlar_verdict>(random.below(2));
          if (random.chance(90)) continue;
          // To free one is the owner's alone, and nobody else's handle may lead there any more.
          for (std::size_t o = part; o < Objects::kCount; o += 2) {
            if (objects.handle[o].load() != move.tag) continue;
            objects.handle[o].store(0);
            move.verdict = ASHLAR_FREED;
          }
        }
        if (!pass.end(own)) ::_exit(3);
        objects.done++;
      }
    };
    const std::uint64_t first = seeds.next(), second = seeds.next();
    Child other([&] { live(1, first); });
    Child another([&] { live(0, second); });
    CHECK(another.wait() == 0);
    CHECK(other.wait() == 0);
    CHECK(ashlar_shm_recover(stage.arena) >= 0);
    MESSAGE(stage.objects.done.load() << " passes");
    CHECK(stage.objects.done.load() > count / 1000);
    stage.verify();
  });
}

TEST_SUITE_END();

}  // namespace ashlar::test
