// SPDX-License-Identifier: MIT
// A process is killed at its k-th instruction, for one k after the other, while others are at work.
//
// ASHLAR_STEPS: how many of them; 120 by default, spread over the calls' length.
#include <sys/ptrace.h>

#include "shm.h"

namespace ashlar::test {

namespace {

// Takes, fills, verifies and gives, for ever.
[[noreturn]] void survive(int fd, std::uint64_t seed) {
  ashlar_shm* const arena = ashlar_shm_open_fd(fd, 0);
  if (arena == nullptr) ::_exit(4);
  Random random(seed);
  std::vector<std::pair<void*, Bytes>> blocks;
  for (;;) {
    if (blocks.size() < 100 || (blocks.size() < 300 && random.chance(50))) {
      const Bytes bytes = random.chance(5) ? random.between(32'769, 2'500'000) : random.up_to(6000);
      void* const p = ashlar_shm_malloc(arena, bytes);
      if (p == nullptr) continue;
      fill(p, bytes, reinterpret_cast<std::uintptr_t>(p));
      blocks.emplace_back(p, bytes);
    } else {
      const auto [p, bytes] = pick(blocks, random);
      if (!is_filled(p, bytes, reinterpret_cast<std::uintptr_t>(p))) ::_exit(3);
      ashlar_shm_free(arena, p);
    }
  }
}

// What the victim does; `others` is a block that another process took.
void live(ashlar_shm* arena, void* others) {
  void* const small = ashlar_shm_malloc(arena, 300);
  void* const large = ashlar_shm_malloc(arena, 200'000);
  void* const run = ashlar_shm_malloc(arena, 3 * kMiB);
  ashlar_shm_free(arena, others);
  ashlar_shm_free(arena, run);
  ashlar_shm_free(arena, large);
  ashlar_shm_free(arena, small);
}

// Runs live() in a child for so many instructions. True: it came to its end.
bool kill_at(std::uint64_t k, Shared& arena) {
  void* const others = arena.take(300);
  const pid_t victim = ::fork();
  if (victim == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(arena), 0);
    void* const there = ashlar_shm_pointer(own, ashlar_shm_offset(arena, others));
    ::raise(SIGSTOP);
    live(own, there);
    ::raise(SIGSTOP);
  }
  int status = 0;
  REQUIRE(::waitpid(victim, &status, 0) == victim);
  bool ended = false;
  for (std::uint64_t i = 0; i < k && !ended; i++) {
    ::ptrace(PTRACE_SINGLESTEP, victim, nullptr, nullptr);
    ::waitpid(victim, &status, 0);
    ended = !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP;
  }
  ::kill(victim, SIGKILL);
  REQUIRE(::waitpid(victim, &status, 0) == victim);
  return ended;
}

}  // namespace

TEST_SUITE_BEGIN("survivors");

TEST_CASE("killed at the k-th instruction, for many k, while others go on") {
  Shared arena(anonymous(256 * kMiB));
  const Bytes before = arena.blocks();
  std::vector<std::unique_ptr<Child>> survivors;
  for (std::uint64_t seed = 1; seed <= 2; seed++) {
    survivors.push_back(std::make_unique<Child>([&] { survive(ashlar_shm_fd(arena), seed); }));
  }
  const std::uint64_t wanted = number_from("ASHLAR_STEPS", 120);
  std::uint64_t kills = 0;
  // A stride that meets other instructions in each round.
  std::uint64_t k = 0;
  for (; kills < wanted; kills++) {
    trace.step("killed at instruction %lu", static_cast<unsigned long>(k));
    k = kill_at(k, arena) ? kills % 101 : k + 101;
    REQUIRE(ashlar_shm_recover(arena) >= 0);
    int status = 0;
    for (auto& survivor : survivors) REQUIRE_FALSE(survivor->ended(status));
  }
  for (auto& survivor : survivors) {
    survivor->send(SIGKILL);
    REQUIRE(WTERMSIG(survivor->wait()) == SIGKILL);
  }
  REQUIRE(ashlar_shm_recover(arena) == 2);
  CHECK(arena.broken() == "");
  CHECK(arena.stats().bad_frees == 0);
  // A victim leaves the block that it was handed, what it had taken, and one more; the survivors
  // what they had.
  CHECK(arena.blocks() <= before + kills * 5 + 2 * 301);
  work(arena, 1, {});
  CHECK(arena.broken() == "");
}

TEST_SUITE_END();

}  // namespace ashlar::test
