// SPDX-License-Identifier: MIT
#include "os.h"

#include <cerrno>
#include <cstring>
#include <sched.h>

#include "unit.h"

namespace ashlar::test {

namespace {

// Nothing but zeros in [p, p + length).
bool is_zero(const std::byte* p, Bytes length) {
  for (Bytes i = 0; i < length; i++) {
    if (p[i] != std::byte{0}) return false;
  }
  return true;
}

bool is_filled(const std::byte* p, Bytes length, int value) {
  for (Bytes i = 0; i < length; i++) {
    if (p[i] != static_cast<std::byte>(value)) return false;
  }
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("os");

TEST_CASE(
    "a region begins at a chunk and can be committed, written, decommitted, committed again") {
  for (unsigned attempt : {0u, 1u, 5u}) {
    const os::Region region = os::reserve_region(64 * kMiB, attempt);
    REQUIRE(region.base != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(region.base) % kChunkBytes == 0);
    CHECK(region.bytes <= 64 * kMiB);
    for (int round = 0; round < 2; round++) {
      REQUIRE(region.commit(kChunkBytes, kChunkBytes) == os::Commit::done);
      CHECK(is_zero(region.base + kChunkBytes, kChunkBytes));
      std::memset(region.base + kChunkBytes, 1, kChunkBytes);
      region.decommit(kChunkBytes, kChunkBytes);
    }
  }
}

TEST_CASE("two attempts try two places") {
  CHECK(os::reserve_region(kGiB, 0).base != os::reserve_region(kGiB, 1).base);
}

TEST_CASE("addresses that belong to somebody else are left alone, our own can be replaced") {
  const Ground ground(2 * kChunkBytes);
  os::Region window = ground.region();
  window.backing = os::Region::Backing::window;
  std::memset(ground.base(), 1, kPageBytes);
  errno = 77;
  CHECK(window.commit(0, kChunkBytes) == os::Commit::taken);
  CHECK(errno == 77);
  CHECK(is_filled(ground.base(), kPageBytes, 1));
  CHECK(window.commit(0, kChunkBytes, true) == os::Commit::done);
  CHECK(is_zero(ground.base(), kPageBytes));
}

TEST_CASE("purged pages read as zero") {
  const Ground ground(kChunkBytes);
  std::memset(ground.base(), 1, kChunkBytes);
  CHECK(os::purge(ground.base() + kPageBytes, 2 * kPageBytes));
  CHECK(is_filled(ground.base(), kPageBytes, 1));
  CHECK(is_zero(ground.base() + kPageBytes, 2 * kPageBytes));
  CHECK(is_filled(ground.base() + 3 * kPageBytes, kPageBytes, 1));
}

// Full of ones, and full of twos.
struct TwoChunks {
  TwoChunks() {
    std::memset(from, 1, kChunkBytes);
    std::memset(to, 2, kChunkBytes);
  }
  const Ground ground{2 * kChunkBytes};
  std::byte* const from = ground.base();
  std::byte* const to = from + kChunkBytes;
};

TEST_CASE("moved pages keep their contents and leave zeros behind, or what was at their target") {
  for (const bool exchange : {false, true}) {
    const TwoChunks chunks;
    std::byte* const from = chunks.from;
    std::byte* const to = chunks.to;
    const os::Move moved = os::move_pages(from, to, kMiB, exchange);
    CHECK(is_filled(to, kMiB, moved == os::Move::failed ? 2 : 1));
    switch (moved) {
      case os::Move::failed: CHECK(is_filled(from, kMiB, 1)); break;
      case os::Move::done: CHECK(is_zero(from, kMiB)); break;
      case os::Move::exchanged:
        CHECK(exchange);
        CHECK(is_filled(from, kMiB, 2));
        break;
    }
    std::memset(from, 3, kMiB);
    CHECK(is_filled(from + kMiB, kMiB, 1));
    CHECK(is_filled(to + kMiB, kMiB, 2));
  }
}

TEST_CASE("a move of several mappings is done, or nothing is") {
  // Kernels before 6.17 move one mapping only, and find out after they have unmapped the target.
  for (const bool exchange : {false, true}) {
    const TwoChunks chunks;
    std::byte* const from = chunks.from;
    std::byte* const to = chunks.to;
    REQUIRE(::madvise(from + kMiB, kMiB, MADV_DONTFORK) == 0);  // now it is two
    const bool moved = os::move_pages(from, to, kChunkBytes, exchange) != os::Move::failed;
    unsigned char present[kPagesPerChunk];
    REQUIRE(::mincore(to, kChunkBytes, present) == 0);  // mapped
    if (moved) {
      CHECK(is_filled(to, kChunkBytes, 1));
    } else {
      CHECK(is_filled(from, kChunkBytes, 1));
    }
    REQUIRE(::mincore(from, kChunkBytes, present) == 0);
  }
}

TEST_CASE("resident bytes are those that were touched") {
  const Ground ground(2 * kChunkBytes);
  const auto resident = [&](Bytes length) { return os::resident_bytes(ground.base(), length); };
  ::madvise(ground.base(), ground.bytes(), MADV_NOHUGEPAGE);
  CHECK(resident(2 * kChunkBytes) == 0);
  ground.base()[0] = std::byte{1};
  ground.base()[kChunkBytes + 5 * kPageBytes] = std::byte{1};
  CHECK(resident(2 * kChunkBytes) == 2 * kPageBytes);
  CHECK(resident(kChunkBytes) == kPageBytes);
}

TEST_CASE("the page that a range ends in counts as resident") {
  const Ground ground(kChunkBytes);
  ground.base()[0] = std::byte{1};
  CHECK(os::resident_bytes(ground.base(), 256) > 0);
}

TEST_CASE("the fork marker reads zero in a child only") {
  std::atomic<std::uint32_t>* const marker = os::map_fork_marker();
  REQUIRE(marker != nullptr);
  marker->store(1);
  CHECK(death_of([&] { ::_exit(marker->load() == 0 ? 7 : 8); }).status == 7);
  CHECK(marker->load() == 1);
}

TEST_CASE("a thread that is kept to one processor is said to have one") {
  const std::uint32_t before = os::processors();
  CHECK(before >= 1);
  cpu_set_t all, one;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  CHECK(before == static_cast<std::uint32_t>(CPU_COUNT(&all)));
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(os::processors() == 1);
  REQUIRE(::sched_setaffinity(0, sizeof all, &all) == 0);
}

TEST_CASE("the clock does not run backwards") {
  const std::uint64_t before = os::now_ms();
  ::usleep(20'000);
  CHECK(os::now_ms() >= before + 10);
}

TEST_CASE("huge pages are counted where they are, and nowhere else") {
  Ground asked(2 * kChunkBytes);
  Ground forbidden(2 * kChunkBytes);
  os::ask_for_huge_pages(asked.base(), asked.bytes());
  os::forbid_huge_pages(forbidden.base(), forbidden.bytes());
  std::memset(asked.base(), 1, asked.bytes());
  std::memset(forbidden.base(), 1, forbidden.bytes());
  const Bytes huge = os::huge_page_bytes(asked.base(), asked.bytes());
  CHECK(huge % kChunkBytes == 0);  // how many, the machine decides
  CHECK(huge <= asked.bytes());
  CHECK(os::huge_page_bytes(forbidden.base(), forbidden.bytes()) == 0);
  CHECK(os::purge(asked.base(), asked.bytes()));
  CHECK(os::huge_page_bytes(asked.base(), asked.bytes()) == 0);
}

TEST_SUITE_END();

}  // namespace ashlar::test
