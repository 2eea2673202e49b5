// SPDX-License-Identifier: MIT
#include "lanes.h"

#include <cerrno>

#include "recovery.h"
#include "views.h"

namespace ashlar::shm {

namespace {

// Without a look at the block word: entries with our tag are ours to make.
SlabRef own_slab(const View& view, std::uint32_t unit, ClassIndex c) {
  const ashlar_shm& arena = *view.arena;
  const std::uint32_t units = size_class(c).slab_bytes / kUnitBytes;
  const bool own = unit < arena.pages.chunks() * kUnitsPerChunk && unit % units == 0 &&
                   arena.entry(UnitIndex{unit}).load() == UnitEntry(view.tag, c).word();
  return own ? SlabRef(arena, UnitIndex{unit}, c) : SlabRef::none();
}

// --- lists --------------------------------------------------------------------------------------

void make_lists(View& view);

void link(View& view, const SlabRef& slab, std::uint8_t list) {
  const ClassIndex c = slab.size_class_index();
  SlabDescriptor& d = slab.descriptor();
  std::uint32_t& head = view.head[c.v][list];
  d.list = list;
  d.prev = kNone;
  d.next = head;
  if (head != kNone) {
    if (const SlabRef next = own_slab(view, head, c); next.exists()) {
      next.descriptor().prev = slab.first().v;
    }
  }
  head = slab.first().v;
  view.nonempty[c.v] |= static_cast<std::uint8_t>(1u << list);
}

// False: the links are not what we made them.
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
  if (prev == kNone && head != slab.first().v) return false;
  if (prev == kNone) {
    head = next;
    if (next == kNone) view.nonempty[c.v] &= static_cast<std::uint8_t>(~(1u << list));
  } else {
    before.descriptor().next = next;
  }
  if (next != kNone) after.descriptor().prev = prev;
  d.list = LaneSlabs::kNoList;
  return true;
}

Lane& lane_of(const View& view) { return view.arena->lane(view.lane); }

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

// Puts a slab that is in no list where its fullness demands. One that is all free goes back to
// the buddy, unless it is the only one.
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
  link(view, slab, static_cast<std::uint8_t>(fullness(slab.info(), slab.info().capacity - free)));
}

// Takes the slab out of its list and files it anew.
void refile(View& view, const SlabRef& slab) {
  if (unlink(view, slab)) {
    file(view, slab);
  } else {
    make_lists(view);
  }
}

template <class Visit>
void for_each_own_slab(const View& view, Visit&& visit) {
  const std::uint32_t units = view.arena->pages.chunks() * kUnitsPerChunk;
  for (std::uint32_t u = 0; u < units; u++) {
    if (UnitEntry{view.arena->entry(UnitIndex{u}).load()}.tag() != view.tag) continue;
    const SlabRef slab = SlabRef::find(*view.arena, UnitIndex{u});
    if (!slab.exists()) continue;
    u = slab.first().v + slab.units() - 1;
    visit(slab);
  }
}

void make_lists(View& view) {
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    for (std::uint32_t& head : view.head[c]) head = kNone;
    view.nonempty[c] = 0;
    view.spare[c] = kNone;
  }
  for_each_own_slab(view, [](const SlabRef& slab) { slab.descriptor().list = LaneSlabs::kNoList; });
  for_each_own_slab(view, [&](const SlabRef& slab) {
    slab.drain();
    if (view.cursor[slab.size_class_index().v].slab != slab.base()) file(view, slab);
  });
}

// --- finding room -------------------------------------------------------------------------------

UnitIndex unit_at(const View& view, const std::byte* slab) {
  return {static_cast<std::uint32_t>(view.arena->data_offset(slab) / kUnitBytes)};
}

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

// Takes over what others freed in this lane's slabs.
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

// Slabs of lanes that nobody leases become this lane's.
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

bool within_quota(const ashlar_shm& arena, PageCount pages) {
  const std::uint64_t quota = arena.state().quota.load();
  if (quota == 0) return true;
  std::uint64_t held = pages.v;
  for (std::uint32_t l = 0; l < arena.lanes_end(); l++) {
    const LaneState state = arena.lane(l).state.load();
    if (state.kind == LaneState::kVacant || state.process != arena.processes.place()) continue;
    held += arena.lane(l).held_pages.load();
  }
  return held <= quota / kPageBytes;
}

// Pages for a block; the chunks they lie in stay held until commit(). kNone and errno: no room.
PageIndex claim_pages(View& view, PageCount pages, PageCount alignment) {
  ashlar_shm& arena = *view.arena;
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

// The cursor has a slot to take. False and errno: there is none.
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

void refuse(ashlar_shm& arena) {
  if (!arena.segment.read_only()) arena.state().bad_frees.fetch_add(1);
  errno = EINVAL;
}

}  // namespace

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

// --- slots --------------------------------------------------------------------------------------

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
    if (slot == slab.info().capacity) return refuse(arena);
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

// --- blocks of pages ----------------------------------------------------------------------------

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
  if (first.v == kNone) return nullptr;
  arena.pages.commit(view->lane, first, pages, BlockKind::large);
  lane_of(*view).held_pages.fetch_add(pages.v);
  return arena.data + Bytes{first.v} * kPageBytes;
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
    p = take(arena, c);
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

Bytes bytes_at(ashlar_shm& arena, const void* p) {
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) arena.pages.refresh();
  if (!arena.contains(offset)) return 0;
  const SlabRef slab =
      SlabRef::find(arena, UnitIndex{static_cast<std::uint32_t>(offset / kUnitBytes)});
  if (slab.exists()) {
    const std::uint32_t slot = slab.slot_at(offset);
    return slot < slab.info().capacity && !slab.is_free(slot) ? slab.info().slot_bytes : 0;
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
