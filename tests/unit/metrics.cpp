// SPDX-License-Identifier: MIT
// Every metric on snapshots whose truth one can count by hand.
#include "metrics.h"

#include <cmath>
#include <doctest/doctest.h>

#include "doctor.h"
#include "report.h"
#include "target.h"

namespace ashlar::frag::test {

namespace {

// Two classes: 64 slots of 1 KiB, and 12 of 20 KiB (five pages each) in a slab of 64 pages.
Snapshot empty_arena(std::uint32_t chunks) {
  Snapshot s;
  s.classes = {{1024, 64 * 1024, 64}, {20480, 256 * 1024, 12}, {16, 64 * 1024, 4096}};
  s.pages.assign(std::size_t{chunks} * kPagesPerChunk, Page{});
  s.huge_known = true;
  return s;
}

void use(Snapshot& s, std::uint32_t first, std::uint32_t pages, PageUse use, bool resident = true) {
  for (std::uint32_t i = first; i < first + pages; i++) {
    s.pages[i].use = use;
    s.pages[i].resident = resident;
  }
}

// A slab whose live slots are the bits of `live`, with more of them in magazines or pending.
void add_slab(Snapshot& s, std::uint32_t first, std::uint16_t c, std::uint64_t live,
              std::uint64_t cached = 0, std::uint64_t pending = 0) {
  Slab slab;
  slab.first_page = first;
  slab.size_class = c;
  slab.lane = Slab::kNoLane;
  slab.live = static_cast<std::uint32_t>(std::popcount(live));
  slab.cached = static_cast<std::uint32_t>(std::popcount(cached));
  slab.pending = static_cast<std::uint32_t>(std::popcount(pending));
  slab.words = s.live_bits.size();
  s.live_bits.push_back(live);
  s.taken_bits.push_back(live | cached | pending);
  use(s, first, s.classes[c].pages(), PageUse::slab);
  s.slabs.push_back(slab);
}

void add_block(Snapshot& s, std::uint32_t first, std::uint32_t pages, PageUse kind) {
  s.blocks.push_back({first, pages, kind});
  use(s, first, pages, kind);
}

}  // namespace

TEST_SUITE_BEGIN("metrics");

TEST_CASE("an empty arena has zeros and no findings") {
  const Snapshot s = empty_arena(0);
  REQUIRE(check(s) == nullptr);
  CHECK(waterfall(s).resident == 0);
  CHECK(unusable_free_space(s, 16) == 0);
  CHECK(meshable(s, 16) == 0);
  CHECK(make_report(s).findings.empty());
}

TEST_CASE("the waterfall accounts for every page once") {
  Snapshot s = empty_arena(2);
  add_slab(s, 0, 0, 0b1111, 0b110000, 0b1000000);
  add_block(s, 16, 10, PageUse::large);
  add_block(s, 26, 3, PageUse::cached);
  add_block(s, 29, 2, PageUse::internal);
  s.pages[40].resident = s.pages[40].dirty = true;
  s.pages[17].resident = false;
  s.pages[18].resident = false;
  s.pages[18].swapped = true;
  use(s, 512, 512, PageUse::unusable, false);
  s.metadata_resident = 7 * kPageBytes;
  REQUIRE(check(s) == nullptr);
  const Waterfall w = waterfall(s);
  const Requested asked = requested(s);
  CHECK(!asked.estimate.has_value());
  CHECK(asked.most == w.allocated);
  CHECK(asked.least < asked.most);
  CHECK(w.allocated == 4 * 1024 + 10 * kPageBytes);
  CHECK(w.magazines == 2 * 1024 + 3 * kPageBytes);
  CHECK(w.pending == 1024);
  CHECK(w.active == 64 * 1024 + 13 * kPageBytes);
  CHECK(w.gaps == 57 * 1024);
  CHECK(w.untouched == 2 * kPageBytes);
  CHECK(w.swapped == kPageBytes);
  CHECK(w.dirty == kPageBytes);
  CHECK(w.free == (512 - 31) * kPageBytes);
  CHECK(w.mapped == 512 * kPageBytes);
  CHECK(w.metadata == 9 * kPageBytes);
  CHECK(w.resident == (16 + 13 - 2 + 1 + 9) * kPageBytes);
}

TEST_CASE("a class counts its objects, its free bytes and its deciles") {
  Snapshot s = empty_arena(1);
  add_slab(s, 0, 0, 0);
  add_slab(s, 16, 0, 0x7f);               // 7 of 64: 10 %
  add_slab(s, 32, 0, ~std::uint64_t{0});  // all
  add_slab(s, 64, 1, 0b111111);           // half of twelve
  REQUIRE(check(s) == nullptr);
  const std::vector<ClassMetrics> all = classes(s);
  REQUIRE(all.size() == 2);
  CHECK(all[0].slot_bytes == 1024);
  CHECK(all[0].slabs == 3);
  CHECK(all[0].slots == 192);
  CHECK(all[0].live == 71);
  CHECK(all[0].free == 121 * 1024);
  CHECK(all[0].tails == 0);
  CHECK(all[0].rounding_most == 71 * 1023);
  CHECK(all[0].deciles == std::array<std::uint64_t, 10>{1, 1, 0, 0, 0, 0, 0, 0, 0, 1});
  CHECK(all[1].tails == 256 * 1024 - 12 * 20480);
  CHECK(all[1].rounding_most == 6 * (20480 - 1024 - 1));
  CHECK(all[1].deciles[5] == 1);
}

TEST_CASE("a page's occupancy counts the parts of objects that lie on it") {
  Snapshot s = empty_arena(1);
  add_slab(s, 0, 0, 0b1001'0001);  // 1 KiB slots 0, 4, 7
  add_slab(s, 64, 1, 0b10);        // pages 5 to 9 of the slab
  add_block(s, 200, 1, PageUse::large);
  const std::vector<std::uint16_t> bytes = page_occupancy(s);
  CHECK(bytes[0] == 1024);
  CHECK(bytes[1] == 2048);
  CHECK(bytes[2] == 0);
  CHECK(bytes[64 + 4] == 0);
  CHECK(bytes[64 + 5] == 4096);
  CHECK(bytes[64 + 9] == 4096);
  CHECK(bytes[64 + 10] == 0);
  CHECK(bytes[200] == 4096);
}

TEST_CASE("occupancy summed over the pages of a slab is the bytes of its objects") {
  std::uint64_t state = 1;
  for (const std::uint32_t slot : {16u, 48u, 112u, 320u, 1280u, 3584u, 5120u, 7168u, 20480u}) {
    Snapshot s = empty_arena(1);
    const std::uint32_t slab_bytes = slot <= 8192 ? 65536 : 262144;
    s.classes = {{slot, slab_bytes, slab_bytes / slot}, {16, 64 * 1024, 4096}};
    Slab slab;
    for (std::uint32_t w = 0; w < s.classes[0].words(); w++) {
      state = state * 6364136223846793005 + 1442695040888963407;
      const std::uint32_t bits = std::min(64u, s.classes[0].capacity - w * 64);
      const std::uint64_t word = (state ^ state << 21) & (~std::uint64_t{0} >> (64 - bits));
      s.live_bits.push_back(word);
      slab.live += static_cast<std::uint32_t>(std::popcount(word));
    }
    s.taken_bits = s.live_bits;
    s.slabs.push_back(slab);
    use(s, 0, s.classes[0].pages(), PageUse::slab);
    REQUIRE(check(s) == nullptr);
    std::uint64_t sum = 0;
    for (const std::uint16_t n : page_occupancy(s)) sum += n;
    CAPTURE(slot);
    CHECK(sum == std::uint64_t{slab.live} * slot);
  }
}

TEST_CASE(
    "a page with slots in magazines is empty but not returnable, one not resident is neither") {
  Snapshot s = empty_arena(1);
  add_slab(s, 0, 0, 0b1, 0b1'0000);  // page 0 live, page 1 in a magazine
  s.pages[15].resident = false;
  CHECK(empty_pages(s).empty == 14 * kPageBytes);
  CHECK(empty_pages(s).returnable == 13 * kPageBytes);
  CHECK(classes(s)[0].empty_pages == 14 * kPageBytes);
}

TEST_CASE("dirty pages are told apart by age, and those not in memory do not count") {
  Snapshot s = empty_arena(1);
  for (std::uint32_t i = 0; i < 10; i++) s.pages[i].resident = s.pages[i].dirty = true;
  for (std::uint32_t i = 0; i < 4; i++) s.pages[i].aged = true;
  s.pages[20].dirty = true;
  CHECK(dirty_by_age(s).aged == 4 * kPageBytes);
  CHECK(dirty_by_age(s).fresh == 6 * kPageBytes);
}

TEST_CASE("free runs fall into powers of two and cross chunks") {
  Snapshot s = empty_arena(2);
  use(s, 0, 1024, PageUse::large);
  use(s, 3, 1, PageUse::free);
  use(s, 10, 3, PageUse::free);
  use(s, 500, 40, PageUse::free);
  const FreeRuns runs = free_runs(s);
  CHECK(runs.runs[0] == 1);
  CHECK(runs.runs[1] == 1);
  CHECK(runs.pages[1] == 3);
  CHECK(runs.runs[5] == 1);
  CHECK(runs.longest == 40);
  CHECK(runs.free_pages == 44);
}

TEST_CASE("unusable free space is what no request of that length fits into") {
  Snapshot s = empty_arena(1);
  use(s, 0, 512, PageUse::large);
  use(s, 0, 40, PageUse::free);
  use(s, 100, 8, PageUse::free);
  CHECK(unusable_free_space(s, 1) == 0);
  CHECK(unusable_free_space(s, 16) == doctest::Approx(16.0 / 48));  // 32 of 40 serve, 8 do not
  CHECK(unusable_free_space(s, 64) == 1);
}

TEST_CASE("slabs that share no slot can be merged, others cannot, empty runs need not") {
  Snapshot s = empty_arena(1);
  add_slab(s, 0, 0, 0x00000000ffffffff);
  add_slab(s, 16, 0, 0xffffffff00000000);
  CHECK(meshable(s, 16) == 16 * kPageBytes);
  // Each half has eight pages full and eight empty: page by page nothing is to be merged.
  CHECK(meshable(s, 1) == 0);
  Snapshot same = empty_arena(1);
  add_slab(same, 0, 0, 0b1);
  add_slab(same, 16, 0, 0b1);
  CHECK(meshable(same, 16) == 0);
  Snapshot apart = empty_arena(1);
  add_slab(apart, 0, 0, 0b01);
  add_slab(apart, 16, 0, 0b10);
  CHECK(meshable(apart, 1) == kPageBytes);
  // A slot in a magazine may be written to: it counts as in use.
  Snapshot kept = empty_arena(1);
  add_slab(kept, 0, 0, 0b01, 0b10);
  add_slab(kept, 16, 0, 0b10);
  CHECK(meshable(kept, 1) == 0);
}

TEST_CASE("where the kernel only says how much is huge, it is spread over what may be") {
  Snapshot s = empty_arena(4);
  add_block(s, 0, 512, PageUse::large);    // wholly in memory, and in use
  add_block(s, 512, 256, PageUse::large);  // half in use, and wholly in memory
  use(s, 768, 256, PageUse::free);
  add_block(s, 1024, 500, PageUse::large);  // 12 pages are missing: no huge page
  s.huge_known = false;
  const auto covered_pages = [&](std::uint64_t huge) {
    s.huge_bytes = huge * kPagesPerChunk * kPageBytes;
    return huge_pages(s)->covered / kPageBytes;
  };
  CHECK(covered_pages(0) == 0);
  CHECK(covered_pages(1) == (512 + 256) / 2);  // one of the two
  CHECK(covered_pages(2) == 512 + 256);
  CHECK(covered_pages(3) == 512 + 256);  // it changed meanwhile
  CHECK(huge_pages(s)->resident == (512 + 256 + 500) * kPageBytes);
}

TEST_CASE("huge pages cover what is active, and are unknown where the kernel says nothing") {
  Snapshot s = empty_arena(1);
  add_block(s, 0, 100, PageUse::large);
  for (std::uint32_t i = 0; i < 25; i++) s.pages[i].huge = true;
  REQUIRE(huge_pages(s).has_value());
  CHECK(huge_pages(s)->covered == 25 * kPageBytes);
  CHECK(huge_pages(s)->resident == 100 * kPageBytes);
  s.huge_known = false;
  CHECK(!huge_pages(s).has_value());
}

TEST_CASE("the four figures of Johnstone and Wilson") {
  const auto moment = [](std::uint64_t allocated, std::uint64_t resident) {
    Moment m;
    m.heap.allocated = allocated;
    m.heap.resident = resident;
    return m;
  };
  const Moment recording[] = {moment(0, 50), moment(100, 150), moment(200, 220), moment(50, 250)};
  const JohnstoneWilson figures = johnstone_wilson(recording);
  CHECK(figures.mean == doctest::Approx((1.5 + 1.1 + 5.0) / 3));
  CHECK(figures.at_most_live == doctest::Approx(1.1));
  CHECK(figures.at_most_resident == doctest::Approx(5.0));
  CHECK(figures.most_over_most == doctest::Approx(1.25));
  CHECK(johnstone_wilson({}).mean == 0);
}

TEST_CASE("the doctor is silent about what is small and finds what is not") {
  Snapshot s = empty_arena(8);
  add_block(s, 0, 100, PageUse::large);
  for (std::uint32_t i = 200; i < 200 + 255; i++) s.pages[i].resident = s.pages[i].dirty = true;
  CHECK(findings(s).empty());
  for (std::uint32_t i = 200; i < 200 + 256; i++) s.pages[i].resident = s.pages[i].dirty = true;
  const std::vector<Finding> found = findings(s);
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "dirty_pages");
  CHECK(found[0].bytes == kLeastBytes);
  CHECK(found[0].saving == kLeastBytes);
  CHECK(found[0].threshold == kLeastBytes);
}

TEST_CASE("sparse slabs are charged with what packing would save") {
  Snapshot s = empty_arena(8);
  for (std::uint32_t i = 0; i < 128; i++) add_slab(s, i * 16, 0, 0x1111'1111);  // on half the pages
  const std::vector<Finding> found = findings(s);
  REQUIRE(found.size() == 2);
  CHECK(found[0].name == "empty_pages");
  CHECK(found[0].saving == 128 * 8 * kPageBytes);
  CHECK(found[1].name == "sparse_slabs");
  CHECK(found[1].saving == 128 * 8 * kPageBytes - 16 * 64 * 1024);
}

TEST_CASE("a report survives its JSON, and another schema is refused") {
  Snapshot s = empty_arena(2);
  s.program = "somebody";
  add_slab(s, 0, 0, 0b1111, 0b110000);
  add_block(s, 16, 10, PageUse::large);
  s.process = ProcessMemory{.rss = 1, .pss = 2, .swap = 3, .anonymous_huge = 4};
  const nlohmann::json json = to_json(make_report(s));
  CHECK(to_json(report_from_json(json)) == json);
  CHECK(json["heap"]["allocated"] == waterfall(s).allocated);
  nlohmann::json other = json;
  other["schema"] = kSchema + 1;
  CHECK_THROWS_AS(report_from_json(other), Error);
  other = json;
  other["heap"].erase("active");
  CHECK_THROWS_AS(report_from_json(other), Error);
  CHECK_THROWS_AS(report_from_json(nlohmann::json::array()), Error);
}

TEST_CASE("a sampled object stands for as many as sampling left out, and sites for their stacks") {
  const auto weight = [](std::uint64_t bytes, std::uint64_t mean_bytes) {
    Sample sample;
    sample.bytes = bytes;
    sample.mean_bytes = mean_bytes;
    return sample.weight();
  };
  CHECK(weight(1'000'000, 1000) == doctest::Approx(1));
  CHECK(weight(1000, 1000) == doctest::Approx(1 / (1 - std::exp(-1.0))));
  CHECK(weight(1, 1000) == doctest::Approx(1000.5).epsilon(0.001));
  CHECK(weight(1, 4000) == doctest::Approx(4000.5).epsilon(0.001));
  Samples samples;
  samples.mean_bytes = 1000;
  CHECK(samples.effective_mean_bytes() == doctest::Approx(1000));
  samples.live.resize(3);
  for (Sample& sample : samples.live) {
    sample.bytes = 1'000'000;
    sample.mean_bytes = 1000;
  }
  samples.live[0].pinned = 10;
  samples.live[1].pinned = 20;
  samples.live[2].pinned = 100;
  const Frame main{.address = 1, .function = "main", .place = "p+0x1"};
  const Frame leaf{.address = 2, .function = "leaf", .place = "p+0x2"};
  const Frame other{.address = 3, .function = "", .place = "p+0x3"};
  const std::vector<Site> all = sites(samples, {{leaf, main}, {leaf, main}, {other, main}});
  REQUIRE(all.size() == 2);
  CHECK(all[0].pinned == doctest::Approx(100));
  CHECK(all[1].pinned == doctest::Approx(30));
  CHECK(all[1].objects == doctest::Approx(2));
  CHECK(all[1].bytes == doctest::Approx(2'000'000));
  CHECK(folded_text(all, true) == "main;leaf 30\nmain;p+0x3 100\n");
  CHECK(pprof_text(all, "maps").starts_with("heap profile: 3: 3000000 ["));
  // One of them was taken when samples were thinned.
  samples.live[2].bytes = 100;
  samples.live[2].mean_bytes = 4000;
  CHECK(samples.effective_mean_bytes() == doctest::Approx(2000));
  const std::vector<Site> thinned = sites(samples, {{leaf, main}, {leaf, main}, {other, main}});
  CHECK(thinned[0].objects == doctest::Approx(weight(100, 4000)));
  CHECK(thinned[0].pinned == doctest::Approx(100 * weight(100, 4000)));
  CHECK(thinned[1].objects == doctest::Approx(2));
}

TEST_CASE("a snapshot that breaks its rules is found out") {
  Snapshot s = empty_arena(1);
  add_slab(s, 0, 0, 0b1);
  s.slabs[0].live = 2;
  CHECK(check(s) != nullptr);
  s.slabs[0].live = 1;
  CHECK(check(s) == nullptr);
  s.slabs[0].first_page = 510;
  CHECK(check(s) != nullptr);
}

TEST_SUITE_END();

}  // namespace ashlar::frag::test
