// SPDX-License-Identifier: MIT
// Handles: locked objects stay, others move, and nothing of what they hold is ever lost.
#include <atomic>
#include <cerrno>
#include <map>
#include <sys/stat.h>
#include <thread>

#include "shm.h"

namespace ashlar::test {

namespace {

class Object {
 public:
  Object() = default;
  Object(ashlar_shm* arena, Bytes bytes, std::uint64_t stamp) : bytes_(bytes), stamp_(stamp) {
    handle_ = ashlar_shm_handle_alloc(arena, bytes);
    if (handle_ == 0) return;
    fill(ashlar_shm_handle_lock(arena, handle_), bytes, stamp);
    ashlar_shm_handle_unlock(arena, handle_);
  }
  ashlar_handle handle() const { return handle_; }
  Bytes bytes() const { return bytes_; }
  bool is_whole_at(const void* p) const { return is_filled(p, bytes_, stamp_); }
  bool is_whole(ashlar_shm* arena) const {
    void* const p = ashlar_shm_handle_lock(arena, handle_);
    const bool whole = p != nullptr && is_whole_at(p);
    return ashlar_shm_handle_unlock(arena, handle_) == 0 && whole;
  }

 private:
  ashlar_handle handle_ = 0;
  Bytes bytes_ = 0;
  std::uint64_t stamp_ = 0;
};

bool is_stale(ashlar_shm* arena, ashlar_handle handle) {
  errno = 0;
  const bool no_lock = ashlar_shm_handle_lock(arena, handle) == nullptr && errno == ESTALE;
  errno = 0;
  return no_lock && ashlar_shm_handle_free(arena, handle) == -1 && errno == ESTALE &&
         ashlar_shm_handle_size(arena, handle) == 0;
}

// To the end, however many calls that takes.
ashlar_moved compact(ashlar_shm* arena, std::uint64_t us = UINT64_MAX) {
  ashlar_moved all{};
  for (int answer = 1; answer == 1;) {
    answer = ashlar_shm_compact(arena, us, SIZE_MAX, &all);
    REQUIRE(answer >= 0);
  }
  return all;
}

double density(Shared& arena) {
  const ashlar_shm_stats s = arena.stats();
  return static_cast<double>(s.handle_allocated) / static_cast<double>(s.handle_active);
}

}  // namespace

TEST_SUITE_BEGIN("handles");

TEST_CASE("an object is where its handle says, in every process and at any alignment of its size") {
  Shared arena(anonymous());
  Shared there(ashlar_shm_open_fd(ashlar_shm_fd(arena), 0));
  for (const Bytes bytes : {0, 1, 16, 100, 192, 1088, 4096, 12'288, 32'768}) {
    const ashlar_handle h = ashlar_shm_handle_alloc(arena, bytes);
    REQUIRE(h != 0);
    CHECK(ashlar_shm_handle_size(there, h) >= bytes);
    auto* const here = static_cast<char*>(ashlar_shm_handle_lock(arena, h));
    REQUIRE(here != nullptr);
    const Bytes alignment = std::min<Bytes>(bytes == 0 ? 16 : bytes & -bytes, kPageBytes);
    CHECK(reinterpret_cast<std::uintptr_t>(here) % std::max<Bytes>(alignment, 16) == 0);
    *here = 'x';
    CHECK(*static_cast<char*>(ashlar_shm_handle_lock(there, h)) == 'x');
    CHECK(ashlar_shm_handle_unlock(there, h) == 0);
    CHECK(ashlar_shm_handle_unlock(arena, h) == 0);
    CHECK(ashlar_shm_handle_free(there, h) == 0);
    CHECK(is_stale(arena, h));
  }
  CHECK(arena.broken() == "");
  CHECK(ashlar_shm_handle_free(arena, 0) == 0);
  errno = 0;
  CHECK(ashlar_shm_handle_alloc(arena, 32'769) == 0);
  CHECK(errno == EINVAL);
}

TEST_CASE("what is no handle is refused") {
  Shared arena(anonymous());
  const ashlar_handle h = ashlar_shm_handle_alloc(arena, 64);
  for (const ashlar_handle wrong : {ashlar_handle{0}, h + 1, h + (ashlar_handle{1} << 32),
                                    ~ashlar_handle{0}, ashlar_handle{0xffff'ffff}}) {
    errno = 0;
    CHECK(ashlar_shm_handle_lock(arena, wrong) == nullptr);
    CHECK(errno == ESTALE);
    CHECK(ashlar_shm_handle_size(arena, wrong) == 0);
  }
  errno = 0;
  CHECK(ashlar_shm_handle_unlock(arena, h) == -1);  // it is not locked
  CHECK(errno == EINVAL);
  // Its address is no block.
  void* const p = ashlar_shm_handle_lock(arena, h);
  CHECK(ashlar_shm_usable_size(arena, p) == 0);
  errno = 0;
  ashlar_shm_free(arena, p);
  CHECK(errno == EINVAL);
  CHECK(arena.stats().bad_frees == 1);
  CHECK(ashlar_shm_realloc(arena, p, 100) == nullptr);
  CHECK(ashlar_shm_handle_unlock(arena, h) == 0);
  CHECK(arena.broken() == "");
}

TEST_CASE("a handle stays refused when its entry is used again") {
  Shared arena(anonymous());
  std::set<ashlar_handle> old;
  for (int i = 0; i < 1000; i++) {
    const ashlar_handle h = ashlar_shm_handle_alloc(arena, 64);
    CHECK(old.insert(h).second);
    CHECK(ashlar_shm_handle_free(arena, h) == 0);
  }
  for (const ashlar_handle h : old) CHECK(is_stale(arena, h));
}

TEST_CASE("an object that is freed while it is locked stays until it is unlocked") {
  Shared arena(anonymous());
  const Object kept(arena, 64, 7);
  const Object other(arena, 64, 8);
  const void* const p = ashlar_shm_handle_lock(arena, kept.handle());
  CHECK(ashlar_shm_handle_lock(arena, kept.handle()) == p);
  std::thread([&] { CHECK(ashlar_shm_handle_free(arena, kept.handle()) == 0); }).join();
  CHECK(is_stale(arena, kept.handle()));
  for (int i = 0; i < 2000; i++) REQUIRE(ashlar_shm_handle_alloc(arena, 64) != 0);
  CHECK(kept.is_whole_at(p));
  const Bytes before = arena.blocks();
  CHECK(ashlar_shm_handle_unlock(arena, kept.handle()) == 0);
  CHECK(arena.blocks() == before);
  CHECK(ashlar_shm_handle_unlock(arena, kept.handle()) == 0);
  CHECK(arena.blocks() == before - 1);
  CHECK(arena.broken() == "");
}

TEST_CASE("a thread may lock 500 objects, and one that ends has none locked") {
  Shared arena(anonymous());
  const Object first(arena, 64, 1);
  std::thread([&] {
    std::vector<ashlar_handle> locked;
    for (int i = 0; i < 500; i++) {
      locked.push_back(ashlar_shm_handle_alloc(arena, 64));
      REQUIRE(ashlar_shm_handle_lock(arena, locked.back()) != nullptr);
    }
    errno = 0;
    CHECK(ashlar_shm_handle_lock(arena, first.handle()) == nullptr);
    CHECK(errno == ENOLCK);
    Random random(1);
    for (int i = 0; i < 250; i++) {
      const ashlar_handle h = pick(locked, random);
      CHECK(ashlar_shm_handle_unlock(arena, h) == 0);
      CHECK(ashlar_shm_handle_free(arena, h) == 0);
    }
    CHECK(ashlar_shm_handle_lock(arena, first.handle()) != nullptr);
    for (const ashlar_handle h : locked) CHECK(ashlar_shm_handle_free(arena, h) == 0);
  }).join();
  compact(arena);
  CHECK(arena.blocks() == 1);
  CHECK(first.is_whole(arena));
}

TEST_CASE("a pass makes a sparse arena dense, and gives the rest back") {
  Shared arena(anonymous(512 * kMiB));
  Random random(1);
  std::vector<Object> objects;
  constexpr Bytes kSizes[] = {48, 100, 250, 500};
  for (std::uint64_t i = 0; i < 300'000; i++) {
    objects.emplace_back(arena, kSizes[random.below(4)], i);
    REQUIRE(objects.back().handle() != 0);
  }
  while (objects.size() > 30'000) {
    REQUIRE(ashlar_shm_handle_free(arena, pick(objects, random).handle()) == 0);
  }
  const ashlar_shm_stats before = arena.stats();
  CHECK(density(arena) < 0.2);
  const ashlar_moved done = compact(arena, 500);
  const ashlar_shm_stats after = arena.stats();
  MESSAGE("dense: " << density(arena) << ", moved ÷ freed: "
                    << static_cast<double>(done.bytes) / static_cast<double>(done.freed)
                    << ", mapped: " << before.mapped / kMiB << " → " << after.mapped / kMiB
                    << " MiB for " << after.handle_allocated / kMiB);
  CHECK(done.freed == before.handle_active - after.handle_active);
  CHECK(done.bytes <= done.freed);
  CHECK(density(arena) > 0.95);
  CHECK(after.mapped <= after.handle_active + 3 * kChunkBytes);
  for (const Object& object : objects) REQUIRE(object.is_whole(arena));
  REQUIRE(arena.broken() == "");
  CHECK(compact(arena).objects == 0);
}

TEST_CASE("with no time at all, each call does a little, beside another's that choose as well") {
  Shared arena(anonymous(64 * kMiB));
  std::vector<Object> all, objects;
  for (std::uint64_t i = 0; i < 40'000; i++) all.emplace_back(arena, 500, i);
  for (std::size_t i = 0; i < all.size(); i++) {
    if (i % 10 == 0) objects.push_back(all[i]);
    if (i % 10 != 0) REQUIRE(ashlar_shm_handle_free(arena, all[i].handle()) == 0);
  }
  CHECK(density(arena) < 0.2);
  Child other([&] {
    Shared own(ashlar_shm_open_fd(ashlar_shm_fd(arena), 0));
    for (int i = 0; i < 1000; i++) ashlar_shm_compact(own, 0, SIZE_MAX, nullptr);
  });
  int calls = 0;
  for (int whole = 0; whole < 3; calls++) {
    const int answer = ashlar_shm_compact(arena, 0, SIZE_MAX, nullptr);
    REQUIRE((answer >= 0 || errno == EBUSY));
    whole += answer == 0;
  }
  CHECK(other.wait() == 0);
  CHECK(calls > 100);
  CHECK(density(arena) > 0.95);
  for (const Object& object : objects) REQUIRE(object.is_whole(arena));
  CHECK(arena.broken() == "");
}

TEST_CASE("the memory of emptied chunks goes in pieces, whoever dies on the way") {
  Shared arena(anonymous(256 * kMiB));
  std::vector<ashlar_handle> handles;
  for (int i = 0; i < 60'000; i++) handles.push_back(ashlar_shm_handle_alloc(arena, 500));
  for (std::size_t i = 0; i < handles.size(); i++) {
    if (i % 20 != 0) REQUIRE(ashlar_shm_handle_free(arena, handles[i]) == 0);
  }
  const auto memory = [&arena] {
    struct stat status {};
    REQUIRE(::fstat(ashlar_shm_fd(arena), &status) == 0);
    return static_cast<Bytes>(status.st_blocks) * 512;
  };
  const Bytes before = memory();
  CHECK(before > 30 * kMiB);
  // Each child goes on a little way with the pass.
  for (std::uint64_t budget = 1; budget < 400; budget += 7) {
    Child child([&] {
      ashlar_shm_compact(arena, budget, SIZE_MAX, nullptr);
      ::raise(SIGKILL);
    });
    CHECK(WTERMSIG(child.wait()) == SIGKILL);
  }
  compact(arena, 20);
  const ashlar_shm_stats stats = arena.stats();
  MESSAGE("memory: " << before / kMiB << " → " << memory() / kMiB << " MiB");
  CHECK(stats.handle_active < 3 * kMiB);
  CHECK(stats.mapped <= 4 * kChunkBytes);
  CHECK(memory() <= stats.mapped + stats.metadata + kChunkBytes);
  CHECK(arena.broken() == "");
}

TEST_CASE("locked objects stay where they are") {
  Shared arena(anonymous(64 * kMiB));
  std::vector<Object> objects;
  for (std::uint64_t i = 0; i < 20'000; i++) objects.emplace_back(arena, 100, i);
  std::map<std::size_t, const void*> locked;
  for (std::size_t i = 0; i < objects.size(); i++) {
    if (i % 97 == 0) {
      locked[i] = ashlar_shm_handle_lock(arena, objects[i].handle());
    } else if (i % 10 != 0) {
      REQUIRE(ashlar_shm_handle_free(arena, objects[i].handle()) == 0);
    }
  }
  const ashlar_moved done = compact(arena);
  CHECK(done.objects > 1000);
  CHECK(done.skipped > 0);
  for (const auto& [i, p] : locked) {
    REQUIRE(objects[i].is_whole_at(p));
    REQUIRE(ashlar_shm_handle_lock(arena, objects[i].handle()) == p);
  }
  CHECK(arena.broken() == "");
}

TEST_CASE("a child of fork has nothing locked, and may move what its parent may") {
  Shared arena(anonymous());
  const Object object(arena, 64, 1);
  const void* const p = ashlar_shm_handle_lock(arena, object.handle());
  Child child([&] {
    if (ashlar_shm_handle_unlock(arena, object.handle()) == 0) ::_exit(1);
    if (ashlar_shm_handle_lock(arena, object.handle()) != p) ::_exit(2);
    if (ashlar_shm_handle_unlock(arena, object.handle()) != 0) ::_exit(3);
    if (ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, nullptr) != 0) ::_exit(4);
  });
  CHECK(child.wait() == 0);
  CHECK(object.is_whole_at(p));
}

TEST_CASE("what a dead process had locked is free to move, and its pass can be continued") {
  Shared arena(anonymous(64 * kMiB));
  std::vector<Object> objects;
  for (std::uint64_t i = 0; i < 20'000; i++) objects.emplace_back(arena, 100, i);
  for (std::size_t i = 0; i < objects.size(); i++) {
    if (i % 10 != 0) REQUIRE(ashlar_shm_handle_free(arena, objects[i].handle()) == 0);
  }
  Child child([&] {
    for (std::size_t i = 0; i < 4000; i += 10) {
      ashlar_shm_handle_lock(arena, objects[i].handle());
    }
    if (ashlar_shm_compact(arena, UINT64_MAX, 5000, nullptr) != 1) ::_exit(1);
    ::raise(SIGKILL);
  });
  CHECK(WTERMSIG(child.wait()) == SIGKILL);
  CHECK(ashlar_shm_recover(arena) == 1);
  CHECK(compact(arena).skipped == 0);  // the rest of its pass
  compact(arena);
  CHECK(arena.stats().handle_active == 4 * kUnitBytes);  // the least for them
  for (std::size_t i = 0; i < objects.size(); i += 10) REQUIRE(objects[i].is_whole(arena));
  CHECK(arena.broken() == "");
}

TEST_CASE("slabs of objects count for the quota of the process that made them") {
  Shared arena(anonymous());
  const auto held = [&arena] {
    Bytes sum = 0;
    ashlar_shm_processes(
        arena,
        [](const ashlar_shm_process* process, void* context) {
          if (process->pid == ::getpid()) *static_cast<Bytes*>(context) = process->held;
          return 0;
        },
        &sum);
    return sum;
  };
  REQUIRE(ashlar_shm_set_quota(arena, kMiB) == 0);
  std::vector<ashlar_handle> objects;
  while (const ashlar_handle h = ashlar_shm_handle_alloc(arena, 1000)) objects.push_back(h);
  CHECK(errno == EDQUOT);
  CHECK(objects.size() == kMiB / 1024);
  CHECK(held() == kMiB);
  CHECK(ashlar_shm_malloc(arena, 1000) == nullptr);
  // Another process may take as much, and give back what is not its own.
  Child other([&] {
    if (ashlar_shm_handle_alloc(arena, 2000) == 0) ::_exit(1);
    for (const ashlar_handle h : objects) ashlar_shm_handle_free(arena, h);
  });
  CHECK(other.wait() == 0);
  CHECK(held() <= kUnitBytes);
  CHECK(ashlar_shm_malloc(arena, 1000) != nullptr);
  CHECK(arena.broken() == "");
}

TEST_CASE("random steps beside a model") {
  for_seeds(4, [](Random& random) {
    Shared arena(anonymous(256 * kMiB));
    std::vector<Object> objects;
    std::vector<ashlar_handle> gone;
    std::vector<std::pair<Object, const void*>> locked;
    const std::uint32_t count = steps(40'000);
    for (std::uint32_t step = 0; step < count; step++) {
      const bool grow = step % 8000 < 4000;
      const std::uint32_t what = random.below(100);
      if (what < (grow ? 60u : 15u)) {
        const Object object(arena, random.up_to(32'000), random.next());
        trace.step("alloc %zu → %llx", object.bytes(),
                   static_cast<unsigned long long>(object.handle()));
        REQUIRE(object.handle() != 0);
        objects.push_back(object);
      } else if (what < 75 && !objects.empty()) {
        const Object object = pick(objects, random);
        trace.step("free %llx", static_cast<unsigned long long>(object.handle()));
        REQUIRE(object.is_whole(arena));
        REQUIRE(ashlar_shm_handle_free(arena, object.handle()) == 0);
        gone.push_back(object.handle());
      } else if (what < 85 && !objects.empty() && locked.size() < 300) {
        const Object object = objects[random.below(objects.size())];
        trace.step("lock %llx", static_cast<unsigned long long>(object.handle()));
        const void* const p = ashlar_shm_handle_lock(arena, object.handle());
        REQUIRE(p != nullptr);
        REQUIRE(object.is_whole_at(p));
        locked.emplace_back(object, p);
      } else if (what < 97 && !locked.empty()) {
        const auto [object, p] = pick(locked, random);
        trace.step("unlock %llx", static_cast<unsigned long long>(object.handle()));
        REQUIRE(object.is_whole_at(p));
        REQUIRE(ashlar_shm_handle_unlock(arena, object.handle()) == 0);
      } else if (!gone.empty()) {
        REQUIRE(is_stale(arena, gone[random.below(gone.size())]));
      }
      if (random.below(200) != 0) continue;
      trace.step("compact");
      REQUIRE(ashlar_shm_compact(arena, UINT64_MAX, random.up_to(100'000), nullptr) >= 0);
      for (const auto& [object, p] : locked) REQUIRE(object.is_whole_at(p));
      REQUIRE(arena.broken() == "");
    }
    for (const auto& [object, p] : locked) {
      REQUIRE(object.is_whole_at(p));
      REQUIRE(ashlar_shm_handle_unlock(arena, object.handle()) == 0);
    }
    compact(arena);
    for (const Object& object : objects) {
      REQUIRE(object.is_whole(arena));
      REQUIRE(ashlar_shm_handle_free(arena, object.handle()) == 0);
    }
    compact(arena);
    CHECK(arena.stats().handle_active == 0);
    CHECK(arena.broken() == "");
  });
}

TEST_CASE("threads write through locks while others move what they write") {
  Shared arena(anonymous(64 * kMiB));
  constexpr std::uint32_t kObjects = 4000;
  constexpr std::uint32_t kWords = 12;
  std::vector<ashlar_handle> handles;
  for (std::uint32_t i = 0; i < kObjects; i++) {
    handles.push_back(ashlar_shm_handle_alloc(arena, kWords * 8));
    std::memset(ashlar_shm_handle_lock(arena, handles[i]), 0, kWords * 8);
    ashlar_shm_handle_unlock(arena, handles[i]);
  }
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> moved = 0;
  std::atomic<std::uint64_t> written = 0;
  // Each writer has its objects, counts in all their words, and now and then makes one anew.
  const auto write = [&](std::uint32_t part, std::uint32_t count) {
    Random random(part + 1);
    for (std::uint32_t i = 0; i < count || moved.load() < 2000; i++) {
      ashlar_handle& h = handles[random.below(kObjects / 2) * 2 + part];
      if (random.chance(5)) {
        const ashlar_handle old = h;
        h = ashlar_shm_handle_alloc(arena, kWords * 8);
        std::memcpy(ashlar_shm_handle_lock(arena, h), ashlar_shm_handle_lock(arena, old),
                    kWords * 8);
        ashlar_shm_handle_unlock(arena, h);
        if (ashlar_shm_handle_free(arena, old) != 0) std::abort();
        ashlar_shm_handle_unlock(arena, old);
      }
      auto* const words = static_cast<volatile std::uint64_t*>(ashlar_shm_handle_lock(arena, h));
      const std::uint64_t before = words[0];
      for (std::uint32_t w = 0; w < kWords; w++) {
        if (words[w] != before) std::abort();
        words[w] = before + 1;
      }
      if (ashlar_shm_handle_unlock(arena, h) != 0) std::abort();
      written++;
    }
  };
  const auto move = [&] {
    std::vector<ashlar_handle> gaps;
    while (!stop.load()) {
      for (int i = 0; i < 4000; i++) gaps.push_back(ashlar_shm_handle_alloc(arena, kWords * 8));
      for (const ashlar_handle h : gaps) ashlar_shm_handle_free(arena, h);
      gaps.clear();
      ashlar_moved done{};
      if (ashlar_shm_compact(arena, UINT64_MAX, SIZE_MAX, &done) >= 0) moved += done.objects;
    }
  };
  const std::uint32_t count = steps(1'000'000);
  std::thread first(write, 0, count);
  std::thread second(write, 1, count);
  std::thread mover(move);
  first.join();
  second.join();
  stop.store(true);
  mover.join();
  std::uint64_t sum = 0;
  for (const ashlar_handle h : handles) {
    const auto* const words = static_cast<const std::uint64_t*>(ashlar_shm_handle_lock(arena, h));
    for (std::uint32_t w = 1; w < kWords; w++) REQUIRE(words[w] == words[0]);
    sum += words[0];
    ashlar_shm_handle_unlock(arena, h);
  }
  MESSAGE(moved.load() << " moves beside " << sum << " writes");
  CHECK(sum == written.load());
  CHECK(arena.broken() == "");
}

TEST_SUITE_END();

}  // namespace ashlar::test
