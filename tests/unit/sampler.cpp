// SPDX-License-Identifier: MIT
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "objects.h"
#include "quiet_heap.h"
#include "thread_cache.h"

namespace ashlar::test {

namespace {

std::uint64_t live() {
  std::uint64_t n = 0;
  for (const SampleTable::Cell& cell : sampler.table().load()->cell) n += cell.address.load() != 0;
  return n;
}

bool is_sampled(const void* p) { return sampler.slot_bytes_of(p) != 0; }

// A sampled object for a request of so many bytes; others are freed.
void* take_sampled(Bytes requested) {
  for (;;) {
    void* const p = allocate(requested);
    if (is_sampled(p)) return p;
    give_slot(p);
  }
}

}  // namespace

TEST_SUITE_BEGIN("sampler");

TEST_CASE("distances between samples are exponential") {
  options.sample_kib = 64;
  constexpr int kDraws = 200'000;
  for (const Bytes bytes : {Bytes{16}, Bytes{1024}, 512 * kKiB}) {
    int zeros = 0;
    double sum = 0;
    for (int i = 0; i < kDraws; i++) {
      Bytes distance = sampler.draw();
      const std::uint32_t n = sampler.slots_before(distance, bytes, 1'000'000);
      zeros += n == 0;
      sum += static_cast<double>(n);
    }
    // A geometric distribution: 1 − exp(−bytes / mean) of them are 0, and what its mean is.
    const double p = 1 - std::exp(-static_cast<double>(bytes) / (64 * 1024));
    CAPTURE(bytes);
    CHECK(static_cast<double>(zeros) / kDraws == doctest::Approx(p).epsilon(0.02).scale(0.1));
    CHECK(sum / kDraws == doctest::Approx((1 - p) / p).epsilon(0.02).scale(0.01));
  }
}

TEST_CASE("samples are as many as the bytes allocated say, and go when objects are freed") {
  options.sample_kib = 1;
  std::vector<void*> objects;
  const ClassIndex c = class_for(96);
  for (int round = 0; round < 20; round++) {  // through the magazines again and again
    for (int i = 0; i < 20'000; i++) objects.push_back(take_slot(c));
    const double wanted = 20'000 * (1 - std::exp(-96.0 / 1024));
    CHECK(static_cast<double>(live()) == doctest::Approx(wanted).epsilon(0.15));
    for (void* p : objects) give_slot(p);
    objects.clear();
    flush_lane(*this_lane());
    CHECK(live() == 0);
  }
  CHECK(sampler.table().load()->lost == 0);
  for (const auto& cell : sampler.table().load()->filter) REQUIRE(cell == 0);
  CHECK(broken() == "");
  CHECK(sound(check_invariants(*this_lane())) == "");
}

// What was drawn ahead is thrown away when stacks are flushed. It must not matter what it was.
TEST_CASE("no pattern of allocations and frees is sampled more than another") {
  options.sample_kib = 64;
  const ClassIndex c = class_for(208);
  const double p = 1 - std::exp(-208.0 / (64 * 1024));
  for (const std::size_t batch : {std::size_t{1}, std::size_t{100}, std::size_t{1000}}) {
    CAPTURE(batch);
    const std::uint64_t before = sampler.table().load()->taken;
    constexpr std::size_t kObjects = 2'000'000;
    std::vector<void*> objects(batch);
    for (std::size_t done = 0; done < kObjects; done += batch) {
      for (void*& object : objects) object = take_slot(c);
      for (void* object : objects) give_slot(object);
    }
    const auto taken = static_cast<double>(sampler.table().load()->taken - before);
    CHECK(taken == doctest::Approx(kObjects * p).epsilon(0.05));  // four standard deviations
    CHECK(sound(check_invariants(*this_lane())) == "");
  }
}

TEST_CASE("a sampled object lies on pages of its own, and its slot stays taken until it is freed") {
  options.sample_kib = 16;
  for (const Bytes requested : {Bytes{100}, Bytes{1000}, Bytes{5000}, Bytes{30'000}}) {
    CAPTURE(requested);
    const Bytes slot_bytes = size_class(class_for(requested)).slot_bytes;
    char* const p = static_cast<char*>(take_sampled(requested));
    CHECK(arena.entry_of(p).is_free());
    CHECK(usable_bytes(p, "test") == slot_bytes);
    std::memset(p, 7, slot_bytes);
    CHECK(reallocate(p, slot_bytes - 1) == p);
    const std::uint64_t others = live() - 1;
    char* const grown = static_cast<char*>(reallocate(p, slot_bytes + 1));
    CHECK(grown != p);
    CHECK(std::count(grown, grown + slot_bytes, 7) == static_cast<long>(slot_bytes));
    CHECK(!is_sampled(p));
    give_slot(grown);
    CHECK(live() == others);
  }
  CHECK(broken() == "");
  CHECK(sound(check_invariants(*this_lane())) == "");
}

TEST_CASE("alignment is kept, and any thread may free a sampled object") {
  options.sample_kib = 1;
  std::vector<void*> objects;
  for (int i = 0; i < 2000; i++) {
    const Bytes alignment = Bytes{16} << i % 9;
    objects.push_back(allocate_aligned(alignment, 200));
    REQUIRE(reinterpret_cast<std::uintptr_t>(objects.back()) % alignment == 0);
  }
  CHECK(std::ranges::count_if(objects, is_sampled) > 200);
  std::thread([&] {
    for (void* p : objects) give_slot(p);
    if (this_lane() != nullptr) flush_lane(*this_lane());
  }).join();
  CHECK(live() == 0);
  flush_lane(*this_lane());
  CHECK(broken() == "");
}

TEST_CASE("a large object is sampled by its length") {
  options.sample_kib = 64;
  bool zero = false;
  const std::uint64_t before = sampler.table().load()->taken;
  for (int i = 0; i < 50; i++) {
    void* const p = heap.take_large(2 * kMiB, kPageBytes, zero);
    REQUIRE(p != nullptr);
    CHECK(heap.give_large(p));
  }
  CHECK(sampler.table().load()->taken == before + 50);
}

TEST_CASE("what does not fit into the table is lost, and counted") {
  options.sample_kib = 1;
  std::vector<void*> objects;
  for (int i = 0; i < 45'000; i++) objects.push_back(take_slot(class_for(2048)));
  const SampleTable& table = *sampler.table().load();
  CHECK(table.lost > 0);
  for (void* p : objects) give_slot(p);
  flush_lane(*this_lane());
  CHECK(live() == 0);
  options.sample_kib = 0;
}

TEST_SUITE_END();

}  // namespace ashlar::test
