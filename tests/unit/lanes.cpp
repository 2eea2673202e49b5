// SPDX-License-Identifier: MIT
// Lanes: what is done for one while its owner sleeps, is stopped anywhere, or is gone.
#include <algorithm>
#include <chrono>
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "heap.h"
#include "maintenance.h"
#include "quiet_heap.h"
#include "slots.h"
#include "stats.h"
#include "stepped.h"

namespace ashlar::test {

namespace {

constexpr ClassIndex kSmall = class_for(64);

bool all_distinct(const std::vector<void*>& slots) {
  return std::set<void*>(slots.begin(), slots.end()).size() == slots.size() &&
         std::find(slots.begin(), slots.end(), nullptr) == slots.end();
}

Bytes allocated() {
  HeapStats s;
  collect_stats(s);
  return s.allocated;
}

// A look at this thread's lane as from another thread, while this one sleeps.
void look(bool all) {
  const Frozen frozen(*this_lane());
  REQUIRE(frozen);
  tend_lane(*this_lane(), all);
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
constexpr std::uint32_t kStride = 1;
#else
constexpr std::uint32_t kStride = 31;  // ten times as many instructions, and slower ones
#endif

// Calls malloc and free, in turn and in both orders, as often as they have instructions. After
// another one each time, and after `more` of those behind it, stopped(lane) may work on the
// thread's lane; false: nobody may, as it is in a slow path. Then afterwards(slots) is given what
// the thread holds.
template <class Stopped, class Afterwards>
void at_each_instruction(std::uint32_t more, Stopped&& stopped, Afterwards&& afterwards) {
  void* in_hand = nullptr;
  const auto malloc_one = [&] { in_hand = take_slot(kSmall); };
  const auto free_one = [&] { give_slot(in_hand); };
  const std::function<void()> calls[] = {malloc_one, free_one, [&] { free_one(), malloc_one(); },
                                         [&] { malloc_one(), free_one(); }};
  for (std::size_t call = 0; call < std::size(calls); call++) {
    CAPTURE(call);
    std::uint32_t at = 0;
    for (bool looked = true; looked;) {
      at += kStride;
      CAPTURE(at);
      auto slots = take(kSmall, 20);
      const bool frees_first = call == 1 || call == 2;
      in_hand = slots.back();
      if (frees_first) slots.pop_back();
      flush_lane(*this_lane());
      // One slot in `take`, one in `give`: malloc meets the last of a stack.
      give({slots[0], slots[1]});
      slots[0] = take_slot(kSmall);
      give_slot(slots[2]);
      slots.erase(slots.begin() + 1, slots.begin() + 3);
      const Magazine& m = this_lane()->magazine[kSmall.v];
      REQUIRE(m.take == m.take_base + 1);
      REQUIRE(m.give == m.give_base + 1);

      looked = false;
      std::uint32_t instructions = 0;
      stepped(calls[call], [&] {
        if (++instructions < at) return;
        if (instructions == at + more) step_no_further();
        const bool may_look = stopped(*this_lane());
        looked |= may_look && instructions == at;
      });
      if (call == 0 || call == 2) slots.push_back(in_hand);
      afterwards(slots);
      REQUIRE(broken() == "");
      const auto others = take(kSmall, 300);
      slots.insert(slots.end(), others.begin(), others.end());
      REQUIRE(all_distinct(slots));
      give(slots);
      flush_lane(*this_lane());
      REQUIRE(allocated() == 0);
    }
    CHECK(at > 10);
  }
}

}  // namespace

TEST_SUITE_BEGIN("lanes");

TEST_CASE("a lane that was recovered takes back objects it handed out before") {
  // As in the child of a fork: a thread leases a lane that was another's, then frees that one's.
  const auto slots = take(kSmall, 20);
  const auto others = take(class_for(256), 3);
  flush_lane(*this_lane());
  arena.recover_lane(this_lane()->slabs);
  recover_magazines(*this_lane());
  CHECK(broken() == "");
  give({slots[0], others[0], slots[1], others[1]});
  CHECK(broken() == "");
  give({slots.begin() + 2, slots.end()});
  give_slot(others[2]);
  maintenance.trim();
  CHECK(allocated() == 0);
}

TEST_CASE("the next thread with a lane gets first what the one before freed last") {
  auto slots = take(kSmall, 3);
  const std::set<void*> freed(slots.begin(), slots.end());
  give(slots);
  prepare_for_next(*this_lane());
  slots = take(kSmall, 3);
  CHECK(std::set<void*>(slots.begin(), slots.end()) == freed);
  CHECK(check_invariants(*this_lane()) == nullptr);
  give(slots);
}

TEST_CASE("stacks grow when the same thread misses twice") {
  Lane& lane = *this_lane();
  empty_magazines(lane);
  auto slots = take(kSmall, 1);
  const Magazine& magazine = lane.magazine[kSmall.v];
  const std::uint32_t first = magazine.capacity;
  prepare_for_next(lane);
  const auto take_until_miss = [&] {
    do {
      slots.push_back(take_slot(kSmall));
    } while (magazine.count() + 1 != magazine.capacity);
  };
  take_until_miss();
  CHECK(magazine.capacity == first);
  take_until_miss();
  CHECK(magazine.capacity == 2 * first);
  give(slots);
}

TEST_CASE("a lane whose owner is in a slow path is not frozen") {
  give_slot(take_slot(kSmall));
  Lane& lane = *this_lane();
  const auto freezes = [&] { return static_cast<bool>(Frozen(lane)); };
  {
    const Entered entered(lane);
    CHECK(!freezes());
    { const Entered again(lane); }
    CHECK(!freezes());
  }
  CHECK(freezes());
  CHECK(freezes());
}

TEST_CASE("magazines of a frozen lane are reclaimed, and their owner goes on") {
  const auto slots = take(kSmall, 900);
  give(slots);
  give_slot(take_slot(kSmall));  // exchanges the stacks
  Lane& lane = *this_lane();
  const Magazine& m = lane.magazine[kSmall.v];
  REQUIRE(m.count() > 100);
  look(true);
  CHECK(m.count() == 0);
  CHECK(broken() == "");
  const auto again = take(kSmall, 900);
  CHECK(all_distinct(again));
  give(again);
  CHECK(broken() == "");
}

TEST_CASE("a lane that was not used since the last look keeps nothing at hand, others keep all") {
  const auto slots = take(kSmall, 900);
  bool zero = false;
  void* const large = heap.take_large(300 * kKiB, kPageBytes, zero);
  give(slots);
  CHECK(heap.give_large(large));
  Lane& lane = *this_lane();
  look(false);
  CHECK(lane.magazine[kSmall.v].count() > 100);
  CHECK(lane.large.count == 1);
  look(false);
  CHECK(lane.magazine[kSmall.v].count() == 0);
  CHECK(lane.large.count == 0);
  CHECK(broken() == "");
}

TEST_CASE("what a sleeping thread kept at hand leaves memory in the pass that finds it") {
  maintenance.trim();
  const auto slots = take(kSmall, 3000);
  bool zero = false;
  void* const large = heap.take_large(300 * kKiB, kPageBytes, zero);
  give(slots);
  CHECK(heap.give_large(large));
  look(false);
  const auto dirty = [] { return arena.buddy().dirty_pages(); };
  const std::uint32_t used_just_now = dirty();
  look(false);
  CHECK(dirty() > used_just_now + 300 * kKiB / kPageBytes);
  do {
    arena.purge(Arena::Purge::aged);
  } while (!arena.purge_pass_ended());
  CHECK(dirty() <= used_just_now);
}

TEST_CASE("the large block that was freed last is the next of as many pages") {
  constexpr Bytes kBytes = 16 * kPageBytes;
  void* const p = heap.take_large(kBytes);
  give_slot(p);
  CHECK(arena.buddy().kind_at(arena.page_of(p)) == BlockKind::cached);
  void* const longer = heap.take_large(kBytes + 1);
  CHECK(longer != p);
  CHECK(heap.take_large(kBytes - kPageBytes + 1) == p);
  CHECK(arena.buddy().kind_at(arena.page_of(p)) == BlockKind::large);
  give_slot(p);
  give_slot(longer);
  CHECK(heap.take_large(kBytes) == p);  // not the last one: the long way
  give_slot(p);
  CHECK(this_lane()->large.held().v == 16 + 17);
  CHECK(death_of([&] { give_slot(p); }).signal == SIGABRT);
  CHECK(death_of([&] { give_slot(longer); }).signal == SIGABRT);
  flush_lane(*this_lane());
  CHECK(broken() == "");
}

TEST_CASE("large blocks at hand are no more than eight, nor than two megabytes") {
  for (const Bytes bytes : {40 * kKiB, 600 * kKiB, kMiB}) {
    std::vector<void*> blocks;
    for (int i = 0; i < 12; i++) blocks.push_back(heap.take_large(bytes));
    for (void* p : blocks) {
      give_slot(p);
      CHECK(this_lane()->large.count <= LargeCache::kBlocks);
      CHECK(this_lane()->large.held() <= LargeCache::kMostPages);
    }
    CHECK(this_lane()->large.count == std::min<Bytes>(8, 2 * kMiB / bytes));
    flush_lane(*this_lane());
  }
  void* const too_long = heap.take_large(kMiB + 1);
  give_slot(too_long);
  CHECK(this_lane()->large.count == 0);
  CHECK(broken() == "");
}

TEST_CASE("the short way is not for who is on a slow path, nor while the lane is frozen") {
  Lane& lane = *this_lane();
  {
    const TryEntered entered(lane);
    CHECK(entered);
    CHECK(lane.owner == OwnerState::inside);
    CHECK(!TryEntered(lane));
    CHECK(lane.owner == OwnerState::inside);
  }
  CHECK(lane.owner == OwnerState::outside);
  REQUIRE(lane.frozen.try_lock());
  CHECK(!TryEntered(lane));
  CHECK(lane.owner == OwnerState::outside);
  lane.frozen.unlock();
}

TEST_CASE("a large block that its thread takes again and again stays at hand") {
  const auto use = [] {
    bool zero = false;
    CHECK(heap.give_large(heap.take_large(300 * kKiB, kPageBytes, zero)));
  };
  for (int i = 0; i < 3; i++) {
    use();
    look(false);
    CHECK(this_lane()->large.count == 1);
  }
  look(false);
  CHECK(this_lane()->large.count == 0);
  look(false);
  CHECK(this_lane()->is_bare);
}

TEST_CASE("a child whose lane was being reclaimed at the fork gets whole slots") {
  for (bool from_take : {true, false}) {
    const auto slots = take(kSmall, 900);
    give(slots);
    Lane& lane = *this_lane();
    Magazine& m = lane.magazine[kSmall.v];
    if (from_take) give_slot(take_slot(kSmall));  // exchanges the stacks
    const Stack base = from_take ? m.take_base : m.give_base;
    const Stack top = from_take ? m.take : m.give;
    REQUIRE(top - base > 20);
    const Death death = death_of([&] {
      if (!lane.frozen.try_lock()) ::_exit(4);
      std::fill(base, base + (top - base) / 2, nullptr);  // and not counted yet
      heap.after_fork_in_child();
      const auto taken = take(kSmall, 2000);
      const bool whole = all_distinct(taken) && broken() == "";
      give(taken);
      ::_exit(whole && broken() == "" ? 0 : 3);
    });
    CHECK(death.signal == 0);
    CHECK(death.status == 0);
    CHECK(death.last_words == "");
  }
}

TEST_CASE("a sleeping thread's lane takes a few pages, whatever its thread did before") {
  const auto use_classes = [] {
    for (Bytes bytes = 16; bytes <= 512; bytes += 16) {
      const auto slots = take(class_for(bytes), 3000);
      CHECK(all_distinct(slots));
      give(slots);
    }
  };
  for (bool emptied : {false, true}) {
    use_classes();
    std::vector<void*> kept;
    for (Bytes bytes = 16; bytes <= 512; bytes += 16) {
      const auto slots = take(class_for(bytes), 50);
      kept.insert(kept.end(), slots.begin(), slots.end());
    }
    Lane& lane = *this_lane();
    const auto resident = [&] {
      return os::resident_bytes(&lane, bytes_of(kLanePages)) / kPageBytes;
    };
    CHECK(resident() > 20);
    if (emptied) empty_magazines(lane);  // as while it shrinks
    look(false);
    look(false);
    CHECK(lane.is_bare);
    CHECK(resident() <= 4);
    give(take(kSmall, 1));  // it wakes for a moment, and touches nothing of other classes
    CHECK(resident() <= 8);
    CHECK(broken() == "");
    use_classes();  // it goes on where it was
    CHECK(broken() == "");
    give(kept);
    maintenance.trim();
    CHECK(allocated() == 0);
  }
}

TEST_CASE("what a thread was about to push when it was stopped is not lost") {
  for (bool has_seen_end : {true, false}) {
    auto slots = take(kSmall, 200);
    void* const last = slots.back();
    slots.pop_back();
    give(slots);
    Magazine& m = this_lane()->magazine[kSmall.v];
    const Stack top = m.give;
    *top = last;  // the first of push_slot's stores
    look(false);
    look(false);
    CHECK(this_lane()->is_bare);
    CHECK(m.count() == 0);
    if (has_seen_end) {
      m.give.publish(top + 1);
    } else {
      give_slot(last);  // push_slot() would have met the new end
    }
    CHECK(m.count() == 1);
    CHECK(broken() == "");
    give(take(kSmall, 300));
    maintenance.trim();
    CHECK(allocated() == 0);
    CHECK(broken() == "");
  }
}

TEST_CASE("what a thread was about to pop when it was stopped is its own") {
  const auto slots = take(kSmall, 200);
  give(slots);
  give_slot(take_slot(kSmall));  // exchanges the stacks
  Magazine& m = this_lane()->magazine[kSmall.v];
  const Stack top = m.take - 1;
  REQUIRE(top > m.take_base);
  m.take = top;  // the first half of pop_slot()
  void* const popped = *top;
  look(false);
  look(false);
  CHECK(m.count() == 0);
  auto others = take(kSmall, 3000);
  others.push_back(popped);
  CHECK(all_distinct(others));
  give(others);
  CHECK(broken() == "");
}

TEST_CASE("what a thread was about to push when its process was forked is not lost") {
  auto slots = take(kSmall, 200);
  void* const last = slots.back();
  slots.pop_back();
  give(slots);
  Lane& lane = *this_lane();
  Magazine& m = lane.magazine[kSmall.v];
  const Stack top = m.give;
  *top = last;
  look(true);
  REQUIRE(lane.is_bare);
  m.give.publish(top + 1);
  // As in a child that leases the lane of a thread that is not there.
  arena.recover_lane(lane.slabs);
  recover_magazines(lane);
  CHECK(broken() == "");
  maintenance.trim();
  CHECK(allocated() == 0);
}

TEST_CASE("a slot that is freed twice while its lane is purged in between is told") {
  CHECK(death_of([] {
          const auto slots = take(kSmall, 200);
          give({slots.begin(), slots.end() - 1});
          Magazine& m = this_lane()->magazine[kSmall.v];
          const Stack top = m.give;
          *top = slots.back();
          look(true);
          m.give.publish(top + 1);
          give_slot(slots.back());
        }).signal == SIGABRT);
}

TEST_CASE("a thread is stopped after any instruction of malloc or free, and loses nothing") {
  if (!kCanStep) return;
  give(take(kSmall, 900));  // its stacks lie behind the first pages then, and can be purged
  for (std::uint32_t more : {0u, 50u}) {
    CAPTURE(more);
    at_each_instruction(
        more,
        [](Lane& lane) {
          const Frozen frozen(lane);
          if (frozen) tend_lane(lane, true);
          return static_cast<bool>(frozen);
        },
        [](auto&) {});
  }
}

TEST_CASE("a handler forks after any instruction of malloc or free, while the lane is reclaimed") {
  if (!kCanStep) return;
  pid_t child = -1;
  for (bool purged : {false, true}) {
    CAPTURE(purged);
    at_each_instruction(
        0,
        [&](Lane& lane) {
          if (lane.owner != OwnerState::outside) return false;
          if (purged) look(true);
          child = ::fork();
          if (child != 0) return true;
          if (!lane.frozen.try_lock()) ::_exit(4);
          lane.magazine[kSmall.v].take_base[0] = nullptr;  // and not counted yet
          heap.after_fork_in_child();
          return true;
        },
        [&](std::vector<void*>& slots) {
          const pid_t forked = std::exchange(child, -1);
          int status = 0;
          if (forked > 0) REQUIRE(::waitpid(forked, &status, 0) == forked);
          REQUIRE(status == 0);
          if (forked != 0) return;
          const auto others = take(kSmall, 300);
          slots.insert(slots.end(), others.begin(), others.end());
          const bool whole = all_distinct(slots) && broken() == "";
          give(slots);
          ::_exit(whole && broken() == "" ? 0 : 3);
        });
  }
}

TEST_CASE("a thread that pushes and pops all the time loses nothing to who looks after its lane") {
  std::atomic<bool> at_work = true;
  std::atomic<Lane*> working = nullptr;
  std::atomic<std::uint32_t> wrong = 0;
  std::thread owner([&] {
    give(take(kSmall, 100));
    working = this_lane();
    std::vector<void*> mine;
    for (std::uint32_t n = 0; at_work; n++) {
      for (std::uint32_t i = n % 7; i < 8; i++) {
        auto* const word = static_cast<std::uintptr_t*>(take_slot(kSmall));
        *word = reinterpret_cast<std::uintptr_t>(word);  // who else has it would write the same
        word[1] = n;
        mine.push_back(word);
      }
      while (mine.size() > n % 50) {
        auto* const word = static_cast<std::uintptr_t*>(mine.back());
        wrong += *word != reinterpret_cast<std::uintptr_t>(word);
        *word = 0;
        mine.pop_back();
        give_slot(word);
      }
    }
    give(mine);
  });
  while (working == nullptr) std::this_thread::yield();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  while (std::chrono::steady_clock::now() < end) {
    const Frozen frozen(*working);
    if (frozen) tend_lane(*working, true);
  }
  at_work = false;
  owner.join();
  CHECK(wrong == 0);
  CHECK(broken() == "");
  maintenance.trim();
  CHECK(allocated() == 0);
}

TEST_SUITE_END();

}  // namespace ashlar::test
