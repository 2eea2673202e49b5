// SPDX-License-Identifier: MIT
// A process is killed at its k-th marked step, for all k, while others are at work.
//
// The compiler marks the steps: the library is built a second time with a call at the beginning of
// each basic block. The victim counts them, and kills itself at the k-th.
//
// ASHLAR_STEPS: only every so manieth k; 1 by default.
#include <unistd.h>

#include "shm.h"

namespace {

std::uint64_t steps_left = 0;  // 0: nobody counts

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  if (steps_left != 0 && --steps_left == 0) ::kill(::getpid(), SIGKILL);
}

namespace ashlar::test {

namespace {

constexpr Bytes kArenaBytes = 256 * kMiB;
constexpr std::uint64_t kKillsPerArena = 200;
constexpr std::uint32_t kBlocks = 300;  // of a survivor

// Takes, fills, verifies and gives, for ever.
[[noreturn]] void survive(int fd, std::uint64_t seed) {
  ashlar_shm* const arena = ashlar_shm_open_fd(fd, 0);
  if (arena == nullptr) ::_exit(4);
  Random random(seed);
  std::vector<std::pair<void*, Bytes>> blocks;
  for (;;) {
    if (blocks.size() < kBlocks / 3 || (blocks.size() < kBlocks && random.chance(50))) {
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
    if (random.chance(1)) ::usleep(50);  // the victims shall have the processors
  }
}

// What the victim does; `others` is a block that another process took. At most kMost blocks are its
// own at any time.
struct Life {
  static constexpr Bytes kMost = 6;

  static void live(ashlar_shm* arena, void* others) {
    void* small = ashlar_shm_malloc(arena, 300);
    auto* const slot = static_cast<ashlar_off*>(ashlar_shm_memalign(arena, 4096, 5000));
    if (small == nullptr || slot == nullptr) return;  // full for now
    void* const large = ashlar_shm_malloc(arena, 200'000);
    void* const run = ashlar_shm_malloc(arena, 3 * kMiB);
    ashlar_shm_malloc_into(arena, 40'000, slot);
    ashlar_shm_root_set(arena, "victim", ashlar_shm_offset(arena, slot));
    ashlar_shm_free(arena, others);
    ashlar_shm_free(arena, run);
    small = ashlar_shm_realloc(arena, small, 50'000);
    ashlar_shm_free(arena, ashlar_shm_realloc(arena, large, 90'000));
    ashlar_shm_free(arena, ashlar_shm_pointer(arena, *slot));
    ashlar_shm_free(arena, small);
    ashlar_shm_free(arena, slot);
    ashlar_shm_recover(arena);
    ashlar_shm_close(arena);
  }
};

// An arena in which others live.
class Scene {
 public:
  explicit Scene(unsigned flags) : arena_(anonymous(kArenaBytes)), flags_(flags) {
    REQUIRE(ashlar_shm_root_set(arena_, "victim", 0) == 0);
    for (std::uint64_t seed = 1; seed <= 2; seed++) {
      survivors_.push_back(std::make_unique<Child>([&] { survive(ashlar_shm_fd(arena_), seed); }));
    }
  }

  // Kills a victim at its k-th step. False: it came to its end before.
  bool kill_at(std::uint64_t k) {
    kills_++;
    void* const others = arena_.take(300);
    Child victim([&] {
      ashlar_shm* const own = ashlar_shm_open_fd(ashlar_shm_fd(arena_), flags_);
      steps_left = k;
      Life::live(own, ashlar_shm_pointer(own, ashlar_shm_offset(arena_, others)));
      steps_left = 0;
    });
    const int status = victim.wait();
    REQUIRE((status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)));
    REQUIRE(ashlar_shm_recover(arena_) >= 0);
    int ended = 0;
    for (auto& survivor : survivors_) REQUIRE_FALSE(survivor->ended(ended));
    return status != 0;
  }

  void end() {
    for (auto& survivor : survivors_) {
      survivor->send(SIGKILL);
      REQUIRE(WTERMSIG(survivor->wait()) == SIGKILL);
    }
    REQUIRE(ashlar_shm_recover(arena_) >= 0);
    REQUIRE(arena_.stats().processes == 1);
    CHECK(arena_.broken() == "");
    CHECK(arena_.stats().bad_frees == 0);
    // Of a victim there is at most what it had and the block that was for it to free. Scoped, it
    // leaves that one alone, and its key's record.
    const bool scoped = (flags_ & ASHLAR_SHM_SCOPED) != 0;
    CHECK(arena_.blocks() <= 2 * (kBlocks + 1) + 1 + kills_ * (1 + (scoped ? 0 : Life::kMost)));
    work(arena_, 1, {}, 50);
    CHECK(arena_.broken() == "");
  }

 private:
  Shared arena_;
  unsigned flags_;
  std::uint64_t kills_ = 0;
  std::vector<std::unique_ptr<Child>> survivors_;
};

void kill_at_all_steps(unsigned flags) {
  const std::uint64_t stride = number_from("ASHLAR_STEPS", 1);
  constexpr int kEndsInARow = 20;  // what others do makes a life longer or shorter
  std::uint64_t kills = 0;
  int ends = 0;
  trace.begin(1);
  std::uint64_t k = 1;
  while (ends < kEndsInARow) {
    Scene scene(flags);
    for (std::uint64_t i = 0; i < kKillsPerArena && ends < kEndsInARow; i++, k += stride) {
      trace.step("killed at step %llu", static_cast<unsigned long long>(k));
      const bool killed = scene.kill_at(k);
      kills += killed;
      ends = killed ? 0 : ends + 1;
    }
    scene.end();
  }
  MESSAGE(kills << " kills at steps 1 to " << k);
  CHECK(kills * stride > 1000);  // there are marks
}

}  // namespace

TEST_SUITE_BEGIN("survivors");

TEST_CASE("killed at the k-th step, for all k, while others go on") { kill_at_all_steps(0); }
TEST_CASE("the same with scoped blocks") { kill_at_all_steps(ASHLAR_SHM_SCOPED); }

TEST_SUITE_END();

}  // namespace ashlar::test
