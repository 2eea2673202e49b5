// SPDX-License-Identifier: MIT
// Heaps that the program makes: in the process's arena, on its memory, on its pages.
#include "program_heap.h"

#include <cerrno>
#include <cstring>
#include <thread>

#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "stats.h"
#include "stepped.h"
#include "unit.h"

namespace ashlar::test {

namespace {

ProgramHeap& make(const ashlar_heap_policy& policy = {}) {
  ProgramHeap* const h = program_heaps.create(policy);
  REQUIRE(h != nullptr);
  return *h;
}

ashlar_heap_stats count(const ProgramHeap& h) {
  ashlar_heap_stats stats;
  h.count(stats);
  return stats;
}

HeapStats process_stats() {
  HeapStats s;
  collect_stats(s);
  return s;
}

void* take(ProgramHeap& h, Bytes bytes, Bytes alignment = kMinAlignment) {
  void* const p = h.take(bytes, alignment);
  REQUIRE(p != nullptr);
  std::memset(p, 0x5a, bytes);
  return p;
}

void give(ProgramHeap& h, void* p) { h.give(p, "ashlar_heap_free"); }

// A program's pages, and what it was asked.
struct Source {
  Ground ground{8 * kMiB};
  bool keep = false;
  int commits = 0, purges = 0, releases = 0, asked = 0, outs = 0;
  void* spare = nullptr;
  ProgramHeap* heap = nullptr;

  static Source& of(void* context) { return *static_cast<Source*>(context); }
  ashlar_heap_policy policy() {
    ashlar_heap_policy p = {};
    p.context = this;
    p.reserve_bytes = ground.bytes();
    p.reserve = [](void* c, size_t bytes) -> void* {
      return bytes == of(c).ground.bytes() ? of(c).ground.base() : nullptr;
    };
    p.commit = [](void* c, void*, size_t) { return of(c).commits++, 0; };
    p.purge = [](void* c, void* address, size_t bytes) {
      of(c).purges++;
      return os::purge(address, bytes) ? 0 : 1;
    };
    p.release = [](void* c, void*, size_t) { of(c).releases++; };
    p.may_purge = [](void* c) { return of(c).asked++, of(c).keep ? 0 : 1; };
    p.out_of_memory = [](void* c, size_t) {
      of(c).outs++;
      if (of(c).spare == nullptr) return 0;
      give(*of(c).heap, of(c).spare);
      of(c).spare = nullptr;
      return 1;
    };
    return p;
  }
};

Bytes tend(Arena::Purge which = Arena::Purge::at_once) {
  Bytes bytes = 0;
  program_heaps.tend(which, bytes);
  return bytes;
}

}  // namespace

TEST_SUITE_BEGIN("program_heap");

TEST_CASE("a heap counts its objects, and they all go with it") {
  maintenance.trim();
  const HeapStats before = process_stats();
  ProgramHeap& h = make();
  for (Bytes bytes : {1, 16, 100, 5000, 32768}) take(h, bytes);
  take(h, 40'000);
  take(h, 3 * kMiB);
  CHECK(count(h).objects == 7);
  CHECK(count(h).allocated == 16 + 16 + 112 + 5120 + 32768 + 40'960 + 3 * kMiB);
  CHECK(count(h).active >= count(h).allocated);
  CHECK(process_stats().allocated == before.allocated + count(h).allocated);
  CHECK(sound(arena.check_invariants()) == "");
  program_heaps.destroy(h.handle());
  CHECK(process_stats().allocated == before.allocated);
  CHECK(process_stats().active == before.active);
  CHECK(sound(arena.check_invariants()) == "");
}

TEST_CASE("objects of two heaps share no unit") {
  ProgramHeap& a = make();
  ProgramHeap& b = make();
  void* const of_a = take(a, 64);
  void* const of_b = take(b, 64);
  CHECK(unit_of(arena.page_of(of_a)) != unit_of(arena.page_of(of_b)));
  CHECK(count(a).objects == 1);
  program_heaps.destroy(a.handle());
  CHECK(count(b).objects == 1);
  give(b, of_b);
  CHECK(count(b).objects == 0);
  program_heaps.destroy(b.handle());
}

TEST_CASE("free() knows a heap's objects, from any thread") {
  ProgramHeap& h = make();
  void* const small = take(h, 100);
  void* const large = take(h, kMiB);
  std::thread([&] {
    give_slot(small);
    give_slot(large);
  }).join();
  maintenance.trim();
  CHECK(count(h).objects == 0);
  CHECK(sound(arena.check_invariants()) == "");
  program_heaps.destroy(h.handle());
}

TEST_CASE("what free() was told last does not come back to haunt a new owner") {
  for (int round = 0; round < 3; round++) {
    ProgramHeap& h = make();
    void* const p = take(h, 48);
    give_slot(p);
    program_heaps.destroy(h.handle());
    void* const q = take_slot(class_for(48));
    maintenance.trim();
    CHECK(sound(arena.check_invariants()) == "");
    give_slot(q);
  }
}

TEST_CASE("large blocks of heaps and others may share a unit") {
  ProgramHeap& h = make();
  std::vector<void*> mine, others;
  bool zero = false;
  for (int i = 0; i < 40; i++) {
    mine.push_back(take(h, 9 * kPageBytes));
    others.push_back(heap.take_large(5 * kPageBytes, kPageBytes, zero));
  }
  CHECK(sound(arena.check_invariants()) == "");
  for (void* p : others) give_slot(p);
  CHECK(count(h).objects == 40);
  for (void* p : mine) give(h, p);
  CHECK(count(h).objects == 0);
  program_heaps.destroy(h.handle());
}

TEST_CASE("resizing keeps what an object holds") {
  ProgramHeap& h = make();
  void* p = take(h, 10);
  std::memcpy(p, "123456789", 10);
  for (Bytes bytes : {24, 1000, 40'000, 5'000'000, 100'000, 50, 10}) {
    p = h.resize(p, bytes, "realloc");
    REQUIRE(p != nullptr);
    CHECK(std::memcmp(p, "123456789", 10) == 0);
    CHECK(h.usable_bytes(p, "usable") >= bytes);
    CHECK(count(h).objects == 1);
  }
  CHECK(h.resize(p, Bytes{1} << 50, "realloc") == nullptr);
  CHECK(errno == ENOMEM);
  program_heaps.destroy(h.handle());
}

TEST_CASE("objects are aligned as was asked") {
  ProgramHeap& h = make();
  for (Bytes alignment = 16; alignment <= 8 * kMiB; alignment *= 2) {
    void* const p = take(h, 100, alignment);
    CHECK(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
    if (alignment % 32 == 0) give(h, p);
  }
  program_heaps.destroy(h.handle());
}

TEST_CASE("a heap on the caller's memory stays there and is full when it is full") {
  Ground ground(8 * kMiB);
  ProgramHeap* const h = program_heaps.create_in(ground.base(), ground.bytes());
  REQUIRE(h != nullptr);
  std::vector<void*> taken;
  while (void* const p = h->take(kMiB / 2, kMinAlignment)) taken.push_back(p);
  CHECK(errno == ENOMEM);
  CHECK(taken.size() >= 8);
  for (void* p : taken) {
    CHECK(p >= ground.base());
    CHECK(p < ground.base() + ground.bytes());
    give(*h, p);
  }
  CHECK(h->take(kMiB / 2, kMinAlignment) != nullptr);
  program_heaps.destroy(h->handle());
  CHECK(program_heaps.create_in(ground.base(), kMiB) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(program_heaps.create_in(nullptr, 8 * kMiB) == nullptr);
  CHECK(errno == EINVAL);
}

TEST_CASE("a program's page source is asked for pages, told of idle ones, and gets all back") {
  Source source;
  ProgramHeap& h = make(source.policy());
  source.heap = &h;
  CHECK(source.commits > 0);
  void* const kept = take(h, 100);
  void* const idle = take(h, kMiB);
  give(h, idle);
  source.keep = true;
  tend();
  CHECK(source.asked == 1);
  CHECK(source.purges == 0);
  source.keep = false;
  tend();
  CHECK(source.purges > 0);
  CHECK(*static_cast<char*>(kept) == 0x5a);
  program_heaps.destroy(h.handle());
  CHECK(source.releases == 1);
}

TEST_CASE("out_of_memory may make room, or the call fails") {
  Source source;
  ProgramHeap& h = make(source.policy());
  source.heap = &h;
  source.spare = take(h, kMiB);
  while (source.spare != nullptr) take(h, kMiB);
  CHECK(source.outs == 1);
  int more = 0;
  while (h.take(kMiB, kMinAlignment) != nullptr) more++;
  CHECK(errno == ENOMEM);
  CHECK(more == 0);
  CHECK(source.outs == 2);
  program_heaps.destroy(h.handle());
}

TEST_CASE("a page source that refuses makes no heap") {
  Source source;
  ashlar_heap_policy policy = source.policy();
  policy.commit = [](void*, void*, size_t) { return 1; };
  CHECK(program_heaps.create(policy) == nullptr);
  CHECK(errno == ENOMEM);
  CHECK(source.releases == 1);
  policy = source.policy();
  policy.reserve = [](void*, size_t) -> void* { return nullptr; };
  CHECK(program_heaps.create(policy) == nullptr);
  CHECK(errno == ENOMEM);
  policy.reserve = [](void* c, size_t) -> void* {
    return Source::of(c).ground.base() + kPageBytes;
  };
  CHECK(program_heaps.create(policy) == nullptr);
  CHECK(errno == EINVAL);
}

TEST_CASE("empty pages inside a heap's slabs go back") {
  ProgramHeap& h = make();
  std::vector<void*> objects;
  for (int i = 0; i < 4096; i++) objects.push_back(take(h, 1024));
  for (std::size_t i = 0; i < objects.size(); i++) {
    if (i % 64 != 0) give(h, objects[i]);
  }
  CHECK(tend() >= 2 * kMiB);
  CHECK(*static_cast<char*>(objects[0]) == 0x5a);
  program_heaps.destroy(h.handle());
}

TEST_CASE("a child of fork goes on with its copy of a heap") {
  ProgramHeap& h = make();
  void* const p = take(h, 100);
  const pid_t child = ::fork();
  if (child == 0) {
    heap.after_fork_in_child();
    give(h, p);
    void* const large = h.take(kMiB, kMinAlignment);
    bool good = large != nullptr && count(h).objects == 1;
    program_heaps.destroy(h.handle());
    ProgramHeap* const next = program_heaps.create({});
    good &= next != nullptr && next->take(10, kMinAlignment) != nullptr;
    ::_exit(good && arena.check_invariants() == nullptr ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
  CHECK(count(h).objects == 1);
  program_heaps.destroy(h.handle());
}

TEST_CASE("a child that is forked while a heap is destroyed keeps what lies behind its slabs") {
  if (!kCanStep) return;
  constexpr Bytes kBytes = 16 * kKiB;
  const ClassIndex c = class_for(kBytes);
  ProgramHeap& h = make();
  std::vector<void*> others;
  std::byte* mine = nullptr;
  UnitEntry behind;
  do {
    mine = static_cast<std::byte*>(take(h, kBytes));
    others.push_back(take_slot(c));
    mine -= (mine - arena.data()) % size_class(c).slab_bytes;
    if (arena.contains(mine + size_class(c).slab_bytes)) {
      behind = arena.entry_of(mine + size_class(c).slab_bytes);
    }
  } while (!behind.is_slab() || behind.is_of_program_heap());
  for (std::uint32_t i = 0; i < size_class(c).capacity; i++) take(h, kBytes);  // another slab
  const UnitEntry last = arena.entry_of(mine + size_class(c).slab_bytes - 1);

  int forks = 0;
  int lost = 0;
  stepped([&] { program_heaps.destroy(h.handle()); },
          [&] {
            if (arena.entry_of(mine + size_class(c).slab_bytes - 1).word() != last.word()) {
              return step_no_further();
            }
            const pid_t child = ::fork();
            if (child == 0) {
              heap.after_fork_in_child();
              const UnitEntry kept = arena.entry_of(mine + size_class(c).slab_bytes);
              ::_exit(kept.word() == behind.word() ? 0 : 1);
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            lost += status != 0;
            forks++;
          });
  CHECK(forks > 100);
  CHECK(lost == 0);
  for (void* p : others) give_slot(p);
}

TEST_SUITE_END();

}  // namespace ashlar::test
