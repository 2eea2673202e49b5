// SPDX-License-Identifier: MIT
// Blocks of pages, blocks that are published, and what is known of a block.
#include <cerrno>

#include "lane_lists.h"
#include "lane_room.h"
#include "shortage.h"
#include "views.h"

namespace ashlar::shm {

namespace {

PageIndex claim_large(View& view, Bytes bytes, Bytes alignment, PageCount& pages) {
  if (bytes > kMostBlockBytes) {
    errno = ENOMEM;
    return {kNone};
  }
  pages = pages_for(bytes);
  const PageCount aligned_pages = pages_for(alignment < kPageBytes ? kPageBytes : alignment);
  const PageIndex first = claim_pages(view, pages, aligned_pages);
  if (first.v != kNone) {
    view.arena->pages.taken_by(first).store(static_cast<std::uint16_t>(view.lane + 1));
  }
  return first;
}

}  // namespace

void* take_large(ashlar_shm& arena, Bytes bytes, Bytes alignment) {
  View* const view = view_for_thread(arena);
  if (view == nullptr) return nullptr;
  PageCount pages;
  const PageIndex first = claim_large(*view, bytes, alignment, pages);
  if (first.v != kNone) {
    arena.pages.commit(view->lane, first, pages, BlockKind::large);
    lane_of(*view).held_pages.fetch_add(pages.v);
  }
  look_if_grown(*view, first.v == kNone);
  return first.v == kNone ? nullptr : arena.data + Bytes{first.v} * kPageBytes;
}

// What the lane says it is about to publish is nobody's, until the slot says otherwise.
Offset take_into(ashlar_shm& arena, Bytes bytes, std::atomic<Offset>& slot,
                 bool (*publish)(std::atomic<Offset>& slot, Offset block, void* context),
                 void* context) {
  View* const view = view_for_thread(arena);
  if (view == nullptr) return 0;
  Lane& lane = lane_of(*view);
  const auto announce = [&](Offset block) {
    lane.published_at.store(
        static_cast<Offset>(reinterpret_cast<std::byte*>(&slot) - arena.segment.base()));
    lane.publishing.store(block);
  };
  void* p = nullptr;
  if (bytes <= kMaxSlotBytes) {
    const ClassIndex c = class_for(bytes);
    if (!refill(*view, c)) return 0;
    const Cursor& k = view->cursor[c.v];
    announce(arena.offset(k.base + Bytes{lowest_bit(k.avail)} * k.slot_bytes));
    p = take(arena, place_of(c));
  } else {
    PageCount pages;
    const PageIndex first = claim_large(*view, bytes, kPageBytes, pages);
    if (first.v == kNone) return 0;
    p = arena.data + Bytes{first.v} * kPageBytes;
    announce(arena.offset(p));
    arena.pages.commit(view->lane, first, pages, BlockKind::large);
    lane_of(*view).held_pages.fetch_add(pages.v);
  }
  const Offset block = arena.offset(p);
  const bool published = publish(slot, block, context);
  lane.publishing.store(0);
  if (published) return block;
  give(arena, p);
  return 0;
}

bool replace(ashlar_shm& arena, std::atomic<Offset>& slot, Offset& expected, Offset desired) {
  for (std::uint32_t l = 0; expected != 0 && l < arena.lanes_end(); l++) {
    Offset announced = expected;
    if (arena.lane(l).publishing.load() == expected) {
      arena.lane(l).publishing.compare_exchange_strong(announced, 0);
    }
  }
  return slot.compare_exchange_strong(expected, desired);
}

Offset exchange(ashlar_shm& arena, std::atomic<Offset>& slot, Offset desired) {
  Offset seen = slot.load();
  while (!replace(arena, slot, seen, desired)) {
  }
  return seen;
}

Bytes bytes_at(ashlar_shm& arena, const void* p) {
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) arena.pages.refresh();
  if (!arena.contains(offset)) return 0;
  const SlabRef slab =
      SlabRef::find(arena, UnitIndex{static_cast<std::uint32_t>(offset / kUnitBytes)});
  if (slab.exists()) {
    const std::uint32_t slot = slab.slot_at(offset);
    const bool in_use = slot < slab.info().capacity && !slab.is_free(slot);
    return in_use && !slab.is_for_handles() ? slab.info().slot_bytes : 0;
  }
  const PageIndex first{static_cast<std::uint32_t>(offset / kPageBytes)};
  return offset % kPageBytes == 0 ? bytes_of(arena.pages.pages_of(first, BlockKind::large)) : 0;
}

bool resize_large(ashlar_shm& arena, void* p, Bytes bytes) {
  View* const view = view_for_thread(arena);
  if (view == nullptr || bytes > kMostBlockBytes) return false;
  const PageIndex first{static_cast<std::uint32_t>(arena.data_offset(p) / kPageBytes)};
  const PageCount old = arena.pages.pages_of(first, BlockKind::large);
  const PageCount pages = pages_for(bytes);
  if (pages.v > old.v && !within_quota(arena, PageCount{pages.v - old.v})) return false;
  if (old.v == 0 || !arena.pages.resize(view->lane, first, pages)) return false;
  const std::uint32_t taken_by = arena.pages.taken_by(first).load() - 1u;
  if (taken_by < kLanes) {
    arena.lane(taken_by).held_pages.fetch_add(pages.v);
    arena.lane(taken_by).release(old.v);
  }
  return true;
}

}  // namespace ashlar::shm
