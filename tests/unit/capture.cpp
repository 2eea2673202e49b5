// SPDX-License-Identifier: MIT
// Snapshots of arenas in this process, of others, and of memory that lies.
#include "capture.h"

#include <cstring>
#include <random>

#include "arena_layout.h"
#include "heap.h"
#include "metrics.h"
#include "options.h"
#include "report.h"
#include "root.h"
#include "stats.h"
#include "unit.h"

namespace ashlar::frag::test {

namespace {

using ashlar::test::text_of;

// Memory of our own in the place of a target's: a copy that a test may spoil.
class Copied final : public Target {
 public:
  void add(std::uint64_t address, std::span<const std::byte> bytes) {
    parts_.push_back({address, {bytes.begin(), bytes.end()}});
  }
  std::span<std::byte> part(std::size_t i) { return parts_.at(i).bytes; }

  void residency(std::uint64_t address, std::span<Residency> out) override {
    for (std::size_t i = 0; i < out.size(); i++) {
      out[i] = {};
      for (const Part& part : parts_) {
        const std::uint64_t page = address + i * kPageBytes;
        out[i].resident |= page + kPageBytes > part.address && page < part.end();
      }
    }
  }
  bool knows_huge_pages() const override { return false; }
  File open(const Mapping&) const override { return File(); }
  std::string name() const override { return "a copy"; }
  void describe(Snapshot&) const override {}

 protected:
  bool copy(std::uint64_t address, std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{});
    for (const Part& part : parts_) {
      const std::uint64_t from = std::max(address, part.address);
      const std::uint64_t to = std::min(address + out.size(), part.end());
      if (from < to) std::memcpy(&out[from - address], &part.bytes[from - part.address], to - from);
    }
    return true;
  }

 private:
  struct Part {
    std::uint64_t address;
    std::vector<std::byte> bytes;
    std::uint64_t end() const { return address + bytes.size(); }
  };
  std::vector<Part> parts_;
};

std::uint64_t address_of(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

std::span<const std::byte> bytes_at(const void* p, std::size_t n) {
  return {static_cast<const std::byte*>(p), n};
}

// This process's heap, filled with something of everything, as a copy.
Copied copy_of_heap() {
  Copied copied;
  copied.add(address_of(&ashlar_root), bytes_at(&ashlar_root, sizeof ashlar_root));
  copied.add(address_of(&options), bytes_at(&options, sizeof options));
  // Metadata up to the last chunk's, and the lanes.
  const std::byte* const region = arena.region_base();
  const auto chunks = arena.chunks();
  const ArenaHeader& header = *reinterpret_cast<const ArenaHeader*>(region);
  const Geometry at(header.max_chunks);
  copied.add(address_of(region), bytes_at(region, ashlar::kPageBytes));
  copied.add(address_of(region + at.table),
             bytes_at(region + at.table, chunks * Geometry::kTableBytesPerChunk));
  copied.add(address_of(region + at.meta), bytes_at(region + at.meta, chunks * sizeof(ChunkMeta)));
  heap.for_each_lane([&](const ashlar::Lane& lane) {
    copied.add(address_of(&lane), bytes_at(&lane, bytes_of(kLanePages)));
  });
  return copied;
}

constexpr std::size_t kRootPart = 0;
constexpr std::size_t kHeaderPart = 2;

void fill_heap() {
  static bool filled = false;
  if (std::exchange(filled, true)) return;
  std::vector<void*> kept;
  for (int i = 0; i < 20'000; i++) {
    void* const p = take_slot(class_for(16 + static_cast<Bytes>(i * 37 % 3000)));
    if (i % 3 == 0) {
      give_slot(p);
    } else {
      kept.push_back(p);
    }
  }
  bool zero = false;
  heap.take_large(3 * kMiB, ashlar::kPageBytes, zero);
}

}  // namespace

TEST_SUITE_BEGIN("capture");

TEST_CASE("a snapshot has the numbers that the heap itself has") {
  fill_heap();
  HeapStats stats;
  collect_stats(stats);
  Copied target = copy_of_heap();
  const Snapshot s = capture(target, address_of(&ashlar_root));
  REQUIRE(check(s) == nullptr);
  CHECK(s.dropped == 0);
  CHECK(s.slabs_reread == 0);
  const Waterfall w = waterfall(s);
  CHECK(w.allocated + w.pending == stats.allocated);
  CHECK(w.magazines == stats.magazines);
  CHECK(w.active == stats.active);
  CHECK(w.free == stats.free);
  CHECK(w.mapped == stats.mapped);
  CHECK(s.lanes.size() == stats.lanes);
  for (const ClassMetrics& c : classes(s)) {
    const ClassStats& of_class = stats.classes[class_for(c.slot_bytes).v];
    CHECK(c.slabs == of_class.slabs);
    CHECK(c.live + c.in_mosaics == of_class.used);
    CHECK(c.cached == of_class.cached);
  }
}

TEST_CASE("another process is read while it lives, with and without PAGEMAP_SCAN alike") {
  fill_heap();
  HeapStats stats;
  collect_stats(stats);
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  for (const bool scan : {true, false}) {
    const std::unique_ptr<Target> target = open_process(child, scan);
    const Snapshot s = capture(*target, address_of(&ashlar_root));
    CHECK(check(s) == nullptr);
    CHECK(s.pid == child);
    const Waterfall w = waterfall(s);
    CHECK(w.allocated == stats.allocated);
    CHECK(w.mapped == stats.mapped);
    // Pages that were only read are the kernel's one page of zeros. mincore(2) and
    // /proc/PID/pagemap cannot tell, PAGEMAP_SCAN can.
    if (scan) {
      CHECK(w.resident <= stats.resident);
    } else {
      CHECK(w.resident == doctest::Approx(static_cast<double>(stats.resident)).epsilon(0.02));
    }
  }
  const std::unique_ptr<Target> target = open_process(child);
  const std::vector<std::uint64_t> roots = find_roots(*target);
  REQUIRE(roots.size() == 1);
  CHECK(roots[0] == address_of(&ashlar_root));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK_THROWS_AS(capture(*target), Error);
}

TEST_CASE("huge pages are counted alike page by page and by mapping, as far as they are active") {
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1
  constexpr Bytes kHuge = 3 * kChunkBytes;
  const auto covered = [](bool scan) {
    const auto target = open_process(::getpid(), scan);
    const auto huge = huge_pages(capture(*target, address_of(&ashlar_root)));
    return huge ? huge->covered : 0;
  };
  const bool scans = open_process(::getpid())->knows_huge_pages();
  const auto check = [&](std::uint64_t truth) {
    CHECK(covered(false) == truth);
    if (scans) CHECK(covered(true) == truth);
  };
  check(0);
  bool zero = false;
  auto* const p = static_cast<std::byte*>(heap.take_large(kHuge, kChunkBytes, zero));
  REQUIRE(p != nullptr);
  ::madvise(p, kHuge, MADV_HUGEPAGE);  // ours are told otherwise while the heap is small
  std::memset(p, 1, kHuge);
  if (::madvise(p, kHuge, kCollapse) != 0) {
    MESSAGE("no huge pages to be had here");
    REQUIRE(heap.give_large(p));
    return;
  }
  check(kHuge);
  // Half of the last one is free; it is a huge page still.
  REQUIRE(arena.resize_pages(p, pages_for(kHuge - kChunkBytes / 2), zero));
  check(kHuge - kChunkBytes / 2);
  // The first one is torn: a page of it goes back.
  ::madvise(p, kPageBytes, MADV_DONTNEED);
  check(kHuge - kChunkBytes / 2 - kChunkBytes);
  REQUIRE(heap.give_large(p));
}

TEST_CASE("a name that others have chosen does not command a terminal") {
  CHECK(printable("a\x1b[2J\n\x7f") == "a?[2J??");
  CHECK(printable("a\xc2\x9bZ \xc3\x9b \xc2\xa7 \xc2") == "a?Z \xc3\x9b \xc2\xa7 \xc2");
  CHECK(printable("").empty());
}

TEST_CASE("a process that does not exist, or may not be read, is an error") {
  CHECK_THROWS_AS(open_process(0x7fffffff), Error);
  CHECK_THROWS_AS(open_process(-1), Error);
  CHECK_THROWS_AS(open_core("/nowhere/core"), Error);
  CHECK_THROWS_AS(open_core("/dev/zero"), Error);
  CHECK_THROWS_AS(open_core("/proc/self/exe"), Error);
}

TEST_CASE("another layout is refused before anything else is believed") {
  fill_heap();
  Copied target = copy_of_heap();
  reinterpret_cast<Root*>(target.part(kRootPart).data())->layout++;
  CHECK_THROWS_WITH_AS(capture(target, address_of(&ashlar_root)),
                       doctest::Contains("laid out in another way"), Error);
  Copied empty;
  CHECK_THROWS_AS(capture(empty, 0x1000), Error);
  CHECK_THROWS_AS(capture(empty), Error);
}

TEST_CASE("an arena that claims more chunks than there can be is corrupt") {
  fill_heap();
  Copied target = copy_of_heap();
  auto& header = *reinterpret_cast<ArenaHeader*>(target.part(kHeaderPart).data());
  header.chunks.store(header.max_chunks + 1);
  CHECK_THROWS_WITH_AS(capture(target, address_of(&ashlar_root)), doctest::Contains("corrupt"),
                       Error);
  header.chunks.store(4);
  CHECK_THROWS_WITH_AS(capture(target, address_of(&ashlar_root), {.chunks = 3}),
                       doctest::Contains("too large"), Error);
  CHECK_THROWS_WITH_AS(capture(target, address_of(&ashlar_root), {.bytes = 1000}),
                       doctest::Contains("too large"), Error);
}

TEST_CASE("memory that lies yields a sound snapshot or an error") {
  fill_heap();
  const Copied whole = copy_of_heap();
  std::mt19937_64 random(20);
  int refused = 0;
  for (int round = 0; round < 300; round++) {
    Copied target = whole;
    // Metadata and lanes, which hold pointers; not the root, where nearly every change is refused.
    for (std::size_t part = kHeaderPart; part < kHeaderPart + 4; part++) {
      const std::span<std::byte> bytes = target.part(part);
      const std::size_t changes = part == kHeaderPart ? random() % 2 : random() % 3000;
      for (std::size_t i = 0; i < changes; i++) {
        bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      }
    }
    try {
      const Snapshot s = capture(target, address_of(&ashlar_root), {.chunks = 1 << 12});
      REQUIRE(check(s) == nullptr);
      const Report report = make_report(s);
      CHECK(report.heap.active <= report.heap.mapped);
    } catch (const Error&) {
      refused++;
    }
  }
  CHECK(refused < 300);
}

TEST_SUITE_END();

}  // namespace ashlar::frag::test
