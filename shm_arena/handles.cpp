// SPDX-License-Identifier: MIT
#include "handles.h"

#include <algorithm>
#include <cerrno>

#include "views.h"

namespace ashlar::shm {

namespace {

UnitIndex unit_at(Bytes data_offset) {
  return {static_cast<std::uint32_t>(data_offset / kUnitBytes)};
}

std::uint32_t pins_end(const Lane& lane) {
  return std::min(lane.pins_end.load(std::memory_order_relaxed), LaneHandles::kPins);  // only grows
}

// --- pins ---------------------------------------------------------------------------------------

// Where the next pin goes when `depth` is as deep as it ever was. kPins: nowhere.
std::uint32_t pin_place_slow(View& view, const LaneHandles& mine, std::uint32_t depth) {
  if (depth < LaneHandles::kPins) {
    raise_to(view.arena->lane(view.lane).pins_end, std::min(2 * depth, LaneHandles::kPins));
    return depth;
  }
  for (std::uint32_t i = 0; i < LaneHandles::kPins; i++) {
    if (mine.pins[i].load(std::memory_order_relaxed) == 0) return i;  // our own
  }
  return LaneHandles::kPins;
}

// Where the next pin goes. kPins: nowhere.
std::uint32_t pin_place(View& view, const LaneHandles& mine, std::uint32_t depth) {
  if (depth < pins_end(view.arena->lane(view.lane))) [[likely]]
    return depth;
  return pin_place_slow(view, mine, depth);
}

void pin(LaneHandles& mine, std::uint32_t at, std::uint32_t depth, std::uint32_t index) {
  mine.pins[at].store(index + 1);  // before the entry is read; see is_pinned()
  if (at == depth) mine.depth.store(depth + 1, std::memory_order_relaxed);
}

void unpin(LaneHandles& mine, std::uint32_t at) {
  // release: what was done to the object is done before somebody else may move it
  mine.pins[at].store(0, std::memory_order_release);
  std::uint32_t depth = at + 1;
  while (depth > 0 && mine.pins[depth - 1].load(std::memory_order_relaxed) == 0) depth--;
  if (mine.depth.load(std::memory_order_relaxed) == at + 1) {
    mine.depth.store(depth, std::memory_order_relaxed);
  }
}

// The deepest pin of that entry; kPins: the lane has none.
std::uint32_t find_pin(const View& view, const LaneHandles& mine, std::uint32_t index) {
  const std::uint32_t end = pins_end(view.arena->lane(view.lane));
  std::uint32_t at = std::min(mine.depth.load(std::memory_order_relaxed), end);
  while (at > 0 && mine.pins[at - 1].load(std::memory_order_relaxed) != index + 1) at--;
  return at > 0 ? at - 1 : LaneHandles::kPins;
}

void* stale() {
  errno = ESTALE;
  return nullptr;
}

// --- entries ------------------------------------------------------------------------------------

// Memory for one more entry. False: there is none, or the table is full.
bool add_entry(ashlar_shm& arena, std::uint32_t index) {
  constexpr std::uint32_t kStep = kUnitBytes / sizeof(HandleWord);
  const Geometry& g = arena.segment.geometry();
  State& state = arena.state();
  if (index >= g.handle_count) return false;
  if (index >= state.handles_backed.load()) {
    const std::uint32_t begin = index / kStep * kStep;
    if (arena.segment.back(g.handles + begin * sizeof(HandleWord), kUnitBytes) != 0) return false;
    raise_to(state.handles_backed, begin + kStep);
  }
  raise_to(state.handles_end, index + 1);
  return true;
}

// Looks at `count` entries from where this process last found one that is free.
std::uint32_t find_entry(View& view, std::uint32_t count) {
  ashlar_shm& arena = *view.arena;
  const std::uint32_t end = arena.state().handles_end.load();
  const std::uint32_t start = arena.hints.entry.load() < end ? arena.hints.entry.load() : 0;
  std::uint32_t index = start;
  for (std::uint32_t i = 0; i < std::min(count, end);
       i++, index = index + 1 < end ? index + 1 : 0) {
    const HandleWord* const word = arena.handle_word(index);
    if (word->load().state() == HandleEntry::kDropped) reclaim(view, index);
    if (!word->load().is_reusable()) continue;
    arena.hints.entry.store(index + 1);
    return index;
  }
  arena.hints.entry.store(index);
  return kNone;
}

// The table grows where few of it are free, so that nobody searches for long.
std::uint32_t free_entry(View& view) {
  constexpr std::uint32_t kNear = 64;
  const std::uint32_t near = find_entry(view, kNear);
  if (near != kNone) return near;
  const std::uint32_t end = view.arena->state().handles_end.load();
  return add_entry(*view.arena, end) ? end : find_entry(view, end);
}

// The entry, which was free, names a free slot of the slab. False: somebody else was faster.
bool enter(View& view, std::uint32_t index, const HeldSlab& slab, HandleEntry::State state) {
  const std::uint32_t slot = slab.free_slot();
  const Bytes at = slab.offset_of(slot);
  const Change change(view, index, at);
  slab->take(slot);
  HandleWord& word = *view.arena->handle_word(index);
  HandleEntry entry = word.load();
  const HandleEntry next(state, entry.generation(), at);
  if (entry.is_reusable() && word.compare_exchange_strong(entry, next)) return true;
  slab->give(slot);
  return false;
}

}  // namespace

// --- what programs call -------------------------------------------------------------------------

std::uint64_t alloc_handle(ashlar_shm& arena, Bytes bytes) {
  if (bytes > kMaxSlotBytes) {
    errno = EINVAL;
    return 0;
  }
  View* const view = view_for_handles(arena);
  if (view == nullptr) return 0;
  constexpr int kAttempts = 1000;  // somebody else may be faster, not for ever
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    const std::uint32_t index = free_entry(*view);
    if (index == kNone) break;
    const HeldSlab slab = hold_slab_with_room(*view, class_for(bytes), Room::anywhere);
    if (!slab) return 0;
    // The slab is held until then, so that the entry is still ours.
    if (enter(*view, index, slab, HandleEntry::kLive)) {
      return Handle{index, arena.handle_word(index)->load().generation()}.word();
    }
  }
  errno = ENOMEM;
  return 0;
}

int free_handle(ashlar_shm& arena, Handle handle) {
  HandleWord* const word = arena.handle_word(handle.index);
  if (word == nullptr) return ESTALE;
  HandleEntry entry = word->load();
  do {
    if (entry.generation() != handle.generation || !entry.is_usable()) return ESTALE;
  } while (!word->compare_exchange_weak(entry, entry.with(HandleEntry::kDropped)));
  // Without a lane it stays dropped, until somebody comes by who has one.
  if (View* const view = view_for_handles(arena)) reclaim(*view, handle.index);
  return 0;
}

void* lock_handle(ashlar_shm& arena, Handle handle) {
  View* view = &view_of(arena);
  if (view->tag == 0 || arena.lane(view->lane).pins_end.load(std::memory_order_relaxed) == 0) {
    view = view_for_handles(arena);
    if (view == nullptr) return nullptr;
  }
  HandleWord* const word = arena.handle_word(handle.index);
  if (word == nullptr) return stale();
  LaneHandles& mine = arena.handles_of(view->lane);
  const std::uint32_t depth = mine.depth.load(std::memory_order_relaxed);
  const std::uint32_t place = pin_place(*view, mine, depth);
  if (place == LaneHandles::kPins) [[unlikely]] {
    errno = ENOLCK;
    return nullptr;
  }
  pin(mine, place, depth, handle.index);
  HandleEntry entry = word->load();
  for (;;) {
    if (entry.generation() != handle.generation || !entry.is_usable()) {
      unpin(mine, place);
      return stale();
    }
    const bool settled = entry.state() == HandleEntry::kLive ||
                         word->compare_exchange_strong(entry, entry.with(HandleEntry::kLive));
    if (settled) return arena.data + entry.data_offset();
  }
}

bool unlock_handle(ashlar_shm& arena, Handle handle) {
  View& view = view_of(arena);
  HandleWord* const word = arena.handle_word(handle.index);
  if (view.tag == 0 || word == nullptr) return false;
  if (pins_end(arena.lane(view.lane)) == 0) return false;
  LaneHandles& mine = arena.handles_of(view.lane);
  const std::uint32_t place = find_pin(view, mine, handle.index);
  if (place == LaneHandles::kPins) return false;
  unpin(mine, place);
  // Freed meanwhile? Who misses it here leaves it to the next who comes by.
  if (word->load(std::memory_order_relaxed).state() == HandleEntry::kDropped) {
    reclaim(view, handle.index);
  }
  return true;
}

Bytes bytes_of_handle(ashlar_shm& arena, Handle handle) {
  const HandleWord* const word = arena.handle_word(handle.index);
  const HandleEntry entry = word == nullptr ? HandleEntry() : word->load();
  if (!entry.is_usable() || entry.generation() != handle.generation) return 0;
  arena.pages.refresh();
  if (!arena.contains(entry.data_offset())) return 0;
  const UnitEntry unit{arena.entry(unit_at(entry.data_offset())).load()};
  return unit.is_slab() ? size_class(unit.size_class()).slot_bytes : 0;
}

// --- for compaction -----------------------------------------------------------------------------

View* view_for_handles(ashlar_shm& arena) {
  View* const view = view_for_thread(arena);
  if (view == nullptr || arena.lane(view->lane).pins_end.load() != 0) return view;
  const Offset at = Geometry::kLaneHandles + view->lane * sizeof(LaneHandles);
  if (arena.segment.back(align_down(at, kPageBytes), kPageBytes) != 0) {
    errno = ENOMEM;
    return nullptr;
  }
  raise_to(arena.lane(view->lane).pins_end, LaneHandles::kFirstPins);
  return view;
}

// Dekker's pattern with lock_handle(): the entry was changed before pins are read.
bool is_pinned(const ashlar_shm& arena, std::uint32_t index) {
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    const std::uint32_t end = std::min(arena.lane(l).pins_end.load(), LaneHandles::kPins);
    if (end == 0) continue;
    const LaneHandles& lane = arena.handles_of(l);
    for (std::uint32_t i = 0; i < end; i++) {
      if (lane.pins[i].load() == index + 1) return true;
    }
  }
  return false;
}

namespace {

// Of each class this process keeps one slab that is all free: the last one.
void keep_empty(View& view, ClassIndex c, UnitIndex first) {
  const std::uint32_t before = view.arena->hints.empty_slab[c.v].exchange(first.v);
  if (before == first.v) return;
  HeldSlab slab(*view.arena, view.lane, UnitIndex{before});
  if (slab && slab->size_class_index() == c && slab.is_empty()) static_cast<void>(slab.retire());
}

}  // namespace

void reclaim(View& view, std::uint32_t index) {
  ashlar_shm& arena = *view.arena;
  HandleWord& word = *arena.handle_word(index);
  const HandleEntry entry = word.load();
  if (entry.state() != HandleEntry::kDropped) return;
  const Bytes at = entry.data_offset();
  ClassIndex c{};
  UnitIndex emptied{kNone};
  {
    HeldSlab slab(arena, view.lane, unit_at(at));
    // Only who holds the slab changes a dropped entry.
    if (!slab || word.load() != entry || is_pinned(arena, index)) return;
    const std::uint32_t slot = slab->slot_at(at);
    if (slot == slab->info().capacity) return;
    {
      const Change change(view, index, at);
      word.store(HandleEntry(HandleEntry::kFree, entry.generation() + 1, 0));
      slab->give(slot);
    }
    c = slab->size_class_index();
    if (slab.is_empty()) emptied = slab->first();
    arena.hints.slab[c.v].store(slab->first().v);
  }
  arena.hints.entry.store(index);
  if (emptied.v != kNone) keep_empty(view, c, emptied);
  const std::uint64_t class_bit = std::uint64_t{1} << c.v;
  State& state = arena.state();
  if ((state.handle_room.load() & class_bit) == 0) state.handle_room.fetch_or(class_bit);
}

std::uint32_t keep_slot(View& view, ClassIndex c) {
  const std::uint32_t index = free_entry(view);
  if (index == kNone) return kNone;
  LaneHandles& mine = view.arena->handles_of(view.lane);
  const std::uint32_t depth = mine.depth.load(std::memory_order_relaxed);
  const std::uint32_t place = pin_place(view, mine, depth);
  if (place == LaneHandles::kPins) return kNone;
  const HeldSlab slab = hold_slab_with_room(view, c, Room::but_no_new_slab);
  if (!slab) return kNone;
  pin(mine, place, depth, index);  // before anybody can see that it is dropped
  if (enter(view, index, slab, HandleEntry::kDropped)) return index;
  unpin(mine, place);
  return kNone;
}

void end_keeping(View& view, std::uint32_t keeper) {
  LaneHandles& mine = view.arena->handles_of(view.lane);
  const std::uint32_t place = find_pin(view, mine, keeper);
  if (place != LaneHandles::kPins) unpin(mine, place);
  reclaim(view, keeper);
}

// Only who holds the slab changes a dropped entry.
void free_keeper(ashlar_shm& arena, std::uint32_t keeper, Bytes slot) {
  HandleWord* const word = keeper == kNone ? nullptr : arena.handle_word(keeper);
  if (word == nullptr) return;
  const HandleEntry entry = word->load();
  if (entry.state() != HandleEntry::kDropped || !entry.names(slot)) return;
  word->store(HandleEntry(HandleEntry::kFree, entry.generation() + 1, 0));
}

// The store of `entry` comes last and goes first: without it there is no change.
Change::Change(const View& view, std::uint32_t index, Bytes slot, Bytes other, std::uint32_t keeper)
    : lane_(view.arena->handles_of(view.lane)) {
  // release: settle_handles() finds them in this order or not at all
  lane_.slot[0].store(slot + 1, std::memory_order_release);
  lane_.slot[1].store(other + 1, std::memory_order_release);
  if (keeper != kNone) lane_.keeper.store(keeper + 1, std::memory_order_release);
  lane_.entry.store(index + 1, std::memory_order_release);
}

Change::~Change() {
  lane_.entry.store(0, std::memory_order_release);
  if (lane_.keeper.load(std::memory_order_relaxed) != 0) lane_.keeper.store(0);  // our own
}

// --- death --------------------------------------------------------------------------------------

namespace {

void settle_change(ashlar_shm& arena, std::uint32_t lane, const LaneHandles& change) {
  const std::uint32_t index = change.entry.load() - 1;
  const HandleWord* const word = index == kNone ? nullptr : arena.handle_word(index);
  if (word == nullptr) return;
  free_keeper(arena, change.keeper.load() - 1, change.slot[1].load() - 1);
  for (const auto& noted : change.slot) {
    const Bytes at = noted.load() - 1;
    if (at == Change::kNoSlot || !arena.contains(at)) continue;
    const SlabRef slab = SlabRef::find(arena, unit_at(at));
    if (!slab.exists() || slab.tag() != tag_of_holder(lane)) continue;
    const std::uint32_t slot = slab.slot_at(at);
    if (slot < slab.info().capacity && !word->load().names(at)) slab.give(slot);
  }
}

}  // namespace

void settle_handles(ashlar_shm& arena, std::uint32_t l) {
  if (arena.lane(l).pins_end.load() != 0) {
    LaneHandles& lane = arena.handles_of(l);
    settle_change(arena, l, lane);
    lane.entry.store(0);
    lane.keeper.store(0);
    for (auto& pin : lane.pins) pin.store(0);
    lane.depth.store(0);
    open_slabs_of(arena, l);
  }
  std::uint32_t compacting = l + 1;
  arena.state().compactor.compare_exchange_strong(compacting, 0);
}

}  // namespace ashlar::shm
