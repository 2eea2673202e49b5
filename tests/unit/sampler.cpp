// SPDX-License-Identifier: MIT
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <sys/mman.h>
#include <thread>
#include <utility>

#include "objects.h"
#include "program_heap.h"
#include "quiet_heap.h"
#include "thread_cache.h"

namespace ashlar::test {

namespace {

std::uint64_t live() {
  std::uint64_t n = 0;
  for (const SampleTable::Cell& cell : sampler.table().load()->cell) n += cell.address.load() != 0;
  return n;
}

// Sets the options for a test, whatever was before it.
void sample(std::int64_t kib, std::int64_t percent = 0) {
  options.sample_kib = kib;
  options.sample_percent = percent;
  if (Lane* const lane = this_lane()) {
    lane->sample_pace = {};
    lane->sample_pace.start();
  }
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

// What a program allocates, as its samples say, and what is known of it.
struct Account {
  double truth = 0;
  double said = 0;
  double variance = 0;
  std::uint64_t samples = 0;

  void add_sample(Bytes bytes, std::uint64_t mean_bytes) {
    const double weight =
        1 / -std::expm1(-static_cast<double>(bytes) / static_cast<double>(mean_bytes));
    said += weight;
    variance += weight * (weight - 1);
    samples++;
  }
  double deviations() const { return std::abs(said - truth) / std::sqrt(variance); }
};

// A processor that the test moves on.
std::uint64_t simulated_us;
std::uint64_t simulated_time() { return simulated_us; }

// Lets this thread's lane owe for samples, or earn, until its mean is doubled so often.
void set_doublings(std::uint8_t doublings) {
  SamplePace& pace = this_lane()->sample_pace;
  const std::int64_t percent = std::exchange(options.sample_percent, 1);
  while (pace.doublings() != doublings) {
    if (pace.doublings() > doublings) simulated_us += 1'000'000;
    pace.pay(simulated_time);
  }
  options.sample_percent = percent;
}

}  // namespace

TEST_SUITE_BEGIN("sampler");

TEST_CASE("distances between samples are exponential") {
  sample(64);
  constexpr int kDraws = 200'000;
  for (const Bytes bytes : {Bytes{16}, Bytes{1024}, 512 * kKiB}) {
    int zeros = 0;
    double sum = 0;
    for (int i = 0; i < kDraws; i++) {
      SamplePace pace;
      pace.start();
      const std::uint32_t n = pace.slots_before(bytes, 1'000'000);
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
  sample(1);
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
  sample(64);
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

TEST_CASE("samples take their part of the time, and say right what was allocated fast and slowly") {
  sample(512, 1);
  struct Phase {
    double bytes_a_ns;
    int objects;
    bool is_thinned;
  };
  const Phase phases[] = {
      {200, 4'000'000, true}, {0.1, 100'000, false}, {1, 1'000'000, false}, {20, 2'000'000, true}};
  constexpr Bytes kBytes = 8192;
  Account accounts[std::size(phases)];
  SamplePace pace;
  pace.start();
  double now_ns = 0;
  for (int round = 0; round < 3; round++) {
    for (std::size_t i = 0; i < std::size(phases); i++) {
      const auto& [bytes_a_ns, objects, is_thinned] = phases[i];
      const double begin_ns = now_ns;
      const std::uint64_t before = accounts[i].samples;
      std::uint64_t nominal = 0;
      for (int n = 0; n < objects; n++) {
        now_ns += kBytes / bytes_a_ns;
        const std::uint32_t mean_kib = pace.mean_if_due(kBytes);
        if (mean_kib == 0) continue;
        accounts[i].add_sample(kBytes, mean_kib * kKiB);
        nominal += mean_kib == 512;
        simulated_us = static_cast<std::uint64_t>(now_ns / 1000);
        pace.pay(simulated_time);
      }
      accounts[i].truth += objects;
      CAPTURE(i);
      const std::uint64_t samples = accounts[i].samples - before;
      const double price_ns = static_cast<double>(samples * SamplePace::kPriceNs);
      // What a burst may owe before each of ten doublings comes on top.
      CHECK(price_ns < (now_ns - begin_ns) / 100 + 10 * double{SamplePace::kMostOwedNs});
      CHECK(price_ns > (is_thinned ? 0.8 : 0) * (now_ns - begin_ns) / 100);
      if (!is_thinned) CHECK(nominal > samples - 64);
    }
  }
  for (const Account& account : accounts) CHECK(account.deviations() < 4);
}

// As above, but through magazines, where marks are drawn ahead.
TEST_CASE("samples that were drawn before the mean changed keep the mean of then") {
  sample(4, 0);
  const std::uint64_t mean_bytes = 4 * kKiB;
  struct Site {
    Bytes requested;
    int objects;
    std::size_t stays;  // one of so many
  };
  const Site sites[] = {{64, 2'000'000, 20}, {208, 1'000'000, 8}, {1000, 5000, 2}};
  Account accounts[std::size(sites)];
  std::vector<void*> kept;
  std::vector<void*> batch;
  for (int round = 0; round < 3; round++) {
    for (std::size_t i = 0; i < std::size(sites); i++) {
      for (int n = 0; n < sites[i].objects; n++) {
        batch.push_back(allocate(sites[i].requested));
        if (batch.size() < 500) continue;
        set_doublings(static_cast<std::uint8_t>(n / 500 % 4));
        for (std::size_t k = 0; k < batch.size(); k++) {
          if (k % sites[i].stays == 0) {
            kept.push_back(batch[k]);
            accounts[i].truth++;
          } else {
            give_slot(batch[k]);
          }
        }
        batch.clear();
      }
    }
  }
  bool is_thinned = false;
  bool is_nominal = false;
  for (const SampleTable::Cell& cell : sampler.table().load()->cell) {
    if (cell.address.load() == 0) continue;
    const SampleRecord& record = *cell.record;
    for (std::size_t i = 0; i < std::size(sites); i++) {
      if (record.requested == sites[i].requested)
        accounts[i].add_sample(record.bytes, record.mean_bytes);
    }
    is_nominal |= record.mean_bytes == mean_bytes;
    is_thinned |= record.mean_bytes > mean_bytes;
  }
  CHECK(is_nominal);
  CHECK(is_thinned);
  CHECK(sampler.table().load()->lost == 0);
  for (std::size_t i = 0; i < std::size(accounts); i++) {
    CAPTURE(i);
    CAPTURE(accounts[i].said);
    CAPTURE(accounts[i].truth);
    CHECK(accounts[i].samples > 100);
    CHECK(accounts[i].deviations() < 4.5);
  }
  for (void* p : kept) give_slot(p);
  flush_lane(*this_lane());
  CHECK(broken() == "");
}

TEST_CASE(
    "where a sampled object lies, its own thread's free finds what looks like a full magazine") {
  sample(16);
  Lane& lane = *this_lane();
  const UnitEntry bare = UnitEntry::bare(reinterpret_cast<std::uintptr_t>(&lane));
  void* const p = take_sampled(100);
  CHECK(arena.entry_of(p).word() == bare.word());
  const Magazine& full = *reinterpret_cast<const Magazine*>(bare.word());
  CHECK(&full == &lane.full_magazine[1]);
  CHECK(is_slot_start(12'345 & full.slab_mask, full.magic));
  CHECK(full.give == full.give_end);

  SUBCASE("its own thread frees it") { give_slot(p); }
  SUBCASE("another one does") {
    std::thread([p] { give_slot(p); }).join();
  }
  CHECK(!is_sampled(p));
  CHECK(full.give == full.give_end);

  // What is in slabs, or a heap's, is not hidden by it.
  void* const slot = take_slot(class_for(100));
  const std::uint64_t before = arena.entry_of(slot).word();
  arena.set_bare(slot, lane.slabs);
  CHECK(arena.entry_of(slot).word() == before);
  give_slot(slot);
  CHECK(broken() == "");
  CHECK(sound(check_invariants(lane)) == "");
}

TEST_CASE("a sampled object may lie beside a large block of a program's heap") {
  sample(1);
  ProgramHeap* const h = program_heaps.create({});
  REQUIRE(h != nullptr);
  for (int i = 0; i < 64; i++) REQUIRE(h->take(9 * kPageBytes, kMinAlignment) != nullptr);
  std::vector<void*> objects;
  for (int i = 0; i < 2000; i++) objects.push_back(allocate(100));
  CHECK(std::ranges::any_of(objects,
                            [](void* p) { return is_sampled(p) && arena.entry_of(p).is_large(); }));
  for (void* p : objects) give_slot(p);
  CHECK(live() == 0);
  program_heaps.destroy(h->handle());
  flush_lane(*this_lane());
  CHECK(broken() == "");
}

TEST_CASE("a sampled object lies on pages of its own, and its slot stays taken until it is freed") {
  sample(16);
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
  sample(1);
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

TEST_CASE("a table on pages that cannot be purged is empty all the same") {
  REQUIRE(heap.ensure_arena());
  constexpr PageCount kPages = pages_for(sizeof(SampleTable));
  bool zero = false;
  void* const pages = arena.take_pages(kPages, kPageBytes, BlockKind::internal, zero);
  REQUIRE(pages != nullptr);
  std::memset(pages, 0xff, bytes_of(kPages));
  if (::mlock(pages, bytes_of(kPages)) != 0) {
    MESSAGE("memory cannot be locked here");
    return;
  }
  REQUIRE(arena.give_pages(pages, BlockKind::internal));
  Sampler fresh;
  const int object = 0;
  fresh.note_large(const_cast<int*>(&object), 1, 1, 1);
  const SampleTable* const table = fresh.table().load();
  REQUIRE(table == pages);
  CHECK(table->taken == 1);
  CHECK(table->lost == 0);
  fresh.forget_large(&object);
  ::munlock(pages, bytes_of(kPages));
  CHECK(arena.give_pages(pages, BlockKind::internal));
}

TEST_CASE("a large object is sampled by its length") {
  sample(64);
  bool zero = false;
  const std::uint64_t before = sampler.table().load()->taken;
  for (int i = 0; i < 50; i++) {
    void* const p = heap.take_large(2 * kMiB, kPageBytes, zero);
    REQUIRE(p != nullptr);
    CHECK(heap.give_large(p));
  }
  CHECK(sampler.table().load()->taken == before + 50);
}

TEST_CASE("as many samples as are promised have room; what does not fit is lost, and counted") {
  sample(1);
  std::vector<void*> objects = {take_sampled(2048)};
  const SampleTable& table = *sampler.table().load();
  const std::uint64_t lost_before = table.lost;
  const auto take_until = [&](auto enough) {
    while (table.lost == lost_before && !enough()) objects.push_back(take_slot(class_for(2048)));
  };
  take_until([&] { return objects.size() % 1024 == 0 && live() >= SampleTable::kSamples; });
  CHECK(table.lost == lost_before);

  take_until([&] { return objects.size() >= 2 * SampleTable::kCells; });
  CHECK(table.lost > lost_before);
  for (void* p : objects) give_slot(p);
  flush_lane(*this_lane());
  CHECK(live() == 0);
  sample(0);
}

TEST_SUITE_END();

}  // namespace ashlar::test
