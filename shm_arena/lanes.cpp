// SPDX-License-Identifier: MIT
#include "lanes.h"

#include <cerrno>

#include "lane_lists.h"
#include "lane_room.h"
#include "views.h"

namespace ashlar::shm {

namespace {

LaneCursors::Shared& shared_cursor(const View& view, ClassIndex c) {
  return view.arena->cursors(view.lane).of_class[c.v];
}

void set_cursor(View& view, const SlabRef& slab) {
  const std::uint32_t c = slab.size_class_index().v;
  Cursor& k = view.cursor[c];
  k.slab = slab.base();
  k.bitmap = &slab.word(0);
  k.word_index = slab.info().words - 1;  // so that the first comes next
  if (view.spare[c] == slab.first().v) view.spare[c] = kNone;
}

// The cursor has used up its word, and goes on to the next one of its slab that has free slots.
// They are in both places for a moment: whoever is killed then leaves nothing that a recoverer
// cannot put together by an OR.
bool advance(View& view, ClassIndex c) {
  Cursor& k = view.cursor[c.v];
  if (k.slab == nullptr) return false;
  const SlabRef slab(*view.arena, unit_at(view, k.slab), c);
  const std::uint32_t words = slab.info().words;
  std::uint32_t w = k.word_index;
  for (std::uint32_t i = 0; i < words; i++) {
    w = w + 1 < words ? w + 1 : 0;
    const std::uint64_t slots = slab.slots_of_word(w);
    const std::uint64_t word = slab.word(w).load();
    if ((word & slots) == 0) continue;
    LaneCursors::Shared& shared = shared_cursor(view, c);
    // release: for recover_dead, which finds them in this order or not at all
    shared.unit.store(slab.first().v, std::memory_order_release);
    shared.word.store(w, std::memory_order_release);
    shared.avail.store(word & slots, std::memory_order_release);
    slab.word(w).store(word & ~slots, std::memory_order_release);
    k.avail = word & slots;
    k.base = slab.base() + Bytes{w} * 64 * slab.info().slot_bytes;
    k.word_index = w;
    return true;
  }
  k.slab = nullptr;  // full; it is filed when a slot of it is given
  return false;
}

// The fullest slab that has room goes to the cursor.
bool pick(View& view, ClassIndex c) {
  while (view.nonempty[c.v] != 0) {
    const auto fullest = static_cast<std::uint32_t>(std::bit_width(view.nonempty[c.v]) - 1);
    const SlabRef slab = own_slab(view, view.head[c.v][fullest], c);
    if (!slab.exists() || !unlink(view, slab)) {
      make_lists(view);
      return false;
    }
    set_cursor(view, slab);
    return true;
  }
  return false;
}

bool make_slab(View& view, ClassIndex c) {
  ashlar_shm& arena = *view.arena;
  const PageCount pages = pages_for(size_class(c).slab_bytes);
  const PageIndex first = claim_pages(view, pages, pages);
  if (first.v == kNone) return false;
  const SlabRef slab(arena, unit_of(first), c);
  slab.enter(view.tag);
  arena.pages.commit(view.lane, first, pages, BlockKind::slab);
  lane_of(view).held_pages.fetch_add(pages.v);
  set_cursor(view, slab);
  return true;
}

void refuse(ashlar_shm& arena) {
  if (!arena.segment.read_only()) arena.state().bad_frees.fetch_add(1);
  errno = EINVAL;
}

}  // namespace

bool refill(View& view, ClassIndex c) {
  if (view.cursor[c.v].avail != 0) return true;
  constexpr int kAttempts = 1000;  // only a peer that meddles with our bits needs more than three
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    if (lane_of(view).news.load() != 0) drain_news(view);
    if (advance(view, c)) return true;
    if (pick(view, c)) continue;
    if (!make_slab(view, c)) return pick(view, c) && advance(view, c);
  }
  errno = ENOMEM;
  return false;
}

void init_view(View& view, ashlar_shm& arena, std::uint32_t lane) {
  view.arena = &arena;
  view.lane = lane;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const SizeClass& info = kSizeClasses[c];
    Cursor& k = view.cursor[c];
    k = Cursor{};
    k.published = &arena.cursors(lane).of_class[c].avail;
    k.magic = info.magic;
    k.slot_bytes = info.slot_bytes;
    k.slab_mask = info.slab_bytes - 1;
    k.last_word = info.words - 1;
    k.no_slots = ~bit_range(0, info.capacity - k.last_word * 64);
    k.bitmaps = static_cast<std::uint32_t>(bitmaps_of(info));
    k.bitmap_shift = static_cast<std::uint32_t>(std::countr_zero(bitmap_bytes(info)));
  }
  view.tag = tag_of_lane(lane);
  make_lists(view);
}

void empty_view(View& view) {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    Cursor& k = view.cursor[c];
    if (k.slab == nullptr) continue;
    const SlabRef slab = own_slab(view, unit_at(view, k.slab).v, ClassIndex{c});
    if (slab.exists()) slab.give_bits(k.word_index, k.avail);
    k.published->store(0);
    k.avail = 0;
    k.slab = nullptr;
  }
  drain_news(view);
  for_each_own_slab(view, [&](const SlabRef& slab) {
    if (slab.free_slots() == slab.info().capacity) retire(view, slab);
  });
}

void* take_slow(ashlar_shm& arena, ClassIndex c) {
  View* const view = view_for_thread(arena);
  if (view == nullptr || !refill(*view, c)) return nullptr;
  return take(arena, c);
}

void give_slow(ashlar_shm& arena, void* p) {
  if (p == nullptr) return;
  if (arena.segment.read_only()) return refuse(arena);
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) arena.pages.refresh();
  if (!arena.contains(offset)) return refuse(arena);
  View& view = *t_views[arena.number];
  const SlabRef slab =
      SlabRef::find(arena, UnitIndex{static_cast<std::uint32_t>(offset / kUnitBytes)});
  if (slab.exists()) {
    const std::uint32_t slot = slab.slot_at(offset);
    if (slot == slab.info().capacity || slab.is_for_handles()) return refuse(arena);
    if (view.tag == 0 || slab.tag() != view.tag) {
      if (!slab.free_remotely(slot)) refuse(arena);
      return;
    }
    Cursor& k = view.cursor[slab.size_class_index().v];
    const bool at_cursor =
        k.slab == slab.base() && slot / 64 == k.word_index && (k.avail >> slot % 64 & 1) != 0;
    if (at_cursor || slab.is_free(slot)) return refuse(arena);
    slab.give(slot);
    return after_give_slow(arena, p);
  }
  const PageIndex first{static_cast<std::uint32_t>(offset / kPageBytes)};
  if (offset % kPageBytes != 0) return refuse(arena);
  const PageCount pages = arena.pages.pages_of(first, BlockKind::large);
  const std::uint32_t taken_by = arena.pages.taken_by(first).load() - 1u;
  const View* const own = pages.v == 0 ? nullptr : view_for_thread(arena);
  if (own == nullptr || !arena.pages.give_large(own->lane, first)) return refuse(arena);
  if (taken_by < kLanes) arena.lane(taken_by).release(pages.v);
}

void after_give_slow(ashlar_shm& arena, void* p) {
  View& view = *t_views[arena.number];
  const Bytes offset = arena.data_offset(p);
  const UnitEntry entry{arena.entry_at(offset).load()};
  const ClassIndex c = entry.size_class();
  if (entry.tag() != view.tag || c.v >= kClassCount) return;
  const Bytes first = align_down(offset, size_class(c).slab_bytes) / kUnitBytes;
  const SlabRef slab = own_slab(view, static_cast<std::uint32_t>(first), c);
  if (slab.exists() && view.cursor[c.v].slab != slab.base()) refile(view, slab);
}

}  // namespace ashlar::shm
