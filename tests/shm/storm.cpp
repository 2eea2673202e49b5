// SPDX-License-Identifier: MIT
// Processes that are killed and stopped at random while all of them go on.
//
// A line is a process that starts one worker after the other. A worker's own timer kills it at a
// random microsecond of its life; those of the first two lines, the survivors, live until the test
// kills or stops them. Each line has a table of blocks in the arena itself, which the next worker
// finds. Who takes a block out of a table verifies its pattern. So with objects that have handles;
// anybody locks and reads them, and anybody makes passes over them, of its own and by hand. Lines
// move their own blocks by hints. At the end of a round the survivors must still get on; then
// whatever is in use and in no table was leaked.
//
// ASHLAR_STEPS: kills in all (2000 by default), in rounds of 5000 at most, each with a new arena.
// ASHLAR_SEED: of the first round. ASHLAR_SHM_LINES: 8 in the first round, then 8 to 64.
#include <atomic>
#include <ctime>

#include <sys/mman.h>
#include <sys/prctl.h>

#include "shm.h"

namespace ashlar::test {

namespace {

constexpr std::uint32_t kBlocks = 200;   // of a line
constexpr std::uint32_t kObjects = 200;  // likewise, with handles
constexpr std::uint32_t kSurvivors = 2;
constexpr std::uint32_t kMostMicroseconds = 3000;  // of a life
constexpr std::uint64_t kKillsPerRound = 5000;

struct Entry {
  std::atomic<ashlar_off> block;
};
// In a block's first bytes.
struct Label {
  std::uint64_t bytes;
  std::uint64_t stamp;
};
struct Table {
  std::atomic<std::uint64_t> beats;  // one more for each thing done
  std::atomic<std::uint64_t> moved;  // objects and blocks, by passes and hints
  std::atomic<pid_t> worker;
  ashlar_off fresh;  // where malloc_into publishes; this line's alone
  Entry entry[kBlocks];
  std::atomic<ashlar_handle> object[kObjects];
};

void* body(void* block) { return static_cast<Label*>(block) + 1; }

void write(void* block, Bytes bytes, std::uint64_t stamp) {
  *static_cast<Label*>(block) = {bytes, stamp};
  fill(body(block), bytes - sizeof(Label), stamp);
}

bool is_whole(Label* label) {
  return is_filled(body(label), label->bytes - sizeof(Label), label->stamp);
}

void verify(ashlar_shm* arena, ashlar_off at) {
  auto* const label = static_cast<Label*>(ashlar_shm_pointer(arena, at));
  if (ashlar_shm_usable_size(arena, label) < label->bytes || !is_whole(label)) ::_exit(3);
}

void* take(ashlar_shm* arena, Bytes bytes, ashlar_off& fresh, Random& random) {
  const std::uint32_t way = random.below(10);
  if (way == 0) return ashlar_shm_memalign(arena, Bytes{32} << random.below(10), bytes);
  if (way > 3) return ashlar_shm_malloc(arena, bytes);
  const ashlar_off at = ashlar_shm_malloc_into(arena, bytes, &fresh);
  fresh = 0;
  return ashlar_shm_pointer(arena, at);
}

// Before a block is in the table, it is filled; before it is freed, it is out of it. So a death
// leaks one block, and leaves no wrong one.
void put(ashlar_shm* arena, Table& own, Entry& entry, Random& random) {
  const Bytes bytes =
      sizeof(Label) + 8 + (random.chance(3) ? random.between(32'769, 300'000) : random.up_to(8000));
  void* const p = take(arena, bytes, own.fresh, random);
  if (p == nullptr) return;  // full for now
  write(p, bytes, random.next());
  entry.block.store(ashlar_shm_offset(arena, p));
}

void remove(ashlar_shm* arena, Entry& entry) {
  const ashlar_off at = entry.block.exchange(0);
  if (at == 0) return;
  verify(arena, at);
  ashlar_shm_free(arena, ashlar_shm_pointer(arena, at));
}

// The same for an object with a handle.
void put_object(ashlar_shm* arena, std::atomic<ashlar_handle>& object, Random& random) {
  const Bytes bytes = sizeof(Label) + 8 + random.up_to(1000);
  const ashlar_handle h = ashlar_shm_handle_alloc(arena, bytes);
  if (h == 0) return;  // full for now
  write(ashlar_shm_handle_lock(arena, h), bytes, random.next());
  if (ashlar_shm_handle_unlock(arena, h) != 0) ::_exit(8);
  object.store(h);
}

// False: somebody freed it meanwhile.
bool verify_object(ashlar_shm* arena, ashlar_handle h) {
  auto* const label = static_cast<Label*>(ashlar_shm_handle_lock(arena, h));
  if (label == nullptr) return false;
  if (!is_whole(label)) ::_exit(9);
  if (ashlar_shm_handle_unlock(arena, h) != 0) ::_exit(8);
  return true;
}

void remove_object(ashlar_shm* arena, std::atomic<ashlar_handle>& object) {
  const ashlar_handle h = object.exchange(0);
  if (h == 0) return;
  if (!verify_object(arena, h) || ashlar_shm_handle_free(arena, h) != 0) ::_exit(10);
}

// Some of them copied, others not. Freed is none: its handle may be in a table.
void pass_by_hand(ashlar_shm* arena, Random& random, ashlar_moved& moved) {
  ashlar_move moves[16];
  const ptrdiff_t n = ashlar_shm_pass_begin(arena, 500, SIZE_MAX, moves, std::size(moves));
  for (ptrdiff_t i = 0; i < n; i++) {
    std::memcpy(moves[i].to, moves[i].from, moves[i].bytes);
    moves[i].verdict = random.chance(80) ? ASHLAR_COPIED : ASHLAR_SKIP;
  }
  if (n >= 0 && ashlar_shm_pass_end(arena, moves, static_cast<std::size_t>(n), &moved) != 0) {
    ::_exit(11);
  }
}

// What a predecessor had published and not yet filled is thrown away.
void remove_fresh(ashlar_shm* arena, Table& own) {
  ashlar_shm_free(arena, ashlar_shm_pointer(arena, ashlar_shm_exchange(arena, &own.fresh, 0)));
}

void die_within(std::uint32_t microseconds) {
  sigevent kill{};
  kill.sigev_notify = SIGEV_SIGNAL;
  kill.sigev_signo = SIGKILL;
  timer_t timer;
  const itimerspec when{{}, {0, 1000L * microseconds + 1}};
  if (::timer_create(CLOCK_MONOTONIC, &kill, &timer) != 0) ::_exit(5);
  if (::timer_settime(timer, 0, &when, nullptr) != 0) ::_exit(5);
}

// What every process of a storm knows. The handle is the test's own; a child may use it, too.
struct Setting {
  ashlar_shm* arena;
  ashlar_off tables;
  std::uint32_t lines;
  std::atomic<std::uint64_t>* kills;
};

// Nobody else puts blocks into the own table. Who takes one out while it moves keeps it from
// moving.
void move_own(ashlar_shm* arena, Table& own) {
  for (Entry& entry : own.entry) {
    const void* const p = ashlar_shm_pointer(arena, entry.block.load());
    if (p == nullptr || ashlar_shm_frag_hint(arena, p) == 0) continue;
    own.moved += ashlar_shm_frag_move_at(arena, reinterpret_cast<ashlar_off*>(&entry.block)) != 0;
  }
}

void use_objects(ashlar_shm* arena, Table* table, Table& own, std::uint32_t lines, Random& random) {
  std::atomic<ashlar_handle>& object = own.object[random.below(kObjects)];
  std::atomic<ashlar_handle>& other = table[random.below(lines)].object[random.below(kObjects)];
  if (object.load() == 0) {
    put_object(arena, object, random);
  } else if (random.chance(40)) {
    remove_object(arena, random.chance(25) ? other : object);
  } else if (const ashlar_handle h = other.load(); h != 0) {
    verify_object(arena, h);
  }
  ashlar_moved moved{};
  if (random.chance(3)) ashlar_shm_compact(arena, random.up_to(2000), SIZE_MAX, &moved);
  if (random.chance(3)) pass_by_hand(arena, random, moved);
  own.moved += moved.objects;
  if (random.chance(1)) move_own(arena, own);
}

[[noreturn]] void live(const Setting& setting, std::uint32_t me, std::uint64_t seed) {
  Random random(seed);
  if (me >= kSurvivors) die_within(random.up_to(kMostMicroseconds));
  ashlar_shm* const arena =
      random.chance(50) ? ashlar_shm_open_fd(ashlar_shm_fd(setting.arena), 0) : setting.arena;
  if (arena == nullptr) ::_exit(4);
  auto* const table = static_cast<Table*>(ashlar_shm_pointer(arena, setting.tables));
  Table& own = table[me];
  remove_fresh(arena, own);
  for (;;) {
    Entry& entry = own.entry[random.below(kBlocks)];
    if (entry.block.load() == 0) {
      put(arena, own, entry, random);
    } else if (random.chance(25)) {
      // Another's: whoever gets the block out of the table frees it.
      remove(arena, table[random.below(setting.lines)].entry[random.below(kBlocks)]);
    } else {
      remove(arena, entry);
    }
    use_objects(arena, table, own, setting.lines, random);
    if (random.chance(2) && ashlar_shm_recover(arena) < 0) ::_exit(6);
    own.beats.fetch_add(1);
    if (me < kSurvivors && random.chance(5)) ::usleep(100);  // the others shall have the processors
  }
}

[[noreturn]] void breed(const Setting& setting, std::uint32_t me, std::uint64_t seed) {
  auto* const table = static_cast<Table*>(ashlar_shm_pointer(setting.arena, setting.tables));
  Random random(seed);
  for (;;) {
    const std::uint64_t next = random.next();
    const pid_t line = ::getpid();
    const pid_t worker = ::fork();
    if (worker == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != line) ::_exit(0);
      table[me].worker.store(::getpid());  // stopped before this, it would outlive its line
      live(setting, me, next);
    }
    if (worker < 0) ::_exit(7);
    siginfo_t end;
    ::waitid(P_PID, static_cast<id_t>(worker), &end, WEXITED | WNOWAIT);
    table[me].worker.store(0);  // before its number may become another's
    int status = 0;
    ::waitpid(worker, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) ::_exit(WEXITSTATUS(status) + 100);
    setting.kills->fetch_add(1);
  }
}

struct Weather {
  unsigned flags;
  Bytes bytes;
};

class Storm {
 public:
  Storm(const Weather& weather, std::uint64_t seed, std::uint32_t lines)
      : arena_(ashlar_shm_create_anonymous(weather.bytes, weather.flags)),
        random_(seed),
        kills_(*new (::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                            -1, 0)) std::atomic<std::uint64_t>(0)),
        table_(static_cast<Table*>(arena_.take(lines * sizeof(Table)))) {
    std::memset(static_cast<void*>(table_), 0, lines * sizeof(Table));
    const Setting setting{arena_, ashlar_shm_offset(arena_, table_), lines, &kills_};
    for (std::uint32_t i = 0; i < lines; i++) {
      const std::uint64_t line_seed = random_.next();
      lines_.push_back(std::make_unique<Child>([&] { breed(setting, i, line_seed); }));
    }
  }
  ~Storm() {
    lines_.clear();
    ::munmap(&kills_, kPageBytes);
  }
  Storm(const Storm&) = delete;

  void rage(std::uint64_t kills) {
    while (kills_.load() < kills) {
      ::usleep(random_.below(2000));
      const std::uint32_t i = random_.below(lines_.size());
      const std::uint32_t what = random_.below(100);
      send(i, what < 45 ? SIGSTOP : what < 90 ? SIGCONT : SIGKILL);
      require_alive();
    }
  }

  // The survivors do something within a time that is ample.
  void require_progress() {
    constexpr int kPatience = 30'000;  // milliseconds
    for (std::uint32_t i = 0; i < kSurvivors; i++) {
      const std::uint64_t before = table_[i].beats.load();
      int waited = 0;
      for (; table_[i].beats.load() == before && waited < kPatience; waited++) {
        send(i, SIGCONT);
        ::usleep(1000);
      }
      REQUIRE(waited < kPatience);
    }
    require_alive();
  }

  // Ends it. Returns how many blocks were leaked.
  Bytes reckon() {
    for (auto& line : lines_) line->kill();
    REQUIRE(eventually(
        [&] { return ashlar_shm_recover(arena_) >= 0 && arena_.stats().processes == 1; }));
    // What was kept for moves by passes by hand goes with the next passes.
    for (int pass = 0; pass < 3; pass++) {
      REQUIRE(ashlar_shm_compact(arena_, UINT64_MAX, SIZE_MAX, nullptr) == 0);
    }
    REQUIRE(arena_.broken() == "");
    REQUIRE(arena_.stats().bad_frees == 0);
    std::set<ashlar_off> seen;
    Bytes objects = 0;
    for (std::uint32_t i = 0; i < lines_.size(); i++) {
      remove_fresh(arena_, table_[i]);
      for (Entry& entry : table_[i].entry) {
        const ashlar_off at = entry.block.load();
        if (at == 0) continue;
        verify(arena_, at);
        REQUIRE(seen.insert(at).second);
      }
      for (const auto& object : table_[i].object) {
        if (object.load() == 0) continue;
        REQUIRE(verify_object(arena_, object.load()));
        objects++;
      }
    }
    const Bytes leaked = arena_.blocks() - seen.size() - objects - 1;
    for (std::uint32_t i = 0; i < lines_.size(); i++) {
      for (Entry& entry : table_[i].entry) remove(arena_, entry);
      for (auto& object : table_[i].object) remove_object(arena_, object);
    }
    REQUIRE(arena_.blocks() == leaked + 1);
    work(arena_, 1, {}, 50);
    REQUIRE(arena_.broken() == "");
    return leaked;
  }

  std::uint64_t kills() const { return kills_.load(); }
  std::uint64_t moved() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < lines_.size(); i++) sum += table_[i].moved.load();
    return sum;
  }

 private:
  // The workers die with their lines, but a moment later.
  template <class Condition>
  static bool eventually(Condition&& condition) {
    for (int i = 0; i < 10'000; i++) {
      if (condition()) return true;
      ::usleep(1000);
    }
    return false;
  }

  void send(std::uint32_t line, int signal) {
    if (const pid_t worker = table_[line].worker.load(); worker != 0) ::kill(worker, signal);
  }

  // No line had a worker with something to complain of.
  void require_alive() {
    for (auto& line : lines_) {
      int status = 0;
      const bool ended = line->ended(status);
      CAPTURE(status);
      REQUIRE_FALSE(ended);
    }
  }

  Shared arena_;
  Random random_;
  std::atomic<std::uint64_t>& kills_;
  Table* table_;
  std::vector<std::unique_ptr<Child>> lines_;
};

void storms(const char* name, const Weather& weather) {
  const std::uint64_t wanted = number_from("ASHLAR_STEPS", kSanitized ? 100 : 2000);
  const std::uint64_t seed = number_from("ASHLAR_SEED", 1);
  std::uint64_t done = 0;
  Bytes leaked = 0;
  for (std::uint64_t round = 0; done < wanted; round++) {
    Random random(seed + round);
    const auto lines = static_cast<std::uint32_t>(
        number_from("ASHLAR_SHM_LINES", round == 0 ? 8 : 8u << random.below(4)));
    trace.begin(seed + round);
    Storm storm(weather, seed + round, lines);
    storm.rage(std::min(wanted - done, kKillsPerRound));
    storm.require_progress();
    const std::uint64_t moved = storm.moved();
    REQUIRE(moved > 0);
    const Bytes lost = storm.reckon();
    REQUIRE(lost <= storm.kills() + lines);
    done += storm.kills();
    leaked += lost;
    std::printf("%s: seed %llu, %u lines: %llu moves; %llu kills so far, %zu blocks leaked\n", name,
                static_cast<unsigned long long>(seed + round), lines,
                static_cast<unsigned long long>(moved), static_cast<unsigned long long>(done),
                leaked);
    std::fflush(stdout);
  }
}

}  // namespace

TEST_SUITE_BEGIN("storm");

TEST_CASE("a storm in an arena that grows and shrinks") { storms("open", {0, 512 * kMiB}); }
TEST_CASE("a storm in one that is often full") {
  storms("full", {ASHLAR_SHM_FIXED_SIZE, 24 * kMiB});
}

TEST_SUITE_END();

}  // namespace ashlar::test
