// SPDX-License-Identifier: MIT
#include "compact.h"

#include <cerrno>
#include <cstring>

#include "heap.h"
#include "lane_parts.h"
#include "maintenance.h"

namespace ashlar {

constinit Compactor compactor;
constinit thread_local std::uint32_t Compactor::t_asked_ = 0;

namespace {

constexpr std::uint64_t kLeastPeriodMs = 100;
// A plan may cost so small a part of the time.
constexpr std::uint64_t kPeriodPerCost = 100;

}  // namespace

// --- plans --------------------------------------------------------------------------------------

void Compactor::renew_plan() {
  if (os::now_ms() >= due_ms_.load(std::memory_order_relaxed)) make_plan();  // late is well
}

void Compactor::make_plan() {
  if (!heap.exists() || !planning_.try_lock()) return;
  const std::uint64_t begin = os::now_ms();
  // What lies in magazines would look used, and be handed out from slabs that are to be emptied.
  if (Lane* const own = heap.lane_for_this_thread()) flush_lane(*own);
  heap.drain_pool();
  if (has_table()) {
    mark_lanes_that_take();
    const auto for_each_slab = [](auto&& visit) {
      arena.for_each_slab([&](const Slab& slab, std::uint64_t tag) {
        if ((tag & kProgramHeapTag) == 0) visit(slab);
      });
    };
    rank(for_each_slab, [](const Slab& slab) {
      const LaneSlabs& owner = arena.lane_at(PageIndex{slab.descriptor().owner.load()});
      return owner.takes_moved.load(std::memory_order_relaxed);  // own write
    });
    arena.for_each_mosaic([&](const Mosaic& mosaic, std::uint64_t) {
      const UnitIndex unit = unit_of(arena.page_of(mosaic.base()));
      arena.scores().set(unit, 1, Ranking::score_of_mosaic(mosaic.gap_bytes()));
    });
    arena.scores().announce_plan();
  }
  const std::uint64_t end = os::now_ms();
  const std::uint64_t cost = (end - begin) * kPeriodPerCost;
  due_ms_.store(end + (cost > kLeastPeriodMs ? cost : kLeastPeriodMs), std::memory_order_relaxed);
  planning_.unlock();
  maintenance.tick(this_lane(), true);
}

void Compactor::make_plan_of(LaneSlabs& slabs) {
  planning_.lock();
  if (has_table()) {
    const auto for_each_slab = [&](auto&& visit) {
      arena.for_each_slab_of(slabs, UnitIndex{0}, [&](const Slab& slab) {
        visit(slab);
        return true;
      });
    };
    rank(for_each_slab, [](const Slab&) { return true; });
    arena.scores().announce_plan();
  }
  planning_.unlock();
}

// Under planning_.
template <class ForEachSlab, class TakesMoved>
void Compactor::rank(ForEachSlab&& for_each_slab, TakesMoved&& takes_moved) {
  ranking_.begin();
  for_each_slab([&](const Slab& slab) { ranking_.count(fill_of(slab), takes_moved(slab)); });
  ranking_.choose();
  for_each_slab([&](const Slab& slab) {
    const std::uint32_t units = slab.size_class_info().slab_bytes / kUnitBytes;
    arena.scores().set(arena.unit_of_slab(slab), units, ranking_.score(fill_of(slab)));
  });
}

// Scores for all units that there are; under planning_. False: no memory for them.
bool Compactor::has_table() {
  const std::uint32_t needed = arena.chunks() * kUnitsPerChunk;
  if (arena.scores().units() >= needed) return true;
  const Bytes room = bytes_of(pages_for(UnitScores::bytes_for(2 * needed)));
  bool zero = false;
  void* block = nullptr;
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    block = arena.take_pages(pages_for(room), kPageBytes, BlockKind::internal, zero);
    if (block != nullptr) break;
    if (!heap.make_room(seen, pages_for(room), kPageBytes)) return false;
  }
  if (!zero) std::memset(block, 0, room);
  arena.scores().use(*static_cast<UnitScores::Table*>(block),
                     static_cast<std::uint32_t>(room - UnitScores::bytes_for(0)));
  return true;
}

void Compactor::mark_lanes_that_take() {
  const auto mark = [](LaneSlabs& lane, bool takes) {
    lane.takes_moved.store(takes, std::memory_order_relaxed);  // read under planning_ alone
  };
  heap.for_each_lane([&](Lane& lane) { mark(lane.slabs, &lane == this_lane()); });
  heap.for_each_pooled([&](Lane& lane) {
    mark(lane.slabs, true);
    return false;
  });
  heap.with_shared_slabs([&](LaneSlabs& lane) { mark(lane, true); });
}

// --- moves --------------------------------------------------------------------------------------

void* Compactor::move(void* p) {
  if (arena.score_of(p) == 0) return nullptr;
  const UnitEntry entry = arena.entry_of(p);
  if (!entry.has_slots() || entry.is_of_program_heap()) return nullptr;
  const Place place = arena.locate(p);
  if (place.kind != Place::Kind::slot || place.begin != p) reject(p, "ashlar_frag_move");
  void* const to =
      entry.is_mosaic() ? take_dense_or_new(place.size_class) : take_dense(place.size_class);
  if (to == nullptr) return nullptr;
  std::memcpy(to, p, place.bytes);
  give(p, "ashlar_frag_move");
  return to;
}

void* Compactor::take_dense(ClassIndex c) {
  if (Lane* const own = heap.lane_for_this_thread()) {
    const Entered entered(*own);
    if (void* const slot = arena.take_dense(own->slabs, c)) return slot;
  }
  return heap.take_dense_from_pool(c);
}

void* Compactor::take_dense_or_new(ClassIndex c) {
  if (void* const slot = take_dense(c)) return slot;
  Lane* const own = heap.lane_for_this_thread();
  if (own == nullptr) return heap.take_shared(c);
  for (;;) {
    const std::uint32_t seen = arena.chunks();
    {
      const Entered entered(*own);
      if (void* const slot = arena.take_dense_or_new(own->slabs, c)) return slot;
    }
    const PageCount slab = pages_for(size_class(c).slab_bytes);
    if (!heap.make_room(seen, slab, bytes_of(slab))) break;
  }
  errno = ENOMEM;
  return nullptr;
}

void* Compactor::take(ClassIndex c, Bytes requested) {
  void* const slot = take_dense_or_new(c);
  if (slot == nullptr) return nullptr;
  return sampled_slot_if_due(slot, c, requested);
}

void Compactor::give(void* p, const char* caller) {
  const UnitEntry entry = arena.contains(p) ? arena.entry_of(p) : UnitEntry{};
  if (!entry.has_slots() || entry.is_of_program_heap() || slot_bytes_at(p, entry) == 0) {
    return give_slot(p, caller);
  }
  Lane* const own = this_lane();
  if (own == nullptr || entry.is_mosaic() || entry.tag() != reinterpret_cast<std::uintptr_t>(own)) {
    return arena.give_remote(&p, 1);
  }
  const Entered entered(*own);
  give_slots(*own, entry.size_class(), &p, 1);
}

}  // namespace ashlar
