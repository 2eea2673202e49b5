// SPDX-License-Identifier: MIT
// L4 · lanes: one thread's part of a shared arena, and the two paths that programs live on.
//
// What:    a thread that takes memory leases a lane. It takes from slabs of its lane alone, and
//          gives to them by plain stores; to the slabs of others by one atomic OR.
// How:     no magazines: a slot is taken by clearing its bit, and given by setting it. What makes
//          that as fast as a magazine is private to the thread: for each class a cursor with a
//          copy of the bits of one word that it may still take.
//
//            cursor (private)  avail 0000 1100    taken from, never looked at by others
//            slab   (shared)   word  0010 1101    the truth; one store per take and per give
//
//          A slab with room that is not at a cursor is in a list by eighths of fullness.
// Death:   a thread that dies has at most one slot that is neither at rest nor in the program's
//          hands: the one whose bit it cleared last. Cursors and list heads are gone with it, and
//          whoever leases the lane next makes them anew from the bits.
// Fork:    views are memory that reads as zero in a child: it has no lane, and leases one.
// Threads: the calling one. Not for signal handlers.
// Trust:   malloc reads nothing shared but the word it clears a bit of. Links between slabs are
//          followed only to slabs of this lane and class; else the lists are made anew.
#pragma once

#include "slabs.h"

namespace ashlar::shm {

struct alignas(kCacheLineBytes) Cursor {
  std::uint64_t avail = 0;  // bits of *word that are free and may be taken
  BitmapWord* word = nullptr;
  std::byte* base = nullptr;  // where the slot of bit 0 lies
  std::uint64_t magic = 0;    // const, like the next four: see slot_index()
  std::uint32_t slot_bytes = 0;
  std::uint32_t slab_mask = 0;
  std::uint32_t bitmaps = 0;       // offset in SharedChunk
  std::uint32_t bitmap_shift = 0;  // a unit's bitmap has 1 << that many bytes
  std::uint32_t unit = kNone;      // of the slab that has `word`
  std::uint32_t next_word = 0;     // of the slab, to look at when `avail` is used up
};

struct View {
  static constexpr std::uint32_t kEntryClasses = kTagGrain / kMagazineBytes;

  std::uint64_t tag = 0;  // 0: the thread has no lane
  ashlar_shm* arena = nullptr;
  std::uint32_t lane = 0;
  Cursor cursor[kEntryClasses];  // those above kClassCount take and match nothing
  std::uint32_t head[kClassCount][LaneSlabs::kLists];  // first slab of each list, or kNone
  std::uint8_t nonempty[kClassCount];                  // bit l: list l has a slab
  std::uint32_t spare[kClassCount];                    // the one all-free slab that is kept
};

inline constexpr std::uint32_t kHandles = 512;

// What a thread without a lane sees; all zero, never written.
extern View no_view;
// This thread's views by handle number; no_view where there is none.
extern constinit thread_local View* const* t_views __attribute__((tls_model("initial-exec")));

[[gnu::noinline]] void* take_slow(ashlar_shm& arena, ClassIndex c);
[[gnu::noinline]] void give_slow(ashlar_shm& arena, void* p);
// A slab that is not at the cursor has room again, or nothing but room.
[[gnu::noinline]] void after_give_slow(View& view, UnitIndex first, ClassIndex c);

// A slot, for a request of at most kMaxSlotBytes. Null and errno: no memory.
inline void* take(ashlar_shm& arena, ClassIndex c) {
  Cursor& k = t_views[arena.number]->cursor[c.v];
  const std::uint64_t avail = k.avail;
  if (avail == 0) [[unlikely]]
    return take_slow(arena, c);
  const std::uint64_t bit = avail & -avail;
  k.avail = avail ^ bit;
  // relaxed: only the owner clears bits. From here on the slot is taken.
  k.word->store(k.word->load(std::memory_order_relaxed) & ~bit, std::memory_order_relaxed);
  return k.base + Bytes{lowest_bit(avail)} * k.slot_bytes;
}

inline void give(ashlar_shm& arena, void* p) {
  View& view = *t_views[arena.number];
  const Bytes offset = arena.data_offset(p);
  if (!arena.contains(offset)) [[unlikely]]
    return give_slow(arena, p);
  const auto unit = static_cast<std::uint32_t>(offset / kUnitBytes);
  // relaxed: who gives the slot got it from who took it, and that hand-over orders the entry
  const std::uint64_t entry = arena.entry(UnitIndex{unit}).load(std::memory_order_relaxed);
  const std::uint64_t mine = entry ^ view.tag;
  if (mine >= kTagGrain) [[unlikely]]
    return give_slow(arena, p);
  const std::uint32_t c = static_cast<std::uint32_t>(mine / kMagazineBytes);
  Cursor& k = view.cursor[c];
  const auto in_slab = static_cast<std::uint32_t>(offset) & k.slab_mask;
  if (!is_slot_start(in_slab, k.magic)) [[unlikely]]
    return give_slow(arena, p);
  const std::uint32_t slot = slot_index(in_slab, k.magic);
  const auto first = static_cast<std::uint32_t>((offset - in_slab) / kUnitBytes);
  auto* const bitmap = reinterpret_cast<BitmapWord*>(
      reinterpret_cast<std::byte*>(&arena.pages.meta(ChunkIndex{first / kUnitsPerChunk})) +
      k.bitmaps + (Bytes{first % kUnitsPerChunk} << k.bitmap_shift));
  BitmapWord& word = bitmap[slot / 64];
  const std::uint64_t old = word.load(std::memory_order_relaxed);  // only the owner writes it
  const std::uint64_t bit = std::uint64_t{1} << slot % 64;
  if ((old & bit) != 0) [[unlikely]]
    return give_slow(arena, p);
  word.store(old | bit, std::memory_order_relaxed);  // read by others as a hint only
  if (first != k.unit && (old == 0 || (old | bit) == ~std::uint64_t{0})) [[unlikely]] {
    after_give_slow(view, UnitIndex{first}, ClassIndex{c});
  }
}

// Makes the view of a thread that has just leased its lane.
void init_view(View& view, ashlar_shm& arena, std::uint32_t lane);

// Of whole pages. Null and errno. `alignment` is a power of two of at most a chunk.
void* take_large(ashlar_shm& arena, Bytes bytes, Bytes alignment);
// Takes a block and stores its offset into `slot` so that a death on the way leaks nothing.
// `fill`, if there is one, is called on the block before.
Offset take_into(ashlar_shm& arena, Bytes bytes, std::atomic<Offset>& slot,
                 bool (*publish)(std::atomic<Offset>& slot, Offset block, void* context),
                 void* context);
// The bytes of the slot or block that starts at p; 0: none does.
Bytes bytes_at(ashlar_shm& arena, const void* p);
// Changes the length of a large block where it is.
bool resize_large(ashlar_shm& arena, void* p, Bytes bytes);

}  // namespace ashlar::shm
