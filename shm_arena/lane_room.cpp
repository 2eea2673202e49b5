// SPDX-License-Identifier: MIT
#include "lane_room.h"

#include <cerrno>

#include "lane_lists.h"
#include "recovery.h"

namespace ashlar::shm {

bool drain_news(View& view) {
  ashlar_shm& arena = *view.arena;
  lane_of(view).news.store(0);
  bool any = false;
  for (std::uint32_t c = 0; c < arena.pages.chunks(); c++) {
    std::atomic<std::uint32_t>& freed = arena.pages.meta(ChunkIndex{c}).freed_units;
    for (std::uint32_t bits = freed.load(); bits != 0; bits &= bits - 1) {
      const UnitIndex unit{c * kUnitsPerChunk + lowest_bit(bits)};
      const SlabRef slab = SlabRef::find(arena, unit);
      if (slab.exists() && slab.tag() != view.tag) continue;
      freed.fetch_and(~(bits & -bits));
      if (!slab.exists()) continue;
      Cursor& k = view.cursor[slab.size_class_index().v];
      const bool at_cursor = k.slab == slab.base();
      const std::uint32_t twice = at_cursor ? slab.drain(k.word_index, k.avail) : slab.drain();
      if (twice != 0) arena.state().bad_frees.fetch_add(twice);
      if (!at_cursor) refile(view, slab);
      any = true;
    }
  }
  return any;
}

bool adopt_vacant(View& view) {
  ashlar_shm& arena = *view.arena;
  if (arena.processes.scoped()) return false;
  bool any = false;
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    LaneState state = arena.lane(l).state.load();
    if (state.kind != LaneState::kVacant || state.plain == 0 ||
        arena.lane(l).held_pages.load() == 0) {
      continue;
    }
    LaneState mine = state;
    mine.kind = LaneState::kIdle;
    mine.process = static_cast<std::uint16_t>(arena.processes.place());
    mine.generation++;
    if (!arena.lane(l).state.compare_exchange_strong(state, mine)) continue;
    const std::uint64_t tag = tag_of_lane(l);
    const std::uint32_t units = arena.pages.chunks() * kUnitsPerChunk;
    for (std::uint32_t u = 0; u < units; u++) {
      if (UnitEntry{arena.entry(UnitIndex{u}).load()}.tag() != tag) continue;
      const SlabRef slab = SlabRef::find(arena, UnitIndex{u});
      if (!slab.exists()) continue;
      u = slab.first().v + slab.units() - 1;
      slab.set_owner(view.tag);
      arena.lane(l).release(slab.pages().v);
      lane_of(view).held_pages.fetch_add(slab.pages().v);
      slab.descriptor().list = LaneSlabs::kNoList;
      slab.drain();
      file(view, slab);
      any = true;
    }
    LaneState vacant = mine;
    vacant.kind = LaneState::kVacant;
    arena.lane(l).state.store(vacant);
  }
  return any;
}

std::uint64_t held_pages(const ashlar_shm& arena) {
  std::uint64_t held = 0;
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    const LaneState state = arena.lane(l).state.load();
    if (state.kind == LaneState::kVacant || state.process != arena.processes.place()) continue;
    held += arena.lane(l).held_pages.load();
  }
  return held;
}

bool within_quota(const ashlar_shm& arena, PageCount pages) {
  const std::uint64_t quota = arena.state().quota.load();
  return quota == 0 || held_pages(arena) + pages.v <= quota / kPageBytes;
}

PageIndex claim_pages(View& view, PageCount pages, PageCount alignment) {
  ashlar_shm& arena = *view.arena;
  view.has_grown = true;
  if (!within_quota(arena, pages)) {
    errno = EDQUOT;
    return {kNone};
  }
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    const PageIndex first = arena.pages.claim(view.lane, pages, alignment);
    if (first.v != kNone) return first;
    if (attempt == 0) {
      const bool recovered = recover_dead(arena) != 0;
      const bool swept = arena.pages.sweep(view.lane);
      const bool drained = drain_news(view);
      const bool adopted = adopt_vacant(view);
      if (recovered || swept || drained || adopted) continue;
    }
    if (!arena.pages.grow(view.lane, pages)) break;
  }
  errno = ENOMEM;
  return {kNone};
}

}  // namespace ashlar::shm
