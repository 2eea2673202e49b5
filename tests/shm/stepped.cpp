// SPDX-License-Identifier: MIT
// What a process leaves behind that is killed between any two instructions.
//
// A child is stepped through one call by ptrace. After each instruction that changed the arena its
// image is copied; the copy has no living process, as if the child had been killed there. The copy
// is recovered, checked and worked on. Then the same is done to recovery itself.
//
// ASHLAR_STEPS: how many images of each call recovery is stepped through on; 2 by default.
#include <cstring>

#include <sys/mman.h>
#include <sys/ptrace.h>

#include "layout.h"
#include "shm.h"

namespace ashlar::test {

namespace {

constexpr Bytes kArenaBytes = 6 * kMiB;

struct Range {
  Bytes begin, end;
};

// The bytes of an arena that matter: all that has memory, and of the data what calls write to.
class Image {
 public:
  Image(int fd, Bytes data_bytes) {
    const shm::Geometry g(kArenaBytes / kChunkBytes);
    bytes_ = g.end;
    base_ =
        static_cast<std::byte*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    REQUIRE(base_ != MAP_FAILED);
    ranges_ = {{0, shm::Geometry::kLaneCursors + kPageBytes},  // the first lanes' cursors
               {shm::Geometry::kChunkWords, g.data},
               {g.data, g.data + data_bytes}};
    for (const Range& r : ranges_) last_.resize(last_.size() + r.end - r.begin);
  }
  ~Image() { ::munmap(base_, bytes_); }
  Image(const Image&) = delete;

  // Whether anything changed since the last call.
  bool changed() {
    bool any = false;
    std::byte* last = last_.data();
    for (const Range& r : ranges_) {
      if (std::memcmp(base_ + r.begin, last, r.end - r.begin) != 0) {
        std::memcpy(last, base_ + r.begin, r.end - r.begin);
        any = true;
      }
      last += r.end - r.begin;
    }
    return any;
  }
  std::vector<std::byte> take() const { return last_; }
  void put(const std::vector<std::byte>& image) {
    const std::byte* from = image.data();
    for (const Range& r : ranges_) {
      std::memcpy(base_ + r.begin, from, r.end - r.begin);
      from += r.end - r.begin;
    }
  }

 private:
  Bytes bytes_ = 0;
  std::byte* base_ = nullptr;
  std::vector<Range> ranges_;
  std::vector<std::byte> last_;
};

// A memfd of the arena's size, without its locks.
int make_copy_fd(int original) {
  const int fd = ::memfd_create("copy", MFD_CLOEXEC);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, ::lseek(original, 0, SEEK_END)) == 0);
  return fd;
}

// Steps a child through act(); before() runs first, in the child, unobserved. after_each() runs in
// this process after each instruction. Returns how many there were.
template <class Before, class Act, class AfterEach>
std::uint64_t step(Before&& before, Act&& act, AfterEach&& after_each) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    before();
    ::raise(SIGSTOP);
    act();
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  while (WIFSTOPPED(status) && WSTOPSIG(status) != SIGSTOP) {  // before() has children of its own
    ::ptrace(PTRACE_CONT, child, nullptr, nullptr);
    REQUIRE(::waitpid(child, &status, 0) == child);
  }
  REQUIRE(WIFSTOPPED(status));
  std::uint64_t instructions = 0;
  for (;;) {
    ::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
    instructions++;
    after_each();
  }
  REQUIRE((WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP));  // it came to the end
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return instructions;
}

// What may be found after a death in the middle of a call.
struct Expected {
  Bytes least_blocks;
  Bytes most_blocks;
  std::set<ashlar_off> held;  // must be in use
};

// Kills a process in act(), everywhere. `before` prepares it. Both get its handle.
struct Scene {
  std::function<void(Shared&)> before = [](Shared&) {};
  std::function<void(Shared&)> act;
  Expected expected{};                      // besides the blocks that setup() took
  unsigned flags = 0;                       // of the victim's handle
  Bytes data_bytes = kUnitBytes;            // of the data, what calls write to: the first slab
  bool room_left = true;                    // to work in afterwards
  std::function<void(Shared&)> first = {};  // by another process, before the arena is recovered
  std::function<void(Shared&)> also = {};   // of the recovered arena
};

void autopsy(int fd, const Scene& scene) {
  const Expected& expected = scene.expected;
  Shared arena(ashlar_shm_open_fd(fd, 0));
  if (scene.first) scene.first(arena);
  REQUIRE(ashlar_shm_recover(arena) >= 0);
  REQUIRE(arena.broken() == "");
  REQUIRE(arena.blocks() >= expected.least_blocks);
  REQUIRE(arena.blocks() <= expected.most_blocks);
  for (const ashlar_off at : expected.held) {
    REQUIRE(ashlar_shm_usable_size(arena, ashlar_shm_pointer(arena, at)) != 0);
  }
  if (scene.also) scene.also(arena);
  if (scene.room_left) work(arena, 1, expected.held, 100);
  REQUIRE(arena.broken() == "");
}

void kill_everywhere(Shared& arena, const Scene& scene) {
  const int fd = ashlar_shm_fd(arena);
  const int copy = make_copy_fd(fd);
  Image image(fd, scene.data_bytes);
  Image copied(copy, scene.data_bytes);
  std::vector<std::vector<std::byte>> deaths;
  Shared* victim = nullptr;
  const std::uint64_t instructions = step(
      [&] {
        victim = new Shared(ashlar_shm_open_fd(fd, scene.flags));
        scene.before(*victim);
      },
      [&] { scene.act(*victim); },
      [&] {
        if (!image.changed()) return;
        deaths.push_back(image.take());
        trace.step("death %zu", deaths.size());
        copied.put(deaths.back());
        autopsy(copy, scene);
      });
  MESSAGE(instructions << " instructions, " << deaths.size() << " of them changed the arena");
  CHECK(deaths.size() > 1);

  // And again inside recovery.
  const std::uint64_t wanted = number_from("ASHLAR_STEPS", 2);
  for (std::uint64_t i = 0; i < wanted; i++) {
    const auto& death = deaths[deaths.size() * (2 * i + 1) / (2 * wanted)];
    const int second = make_copy_fd(fd);
    Image again(second, scene.data_bytes);
    again.put(death);
    Shared* recoverer = nullptr;
    std::uint64_t inner = 0;
    step([&] { recoverer = new Shared(ashlar_shm_open_fd(second, 0)); },
         [&] { ashlar_shm_recover(*recoverer); },
         [&] {
           if (!again.changed()) return;
           inner++;
           trace.step("death %lu inside the recovery of another",
                      static_cast<unsigned long>(inner));
           copied.put(again.take());
           autopsy(copy, scene);
         });
    CHECK(inner > 1);
    ::close(second);
  }
  ::close(copy);
}

// An arena in which somebody lives and holds blocks of several sizes.
class Stage {
 public:
  Stage() : arena(anonymous(kArenaBytes)) {
    slot = static_cast<ashlar_off*>(arena.take(16));  // in the first slab
    *slot = 0;
    for (const Bytes bytes : {16, 64, 64, 64, 1000, 5000, 20'000, 50'000}) {
      blocks.push_back(arena.take(bytes));
    }
    for (void* p : blocks) held.insert(ashlar_shm_offset(arena, p));
    held.insert(ashlar_shm_offset(arena, slot));
    REQUIRE(ashlar_shm_root_set(arena, "first", *held.begin()) == 0);
    now = arena.blocks();
  }
  std::set<ashlar_off> held_but(void* p) const {
    std::set<ashlar_off> others = held;
    others.erase(ashlar_shm_offset(arena, p));
    return others;
  }
  Expected expect(int least, int most) const {
    return {now + static_cast<Bytes>(static_cast<std::int64_t>(least)),
            now + static_cast<Bytes>(static_cast<std::int64_t>(most)), held};
  }

  Shared arena;
  ashlar_off* slot;
  std::vector<void*> blocks;
  std::set<ashlar_off> held;
  Bytes now;
};

// Addresses are the same in a child of fork, but its handle is another mapping.
void* there(Shared& arena, const Stage& stage, const void* p) {
  return ashlar_shm_pointer(arena, ashlar_shm_offset(stage.arena, p));
}

}  // namespace

TEST_SUITE_BEGIN("stepped");

TEST_CASE("killed in a first malloc: joining, leasing a lane, making a slab, growing") {
  Stage stage;
  kill_everywhere(stage.arena, {.act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .expected = stage.expect(0, 1)});
}

TEST_CASE("killed in a malloc that hits, and in one that goes on to the next word") {
  Stage stage;
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .expected = stage.expect(1, 2)});
  Stage next;
  kill_everywhere(next.arena, {.before =
                                   [](Shared& a) {
                                     for (int i = 0; i < 64; i++) ashlar_shm_malloc(a, 64);
                                   },
                               .act = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                               .expected = next.expect(64, 65)});
}

TEST_CASE("killed in a malloc of pages, and of a run over chunks") {
  Stage stage;
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 100'000); },
                                .expected = stage.expect(1, 2)});
  Stage span;
  kill_everywhere(span.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                               .act = [](Shared& a) { ashlar_shm_malloc(a, 3 * kMiB); },
                               .expected = span.expect(1, 2)});
}

TEST_CASE("killed in a memalign: a slot, pages, pages at a multiple of 256 KiB") {
  for (const auto& [alignment, bytes] : {std::pair{Bytes{256}, Bytes{300}},
                                         {kPageBytes, 3 * kPageBytes},
                                         {256 * kKiB, kPageBytes}}) {
    Stage stage;
    kill_everywhere(stage.arena,
                    {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                     .act = [&](Shared& a) { ashlar_shm_memalign(a, alignment, bytes); },
                     .expected = stage.expect(1, 2)});
  }
}

// In a realloc that moves, old and new are both there for a while; the caller has one of them.
TEST_CASE("killed in a realloc: moved, grown and shrunk where it is") {
  struct Lengths {
    Bytes from, to;
  };
  for (const auto& [from, to] :
       {Lengths{64, 1000}, Lengths{1000, 64}, Lengths{20'000, 50'000}, Lengths{50'000, 20'000},
        Lengths{100'000, 200'000}, Lengths{200'000, 50'000}}) {
    CAPTURE(from);
    CAPTURE(to);
    Stage stage;
    void* block = nullptr;
    kill_everywhere(stage.arena, {.before = [&](Shared& a) { block = ashlar_shm_malloc(a, from); },
                                  .act = [&](Shared& a) { ashlar_shm_realloc(a, block, to); },
                                  .expected = stage.expect(1, 2)});
  }
}

TEST_CASE("killed while it frees: its own, another's, pages, a run over chunks") {
  for (const Bytes bytes : {Bytes{64}, Bytes{20'000}, Bytes{100'000}, 3 * kMiB}) {
    Stage stage;
    void* block = nullptr;
    kill_everywhere(stage.arena, {.before = [&](Shared& a) { block = ashlar_shm_malloc(a, bytes); },
                                  .act = [&](Shared& a) { ashlar_shm_free(a, block); },
                                  .expected = stage.expect(0, 1)});
  }
  for (const std::size_t i : {1, 6, 7}) {
    Stage stage;
    Expected expected = stage.expect(-1, 0);
    expected.held = stage.held_but(stage.blocks[i]);
    kill_everywhere(
        stage.arena,
        {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
         .act = [&](Shared& a) { ashlar_shm_free(a, there(a, stage, stage.blocks[i])); },
         .expected = {expected.least_blocks + 1, expected.most_blocks + 1, expected.held}});
  }
}

TEST_CASE("killed while a slab goes back to the buddy") {
  Stage stage;
  std::vector<void*> blocks;
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      for (int i = 0; i < 3 * 13; i++)
                                        blocks.push_back(ashlar_shm_malloc(a, 20'000));
                                      while (blocks.size() > 14) {
                                        ashlar_shm_free(a, blocks.back());
                                        blocks.pop_back();
                                      }
                                    },
                                .act = [&](Shared& a) { ashlar_shm_free(a, blocks.back()); },
                                .expected = stage.expect(13, 14)});
}

TEST_CASE("killed while it takes over what others freed") {
  Stage stage;
  std::vector<void*> blocks;
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      for (int i = 0; i < 64; i++) {
                                        blocks.push_back(ashlar_shm_malloc(a, 1024));
                                      }
                                      Child other([&] {
                                        for (int i = 0; i < 60; i++) ashlar_shm_free(a, blocks[i]);
                                      });
                                      other.wait();
                                    },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 1024); },
                                .expected = stage.expect(4, 5)});
}

TEST_CASE("killed in malloc_into: published, or nothing leaks") {
  for (const Bytes bytes : {Bytes{64}, Bytes{100'000}}) {
    Stage stage;
    const Bytes before = stage.now + 1;
    const ashlar_off slot = ashlar_shm_offset(stage.arena, stage.slot);
    kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                  .act =
                                      [&](Shared& a) {
                                        ashlar_shm_malloc_into(
                                            a, bytes,
                                            static_cast<ashlar_off*>(ashlar_shm_pointer(a, slot)));
                                      },
                                  .expected = stage.expect(1, 2),
                                  .also =
                                      [&](Shared& a) {
                                        const ashlar_off block =
                                            *static_cast<ashlar_off*>(ashlar_shm_pointer(a, slot));
                                        REQUIRE(a.blocks() == before + (block != 0));
                                        if (block == 0) return;
                                        void* const p = ashlar_shm_pointer(a, block);
                                        REQUIRE(ashlar_shm_usable_size(a, p) >= bytes);
                                      }});
  }
}

TEST_CASE("killed in malloc_into, and another takes out what it published before it is recovered") {
  for (const Bytes bytes : {Bytes{64}, Bytes{100'000}}) {
    Stage stage;
    const ashlar_off at = ashlar_shm_offset(stage.arena, stage.slot);
    const auto slot = [&](Shared& a) {
      return static_cast<ashlar_off*>(ashlar_shm_pointer(a, at));
    };
    kill_everywhere(stage.arena,
                    {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                     .act = [&](Shared& a) { ashlar_shm_malloc_into(a, bytes, slot(a)); },
                     .expected = stage.expect(1, 1),
                     .first =
                         [&](Shared& a) {
                           const ashlar_off block = ashlar_shm_exchange(a, slot(a), 0);
                           ashlar_shm_free(a, ashlar_shm_pointer(a, block));
                         },
                     .also = [](Shared& a) { REQUIRE(a.stats().bad_frees == 0); }});
  }
}

TEST_CASE("killed while it enters a root: it is there or not, and nothing leaks") {
  Stage stage;
  const Bytes before = stage.now + 1;
  const ashlar_off value = ashlar_shm_offset(stage.arena, stage.slot);
  kill_everywhere(stage.arena, {.before = [](Shared& a) { ashlar_shm_malloc(a, 64); },
                                .act = [&](Shared& a) { ashlar_shm_root_set(a, "second", value); },
                                .expected = stage.expect(1, 2),
                                .data_bytes = kChunkBytes,
                                .also =
                                    [&](Shared& a) {
                                      const ashlar_off found = ashlar_shm_root_get(a, "second");
                                      REQUIRE((found == 0 || found == value));
                                      REQUIRE(ashlar_shm_root_get(a, "first") != 0);
                                      REQUIRE(a.blocks() <= before + 1);
                                      REQUIRE(ashlar_shm_root_set(a, "second", value) == 0);
                                      REQUIRE(a.blocks() == before + 1);
                                    }});
}

TEST_CASE("a scoped process that is killed leaves nothing") {
  Stage stage;
  kill_everywhere(stage.arena, {.before =
                                    [](Shared& a) {
                                      for (int i = 0; i < 20; i++) ashlar_shm_malloc(a, 500);
                                      ashlar_shm_malloc(a, 100'000);
                                    },
                                .act =
                                    [](Shared& a) {
                                      ashlar_shm_malloc(a, 64);
                                      ashlar_shm_malloc(a, 100'000);
                                    },
                                .expected = stage.expect(0, 0),
                                .flags = ASHLAR_SHM_SCOPED});
}

TEST_CASE("killed while it closes its handle") {
  Stage stage;
  for (const unsigned flags : {0u, unsigned{ASHLAR_SHM_SCOPED}}) {
    kill_everywhere(stage.arena, {.before =
                                      [](Shared& a) {
                                        for (int i = 0; i < 20; i++) ashlar_shm_malloc(a, 500);
                                      },
                                  .act = [](Shared& a) { ashlar_shm_close(a); },
                                  .expected = stage.expect(0, flags == 0 ? 20 : 20),
                                  .flags = flags});
  }
}

// The arena is as large as it gets before the other comes: growing would adopt what it leaves.
TEST_CASE("killed while it adopts the slabs of one who has left") {
  Stage stage;
  const auto fill_up = [](Shared& a, Bytes run) {
    while (a.stats().mapped < kArenaBytes || a.stats().longest_run >= run) a.take(kUnitBytes);
  };
  kill_everywhere(stage.arena, {.before =
                                    [&](Shared& a) {
                                      a.take(64);
                                      fill_up(a, 16 * kUnitBytes);
                                      Child([&] {
                                        Shared other(ashlar_shm_open_fd(ashlar_shm_fd(a), 0));
                                        for (int i = 0; i < 20; i++) other.take(20'000);
                                      }).wait();
                                      fill_up(a, 4 * kUnitBytes);
                                    },
                                .act = [](Shared& a) { ashlar_shm_malloc(a, 20'000); },
                                .expected = {stage.now + 20, stage.now + 200, stage.held},
                                .room_left = false});
}

TEST_SUITE_END();

}  // namespace ashlar::test
