// SPDX-License-Identifier: MIT
// Heaps that come and go, beside a model of what lives in them.
#include "program_heap.h"

#include <cstring>
#include <thread>

#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "property.h"

namespace ashlar::test {

namespace {

struct Object {
  unsigned char* p;
  Bytes bytes;
  unsigned char mark;
};

struct Model {
  ProgramHeap* heap;
  std::vector<Object> objects;
};

bool is_whole(const Object& o) {
  return o.p[0] == o.mark && o.p[o.bytes / 2] == o.mark && o.p[o.bytes - 1] == o.mark;
}

Object take(ProgramHeap& h, Random& random) {
  const Bytes bytes = random.chance(3) ? random.between(33'000, 600'000) : random.up_to(20'000);
  const Bytes alignment = random.chance(5) ? Bytes{16} << random.below(12) : kMinAlignment;
  auto* const p = static_cast<unsigned char*>(h.take(bytes, alignment));
  REQUIRE(p != nullptr);
  REQUIRE(reinterpret_cast<std::uintptr_t>(p) % alignment == 0);
  const auto mark = static_cast<unsigned char>(random.between(1, 255));
  std::memset(p, mark, bytes);
  return {p, bytes, mark};
}

void step(Model& m, Random& random) {
  ProgramHeap& h = *m.heap;
  if (m.objects.empty() || random.chance(55)) {
    m.objects.push_back(take(h, random));
    return;
  }
  std::swap(m.objects[random.below(m.objects.size())], m.objects.back());
  Object& o = m.objects.back();
  REQUIRE(is_whole(o));
  if (random.chance(10)) {
    const Bytes bytes = 1 + random.up_to(60'000);
    o.p = static_cast<unsigned char*>(h.resize(o.p, bytes, "realloc"));
    REQUIRE(o.p != nullptr);
    for (Bytes i : {Bytes{0}, std::min(bytes, o.bytes) - 1}) REQUIRE(o.p[i] == o.mark);
    o.bytes = bytes;
    std::memset(o.p, o.mark, bytes);
    return;
  }
  if (random.chance(30)) {
    give_slot(o.p);
  } else {
    h.give(o.p, "ashlar_heap_free");
  }
  m.objects.pop_back();
}

void check(const Model& m) {
  ashlar_heap_stats stats;
  m.heap->count(stats);
  REQUIRE(stats.objects == m.objects.size());
  Bytes requested = 0;
  for (const Object& o : m.objects) {
    REQUIRE(is_whole(o));
    requested += o.bytes;
  }
  REQUIRE(stats.allocated >= requested);
  REQUIRE(stats.active >= stats.allocated);
}

Bytes tend(Arena::Purge which = Arena::Purge::at_once) {
  Bytes bytes = 0;
  program_heaps.tend(which, bytes);
  return bytes;
}

}  // namespace

TEST_CASE("heaps keep their objects apart, whole and counted, whatever happens to others") {
  for_seeds(2, [](Random& random) {
    std::vector<Model> heaps;
    for (std::uint32_t i = 0; i < steps(30'000); i++) {
      if (heaps.empty() || (heaps.size() < 8 && random.chance(1))) {
        trace.step("create");
        heaps.push_back({program_heaps.create({}), {}});
        REQUIRE(heaps.back().heap != nullptr);
      }
      const std::uint32_t n = random.below(heaps.size());
      if (random.below(1000) == 0) {
        trace.step("destroy %u", n);
        program_heaps.destroy(heaps[n].heap->handle());
        heaps.erase(heaps.begin() + n);
        continue;
      }
      trace.step("heap %u, which has %zu", n, heaps[n].objects.size());
      step(heaps[n], random);
      if (i % 500 != 0) continue;
      tend(random.chance(50) ? Arena::Purge::aged : Arena::Purge::at_once);
      REQUIRE(sound(arena.check_invariants()) == "");
      for (const Model& m : heaps) check(m);
    }
    for (const Model& m : heaps) program_heaps.destroy(m.heap->handle());
  });
}

TEST_CASE("several threads use one heap, and others free what they made") {
  options.background = kBackgroundNever;  // so that the arena is quiet when it is checked
  ProgramHeap* const shared = program_heaps.create({});
  REQUIRE(shared != nullptr);
  std::vector<std::thread> threads;
  std::atomic<int> broken = 0;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      Random random(t);
      for (std::uint32_t round = 0; round < steps(40); round++) {
        ProgramHeap* const own = program_heaps.create({});
        for (int i = 0; i < 500; i++) {
          ProgramHeap& h = random.chance(50) ? *own : *shared;
          const Bytes bytes = 1 + random.up_to(50'000);
          auto* const p = static_cast<unsigned char*>(h.take(bytes, kMinAlignment));
          p[0] = p[bytes - 1] = static_cast<unsigned char>(t + 1);
          if (p[0] != t + 1 || p[bytes - 1] != t + 1) broken++;
          if (&h == shared || random.chance(50)) {
            if (random.chance(50)) {
              give_slot(p);
            } else {
              h.give(p, "ashlar_heap_free");
            }
          }
          if (random.below(200) == 0) maintenance.trim();
        }
        program_heaps.destroy(own->handle());
      }
      heap.end_this_thread();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(broken == 0);
  tend();
  ashlar_heap_stats stats;
  shared->count(stats);
  CHECK(stats.objects == 0);
  CHECK(sound(arena.check_invariants()) == "");
  program_heaps.destroy(shared->handle());
}

}  // namespace ashlar::test
