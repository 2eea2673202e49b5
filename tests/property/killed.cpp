// SPDX-License-Identifier: MIT
// What is left behind by an owner that is killed between any two instructions.
//
// An arena is copied to another address after each, as it stands, and recovered there; the heap is
// left where it is, for good, as a thread leaves it that a forked child does not have.
#include <csetjmp>
#include <cstring>
#include <map>

#include "../unit/stepped.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "property.h"

namespace ashlar::test {

namespace {

// --- the arena ----------------------------------------------------------------------------------

constexpr std::uint32_t kChunks = 2;
constexpr ClassIndex kSmall = class_for(1024);     // 64 slots a slab
constexpr ClassIndex kBig = class_for(16 * kKiB);  // 16 slots in four units

// An arena of which a copy can be taken.
class Scene {
 public:
  Scene() : original_(kChunks), copy_(original_.ground.bytes()) {
    victim = &add_lane(arena(), 1);
    other = &add_lane(arena(), 2);
    data_ = static_cast<Bytes>(arena().data() - original_.ground.base());
    last_ = std::vector<std::byte>(kMetadataBytes + kLaneBytes);
  }

  Arena& arena() { return original_.arena; }
  ArenaGround& original() { return original_; }

  std::vector<void*> take(LaneSlabs& lane, ClassIndex c, std::uint32_t count) {
    std::vector<void*> slots = original_.take(lane, c, count);
    for (void* slot : slots) held_[offset(slot)] = &lane;
    return slots;
  }
  // These are under way; whether they are held when the victim dies is open.
  void let_go(const std::vector<void*>& slots) {
    for (void* slot : slots) held_.erase(offset(slot));
  }

  // Kills the victim after each instruction of act(). Then `after` sees the recovered copy.
  template <class Act, class After>
  void kill_in(Act&& act, std::uint32_t most_lost, After&& after) {
    if (!kCanStep) return;
    std::uint32_t instructions = 0;
    std::uint32_t deaths = 0;
    stepped(act, [&] {
      instructions++;
      if (!changed()) return;
      deaths++;
      std::memcpy(copy_.base(), last_.data(), kMetadataBytes);
      std::memcpy(copy_.base() + data_, last_.data() + kMetadataBytes, kLaneBytes);
      trace.step("killed after %u instructions", instructions);
      Arena copy;
      copy.attach(copy_.region());
      // As Heap::after_fork_in_child() does.
      copy.after_fork_in_child();
      for (LaneSlabs* lane : {victim, other}) copy.lane_at(lane->index).empty_inbox();
      copy.recover_lane(copy.lane_at(victim->index));
      copy.drain_slabs(copy.lane_at(other->index));
      after(copy);
      autopsy(copy, most_lost);
    });
    CHECK(deaths > 1);
  }

  template <class Act>
  void kill_in(Act&& act, std::uint32_t most_lost) {
    kill_in(act, most_lost, [](Arena&) {});
  }

  LaneSlabs* victim;
  LaneSlabs* other;

 private:
  static constexpr Bytes kLaneBytes = 4 * kPageBytes;  // both lanes lie in the first pages
  // Header, unit table and summaries have a page each.
  static constexpr Bytes kMetadataBytes = 3 * kPageBytes + kChunks * sizeof(ChunkMeta);

  Bytes offset(const void* p) {
    return static_cast<Bytes>(static_cast<const std::byte*>(p) - arena().data());
  }

  // Whether anything was written since the last call.
  bool changed() {
    const std::byte* const now = original_.ground.base();
    if (std::memcmp(now, last_.data(), kMetadataBytes) == 0 &&
        std::memcmp(arena().data(), last_.data() + kMetadataBytes, kLaneBytes) == 0) {
      return false;
    }
    std::memcpy(last_.data(), now, kMetadataBytes);
    std::memcpy(last_.data() + kMetadataBytes, arena().data(), kLaneBytes);
    return true;
  }

  void autopsy(Arena& copy, std::uint32_t most_lost) {
    LaneSlabs& lane = copy.lane_at(victim->index);
    LaneSlabs& survivor = copy.lane_at(other->index);
    const std::string broken = sound(copy.check_invariants());
    // Pages on their way out of the buddy or into it may be lost.
    if (!broken.starts_with("buddy")) REQUIRE(broken == "");
    std::uint32_t used = 0;
    copy.for_each_slab([&](const Slab& slab, std::uint64_t tag) {
      REQUIRE(sound(slab.check_invariants()) == "");
      if (tag == lane.tag) used += slab.descriptor().used;
    });
    std::uint32_t held = 0;
    for (const auto& [at, owner] : held_) {
      REQUIRE(copy.locate(copy.data() + at).kind == Place::Kind::slot);
      held += owner == victim;
    }
    REQUIRE(used >= held);
    REQUIRE(used <= held + most_lost);
    // Whoever leases the lane next is handed nothing that is held.
    for (LaneSlabs* taker : {&lane, &survivor}) {
      for (ClassIndex c : {kSmall, kBig}) {
        void* slots[100];
        const std::uint32_t taken = copy.take_slots(*taker, c, slots, 100);
        for (std::uint32_t i = 0; i < taken; i++) {
          const auto at = static_cast<Bytes>(static_cast<std::byte*>(slots[i]) - copy.data());
          REQUIRE(held_.count(at) == 0);
        }
      }
    }
  }

  ArenaGround original_;
  Ground copy_;
  Bytes data_;                   // offset of the first data page
  std::vector<std::byte> last_;  // metadata and lanes, as changed() saw them last
  std::map<Bytes, LaneSlabs*> held_;
};

std::vector<void*> part(const std::vector<void*>& slots, std::size_t first, std::size_t count) {
  return {slots.begin() + static_cast<std::ptrdiff_t>(first),
          slots.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

// --- the heap -----------------------------------------------------------------------------------

using Object = Stamped;

sigjmp_buf dead;

// Runs act() for at most that many instructions. False: it was killed.
template <class Act>
bool survives(std::uint32_t instructions, Act&& act) {
  if (sigsetjmp(dead, 1) != 0) return false;
  stepped(act, [left = instructions]() mutable {
    if (left-- == 0) siglongjmp(dead, 1);
  });
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("killed");

TEST_CASE("a lane that dies while it takes slots loses these at most") {
  for (ClassIndex c : {kSmall, kBig}) {
    Scene scene;
    scene.take(*scene.victim, c, 5);
    scene.take(*scene.other, c, 5);
    void* slots[100];
    // From a slab that it has; to its end; from a new one.
    scene.kill_in([&] { scene.arena().take_slots(*scene.victim, c, slots, 4); }, 4);
    scene.let_go({slots, slots + 4});
    Scene full;
    full.take(*full.victim, c, size_class(c).capacity);
    full.kill_in([&] { full.arena().take_slots(*full.victim, c, slots, 4); }, 4);
  }
}

TEST_CASE("a lane that dies while it gives slots back loses these at most") {
  for (ClassIndex c : {kSmall, kBig}) {
    Scene scene;
    const std::uint32_t capacity = size_class(c).capacity;
    const auto first = scene.take(*scene.victim, c, capacity);
    const auto second = scene.take(*scene.victim, c, capacity);
    auto some = part(first, 3, 5);
    some.push_back(second[0]);
    some.push_back(first[0]);
    scene.let_go(some);
    scene.kill_in([&] { scene.original().give(*scene.victim, c, some); },
                  static_cast<std::uint32_t>(some.size()));
  }
}

TEST_CASE("a lane that dies while its slab goes back to the buddy loses that slab at most") {
  for (ClassIndex c : {kSmall, kBig}) {
    Scene scene;
    const std::uint32_t capacity = size_class(c).capacity;
    const auto first = scene.take(*scene.victim, c, capacity);
    scene.take(*scene.victim, c, 3);
    scene.original().give(*scene.victim, c, part(first, 1, capacity - 1));
    scene.let_go(first);
    scene.kill_in([&] { scene.arena().give_slots(*scene.victim, c, first.data(), 1); }, capacity);
  }
}

TEST_CASE("a lane that dies while it drains its inbox loses what was in it at most") {
  for (ClassIndex c : {kSmall, kBig}) {
    Scene scene;
    const std::uint32_t capacity = size_class(c).capacity;
    const auto first = scene.take(*scene.victim, c, capacity);
    const auto second = scene.take(*scene.victim, c, capacity);
    auto freed = part(first, 0, capacity);
    freed.push_back(second[2]);
    scene.original().give_remote(freed);
    scene.let_go(freed);
    scene.kill_in([&] { scene.arena().drain_inbox(*scene.victim); }, capacity + 1);
  }
}

TEST_CASE("a lane that dies while it frees another's slots harms neither") {
  for (ClassIndex c : {kSmall, kBig}) {
    Scene scene;
    scene.take(*scene.victim, c, 3);
    const auto slots = scene.take(*scene.other, c, 10);
    const auto freed = part(slots, 2, 4);
    scene.let_go(freed);
    scene.kill_in([&] { scene.original().give_remote(freed); }, 0);
  }
}

// Who dies between setting `pending` and pushing the slab leaves it deaf.
TEST_CASE("a slab whose last freer died still hears of the next one") {
  Scene scene;
  const auto slots = scene.take(*scene.other, kSmall, 10);
  scene.let_go({slots[3], slots[4]});
  const auto at = static_cast<std::byte*>(slots[4]) - scene.arena().data();
  scene.kill_in([&] { scene.original().give_remote({slots[3]}); }, 0,
                [&](Arena& copy) {
                  void* const next = copy.data() + at;
                  copy.give_remote(&next, 1);
                  copy.drain_inbox(copy.lane_at(scene.other->index));
                  REQUIRE(copy.locate(next).kind == Place::Kind::free);
                });
}

TEST_CASE("a heap whose threads die at any instruction hands nothing out twice") {
  if (!kCanStep) return;
  options.background = kBackgroundNever;  // that thread would not die with the others
  for_seeds(2, [](Random& random) {
    std::vector<Object> held;
    std::map<std::byte*, Bytes> by_address;
    const auto is_alone = [&](void* p, Bytes bytes) {
      auto* const at = static_cast<std::byte*>(p);
      const auto next = by_address.lower_bound(at);
      return (next == by_address.end() || next->first >= at + bytes) &&
             (next == by_address.begin() || std::prev(next)->first + std::prev(next)->second <= at);
    };
    std::uint32_t deaths = 0;

    for (std::uint32_t round = 0; round < steps(600); round++) {
      // Some steps in peace, then one under the knife.
      for (std::uint32_t left = random.up_to(200); left-- > 0;) {
        const std::uint32_t life = left == 0 ? random.up_to(8000) : kNone;
        const auto run = [&](auto&& act) {
          if (life == kNone) return act(), true;
          return survives(life, act);
        };
        bool alive = true;
        if (!held.empty() && random.chance(held.size() > 3000 ? 70 : 48)) {
          const Object object = pick(held, random);
          by_address.erase(static_cast<std::byte*>(object.p));
          REQUIRE(is_filled(object.p, object.bytes, object.stamp));
          trace.step("free %p, %zu bytes%s", object.p, object.bytes,
                     life == kNone ? "" : ", may die");
          alive = run([&] { give_slot(object.p); });
        } else if (random.chance(2)) {
          trace.step("trim%s", life == kNone ? "" : ", may die");
          alive = run([&] { maintenance.trim(); });
        } else {
          void* volatile p = nullptr;
          const bool large = random.chance(3);
          const Bytes bytes =
              large ? random.between(kMaxSlotBytes + 1, kMiB) : random.up_to(kMaxSlotBytes);
          trace.step("malloc %zu%s", bytes, life == kNone ? "" : ", may die");
          bool zero = false;
          alive = run([&] {
            p = large ? heap.take_large(bytes, kPageBytes, zero) : take_slot(class_for(bytes));
          });
          if (alive) {
            REQUIRE(p != nullptr);
            REQUIRE(is_alone(p, bytes));
            const Object object{p, bytes, random.next()};
            fill(p, bytes, object.stamp);
            held.push_back(object);
            by_address[static_cast<std::byte*>(p)] = bytes;
          }
        }
        if (alive) continue;
        deaths++;
        trace.step("died after %u instructions", life);
        set_this_lane(nullptr);
        heap.after_fork_in_child();
      }
    }
    CHECK(deaths > 10);
    // Nothing that is left may be damaged.
    for (const Object& object : held) {
      REQUIRE(is_filled(object.p, object.bytes, object.stamp));
      give_slot(object.p);
    }
    heap.for_each_lane([](const Lane& lane) {
      if (!lane.orphaned) REQUIRE(sound(check_invariants(lane)) == "");
    });
  });
}

TEST_SUITE_END();

}  // namespace ashlar::test
