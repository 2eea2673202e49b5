// SPDX-License-Identifier: MIT
#include "lane_lists.h"

namespace ashlar::shm {

SlabRef own_slab(const View& view, std::uint32_t unit, ClassIndex c) {
  const ashlar_shm& arena = *view.arena;
  const std::uint32_t units = size_class(c).slab_bytes / kUnitBytes;
  const bool own = unit < arena.pages.chunks() * kUnitsPerChunk && unit % units == 0 &&
                   arena.entry(UnitIndex{unit}).load() == UnitEntry(view.tag, c).word();
  return own ? SlabRef(arena, UnitIndex{unit}, c) : SlabRef::none();
}

namespace {

void link(View& view, const SlabRef& slab, std::uint8_t list) {
  const ClassIndex c = slab.size_class_index();
  SlabDescriptor& d = slab.descriptor();
  std::uint32_t& tail = view.tail[c.v][list];
  d.list = list;
  d.next = kNone;
  d.prev = tail;
  if (tail == kNone) {
    view.head[c.v][list] = slab.first().v;
  } else if (const SlabRef prev = own_slab(view, tail, c); prev.exists()) {
    prev.descriptor().next = slab.first().v;
  }
  tail = slab.first().v;
  view.nonempty[c.v] |= static_cast<std::uint8_t>(1u << list);
}

}  // namespace

bool unlink(View& view, const SlabRef& slab) {
  const ClassIndex c = slab.size_class_index();
  SlabDescriptor& d = slab.descriptor();
  const std::uint8_t list = d.list;
  const std::uint32_t next = d.next;
  const std::uint32_t prev = d.prev;
  if (list == LaneSlabs::kNoList) return true;
  if (list > LaneSlabs::kNoList) return false;
  const SlabRef after = own_slab(view, next, c);
  const SlabRef before = own_slab(view, prev, c);
  if ((next != kNone && !after.exists()) || (prev != kNone && !before.exists())) return false;
  std::uint32_t& head = view.head[c.v][list];
  std::uint32_t& tail = view.tail[c.v][list];
  const std::uint32_t own = slab.first().v;
  if ((prev == kNone && head != own) || (next == kNone && tail != own)) return false;
  if (prev == kNone) head = next;
  if (next == kNone) tail = prev;
  if (prev != kNone) before.descriptor().next = next;
  if (next != kNone) after.descriptor().prev = prev;
  if (head == kNone) view.nonempty[c.v] &= static_cast<std::uint8_t>(~(1u << list));
  d.list = LaneSlabs::kNoList;
  return true;
}

void retire(View& view, const SlabRef& slab) {
  Pages& pages = view.arena->pages;
  const PageIndex first = first_page(slab.first());
  if (!pages.begin_give(view.lane, first, slab.pages())) {
    link(view, slab, 0);  // its chunk is held; the next time it is empty
    return;
  }
  slab.leave();
  pages.end_give(view.lane, first, slab.pages());
  lane_of(view).release(slab.pages().v);
}

void file(View& view, const SlabRef& slab) {
  const std::uint32_t free = slab.free_slots();
  const std::uint32_t c = slab.size_class_index().v;
  std::uint32_t& spare = view.spare[c];
  if (free == slab.info().capacity) {
    if (spare != kNone && spare != slab.first().v) return retire(view, slab);
    spare = slab.first().v;
  } else if (spare == slab.first().v) {
    spare = kNone;
  }
  if (free == 0) return;
  const bool is_victim = view.arena->plan[slab.first()] != 0;
  const std::uint32_t list = is_victim ? 0 : fullness(slab.info(), slab.info().capacity - free);
  link(view, slab, static_cast<std::uint8_t>(list));
}

void refile(View& view, const SlabRef& slab) {
  if (unlink(view, slab)) {
    file(view, slab);
  } else {
    make_lists(view);
  }
}

void make_lists(View& view) {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    for (std::uint32_t& head : view.head[c]) head = kNone;
    for (std::uint32_t& tail : view.tail[c]) tail = kNone;
    view.nonempty[c] = 0;
    view.spare[c] = kNone;
  }
  for_each_own_slab(view, [](const SlabRef& slab) { slab.descriptor().list = LaneSlabs::kNoList; });
  for_each_own_slab(view, [&](const SlabRef& slab) {
    slab.drain();
    if (view.cursor[slab.size_class_index().v].slab != slab.base()) file(view, slab);
  });
}

}  // namespace ashlar::shm
