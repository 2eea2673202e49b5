// SPDX-License-Identifier: MIT
#include "lanes.h"

#include <cerrno>

#include "lane_lists.h"
#include "lane_room.h"
#include "shortage.h"
#include "views.h"

namespace ashlar::shm {

namespace {

LaneCursors::Shared& shared_cursor(const View& view, ClassIndex c) {
  return view.arena->cursors(view.lane).of_class[c.v];
}

// A page's worth of slots, or sixteen: what a thread goes round in if it holds few objects.
constexpr std::uint32_t group_slots_of(const SizeClass& info) {
  const auto in_page = static_cast<std::uint32_t>(kPageBytes / info.slot_bytes);
  return in_page >= 64 ? 64 : in_page >= 32 ? 32 : 16;
}

std::uint64_t group_around(std::uint32_t slot, std::uint32_t group_slots) {
  return bit_range(0, group_slots) << align_down(slot, group_slots);
}

void set_cursor(View& view, const SlabRef& slab) {
  const std::uint32_t c = slab.size_class_index().v;
  Cursor& k = view.cursor[c];
  k.slab = slab.base();
  k.slab_span = slab.info().capacity * k.slot_bytes;
  k.word_index = slab.info().words - 1;  // so that the first comes next
  k.word = &slab.word(k.word_index);
  k.group = 0;
  for (std::uint32_t u = 0; u < slab.units(); u++) {
    view.signpost_at(k.slab + Bytes{u} * kUnitBytes).cursor = place_of({c});
  }
  if (view.spare[c] == slab.first().v) view.spare[c] = kNone;
}

void leave_slab(Cursor& k) {
  k.slab = nullptr;
  k.slab_span = 0;
  k.span = 0;
}

// Slots go from word w of the slab to the cursor, which has none. They are in both places for a
// moment: whoever is killed then leaves nothing that a recoverer cannot put together by an OR.
void move_slots(View& view, const SlabRef& slab, std::uint32_t w, std::uint64_t slots) {
  const ClassIndex c = slab.size_class_index();
  LaneCursors::Shared& shared = shared_cursor(view, c);
  // release: for recover_dead, which finds them in this order or not at all
  shared.unit.store(slab.first().v, std::memory_order_release);
  shared.word.store(w, std::memory_order_release);
  shared.avail.store(slots, std::memory_order_release);
  slab.word(w).store(slab.word(w).load() & ~slots, std::memory_order_release);
  Cursor& k = view.cursor[c.v];
  k.avail = slots;
  k.base = slab.base() + Bytes{w} * 64 * k.slot_bytes;
  k.span = Bytes{w == k.last_word ? slab.info().capacity - w * 64 : 64} * k.slot_bytes;
  k.word = &slab.word(w);
  k.word_index = w;
}

// The cursor has used up its slots, and takes them again if a quarter has come back.
bool take_again(Cursor& k) {
  const std::uint64_t word = k.word->load();
  const std::uint64_t back = word & k.group;
  if (static_cast<std::uint32_t>(std::popcount(back)) < k.group_slots / 4) return false;
  // As in move_slots(); unit and word are the same.
  k.published->store(back, std::memory_order_release);
  k.word->store(word & ~back, std::memory_order_release);
  k.avail = back;
  return true;
}

// Else it goes on to the next ones of its slab.
bool advance(View& view, ClassIndex c) {
  Cursor& k = view.cursor[c.v];
  if (k.slab == nullptr) return false;
  if (take_again(k)) return true;
  const SlabRef slab(*view.arena, unit_at(view, k.slab), c);
  const auto free = [&slab](std::uint32_t w) {
    return slab.word(w).load() & slab.slots_of_word(w);
  };
  std::uint32_t w = k.word_index;
  const std::uint32_t words = slab.info().words;
  std::uint64_t behind = ~(k.group | (k.group - 1));  // of no group yet: none of that word
  for (std::uint32_t i = 0; i <= words; i++) {
    if (const std::uint64_t found = free(w) & behind; found != 0) {
      k.group = group_around(lowest_bit(found), k.group_slots) & slab.slots_of_word(w);
      move_slots(view, slab, w, found & k.group);
      return true;
    }
    w = w + 1 < words ? w + 1 : 0;
    behind = ~std::uint64_t{0};
  }
  leave_slab(k);  // it is full, and filed when a slot of it is given
  return false;
}

// The fullest slab that has room goes to the cursor. Since it was filed, more of it may have been
// given; if that is more than an eighth, it is filed anew. After some looks, any slab will do; but
// if `only_to_stay`, none that is to be emptied.
bool pick(View& view, ClassIndex c, bool only_to_stay) {
  constexpr int kLooks = 8;
  Plan& plan = view.arena->plan;
  for (int look = 0; view.nonempty[c.v] != 0; look++) {
    const auto fullest = static_cast<std::uint32_t>(std::bit_width(view.nonempty[c.v]) - 1);
    const SlabRef slab = own_slab(view, view.head[c.v][fullest], c);
    if (!slab.exists() || !unlink(view, slab)) {
      make_lists(view);
      return false;
    }
    const bool is_victim = plan[slab.first()] != 0;
    const std::uint32_t used = slab.info().capacity - slab.free_slots();
    const bool is_sparse = fullest != 0 && used < least_used(slab.info(), fullest - 1);
    const bool may_look_on = look < kLooks && (is_sparse || is_victim);
    if (may_look_on || (is_victim && only_to_stay)) {
      file(view, slab);
      if (look >= kLooks && fullest == 0) return false;
      continue;
    }
    if (is_victim) plan.keep(slab.first(), slab.units());
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
  arena.plan.keep(slab.first(), slab.units());
  arena.pages.commit(view.lane, first, pages, BlockKind::slab);
  lane_of(view).held_pages.fetch_add(pages.v);
  set_cursor(view, slab);
  return true;
}

// What the cursor holds goes back to its slab, which is in no list then. Returns that slab.
SlabRef rest_cursor(View& view, ClassIndex c) {
  Cursor& k = view.cursor[c.v];
  if (k.slab == nullptr) return SlabRef::none();
  const SlabRef slab = own_slab(view, unit_at(view, k.slab).v, c);
  if (slab.exists()) slab.give_bits(k.word_index, k.avail);
  k.published->store(0);
  k.avail = 0;
  leave_slab(k);
  return slab;
}

BitmapWord* bitmap_at(const ashlar_shm& arena, const Cursor& k, UnitIndex first) {
  SharedChunk& chunk = arena.pages.meta(chunk_of(first));
  return reinterpret_cast<BitmapWord*>(reinterpret_cast<std::byte*>(&chunk) + k.bitmaps +
                                       (Bytes{first.v % kUnitsPerChunk} << k.bitmap_shift));
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
    if (pick(view, c, false)) continue;
    if (!make_slab(view, c)) return pick(view, c, false) && advance(view, c);
  }
  errno = ENOMEM;
  return false;
}

bool refill_densely(View& view, ClassIndex c) {
  const Cursor& k = view.cursor[c.v];
  if (k.slab != nullptr && view.arena->plan[unit_at(view, k.slab)] != 0) {
    const SlabRef slab = rest_cursor(view, c);
    if (slab.exists()) file(view, slab);
  }
  if (k.avail != 0) return true;
  if (lane_of(view).news.load() != 0) drain_news(view);
  return advance(view, c) || (pick(view, c, true) && advance(view, c));
}

void rest_cursors(View& view) {
  for (std::uint32_t c = 0; c < kClassCount; c++) rest_cursor(view, ClassIndex{c});
}

void init_view(View& view, ashlar_shm& arena, std::uint32_t lane) {
  view.arena = &arena;
  view.lane = lane;
  for (std::uint32_t c = 0; c < kClassCount; c++) {
    const SizeClass& info = kSizeClasses[c];
    Cursor& k = view.cursor[c];
    k = Cursor{};
    k.published = &arena.cursors(lane).of_class[c].avail;
    k.slot_bytes = info.slot_bytes;
    k.magic = short_magic(info);
    k.group_slots = group_slots_of(info);
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
  rest_cursors(view);
  drain_news(view);
  for_each_own_slab(view, [&](const SlabRef& slab) {
    if (slab.free_slots() == slab.info().capacity) retire(view, slab);
  });
}

void* take_slow(ashlar_shm& arena, CursorPlace place) {
  View* const view = view_for_thread(arena);
  if (view == nullptr) return nullptr;
  void* const p = refill(*view, class_at(place)) ? take(arena, place) : nullptr;
  look_if_grown(*view, p == nullptr);
  return p;
}

void give_after_switch(ashlar_shm& arena, void* p) {
  if (&find_view(arena) == &no_view) return give_slow(arena, p);
  give(arena, p);
}

void give_slow(ashlar_shm& arena, void* p) {
  if (p == nullptr) return;
  if (arena.segment.read_only()) return refuse(arena);
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) arena.pages.refresh();
  if (!arena.contains(offset)) return refuse(arena);
  View& view = view_of(arena);
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
    if (k.slab != slab.base()) refile(view, slab);
    return;
  }
  const PageIndex first{static_cast<std::uint32_t>(offset / kPageBytes)};
  if (offset % kPageBytes != 0) return refuse(arena);
  const PageCount pages = arena.pages.pages_of(first, BlockKind::large);
  const std::uint32_t taken_by = arena.pages.taken_by(first).load() - 1u;
  const View* const own = pages.v == 0 ? nullptr : view_for_thread(arena);
  if (own == nullptr || !arena.pages.give_large(own->lane, first)) return refuse(arena);
  if (taken_by < kLanes) arena.lane(taken_by).release(pages.v);
}

namespace {

// A slot of a slab that is not at the cursor was given: the slab had none in that word, or, if
// `may_be_empty`, the word has nothing but room now.
[[gnu::noinline]] void after_give_slow(View& view, UnitIndex first, ClassIndex c,
                                       bool may_be_empty) {
  const SlabRef slab = own_slab(view, first.v, c);
  if (!slab.exists()) return;
  // One that is filed stays where it is, until it is picked: see pick().
  if (may_be_empty || slab.descriptor().list == LaneSlabs::kNoList) refile(view, slab);
}

// p does not lie in the slab of that cursor either.
[[gnu::noinline]] void give_to_filed(ashlar_shm& arena, View& view, void* p) {
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) [[unlikely]]
    return give_slow(arena, p);
  // relaxed: who gives the slot got it from who took it, and that hand-over orders the entry
  const std::uint64_t entry = arena.entry_at(offset).load(std::memory_order_relaxed);
  const Cursor& k = view.cursor_of(entry);
  const std::uint64_t in_slab = offset & k.slab_mask;
  const std::uint64_t product = in_slab * k.magic;
  const std::uint64_t not_mine = (entry ^ view.tag) & ~View::kClassBits;
  const bool at_cursor = static_cast<std::byte*>(p) - in_slab == k.slab;  // of another signpost
  if (not_mine != 0 || at_cursor || !is_start(product, k)) [[unlikely]]
    return give_slow(arena, p);
  const std::uint64_t slot = product >> 32;
  const std::uint64_t bit = std::uint64_t{1} << slot % 64;
  const UnitIndex first{static_cast<std::uint32_t>((offset - in_slab) / kUnitBytes)};
  BitmapWord& word = bitmap_at(arena, k, first)[slot / 64];
  const std::uint64_t old = word.load(std::memory_order_relaxed);  // only the owner writes it
  if ((old & bit) != 0) [[unlikely]]
    return give_slow(arena, p);
  word.store(old | bit, std::memory_order_relaxed);  // read by others as a hint only
  // Bits behind the last slot are always set.
  const std::uint64_t none_free = slot / 64 == k.last_word ? k.no_slots : 0;
  const bool may_be_empty = (old | bit) == ~std::uint64_t{0};
  if (old == none_free || may_be_empty) [[unlikely]]
    after_give_slow(view, first, UnitEntry{entry}.size_class(), may_be_empty);
}

}  // namespace

void give_elsewhere(ashlar_shm& arena, View& view, void* p) {
  const Cursor& k = view.cursor_at(view.signpost_at(p).cursor);
  const auto in_slab = static_cast<Bytes>(static_cast<std::byte*>(p) - k.slab);
  if (in_slab >= k.slab_span) return give_to_filed(arena, view, p);
  const std::uint64_t product = in_slab * k.magic;
  const std::uint64_t slot = product >> 32;
  BitmapWord& word = (k.word - k.word_index)[slot / 64];
  const std::uint64_t old = word.load(std::memory_order_relaxed);  // only the owner writes it
  if (!is_start(product, k) || (old >> slot % 64 & 1) != 0) [[unlikely]]
    return give_slow(arena, p);
  // relaxed: read by others as a hint only
  word.store(old | std::uint64_t{1} << slot % 64, std::memory_order_relaxed);
}

}  // namespace ashlar::shm
