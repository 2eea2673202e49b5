// SPDX-License-Identifier: MIT
// L4 · lanes: one thread's part of a shared arena, and the two paths that programs live on.
//
// What:    a thread that takes memory leases a lane. It takes from slabs of its lane alone, and
//          gives to them by plain stores; to the slabs of others by one atomic OR.
// How:     no magazines. For each class the lane has a cursor at one word of one slab. A page's
//          worth of its free slots, or sixteen, move to the cursor at once, and a slot is taken by
//          clearing its bit there; it is given by setting its bit in the slab. So taking and giving
//          touch different words, as with the two stacks of a magazine.
//
//            cursor  avail 0010 1000    malloc takes from here; published in the segment, so
//            slab    word  0000 0101    free gives to here        that a recoverer sees it
//
//          Once used up, the same slots are taken again if a quarter has come back: they are in the
//          processor's cache. Signposts lead from an address to the cursor that is there. A slab
//          with room that is not at a cursor is in a list by eighths of fullness.
// Death:   each take and give is one store. A thread that dies has at most one slot that is neither
//          free nor in the program's hands: the one that it took last. A recoverer puts back what
//          its cursors hold; list heads are private, and the next lease makes them anew.
// Fork:    views are memory that reads as zero in a child: it has no lane, and leases one.
// Threads: the calling one. Not for signal handlers.
// Trust:   malloc's hit path reads nothing shared, free's only the bits that it changes. Links
//          between slabs are followed only to slabs of this lane and class; else the lists are made
//          anew.
#pragma once

#include <array>

#include "slabs.h"

namespace ashlar::shm {

// This process's side of a cursor. All zero, it has no slot and matches no pointer.
struct alignas(2 * kCacheLineBytes) Cursor {
  std::uint64_t avail = 0;                          // slots to take
  std::atomic<std::uint64_t>* published = nullptr;  // the same in LaneCursors
  std::byte* base = nullptr;                        // where the slot of bit 0 lies
  BitmapWord* word = nullptr;                       // where slots behind `base` are given back
  Bytes span = 0;                                   // of these slots; 0: there are none
  std::uint64_t magic = 0;                          // const; see short_magic()
  std::uint32_t slot_bytes = 0;                     // const
  std::uint32_t word_index = 0;                     // of the cursor's word in the slab
  std::byte* slab = nullptr;                        // the cursor's slab; null: none
  std::uint32_t slab_span = 0;                      // of all its slots; 0: it has none
  std::uint32_t slab_mask = 0;                      // const, like the next five; slab_bytes - 1
  std::uint32_t bitmaps = 0;                        // offset in SharedChunk
  std::uint32_t bitmap_shift = 0;                   // a unit's bitmap has 1 << that many bytes
  std::uint32_t group_slots = 0;                    // how many slots are taken at once
  std::uint32_t last_word = 0;                      // of a slab
  std::uint64_t no_slots = 0;  // the bits of its last word that stand for no slots
  std::uint64_t group = 0;     // the bits of the cursor's word that it took last
};

// Where in a view the cursor of a class is, in bytes.
enum class CursorPlace : std::uint32_t {};
constexpr CursorPlace place_of(ClassIndex c) {
  return CursorPlace{c.v * static_cast<std::uint32_t>(sizeof(Cursor))};
}
constexpr ClassIndex class_at(CursorPlace place) {
  return {static_cast<std::uint32_t>(place) / static_cast<std::uint32_t>(sizeof(Cursor))};
}

// By sixteenths of a request. A table of its own saves a step.
struct alignas(kPageBytes) CursorPlaces {
  std::byte unused[offset_for_reading(0)];
  std::array<std::uint16_t, kClassOfSize.size()> of_size;
};
consteval CursorPlaces make_cursor_places() {
  CursorPlaces places{};
  for (std::size_t i = 0; i < kClassOfSize.size(); i++) {
    places.of_size[i] = static_cast<std::uint16_t>(place_of({kClassOfSize[i]}));
  }
  return places;
}
inline constexpr CursorPlaces kCursorPlaces = make_cursor_places();
// The cursor for a request of at most kMaxSlotBytes.
inline CursorPlace place_for(Bytes bytes) {
  return CursorPlace{kCursorPlaces.of_size[(bytes + 15) / 16]};
}

struct View {
  static constexpr std::uint32_t kEntryClasses = kTagGrain / kMagazineBytes;
  static constexpr std::uint64_t kClassBits = (kEntryClasses - 1) * kMagazineBytes;

  // The cursor that was last set to a slab with that unit; a hint. One for all units whose numbers
  // differ by a multiple of kSignposts. All zero, it leads to the first cursor.
  struct alignas(16) Signpost {
    std::byte unused[8];
    CursorPlace cursor;
  };
  static constexpr std::uint32_t kSignposts = 256;

  Cursor cursor[kEntryClasses];  // those above kClassCount take and match nothing
  Signpost signpost[kSignposts];
  std::uint64_t tag = 0;  // 0: the thread has no lane
  ashlar_shm* arena = nullptr;
  std::uint32_t lane = 0;
  bool has_grown = false;   // took pages, and has not looked at memory since; see shortage.h
  bool is_telling = false;  // the program's function runs, on top of this thread
  // First and last slab of each list, or kNone: who came first is used first, and has most room.
  std::uint32_t head[kClassCount][LaneSlabs::kLists];
  std::uint32_t tail[kClassCount][LaneSlabs::kLists];
  std::uint8_t nonempty[kClassCount];  // bit l: list l has a slab
  std::uint32_t spare[kClassCount];    // the one all-free slab that is kept

  Cursor& cursor_at(CursorPlace place) {
    return *reinterpret_cast<Cursor*>(reinterpret_cast<std::byte*>(cursor) +
                                      static_cast<std::uint32_t>(place));
  }
  // The cursor of that entry's class, whosoever the unit is.
  Cursor& cursor_of(std::uint64_t entry) {
    static_assert(sizeof(Cursor) == 2 * kMagazineBytes);
    return cursor_at(CursorPlace{static_cast<std::uint32_t>(2 * (entry & kClassBits))});
  }
  // Of the unit in which the address lies.
  Signpost& signpost_at(const void* p) {
    return signpost[reinterpret_cast<std::uintptr_t>(p) / kUnitBytes % kSignposts];
  }
};

inline constexpr std::uint32_t kHandles = 512;

// What a thread without a lane sees; all zero, never written.
extern View no_view;

// The handle that this thread used last, if it has a lane there. The next call is likely for it.
struct LastUsed {
  std::uint64_t id = 0;  // the handle's; 0: none
  View* view = nullptr;
};
extern constinit thread_local LastUsed t_last __attribute__((tls_model("initial-exec")));

inline bool is_last_used(const ashlar_shm& arena) { return t_last.id == arena.id; }

// This thread's view, which it has used last from now on; no_view: it has no lane.
View& find_view(const ashlar_shm& arena);
inline View& view_of(const ashlar_shm& arena) {
  return is_last_used(arena) ? *t_last.view : find_view(arena);
}

[[gnu::noinline]] void* take_slow(ashlar_shm& arena, CursorPlace place);
[[gnu::noinline]] void give_slow(ashlar_shm& arena, void* p);
// The thread used another handle last.
[[gnu::noinline]] void give_after_switch(ashlar_shm& arena, void* p);
// p does not lie in the word of the cursor that its signpost leads to.
[[gnu::noinline]] void give_elsewhere(ashlar_shm& arena, View& view, void* p);

// A slot, for a request of at most kMaxSlotBytes. Null and errno: no memory.
inline void* take(ashlar_shm& arena, CursorPlace place) {
  if (!is_last_used(arena)) [[unlikely]]
    return take_slow(arena, place);
  Cursor& k = t_last.view->cursor_at(place);
  const std::uint64_t avail = k.avail;
  if (avail == 0) [[unlikely]]
    return take_slow(arena, place);
  k.avail = avail & (avail - 1);
  k.published->store(avail & (avail - 1), std::memory_order_relaxed);  // the slot is taken
  return k.base + lowest_bit(avail) * k.slot_bytes;  // 32 bits are enough for that product
}

// The product of an offset and a short_magic(): of a slot's first byte, its upper half is the
// slot's number, and this holds.
inline bool is_start(std::uint64_t product, const Cursor& k) {
  return static_cast<std::uint32_t>(product) < static_cast<std::uint32_t>(k.magic);
}

inline void give(ashlar_shm& arena, void* p) {
  if (!is_last_used(arena)) [[unlikely]]
    return give_after_switch(arena, p);
  View& view = *t_last.view;
  Cursor& k = view.cursor_at(view.signpost_at(p).cursor);
  // In the cursor's word, so it is this thread's.
  const auto in_word = static_cast<Bytes>(static_cast<std::byte*>(p) - k.base);
  if (in_word >= k.span) [[unlikely]]
    return give_elsewhere(arena, view, p);
  const std::uint64_t product = in_word * k.magic;
  const std::uint64_t slot = product >> 32;
  const std::uint64_t old = k.word->load(std::memory_order_relaxed);  // only the owner writes it
  if (!is_start(product, k) || ((old | k.avail) >> slot & 1) != 0) [[unlikely]]
    return give_slow(arena, p);
  // relaxed: read by others as a hint only
  k.word->store(old | std::uint64_t{1} << slot, std::memory_order_relaxed);
}

// The cursor has a slot to take. False and errno: there is none.
[[nodiscard]] bool refill(View& view, ClassIndex c);
// The same for what is moved: of a slab that is to stay, and none that is made for it.
[[nodiscard]] bool refill_densely(View& view, ClassIndex c);
// The cursors have no slots and no slabs. Those slabs are in no list.
void rest_cursors(View& view);

// Makes the view of a thread that has just leased its lane.
void init_view(View& view, ashlar_shm& arena, std::uint32_t lane);
// The thread ends: what its cursors hold goes back, and so do slabs that are all free.
void empty_view(View& view);

// --- in blocks.cpp ------------------------------------------------------------------------------

// Of whole pages. Null and errno. `alignment` is a power of two of at most a chunk.
void* take_large(ashlar_shm& arena, Bytes bytes, Bytes alignment);
// Takes a block and stores its offset into `slot` so that a death on the way leaks nothing.
// publish() does the storing; if it returns false, it has not, and the block is given back.
Offset take_into(ashlar_shm& arena, Bytes bytes, std::atomic<Offset>& slot,
                 bool (*publish)(std::atomic<Offset>& slot, Offset block, void* context),
                 void* context);
// Changes a slot that somebody may be publishing into. If that one died before it could say that it
// had, a recoverer takes a block that is not in its slot for one that never was; so it is said
// here. replace(): only if it is `expected`; otherwise that is what it is.
Offset exchange(ashlar_shm& arena, std::atomic<Offset>& slot, Offset desired);
[[nodiscard]] bool replace(ashlar_shm& arena, std::atomic<Offset>& slot, Offset& expected,
                           Offset desired);
// The bytes of the slot or block that starts at p; 0: none does.
Bytes bytes_at(ashlar_shm& arena, const void* p);
// Changes the length of a large block where it is.
bool resize_large(ashlar_shm& arena, void* p, Bytes bytes);

}  // namespace ashlar::shm
