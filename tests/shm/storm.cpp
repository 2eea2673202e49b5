// SPDX-License-Identifier: MIT
// Processes that are killed and stopped at random while all of them go on.
//
// Each worker keeps a table of blocks in the arena itself. A worker that takes over after a death
// finds the table of its predecessor and verifies the pattern in every block. At the end whatever
// is in use and in no table was leaked.
//
// ASHLAR_STEPS: kills (500 by default). ASHLAR_SHM_WORKERS: processes (8).
#include <atomic>
#include <sys/mman.h>

#include "shm.h"

namespace ashlar::test {

namespace {

constexpr std::uint32_t kBlocks = 200;  // of a worker

struct Entry {
  std::atomic<ashlar_off> block;
};
// In a block's first bytes.
struct Label {
  std::uint64_t bytes;
  std::uint64_t stamp;
};
struct Table {
  Entry entry[kBlocks];
};

void* body(void* block) { return static_cast<Label*>(block) + 1; }

void verify(ashlar_shm* arena, ashlar_off at) {
  auto* const label = static_cast<Label*>(ashlar_shm_pointer(arena, at));
  const bool whole = ashlar_shm_usable_size(arena, label) >= label->bytes && label->stamp == at &&
                     is_filled(body(label), label->bytes - sizeof(Label), label->stamp);
  if (!whole) ::_exit(3);
}

// Before a block is in the table, it is filled; before it is freed, it is out of it. So a death
// leaks one block, and leaves no wrong one.
void put(ashlar_shm* arena, Entry& entry, Random& random) {
  const Bytes bytes =
      sizeof(Label) + 8 + (random.chance(3) ? random.between(32'769, 300'000) : random.up_to(8000));
  void* const p = ashlar_shm_malloc(arena, bytes);
  if (p == nullptr) return;  // full for now
  *static_cast<Label*>(p) = {bytes, ashlar_shm_offset(arena, p)};
  fill(body(p), bytes - sizeof(Label), ashlar_shm_offset(arena, p));
  entry.block.store(ashlar_shm_offset(arena, p));
}

void remove(ashlar_shm* arena, Entry& entry) {
  const ashlar_off at = entry.block.exchange(0);
  if (at == 0) return;
  verify(arena, at);
  ashlar_shm_free(arena, ashlar_shm_pointer(arena, at));
}

[[noreturn]] void live(int fd, ashlar_off tables, std::uint32_t me, std::uint32_t workers,
                       std::uint64_t seed) {
  ashlar_shm* const arena = ashlar_shm_open_fd(fd, 0);
  if (arena == nullptr) ::_exit(4);
  auto* const table = static_cast<Table*>(ashlar_shm_pointer(arena, tables));
  Random random(seed);
  for (Entry& entry : table[me].entry) {
    // Out of the table, so that nobody frees it meanwhile.
    if (const ashlar_off at = entry.block.exchange(0); at != 0) {
      verify(arena, at);
      entry.block.store(at);
    }
  }
  for (;;) {
    Entry& own = table[me].entry[random.below(kBlocks)];
    if (own.block.load() == 0) {
      put(arena, own, random);
    } else if (random.chance(25)) {
      // Another's: whoever gets the block out of the table frees it.
      remove(arena, table[random.below(workers)].entry[random.below(kBlocks)]);
    } else {
      remove(arena, own);
    }
  }
}

// A death between taking a block out of a table and freeing it leaks that one: see remove().
struct Storm {
  unsigned flags;
  Bytes bytes;
};

void rage(const Storm& storm) {
  const std::uint64_t kills = number_from("ASHLAR_STEPS", kSanitized ? 100 : 500);
  const auto workers = static_cast<std::uint32_t>(number_from("ASHLAR_SHM_WORKERS", 8));
  Shared arena(ashlar_shm_create_anonymous(storm.bytes, storm.flags));
  auto* const table = static_cast<Table*>(arena.take(workers * sizeof(Table)));
  std::memset(static_cast<void*>(table), 0, workers * sizeof(Table));
  const ashlar_off tables = ashlar_shm_offset(arena, table);
  Random random(number_from("ASHLAR_SEED", 1));

  std::vector<std::unique_ptr<Child>> alive(workers);
  const auto start = [&](std::uint32_t i) {
    const std::uint64_t seed = random.next();
    alive[i] =
        std::make_unique<Child>([&] { live(ashlar_shm_fd(arena), tables, i, workers, seed); });
  };
  for (std::uint32_t i = 0; i < workers; i++) start(i);
  std::vector<bool> stopped(workers);
  for (std::uint64_t kill = 0; kill < kills;) {
    ::usleep(random.below(4000));
    const std::uint32_t i = random.below(workers);
    if (stopped[i] || random.chance(30)) {
      alive[i]->send(stopped[i] ? SIGCONT : SIGSTOP);
      stopped[i] = !stopped[i];
      continue;
    }
    alive[i]->send(SIGKILL);
    const int status = alive[i]->wait();
    CAPTURE(status);
    REQUIRE(WIFSIGNALED(status));  // it had nothing to complain of
    REQUIRE(WTERMSIG(status) == SIGKILL);
    kill++;
    start(i);
    if (random.chance(20)) REQUIRE(ashlar_shm_recover(arena) >= 0);
  }
  for (auto& child : alive) {
    child->send(SIGKILL);
    REQUIRE(WTERMSIG(child->wait()) == SIGKILL);
  }
  REQUIRE(ashlar_shm_recover(arena) >= 0);
  REQUIRE(arena.broken() == "");
  CHECK(arena.stats().processes == 1);
  CHECK(arena.stats().bad_frees == 0);

  Bytes in_tables = 0;
  std::set<ashlar_off> seen;
  for (std::uint32_t i = 0; i < workers; i++) {
    for (Entry& entry : table[i].entry) {
      const ashlar_off at = entry.block.load();
      if (at == 0) continue;
      verify(arena, at);
      REQUIRE(seen.insert(at).second);
      in_tables++;
    }
  }
  const Bytes leaked = arena.blocks() - in_tables - 1;
  MESSAGE(kills << " kills, " << in_tables << " blocks held at the end, " << leaked << " leaked");
  CHECK(leaked <= kills + workers);
  work(arena, 1, seen, 100);
  for (std::uint32_t i = 0; i < workers; i++) {
    for (Entry& entry : table[i].entry) remove(arena, entry);
  }
  CHECK(arena.blocks() == leaked + 1);
  REQUIRE(arena.broken() == "");
}

}  // namespace

TEST_SUITE_BEGIN("storm");

TEST_CASE("a storm in an arena that grows and shrinks") { rage({0, 512 * kMiB}); }
TEST_CASE("a storm in one that is often full") { rage({ASHLAR_SHM_FIXED_SIZE, 24 * kMiB}); }

TEST_SUITE_END();

}  // namespace ashlar::test
