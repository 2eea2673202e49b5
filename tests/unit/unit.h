// SPDX-License-Identifier: MIT
// unit.h: memory to build on, what a piece of code writes, and how a process dies.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena.h"

namespace ashlar::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Zeroed memory; of a file, if one is given. Always at a multiple of the same large power of two,
// so that no alignment depends on where the kernel puts it.
class Ground {
 public:
  explicit Ground(Bytes bytes, int fd = -1) : bytes_(bytes), room_(bytes + kAlignment) {
    mapped_ = ::mmap(nullptr, room_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mapped_ != MAP_FAILED);
    base_ = reinterpret_cast<std::byte*>(
        align_up(reinterpret_cast<std::uintptr_t>(mapped_), kAlignment));
    const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    REQUIRE(::mmap(base_, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_NORESERVE | kind, fd, 0) ==
            base_);
  }
  Ground(const Ground&) = delete;
  ~Ground() { ::munmap(mapped_, room_); }

  std::byte* base() const { return base_; }
  Bytes bytes() const { return bytes_; }
  os::Region region() const { return {base_, bytes_, os::Region::Backing::ready}; }

 private:
  static constexpr Bytes kAlignment = 16 * kMiB;

  Bytes bytes_;
  Bytes room_;
  void* mapped_;
  std::byte* base_;
};

// A buddy with nothing above it.
class BuddyGround {
 public:
  explicit BuddyGround(std::uint32_t chunks)
      : rows(chunks),
        summaries(align_up(chunks, Buddy::kChunksPerGroup)),
        groups(summaries.size() / Buddy::kChunksPerGroup),
        chunk_count(chunks),
        buddy(reinterpret_cast<std::byte*>(rows.data()), sizeof(ChunkRows), summaries.data(),
              &chunk_count, &totals) {
    buddy.use_groups(groups.data(), static_cast<std::uint32_t>(groups.size()));
    buddy.add_chunks(ChunkIndex{0}, chunks);
  }
  std::uint32_t take(std::uint32_t pages, std::uint32_t alignment = 1,
                     BlockKind kind = BlockKind::large) {
    return buddy.take(PageCount{pages}, PageCount{alignment}, kind).first.v;
  }
  bool give(std::uint32_t first, BlockKind kind = BlockKind::large) {
    return buddy.give(PageIndex{first}, kind);
  }
  std::uint64_t free_pages() const { return buddy.count().free_pages; }

  std::vector<ChunkRows> rows;
  std::vector<std::atomic<std::uint32_t>> summaries;
  std::vector<std::atomic<std::uint32_t>> groups;
  std::atomic<std::uint32_t> chunk_count;
  PageTotals totals{};
  Buddy buddy;
};

inline bool grow(Arena& arena, std::uint32_t pages = 1, Bytes alignment = kPageBytes) {
  return arena.grow(arena.chunks(), PageCount{pages}, alignment);
}

// Tags as in shared memory: plain numbers.
inline LaneSlabs& add_lane(Arena& arena, std::uint64_t number) {
  bool zero = false;
  void* const pages =
      arena.take_pages(pages_for(sizeof(LaneSlabs)), kPageBytes, BlockKind::internal, zero);
  REQUIRE(pages != nullptr);
  auto& lane = *static_cast<LaneSlabs*>(pages);
  arena.init_lane(lane, number * kTagGrain);
  return lane;
}

// An arena in memory of its own, all of its chunks there.
class ArenaGround {
 public:
  explicit ArenaGround(std::uint32_t chunks) : ground(Arena::region_bytes(chunks)) {
    REQUIRE(arena.create(ground.region()) == os::Commit::done);
    while (arena.chunks() < chunks) REQUIRE(grow(arena));
  }
  std::vector<void*> take(LaneSlabs& lane, ClassIndex c, std::uint32_t want) {
    std::vector<void*> slots(want);
    slots.resize(arena.take_slots(lane, c, slots.data(), want));
    return slots;
  }
  void give(LaneSlabs& lane, ClassIndex c, const std::vector<void*>& slots) {
    arena.give_slots(lane, c, slots.data(), static_cast<std::uint32_t>(slots.size()));
  }
  void give_remote(const std::vector<void*>& slots) {
    arena.give_remote(slots.data(), static_cast<std::uint32_t>(slots.size()));
  }
  std::uint32_t slabs() const {
    std::uint32_t n = 0;
    arena.for_each_slab([&](const Slab&, std::uint64_t) { n++; });
    return n;
  }

  Ground ground;
  Arena arena;
};

// What write(fd) writes.
template <class Write>
std::string text_of(Write&& write) {
  const int fd = ::memfd_create("text", 0);
  REQUIRE(fd >= 0);
  write(fd);
  std::string text(static_cast<std::size_t>(::lseek(fd, 0, SEEK_END)), '\0');
  CHECK(::pread(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  ::close(fd);
  return text;
}

// What act() writes to stderr.
template <class Act>
std::string stderr_of(Act&& act) {
  return text_of([&](int fd) {
    const int saved = ::dup(STDERR_FILENO);
    ::dup2(fd, STDERR_FILENO);
    act();
    ::dup2(saved, STDERR_FILENO);
    ::close(saved);
  });
}

// How act() ends a process of its own.
struct Death {
  int signal = 0;  // 0: it did not die of one
  int status = 0;  // of exit
  std::string last_words;
};
template <class Act>
Death death_of(Act&& act) {
  Death death;
  death.last_words = stderr_of([&] {
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGABRT, SIG_DFL);
      ::signal(SIGSEGV, SIG_DFL);
      act();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    death.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    death.status = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  });
  return death;
}

// Null when nothing is broken, for CHECK(sound(...) == "").
inline std::string sound(const char* broken) { return broken == nullptr ? "" : broken; }

}  // namespace ashlar::test
