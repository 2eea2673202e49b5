// SPDX-License-Identifier: MIT
// Shared arenas seen from outside, by their files: sound ones, and files that lie.
#include "capture.h"

#include <doctest/doctest.h>
#include <random>
#include <unistd.h>

#include "../../shm_arena/layout.h"
#include "report.h"

#include <ashlar/shm.h>

namespace ashlar::frag::test {

namespace {

constexpr std::size_t kRoom = 32 << 20;
constexpr std::size_t kBlocks = 20'000;
constexpr std::size_t kBytes = 100;

struct Arena {
  ashlar_shm* arena = ::ashlar_shm_create_anonymous(kRoom, 0);
  std::vector<void*> blocks;

  Arena() {
    REQUIRE(arena != nullptr);
    for (std::size_t i = 0; i < kBlocks; i++) {
      blocks.push_back(::ashlar_shm_malloc(arena, kBytes));
      REQUIRE(blocks.back() != nullptr);
    }
    for (std::size_t i = 0; i < kBlocks; i += 2) ::ashlar_shm_free(arena, blocks[i]);
    REQUIRE(::ashlar_shm_malloc(arena, 3 << 20) != nullptr);
  }
  Arena(const Arena&) = delete;
  ~Arena() { ::ashlar_shm_close(arena); }

  int fd() const { return ::ashlar_shm_fd(arena); }
  std::unique_ptr<Target> target() const {
    return open_segment("/proc/self/fd/" + std::to_string(fd()), "arena");
  }
};

}  // namespace

TEST_CASE("an arena's file says what the arena says of itself") {
  const Arena arena;
  const Snapshot snapshot = capture(*arena.target());
  REQUIRE(check(snapshot) == nullptr);
  CHECK(snapshot.dropped == 0);
  const Waterfall heap = waterfall(snapshot);
  ashlar_shm_stats stats{};
  REQUIRE(::ashlar_shm_stat(arena.arena, &stats) == 0);
  CHECK(heap.allocated == stats.allocated);
  CHECK(heap.active == stats.active);
  CHECK(heap.mapped == stats.mapped);
  CHECK(heap.free == stats.free_pages);
  REQUIRE(snapshot.holders->size() == 1);
  CHECK(snapshot.holders->front().pid == ::getpid());
  CHECK(snapshot.holders->front().alive);
}

TEST_CASE("an arena without blocks, and one that nobody uses, have empty reports") {
  ashlar_shm* const arena = ::ashlar_shm_create_anonymous(kRoom, 0);
  REQUIRE(arena != nullptr);
  const auto target = open_segment("/proc/self/fd/" + std::to_string(::ashlar_shm_fd(arena)), "");
  const Report report = make_report(capture(*target));
  CHECK(report.heap.active == 0);
  CHECK(report.holders->empty());
  CHECK(report.findings.empty());
  ::ashlar_shm_close(arena);
}

TEST_CASE("an arena that lies yields a sound snapshot or an error") {
  const Arena arena;
  std::vector<std::byte> whole(std::size_t{1} << 20);
  REQUIRE(::pread(arena.fd(), whole.data(), whole.size(), 0) == static_cast<ssize_t>(whole.size()));
  std::mt19937_64 random(21);
  int refused = 0;
  constexpr int kRounds = 200;
  for (int round = 0; round < kRounds; round++) {
    std::vector<std::byte> spoiled = whole;
    const std::size_t changes = random() % 4000;
    for (std::size_t i = 0; i < changes; i++) {
      const std::size_t at = kPageBytes + random() % (spoiled.size() - kPageBytes);
      spoiled[at] = static_cast<std::byte>(random());
    }
    // The word that most rounds would end at is right in half of them.
    if (round % 2 == 0) {
      std::copy_n(whole.begin() + shm::Geometry::kState, sizeof(shm::State),
                  spoiled.begin() + shm::Geometry::kState);
    }
    REQUIRE(::pwrite(arena.fd(), spoiled.data(), spoiled.size(), 0) ==
            static_cast<ssize_t>(spoiled.size()));
    try {
      const Snapshot snapshot = capture(*arena.target(), {.chunks = 1 << 12});
      REQUIRE(check(snapshot) == nullptr);
      const Report report = make_report(snapshot);
      CHECK(report.heap.active <= report.heap.mapped);
    } catch (const Error&) {
      refused++;
    }
  }
  CHECK(refused < kRounds);
  REQUIRE(::pwrite(arena.fd(), whole.data(), whole.size(), 0) ==
          static_cast<ssize_t>(whole.size()));
}

}  // namespace ashlar::frag::test
