// SPDX-License-Identifier: MIT
#include "recovery.h"

#include <cerrno>

#include "handles.h"

namespace ashlar::shm {

namespace {

class LaneSet {
 public:
  void add(std::uint32_t lane) { words_[lane / 64] |= std::uint64_t{1} << lane % 64; }
  bool has(std::uint32_t lane) const {
    return lane < kLanes && (words_[lane / 64] >> lane % 64 & 1) != 0;
  }
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::uint32_t w = 0; w < kLanes / 64; w++) {
      for (std::uint64_t bits = words_[w]; bits != 0; bits &= bits - 1) {
        visit(w * 64 + lowest_bit(bits));
      }
    }
  }

 private:
  std::uint64_t words_[kLanes / 64] = {};
};

// Step 1. Also counts what the lanes' slabs hold.
void settle_entries(ashlar_shm& arena, const LaneSet& lanes) {
  lanes.for_each([&](std::uint32_t l) { arena.lane(l).held_pages.store(0); });
  const std::uint32_t units = arena.pages.chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    const std::uint64_t tag = UnitEntry{arena.entry(UnitIndex{u}).load()}.tag();
    const std::uint32_t lane = lane_of_tag(tag);
    if (lanes.has(holder_of_tag(tag)) && !SlabRef::find(arena, UnitIndex{u}).exists()) {
      arena.entry(UnitIndex{u}).store(0);
    }
    if (!lanes.has(lane)) continue;
    const SlabRef slab = SlabRef::find(arena, UnitIndex{u});
    if (!slab.exists() || slab.tag() != tag) {
      arena.entry(UnitIndex{u}).store(0);
      continue;
    }
    slab.set_owner(tag);
    arena.lane(lane).held_pages.fetch_add(slab.pages().v);
    u = slab.first().v + slab.units() - 1;
  }
}

// Step 3. The slots may be at rest already: in the middle of a move they are in both places.
void settle_cursors(ashlar_shm& arena, std::uint32_t lane) {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    LaneCursors::Shared& cursor = arena.cursors(lane).of_class[c];
    const std::uint64_t avail = cursor.avail.load();
    const UnitIndex unit{cursor.unit.load()};
    if (avail == 0) continue;
    if (unit.v < arena.pages.chunks() * kUnitsPerChunk) {
      const SlabRef slab = SlabRef::find(arena, unit);
      const std::uint32_t w = cursor.word.load();
      if (slab.exists() && slab.tag() == tag_of_lane(lane) && slab.size_class_index().v == c &&
          w < slab.info().words) {
        slab.give_bits(w, avail);
      }
    }
    cursor.avail.store(0);
  }
}

// Step 4. Whoever takes the block out of its slot says before that it was there.
void settle_publication(ashlar_shm& arena, std::uint32_t l) {
  Lane& lane = arena.lane(l);
  Offset announced = lane.publishing.load();
  if (announced == 0) return;
  const Offset block = announced & ~Lane::kNeverPublished;
  const Offset slot = lane.published_at.load();
  const Bytes at = arena.data_offset(arena.pointer(block));
  const bool sane = arena.pointer(block) != nullptr && arena.contains(at) && slot % 8 == 0 &&
                    slot + 8 <= arena.segment.geometry().end;
  const auto is_nobodys = [&] {
    if (announced != block) return true;
    return arena.segment.at<std::atomic<Offset>>(slot).load() != block &&
           lane.publishing.compare_exchange_strong(announced, block | Lane::kNeverPublished);
  };
  if (sane && is_nobodys()) {
    const SlabRef slab =
        SlabRef::find(arena, UnitIndex{static_cast<std::uint32_t>(at / kUnitBytes)});
    const PageIndex page{static_cast<std::uint32_t>(at / kPageBytes)};
    if (slab.exists()) {
      const std::uint32_t s = slab.slot_at(at);
      if (slab.tag() == tag_of_lane(l) && s < slab.info().capacity) slab.give(s);
    } else if (at % kPageBytes == 0 && arena.pages.taken_by(page).load() == l + 1) {
      static_cast<void>(arena.pages.give_large(l, page));
    }
  }
  lane.publishing.store(0);
}

// Step 5. `lanes` are those whose blocks die with them.
void give_all(ashlar_shm& arena, const LaneSet& lanes) {
  const std::uint32_t units = arena.pages.chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    const std::uint32_t lane = lane_of_tag(UnitEntry{arena.entry(UnitIndex{u}).load()}.tag());
    if (!lanes.has(lane)) continue;
    const SlabRef slab = SlabRef::find(arena, UnitIndex{u});
    if (!slab.exists()) continue;
    u = slab.first().v + slab.units() - 1;
    slab.clear();
    // A chunk that somebody holds for longer keeps an empty slab; the lane's next lease uses it.
    const PageIndex first = first_page(slab.first());
    if (!arena.pages.begin_give(lane, first, slab.pages())) continue;
    slab.leave();
    arena.pages.end_give(lane, first, slab.pages());
    arena.lane(lane).release(slab.pages().v);
  }
  for (std::uint32_t page = 0; page < arena.pages.chunks() * kPagesPerChunk; page++) {
    if (arena.pages.buddy().kind_at(PageIndex{page}) != BlockKind::large) continue;
    const std::uint32_t lane = arena.pages.taken_by(PageIndex{page}).load() - 1u;
    if (lanes.has(lane)) static_cast<void>(arena.pages.give_large(lane, PageIndex{page}));
  }
}

void settle(ashlar_shm& arena, const LaneSet& lanes) {
  arena.pages.refresh();
  settle_entries(arena, lanes);
  lanes.for_each([&](std::uint32_t l) { arena.pages.repair(l); });
  lanes.for_each([&](std::uint32_t l) { arena.pages.finish_giving(l); });
  LaneSet scoped;
  bool any_scoped = false;
  lanes.for_each([&](std::uint32_t l) {
    settle_cursors(arena, l);
    settle_publication(arena, l);
    settle_handles(arena, l);
    if (arena.lane(l).state.load().plain == 0) {
      scoped.add(l);
      any_scoped = true;
    }
  });
  if (any_scoped) give_all(arena, scoped);
  lanes.for_each([&](std::uint32_t l) {
    LaneState state = arena.lane(l).state.load();
    state.kind = LaneState::kVacant;
    arena.lane(l).state.store(state);
  });
}

// The lanes of processes for which is_theirs(place) holds.
template <class IsTheirs>
LaneSet lanes_of(const ashlar_shm& arena, IsTheirs&& is_theirs) {
  LaneSet lanes;
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    const LaneState state = arena.lane(l).state.load();
    if (state.kind != LaneState::kVacant && is_theirs(state.process)) lanes.add(l);
  }
  return lanes;
}

}  // namespace

int join_arena(ashlar_shm& arena) {
  Processes& processes = arena.processes;
  const int error = processes.join();
  if (error != EAGAIN) return error;
  return processes.succeed([&](std::uint32_t dead) {
    processes.abandon_recoveries_of(dead);
    settle(arena, lanes_of(arena, [&](std::uint32_t place) { return place == dead; }));
    arena.state().recoveries.fetch_add(1);
  });
}

std::uint32_t recover_dead(ashlar_shm& arena) {
  Processes& processes = arena.processes;
  if (join_arena(arena) != 0) return 0;
  static_assert(kProcesses == kLanes);
  LaneSet dead;  // places of processes
  std::uint32_t count = 0;
  // Each round finds a process at least, and one may die for each that we recover.
  bool more = true;
  for (std::uint32_t round = 0; more && round < kProcesses; round++) {
    more = false;
    for (std::uint32_t i = 0; i < processes.places_end(); i++) {
      if (!processes.is_dead(i) || !processes.begin_recovery(i)) continue;
      dead.add(i);
      count++;
      more = true;
      processes.abandon_recoveries_of(i);
    }
  }
  if (count == 0) return 0;
  settle(arena, lanes_of(arena, [&](std::uint32_t place) { return dead.has(place); }));
  dead.for_each([&](std::uint32_t i) { processes.end_recovery(i); });
  arena.state().recoveries.fetch_add(count);
  return count;
}

void leave_arena(ashlar_shm& arena) {
  if (!arena.processes.joined()) return;
  const std::uint32_t own = arena.processes.place();
  settle(arena, lanes_of(arena, [&](std::uint32_t place) { return place == own; }));
  arena.processes.leave();
}

}  // namespace ashlar::shm
