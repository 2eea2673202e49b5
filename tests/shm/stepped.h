// SPDX-License-Identifier: MIT
// stepped.h: what a process leaves behind that is killed between any two instructions.
//
// A child is stepped through one call by ptrace. After each instruction that changed the arena its
// image is copied; the copy has no living process, as if the child had been killed there. The copy
// is recovered, checked and worked on. Then the same is done to recovery itself.
//
// ASHLAR_STEPS: how many images of each call recovery is stepped through on; 2 by default.
#pragma once

#include <sys/ptrace.h>

#include "layout.h"
#include "shm.h"

namespace ashlar::test {

inline constexpr Bytes kArenaBytes = 6 * kMiB;

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
               {shm::Geometry::kLaneHandles, shm::Geometry::kLaneHandles + kPageBytes},
               {shm::Geometry::kChunkWords, g.data},
               {g.data, g.data + data_bytes},
               {g.handles, g.handles + kPageBytes}};
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
inline int make_copy_fd(int original) {
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

inline void autopsy(int fd, const Scene& scene) {
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

inline void kill_everywhere(Shared& arena, const Scene& scene) {
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
inline void* there(Shared& arena, const Stage& stage, const void* p) {
  return ashlar_shm_pointer(arena, ashlar_shm_offset(stage.arena, p));
}

}  // namespace ashlar::test
